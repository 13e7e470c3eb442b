"""Sends a message to an echo server and prints what comes back; it blocks, and knows no await.

    python examples/echo_client_sync.py [host] [port] [message]

It sends and receives at the same time: two threads may use one socket.  So a message of
any length passes, also one that fills every buffer on its way before it has left.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

import aiosock_sync as socket


def main() -> None:
    parser = argparse.ArgumentParser(description="Sends a message to an echo server.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("message", nargs="?", default="Hello, world")
    args = parser.parse_args()
    # Whatever happens, the socket is closed first: that ends a send that still waits.
    with ThreadPoolExecutor() as pool, socket.create_connection((args.host, args.port)) as sock:
        sending = pool.submit(send, sock, args.message.encode())
        echo = receive(sock)
        sending.result()
    print(echo.decode())


def send(sock: socket.socket, message: bytes) -> None:
    sock.sendall(message)
    sock.shutdown(socket.SHUT_WR)  # that was all


def receive(sock: socket.socket) -> bytes:
    pieces = []
    while data := sock.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


if __name__ == "__main__":
    main()
