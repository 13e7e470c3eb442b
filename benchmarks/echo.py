"""Echo of 1 KiB over TCP: aiosock beside its peers, interleaved in one run.

    python benchmarks/echo.py [--rounds 25] [--seconds 0.15] [--connections 10] [--size 1024]

Each server is a process of its own, on one core; the load comes from another, from a bare
epoll loop, which sends on each connection, waits for the whole echo, and sends again.  That
loop is in C (load.c), compiled when this starts; where no compiler is, one in Python does
the same, and is slower than some of the servers.  In every round each server is measured
once, in turn, so that a drift of the machine meets all of them alike.  A figure is a ratio
to a peer on the same loop in the same round; the median over the rounds is printed, with
the quarters beside it: half of the rounds lie between these.  Peers that are not installed
(uvloop, trio, curio) are left out.  "bare epoll" is no peer but the limit: a loop without
tasks, which knows nothing but this echo.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import aiosock

SIZE = 65536
Load = Callable[[int, int, int, float], float]
T = TypeVar("T")


# --- the servers: each prints its port, then echoes until it is killed ------------------


async def aiosock_server() -> None:
    tasks = set()

    async def echo(conn: aiosock.socket) -> None:
        with conn:
            while data := await conn.recv(SIZE):
                await conn.sendall(data)

    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        announce(listener.getsockname()[1])
        while True:
            conn, _ = await listener.accept()
            conn.setsockopt(aiosock.IPPROTO_TCP, aiosock.TCP_NODELAY, 1)
            task = asyncio.create_task(echo(conn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def sock_calls_server() -> None:
    loop, tasks = asyncio.get_running_loop(), set()

    async def echo(conn: socket.socket) -> None:
        with conn:
            while data := await loop.sock_recv(conn, SIZE):
                await loop.sock_sendall(conn, data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        announce(listener.getsockname()[1])
        while True:
            conn, _ = await loop.sock_accept(listener)
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(echo(conn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def streams_server() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(SIZE):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def protocol_server() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def trio_server() -> None:
    trio = importlib.import_module("trio")

    async def echo(stream: Any) -> None:
        async with stream:
            while data := await stream.receive_some(SIZE):
                await stream.send_all(data)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            serve = lambda task_status: trio.serve_tcp(  # noqa: E731  # trio asks for a function here
                echo, 0, host="127.0.0.1", task_status=task_status
            )
            listeners = await nursery.start(serve)
            announce(listeners[0].socket.getsockname()[1])

    trio.run(main)


def curio_server() -> None:
    curio = importlib.import_module("curio")

    async def echo(client: Any, address: Any) -> None:
        async with client:
            while data := await client.recv(SIZE):
                await client.sendall(data)

    async def main() -> None:
        listener = curio.tcp_server_socket("127.0.0.1", 0)
        announce(listener.getsockname()[1])
        await importlib.import_module("curio.network").run_server(listener, echo)

    curio.run(main)


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
                    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    conns[conn.fileno()] = conn
                    epoll.register(conn, select.EPOLLIN)
                elif data := conns[fd].recv(SIZE):
                    conns[fd].sendall(data)
                else:
                    conns.pop(fd).close()


def on(loop: str, server: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        factory = asyncio.new_event_loop
        if loop == "uvloop":
            factory = importlib.import_module("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(server())  # type: ignore[arg-type]  # every server here is a coroutine function

    return run


SERVERS: dict[str, Callable[[], None]] = {
    f"{kind} on {loop}": on(loop, server)
    for loop in ("uvloop", "asyncio")
    for kind, server in {
        "aiosock": aiosock_server,
        "streams": streams_server,
        "sock_*": sock_calls_server,
        "protocol": protocol_server,
    }.items()
}
SERVERS |= {"trio": trio_server, "curio": curio_server, "bare epoll": bare_server}


def installed(name: str) -> bool:
    needed = [module for module in ("uvloop", "trio", "curio") if module in name]
    return all(importlib.util.find_spec(module) for module in needed)


def announce(port: int) -> None:
    print(port, flush=True)


# --- the load ----------------------------------------------------------------------------


class Server:
    def __init__(self, *words: str, program: str = __file__) -> None:
        command = [*on_core(0), sys.executable, program, "--serve", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def python_load(
    port: int,
    connections: int,
    size: int,
    seconds: float,
    connect: Callable[[int], socket.socket] = connected,
) -> float:
    """What load.c does: round trips a second."""
    message, epoll, missing = b"x" * size, select.epoll(), {}
    socks = {}
    for _ in range(connections):
        sock = connect(port)
        socks[sock.fileno()] = sock
        missing[sock.fileno()] = size
        epoll.register(sock.fileno(), select.EPOLLIN)
    for sock in socks.values():
        sock.sendall(message)
    trips, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        for fd, _ in epoll.poll(1):
            missing[fd] -= len(socks[fd].recv(size))
            if not missing[fd]:
                missing[fd] = size
                trips += 1
                socks[fd].send(message)
    elapsed = now - start
    for fd, sock in socks.items():  # the last echoes are taken too: an unread one is a reset
        while missing[fd] and (data := sock.recv(missing[fd])):
            missing[fd] -= len(data)
        sock.close()
    epoll.close()
    return trips / elapsed


def compiled_load(folder: str, *flags: str) -> Load | None:
    """The load that load.c makes of it, if there is a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = f"{folder}/load"
    source = Path(__file__).with_name("load.c")
    subprocess.run([compiler, "-O2", "-o", program, source, *flags], check=True)

    def load(*args: float) -> float:
        command = [*on_core(1), program, *map(str, args)]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    return load


def on_core(number: int) -> list[str]:
    """What to put before a command to run it on one core, where that can be done."""
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return []
    return ["taskset", "-c", str(number)]


def measure(
    servers: dict[str, Server], take: Callable[[Server], T], rounds: int
) -> dict[str, list[T]]:
    """What `take` found of each server in each round; the servers are stopped."""
    taken: dict[str, list[T]] = {name: [] for name in servers}
    try:
        for turn in range(rounds + 1):
            for name, server in servers.items():
                found = take(server)
                if turn:  # the first round warms up
                    taken[name].append(found)
    finally:
        for server in servers.values():
            server.stop()
    return taken


def ratios(rates: dict[str, list[float]]) -> list[tuple[str, str, float, float, float]]:
    rows = []
    for ours in (name for name in rates if name.startswith("aiosock")):
        loop = ours.rpartition(" ")[2]
        for peer in (n for n in rates if n != ours and (n.endswith(loop) or " on " not in n)):
            pairs = [a / b for a, b in zip(rates[ours], rates[peer], strict=True)]
            low, middle, high = quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
            rows.append((ours, peer, middle, low, high))
    return rows


def report(rates: dict[str, list[float]], unit: str) -> None:
    for name, values in rates.items():
        print(f"  {name:22} {median(values):10,.0f} {unit}")
    for ours, peer, middle, low, high in ratios(rates):
        print(f"  {ours:18} / {peer:20} {middle:5.2f} x   ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description="TCP echo, aiosock beside its peers")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.15, help="for each server in a round")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers, by part of the name")
    parser.add_argument("--python-load", action="store_true", help="as without a compiler")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return SERVERS[options.serve]()
    wanted = options.only or [""]
    names = [n for n in SERVERS if installed(n) and any(part in n for part in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        compiled = None if options.python_load else compiled_load(folder)
        load = compiled or python_load
        rates = measure(
            {name: Server(name) for name in names},
            lambda server: load(server.port, options.connections, options.size, options.seconds),
            options.rounds,
        )
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rates": rates}))
        return None
    load_of = f"{options.connections} connections, {options.size} bytes"
    by = "C" if compiled else "Python"
    print(f"Python {platform.python_version()}, {load_of} from {by}, {options.rounds} rounds")
    report(rates, "round trips/s")
    return None


if __name__ == "__main__":
    main()
