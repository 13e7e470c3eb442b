"""The blocking face beside the stdlib's socket, interleaved in one run.

    python benchmarks/sync.py [--rounds 9] [--trips 5000] [--mebibytes 128]

Three works, each done by one process whose other end is a stdlib socket in another:

- ready: `send` and `recv` of 100 bytes over a socket pair, where neither has to wait;
- ping-pong: 100 bytes to an echo server over loopback TCP and back, where each `recv` waits;
- bulk: received, and sent, in pieces of 64 KiB over loopback TCP.

In every round each work is done with both, in turn.  A figure is the ratio of the time that
aiosock_sync takes to the stdlib's in the same round, for the clock on the wall and for this
process's CPU; the median over the rounds is printed, and the quarters.
"""

import argparse
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles
from typing import Any

import aiosock_sync

PIECE = 65536
MESSAGE = b"x" * 100
Times = tuple[float, float]  # wall, CPU


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """The address of a forked server, which serves one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if not child:
            while True:
                conn, _ = listener.accept()
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with conn:
                    serve(conn)
        try:
            yield listener.getsockname()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def echo(conn: socket.socket) -> None:
    while data := conn.recv(PIECE):
        conn.sendall(data)


def swallow(conn: socket.socket) -> None:
    buffer = bytearray(PIECE)
    while conn.recv_into(buffer):
        pass


def pour(conn: socket.socket) -> None:
    """As many MiB as the first message says."""
    piece = bytes(PIECE)
    for _ in range(int(conn.recv(100)) * 2**20 // PIECE):
        conn.sendall(piece)


def timed(work: Callable[[], None]) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def ready(module: Any, options: argparse.Namespace) -> Times:
    one, other = module.socketpair()

    def work() -> None:
        for _ in range(options.trips * 4):
            one.send(MESSAGE)
            other.recv(PIECE)

    with one, other:
        return timed(work)


def ping_pong(module: Any, options: argparse.Namespace) -> Times:
    with peer(echo) as address, module.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def work() -> None:
            for _ in range(options.trips):
                sock.sendall(MESSAGE)
                sock.recv(PIECE)

        return timed(work)


def bulk_received(module: Any, options: argparse.Namespace) -> Times:
    with peer(pour) as address, module.create_connection(address) as sock:
        sock.sendall(b"%d" % options.mebibytes)

        def work() -> None:
            while sock.recv(PIECE):
                pass

        return timed(work)


def bulk_sent(module: Any, options: argparse.Namespace) -> Times:
    piece = bytes(PIECE)
    with peer(swallow) as address, module.create_connection(address) as sock:

        def work() -> None:
            for _ in range(options.mebibytes * 2**20 // PIECE):
                sock.sendall(piece)

        return timed(work)


WORKS = {
    "ready send and recv": ready,
    "ping-pong": ping_pong,
    "bulk received": bulk_received,
    "bulk sent": bulk_sent,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="aiosock_sync beside the stdlib's socket")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--trips", type=int, default=5000)
    parser.add_argument("--mebibytes", type=int, default=128)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {options.rounds} rounds; times, stdlib = 1")
    for name, work in WORKS.items():
        pairs = []
        for turn in range(options.rounds + 1):
            theirs, ours = work(socket, options), work(aiosock_sync, options)
            if turn:  # the first round warms up
                pairs.append([a / b for a, b in zip(ours, theirs, strict=True)])
        for label, ratios in zip(("wall", "CPU"), zip(*pairs, strict=True), strict=True):
            low, middle, high = quantiles(ratios, n=4)
            print(f"  {name:20} {label:5} {middle:5.2f} x   ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
