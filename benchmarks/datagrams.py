"""UDP datagrams of 100 bytes: many a call, one a call, and a datagram protocol.

    python benchmarks/datagrams.py [--rounds 15] [--seconds 0.2] [--work received echo trips]

Each server is a process of its own, on one core; the load, on another, is Python too, but
has the kernel cut what it sends into datagrams (UDP_SEGMENT), which makes it several times
as fast as any server here.  Three works:

- received: the load sends without end, more than anybody takes; what a server has counted
  is what it could take, the rest is lost;
- echo: 64 datagrams come at once, go back, and the next 64 come when all are back;
- trips: the same with one datagram, where there is nothing to gain.

"many" is `recv_many` and `send_many`, "single" is `recvfrom` and `sendto`, "protocol" is a
class given to the loop's ``create_datagram_endpoint``.  "stdlib" is no peer but the limit of
one datagram a call: a blocking socket, no loop and no tasks.  As in echo.py every server is
measured once in each round, in turn, and a figure is the median of the rounds' ratios, with
the quarters.  All is counted for each second of the server's CPU: by the clock a server that
waits for the load would look as slow as the load.
"""

import argparse
import asyncio
import os
import platform
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from echo import Server, announce, installed, measure, on, report

import aiosock

SIZE, MANY = 100, 64
UDP_SEGMENT = 103  # Linux's; Python has no name for it
HERE = ("127.0.0.1", 0)
QUESTION = b"?"  # how many have you had?


# --- the servers: each prints its port, then counts or echoes until it is killed ---------


async def aiosock_socket() -> aiosock.socket:
    sock = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM)
    await sock.bind(HERE)
    announce(sock.getsockname()[1])
    return sock


async def count_many() -> None:
    sock, count = await aiosock_socket(), 0
    while True:
        for data, address in await sock.recv_many(MANY):
            count += 1
            if len(data) == 1:
                await sock.sendto(b"%d" % count, address)


async def count_single() -> None:
    sock, count = await aiosock_socket(), 0
    while True:
        data, address = await sock.recvfrom(2048)
        count += 1
        if len(data) == 1:
            await sock.sendto(b"%d" % count, address)


async def echo_many() -> None:
    sock = await aiosock_socket()
    while True:
        await sock.send_many(await sock.recv_many(MANY))


async def echo_single() -> None:
    sock = await aiosock_socket()
    while True:
        await sock.sendto(*await sock.recvfrom(2048))


class Endpoint(asyncio.DatagramProtocol):
    count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport


class Count(Endpoint):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.count += 1
        if len(data) == 1:
            self.transport.sendto(b"%d" % self.count, addr)


class Echo(Endpoint):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


def serving(protocol: type[Endpoint]) -> Callable[[], Awaitable[None]]:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(protocol, HERE)
        announce(transport.get_extra_info("sockname")[1])
        await loop.create_future()

    return serve


def stdlib_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(HERE)
    announce(sock.getsockname()[1])
    return sock


def count_in_stdlib() -> None:
    sock, count = stdlib_socket(), 0
    while True:
        data, address = sock.recvfrom(2048)
        count += 1
        if len(data) == 1:
            sock.sendto(b"%d" % count, address)


def echo_in_stdlib() -> None:
    sock = stdlib_socket()
    while True:
        sock.sendto(*sock.recvfrom(2048))


KINDS: dict[str, dict[str, Callable[[], Awaitable[None]]]] = {
    "count": {
        "aiosock many": count_many,
        "aiosock single": count_single,
        "protocol": serving(Count),
    },
    "echo": {
        "aiosock many": echo_many,
        "aiosock single": echo_single,
        "protocol": serving(Echo),
    },
}
LOOPS = ("uvloop", "asyncio")
SERVERS: dict[str, dict[str, Callable[[], None]]] = {
    task: {f"{kind} on {loop}": on(loop, serve) for loop in LOOPS for kind, serve in kinds.items()}
    for task, kinds in KINDS.items()
}
SERVERS["count"]["stdlib"] = count_in_stdlib
SERVERS["echo"]["stdlib"] = echo_in_stdlib


# --- the load ----------------------------------------------------------------------------


def client(port: int) -> socket.socket:
    """One send of it is many datagrams."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(0.5)
    return sock


def count_of(sock: socket.socket) -> int:
    """What the server has had; the question may be lost like any other datagram."""
    while True:
        sock.send(QUESTION)
        with suppress(TimeoutError):
            return int(sock.recv(20))


def flooded(sock: socket.socket, seconds: float) -> int:
    """How many the server takes of more than it can."""
    before, message, end = count_of(sock), bytes(SIZE * MANY), time.perf_counter() + seconds
    while time.perf_counter() < end:
        sock.send(message)
    return count_of(sock) - before


def echoed(sock: socket.socket, seconds: float, window: int) -> int:
    """How many come back, when so many are on their way together."""
    back, message, buffer = 0, bytes(SIZE * window), bytearray(SIZE)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sock.send(message)
        with suppress(TimeoutError):  # one was lost
            for _ in range(window):
                sock.recv_into(buffer)
                back += 1
    return back


Load = Callable[[socket.socket, float], int]
WORKS: dict[str, tuple[str, Load]] = {
    "received": ("count", flooded),
    "echo": ("echo", lambda sock, seconds: echoed(sock, seconds, MANY)),
    "trips": ("echo", lambda sock, seconds: echoed(sock, seconds, 1)),
}


def rate(server: Server, load: Load, seconds: float) -> float:
    """Datagrams for each second of the server's CPU."""
    clock = ~server.process.pid << 3 | 2  # clock_getcpuclockid(3), which Python lacks
    with client(server.port) as sock:
        start = time.clock_gettime(clock)
        return load(sock, seconds) / (time.clock_gettime(clock) - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="UDP datagrams, many a call and one a call")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each server in a round")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers, by part of the name")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        task, name = options.serve
        return SERVERS[task][name]()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    wanted = options.only or [""]
    print(f"Python {platform.python_version()}, {SIZE} bytes, {options.rounds} rounds")
    for work in options.work:
        task, load = WORKS[work]
        names = [n for n in SERVERS[task] if installed(n) and any(part in n for part in wanted)]
        servers = {name: Server(task, name, program=__file__) for name in names}
        take = partial(rate, load=load, seconds=options.seconds)
        print(f"{work}:")
        report(measure(servers, take, options.rounds), "datagrams/s of CPU")
    return None


if __name__ == "__main__":
    main()
