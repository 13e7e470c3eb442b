"""Conversations in their steady state, whose calls test_guard.py counts.

    strace -f -o FILE python tests/steady.py asyncio plain

100 bytes go over loopback TCP and come back, again and again.  On the async face both ends
are tasks of one loop, so that nothing depends on how fast another process is; on the blocking
face the other end is a forked child, which answers so late that each `recv` has to wait.
`mark` is called before the first block of round trips and after each.
"""

import asyncio
import os
import socket as _stdlib
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

import uvloop

import aiosock
import aiosock_sync

BLOCKS, TRIPS = 5, 32
MESSAGE, SIZE = b"x" * 100, 65536
LATE = 0.002  # seconds after which the blocking face's peer answers
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MARK = "/a mark of the steady state"

Mark = Callable[[], object]


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's, which trusts, and the server's."""
    import trustme

    authority = trustme.CA()
    client, server = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    return client, server


def tcp_pair() -> tuple[_stdlib.socket, _stdlib.socket]:
    with _stdlib.create_server(("127.0.0.1", 0)) as listener:
        client = _stdlib.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_NODELAY, 1)
    return client, server


# --- the async face ----------------------------------------------------------------------


async def converse(secure: bool, mark: Mark) -> None:
    with ExitStack() as stack:
        one, other = map(aiosock.from_stdlib_socket, tcp_pair())
        stack.enter_context(one)
        stack.enter_context(other)
        if secure:
            client, server = contexts()
            one, other = await asyncio.gather(
                one.start_tls(client, server_hostname="localhost"),
                other.start_tls(server, server_side=True),
            )
            stack.enter_context(one)
            stack.enter_context(other)
        echoing = asyncio.create_task(echo(other))
        await trips(one)
        mark()
        for _ in range(BLOCKS):
            await trips(one)
            mark()
        echoing.cancel()
        await asyncio.wait([echoing])


async def echo(sock: aiosock.socket) -> None:
    while data := await sock.recv(SIZE):
        await sock.sendall(data)


async def trips(sock: aiosock.socket) -> None:
    for _ in range(TRIPS):
        await sock.sendall(MESSAGE)
        await sock.recv(SIZE)


# --- the blocking face -------------------------------------------------------------------


def converse_blocking(secure: bool, mark: Mark) -> None:
    client, server = contexts() if secure else (None, None)
    ours, peers = tcp_pair()
    child = os.fork()
    if not child:
        ours.close()
        answer_late(server.wrap_socket(peers, server_side=True) if server else peers)
        os._exit(0)
    peers.close()
    sock: Any = aiosock_sync.from_stdlib_socket(ours)
    if client:
        sock = sock.start_tls(client, server_hostname="localhost")
    with sock:
        trips_blocking(sock)
        mark()
        for _ in range(BLOCKS):
            trips_blocking(sock)
            mark()
    os.waitpid(child, 0)


def answer_late(sock: _stdlib.socket) -> None:
    while data := sock.recv(SIZE):
        time.sleep(LATE)
        sock.sendall(data)


def trips_blocking(sock: _stdlib.socket) -> None:
    for _ in range(TRIPS):
        sock.sendall(MESSAGE)
        sock.recv(SIZE)


# --- either ------------------------------------------------------------------------------


def run(where: str, secure: bool, mark: Mark) -> None:
    if where == "blocking":
        return converse_blocking(secure, mark)
    with asyncio.Runner(loop_factory=LOOPS[where]) as runner:
        runner.run(converse(secure, mark))
    return None


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2] == "tls", lambda: os.access(MARK, os.F_OK))
