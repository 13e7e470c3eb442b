"""A descriptor's own mode is what gettimeout() says, whoever looks, and whatever interrupts.

accept and connect know no MSG_DONTWAIT: the blocking face makes them in a moment in which the
descriptor does not block.  Here is what may come in between: other threads, signal handlers,
a fork, other processes; and who else relies on the mode: `ssl`, children, `os.read`.
"""

import errno
import multiprocessing
import os
import random
import signal
import socket as _stdlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.reduction import DupFd
from typing import Any

import pytest
import trustme
from blocking import (
    BULK,
    HELLO,
    IN_PART,
    THE_STDLIBS,
    WAITS,
    Interrupted,
    alarm,
    each_module,
    ended,
    in_child,
    in_thread,
    interrupt,
    pair,
    tcp_pair,
)
from faces import LIMIT

import aiosock_sync

SHORT = 0.05


@pytest.fixture
def listener(stack: ExitStack) -> aiosock_sync.socket:
    return stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0)))


@contextmanager
def in_the_moment(act: Callable[[], Any], *, before_its_end: bool = False) -> Iterator[None]:
    """Act once, when a descriptor has been made non-blocking, or is about to block again."""
    real = os.set_blocking
    acted: list[int] = []

    def set_blocking(fd: int, blocking: bool) -> None:
        if blocking is not before_its_end or acted:
            real(fd, blocking)
            return
        acted.append(fd)
        if not blocking:
            real(fd, blocking)
        act()
        if blocking:
            real(fd, blocking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "set_blocking", set_blocking)
        yield
    assert acted


def accept_for(seconds: float, listener: aiosock_sync.socket) -> None:
    with aiosock_sync.fail_after(seconds):
        listener.accept()


def outcome_of_accept(listener: aiosock_sync.socket) -> Any:
    """Soon, as nobody comes; if it waits in C it has one come, for the tests to go on."""
    address = listener.getsockname()
    thread, outcomes = in_thread(lambda: accept_for(SHORT, listener))
    thread.join(LIMIT)
    if thread.is_alive():
        _stdlib.create_connection(address).close()
    return ended(thread, outcomes)


def late_accept(listener: aiosock_sync.socket) -> None:
    """A listener that is in order."""
    error = outcome_of_accept(listener)
    assert (type(error), error.args) == (TimeoutError, ("timed out",))


# --- within a moment ------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["another thread", "a signal handler"])
@pytest.mark.parametrize("timeout", [None, LIMIT, 0.0])
def test_a_mode_that_is_set_in_a_moment_holds(
    who: str, timeout: float | None, listener: aiosock_sync.socket
) -> None:
    setting: list[Any] = []

    def act() -> None:
        if who == "a signal handler":
            listener.settimeout(timeout)
            return
        setting.append(in_thread(lambda: listener.settimeout(timeout)))
        setting[0][0].join(SHORT)
        assert setting[0][0].is_alive(), "it did not wait for the moment's end"

    with in_the_moment(act):
        outcome = outcome_of_accept(listener)
    assert isinstance(outcome, TimeoutError if timeout != 0 else TimeoutError | BlockingIOError)
    assert [ended(*thread) for thread in setting] in ([], [None])
    assert listener.gettimeout() == timeout
    assert os.get_blocking(listener.fileno()) == (timeout is None)


def test_setblocking_is_settimeout(listener: aiosock_sync.socket) -> None:
    with in_the_moment(lambda: listener.setblocking(True)):
        late_accept(listener)
    with in_the_moment(lambda: listener.setblocking(False)), pytest.raises(BlockingIOError):
        listener.accept()
    assert not os.get_blocking(listener.fileno())


@pytest.mark.parametrize("before_its_end", [False, True])
def test_a_handler_that_raises_in_a_moment_leaves_the_mode(
    before_its_end: bool, listener: aiosock_sync.socket
) -> None:
    with (
        in_the_moment(lambda: interrupt(Interrupted), before_its_end=before_its_end),
        pytest.raises(Interrupted),
    ):
        accept_for(LIMIT, listener)
    assert os.get_blocking(listener.fileno())
    late_accept(listener)


def test_a_handler_may_accept_in_a_moment(listener: aiosock_sync.socket) -> None:
    with in_the_moment(lambda: suppressed(lambda: accept_for(SHORT, listener))):
        late_accept(listener)
    assert os.get_blocking(listener.fileno())


def suppressed(call: Callable[[], Any]) -> None:
    with suppress(TimeoutError):
        call()


@pytest.mark.parametrize("end", ["close", "detach"])
def test_a_handler_may_end_the_socket_in_a_moment(end: str, listener: aiosock_sync.socket) -> None:
    numbers: list[Any] = []
    with in_the_moment(lambda: numbers.append(getattr(listener, end)())):
        error = outcome_of_accept(listener)
    assert (type(error), error.errno) == (OSError, errno.EBADF)
    if end == "detach":
        assert os.get_blocking(numbers[0])
        os.close(numbers[0])


def test_a_descriptor_detached_in_a_moment_blocks(listener: aiosock_sync.socket) -> None:
    detaching: list[Any] = []

    def act() -> None:
        detaching.append(in_thread(listener.detach))
        detaching[0][0].join(SHORT)

    with in_the_moment(act):
        error = ended(*in_thread(listener.accept))
    assert (type(error), error.errno) == (OSError, errno.EBADF)
    number = ended(*detaching[0])
    assert os.get_blocking(number)
    os.close(number)


def test_a_reader_waits_also_in_anothers_moment(stack: ExitStack) -> None:
    sock = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    inside = threading.Event()

    def act() -> None:
        inside.set()
        time.sleep(SHORT)

    with in_the_moment(act):
        connecting = in_thread(lambda: sock.connect(("127.0.0.1", 9)))
        inside.wait(LIMIT)
        with aiosock_sync.fail_after(SHORT), pytest.raises(TimeoutError):
            sock.recv(1)
        assert ended(*connecting) is None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_anothers_moment_hangs_no_child(listener: aiosock_sync.socket) -> None:
    inside = threading.Event()

    def act() -> None:
        inside.set()
        time.sleep(SHORT)

    def child() -> None:
        signal.alarm(int(LIMIT))
        with pytest.raises(TimeoutError):
            accept_for(SHORT, listener)

    with in_the_moment(act):
        accepting = in_thread(lambda: accept_for(LIMIT / 10, listener))
        inside.wait(LIMIT)
        assert in_child(child) == 0
        assert isinstance(ended(*accepting), TimeoutError)


def test_another_process_in_its_moment_is_waited_for(listener: aiosock_sync.socket) -> None:
    """The mode is one for all that share the descriptor."""
    out, into = os.pipe()

    def act() -> None:
        os.write(into, b"x")
        time.sleep(4 * SHORT)

    def child() -> None:
        with in_the_moment(act), pytest.raises(TimeoutError):
            accept_for(6 * SHORT, listener)

    forked = in_thread(lambda: in_child(child))
    os.read(out, 1)
    late_accept(listener)
    assert ended(*forked) == 0
    assert os.get_blocking(listener.fileno())
    os.close(out)
    os.close(into)


# --- a mode that somebody else has set --------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in THE_STDLIBS if name != "sendfile"])
@each_module
def test_nobody_waits_on_a_descriptor_that_somebody_made_non_blocking(
    module: Any, name: str, stack: ExitStack
) -> None:
    """Although the socket's own mode is blocking."""
    sock, call = WAITS[name](stack, module)
    os.set_blocking(sock.fileno(), False)
    outcome = ended(*in_thread(call))
    if name in IN_PART:
        assert 0 < outcome < len(BULK)
    elif name == "connect_ex":
        assert outcome == errno.EINPROGRESS
    else:
        number = errno.EINPROGRESS if name == "connect" else errno.EAGAIN
        assert (type(outcome), outcome.errno) == (BlockingIOError, number)


@each_module
def test_a_sendall_that_does_not_wait_has_sent_what_fitted(module: Any, stack: ExitStack) -> None:
    one, other = pair(stack, module)
    os.set_blocking(one.fileno(), False)
    with pytest.raises(BlockingIOError) as caught:
        one.sendall(BULK)
    one.close()
    got = sum(map(len, iter(lambda: other.recv(2**20), b"")))
    assert 0 < got < len(BULK)
    assert vars(caught.value).get("bytes_sent", got) == got


@each_module
def test_waitall_takes_what_is_there_where_nobody_waits(module: Any, stack: ExitStack) -> None:
    one, other = pair(stack, module)
    os.set_blocking(one.fileno(), False)
    other.sendall(b"12")
    assert one.recv(4, _stdlib.MSG_WAITALL) == b"12"


@each_module
def test_a_second_socket_for_a_descriptor_changes_its_mode_and_no_timeout(
    module: Any, stack: ExitStack
) -> None:
    one, _ = pair(stack, module)
    same = stack.enter_context(one.dup())
    same.setblocking(False)
    assert (one.gettimeout(), same.gettimeout()) == (None, 0.0)
    assert not os.get_blocking(one.fileno())
    with pytest.raises(BlockingIOError):
        one.recv(1)
    one.setblocking(True)
    assert os.get_blocking(same.fileno())
    assert same.gettimeout() == 0.0


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


# --- at any moment --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_connects_that_are_interrupted_leave_the_mode(stack: ExitStack) -> None:
    sock = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    for phase in range(400):
        with suppress(Interrupted), alarm(2e-5 + phase % 97 * 2e-6, lambda: interrupt(Interrupted)):
            while True:
                sock.connect(("127.0.0.1", 9))
        assert os.get_blocking(sock.fileno())
    with aiosock_sync.fail_after(0.01), pytest.raises(TimeoutError):
        sock.recv(1)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sendall_that_is_interrupted_tells_how_far_it_got(stack: ExitStack) -> None:
    one, other = pair(stack)
    data = random.Random(3).randbytes(2**20)
    received = in_thread(lambda: b"".join(iter(lambda: other.recv(2**16), b"")))
    sent = 0
    for phase in range(200):
        try:
            with alarm(2e-5 + phase % 53 * 1e-5, lambda: interrupt(Interrupted)):
                one.sendall(data[sent:])
                sent = len(data)
        except Interrupted as error:
            sent += vars(error).get("bytes_sent", 0)
        if sent == len(data):
            break
    one.shutdown(_stdlib.SHUT_WR)
    assert len(ended(*received)) >= sent


# --- who else relies on the mode -------------------------------------------------------------


MODES = [None, LIMIT, 0.0]


@pytest.mark.parametrize("timeout", MODES)
@each_module
def test_the_descriptor_blocks_while_there_is_no_timeout(
    module: Any, timeout: float | None, stack: ExitStack
) -> None:
    one, _ = pair(stack, module)
    assert os.get_blocking(one.fileno())
    one.settimeout(timeout)
    assert os.get_blocking(one.fileno()) is (timeout is None)
    module.setdefaulttimeout(timeout)
    stack.callback(module.setdefaulttimeout, None)
    made = [stack.enter_context(module.socket()), *pair(stack, module)]
    assert {os.get_blocking(sock.fileno()) for sock in made} == {timeout is None}


PASSED_ON: dict[str, Callable[[Any, Any], int]] = {
    "duplicated": lambda module, sock: os.dup(sock.fileno()),
    "by dup": lambda module, sock: int(sock.dup().detach()),
    "in a message": lambda module, sock: sent_along(module, sock),
}


def sent_along(module: Any, sock: Any) -> int:
    one, other = module.socketpair()
    with one, other:
        module.send_fds(one, [b"x"], [sock.fileno()])
        number: int = module.recv_fds(other, 1, 1)[1][0]
        return number


@pytest.mark.parametrize("timeout", MODES)
@pytest.mark.parametrize("way", PASSED_ON)
@each_module
def test_a_descriptor_is_passed_on_in_its_mode(
    module: Any, way: str, timeout: float | None, stack: ExitStack
) -> None:
    """Also while another thread waits for it."""
    one, other = pair(stack, module)
    one.settimeout(timeout)
    reading = in_thread(lambda: one.recv(10))
    time.sleep(0.01)
    number = PASSED_ON[way](module, one)
    assert os.get_blocking(number) is (timeout is None)
    assert os.get_blocking(one.fileno()) is (timeout is None)
    os.close(number)
    other.sendall(HELLO)
    assert isinstance(ended(*reading), BlockingIOError if timeout == 0 else bytes)


@pytest.mark.parametrize("timeout", MODES)
@each_module
def test_fromfd_leaves_the_mode_and_says_blocking(
    module: Any, timeout: float | None, stack: ExitStack
) -> None:
    one, _ = pair(stack, module)
    one.settimeout(timeout)
    with module.fromfd(one.fileno(), one.family, one.type) as same:
        assert same.gettimeout() is None
        assert os.get_blocking(one.fileno()) is (timeout is None)
        assert os.get_blocking(same.fileno()) is (timeout is None)


@pytest.mark.parametrize("timeout", MODES)
@each_module
def test_a_descriptor_that_was_waited_for_is_detached_in_its_mode(
    module: Any, timeout: float | None, stack: ExitStack
) -> None:
    one, other = pair(stack, module)
    sending = threading.Timer(0.02, lambda: other.sendall(HELLO))
    sending.start()
    assert one.recv(10) == HELLO
    sending.join()
    one.settimeout(timeout)
    number = one.detach()
    assert os.get_blocking(number) is (timeout is None)
    os.close(number)


@pytest.mark.parametrize("timeout", MODES)
@each_module
def test_the_stdlibs_ssl_takes_a_socket_over_in_its_mode(
    module: Any, timeout: float | None, stack: ExitStack
) -> None:
    one, _ = tcp_pair(stack, module)
    one.settimeout(timeout)
    number, context = one.fileno(), ssl.create_default_context()
    taken = context.wrap_socket(one, server_hostname="a.test", do_handshake_on_connect=False)
    stack.enter_context(taken)
    assert (one.fileno(), taken.fileno(), taken.gettimeout()) == (-1, number, timeout)
    assert os.get_blocking(number) is (timeout is None)


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_the_stdlibs_tls_goes_over_our_sockets(timeout: float | None, stack: ExitStack) -> None:
    authority = trustme.CA()
    server, client = (ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    one, other = pair(stack)

    def serve() -> None:
        other.settimeout(timeout)
        with server.wrap_socket(other, server_side=True) as secure:
            data = b""
            while len(data) < 2**15:
                data += secure.recv(2**16)
            secure.sendall(data)

    serving = in_thread(serve)
    one.settimeout(timeout)
    with client.wrap_socket(one, server_hostname="localhost") as secure:
        assert one.fileno() == -1
        assert secure.gettimeout() == timeout
        assert os.get_blocking(secure.fileno()) == (timeout is None)
        data = random.Random(3).randbytes(2**15)
        secure.sendall(data)
        assert b"".join(iter(lambda: secure.recv(2**16), b"")) == data
    assert ended(*serving) is None


class Handed:
    """A socket on its way to a child process."""

    def __init__(self, sock: aiosock_sync.socket) -> None:
        self.sock = sock

    def __reduce__(self) -> Any:
        return taken, (DupFd(self.sock.fileno()),)


def taken(number: Any) -> Handed:
    return Handed(aiosock_sync.socket(fileno=number.detach()))


def serve(handed: Handed, calls: int) -> None:
    with handed.sock as listener:
        for _ in range(calls):
            with listener.accept()[0] as conn:
                conn.sendall(conn.recv(100))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_child_processes_serve_from_one_listener(
    start: str, listener: aiosock_sync.socket, stack: ExitStack
) -> None:
    if start == "spawn":
        stack.callback(resource_tracker._resource_tracker._stop)  # type: ignore[attr-defined]  # it keeps a pipe
    context: Any = multiprocessing.get_context(start)
    children = [context.Process(target=serve, args=(Handed(listener), 100)) for _ in "ab"]
    for child in children:
        stack.callback(child.close)
        child.start()
        stack.callback(child.join)
        stack.callback(child.terminate)
    for _ in range(200):
        with aiosock_sync.create_connection(listener.getsockname()) as client:
            client.settimeout(30)
            client.sendall(HELLO)
            assert client.recv(100) == HELLO
    for child in children:
        child.join(30)
        assert child.exitcode == 0
