"""Lines read from files over sockets, beside the lines of streams, interleaved in one run.

    python benchmarks/lines.py [--rounds 25] [--connections 10] [--size 100]

Each server is a process of its own, on one core, and reads lines to the end of each
connection; a client on another core sends them, 64 KiB at a time, and waits for a byte in
answer.  As in echo.py each server is measured once in every round, in turn, and a figure is
the median of the rounds' ratios, with the quarters.
"""

import argparse
import asyncio
import os
import platform
import selectors
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from echo import Server, announce, connected, installed, measure, on, on_core, report

import aiosock

CHUNK = 65536


# --- the servers: each prints its port, then serves until it is killed ------------------


async def aiosock_server() -> None:
    tasks = set()

    async def count(conn: aiosock.socket) -> None:
        async with conn, conn.makefile("rb") as file:
            while await file.readline():
                pass
            await conn.sendall(b"x")

    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        announce(listener.getsockname()[1])
        while True:
            conn, _ = await listener.accept()
            task = asyncio.create_task(count(conn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def streams_server() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            pass
        writer.write(b"x")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


SERVERS: dict[str, Callable[[], Awaitable[None]]] = {
    "aiosock": aiosock_server,
    "streams": streams_server,
}
NAMES = [f"{kind} on {loop}" for loop in ("uvloop", "asyncio") for kind in SERVERS]


# --- the client --------------------------------------------------------------------------


def send_lines(port: int, options: argparse.Namespace) -> float:
    """Lines a second."""
    line = b"x" * (options.size - 1) + b"\n"
    many = CHUNK // options.size
    chunk, chunks = line * many, options.lines // many // options.connections
    left, start = dict[Any, memoryview](), time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for _ in range(options.connections):
            sock: Any = connected(port)
            sock.setblocking(False)
            left[sock] = memoryview(chunk * chunks)
            selector.register(sock, selectors.EVENT_WRITE)
        while left:
            for key, _ in selector.select():
                sock = key.fileobj
                if left[sock]:
                    left[sock] = left[sock][sock.send(left[sock][:CHUNK]) :]
                    if not left[sock]:
                        sock.shutdown(socket.SHUT_WR)
                        selector.modify(sock, selectors.EVENT_READ)
                else:
                    assert sock.recv(1) == b"x"
                    selector.unregister(sock)
                    sock.close()
                    del left[sock]
    lines: int = chunks * many * options.connections
    return lines / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="lines of files beside lines of streams")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--size", type=int, default=100, help="of a line")
    parser.add_argument("--lines", type=int, default=200_000, help="in each round")
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, _, loop = options.serve.split(" ")
        return on(loop, SERVERS[kind])()
    names = [name for name in NAMES if installed(name)]
    if on_core(1):
        os.sched_setaffinity(0, {1})
    print(f"Python {platform.python_version()}, {options.connections} connections", flush=True)
    rates = measure(
        {name: Server(name, program=__file__) for name in names},
        lambda server: send_lines(server.port, options),
        options.rounds,
    )
    report(rates, f"lines of {options.size} bytes/s")
    return None


if __name__ == "__main__":
    main()
