"""An echo server that a newer one relieves without a client's notice.

    python examples/handover_server.py [host] [port] --control PATH

Start it again with the same PATH, and the new process takes the place of the old one: over an
AF_UNIX socket at PATH it is given the listening socket itself.  As soon as it accepts, the old
one accepts no more, lets its clients finish, for ten seconds at most, and ends.  So nobody is
refused, and no connection is lost; host and port count for the first start alone.

PATH should be in a directory of your own: who can connect to it can relieve the server.  It
serves this machine only unless another host is given; port 0 takes a free one.  SIGTERM or
Ctrl-C stops it.
"""

import argparse
import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server that a newer one relieves.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("--control", required=True, metavar="PATH", help="of an AF_UNIX socket")
    args = parser.parse_args()
    with aiosock.socket(aiosock.AF_UNIX) as old:
        try:
            await old.connect(args.control)
        except (FileNotFoundError, ConnectionRefusedError):
            async with aiosock.create_server((args.host, args.port)) as listener:
                await serve(listener, await listen_for_successors(args.control), None)
        else:
            _, fds, _, _ = await aiosock.recv_fds(old, 1, 2)
            listener, control = (aiosock.socket(fileno=fd) for fd in fds)
            with listener:
                await serve(listener, control, old)


async def listen_for_successors(path: str) -> aiosock.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a server that runs no more
    before = os.umask(0o177)  # for nobody else
    try:
        return await aiosock.create_server(path, family=aiosock.AF_UNIX)
    finally:
        os.umask(before)


async def serve(
    listener: aiosock.socket, control: aiosock.socket, old: aiosock.socket | None
) -> None:
    async def hand_over(conn: aiosock.socket, peer: Any) -> None:
        await aiosock.send_fds(conn, [b"!"], [listener.fileno(), control.fileno()])
        if await conn.recv(1):  # the successor accepts; one that fails before says nothing
            server.close()

    async with (
        control,
        aiosock.serve(echo, listener) as server,
        aiosock.serve(hand_over, control),
    ):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.close)
        if old is not None:
            await old.sendall(b"!")
        print("process", os.getpid(), "listens on", listener.getsockname(), flush=True)
        await server.serve_forever()
        listener.close()  # before the clients finish: the successor has its own


async def echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


if __name__ == "__main__":
    aiosock.run(main())
