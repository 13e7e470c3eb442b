"""An echo server for many clients at once: sends back whatever it receives.

    python examples/echo_server.py [host] [port]

Each client has a task of its own, so a slow one or a silent one holds up nobody, and one
that resets its connection ends its own task alone.  It serves this machine only unless
another host is given; port 0 takes a free one.  Ctrl-C stops it.
"""

import argparse
import asyncio
from contextlib import suppress
from typing import Any

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server for many clients at once.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    args = parser.parse_args()
    found = await aiosock.getaddrinfo(
        args.host, args.port, type=aiosock.SOCK_STREAM, flags=aiosock.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    async with aiosock.create_server(address, family=family) as server:
        print("listening on", server.getsockname(), flush=True)
        await serve(server)


async def serve(server: aiosock.socket) -> None:
    clients = set[asyncio.Task[None]]()  # the loop itself does not keep a task alive
    while True:
        try:
            conn, peer = await server.accept()
        except OSError as error:  # no descriptor left: who knocks now waits in the queue
            print("cannot accept:", error, flush=True)
            await asyncio.sleep(0.1)
            continue
        client = asyncio.create_task(echo(conn, peer))
        clients.add(client)
        client.add_done_callback(clients.discard)


async def echo(conn: aiosock.socket, peer: Any) -> None:
    with conn:
        try:
            while data := await conn.recv(65536):
                await conn.sendall(data)
        except OSError as error:
            print(peer, "is gone:", error, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
