"""Makers of sockets: the stdlib's own functions, over our names, and the race of addresses.

Knows the stdlib's functions, how a connection finds its way, and how to put TLS on what they
make.  `create_server` and its like are Python code there, which finds ``socket`` and
``getaddrinfo`` among the globals of its module.  The same code with our namespace for its
globals makes our sockets, does in each Python what it does there, and sees what a test
puts in the place of a name.

`create_connection` races.  But who has put something in the place of ``socket`` or
``getaddrinfo`` (a proxy, a test) gets the stdlib's sequence, made of what is there.
"""

import socket as _stdlib
import ssl as _ssl
import types
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from aiosock._deadline import as_timeout, deadline_after
from aiosock._names import AddrInfo
from aiosock._race import (
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
from aiosock._records import as_client, as_server

from ._driver import limited, run, run_task, until
from ._names import getaddrinfo
from ._socket import Address, _taken_over, socket
from ._tls import SSLSocket

__all__ = ["from_stdlib_socket", "makers", "remade"]


def remade(namespace: dict[str, Any]) -> dict[str, Any]:
    """The Python functions of the stdlib's module, to use the names of this one."""
    functions = {n: f for n, f in vars(_stdlib).items() if isinstance(f, types.FunctionType)}
    return {name: _over(namespace, function) for name, function in functions.items()}


def _over(namespace: dict[str, Any], function: types.FunctionType) -> types.FunctionType:
    made = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__
    )
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__module__ = namespace["__name__"]
    return made


def from_stdlib_socket(sock: _stdlib.socket) -> socket:
    """Take a stdlib socket over: its descriptor and its timeout; `sock` is closed then.

    TypeError for what is no plain ``socket.socket``, such as an ``ssl.SSLSocket``.
    """
    if not isinstance(sock, _stdlib.socket) or hasattr(sock, "do_handshake"):
        raise TypeError(f"a plain socket.socket is needed, not {type(sock).__name__!r}")
    timeout = sock.gettimeout()
    taken = _taken_over(sock.family, sock.type, sock.proto, sock.detach())
    taken.settimeout(timeout)
    return taken


def makers(namespace: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The makers of connections and listeners, which the stdlib has with less to ask for."""
    listen: Callable[..., socket] = namespace["create_server"]

    def create_connection(
        address: Address,
        timeout: float | None = GLOBAL_DEFAULT,
        source_address: Address = None,
        *,
        all_errors: bool = False,
        ssl: _ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        happy_eyeballs_delay: float | None = ATTEMPT_DELAY,
    ) -> socket:
        context, delay = as_client(ssl, server_hostname), as_delay(happy_eyeballs_delay)
        begun = monotonic()
        sock = _connection(namespace, address, timeout, source_address, all_errors, delay)
        if context is None:
            return sock
        host = server_hostname or (None if is_path(address) else address[0])
        own = sock.gettimeout()
        try:
            with until(begun + own if own and delay is not None else None):
                secure: socket = sock.start_tls(context, server_hostname=host)
                return secure
        except BaseException:
            sock.close()
            raise

    def create_server(
        address: Address,
        *,
        family: int = _stdlib.AF_INET,
        backlog: int | None = None,
        reuse_port: bool = False,
        dualstack_ipv6: bool = False,
        ssl: _ssl.SSLContext | None = None,
    ) -> socket:
        context = as_server(ssl)
        how = {"reuse_port": reuse_port, "dualstack_ipv6": dualstack_ipv6}
        sock = listen(address, family=family, backlog=backlog, **how)
        if context is None:
            return sock
        listener: SSLSocket = SSLSocket._create(  # type: ignore[attr-defined]  # the stdlib's
            sock, server_side=True, do_handshake_on_connect=False, context=context
        )
        return listener

    create_connection.__doc__ = _CONNECTING
    create_server.__doc__ = _LISTENING
    create_connection.__qualname__, create_server.__qualname__ = MADE
    return dict(zip(MADE, (create_connection, create_server), strict=True))


MADE: Final = ("create_connection", "create_server")


_CONNECTING: Final = """Connect to ``(host, port)``, or to the path of an AF_UNIX socket.

A host's IPv6 and IPv4 addresses are asked for apart, and raced as RFC 8305 says: the next
attempt begins when one has failed, or after `happy_eyeballs_delay` seconds (0.25).  `timeout`
seconds, the default timeout where it is not given, bound the whole, and become the socket's
own.  With a delay of None, in non-blocking mode, and where something was put in the place of
this module's ``socket`` or ``getaddrinfo``, it is as in the stdlib: one address after the
other in the resolver's order, each of them with the timeout, and no limit for the lookup.
`source_address` is bound to first; with port 0 connections to different peers may share a
port.  A port may be a service's name.  A path is bytes, or a str with a slash in it or with
``\\0`` in front, an abstract name.

Raises `gaierror`, the error of the last address that was tried, or with `all_errors` an
ExceptionGroup of all; TimeoutError when the time is over.  Notes tell every attempt; on
success ``sock.attempts`` does.  Whatever ends it, no other socket is left open.

With `ssl`, a context or True for ``ssl.create_default_context()``, TLS is started, as by
`socket.start_tls`, for `server_hostname` or else the host."""

_LISTENING: Final = """A socket that listens at `address`, by the stdlib's own code.

The empty host means every interface; say "127.0.0.1" to serve this machine alone.  `backlog`
connections may queue.  With `dualstack_ipv6` an AF_INET6 socket takes IPv4 too.  Raises OSError,
which says which address it was.

With `ssl`, a context that has a certificate, TLS is started on a connection that ``accept``
gives, by its first receive or send."""


def _connection(namespace: dict[str, Any], address: Address, timeout: Any, *how: Any) -> socket:
    request = Request(address, timeout, *how)
    make, look_up = namespace["socket"], namespace["getaddrinfo"]
    ours = make is socket and look_up is getaddrinfo
    with Log() as log:
        if ours and request.races:
            own = as_timeout(request.timeout)
            made = run_task(race(log, request, limited(deadline_after(own))))
            made.settimeout(own)
            sock = from_stdlib_socket(made)
        else:
            host, port, kind = request.host, request.port, _stdlib.SOCK_STREAM
            found = request.known if ours or host is port is None else None
            if found is None:
                found = look_up(host, port, 0, kind)
            connect = partial(_connected, make, timeout, request.source_address)
            sock = run(in_sequence(log, found, connect, request.all_errors))
        if isinstance(sock, socket):
            sock._attempts = tuple(log.attempts)
    return sock


async def _connected(make: Any, timeout: Any, source_address: Address, info: AddrInfo) -> socket:
    """It blocks, and awaits nothing."""
    sock: socket = make(*info[:3])
    try:
        if timeout is not GLOBAL_DEFAULT:
            sock.settimeout(timeout)
        if source_address:
            share_ports(sock, source_address)
            sock.bind(source_address)
        sock.connect(info[4])
    except BaseException:
        sock.close()
        raise
    return sock
