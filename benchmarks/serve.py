"""serve(): aiosock beside asyncio.start_server on the same loop, interleaved in one run.

    python benchmarks/serve.py [--rounds 25] [--seconds 0.15] [--work short memory]

Each server is a process of its own, on one core; its clients are on another.  Two works:

- short: connections of one byte each way, which the server closes; ten at a time, and a new one
  for each that ends.  The load is load.c, where a compiler is, or else one in Python.  "bare
  epoll" is the limit, as in echo.py: it knows no tasks, and nothing but this;
- memory: what each of 5,000 idle connections takes that have echoed one byte: of Python's own
  by tracemalloc, and in another process, without that, of resident memory.

As in echo.py each server is measured once in every round, in turn, and a figure is the median
of the rounds' ratios, with the quarters; memory is measured once.  To connect costs the load
about what it costs a server to accept, so short is given for each second of the server's CPU
too.
"""

import argparse
import asyncio
import os
import platform
import resource
import select
import signal
import socket
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from echo import Server, announce, compiled_load, connected, installed, measure, on, on_core, report
from tls import Meter, Rates, tell_weight, weight_of

import aiosock

# --- the servers: each prints its port, then serves until it is killed ------------------


async def aiosock_once(conn: aiosock.socket, peer: Any) -> None:
    await conn.sendall(await conn.recv(100))


async def aiosock_echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(100):
        await conn.sendall(data)


async def streams_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    writer.close()


async def streams_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def aiosock_server(talk: Callable[..., Any]) -> None:
    async with aiosock.serve(talk, ("127.0.0.1", 0)) as server:
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


async def streams_server(talk: Callable[..., Any]) -> None:
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


def bare_server() -> None:
    """No tasks, no loop but this one: what Python allows at most."""
    epoll, conns = select.epoll(), dict[int, socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        epoll.register(listener, select.EPOLLIN)
        announce(listener.getsockname()[1])
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    conn, _ = listener.accept()
                    conns[conn.fileno()] = conn
                    epoll.register(conn, select.EPOLLIN)
                else:
                    with conns.pop(fd) as conn:
                        conn.sendall(conn.recv(100))


KINDS: dict[str, tuple[Callable[..., Awaitable[None]], dict[str, Callable[..., Any]]]] = {
    "aiosock": (aiosock_server, {"once": aiosock_once, "echo": aiosock_echo}),
    "streams": (streams_server, {"once": streams_once, "echo": streams_echo}),
}
NAMES = [f"{kind} on {loop}" for loop in ("uvloop", "asyncio") for kind in KINDS]
LIMIT = "bare epoll"


def serve(options: argparse.Namespace) -> None:
    if options.serve == LIMIT:
        return bare_server()
    kind, _, loop = options.serve.split(" ")
    server, talks = KINDS[kind]

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_weight)
        await server(talks[options.talk])

    if options.trace:
        tracemalloc.start()
    on(loop, main)()
    return None


# --- the clients -------------------------------------------------------------------------


def python_load(port: int, connections: int, size: int, seconds: float) -> float:
    """What load.c does of short connections: round trips a second."""
    message, epoll, socks = b"x" * size, select.epoll(), dict[int, socket.socket]()

    def begin() -> None:
        sock = connected(port)
        socks[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLIN)
        sock.sendall(message)

    for _ in range(connections):
        begin()
    trips, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        for fd, _ in epoll.poll(1):
            if not socks[fd].recv(size):
                socks.pop(fd).close()
                trips += 1
                begin()
    for sock in socks.values():
        while sock.recv(size):  # the last echoes are taken too: an unread one is a reset
            pass
        sock.close()
    epoll.close()
    return trips / (now - start)


def weigh(server: Server, count: int) -> list[float]:
    """What each of many idle connections adds: bytes of Python's, bytes of resident memory."""

    def idle(count: int) -> list[socket.socket]:
        conns = [connected(server.port) for _ in range(count)]
        for conn in conns:
            conn.sendall(b"x")
            conn.recv(1)
        return conns

    try:
        first = idle(20)  # what comes only once has come then
        before = weight_of(server)
        held = idle(count)
        after = weight_of(server)
        for conn in (*first, *held):
            conn.close()
    finally:
        server.stop()
    return [(b - a) / count for a, b in zip(before, after, strict=True)]


# --- all of it ---------------------------------------------------------------------------

Start = Callable[..., Server]


def run_short(names: list[str], start: Start, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        load = (None if options.python_load else compiled_load(folder, "-DSHORT")) or python_load
        by = "Python" if load is python_load else "C"
        print(f"short: {options.connections} connections at a time from {by}", flush=True)

        def take(server: Server) -> Rates:
            meter, unit = Meter(server), "connections/s"
            rate = load(server.port, options.connections, 1, options.seconds)
            per_cpu = meter.rates(rate * options.seconds, "connections")
            return {**per_cpu, unit: rate}

        servers = {name: start(name, "once") for name in [*names, LIMIT]}
        found = measure(servers, take, options.rounds)
    for unit in found[LIMIT][0]:
        report({name: [rates[unit] for rates in found[name]] for name in found}, unit)


def run_memory(names: list[str], start: Start, options: argparse.Namespace) -> None:
    print(f"memory: bytes for each of {options.idle:,} idle connections", flush=True)
    for name in names:
        traced, _ = weigh(start(name, "echo", "--trace"), options.idle)
        _, resident = weigh(start(name, "echo"), options.idle)
        print(f"  {name:22} {traced:7,.0f} of Python's, {resident:7,.0f} resident", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="serve(), beside asyncio.start_server")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.15, help="for each server in a round")
    parser.add_argument("--connections", type=int, default=10, help="at a time")
    parser.add_argument("--idle", type=int, default=5000, help="connections that are weighed")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers, by part of the name")
    works = {"short": run_short, "memory": run_memory}
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--python-load", action="store_true", help="as without a compiler")
    for hidden in ("--serve", "--talk"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        return serve(options)
    wanted = options.only or [""]
    names = [n for n in NAMES if installed(n) and any(part in n for part in wanted)]
    if not names:
        parser.error("there is no such server")
    if on_core(1):
        os.sched_setaffinity(0, {1})  # the clients are here; each server goes where it is told
    print(f"Python {platform.python_version()}, {options.rounds} rounds")

    def start(name: str, talk: str, *more: str) -> Server:
        return Server(name, "--talk", talk, *more, program=__file__)

    for work in options.work:
        works[work](names, start, options)
    return None


if __name__ == "__main__":
    main()
