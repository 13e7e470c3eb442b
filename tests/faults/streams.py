"""A proxy of TCP that delays, slices, stalls and cuts what goes through it, as a seed says.

Each direction has a `Way`.  A cut comes when all before it is in the other end's hands, so
that a test can say to the byte what must have been seen.  A reset is a reset for both ends,
as when the machine between them dies; a half close ends one direction only, and what is sent
behind it is taken and thrown away.
"""

import array
import asyncio
import fcntl
import random
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from .thread import Apart

__all__ = ["Proxy", "Way", "full_backlog"]

ANY = ("127.0.0.1", 0)
AT_ONCE = struct.pack("ii", 1, 0)  # lingering for no time: closing resets
ROOM = 32768  # bytes of the kernel's buffers, so that a stall is soon felt
TICK = 0.001  # seconds between looks at what the kernel does not tell


@dataclass(frozen=True)
class Way:
    """What happens to the bytes of one direction."""

    slices: tuple[int, int] = (ROOM, ROOM)  # bytes that go on at once, at least and at most
    latency: float = 0.0  # seconds before each slice
    jitter: float = 0.0  # and at most so many more
    bandwidth: float = inf  # bytes a second
    stalls_at: int | None = None  # behind so many bytes nothing moves until `go_on`
    ends_at: int | None = None  # behind so many bytes all is over, or behind the last one
    end: Literal["half close", "reset"] = "half close"

    def size(self, dice: random.Random, passed: int) -> int:
        """Of the next slice, which goes no further than the next thing that happens."""
        ahead = [at - passed for at in (self.stalls_at, self.ends_at) if at is not None]
        return min([dice.randint(*self.slices), *(way for way in ahead if way > 0)])

    def delay(self, dice: random.Random, size: int) -> float:
        return self.latency + dice.uniform(0, self.jitter) + size / self.bandwidth


class Proxy(Apart):
    """Stands between clients and the `target`; clients connect to `address`."""

    def __init__(
        self,
        target: Any,
        up: Way | None = None,
        down: Way | None = None,
        seed: int = 0,
        accepts: bool = True,
    ) -> None:
        self._target, self._up, self._down = target, up or Way(), down or Way()
        self._dice = random.Random(seed)
        self._listener = small(socket.socket())
        self._listener.bind(ANY)
        self._listener.listen()
        self.address = self._listener.getsockname()
        self._accepting, self._moving = asyncio.Event(), asyncio.Event()
        if accepts:
            self._accepting.set()

    def accept(self) -> None:
        """Accept connections from now on."""
        self.do(self._accepting.set)

    def go_on(self) -> None:
        """End the stall."""
        self.do(self._moving.set)

    async def serve(self) -> None:
        with self._listener:
            await self._accepting.wait()
            async with asyncio.TaskGroup() as group:
                while True:
                    client, _ = await self.loop.sock_accept(self._listener)
                    group.create_task(self._connection(client))

    async def _connection(self, client: socket.socket) -> None:
        server = small(socket.socket())
        with client, server:
            server.setblocking(False)
            await self.loop.sock_connect(server, self._target)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(client, server, self._up))
                    group.create_task(self._pass(server, client, self._down))
            except* OSError:  # our own reset, or that of one end: the other hears of it
                for sock in (client, server):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)

    async def _pass(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        passed, dice = 0, random.Random(self._dice.random())
        while True:
            if passed == way.stalls_at:
                await self._moving.wait()
            if passed == way.ends_at:
                break
            if not (data := await self.loop.sock_recv(source, way.size(dice, passed))):
                break
            if delay := way.delay(dice, len(data)):
                await asyncio.sleep(delay)
            await self.loop.sock_sendall(sink, data)
            passed += len(data)
        await arrived(sink)
        if way.end == "reset":
            raise ConnectionResetError
        sink.shutdown(socket.SHUT_WR)
        while await self.loop.sock_recv(source, ROOM):
            pass


def small(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, ROOM)
    sock.setblocking(False)
    return sock


async def arrived(sink: socket.socket) -> None:
    """Until the other end has acknowledged everything: a reset would throw the rest away."""
    unsent = array.array("i", [1])
    while unsent[0]:
        fcntl.ioctl(sink, termios.TIOCOUTQ, unsent)
        if unsent[0]:
            await asyncio.sleep(TICK)


@contextmanager
def full_backlog(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A listener in whose queue there is no room, until somebody accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(ANY if family == socket.AF_INET else "")
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(listener.getsockname())
        listener.setblocking(False)
        yield listener
