"""Makers of sockets: the stdlib's own functions, over our names.

Knows the stdlib's functions, and how to put TLS on what they make.  `create_connection`,
`create_server` and their like are Python code there, which finds ``socket`` and
``getaddrinfo`` among the globals of its module.  The same code with our namespace for its
globals makes our sockets, does in each Python what it does there, and sees what a test
puts in the place of a name.
"""

import socket as _stdlib
import ssl as _ssl
import types
from collections.abc import Callable
from typing import Any, Final

from aiosock._records import as_client, as_server

from ._socket import Address, socket
from ._tls import SSLSocket

__all__ = ["from_stdlib_socket", "remade", "securing"]

GLOBAL_DEFAULT: Final[Any] = _stdlib._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]  # the stdlib's own mark for "not given"


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
    """Take a stdlib socket over: its descriptor and its timeout; `sock` is closed then."""
    if not isinstance(sock, _stdlib.socket) or hasattr(sock, "do_handshake"):
        raise TypeError(f"a plain socket.socket is needed, not {type(sock).__name__!r}")
    timeout = sock.gettimeout()
    taken = socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    taken.settimeout(timeout)
    return taken


def securing(
    connect: Callable[..., socket], listen: Callable[..., socket]
) -> dict[str, Callable[..., Any]]:
    """The makers of connections and listeners, with TLS if they are asked for it."""

    def create_connection(
        address: Address,
        timeout: float | None = GLOBAL_DEFAULT,
        source_address: Address = None,
        *,
        all_errors: bool = False,
        ssl: _ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> socket:
        context = as_client(ssl, server_hostname)
        sock = connect(address, timeout, source_address, all_errors=all_errors)
        if context is None:
            return sock
        try:
            return sock.start_tls(context, server_hostname=server_hostname or address[0])
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

    for made, real in ((create_connection, connect), (create_server, listen)):
        made.__doc__, made.__qualname__ = f"{real.__doc__}\n\n{_WITH_SSL}", made.__name__
    return {"create_connection": create_connection, "create_server": create_server}


_WITH_SSL: Final = """With `ssl`, a context (or True for ``ssl.create_default_context()``, where one
connects), TLS is started: as by `socket.start_tls` for `server_hostname` or else the host;
on a connection that ``accept`` gives, by its first receive or send."""
