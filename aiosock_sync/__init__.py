"""Python's `socket` module, whose every blocking call runs an event loop until it is done.

    import aiosock_sync as socket

A map of the house, from the ground up; below it stand the floors of `aiosock` that know no
awaitable socket (`_options`, `_deadline`, `_poller`, `_readiness`, `_operations`, `_names`,
`_datagrams`, `_race`).

    _driver         runs one coroutine to its end on this thread's own loop
    _names          host and service names, by the resolver of the async face
    _socket         a stdlib socket whose waiting is done by the loop
    _constructors   the stdlib's makers of sockets, over our names
    _server         serve(): accepting, a thread for each connection, draining

Every name of this Python's `socket` is here, private ones too, since its clients reach for
them.  Beyond them: `fail_after`, `call`, `serve`, `listen_fds`, `set_resolver`,
`from_stdlib_socket`, helpers for options (`join_group` and its like), and a socket's
`recv_many`, `send_many`, `wait_readable`, `wait_writable` and `attempts`.
"""

import socket as _stdlib
import ssl as _ssl

from aiosock import _addresses, _options
from aiosock._addresses import *  # noqa: F403  # the same on both faces
from aiosock._names import Resolver, set_resolver
from aiosock._options import *  # noqa: F403  # the same on both faces
from aiosock._race import Attempt

from ._constructors import from_stdlib_socket, makers, remade
from ._driver import call, fail_after

globals().update({name: value for name, value in vars(_stdlib).items() if name[:2] != "__"})
globals().update(remade(globals()))

from ._names import (  # noqa: E402  # in the place of the stdlib's names
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
    getprotobyname,
    getservbyname,
    getservbyport,
)
from ._server import Server, listen_fds, serve  # noqa: E402  # likewise
from ._socket import socket  # noqa: E402  # likewise
from ._tls import InsecureWarning, SSLObject, SSLSocket, ssl  # noqa: E402  # likewise

globals().update(makers(globals()))
del makers

SocketType = socket
SSLType = SSLObject
_OF_SSL = {
    "sslerror": _ssl.SSLError,
    **{n: v for n, v in vars(_ssl).items() if n.startswith("SSL_ERROR_")},
    **{n: getattr(_ssl, n) for n in ("RAND_add", "RAND_status")},
}
globals().update(_OF_SSL)

__all__ = sorted(
    {
        *_OF_SSL,
        *_addresses.__all__,
        *_options.__all__,
        *_stdlib.__all__,
        "Attempt",
        "InsecureWarning",
        "Resolver",
        "SSLObject",
        "SSLSocket",
        "SSLType",
        "Server",
        "SocketIO",
        "call",
        "fail_after",
        "from_stdlib_socket",
        "listen_fds",
        "serve",
        "set_resolver",
        "ssl",
    }
)

# Each object is named after where its user finds it: in a repr, in help(), in a traceback.
for _name in __all__:
    _object = globals()[_name]
    if getattr(_object, "__module__", "").startswith("aiosock_sync."):
        _object.__module__ = "aiosock_sync"
del _name, _object
