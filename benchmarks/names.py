"""Connections made to a name, localhost, and to its address, one after the other.

The clients are measured, by what each has for it (create_connection, open_connection, ...);
they close with a reset, which leaves nothing behind.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import aiosock
import aiosock_sync

from ._load import RESET
from ._programs import answer, calling, repeated, repeatedly
from ._rounds import Case, Plan
from .peers import BLOCKING, answer_on

HOSTS = {"localhost": "localhost", "its address": "127.0.0.1"}


def cases(plan: Plan) -> Iterator[Case]:
    names = [name for name in plan.peers() if name.partition(" on ")[0] in WAYS]
    with plan.counterpart() as server:
        for label, host in HOSTS.items():
            commands = {name: calling(client, name, host, server.port) for name in names}
            with plan.workers(commands) as workers:
                yield Case(f"to {label}", plan.rates(workers, "connections"))


# --- the clients, each in a program of its own -------------------------------------------


def resets(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def by_aiosock(host: str, port: int) -> None:
    async with aiosock.create_connection((host, port)) as sock:
        resets(sock)


async def by_streams(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    resets(writer.get_extra_info("socket"))
    writer.close()
    await writer.wait_closed()


async def by_protocol(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
    resets(transport.get_extra_info("socket"))
    transport.close()
    await asyncio.sleep(0)  # in which it closes


async def by_anyio(host: str, port: int) -> None:
    anyio: Any = import_module("anyio")
    async with await anyio.connect_tcp(host, port) as stream:
        resets(stream.extra(anyio.abc.SocketAttribute.raw_socket))


async def by_trio(host: str, port: int) -> None:
    async with await import_module("trio").open_tcp_stream(host, port) as stream:
        resets(stream.socket)


async def by_curio(host: str, port: int) -> None:
    async with await import_module("curio").open_connection(host, port) as sock:
        with sock.blocking() as real:
            resets(real)


def by_aiosock_sync(host: str, port: int) -> None:
    with aiosock_sync.create_connection((host, port)) as sock:
        resets(sock)


def by_stdlib(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as sock:
        resets(sock)


def by_gevent(host: str, port: int) -> None:
    with import_module("gevent.socket").create_connection((host, port)) as sock:
        resets(sock)


WAYS: dict[str, Callable[[str, int], Any]] = {
    "aiosock": by_aiosock,
    "streams": by_streams,
    "protocol": by_protocol,
    "anyio": by_anyio,
    "trio": by_trio,
    "curio": by_curio,
    "aiosock_sync": by_aiosock_sync,
    "stdlib threads": by_stdlib,
    "gevent": by_gevent,
}


def client(subject: str, host: str, port: str) -> None:
    way = WAYS[subject.partition(" on ")[0]]
    act = lambda: way(host, int(port))  # noqa: E731  # a name for it would say no more
    if subject in BLOCKING:
        answer(lambda seconds: repeated(act, seconds))
    else:
        answer_on(subject, lambda seconds: repeatedly(act, seconds))
