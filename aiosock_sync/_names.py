"""Host and service names for blocking callers, by the resolver of the async face.

Knows the async name functions and the driver.  A lookup runs in a thread of the library's,
while this one waits in its loop: so it can be interrupted, and `fail_after` bounds it.
What needs no lookup is answered at once.
"""

import socket as _stdlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiosock import _names
from aiosock._names import Found, Host, Named, Port, looking_up, numeric_addresses

from ._driver import limited, run_task

__all__ = [
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "getprotobyname",
    "getservbyname",
    "getservbyport",
]

T = TypeVar("T")


def _looked_up(name: Any, lookup: Coroutine[Any, Any, T]) -> T:
    with looking_up(name):
        return run_task(lookup, limited(None))


def getaddrinfo(
    host: Host, port: Port, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Found]:
    """The addresses of `host` and `port`; raises `gaierror`.

    An empty one means None, as the old manual says; today's `socket` refuses an empty host.
    """
    found = numeric_addresses(host, port, family, type, proto, flags)
    if found is not None:
        return found
    return _looked_up(host, _names.getaddrinfo(host, port, family, type, proto, flags))


def getnameinfo(sockaddr: Named, flags: int, /) -> tuple[str, str]:
    """The host and service names of a socket address; raises `gaierror`."""
    try:
        if type(sockaddr) is not tuple:
            return _stdlib.getnameinfo(sockaddr, flags)  # refuses
        return _looked_up(sockaddr, _names.getnameinfo(sockaddr, flags))
    finally:
        del sockaddr  # an error knows this frame


def gethostbyname(hostname: str, /) -> str:
    """The IPv4 address of a host name; raises `gaierror`."""
    return _looked_up(hostname, _names.gethostbyname(hostname))


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """(name, aliases, IPv4 addresses) of a host name; raises `gaierror`."""
    return _looked_up(hostname, _names.gethostbyname_ex(hostname))


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """(name, aliases, addresses) of an address; raises `herror` and `gaierror`."""
    return _looked_up(ip_address, _names.gethostbyaddr(ip_address))


def getfqdn(name: str = "") -> str:
    """The fully qualified name of `name`, of this host if empty; an unknown one as it is."""
    return _looked_up(name, _names.getfqdn(name))


def getprotobyname(protocolname: str, /) -> int:
    """The number of a protocol; OSError for an unknown one."""
    return _looked_up(protocolname, _names.getprotobyname(protocolname))


def getservbyname(servicename: str, /, *protocolname: str) -> int:
    """The port of a service; OSError for an unknown one."""
    return _looked_up(servicename, _names.getservbyname(servicename, *protocolname))


def getservbyport(port: int, /, *protocolname: str) -> str:
    """The service of a port; OSError for an unknown one."""
    return _looked_up(port, _names.getservbyport(port, *protocolname))
