"""Sends a message to an echo server over TLS and prints what comes back.

    python examples/tls_echo_client.py [host] [port] [message] --ca FILE

It talks to nobody whose certificate is not made out for the host, by an authority in FILE
or, without it, by one that this machine knows.  It sends and receives at the same time, so
a message of any length passes; and as TLS has no half-closed connections, it counts.
"""

import argparse
import asyncio
import ssl
import sys

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="Sends a message to an echo server over TLS.")
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("message", nargs="?", default="Hello, world")
    parser.add_argument("--ca", metavar="FILE", help="certificates of the authorities, PEM")
    args = parser.parse_args()
    message, context = args.message.encode(), ssl.create_default_context(cafile=args.ca)
    try:
        async with aiosock.create_connection((args.host, args.port), ssl=context) as sock:
            echo, _ = await asyncio.gather(receive(sock, len(message)), sock.sendall(message))
    except ssl.SSLCertVerificationError as error:
        sys.exit(f"{args.host} is not to be trusted: {error.verify_message}")
    print(echo.decode())


async def receive(sock: aiosock.SSLSocket, size: int) -> bytes:
    echo = bytearray()
    while len(echo) < size:
        data = await sock.recv(65536)
        if not data:
            raise ConnectionError(f"the server has ended after {len(echo)} of {size} bytes")
        echo += data
    return bytes(echo)


if __name__ == "__main__":
    aiosock.run(main())
