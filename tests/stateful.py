"""How the machines of hypothesis run: how often, from which seed, on which loop.

A few runs, always the same, are part of every test run.  The long form has new ones.  Which
they were, faults/plan.py tells when one fails:

    AIOSOCK_RUNS=200 .venv/bin/python -m pytest -q tests/test_stateful_files.py
    AIOSOCK_RUNS=200 AIOSOCK_SEED=7 .venv/bin/python -m pytest -q tests/test_stateful_files.py
"""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, ClassVar, TypeVar

import pytest
import uvloop
from faces import LIMIT, open_descriptors
from faults import RUNS, SEED, replay
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from test_race import what_there_is

__all__ = ["Machine", "each_loop", "run_machine"]

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop

FEW = 12  # runs of the short form
STEPS = 50
LOOPS: dict[str, Callable[[], Loop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
each_loop = pytest.mark.parametrize("loop", LOOPS)


class Machine(RuleBasedStateMachine):
    """A world on a loop that turns only within a rule.

    `finish` makes up the books of a run in which all went well; what it leaves open ends with
    `stack`.  Then nothing is left on the loop, and nobody has raised what was not heard.
    """

    new_loop: ClassVar[Callable[[], Loop]]

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = open_descriptors()
        self.loop = type(self).new_loop()
        self.unheard = unheard = list[dict[str, Any]]()
        self.loop.set_exception_handler(lambda _, context: unheard.append(context))
        self.stack = ExitStack()
        self.before = self.run(self.there())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(in_time(work))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that has begun."""
        task = self.loop.create_task(work)
        self.turn()
        return task

    def turn(self, count: int = 4) -> None:
        self.run(turns(count))

    async def there(self) -> dict[str, int]:
        return what_there_is()

    def finish(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        well = sys.exc_info()[0] is None
        try:
            if well:
                self.finish()
            self.stack.close()
            self.turn()
            if well:
                left = self.run(self.there())
                assert {what for what in left if left[what] > self.before[what]} == set()
        finally:
            self.run(self.abandon())
            self.loop.close()
            del self.loop
            gc.collect()  # uvloop's holds descriptors as long as it lives
        if well:
            assert self.unheard == []
            assert open_descriptors() <= self.descriptors

    async def abandon(self) -> None:
        """Let nobody wait for ever, when a run was given up."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns(4)


async def in_time(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(LIMIT):
        return await work


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run_machine(machine: type[Machine], loop: str) -> None:
    """RUNS runs of the machine on that loop, or a few."""
    print(replay())  # shown when it fails
    on_loop = type(machine.__name__, (machine,), {"new_loop": staticmethod(LOOPS[loop])})
    how = settings(
        max_examples=RUNS or FEW,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(SEED)(on_loop), settings=how)
