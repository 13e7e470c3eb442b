"""Many datagrams with one wait: recv_many and send_many, on both faces.

The stdlib has neither.  What they promise: each datagram comes once, in order, with its
address; the wait is for the first, in the socket's mode; an error is told once, and with
what was sent before it; others have their turn.
"""

import asyncio
import errno
import gc
import socket as _stdlib
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from faces import AIOSOCK, LIMIT, Face, count_calls, failure
from test_race import using

import aiosock
import aiosock_sync
from aiosock import _datagrams
from aiosock._readiness import Direction, Readiness

KINDS = ["udp", "unix", "seqpacket"]
of_each_kind = pytest.mark.parametrize("kind", KINDS)
REFUSED = failure(ConnectionRefusedError, errno.ECONNREFUSED)
TOO_LONG = failure(OSError, errno.EMSGSIZE)
NOT_NOW = failure(BlockingIOError, errno.EAGAIN)
CLOSED = failure(OSError, errno.EBADF)
LATE = TimeoutError, None, "timed out"
HUGE = bytes(10**6)  # longer than any datagram

Outcome = tuple[type[BaseException], int | None, str]


@pytest.fixture
async def lone() -> Any:
    """aiosock alone."""
    with AIOSOCK.closing():
        yield AIOSOCK


async def error_of(call: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(LIMIT):
            result = await call
    except OSError as error:
        return error
    pytest.fail(f"it has returned {result!r}")


def told(error: OSError) -> Outcome:
    return type(error), error.errno, error.strerror or str(error)


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that waits in the call."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.015)
    assert not task.done()
    return task


async def udp(net: Face) -> Any:
    sock = net.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    return sock


async def pair(net: Face, kind: str) -> tuple[Any, Any]:
    """Two connected sockets that keep boundaries."""
    if kind != "udp":
        of_type = {"unix": _stdlib.SOCK_DGRAM, "seqpacket": _stdlib.SOCK_SEQPACKET}[kind]
        return net.socketpair(_stdlib.AF_UNIX, of_type)
    one, other = [await udp(net) for _ in range(2)]
    await one.connect(other.getsockname())
    await other.connect(one.getsockname())
    return one, other


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def data_of(messages: list[tuple[bytes, Any]]) -> list[bytes]:
    return [data for data, _ in messages]


# --- receiving ----------------------------------------------------------------------


@of_each_kind
async def test_what_has_come_is_taken_at_once_in_order_and_no_more_than_asked(
    ours: Face, kind: str
) -> None:
    one, other = await pair(ours, kind)
    for data in numbers(9):
        await one.send(data)
    assert data_of(await other.recv_many(5)) == numbers(5)
    assert data_of(await other.recv_many(100)) == numbers(4, 5)


async def test_each_datagram_comes_with_its_sender(ours: Face) -> None:
    target, *senders = [await udp(ours) for _ in range(3)]
    for sender in senders:
        await sender.sendto(b"from me", target.getsockname())
    assert await target.recv_many(5) == [(b"from me", s.getsockname()) for s in senders]


@of_each_kind
async def test_the_first_is_waited_for(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    for _ in range(3):
        task = await waiting(other.recv_many(5))
        await one.send(b"first")
        assert data_of(await task) == [b"first"]


@of_each_kind
async def test_who_waits_longer_than_the_timeout_is_late(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    other.settimeout(0.03)
    assert told(await error_of(other.recv_many(5))) == LATE
    await one.send(b"in time")
    assert data_of(await other.recv_many(5)) == [b"in time"]


@of_each_kind
async def test_nothing_is_waited_for_where_that_is_not_wanted(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    assert told(await error_of(other.recv_many(5, flags=_stdlib.MSG_DONTWAIT))) == NOT_NOW
    other.settimeout(0.0)
    assert told(await error_of(other.recv_many(5))) == NOT_NOW
    await one.send(b"here")
    assert data_of(await other.recv_many(5)) == [b"here"]


async def test_the_error_queue_is_not_waited_for(ours: Face) -> None:
    sock = await udp(ours)
    assert told(await error_of(sock.recv_many(5, flags=_stdlib.MSG_ERRQUEUE))) == NOT_NOW


async def test_a_queue_that_was_emptied_is_not_tried_before_the_next_event(
    lone: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await pair(lone, "udp")
    task = await waiting(other.recv_many(5))
    await one.send(b"x")
    await task
    calls = count_calls(monkeypatch, "recvfrom")
    task = await waiting(other.recv_many(5))
    assert calls == []
    await one.send(b"x")
    await task
    assert len(calls) == 2  # the message, and the end of them


@of_each_kind
async def test_empty_datagrams_are_messages_too(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    for data in b"", b"full", b"":
        await one.send(data)
    got: list[bytes] = []
    while len(got) < 3:
        got += data_of(await other.recv_many(5))
    assert got == [b"", b"full", b""]


async def test_an_empty_message_of_a_connection_ends_the_list(ours: Face) -> None:
    one, other = await pair(ours, "seqpacket")
    for data in b"one", b"", b"two":
        await one.send(data)
    one.close()
    assert data_of(await other.recv_many(5)) == [b"one", b""]
    assert data_of(await other.recv_many(5)) == [b"two", b""]
    assert data_of(await other.recv_many(5)) == [b""]


async def test_after_an_empty_message_of_a_connection_the_next_need_not_be_waited_for(
    lone: Face,
) -> None:
    one, other = await pair(lone, "seqpacket")
    task = await waiting(other.recv_many(5))
    for data in b"", b"there already":
        await one.send(data)
    assert data_of(await task) == [b""]
    assert data_of(await asyncio.wait_for(other.recv_many(5), LIMIT)) == [b"there already"]


@of_each_kind
@pytest.mark.parametrize("flags", [0, _stdlib.MSG_TRUNC])
async def test_what_does_not_fit_is_cut_off(ours: Face, kind: str, flags: int) -> None:
    one, other = await pair(ours, kind)
    for data in b"0123456789", b"abc":
        await one.send(data)
    assert data_of(await other.recv_many(5, 4, flags)) == [b"0123", b"abc"]


async def test_the_longest_datagram_fits_unless_another_size_is_given(ours: Face) -> None:
    one, other = await pair(ours, "udp")
    await one.send(bytes(65507))
    assert data_of(await other.recv_many(5)) == [bytes(65507)]


@of_each_kind
async def test_peeking_shows_the_first_and_takes_none(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    task = await waiting(other.recv_many(5, flags=_stdlib.MSG_PEEK))
    for data in b"one", b"two":
        await one.send(data)
    assert data_of(await task) == [b"one"]
    assert data_of(await other.recv_many(5)) == [b"one", b"two"]


async def test_however_many_are_asked_for_there_is_a_limit(
    ours: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_datagrams, "MOST", 3)
    one, other = await pair(ours, "udp")
    for data in numbers(4):
        await one.send(data)
    assert data_of(await other.recv_many(10**30)) == numbers(3)
    assert data_of(await other.recv_many(10**30)) == numbers(1, 3)


async def test_what_makes_no_sense_is_refused_in_clear_words(ours: Face) -> None:
    one, other = await pair(ours, "udp")
    await one.send(b"untouched")
    for wrong in 0, -1:
        with pytest.raises(ValueError, match=f"^max must be at least 1, not {wrong}$"):
            await other.recv_many(wrong)
    for no_number in "5", 5.0, None:
        with pytest.raises(TypeError, match="object cannot be interpreted as an integer"):
            await other.recv_many(no_number)
    with pytest.raises(ValueError, match="negative buffersize in recvfrom"):
        await other.recv_many(5, -1)
    with pytest.raises(TypeError):
        await other.recv_many(5, 10, "flags")
    assert data_of(await other.recv_many(5)) == [b"untouched"]


async def test_a_stream_has_no_messages(ours: Face) -> None:
    one, _ = ours.socketpair()
    has_none = "is for messages, and a stream has none"
    with pytest.raises(ValueError, match=f"^recv_many {has_none}: use recv$"):
        await one.recv_many(5)
    with pytest.raises(ValueError, match=f"^send_many {has_none}: use sendall$"):
        await one.send_many([b"x"])


@pytest.mark.parametrize("call", ["recv_many", "send_many"])
async def test_a_closed_socket_is_told_of(ours: Face, call: str) -> None:
    one, _ = await pair(ours, "udp")
    one.close()
    argument = 5 if call == "recv_many" else [b"x"]
    assert told(await error_of(getattr(one, call)(argument))) == CLOSED


async def test_closing_wakes_who_waits_for_many(ours: Face) -> None:
    one, _ = await pair(ours, "udp")
    task = await waiting(error_of(one.recv_many(5)))
    one.close()
    assert told(await task) == CLOSED


async def test_several_who_wait_are_served_in_turn(lone: Face) -> None:
    one, other = await pair(lone, "udp")
    tasks = [asyncio.create_task(other.recv_many(2)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for data in numbers(6):
        await one.send(data)
    assert [data_of(await task) for task in tasks] == [
        numbers(2),
        numbers(2, 2),
        numbers(2, 4),
    ]


async def test_who_receives_without_end_lets_others_have_their_turn(lone: Face) -> None:
    one, other = await pair(lone, "udp")
    turns, got = 0, 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    peer = _stdlib.socket(fileno=_stdlib.dup(one.fileno()))
    with peer:
        for _ in range(40):
            for _ in range(32):
                peer.send(b"x")
            got += len(await other.recv_many(32))
    counting.cancel()
    assert got == 40 * 32
    assert turns >= 5


# --- errors behind the first --------------------------------------------------------


def raising_behind(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, error: Callable[[], BaseException]
) -> None:
    """The stdlib's method raises once, behind so many calls that have succeeded."""
    real, outcomes = getattr(_stdlib.socket, name), iter([*[False] * count, True])

    def call(*args: Any) -> Any:
        if next(outcomes, False):
            raise error()
        return real(*args)

    call.__name__ = name
    monkeypatch.setattr(_stdlib.socket, name, call, raising=False)


def refusal() -> OSError:
    return ConnectionRefusedError(*REFUSED[1:])


async def test_a_refusal_comes_first_and_once_and_the_datagrams_after_it(ours: Face) -> None:
    gone, sock = await udp(ours), await udp(ours)
    address = gone.getsockname()
    await sock.connect(address)
    await gone.sendto(b"farewell", sock.getsockname())
    gone.close()
    await sock.send(b"anybody?")
    await asyncio.sleep(0.01)
    assert told(await error_of(sock.recv_many(5))) == REFUSED
    assert data_of(await sock.recv_many(5)) == [b"farewell"]


@pytest.mark.parametrize("after", ["recv_many", "recv", "recvfrom", "recvmsg", "recv_into"])
async def test_an_error_behind_the_first_is_raised_by_the_next_receive(
    ours: Face, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    one, other = await pair(ours, "udp")
    for data in numbers(4):
        await one.send(data)
    raising_behind(monkeypatch, "recvfrom", 2, refusal)
    assert data_of(await other.recv_many(5)) == numbers(2)
    argument = bytearray(10) if after == "recv_into" else 10
    assert told(await error_of(getattr(other, after)(argument))) == REFUSED
    assert data_of(await other.recv_many(5)) == numbers(2, 2)
    other.settimeout(0.02)
    assert told(await error_of(other.recv_many(5))) == LATE


async def test_an_error_that_is_kept_keeps_no_socket_open(
    lone: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await pair(lone, "udp")
    sock = aiosock.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    for _ in range(2):
        await one.sendto(b"x", sock.getsockname())
    raising_behind(monkeypatch, "recvfrom", 1, refusal)
    assert len(await sock.recv_many(5)) == 1
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del sock
        assert [warning.category for warning in caught] == [ResourceWarning]
    finally:
        gc.enable()


# --- sending ------------------------------------------------------------------------


@of_each_kind
async def test_a_connected_socket_sends_plain_messages(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    messages = [b"one", bytearray(b"two"), memoryview(b"three"), (b"four", None), b""]
    assert await one.send_many(messages) == 5
    assert data_of(await other.recv_many(9)) == [b"one", b"two", b"three", b"four", b""]


async def test_each_message_may_have_an_address_of_its_own(ours: Face) -> None:
    sock, *targets = [await udp(ours) for _ in range(3)]
    messages = [(b"%d" % n, target.getsockname()) for n in range(3) for target in targets]
    assert await sock.send_many(iter(messages)) == 6
    for target in targets:
        assert await target.recv_many(9) == [(data, sock.getsockname()) for data in numbers(3)]


async def test_what_was_received_can_be_sent_back_as_it_is(ours: Face) -> None:
    server, *clients = [await udp(ours) for _ in range(3)]
    for client in clients:
        assert await client.send_many([(b"echo", server.getsockname())] * 2) == 2
    assert await server.send_many(await server.recv_many(9)) == 4
    for client in clients:
        assert await client.recv_many(9) == [(b"echo", server.getsockname())] * 2


async def test_nothing_to_send_is_sent_at_once(ours: Face) -> None:
    one, other = await pair(ours, "udp")
    assert await one.send_many([]) == 0
    other.settimeout(0.0)
    assert told(await error_of(other.recv_many(1))) == NOT_NOW


async def fill(sock: Any) -> int:
    """Send numbers until there is no more room; how many."""
    sock.settimeout(0.0)
    sent: int = await sock.send_many(numbers(5000))
    assert 0 < sent < 5000
    error = await error_of(sock.send_many([b"no room"]))
    assert (told(error), error.messages_sent) == (NOT_NOW, 0)
    sock.settimeout(None)
    return sent


@pytest.mark.parametrize("kind", ["unix", "seqpacket"])
async def test_without_waiting_as_many_are_sent_as_there_is_room_for(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    sent = await fill(one)
    error = await error_of(one.send_many([b"no room"], _stdlib.MSG_DONTWAIT))
    assert (told(error), error.messages_sent) == (NOT_NOW, 0)
    assert data_of(await other.recv_many(1)) == numbers(1)
    assert await one.send_many([b"room"] * 9, _stdlib.MSG_DONTWAIT) >= 1
    got: list[bytes] = []
    while len(got) < sent - 1:
        got += data_of(await other.recv_many(sent - 1 - len(got)))
    assert got == numbers(sent - 1, 1)


@pytest.mark.parametrize("kind", ["unix", "seqpacket"])
async def test_all_wait_for_room_and_each_is_sent_once(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    sent = await fill(one)
    task = await waiting(one.send_many(numbers(700, sent)))
    got: list[bytes] = []
    while len(got) < sent + 700:
        got += data_of(await other.recv_many(1000))
    assert await task == 700
    assert got == numbers(sent + 700)


@pytest.mark.parametrize("kind", ["unix", "seqpacket"])
async def test_the_timeout_is_for_all_and_what_was_sent_is_told(ours: Face, kind: str) -> None:
    one, other = await pair(ours, kind)
    one.settimeout(0.05)
    error = await error_of(one.send_many(numbers(5000)))
    assert told(error) == LATE
    got: list[bytes] = []
    while len(got) < error.messages_sent:
        got += data_of(await other.recv_many(1000))
    assert got == numbers(error.messages_sent)
    other.settimeout(0.0)
    assert told(await error_of(other.recv_many(1))) == NOT_NOW


@of_each_kind
@pytest.mark.parametrize("timeout", [None, LIMIT, 0.0], ids=["blocking", "timeout", "non-blocking"])
async def test_an_error_tells_how_many_were_sent_before_it(
    ours: Face, kind: str, timeout: float | None
) -> None:
    one, other = await pair(ours, kind)
    one.settimeout(timeout)
    error = await error_of(one.send_many([b"one", b"two", HUGE, b"three"]))
    assert (told(error), error.messages_sent) == (TOO_LONG, 2)
    assert await one.send_many([b"three"]) == 1
    assert data_of(await other.recv_many(9)) == [b"one", b"two", b"three"]


async def test_a_refusal_is_told_once_and_the_rest_can_be_sent(ours: Face) -> None:
    gone, sock = await udp(ours), await udp(ours)
    address = gone.getsockname()
    await sock.connect(address)
    gone.close()
    await sock.send(b"anybody?")
    await asyncio.sleep(0.01)
    error = await error_of(sock.send_many([b"one", b"two"]))
    assert (told(error), error.messages_sent) == (REFUSED, 0)
    born_again = ours.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
    await born_again.bind(address)
    assert await sock.send_many([b"one", b"two"]) == 2
    assert data_of(await born_again.recv_many(9)) == [b"one", b"two"]


async def test_a_message_that_is_none_is_refused_in_clear_words(ours: Face) -> None:
    one, other = await pair(ours, "udp")
    address = other.getsockname()
    with pytest.raises(TypeError, match="pair of that and an address, not a tuple of 3$"):
        await one.send_many([b"not sent", (b"x", 0, address)])
    with pytest.raises(TypeError, match="not iterable"):
        await one.send_many(None)
    for wrong in ["text"], b"bytes", [(b"x", "nowhere")], [(1, address)]:
        with pytest.raises(TypeError) as caught:
            await one.send_many(wrong)
        assert getattr(caught.value, "messages_sent", None) == 0
    with pytest.raises(TypeError):
        await one.send_many([b"x"], "flags")
    other.settimeout(0.0)
    assert told(await error_of(other.recv_many(1))) == NOT_NOW


async def test_a_cancelled_send_tells_how_many_are_on_their_way(lone: Face) -> None:
    one, other = await pair(lone, "unix")
    task = await waiting(one.send_many(numbers(5000)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    sent = vars(caught.value)["messages_sent"]
    assert data_of(await other.recv_many(1024)) == numbers(sent)
    await asyncio.sleep(0.02)
    other.settimeout(0.0)
    assert told(await error_of(other.recv_many(1))) == NOT_NOW


async def test_closing_ends_a_send_which_tells_how_many_went(ours: Face) -> None:
    one, other = await pair(ours, "unix")
    sent = await fill(one)
    task = await waiting(error_of(one.send_many([b"never"])))
    one.close()
    error = await task
    assert (told(error), error.messages_sent) == (CLOSED, 0)
    assert data_of(await other.recv_many(1024)) == numbers(sent)


async def test_who_sends_many_lets_others_have_their_turn(lone: Face) -> None:
    one, _ = await pair(lone, "udp")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await one.send_many([b"x"] * 1000)
    many = turns
    for _ in range(100):
        await one.send_many([b"x"] * 10)
    counting.cancel()
    assert many >= 2
    assert turns - many >= 5


async def test_two_who_send_many_do_not_mix(lone: Face) -> None:
    one, other = await pair(lone, "unix")
    tasks = [asyncio.create_task(one.send_many([name] * 600)) for name in (b"a", b"b")]
    got: list[bytes] = []
    while len(got) < 1200:
        got += data_of(await other.recv_many(1000))
    assert [await task for task in tasks] == [600, 600]
    assert got == [b"a"] * 600 + [b"b"] * 600


# --- names --------------------------------------------------------------------------


class Book:
    """A resolver that knows one name, and counts how often it is asked."""

    def __init__(self, delay: float = 0.0) -> None:
        self.asked: list[Any] = []
        self.delay = delay

    async def getaddrinfo(self, host: Any, *_: Any) -> list[Any]:
        self.asked.append(host)
        await asyncio.sleep(self.delay)
        if host != "known.test":
            raise _stdlib.gaierror(_stdlib.EAI_NONAME, "Name or service not known")
        return [(_stdlib.AF_INET, _stdlib.SOCK_DGRAM, 17, "", ("127.0.0.1", 0))]

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
def book() -> Iterator[Book]:
    with using(Book()) as book:
        yield book


async def test_each_name_is_looked_up_once_and_no_address_at_all(ours: Face, book: Book) -> None:
    sock, target = await udp(ours), await udp(ours)
    here = target.getsockname()
    messages = [(b"0", here), (b"1", ("known.test", here[1])), (b"2", ("known.test", here[1]))]
    assert await sock.send_many(messages) == 3
    assert data_of(await target.recv_many(9)) == numbers(3)
    assert book.asked == ["known.test"]


async def test_an_unknown_name_is_told_before_anything_is_sent(ours: Face, book: Book) -> None:
    sock, target = await udp(ours), await udp(ours)
    error = await error_of(
        sock.send_many([(b"not sent", target.getsockname()), (b"x", ("unknown.test", 1))])
    )
    assert isinstance(error, _stdlib.gaierror)
    assert vars(error)["messages_sent"] == 0
    target.settimeout(0.0)
    assert told(await error_of(target.recv_many(1))) == NOT_NOW


async def test_the_timeout_is_for_the_lookup_too(ours: Face, book: Book) -> None:
    sock, book.delay = await udp(ours), LIMIT
    sock.settimeout(0.03)
    error = await error_of(sock.send_many([(b"x", ("known.test", 1))]))
    assert (told(error), error.messages_sent) == (LATE, 0)


async def test_lookup_and_sending_share_one_deadline(
    ours: Face, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float | None] = []
    errand, complete = Readiness.errand, Direction.complete

    async def recorded_errand(self: Readiness, work: Any, deadline: float | None) -> Any:
        deadlines.append(deadline)
        return await errand(self, work, deadline)

    async def recorded(self: Direction, deadline: float | None, *args: Any) -> Any:
        deadlines.append(deadline)
        return await complete(self, deadline, *args)

    def no_room(*_: Any) -> int:
        raise BlockingIOError(*NOT_NOW[1:])

    monkeypatch.setattr(Readiness, "errand", recorded_errand)
    monkeypatch.setattr(Direction, "complete", recorded)
    monkeypatch.setattr(_stdlib.socket, "sendto", no_room, raising=False)
    sock = await udp(ours)
    sock.settimeout(0.03)
    assert told(await error_of(sock.send_many([(b"x", ("known.test", 1))]))) == LATE
    first, second = deadlines
    assert first == second is not None


async def test_a_cancelled_lookup_has_sent_nothing(lone: Face, book: Book) -> None:
    sock, target, book.delay = await udp(lone), await udp(lone), 0.02
    task = await waiting(sock.send_many([(b"x", ("known.test", target.getsockname()[1]))]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert vars(caught.value)["messages_sent"] == 0
    await asyncio.sleep(0.02)
    target.settimeout(0.0)
    assert told(await error_of(target.recv_many(1))) == NOT_NOW


# --- the blocking face --------------------------------------------------------------


def test_fail_after_bounds_both() -> None:
    one, other = aiosock_sync.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    with one, other:
        with aiosock_sync.fail_after(0.03), pytest.raises(TimeoutError) as caught:
            one.send_many(numbers(5000))
        sent = vars(caught.value)["messages_sent"]
        other.settimeout(0.0)
        assert (data_of(other.recv_many(1024)) if sent else []) == numbers(sent)
        other.settimeout(None)
        with aiosock_sync.fail_after(0.03), pytest.raises(TimeoutError):
            other.recv_many(5)
        with aiosock_sync.fail_after(0), pytest.raises(TimeoutError) as caught:
            one.send_many([b"late"])
        assert vars(caught.value)["messages_sent"] == 0


def test_no_loop_is_opened_for_what_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    module = sys.modules["aiosock_sync._socket"]
    monkeypatch.setattr(module, "loop_here", lambda: opened.append(1))
    one, other = aiosock_sync.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    with one, other:
        for _ in range(100):
            assert one.send_many(numbers(5)) == 5
            assert len(other.recv_many(9)) == 5
    assert opened == []


def test_two_threads_hand_many_to_each_other() -> None:
    one, other = aiosock_sync.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    with one, other:
        thread = threading.Thread(target=one.send_many, args=(numbers(3000),))
        thread.start()
        got: list[bytes] = []
        deadline = time.monotonic() + LIMIT
        while len(got) < 3000 and time.monotonic() < deadline:
            got += data_of(other.recv_many(64))
        thread.join(LIMIT)
        assert got == numbers(3000)
