"""How blocking calls wait: what interrupts them, what ends them, and what they leave behind.

What a call returns is in the other files, for all faces, and what signals and forks do to
a blocking one in files of their own.  Here is what else only a blocking face has: threads
that share a socket, loops of other people in the same thread, and the two calls that
blocking code has nowhere else, `fail_after` and `call`.
"""

import asyncio
import contextvars
import errno
import gc
import io
import itertools
import logging
import math
import os
import socket as _stdlib
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from blocking import (
    BULK,
    HELLO,
    IN_PART,
    WAITS,
    Interrupted,
    accepting,
    alarm,
    black_hole,
    each_module,
    each_wait,
    ended,
    in_thread,
    interrupt,
    pair,
    tcp_pair,
    watched,
)
from conftest import LOOPS
from faces import LIMIT, open_descriptors

import aiosock
import aiosock_sync

# --- threads ------------------------------------------------------------------------------


@each_wait
@pytest.mark.parametrize("end", ["close", "detach"])
def test_the_end_in_one_thread_wakes_another(name: str, end: str, stack: ExitStack) -> None:
    sock, call = WAITS[name](stack)
    thread, outcomes = in_thread(call)
    time.sleep(0.02)
    number = getattr(sock, end)()
    if end == "detach":
        os.close(number)
    error = ended(thread, outcomes)
    assert (type(error), error.errno) == (OSError, errno.EBADF)


@pytest.mark.parametrize("verb", ["connect", "connect_ex", "bind", "sendto", "sendmsg"])
def test_the_end_wakes_who_looks_a_name_up_for_the_socket(
    verb: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    stack.callback(over.set)
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: over.wait(LIMIT) and [])
    sock = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    before: dict[str, tuple[Any, ...]] = {"sendto": (HELLO,), "sendmsg": ([HELLO], [], 0)}
    arguments = (*before.get(verb, ()), ("somewhere", 80))
    thread = in_thread(lambda: getattr(sock, verb)(*arguments))
    time.sleep(0.02)
    sock.close()
    error = ended(*thread)
    assert (type(error), error.errno) == (OSError, errno.EBADF)


def test_the_end_wakes_who_reads_a_file_of_the_socket(stack: ExitStack) -> None:
    """It lives as long as the file; here the file closes as well."""
    one, _ = pair(stack)
    file = stack.enter_context(one.makefile("rb", 0))
    thread = in_thread(lambda: file.read(1))
    time.sleep(0.02)
    one.close()
    assert one.fileno() >= 0
    file.close()
    assert ended(*thread).errno == errno.EBADF


@pytest.mark.parametrize("end", ["close", "detach"])
def test_nobody_watches_a_socket_that_has_ended(end: str, stack: ExitStack) -> None:
    """Although its connection lives on, under another number."""
    one, _ = pair(stack)
    waiting = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    number, kept = one.fileno(), os.dup(one.fileno())
    stack.callback(os.close, kept)
    assert number in itertools.chain(*watched().values())
    if getattr(one, end)() is not None:
        os.close(number)
    assert number not in itertools.chain(*watched().values())
    assert ended(*waiting).errno == errno.EBADF


def test_who_waited_for_a_closed_socket_takes_nothing_from_the_next_with_its_number(
    stack: ExitStack,
) -> None:
    one, _ = pair(stack)
    number = one.fileno()
    waiting = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    near, far = _stdlib.socketpair()
    one.close()
    os.dup2(near.fileno(), number)  # before the one who waits has heard
    near.close()
    stack.enter_context(far)
    with aiosock_sync.socket(fileno=number) as following:
        far.sendall(HELLO)
        assert ended(*waiting).errno == errno.EBADF
        assert following.recv(10) == HELLO
        again = in_thread(lambda: following.recv(10))
        time.sleep(0.02)
        far.sendall(b"again")
        assert ended(*again) == b"again"


def test_an_end_in_the_moment_before_a_wait_is_seen() -> None:
    for turn in range(300):
        one, other = aiosock_sync.socketpair()
        thread, outcomes = in_thread(lambda sock=one: sock.recv(10))  # type: ignore[misc]  # this turn's
        for _ in range(turn % 50 * 20):
            pass
        one.close()
        assert ended(thread, outcomes).errno == errno.EBADF
        other.close()


def test_a_shutdown_in_one_thread_ends_the_stream_in_another(stack: ExitStack) -> None:
    one, _ = pair(stack)
    thread, outcomes = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    one.shutdown(_stdlib.SHUT_RDWR)
    assert ended(thread, outcomes) == b""


def test_a_reader_and_a_writer_share_a_socket(stack: ExitStack) -> None:
    one, other = pair(stack)
    data = os.urandom(2**20)

    def read(sock: aiosock_sync.socket) -> bytes:
        return sock.recv(len(data), _stdlib.MSG_WAITALL)

    threads = [
        in_thread(call)
        for sock in (one, other)
        for call in (lambda s=sock: read(s), lambda s=sock: s.sendall(data))
    ]
    assert [ended(*thread) for thread in threads] == [data, None, data, None]


def test_several_threads_wait_in_one_direction(stack: ExitStack) -> None:
    one, other = pair(stack)
    readers = [in_thread(lambda: one.recv(1)) for _ in range(3)]
    time.sleep(0.02)
    for letter in (b"a", b"b", b"c"):
        other.sendall(letter)
    assert sorted(ended(*reader) for reader in readers) == [b"a", b"b", b"c"]


def test_a_thread_that_finds_nothing_says_nothing_of_anothers_events(stack: ExitStack) -> None:
    one, other = tcp_pair(stack)
    over = threading.Event()

    def receive() -> bytes:
        got = one.recv(2)  # all that was asked for: there may be more
        over.wait(LIMIT)
        return got

    thread, outcomes = in_thread(receive)
    time.sleep(0.05)
    other.sendall(b"ab")
    time.sleep(0.05)
    line = one._reading.line
    assert line.watched
    one.settimeout(0.01)
    with pytest.raises(TimeoutError):
        one.recv(2)
    assert not line.drained
    over.set()
    assert ended(thread, outcomes) == b"ab"


def test_room_for_a_sender_is_one_event(stack: ExitStack) -> None:
    """There is no second one to wake him."""
    stream, far = pair(stack)
    stream.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, 1)
    sent = stream._raw.send(bytes(100_000), _stdlib.MSG_DONTWAIT)
    sending = in_thread(lambda: stream.send(HELLO))
    time.sleep(0.05)
    assert len(far._raw.recv(sent)) == sent
    assert ended(*sending) == len(HELLO)


def test_several_threads_accept(stack: ExitStack) -> None:
    listener, _ = accepting(stack)
    acceptors = [in_thread(listener.accept) for _ in range(3)]
    time.sleep(0.02)
    address = listener.getsockname()
    clients = [stack.enter_context(_stdlib.create_connection(address)) for _ in acceptors]
    accepted = [ended(*acceptor) for acceptor in acceptors]
    for conn, _ in accepted:
        stack.enter_context(conn)
    assert {peer for _, peer in accepted} == {client.getsockname() for client in clients}


@pytest.mark.parametrize("later", [0.001, 0.0, None])
@pytest.mark.parametrize("own", [None, LIMIT])
@each_module
def test_the_timeout_at_the_start_of_a_call_counts(
    module: Any, own: float | None, later: float | None, stack: ExitStack
) -> None:
    one, other = pair(stack, module)
    one.settimeout(own)
    thread, outcomes = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    one.settimeout(later)
    assert os.get_blocking(one.fileno()) is (later is None)
    time.sleep(0.02)
    other.sendall(HELLO)
    assert ended(thread, outcomes) == HELLO


@each_module
def test_and_it_ends_the_call_although_there_is_none_any_more(
    module: Any, stack: ExitStack
) -> None:
    one, _ = pair(stack, module)
    one.settimeout(0.05)
    thread, outcomes = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    one.settimeout(None)
    assert isinstance(ended(thread, outcomes), TimeoutError)


def test_a_threads_loop_ends_with_it_though_an_error_remembers_it(stack: ExitStack) -> None:
    one, _ = pair(stack)
    one.settimeout(0.01)
    before, errors = open_descriptors(queues=True), list[Exception]()

    def wait() -> None:
        try:
            one.recv(1)
        except TimeoutError as error:
            errors.append(error)  # and its frames with it

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(LIMIT)
    assert len(errors) == 1
    assert open_descriptors(queues=True) == before


def test_many_threads_mix_nothing_and_leave_nothing(stack: ExitStack) -> None:
    before, loops = open_descriptors(queues=True), len(loops_there_are())

    def work(number: int) -> int:
        one, other = aiosock_sync.socketpair()
        with one, other:
            server = threading.Thread(target=echo, args=(other,))
            server.start()
            for turn in range(100):
                asked = b"%d of %d" % (turn, number)
                one.sendall(asked)
                assert one.recv(100) == asked
            one.close()
            server.join()
        return number

    threads = [in_thread(lambda number=number: work(number)) for number in range(200)]  # type: ignore[misc]  # this turn's
    assert [ended(*thread) for thread in threads] == list(range(200))
    gc.collect()
    assert open_descriptors(queues=True) == before
    assert len(loops_there_are()) <= loops


def echo(sock: aiosock_sync.socket) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


def loops_there_are() -> list[asyncio.AbstractEventLoop]:
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, asyncio.AbstractEventLoop)]


# --- loops of other people ------------------------------------------------------------------


@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_call_inside_a_running_loop_blocks_and_leaves_the_loop_running(
    loop_name: str, stack: ExitStack
) -> None:
    one, other = pair(stack)

    async def main() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        turned: list[int] = []
        loop.call_soon(turned.append, 1)
        sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
        sending.start()
        assert one.recv(10) == HELLO
        assert turned == []
        assert (asyncio.current_task(), asyncio.get_running_loop()) == (task, loop)
        await asyncio.sleep(0)
        assert turned == [1]
        sending.join()
        other.sendall(HELLO)
        assert await asyncio.to_thread(one.recv, 10) == HELLO

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())


class Caller(asyncio.Protocol):
    """Makes a blocking call when data arrives."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.call()
        self.transport.close()


async def from_a_task(call: Callable[[], Any]) -> None:
    call()


async def from_call_soon(call: Callable[[], Any]) -> None:
    asyncio.get_running_loop().call_soon(call)


async def from_a_timer(call: Callable[[], Any]) -> None:
    asyncio.get_running_loop().call_later(0.001, call)


async def from_a_reader(call: Callable[[], Any]) -> None:
    loop, (one, other) = asyncio.get_running_loop(), _stdlib.socketpair()

    def act() -> None:
        loop.remove_reader(one)
        one.close()
        other.close()
        call()

    loop.add_reader(one, act)
    other.send(b"x")


async def from_a_protocol(call: Callable[[], Any]) -> None:
    one, other = _stdlib.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: Caller(call), sock=one)
    other.send(b"x")
    other.close()


async def from_another_thread(call: Callable[[], Any]) -> None:
    await asyncio.to_thread(call)


PLACES = {
    place.__name__.removeprefix("from_"): place
    for place in (
        from_a_task,
        from_call_soon,
        from_a_timer,
        from_a_reader,
        from_a_protocol,
        from_another_thread,
    )
}


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_call_blocks_wherever_in_a_running_loop_it_is_made(
    place: str, loop_name: str, stack: ExitStack
) -> None:
    """And the loop goes on as if nothing had been."""
    listener, _ = accepting(stack)
    address = "localhost", listener.getsockname()[1]

    def converse() -> bytes:
        running = asyncio._get_running_loop()
        serving = in_thread(lambda: serve(listener))
        with aiosock_sync.create_connection(address) as sock:  # looks a name up, and waits
            sock.sendall(bytes(10**6) + HELLO)
            sock.shutdown(_stdlib.SHUT_WR)
            sock.settimeout(LIMIT)
            answer = sock.recv(10, _stdlib.MSG_WAITALL)
            answer += sock.recv(10)
        with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.01):
            listener.accept()
        assert aiosock_sync.call(answer_of, 1, more=2) == 3
        assert ended(*serving) is None
        assert asyncio._get_running_loop() is running
        return answer

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()
        loop.set_exception_handler(lambda loop, told: outcome.set_exception(told["exception"]))

        def act() -> None:
            answer = converse()
            loop.call_soon_threadsafe(outcome.set_result, answer)

        await PLACES[place](act)
        async with asyncio.timeout(LIMIT):
            answer = await outcome
            await asyncio.sleep(0.001)
            return answer, await asyncio.to_thread(lambda: 5)

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        assert runner.run(main()) == (HELLO, 5)


def serve(listener: aiosock_sync.socket) -> None:
    with listener.accept()[0] as conn:
        got = b"".join(iter(lambda: conn.recv(2**16), b""))
        time.sleep(0.01)
        conn.sendall(got[-len(HELLO) :])


async def answer_of(value: int, *, more: int) -> int:
    await asyncio.sleep(0)
    return value + more


def test_a_loop_that_somebody_closes_is_made_anew(stack: ExitStack) -> None:
    one, other = pair(stack)

    async def found() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.01):
        one.recv(1)
    loop = aiosock_sync.call(found)
    assert aiosock_sync.call(found) is loop
    loop.close()
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(10) == HELLO
    sending.join()
    again = aiosock_sync.call(found)
    again.close()
    assert aiosock_sync.call(found) not in (loop, again)
    assert aiosock_sync.getaddrinfo("localhost", 80)


def test_calls_between_runs_of_asyncio_leave_its_loops_alone(stack: ExitStack) -> None:
    one, other = pair(stack)
    for _ in range(3):
        with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.005):
            one.recv(1)
        asyncio.run(asyncio.sleep(0.001))
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    other.sendall(HELLO)
    assert one.recv(10) == HELLO


@pytest.mark.parametrize("loop_name", LOOPS)
def test_an_awaitable_socket_is_used_by_a_loop_and_by_calls_inside_it(loop_name: str) -> None:
    async def main() -> None:
        one, other = aiosock.socketpair()
        with one, other:
            await received(one, other)
            assert aiosock_sync.call(received, one, other) == HELLO
            assert aiosock_sync.call(received, other, one) == HELLO
            await received(one, other)

    async def received(one: aiosock.socket, other: aiosock.socket) -> bytes:
        reading = asyncio.create_task(one.recv(10))
        await asyncio.sleep(0.01)
        await other.sendall(HELLO)
        async with asyncio.timeout(LIMIT):
            return await reading

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())


def test_no_handler_hears_that_a_loop_is_made(stack: ExitStack) -> None:
    """One that logs over a socket of ours would wait for itself."""
    heard: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    logger, handler = logging.getLogger("asyncio"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    stack.callback(logger.setLevel, level)
    stack.callback(logger.removeHandler, handler)
    one, other = pair(stack)
    thread = in_thread(lambda: one.recv(10))  # in a new thread, with a new loop
    time.sleep(0.02)
    other.sendall(HELLO)
    assert ended(*thread) == HELLO
    assert heard == []


# --- what is left behind --------------------------------------------------------------------


def test_a_dropped_socket_closes_at_once_also_when_it_has_waited(stack: ExitStack) -> None:
    one, other = aiosock_sync.socketpair()
    stack.enter_context(other)
    one.settimeout(0.001)
    gc.disable()
    stack.callback(gc.enable)
    with suppress(TimeoutError):
        one.recv(1)
    number, known = one.fileno(), weakref.ref(one)
    with pytest.warns(ResourceWarning, match=rf"^unclosed <aiosock_sync\.socket fd={number}, "):
        del one
    assert known() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize("size", [-1, 2**70])
def test_a_wrong_size_in_a_conversation_is_refused_at_once(size: int, stack: ExitStack) -> None:
    one, other = tcp_pair(stack)

    def converse() -> None:
        threading.Timer(0.02, lambda: other.sendall(HELLO)).start()
        assert one.recv(100) == HELLO
        one.recv(size)

    outcome = ended(*in_thread(converse))
    assert isinstance(outcome, ValueError | OverflowError)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "accept": lambda sock, _: sock.accept()[0].close(),
    "bind": lambda sock, _: sock.bind(("localhost", 0)),
    "connect": lambda sock, address: sock.connect(("localhost", address[1])),
    "connect_ex": lambda sock, address: sock.connect_ex(("localhost", address[1])),
    "recv": lambda sock, _: sock.recv(10),
    "recv_into": lambda sock, _: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock, _: sock.recvfrom(10),
    "recvfrom_into": lambda sock, _: sock.recvfrom_into(bytearray(10)),
    "recvmsg": lambda sock, _: sock.recvmsg(10),
    "recvmsg_into": lambda sock, _: sock.recvmsg_into([bytearray(10)]),
    "send": lambda sock, _: sock.send(BULK),
    "sendall": lambda sock, _: sock.sendall(BULK),
    "sendmsg": lambda sock, _: sock.sendmsg([BULK]),
    "sendto": lambda sock, address: sock.sendto(BULK, address),
    "sendfile": lambda sock, _: sock.sendfile(io.BytesIO(BULK)),
    "wait_readable": lambda sock, _: sock.wait_readable(),
    "wait_writable": lambda sock, _: sock.wait_writable(),
    "shutdown": lambda sock, _: sock.shutdown(_stdlib.SHUT_RDWR),
    "setblocking": lambda sock, _: sock.setblocking(False),
    "settimeout": lambda sock, _: sock.settimeout(1),
    "detach": lambda sock, _: os.close(sock.detach()),
    "close": lambda sock, _: sock.close(),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_public_method_calls_another(name: str, stack: ExitStack) -> None:
    """A subclass may override any of them, as ssl's does."""
    listener, _ = accepting(stack)
    address = listener.getsockname()
    with reticent(name)() as sock:
        if name == "accept":
            _stdlib.socket.bind(sock, ("127.0.0.1", 0))
            _stdlib.socket.listen(sock)
            peer = stack.enter_context(_stdlib.create_connection(sock.getsockname()))
        elif not name.startswith(("bind", "connect")):
            _stdlib.socket.connect(sock, address)
            peer = stack.enter_context(listener.accept()[0])
            feeding = threading.Timer(0.02, lambda: peer.sendall(HELLO))
            drinking = in_thread(lambda: sum(map(len, iter(lambda: peer.recv(2**20), b""))))
            feeding.start()
            stack.callback(feeding.join)
            stack.callback(ended, *drinking)
        CALLS[name](sock, address)
        _stdlib.socket.close(sock)


def reticent(name: str) -> type[aiosock_sync.socket]:
    """A class whose public methods are for others than its own: all but this one."""

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("called by another method")

    needed = {name, "gettimeout", "getsockname"}
    others = {n for n in CALLS if n not in needed} | {"dup", "fileno", "getpeername", "makefile"}
    return type("Reticent", (aiosock_sync.socket,), dict.fromkeys(others, forbidden))


# --- fail_after -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own"),
    [(name, own) for name in WAITS for own in (None, 30.0) if name not in IN_PART or not own],
)
def test_fail_after_bounds_a_call(name: str, own: float | None, stack: ExitStack) -> None:
    sock, call = WAITS[name](stack)
    sock.settimeout(own)
    with aiosock_sync.fail_after(0.02), pytest.raises(TimeoutError, match="^timed out$"):
        call()


def test_fail_after_bounds_calls_together(stack: ExitStack) -> None:
    one, other = pair(stack)
    start = time.monotonic()
    with suppress(TimeoutError), aiosock_sync.fail_after(0.1):
        while time.monotonic() - start < LIMIT:
            sending = threading.Timer(0.02, lambda: other.sendall(b"x"))
            sending.start()
            try:
                assert one.recv(10)
            finally:
                sending.join()
    assert time.monotonic() - start < LIMIT


def test_fail_after_bounds_lookups(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    over = threading.Event()
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: over.wait(LIMIT) and [])
    monkeypatch.setattr(_stdlib, "gethostbyaddr", lambda *args: over.wait(LIMIT) and ("", [], []))
    sock = stack.enter_context(aiosock_sync.socket())
    stack.callback(over.set)
    for call in (
        lambda: aiosock_sync.getaddrinfo("somewhere", 80),
        lambda: aiosock_sync.getfqdn("somewhere"),
        lambda: sock.connect(("somewhere", 80)),
        lambda: aiosock_sync.create_connection(("somewhere", 80)),
    ):
        with (
            aiosock_sync.fail_after(0.02),
            pytest.raises(TimeoutError, match="^timed out"),
        ):  # and notes
            call()


def test_fail_after_bounds_the_lookup_of_a_socket_that_never_waits(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    over = threading.Event()
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: over.wait(LIMIT) and [])
    sock = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    stack.callback(over.set)
    sock.setblocking(False)
    for call in (
        lambda: sock.connect(("somewhere", 80)),
        lambda: sock.connect_ex(("somewhere", 80)),
        lambda: sock.sendto(HELLO, ("somewhere", 80)),
        lambda: sock.sendmsg([HELLO], [], 0, ("somewhere", 80)),
    ):
        with aiosock_sync.fail_after(0.02), pytest.raises(TimeoutError, match="(?m)^timed out$"):
            call()


def test_one_deadline_is_for_the_lookup_and_the_sending(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    def look_up(*args: Any) -> Any:
        time.sleep(0.2)
        return [(None, None, None, "", ("127.0.0.1", 0))]

    one, _ = tcp_pair(stack)
    one.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            one.send(bytes(2**20))
    one.settimeout(0.3)
    monkeypatch.setattr(_stdlib, "getaddrinfo", look_up)
    with suppress(TimeoutError):
        one.sendall(bytes(2**22))  # there may be room again by now
    calls: list[Callable[[], Any]] = [
        lambda: one.sendto(HELLO, ("somewhere", 80)),
        lambda: one.sendmsg([HELLO], [], 0, ("somewhere", 80)),
    ]
    for call in calls:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            call()
        assert 0.3 <= time.monotonic() - start < 0.45


def test_a_sockets_own_timeout_bounds_the_lookup_too(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    over = threading.Event()
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: over.wait(LIMIT) and [])
    sock = stack.enter_context(aiosock_sync.socket())
    stack.callback(over.set)
    sock.settimeout(0.02)
    with pytest.raises(TimeoutError, match="(?m)^timed out$"):
        sock.connect(("somewhere", 80))


def test_of_two_deadlines_the_nearest_counts(stack: ExitStack) -> None:
    one, _ = pair(stack)
    for outer, inner in ((0.02, 30), (30, 0.02)):
        with (
            aiosock_sync.fail_after(outer),
            aiosock_sync.fail_after(inner),
            pytest.raises(TimeoutError),
        ):
            one.recv(1)
    one.settimeout(0.01)
    with aiosock_sync.fail_after(30), pytest.raises(TimeoutError):
        one.recv(1)


def test_fail_after_ends_with_its_block_and_is_its_threads_own(stack: ExitStack) -> None:
    one, other = pair(stack)
    with aiosock_sync.fail_after(0):
        thread = in_thread(lambda: one.recv(10))
        time.sleep(0.02)
        other._raw.send(HELLO)
        assert ended(*thread) == HELLO
        with pytest.raises(TimeoutError):
            one.recv(10)
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(10) == HELLO
    sending.join()


def test_when_the_time_is_over_no_call_begins(stack: ExitStack) -> None:
    """A peer that always has something ready does not make it endless."""
    one, other = pair(stack)
    other.sendall(HELLO)
    address = stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0))).getsockname()
    datagrams = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    calls: list[Callable[[], Any]] = [
        lambda: one.recv(10),
        lambda: one.recv(10, aiosock_sync.MSG_WAITALL),
        lambda: one.recv_into(bytearray(10)),
        lambda: one.send(HELLO),
        lambda: one.sendmsg([HELLO]),
        lambda: one.sendto(HELLO, address),
        lambda: one.wait_readable(),
        lambda: one.wait_writable(),
        lambda: aiosock_sync.create_connection(address),
        lambda: datagrams.connect_ex(address),
    ]
    with aiosock_sync.fail_after(0):
        for call in calls:
            with pytest.raises(TimeoutError, match="^timed out"):  # and notes
                call()
        for sending in (lambda: one.sendall(HELLO), lambda: one.sendfile(io.BytesIO(HELLO))):
            with pytest.raises(TimeoutError, match="^timed out$") as late:
                sending()
            assert late.value.bytes_sent == 0  # type: ignore[attr-defined]  # ours
        one.setblocking(False)
        assert one.recv(10) == HELLO
        with pytest.raises(BlockingIOError):
            one.recv(10)


def test_fail_after_is_a_tasks_own() -> None:
    async def task(delay: float) -> None:
        await asyncio.sleep(delay)
        with aiosock_sync.fail_after(0.03):
            await asyncio.sleep(0.03)

    async def main() -> None:
        await asyncio.gather(task(0), task(0.01))  # left in another order than entered

    asyncio.run(main())
    with ExitStack() as stack:
        one, other = pair(stack)
        sending = threading.Timer(0.05, lambda: other.sendall(HELLO))
        sending.start()
        assert one.recv(10) == HELLO
        sending.join()


def test_connect_ex_returns_its_own_timeout_and_raises_that_of_fail_after(
    stack: ExitStack,
) -> None:
    address = black_hole(stack)
    for own, limit in ((0.02, 30.0), (30.0, 0.02)):
        sock = stack.enter_context(aiosock_sync.socket())
        sock.settimeout(own)
        with aiosock_sync.fail_after(limit):
            if own < limit:
                assert sock.connect_ex(address) == errno.EAGAIN
                continue
            with pytest.raises(TimeoutError):
                sock.connect_ex(address)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (None, TypeError)],
)
def test_fail_after_refuses_what_is_no_time(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="^seconds must "), aiosock_sync.fail_after(seconds):
        pass


@pytest.mark.parametrize("seconds", [math.inf, 1e308, 10**400], ids=["inf", "1e308", "10**400"])
def test_what_is_as_good_as_for_ever_is_no_limit(seconds: float, stack: ExitStack) -> None:
    one, other = pair(stack)
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    with aiosock_sync.fail_after(seconds):
        assert one.recv(10) == HELLO
    sending.join()
    with (
        aiosock_sync.fail_after(0.01),
        aiosock_sync.fail_after(seconds),
        pytest.raises(TimeoutError),
    ):
        one.recv(10)


# --- call -----------------------------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="outside")


async def answer(value: int, *, more: int = 0) -> int:
    await asyncio.sleep(0)
    return value + more


def test_call_returns_what_the_function_returns() -> None:
    assert aiosock_sync.call(answer, 1, more=2) == 3


def test_call_raises_what_the_function_raises() -> None:
    async def fail() -> None:
        raise Interrupted("told")

    with pytest.raises(Interrupted, match="told") as caught:
        aiosock_sync.call(fail)
    assert "fail" in [entry.name for entry in caught.traceback]


def test_call_sees_the_callers_context() -> None:
    async def look() -> str:
        return variable.get()

    token = variable.set("inside")
    try:
        assert aiosock_sync.call(look) == "inside"
    finally:
        variable.reset(token)


def test_call_leaves_no_task_behind() -> None:
    ends: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ends.append("cancelled")

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(stay())
        await asyncio.sleep(0)
        return task

    assert aiosock_sync.call(leave).cancelled()
    assert ends == ["cancelled"]


def test_sockets_of_one_call_are_used_in_the_next(stack: ExitStack) -> None:
    one, other = aiosock.socketpair()
    with one, other:
        aiosock_sync.call(one.sendall, HELLO)
        assert aiosock_sync.call(other.recv, 10) == HELLO


def test_ctrl_c_cancels_the_function_and_the_next_call_works() -> None:
    ends: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        aiosock_sync.call(stay)
    assert ends == ["cancelled"]
    assert aiosock_sync.call(answer, 1) == 1


@pytest.mark.parametrize("name", ["call", "lookup"])
def test_an_outcome_shows_nothing_of_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise aiosock_sync.gaierror("nobody")

    def unknown(*args: object) -> None:
        raise aiosock_sync.gaierror("nobody")

    monkeypatch.setattr(_stdlib, "gethostbyname", unknown)
    calls: dict[str, Callable[[], Any]] = {
        "call": lambda: aiosock_sync.call(fail),
        "lookup": lambda: aiosock_sync.gethostbyname("somewhere"),
    }
    with pytest.raises(aiosock_sync.gaierror, match="(?m)^nobody$") as failed:
        calls[name]()
    modules = [entry.frame.f_globals["__name__"] for entry in failed.traceback]
    assert not [module for module in modules if module.startswith(("asyncio", "concurrent"))]


def test_fail_after_cancels_the_function() -> None:
    ends: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ends.append("cancelled")

    with aiosock_sync.fail_after(0.02), pytest.raises(TimeoutError, match="^timed out$"):
        aiosock_sync.call(stay)
    assert ends == ["cancelled"]


def test_a_blocking_call_in_a_called_function_works(stack: ExitStack) -> None:
    one, other = pair(stack)

    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))

    async def mixed() -> bytes:
        sending.start()
        data = one.recv(10)
        await asyncio.sleep(0)
        return data

    assert aiosock_sync.call(mixed) == HELLO
    sending.join()


def test_call_refuses_what_is_not_async() -> None:
    with pytest.raises(TypeError, match="^an async function is needed: .* returned 3$"):
        aiosock_sync.call(lambda: 3)  # type: ignore[arg-type, return-value]  # which is the point


def test_the_error_of_an_async_function_is_held_by_no_cycle() -> None:
    class Failure(Exception): ...  # noqa: N818  # and no error of anybody's

    async def fail() -> None:
        await asyncio.sleep(0)
        raise Failure

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Failure) as caught:
            aiosock_sync.call(fail)
        known = weakref.ref(caught.value)
        del caught
        assert known() is None
    finally:
        gc.enable()


def test_an_async_function_that_stops_the_loop_is_told() -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="stopped before"):
        aiosock_sync.call(stop)
    assert aiosock_sync.call(asyncio.sleep, 0, "and on") == "and on"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_async_function_that_ends_the_program_leaves_the_loop_usable(
    error: type[BaseException],
) -> None:
    async def end() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(error):
        aiosock_sync.call(end)
    assert aiosock_sync.call(asyncio.sleep, 0.01, "and on") == "and on"


def test_within_fail_after_a_connect_that_is_under_way_is_waited_for(stack: ExitStack) -> None:
    """As without it: a blocking connect does not say EALREADY."""
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):  # now it answers nobody
        client = stack.enter_context(_stdlib.socket())
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    sock = stack.enter_context(aiosock_sync.socket())
    for _ in range(2):
        with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.03):
            sock.connect(listener.getsockname())


# --- corners --------------------------------------------------------------------------------


def test_what_a_callback_of_an_async_function_raises_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def careless() -> str:
        asyncio.get_running_loop().call_soon(lambda: [][0])
        await asyncio.sleep(0.01)
        return "done"

    assert aiosock_sync.call(careless) == "done"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is IndexError
    record.exc_info = None


def test_an_async_function_that_cancels_itself_is_cancelled() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError("enough")

    with aiosock_sync.fail_after(5), pytest.raises(asyncio.CancelledError, match="enough"):
        aiosock_sync.call(gives_up)


def test_a_descriptor_of_which_no_socket_can_be_made_is_closed(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError

    listener = stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0)))
    one = stack.enter_context(_stdlib.create_connection(listener.getsockname()))
    with monkeypatch.context() as patched:
        patched.setattr(aiosock_sync.socket, "__init__", fail)
        with pytest.raises(MemoryError):
            listener.accept()
    one.settimeout(5)
    assert one.recv(1) == b""


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_conversation_is_interrupted_and_goes_on(timeout: float | None, stack: ExitStack) -> None:
    one, other = pair(stack)
    echoing, _ = in_thread(lambda: [other.send(other.recv(10)) for _ in range(4)])
    for _ in range(3):
        one.send(b"x")
        assert one.recv(10) == b"x"
    one.settimeout(timeout)  # which ends the shortcut for those that wait for ever
    with pytest.raises(Interrupted), alarm(0.02, lambda: interrupt(Interrupted)):
        one.recv(10)
    one.send(b"y")
    assert one.recv(10) == b"y"
    echoing.join(LIMIT)
