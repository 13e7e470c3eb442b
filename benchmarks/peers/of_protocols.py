"""Callbacks instead of tasks: a protocol class for each work."""

import asyncio
import ssl
from typing import Any

from .._programs import announce
from . import BATCH, HERE, PIECE, on_loop_of


class Talk(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport


class Echo(Talk):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Once(Talk):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class Receive(Talk):
    missing = BATCH

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(b"x")
            self.missing = BATCH


class Send(Talk):
    left, paused = 0, False

    def data_received(self, data: bytes) -> None:
        self.left = BATCH // len(PIECE)
        self.go_on()

    def go_on(self) -> None:
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(PIECE)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.go_on()


WORKS = {kind.__name__.lower(): kind for kind in (Echo, Once, Receive, Send)}


def run(handler: type[Talk], subject: str, context: ssl.SSLContext | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(handler, *HERE, ssl=context)
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    on_loop_of(subject, main)
