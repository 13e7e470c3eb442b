"""aiosock: the stdlib's calls with `await`."""

import ssl
from typing import Any

import aiosock

from .._programs import announce
from . import BATCH, BUFFER, HERE, LINES, LONG, PIECE, SIZE, on_loop_of


async def echo(conn: aiosock.socket) -> None:
    while data := await conn.recv(SIZE):
        await conn.sendall(data)


async def within(conn: aiosock.socket) -> None:
    conn.settimeout(LONG)
    await echo(conn)


async def once(conn: aiosock.socket) -> None:
    await conn.sendall(await conn.recv(SIZE))


async def receive(conn: aiosock.socket) -> None:
    buffer, missing = bytearray(BUFFER), BATCH
    while got := await conn.recv_into(buffer):
        missing -= got
        if not missing:
            await conn.sendall(b"x")
            missing = BATCH


async def send(conn: aiosock.socket) -> None:
    while await conn.recv(1):
        for _ in range(BATCH // len(PIECE)):
            await conn.sendall(PIECE)


async def lines(conn: aiosock.socket) -> None:
    async with conn.makefile("rb") as file:
        while True:
            for _ in range(LINES):
                await file.readline()
            await conn.sendall(b"x")


WORKS = {f.__name__: f for f in (echo, within, once, receive, send, lines)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    async def handle(conn: aiosock.socket, peer: object) -> None:
        conn.setsockopt(aiosock.IPPROTO_TCP, aiosock.TCP_NODELAY, 1)
        await handler(conn)

    async def main() -> None:
        async with aiosock.serve(handle, HERE, ssl=context) as server:
            announce(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    on_loop_of(subject, main)
