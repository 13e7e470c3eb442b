"""Makers of sockets: the stdlib's own functions, over our names.

Knows the stdlib's functions and nothing else.  `create_connection`, `create_server` and
their like are Python code there, which finds ``socket`` and ``getaddrinfo`` among the
globals of its module.  The same code with our namespace for its globals makes our sockets,
does in each Python what it does there, and sees what a test puts in the place of a name.
"""

import socket as _stdlib
import types
from typing import Any

from ._socket import socket

__all__ = ["from_stdlib_socket", "remade"]


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
