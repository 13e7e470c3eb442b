"""What signals do to a blocking call: a handler that returns, one that raises, one that calls.

A handler that raises ends the call and takes nothing; one that returns leaves it and its
deadline alone.  What holds for the stdlib's socket as well is asked of both.
"""

import asyncio
import dis
import errno
import gc
import os
import random
import signal
import socket as _stdlib
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from blocking import (
    BULK,
    HELLO,
    IN_PART,
    THE_STDLIBS,
    WAITS,
    Interrupted,
    alarm,
    black_hole,
    each_module,
    each_wait,
    ended,
    in_thread,
    interrupt,
    pair,
    tcp_pair,
)
from faces import LIMIT
from secured import HOST, authority, serving, trusting

import aiosock_sync
from aiosock import _readiness, _records
from aiosock_sync import _driver


def secure_pair(stack: ExitStack) -> tuple[Any, Any]:
    authority()  # one for both threads
    one, other = tcp_pair(stack)
    serve = in_thread(lambda: other.start_tls(serving(), server_side=True))
    client = stack.enter_context(one.start_tls(trusting(), server_hostname=HOST))
    return client, stack.enter_context(ended(*serve))


# --- a handler that raises ------------------------------------------------------------------


@each_wait
@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
def test_a_handler_that_raises_ends_the_call(
    name: str, error: type[BaseException], stack: ExitStack
) -> None:
    _, call = WAITS[name](stack)
    with pytest.raises(error) as caught, alarm(0.02, lambda: interrupt(error)):
        call()
    assert ("bytes_sent" in vars(caught.value)) == name.startswith("send")
    assert caught.value.__context__ is caught.value.__cause__ is None
    files = [str(entry.path) for entry in caught.traceback]
    assert [file for file in files if "asyncio" in file or "selectors" in file] == []


@pytest.mark.parametrize("name", [name for name in WAITS if not name.startswith("connect")])
def test_a_call_that_was_interrupted_can_be_made_again(name: str, stack: ExitStack) -> None:
    """It waits anew, and its end is heard: nobody waits in its place any more."""
    sock, call = WAITS[name](stack)
    for _ in range(2):
        with pytest.raises(Interrupted), alarm(0.02, lambda: interrupt(Interrupted)):
            call()
        with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.02):
            call()
    thread = in_thread(call)
    time.sleep(0.02)
    sock.close()
    assert ended(*thread).errno == errno.EBADF


@pytest.fixture
def restarting() -> Iterator[None]:
    """System calls go on behind a handler, where they can."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: interrupt(Interrupted))
    signal.siginterrupt(signal.SIGALRM, False)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("restarting")
@pytest.mark.parametrize("name", [name for name in THE_STDLIBS if name not in IN_PART])
@each_module
def test_system_calls_that_are_restarted_hold_no_handler_up(
    module: Any, name: str, stack: ExitStack
) -> None:
    sock, call = WAITS[name](stack, module)
    sock.settimeout(LIMIT)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.2)
    with pytest.raises(Interrupted):
        call()
    assert time.monotonic() - start < LIMIT / 2


@pytest.mark.usefixtures("restarting")
@each_wait
def test_nor_in_blocking_mode(name: str, stack: ExitStack) -> None:
    """There the stdlib's call sleeps on."""
    _, call = WAITS[name](stack)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.2)
    with pytest.raises(Interrupted):
        call()
    assert time.monotonic() - start < LIMIT / 2


@each_module
def test_ctrl_c_takes_nothing_and_the_next_call_gets_the_data(
    module: Any, stack: ExitStack
) -> None:
    one, other = pair(stack, module)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        one.recv(10)
    other.sendall(HELLO)
    assert one.recv(10) == HELLO


@each_module
def test_ctrl_c_takes_no_connection(module: Any, stack: ExitStack) -> None:
    listener, accept = WAITS["accept"](stack, module)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        accept()
    client = stack.enter_context(_stdlib.create_connection(listener.getsockname()))
    conn, peer = accept()
    stack.enter_context(conn)
    assert peer == client.getsockname()


@each_module
def test_ctrl_c_leaves_a_connect_to_the_kernel(module: Any, stack: ExitStack) -> None:
    """Who connects again waits for the same."""
    sock, connect = WAITS["connect"](stack, module)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
            connect()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        connect()
    assert caught.value.errno == errno.EALREADY


def test_what_an_interrupted_sendall_tells_is_what_arrives(stack: ExitStack) -> None:
    one, other = pair(stack)
    with pytest.raises(KeyboardInterrupt) as caught, alarm(0.02, interrupt):
        one.sendall(BULK)
    one.close()
    got = 0
    while data := other.recv(2**20):
        got += len(data)
    assert got == vars(caught.value)["bytes_sent"] > 0


def test_ctrl_c_takes_nothing_from_a_conversation_over_tls(stack: ExitStack) -> None:
    one, other = secure_pair(stack)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        other.recv(10)
    with pytest.raises(KeyboardInterrupt) as caught, alarm(0.02, interrupt):
        one.sendall(BULK)
    reading = in_thread(lambda: read_to_the_end(other))
    one.sendall(HELLO)
    one.close()
    assert ended(*reading) == BULK[: vars(caught.value)["bytes_sent"]] + HELLO


def read_to_the_end(sock: Any) -> bytes:
    return b"".join(iter(lambda: sock.recv(2**16), b""))


def test_ctrl_c_in_a_handshake_closes_and_the_next_one_works(stack: ExitStack) -> None:
    one, silent = tcp_pair(stack)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        one.start_tls(trusting(), server_hostname=HOST)
    assert one.fileno() == -1
    silent.settimeout(LIMIT)
    while silent.recv(2**16):
        pass  # its first flight, and then the end
    client, server = secure_pair(stack)
    client.sendall(HELLO)
    assert server.recv(10) == HELLO


@pytest.mark.parametrize("name", ["recv", "sendall", "accept", "connect"])
def test_an_interrupted_call_keeps_no_socket(name: str, stack: ExitStack) -> None:
    """Nothing knows the socket any more: it closes when its last name goes."""
    sock, address = an_end(name, stack), black_hole(stack)
    calls: dict[str, Callable[[Any], Any]] = {
        "recv": lambda sock: sock.recv(1),
        "sendall": lambda sock: sock.sendall(BULK),
        "accept": lambda sock: sock.accept(),
        "connect": lambda sock: sock.connect(address),
    }
    gc.disable()
    stack.callback(gc.enable)
    with pytest.raises(Interrupted), alarm(0.02, lambda: interrupt(Interrupted)):
        calls[name](sock)
    number, known = sock.fileno(), weakref.ref(sock)
    with pytest.warns(ResourceWarning, match=rf"^unclosed <aiosock_sync\.socket fd={number}, "):
        del sock
    assert known() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def an_end(name: str, stack: ExitStack) -> Any:
    """A socket for the call, which nothing else refers to."""
    if name == "accept":
        return aiosock_sync.create_server(("127.0.0.1", 0))
    if name == "connect":
        return aiosock_sync.socket()
    one, other = aiosock_sync.socketpair()
    stack.enter_context(other)
    return one


# A signal may also come between the making of a coroutine and its first step, or within a
# finalizer, where Python tells of what the handler raised, and goes on.
@pytest.mark.filterwarnings("ignore:coroutine 'socket operation' was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_interruptions_at_any_moment_lose_nothing(timeout: float | None, stack: ExitStack) -> None:
    one, other = pair(stack)
    one.settimeout(timeout)
    sent = got = 0
    for phase in range(800):
        sent += other.send(b"x") if phase % 3 == 0 else 0
        with (
            suppress(Interrupted),
            alarm(0.00005 + phase % 97 * 1e-5, lambda: interrupt(Interrupted)),
        ):
            while True:
                data = one.recv(1)
                got += len(data)
    other.shutdown(_stdlib.SHUT_WR)
    while one.recv(1):
        got += 1
    assert sent - got in range(5)  # a byte that was returned, and the signal came before it counted


def test_a_handler_that_raises_within_a_timer_of_ours_is_heard(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio would log it and go on."""
    one, _ = pair(stack)
    one.settimeout(0.01)
    real = _readiness.Line._ring

    def ring(line: _readiness.Line) -> None:
        real(line)
        signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(_readiness.Line, "_ring", ring)
    with pytest.raises(Interrupted), alarm(LIMIT, lambda: interrupt(Interrupted)):
        one.recv(1)


def test_an_interruption_before_the_loop_turns_frees_the_socket(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair(stack)
    real = _driver._free_driver

    def interrupted() -> Any:
        monkeypatch.setattr(_driver, "_free_driver", real)
        raise Interrupted

    monkeypatch.setattr(_driver, "_free_driver", interrupted)
    try:
        one.recv(10)
    except Interrupted:  # which holds on to the frames of the call
        other.sendall(HELLO)
        assert one.recv(10) == HELLO


# --- a handler that returns -----------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in THE_STDLIBS if name not in IN_PART])
@each_module
def test_a_handler_that_returns_does_not_extend_the_time(
    module: Any, name: str, stack: ExitStack
) -> None:
    sock, call = WAITS[name](stack, module)
    sock.settimeout(0.1)
    rings: list[int] = []
    start = time.monotonic()
    with alarm(0.01, lambda: rings.append(1), again=0.01):
        if name == "connect_ex":
            assert call() == errno.EAGAIN
        else:
            with pytest.raises(TimeoutError, match="^timed out$"):
                call()
    assert 0.1 <= time.monotonic() - start < 0.1 + LIMIT
    assert len(rings) >= 3


@each_wait
def test_nor_that_of_fail_after(name: str, stack: ExitStack) -> None:
    _, call = WAITS[name](stack)
    rings: list[int] = []
    start = time.monotonic()
    with (
        alarm(0.01, lambda: rings.append(1), again=0.01),
        aiosock_sync.fail_after(0.1),
        pytest.raises(TimeoutError, match="^timed out$"),
    ):
        call()
    assert 0.1 <= time.monotonic() - start < 0.1 + LIMIT
    assert len(rings) >= 3


@each_module
def test_a_handler_that_returns_leaves_the_call_waiting(module: Any, stack: ExitStack) -> None:
    one, other = pair(stack, module)
    rings: list[int] = []

    def ring() -> None:
        rings.append(1)
        if len(rings) == 5:
            other.sendall(HELLO)

    with alarm(0.01, ring, again=0.01):
        assert one.recv(10) == HELLO
    assert len(rings) >= 5


@pytest.fixture
def no_loop_yet() -> Iterator[None]:
    """Of this thread: the first wait makes one."""
    _driver.loop_here().close()
    yield
    _driver.loop_here()


@pytest.mark.usefixtures("no_loop_yet")
def test_handlers_and_the_wakeup_descriptor_of_the_program_stay(stack: ExitStack) -> None:
    one, _ = pair(stack)
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    one.settimeout(0.01)
    with pytest.raises(TimeoutError):
        one.recv(1)
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup


@pytest.mark.usefixtures("no_loop_yet")
@each_module
def test_a_signal_in_a_wait_goes_to_the_wakeup_descriptor_of_the_program(
    module: Any, stack: ExitStack
) -> None:
    one, other = pair(stack, module)
    near, far = pair(stack, _stdlib)
    near.settimeout(LIMIT)
    far.setblocking(False)
    stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(far.fileno()))
    with alarm(0.02, lambda: other.sendall(HELLO), again=LIMIT):
        assert one.recv(10) == HELLO
    assert near.recv(10) == bytes([signal.SIGALRM])


# --- a handler that makes calls -------------------------------------------------------------


def test_a_handler_may_itself_make_blocking_calls(stack: ExitStack) -> None:
    one, other = pair(stack)
    near, far = pair(stack)
    near.settimeout(0.01)
    got: list[bytes] = []

    def handler() -> None:
        with pytest.raises(TimeoutError):
            near.recv(1)
        one.sendall(b"the other direction")
        far.sendall(HELLO)
        got.append(near.recv(10))
        other.sendall(b"go on")

    with alarm(0.02, handler):
        assert one.recv(10) == b"go on"
    assert got == [HELLO]
    assert other.recv(100) == b"the other direction"


def test_a_handler_may_read_from_the_socket_that_is_waited_for(stack: ExitStack) -> None:
    one, other = pair(stack)
    got: list[bytes] = []

    def handler() -> None:
        other.sendall(b"ab")
        got.append(one.recv(1))

    with alarm(0.02, handler):
        assert one.recv(1) == b"b"
    assert got == [b"a"]


# --- signals and threads --------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["by hand", "as a task"])
def test_a_signal_that_interrupted_no_system_call_is_heard(stack: ExitStack, wait: str) -> None:
    """It came just before.  Here another thread takes it, and leaves the handler to this one."""
    one, _ = pair(stack)
    calls: dict[str, Callable[[], Any]] = {
        "by hand": lambda: one.recv(1),
        "as a task": lambda: aiosock_sync.call(asyncio.sleep, LIMIT),
    }

    def receive_signal() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    with alarm(LIMIT, lambda: interrupt(Interrupted)):
        thread, outcomes = in_thread(receive_signal)
        start = time.monotonic()
        with pytest.raises(Interrupted):
            calls[wait]()
        assert time.monotonic() - start < LIMIT / 2
    ended(thread, outcomes)


@pytest.mark.parametrize("raises", [False, True])
@each_module
def test_a_signal_to_a_thread_that_waits_is_handled_in_the_main_thread(
    module: Any, raises: bool, stack: ExitStack
) -> None:
    """The wait goes on, and its data comes."""
    one, other = pair(stack, module)
    handled: list[threading.Thread] = []

    def handler() -> None:
        handled.append(threading.current_thread())
        if raises:
            raise Interrupted

    thread, outcomes = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    with alarm(LIMIT, handler):
        for count in (1, 2, 3):
            with suppress(Interrupted):
                signal.pthread_kill(thread.ident or 0, signal.SIGALRM)
                while len(handled) < count:
                    time.sleep(0.001)
    assert handled == [threading.main_thread()] * 3
    assert outcomes == []
    other.sendall(HELLO)
    assert ended(thread, outcomes) == HELLO


@each_module
def test_signals_to_a_thread_that_waits_do_not_extend_its_time(
    module: Any, stack: ExitStack
) -> None:
    one, _ = pair(stack, module)
    one.settimeout(0.15)
    start = time.monotonic()
    with alarm(LIMIT, lambda: None):
        thread, outcomes = in_thread(lambda: one.recv(10))
        while thread.is_alive() and time.monotonic() - start < LIMIT:
            with suppress(ProcessLookupError):  # it has just ended
                signal.pthread_kill(thread.ident or 0, signal.SIGALRM)
            time.sleep(0.01)
    assert isinstance(ended(thread, outcomes), TimeoutError)
    assert time.monotonic() - start >= 0.15


def test_ctrl_c_ends_the_call_of_the_main_thread_alone(stack: ExitStack) -> None:
    one, other = pair(stack)
    near, _ = pair(stack)
    thread = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        near.recv(10)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        one.recv(10)  # the socket of the other thread
    assert thread[1] == []
    other.sendall(HELLO)
    assert ended(*thread) == HELLO


def test_ctrl_c_ends_a_lookup(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    stack.callback(over.set)
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: over.wait(LIMIT) and [])
    sock = stack.enter_context(aiosock_sync.socket())
    calls: list[Callable[[], Any]] = [
        lambda: aiosock_sync.getaddrinfo("somewhere", 80),
        lambda: sock.connect(("somewhere", 80)),
        lambda: aiosock_sync.create_connection(("somewhere", 80)),
    ]
    for call in calls:
        with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
            call()
    over.set()
    with pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", 9))


# --- signals within system calls ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["sendall", "sendmsg", "TLS"])
def test_what_is_told_of_a_busy_sender_who_is_interrupted_is_what_arrives(
    name: str, stack: ExitStack
) -> None:
    """The peer takes all the time, so that the signal comes within a send as a rule."""
    data, phases = bytes(2**27), random.Random(1)
    for _ in range(30):
        with ExitStack() as connection:
            one, other = secure_pair(connection) if name == "TLS" else tcp_pair(connection)
            reading = in_thread(lambda other=other: length_to_the_end(other))  # type: ignore[misc]  # bound
            when, act = 0.001 + phases.random() * 0.01, lambda: interrupt(Interrupted)
            with pytest.raises(Interrupted) as caught, alarm(when, act, 5):
                one.sendmsg([data]) if name == "sendmsg" else one.sendall(data)
            if name == "TLS":
                one.sendall(b"")  # what is encrypted goes out
            one.close()
            told = vars(caught.value).get("bytes_sent")
            assert told in (None, ended(*reading))  # None: it had not begun, or was over


def length_to_the_end(sock: Any) -> int:
    return sum(map(len, iter(lambda: sock.recv(2**16), b"")))


GUARDED = [
    _readiness.Direction.complete,
    _readiness.Direction.next_piece,
    _readiness.Direction._turn,
    _readiness.Line.stand,
    _records.Records.flush,
    _records.Giving.__call__,
]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 guards every jump")
@pytest.mark.parametrize("function", GUARDED, ids=lambda function: function.__qualname__)
def test_a_jump_back_is_within_the_clauses_of_where_it_goes(function: Any) -> None:
    """A signal handler may raise in one, and Python 3.12 and 3.13 put some outside of them all."""
    code = function.__code__
    clauses = dis._parse_exception_table(code)  # type: ignore[attr-defined]  # there is no other way

    def around(offset: int) -> set[int]:
        return {one.target for one in clauses if one.start <= offset < one.end}

    jumps = [one for one in dis.get_instructions(code) if one.opname == "JUMP_BACKWARD"]
    unguarded = [
        one
        for one in jumps
        if one.positions and one.positions.lineno  # the others are of a throw() that is answered
        if around(one.argval) and not around(one.offset)
    ]
    assert unguarded == []
