"""Random programs on sockets, judged by a model: no byte lost, no descriptor left, nobody asleep.

Hypothesis chooses the steps of a program and makes a failing one short.  Each program runs on
a loop of its own, which turns only as often as a step says: what comes between two turns is
part of the program.  Whenever a program is quiet, the books are made up (see `modelled`): who
waits must have nothing to wait for by the kernel's own word, and as many sockets are open as
the model knows.

The short run has few programs, always the same.  A long one, of new programs:

    AIOSOCK_RUNS=200 .venv/bin/python -m pytest -q tests/test_stateful_sockets.py

A failing test shows its seed: AIOSOCK_SEED=... repeats the run.
"""

import asyncio
import io
import os
import random
import select
import socket as _stdlib
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import pytest
from conftest import LOOPS
from faults import RUNS, SEED, replay
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from modelled import (
    Accepting,
    Act,
    Box,
    Connection,
    Door,
    Handle,
    Hearing,
    Knocking,
    Reading,
    Sending,
    Speaking,
    open_sockets,
    polled,
)
from secured import HOST, raw_pair, usual

import aiosock

T = TypeVar("T")

FEW = 20  # programs of a short run
STEPS = 60
LIMIT = 5.0  # seconds until what must happen is given up
SHORT = 0.01  # seconds: a timeout that is waited for
LONG = 30.0  # seconds: a timeout that never comes
ROOM = 400  # bytes of a datagram, at most
AT_ONCE = struct.pack("ii", 1, 0)  # lingering for no time: closing resets

kinds = st.sampled_from(["tcp", "unix", "tls"])
picks = st.integers(0, 2**16)
turns = st.integers(0, 3)
sizes = st.one_of(st.integers(1, 50), st.integers(1, 20000))
bulks = st.integers(10**5, 4 * 10**5)
lengths = st.one_of(st.integers(0, 50), st.integers(0, 5000), bulks)
timeouts = st.sampled_from([None, None, 0.0, SHORT, LONG])


class Program(RuleBasedStateMachine):
    """A program on a loop of its own: acts that are under way, and turns of the loop."""

    make_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.make_loop()
        self.acts = list[Act]()
        self.has_failed = False  # there is no model of that
        self.turn(1)
        self.before = open_sockets()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self.judged():
            result = self.loop.run_until_complete(asyncio.wait_for(work, LIMIT))
            self.acts = [act for act in self.acts if not act.is_over()]
            return result

    @contextmanager
    def judged(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.has_failed = True
            raise

    def turn(self, times: int) -> None:
        self.run(_turn(times))

    def start(self, *acts: Act, then: int) -> None:
        async def main() -> None:
            for act in acts:
                act.start()
            await _turn(then)

        self.acts += acts
        self.run(main())

    def until(self, complaints: Callable[[], list[str]]) -> None:
        """Turn until nobody complains."""
        self.turn(2)
        started = self.loop.time()
        with self.judged():
            while found := complaints():
                assert self.loop.time() - started < LIMIT, found
                self.run(asyncio.sleep(0.001))

    def over(self, acts: list[Act]) -> None:
        self.until(lambda: ["it goes on" for act in acts if act in self.acts])

    def teardown(self) -> None:
        try:
            if not self.has_failed:
                self.finish()
                assert not self.acts
                assert open_sockets() == self.before
        finally:
            for act in self.acts:
                act.cancel()
            self.clean_up()
            self.loop.run_until_complete(_turn(3))
            self.loop.close()

    def finish(self) -> None:
        """Bring all to its end, and close it."""
        raise NotImplementedError

    def clean_up(self) -> None:
        """Close what is open, after a failure."""
        for handle in self.handles():
            handle.sock.close()

    def handles(self) -> list[Any]:
        """What is open."""
        raise NotImplementedError


def on_one(**given: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule of which the first argument is one of the open descriptors, if there is one.

    Which rules there are must not hang on who has ended by now: no precondition asks for it.
    """

    def decorate(step: Callable[..., None]) -> Any:
        def on_a_handle(self: Any, pick: int, **chosen: Any) -> None:
            if handles := self.handles():
                step(self, handles[pick % len(handles)], **chosen)

        on_a_handle.__name__ = step.__name__
        made: Any = rule  # whose overloads know no dictionary
        return made(pick=picks, **given)(on_a_handle)

    return decorate


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def first(pair: Awaitable[tuple[bytes, Any]]) -> bytes:
    return (await pair)[0]


async def message(received: Awaitable[tuple[bytes, Any, int, Any]]) -> bytes:
    data, ancillary, flags, _ = await received
    assert not ancillary
    assert not flags
    return data


def filled(receive: Callable[[bytearray], Awaitable[Any]], size: int) -> Callable[[], Any]:
    async def call() -> bytes:
        buffer = bytearray(size)
        got = await receive(buffer)
        return bytes(buffer[: got[0] if isinstance(got, tuple) else got])

    return call


READS: dict[str, Callable[[Any, int], Callable[[], Awaitable[bytes]]]] = {
    "recv": lambda sock, size: lambda: sock.recv(size),
    "recv_into": lambda sock, size: filled(sock.recv_into, size),
    "recvfrom": lambda sock, size: lambda: first(sock.recvfrom(size)),
    "recvfrom_into": lambda sock, size: filled(sock.recvfrom_into, size),
    "recvmsg": lambda sock, size: lambda: message(sock.recvmsg(size)),
    "recvmsg_into": lambda sock, size: filled(lambda buffer: sock.recvmsg_into([buffer]), size),
}
IN_TLS = ["recv", "recv_into"]


class Files:
    """What sendfile is given: one that the kernel can read, and one that it cannot."""

    @staticmethod
    def inner(payload: bytes) -> Any:
        return io.BytesIO(payload)

    @staticmethod
    def real(payload: bytes) -> Any:
        file = os.fdopen(os.memfd_create("payload"), "w+b")
        file.write(payload)
        file.seek(0)
        return file


async def send_file(sock: Any, make: Callable[[bytes], Any], payload: bytes) -> Any:
    with make(payload) as file:
        told, sent = None, 0
        try:
            sent = await sock.sendfile(file)
        except (OSError, asyncio.CancelledError) as error:
            told, sent = error, error.bytes_sent  # type: ignore[union-attr]  # ours, as documented
        assert file.tell() == sent
        if told:
            raise told
        return sent


WRITES: dict[str, Callable[[Any, bytes], Callable[[], Awaitable[Any]]]] = {
    "sendall": lambda sock, data: lambda: sock.sendall(data),
    "send": lambda sock, data: lambda: sock.send(data),
    "sendfile": lambda sock, data: lambda: send_file(sock, Files.real, data),
    "sendfile of no file": lambda sock, data: lambda: send_file(sock, Files.inner, data),
    "sendmsg": lambda sock, data: lambda: sock.sendmsg([data[:7], data[7:]]),
}
WHOLE = {"sendall", "sendfile", "sendfile of no file"}


class Streams(Program):
    """Connections of TCP and AF_UNIX, plain and over TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = list[Connection]()
        self.written = 0

    # --- what there is ----------------------------------------------------------------

    def handles(self) -> list[Handle]:
        return [handle for each in self.connections for handle in each.handles if handle.is_open]

    def waiting(self) -> list[Act]:
        return [act for handle in self.handles() for act in handle.acts]

    def complaints(self) -> list[str]:
        said = [what for each in self.connections for h in each.handles for what in h.sleepers()]
        return [what for what in said if what]

    # --- connections --------------------------------------------------------------------

    @initialize(kind=kinds, tiny=st.booleans())
    def begin(self, kind: str, tiny: bool) -> None:
        self._connect(kind, tiny)

    @rule(kind=kinds, tiny=st.booleans())
    def connect(self, kind: str, tiny: bool) -> None:
        if sum(bool(end.open) for each in self.connections for end in each.ends) < 5:
            self._connect(kind, tiny)

    def _connect(self, kind: str, tiny: bool) -> None:
        one, other = _stdlib.socketpair() if kind == "unix" else raw_pair(tiny)
        for sock in (one, other) if tiny and kind == "unix" else ():
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, 4096)
        pair = aiosock.from_stdlib_socket(one), aiosock.from_stdlib_socket(other)
        made = Connection(*pair, "unix" if kind == "unix" else "tcp")
        self.connections.append(made)
        if kind == "tls":
            self._secure(made)

    def _secure(self, made: Connection) -> None:
        client, server = (end.open[0] for end in made.ends)
        client.sock, server.sock = self.run(_secured(client.sock, server.sock))
        made.is_secure = True

    @on_one(timeout=timeouts)
    def set_timeout(self, handle: Handle, timeout: float | None) -> None:
        sock = handle.sock
        if timeout in (None, 0.0):
            sock.setblocking(timeout is None)
        else:
            sock.settimeout(timeout)
        assert sock.gettimeout() == timeout

    # --- receiving ------------------------------------------------------------------------

    @on_one(verb=st.sampled_from([*READS]), size=sizes, then=turns)
    def receive(self, handle: Handle, verb: str, size: int, then: int) -> None:
        self._receive(handle, size, 1, then, verb)

    @on_one(size=sizes, count=st.integers(2, 4), then=turns)
    def receive_at_once(self, handle: Handle, size: int, count: int, then: int) -> None:
        """Several readers of one socket."""
        self._receive(handle, size, count, then)

    def _receive(
        self, handle: Handle, size: int, count: int, then: int, verb: str = "recv"
    ) -> None:
        if any(reader.whole for reader in handle.readers) and not handle.sock.getblocking():
            return  # it takes from the midst of what another gathers, as with the stdlib's
        if handle.was_secure and verb not in IN_TLS:
            verb = IN_TLS[size % 2]
        call = READS[verb](handle.sock, size)
        self.start(*(Reading(handle, call, size) for _ in range(count)), then=then)

    @on_one(size=sizes, then=turns)
    def receive_all(self, handle: Handle, size: int, then: int) -> None:
        if not handle.end.connection.is_secure and len(handle.end.open) == 1:
            gather = partial(handle.sock.recv, size, aiosock.MSG_WAITALL)
            self.start(Reading(handle, gather, size, whole=True), then=then)

    @on_one(size=sizes, then=turns)
    def peek(self, handle: Handle, size: int, then: int) -> None:
        if not handle.end.connection.is_secure:
            look = partial(handle.sock.recv, size, aiosock.MSG_PEEK)
            self.start(Reading(handle, look, size, peeks=True), then=then)

    @on_one(then=turns)
    def wait_readable(self, handle: Handle, then: int) -> None:
        self.start(Reading(handle, handle.sock.wait_readable, 0), then=then)

    # --- sending --------------------------------------------------------------------------

    @on_one(verb=st.sampled_from([*WRITES]), size=lengths, then=turns)
    def send(self, handle: Handle, verb: str, size: int, then: int) -> None:
        self._send(handle, verb, size, then)

    def _send(self, handle: Handle, verb: str, size: int, then: int) -> None:
        others = [each for each in handle.end.open if each is not handle]
        if any(other.senders for other in others):
            return  # the kernel alone knows how two descriptors mix
        if handle.was_secure and verb == "sendmsg":
            verb = "send"
        self.written += 1
        payload = random.Random(self.written).randbytes(size)
        call = WRITES[verb](handle.sock, payload)
        self.start(Sending(handle, call, payload, verb in WHOLE), then=then)

    @on_one(verb=st.sampled_from([*WRITES]), size=lengths, then=turns, readers=st.integers(1, 3))
    def talk(self, handle: Handle, verb: str, size: int, then: int, readers: int) -> None:
        """The other side listens, before or after that."""
        ends = handle.end.connection.ends
        other = ends[handle.end is ends[0]].open
        if then and other:
            self._receive(other[0], size // readers + 1, readers, then)
        self._send(handle, verb, size, then)
        if not then and other:
            self._receive(other[0], size // readers + 1, readers, then)

    # --- ends -----------------------------------------------------------------------------

    @rule(pick=picks, then=turns)
    def cancel(self, pick: int, then: int) -> None:
        if acts := self.waiting():
            acts[pick % len(acts)].cancel()
            self.turn(then)

    @on_one(verb=st.sampled_from([*WRITES]), size=bulks, then=turns, after=turns)
    def give_a_send_up(self, handle: Handle, verb: str, size: int, then: int, after: int) -> None:
        """It says how far it got."""
        self._send(handle, verb, size, then)
        for act in handle.senders[-1:]:
            act.cancel()
        self.turn(after)

    @on_one(size=sizes, share=st.integers(1, 99), then=turns, after=turns)
    def give_a_gathering_up(
        self, handle: Handle, size: int, share: int, then: int, after: int
    ) -> None:
        """What MSG_WAITALL had by then comes first in the next call."""
        one, other = handle.end.connection.ends
        peers = (other if handle.end is one else one).open
        if not peers or handle.end.connection.is_secure or len(handle.end.open) > 1:
            return
        gather = partial(handle.sock.recv, size, aiosock.MSG_WAITALL)
        self.start(gathering := Reading(handle, gather, size, whole=True), then=then)
        self._send(peers[0], "sendall", size * share // 100, then + 1)
        gathering.cancel()
        self.turn(after)

    @on_one(how=st.sampled_from(["not yet", "not yet", "close", "reset", "half close"]))
    def end(self, handle: Handle, how: str) -> None:
        ends = {"close": self._close, "reset": self._reset, "half close": self._half_close}
        if how in ends:
            ends[how](handle)

    def _close(self, handle: Handle) -> None:
        if len(handle.end.open) == 1:
            handle.end.ends()
        self._let_go(handle, handle.sock.close)

    def _let_go(self, handle: Handle, act: Callable[[], T]) -> T:
        """Close or detach: who waits has heard of it when that is over."""
        acts, handle.is_open = handle.acts, False
        result = self.run(_now(act))
        self.over(acts)
        assert handle.sock.fileno() == -1
        return result

    def _reset(self, handle: Handle) -> None:
        if handle.end.connection.kind == "tcp" and len(handle.end.open) == 1:
            handle.sock.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_LINGER, AT_ONCE)
            handle.end.out.torn = True
            self._close(handle)

    def _half_close(self, handle: Handle) -> None:
        """In TLS that is a cut."""
        end, secure = handle.end, handle.end.connection.is_secure
        if end.out.senders or end.out.torn or (secure and end.out.ended):
            return
        with suppress(OSError):  # it is not connected any more
            handle.sock.shutdown(aiosock.SHUT_WR)
        end.out.ended = True
        if secure:
            end.out.cut = end.out.torn = True
            self._close(handle)

    # --- descriptors ------------------------------------------------------------------------

    @on_one()
    def dup(self, handle: Handle) -> None:
        if handle.was_secure or handle.gathers:
            return
        if len(handle.end.open) < 3:
            copy = handle.end.add(handle.sock.dup())
            assert copy.sock.gettimeout() == handle.sock.gettimeout()

    @on_one()
    def detach(self, handle: Handle) -> None:
        """The descriptor goes from one socket to another."""
        if handle.end.connection.is_secure or handle.gathers:
            return
        timeout = handle.sock.gettimeout()
        fd = self._let_go(handle, handle.sock.detach)
        assert os.get_blocking(fd) == (timeout is None)
        handle.end.add(aiosock.socket(fileno=fd)).sock.settimeout(timeout)

    # --- TLS --------------------------------------------------------------------------------

    def pair(self, pick: int, secure: bool) -> tuple[Handle, Handle] | None:
        """The two ends of a connection that has nothing to do."""
        self.quiet()
        idle = [c for c in self.connections if c.is_secure == secure and c.is_idle()]
        if not idle:
            return None
        one, other = idle[pick % len(idle)].ends
        for end in (one, other):
            end.open[0].sock.settimeout(None)
        return one.open[0], other.open[0]

    @rule(pick=picks)
    def start_tls(self, pick: int) -> None:
        if pair := self.pair(pick, False):
            self._secure(pair[0].end.connection)

    @rule(pick=picks, patience=turns)
    def unwrap(self, pick: int, patience: int) -> None:
        """One side tries alone at first, and gives up."""
        if pair := self.pair(pick, True):
            one, other = pair
            self.run(_given_up(one.sock.unwrap(), patience))
            self.run(_both(one.sock.unwrap(), other.sock.unwrap()))
            one.end.connection.is_secure = False

    @rule(pick=picks, patience=turns, server_side=st.booleans(), late=st.booleans())
    def give_a_handshake_up(self, pick: int, patience: int, server_side: bool, late: bool) -> None:
        """The peer is silent: the connection is closed, whoever gave up."""
        if pair := self.pair(pick, False):
            one, other = pair
            if late:
                one.sock.settimeout(SHORT)
            name = None if server_side else HOST
            shaking = one.sock.start_tls(
                usual(server_side), server_side=server_side, server_hostname=name
            )
            error = self.run(_given_up(shaking, LONG if late else patience + 1))
            assert isinstance(error, TimeoutError if late else asyncio.CancelledError)
            assert one.sock.fileno() == -1
            one.is_open = False
            self._close(other)

    # --- quiet --------------------------------------------------------------------------------

    @rule()
    def quiet(self) -> None:
        """All that can happen has happened: nobody waits who need not, and nothing is left."""
        self.until(self.complaints)
        for handle in self.handles():
            handle.holds = handle.holds and not handle.end.into.is_dry
        assert open_sockets() - self.before == len(self.handles())

    @rule()
    def let_time_pass(self) -> None:
        self.over([act for act in self.acts if act.timeout == SHORT])

    @on_one()
    def read_to_the_end(self, handle: Handle) -> None:
        """All that one end has said arrives at the other, if that has been silent so far."""
        self._read_to_the_end(handle)

    def _read_to_the_end(self, handle: Handle) -> None:
        end, pipe = handle.end, handle.end.into
        late = handle.was_secure and any(sender.timeout for sender in pipe.senders)
        unsent = pipe.held and not pipe.senders
        if len(end.open) > 1 or end.acts or unsent or pipe.torn or late:
            return
        handle.sock.settimeout(None)
        while pipe.left or pipe.senders:
            self._read_once(handle)
        handle.sock.settimeout(0.0)
        self._read_once(handle)  # and there is no more

    def _read_once(self, handle: Handle) -> None:
        act = Reading(handle, READS["recv"](handle.sock, 2**16), 2**16)
        self.start(act, then=1)
        self.over([act])

    def finish(self) -> None:
        self.quiet()
        for handle in self.handles():
            if handle.end.out.held and not handle.senders:
                handle.sock.settimeout(None)
                self._send(handle, "sendall", 1, 1)  # what is held goes out before that
        for handle in self.handles():
            self._read_to_the_end(handle)
        for handle in self.handles():
            self._close(handle)


async def _now(act: Callable[[], T]) -> T:
    return act()


async def _both(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls)


async def _secured(client: Any, server: Any) -> list[Any]:
    return await _both(
        client.start_tls(usual(False), server_hostname=HOST),
        server.start_tls(usual(True), server_side=True),
    )


async def _given_up(call: Coroutine[Any, Any, Any], patience: float) -> BaseException | None:
    """The error of a call that is cancelled after some turns, if it has not ended by itself."""
    task = asyncio.ensure_future(call)
    if patience == LONG:
        await asyncio.wait([task])
    else:
        await _turn(int(patience))
    task.cancel()
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


# --- datagrams --------------------------------------------------------------------------------


def one_of(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[list[bytes]]]:
    async def call() -> list[bytes]:
        return [await receive()]

    return call


async def many(sock: Any, most: int) -> list[bytes]:
    return [data for data, _ in await sock.recv_many(most, ROOM)]


async def once(sent: Awaitable[int], size: int) -> int:
    assert await sent == size
    return 1


class Datagrams(Program):
    """Pairs of UDP and of AF_UNIX datagrams."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = list[Box]()
        self.written = 0

    def handles(self) -> list[Box]:
        return [box for box in self.boxes if box.is_open]

    @initialize(udp=st.booleans())
    def begin(self, udp: bool) -> None:
        self._connect(udp)

    @rule(udp=st.booleans())
    def connect(self, udp: bool) -> None:
        if len(self.handles()) < 4:
            self._connect(udp)

    def _connect(self, udp: bool) -> None:
        pair = udp_pair() if udp else _stdlib.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
        one, other = (Box(aiosock.from_stdlib_socket(sock)) for sock in pair)
        one.other, other.other = other, one
        self.boxes += one, other

    @on_one(timeout=timeouts)
    def set_timeout(self, box: Box, timeout: float | None) -> None:
        box.sock.settimeout(timeout)

    @on_one(verb=st.sampled_from([*READS]), count=st.integers(1, 3), then=turns)
    def hear(self, box: Box, verb: str, count: int, then: int) -> None:
        call = one_of(READS[verb](box.sock, ROOM))
        self.start(*(Hearing(box, call) for _ in range(count)), then=then)

    @on_one(most=st.integers(1, 9), then=turns)
    def hear_many(self, box: Box, most: int, then: int) -> None:
        self.start(Hearing(box, partial(many, box.sock, most)), then=then)

    @on_one(then=turns)
    def peek(self, box: Box, then: int) -> None:
        look = one_of(partial(box.sock.recv, ROOM, aiosock.MSG_PEEK))
        self.start(Hearing(box, look, peeks=True), then=then)

    def letters(self, box: Box, count: int) -> list[bytes]:
        """So many as the receiver's buffer holds for certain, which UDP would not wait for."""
        most = 40 if box.sock.family == aiosock.AF_INET else 1000
        is_full = box.other.left + count > most or len(box.speakers) > 1
        is_full |= bool(box.speakers) and not box.sock.getblocking()  # its letters come between
        self.written += 1
        dice = random.Random(self.written)
        return [dice.randbytes(dice.randrange(ROOM)) for _ in range(0 if is_full else count)]

    @on_one(verb=st.sampled_from(["send", "sendmsg"]), then=turns)
    def say(self, box: Box, verb: str, then: int) -> None:
        for data in self.letters(box, 1):
            send = getattr(box.sock, verb)
            call = lambda: once(send([data] if verb == "sendmsg" else data), len(data))  # noqa: E731, B023  # called before the next
            self.start(Speaking(box, call, [data]), then=then)

    @on_one(count=st.one_of(st.integers(1, 30), st.integers(300, 700)), then=turns)
    def say_many(self, box: Box, count: int, then: int) -> None:
        self._say_many(box, count, then)

    def _say_many(self, box: Box, count: int, then: int) -> None:
        if letters := self.letters(box, count):
            self.start(Speaking(box, partial(box.sock.send_many, letters), letters), then=then)

    @on_one(count=st.integers(300, 700), then=turns, after=turns)
    def give_many_up(self, box: Box, count: int, then: int, after: int) -> None:
        """It says how many are on their way."""
        self._say_many(box, count, then)
        for act in box.speakers[-1:]:
            act.cancel()
        self.turn(after)

    @rule(pick=picks, then=turns)
    def cancel(self, pick: int, then: int) -> None:
        if acts := [act for box in self.handles() for act in box.acts]:
            acts[pick % len(acts)].cancel()
            self.turn(then)

    @on_one(really=st.booleans())
    def close(self, box: Box, really: bool) -> None:
        if really:
            self._close(box)

    def _close(self, box: Box) -> None:
        acts, box.is_open = box.acts, False
        self.run(_now(box.sock.close))
        self.over(acts)

    @rule()
    def quiet(self) -> None:
        self.until(lambda: [what for box in self.boxes for what in box.sleepers()])
        assert open_sockets() - self.before == len(self.handles())

    @rule()
    def let_time_pass(self) -> None:
        self.over([act for act in self.acts if act.timeout == SHORT])

    def finish(self) -> None:
        self.quiet()
        for box in self.handles():
            box.sock.settimeout(None)
            while box.left and not box.acts:
                act = Hearing(box, partial(many, box.sock, 9))
                self.start(act, then=1)
                self.over([act])
        for box in self.handles():
            self._close(box)


def udp_pair() -> tuple[_stdlib.socket, _stdlib.socket]:
    one, other = (_stdlib.socket(type=_stdlib.SOCK_DGRAM) for _ in range(2))
    for sock in (one, other):
        sock.bind(("127.0.0.1", 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


# --- arrivals ---------------------------------------------------------------------------------


class Arrivals(Program):
    """Listeners of TCP and AF_UNIX: who accepts, who connects, and who gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.doors, self.clients, self.accepted = list[Door](), list[Any](), list[Any]()

    def handles(self) -> list[Door]:
        return [door for door in self.doors if door.is_open]

    @initialize(tcp=st.booleans(), backlog=st.integers(1, 4))
    def begin(self, tcp: bool, backlog: int) -> None:
        self._listen(tcp, backlog)

    @rule(tcp=st.booleans(), backlog=st.integers(1, 4))
    def listen(self, tcp: bool, backlog: int) -> None:
        if len(self.handles()) < 2:
            self._listen(tcp, backlog)

    def _listen(self, tcp: bool, backlog: int) -> None:
        self.doors.append(Door(aiosock.from_stdlib_socket(self._bound(tcp))))
        room = 3 * STEPS if tcp else backlog  # a full one of TCP takes a second
        self.doors[-1].sock.listen(room)

    def _bound(self, tcp: bool) -> _stdlib.socket:
        sock = _stdlib.socket(_stdlib.AF_INET if tcp else _stdlib.AF_UNIX)
        sock.bind(("127.0.0.1", 0) if tcp else "")
        return sock

    @on_one(timeout=timeouts)
    def set_timeout(self, door: Door, timeout: float | None) -> None:
        door.sock.settimeout(timeout)

    @on_one(count=st.integers(1, 3), then=turns)
    def accept(self, door: Door, count: int, then: int) -> None:
        self.start(*(Accepting(door, self.accepted) for _ in range(count)), then=then)

    @on_one(timeout=timeouts, count=st.integers(1, 3), then=turns)
    def connect(self, door: Door, timeout: float | None, count: int, then: int) -> None:
        clients = [aiosock.from_stdlib_socket(self._bound(door.is_tcp)) for _ in range(count)]
        for client in clients:
            client.settimeout(timeout)
        self.clients += clients
        self.start(*(Knocking(door, client) for client in clients), then=then)

    @rule(pick=picks, then=turns)
    def cancel(self, pick: int, then: int) -> None:
        if acts := [act for door in self.handles() for act in door.acts]:
            acts[pick % len(acts)].cancel()
            self.turn(then)

    @on_one(how=st.sampled_from(["not yet", "not yet", "now"]))
    def close(self, door: Door, how: str) -> None:
        if how == "now":
            door.is_open = False
            self.run(_now(door.sock.close))
            self.over(list(door.acts))

    @rule()
    def quiet(self) -> None:
        self.until(lambda: [what for door in self.doors for what in door.sleepers()])
        known = len(self.handles()) + len(self.clients) + len(self.accepted)
        assert open_sockets() - self.before == known

    @rule()
    def let_time_pass(self) -> None:
        self.over([act for act in self.acts if act.timeout == SHORT])

    def finish(self) -> None:
        """Who has come, or may have, is let in, and nobody twice."""
        self.quiet()
        for door in self.handles():
            for act in door.acts:
                act.cancel()
            self.over(list(door.acts))
            door.sock.settimeout(0.0)
            while len(door.let_in) < len(door.came):
                self.start(Accepting(door, self.accepted), then=1)
            assert sorted(door.let_in) == sorted(door.came)
            assert not polled(door.sock, select.POLLIN)
        self.clean_up()

    def clean_up(self) -> None:
        for sock in [door.sock for door in self.doors] + self.clients + self.accepted:
            sock.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("machine", [Streams, Datagrams, Arrivals])
def test_programs(machine: type[Program], loop: str) -> None:
    print(replay())  # shown where the test fails

    made = type(machine.__name__, (machine,), {"make_loop": staticmethod(LOOPS[loop])})
    run_state_machine_as_test(
        seed(SEED)(made),
        settings=settings(
            max_examples=RUNS or FEW,
            stateful_step_count=STEPS,
            deadline=None,  # a busy machine is no fault
            database=None,
            suppress_health_check=[HealthCheck.too_slow],  # programs wait for timeouts
        ),
    )
