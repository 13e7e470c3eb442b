from collections.abc import Iterable
from socket import CMSG_LEN as CMSG_LEN
from socket import CMSG_SPACE as CMSG_SPACE
from socket import SocketIO as SocketIO
from socket import close as close
from socket import dup as dup
from socket import error as error
from socket import gaierror as gaierror
from socket import getdefaulttimeout as getdefaulttimeout
from socket import gethostname as gethostname
from socket import has_dualstack_ipv6 as has_dualstack_ipv6
from socket import herror as herror
from socket import htonl as htonl
from socket import htons as htons
from socket import if_indextoname as if_indextoname
from socket import if_nameindex as if_nameindex
from socket import if_nametoindex as if_nametoindex
from socket import inet_aton as inet_aton
from socket import inet_ntoa as inet_ntoa
from socket import inet_ntop as inet_ntop
from socket import inet_pton as inet_pton
from socket import ntohl as ntohl
from socket import ntohs as ntohs
from socket import setdefaulttimeout as setdefaulttimeout
from socket import sethostname as sethostname
from socket import timeout as timeout
from ssl import SSL_ERROR_EOF as SSL_ERROR_EOF
from ssl import SSL_ERROR_INVALID_ERROR_CODE as SSL_ERROR_INVALID_ERROR_CODE
from ssl import SSL_ERROR_SSL as SSL_ERROR_SSL
from ssl import SSL_ERROR_SYSCALL as SSL_ERROR_SYSCALL
from ssl import SSL_ERROR_WANT_CONNECT as SSL_ERROR_WANT_CONNECT
from ssl import SSL_ERROR_WANT_READ as SSL_ERROR_WANT_READ
from ssl import SSL_ERROR_WANT_WRITE as SSL_ERROR_WANT_WRITE
from ssl import SSL_ERROR_WANT_X509_LOOKUP as SSL_ERROR_WANT_X509_LOOKUP
from ssl import SSL_ERROR_ZERO_RETURN as SSL_ERROR_ZERO_RETURN
from ssl import RAND_add as RAND_add
from ssl import RAND_status as RAND_status
from ssl import SSLContext, SSLError
from typing import Any, Literal, SupportsIndex, overload

from _typeshed import ReadableBuffer

from aiosock._addresses import *
from aiosock._addresses import AddressLike as AddressLike
from aiosock._addresses import Inet6AddressLike as Inet6AddressLike
from aiosock._addresses import UnixAddressLike as UnixAddressLike
from aiosock._constants import *
from aiosock._names import Host, Port
from aiosock._names import Resolver as Resolver
from aiosock._names import set_resolver as set_resolver
from aiosock._options import Ancillary as Ancillary
from aiosock._options import PacketInfo as PacketInfo
from aiosock._options import PeerCredentials as PeerCredentials
from aiosock._options import enable_ancillary as enable_ancillary
from aiosock._options import join_group as join_group
from aiosock._options import leave_group as leave_group
from aiosock._options import parse_ancillary as parse_ancillary
from aiosock._options import peer_credentials as peer_credentials
from aiosock._options import set_multicast_interface as set_multicast_interface
from aiosock._race import Attempt as Attempt

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
from ._server import Server as Server
from ._server import listen_fds as listen_fds
from ._server import serve as serve
from ._socket import socket as socket
from ._tls import InsecureWarning as InsecureWarning
from ._tls import SSLObject as SSLObject
from ._tls import SSLSocket as SSLSocket
from ._tls import ssl as ssl

SocketType = socket
SSLType = SSLObject
sslerror = SSLError

@overload
def create_connection(
    address: tuple[Host, Port] | str | bytes,
    timeout: float | None = ...,
    source_address: Inet6AddressLike | UnixAddressLike | None = None,
    *,
    all_errors: bool = False,
    ssl: Literal[False] | None = None,
    server_hostname: None = None,
    happy_eyeballs_delay: float | None = 0.25,
) -> socket: ...
@overload
def create_connection(
    address: tuple[Host, Port] | str | bytes,
    timeout: float | None = ...,
    source_address: Inet6AddressLike | UnixAddressLike | None = None,
    *,
    all_errors: bool = False,
    ssl: SSLContext | Literal[True],
    server_hostname: str | None = None,
    happy_eyeballs_delay: float | None = 0.25,
) -> SSLSocket: ...
@overload
def create_connection(
    address: tuple[Host, Port] | str | bytes,
    timeout: float | None = ...,
    source_address: Inet6AddressLike | UnixAddressLike | None = None,
    *,
    all_errors: bool = False,
    ssl: SSLContext | bool | None,
    server_hostname: str | None = None,
    happy_eyeballs_delay: float | None = 0.25,
) -> socket: ...
@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    ssl: None = None,
) -> socket: ...
@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    ssl: SSLContext,
) -> SSLSocket: ...
@overload
def create_server(
    address: AddressLike,
    *,
    family: int = ...,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    ssl: SSLContext | None,
) -> socket: ...
def fromfd(fd: SupportsIndex, family: int, type: int, proto: int = 0) -> socket: ...
def getfqdn(name: str = "") -> str: ...
def recv_fds(
    sock: socket, bufsize: int, maxfds: int, flags: int = 0
) -> tuple[bytes, list[int], int, Any]: ...
def send_fds(
    sock: socket,
    buffers: Iterable[ReadableBuffer],
    fds: Iterable[int],
    flags: int = 0,
    address: AddressLike | None = None,
) -> int: ...
def socketpair(
    family: int | None = None, type: int = ..., proto: int = 0
) -> tuple[socket, socket]: ...
