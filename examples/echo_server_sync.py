"""An echo server for many clients at once, with threads: sends back whatever it receives.

    python examples/echo_server_sync.py [host] [port]

Each client has a thread of its own, so a slow one or a silent one holds up nobody, and one
that resets its connection ends its own thread alone.  It serves this machine only unless
another host is given; port 0 takes a free one.  Ctrl-C stops it: it closes every
connection, which wakes the thread that waits there; Python ends when the last has ended.
"""

import argparse
import errno
import time
from contextlib import suppress
from threading import Thread
from typing import Any

import aiosock_sync as socket


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server for many clients at once.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    args = parser.parse_args()
    found = socket.getaddrinfo(
        args.host, args.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    conns = set[socket.socket]()
    with socket.create_server(address, family=family) as server:
        print("listening on", server.getsockname(), flush=True)
        try:
            serve(server, conns)
        finally:
            for conn in list(conns):  # a copy: the threads take theirs out
                conn.close()


def serve(server: socket.socket, conns: set[socket.socket]) -> None:
    while True:
        try:
            conn, peer = server.accept()
        except OSError as error:  # no descriptor left: who knocks now waits in the queue
            print(f"cannot accept: {error}\n", end="", flush=True)
            time.sleep(0.1)
            continue
        conns.add(conn)
        Thread(target=echo, args=(conn, peer, conns)).start()


def echo(conn: socket.socket, peer: Any, conns: set[socket.socket]) -> None:
    with conn:
        try:
            while data := conn.recv(65536):
                conn.sendall(data)
        except OSError as error:
            if error.errno != errno.EBADF:  # that is: closed, since the server stops
                print(f"{peer} is gone: {error}\n", end="", flush=True)  # in one piece
    conns.discard(conn)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
