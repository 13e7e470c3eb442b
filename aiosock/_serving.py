"""What a server is asked for, and what it makes of errors: the same words on both faces.

Knows the stdlib and the shapes of addresses alone: which callables are handlers, which errors of
accept(2) mean what, what is logged, which descriptors a service manager passed.  Knows nothing
of how one waits.

Errors of accept(2) are of three kinds.  Those of the connection (it was aborted in the queue;
Linux also hands on network errors of the new socket) have cost one connection, and the next is
accepted.  Those of want (no descriptor left, no memory) pass when others give something back:
until then the connections stay in the kernel's queue.  All else is an error of the listener,
which no later attempt would mend.
"""

from __future__ import annotations

import errno
import functools
import inspect
import logging
import os
import socket as _stdlib
import ssl as _ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol, TypedDict, TypeVar

from ._addresses import Inet6AddressLike

__all__ = [
    "PAUSE",
    "At",
    "Counts",
    "Full",
    "Keywords",
    "Several",
    "Terms",
    "Triage",
    "family_of",
    "is_async",
    "log_failure",
    "log_handshake",
    "logger",
    "must_run",
    "passed_descriptors",
    "places_in",
    "remover",
    "shut",
    "vet_listener",
]

logger: Final = logging.getLogger("aiosock")

PAUSE: Final = 0.5  # seconds until the next attempt, unless something is given back before
SILENCE: Final = 60.0  # seconds between two lines of the log about the same want
FIRST_PASSED: Final = 3  # SD_LISTEN_FDS_START

_OF_THE_CONNECTION: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED EPROTO EPERM ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH "
        "EOPNOTSUPP ENETUNREACH"
    ).split()
    if hasattr(errno, name)
)
_OF_WANT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WENT: Final = ConnectionResetError, BrokenPipeError, ConnectionAbortedError
_UNREACHABLE: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


# --- what is asked for ------------------------------------------------------------------


At = str | bytes | Inet6AddressLike
T_co = TypeVar("T_co", covariant=True)


class Several(Protocol[T_co]):
    """A list, for type checkers: where one of paths is one of paths and addresses as well."""

    def __iter__(self) -> Iterator[T_co]: ...

    def reverse(self) -> None: ...


class Keywords(TypedDict, total=False):
    """What `serve` takes besides, for type checkers."""

    ssl_handshake_timeout: float
    max_connections: int | None
    grace_period: float | None
    backlog: int | None
    reuse_port: bool
    dualstack_ipv6: bool


class Terms:
    """What `serve` was asked for; what makes no sense is refused here."""

    def __init__(
        self,
        handler: Callable[[Any, Any], Any],
        context: _ssl.SSLContext | None,
        keywords: Keywords,
    ) -> None:
        self.handler: Callable[[Any, Any], Any] = handler
        self.context: _ssl.SSLContext | None = context
        self.ssl_handshake_timeout: float = keywords["ssl_handshake_timeout"]
        self.max_connections: int | None = keywords["max_connections"]
        self.grace_period: float | None = keywords["grace_period"]
        self._keywords = keywords
        _vet_arguments(self.handler)
        most, grace = self.max_connections, self.grace_period
        if most is not None and (not isinstance(most, int) or most < 1):
            raise ValueError(f"max_connections must be a number from 1 on, or None, not {most!r}")
        if grace is not None and not grace >= 0:
            raise ValueError(f"grace_period must not be negative or NaN: {grace!r}")
        if not self.ssl_handshake_timeout > 0:
            raise ValueError(
                f"ssl_handshake_timeout must be a positive number: {self.ssl_handshake_timeout!r}"
            )

    def how_to_listen(self, family: int) -> dict[str, Any]:
        """Arguments of `create_server`; a path has no ports to share, and no second stack."""
        ip = family != _stdlib.AF_UNIX
        return {
            "family": family,
            "backlog": self._keywords["backlog"],
            "reuse_port": ip and self._keywords["reuse_port"],
            "dualstack_ipv6": ip and self._keywords["dualstack_ipv6"],
        }


def _vet_arguments(handler: Callable[..., Any]) -> None:
    if not callable(handler):
        raise TypeError(f"the handler must be a function, not {type(handler).__name__!r}")
    try:
        signature = inspect.signature(handler)
    except (ValueError, TypeError):  # C code, which does not tell
        return
    try:
        signature.bind("conn", "peer")
    except TypeError as error:
        raise TypeError(
            f"the handler {handler!r} cannot be called with (conn, peer): {error}"
        ) from None


def is_async(handler: Any) -> bool:
    """Whether what it returns has to be awaited: a coroutine function, however it is wrapped."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = inspect.unwrap(handler)
    of_an_object = getattr(type(handler), "__call__", None)  # noqa: B004  # whether it is async is asked
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(of_an_object)


def places_in(listener_or_address: Any, kind: type) -> list[Any]:
    """The listeners and addresses, one or several, each by itself.

    A list is several, and so is a tuple of listeners or of addresses that are tuples.
    """
    several = listener_or_address
    first = several[0] if isinstance(several, tuple) and several else None
    if isinstance(several, list) or isinstance(first, tuple) or hasattr(first, "fileno"):
        places = list(several)
    else:
        places = [several]
    if not places:
        raise ValueError("there is nothing to listen at: the list is empty")
    for place in places:
        if hasattr(place, "fileno") and not isinstance(place, kind):
            raise TypeError(f"a listener must be an {kind.__module__}.socket, not {place!r}")
    return places


def family_of(address: Any) -> int:
    """AF_UNIX of a path, AF_INET6 of a host that is written with colons, else AF_INET."""
    if isinstance(address, str) and "/" not in address and address[:1] != "\0":
        raise TypeError(f"an address is (host, port), or a path with a slash, not {address!r}")
    if isinstance(address, str | bytes):
        return _stdlib.AF_UNIX
    host = address[0] if isinstance(address, tuple) and address else None
    return _stdlib.AF_INET6 if isinstance(host, str) and ":" in host else _stdlib.AF_INET


def must_run(acceptors: object, enter: str) -> None:
    if not acceptors:
        raise RuntimeError(f"the server is not running: enter it by `{enter}` before")


def vet_listener(sock: Any) -> None:
    if not sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ACCEPTCONN):
        raise ValueError(f"the socket does not listen: {sock!r}")


def remover(listener: Any) -> Callable[[], None]:
    """Takes the file of an AF_UNIX listener away, unless it is another's by now."""
    name = listener.getsockname()
    if listener.family != _stdlib.AF_UNIX or not name or isinstance(name, bytes):
        return lambda: None
    path = os.path.abspath(name)
    made = os.stat(path)

    def remove() -> None:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), made):
                os.unlink(path)

    return remove


def shut(conn: Any) -> None:
    """Close a connection, also with files of `makefile` open, which would put that off.

    After `start_tls` it is another object's.
    """
    conn.close()
    if conn._io_refs:
        conn._real_close()
    for heir in conn._heirs or ():
        shut(heir)


def passed_descriptors() -> range:
    """Those that the service manager passed to this very process; asked twice, none.

    As sd_listen_fds(3): they are not inherited any further, and the environment forgets them.
    """
    pid, count, _ = (os.environ.pop(f"LISTEN_{n}", "") for n in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count:
        return range(0)
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS must be a number, not {count!r}")
    passed = range(FIRST_PASSED, FIRST_PASSED + int(count))
    for fd in passed:
        os.set_inheritable(fd, False)
    return passed


# --- what goes wrong --------------------------------------------------------------------


class Full(Exception):  # noqa: N818  # a turn to wait for, no error
    """As many connections as may be are served."""


class Triage:
    """What becomes of the errors of one listener's accept."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()
        self._silent_until = 0.0

    def pause_after(self, error: OSError) -> float:
        """Seconds until accept is to be tried again; what no attempt would mend is raised."""
        if error.errno in _OF_THE_CONNECTION:
            logger.debug("a connection to %r went before it was accepted: %s", self._name, error)
            return 0.0
        if error.errno not in _OF_WANT:
            raise error
        if monotonic() >= self._silent_until:
            self._silent_until = monotonic() + SILENCE
            logger.warning("cannot accept: %s; connections to %r wait", error, self._name)
        return PAUSE


class Counts:
    """What a server counts."""

    def __init__(self) -> None:
        self._accepted = self._failed = 0

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._accepted

    @property
    def failed(self) -> int:
        """How many of them ended by an error: of the TLS handshake, or of the handler."""
        return self._failed


def log_failure(peer: Any, conn: Any, error: BaseException) -> None:
    """The handler of a connection has raised, which is not closed yet."""
    if _is_of_peer(error, is_gone(conn)):
        logger.debug("the connection from %r is gone: %s", peer, error)
    else:
        logger.error("the handler of the connection from %r failed", peer, exc_info=error)


def log_handshake(peer: Any, error: OSError) -> None:
    logger.debug("no TLS handshake with %r: %s", peer, error)


def is_gone(conn: Any) -> bool:
    """Whether a connection has ended; but for TCP nothing tells, and it may have."""
    if conn.family not in (_stdlib.AF_INET, _stdlib.AF_INET6):
        return True
    try:
        conn.getpeername()
    except OSError:
        return True
    return False


def _is_of_peer(error: BaseException, gone: bool) -> bool:
    """Whether it only says that the other end went; of a group, whether all do.

    A handler may talk to others too: while its own connection stands, such an error is theirs.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(_is_of_peer(part, gone) for part in error.exceptions)
    if isinstance(error, _ssl.SSLError) and "_ALERT_" in str(getattr(error, "reason", None)):
        return True  # it has refused, as it may when the handshake is over on this side
    if isinstance(error, _ssl.SSLEOFError | _ssl.SSLZeroReturnError):
        return True  # cut without close_notify, or ended
    unreachable = isinstance(error, OSError) and error.errno in _UNREACHABLE
    return gone and (unreachable or isinstance(error, _WENT))
