"""What both ends of a connection must have seen: a model beside the sockets, and the calls on them.

Every call is an `Act`: a task, and what the model says of its outcome.  A call returns in the
step of its task in which the kernel was asked, so the order in which acts end is the order in
which bytes were given and taken, whichever descriptor they went through.

A `Pipe` is one direction of a connection: the bytes that calls say they have given, and those
that calls have seen.  What may have happened to it says which errors are no fault.
"""

import asyncio
import errno
import os
import select
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import aiosock

__all__ = [
    "Accepting",
    "Act",
    "Box",
    "Connection",
    "Door",
    "End",
    "Handle",
    "Hearing",
    "Knocking",
    "Pipe",
    "Reading",
    "Sending",
    "Speaking",
    "open_sockets",
    "polled",
]

LOST: Final = (ConnectionResetError, BrokenPipeError)
REFUSED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def open_sockets() -> int:
    """How many descriptors of this process are sockets."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(link.startswith("socket:") for link in links)


def polled(sock: aiosock.socket, events: int) -> bool:
    """Whether the kernel says that the socket is ready, or in trouble."""
    poll = select.poll()
    poll.register(sock.fileno(), events)
    return bool(poll.poll(0))


class Pipe:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.given, self.seen = bytearray(), bytearray()
        self.senders = list[Sending]()
        self.ended = False  # nothing more is sent: the end is to be seen
        self.torn = False  # the tail may be lost, and a reset may be seen
        self.cut = False  # TLS was ended by force: the other side complains of it
        self.deaf = False  # nobody listens any more: a send may fail
        self.held = False  # TLS may have encrypted what goes out with the next send

    @property
    def left(self) -> int:
        return len(self.given) - len(self.seen)

    @property
    def is_dry(self) -> bool:
        return not self.left and not self.senders and not self.held

    def shows(self, data: bytes) -> None:
        """What was seen comes next in what was given, or is being given."""
        at, given = len(self.seen), len(self.given)
        end = at + len(data)
        known = bytes(self.given[at:end])
        if end > given and self.senders:
            known += self.senders[0].payload[max(at - given, 0) : end - given]
        assert data == known, "bytes were lost, doubled or mixed"

    def take(self, data: bytes) -> None:
        self.shows(data)
        self.seen += data

    def give(self, data: bytes) -> None:
        self.given += data
        self.check()

    def check(self) -> None:
        senders = sum(len(sender.payload) for sender in self.senders[:1])
        assert len(self.seen) <= len(self.given) + senders, "more was seen than was sent"


class Handle:
    """A descriptor of one end, and who waits for it."""

    def __init__(self, end: "End", sock: Any) -> None:
        self.end, self.sock = end, sock
        self.readers, self.senders = list[Reading](), list[Sending]()
        self.is_open = True
        self.holds = False  # a cancelled MSG_WAITALL may have put something back

    @property
    def was_secure(self) -> bool:
        """Whether it is, or was, for TLS, which refuses messages and duplicates."""
        return isinstance(self.sock, aiosock.SSLSocket)

    @property
    def gathers(self) -> bool:
        """Whether bytes may be here that no other descriptor sees: of a MSG_WAITALL."""
        return self.holds or any(reader.whole for reader in self.readers)

    @property
    def acts(self) -> "list[Act]":
        return [*self.readers, *self.senders]

    def sleepers(self) -> list[str]:
        """Who waits for what has come already."""
        if not self.is_open:
            return ["waits for a closed socket"] if self.acts else []
        found = []
        if self.readers and polled(self.sock, select.POLLIN):
            found.append("a reader sleeps although there is something to read")
        if self.readers and self.readers[0].could_go_on:
            found.append("a reader sleeps although the model knows of bytes")
        if self.senders and polled(self.sock, select.POLLOUT):
            found.append("a sender sleeps although there is room")
        return found


class End:
    """One side of a connection: its descriptors, what it sends and what it receives."""

    def __init__(self, connection: "Connection", out: Pipe, into: Pipe) -> None:
        self.connection, self.out, self.into = connection, out, into
        self.handles = list[Handle]()

    def add(self, sock: Any) -> Handle:
        self.handles.append(Handle(self, sock))
        return self.handles[-1]

    @property
    def open(self) -> list[Handle]:
        return [handle for handle in self.handles if handle.is_open]

    @property
    def acts(self) -> "list[Act]":
        return [act for handle in self.handles for act in handle.acts]

    def is_clean(self) -> bool:
        """Whether a close now loses nothing."""
        return self.into.is_dry and not self.out.senders

    def ends(self) -> None:
        """Its last descriptor is about to close."""
        out, into = self.out, self.into
        out.torn |= not self.is_clean() or into.deaf
        if self.connection.is_secure and not out.ended:
            out.torn |= out.held or not polled(self.open[0].sock, select.POLLOUT)
        out.ended = into.deaf = True


class Connection:
    """Two ends and the pipes between them."""

    def __init__(self, one: Any, other: Any, kind: str) -> None:
        self.kind, self.is_secure = kind, False
        to, fro = Pipe(), Pipe()
        self.ends = End(self, to, fro), End(self, fro, to)
        for end, sock in zip(self.ends, (one, other), strict=True):
            end.add(sock)

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        return self.ends[0].out, self.ends[1].out

    @property
    def handles(self) -> list[Handle]:
        return [handle for end in self.ends for handle in end.handles]

    def is_idle(self) -> bool:
        """Whether nobody waits, each end is one descriptor, and nothing is on its way."""
        quiet = all(len(end.open) == 1 and not end.acts for end in self.ends)
        return quiet and all(pipe.is_dry and not pipe.ended for pipe in self.pipes)


class Act:
    """A call on a socket, under way or over."""

    task: "asyncio.Task[None]"

    def __init__(self, handle: Any, call: Callable[[], Awaitable[Any]]) -> None:
        self.handle, self._call = handle, call
        self.timeout = handle.sock.gettimeout()
        self.is_cancelled = False

    def start(self) -> None:
        self.enter()
        self.task = asyncio.ensure_future(self._run())

    def begin(self) -> None:
        self._begun = time.monotonic()

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    async def _run(self) -> None:
        self.begin()
        try:
            result = await self._call()
        except (OSError, asyncio.CancelledError) as error:
            self.leave()
            self.failed(error)
        else:
            self.leave()
            self.returned(result)

    def cancel(self) -> None:
        self.is_cancelled = True
        self.task.cancel()

    def is_over(self) -> bool:
        """Whether it has ended, as the model allows: raises what it does not."""
        if not self.task.done():
            return False
        if self.task.cancelled():  # before its first step
            self.leave()
            self.never_began()
        else:
            self.task.result()
        return True

    def never_began(self) -> None:
        assert self.is_cancelled

    def returned(self, result: Any) -> None:
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """Whether the error is one that may come now."""
        if isinstance(error, asyncio.CancelledError):
            assert self.is_cancelled
        elif isinstance(error, TimeoutError) and error.errno is None:
            assert error.args == ("timed out",)
            assert self.timeout
            assert time.monotonic() - self._begun >= self.timeout
        elif isinstance(error, REFUSED):
            assert self.timeout == 0.0
        elif isinstance(error, OSError) and error.errno == errno.EBADF:
            assert not self.handle.is_open
        else:
            assert self.may_fail(error), repr(error)

    def may_fail(self, error: BaseException) -> bool:
        raise NotImplementedError


class Reading(Act):
    """A call that receives at most `size` bytes: `whole` with MSG_WAITALL, a look if it `peeks`."""

    def __init__(
        self, handle: Handle, call: Any, size: int, whole: bool = False, peeks: bool = False
    ) -> None:
        super().__init__(handle, call)
        self.pipe, self.is_secure = handle.end.into, handle.end.connection.is_secure
        self.size, self.whole, self.peeks = size, whole and self.timeout is None, peeks
        self._was_ready = False

    def begin(self) -> None:
        super().begin()
        self._was_ready = self.handle.is_open and polled(self.handle.sock, select.POLLIN)

    def enter(self) -> None:
        self.handle.readers.append(self)

    def leave(self) -> None:
        self.handle.readers.remove(self)

    @property
    def could_go_on(self) -> bool:
        pipe, handles = self.pipe, self.handle.end.handles
        if pipe.held or pipe.torn or any(handle.holds for handle in handles):
            return False
        return pipe.left >= (self.size if self.whole else 1) or pipe.ended

    def returned(self, data: bytes | None) -> None:
        if data is None:  # of wait_readable
            return
        assert len(data) <= self.size
        if not data and self.size:
            assert self.pipe.ended, "an end that nobody made"
            assert not self.pipe.left or self.pipe.torn, "bytes were lost"
        elif self.peeks:
            self.pipe.shows(data)
        else:
            self.pipe.take(data)
        if self.whole:
            assert len(data) == self.size or self.pipe.ended or self.pipe.torn, "short"

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        if isinstance(error, asyncio.CancelledError) and self.whole and not self.peeks:
            self.handle.holds = True
        if isinstance(error, REFUSED) and not self.is_secure:
            assert not self._was_ready, "refused although there was something to read"

    def may_fail(self, error: BaseException) -> bool:
        if isinstance(error, ssl.SSLError):
            return self.is_secure and (self.pipe.torn or self.handle.end.out.cut)
        return isinstance(error, LOST) and self.pipe.torn


class Sending(Act):
    """A call that sends a payload, all of it where `whole`."""

    def __init__(self, handle: Handle, call: Any, payload: bytes, whole: bool) -> None:
        super().__init__(handle, call)
        self.payload, self._whole = payload, whole or self.timeout is None
        self.pipe, self.is_secure = handle.end.out, handle.end.connection.is_secure

    def enter(self) -> None:
        if self.pipe.deaf:
            self.handle.end.into.torn = True
        self.handle.senders.append(self)
        self.pipe.senders.append(self)

    def leave(self) -> None:
        self.handle.senders.remove(self)
        self.pipe.senders.remove(self)

    def never_began(self) -> None:
        super().never_began()
        self.pipe.check()

    def returned(self, sent: int | None) -> None:
        size = len(self.payload)
        assert sent in (None, size) or not self._whole, "not all was sent"
        self.pipe.held = self.is_secure and self.timeout is not None
        self.pipe.give(self.payload[:sent])

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        sent = error.bytes_sent if self._whole else getattr(error, "bytes_sent", 0)  # type: ignore[attr-defined]  # ours, as documented
        assert 0 <= sent <= len(self.payload)
        self.pipe.held |= self.is_secure
        self.pipe.give(self.payload[:sent])

    def may_fail(self, error: BaseException) -> bool:
        told = (*LOST, ssl.SSLError) if self.is_secure else LOST
        return isinstance(error, told) and (self.pipe.deaf or self.pipe.ended or self.pipe.torn)


# --- datagrams -------------------------------------------------------------------------------

GONE: Final = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.EDESTADDRREQ,
}


class Box:
    """One of two sockets that send datagrams to each other."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.is_open = sock, True
        self.given, self.seen = list[bytes](), 0  # what came here, and how much of it was taken
        self.hearers, self.speakers = list[Hearing](), list[Speaking]()
        self.other: Box = self

    @property
    def left(self) -> int:
        return len(self.given) - self.seen

    @property
    def acts(self) -> "list[Act]":
        return [*self.hearers, *self.speakers]

    def shows(self, messages: list[bytes]) -> None:
        """These come next in what was sent, or is being sent."""
        speakers = self.other.speakers
        known = self.given + (speakers[0].messages if speakers else [])
        assert messages == known[self.seen : self.seen + len(messages)], "lost, doubled or mixed"

    def sleepers(self) -> list[str]:
        found = []
        if self.acts and not self.is_open:
            found.append("waits for a closed socket")
        elif self.hearers and self.has_some():
            found.append("a reader sleeps beside a datagram")
        elif self.speakers and not (self.other.is_open and self.other.has_some()):
            found.append("a sender sleeps although there is room")
        return found

    def has_some(self) -> bool:
        return self.left > 0 or polled(self.sock, select.POLLIN)


class Hearing(Act):
    """A call that receives datagrams: a list of them."""

    def __init__(self, box: Box, call: Any, peeks: bool = False) -> None:
        super().__init__(box, call)
        self._peeks = peeks

    def enter(self) -> None:
        self.handle.hearers.append(self)

    def leave(self) -> None:
        self.handle.hearers.remove(self)

    def returned(self, messages: list[bytes]) -> None:
        assert messages
        self.handle.shows(messages)
        if not self._peeks:
            self.handle.seen += len(messages)

    def may_fail(self, error: BaseException) -> bool:
        return not self.handle.other.is_open and getattr(error, "errno", 0) in GONE


class Speaking(Act):
    """A call that sends datagrams."""

    def __init__(self, box: Box, call: Any, messages: list[bytes]) -> None:
        super().__init__(box, call)
        self.messages = messages

    def enter(self) -> None:
        self.handle.speakers.append(self)

    def leave(self) -> None:
        self.handle.speakers.remove(self)

    def returned(self, count: int) -> None:
        assert count == len(self.messages) or self.timeout == 0.0
        self._given(count)

    def failed(self, error: BaseException) -> None:
        self._given(getattr(error, "messages_sent", 0))
        if isinstance(error, ConnectionRefusedError) and self.handle.sock.family == aiosock.AF_UNIX:
            self.handle.seen = len(self.handle.given)  # Linux throws them away
        super().failed(error)

    def _given(self, count: int) -> None:
        self.handle.other.given += self.messages[:count]

    def may_fail(self, error: BaseException) -> bool:
        return not self.handle.other.is_open and getattr(error, "errno", 0) in GONE


# --- arrivals --------------------------------------------------------------------------------


class Door:
    """A listener, and who waits to go through it, on both sides."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.is_open, self.is_tcp = sock, True, sock.family == aiosock.AF_INET
        self.came, self.let_in = list[Any](), list[Any]()
        self.acts = list[Act]()

    def sleepers(self) -> list[str]:
        found = []
        if not self.is_open:
            found += ["waits for a closed door" for act in self.acts if isinstance(act, Accepting)]
        elif any(isinstance(act, Accepting) for act in self.acts):
            found += ["somebody stands at the door"] * polled(self.sock, select.POLLIN)
        if self.is_open and not polled(self.sock, select.POLLIN):
            found += ["there is room" for act in self.acts if isinstance(act, Knocking)]
        return found


class Accepting(Act):
    """A call of accept; what it returns is kept in a list."""

    def __init__(self, door: Door, kept: list[Any]) -> None:
        super().__init__(door, door.sock.accept)
        self._kept = kept

    def enter(self) -> None:
        self.handle.acts.append(self)

    def leave(self) -> None:
        self.handle.acts.remove(self)

    def returned(self, result: tuple[Any, Any]) -> None:
        sock, address = result
        self._kept.append(sock)
        self.handle.let_in.append(address)

    def may_fail(self, error: BaseException) -> bool:
        return False


class Client:
    """A socket that is to be connected."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.is_open = sock, True


class Knocking(Act):
    """A call of connect, which a cancellation or a timeout may find made already."""

    def __init__(self, door: Door, sock: Any) -> None:
        super().__init__(Client(sock), lambda: sock.connect(self._address))
        self._door, self._address = door, door.sock.getsockname()

    def enter(self) -> None:
        self._door.acts.append(self)

    def leave(self) -> None:
        self._door.acts.remove(self)

    def returned(self, result: None) -> None:
        assert self.handle.sock.getpeername() == self._address
        self._door.came.append(self.handle.sock.getsockname())

    def failed(self, error: BaseException) -> None:
        if self._door.is_tcp:  # where the kernel goes on alone
            self._door.came.append(self.handle.sock.getsockname())
        super().failed(error)

    def may_fail(self, error: BaseException) -> bool:
        return not self._door.is_open and getattr(error, "errno", 0) in GONE
