"""Blocking calls and other processes: forks, programs that are started, the interpreter's end.

A forked child makes a loop of its own and leaves its parent's alone; sockets serve both.
"""

import copy
import fcntl
import multiprocessing
import os
import pickle
import signal
import socket as _stdlib
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing import forkserver, resource_sharer, resource_tracker
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from blocking import (
    HELLO,
    WAITS,
    each_module,
    each_wait,
    ended,
    forked,
    in_child,
    in_thread,
    pair,
    status_of,
    watched,
)
from faces import LIMIT

import aiosock
import aiosock_sync
from aiosock import _readiness

# Of a process with threads Python 3.12 says that a fork may deadlock.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def wait_and_receive() -> None:
    """A wait that ends with the time, and one that ends with data."""
    one, other = aiosock_sync.socketpair()
    with one, other:
        one.settimeout(0.01)
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(LIMIT)
        sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
        sending.start()
        assert one.recv(10) == HELLO
        sending.join()


# --- forks ----------------------------------------------------------------------------------


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


def test_a_parent_is_told_nothing_of_its_childs_sockets(stack: ExitStack) -> None:
    """It neither watches them nor spins, while they have data that nobody reads."""
    wait_and_receive()
    one, _ = pair(stack)
    one.settimeout(0.01)
    with suppress(TimeoutError):
        one.recv(1)
    out, into = pair(stack, _stdlib)
    before = watched()

    def child() -> None:
        mine, yours = aiosock_sync.socketpair()
        mine.settimeout(0.01)
        with suppress(TimeoutError):
            mine.recv(1)
        with suppress(TimeoutError):
            one.recv(1)
        yours.sendall(HELLO)
        into.send(b"x")
        assert into.recv(1) == b"y"

    number = forked(child)
    assert out.recv(1) == b"x"
    assert watched() == before
    busy = time.thread_time()
    with aiosock_sync.fail_after(0.3), pytest.raises(TimeoutError):
        one.recv(1)
    assert time.thread_time() - busy < 0.1
    out.send(b"y")
    assert status_of(number) == 0
    assert watched() == before


def test_a_close_still_wakes_a_parent_whose_child_has_ended(stack: ExitStack) -> None:
    """What wakes its loop from other threads was the child's too."""
    one, _ = pair(stack)

    def wait() -> Any:
        with suppress(TimeoutError), aiosock_sync.fail_after(0.01):
            one.recv(1)
        assert in_child(wait_and_receive) == 0
        waiting.set()
        return one.recv(1)

    waiting = threading.Event()
    thread = in_thread(wait)
    assert waiting.wait(LIMIT)
    time.sleep(0.02)
    one.close()
    assert isinstance(ended(*thread), OSError)


@each_module
def test_parent_and_child_wait_for_the_same_socket(module: Any, stack: ExitStack) -> None:
    one, other = map(stack.enter_context, module.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM))
    one.settimeout(0.01)
    with suppress(TimeoutError):
        one.recv(10)
    one.settimeout(LIMIT)
    done, ready = pair(stack, _stdlib)

    def child() -> None:
        ready.send(b"x")
        done.sendall(one.recv(10))

    number = forked(child)
    done.recv(1)
    sending = threading.Timer(0.05, lambda: [other.send(message) for message in (b"1", b"2")])
    sending.start()
    got = one.recv(10)
    sending.join()
    assert status_of(number) == 0
    assert sorted([got, ready.recv(10)]) == [b"1", b"2"]


@each_module
def test_a_thread_forks_and_the_childs_only_thread_hears_signals(
    module: Any, stack: ExitStack
) -> None:
    def fork() -> int:
        wait_and_receive()  # on this thread's own loop
        return in_child(child)

    def child() -> None:
        one, _ = pair(stack, module)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(7))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        one.recv(1)

    assert ended(*in_thread(fork)) == 7


def test_an_async_function_that_forks_leaves_its_parents_loop_alone() -> None:
    """And says nothing of it, also where the child comes out of the call."""
    forking = """
async def fork():
    await asyncio.sleep(0)
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        await asyncio.sleep(0.01)
    use()
    return child

child = aiosock_sync.call(fork)
use()
if not child:
    os._exit(0)
"""
    assert run(forking) == (0, "")


USE = """
def use():
    one, other = aiosock_sync.socketpair()
    with one, other:
        other.settimeout(0.01)
        try:
            other.recv(1)
        except TimeoutError:
            one.sendall(b"x")
        assert other.recv(1) == b"x"
"""
USING = f"""
import aiosock_sync, asyncio, atexit, os, threading, time, warnings, weakref
{USE}
"""


def run(program: str) -> tuple[int, str]:
    """Exit status and complaints of a program that has a function which uses sockets."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", USING + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


# --- programs that are started --------------------------------------------------------------


@pytest.mark.parametrize("where", ["the main thread", "another thread"])
def test_a_function_before_a_program_may_make_blocking_calls(where: str, stack: ExitStack) -> None:
    one, other = pair(stack)

    def start() -> int:
        with suppress(TimeoutError), aiosock_sync.fail_after(0.01):
            one.recv(10)
        return subprocess.run(["true"], preexec_fn=wait_and_receive, check=False).returncode

    assert (start() if where == "the main thread" else ended(*in_thread(start))) == 0
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(10) == HELLO
    sending.join()


def test_a_program_finds_none_of_our_descriptors(stack: ExitStack) -> None:
    one, _ = pair(stack)
    with suppress(TimeoutError), aiosock_sync.fail_after(0.01):
        one.recv(10)
    command = ["ls", "-l", "/proc/self/fd"]
    told = subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True)
    assert "eventpoll" not in told.stdout
    assert "socket:" not in told.stdout


@pytest.mark.parametrize("name", ["recv", "accept", "connect"])
def test_a_program_started_beside_a_wait_finds_a_blocking_descriptor(
    name: str, stack: ExitStack
) -> None:
    sock, call = WAITS[name](stack)
    thread = in_thread(call)
    time.sleep(0.02)
    look = "import os; print(os.get_blocking(0))"
    command = [sys.executable, "-c", look]
    told = subprocess.run(command, stdin=sock.fileno(), capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"
    sock.close()
    ended(*thread)


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


# --- multiprocessing --------------------------------------------------------------------------


def answer(sock: Any) -> tuple[str, Any]:
    """What a child makes of a socket: says hello, and tells what it is."""
    with sock:
        sock.sendall(HELLO)
        return type(sock).__module__, sock.gettimeout()


def answer_from(queue: Any) -> None:
    answer(queue.get())


def by_argument(context: Any, sock: Any) -> None:
    child = context.Process(target=answer, args=(sock,))
    child.start()
    child.join()
    child.close()


def by_queue(context: Any, sock: Any) -> None:
    queue = context.SimpleQueue()
    child = context.Process(target=answer_from, args=(queue,))
    child.start()
    queue.put(sock)
    child.join()
    child.close()
    queue.close()


def by_pool(context: Any, sock: Any) -> None:
    with context.Pool(1) as pool:
        assert pool.apply(answer, (sock,)) == (type(sock).__module__, None)
        pool.close()
        pool.join()


@pytest.fixture
def no_servers_left() -> Iterator[None]:
    """multiprocessing keeps its helpers, and pipes to them."""
    yield
    resource_sharer.stop(timeout=LIMIT)
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no other way
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # likewise


@pytest.mark.usefixtures("no_servers_left")
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("give", [by_argument, by_queue, by_pool])
def test_multiprocessing_hands_a_socket_to_a_child(
    give: Callable[[Any, Any], None], start: str, stack: ExitStack
) -> None:
    one, other = pair(stack)
    give(multiprocessing.get_context(start), other)
    other.close()
    one.settimeout(LIMIT)
    assert one.recv(10) == HELLO


@pytest.mark.parametrize("face", [_stdlib, aiosock_sync, aiosock])
def test_no_other_pickle_has_a_socket(face: Any) -> None:
    with face.socket() as sock:
        for dumps in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="cannot pickle 'socket' object"):
                dumps(sock)


def test_multiprocessing_refuses_what_the_stdlibs_refuses(stack: ExitStack) -> None:
    """A socket of a loop, one that speaks TLS, one of a class of the user's own."""
    sock = stack.enter_context(aiosock.socket())
    with pytest.raises(TypeError, match="cannot pickle 'socket' object"):
        ForkingPickler.dumps(sock)

    class Own(aiosock_sync.socket):
        pass

    with pytest.raises(TypeError, match="cannot pickle 'Own' object"):
        ForkingPickler.dumps(stack.enter_context(Own()))
    context = ssl.create_default_context()
    context.sslsocket_class = aiosock_sync.SSLSocket
    secure = context.wrap_socket(aiosock_sync.socket(), server_hostname="a.test")
    with pytest.raises(TypeError, match="cannot pickle 'SSLSocket' object"):
        ForkingPickler.dumps(stack.enter_context(secure))


# --- interpreters beside this one -------------------------------------------------------------

BESIDE = f"""
import sys
sys.path[:] = %r
import asyncio, aiosock, aiosock_sync
{USE}
use()
try:
    aiosock_sync.getservbyname("http")  # by a thread, which not each interpreter may have
except RuntimeError as error:
    assert "interpreter" in str(error)

async def main():
    one, other = aiosock.socketpair()
    with one, other:
        waiting = asyncio.create_task(one.recv(1))
        await asyncio.sleep(0)
        await other.sendall(b"x")
        assert await waiting == b"x"

asyncio.run(main())
"""

IN_ANOTHER = """
try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as _interpreters
before = _interpreters.create()
if hasattr(_interpreters, "exec"):
    assert _interpreters.exec(before, {program!r}) is None
else:
    _interpreters.run_string(before, {program!r})
_interpreters.destroy(before)
use()
"""


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="CPython 3.12 itself crashes after `import ssl` in an interpreter beside another",
)
def test_an_interpreter_beside_this_one_has_sockets_and_loops_of_its_own() -> None:
    """A lookup, where it may have no threads, says so."""
    program = IN_ANOTHER.format(program=BESIDE % sys.path)
    assert run("use()" + program) == (0, "")


# --- the end of the interpreter -------------------------------------------------------------

EXITS = {
    "in an exit function": "atexit.register(use)",
    "in a finalizer at the end": """
class Last:
    def __del__(self):
        use()
last = Last()
use()
""",
    "in a weak reference's callback at the end": """
class Last:
    pass
last = Last()
known = weakref.ref(last, lambda _: use())
""",
    "in a weak reference's finalizer": "weakref.finalize(os, use)",
    "in a thread that is left behind": """
warnings.simplefilter("ignore", ResourceWarning)
one, other = aiosock_sync.socketpair()
threading.Thread(target=one.recv, args=(1,), daemon=True).start()
time.sleep(0.05)
""",
    "in threads that talk on": """
warnings.simplefilter("ignore", ResourceWarning)
def talk(sock):
    while True:
        sock.sendall(b"x")
        sock.recv(1)
pair = aiosock_sync.socketpair()
for sock in pair:
    threading.Thread(target=talk, args=(sock,), daemon=True).start()
time.sleep(0.05)
""",
    "in a thread that is waited for": """
threading.Thread(target=lambda: (time.sleep(0.05), use())).start()
""",
    "in a function that threads end with": "threading._register_atexit(use)",
    "in a thread that dies while it holds a socket": """
def die():
    one, other = aiosock_sync.socketpair()
    with one, other:
        one.settimeout(0.01)
        one.recv(1)
threading.excepthook = lambda told: None
thread = threading.Thread(target=die)
thread.start()
thread.join()
use()
""",
    "in a thread that is interrupted by the end": """
one, other = aiosock_sync.socketpair()
thread = threading.Thread(target=one.recv, args=(1,))
thread.start()
threading._register_atexit(other.close)  # before that thread is waited for
atexit.register(one.close)
""",
    "with garbage collected at every turn": """
import gc
gc.set_threshold(1)
for _ in range(5):
    use()
aiosock_sync.call(asyncio.sleep, 0)
aiosock_sync.getservbyname("http")
""",
    "nowhere more": "use()",
}


@pytest.mark.parametrize("where", EXITS)
def test_the_interpreter_ends_in_silence_with_a_socket_used(where: str) -> None:
    assert run(EXITS[where]) == (0, "")
