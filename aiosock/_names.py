"""Host and service names, looked up off the loop; numeric addresses never leave it.

Knows the resolver and a few threads; knows nothing of sockets that wait.

A lookup may take half a minute and cannot be interrupted.  So it runs in a thread of
our own: not in the loop's default executor, where slow names would starve whoever else
uses that, nor in an executor of ours, which would hold up the interpreter's exit until
the last lookup ends.  The threads are daemons, a bounded number of them, and each ends
when nothing has come for a moment.  Whoever awaits may leave at any time; the late answer is
dropped.

The stdlib's functions are looked up when they are called, so that a test which
replaces ``socket.getaddrinfo`` replaces it here too.  Whether an address is numeric is
always asked of the original, which answers without looking anywhere.
"""

import asyncio
import functools
import os
import socket as _stdlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from ._addresses import Inet6Address, InetAddress
from ._advice import noted, tell_shape, tell_text
from ._readiness import running_loop

__all__ = [
    "Resolver",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "getprotobyname",
    "getservbyname",
    "getservbyport",
    "looking_up",
    "needs_lookup",
    "numeric_address",
    "numeric_addresses",
    "set_resolver",
]

T = TypeVar("T")
Host = str | bytes | None
Port = str | bytes | int | None
AddrInfo = tuple[_stdlib.AddressFamily, _stdlib.SocketKind, int, str, Any]  # of any resolver
Named = InetAddress | Inet6Address
Found = tuple[_stdlib.AddressFamily, _stdlib.SocketKind, int, str, Named]

THREADS: Final = 16
MOMENT: Final = 0.02  # seconds: a thread takes longer to start than most lookups take
NAMED: Final = (int(_stdlib.AF_INET), int(_stdlib.AF_INET6))  # ints: each sendto() asks

_original_getaddrinfo: Final = _stdlib.getaddrinfo
_original_getnameinfo: Final = _stdlib.getnameinfo


class Resolver(Protocol):
    """What `set_resolver` takes: the two lookups that today's networking is made of."""

    async def getaddrinfo(
        self, host: Host, port: Port, family: int, type: int, proto: int, flags: int, /
    ) -> list[AddrInfo]:
        """Await the addresses, in the form and with the errors of `socket.getaddrinfo`."""
        ...

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        """Await the names, in the form and with the errors of `socket.getnameinfo`."""
        ...


# --- threads ------------------------------------------------------------------------


class _Threads:
    """Runs jobs in at most THREADS daemon threads, which end after a MOMENT without any."""

    def __init__(self) -> None:
        # Reentrant, as a signal handler may look a name up as well.
        self._wanted = threading.Condition(threading.RLock())
        self._jobs: deque[Callable[[], None]] = deque()
        self._workers: set[threading.Thread] = set()
        self._idle = 0  # workers that wait for a job, or have not yet taken theirs

    def run(self, job: Callable[[], None]) -> None:
        with self._wanted:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle:
                self._wanted.notify()
                return
            # A signal handler may have raised before one had begun: it is none.
            self._workers = {worker for worker in self._workers if worker.is_alive()}
            if len(self._workers) >= THREADS:
                return
            try:
                worker = threading.Thread(target=self._work, name="aiosock-names", daemon=True)
                self._workers.add(worker)
                worker.start()
            except RuntimeError:  # the system gives no more threads: those that run will do it
                self._workers = {worker for worker in self._workers if worker.is_alive()}
                if not self._workers:
                    self._jobs.clear()
                    raise

    def _work(self) -> None:
        while job := self._next():
            job()
            del job  # its error knows this frame

    def _next(self) -> Callable[[], None] | None:
        with self._wanted:
            if not self._jobs:
                self._idle += 1
                self._wanted.wait(MOMENT)
                self._idle -= 1
            if not self._jobs:
                self._workers.discard(threading.current_thread())
                return None
            return self._jobs.popleft()


_threads = _Threads()


# Of services and protocols the system has one answer at a time, where each call of the stdlib's
# reads it after others may have asked.
_one_answer = threading.Lock()


def _forget_threads() -> None:
    global _threads, _one_answer
    _threads = _Threads()  # a forked child has none of its parent's threads
    _one_answer = threading.Lock()


os.register_at_fork(after_in_child=_forget_threads)


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """The function's outcome.  A cancelled call returns at once; a queued job is skipped."""
    loop = running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    _threads.run(partial(_answer, loop, answer, function, args))
    try:
        return await answer
    finally:
        del answer  # its error knows this frame


def _answer(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    if answer.cancelled():
        return
    outcome: tuple[Callable[..., None], Any]
    try:
        outcome = _set_result, function(*args)
    except BaseException as error:
        outcome = _set_exception, error
    with suppress(RuntimeError):  # the loop has closed: nobody waits for the answer
        loop.call_soon_threadsafe(outcome[0], answer, outcome[1])
    del outcome, answer  # the error knows this frame


def _set_result(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _set_exception(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # asyncio need not log it, where a signal handler ended who waited


# --- the resolver -------------------------------------------------------------------


class _StdlibResolver:
    async def getaddrinfo(
        self, host: Host, port: Port, family: int, type: int, proto: int, flags: int, /
    ) -> list[AddrInfo]:
        return await _in_thread(_call, "getaddrinfo", host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        return await _in_thread(_call, "getnameinfo", sockaddr, flags)


def _call(name: str, *args: Any) -> Any:
    return getattr(_stdlib, name)(*args)


def _call_alone(name: str, *args: Any) -> Any:
    with _one_answer:
        return _call(name, *args)


_resolver: Resolver = _StdlibResolver()


def set_resolver(resolver: Resolver | None) -> None:
    """Look names up with `resolver` from now on; None restores the system's.

    A resolver has two coroutine methods, ``getaddrinfo(host, port, family, type, proto,
    flags)`` and ``getnameinfo(sockaddr, flags)``, all arguments positional, results and
    errors as in `socket`.  It serves the functions of these names, and the host names in
    socket addresses; the older gethostby... ask the system.  Numeric addresses never reach
    it.  It holds for every loop and thread of the process.
    """
    global _resolver
    for name in ("getaddrinfo", "getnameinfo"):
        if resolver is not None and not callable(getattr(resolver, name, None)):
            raise TypeError(
                f"a resolver needs the coroutine methods getaddrinfo and getnameinfo; "
                f"{type(resolver).__name__!r} object has no {name}"
            )
    _resolver = _StdlibResolver() if resolver is None else resolver


class looking_up:
    """Whatever comes out of the ``with`` instead of an answer tells whose lookup it was."""

    def __init__(self, name: Any) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TimeoutError | asyncio.CancelledError):
            noted(error, f"the time went to the lookup of {self._name!r}")
        elif isinstance(error, OSError):
            noted(error, f"in the lookup of {self._name!r}")


# --- names of the module ------------------------------------------------------------


async def getaddrinfo(
    host: Host, port: Port, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Found]:
    """The addresses of `host` and `port`, as `socket.getaddrinfo` gives them.

    Awaits the lookup; a numeric host with a numeric port is answered at once.  An empty
    `host` or `port` means None (`socket` refuses an empty host).  Raises `gaierror`, and
    what `socket` raises for arguments of a wrong type.  A cancelled lookup goes on in
    its thread, unheard.
    """
    found = numeric_addresses(host, port, family, type, proto, flags)
    if found is not None:
        return found
    with looking_up(host):
        return await _resolver.getaddrinfo(
            _or_null(host), _or_null(port), family, type, proto, flags
        )


def numeric_addresses(
    host: Host, port: Port, family: int, type: int, proto: int, flags: int
) -> list[AddrInfo] | None:
    """What getaddrinfo says without looking anything up; None if it has to."""
    numeric = flags | _stdlib.AI_NUMERICHOST | _stdlib.AI_NUMERICSERV
    try:
        return list(
            _original_getaddrinfo(_or_null(host), _or_null(port), family, type, proto, numeric)
        )
    except (_stdlib.gaierror, UnicodeError):
        return None  # a name, or an error that the lookup will tell


def _or_null(name: Any) -> Any:
    return None if name == "" or name == b"" else name


async def getnameinfo(sockaddr: Named, flags: int, /) -> tuple[str, str]:
    """The host and service names of a socket address, as `socket.getnameinfo` gives them.

    Awaits the lookup, unless both names are wanted as numbers.  Raises `gaierror`.  A
    cancelled lookup goes on in its thread, unheard.
    """
    numeric = _stdlib.NI_NUMERICHOST | _stdlib.NI_NUMERICSERV
    if isinstance(flags, int) and flags & numeric == numeric:
        return _original_getnameinfo(sockaddr, flags)
    with looking_up(sockaddr):
        return await _resolver.getnameinfo(sockaddr, flags)


async def _ask(function: str, name: Any, *args: Any, call: Callable[..., Any] = _call) -> Any:
    with looking_up(name):
        return await _in_thread(call, function, name, *args)


_ask_alone = functools.partial(_ask, call=_call_alone)


async def gethostbyname(hostname: str, /) -> str:
    """The IPv4 address of a host name.  Awaits the lookup; raises `gaierror`.

    A numeric one is answered at once.  A cancelled lookup goes on in its thread, unheard.
    """
    if isinstance(hostname, str | bytes) and not _is_name(_stdlib.AF_INET, hostname):
        return _stdlib.gethostbyname(hostname)
    return str(await _ask("gethostbyname", hostname))


async def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """(name, aliases, IPv4 addresses) of a host name.

    Awaits the lookup; raises `gaierror`.  A cancelled one goes on in its thread, unheard.
    """
    found: tuple[str, list[str], list[str]] = await _ask("gethostbyname_ex", hostname)
    return found


async def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """(name, aliases, addresses) of an address.

    Awaits the lookup; raises `herror` and `gaierror`.  A cancelled one goes on in its
    thread, unheard.
    """
    found: tuple[str, list[str], list[str]] = await _ask("gethostbyaddr", ip_address)
    return found


async def getfqdn(name: str = "") -> str:
    """The fully qualified name of `name`, of this host if empty.

    Awaits the lookup; an unknown name comes back as it is.  A cancelled lookup goes on in
    its thread, unheard.
    """
    return str(await _ask("getfqdn", name))


async def getprotobyname(protocolname: str, /) -> int:
    """The number of a protocol.  Awaits the lookup; raises OSError for an unknown one.

    The table is a file, or a directory service.  A cancelled lookup goes on in its thread.
    """
    return int(await _ask_alone("getprotobyname", protocolname))


async def getservbyname(servicename: str, /, *protocolname: str) -> int:
    """The port of a service.  Awaits the lookup; raises OSError for an unknown one.

    A cancelled lookup goes on in its thread, unheard.
    """
    return int(await _ask_alone("getservbyname", servicename, *protocolname))


async def getservbyport(port: int, /, *protocolname: str) -> str:
    """The service of a port.  Awaits the lookup; raises OSError for an unknown one.

    A cancelled lookup goes on in its thread, unheard.
    """
    return str(await _ask_alone("getservbyport", port, *protocolname))


# --- names in socket addresses ------------------------------------------------------


def needs_lookup(family: int, address: Any) -> bool:
    """Whether a call with this address would look a name up; False also for nonsense.

    Where it is False the address goes to the system call untouched: the stdlib reads
    numbers, the special hosts and the addresses of other families itself, and refuses
    the rest in its own words.
    """
    if family not in NAMED or type(address) is not tuple:
        return False
    host = address[0] if len(address) >= 2 else ""
    if isinstance(host, str):
        return _is_name(family, host)
    return isinstance(host, bytes | bytearray) and _is_name(family, bytes(host))


def _hashable(host: str | bytes | bytearray) -> str | bytes:
    return bytes(host) if isinstance(host, bytearray) else host


@functools.lru_cache(maxsize=4096)
def _is_name(family: int, host: str | bytes) -> bool:
    host = _encoded(host)
    if host in (b"", b"<broadcast>") or b"\0" in host:
        return False
    try:
        _original_getaddrinfo(host, None, family, 0, 0, _stdlib.AI_NUMERICHOST)
    except _stdlib.gaierror as error:
        # A numeric address of the other family stays: its refusal needs no lookup.
        return error.errno == _stdlib.EAI_NONAME
    return False


def _encoded(host: str | bytes) -> bytes:
    """The host as the stdlib hands it to the system; empty if it will refuse to."""
    if isinstance(host, bytes):
        return host
    try:
        return host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError:
        return b""


async def numeric_address(sock: _stdlib.socket, call: str, address: Any, *data: Any) -> Any:
    """The address with its name looked up: the first that the resolver gives.

    `call` is the method that will get it: the same method of a closed socket first
    refuses what it would refuse before looking anything up.
    """
    stand_in = "0.0.0.0" if sock.family == _stdlib.AF_INET else "::"
    try:
        with suppress(OSError, OverflowError):  # EBADF: they are right.  The port is judged later.
            getattr(_closed(sock.family), call)(*data, (stand_in, *address[1:]))
    except TypeError as error:
        tell_text(error, data[:1])
        tell_shape(error, sock.family, address)
        raise
    host = _encoded(_hashable(address[0]))
    text = host.decode("ascii", "replace")
    short = all(len(label) < 64 for label in text.split("."))
    with looking_up(address[0]):
        found = await _resolver.getaddrinfo(text if short else host, None, sock.family, 0, 0, 0)
        if not found:
            raise OSError("getaddrinfo returns an empty list")
    return (found[0][4][0], *address[1:])


@functools.cache
def _closed(family: int) -> _stdlib.socket:
    with _stdlib.socket(family, _stdlib.SOCK_DGRAM) as sock:
        return sock
