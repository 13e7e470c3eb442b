"""An echo server over TLS for many clients at once: sends back whatever it receives.

    python examples/tls_echo_server.py [host] [port] --certificate FILE

FILE is in PEM form and holds the key and the chain of certificates.  Each client has a task
of its own, which also makes its handshake: a client that stays silent, speaks no TLS or
resets its connection costs nobody else anything, and who has not shaken hands after ten
seconds is let go.  It serves this machine only unless another host is given; port 0 takes
a free one.  Ctrl-C stops it: nobody is accepted any more, and who has not gone after a second
is cut off.
"""

import argparse
import logging
import ssl
import sys
from contextlib import suppress
from typing import Any

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server over TLS for many clients.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("--certificate", required=True, metavar="FILE", help="key and chain, PEM")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("aiosock").setLevel(logging.DEBUG)  # which tells who is gone, and why
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate)
    address = (args.host, args.port)
    async with aiosock.serve(
        echo, address, ssl=context, ssl_handshake_timeout=10, grace_period=1
    ) as server:
        print("listening on", server.sockets[0].getsockname(), flush=True)
        await server.serve_forever()


async def echo(conn: aiosock.SSLSocket, peer: Any) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
