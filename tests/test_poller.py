"""The queue that tells which sockets are ready: what it hears, and whose it is.

How operations use it is in test_readiness; here are its edges.
"""

import asyncio
import gc
import io
import os
import socket as _stdlib
import subprocess
import sys
import threading
import weakref

import pytest
from conftest import LOOPS

import aiosock
from aiosock._poller import READ, WRITE, Poller, Waiter, poller_of, set_aside

HELLO = b"hello"


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(waiter: Waiter) -> asyncio.Task[None]:
    async def wait() -> None:
        waiter.future._asyncio_future_blocking = True
        await waiter.event

    task = asyncio.create_task(wait())
    await turns()
    return task


async def test_a_loop_has_one_poller() -> None:
    loop = asyncio.get_running_loop()
    assert poller_of(loop) is poller_of(loop)


@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_poller_ends_with_its_loop(loop_name: str) -> None:
    loop = LOOPS[loop_name]()
    poller = loop.run_until_complete(_poller_here())
    known, number = weakref.ref(poller), poller.fileno()
    del poller
    loop.close()
    del loop
    gc.collect()
    assert known() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


async def _poller_here() -> Poller:
    return poller_of(asyncio.get_running_loop())


async def test_an_event_wakes_whoever_waits_and_again() -> None:
    loop, (one, other) = asyncio.get_running_loop(), _stdlib.socketpair()
    poller, waiter = poller_of(loop), Waiter(loop)
    with one, other:
        poller.watch(one.fileno(), READ, waiter)
        for _ in range(3):
            task = await waiting(waiter)
            assert not task.done()
            other.send(HELLO)
            async with asyncio.timeout(5):
                await task
        poller.forget(one.fileno(), READ)


async def test_each_direction_is_watched_for_itself() -> None:
    loop, (one, other) = asyncio.get_running_loop(), _stdlib.socketpair()
    poller, reader, writer = poller_of(loop), Waiter(loop), Waiter(loop)
    with one, other:
        poller.watch(one.fileno(), READ, reader)
        reading = await waiting(reader)
        writing = await waiting(writer)
        poller.watch(one.fileno(), WRITE, writer)
        async with asyncio.timeout(5):
            await writing
        poller.forget(one.fileno(), WRITE)
        assert not reading.done()
        other.send(HELLO)
        async with asyncio.timeout(5):
            await reading
        poller.forget(one.fileno(), READ)


async def test_a_descriptor_that_is_not_watched_may_be_forgotten() -> None:
    poller = poller_of(asyncio.get_running_loop())
    poller.forget(0, READ)
    poller.forget(10**6, WRITE)


async def test_a_descriptor_closed_behind_its_back_is_forgotten_in_silence() -> None:
    loop, (one, other) = asyncio.get_running_loop(), _stdlib.socketpair()
    poller, number = poller_of(loop), one.fileno()
    poller.watch(number, READ, Waiter(loop))
    one.close()
    poller.forget(number, READ)
    other.close()


async def test_a_cancelled_task_leaves_a_waiter_that_can_be_renewed() -> None:
    loop, (one, other) = asyncio.get_running_loop(), _stdlib.socketpair()
    poller, waiter = poller_of(loop), Waiter(loop)
    with one, other:
        poller.watch(one.fileno(), READ, waiter)
        task = await waiting(waiter)
        task.cancel("no longer")
        with pytest.raises(asyncio.CancelledError, match="no longer"):
            await task
        waiter.renew()
        task = await waiting(waiter)
        other.send(HELLO)
        async with asyncio.timeout(5):
            await task
        poller.forget(one.fileno(), READ)


async def test_a_loop_that_is_set_aside_comes_back() -> None:
    loop = asyncio.get_running_loop()
    with set_aside(loop):
        assert asyncio._get_running_loop() is None
    assert asyncio.get_running_loop() is loop
    with set_aside(loop), pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    await asyncio.sleep(0)


async def test_a_forked_child_leaves_its_parents_queue_alone() -> None:
    """What the child closes, the parent still hears of."""
    one, other = aiosock.socketpair()
    with one, other:
        reading = asyncio.create_task(one.recv(10))
        await turns()
        child = os.fork()
        if not child:
            one.close()
            del reading
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222  # it ends at once
        await other.send(HELLO)
        async with asyncio.timeout(5):
            assert await reading == HELLO


def test_a_system_without_epoll_is_told_so() -> None:
    program = "import select; del select.epoll; import aiosock"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: aiosock waits by epoll(7)")


async def test_an_attempt_that_gives_way_is_made_again_without_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file is sent in turns, and the socket never says that it is full."""
    monkeypatch.setattr("aiosock._operations.LARGEST", 512)
    data = bytes(range(256)) * 64
    one, other = aiosock.socketpair()
    with one, other:
        async with asyncio.timeout(5):
            assert await one.sendfile(io.BytesIO(data)) == len(data)
        got = b""
        while len(got) < len(data):
            got += await other.recv(2**20)
        assert got == data


async def test_doubt_while_other_threads_come_and_go() -> None:
    poller, over = poller_of(asyncio.get_running_loop()), threading.Event()
    waiters = {number: Waiter(None) for number in range(10_000, 10_100)}

    def come_and_go() -> None:
        while not over.is_set():
            poller.waiters[READ].update(waiters)
            poller.waiters[READ].clear()

    thread = threading.Thread(target=come_and_go)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(3000):
            poller.doubt()
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("direction", ["read", "write"])
async def test_a_task_that_fails_after_a_wait_is_held_by_no_cycle(direction: str) -> None:
    """Its error knows the frames beneath, of which one knew the task."""

    class Mark: ...

    async def fail() -> None:
        mark = Mark()
        marks.append(weakref.ref(mark))
        await (one.recv(10) if direction == "read" else one.sendall(bytes(2**20)))
        raise ZeroDivisionError

    marks: list[weakref.ref[Mark]] = []
    one, other = aiosock.socketpair()
    gc.collect()
    gc.disable()
    try:
        with one, other:
            task = asyncio.create_task(fail())
            await turns()
            await other.send(HELLO)
            while direction == "write" and not task.done():
                await other.recv(2**20)
            await asyncio.wait([task])
            assert isinstance(task.exception(), ZeroDivisionError)
            del task
            await turns()
            assert [mark() for mark in marks] == [None]
    finally:
        gc.enable()
