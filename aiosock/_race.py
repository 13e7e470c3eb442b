"""How `create_connection` finds its way: its addresses in a race, or one after the other.

Knows the resolver, connecting and the clock; knows nothing of the faces' sockets.  A race
gives a connected socket of the stdlib's, which either face takes over; in a sequence the
face makes its own.

The race is that of RFC 8305, "Happy Eyeballs".  IPv6 and IPv4 addresses are asked for apart.
The first attempt begins when there are IPv6 addresses, or IPv4 ones and nothing of IPv6 for
`RESOLUTION_DELAY` more.  The next one begins as soon as one has failed, or after a while
that the caller sets; the families take turns, each in the resolver's order.  Who connects
first has won, and the others are closed before anybody hears of it.

Where nothing can be won by a race none is run: a single address that is known needs no task.
"""

import asyncio
import os
import socket as _stdlib
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple, Self, TypeVar

from ._advice import noted
from ._deadline import time_left, timed_out
from ._names import AddrInfo, getaddrinfo, needs_lookup, numeric_address, numeric_addresses
from ._operations import connect
from ._readiness import Readiness

__all__ = [
    "ATTEMPT_DELAY",
    "GLOBAL_DEFAULT",
    "Attempt",
    "Log",
    "Request",
    "Schedule",
    "as_delay",
    "in_sequence",
    "is_path",
    "race",
    "share_ports",
]

S = TypeVar("S")
Connect = Callable[[AddrInfo], Coroutine[Any, Any, S]]

ATTEMPT_DELAY: Final = 0.25  # seconds between two attempts, as RFC 8305 recommends
RESOLUTION_DELAY: Final = 0.05  # seconds that IPv4 addresses wait for IPv6 ones, likewise
GLOBAL_DEFAULT: Final[Any] = _stdlib._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]  # the stdlib's own mark for "not given"
AF_INET: Final = int(_stdlib.AF_INET)
AF_INET6: Final = int(_stdlib.AF_INET6)
IP_BIND_ADDRESS_NO_PORT: Final = getattr(_stdlib, "IP_BIND_ADDRESS_NO_PORT", 24)  # Linux's
# The answers that say "none"; any other failure of a lookup leaves it open.
NONE: Final = [
    getattr(_stdlib, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(_stdlib, name)
]


class Attempt(NamedTuple):
    """What became of one address that `create_connection` tried, as in ``sock.attempts``.

    `started` and `ended` are seconds since the call began.  `error` is None for the address
    that was connected to, and `asyncio.CancelledError` where another one was faster.
    """

    address: Any
    started: float
    ended: float
    error: BaseException | None

    def __str__(self) -> str:
        said = "connected" if self.error is None else str(self.error)
        if isinstance(self.error, asyncio.CancelledError):
            said = "given up"
        said = said or type(self.error).__name__
        return f"{self.address!r} from {self.started:.3f} s to {self.ended:.3f} s: {said}"


def as_delay(value: Any) -> float | None:
    """What `happy_eyeballs_delay` may be: seconds, or None for no race."""
    if not isinstance(value, int | float | None):
        kind = type(value).__name__
        raise TypeError(f"happy_eyeballs_delay must be a number or None, not {kind!r}")
    if value is not None and not value >= 0:
        raise ValueError(f"happy_eyeballs_delay must not be negative or NaN: {value!r}")
    return value


def is_path(address: Any) -> bool:
    """Whether it is one of AF_UNIX, and no pair."""
    if isinstance(address, str):
        return "/" in address or address[:1] == "\0"
    return isinstance(address, bytes)


def is_local(host: Any) -> bool:
    """Whether the name is this machine's by definition (RFC 6761).

    Asked for one family alone, a system whose file of hosts lacks it there asks a name server.
    """
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
    return name.lower().rstrip(".").rpartition(".")[2] == "localhost"


def share_ports(sock: Any, source_address: Any) -> None:
    """Have connect(2) choose the source port, which connections to other peers may have too.

    bind(2), which knows no peer yet, would take a port of this address for this socket alone.
    """
    if isinstance(source_address, tuple) and source_address[1:2] == (0,):
        with suppress(OSError):  # the system knows no such option, or not for this family
            sock.setsockopt(_stdlib.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)


def _as_pair(address: Any) -> tuple[Any, Any]:
    try:
        host, port = address
    except (TypeError, ValueError) as error:
        noted(
            error,
            f"an address is (host, port), or the path of an AF_UNIX socket, which is bytes or "
            f"has a slash in it; this one is {address!r}",
        )
        raise
    return host, port


class Request:
    """What a call asks for: where to, from where, for how long, and how.

    An address is a pair of host and port, or the path of an AF_UNIX socket: bytes, or text
    with a slash in it or a null byte in front (an abstract name).  Other text is what the
    stdlib takes it for: a pair if it has two characters.
    """

    def __init__(
        self,
        address: Any,
        timeout: Any,
        source_address: Any,
        all_errors: bool,
        delay: float | None,
    ) -> None:
        self.source_address, self.all_errors, self.delay = source_address, all_errors, delay
        self.timeout = _stdlib.getdefaulttimeout() if timeout is GLOBAL_DEFAULT else timeout
        self.host: Any = None
        self.port: Any = None
        self.known: list[AddrInfo] | None  # what needs no lookup
        if is_path(address):
            self.known = [(_stdlib.AF_UNIX, _stdlib.SOCK_STREAM, 0, "", address)]
        elif isinstance(address, tuple) and len(address) == 4:  # as getsockname() gives it
            self.host, self.port, *_ = address
            self.known = [(_stdlib.AF_INET6, _stdlib.SOCK_STREAM, 0, "", address)]
        else:
            self.host, self.port = _as_pair(address)
            self.known = self._numeric(self.port)

    def _numeric(self, port: Any) -> list[AddrInfo] | None:
        return numeric_addresses(self.host, port, 0, _stdlib.SOCK_STREAM, 0, 0)

    @property
    def races(self) -> bool:
        """Whether there is time, and more to do in it than to connect to one address."""
        if self.delay is None or self.timeout == 0:
            return False
        if self.known is None or len(self.known) != 1:
            return True
        return bool(self.source_address) and needs_lookup(self.known[0][0], self.source_address)

    def families(self) -> tuple[int, ...]:
        """What to ask for apart: nothing, where only the port has a name, or no server is asked."""
        if self.known is not None:
            return ()
        asks = self.host and not self._numeric(None) and not is_local(self.host)
        return (AF_INET6, AF_INET) if asks else (0,)


class Log:
    """What was tried and how it went, for the notes of an error and for ``sock.attempts``.

    Within its ``with``: an error that comes out of it carries the notes.
    """

    def __init__(self) -> None:
        self.begun = monotonic()
        self.attempts: list[Attempt] = []
        self.refusals: list[OSError] = []  # of lookups
        self.remarks: list[str] = []
        self.won: _stdlib.socket | None = None  # by a race, until a face has taken it over

    def begin(self, info: AddrInfo) -> int:
        """An attempt begins; its place here."""
        self.attempts.append(Attempt(info[4], self.now(), inf, None))
        return len(self.attempts) - 1

    async def attempt(self, place: int, connect: Connect[S], info: AddrInfo) -> S:
        """The outcome of an attempt, which is written down."""
        error: BaseException | None = None
        try:
            return await connect(info)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end(place, error)
            del error  # it knows this frame

    def give_up(self, place: int) -> None:
        """What an attempt has come to, or will, is of no use."""
        if self.attempts[place].error is None:
            self._end(place, asyncio.CancelledError())

    def _end(self, place: int, error: BaseException | None) -> None:
        address, started, *_ = self.attempts[place]
        self.attempts[place] = Attempt(address, started, self.now(), error)

    def now(self) -> float:
        """Seconds since the call began."""
        return monotonic() - self.begun

    def time_is_over(self) -> None:
        """Those that were given up have had no answer in time."""
        self.attempts = [
            attempt._replace(error=timed_out())
            if isinstance(attempt.error, asyncio.CancelledError)
            else attempt
            for attempt in self.attempts
        ]

    def errors(self) -> list[BaseException]:
        return [attempt.error for attempt in self.attempts if attempt.error is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            for failed in self.errors():  # nobody raises them: they shall hold no frame
                failed.__traceback__ = failed.__context__ = None
        else:
            if self.won is not None:
                self.won.close()
            for note in (*self.attempts, *self.remarks):
                error.add_note(str(note))
        self.attempts, self.refusals = [], []  # they know the frames that know this


def failure(errors: list[BaseException], all_errors: bool) -> BaseException:
    """What is raised when no address lets us: the last error, or all of them."""
    if all_errors and errors:
        return BaseExceptionGroup("create_connection failed", errors)  # of Exceptions, one of these
    return errors[-1] if errors else OSError("getaddrinfo returns an empty list")


# --- one after the other --------------------------------------------------------------


async def in_sequence(
    log: Log, found: Iterable[AddrInfo], connect: Connect[S], all_errors: bool
) -> S:
    """The stdlib's way: each address in the resolver's order, until one lets us."""
    for info in found:
        with suppress(OSError):
            return await log.attempt(log.begin(info), connect, info)
    raise failure(log.errors(), all_errors)


# --- the race -------------------------------------------------------------------------


class Schedule:
    """Which address is next, and from when on.  It is told the time: it knows no clock."""

    def __init__(self, delay: float, families: Iterable[int] = ()) -> None:
        self._delay = delay
        self._queues: dict[int, list[AddrInfo]] = {family: [] for family in families}
        self._begun = False
        self._due = inf

    def answer(self, found: Iterable[AddrInfo], now: float, settled: bool) -> None:
        """Addresses, each of which counts once; `settled` says that no better ones may come."""
        for info in found:
            queue = self._queues.setdefault(info[0], [])
            if info not in queue:
                queue.append(info)
        if not self._begun and self.left():
            self._due = min(self._due, now if settled else now + RESOLUTION_DELAY)

    def next(self, now: float) -> AddrInfo:
        """The next address, from the family that has waited longest; the time goes on."""
        family = next(family for family, queue in self._queues.items() if queue)
        queue = self._queues[family] = self._queues.pop(family)
        self._begun, self._due = True, now + self._delay
        return queue.pop(0)

    def failed(self, now: float) -> None:
        """An attempt has: the next one need not wait."""
        self._due = now

    def left(self) -> list[AddrInfo]:
        return [info for queue in self._queues.values() for info in queue]

    @property
    def due(self) -> float:
        """When the next attempt may begin; infinity while there is no address for it."""
        return self._due if self.left() else inf


class Race:
    """The tasks of one call: lookups, and attempts of which one is to win.

    They do not know it: an error's traceback knows what its task knew.
    """

    def __init__(self, log: Log, request: Request, deadline: float | None) -> None:
        assert request.delay is not None
        self._log, self._connect = log, partial(connected, request.source_address)
        self._host = request.host
        self._deadline, self._is_late = inf if deadline is None else deadline, False
        families = request.families()
        self._schedule = Schedule(request.delay, families)
        self._schedule.answer(request.known or (), log.begun, settled=True)
        self._make_task = asyncio.get_running_loop().create_task
        self._attempts: dict[asyncio.Task[_stdlib.socket], int] = {}  # and their places
        self._lookups = {self._make_task(look_up(request, f)): f for f in families}

    async def decided(self) -> asyncio.Task[Any] | None:
        """The task whose outcome is the race's; None if all have failed, or time is over."""
        while (now := monotonic()) < self._deadline:
            if self._schedule.due <= now:
                self._begin(self._schedule.next(now))
            elif not (self._lookups or self._attempts):
                return None
            else:
                await self._something()
                decided = self._heard() or self._tried()
                if decided:
                    return decided
        self._is_late = True
        return None

    def _begin(self, info: AddrInfo) -> None:
        place = self._log.begin(info)
        attempt = self._log.attempt(place, self._connect, info)
        self._attempts[self._make_task(attempt)] = place

    async def _something(self) -> None:
        """Wait until a task has ended, or it is time."""
        alarm = min(self._schedule.due, self._deadline)
        await asyncio.wait(
            [*self._lookups, *self._attempts],
            timeout=None if alarm == inf else time_left(alarm),
            return_when=asyncio.FIRST_COMPLETED,
        )

    def _heard(self) -> asyncio.Task[Any] | None:
        """See to lookups that have ended; one that is broken decides."""
        for lookup in [task for task in self._lookups if task.done()]:
            family, error = self._lookups.pop(lookup), lookup.exception()
            if isinstance(error, OSError):
                self._refuse(family, error)
            elif error:
                return lookup
            found = () if error else lookup.result()
            settled = family != AF_INET or not self._lookups
            self._schedule.answer(found, monotonic(), settled)
        return None

    def _refuse(self, family: int, error: OSError) -> None:
        self._log.refusals.append(error)
        if not says_none(error):
            self._remark(family, error)

    def _remark(self, family: int, why: object) -> None:
        of = f"{name_of(family)} addresses of {self._host!r}"
        self._log.remarks.append(f"{of} are not known: {why}")

    def _tried(self) -> asyncio.Task[Any] | None:
        """See to attempts that have ended; one that has connected decides, or is broken."""
        for attempt in [task for task in self._attempts if task.done()]:
            if not isinstance(attempt.exception(), OSError):
                return attempt
            del self._attempts[attempt]
            self._schedule.failed(monotonic())
        return None

    async def end(self, winner: asyncio.Task[Any] | None) -> None:
        """No task is left, and no socket open but the winner's."""
        try:
            await cancelled([*self._lookups, *self._attempts])
        except asyncio.CancelledError:
            winner = None
            raise
        finally:
            for attempt, place in self._attempts.items():
                if attempt is not winner:
                    self._lose(attempt, place)

    def _lose(self, attempt: asyncio.Task[_stdlib.socket], place: int) -> None:
        if not attempt.cancelled() and not attempt.exception():
            attempt.result().close()
        self._log.give_up(place)

    def failure(self, all_errors: bool) -> BaseException:
        """Why nobody has won, when all is over."""
        if self._is_late:
            self._log.time_is_over()
            for family in self._lookups.values():
                self._remark(family, "timed out")
            for info in self._schedule.left():
                self._log.remarks.append(f"{info[4]!r} was not tried")
        errors = self._log.errors()
        if self._is_late and not (all_errors and errors):
            return timed_out()
        if self._log.refusals and not errors:
            return min(self._log.refusals, key=says_none)
        return failure(errors, all_errors)


async def race(log: Log, request: Request, deadline: float | None) -> _stdlib.socket:
    """A connected socket of the stdlib's, which no loop knows any more."""
    runners, decided = Race(log, request, deadline), None
    try:
        try:
            decided = await runners.decided()
        finally:
            await runners.end(decided)
        if decided is None:
            raise runners.failure(request.all_errors)
        sock: _stdlib.socket = decided.result()
        log.won = sock
        return sock
    finally:
        del runners, decided  # they know errors that know this frame


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and await their end, also when cancelled meanwhile; their errors are heard."""
    interruption = None
    for task in tasks:
        task.cancel()
    while alive := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(alive)
        except asyncio.CancelledError as error:
            interruption = error
    for task in tasks:
        _ = task.cancelled() or task.exception()
    try:
        if interruption:
            raise interruption
    finally:
        del interruption  # it knows this frame


async def look_up(request: Request, family: int) -> list[AddrInfo]:
    """The addresses of one family; of 0 all."""
    found = await getaddrinfo(request.host, request.port, family, _stdlib.SOCK_STREAM)
    if family == AF_INET:  # there are resolvers that say all there is, whatever is asked for
        return [info for info in found if info[0] != AF_INET6]
    return [info for info in found if family in (0, info[0])]


async def connected(source_address: Any, info: AddrInfo) -> _stdlib.socket:
    """A socket that is connected to an address, and known to no loop any more."""
    family, kind, proto, _, address = info
    sock = _stdlib.socket(family, kind, proto)
    readiness = Readiness(sock)
    try:
        sock.setblocking(False)
        if source_address:
            share_ports(sock, source_address)
            if needs_lookup(sock.family, source_address):
                source_address = await numeric_address(sock, "bind", source_address)
            sock.bind(source_address)
        error = await connect(readiness, sock, None, sock.connect, address, True)
        if error:
            raise OSError(error, os.strerror(error))
        readiness.end(sock.fileno)
    except BaseException:
        readiness.end(sock.close)
        raise
    return sock


def name_of(family: int) -> str:
    return {AF_INET: "IPv4", AF_INET6: "IPv6"}.get(family, "the")


def says_none(error: OSError) -> bool:
    """Whether a lookup's error is an answer: there is no such address."""
    return isinstance(error, _stdlib.gaierror) and error.errno in NONE
