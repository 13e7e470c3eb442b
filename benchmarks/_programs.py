"""Programs on a core of their own, which are asked by a line and answer by a line.

The parent's side is `Program`.  The child's is this module run as a program: it calls a
function of this package by name, with the words that follow.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0))
PATIENCE = 60.0  # seconds until a program that says nothing is given up
MEASURED, LOADING = CORES[0], CORES[-1]  # the core of what is measured, and of the load


class Program:
    def __init__(self, *command: str, core: int = MEASURED) -> None:
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        os.sched_setaffinity(self.process.pid, {core})
        self._clock = ~self.process.pid << 3 | 2  # clock_getcpuclockid(3), which Python lacks

    def hear(self) -> str:
        assert self.process.stdout is not None
        late = threading.Timer(PATIENCE, self.process.kill)
        late.start()
        try:
            line = self.process.stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)} has ended: {self.process.wait()}")
        return line.strip()

    def ask(self, question: object) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self.hear()

    def work(self, seconds: float) -> tuple[float, float]:
        """How much was done, and in what time."""
        done, elapsed = self.ask(seconds).split()
        return float(done), float(elapsed)

    def cpu(self) -> float:
        """Seconds of CPU that it has taken, all threads together."""
        return time.clock_gettime(self._clock)

    def cpu_since(self, start: float) -> float:
        """The same since then: not nothing, although the clock may not have moved."""
        return max(self.cpu() - start, 1e-6)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.communicate()


class Server(Program):
    """One that says its port first."""

    def __init__(self, *command: str, core: int = MEASURED) -> None:
        super().__init__(*command, core=core)
        self.port = 0

    def started(self) -> Self:
        self.port = int(self.hear())
        return self


def calling(function: Callable[..., object], *words: object) -> list[str]:
    """The command that calls a function of this package in a Python of its own."""
    module = function.__module__.removeprefix("benchmarks.")
    return [sys.executable, "-m", __name__, module, function.__name__, *map(str, words)]


# --- the child's side --------------------------------------------------------------------


def announce(port: int) -> None:
    print(port, flush=True)


def answer(work: Callable[[float], tuple[float, float]]) -> None:
    """Work whenever asked; what was done, and in what time."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(*work(float(line)), flush=True)


def repeated(act: Callable[[], object], seconds: float, at_once: int = 1) -> tuple[float, float]:
    """How often an act was done in so many seconds; `at_once` times between looks at the clock."""
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds or not done:
        for _ in range(at_once):
            act()
        done += at_once
    return done, now - start


async def repeatedly(
    act: Callable[[], Awaitable[object]], seconds: float, at_once: int = 1
) -> tuple[float, float]:
    """The same of an act that is awaited."""
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds or not done:
        for _ in range(at_once):
            await act()
        done += at_once
    return done, now - start


def main(module: str, function: str, *words: str) -> None:
    getattr(import_module(f"benchmarks.{module}"), function)(*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
