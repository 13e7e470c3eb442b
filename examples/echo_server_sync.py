"""An echo server for many clients at once, with threads: sends back whatever it receives.

    python examples/echo_server_sync.py [host] [port]

Each client has a thread of its own, so a slow one or a silent one holds up nobody, and one
that resets its connection ends its own thread alone.  It serves this machine only unless
another host is given; port 0 takes a free one.  Ctrl-C stops it: nobody is accepted any more,
and who has not gone after a second is cut off, which wakes the thread that waits there.
"""

import argparse
import logging
import sys
from contextlib import suppress
from typing import Any

import aiosock_sync as socket


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server for many clients at once.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("aiosock").setLevel(logging.DEBUG)  # which tells who is gone, and why
    with socket.serve(echo, (args.host, args.port), grace_period=1) as server:
        print("listening on", server.sockets[0].getsockname(), flush=True)
        server.serve_forever()


def echo(conn: socket.socket, peer: Any) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
