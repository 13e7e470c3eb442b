"""A proxy of UDP that loses, doubles and reorders datagrams, as a seed says, and keeps a journal.

A datagram that is held back goes on behind a later one, or when the journal is asked for.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .thread import Apart

__all__ = ["PostOffice", "Service"]

LONGEST = 65535


@dataclass(frozen=True)
class Service:
    """How probable it is that a datagram is lost, doubled or held back, in each direction."""

    lost: float = 0.0
    doubled: float = 0.0
    held: float = 0.0


class Letters:
    """One direction: from the socket that takes them to the one that delivers them."""

    def __init__(
        self,
        takes: socket.socket,
        gives: socket.socket,
        service: Service,
        to: Callable[[], Any],
    ) -> None:
        self.takes, self._gives, self._service, self._to = takes, gives, service, to
        self.sender: Any = None
        self.taken = 0
        self.delivered = list[bytes]()
        self._held = list[bytes]()
        self._news = asyncio.Condition()

    async def take(self, dice: random.Random) -> None:
        """Have a datagram meet its fate."""
        loop, service = asyncio.get_running_loop(), self._service
        data, self.sender = await loop.sock_recvfrom(self.takes, LONGEST)
        copies = 0 if dice.random() < service.lost else 1 + (dice.random() < service.doubled)
        if dice.random() < service.held:
            self._held += [data] * copies
        else:
            for piece in [data] * copies + self._held:
                self._deliver(piece)
            self._held.clear()
        async with self._news:
            self.taken += 1
            self._news.notify_all()

    def _deliver(self, data: bytes) -> None:
        self._gives.sendto(data, self._to())
        self.delivered.append(data)

    async def journal(self, taken: int) -> list[bytes]:
        async with self._news:
            await self._news.wait_for(lambda: self.taken >= taken)
        for data in self._held:
            self._deliver(data)
        self._held.clear()
        return self.delivered


class PostOffice(Apart):
    """Stands between one client, who sends to `address`, and the `target`, who hears `sender`."""

    def __init__(self, target: Any, service: Service, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        counter, wire = datagrams(), datagrams()
        self.address, self.sender = counter.getsockname(), wire.getsockname()
        self._up = Letters(counter, wire, service, lambda: target)
        self._down = Letters(wire, counter, service, lambda: self._up.sender)

    async def serve(self) -> None:
        with self._up.takes, self._down.takes:
            await asyncio.gather(self._go(self._up), self._go(self._down))

    async def _go(self, letters: Letters) -> None:
        while True:
            await letters.take(self._dice)

    async def sent_up(self, taken: int) -> list[bytes]:
        """What was delivered to the target, when so many datagrams have come for it."""
        return await self.result(self._up.journal(taken))

    async def sent_down(self, taken: int) -> list[bytes]:
        """What was delivered to the client, when so many datagrams have come for it."""
        return await self.result(self._down.journal(taken))


def datagrams() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock
