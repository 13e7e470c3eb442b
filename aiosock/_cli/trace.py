"""trace: the steps of a connection and their times, drawn as a waterfall.

Knows how `create_connection` is made; it times lookups by standing in the resolver's place, and
gives the connection a log of its own, whose clock is that of all steps.
"""

import argparse
import encodings.idna  # noqa: F401  # which the first lookup would import, and be timed for
import re
import shutil
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiosock

from .._constructors import _connection, _rest
from .._deadline import deadline_after
from .._names import AddrInfo, Resolver, _StdlibResolver
from .._race import ATTEMPT_DELAY, Log
from . import security
from .endpoints import FAMILIES, Endpoint, allow_family, written
from .netcat import meant
from .words import Misuse, encoding, explained, show

__all__ = ["trace"]

NARROWEST, WIDEST = 10, 40  # characters of a bar's room


@dataclass
class Step:
    """A part of the way, in seconds since its beginning."""

    name: str
    begun: float
    ended: float
    said: str


class Timeline(Log):
    """The steps so far; attempts to connect become some when it is left."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def __exit__(self, *raised: Any) -> None:
        self.steps += map(as_tried, self.attempts)
        super().__exit__(*raised)

    async def time(self, name: str, work: Awaitable[Any], say: Callable[[Any], str]) -> Any:
        """The outcome of some work, which becomes a step."""
        begun, said = self.now(), "given up"
        try:
            outcome = await work
            said = say(outcome)
        except aiosock.gaierror as error:
            said = str(error.strerror)
            raise
        except Exception as error:
            said = explained(error).partition("; ")[0]
            raise
        finally:
            self.steps.append(Step(name, begun, self.now(), said))
        return outcome


class Stopwatch:
    """A resolver that has another one look up, and takes the time."""

    def __init__(self, resolver: Resolver, timeline: Timeline) -> None:
        self._resolver, self._timeline = resolver, timeline

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int, /
    ) -> list[AddrInfo]:
        work = self._resolver.getaddrinfo(host, port, family, type, proto, flags)
        name = f"look up {FAMILIES.get(family, 'all')}"
        found: list[AddrInfo] = await self._timeline.time(name, work, number_of)
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        return await self._resolver.getnameinfo(sockaddr, flags)


def number_of(found: list[AddrInfo]) -> str:
    return "1 address" if len(found) == 1 else f"{len(found)} addresses"


async def trace(options: argparse.Namespace) -> None:
    """The command: draws what was done, also when it fails."""
    place = meant(options)
    if place.scheme == "udp":
        raise Misuse("trace follows a connection, which UDP has not; use tcp://, tls:// or unix:")
    target = place.target()
    context = security.as_client(options) if place.scheme == "tls" else None
    timeline = Timeline()
    allow_family(options.family, place.host, Stopwatch(_StdlibResolver(), timeline))
    outcome = "failed"
    try:
        outcome = await follow(place, target, timeline, context, options)
    finally:
        draw(place, timeline, outcome)


async def follow(
    place: Endpoint,
    target: Any,
    timeline: Timeline,
    context: ssl.SSLContext | None,
    options: argparse.Namespace,
) -> str:
    """Connect, and shake hands if there is a context; what came of it."""
    deadline = deadline_after(options.timeout)
    how = None, False, ATTEMPT_DELAY
    with await _connection(target, options.timeout, *how, log=timeline) as sock:
        if context is None:
            return "connected"
        if deadline is not None:
            sock.settimeout(_rest(deadline))
        name = options.servername or place.host or "localhost"
        work = sock.start_tls(context, server_hostname=name)
        with await timeline.time("TLS handshake", work, security.spoken) as secure:
            return f"connected, and secure{names_in(secure.getpeercert())}"


def as_tried(attempt: aiosock.Attempt) -> Step:
    said = without_number(str(attempt).rpartition(" s: ")[2])
    return Step(shown(attempt.address), attempt.started, attempt.ended, said)


def without_number(said: str) -> str:
    return re.sub(r"^\[Errno \d+\] ", "", said)


def shown(address: Any) -> str:
    return written("tcp", address).removeprefix("tcp://")


def names_in(certificate: dict[str, Any] | None) -> str:
    """Whose certificate it is and until when; nothing if it was not verified."""
    if not certificate:
        return ", with nobody verified"
    names = ", ".join(name for _, name in certificate.get("subjectAltName", ()))
    return f": certificate for {names}, until {certificate['notAfter']}"


# --- drawing ----------------------------------------------------------------------------


def draw(place: Endpoint, timeline: Timeline, outcome: str) -> None:
    """A line for each step, with its bar, and one for the whole."""
    whole = timeline.now()
    width = max([len(step.name) for step in timeline.steps], default=0)
    room = shutil.get_terminal_size().columns - width - 50
    for step in sorted(timeline.steps, key=lambda step: step.begun):
        bar = drawn(step, whole, min(max(room, NARROWEST), WIDEST))
        times = f"{1000 * step.begun:8.1f} {1000 * (step.ended - step.begun):+8.1f} ms"
        show(f"{step.name:{width}} {times}  {bar}  {step.said}")
    show(f"{place}: {outcome}, {1000 * whole:.1f} ms")


def drawn(step: Step, whole: float, room: int) -> str:
    before = min(int(room * step.begun / whole), room - 1)
    after = max(before + 1, min(round(room * step.ended / whole), room))
    return (" " * before + block() * (after - before)).ljust(room)


def block() -> str:
    """What bars are made of: a full block where standard output can say it."""
    try:
        "\u2588".encode(encoding())
    except UnicodeError:
        return "#"
    return "\u2588"
