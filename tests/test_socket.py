"""The socket object: how it is made, its modes, its timeouts, its attributes.

Decided for the awaitable face: the descriptor is non-blocking in every mode (in the
stdlib it is blocking while there is no timeout) and is given back by ``detach`` in the
mode that ``gettimeout`` says; a late ``sendall`` tells how much it has sent.
"""

import asyncio
import copy
import errno
import fractions
import math
import os
import pickle
import signal
import socket as _stdlib
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import pytest
from conftest import LOOPS, Loop
from faces import METHODS, Face, wrapped

import aiosock

T = TypeVar("T")

MODES = [None, 0.0, 2.5]
SIZE = 10_000_000  # more than the kernel's buffers hold


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The system's own error: its class, its number and its text."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # which one is asserted below
        yield
    error = OSError(number, os.strerror(number))
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))


def fill(sock: Any) -> int:
    """Send until the kernel takes no more; how much it took.  The mode stays as it was."""
    sent, fd = 0, os.dup(sock.fileno())
    with _stdlib.socket(fileno=fd) as same:
        try:
            while True:
                sent += same.send(bytes(65536), _stdlib.MSG_DONTWAIT)
        except BlockingIOError:
            return sent


async def drain(sock: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := await sock.recv(1 << 20)):
        data += piece
    return bytes(data)


async def waiting(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """A task that has begun to wait."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.02)
    assert not task.done()
    return task


def run(make: Callable[[], Loop], main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main)


each_loop = pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS.keys())


@pytest.fixture
def no_default(net: Face) -> Iterator[None]:
    yield
    _stdlib.setdefaulttimeout(None)


# --- modes --------------------------------------------------------------------------


async def test_there_are_three_modes(net: Face) -> None:
    for timeout in MODES:
        sock = net.socket()
        sock.settimeout(timeout)
        assert sock.gettimeout() == timeout
        assert sock.timeout == timeout
        assert sock.getblocking() is (timeout != 0.0)


async def test_a_new_socket_is_blocking(net: Face) -> None:
    assert net.socket().gettimeout() is None


async def test_the_descriptor_is_non_blocking_in_every_mode() -> None:
    for timeout in MODES:
        with aiosock.socket() as sock:
            assert not os.get_blocking(sock.fileno())
            sock.settimeout(timeout)
            assert not os.get_blocking(sock.fileno())


async def test_a_detached_descriptor_is_in_its_mode(net: Face) -> None:
    for timeout in MODES:
        sock = net.socket()
        sock.settimeout(timeout)
        number = sock.fileno()
        fd = sock.detach()
        try:
            assert fd == number
            assert os.get_blocking(fd) is (timeout is None)
        finally:
            os.close(fd)
        assert (sock.fileno(), sock.detach()) == (-1, -1)


async def test_setblocking_sets_no_timeout_or_no_time(net: Face) -> None:
    sock = net.socket()
    for flag in (True, 1, 2, -1, False, 0):
        sock.settimeout(7)
        sock.setblocking(flag)
        assert sock.gettimeout() == (None if flag else 0.0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="any truth is taken since 3.12")
async def test_setblocking_takes_any_truth(net: Face) -> None:
    sock = net.socket()
    for flag in (None, "", "x", 0.0, 1.5):
        sock.settimeout(7)
        sock.setblocking(flag)
        assert sock.gettimeout() == (None if flag else 0.0)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="only numbers were taken before 3.12")
async def test_setblocking_takes_a_number(net: Face) -> None:
    sock = net.socket()
    sock.settimeout(7)
    for flag in (None, "", "x", 0.0, 1.5):
        with pytest.raises(TypeError, match="object cannot be interpreted as an integer$"):
            sock.setblocking(flag)
        assert sock.gettimeout() == 7


class Index:
    def __index__(self) -> int:
        return 3


NUMBERS = [(5, 5.0), (True, 1.0), (False, 0.0), (2.5, 2.5), (Index(), 3.0), (1e-12, 1e-09)]


@pytest.mark.usefixtures("no_default")
async def test_a_timeout_is_any_number_and_becomes_a_float(net: Face) -> None:
    sock = net.socket()
    for value, timeout in [*NUMBERS, (-0.0, 0.0)]:
        sock.settimeout(value)
        net.setdefaulttimeout(value)
        for result in (sock.gettimeout(), net.getdefaulttimeout()):
            assert type(result) is float
            assert result == timeout
            assert math.copysign(1, result) == 1


BAD_TIMEOUTS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "Timeout value out of range"),
    (-0.001, ValueError, "Timeout value out of range"),
    (math.nan, ValueError, "Invalid value NaN (not a number)"),
    (1e20, OverflowError, "timestamp out of range for platform time_t"),
    (math.inf, OverflowError, "timestamp out of range for platform time_t"),
    ("1", TypeError, "'str' object cannot be interpreted as an integer"),
    (1j, TypeError, "'complex' object cannot be interpreted as an integer"),
    (fractions.Fraction(1), TypeError, "'Fraction' object cannot be interpreted as an integer"),
]


async def test_a_bad_timeout_is_refused_and_changes_nothing(net: Face) -> None:
    sock = net.socket()
    sock.settimeout(7)
    for value, error, text in BAD_TIMEOUTS:
        for setter in (sock.settimeout, net.setdefaulttimeout):
            with pytest.raises(error) as caught:
                setter(value)
            assert str(caught.value) == text
    assert sock.gettimeout() == 7


async def test_a_closed_socket_stores_its_timeout_and_fails(net: Face) -> None:
    sock = net.socket()
    sock.close()
    with refused(errno.EBADF):
        sock.settimeout(3)
    assert sock.gettimeout() == 3
    with refused(errno.EBADF):
        sock.setblocking(False)
    assert sock.gettimeout() == 0.0
    assert sock.getblocking() is False
    with pytest.raises(TypeError):
        sock.settimeout("x")
    assert sock.gettimeout() == 0.0


async def test_the_errors_have_their_old_names(net: Face) -> None:
    assert net.timeout is TimeoutError
    assert net.error is OSError
    assert issubclass(net.herror, OSError)
    assert issubclass(net.gaierror, OSError)
    assert net.gaierror is _stdlib.gaierror


@pytest.mark.usefixtures("no_default")
async def test_the_default_timeout_is_that_of_new_sockets_alone(net: Face) -> None:
    old = net.socket()
    listener = await net.listener()
    client = net.socket()
    await client.connect(listener.getsockname())
    net.setdefaulttimeout(1.5)
    assert net.getdefaulttimeout() == 1.5
    new = [net.socket(), *net.socketpair(), net.fromfd(old.fileno(), old.family, old.type)]
    new.append(net.keep((await listener.accept())[0]))
    assert [sock.gettimeout() for sock in new] == [1.5] * 5
    assert [sock.gettimeout() for sock in (old, listener, client)] == [None] * 3


async def test_a_dup_has_the_timeout_of_its_source(net: Face) -> None:
    for timeout in MODES:
        sock = net.socket()
        sock.settimeout(timeout)
        same = net.keep(sock.dup())
        assert same.gettimeout() == timeout
        same.settimeout(9)
        assert sock.gettimeout() == timeout


async def test_the_type_may_carry_flags(net: Face) -> None:
    flags = net.SOCK_NONBLOCK | net.SOCK_CLOEXEC
    sock = net.socket(net.AF_INET, net.SOCK_STREAM | flags)
    assert sock.type == net.SOCK_STREAM
    assert sock.gettimeout() == 0.0


# --- time limits --------------------------------------------------------------------


async def test_a_timeout_is_never_early(net: Face) -> None:
    for timeout in (1e-9, 0.0015, 0.05):
        sock, _peer = net.socketpair()
        sock.settimeout(timeout)
        begin = monotonic()
        with pytest.raises(TimeoutError) as late:
            await sock.recv(1)
        assert monotonic() - begin >= timeout
        assert (late.value.args, late.value.errno) == (("timed out",), None)


async def test_the_shortest_timeout_makes_one_attempt(net: Face) -> None:
    sock, peer = net.socketpair()
    sock.settimeout(1e-12)
    for _ in range(2):  # the first leaves it known that nothing is left
        await peer.send(b"there already")
        assert await sock.recv(100) == b"there already"


async def test_a_new_timeout_is_that_of_the_next_call(net: Face) -> None:
    sock, peer = net.socketpair()
    reading = await waiting(sock.recv(1))
    sock.settimeout(1e-9)
    await asyncio.sleep(0.05)
    assert not reading.done()
    await peer.send(b"x")
    assert await reading == b"x"


async def test_a_false_wake_up_does_not_move_the_deadline() -> None:
    sock, peer = aiosock.socketpair()
    sock.settimeout(0.2)
    with sock, peer:
        reading = await waiting(sock.recv(1))
        async with asyncio.timeout(5):
            while not reading.done():
                sock._readiness.nudge()
                await asyncio.sleep(0.02)
        with pytest.raises(TimeoutError, match="^timed out$"):
            await reading


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
async def test_signals_do_not_move_the_deadline() -> None:
    rings: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rings.append(number))
    sock, peer = aiosock.socketpair()
    sock.settimeout(0.2)
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
    try:
        with sock, peer, pytest.raises(TimeoutError, match="^timed out$"):
            async with asyncio.timeout(5):
                await sock.recv(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rings


@each_loop
def test_an_interrupted_receive_takes_nothing(make: Callable[[], Loop]) -> None:
    sock, peer = aiosock.socketpair()

    async def interrupted() -> None:
        asyncio.get_running_loop().call_later(0.02, signal.raise_signal, signal.SIGINT)
        await sock.recv(1)

    with sock, peer:
        with pytest.raises(KeyboardInterrupt):
            run(make, interrupted())
        assert run(make, peer.send(b"x")) == 1
        assert run(make, sock.recv(1)) == b"x"


async def test_the_timeout_of_sendall_is_for_all_of_it(net: Face) -> None:
    """A peer that always takes a little does not prolong it."""
    sock, peer = await net.tcp_pair()
    sock.settimeout(0.2)
    sending = asyncio.ensure_future(sock.sendall(bytes(5 * SIZE)))
    async with asyncio.timeout(5):
        while not sending.done():
            await peer.recv(4096)
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await sending


async def test_a_late_sendall_tells_how_much_it_sent() -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        sock.settimeout(0.01)
        with pytest.raises(TimeoutError) as late:
            await sock.sendall(bytes(SIZE))
        sock.close()
        sent = getattr(late.value, "bytes_sent", None)
        assert sent == len(await drain(peer, SIZE))
        assert sent


async def test_sendall_has_no_result(net: Face) -> None:
    sock, peer = net.socketpair()
    assert await sock.sendall(b"hello") is None
    assert await peer.recv(10) == b"hello"


# --- blocking mode is more than a timeout without end -------------------------------

SENDERS: dict[str, Callable[[Any, bytes], Coroutine[Any, Any, int]]] = {
    "send": lambda sock, data: sock.send(data),
    "sendmsg": lambda sock, data: sock.sendmsg([data[:7], b"", data[7:]]),
    "sendto": lambda sock, data: sock.sendto(data, sock.getpeername()),
}


@pytest.mark.parametrize("how", ["send", "sendmsg", "sendto"])
async def test_a_blocking_send_sends_all(net: Face, how: str) -> None:
    sock, peer = await net.tcp_pair()
    data = os.urandom(1000) * (SIZE // 1000)
    sending = await waiting(SENDERS[how](sock, data))
    assert await drain(peer, SIZE) == data
    assert await sending == SIZE


@pytest.mark.parametrize("how", ["send", "sendmsg"])
async def test_a_blocking_send_on_a_pair_sends_all(net: Face, how: str) -> None:
    sock, peer = net.socketpair()
    sending = await waiting(SENDERS[how](sock, bytes(SIZE)))
    assert len(await drain(peer, SIZE)) == SIZE
    assert await sending == SIZE


@pytest.mark.parametrize("how", ["send", "sendmsg", "sendto"])
async def test_with_a_timeout_a_send_sends_what_fits(net: Face, how: str) -> None:
    for timeout in (0.0, 5.0):
        sock, peer = await net.tcp_pair()
        sock.settimeout(timeout)
        sent = await SENDERS[how](sock, bytes(SIZE))
        assert 0 < sent < SIZE
        sock.close()
        assert len(await drain(peer, SIZE)) == sent


async def test_waitall_waits_for_all_in_blocking_mode(net: Face) -> None:
    sock, peer = net.socketpair()
    await peer.send(b"12")
    reading = await waiting(sock.recv(4, net.MSG_WAITALL))
    await peer.send(b"34")
    assert await reading == b"1234"


async def test_waitall_takes_what_is_there_with_a_timeout(net: Face) -> None:
    for timeout in (0.0, 5.0):
        sock, peer = net.socketpair()
        sock.settimeout(timeout)
        await peer.send(b"12")
        assert await sock.recv(4, net.MSG_WAITALL) == b"12"


async def test_dontwait_does_not_wait_in_blocking_mode(net: Face) -> None:
    sock, _peer = net.socketpair()
    async with asyncio.timeout(5):
        with refused(errno.EAGAIN):
            await sock.recv(1, net.MSG_DONTWAIT)
        fill(sock)
        with refused(errno.EAGAIN):
            await sock.send(b"x", net.MSG_DONTWAIT)


async def test_dontwait_waits_with_a_timeout(net: Face) -> None:
    sock, _peer = net.socketpair()
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await sock.recv(1, net.MSG_DONTWAIT)


READING: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "recv": lambda sock: sock.recv(1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "recvfrom": lambda sock: sock.recvfrom(1),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(1)),
    "recvmsg": lambda sock: sock.recvmsg(1),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(1)]),
}
WRITING: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
}
STREAMING = READING | WRITING


async def test_a_non_blocking_call_fails_at_once(net: Face) -> None:
    sock, _peer = net.socketpair()
    fill(sock)
    sock.setblocking(False)
    for call in STREAMING.values():
        with refused(errno.EAGAIN):
            await call(sock)


async def test_a_call_with_a_timeout_is_late(net: Face) -> None:
    sock, _peer = net.socketpair()
    fill(sock)
    sock.settimeout(0.01)
    for call in STREAMING.values():
        with pytest.raises(TimeoutError, match="^timed out$"):
            await call(sock)


# --- attributes ---------------------------------------------------------------------


def test_every_name_of_the_class_is_there_and_described() -> None:
    names = {name for name in dir(_stdlib.socket) if not name.startswith("_")}
    assert not [name for name in names if not getattr(aiosock.socket, name).__doc__]


async def test_what_may_wait_is_awaited_and_nothing_else() -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        sock.setblocking(False)
        plain = {"fileno", "gettimeout", "getblocking", "getsockname", "getpeername"}
        assert not [n for n in plain if asyncio.iscoroutine(getattr(sock, n)())]
        for name in METHODS & STREAMING.keys():
            call = STREAMING[name](sock)
            assert asyncio.iscoroutine(call)
            call.close()


async def test_an_attribute_cannot_be_set(net: Face) -> None:
    with net.module.socket() as sock:
        for name in ("timeout", "family", "type", "proto"):
            before = getattr(sock, name)
            with pytest.raises(AttributeError):
                setattr(sock, name, 1)
            assert getattr(sock, name) == before


async def test_a_fresh_socket_is_tcp(net: Face) -> None:
    sock = net.socket()
    assert (sock.family, sock.type, sock.proto) == (net.AF_INET, net.SOCK_STREAM, 0)
    assert type(sock.family) is net.AddressFamily
    assert type(sock.type) is net.SocketKind
    assert type(sock.proto) is int


async def test_a_socket_is_itself_and_true(net: Face) -> None:
    with net.module.socket() as one, net.module.socket() as other:
        assert one == one
        assert one != other
        assert one
        assert len({one, other}) == 2
        assert weakref.ref(one)() is one


async def test_the_class_has_no_dict_and_a_subclass_has(net: Face) -> None:
    class Own(net.module.socket):  # type: ignore[misc,name-defined]  # the class of either face
        pass

    with net.module.socket() as sock, Own() as own:
        assert not hasattr(sock, "__dict__")
        with pytest.raises(AttributeError):
            sock.note = 1
        own.note = 1
        assert own.note == 1


async def test_a_socket_cannot_be_pickled_or_copied(net: Face) -> None:
    with net.module.socket() as sock:
        for how in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="^cannot pickle 'socket' object$"):
                how(sock)


async def test_the_repr_tells_the_addresses(net: Face) -> None:
    client, server = await net.tcp_pair()
    name = f"{net.module.__name__}.socket"
    mine, theirs = client.getsockname(), client.getpeername()
    fd = client.fileno()
    text = f"family=2, type=1, proto=0, laddr={mine}, raddr={theirs}"
    assert repr(client) == f"<{name} fd={fd}, {text}>"
    server.close()
    assert repr(server) == f"<{name} [closed] fd=-1, family=2, type=1, proto=0>"


async def test_the_repr_leaves_out_what_there_is_not(net: Face) -> None:
    name = f"{net.module.__name__}.socket"
    sock, unbound = net.socket(), net.socket(net.AF_UNIX)
    text = "family=2, type=1, proto=0, laddr=('0.0.0.0', 0)"
    assert repr(sock) == f"<{name} fd={sock.fileno()}, {text}>"
    assert repr(unbound) == f"<{name} fd={unbound.fileno()}, family=1, type=1, proto=0>"


async def test_the_repr_names_a_subclass(net: Face) -> None:
    class Own(net.module.socket):  # type: ignore[misc,name-defined]  # the class of either face
        pass

    with Own() as own:
        assert repr(own).startswith(f"<{__name__}.{Own.__qualname__} fd={own.fileno()}, ")


# --- making -------------------------------------------------------------------------


async def test_the_kernel_refuses_a_socket(net: Face) -> None:
    for name, value, number in (
        ("family", 12345, errno.EAFNOSUPPORT),
        ("type", 12345, errno.EINVAL),
        ("proto", 99, errno.EPROTONOSUPPORT),
        ("fileno", 1_000_000, errno.EBADF),
    ):
        with refused(number):
            net.module.socket(**{name: value})


BAD_NUMBERS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "negative file descriptor"),
    (1.5, TypeError, "'float' object cannot be interpreted as an integer"),
    ("1", TypeError, "'str' object cannot be interpreted as an integer"),
]


async def test_a_bad_descriptor_is_refused(net: Face) -> None:
    for fileno, error, text in BAD_NUMBERS:
        with pytest.raises(error) as caught:
            net.module.socket(fileno=fileno)
        assert str(caught.value) == text


async def test_a_file_is_no_socket(net: Face) -> None:
    with open(os.devnull, "rb") as file:  # noqa: ASYNC230  # opens at once
        with refused(errno.ENOTSOCK):
            net.module.socket(fileno=file.fileno())
        assert file.read() == b""


async def test_a_descriptor_tells_what_it_is(net: Face) -> None:
    fd = net.module.socket(net.AF_INET6, net.SOCK_DGRAM).detach()
    sock = net.socket(fileno=fd)
    assert sock.fileno() == fd
    assert (sock.family, sock.type) == (net.AF_INET6, net.SOCK_DGRAM)
    assert sock.proto == net.IPPROTO_UDP


async def test_what_is_said_of_a_descriptor_is_believed(net: Face) -> None:
    fd = net.module.socket().detach()
    sock = net.socket(net.AF_INET6, net.SOCK_DGRAM, 5, fileno=fd)
    assert (sock.family, sock.type, sock.proto) == (net.AF_INET6, net.SOCK_DGRAM, 5)


async def test_a_family_that_nobody_knows_is_a_number(net: Face) -> None:
    sock = net.socket(12345, 7, 5, fileno=net.module.socket().detach())
    assert (sock.family, sock.type, sock.proto) == (12345, 7, 5)
    assert (type(sock.family), type(sock.type)) == (int, int)


async def test_a_descriptor_is_taken_for_blocking(net: Face) -> None:
    source = net.module.socket()
    source.setblocking(False)
    assert net.fromfd(source.fileno(), net.AF_INET, net.SOCK_STREAM).gettimeout() is None
    assert net.socket(fileno=source.detach()).gettimeout() is None


async def test_fromfd_makes_a_second_descriptor(net: Face) -> None:
    sock, peer = net.socketpair()
    same = net.fromfd(sock.fileno(), net.AF_UNIX, net.SOCK_STREAM)
    assert same.fileno() != sock.fileno()
    sock.close()
    await peer.send(b"x")
    assert await same.recv(1) == b"x"


async def test_no_descriptor_is_inherited(net: Face) -> None:
    sock, peer = net.socketpair()
    listener = await net.listener()
    client = net.socket()
    await client.connect(listener.getsockname())
    accepted = net.keep((await listener.accept())[0])
    same = net.keep(sock.dup())
    again = net.fromfd(sock.fileno(), sock.family, sock.type)
    made = [sock, peer, client, accepted, same, again]
    assert [s.get_inheritable() for s in made] == [False] * 6
    assert not any(os.get_inheritable(s.fileno()) for s in made)
    sock.set_inheritable(True)
    assert sock.get_inheritable() is True


async def test_a_pair_is_of_the_unix_family(net: Face) -> None:
    assert [sock.family for sock in net.socketpair()] == [net.AF_UNIX] * 2
    assert [sock.type for sock in net.socketpair(net.AF_UNIX, net.SOCK_DGRAM)] == [2, 2]
    with refused(errno.EOPNOTSUPP):
        net.socketpair(net.AF_INET)


async def test_a_dup_has_the_class_of_its_source(net: Face) -> None:
    class Own(net.module.socket):  # type: ignore[misc,name-defined]  # the class of either face
        pass

    with Own() as own, own.dup() as same:
        assert type(same) is Own
        assert same.fileno() != own.fileno()
        assert (same.family, same.type, same.proto) == (own.family, own.type, own.proto)


async def test_a_foreign_socket_is_taken_over(ours: Face) -> None:
    for timeout in MODES:
        foreign, peer = _stdlib.socketpair()
        foreign.settimeout(timeout)
        fd = foreign.fileno()
        with peer:
            taken = ours.module.from_stdlib_socket(foreign)
            assert type(taken) is ours.module.socket
            sock = ours.keep(wrapped(taken))
            assert foreign.fileno() == -1
            assert sock.fileno() == fd
            assert sock.gettimeout() == timeout
            assert os.get_blocking(fd) is (ours.blocks and timeout is None)
            peer.send(b"x")
            assert await sock.recv(1) == b"x"


async def test_only_a_foreign_socket_is_taken_over(ours: Face) -> None:
    values: list[Any] = [None, 1, "sock"]
    for value in values:
        with pytest.raises(TypeError, match="socket.socket"):
            ours.module.from_stdlib_socket(value)
    with aiosock.socket() as own, pytest.raises(TypeError, match="socket.socket"):
        ours.module.from_stdlib_socket(own)


async def test_taking_over_asks_no_default_timeout(ours: Face) -> None:
    foreign = _stdlib.socket()
    _stdlib.setdefaulttimeout(3)
    try:
        with ours.module.from_stdlib_socket(foreign) as sock:
            assert sock.gettimeout() is None
    finally:
        _stdlib.setdefaulttimeout(None)
