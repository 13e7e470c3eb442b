"""anyio's streams, on asyncio's loop or on uvloop."""

import ssl
from importlib import import_module
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener

from .._programs import announce
from . import BATCH, BUFFER, HERE, LINES, LONG, PIECE, SIZE, loop_of


async def echo(stream: ByteStream) -> None:
    while True:
        await stream.send(await stream.receive(SIZE))


async def within(stream: ByteStream) -> None:
    while True:
        with anyio.fail_after(LONG):
            data = await stream.receive(SIZE)
        with anyio.fail_after(LONG):
            await stream.send(data)


async def once(stream: ByteStream) -> None:
    await stream.send(await stream.receive(SIZE))


async def receive(stream: ByteStream) -> None:
    missing = BATCH
    while True:
        missing -= len(await stream.receive(BUFFER))
        if not missing:
            await stream.send(b"x")
            missing = BATCH


async def send(stream: ByteStream) -> None:
    while await stream.receive(1):
        for _ in range(BATCH // len(PIECE)):
            await stream.send(PIECE)


async def lines(stream: ByteStream) -> None:
    file = BufferedByteReceiveStream(stream)
    while True:
        for _ in range(LINES):
            await file.receive_until(b"\n", SIZE)
        await stream.send(b"x")


WORKS = {f.__name__: f for f in (echo, within, once, receive, send, lines)}
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead)


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    async def handle(stream: ByteStream) -> None:
        try:
            async with stream:
                await handler(stream)
        except GONE:
            pass

    async def main() -> None:
        listener: Any = await anyio.create_tcp_listener(local_host=HERE[0], backlog=128)
        announce(listener.extra(anyio.abc.SocketAttribute.local_port))
        if context is not None:
            listener = TLSListener(listener, context, standard_compatible=False)
        await listener.serve(handle)

    options = {}
    if loop_of(subject) == "uvloop":
        options["loop_factory"] = import_module("uvloop").new_event_loop
    anyio.run(main, backend_options=options)
