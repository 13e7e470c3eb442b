"""resolve: a host's addresses, in the order in which `create_connection` would try them.

Knows lookups and the schedule of the race, which is asked and not run.
"""

import argparse
import asyncio
import socket as _stdlib
from time import monotonic

import aiosock

from .._names import AddrInfo
from .._race import ATTEMPT_DELAY, Request, Schedule, look_up, says_none
from .endpoints import allow_family, bracketed
from .words import Misuse, show, tell

__all__ = ["resolve"]

NUMERIC = _stdlib.NI_NUMERICHOST | _stdlib.NI_NUMERICSERV


async def resolve(options: argparse.Namespace) -> None:
    """The command."""
    refuse_port(options.host)
    host = options.host.removeprefix("[").removesuffix("]")
    allow_family(options.family, host)
    begun = monotonic()
    async with asyncio.timeout(options.timeout):
        found = await in_order(host, options.port)
    for _, _, _, _, address in found:
        name, port = await aiosock.getnameinfo(address, NUMERIC)
        show(name if options.port is None else f"{bracketed(name)}:{port}")
    if options.verbose:
        tell(f"aiosock: {len(found)} found in {1000 * (monotonic() - begun):.1f} ms")


def refuse_port(host: str) -> None:
    """A host and its port are two words, other than in an endpoint."""
    name, colon, number = host.rpartition(":")
    if colon and (":" not in name or name.endswith("]")):
        shown = f"{name or 'localhost'} {number or 80}"
        raise Misuse(f"{host}: write HOST PORT, as in `aiosock resolve {shown}`")


async def in_order(host: str, port: int | str | None) -> list[AddrInfo]:
    request = Request((host, port), None, None, False, ATTEMPT_DELAY)
    families = request.families()
    lookups = [look_up(request, family) for family in families]
    answers = await asyncio.gather(*lookups, return_exceptions=True)
    schedule = Schedule(ATTEMPT_DELAY, families)
    for answer in (request.known or [], *answers):
        if not isinstance(answer, BaseException):
            schedule.answer(answer, 0.0, settled=True)
    found = [schedule.next(0.0) for _ in schedule.left()]
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    if errors and not found:
        raise min(errors, key=lambda error: isinstance(error, OSError) and says_none(error))
    return found
