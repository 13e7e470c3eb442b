"""echo: a server that sends back what it hears.

Knows the public names of aiosock, and may be read as an example of `serve`.
"""

import argparse
import socket as _stdlib
from typing import Any

import aiosock

from . import security
from .endpoints import Endpoint, allow_family, listening_address, takes_both, written
from .netcat import bound, meant, tell_connection
from .words import tell

__all__ = ["echo"]

UNTIL = "; Ctrl-C ends it"


async def echo(options: argparse.Namespace) -> None:
    """The command: serves until it is interrupted."""
    place = meant(options)
    allow_family(options.family, place.host)
    if place.scheme == "udp":
        async with bound(place, options.family, UNTIL) as sock:
            await send_back(sock, options.verbose)
    else:
        await serve(place, options)


async def serve(place: Endpoint, options: argparse.Namespace) -> None:
    async def handle(conn: aiosock.socket, peer: Any) -> None:
        if options.verbose:
            tell_connection(place, conn, peer)
        while data := await conn.recv(2**16):
            await conn.sendall(data)

    context = security.as_server(options) if place.scheme == "tls" else None
    address = await listening_address(place, options.family, _stdlib.SOCK_STREAM)
    keywords: dict[str, Any] = {
        "ssl": context,
        "grace_period": 0,
        "dualstack_ipv6": takes_both(place, options.family),
    }
    async with aiosock.serve(handle, address, **keywords) as server:
        name = server.sockets[0].getsockname()
        tell(f"aiosock: listening at {written(place.scheme, name)}{UNTIL}")
        await server.serve_forever()


async def send_back(sock: aiosock.socket, is_verbose: bool) -> None:
    """Every datagram to whoever sent it."""
    while True:
        messages = await sock.recv_many(64)
        for data, peer in messages if is_verbose else ():
            tell(f"aiosock: {len(data)} bytes from {written('udp', peer)}")
        await sock.send_many(messages)
