"""What a socket weighs while it idles, and what the import costs.

    python benchmarks/footprint.py [--memory]

Memory is Python's own, by tracemalloc, for each connected socket beyond the stdlib
socket that it holds: fresh; after it has waited once;
and while a task waits in ``recv`` (the task is counted too).  The import is timed in new
processes, against ``import asyncio``, in turn.
"""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import time
import tracemalloc
from statistics import median

import aiosock

COUNT = 500
ROUNDS = 15


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def weigh() -> dict[str, float]:
    pairs = [aiosock.socketpair() for _ in range(COUNT)]
    stdlib_share = weigh_stdlib()
    tracemalloc.start()
    before = traced()
    held = [aiosock.socketpair() for _ in range(COUNT)]
    fresh = (traced() - before) / (2 * COUNT) - stdlib_share
    before = traced()
    for one, other in pairs:
        reading = asyncio.create_task(one.recv(100))
        await asyncio.sleep(0)
        await other.send(b"x")
        await reading
    del reading
    waited = fresh + (traced() - before) / COUNT
    before = traced()
    waiting = [asyncio.create_task(one.recv(100)) for one, _ in held]
    await asyncio.sleep(0.01)
    in_recv = fresh + (traced() - before) / COUNT
    tracemalloc.stop()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for sock in (sock for pair in (*pairs, *held) for sock in pair):
        sock.close()
    return {"fresh": fresh, "idle after a wait": waited, "a task waits in recv": in_recv}


def weigh_stdlib() -> float:
    tracemalloc.start()
    before = traced()
    pairs = [socket.socketpair() for _ in range(COUNT)]
    share = (traced() - before) / (2 * COUNT)
    tracemalloc.stop()
    for one, other in pairs:
        one.close()
        other.close()
    return share


def import_time(module: str) -> float:
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as anything installed is
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=compiled)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    for state, size in asyncio.run(weigh()).items():
        print(f"{size:6.0f} bytes a socket, {state}")
    if sys.argv[1:] == ["--memory"]:
        return
    both = [(import_time("asyncio"), import_time("aiosock")) for _ in range(ROUNDS)]
    more = [aio - plain for plain, aio in both]
    print(f"import aiosock: {median(more):.1f} ms more than import asyncio, median of {ROUNDS}")


if __name__ == "__main__":
    main()
