"""An echo server for many clients at once: sends back whatever it receives.

    python examples/echo_server.py [host] [port]

Each client has a task of its own, so a slow one or a silent one holds up nobody, and one
that resets its connection ends its own task alone.  It serves this machine only unless
another host is given; port 0 takes a free one.  Ctrl-C stops it: nobody is accepted any more,
and who has not gone after a second is cut off.
"""

import argparse
import logging
import sys
from contextlib import suppress
from typing import Any

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server for many clients at once.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("aiosock").setLevel(logging.DEBUG)  # which tells who is gone, and why
    async with aiosock.serve(echo, (args.host, args.port), grace_period=1) as server:
        print("listening on", server.sockets[0].getsockname(), flush=True)
        await server.serve_forever()


async def echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
