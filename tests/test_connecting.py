"""How `connect` and `connect_ex` come to their answer, and what they leave behind.

Refusals, black holes, repeated calls, addresses that cannot be had, SO_ERROR, and queues
of AF_UNIX that are full.

Where aiosock differs from the stdlib, on purpose: in timeout mode too a connect to an
AF_UNIX listener whose queue is full waits for room, where the stdlib raises BlockingIOError;
and after a refusal in timeout mode the next connect is a new one, where the stdlib's gives
ECONNABORTED first.
"""

import asyncio
import errno
import os
import socket as _stdlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from faces import AIOSOCK, LIMIT, Face, count_calls

LOOPBACK: dict[int, str] = {_stdlib.AF_INET: "127.0.0.1", _stdlib.AF_INET6: "::1"}
Failure = tuple[type[BaseException], int | None, str | None]


def failure(kind: type[OSError], number: int) -> Failure:
    return kind, number, os.strerror(number)


REFUSED = failure(ConnectionRefusedError, errno.ECONNREFUSED)
CONNECTED = failure(OSError, errno.EISCONN)
UNCONNECTED = failure(OSError, errno.ENOTCONN)
IN_PROGRESS = failure(BlockingIOError, errno.EINPROGRESS)
ALREADY = failure(BlockingIOError, errno.EALREADY)
FULL = failure(BlockingIOError, errno.EAGAIN)
CLOSED = failure(OSError, errno.EBADF)
LATE: Failure = (TimeoutError, None, "timed out")


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call returns, or what it raises, in full."""
    try:
        async with asyncio.timeout(LIMIT):
            return await call
    except OSError as error:
        return type(error), error.errno, error.strerror or str(error)


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that waits in the call, and then has its outcome."""
    task = asyncio.create_task(outcome(call))
    await asyncio.sleep(0.03)
    assert not task.done()
    return task


def peer_of(sock: Any) -> Any:
    """The address of the other end, None without one."""
    try:
        return sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return None


def so_error(sock: Any) -> int:
    number = sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR)
    assert isinstance(number, int)
    return number


async def closed_port(net: Face, family: int = _stdlib.AF_INET) -> Any:
    """An address that refuses: bound, so that nobody else gets it, and not listening."""
    sock = net.socket(family)
    await sock.bind((LOOPBACK[family], 0))
    return sock.getsockname()


async def black_hole(net: Face) -> Any:
    """A listener that answers nobody until it accepts: its queue is full."""
    listener = await net.listener()
    listener.listen(0)
    await net.socket().connect(listener.getsockname())
    return listener


def mode(sock: Any, timeout: float | None) -> Any:
    sock.settimeout(timeout)
    return sock


waits = pytest.mark.parametrize("timeout", [None, LIMIT], ids=["blocking", "timeout"])
in_each_mode = pytest.mark.parametrize(
    "timeout", [None, LIMIT, 0.0], ids=["blocking", "timeout", "non-blocking"]
)
of_both_families = pytest.mark.parametrize(
    "family", LOOPBACK, ids=lambda family: _stdlib.AddressFamily(family).name
)

# --- refused ------------------------------------------------------------------------


@waits
@of_both_families
async def test_a_refusal_is_told(net: Face, family: int, timeout: float | None) -> None:
    address = await closed_port(net, family)
    assert await outcome(mode(net.socket(family), timeout).connect(address)) == REFUSED
    assert await mode(net.socket(family), timeout).connect_ex(address) == errno.ECONNREFUSED


async def test_a_refusal_is_told_once(net: Face) -> None:
    sock = net.socket()
    assert await outcome(sock.connect(await closed_port(net))) == REFUSED
    assert so_error(sock) == 0
    assert peer_of(sock) is None


async def test_a_blocking_socket_can_connect_after_refusals(net: Face) -> None:
    listener, closed = await net.listener(), await closed_port(net)
    sock = net.socket()
    assert await outcome(sock.connect(closed)) == REFUSED
    assert await sock.connect_ex(closed) == errno.ECONNREFUSED
    assert await outcome(sock.connect(closed)) == REFUSED
    assert await outcome(sock.connect(listener.getsockname())) is None
    assert sock.getpeername() == listener.getsockname()
    server, address = await listener.accept()
    net.keep(server)
    assert address == sock.getsockname()


async def test_a_socket_with_a_timeout_can_connect_after_refusals() -> None:
    with AIOSOCK.closing():
        listener, closed = await AIOSOCK.listener(), await closed_port(AIOSOCK)
        sock = mode(AIOSOCK.socket(), LIMIT)
        assert await sock.connect_ex(closed) == errno.ECONNREFUSED
        assert await outcome(sock.connect(closed)) == REFUSED
        assert await sock.connect_ex(listener.getsockname()) == 0
        assert sock.getpeername() == listener.getsockname()


async def test_without_waiting_a_refusal_is_found_in_so_error(net: Face) -> None:
    sock, closed = mode(net.socket(), 0.0), await closed_port(net)
    assert await outcome(sock.connect(closed)) == IN_PROGRESS
    await asyncio.sleep(0.02)
    assert [so_error(sock) for _ in range(2)] == [errno.ECONNREFUSED, 0]
    sock = mode(net.socket(), 0.0)
    assert await sock.connect_ex(closed) == errno.EINPROGRESS
    await asyncio.sleep(0.02)
    assert await sock.connect_ex(closed) == errno.ECONNREFUSED
    assert await sock.connect_ex(closed) == errno.EINPROGRESS


async def test_without_waiting_a_connection_is_made_in_the_background(net: Face) -> None:
    listener, sock = await net.listener(), mode(net.socket(), 0.0)
    assert await sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    await asyncio.sleep(0.02)
    assert so_error(sock) == 0
    assert peer_of(sock) == listener.getsockname()
    answers = [await sock.connect_ex(listener.getsockname()) for _ in range(2)]
    assert answers == [0, errno.EISCONN]


async def test_a_connect_begun_without_waiting_is_waited_for_as_writable() -> None:
    with AIOSOCK.closing():
        listener = await AIOSOCK.listener()
        for address, error in [
            (listener.getsockname(), 0),
            (await closed_port(AIOSOCK), errno.ECONNREFUSED),
        ]:
            sock = mode(AIOSOCK.socket(), 0.0)
            assert await sock.connect_ex(address) == errno.EINPROGRESS
            sock.settimeout(LIMIT)
            await sock.wait_writable()
            assert so_error(sock) == error


# --- called again -------------------------------------------------------------------


@in_each_mode
async def test_a_connected_socket_does_not_connect_again(net: Face, timeout: float | None) -> None:
    listener, sock = await net.listener(), net.socket()
    await sock.connect(listener.getsockname())
    sock.settimeout(timeout)
    for address in listener.getsockname(), await closed_port(net):
        assert await outcome(sock.connect(address)) == CONNECTED
        assert await sock.connect_ex(address) == errno.EISCONN
    assert sock.getpeername() == listener.getsockname()


async def test_a_listener_does_not_connect(net: Face) -> None:
    listener = await net.listener()
    assert await outcome(listener.connect(listener.getsockname())) == CONNECTED


async def test_a_black_hole_is_given_up_after_the_timeout(net: Face) -> None:
    listener = await black_hole(net)
    sock = mode(net.socket(), 0.05)
    assert await outcome(sock.connect(listener.getsockname())) == LATE
    assert peer_of(sock) is None
    assert so_error(sock) == 0


async def test_a_late_connect_ex_is_eagain_and_then_ealready(net: Face) -> None:
    listener = await black_hole(net)
    sock = mode(net.socket(), 0.05)
    answers = [await sock.connect_ex(listener.getsockname())]
    assert peer_of(sock) is None
    sock.settimeout(0.0)
    answers += [await sock.connect_ex(listener.getsockname()) for _ in range(2)]
    assert answers == [errno.EAGAIN, errno.EALREADY, errno.EALREADY]
    assert await outcome(sock.connect(listener.getsockname())) == ALREADY


async def test_without_waiting_a_black_hole_is_in_progress(net: Face) -> None:
    listener, sock = await black_hole(net), mode(net.socket(), 0.0)
    answers = [await outcome(sock.connect(listener.getsockname())) for _ in range(2)]
    assert answers == [IN_PROGRESS, ALREADY]
    assert await sock.connect_ex(listener.getsockname()) == errno.EALREADY
    assert peer_of(sock) is None


async def test_a_connect_waits_until_a_black_hole_answers() -> None:
    with AIOSOCK.closing():
        listener, sock = await black_hole(AIOSOCK), AIOSOCK.socket()
        connecting = await waiting(sock.connect(listener.getsockname()))
        server, _ = await listener.accept()
        AIOSOCK.keep(server)
        assert await connecting is None  # at the next SYN, a second after the first
        assert sock.getpeername() == listener.getsockname()


async def test_shutting_down_wakes_who_waits_in_connect(net: Face) -> None:
    listener, sock = await black_hole(net), mode(net.socket(), LIMIT)
    connecting = await waiting(sock.connect(listener.getsockname()))
    sock.shutdown(_stdlib.SHUT_RDWR)
    assert await connecting == failure(ConnectionResetError, errno.ECONNRESET)
    assert peer_of(sock) is None


async def test_a_socket_may_connect_to_itself(net: Face) -> None:
    sock = net.socket()
    await sock.bind(("127.0.0.1", 0))
    assert await outcome(sock.connect(sock.getsockname())) is None
    assert sock.getpeername() == sock.getsockname()
    await sock.send(b"echo")
    assert await sock.recv(10) == b"echo"


# --- addresses that cannot be had ---------------------------------------------------


@in_each_mode
async def test_the_same_connection_twice_cannot_be_had(net: Face, timeout: float | None) -> None:
    listener = await net.listener()
    twins = [net.socket() for _ in range(2)]
    for twin in twins:
        twin.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_REUSEADDR, 1)
    await twins[0].bind(("127.0.0.1", 0))
    await twins[1].bind(twins[0].getsockname())
    await twins[0].connect(listener.getsockname())
    second = mode(twins[1], timeout)
    taken = failure(OSError, errno.EADDRNOTAVAIL)
    assert await outcome(second.connect(listener.getsockname())) == taken
    assert await second.connect_ex(listener.getsockname()) == errno.EADDRNOTAVAIL


async def test_a_foreign_address_cannot_be_bound(net: Face) -> None:
    sock = net.socket()
    assert await outcome(sock.bind(("192.0.2.1", 0))) == failure(OSError, errno.EADDRNOTAVAIL)


@in_each_mode
async def test_an_unreachable_address_fails_at_once(net: Face, timeout: float | None) -> None:
    sock = mode(net.socket(), timeout)
    address = "255.255.255.255", 9
    assert await outcome(sock.connect(address)) == failure(OSError, errno.ENETUNREACH)
    assert await sock.connect_ex(address) == errno.ENETUNREACH


async def test_a_v6_socket_of_v6_alone_does_not_reach_v4(net: Face) -> None:
    listener, sock = await net.listener(), net.socket(_stdlib.AF_INET6)
    sock.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, 1)
    address = "::ffff:127.0.0.1", listener.getsockname()[1]
    assert await outcome(sock.connect(address)) == failure(OSError, errno.ENETUNREACH)
    sock.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, 0)
    assert await outcome(sock.connect(address)) is None


async def test_a_datagram_socket_connects_again_and_again(net: Face) -> None:
    sock = net.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
    addresses = [await closed_port(net) for _ in range(2)]
    for address in addresses:
        assert await outcome(sock.connect(address)) is None
        assert sock.getpeername() == address
    assert await sock.connect_ex(("0.0.0.0", 0)) == 0
    broadcast = await outcome(sock.connect(("255.255.255.255", 9)))
    assert broadcast == failure(PermissionError, errno.EACCES)


# --- AF_UNIX ------------------------------------------------------------------------


def near(folder: Path) -> Path:
    """A folder's path from here: an absolute one may be too long for a socket."""
    return Path(os.path.relpath(folder))


@pytest.fixture(params=["path", "abstract"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | bytes:
    if request.param == "path":
        return str(near(tmp_path) / "s")
    return b"\0aiosock %d %s" % (os.getpid(), os.urandom(4).hex().encode())


async def unix_listener(net: Face, place: str | bytes, backlog: int = 0) -> Any:
    listener = net.socket(_stdlib.AF_UNIX)
    await listener.bind(place)
    listener.listen(backlog)
    return listener


async def full_unix_listener(net: Face, place: str | bytes) -> Any:
    """A listener whose queue is full, with one connection in it."""
    listener = await unix_listener(net, place)
    await net.socket(_stdlib.AF_UNIX).connect(place)
    one_more = mode(net.socket(_stdlib.AF_UNIX), 0.0)
    assert await outcome(one_more.connect(place)) == FULL
    return listener


@in_each_mode
async def test_a_unix_connect_is_done_at_once(
    net: Face, place: str | bytes, timeout: float | None
) -> None:
    await unix_listener(net, place, 1)
    sock = mode(net.socket(_stdlib.AF_UNIX), timeout)
    assert await outcome(sock.connect(place)) is None
    assert sock.getpeername() == place
    assert await outcome(sock.connect(place)) == CONNECTED
    assert await sock.connect_ex(place) == errno.EISCONN


async def test_with_the_queue_full_a_unix_connect_waits_for_room(
    net: Face, place: str | bytes
) -> None:
    listener = await full_unix_listener(net, place)
    sock = net.socket(_stdlib.AF_UNIX)
    connecting = await waiting(sock.connect(place))
    assert peer_of(sock) is None
    for _ in range(2):
        server, _ = await listener.accept()
        net.keep(server)
    assert await connecting is None
    assert sock.getpeername() == place
    await sock.sendall(b"through")
    assert await server.recv(10) == b"through"


async def test_with_the_queue_full_unix_connects_are_all_served(
    net: Face, place: str | bytes
) -> None:
    listener = await full_unix_listener(net, place)
    socks = [net.socket(_stdlib.AF_UNIX) for _ in range(5)]
    connecting = [await waiting(sock.connect_ex(place)) for sock in socks]
    for _ in range(6):
        server, _ = await listener.accept()
        net.keep(server)
    assert [await task for task in connecting] == [0] * 5
    assert [sock.getpeername() for sock in socks] == [place] * 5


async def test_with_the_queue_full_and_no_wait_a_unix_connect_is_refused_for_now(
    net: Face, place: str | bytes
) -> None:
    listener = await full_unix_listener(net, place)
    sock = mode(net.socket(_stdlib.AF_UNIX), 0.0)
    assert await outcome(sock.connect(place)) == FULL
    assert await sock.connect_ex(place) == errno.EAGAIN
    assert peer_of(sock) is None
    assert await outcome(sock.send(b"x")) == UNCONNECTED
    server, _ = await listener.accept()
    net.keep(server)
    assert await outcome(sock.connect(place)) is None
    assert sock.getpeername() == place


async def test_with_the_queue_full_a_unix_connect_is_late_after_its_timeout(
    place: str | bytes,
) -> None:
    with AIOSOCK.closing():
        listener = await full_unix_listener(AIOSOCK, place)
        sock = mode(AIOSOCK.socket(_stdlib.AF_UNIX), 0.05)
        assert await outcome(sock.connect(place)) == LATE
        assert await sock.connect_ex(place) == errno.EAGAIN
        assert peer_of(sock) is None
        sock.settimeout(LIMIT)
        connecting = await waiting(sock.connect_ex(place))
        server, _ = await listener.accept()
        AIOSOCK.keep(server)
        assert await connecting == 0
        assert sock.getpeername() == place


async def test_a_unix_connect_that_waits_is_refused_when_the_listener_closes(
    net: Face, place: str | bytes
) -> None:
    listener = await full_unix_listener(net, place)
    connecting = await waiting(net.socket(_stdlib.AF_UNIX).connect(place))
    listener.close()
    assert await connecting == REFUSED


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_a_unix_connect_that_waits_leaves_nothing_in_the_queue(
    place: str | bytes, end: str
) -> None:
    with AIOSOCK.closing():
        listener = await full_unix_listener(AIOSOCK, place)
        sock = AIOSOCK.socket(_stdlib.AF_UNIX)
        connecting = asyncio.create_task(sock.connect(place))
        await asyncio.sleep(0.02)
        if end == "cancelled":
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert peer_of(sock) is None
        else:
            sock.close()
            assert await outcome(connecting) == CLOSED
        server, _ = await listener.accept()
        AIOSOCK.keep(server)
        listener.settimeout(0.0)
        assert await outcome(listener.accept()) == FULL


async def test_a_unix_connect_waits_without_spinning(
    monkeypatch: pytest.MonkeyPatch, place: str | bytes
) -> None:
    with AIOSOCK.closing():
        await full_unix_listener(AIOSOCK, place)
        attempts = count_calls(monkeypatch, "connect", "connect_ex")
        sock = mode(AIOSOCK.socket(_stdlib.AF_UNIX), 0.2)
        assert await outcome(sock.connect(place)) == LATE
        assert 2 <= len(attempts) <= 100


@in_each_mode
async def test_where_no_unix_socket_listens_the_kernels_error_is_told(
    net: Face, tmp_path: Path, timeout: float | None
) -> None:
    folder = near(tmp_path)
    deaf, datagrams = str(folder / "deaf"), str(folder / "datagrams")
    await net.socket(_stdlib.AF_UNIX).bind(deaf)
    await net.socket(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM).bind(datagrams)
    for address, kind, number in [
        (str(folder / "missing"), FileNotFoundError, errno.ENOENT),
        (deaf, ConnectionRefusedError, errno.ECONNREFUSED),
        (datagrams, OSError, errno.EPROTOTYPE),
        (b"\0aiosock nobody listens here", ConnectionRefusedError, errno.ECONNREFUSED),
    ]:
        sock = mode(net.socket(_stdlib.AF_UNIX), timeout)
        assert await outcome(sock.connect(address)) == failure(kind, number)
        assert await sock.connect_ex(address) == number


# --- the wait -----------------------------------------------------------------------


async def test_a_false_wake_up_is_no_connection() -> None:
    with AIOSOCK.closing():
        listener, sock = await black_hole(AIOSOCK), mode(AIOSOCK.socket(), 0.2)
        connecting = await waiting(sock.connect(listener.getsockname()))
        sock._readiness.nudge()
        assert await connecting == LATE
        assert peer_of(sock) is None
