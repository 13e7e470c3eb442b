"""Files over sockets against the stdlib's files over the same bytes, in any order of events.

The peer says pieces of any size, half closes, cuts or resets the connection, or stays
silent; calls wait in line, are cancelled, late, or made in non-blocking mode; writers meet a
kernel that takes little.  Bytes and text, buffered and raw, plain and over TLS.

The oracle of reading is the stdlib's file over an io.BytesIO of all that the peer has said: the
calls that were answered, made there in the same order, give the same answers.  It also tells
when a call must be answered: as soon as nothing that may follow would change the answer, and
not before.  The oracle of writing is what the stdlib's file writes.

How often it runs is told in stateful.py.
"""

import asyncio
import io
import socket as _stdlib
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from faces import LIMIT
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from secured import TINY
from stateful import Machine, each_loop, run_machine
from wires import Wire, wired

import aiosock

TEXTS = st.lists(
    st.sampled_from(("x", "yz", "\n", "\r\n", "\r", "ü", "a b", "€\n")), min_size=1, max_size=4
).map("".join)
FITTING = 0  # as much as there is
SIZES = st.one_of(st.just(FITTING), st.integers(1, 12))
FOLLOWING = ("", "\n", "x", "x\nyy\nzzzzzzzzzzzzzzzzz\n")
MUCH = 100_000  # characters: more than the kernel takes for a peer that is slow
MOST = 3  # calls at once, in each direction
SEPARATOR = b"\nx"

# How a call is made on our file; and on the stdlib's, which is told our answer.
Ours = Callable[[Any, int], Any]
Theirs = Callable[[Any, int, Any], Any]


async def or_what_came(call: Any) -> bytes:
    try:
        data: bytes = await call
    except asyncio.IncompleteReadError as error:
        return error.partial
    return data


async def end_of(call: Any) -> Any:
    """What the call gives, or what it raises."""
    try:
        return await call
    except BaseException as error:
        return error


async def into(call: Callable[[bytearray], Any], size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: await call(buffer) or 0])


def up_to_separator(file: Any) -> Any:
    found = unread(file).find(SEPARATOR)
    return file.read(found + len(SEPARATOR) if found >= 0 else -1)


def unread(file: Any) -> Any:
    at = file.tell()
    rest = file.read()
    file.seek(at)
    return rest


TEXT: dict[str, tuple[Ours, Theirs]] = {
    "read": (lambda f, n: f.read(n), lambda f, n, _: f.read(n)),
    "read all": (lambda f, n: f.read(), lambda f, n, _: f.read()),
    "readline": (lambda f, n: f.readline(), lambda f, n, _: f.readline()),
    "readline of": (lambda f, n: f.readline(n), lambda f, n, _: f.readline(n)),
    "readlines": (lambda f, n: f.readlines(), lambda f, n, _: f.readlines()),
    "readlines of": (lambda f, n: f.readlines(n), lambda f, n, _: f.readlines(n)),
    "next": (lambda f, n: anext(f, f._take(0)), lambda f, n, _: f.readline()),
}
# What is free to give any number of bytes as they come, up to a size.
FREE: dict[str, tuple[Ours, Theirs]] = {
    "read1": (lambda f, n: f.read1(n), lambda f, n, a: f.read(len(a))),
    "readinto1": (lambda f, n: into(f.readinto1, n), lambda f, n, a: f.read(len(a))),
    "peek": (lambda f, n: f.peek(), lambda f, n, a: unread(f)[: len(a)]),
}
RAW: dict[str, tuple[Ours, Theirs]] = {
    **FREE,
    "raw read": (lambda f, n: f.read(n), lambda f, n, a: f.read(len(a))),
    "raw readinto": (lambda f, n: into(f.readinto, n), lambda f, n, a: f.read(len(a))),
}
BYTES: dict[str, tuple[Ours, Theirs]] = {
    **TEXT,
    **FREE,
    "readinto": (lambda f, n: into(f.readinto, n), lambda f, n, _: f.read(n)),
    "readuntil": (
        lambda f, n: or_what_came(f.readuntil(SEPARATOR)),
        lambda f, n, _: up_to_separator(f),
    ),
    "readexactly": (lambda f, n: or_what_came(f.readexactly(n)), lambda f, n, _: f.read(n)),
}
CALLS = {
    "text": TEXT,
    "bytes": BYTES,
    "raw": {**{n: c for n, c in BYTES.items() if n not in ("read", "readinto")}, **RAW},
}
ALL = {**BYTES, **RAW}
WHOLE_OR_NOTHING = {"readuntil", "readexactly"}  # in non-blocking mode


class Asked(NamedTuple):
    """One reading call."""

    name: str
    size: int

    def of_ours(self, file: Any) -> Any:
        return ALL[self.name][0](file, self.size)

    def of_theirs(self, file: Any, answer: Any) -> Any:
        return ALL[self.name][1](file, self.size, answer)

    @property
    def is_free(self) -> bool:
        return self.name in RAW and (self.size > 0 or self.name == "peek")


class Files(Machine):
    kind = ""
    sock: aiosock.socket
    wire: Wire

    @initialize(
        kind=st.sampled_from(sorted(CALLS)),
        secure=st.booleans(),
        size=st.sampled_from([-1, 3, 100]),
        newline=st.sampled_from([None, "", "\n", "\r\n"]),
    )
    def connect(self, kind: str, secure: bool, size: int, newline: str | None) -> None:
        self.kind, self.secure = kind, secure
        self.sock, self.wire = self.run(wired(self.stack, secure))
        self.sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, TINY)
        self.how: dict[str, Any] = {}
        if kind == "text":
            self.how = {"encoding": "utf-8", "errors": "replace", "newline": newline}
        mode, size = ("rw" if kind == "text" else "rwb"), (0 if kind == "raw" else size)
        file: Any = self.sock.makefile(mode, size, **self.how)
        self.file = file
        self.stack.callback(getattr(file, "buffer", file)._end)  # what is unsent is given up
        # Reading.
        self.said = bytearray()  # all that the kernel has for us
        self.held = b"", b""  # the rest of a piece: on the wire, and as it is
        self.ended: str | None = None
        self.answered: list[tuple[Asked, Any]] = []
        self.reading: list[tuple[Asked, asyncio.Task[Any]]] = []
        # Writing.
        self.got = bytearray()
        self.taken: list[Any] = []
        self.writing: list[tuple[Any, asyncio.Task[Any]]] = []

    # --- the peer ---------------------------------------------------------------------

    @precondition(lambda self: self.kind and not self.ended)
    @rule(text=TEXTS, part=st.integers(0, 100))
    def say(self, text: str, part: int) -> None:
        """A piece, of which a part comes now, and the rest before all else."""
        self.say_rest()
        data = text.encode()
        sealed = self.wire.sealed(data)
        at, known = len(sealed) * part // 100, 0 if self.secure else len(data) * part // 100
        self.wire.put(sealed[:at])
        self.said += data[:known]
        self.held = sealed[at:], data[known:]
        if not self.held[0]:
            self.say_rest()
        self.settle()

    @precondition(lambda self: self.kind and not self.ended)
    @rule()
    def say_the_rest(self) -> None:
        self.say_rest()
        self.settle()

    def say_rest(self) -> None:
        sealed, data = self.held
        self.wire.put(sealed)
        self.said += data
        self.held = b"", b""

    @precondition(lambda self: self.kind and not self.ended)
    @rule(how=st.sampled_from(["end", "cut", "reset"]), stays=st.integers(0, 5))
    def go(self, how: str, stays: int = 0) -> None:
        if stays:  # mostly, or there would be little to see
            return
        self.say_rest()
        getattr(self.wire, how)()
        self.ended = how
        self.settle()

    @precondition(lambda self: self.kind and self.ended != "reset")
    @rule()
    def take(self) -> None:
        self.got += self.wire.take()
        self.settle()

    # --- reading ------------------------------------------------------------------------

    @precondition(lambda self: self.kind)
    @rule(data=st.data(), size=SIZES)
    def read(self, data: st.DataObject, size: int) -> None:
        asked = self.asked(data, size)
        if len(self.reading) == MOST:
            return
        self.reading.append((asked, self.start(end_of(asked.of_ours(self.file)))))
        self.settle()

    @precondition(lambda self: self.kind)
    @rule(at=st.integers(0, MOST - 1))
    def stop_reading(self, at: int) -> None:
        if at < len(self.reading):
            _, task = self.reading.pop(at)
            task.cancel()
            assert isinstance(self.outcome(task), asyncio.CancelledError)
            self.settle()

    @precondition(lambda self: self.kind)
    @rule(data=st.data(), size=SIZES)
    def read_in_time(self, data: st.DataObject, size: int) -> None:
        """The time is over with the first attempt."""
        asked = self.asked(data, size)
        if self.reading:
            return
        may = self.verdict(asked)
        self.sock.settimeout(1e-9)
        outcome = self.outcome(self.start(end_of(asked.of_ours(self.file))))
        self.sock.settimeout(None)
        if isinstance(outcome, TimeoutError):
            assert may is not True
        else:
            self.note(asked, outcome)

    @precondition(lambda self: self.kind in ("bytes", "raw"))
    @rule(data=st.data(), size=SIZES)
    def read_at_once(self, data: st.DataObject, size: int) -> None:
        """In non-blocking mode the answer is what there is."""
        asked = self.asked(data, size)
        if self.reading:
            return
        may, there = self.verdict(asked), self.unread()
        self.sock.settimeout(0.0)
        outcome = self.outcome(self.start(end_of(asked.of_ours(self.file))))
        self.sock.settimeout(None)
        if may is not False:
            if not isinstance(outcome, OSError):
                self.note(asked, outcome)
        elif self.secure or asked.name in WHOLE_OR_NOTHING:
            assert isinstance(outcome, BlockingIOError | ssl.SSLWantReadError)
        else:
            joined = b"".join(outcome) if isinstance(outcome, list) else outcome or b""
            assert joined == there
            self.note(Asked("read all" if self.ended else "read", len(joined)), joined)

    def asked(self, data: st.DataObject, size: int) -> Asked:
        name = data.draw(st.sampled_from(sorted(CALLS[self.kind])))
        return Asked(name, size or max(1, len(self.unread())))

    def note(self, asked: Asked, outcome: Any) -> None:
        """An answer, which is the stdlib's; or an error, which has taken nothing."""
        if isinstance(outcome, BaseException):
            self.must_be_broken(outcome)
            return
        self.answered.append((asked, outcome))
        theirs, _ = self.replayed(bytes(self.said))
        assert outcome == theirs, asked
        if asked.is_free:
            assert outcome or self.ended
            assert len(outcome) <= asked.size or asked.name == "peek"

    def must_be_broken(self, error: BaseException) -> None:
        assert self.ended in ("cut", "reset"), error
        assert self.ended == "reset" or self.secure
        assert isinstance(error, ConnectionError | ssl.SSLError), error

    def theirs(self, data: bytes) -> Any:
        raw = io.BytesIO(data)
        return io.TextIOWrapper(raw, **self.how) if self.how else io.BufferedReader(raw)

    def replayed(self, data: bytes, *more: Asked) -> tuple[Any, Any]:
        """The last answer of the stdlib's file, and what is left in it."""
        file, last = self.theirs(data), None
        for asked, answer in [*self.answered, *((one, b"") for one in more)]:
            last = asked.of_theirs(file, answer)
        return last, file.read()

    def unread(self) -> Any:
        return self.replayed(bytes(self.said))[1]

    def verdict(self, asked: Asked) -> bool | None:
        """Whether the call has its answer now; None where it may, or an error."""
        if self.ended:
            return (
                True if self.ended == "end" or not (self.secure or self.ended == "reset") else None
            )
        if asked.is_free:
            return bool(self.unread())
        if not self.is_settled(asked, self.whole):
            return False
        known = self.whole.removesuffix(b"\r") if self.translates else self.whole
        return True if self.is_settled(asked, known, joins=True) else None

    def is_settled(self, asked: Asked, said: bytes, joins: bool = False) -> bool:
        """Whether the answer is the same whatever follows, and if it `joins`, what is left too."""
        outcomes = [self.replayed(said + more.encode(), asked) for more in FOLLOWING]
        first, rest = outcomes[0]
        following = [self.theirs(more.encode()).read() for more in FOLLOWING]
        return all(
            answer == first and (left == rest + more or not joins)
            for (answer, left), more in zip(outcomes, following, strict=True)
        )

    @property
    def whole(self) -> bytes:
        """What was said; of half a character no decoder tells."""
        said = bytes(self.said)
        return said.decode(errors="ignore").encode() if self.kind == "text" else said

    @property
    def translates(self) -> bool:
        """Whether a "\\r" waits for what follows it."""
        return self.kind == "text" and not self.how["newline"]

    def settle(self) -> None:
        """Whoever can be answered is, in the order in which they came; nobody else is."""
        self.turn()
        while self.reading:
            asked, task = self.reading[0]
            must = self.verdict(asked)
            if must is False or (must is None and not self.ended and not task.done()):
                assert not any(task.done() for _, task in self.reading)
                break
            self.note(asked, self.outcome(task))
            del self.reading[0]
        self.hear_writers()

    def outcome(self, task: asyncio.Task[Any]) -> Any:
        """What it gives or raises, soon."""
        done, _ = self.run(asyncio.wait([task], timeout=LIMIT))
        assert done, "it hangs"
        return task.result()

    # --- writing ------------------------------------------------------------------------

    @property
    def may_write(self) -> bool:
        return len(self.writing) < (1 if self.kind == "raw" else MOST)

    def piece(self, text: str, much: bool) -> Any:
        text *= 1 + much * MUCH // len(text)
        return text if self.kind == "text" else text.encode()

    @precondition(lambda self: self.kind and not self.ended)
    @rule(text=TEXTS, much=st.booleans())
    def write(self, text: str, much: bool) -> None:
        if not self.may_write:
            return
        data = self.piece(text, much)
        self.writing.append((data, self.start(end_of(self.file.write(data)))))
        if self.kind != "raw":
            self.taken.append(data)
        self.settle()

    @precondition(lambda self: self.kind and not self.ended)
    @rule()
    def flush(self) -> None:
        if self.may_write:
            self.writing.append((None, self.start(end_of(self.file.flush()))))
            self.settle()

    @precondition(lambda self: self.kind)
    @rule(at=st.integers(0, MOST - 1))
    def stop_writing(self, at: int) -> None:
        if at < len(self.writing):
            _, task = self.writing[at]
            task.cancel()
            self.outcome(task)
            self.settle()

    @precondition(lambda self: self.kind and not self.ended)
    @rule(text=TEXTS, much=st.booleans(), timeout=st.sampled_from([0.0, 1e-9]))
    def write_in_time(self, text: str, much: bool, timeout: float) -> None:
        if self.writing:
            return
        data = self.piece(text, much)
        self.sock.settimeout(timeout)
        task = self.start(end_of(self.file.write(data)))
        self.outcome(task)
        self.sock.settimeout(None)
        self.heard(data, task)

    def hear_writers(self) -> None:
        for data, task in [entry for entry in self.writing if entry[1].done()]:
            self.writing.remove((data, task))
            if self.kind == "raw" and data is not None:
                self.heard(data, task)
        assert self.expected().startswith(self.got) or self.kind == "raw"

    def heard(self, data: Any, task: asyncio.Task[Any]) -> None:
        """How much of the data was taken, as the call tells."""
        outcome = self.outcome(task)
        if isinstance(outcome, BaseException):
            word = "bytes_sent" if self.kind == "raw" else "characters_written"
            outcome = getattr(outcome, word, 0)
        self.taken.append(data[: outcome or 0])

    def expected(self) -> bytes:
        """What the stdlib's file would have sent."""
        raw = io.BytesIO()
        if self.kind != "text":
            return b"".join(self.taken)
        file = io.TextIOWrapper(raw, **self.how)
        file.writelines(self.taken)
        file.flush()
        return raw.getvalue()

    # --- the end ------------------------------------------------------------------------

    def finish(self) -> None:
        if not self.kind:
            return
        if self.ended in (None, "end") or not (self.secure or self.ended == "reset"):
            self.hear_the_rest()
        if not self.ended:
            self.go("end")
        rest = Asked("read all", 0)
        self.note(rest, self.outcome(self.start(end_of(rest.of_ours(self.file)))))
        assert self.reading == []
        closing = self.start(end_of(self.file.close()))
        self.listen_until(closing.done)
        self.outcome(closing)
        assert self.file.closed

    def hear_the_rest(self) -> None:
        """All that was taken comes, if somebody listens: over TLS, who has ended does not."""
        flush = self.sock.sendall(b"") if self.kind == "raw" else self.file.flush()
        flushing = self.start(end_of(flush))
        self.listen_until(lambda: flushing.done() and not self.writing)
        if not self.ended:
            assert flushing.result() is None
            self.listen_until(lambda: len(self.got) >= len(self.expected()))
            assert self.got == self.expected()

    def listen_until(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + LIMIT
        while not true():
            assert time.monotonic() < until, "it hangs"
            if self.ended != "reset":
                self.take()
            self.turn()


@each_loop
def test_files_give_and_send_what_the_stdlibs_do(loop: str) -> None:
    run_machine(Files, loop)
