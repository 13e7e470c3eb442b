"""What tests of blocking calls share: calls that wait, and who ends or interrupts them.

The calls are made on a socket of the module that is given, ours if none is: what holds for
the stdlib's socket as well is asked of both.
"""

import io
import os
import signal
import socket as _stdlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, overload

import pytest
from faces import LIMIT

import aiosock_sync

HELLO = b"hello"
BULK = bytes(10**7)  # more than the kernel's buffers hold


class Interrupted(Exception):  # noqa: N818  # by a signal handler
    """What a signal handler raises."""


@overload
def pair(stack: ExitStack) -> tuple[aiosock_sync.socket, aiosock_sync.socket]: ...
@overload
def pair(stack: ExitStack, module: Any) -> tuple[Any, Any]: ...
def pair(stack: ExitStack, module: Any = aiosock_sync) -> tuple[Any, Any]:
    one, other = module.socketpair()
    return stack.enter_context(one), stack.enter_context(other)


@overload
def tcp_pair(stack: ExitStack) -> tuple[aiosock_sync.socket, aiosock_sync.socket]: ...
@overload
def tcp_pair(stack: ExitStack, module: Any) -> tuple[Any, Any]: ...
def tcp_pair(stack: ExitStack, module: Any = aiosock_sync) -> tuple[Any, Any]:
    with module.create_server(("127.0.0.1", 0)) as listener:
        one = stack.enter_context(module.create_connection(listener.getsockname()))
        return one, stack.enter_context(listener.accept()[0])


def black_hole(stack: ExitStack) -> Any:
    """The address of a listener that answers nobody: its queue is full."""
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        client = stack.enter_context(_stdlib.socket())
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    return listener.getsockname()


def fill(sock: Any) -> None:
    """Send until the kernel takes no more."""
    for piece in (bytes(2**16), b"x"):
        with suppress(BlockingIOError):
            while True:
                sock.send(piece, _stdlib.MSG_DONTWAIT)


@contextmanager
def alarm(seconds: float, act: Callable[[], None], again: float = 0.2) -> Iterator[None]:
    """Within it, a signal handler acts after a while, and again if that was not heard.

    Python drops what a handler raises within a finalizer, with any socket.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: act())
    signal.setitimer(signal.ITIMER_REAL, seconds, again)
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


def forked(act: Callable[[], Any]) -> int:
    """The number of a child process that acts, and then is over."""
    child = os.fork()
    if not child:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(LIMIT))  # nobody waits for one that hangs
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def in_child(act: Callable[[], Any]) -> int:
    """The exit status of a forked child that acts: 0 if it raised nothing."""
    return status_of(forked(act))


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watched() -> dict[int, list[int]]:
    """The descriptors that each event queue of this process watches, as the kernel tells."""
    found: dict[int, list[int]] = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(FileNotFoundError):
            if "eventpoll" in os.readlink(f"/proc/self/fd/{number}"):
                with open(f"/proc/self/fdinfo/{number}") as told:
                    lines = [line.split() for line in told if line.startswith("tfd:")]
                found[number] = sorted(int(line[1]) for line in lines)
    return found


# --- calls that wait for ever -------------------------------------------------------------

Waiting = tuple[Any, Callable[[], Any]]
Make = Callable[..., Waiting]


def connecting(verb: str) -> Make:
    def make(stack: ExitStack, module: Any = aiosock_sync) -> Waiting:
        sock, address = stack.enter_context(module.socket()), black_hole(stack)
        return sock, lambda: getattr(sock, verb)(address)

    return make


def accepting(stack: ExitStack, module: Any = aiosock_sync) -> Waiting:
    listener = stack.enter_context(module.create_server(("127.0.0.1", 0)))
    return listener, listener.accept


def of_a_pair(call: Callable[[Any], Any]) -> Make:
    def make(stack: ExitStack, module: Any = aiosock_sync) -> Waiting:
        one, _ = pair(stack, module)
        return one, lambda: call(one)

    return make


def of_a_full_pair(kind: int, call: Callable[[Any], Any]) -> Make:
    def make(stack: ExitStack, module: Any = aiosock_sync) -> Waiting:
        one, other = map(stack.enter_context, module.socketpair(_stdlib.AF_UNIX, kind))
        fill(one)
        stack.callback(lambda: other)
        return one, lambda: call(one)

    return make


WAITS: dict[str, Make] = {
    "recv": of_a_pair(lambda sock: sock.recv(10)),
    "recv_into": of_a_pair(lambda sock: sock.recv_into(bytearray(10))),
    "recvfrom": of_a_pair(lambda sock: sock.recvfrom(10)),
    "recvfrom_into": of_a_pair(lambda sock: sock.recvfrom_into(bytearray(10))),
    "recvmsg": of_a_pair(lambda sock: sock.recvmsg(10)),
    "recvmsg_into": of_a_pair(lambda sock: sock.recvmsg_into([bytearray(10)])),
    "waitall": of_a_pair(lambda sock: sock.recv(10, _stdlib.MSG_WAITALL)),
    "peek": of_a_pair(lambda sock: sock.recv(10, _stdlib.MSG_PEEK)),
    "wait_readable": of_a_pair(lambda sock: sock.wait_readable()),
    "send": of_a_pair(lambda sock: sock.send(BULK)),
    "sendmsg": of_a_pair(lambda sock: sock.sendmsg([BULK])),
    "sendall": of_a_pair(lambda sock: sock.sendall(BULK)),
    "sendfile": of_a_pair(lambda sock: sock.sendfile(io.BytesIO(BULK))),
    "wait_writable": of_a_full_pair(_stdlib.SOCK_STREAM, lambda sock: sock.wait_writable()),
    "datagram": of_a_full_pair(_stdlib.SOCK_DGRAM, lambda sock: sock.send(b"x")),
    "accept": accepting,
    "connect": connecting("connect"),
    "connect_ex": connecting("connect_ex"),
}
IN_PART = {"send", "sendmsg"}  # with a timeout they send a part, and do not wait
THE_STDLIBS = [name for name in WAITS if not name.startswith("wait_")]

each_wait = pytest.mark.parametrize("name", WAITS)
each_module = pytest.mark.parametrize("module", [_stdlib, aiosock_sync], ids=["stdlib", "sync"])
