"""UDP datagrams of 100 bytes: one way, echo of 64 at once, and echo of one at a time.

The load is Python too, but has the kernel cut what it sends into datagrams (UDP_SEGMENT), which
makes it several times as fast as any server here.

- received: the load sends without end, more than anybody takes; what a server has counted
  is what it could take, the rest is lost;
- echo of 64: so many come at once, go back, and the next come when all are back;
- echo of one: the same, where there is nothing to gain from many a call.

"many" is `recv_many` and `send_many`, "single" is `recvfrom` and `sendto`, "protocol" is a class
given to the loop's ``create_datagram_endpoint``.  All is counted for each second of the server's
CPU: by the clock a server that waits for the load would look as slow as the load.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import aiosock
import aiosock_sync

from ._programs import LOADING, Server, announce, calling
from ._rounds import Case, Plan, Rates, Take, beside
from .peers import HERE, on_loop_of

SIZE, MANY, ROOM = 100, 64, 2048
UDP_SEGMENT = 103  # Linux's; Python has no name for it
QUESTION = b"?"  # how many have you had?
LOOPS = ("uvloop", "asyncio")


def cases(plan: Plan) -> Iterator[Case]:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {LOADING})
    for name, (task, load) in WORKS.items():
        with ExitStack() as stack:
            servers = {
                subject: stack.enter_context(Server(*calling(serve, subject, task)))
                for subject in subjects(plan)
            }
            for server in servers.values():
                server.started()
            takes = {subject: taking(s, load, plan.seconds) for subject, s in servers.items()}
            singly = [(n, n.replace("many", "single")) for n in takes if "many" in n]
            pairs = beside(takes) + [pair for pair in singly if pair[1] in takes]
            yield Case(name, takes, pairs=pairs)


def subjects(plan: Plan) -> list[str]:
    found = []
    for kind in KINDS:
        for subject in [f"{kind} on {loop}" for loop in LOOPS] if kind in ON_LOOPS else [kind]:
            needs = [name for name in ("uvloop", *NEEDS) if name in subject]
            missing = [name for name in needs if find_spec(name) is None]
            if not plan.wants(subject) or subject == "sock_* on uvloop":  # which has none of these
                continue
            if missing:
                plan.leave_out(subject, f"{missing[0]} is not installed")
            else:
                found.append(subject)
    return found


# --- the servers: each says its port, then counts or echoes until it is killed -----------

Answered = bytes | None


class Tally:
    """What is done with a datagram: the bytes that go back, if any do."""

    def __init__(self) -> None:
        self.had = 0

    def count(self, data: bytes) -> Answered:
        self.had += 1
        return b"%d" % self.had if len(data) == 1 else None

    def echo(self, data: bytes) -> Answered:
        return data


Act = Callable[[bytes], Answered]


async def many_by_aiosock(act: Act) -> None:
    sock = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM)
    await sock.bind(HERE)
    announce(sock.getsockname()[1])
    while True:
        came = await sock.recv_many(MANY)
        answers = [(back, peer) for data, peer in came if (back := act(data)) is not None]
        if answers:
            await sock.send_many(answers)


async def single_by_aiosock(act: Act) -> None:
    sock = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM)
    await sock.bind(HERE)
    announce(sock.getsockname()[1])
    while True:
        data, peer = await sock.recvfrom(ROOM)
        if (back := act(data)) is not None:
            await sock.sendto(back, peer)


async def by_sock_calls(act: Act) -> None:
    loop, sock = asyncio.get_running_loop(), bound(socket)
    sock.setblocking(False)
    while True:
        data, peer = await loop.sock_recvfrom(sock, ROOM)
        if (back := act(data)) is not None:
            await loop.sock_sendto(sock, back, peer)


class Endpoint(asyncio.DatagramProtocol):
    def __init__(self, act: Act) -> None:
        self.act = act

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if (back := self.act(data)) is not None:
            self.transport.sendto(back, addr)


async def by_protocol(act: Act) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Endpoint(act), HERE)
    announce(transport.get_extra_info("sockname")[1])
    await loop.create_future()


async def by_anyio(act: Act) -> None:
    anyio: Any = import_module("anyio")
    async with await anyio.create_udp_socket(local_host=HERE[0]) as sock:
        announce(sock.extra(anyio.abc.SocketAttribute.local_port))
        async for data, peer in sock:
            if (back := act(data)) is not None:
                await sock.sendto(back, *peer)


async def by_trio(act: Act) -> None:
    trio: Any = import_module("trio")
    sock = trio.socket.from_stdlib_socket(bound(socket))
    while True:
        data, peer = await sock.recvfrom(ROOM)
        if (back := act(data)) is not None:
            await sock.sendto(back, peer)


async def by_curio(act: Act) -> None:
    sock = import_module("curio.io").Socket(bound(socket))
    while True:
        data, peer = await sock.recvfrom(ROOM)
        if (back := act(data)) is not None:
            await sock.sendto(back, peer)


def bound(module: Any) -> Any:
    sock = module.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(HERE)
    announce(sock.getsockname()[1])
    return sock


def by_blocking(sock: Any, act: Act) -> None:
    while True:
        data, peer = sock.recvfrom(ROOM)
        if (back := act(data)) is not None:
            sock.sendto(back, peer)


ON_LOOPS: dict[str, Callable[[Act], Any]] = {
    "aiosock many": many_by_aiosock,
    "aiosock single": single_by_aiosock,
    "protocol": by_protocol,
    "sock_*": by_sock_calls,
    "anyio": by_anyio,
}
NEEDS = ("anyio", "trio", "curio", "gevent")
KINDS = (*ON_LOOPS, "aiosock_sync", "trio", "curio", "gevent", "stdlib")


def serve(subject: str, task: str) -> None:
    act: Act = getattr(Tally(), task)
    kind = subject.partition(" on ")[0]
    if kind in ON_LOOPS:
        on_loop_of(subject, lambda: ON_LOOPS[kind](act))
    elif kind == "trio":
        import_module("trio").run(by_trio, act)
    elif kind == "curio":
        import_module("curio").run(by_curio, act)
    elif kind == "gevent":
        by_blocking(bound(import_module("gevent.socket")), act)
    else:
        by_blocking(bound(aiosock_sync if kind == "aiosock_sync" else socket), act)


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
    while time.perf_counter() < end or not back:
        sock.send(message)
        with suppress(TimeoutError):  # one was lost
            for _ in range(window):
                sock.recv_into(buffer)
                back += 1
    return back


Load = Callable[[socket.socket, float], int]
WORKS: dict[str, tuple[str, Load]] = {
    "received": ("count", flooded),
    "echo of 64": ("echo", partial(echoed, window=MANY)),
    "echo of one": ("echo", partial(echoed, window=1)),
}


def taking(server: Server, load: Load, seconds: float) -> Take:
    def take() -> Rates:
        with client(server.port) as sock:
            start = server.cpu()
            done = load(sock, seconds)
            return {"datagrams/s of its CPU": done / server.cpu_since(start)}

    return take
