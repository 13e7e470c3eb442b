"""Makers of sockets: pairs, connections, servers, and descriptors sent along.

Knows the awaitable socket, and how a connection finds its way; what they wait for is theirs.
"""

from __future__ import annotations

import array
import socket as _stdlib
import ssl as _ssl
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex, TypeVar, overload

from ._addresses import AddressLike, Inet6AddressLike, UnixAddressLike
from ._advice import AsyncOnly
from ._deadline import as_timeout, deadline_after, time_left, timed_out
from ._names import AddrInfo, Host, Port, getaddrinfo
from ._race import (
    ATTEMPT_DELAY,
    GLOBAL_DEFAULT,
    Log,
    Request,
    as_delay,
    in_sequence,
    is_path,
    race,
    share_ports,
)
from ._records import as_client, as_server
from ._socket import Address, from_stdlib_socket, socket, taken_over
from ._tls import SSLListener, SSLSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["create_connection", "create_server", "fromfd", "recv_fds", "send_fds", "socketpair"]

T_co = TypeVar("T_co", bound=socket, covariant=True)
Make = Callable[[], Coroutine[Any, Any, socket]]
Target = tuple[Host, Port] | str | bytes
Source = Inet6AddressLike | UnixAddressLike


class Opening(AsyncOnly, Coroutine[Any, Any, T_co]):
    """A socket on its way: ``await`` it, or enter it with ``async with`` to have it closed.

    A coroutine in all else: it may be made a task, or given to ``asyncio.wait_for``.
    """

    def __init__(self, work: Coroutine[Any, Any, T_co]) -> None:
        self._work = work
        self._opened: T_co

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._work.__await__()

    def send(self, value: Any, /) -> Any:
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    async def __aenter__(self) -> T_co:
        self._opened = await self._work
        return self._opened

    async def __aexit__(self, *args: object) -> None:
        self._opened.close()

    if not TYPE_CHECKING:  # who knows what it has

        def __enter__(self) -> NoReturn:
            self.close()  # nobody will await it
            super().__enter__()

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}: "
                f"the socket is what `await` or `async with` makes of it"
            )


def fromfd(fd: SupportsIndex, family: int, type: int, proto: int = 0) -> socket:
    """A socket from a duplicate of the descriptor `fd`; `fd` itself stays as it is.

    Except for its mode: descriptors of one connection share it, and it becomes
    non-blocking.
    """
    return taken_over(socket, family, type, proto, _stdlib.dup(fd))


def socketpair(
    family: int | None = None, type: int = _stdlib.SOCK_STREAM, proto: int = 0
) -> tuple[socket, socket]:
    """Two sockets connected to each other: of AF_UNIX where there is such a family."""
    one, other = _stdlib.socketpair(family, type, proto)
    return _held(one), _held(other)


def _held(sock: _stdlib.socket) -> socket:
    return socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


@overload
def create_connection(
    address: Target,
    timeout: float | None = ...,
    source_address: Source | None = ...,
    *,
    all_errors: bool = ...,
    ssl: Literal[False] | None = None,
    server_hostname: None = None,
    happy_eyeballs_delay: float | None = ...,
) -> Opening[socket]: ...


@overload
def create_connection(
    address: Target,
    timeout: float | None = ...,
    source_address: Source | None = ...,
    *,
    all_errors: bool = ...,
    ssl: _ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    happy_eyeballs_delay: float | None = ...,
) -> Opening[SSLSocket]: ...


@overload
def create_connection(
    address: Target,
    timeout: float | None = ...,
    source_address: Source | None = ...,
    *,
    all_errors: bool = ...,
    ssl: _ssl.SSLContext | bool | None,
    server_hostname: str | None = None,
    happy_eyeballs_delay: float | None = ...,
) -> Opening[socket]: ...


def create_connection(
    address: Target,
    timeout: float | None = GLOBAL_DEFAULT,
    source_address: Source | None = None,
    *,
    all_errors: bool = False,
    ssl: _ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    happy_eyeballs_delay: float | None = ATTEMPT_DELAY,
) -> Opening[Any]:
    """Connect to ``(host, port)``, or to the path of an AF_UNIX socket.

    ``await`` it, or ``async with`` it.  Awaits lookup and connection.  A host's IPv6 and IPv4
    addresses are asked for apart, and raced as RFC 8305 says: the next attempt begins when
    one has failed, or after `happy_eyeballs_delay` seconds (0.25).  `timeout` seconds, the default
    timeout where it is not given, bound the whole, and become the socket's own.  With a delay
    of None, or in non-blocking mode, it is as in the stdlib: one address after the other in
    the resolver's order, each of them with the timeout, and no limit for the lookup.
    `source_address` is bound to first; with port 0 connections to different peers may share
    a port.  A port may be a service's name.  A path is bytes, or a str with a slash in it or
    with ``\\0`` in front, an abstract name.

    Raises `gaierror`, the error of the last address that was tried, or with `all_errors` an
    ExceptionGroup of all; TimeoutError when the time is over.  Notes tell every attempt; on
    success ``sock.attempts`` does.  Whatever ends it, no other socket is left open, and
    nothing on the loop; a lookup in a thread goes on, unheard.

    With `ssl`, a context or True for ``ssl.create_default_context()``, the connection is then
    made secure by `socket.start_tls`, for `server_hostname` or else the host.
    """
    context, delay = as_client(ssl, server_hostname), as_delay(happy_eyeballs_delay)
    connect = partial(_connection, address, timeout, source_address, all_errors, delay)
    if context is None:
        return Opening(connect())
    host = None if is_path(address) else address[0]
    return Opening(_secured(connect, context, server_hostname or host, delay is not None))


async def _secured(
    connect: Make, context: _ssl.SSLContext, server_hostname: Any, as_a_whole: bool
) -> SSLSocket:
    begun = monotonic()
    sock = await connect()
    try:
        timeout = sock.gettimeout()
        if as_a_whole and timeout:
            sock.settimeout(_rest(begun + timeout))
        secure = await sock.start_tls(context, server_hostname=server_hostname)
    except BaseException:
        sock.close()
        raise
    secure.settimeout(timeout)
    return secure


def _rest(deadline: float) -> float:
    if rest := time_left(deadline):
        return rest
    raise timed_out()


async def _connection(address: Any, timeout: Any, *how: Any, log: Log | None = None) -> socket:
    request = Request(address, timeout, *how)
    with log or Log() as log:
        if request.races:
            own = as_timeout(request.timeout)
            made = await race(log, request, deadline_after(own))
            made.settimeout(own)
            sock = from_stdlib_socket(made)
        else:
            host, port, kind = request.host, request.port, _stdlib.SOCK_STREAM
            found = request.known or await getaddrinfo(host, port, 0, kind)
            connect = partial(_connected, timeout, request.source_address)
            sock = await in_sequence(log, found, connect, request.all_errors)
        sock._attempts = tuple(log.attempts)
    return sock


async def _connected(timeout: Any, source_address: Address, info: AddrInfo) -> socket:
    sock = socket(*info[:3])
    try:
        if timeout is not GLOBAL_DEFAULT:
            sock.settimeout(timeout)
        if source_address:
            share_ports(sock, source_address)
            await sock.bind(source_address)
        await sock.connect(info[4])
    except BaseException:
        sock.close()
        raise
    return sock


@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = ...,
    reuse_port: bool = ...,
    dualstack_ipv6: bool = ...,
    ssl: None = None,
) -> Opening[socket]: ...


@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = ...,
    reuse_port: bool = ...,
    dualstack_ipv6: bool = ...,
    ssl: _ssl.SSLContext,
) -> Opening[SSLListener]: ...


@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = ...,
    reuse_port: bool = ...,
    dualstack_ipv6: bool = ...,
    ssl: _ssl.SSLContext | None,
) -> Opening[socket]: ...


def create_server(
    address: AddressLike,
    *,
    family: int = _stdlib.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    ssl: _ssl.SSLContext | None = None,
) -> Opening[Any]:
    """A socket that listens at `address`; connections are taken with its ``accept``.

    ``await`` it, or ``async with`` it.  Awaits the lookup of a host name.  The empty host
    means every interface, as in the stdlib; say "127.0.0.1" to serve this machine alone.
    With `dualstack_ipv6` an AF_INET6 socket takes IPv4 too.  An error says which address
    it was.

    With `ssl`, a context that has a certificate, ``accept`` gives an `SSLSocket`, before its
    handshake, which its first receive or send makes, or ``do_handshake``.
    """
    context = as_server(ssl)
    listen = partial(_server, address, family, backlog, reuse_port, dualstack_ipv6)
    return Opening(listen() if context is None else _securing(listen, context))


async def _securing(listen: Make, context: _ssl.SSLContext) -> SSLListener:
    return SSLListener._over(await listen(), context)


async def _server(
    address: Address, family: int, backlog: int | None, reuse_port: bool, dualstack_ipv6: bool
) -> socket:
    if reuse_port and not hasattr(_stdlib, "SO_REUSEPORT"):
        raise ValueError("SO_REUSEPORT not supported on this platform")
    if dualstack_ipv6 and not _stdlib.has_dualstack_ipv6():
        raise ValueError("dualstack_ipv6 not supported on this platform")
    if dualstack_ipv6 and family != _stdlib.AF_INET6:
        raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    sock = socket(family, _stdlib.SOCK_STREAM)
    try:
        _set_server_options(sock, reuse_port, dualstack_ipv6)
        await _bind(sock, address)
        sock.listen(*(() if backlog is None else (backlog,)))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_server_options(sock: socket, reuse_port: bool, dualstack_ipv6: bool) -> None:
    sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_REUSEPORT, 1)
    if _stdlib.has_ipv6 and sock.family == _stdlib.AF_INET6:
        only = 0 if dualstack_ipv6 else 1
        sock.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, only)


async def _bind(sock: socket, address: Address) -> None:
    try:
        await sock.bind(address)
    except OSError as error:
        why = error.strerror or error
        text = f"{why} (while attempting to bind on address {address!r})"
        raise OSError(error.errno, text) from None


# What Python says was never awaited.
_connection.__qualname__ = "create_connection"
_server.__qualname__ = "create_server"


async def send_fds(
    sock: socket,
    buffers: Iterable[ReadableBuffer],
    fds: Iterable[int],
    flags: int = 0,
    address: AddressLike | None = None,
) -> int:
    """Send descriptors along with `buffers` over an AF_UNIX socket; how many bytes went.

    Awaits room.  `flags` and `address` are honoured, which the stdlib's does not.  A
    cancelled or late call has sent nothing; the descriptors stay the caller's.
    """
    _must_be_ours(sock)
    rights = (_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS, array.array("i", fds))
    return await sock.sendmsg(buffers, [rights], flags, address)


async def recv_fds(
    sock: socket, bufsize: int, maxfds: int, flags: int = 0
) -> tuple[bytes, list[int], int, Address]:
    """Await data with up to `maxfds` descriptors: (data, fds, msg_flags, address).

    The descriptors are not inheritable, which the stdlib's are.  MSG_CTRUNC in msg_flags
    says that some did not fit; the kernel has closed those.  A cancelled or late call has
    taken nothing.
    """
    _must_be_ours(sock)
    fds = array.array("i")
    room = _stdlib.CMSG_LEN(maxfds * fds.itemsize)  # CMSG_SPACE pads: one more might fit in
    close_on_exec = getattr(_stdlib, "MSG_CMSG_CLOEXEC", 0)
    data, ancdata, msg_flags, address = await sock.recvmsg(bufsize, room, flags | close_on_exec)
    for level, kind, rights in ancdata:
        if (level, kind) == (_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS):
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds), msg_flags & ~close_on_exec, address


def _must_be_ours(sock: object) -> None:
    if not isinstance(sock, socket):
        kind = type(sock)
        raise TypeError(f"an aiosock.socket is needed, not {kind.__module__}.{kind.__qualname__}")
