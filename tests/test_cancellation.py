"""A cancelled or late call has lost nothing, taken nothing twice and left nothing behind.

The sweep runs every awaited method again and again.  Each time the call is stopped at
another turn of the loop: before, in and after the turn in which the event comes for which
it waits, by a cancellation or by the end of an `asyncio.timeout`, or so that its own
timeout ends in the very turn of the event.  Then the books are made up: every byte,
connection and descriptor was either delivered or is still there for the next call, the
socket works on, no descriptor is left open, and the closed socket's number serves a new
socket at once.

Behind the sweep: what happens to the caller's buffer, half-done connects and sends, name
lookups that are abandoned, and who comes next in line.

The stdlib cannot cancel a call, so nearly all of this asks aiosock alone.  Where the
stdlib leaves it unknown how much a failed `sendall` has sent, ``bytes_sent`` tells it.
"""

import asyncio
import errno
import io
import itertools
import os
import random
import socket as _stdlib
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pytest
from faces import Face, open_descriptors
from test_race import nothing_more

import aiosock

EVENT = 2  # the turn in which the awaited event comes
TURNS, MANY_TURNS = EVENT + 5, EVENT + 9
HELLO, AGAIN = b"hello", b"again"
BULK = random.Random(5).randbytes(20_000)
SMALL = 4096  # bytes of a send buffer, of which the kernel makes twice as many


# --- a call and the moment that stops it ----------------------------------------------


class Attempt:
    """A call in a task of its own, and how it ended."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.cancelled = False  # the task took a cancellation from us
        self.scope = asyncio.timeout(None)
        self.task = asyncio.create_task(self._run(call))

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> None:
        async with self.scope:
            try:
                self.value = await call()
            except BaseException as error:
                self.error = error
                raise

    @property
    def returned(self) -> bool:
        return self.value is not None

    @property
    def bytes_sent(self) -> int:
        """What the error tells; a call that was stopped before it began tells nothing."""
        return getattr(self.error, "bytes_sent", 0)

    def cancel(self) -> None:
        self.cancelled |= self.task.cancel()

    def cancel_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.cancel)

    def expire(self) -> None:
        try:
            self.scope.reschedule(asyncio.get_running_loop().time())
        except RuntimeError:  # not begun yet, or over
            self.cancel()

    def be_late(self) -> None:
        time.sleep(LATE + 0.001)

    def be_late_and_cancelled(self) -> None:
        self.be_late()
        self.cancel()

    def check(self) -> None:
        """A cancellation that was taken comes out, and no other error than was asked for."""
        assert self.task.cancelled() == self.cancelled
        if not self.cancelled:
            error = self.task.exception()
            assert error is None or isinstance(error, TimeoutError)
            if self.scope.expired():
                assert isinstance(error, TimeoutError)


LATE = 0.002
ENDLESS = 30.0


@dataclass(frozen=True)
class Moment:
    """When a call is stopped, on which side of that turn's event, and how."""

    turn: int
    event_first: bool
    stop: Callable[[Attempt], None]
    timeout: float | None


def moments(turns: Iterable[int], *ways: tuple[Callable[[Attempt], None], Any]) -> list[Moment]:
    return [
        Moment(turn, event_first, *way)
        for turn in turns
        for event_first in ((False, True) if turn >= EVENT else (False,))
        for way in ways
    ]


CANCELLED = (Attempt.cancel, None)
STOPPED = (
    CANCELLED,
    (Attempt.cancel_soon, None),
    (Attempt.cancel, ENDLESS),
    (Attempt.expire, ENDLESS),
)
TOO_LATE = moments(
    range(EVENT, EVENT + 3), (Attempt.be_late, LATE), (Attempt.be_late_and_cancelled, LATE)
)


# --- what is called, what it waits for, and the books ---------------------------------


class Case:
    """One awaited call.  `happen` makes its event, `account` makes up the books."""

    turns = TURNS
    pause = 0.0  # between the turns, for what the kernel does not report
    ends = {"returned", "stopped"}  # how its calls end in the sweep
    sock: aiosock.socket

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def keep(self, sock: Any) -> Any:
        return self.stack.enter_context(sock)

    def hold(self, raw: _stdlib.socket) -> None:
        raw.settimeout(None)
        self.sock = self.keep(aiosock.from_stdlib_socket(raw))

    def call(self) -> Awaitable[Any]:
        raise NotImplementedError

    def happen(self) -> None:
        raise NotImplementedError

    def end(self, attempt: Attempt) -> str:
        return "returned" if attempt.returned else "stopped"

    async def account(self, attempt: Attempt) -> None:
        raise NotImplementedError


Pair = tuple[_stdlib.socket, _stdlib.socket]


def tcp_pair() -> Pair:
    with _stdlib.create_server(("127.0.0.1", 0)) as listener:
        client = _stdlib.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def udp_pair() -> Pair:
    one, other = (_stdlib.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM) for _ in range(2))
    for sock in (one, other):
        sock.bind(("127.0.0.1", 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def fill(sock: _stdlib.socket, piece: bytes) -> int:
    """Send until there is no more room; how many pieces' bytes went."""
    sock.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += sock.send(piece)
    return sent


RECEIVING: dict[str, tuple[Callable[..., Any], Callable[..., bytes]]] = {
    "recv": (lambda s, b: s.recv(100), lambda v, b: v),
    "recv_into": (lambda s, b: s.recv_into(b), lambda v, b: b[:v]),
    "recvfrom": (lambda s, b: s.recvfrom(100), lambda v, b: v[0]),
    "recvfrom_into": (lambda s, b: s.recvfrom_into(b), lambda v, b: b[: v[0]]),
    "recvmsg": (lambda s, b: s.recvmsg(100), lambda v, b: v[0]),
    "recvmsg_into": (lambda s, b: s.recvmsg_into([b]), lambda v, b: b[: v[0]]),
    "wait_readable": (lambda s, b: ready(s.wait_readable()), lambda v, b: b""),
}
ALL = _stdlib.MSG_WAITALL
RECEIVING_ALL: dict[str, tuple[Callable[..., Any], Callable[..., bytes]]] = {
    "recv all": (lambda s, b: s.recv(5, ALL), lambda v, b: v),
    "recv_into all": (lambda s, b: s.recv_into(b, 5, ALL), lambda v, b: b[:v]),
    "recvmsg all": (lambda s, b: s.recvmsg(5, 0, ALL), lambda v, b: v[0]),
}


async def ready(waiting: Awaitable[None]) -> bool:
    await waiting
    return True


class Receive(Case):
    """The bytes got and the bytes still to be had are what the peer has sent."""

    pair: Callable[[], Pair] = staticmethod(tcp_pair)
    pieces: tuple[bytes, ...] = (b"he", b"llo")

    def __init__(self, stack: ExitStack, call: Callable[..., Any], data: Callable[..., bytes]):
        super().__init__(stack)
        raw, self.peer = self.pair()
        self.keep(self.peer)
        self.hold(raw)
        self.buffer = bytearray(100)
        self.to_come = list(self.pieces)
        self._call, self._data = call, data

    def call(self) -> Awaitable[Any]:
        result: Awaitable[Any] = self._call(self.sock, self.buffer)
        return result

    def happen(self) -> None:
        if self.to_come:
            self.peer.send(self.to_come.pop(0))

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        if attempt.returned:
            got = bytes(self._data(attempt.value, self.buffer))
        else:
            got = b""
            self.check_buffer()
        while len(got) < len(HELLO):
            got += await self.sock.recv(100)
        assert got == HELLO
        self.peer.send(AGAIN)
        assert await self.sock.recv(100) == AGAIN

    def check_buffer(self) -> None:
        assert not any(self.buffer)
        self.buffer.extend(b"free to be resized")


class ReceiveNext(Receive):
    """The second of two pieces: a conversation takes a shorter way through the engine."""

    turns = TURNS + 3
    pieces = (b"he", b"l", b"lo")
    first = b""

    async def call(self) -> bytes:
        self.first = await self.sock.recv(100)
        return await self.sock.recv(100)

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        got = self.first + (attempt.value or b"")
        while len(got) < len(HELLO):
            got += await self.sock.recv(100)
        assert got == HELLO
        self.peer.send(AGAIN)
        assert await self.sock.recv(100) == AGAIN


class ReceiveDatagram(Receive):
    pair = staticmethod(udp_pair)
    pieces = (HELLO,)


class ReceiveDatagrams(Receive):
    pair = staticmethod(udp_pair)


class ReceiveAll(Receive):
    def check_buffer(self) -> None:
        self.buffer.extend(b"free to be resized")


class ReceiveDescriptor(Receive):
    """A descriptor comes with the bytes or stays with them in the kernel."""

    pair = staticmethod(_stdlib.socketpair)
    pieces = (HELLO,)

    def happen(self) -> None:
        if self.to_come:
            _stdlib.send_fds(self.peer, [self.to_come.pop()], [self.peer.fileno()])

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        data, fds, _, _ = attempt.value or await aiosock.recv_fds(self.sock, 100, 4)
        for fd in fds:
            os.close(fd)
        assert (data, len(fds)) == (HELLO, 1)


class Accept(Case):
    """Each connection is returned or waits in the queue for the next call."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self.hold(_stdlib.create_server(("127.0.0.1", 0)))
        self.client: Any = None

    def call(self) -> Awaitable[Any]:
        return self.sock.accept()

    def happen(self) -> None:
        if self.client is None:
            self.client = self.keep(_stdlib.create_connection(self.sock.getsockname()))

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        await self.serve(attempt.value or await self.sock.accept())
        self.client = None
        self.happen()
        await self.serve(await self.sock.accept())

    async def serve(self, accepted: tuple[aiosock.socket, Any]) -> None:
        conn, address = accepted
        with conn:
            assert address == self.client.getsockname()
            self.client.send(HELLO)
            assert await conn.recv(100) == HELLO


class Connect(Case):
    """Connected, or good for nothing but to be closed; then its number is free."""

    def __init__(self, stack: ExitStack, method: str) -> None:
        super().__init__(stack)
        self.listener = self.keep(_stdlib.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(5)
        self.hold(_stdlib.socket())
        self.method = method

    async def call(self) -> Any:
        result = await getattr(self.sock, self.method)(self.listener.getsockname())
        return True if result is None else result

    def happen(self) -> None:
        """The kernel answers by itself."""

    def end(self, attempt: Attempt) -> str:
        late = attempt.value == errno.EAGAIN and self.method == "connect_ex"
        return "stopped" if late else super().end(attempt)

    async def account(self, attempt: Attempt) -> None:
        if self.end(attempt) == "returned":
            await greet(self.sock, self.listener)
        number = self.sock.fileno()
        self.sock.close()
        with aiosock.socket() as again, _stdlib.create_server(("127.0.0.1", 0)) as listener:
            assert again.fileno() == number
            await again.connect(listener.getsockname())
            await greet(again, listener)


async def greet(sock: aiosock.socket, listener: _stdlib.socket) -> None:
    while True:
        conn = listener.accept()[0]
        with conn:
            if conn.getpeername() == sock.getsockname():
                conn.send(HELLO)
                assert await sock.recv(100) == HELLO
                return


class ConnectToNowhere(Connect):
    """No answer comes: the listener's queue is full."""

    ends = {"stopped"}

    def __init__(self, stack: ExitStack, method: str) -> None:
        super().__init__(stack, method)
        crowd(self.listener, stack)


def crowd(listener: _stdlib.socket, stack: ExitStack) -> int:
    """Fill the queue of a listener; how many connections are in it."""
    listener.listen(0)
    for count in itertools.count():
        client = stack.enter_context(_stdlib.socket(listener.family))
        client.setblocking(False)
        error = client.connect_ex(listener.getsockname())
        if error == errno.EAGAIN or (listener.family == _stdlib.AF_INET and count == 1):
            return count
    raise AssertionError


class ConnectUnix(Case):
    """A full queue of AF_UNIX lets nobody in before somebody is taken out."""

    pause = 0.002

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self.listener = self.keep(_stdlib.socket(_stdlib.AF_UNIX))
        self.listener.bind("")
        self.before = crowd(self.listener, stack)
        self.hold(_stdlib.socket(_stdlib.AF_UNIX))
        self.taken: list[_stdlib.socket] = []

    def call(self) -> Awaitable[Any]:
        return ready(self.sock.connect(self.listener.getsockname()))

    def happen(self) -> None:
        self.listener.setblocking(False)
        with suppress(BlockingIOError):
            self.taken.append(self.keep(self.listener.accept()[0]))

    async def account(self, attempt: Attempt) -> None:
        for _ in range(self.before + 1):
            self.happen()
        assert len(self.taken) == self.before + attempt.returned
        if not attempt.returned:
            await self.sock.connect(self.listener.getsockname())
            self.happen()
        self.taken[-1].send(HELLO)
        assert await self.sock.recv(100) == HELLO


SENDING: dict[str, Callable[[aiosock.socket], Coroutine[Any, Any, int | None]]] = {
    "send": lambda s: s.send(BULK),
    "sendall": lambda s: s.sendall(BULK),
    "sendmsg": lambda s: s.sendmsg([BULK[:10], BULK[10:9000], BULK[9000:]]),
}


async def nothing(waiting: Awaitable[None]) -> int:
    await waiting
    return 0


class Send(Case):
    """What the call says that it sent is what the peer gets, and nothing follows."""

    pair: Callable[[], Pair] = staticmethod(_stdlib.socketpair)
    turns = MANY_TURNS
    ends = {"returned", "stopped", "stopped half-way"}
    data = BULK
    fds = 0  # how many go along

    def __init__(self, stack: ExitStack, call: Callable[[aiosock.socket], Any]) -> None:
        super().__init__(stack)
        raw, self.peer = self.pair()
        self.keep(self.peer).setblocking(False)
        raw.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, SMALL)
        self.filled = fill(raw, b"." * SMALL)
        self.hold(raw)
        self.got = bytearray()
        self.got_fds = 0
        self._call = call

    async def call(self) -> Any:
        sent = await self._call(self.sock)
        return len(self.data) if sent is None else sent

    def happen(self) -> None:
        with suppress(BlockingIOError):
            while self.take():
                pass

    def take(self) -> bytes:
        data, fds, _, _ = _stdlib.recv_fds(self.peer, 2**20, 4)
        for fd in fds:
            os.close(fd)
        self.got += data
        self.got_fds += len(fds)
        return data

    def end(self, attempt: Attempt) -> str:
        return super().end(attempt) + (" half-way" if attempt.bytes_sent else "")

    def sent(self, attempt: Attempt) -> int:
        return int(attempt.value) if attempt.returned else attempt.bytes_sent

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        await self.sock.sendall(AGAIN)
        self.sock.close()
        self.peer.settimeout(5)
        while self.take():
            pass
        sent = self.sent(attempt)
        assert self.got[self.filled :] == self.data[:sent] + AGAIN
        assert self.got_fds == (self.fds if sent else 0)


class WaitWritable(Send):
    ends = {"returned", "stopped"}


class SendTCP(Send):
    ends = {"returned", "stopped"}
    pair = staticmethod(tcp_pair)

    def take(self) -> bytes:
        data = self.peer.recv(2**20)
        self.got += data
        return data


class SendDescriptor(Send):
    fds = 1


class SendFile(Send):
    """The file's position follows what was sent."""

    def __init__(self, stack: ExitStack, make: Callable[[], IO[bytes]], data: bytes) -> None:
        super().__init__(stack, lambda sock: sock.sendfile(self.file))
        self.data = data
        self.file: IO[bytes] = self.keep(make())
        self.file.write(data)
        self.file.seek(0)

    async def account(self, attempt: Attempt) -> None:
        assert self.file.tell() == self.sent(attempt)
        await super().account(attempt)


class SendDatagram(Case):
    """A datagram is sent once or not at all."""

    pause = 0.002

    def __init__(self, stack: ExitStack, call: Callable[..., Any]) -> None:
        super().__init__(stack)
        self.peer = self.keep(_stdlib.socket(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM))
        self.peer.bind("")
        self.peer.setblocking(False)
        raw = _stdlib.socket(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
        raw.connect(self.peer.getsockname())
        self.filled = fill(raw, b".")
        self.hold(raw)
        self.got: list[bytes] = []
        self._call = call

    def call(self) -> Awaitable[Any]:
        result: Awaitable[Any] = self._call(self.sock, self.peer.getsockname())
        return result

    def happen(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.got.append(self.peer.recv(100))

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        await self.sock.send(AGAIN)
        self.happen()
        assert self.got[self.filled :] == [HELLO] * attempt.returned + [AGAIN]


class SendDatagrams(SendDatagram):
    """As many are sent as the error tells."""

    messages = b"one", b"two", b"three"

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        await self.sock.send(AGAIN)
        self.happen()
        sent = attempt.value or getattr(attempt.error, "messages_sent", 0)
        assert self.got[self.filled :] == [*self.messages[:sent], AGAIN]


CASES: dict[str, Callable[[ExitStack], Case]] = {
    "accept": Accept,
    "connect": partial(Connect, method="connect"),
    "connect_ex": partial(Connect, method="connect_ex"),
    "connect nowhere": partial(ConnectToNowhere, method="connect"),
    "connect_ex nowhere": partial(ConnectToNowhere, method="connect_ex"),
    "connect unix": ConnectUnix,
    "recv next": partial(ReceiveNext, call=RECEIVING["recv"][0], data=RECEIVING["recv"][1]),
    "recv_fds": partial(
        ReceiveDescriptor, call=lambda s, b: aiosock.recv_fds(s, 100, 4), data=lambda v, b: v[0]
    ),
    "recv_many": partial(
        ReceiveDatagrams,
        call=lambda s, b: s.recv_many(3),
        data=lambda v, b: b"".join(data for data, _ in v),
    ),
    "send_many": partial(
        SendDatagrams, call=lambda s, address: s.send_many(SendDatagrams.messages)
    ),
    "send tcp": partial(SendTCP, call=SENDING["send"]),
    "sendall tcp": partial(SendTCP, call=SENDING["sendall"]),
    "sendto tcp": partial(SendTCP, call=lambda s: s.sendto(BULK, s.getpeername())),
    "send_fds": partial(SendDescriptor, call=lambda s: aiosock.send_fds(s, [BULK], [s.fileno()])),
    "wait_writable": partial(WaitWritable, call=lambda s: nothing(s.wait_writable())),
    "sendfile": partial(SendFile, make=tempfile.TemporaryFile, data=BULK * 12),
    "sendfile of no file": partial(SendFile, make=io.BytesIO, data=BULK),
    "send datagram": partial(SendDatagram, call=lambda s, address: s.send(HELLO)),
    "sendto datagram": partial(SendDatagram, call=lambda s, address: s.sendto(HELLO, address)),
    "sendmsg datagram": partial(
        SendDatagram, call=lambda s, address: s.sendmsg([HELLO], (), 0, address)
    ),
}
for _name, (_call, _data) in RECEIVING.items():
    CASES[_name] = partial(Receive, call=_call, data=_data)
    CASES[_name + " datagram"] = partial(ReceiveDatagram, call=_call, data=_data)
for _name, (_call, _data) in RECEIVING_ALL.items():
    CASES[_name] = partial(ReceiveAll, call=_call, data=_data)
for _name, _send in SENDING.items():
    CASES[_name] = partial(Send, call=_send)


# --- the sweep ------------------------------------------------------------------------


async def play(make: Callable[[ExitStack], Case], moment: Moment) -> str:
    """One call, stopped at one moment; how it ended."""
    with ExitStack() as stack:
        case = make(stack)
        number = case.sock.fileno()
        case.sock.settimeout(moment.timeout)
        attempt = Attempt(case.call)
        for turn in itertools.count():
            if turn == moment.turn and not moment.event_first:
                moment.stop(attempt)
            if turn >= EVENT:
                case.happen()
            if turn == moment.turn and moment.event_first:
                moment.stop(attempt)
            await asyncio.sleep(case.pause)
            if turn >= moment.turn and attempt.task.done():
                break
        await asyncio.wait([attempt.task])
        attempt.check()
        case.sock.settimeout(None)  # who sleeps too long would be woken by a timeout
        await case.account(attempt)
        case.sock.close()
        await serves_again(number)
        return case.end(attempt)


async def serves_again(number: int) -> None:
    """A new socket with the number of one that was closed waits and wakes."""
    with ExitStack() as stack:
        for _ in range(10):
            pair = [stack.enter_context(sock) for sock in aiosock.socketpair()]
            if number in (sock.fileno() for sock in pair):
                break
        else:
            raise AssertionError("the number does not come back")
        for one, other in (pair, pair[::-1]):
            reading = asyncio.create_task(one.recv(100))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await other.send(HELLO)
            assert await reading == HELLO


async def sweep(make: Callable[[ExitStack], Case], plan: list[Moment]) -> set[str]:
    ends = set()
    for moment in plan:
        try:
            async with asyncio.timeout(10):
                with nothing_more():
                    ends.add(await play(make, moment))
        except BaseException as error:
            error.add_note(f"stopped at {moment}")
            raise
    return ends


@pytest.mark.parametrize("name", CASES)
async def test_a_call_stopped_at_any_turn_loses_nothing(name: str) -> None:
    make = CASES[name]
    with ExitStack() as stack:
        kind = type(make(stack))
    ways = (CANCELLED,) if kind.pause else STOPPED
    assert await sweep(make, moments(range(kind.turns), *ways)) >= kind.ends


@pytest.mark.parametrize("name", CASES)
async def test_a_timeout_that_ends_in_the_turn_of_the_event_loses_nothing(name: str) -> None:
    await sweep(CASES[name], TOO_LATE)


# --- the caller's buffer --------------------------------------------------------------


def unix_pair(stack: ExitStack) -> tuple[aiosock.socket, aiosock.socket]:
    one, other = aiosock.socketpair()
    return stack.enter_context(one), stack.enter_context(other)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def end_by_cancel(task: asyncio.Task[Any], sock: aiosock.socket) -> None:
    task.cancel()


def end_by_close(task: asyncio.Task[Any], sock: aiosock.socket) -> None:
    sock.close()


def end_by_timeout(task: asyncio.Task[Any], sock: aiosock.socket) -> None:
    """Its own timeout does it."""


ENDINGS = [end_by_cancel, end_by_close, end_by_timeout]

INTO: dict[str, Callable[[aiosock.socket, bytearray], Awaitable[Any]]] = {
    "recv_into": lambda s, b: s.recv_into(b),
    "recv_into some": lambda s, b: s.recv_into(b, 50),
    "recvfrom_into": lambda s, b: s.recvfrom_into(b),
    "recvmsg_into": lambda s, b: s.recvmsg_into([b]),
    "recv_into peek all": lambda s, b: s.recv_into(b, 0, ALL | _stdlib.MSG_PEEK),
    "recv_into all": lambda s, b: s.recv_into(b, 0, ALL),
    "recvmsg_into all": lambda s, b: s.recvmsg_into([b], 0, ALL),
}
FROM: dict[str, Callable[[aiosock.socket, bytearray], Awaitable[Any]]] = {
    "send": lambda s, b: s.send(b),
    "sendall": lambda s, b: s.sendall(b),
    "sendmsg": lambda s, b: s.sendmsg([b, b]),
}


async def freed(
    call: Callable[[aiosock.socket, bytearray], Awaitable[Any]],
    end: Callable[[asyncio.Task[Any], aiosock.socket], None],
    sock: aiosock.socket,
    buffer: bytearray,
) -> None:
    """The buffer may be resized where the call's error arrives, and afterwards."""
    sock.settimeout(0.01 if end is end_by_timeout else None)

    async def use() -> None:
        try:
            await call(sock, buffer)
        except (asyncio.CancelledError, OSError):
            buffer.extend(b"while the error is handled")
            raise

    task = asyncio.create_task(use())
    await turns(3)
    end(task, sock)
    with pytest.raises((asyncio.CancelledError, OSError)):
        await task


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("name", INTO)
async def test_a_stopped_call_holds_and_writes_no_buffer(
    name: str, end: Callable[..., None], stack: ExitStack
) -> None:
    sock, peer = unix_pair(stack)
    buffer = bytearray(b"." * 100)
    await freed(INTO[name], end, sock, buffer)
    pattern = bytes(buffer)
    with suppress(OSError):  # closed already
        await peer.send(HELLO)
    await turns(10)
    assert bytes(buffer) == pattern
    if end is not end_by_close:
        assert await sock.recv(100) == HELLO


@pytest.mark.parametrize("end", [end_by_cancel, end_by_close])
@pytest.mark.parametrize("name", [name for name in INTO if name.endswith(" all")])
async def test_half_a_waitall_holds_no_buffer(
    name: str, end: Callable[..., None], stack: ExitStack
) -> None:
    raw, peer = map(stack.enter_context, tcp_pair())  # AF_UNIX waits for no peek
    sock = stack.enter_context(aiosock.from_stdlib_socket(raw))
    peer.send(HELLO)
    await freed(INTO[name], end, sock, bytearray(100))


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("name", FROM)
async def test_a_stopped_send_holds_no_buffer(
    name: str, end: Callable[..., None], stack: ExitStack
) -> None:
    sock, _ = unix_pair(stack)
    if end is end_by_timeout:
        await fill_up(sock)
    await freed(FROM[name], end, sock, bytearray(1_000_000))


async def fill_up(sock: aiosock.socket) -> int:
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += await sock.send(b"." * SMALL, _stdlib.MSG_DONTWAIT)
    return sent


# --- stopped half-way -----------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0.05])
async def test_a_sendall_stopped_half_way_tells_what_the_peer_gets(
    timeout: float | None, stack: ExitStack
) -> None:
    raw, peer = map(stack.enter_context, tcp_pair())
    raw.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, SMALL)
    sock = stack.enter_context(aiosock.from_stdlib_socket(raw))
    sock.settimeout(timeout)
    sending = asyncio.create_task(sock.sendall(BULK * 500))
    await asyncio.sleep(0.02)
    if timeout is None:
        sending.cancel()
    with pytest.raises((asyncio.CancelledError, TimeoutError)) as stopped:
        await sending
    got = await drained(peer, sock)
    assert 0 < getattr(stopped.value, "bytes_sent", -1) == got < len(BULK) * 500


async def drained(peer: _stdlib.socket, sock: aiosock.socket) -> int:
    """How many bytes come until the socket, which has nothing to add, is closed."""
    await turns(10)
    sock.close()
    got = 0
    peer.settimeout(5)
    while data := peer.recv(2**20):
        got += len(data)
    return got


@pytest.mark.parametrize("name", RECEIVING)
async def test_what_half_a_waitall_had_gathered_comes_first(name: str, stack: ExitStack) -> None:
    sock, peer = unix_pair(stack)
    await peer.send(HELLO)
    gathering = asyncio.create_task(sock.recv(100, ALL))
    await turns(3)
    gathering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathering
    await peer.send(AGAIN)
    call, data = RECEIVING[name]
    buffer = bytearray(100)
    async with asyncio.timeout(5):
        value = await call(sock, buffer)
        got = bytes(data(value, buffer))
        while len(got) < 10:
            got += await sock.recv(100)
    assert got == HELLO + AGAIN


async def test_what_half_a_waitall_had_gathered_goes_to_the_next_in_line(stack: ExitStack) -> None:
    sock, peer = unix_pair(stack)
    await peer.send(HELLO)
    gathering = asyncio.create_task(sock.recv(100, ALL))
    await turns(3)
    next_in_line = asyncio.create_task(sock.recv(100))
    await turns(3)
    gathering.cancel()
    async with asyncio.timeout(1):
        assert await next_in_line == HELLO
    await peer.send(AGAIN)
    assert await sock.recv(100) == AGAIN


@pytest.mark.parametrize("timeout", [5.0, 0.0])
async def test_after_a_cancelled_connect_the_kernel_answers(
    timeout: float, stack: ExitStack
) -> None:
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0)))
    crowd(listener, stack)
    sock = stack.enter_context(aiosock.socket())
    connecting = asyncio.create_task(sock.connect(listener.getsockname()))
    await asyncio.sleep(0.01)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    sock.settimeout(timeout)
    assert await sock.connect_ex(listener.getsockname()) == errno.EALREADY


async def test_a_connect_cancelled_after_the_handshake_can_be_repeated(stack: ExitStack) -> None:
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0)))
    sock = stack.enter_context(aiosock.socket())
    connecting = asyncio.create_task(sock.connect(listener.getsockname()))
    await turns(1)
    connecting.cancel()
    with suppress(asyncio.CancelledError):
        await connecting
    assert await sock.connect_ex(listener.getsockname()) in (0, errno.EISCONN)
    await greet(sock, listener)


# --- time -----------------------------------------------------------------------------


async def test_a_deadline_in_the_past_still_makes_one_attempt(net: Face) -> None:
    one, other = net.socketpair()
    await one.sendall(HELLO)
    other.settimeout(1e-9)
    assert await other.recv(100) == HELLO
    with pytest.raises(TimeoutError, match="^timed out$"):
        await other.recv(100)


async def test_data_at_the_time_limit_is_either_returned_or_kept(stack: ExitStack) -> None:
    sock, peer = unix_pair(stack)
    chance = random.Random(6)
    returned = sent = 0
    async with asyncio.timeout(20):
        for _ in range(200):
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.002), peer_sends, peer)
            sent += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    returned += len(await sock.recv(1))
        while returned < sent:
            returned += len(await sock.recv(sent - returned))
    sock.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        await sock.recv(1)


def peer_sends(peer: aiosock.socket) -> None:
    os.write(peer.fileno(), b"x")


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  # a thread or the kernel makes it true, which can set no Event
        await asyncio.sleep(0.001)


# --- names ----------------------------------------------------------------------------


@contextmanager
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Lookups hang until the event is set, or the end."""
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(*args: Any) -> Any:
        asked.set()
        answer.wait(10)
        return [(_stdlib.AF_INET, _stdlib.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(_stdlib, "getaddrinfo", getaddrinfo)
    try:
        yield asked
    finally:
        answer.set()


LOOKING_UP: dict[str, Callable[[aiosock.socket], Awaitable[Any]]] = {
    "getaddrinfo": lambda s: aiosock.getaddrinfo("slow.invalid", 9),
    "create_connection": lambda s: aiosock.create_connection(("slow.invalid", 9)),
    "connect": lambda s: s.connect(("slow.invalid", 9)),
    "connect_ex": lambda s: s.connect_ex(("slow.invalid", 9)),
    "bind": lambda s: s.bind(("slow.invalid", 9)),
    "sendto": lambda s: s.sendto(HELLO, ("slow.invalid", 9)),
}


async def awaited(waiting: Awaitable[Any]) -> Any:
    return await waiting


@pytest.mark.parametrize("name", LOOKING_UP)
async def test_a_cancelled_lookup_returns_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    sock = stack.enter_context(aiosock.socket())
    asked = stack.enter_context(slow_names(monkeypatch))
    task = asyncio.create_task(awaited(LOOKING_UP[name](sock)))
    async with asyncio.timeout(5):
        await until(asked.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_loop_closes_while_a_lookup_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aiosock.getaddrinfo("slow.invalid", 9)

    with slow_names(monkeypatch):
        begin = time.monotonic()
        aiosock.run(leave())
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("count", range(3))
async def test_create_connection_cancelled_between_addresses_leaves_no_socket(
    count: int, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """After `count` addresses that refuse comes one that does not answer."""
    silent = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0)))
    crowd(silent, stack)
    with _stdlib.create_server(("127.0.0.1", 0)) as gone:
        refusing = gone.getsockname()
    addresses = [refusing] * count + [silent.getsockname()]
    found = [(_stdlib.AF_INET, _stdlib.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: found)
    descriptors = open_descriptors()
    async with connecting_to_many() as task:
        await until(lambda: open_descriptors() > descriptors)
        await asyncio.sleep(0.01)
        assert not task.done()
    assert open_descriptors() == descriptors


@asynccontextmanager
async def connecting_to_many() -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(awaited(aiosock.create_connection(("many.invalid", 9))))
    async with asyncio.timeout(5):
        yield task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
