"""Sends a message to an echo server and prints what comes back.

    python examples/echo_client.py [host] [port] [message]

It sends and receives at the same time: two tasks may use one socket.  So a message of
any length passes, also one that fills every buffer on its way before it has left.
"""

import argparse
import asyncio

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="Sends a message to an echo server.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("message", nargs="?", default="Hello, world")
    args = parser.parse_args()
    async with aiosock.create_connection((args.host, args.port)) as sock:
        echo, _ = await asyncio.gather(receive(sock), send(sock, args.message.encode()))
    print(echo.decode())


async def send(sock: aiosock.socket, message: bytes) -> None:
    await sock.sendall(message)
    sock.shutdown(aiosock.SHUT_WR)  # that was all


async def receive(sock: aiosock.socket) -> bytes:
    pieces = []
    while data := await sock.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


if __name__ == "__main__":
    aiosock.run(main())
