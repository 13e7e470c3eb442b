"""Loops, faces and leak checks for every test.

A behaviour test takes the fixture `net` and is written once, with ``await``.  It runs
against the stdlib's socket and aiosock_sync's (their waiting calls in threads) and against
aiosock, on each loop: what it asserts is what the stdlib does, and the same holds for us.
What is ours alone takes the fixture `ours`.
"""

import asyncio
import gc
import os
import signal
import socket as _stdlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

import pytest
import uvloop
from faces import AIOSOCK, STDLIB, SYNC, Face, open_descriptors
from faults import replay

from aiosock_sync._driver import loop_here

Loop = asyncio.AbstractEventLoop

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs that tests run are compiled once
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.get_loop()  # libuv's own signal pipe opens with the first loop and stays
loop_here()  # and so does the loop of this thread's blocking calls


def eager(factory: Callable[[], Loop]) -> Callable[[], Loop]:
    def make() -> Loop:
        loop = factory()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # since 3.12
        return loop

    return make


def remembered(factory: Callable[[], Loop]) -> Callable[[], Loop]:
    def make() -> Loop:
        loop = factory()
        MADE.add(loop)
        return loop

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(replay())


MADE = WeakSet[Loop]()  # the loops of tests
LOOPS: dict[str, Callable[[], Loop]] = {
    "asyncio": remembered(asyncio.new_event_loop),
    "uvloop": remembered(uvloop.new_event_loop),
}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = eager(LOOPS["asyncio"])


def keep_what_there_is() -> None:
    """It stays: the collector, whom many tests ask, need not walk it again and again."""
    gc.collect()
    gc.freeze()


gc.disable()  # a collection makes much, and nothing that may go


def pytest_collection_finish() -> None:
    keep_what_there_is()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """pytest keeps what it knows of the tests that have been: hide it with each file."""
    done = yield
    if nextitem is not None and nextitem.path != item.path:
        keep_what_there_is()
    return done


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], Loop]]:
    return LOOPS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What blocks is the same whichever loop the test runs on: ask it once."""
    blocks = [item for item in items if "-stdlib" in item.name or "-sync" in item.name]
    again = [item for item in blocks if "asyncio" not in item.name]
    twice = {item for item in again if any(loop in item.name for loop in LOOPS)}
    items[:] = [item for item in items if item not in twice]


@pytest.fixture(params=[STDLIB, SYNC, AIOSOCK], ids=lambda face: face.name)
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Face]:
    """A face, whose sockets are closed at the end."""
    face: Face = request.param
    with face.closing():
        yield face


@pytest.fixture(params=[SYNC, AIOSOCK], ids=lambda face: face.name)
async def ours(request: pytest.FixtureRequest) -> AsyncIterator[Face]:
    """One of our faces, for what the stdlib does otherwise or has not."""
    face: Face = request.param
    with face.closing():
        yield face


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test enters ends with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No descriptor and no thread is left behind, and no default is changed."""
    before, threads = open_descriptors(queues=True), threading.active_count()
    yield
    for pause in (0, *[0.01] * 100):
        if open_descriptors(queues=True) <= before and threading.active_count() <= threads:
            break
        gc.collect()
        time.sleep(pause)
    assert open_descriptors(queues=True) <= before, "descriptors are left open"
    assert threading.active_count() <= threads, threading.enumerate()
    assert _stdlib.getdefaulttimeout() is None


def unfinished() -> set[asyncio.Task[Any]]:
    return {task for loop in MADE for task in asyncio.all_tasks(loop)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """A test leaves no task behind, which the end of its loop would cancel in silence."""
    before = unfinished()
    yield
    assert unfinished() <= before, "tasks are left behind"
