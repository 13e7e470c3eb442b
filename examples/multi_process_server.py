"""An echo server with a process for each core, all of which listen at one port.

    python examples/multi_process_server.py [host] [port] [--workers N]

By SO_REUSEPORT each worker has a queue of its own, and the kernel divides the clients among
them.  SIGTERM to the first process, or Ctrl-C, stops them all: each lets its clients finish, for
ten seconds at most.  When one ends by itself, so do the others.  It serves this machine only
unless another host is given; port 0 takes a free one.
"""

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiosock

Address = tuple[str, int]


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server with a process for each core.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        await work((args.host, args.port))
    else:
        await lead((args.host, args.port), args.workers)


async def lead(address: Address, count: int) -> None:
    stop = asyncio.Event()
    on_signals(stop.set)
    with await keep(address) as sock:
        host, port, *_ = sock.getsockname()  # which port 0 has become
        command = [sys.executable, __file__, host, str(port), "--worker"]
        async with asyncio.TaskGroup() as group:
            workers = [await asyncio.create_subprocess_exec(*command) for _ in range(count)]
            for worker in workers:
                group.create_task(wait_for(worker, stop))
            await stop.wait()
            for worker in workers:
                with suppress(ProcessLookupError):  # it has ended already
                    worker.terminate()
    if any(worker.returncode for worker in workers):
        sys.exit(1)


async def keep(address: Address) -> aiosock.socket:
    """A socket that has the address, for its user's other sockets too, and does not listen."""
    sock = aiosock.socket(aiosock.AF_INET6 if ":" in address[0] else aiosock.AF_INET)
    sock.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_REUSEADDR, 1)
    sock.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_REUSEPORT, 1)
    await sock.bind(address)
    return sock


async def wait_for(worker: Process, stop: asyncio.Event) -> None:
    await worker.wait()
    stop.set()


async def work(address: Address) -> None:
    async with aiosock.serve(echo, address, reuse_port=True) as server:
        on_signals(server.close)
        print("process", os.getpid(), "listens on", server.sockets[0].getsockname(), flush=True)
        await server.serve_forever()


async def echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


def on_signals(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)


if __name__ == "__main__":
    aiosock.run(main())
