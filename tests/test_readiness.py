"""How tasks wait for a socket: in which order, on which loop, until when, and at what cost.

Several tasks may wait for one socket; each is served, the first comer first, one whole
operation after the other.  Whoever ends the wait (a close, a detach, a shutdown, an error
in the kernel) wakes all of them.  A registration with the loop is kept from one wait to
the next, is gone before its descriptor is, and holds no socket alive.

What the stdlib's blocking calls do in threads is asked of both; orders, cancellations
and loops are our own.  Two decisions differ from the stdlib: a close wakes whoever
waits, with EBADF (the stdlib leaves them asleep), and two `sendall` never mix their
bytes.  One is our own: a waiting task whose last name was dropped is kept alive by its
wait, and its socket with it, until the data arrives or the loop closes.
"""

import asyncio
import errno
import gc
import io
import os
import resource
import socket as _stdlib
import struct
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from conftest import LOOPS
from faces import AIOSOCK, Face

import aiosock
from aiosock._operations import Leftover
from aiosock._poller import Poller, poller_of
from aiosock._readiness import BUDGET

HELLO = b"hello"
SMALL = 4096


@pytest.fixture
def ours() -> Iterator[Face]:
    """aiosock alone."""
    with AIOSOCK.closing():
        yield AIOSOCK


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(*calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that wait, in the order given."""
    tasks = [asyncio.create_task(call) for call in calls]
    await turns()
    assert not any(task.done() for task in tasks)
    return tasks


async def fill(sock: Any) -> int:
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += await sock.send(b"." * SMALL, _stdlib.MSG_DONTWAIT)
    return sent


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- several tasks, one socket --------------------------------------------------------


async def test_readers_are_served_in_the_order_of_their_coming(ours: Face) -> None:
    one, other = ours.socketpair()
    readers = await waiting(*(one.recv(1) for _ in range(5)))
    for piece in (b"a", b"bc", b"de"):
        await other.sendall(piece)
        await turns()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*readers) == [b"a", b"b", b"c", b"d", b"e"]


async def test_a_reader_who_comes_late_does_not_jump_the_line(ours: Face) -> None:
    one, other = ours.socketpair()
    (first,) = await waiting(one.recv(1))
    await other.sendall(b"ab")
    second = asyncio.create_task(one.recv(1))
    async with asyncio.timeout(5):
        assert (await first, await second) == (b"a", b"b")


async def test_two_readers_are_both_served(net: Face) -> None:
    one, other = net.socketpair()
    readers = [asyncio.create_task(one.recv(1)) for _ in range(2)]
    await asyncio.sleep(0.02)
    await other.sendall(b"a")
    await other.sendall(b"b")
    async with asyncio.timeout(5):
        assert sorted(await asyncio.gather(*readers)) == [b"a", b"b"]


async def test_three_accepts_get_a_connection_each(net: Face) -> None:
    listener = await net.listener()
    accepting = [asyncio.create_task(listener.accept()) for _ in range(3)]
    await asyncio.sleep(0.02)
    clients = [net.socket() for _ in accepting]
    for client in clients:
        await client.connect(listener.getsockname())
    async with asyncio.timeout(5):
        accepted = await asyncio.gather(*accepting)
    assert {address for _, address in accepted} == {client.getsockname() for client in clients}
    for conn, _ in accepted:
        net.keep(conn)


async def test_accepts_are_served_in_the_order_of_their_coming(ours: Face) -> None:
    listener = await ours.listener()
    accepting = await waiting(*(listener.accept() for _ in range(3)))
    for task in accepting:
        client = ours.socket()
        await client.connect(listener.getsockname())
        async with asyncio.timeout(5):
            conn, address = await task
        ours.keep(conn)
        assert address == client.getsockname()


@pytest.mark.parametrize("place", range(4))
async def test_who_leaves_the_line_leaves_the_others_in_order(place: int, ours: Face) -> None:
    one, other = ours.socketpair()
    readers = await waiting(*(one.recv(1) for _ in range(4)))
    await cancelled(readers.pop(place))
    await other.sendall(b"abc")
    async with asyncio.timeout(5):
        assert await asyncio.gather(*readers) == [b"a", b"b", b"c"]


async def test_the_first_leaves_in_the_turn_in_which_he_is_woken(ours: Face) -> None:
    one, other = ours.socketpair()
    for late in range(5):
        first, second = await waiting(one.recv(1), one.recv(1))
        await other.sendall(b"a")
        await turns(late)
        first.cancel()
        await asyncio.wait([first])
        got = b"" if first.cancelled() else await first
        await other.sendall(b"b"[: len(got)])
        async with asyncio.timeout(5):
            assert got + await second in (b"a", b"ab")


@pytest.mark.parametrize("place", range(2))
async def test_a_waiter_whose_time_is_over_leaves_the_line(place: int, ours: Face) -> None:
    one, other = ours.socketpair()
    readers = []
    for number in range(2):
        one.settimeout(0.02 if number == place else None)
        readers += await waiting(one.recv(1))
    with pytest.raises(TimeoutError, match="^timed out$"):
        await readers.pop(place)
    await other.sendall(b"a")
    async with asyncio.timeout(5):
        assert await readers[0] == b"a"


async def lateness(call: Callable[[], Awaitable[Any]]) -> float:
    """How long after its start a call of 3 ms times out, in a loop that is never idle."""
    begun, busy = time.monotonic(), asyncio.ensure_future(never_idle())
    with pytest.raises(TimeoutError):
        await call()  # made here: its deadline counts from when it is made
    passed = time.monotonic() - begun
    busy.cancel()
    return passed


async def never_idle() -> None:
    while True:
        await turns(1)


async def test_nobody_in_line_times_out_early(stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    first = await waiting(one.recv(1))
    one.settimeout(0.003)
    for _ in range(20):
        assert await lateness(lambda: one.recv(1)) >= 0.003
    other.close()
    await first[0]


async def test_no_lookup_times_out_early(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*args: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiosock._socket.numeric_address", look_up)
    sock = stack.enter_context(aiosock.socket())
    sock.settimeout(0.003)
    for _ in range(20):
        assert await lateness(lambda: sock.connect(("name.test", 1))) >= 0.003


WRONG: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "recv": lambda s: s.recv("many"),
    "recv_into": lambda s: s.recv_into(b"constant"),
    "recvfrom": lambda s: s.recvfrom(1.5),
    "recvmsg": lambda s: s.recvmsg(None),
    "recvmsg_into": lambda s: s.recvmsg_into([b"constant"]),
    "send": lambda s: s.send("text"),
    "sendall": lambda s: s.sendall("text"),
    "sendmsg": lambda s: s.sendmsg(["text"]),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_call_behind_a_waiting_one_is_refused_at_once(name: str, net: Face) -> None:
    one, other = net.socketpair()
    await fill(one)
    others = [asyncio.create_task(call) for call in (one.recv(1), one.sendall(HELLO))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        with pytest.raises(TypeError):
            await WRONG[name](one)
    other.close()
    await asyncio.gather(*others, return_exceptions=True)


async def test_both_directions_at_once_through_tiny_buffers(net: Face) -> None:
    one, other = await net.tcp_pair()
    for sock in (one, other):
        sock.setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, SMALL)
    data = os.urandom(8 * 2**20)

    async def receive(sock: Any) -> bytes:
        got = bytearray()
        while len(got) < len(data):
            got += await sock.recv(2**16)
        return bytes(got)

    async with asyncio.timeout(20):
        *_, got, got_back = await asyncio.gather(
            one.sendall(data), other.sendall(data), receive(other), receive(one)
        )
    assert got == data
    assert got_back == data


def argument(send: str, data: bytes) -> Any:
    return {"sendmsg": [data], "sendfile": io.BytesIO(data)}.get(send, data)


@pytest.mark.parametrize("send", ["send", "sendall", "sendmsg", "sendfile"])
async def test_a_sender_who_never_waits_comes_between_no_pieces(
    send: str, stack: ExitStack
) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    sending = await waiting(one.sendall(b"A" * 10**6))
    await other.recv(10**6)  # now there is room, of which the loop has not heard
    one.setblocking(False)
    with pytest.raises(BlockingIOError) as refusal:
        await getattr(one, send)(argument(send, b"B"))
    assert getattr(refusal.value, "bytes_sent", 0) == 0
    other.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await sending[0]


async def test_a_datagram_that_never_waits_may_pass_those_that_wait(stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair(aiosock.AF_UNIX, aiosock.SOCK_DGRAM))
    sending = await waiting(one.send_many([b"A"] * 10**4))
    await asyncio.sleep(0.02)
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        await one.send(b"B")
    await other.recv(1)
    assert await one.send(b"B") == 1
    sending[0].cancel()
    await asyncio.wait(sending)


@pytest.mark.parametrize("send", ["send", "sendall", "sendmsg", "sendfile"])
async def test_two_long_sends_do_not_mix(send: str, ours: Face) -> None:
    one, other = ours.socketpair()
    one.setsockopt(ours.SOL_SOCKET, ours.SO_SNDBUF, SMALL)
    pieces = [letter * 200_000 for letter in (b"A", b"B", b"C")]
    sending = await waiting(*(getattr(one, send)(argument(send, piece)) for piece in pieces))
    got = bytearray()
    async with asyncio.timeout(10):
        while len(got) < 600_000:
            got += await other.recv(10_000)
        await asyncio.gather(*sending)
    assert bytes(got) == b"".join(pieces)


async def test_a_reader_who_leaves_does_not_disarm_a_writer(ours: Face) -> None:
    one, other = ours.socketpair()
    await fill(one)
    reading, sending = await waiting(one.recv(1), one.sendall(HELLO))
    await cancelled(reading)
    await other.recv(2**20)
    async with asyncio.timeout(5):
        await sending
    (reading,) = await waiting(one.recv(5))
    await fill(one)
    (sending,) = await waiting(one.sendall(HELLO))
    await cancelled(sending)
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await reading == HELLO


@pytest.mark.parametrize("before", range(61, 66))
async def test_a_long_send_behind_many_short_ones_is_whole(before: int, ours: Face) -> None:
    """Where a sender has to let others have a turn, he keeps his place."""
    one, other = ours.socketpair()

    async def send(letter: bytes, short: int) -> None:
        for _ in range(short):
            await one.sendall(b".")
        await one.sendall(letter * 500_000)

    sending = [asyncio.create_task(send(b"A", before)), asyncio.create_task(send(b"B", 1))]
    got = bytearray()
    async with asyncio.timeout(10):
        while len(got) < before + 1 + 1_000_000:
            got += await other.recv(100_000)
        await asyncio.gather(*sending)
    letters = bytes(got).replace(b".", b"")
    assert letters in (b"A" * 500_000 + b"B" * 500_000, b"B" * 500_000 + b"A" * 500_000)


async def test_who_lets_others_have_a_turn_leaves_his_place_when_cancelled(ours: Face) -> None:
    one, _ = ours.socketpair()
    writing = one._readiness.writing
    writing.spent[0] = BUDGET
    task = asyncio.create_task(one.sendall(HELLO))
    if not writing.line.busy:  # an eager task has begun already
        await asyncio.sleep(0)
    await cancelled(task)
    async with asyncio.timeout(5):
        await one.sendall(HELLO)


# --- short, and yet not all there is --------------------------------------------------


async def test_a_receive_that_stops_at_descriptors_goes_on_behind_them(net: Face) -> None:
    one, other = net.socketpair()
    reading = asyncio.create_task(one.recv(100))
    await asyncio.sleep(0.02)
    raw = _stdlib.fromfd(other.fileno(), other.family, other.type)
    with raw:
        _stdlib.send_fds(raw, [b"A"], [0])
        raw.send(b"B")
    async with asyncio.timeout(5):
        assert await reading == b"A"
        assert await one.recv(100) == b"B"


async def test_a_receive_that_stops_at_urgent_data_goes_on_behind_it(net: Face) -> None:
    one, other = await net.tcp_pair()
    reading = asyncio.create_task(one.recv(100))
    await asyncio.sleep(0.02)
    await other.send(b"abc")
    await other.send(b"!", net.MSG_OOB)
    await other.send(b"def")
    async with asyncio.timeout(5):
        assert await reading == b"abc"
        assert await one.recv(100) == b"def"


async def test_another_threads_reader_does_not_say_that_a_stream_is_empty(ours: Face) -> None:
    """Of its loop's events he knows nothing."""
    one, other = await ours.tcp_pair()
    (reading,) = await waiting(one.recv(2))
    await other.sendall(b"ab")
    assert await reading == b"ab"  # all that was asked for
    line = one._readiness.reading.line
    assert not line.drained
    await other.sendall(b"c")
    assert await asyncio.to_thread(asyncio.run, one.recv(100)) == b"c"
    assert not line.drained


@pytest.mark.parametrize("size", [-1, 2**70, "1", None, 1.0])
async def test_a_wrong_size_in_a_conversation_is_refused_at_once(size: Any, net: Face) -> None:
    one, other = await net.tcp_pair()

    async def read() -> None:
        while await one.recv(100) != b"go":
            pass
        with pytest.raises((ValueError, OverflowError, TypeError)):
            await one.recv(size)

    reading = asyncio.create_task(read())
    for piece in (HELLO, b"go"):
        await asyncio.sleep(0.02)
        await other.send(piece)
    async with asyncio.timeout(5):
        await reading


# --- a conversation: a peer that talks and listens in turn ----------------------------


async def in_conversation(
    ours: Face,
) -> tuple[aiosock.socket, aiosock.socket, asyncio.Task[list[bytes]]]:
    """A reader who waits for the second piece, and then for the end; the other end of it."""
    one, other = await ours.tcp_pair()

    async def read() -> list[bytes]:
        return [piece async for piece in pieces(one)]

    (reading,) = await waiting(read())
    await other.sendall(HELLO)
    await turns()
    assert one._readiness.reading.line.drained  # so it takes the shorter way
    return one, other, reading


async def pieces(sock: aiosock.socket) -> AsyncIterator[bytes]:
    while piece := await sock.recv(100):
        yield piece


async def test_a_conversation_goes_on(ours: Face) -> None:
    _, other, reading = await in_conversation(ours)
    for _ in range(3):
        await other.sendall(b"again")
        await turns()
    other.close()
    async with asyncio.timeout(5):
        assert await reading == [HELLO, b"again", b"again", b"again"]


async def test_a_false_alarm_in_a_conversation_is_waited_out(ours: Face) -> None:
    one, other, reading = await in_conversation(ours)
    thief = ours.keep(_stdlib.socket(fileno=os.dup(one.fileno())))
    await other.sendall(b"stolen")
    thief.recv(100)
    await turns()
    assert not reading.done()
    await other.sendall(b"mine")
    await turns()
    other.close()
    async with asyncio.timeout(5):
        assert await reading == [HELLO, b"mine"]


async def test_a_reader_behind_a_conversation_has_his_turn(ours: Face) -> None:
    one, other, reading = await in_conversation(ours)
    (second,) = await waiting(one.recv(100))
    for piece in (b"first", b"second"):
        await other.sendall(piece)
        await turns()
    other.close()
    async with asyncio.timeout(5):
        assert (await reading, await second) == ([HELLO, b"first"], b"second")


async def test_a_reset_ends_a_conversation_and_frees_its_place(ours: Face) -> None:
    one, other, reading = await in_conversation(ours)
    other.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await reading
        assert await one.recv(100) == b""


async def test_what_is_put_back_in_a_conversation_comes_first(ours: Face) -> None:
    one, other, reading = await in_conversation(ours)
    leftover = Leftover(one._sock, b"put back", None)
    await other.sendall(b"and on")
    one._readiness.reading.put_back(leftover.instead)
    await turns()
    other.close()
    async with asyncio.timeout(5):
        assert await reading == [HELLO, b"put back", b"and on"]


@pytest.mark.parametrize("end", ["close", "detach"])
async def test_the_end_of_the_socket_ends_a_conversation(end: str, ours: Face) -> None:
    one, _, reading = await in_conversation(ours)
    detached = getattr(one, end)()
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await reading
    if end == "detach":
        os.close(detached)


# --- the end of the socket while tasks wait -------------------------------------------


async def nowhere(ours: Face) -> Any:
    """The address of a listener that answers nobody: its queue is full."""
    listener = await ours.listener()
    listener.listen(0)
    for _ in range(2):
        client = ours.socket()
        client.setblocking(False)
        assert await client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    return listener.getsockname()


async def reading(ours: Face) -> Any:
    one, _ = ours.socketpair()
    return one


async def full(ours: Face) -> Any:
    one, _ = ours.socketpair()
    await fill(one)
    return one


async def full_datagrams(ours: Face) -> Any:
    one, _ = ours.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    await fill(one)
    return one


WAITS: dict[str, tuple[Callable[[Face], Awaitable[Any]], Callable[[Any], Any]]] = {
    "recv": (reading, lambda s: s.recv(1)),
    "recv_into": (reading, lambda s: s.recv_into(bytearray(1))),
    "recvfrom": (reading, lambda s: s.recvfrom(1)),
    "recvmsg": (reading, lambda s: s.recvmsg(1)),
    "recv all": (reading, lambda s: s.recv(2, int(_stdlib.MSG_WAITALL))),
    "wait_readable": (reading, lambda s: s.wait_readable()),
    "accept": (Face.listener, lambda s: s.accept()),
    "send": (full, lambda s: s.send(HELLO)),
    "sendall": (full, lambda s: s.sendall(HELLO)),
    "sendmsg": (full, lambda s: s.sendmsg([HELLO])),
    "sendfile": (full, lambda s: s.sendfile(io.BytesIO(HELLO))),
    "wait_writable": (full, lambda s: s.wait_writable()),
    "send a datagram": (full_datagrams, lambda s: s.send(HELLO)),
}
ENDS: dict[str, Callable[[Any], int | None]] = {
    "close": lambda sock: sock.close(),
    "detach": lambda sock: int(sock.detach()),
}


@contextmanager
def ended(end: str, sock: Any) -> Iterator[None]:
    detached = ENDS[end](sock)
    try:
        yield
    finally:
        if detached is not None:
            os.close(detached)


async def all_told_so(tasks: list[asyncio.Task[Any]]) -> None:
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for error in outcomes:
        assert isinstance(error, OSError)
        assert error.args == (errno.EBADF, os.strerror(errno.EBADF))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", WAITS)
async def test_the_end_wakes_everybody(name: str, end: str, ours: Face) -> None:
    make, call = WAITS[name]
    sock = await make(ours)
    tasks = []
    for timeout in (None, 30.0, None):
        sock.settimeout(timeout)
        tasks += await waiting(call(sock))
    with ended(end, sock):
        assert sock.fileno() == -1
        await all_told_so(tasks)


@pytest.mark.parametrize("end", ENDS)
async def test_the_end_wakes_who_connects(end: str, ours: Face) -> None:
    address = await nowhere(ours)
    sock = ours.socket()
    (connecting,) = await waiting(sock.connect(address))
    with ended(end, sock):
        await all_told_so([connecting])


async def test_the_end_in_the_turn_of_the_event_takes_nothing(ours: Face) -> None:
    for late in range(5):
        one, other = ours.socketpair()
        (task,) = await waiting(one.recv(5))
        await other.sendall(HELLO)
        await turns(late)
        fd = one.detach()
        await asyncio.wait([task])
        error = task.exception()
        with _stdlib.socket(fileno=fd) as rest:
            rest.setblocking(False)
            got = task.result() if error is None else rest.recv(5)
        assert got == HELLO
        assert error is None or isinstance(error, OSError)


async def test_a_close_under_a_waiting_task_reaches_the_peer_at_once(ours: Face) -> None:
    one, other = await ours.tcp_pair()
    (task,) = await waiting(one.recv(1))
    one.close()
    other.setblocking(False)
    assert await other.recv(1) == b""  # the loop had no turn meanwhile
    await all_told_so([task])


@pytest.mark.parametrize("how", ["SHUT_RD", "SHUT_RDWR"])
async def test_a_shutdown_wakes_readers_with_the_end_of_the_stream(how: str, net: Face) -> None:
    one, _ = await net.tcp_pair()
    readers = [asyncio.create_task(one.recv(1)) for _ in range(2)]
    await asyncio.sleep(0.02)
    one.shutdown(getattr(net, how))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*readers) == [b"", b""]


def test_a_sender_who_is_lost_with_his_loop_bars_nobody(stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    loop = asyncio.new_event_loop()
    sending = loop.create_task(one.sendall(bytes(2**24)))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    one.setblocking(False)
    other.setblocking(False)

    async def main() -> int:
        while True:
            try:
                await other.recv(2**20)
            except BlockingIOError:
                return await one.send(b"x")

    assert asyncio.run(main()) == 1
    assert not sending.done()
    sending.get_coro().close()


@pytest.mark.parametrize("how", ["SHUT_WR", "SHUT_RDWR"])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_shutdown_wakes_writers_with_a_broken_pipe(kind: str, how: str, net: Face) -> None:
    """On AF_UNIX the kernel reports nothing to a loop when only this half is shut."""
    one, _ = net.socketpair() if kind == "unix" else await net.tcp_pair()
    await fill(one)
    much = bytes(2**24)  # as there may be a little room again
    sending = [asyncio.create_task(one.sendall(much)) for _ in range(2)]
    await asyncio.sleep(0.02)
    one.shutdown(getattr(net, how))
    async with asyncio.timeout(2):
        errors = await asyncio.gather(*sending, return_exceptions=True)
    assert [(type(error), str(error)) for error in errors] == [
        (BrokenPipeError, "[Errno 32] Broken pipe")
    ] * 2


async def test_a_shutdown_of_a_listener_wakes_accept(net: Face) -> None:
    listener = await net.listener()
    accepting = asyncio.create_task(listener.accept())
    await asyncio.sleep(0.02)
    listener.shutdown(net.SHUT_RDWR)
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="Invalid argument") as refused:
            await accepting
    assert refused.value.errno == errno.EINVAL


async def test_a_shutdown_wakes_who_connects(net: Face) -> None:
    address = await nowhere(net)
    sock = net.socket()
    connecting = asyncio.create_task(sock.connect(address))
    await asyncio.sleep(0.02)
    with suppress(OSError):
        sock.shutdown(net.SHUT_RDWR)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await connecting


# --- descriptors that come back -------------------------------------------------------


@pytest.mark.parametrize("direction", ["reading", "writing"])
async def test_the_next_socket_with_the_number_waits_and_wakes(direction: str, ours: Face) -> None:
    for _ in range(5):
        old, _ = ours.socketpair()
        number = old.fileno()
        await fill(old)
        tasks = await waiting(old.recv(1), old.sendall(HELLO))
        old.close()
        one, other = ours.socketpair()
        assert one.fileno() == number
        if direction == "writing":
            await fill(one)
            (task,) = await waiting(one.sendall(HELLO))
            await other.recv(2**20)
        else:
            (task,) = await waiting(one.recv(5))
            await other.sendall(HELLO)
        async with asyncio.timeout(5):
            assert await task in (HELLO, None)
        await all_told_so(tasks)
        other.close()


@pytest.mark.parametrize("ending", ["close", "cancel", "detach"])
async def test_duplicates_wait_each_for_itself(ending: str, ours: Face) -> None:
    one, other = ours.socketpair()
    twin = ours.keep(one.dup())
    mine, his = await waiting(one.recv(1), twin.recv(1))
    detached = []
    if ending == "cancel":
        mine.cancel()
    elif ending == "close":
        one.close()
    else:
        detached.append(one.detach())
    await asyncio.wait([mine])
    assert not his.done()
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await his == b"h"
        assert await twin.recv(10) == b"ello"
    for fd in detached:
        os.close(fd)


async def test_a_detached_descriptor_waits_on_in_a_new_socket(ours: Face) -> None:
    one, other = ours.socketpair()
    (task,) = await waiting(one.recv(1))
    again = ours.socket(fileno=one.detach())
    await all_told_so([task])
    (task,) = await waiting(again.recv(5))
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await task == HELLO


async def test_a_detached_descriptor_serves_a_new_socket_before_the_old_task_has_run(
    ours: Face,
) -> None:
    one, other = ours.socketpair()
    old = await waiting(one.recv(1), one.recv(1))
    again = ours.socket(fileno=one.detach())
    task = asyncio.create_task(again.recv(5))
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await task == HELLO
    await all_told_so(old)


# --- what is kept alive, and what is not ----------------------------------------------


async def test_a_waiting_task_is_kept_alive_by_its_wait(ours: Face) -> None:
    got: list[bytes] = []

    async def read_one(sock: aiosock.socket) -> None:
        with sock:
            got.append(await sock.recv(5))

    one, other = aiosock.socketpair()
    ours.keep(other)
    known = weakref.ref(one)
    dropped = asyncio.create_task(read_one(one))
    await turns()
    del one, dropped
    gc.collect()
    assert known() is not None
    await other.sendall(HELLO)
    await turns()
    assert got == [HELLO]
    gc.collect()
    assert known() is None


@pytest.mark.parametrize("loop_name", LOOPS)
def test_closing_the_loop_frees_who_waits(loop_name: str) -> None:
    """A task left behind is destroyed with its loop, and its socket closes."""
    loop = LOOPS[loop_name]()
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed"
    one, other = aiosock.socketpair()
    known = weakref.ref(one)

    async def leave_behind(sock: aiosock.socket) -> None:
        asyncio.create_task(sock.recv(1))  # noqa: RUF006  # that nobody keeps it is what is tested
        await turns()

    loop.run_until_complete(leave_behind(one))
    del one
    with pytest.warns(ResourceWarning, match="unclosed"):
        loop.close()
    assert known() is None
    other.close()


async def test_an_idle_socket_closes_when_its_last_name_goes(ours: Face) -> None:
    """Also with a registration that was kept."""
    one, other = aiosock.socketpair()
    ours.keep(other)
    (task,) = await waiting(one.recv(5))
    await other.sendall(HELLO)
    assert await task == HELLO
    del task
    with pytest.warns(ResourceWarning, match="unclosed"):
        del one
    other.settimeout(5)
    assert await other.recv(1) == b""


async def time_out(sock: aiosock.socket) -> None:
    sock.settimeout(0.001)
    await sock.recv(1)


async def be_cancelled(sock: aiosock.socket) -> None:
    async with asyncio.timeout(0.001):
        await sock.recv(1)


async def fail(sock: aiosock.socket) -> None:
    await sock.connect("/nonexistent/socket")


async def stall(sock: aiosock.socket) -> None:
    await fill(sock)
    sock.settimeout(0.001)
    await sock.sendall(HELLO)


async def be_refused(sock: aiosock.socket) -> None:
    sock.setblocking(False)
    await sock.recv(1)


@pytest.mark.parametrize("act", [time_out, be_cancelled, fail, stall, be_refused])
async def test_no_cycle_keeps_a_socket_after_a_failure(
    act: Callable[[aiosock.socket], Awaitable[None]],
) -> None:
    one, other = aiosock.socketpair()
    known = weakref.ref(one)
    gc.collect()
    gc.disable()
    try:
        with suppress(OSError):
            await act(one)
        one.close()
        del one
        await turns()
        assert known() is None
    finally:
        gc.enable()
        other.close()


# --- the registration with the loop ---------------------------------------------------


class Registrations:
    """Counts what the poller is asked to watch, and how often it is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        for name in ("watch", "forget", "dispatch"):
            monkeypatch.setattr(Poller, name, self._counting(name))

    def _counting(self, name: str) -> Callable[..., Any]:
        original = getattr(Poller, name)

        def counting(poller: Poller, *args: Any) -> Any:
            self.calls[name] += 1
            return original(poller, *args)

        return counting


def watched() -> set[int]:
    """The descriptors that this loop's poller watches."""
    return {fd for fds in poller_of(asyncio.get_running_loop()).waiters.values() for fd in fds}


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch) -> Registrations:
    return Registrations(monkeypatch)


async def test_a_registration_is_kept_over_many_waits(
    registrations: Registrations, ours: Face
) -> None:
    one, other = await ours.tcp_pair()
    registrations.calls.clear()

    async def echo() -> None:
        while data := await other.recv(100):
            await other.sendall(data)

    echoing = asyncio.create_task(echo())
    for _ in range(100):
        await one.sendall(HELLO)
        assert await one.recv(100) == HELLO
    assert registrations.calls["watch"] <= 2
    assert registrations.calls["forget"] == 0
    one.close()
    await echoing
    other.close()
    assert watched() == set()


@pytest.mark.parametrize("end", ["close", "detach"])
@pytest.mark.parametrize("name", [name for name in WAITS if "datagram" not in name])
async def test_a_registration_ends_before_its_descriptor(name: str, end: str, ours: Face) -> None:
    make, call = WAITS[name]
    sock = await make(ours)
    number = sock.fileno()
    first, second = await waiting(call(sock), call(sock))
    await cancelled(first)
    await cancelled(second)
    assert watched() == {number}
    detached = getattr(sock, end)()
    assert watched() == set()
    if end == "detach":
        os.close(detached)


async def test_a_registration_ends_with_the_last_name_of_its_socket(ours: Face) -> None:
    one, other = aiosock.socketpair()
    ours.keep(other)
    (task,) = await waiting(one.recv(1))
    await other.sendall(b"a")
    await task
    del task
    assert watched() != set()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del one
    assert watched() == set()


async def test_a_direction_that_ends_leaves_the_other_one_watched(ours: Face) -> None:
    """A task that receives keeps its socket's descriptor, not the socket's other half."""
    one, other = aiosock.socketpair()
    ours.keep(other)
    (filling,) = await waiting(one.sendall(bytes(10**6)))
    await cancelled(filling)
    sock = ours.keep(one._sock)
    (reading,) = await waiting(one._reading.complete(None, 10, sock.recv, 10))
    del one, filling
    gc.collect()
    assert len(watched()) == 1
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await reading == HELLO


async def test_data_that_nobody_wants_does_not_spin_the_loop(
    registrations: Registrations, ours: Face
) -> None:
    one, other = ours.socketpair()
    (task,) = await waiting(one.recv(1))
    await other.sendall(HELLO)
    assert await task == b"h"
    registrations.calls.clear()
    await turns(10)
    assert registrations.calls["dispatch"] <= 1
    assert await one.recv(10) == b"ello"
    (task,) = await waiting(one.recv(10))
    await other.sendall(HELLO)
    async with asyncio.timeout(5):
        assert await task == HELLO


async def test_the_end_that_comes_with_the_last_data_is_seen(net: Face) -> None:
    """One event tells of both; a short read then says nothing about what follows."""
    one, other = await net.tcp_pair()
    reading = asyncio.create_task(one.recv(100))
    await asyncio.sleep(0.01)
    await other.sendall(HELLO)
    other.close()
    async with asyncio.timeout(5):
        assert await reading == HELLO
        assert await one.recv(100) == b""
        assert await one.recv(100) == b""


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_task_that_ends_the_program_takes_no_events_from_others(
    loop_name: str, ending: type[BaseException], ours: Face
) -> None:
    """Its exception goes through the loop, and what came in the same turn is not lost."""
    pairs = [ours.socketpair() for _ in range(5)]
    runner = asyncio.Runner(loop_factory=LOOPS[loop_name])

    async def end() -> None:
        await pairs[2][0].recv(10)
        raise ending

    async def begin() -> list[asyncio.Task[Any]]:
        tasks = [asyncio.create_task(one.recv(10)) for one, _ in pairs[:2] + pairs[3:]]
        tasks.append(asyncio.create_task(end()))
        await turns()
        return tasks

    async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[Any]:
        async with asyncio.timeout(5):
            return await asyncio.gather(*tasks, return_exceptions=True)

    with runner:
        tasks = runner.run(begin())
        for _, other in pairs:
            os.write(other.fileno(), HELLO)
        with pytest.raises(ending):
            runner.run(asyncio.sleep(0.1))
        assert runner.run(outcomes(tasks[:-1])) == [HELLO] * 4
        assert type(tasks[-1].exception()) is ending


@pytest.mark.parametrize("loop_name", LOOPS)
def test_events_that_an_interruption_swallowed_are_not_lost(
    loop_name: str, ours: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ours.socketpair()

    async def begin() -> asyncio.Task[bytes]:
        return (await waiting(one.recv(10)))[0]

    def interrupted(self: Poller, events: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def outcome(task: asyncio.Task[bytes]) -> bytes:
        async with asyncio.timeout(5):
            return await task

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        task = runner.run(begin())
        monkeypatch.setattr(Poller, "dispatch", interrupted)
        os.write(other.fileno(), HELLO)
        with pytest.raises(KeyboardInterrupt):
            runner.run(asyncio.sleep(0.1))
        assert runner.run(outcome(task)) == HELLO


# --- errors that the kernel reports ---------------------------------------------------


async def udp_pair(net: Face) -> tuple[Any, Any]:
    """Two UDP sockets; the first is connected to the second, which is not yet bound."""
    one, other = (net.socket(net.AF_INET, net.SOCK_DGRAM) for _ in range(2))
    await other.bind(("127.0.0.1", 0))
    await one.connect(other.getsockname())
    return one, other


async def test_a_refused_datagram_wakes_a_reader_and_later_data_still_comes(net: Face) -> None:
    one, other = await udp_pair(net)
    address = other.getsockname()
    other.close()
    for _ in range(3):
        task = asyncio.create_task(one.recv(100))
        await asyncio.sleep(0.02)
        await one.send(HELLO)
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionRefusedError, match="^\\[Errno 111\\]"):
                await task
    other = net.socket(net.AF_INET, net.SOCK_DGRAM)
    await other.bind(address)
    task = asyncio.create_task(one.recv(100))
    await asyncio.sleep(0.02)
    await other.sendto(HELLO, one.getsockname())
    async with asyncio.timeout(5):
        assert await task == HELLO


async def test_a_refusal_that_one_reader_takes_leaves_the_next_one_listening(ours: Face) -> None:
    one, other = await udp_pair(ours)
    address = other.getsockname()
    other.close()
    first, second = await waiting(one.recv(100), one.recv(100))
    await one.send(HELLO)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionRefusedError):
            await first
    other = ours.socket(ours.AF_INET, ours.SOCK_DGRAM)
    await other.bind(address)
    await turns()
    await other.sendto(HELLO, one.getsockname())
    async with asyncio.timeout(5):
        assert await second == HELLO


async def test_a_refusal_that_a_sender_takes_leaves_the_reader_listening(ours: Face) -> None:
    one, other = await udp_pair(ours)
    address = other.getsockname()
    other.close()
    (task,) = await waiting(one.recv(100))
    await one.send(HELLO)
    with suppress(ConnectionRefusedError):
        await one.send(HELLO)  # takes the error before the loop looks
    other = ours.socket(ours.AF_INET, ours.SOCK_DGRAM)
    await other.bind(address)
    await turns()
    await other.sendto(HELLO, one.getsockname())
    async with asyncio.timeout(5):
        if not task.done() or task.exception() is None:
            assert await task == HELLO
        else:
            assert await one.recv(100) == HELLO


async def test_data_before_a_reset_comes_first_and_the_error_once(net: Face) -> None:
    one, other = await net.tcp_pair()
    task = asyncio.create_task(one.recv(3))
    await asyncio.sleep(0.02)
    await other.sendall(HELLO)
    other.setsockopt(net.SOL_SOCKET, net.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    async with asyncio.timeout(5):
        assert await task == b"hel"
        assert await one.recv(100) == b"lo"
        with pytest.raises(ConnectionResetError, match="^\\[Errno 104\\]"):
            await one.recv(100)
        assert await one.recv(100) == b""


@pytest.mark.skipif(not hasattr(_stdlib, "MSG_ERRQUEUE"), reason="an error queue is Linux's")
async def test_an_entry_in_the_error_queue_does_not_deafen_a_reader(ours: Face) -> None:
    one, other = await udp_pair(ours)
    address = other.getsockname()
    ip_recverr = 11
    one.setsockopt(ours.IPPROTO_IP, ip_recverr, 1)
    other.close()
    (task,) = await waiting(one.recv(100))
    await one.send(HELLO)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionRefusedError):
            await task
    other = ours.socket(ours.AF_INET, ours.SOCK_DGRAM)
    await other.bind(address)
    (task,) = await waiting(one.recv(100))
    await other.sendto(HELLO, one.getsockname())
    async with asyncio.timeout(5):
        assert await task == HELLO
    data, ancdata, flags, _ = await one.recvmsg(100, 512, _stdlib.MSG_ERRQUEUE)
    assert (data, flags & _stdlib.MSG_ERRQUEUE) == (HELLO, _stdlib.MSG_ERRQUEUE)
    assert ancdata[0][:2] == (_stdlib.IPPROTO_IP, ip_recverr)


async def test_a_reset_wakes_readers_and_writers(net: Face) -> None:
    one, other = await net.tcp_pair()
    await fill(one)
    tasks = [asyncio.create_task(call) for call in (one.recv(1), one.sendall(HELLO))]
    await asyncio.sleep(0.02)
    other.close()  # with data unread: the kernel sends a reset
    async with asyncio.timeout(5):
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(error) for error in errors if isinstance(error, OSError)}
    assert ConnectionResetError in kinds
    assert kinds <= {ConnectionResetError, BrokenPipeError}


async def test_accept_without_a_descriptor_to_spare_raises_and_keeps_the_connection(
    net: Face,
) -> None:
    listener = await net.listener()
    client = net.socket()
    await client.connect(listener.getsockname())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as refused:
            await listener.accept()
        assert refused.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    async with asyncio.timeout(5):
        conn, address = await listener.accept()
    net.keep(conn)
    assert address == client.getsockname()


async def test_a_pause_that_is_cut_short_leaves_no_timer(ours: Face) -> None:
    one, _ = ours.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    one.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            await one.send(HELLO)
    one.setblocking(True)
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])  # asyncio's own loop has it
    before = [timer for timer in timers if not timer.cancelled()]
    (sending,) = await waiting(one.send(HELLO))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [timer for timer in timers if not timer.cancelled()] == before


# --- turns of the loop ----------------------------------------------------------------


async def always(call: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await call()


async def flow(ours: Face, kind: str) -> Callable[[], Awaitable[Any]]:
    """A call that never has to wait."""
    one, other = ours.socketpair(_stdlib.AF_UNIX, getattr(_stdlib, f"SOCK_{kind.split()[0]}"))

    async def both_ways() -> None:
        await one.send(b"x")
        await other.recv(1)

    async def peek() -> None:
        await other.recv(1, int(_stdlib.MSG_PEEK))

    async def both_ways_all() -> None:
        await one.sendall(b"x")
        await other.recv(1)

    async def to_nobody() -> None:
        await sender.sendto(b"x", nobody.getsockname())

    await one.send(b"x")
    sender, nobody = (ours.socket(ours.AF_INET, ours.SOCK_DGRAM) for _ in range(2))
    await nobody.bind(("127.0.0.1", 0))
    what = kind.partition(" ")[2]
    calls = {"recv": peek, "send": to_nobody, "both": both_ways, "sendall": both_ways_all}
    return calls[what]


@pytest.mark.parametrize(
    "kind",
    ["STREAM recv", "STREAM both", "STREAM sendall", "DGRAM recv", "DGRAM both", "DGRAM send"],
)
async def test_a_socket_that_is_always_ready_lets_others_run(kind: str, ours: Face) -> None:
    busy = asyncio.create_task(always(await flow(ours, kind)))
    begin = time.monotonic()
    for _ in range(20):
        await asyncio.sleep(0)
    assert time.monotonic() - begin < 5
    busy.cancel()
    await asyncio.wait([busy])
    assert busy.cancelled()


NEVER_WAITING: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "recv": lambda s: s.recv(1),
    "recv_into": lambda s: s.recv_into(bytearray(1)),
    "recvfrom": lambda s: s.recvfrom(1),
    "recvmsg": lambda s: s.recvmsg(1),
    "send": lambda s: s.send(HELLO),
    "sendall": lambda s: s.sendall(HELLO),
    "sendmsg": lambda s: s.sendmsg([HELLO]),
    "wait_readable": lambda s: s.wait_readable(),
    "wait_writable": lambda s: s.wait_writable(),
}


def by_hand(call: Coroutine[Any, Any, Any]) -> Any:
    """The outcome of a call that never gives way; no loop is there to help it."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    finally:
        call.close()
    raise AssertionError("it gave way to the loop")


@pytest.mark.parametrize("name", NEVER_WAITING)
async def test_non_blocking_mode_never_enters_the_loop(name: str, ours: Face) -> None:
    one, _ = ours.socketpair()
    await fill(one)
    one.setblocking(False)
    for _ in range(200):
        with pytest.raises(BlockingIOError, match="^\\[Errno 11\\]"):
            by_hand(NEVER_WAITING[name](one))


async def test_non_blocking_calls_that_succeed_never_enter_the_loop(ours: Face) -> None:
    one, other = ours.socketpair()
    for sock in (one, other):
        sock.setblocking(False)
    for _ in range(200):
        assert by_hand(one.send(HELLO)) == 5
        assert by_hand(other.recv(100)) == HELLO
        by_hand(other.sendall(HELLO))
        assert by_hand(one.recv_into(bytearray(5))) == 5
    listener = await ours.listener()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        by_hand(listener.accept())


def test_a_non_blocking_socket_needs_no_loop() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            by_hand(one.recv(1))
        assert by_hand(other.send(HELLO)) == 5
        assert by_hand(one.recv(100)) == HELLO


# --- loops of several threads ---------------------------------------------------------


def in_another_thread(loop_name: str, main: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
    def run() -> Any:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            return runner.run(main)

    return asyncio.to_thread(run)


@pytest.mark.parametrize("loop_name", LOOPS)
async def test_one_socket_waits_in_the_loops_of_two_threads(loop_name: str, ours: Face) -> None:
    one, other = ours.socketpair()
    here = asyncio.create_task(one.recv(1))
    there = asyncio.ensure_future(in_another_thread(loop_name, one.recv(1)))
    await asyncio.sleep(0.05)
    await other.sendall(b"ab")
    async with asyncio.timeout(5):
        assert sorted(await asyncio.gather(here, there)) == [b"a", b"b"]


@pytest.mark.parametrize("loop_name", LOOPS)
async def test_a_close_wakes_who_waits_in_another_thread(loop_name: str, ours: Face) -> None:
    one, other = ours.socketpair()
    begun = threading.Event()

    async def read() -> Any:
        begun.set()
        with pytest.raises(OSError, match="Bad file descriptor") as told:
            await one.recv(1)
        return told.value.errno

    there = asyncio.ensure_future(in_another_thread(loop_name, read()))
    await asyncio.to_thread(begun.wait)
    await asyncio.sleep(0.02)
    one.close()
    async with asyncio.timeout(5):
        assert await there == errno.EBADF
        other.settimeout(5)
        assert await other.recv(1) == b""


def test_a_socket_goes_from_one_loop_to_the_next() -> None:
    one, other = aiosock.socketpair()

    async def exchange() -> bytes:
        task = asyncio.create_task(one.recv(100))
        await turns()
        await other.sendall(HELLO)
        return await task

    with one, other:
        for make in (*LOOPS.values(), *LOOPS.values()):
            with asyncio.Runner(loop_factory=make) as runner:
                assert runner.run(exchange()) == HELLO
