from collections.abc import Iterable
from socket import *
from socket import AddressFamily as AddressFamily
from socket import AddressInfo as AddressInfo
from socket import MsgFlag as MsgFlag
from socket import SocketIO as SocketIO
from socket import SocketKind as SocketKind
from typing import Any

from _typeshed import ReadableBuffer

from aiosock._names import Resolver as Resolver
from aiosock._names import set_resolver as set_resolver

from ._constructors import from_stdlib_socket as from_stdlib_socket
from ._driver import call as call
from ._driver import fail_after as fail_after
from ._names import getaddrinfo as getaddrinfo
from ._names import gethostbyaddr as gethostbyaddr
from ._names import gethostbyname as gethostbyname
from ._names import gethostbyname_ex as gethostbyname_ex
from ._names import getnameinfo as getnameinfo
from ._names import getprotobyname as getprotobyname
from ._names import getservbyname as getservbyname
from ._names import getservbyport as getservbyport
from ._socket import socket as socket

SocketType = socket

def create_connection(
    address: tuple[str | None, int],
    timeout: float | None = ...,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket: ...
def create_server(
    address: Any,
    *,
    family: int = ...,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket: ...
def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket: ...
def getfqdn(name: str = "") -> str: ...
def has_dualstack_ipv6() -> bool: ...
def recv_fds(
    sock: socket, bufsize: int, maxfds: int, flags: int = 0
) -> tuple[bytes, list[int], int, Any]: ...
def send_fds(
    sock: socket,
    buffers: Iterable[ReadableBuffer],
    fds: Iterable[int],
    flags: int = 0,
    address: Any = None,
) -> int: ...
def socketpair(
    family: int | None = None, type: int = ..., proto: int = 0
) -> tuple[socket, socket]: ...
