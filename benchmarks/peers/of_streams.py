"""asyncio's streams."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Any

from .._programs import announce
from . import BATCH, BUFFER, HERE, LINES, LONG, PIECE, SIZE, on_loop_of


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(SIZE):
        writer.write(data)
        await writer.drain()


async def within(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        async with asyncio.timeout(LONG):
            data = await reader.read(SIZE)
        if not data:
            return
        async with asyncio.timeout(LONG):
            writer.write(data)
            await writer.drain()


async def once(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(await reader.read(SIZE))
    await writer.drain()


async def receive(reader: StreamReader, writer: StreamWriter) -> None:
    missing = BATCH
    while data := await reader.read(BUFFER):
        missing -= len(data)
        if not missing:
            writer.write(b"x")
            missing = BATCH


async def send(reader: StreamReader, writer: StreamWriter) -> None:
    while await reader.read(1):
        for _ in range(BATCH // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()


async def lines(reader: StreamReader, writer: StreamWriter) -> None:
    while not reader.at_eof():
        for _ in range(LINES):
            await reader.readline()
        writer.write(b"x")


WORKS = {f.__name__: f for f in (echo, within, once, receive, send, lines)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            await handler(reader, writer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, *HERE, ssl=context)
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    on_loop_of(subject, main)
