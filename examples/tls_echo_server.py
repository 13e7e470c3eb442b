"""An echo server over TLS for many clients at once: sends back whatever it receives.

    python examples/tls_echo_server.py [host] [port] --certificate FILE

FILE is in PEM form and holds the key and the chain of certificates.  Each client has a task
of its own, which also makes its handshake: a client that stays silent, speaks no TLS or
resets its connection costs nobody else anything, and who has not shaken hands after ten
seconds is let go.  It serves this machine only unless another host is given; port 0 takes
a free one.  Ctrl-C stops it.
"""

import argparse
import asyncio
import ssl
from contextlib import suppress
from typing import Any

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server over TLS for many clients.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("--certificate", required=True, metavar="FILE", help="key and chain, PEM")
    args = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate)
    found = await aiosock.getaddrinfo(
        args.host, args.port, type=aiosock.SOCK_STREAM, flags=aiosock.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    async with aiosock.create_server(address, family=family, ssl=context) as server:
        print("listening on", server.getsockname(), flush=True)
        await serve(server)


async def serve(server: aiosock.SSLListener) -> None:
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


async def echo(conn: aiosock.SSLSocket, peer: Any) -> None:
    with conn:
        try:
            conn.settimeout(10)
            await conn.do_handshake()
            conn.settimeout(None)
            while data := await conn.recv(65536):
                await conn.sendall(data)
        except OSError as error:  # an ssl.SSLError is one too
            print(peer, "is gone:", error, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
