"""doctor: what a report of a bug should say of a machine; nothing that names it.

Knows the stdlib, and which loops may be installed.
"""

import argparse
import asyncio
import importlib.metadata
import platform
import resource
import select
import socket as _stdlib
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiosock

from .words import encoding, show

__all__ = ["DISTRIBUTION", "doctor", "version_of"]

DISTRIBUTION = "awaitable-sockets"
LIMITS = {
    "queue of a listener": "net/core/somaxconn",
    "TCP receive buffer": "net/ipv4/tcp_rmem",
    "TCP send buffer": "net/ipv4/tcp_wmem",
    "local ports": "net/ipv4/ip_local_port_range",
}
LOOPBACK = {_stdlib.AF_INET: "127.0.0.1", _stdlib.AF_INET6: "::1"}


async def doctor(options: argparse.Namespace) -> None:
    """The command."""
    for part in (versions(), limits(), families()):
        for name, said in part:
            show(f"{name:20} {said}")


def versions() -> Iterator[tuple[str, str]]:
    yield "aiosock", version_of(DISTRIBUTION)
    kind = f"{platform.python_implementation()} {platform.python_version()}"
    yield "Python", f"{kind}, {platform.python_compiler()}"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield "C library", " ".join(platform.libc_ver()).strip() or "unknown"
    yield "TLS", ssl.OPENSSL_VERSION
    yield "uvloop", version_of("uvloop")
    loop = type(asyncio.get_running_loop())
    yield "loop of aiosock.run", f"{loop.__module__}.{loop.__qualname__}"
    yield "encoding of output", encoding()


def version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def limits() -> Iterator[tuple[str, str]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield "open files", f"{soft}, at most {hard}"
    yield "epoll", "yes" if hasattr(select, "epoll") else "no"
    for name, file in LIMITS.items():
        with suppress(OSError):
            yield name, " ".join(Path("/proc/sys", file).read_text().split())


def families() -> Iterator[tuple[str, str]]:
    """Which families a socket can be made of here, and whether loopback works."""
    names = sorted(name for name in vars(_stdlib) if name.startswith("AF_"))
    usable = [name.removeprefix("AF_") for name in names if can_make(getattr(_stdlib, name))]
    yield "families", " ".join(usable)
    for family, host in LOOPBACK.items():
        yield f"loopback {host}", "works" if can_bind(family, host) else "does not work"
    yield "IPv6 with IPv4", "yes" if aiosock.has_dualstack_ipv6() else "no"


def can_make(family: int) -> bool:
    for kind in (_stdlib.SOCK_STREAM, _stdlib.SOCK_DGRAM, _stdlib.SOCK_RAW, _stdlib.SOCK_SEQPACKET):
        with suppress(OSError), _stdlib.socket(family, kind):
            return True
    return False


def can_bind(family: int, host: str) -> bool:
    try:
        with _stdlib.socket(family) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True
