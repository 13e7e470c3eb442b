"""Makers of sockets: create_connection, create_server, socketpair, fromfd, and descriptors sent.

These differ from the stdlib on purpose and are asked of aiosock alone:

* create_connection and create_server are awaited, or entered with ``async with``.
* A cancelled create_connection leaves no socket open.
* recv_fds gives descriptors that children do not inherit, and honours its flags, as
  send_fds honours flags and address.
"""

import _socket
import array
import asyncio
import contextlib
import errno
import os
import pathlib
import socket as _stdlib
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any, cast

import pytest
from faces import Face, open_descriptors, queue_of
from secured import HOST, serving, trusting

import aiosock
from aiosock import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_PEEK,
    MSG_TRUNC,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
)


def closed_port() -> tuple[str, int]:
    """A loopback address where nobody listens."""
    with _stdlib.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        found: tuple[str, int] = sock.getsockname()
    return found


@contextlib.contextmanager
def found_at(*addresses: Any) -> Iterator[None]:
    """Every name is at these addresses."""
    found = [
        (AF_INET6 if ":" in address[0] else AF_INET, SOCK_STREAM, 6, "", address)
        for address in addresses
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stdlib, "getaddrinfo", lambda *args, **named: found)
        yield


# --- create_connection --------------------------------------------------------------


async def test_create_connection(net: Face) -> None:
    listener = await net.listener()
    sock = net.keep(await net.create_connection(listener.getsockname()))
    server, address = await listener.accept()
    net.keep(server)
    assert address == sock.getsockname()
    assert sock.getpeername() == listener.getsockname()
    assert (sock.family, sock.type, sock.proto) == (AF_INET, SOCK_STREAM, 6)
    assert sock.gettimeout() is None
    assert not sock.get_inheritable()


@pytest.mark.parametrize("host", ["localhost", None, "127.1"])
async def test_create_connection_to_a_host(net: Face, host: Any) -> None:
    listener = await net.listener()
    port = listener.getsockname()[1]
    sock = net.keep(await net.create_connection((host, port)))
    assert sock.getpeername() == ("127.0.0.1", port)


async def test_create_connection_over_ipv6(net: Face) -> None:
    listener = await net.listener(AF_INET6)
    sock = net.keep(await net.create_connection(listener.getsockname()[:2]))
    assert sock.getpeername() == listener.getsockname()


@pytest.mark.parametrize("timeout", [None, 5, 0.5])
async def test_the_timeout_becomes_the_socket_s_own(net: Face, timeout: float | None) -> None:
    listener = await net.listener()
    sock = net.keep(await net.create_connection(listener.getsockname(), timeout))
    assert sock.gettimeout() == timeout


async def test_the_default_timeout_is_taken_only_if_none_is_given(net: Face) -> None:
    listener = await net.listener()
    address = listener.getsockname()
    net.setdefaulttimeout(7.0)
    try:
        default = net.keep(await net.create_connection(address))
        given = net.keep(await net.create_connection(address, timeout=None))
        served = net.keep(await net.create_server(("127.0.0.1", 0)))
    finally:
        net.setdefaulttimeout(None)
    assert [s.gettimeout() for s in (default, given, served)] == [7.0, None, 7.0]


async def test_create_connection_without_waiting(net: Face) -> None:
    listener = await net.listener()
    with pytest.raises(BlockingIOError) as caught:
        await net.create_connection(listener.getsockname(), 0)
    assert caught.value.errno == errno.EINPROGRESS


async def test_a_source_address_is_bound(net: Face) -> None:
    listener = await net.listener()
    source = ("127.0.0.2", 0)
    made = await net.create_connection(listener.getsockname(), source_address=source)
    assert net.keep(made).getsockname()[0] == "127.0.0.2"


async def test_create_connection_refused(net: Face) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        await net.create_connection(closed_port(), 5)
    assert caught.value.args == (errno.ECONNREFUSED, "Connection refused")


async def test_all_errors_come_in_a_group(net: Face) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await net.create_connection(closed_port(), all_errors=True)
    assert caught.value.message == "create_connection failed"
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((("127.0.0.1",),), ValueError),
        ((("127.0.0.1", 1, 2),), ValueError),
        ((None,), TypeError),
        ((("127.0.0.1", 9), 5, None, True), TypeError),
        ((), TypeError),
        ((("nosuch.invalid", 9),), aiosock.gaierror),
    ],
)
async def test_wrong_arguments_of_create_connection(
    net: Face, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await net.create_connection(*arguments)


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ((-1,), ValueError, "Timeout value out of range"),
        (("x",), TypeError, "'str' object cannot be interpreted as an integer"),
        ((5, ("127.0.0.1",)), TypeError, "AF_INET address must be a pair (host, port)"),
    ],
)
async def test_what_is_refused_late_leaves_no_socket(
    more: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    """The stdlib refuses in the same words, but forgets the socket."""
    before = open_descriptors()
    with pytest.raises(error) as caught:
        await aiosock.create_connection(("127.0.0.1", 9), *more)
    assert str(caught.value) == text
    assert open_descriptors() == before


async def test_addresses_are_tried_in_order_until_one_lets_us(net: Face) -> None:
    first, second = await net.listener(), await net.listener()
    with found_at(closed_port(), first.getsockname(), second.getsockname()):
        sock = net.keep(await net.create_connection(("name.test", 1)))
    assert sock.getpeername() == first.getsockname()


async def test_the_last_error_is_raised(net: Face) -> None:
    with (
        found_at(closed_port(), ("255.255.255.255", 9)),
        pytest.raises(OSError, match="unreachable|denied") as caught,
    ):
        await net.create_connection(("name.test", 1))
    assert caught.value.errno != errno.ECONNREFUSED


async def test_all_errors_are_kept_in_order(net: Face) -> None:
    with (
        found_at(closed_port(), ("::1", closed_port()[1], 0, 0), ("255.255.255.255", 9)),
        pytest.raises(ExceptionGroup) as caught,
    ):
        await net.create_connection(("name.test", 1), all_errors=True)
    refused = errno.ECONNREFUSED
    assert [getattr(error, "errno", None) for error in caught.value.exceptions][:2] == [refused] * 2
    assert len(caught.value.exceptions) == 3


@pytest.mark.parametrize("all_errors", [False, True])
async def test_a_name_without_an_address(net: Face, all_errors: bool) -> None:
    with found_at(), pytest.raises(OSError, match="^getaddrinfo returns an empty list$"):
        await net.create_connection(("name.test", 1), all_errors=all_errors)


@contextlib.asynccontextmanager
async def black_hole() -> Any:
    """The address of a listener whose queue is full: nobody gets an answer there."""
    async with aiosock.create_server(("127.0.0.1", 0), backlog=0) as server:
        with contextlib.ExitStack() as opened:
            for _ in range(4):
                filler = opened.enter_context(aiosock.socket())
                filler.setblocking(False)
                await filler.connect_ex(server.getsockname())
            yield server.getsockname()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_cancelled_create_connection_leaves_no_socket(count: int) -> None:
    async with black_hole() as hole:
        with found_at(*[closed_port()] * (count - 1), hole):
            before = open_descriptors()
            connecting = asyncio.create_task(awaited(aiosock.create_connection(("name.test", 1))))
            for _ in range(500):  # the lookup is a thread's, which a busy machine may start late
                await asyncio.sleep(0.01)
                if open_descriptors() > before:
                    break
            assert open_descriptors() == before + 1
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert open_descriptors() == before


async def awaited(opening: Any) -> Any:
    return await opening


async def test_create_connection_is_awaited_or_entered() -> None:
    async with aiosock.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        sock = await aiosock.create_connection(address)
        with sock:
            assert type(sock) is aiosock.socket
            assert sock.getpeername() == address
        async with aiosock.create_connection(address) as entered:
            assert type(entered) is aiosock.socket
            assert entered.fileno() >= 0
        assert entered.fileno() == -1


async def test_an_entered_connection_is_closed_by_an_error() -> None:
    kept: list[aiosock.socket] = []

    async def enter(address: Any) -> None:
        async with aiosock.create_connection(address) as sock:
            kept.append(sock)
            raise ZeroDivisionError

    async with aiosock.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(ZeroDivisionError):
            await enter(server.getsockname())
    with pytest.raises(ConnectionRefusedError):
        await enter(closed_port())
    assert [sock.fileno() for sock in kept] == [-1]


# --- create_server ------------------------------------------------------------------


async def test_create_server(net: Face) -> None:
    server = net.keep(await net.create_server(("127.0.0.1", 0)))
    host, port = server.getsockname()
    assert (host, bool(port)) == ("127.0.0.1", True)
    assert (server.family, server.type, server.proto) == (AF_INET, SOCK_STREAM, 0)
    assert server.getsockopt(SOL_SOCKET, SO_REUSEADDR) == 1
    assert server.getsockopt(SOL_SOCKET, SO_REUSEPORT) == 0
    assert server.gettimeout() is None
    client = net.socket()
    await client.connect((host, port))
    accepted, address = await server.accept()
    net.keep(accepted)
    assert address == client.getsockname()


async def test_the_empty_host_is_every_interface(net: Face) -> None:
    assert net.keep(await net.create_server(("", 0))).getsockname()[0] == "0.0.0.0"


async def test_an_error_says_which_address_it_was(net: Face) -> None:
    busy = (await net.listener()).getsockname()
    for address, number in [(busy, errno.EADDRINUSE), (("192.0.2.1", 0), errno.EADDRNOTAVAIL)]:
        with pytest.raises(OSError, match="while attempting") as caught:
            await net.create_server(address)
        text = f"{os.strerror(number)} (while attempting to bind on address {address!r})"
        assert caught.value.args == (number, text)
        assert type(caught.value) is OSError


async def test_an_unknown_host_says_which_address_it_was(net: Face) -> None:
    with pytest.raises(OSError, match="while attempting to bind on address") as caught:
        await net.create_server(("nosuch.invalid", 0))
    assert type(caught.value) is OSError


@pytest.mark.parametrize(("dualstack", "only"), [(False, 1), (True, 0)])
async def test_ipv6_only_or_both(net: Face, dualstack: bool, only: int) -> None:
    made = await net.create_server(("::", 0), family=AF_INET6, dualstack_ipv6=dualstack)
    server = net.keep(made)
    assert server.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY) == only
    port = server.getsockname()[1]
    client = net.socket()
    assert await client.connect_ex(("127.0.0.1", port)) == (errno.ECONNREFUSED if only else 0)
    if dualstack:
        accepted, address = await server.accept()
        net.keep(accepted)
        assert address[0] == "::ffff:127.0.0.1"


async def test_both_need_ipv6(net: Face) -> None:
    with pytest.raises(ValueError, match="^dualstack_ipv6 requires AF_INET6 family$"):
        await net.create_server(("", 0), dualstack_ipv6=True)


async def test_a_platform_without_both(monkeypatch: pytest.MonkeyPatch, net: Face) -> None:
    for module in (_stdlib, net.module):
        monkeypatch.setattr(module, "has_dualstack_ipv6", lambda: False)
    with pytest.raises(ValueError, match="^dualstack_ipv6 not supported on this platform$"):
        await net.create_server(("", 0), family=AF_INET6, dualstack_ipv6=True)


async def test_a_platform_without_shared_ports(monkeypatch: pytest.MonkeyPatch, net: Face) -> None:
    for module in (_socket, _stdlib):
        monkeypatch.delattr(module, "SO_REUSEPORT")
    with pytest.raises(ValueError, match="^SO_REUSEPORT not supported on this platform$"):
        await net.create_server(("127.0.0.1", 0), reuse_port=True)


async def test_a_port_may_be_shared(net: Face) -> None:
    one = net.keep(await net.create_server(("127.0.0.1", 0), reuse_port=True))
    assert one.getsockopt(SOL_SOCKET, SO_REUSEPORT) == 1
    two = net.keep(await net.create_server(one.getsockname(), reuse_port=True))
    assert two.getsockname() == one.getsockname()
    with pytest.raises(OSError, match="Address already in use"):
        await net.create_server(one.getsockname())


@pytest.mark.parametrize("backlog", [0, 1, 100, None])
async def test_the_backlog(net: Face, backlog: int | None) -> None:
    server = net.keep(await net.create_server(("127.0.0.1", 0), backlog=backlog))
    assert queue_of(server) == (min(128, net.SOMAXCONN) if backlog is None else backlog)
    client = net.socket()
    client.settimeout(5)
    await client.connect(server.getsockname())


@pytest.mark.parametrize(
    ("address", "named", "error", "text"),
    [
        (("192.0.2.1", 0), {}, OSError, "Cannot assign requested address"),
        (("127.0.0.1", 0), {"backlog": "x"}, TypeError, "^'str' object cannot be interpreted"),
        (("127.0.0.1", 70000), {}, OverflowError, r"^bind\(\): port must be 0-65535\.$"),
        (["127.0.0.1", 0], {}, TypeError, r"^bind\(\): AF_INET address must be tuple, not list\n"),
        (("127.0.0.1", 0), {"family": 99}, OSError, "Address family not supported by protocol"),
    ],
)
async def test_a_failed_create_server_leaves_no_socket(
    address: Any, named: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The stdlib refuses in the same words, but forgets the socket."""
    before = open_descriptors()
    with pytest.raises(error, match=text):
        await aiosock.create_server(address, **named)
    assert open_descriptors() == before


async def test_most_arguments_of_create_server_are_named(net: Face) -> None:
    with pytest.raises(TypeError):
        await net.create_server(("127.0.0.1", 0), AF_INET)


async def test_a_server_at_a_path(net: Face, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    server = net.keep(await net.create_server(path, family=AF_UNIX))
    client = net.socket(AF_UNIX)
    await client.connect(path)
    net.keep((await server.accept())[0])
    with pytest.raises(OSError, match="while attempting") as caught:
        await net.create_server(path, family=AF_UNIX)
    text = f"Address already in use (while attempting to bind on address {path!r})"
    assert caught.value.args == (errno.EADDRINUSE, text)


async def test_create_server_is_awaited_or_entered() -> None:
    server = await aiosock.create_server(("127.0.0.1", 0))
    with server:
        assert type(server) is aiosock.socket
    async with aiosock.create_server(("127.0.0.1", 0)) as entered:
        assert entered.getsockname()[1]
    assert entered.fileno() == -1


# --- socketpair and fromfd ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((), SOCK_STREAM),
        ((AF_UNIX, SOCK_DGRAM), SOCK_DGRAM),
        ((None, SOCK_SEQPACKET, 0), SOCK_SEQPACKET),
    ],
)
async def test_socketpair(net: Face, arguments: tuple[Any, ...], kind: int) -> None:
    pair = net.socketpair(*arguments)
    for one, other in (pair, pair[::-1]):
        assert (one.family, one.type, one.proto, one.gettimeout()) == (AF_UNIX, kind, 0, None)
        assert not one.get_inheritable()
        await one.send(b"hello")
        assert await other.recv(9) == b"hello"


async def test_socketpair_takes_names_and_the_default_timeout(net: Face) -> None:
    net.setdefaulttimeout(3.0)
    try:
        pair = net.module.socketpair(family=AF_UNIX, type=SOCK_STREAM, proto=0)
    finally:
        net.setdefaulttimeout(None)
    assert [net.keep(sock).gettimeout() for sock in pair] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("arguments", "number"),
    [((AF_INET,), errno.EOPNOTSUPP), ((AF_UNIX, 99), errno.EINVAL)],
)
async def test_pairs_that_cannot_be(net: Face, arguments: tuple[int, ...], number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        net.socketpair(*arguments)
    assert caught.value.errno == number


async def test_fromfd_duplicates(net: Face) -> None:
    one, other = net.socketpair()
    copy = net.fromfd(one.fileno(), AF_UNIX, SOCK_STREAM)
    assert copy.fileno() != one.fileno()
    assert (copy.family, copy.type, copy.proto) == (AF_UNIX, SOCK_STREAM, 0)
    assert not copy.get_inheritable()
    one.close()
    await copy.send(b"still there")
    assert await other.recv(99) == b"still there"
    copy.close()
    assert await other.recv(1) == b""


async def test_fromfd_takes_the_default_timeout(net: Face) -> None:
    one, _ = net.socketpair()
    net.setdefaulttimeout(3.0)
    try:
        copy = net.fromfd(one.fileno(), AF_UNIX, SOCK_STREAM)
    finally:
        net.setdefaulttimeout(None)
    assert copy.gettimeout() == 3.0


async def test_fromfd_of_nothing(net: Face) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        net.fromfd(-1, AF_UNIX, SOCK_STREAM)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(TypeError):
        net.fromfd("x", AF_UNIX, SOCK_STREAM)


async def test_fromfd_of_a_file_leaves_no_duplicate() -> None:
    """The stdlib refuses it too, but forgets the duplicate."""
    before = open_descriptors()
    with (
        tempfile.TemporaryFile() as file,
        pytest.raises(OSError, match="Socket operation on non-socket"),
    ):
        aiosock.fromfd(file.fileno(), AF_UNIX, SOCK_STREAM)
    assert open_descriptors() == before


# --- descriptors sent along ---------------------------------------------------------


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Numbers of three open files."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(tempfile.TemporaryFile()).fileno() for _ in range(3)]


def same_files(some: list[int], others: list[int]) -> bool:
    return [os.fstat(fd).st_ino for fd in some] == [os.fstat(fd).st_ino for fd in others]


@contextlib.contextmanager
def closing(fds: list[int]) -> Iterator[list[int]]:
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_descriptors_are_sent_along(net: Face, files: list[int], count: int) -> None:
    one, other = net.socketpair()
    assert await net.send_fds(one, [b"da", b"ta"], files[:count]) == 4
    data, fds, flags, address = await net.recv_fds(other, 9, count)
    with closing(fds):
        # The stdlib does not ask for close-on-exec, and the kernel says what was asked for.
        assert flags & ~getattr(_stdlib, "MSG_CMSG_CLOEXEC", 0) == 0
        assert (data, address) == (b"data", None)
        assert same_files(fds, files[:count])
        assert not set(fds) & set(files)


async def test_no_more_descriptors_than_asked_for(net: Face, files: list[int]) -> None:
    one, other = net.socketpair()
    before = open_descriptors()
    await net.send_fds(one, [b"x"], files)
    data, fds, flags, _ = await net.recv_fds(other, 9, 1)
    with closing(fds):
        assert (data, len(fds), bool(flags & MSG_CTRUNC)) == (b"x", 1, True)
        assert same_files(fds, files[:1])
        assert net.is_stdlib or open_descriptors() == before + 1


async def test_descriptors_without_room_are_not_leaked(files: list[int]) -> None:
    one, other = aiosock.socketpair()
    with one, other:
        for maxfds in (0, 1, 2):
            before = open_descriptors()
            await aiosock.send_fds(one, [b"x"], files)
            _, fds, flags, _ = await aiosock.recv_fds(other, 9, maxfds)
            assert flags & MSG_CTRUNC
            assert open_descriptors() == before + len(fds)
            with closing(fds):
                assert same_files(fds, files[: len(fds)])
            assert open_descriptors() == before


async def test_wrong_descriptors_are_refused(net: Face, files: list[int]) -> None:
    one, other = net.socketpair()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await net.send_fds(one, [b"x"], [files[0], -1])
    with pytest.raises(TypeError):
        await net.send_fds(one, [b"x"], ["x"])
    with pytest.raises(OverflowError):
        await net.recv_fds(other, 9, -1)
    one.close()
    assert (await net.recv_fds(other, 9, 1))[:2] == (b"", [])


async def test_received_descriptors_are_not_inherited(files: list[int]) -> None:
    one, other = aiosock.socketpair()
    with one, other:
        await aiosock.send_fds(one, [b"x"], files)
        _, fds, _, _ = await aiosock.recv_fds(other, 9, 3)
        with closing(fds):
            assert [os.get_inheritable(fd) for fd in fds] == [False] * 3


async def test_flags_of_recv_fds_are_honoured(files: list[int]) -> None:
    one, other = aiosock.socketpair(AF_UNIX, SOCK_DGRAM)
    with one, other:
        async with asyncio.timeout(5):
            with pytest.raises(BlockingIOError):
                await aiosock.recv_fds(other, 9, 1, MSG_DONTWAIT)
        await aiosock.send_fds(one, [b"data"], files[:1])
        for flags in (MSG_PEEK, 0):
            data, fds, told, _ = await aiosock.recv_fds(other, 2, 1, flags)
            with closing(fds):
                assert (data, len(fds), bool(told & MSG_TRUNC)) == (b"da", 1, True)


async def test_flags_and_address_of_send_fds_are_honoured(
    files: list[int], tmp_path: pathlib.Path
) -> None:
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    with (
        aiosock.socket(AF_UNIX, SOCK_DGRAM) as receiver,
        aiosock.socket(AF_UNIX, SOCK_DGRAM) as sender,
    ):
        await receiver.bind(here)
        await sender.bind(there)
        assert await aiosock.send_fds(sender, [b"data"], files, MSG_DONTWAIT, here) == 4
        data, fds, _, address = await aiosock.recv_fds(receiver, 9, 3)
        with closing(fds):
            assert (data, len(fds), address) == (b"data", 3, there)
        async with asyncio.timeout(5):
            with pytest.raises(BlockingIOError):
                await for_ever(aiosock.send_fds, sender, [b"x"], (), MSG_DONTWAIT, here)


async def for_ever(call: Any, *args: Any) -> None:
    while True:
        await call(*args)


async def test_a_cancelled_recv_fds_has_taken_no_descriptor(files: list[int]) -> None:
    one, other = aiosock.socketpair()
    with one, other:
        for _ in range(10):
            before = open_descriptors()
            receiving = asyncio.create_task(aiosock.recv_fds(other, 9, 3))
            await asyncio.sleep(0)
            await aiosock.send_fds(one, [b"x"], files)
            asyncio.get_running_loop().call_soon(receiving.cancel)
            try:
                _, fds, _, _ = await receiving
            except asyncio.CancelledError:
                assert open_descriptors() <= before + 2  # those that the loop holds itself
                _, fds, _, _ = await aiosock.recv_fds(other, 9, 3)
            with closing(fds):
                assert same_files(fds, files)


async def test_sockets_may_be_sent(net: Face) -> None:
    one, other = net.socketpair()
    near, far = net.socketpair()
    await net.send_fds(one, [b"x"], array.array("i", [near.fileno()]))
    near.close()
    _, [fd], _, _ = await net.recv_fds(other, 9, 1)
    again = net.socket(fileno=fd)
    await again.send(b"through the other")
    assert await far.recv(99) == b"through the other"


async def test_descriptors_go_along_with_a_socket_of_ours_alone() -> None:
    one, other = _stdlib.socketpair()
    with one, other:
        with pytest.raises(TypeError, match=r"^an aiosock\.socket is needed, not socket\.socket$"):
            await aiosock.send_fds(one, [b"x"], [0])  # type: ignore[arg-type]  # what is tested
        with pytest.raises(TypeError, match=r"^an aiosock\.socket is needed, not socket\.socket$"):
            await aiosock.recv_fds(other, 1, 1)  # type: ignore[arg-type]  # what is tested
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)


# --- with TLS -------------------------------------------------------------------------


async def test_the_makers_start_tls() -> None:
    async with aiosock.create_server(("127.0.0.1", 0), ssl=serving()) as listener:
        address = (HOST, 1)

        async def serve() -> bytes:
            conn, _ = await listener.accept()
            async with conn:
                return await conn.recv(100)  # which makes the handshake

        served = asyncio.create_task(serve())
        with found_at(listener.getsockname()):  # no thread still has a file of the system's open
            sock = await aiosock.create_connection(address, 5, ssl=trusting())
        async with sock:
            assert isinstance(sock, aiosock.SSLSocket)
            assert (sock.server_hostname, sock.gettimeout()) == (HOST, 5.0)
            await sock.sendall(b"hello")
            assert await served == b"hello"
        served = asyncio.create_task(serve())
        before = open_descriptors()
        with (
            found_at(listener.getsockname()),
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            await aiosock.create_connection(address, ssl=True)
        with pytest.raises(ssl.SSLError):
            await served
        assert open_descriptors() == before


async def test_a_silent_client_holds_up_nobody_else() -> None:
    async with aiosock.create_server(("127.0.0.1", 0), ssl=serving()) as listener:
        with _stdlib.create_connection(listener.getsockname()):
            silent, _ = await listener.accept()
            connecting = asyncio.create_task(connected_to(listener))
            conn, _ = await listener.accept()
            await conn.sendall(b"hello")  # a server that speaks first shakes hands as well
            assert await connecting == b"hello"
            conn.close()
            silent.settimeout(0.01)
            with pytest.raises(TimeoutError, match="^timed out$"):
                await silent.recv(1)
            silent.close()


async def connected_to(listener: aiosock.socket) -> bytes:
    address = listener.getsockname()
    async with aiosock.create_connection(address, ssl=trusting(), server_hostname=HOST) as sock:
        return await sock.recv(100)


async def test_a_cancelled_secure_connection_leaves_nothing_open() -> None:
    with _stdlib.create_server(("127.0.0.1", 0)) as deaf:
        before = open_descriptors()
        connecting = asyncio.create_task(connected_to(cast(aiosock.socket, deaf)))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert open_descriptors() == before


async def test_the_makers_refuse_what_makes_no_sense() -> None:
    connect: Any = aiosock.create_connection
    serve: Any = aiosock.create_server
    with pytest.raises(ValueError, match="^server_hostname is only meaningful with ssl$"):
        connect(("127.0.0.1", 1), server_hostname=HOST)
    for wrong in (1, "yes"):
        with pytest.raises(TypeError, match=r"^ssl must be an ssl\.SSLContext or a bool, not "):
            connect(("127.0.0.1", 1), ssl=wrong)
    with pytest.raises(TypeError, match=r"^ssl must be an ssl\.SSLContext, not 'bool'$"):
        serve(("127.0.0.1", 0), ssl=True)


async def test_ssl_false_is_no_tls(ours: Face) -> None:
    listener = await ours.listener()
    address = listener.getsockname()
    sock = ours.keep(await ours.create_connection(address, ssl=False))
    assert not hasattr(sock, "do_handshake")


async def test_a_path_that_is_too_long_is_told() -> None:
    with pytest.raises(OSError, match="path too long .while attempting to bind on address '/xx"):
        await aiosock.create_server("/" + "x" * 200, family=_stdlib.AF_UNIX)
