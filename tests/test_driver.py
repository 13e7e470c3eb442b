"""How blocking calls wait: what interrupts them, what ends them, and what they leave behind.

What a call returns is in the other files, for all faces.  Here is what only a blocking face
has: signals, threads that share a socket, forks, loops of other people in the same thread,
and the two calls that blocking code has nowhere else, `fail_after` and `call`.
"""

import asyncio
import contextvars
import errno
import fcntl
import gc
import io
import logging
import math
import os
import signal
import socket as _stdlib
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from conftest import LOOPS
from faces import LIMIT, open_descriptors

import aiosock
import aiosock_sync
from aiosock import _readiness
from aiosock_sync import _driver

HELLO = b"hello"


class Interrupted(Exception):  # noqa: N818  # by a signal handler
    """What a signal handler raises."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(stack: ExitStack) -> tuple[aiosock_sync.socket, aiosock_sync.socket]:
    one, other = aiosock_sync.socketpair()
    return stack.enter_context(one), stack.enter_context(other)


def tcp_pair(stack: ExitStack) -> tuple[aiosock_sync.socket, aiosock_sync.socket]:
    with aiosock_sync.create_server(("127.0.0.1", 0)) as listener:
        one = stack.enter_context(aiosock_sync.create_connection(listener.getsockname()))
        return one, stack.enter_context(listener.accept()[0])


def black_hole(stack: ExitStack) -> Any:
    """The address of a listener that answers nobody: its queue is full."""
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        client = stack.enter_context(_stdlib.socket())
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    return listener.getsockname()


@contextmanager
def alarm(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Within it, a signal handler acts after a while, and again if that was not heard.

    Python drops what a handler raises within a finalizer, with any socket.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: act())
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt(error: type[BaseException] = KeyboardInterrupt) -> None:
    raise error


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread that makes a call, and the list to which its outcome goes."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(call())
        except BaseException as error:
            outcomes.append(type(error)(*error.args))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes


def ended(thread: threading.Thread, outcomes: list[Any]) -> Any:
    thread.join(LIMIT)
    assert not thread.is_alive(), "it hangs"
    return outcomes[0]


# --- calls that wait for ever -------------------------------------------------------------

Waiting = tuple[Any, Callable[[], Any]]


def connecting(stack: ExitStack) -> Waiting:
    sock, address = stack.enter_context(aiosock_sync.socket()), black_hole(stack)
    return sock, lambda: sock.connect(address)


def accepting(stack: ExitStack) -> Waiting:
    listener = stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0)))
    return listener, listener.accept


def of_a_pair(call: Callable[[Any], Any]) -> Callable[[ExitStack], Waiting]:
    def make(stack: ExitStack) -> Waiting:
        one, _ = pair(stack)
        return one, lambda: call(one)

    return make


WAITS: dict[str, Callable[[ExitStack], Waiting]] = {
    "recv": of_a_pair(lambda sock: sock.recv(10)),
    "recv_into": of_a_pair(lambda sock: sock.recv_into(bytearray(10))),
    "recvfrom": of_a_pair(lambda sock: sock.recvfrom(10)),
    "recvmsg": of_a_pair(lambda sock: sock.recvmsg(10)),
    "waitall": of_a_pair(lambda sock: sock.recv(10, _stdlib.MSG_WAITALL)),
    "wait_readable": of_a_pair(lambda sock: sock.wait_readable()),
    "send": of_a_pair(lambda sock: sock.send(bytes(10**7))),
    "sendall": of_a_pair(lambda sock: sock.sendall(bytes(10**7))),
    "accept": accepting,
    "connect": connecting,
}
each_wait = pytest.mark.parametrize("name", WAITS)


# --- signals ------------------------------------------------------------------------------


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


def test_ctrl_c_takes_nothing_and_the_next_call_gets_the_data(stack: ExitStack) -> None:
    one, other = pair(stack)
    with pytest.raises(KeyboardInterrupt), alarm(0.02, interrupt):
        one.recv(10)
    other.sendall(HELLO)
    assert one.recv(10) == HELLO


def test_what_an_interrupted_sendall_tells_is_what_arrives(stack: ExitStack) -> None:
    one, other = pair(stack)
    with pytest.raises(KeyboardInterrupt) as caught, alarm(0.02, interrupt):
        one.sendall(bytes(10**7))
    one.close()
    got = 0
    while data := other.recv(2**20):
        got += len(data)
    assert got == vars(caught.value)["bytes_sent"] > 0


# A signal may also come between the making of a coroutine and its first step, or within a
# finalizer, where Python tells of what the handler raised, and goes on.
@pytest.mark.filterwarnings("ignore:coroutine 'Direction.complete' was never awaited")
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


@pytest.mark.parametrize("size", [-1, 2**70])
def test_a_wrong_size_in_a_conversation_is_refused_at_once(size: int, stack: ExitStack) -> None:
    one, other = tcp_pair(stack)

    def converse() -> None:
        threading.Timer(0.02, lambda: other.sendall(HELLO)).start()
        assert one.recv(100) == HELLO
        one.recv(size)

    outcome = ended(*in_thread(converse))
    assert isinstance(outcome, ValueError | OverflowError)


def test_a_conversation_waits_on_no_descriptor_that_somebody_made_non_blocking(
    stack: ExitStack,
) -> None:
    one, other = tcp_pair(stack)
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(100) == HELLO
    sending.join()
    os.set_blocking(one.fileno(), False)
    with pytest.raises(BlockingIOError):
        one.recv(100)


def test_a_handler_that_returns_does_not_extend_the_time(stack: ExitStack) -> None:
    one, _ = pair(stack)
    one.settimeout(0.2)
    calls: list[float] = []

    def again() -> None:
        calls.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, 0.03)

    start = time.monotonic()
    with pytest.raises(TimeoutError, match="^timed out$"), alarm(0.03, again):
        one.recv(1)
    assert len(calls) >= 3
    assert 0.2 <= time.monotonic() - start < 0.2 + LIMIT


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


def test_the_timeout_at_the_start_of_a_call_counts(stack: ExitStack) -> None:
    one, other = pair(stack)
    thread, outcomes = in_thread(lambda: one.recv(10))
    time.sleep(0.02)
    one.settimeout(0.001)
    time.sleep(0.02)
    other.sendall(HELLO)
    assert ended(thread, outcomes) == HELLO


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


def test_many_threads_leave_nothing(stack: ExitStack) -> None:
    before = open_descriptors(queues=True)

    def work() -> int:
        one, other = aiosock_sync.socketpair()
        with one, other:
            server = threading.Thread(target=echo, args=(other,))
            server.start()
            for _ in range(100):
                one.sendall(HELLO)
                assert one.recv(100) == HELLO
            one.close()
            server.join()
        return 1

    threads = [in_thread(work) for _ in range(200)]
    assert [ended(*thread) for thread in threads] == [1] * 200
    gc.collect()
    assert open_descriptors(queues=True) == before


def echo(sock: aiosock_sync.socket) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


# --- processes ----------------------------------------------------------------------------


def in_child(act: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threaded", [False, True])
def test_a_forked_child_leaves_its_parents_loop_alone(threaded: bool, stack: ExitStack) -> None:
    one, other = pair(stack)
    near, far = pair(stack)
    one.settimeout(0.01)
    with pytest.raises(TimeoutError):
        one.recv(1)  # it is registered now
    one.settimeout(None)
    waiting = in_thread(lambda: near.recv(10)) if threaded else None
    time.sleep(0.02)

    def child() -> None:
        mine, yours = aiosock_sync.socketpair()
        mine.settimeout(0.01)
        with suppress(TimeoutError):
            mine.recv(1)
        yours.sendall(HELLO)
        assert mine.recv(10) == HELLO
        for sock in (one, other, near, far, mine, yours):
            sock.close()

    assert in_child(child) == 0
    if waiting:
        far.sendall(HELLO)
        assert ended(*waiting) == HELLO
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(10) == HELLO
    sending.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_is_in_the_engine_hangs_no_child() -> None:
    """The child has a copy of the lock, and not the thread that would release it."""
    inside = threading.Event()

    def hold() -> None:
        with _readiness.adopting:
            inside.set()
            time.sleep(0.05)

    def child() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(LIMIT))
        one, other = aiosock_sync.socketpair()
        one.settimeout(0.01)
        with suppress(TimeoutError):
            one.recv(1)
        one.close()
        other.close()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    assert in_child(child) == 0
    thread.join()


def test_a_child_process_finds_a_blocking_descriptor_blocking(stack: ExitStack) -> None:
    one, other = pair(stack)
    program = "import os; print(os.read(0, 100))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=one.fileno(), stdout=subprocess.PIPE
    ) as child:
        time.sleep(0.1)
        other.sendall(HELLO)
        assert child.communicate(timeout=LIMIT)[0] == b"b'hello'\n"


@each_wait
def test_the_descriptors_mode_is_the_sockets_also_while_it_waits(
    name: str, stack: ExitStack
) -> None:
    sock, call = WAITS[name](stack)
    thread, outcomes = in_thread(call)
    time.sleep(0.02)
    assert not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK
    sock.settimeout(1)
    assert fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK
    sock.close()
    ended(thread, outcomes)


EXITS = {
    "in an exit function": "atexit.register(use)",
    "in a finalizer at the end": """
class Last:
    def __del__(self):
        use()
last = Last()
use()
""",
    "in a thread that is left behind": """
warnings.simplefilter("ignore", ResourceWarning)
one, other = aiosock_sync.socketpair()
threading.Thread(target=one.recv, args=(1,), daemon=True).start()
time.sleep(0.05)
""",
    "nowhere more": "use()",
}


@pytest.mark.parametrize("where", EXITS)
def test_the_interpreter_ends_in_silence_with_a_socket_used(where: str) -> None:
    program = f"""
import aiosock_sync, atexit, threading, time, warnings

def use():
    one, other = aiosock_sync.socketpair()
    with one, other:
        other.settimeout(0.01)
        try:
            other.recv(1)
        except TimeoutError:
            one.sendall(b"x")
        assert other.recv(1) == b"x"

{EXITS[where]}
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


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


def test_no_public_method_calls_another(stack: ExitStack) -> None:
    """A subclass may override any of them, as ssl's does."""

    class Strict(aiosock_sync.socket):
        def forbidden(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("called by another method")

        connect_ex = send = recv = recvfrom = recv_into = sendto = forbidden

    listener, _ = accepting(stack)
    sock = stack.enter_context(Strict())
    sock.connect(listener.getsockname())
    conn = stack.enter_context(listener.accept()[0])
    sock.sendall(HELLO)
    assert sock.sendmsg([HELLO]) == 5
    assert conn.recv(10, _stdlib.MSG_WAITALL) == HELLO * 2
    conn.sendall(HELLO)
    assert sock.recvmsg(10)[0] == HELLO


# --- fail_after -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own"),
    [(name, own) for name in WAITS for own in (None, 30.0) if name != "send" or not own],
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
        with aiosock_sync.fail_after(0.02), pytest.raises(TimeoutError, match="^timed out$"):
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
    with pytest.raises(TimeoutError, match="^timed out$"):
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
        lambda: one.sendto(HELLO, None),
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
    with pytest.raises(aiosock_sync.gaierror, match="^nobody$") as failed:
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
