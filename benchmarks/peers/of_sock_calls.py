"""The loop's own calls for sockets: `sock_recv` and its like."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

from .._programs import announce
from . import BATCH, BUFFER, HERE, LONG, PIECE, SIZE, on_loop_of


async def echo(loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
    while data := await loop.sock_recv(conn, SIZE):
        await loop.sock_sendall(conn, data)


async def within(loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
    while True:
        async with asyncio.timeout(LONG):
            data = await loop.sock_recv(conn, SIZE)
        if not data:
            return
        async with asyncio.timeout(LONG):
            await loop.sock_sendall(conn, data)


async def once(loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
    await loop.sock_sendall(conn, await loop.sock_recv(conn, SIZE))


async def receive(loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
    buffer, missing = bytearray(BUFFER), BATCH
    while got := await loop.sock_recv_into(conn, buffer):
        missing -= got
        if not missing:
            await loop.sock_sendall(conn, b"x")
            missing = BATCH


async def send(loop: asyncio.AbstractEventLoop, conn: socket.socket) -> None:
    while await loop.sock_recv(conn, 1):
        for _ in range(BATCH // len(PIECE)):
            await loop.sock_sendall(conn, PIECE)


WORKS = {f.__name__: f for f in (echo, within, once, receive, send)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    assert context is None, "these calls know no TLS"

    async def main() -> None:
        loop, tasks = asyncio.get_running_loop(), set()

        async def handle(conn: socket.socket) -> None:
            with conn, suppress(ConnectionError):
                await handler(loop, conn)

        with socket.create_server(HERE, backlog=128) as listener:
            listener.setblocking(False)
            announce(listener.getsockname()[1])
            while True:
                conn, _ = await loop.sock_accept(listener)
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                task = asyncio.create_task(handle(conn))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    on_loop_of(subject, main)
