"""Python's `socket` module with `await` in front of everything that can wait.

A map of the house, from the ground up.  A file imports only from files above it here.

    _addresses      the shapes of an address, for type checkers
    _advice         what is said to who has made a mistake
    _constants      every constant of this Python's socket module
    _options        options and ancillary data that are awkward when raw
    _deadline       when an operation must be over; what a timeout may be
    _serving        what a server is asked for, and what it makes of errors
    _certificates   whom a certificate names, in the manual's form
    _poller         which sockets are ready: one queue in the kernel for each loop
    _readiness      THE HEART: makes the operations that wait for one socket, each in its turn
    _operations     operations longer than one attempt: connecting, sending all
    _names          host and service names, looked up off the loop
    _files          what makefile() returns
    _race           how create_connection finds its way: a race of addresses, or a sequence
    _datagrams      many datagrams received or sent with one wait
    _records        TLS as attempts: records between the kernel and an ssl object
    _socket         the awaitable socket: a method per documented method
    _tls            the same socket after a handshake, and the manual's ssl()
    _constructors   create_connection, create_server, socketpair, fromfd, send_fds, recv_fds
    _server         serve(): accepting, a task for each connection, draining
    _run            run(): a main coroutine on the fastest loop there is
    _cli            the commands of the command line, a house of its own
    __main__        python -m aiosock
    _pytest         what the plugin for pytest has, which is _plugin/, and is installed beside

What never waits (byte order, ``inet_*``, ``if_*``, the default timeout) is the stdlib's own.
"""

from socket import (
    CMSG_LEN,
    CMSG_SPACE,
    SocketIO,
    close,
    dup,
    error,
    gaierror,
    getdefaulttimeout,
    gethostname,
    has_dualstack_ipv6,
    herror,
    htonl,
    htons,
    if_indextoname,
    if_nameindex,
    if_nametoindex,
    inet_aton,
    inet_ntoa,
    inet_ntop,
    inet_pton,
    ntohl,
    ntohs,
    setdefaulttimeout,
    sethostname,
    timeout,
)
from ssl import (
    SSL_ERROR_EOF,
    SSL_ERROR_INVALID_ERROR_CODE,
    SSL_ERROR_SSL,
    SSL_ERROR_SYSCALL,
    SSL_ERROR_WANT_CONNECT,
    SSL_ERROR_WANT_READ,
    SSL_ERROR_WANT_WRITE,
    SSL_ERROR_WANT_X509_LOOKUP,
    SSL_ERROR_ZERO_RETURN,
    RAND_add,
    RAND_status,
)
from ssl import SSLError as sslerror  # noqa: N813  # its name in the manual

from . import _addresses
from ._addresses import *  # noqa: F403  # all of it
from ._constants import *  # noqa: F403  # as many names as this Python has
from ._constants import _NAMES as _CONSTANTS
from ._constructors import (
    create_connection,
    create_server,
    fromfd,
    recv_fds,
    send_fds,
    socketpair,
)
from ._files import BinaryFile, RawFile, TextFile
from ._names import (
    Resolver,
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
    getprotobyname,
    getservbyname,
    getservbyport,
    set_resolver,
)
from ._options import (
    Ancillary,
    PacketInfo,
    PeerCredentials,
    enable_ancillary,
    join_group,
    leave_group,
    parse_ancillary,
    peer_credentials,
    set_multicast_interface,
)
from ._race import Attempt
from ._run import run
from ._server import Server, listen_fds, serve
from ._socket import from_stdlib_socket, socket
from ._tls import InsecureWarning, SSLListener, SSLObject, SSLSocket, ssl

SocketType = socket
SSLType = SSLObject

__all__ = [
    "CMSG_LEN",
    "CMSG_SPACE",
    "SSL_ERROR_EOF",
    "SSL_ERROR_INVALID_ERROR_CODE",
    "SSL_ERROR_SSL",
    "SSL_ERROR_SYSCALL",
    "SSL_ERROR_WANT_CONNECT",
    "SSL_ERROR_WANT_READ",
    "SSL_ERROR_WANT_WRITE",
    "SSL_ERROR_WANT_X509_LOOKUP",
    "SSL_ERROR_ZERO_RETURN",
    "Ancillary",
    "Attempt",
    "BinaryFile",
    "InsecureWarning",
    "PacketInfo",
    "PeerCredentials",
    "RAND_add",
    "RAND_status",
    "RawFile",
    "Resolver",
    "SSLListener",
    "SSLObject",
    "SSLSocket",
    "SSLType",
    "Server",
    "SocketIO",
    "SocketType",
    "TextFile",
    "close",
    "create_connection",
    "create_server",
    "dup",
    "enable_ancillary",
    "error",
    "from_stdlib_socket",
    "fromfd",
    "gaierror",
    "getaddrinfo",
    "getdefaulttimeout",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "gethostname",
    "getnameinfo",
    "getprotobyname",
    "getservbyname",
    "getservbyport",
    "has_dualstack_ipv6",
    "herror",
    "htonl",
    "htons",
    "if_indextoname",
    "if_nameindex",
    "if_nametoindex",
    "inet_aton",
    "inet_ntoa",
    "inet_ntop",
    "inet_pton",
    "join_group",
    "leave_group",
    "listen_fds",
    "ntohl",
    "ntohs",
    "parse_ancillary",
    "peer_credentials",
    "recv_fds",
    "run",
    "send_fds",
    "serve",
    "set_multicast_interface",
    "set_resolver",
    "setdefaulttimeout",
    "sethostname",
    "socket",
    "socketpair",
    "ssl",
    "sslerror",
    "timeout",
]
__all__ += _addresses.__all__
__all__ += _CONSTANTS

# Each object is named after where its user finds it: in a repr, in help(), in a traceback.
for _name in __all__:
    _object = globals()[_name]
    if getattr(_object, "__module__", "").startswith("aiosock."):
        _object.__module__ = "aiosock"
del _name, _object
