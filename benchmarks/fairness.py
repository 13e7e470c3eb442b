"""Fairness: what it costs a socket that is always ready to let other tasks run now and then.

- alone: one task takes byte after byte that is there already; aiosock as it is, beside aiosock
  with a budget that never ends, which lets nobody else run;
- in company: how often another task, which only yields, has its turn meanwhile; more is fairer,
  none is a loop that stands still.
"""

import asyncio
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from aiosock import _operations, _readiness, _socket

from ._programs import calling
from ._rounds import Case, Plan, Rates, Take
from .calls import Timed, filled, timed_in_task
from .peers import PEERS, answer_on

ENDLESS = " without end"
KINDS = ("aiosock", "sock_*", "trio", "curio")
TURNS = "turns of another task in 1,000 recv"


def cases(plan: Plan) -> Iterator[Case]:
    names = plan.peers(among=[name for name in PEERS if name.partition(" on ")[0] in KINDS])
    ours = [name for name in names if name.startswith("aiosock")]
    commands = {name: calling(alone, name) for name in ours}
    commands |= {name + ENDLESS: calling(alone, name, "endless") for name in ours}
    if ours:
        with plan.workers(commands) as workers:
            pairs = [(name, name + ENDLESS) for name in ours]
            yield Case("alone", plan.rates(workers, "recv"), pairs=pairs)
    with plan.workers({name: calling(in_company, name) for name in names}) as workers:

        def taking(name: str) -> Take:
            def take() -> Rates:
                turns, received = workers[name].work(plan.seconds)
                return {TURNS: turns / received * 1000}

            return take

        takes = {name: taking(name) for name in names}
        yield Case("in company", takes, pairs=[])


# --- the work, each in a program of its own ----------------------------------------------


def alone(subject: str, *endless: str) -> None:
    if endless:
        for module in (_readiness, _operations, _socket):
            vars(module)["BUDGET"] = 10**12
    sock, fill = filled()
    answer_on(subject, lambda seconds: timed_in_task(subject, sock, fill, seconds))


def in_company(subject: str) -> None:
    sock, fill = filled()
    turns = 0

    async def yields_on_asyncio() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def yields_elsewhere() -> None:
        nonlocal turns
        nothing: Any = import_module(subject)
        pause = nothing.lowlevel.checkpoint if subject == "trio" else lambda: nothing.sleep(0)
        while True:
            turns += 1
            await pause()

    async def work(seconds: float) -> Timed:
        before = turns
        received, _ = await timed_in_task(subject, sock, fill, seconds)
        return turns - before, received

    async def on_asyncio(seconds: float) -> Timed:
        other = asyncio.create_task(yields_on_asyncio())
        try:
            return await work(seconds)
        finally:
            other.cancel()

    async def on_trio(seconds: float) -> Timed:
        async with import_module("trio").open_nursery() as nursery:
            nursery.start_soon(yields_elsewhere)
            found = await work(seconds)
            nursery.cancel_scope.cancel()
        return found

    async def on_curio(seconds: float) -> Timed:
        other = await import_module("curio").spawn(yields_elsewhere)
        found = await work(seconds)
        await other.cancel()
        return found

    answer_on(subject, {"trio": on_trio, "curio": on_curio}.get(subject, on_asyncio))
