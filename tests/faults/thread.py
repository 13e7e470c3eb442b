"""The thread in which a proxy runs, on asyncio's own loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

__all__ = ["Apart"]

T = TypeVar("T")


class Apart:
    """Runs its `serve` in a thread of its own, from ``with`` to the end of that."""

    loop: asyncio.AbstractEventLoop

    async def serve(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, *args: object) -> None:
        self.do(self._serving.cancel)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            self.loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._serving = asyncio.ensure_future(self.serve())
        self._running.set()
        await asyncio.wait([self._serving])
        if not self._serving.cancelled():
            self._serving.result()

    def do(self, act: Callable[[], object]) -> None:
        """Act in the thread, soon."""
        self.loop.call_soon_threadsafe(act)

    async def result(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work in the thread, for a task of another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))
