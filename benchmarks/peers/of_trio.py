"""trio's streams."""

import ssl
from typing import Any

import trio

from .._programs import announce
from . import BATCH, BUFFER, HERE, LONG, PIECE, SIZE


async def echo(stream: Any) -> None:
    while data := await stream.receive_some(SIZE):
        await stream.send_all(data)


async def within(stream: Any) -> None:
    while True:
        with trio.fail_after(LONG):
            data = await stream.receive_some(SIZE)
        if not data:
            return
        with trio.fail_after(LONG):
            await stream.send_all(data)


async def once(stream: Any) -> None:
    await stream.send_all(await stream.receive_some(SIZE))


async def receive(stream: Any) -> None:
    missing = BATCH
    while data := await stream.receive_some(BUFFER):
        missing -= len(data)
        if not missing:
            await stream.send_all(b"x")
            missing = BATCH


async def send(stream: Any) -> None:
    while await stream.receive_some(1):
        for _ in range(BATCH // len(PIECE)):
            await stream.send_all(PIECE)


WORKS = {f.__name__: f for f in (echo, within, once, receive, send)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    async def handle(stream: Any) -> None:
        try:
            async with stream:
                await handler(stream)
        except trio.BrokenResourceError:
            pass

    async def main() -> None:
        host, port = HERE
        if context is None:
            listeners: Any = await trio.open_tcp_listeners(port, host=host)
            announce(listeners[0].socket.getsockname()[1])
        else:
            listeners = await trio.open_ssl_over_tcp_listeners(
                port, context, host=host, https_compatible=True
            )
            announce(listeners[0].transport_listener.socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    trio.run(main)
