"""Runs a program's main coroutine on the fastest loop there is.

Knows which loops may be installed; uvloop is imported when a loop is made, not before.
"""

import asyncio
import importlib
import importlib.util
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
    *,
    debug: bool | None = None,
    loop_factory: LoopFactory | None = None,
) -> T:
    """Run `main`, a coroutine or an async function without arguments; its result.

    On uvloop where it is installed, on asyncio's own loop otherwise, or on a loop made by
    `loop_factory`.  Otherwise as `asyncio.run`.
    """
    if _get_running_loop() is not None:
        raise RuntimeError(
            "aiosock.run() cannot be called from a running event loop: await the coroutine there"
        )
    with asyncio.Runner(debug=debug, loop_factory=loop_factory or fastest_loop()) as runner:
        return runner.run(main() if callable(main) else main)


def fastest_loop() -> LoopFactory:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop
    factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
    return factory
