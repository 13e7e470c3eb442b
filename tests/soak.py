"""All kinds of load at once, for as long as one likes; nothing may grow meanwhile.

    python tests/soak.py --hours 1

test_resources.py runs it for a few seconds.  It needs what the tests need, and no network.
Every kind of load is a function that does one thing and leaves nothing; each is done again
and again, several at a time, by tasks on one loop and by threads beside it.  Descriptors
and memory are looked at when all are between two things: at the start, when everything has
been done a few times, and at the end.
"""

import argparse
import asyncio
import gc
import random
import resource
import socket as _stdlib
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from faces import open_descriptors
from secured import HOST, serving, trusting

import aiosock
import aiosock_sync

Address = Any
PAGE = resource.getpagesize()
ARENAS = 8 * 2**20  # bytes that an allocator may keep for itself
A_FEW = 200  # objects, which caches hold


@dataclass
class Size:
    """What this process has."""

    descriptors: int
    objects: int
    memory: int

    @classmethod
    def now(cls) -> Self:
        gc.collect()
        with open("/proc/self/statm") as told:
            memory = int(told.read().split()[1]) * PAGE
        return cls(open_descriptors(queues=True), len(gc.get_objects()), memory)

    def must_not_exceed(self, before: Self) -> None:
        assert self.descriptors <= before.descriptors, (before, self)
        assert self.objects <= before.objects + A_FEW, (before, self)
        assert self.memory <= before.memory + ARENAS, (before, self)


async def echo(conn: Any, peer: Address) -> None:
    while data := await conn.recv(2**16):
        await conn.sendall(data)


# --- what tasks do ----------------------------------------------------------------------------


class Load:
    """What there is to talk to, and one thing to do after the other."""

    def __init__(self, plain: Address, secret: Address, seed: int) -> None:
        self.plain, self.secret, self.chance = plain, secret, random.Random(seed)
        self.client = trusting()
        self.done: Counter[str] = Counter()

    async def stream(self) -> None:
        async with aiosock.create_connection(self.plain) as sock:
            for _ in range(5):
                data = self.chance.randbytes(self.chance.choice([1, 1000, 100_000]))
                _, got = await asyncio.gather(sock.sendall(data), received(sock, len(data)))
                assert got == data

    async def tls(self) -> None:
        async with aiosock.create_connection(
            self.secret, ssl=self.client, server_hostname=HOST
        ) as sock:
            data = self.chance.randbytes(self.chance.choice([1, 40_000]))
            await sock.sendall(data)
            assert await received(sock, len(data)) == data

    async def lines(self) -> None:
        async with aiosock.create_connection(self.plain) as sock, sock.makefile("rw") as file:
            for number in range(10):
                await file.write(f"line {number}\n")
                await file.flush()
                assert await file.readline() == f"line {number}\n"

    async def datagrams(self) -> None:
        with aiosock.socket(type=_stdlib.SOCK_DGRAM) as one:
            await one.bind(("127.0.0.1", 0))
            messages = [(b"%d" % number, one.getsockname()) for number in range(20)]
            await one.send_many(messages)
            got: list[Any] = []
            while len(got) < len(messages):
                got += await one.recv_many(100)
            assert [data for data, _ in got] == [data for data, _ in messages]

    async def cancellation(self) -> None:
        async with aiosock.create_connection(self.plain) as sock:
            task = asyncio.create_task(sock.recv(10))
            await asyncio.sleep(self.chance.choice([0, 0.001]))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await sock.sendall(b"kept")
            assert await received(sock, 4) == b"kept"

    async def timeout(self) -> None:
        async with aiosock.create_connection(self.plain) as sock:
            sock.settimeout(0.002)
            with suppress(TimeoutError):
                await sock.recv(1)
            sock.settimeout(30)
            await sock.sendall(b"late")
            assert await received(sock, 4) == b"late"

    async def server(self) -> None:
        async with (
            aiosock.serve(echo, ("127.0.0.1", 0)) as server,
            aiosock.create_connection(server.sockets[0].getsockname()) as sock,
        ):
            await sock.sendall(b"x")
            assert await sock.recv(1) == b"x"

    async def lookup(self) -> None:
        assert await aiosock.getservbyname("http") == 80

    def kinds(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.stream,
            self.tls,
            self.lines,
            self.datagrams,
            self.cancellation,
            self.timeout,
            self.server,
            self.lookup,
        ]

    async def go_on(self, until: float) -> None:
        kinds = self.kinds()
        while time.monotonic() < until:
            kind = self.chance.choice(kinds)
            await kind()
            self.done[kind.__name__] += 1

    # --- what threads do ----------------------------------------------------------------------

    def block(self, until: float) -> None:
        """Also makes the loop of a thread, each time."""
        while time.monotonic() < until:
            thread = threading.Thread(target=self.converse)
            thread.start()
            thread.join()

    def converse(self) -> None:
        tls = {"ssl": self.client, "server_hostname": HOST}
        talks: list[tuple[Address, Any]] = [(self.plain, {}), (self.secret, tls)]
        for address, how in talks:
            sock: aiosock_sync.socket
            with aiosock_sync.create_connection(address, **how) as sock:
                sock.settimeout(0.002)
                with suppress(TimeoutError):
                    sock.recv(1)
                with aiosock_sync.fail_after(30):
                    sock.settimeout(None)
                    sock.sendall(b"a line\n")
                    with sock.makefile("rb") as file:
                        assert file.readline() == b"a line\n"
        self.done["a thread"] += 1


async def received(sock: Any, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = await sock.recv(size - len(got))
        assert data
        got += data
    return got


async def size() -> Size:
    """When what has ended is gone."""
    for _ in range(3):
        await asyncio.sleep(0.02)
        gc.collect()
    return Size.now()


async def mix(seconds: float, seed: int, at_once: int = 8) -> Counter[str]:
    """How many things of each kind were done; AssertionError if something has grown."""
    context = serving()
    async with (
        aiosock.serve(echo, ("127.0.0.1", 0)) as plain,
        aiosock.serve(echo, ("127.0.0.1", 0), ssl=context) as secret,
    ):
        load = Load(plain.sockets[0].getsockname(), secret.sockets[0].getsockname(), seed)

        async def go_on(seconds: float) -> None:
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(load.go_on(until))
                group.create_task(asyncio.to_thread(load.block, until))

        await go_on(min(seconds / 2, 60))
        before = await size()
        await go_on(max(seconds / 2, seconds - 60))
        (await size()).must_not_exceed(before)
        assert not plain.failed
        assert not secret.failed
    return load.done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    done = aiosock.run(mix(asked.hours * 3600, asked.seed))
    print(*(f"{count:9} {kind}" for kind, count in sorted(done.items())), sep="\n")
    print(Size.now())


if __name__ == "__main__":
    main()
