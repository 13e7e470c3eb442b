"""The blocking face beside the stdlib's socket: calls that are ready, and a ping-pong.

- ready: `send` and `recv` of 100 bytes over a socket pair, where neither has to wait;
- ping-pong: 100 bytes to an echo server over loopback TCP and back, where each `recv` waits.
"""

import socket
from collections.abc import Iterator
from typing import Any

import aiosock_sync

from ._programs import answer, calling, repeated
from ._rounds import Case, Plan

MODULES: dict[str, Any] = {"aiosock_sync": aiosock_sync, "stdlib": socket}
MESSAGE = b"x" * 100
PAIRS = [("aiosock_sync", "stdlib")]


def cases(plan: Plan) -> Iterator[Case]:
    commands = {name: calling(ready, name) for name in MODULES}
    with plan.workers(commands) as workers:
        yield Case("ready send and recv", plan.rates(workers, "pairs"), pairs=PAIRS)
    with plan.counterpart() as server:
        commands = {name: calling(ping_pong, name, server.port) for name in MODULES}
        with plan.workers(commands) as workers:
            yield Case("ping-pong", plan.rates(workers, "round trips", workers), pairs=PAIRS)


# --- the work, each in a program of its own ----------------------------------------------


def ready(name: str) -> None:
    one, other = MODULES[name].socketpair()

    def act() -> None:
        one.send(MESSAGE)
        other.recv(65536)

    answer(lambda seconds: repeated(act, seconds, at_once=100))


def ping_pong(name: str, port: str) -> None:
    sock = MODULES[name].create_connection(("127.0.0.1", int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def act() -> None:
        sock.sendall(MESSAGE)
        sock.recv(65536)

    answer(lambda seconds: repeated(act, seconds))
