"""What ENDPOINT and DURATION may be, what they mean, and the families that -4 and -6 allow.

Knows text, names and addresses; opens nothing.
"""

import argparse
import re
import socket as _stdlib
from dataclasses import dataclass
from typing import Any

import aiosock

from .._names import AddrInfo, Resolver, _StdlibResolver
from .words import Misuse

__all__ = [
    "FAMILIES",
    "Endpoint",
    "allow_family",
    "bracketed",
    "duration",
    "endpoint",
    "listening_address",
    "port",
    "takes_both",
    "written",
]

SCHEMES = "tcp", "udp", "tls"
EVERYWHERE = "*"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
LONGEST = 365 * 24 * 3600.0
FAMILIES: dict[int, str] = {_stdlib.AF_INET: "IPv4", _stdlib.AF_INET6: "IPv6"}


@dataclass(frozen=True)
class Endpoint:
    """Where to connect to or listen: a host and a port, or a path."""

    scheme: str  # tcp, udp, tls or unix
    host: str = ""  # this machine
    port: int | str = 0
    path: str = ""
    is_bare: bool = False  # written without a scheme: options may say another

    @property
    def is_path(self) -> bool:
        return self.scheme == "unix"

    def __str__(self) -> str:
        if self.is_path:
            return f"unix:{self.path.replace(chr(0), '@', 1)}"
        return f"{self.scheme}://{bracketed(self.host or 'localhost')}:{self.port}"

    def target(self) -> Any:
        """The address for `create_connection`."""
        if self.is_path:
            return self.path
        if self.host == EVERYWHERE:
            raise Misuse(f"{self}: `*` is for listening; name one host to connect to")
        if self.port == 0:
            raise Misuse(f"{self}: port 0 is for listening; name the port to connect to")
        return self.host or "localhost", self.port


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def written(scheme: str, address: Any) -> str:
    """A socket's address as an endpoint."""
    if isinstance(address, tuple):
        return str(Endpoint(scheme, str(address[0]), address[1]))
    path = address.decode(errors="backslashreplace") if isinstance(address, bytes) else address
    return str(Endpoint("unix", path=path))


# --- reading --------------------------------------------------------------------------


def endpoint(text: str) -> Endpoint:
    """What is written as ENDPOINT."""
    scheme, mark, rest = text.partition("://")
    if text.startswith("unix:"):
        return _path(text.removeprefix("unix:").removeprefix("//"), text)
    if mark:
        if scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise wrong(text, f"{scheme}:// is not known; there are {known} and unix:")
        return Endpoint(scheme, *_place(rest, text))
    if "/" in text:
        return _path(text, text)
    return Endpoint("tcp", *_place(text, text), is_bare=True)


def wrong(text: str, why: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r}: {why}")


def _path(path: str, text: str) -> Endpoint:
    if not path or path == "@" or "\0" in path:
        raise wrong(text, "a path is missing; write unix:/path, or unix:@name for an abstract name")
    if path.startswith("@"):
        return Endpoint("unix", path="\0" + path[1:])
    return Endpoint("unix", path=path if "/" in path else f"./{path}")


def _place(place: str, text: str) -> tuple[str, int | str]:
    host, colon, number = place.rpartition(":")
    if place.startswith("["):
        host, closed, after = place[1:].partition("]")
        colon, number = after[:1], after[1:]
        if not closed or not host:
            raise wrong(text, "an IPv6 address is written as [::1]:80")
    elif ":" in host:
        raise wrong(text, "an IPv6 address stands in brackets, as in [::1]:80")
    if colon != ":" or not number:
        hint = f":{place}" if place.isdecimal() else f"{place.rstrip(':') or 'host'}:80"
        raise wrong(text, f"a port is missing; write host:port, as in {hint}")
    return host, _port(number, text)


def _port(number: str, text: str) -> int | str:
    if re.fullmatch(r"[0-9]{1,5}", number) and int(number) < 2**16:
        return int(number)
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", number):
        return number
    raise wrong(text, f"{number!r} is no port; a port is 0 to 65535, or a service's name")


def port(text: str) -> int | str:
    """What is written as PORT."""
    return _port(text, text)


def duration(text: str) -> float:
    """Seconds, written as 500ms, 2s, 1m or 1h; a number alone is seconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", text)
    if match is None:
        raise wrong(text, "a duration is written as 500ms, 2s, 1.5m or 1h")
    seconds = float(match[1]) * UNITS[match[2]]
    if not 0 < seconds <= LONGEST:
        raise wrong(text, "a duration is more than nothing, and at most a year (8760h)")
    return seconds


# --- addresses --------------------------------------------------------------------------


class OneFamily:
    """The system's resolver, which knows addresses of one family only: -4 and -6."""

    def __init__(self, family: int, system: Resolver) -> None:
        self._family, self._system = family, system

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int, /
    ) -> list[AddrInfo]:
        if family not in (0, self._family):
            raise _stdlib.gaierror(_stdlib.EAI_NONAME, "not asked for")
        return await self._system.getaddrinfo(host, port, self._family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        return await self._system.getnameinfo(sockaddr, flags)


def allow_family(family: int, host: str, system: Resolver | None = None) -> None:
    """Look up that family alone, 0 being all; an address of another is refused."""
    for other in FAMILIES:
        if family and other != family and _is_numeric(other, host):
            raise Misuse(
                f"{host} is an {FAMILIES[other]} address, and {FAMILIES[family]} is asked for"
            )
    system = system or _StdlibResolver()
    aiosock.set_resolver(OneFamily(family, system) if family else system)


def _is_numeric(family: int, host: str) -> bool:
    try:
        aiosock.inet_pton(family, host.partition("%")[0])
    except OSError:
        return False
    return True


async def listening_address(place: Endpoint, family: int, kind: int) -> Any:
    """The address to bind to: this machine's loopback, unless a host is named; `*` is all."""
    if place.is_path:
        return place.path
    host = place.host or ("::1" if family == _stdlib.AF_INET6 else "127.0.0.1")
    if host == EVERYWHERE:
        all_of_them = family != _stdlib.AF_INET and aiosock.has_dualstack_ipv6()
        host = "::" if all_of_them else "0.0.0.0"
    found = await aiosock.getaddrinfo(host, place.port, family, kind)
    return min(found, key=lambda info: info[0] != _stdlib.AF_INET)[4]


def takes_both(place: Endpoint, family: int) -> bool:
    """Whether a listener at `::` takes IPv4 too."""
    return place.host == EVERYWHERE and not family and aiosock.has_dualstack_ipv6()
