"""Memory: what an idle connection takes in a server, and a socket in a program.

Connections have echoed one message, of a byte or (in TLS) of 1 KiB.  What is Python's own is
told by tracemalloc, what is resident by the kernel, each by a server of its own; measured once.
A socket of ours is weighed beyond the stdlib's that it holds: fresh, after it has waited once,
and while a task waits in `recv` (the task is counted too).

    python -m benchmarks.memory                 the weights of a socket alone
"""

import asyncio
import gc
import resource
import socket
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import aiosock

from ._load import connected, taken
from ._programs import Server, calling
from ._rounds import Case, Plan, Rates, Take
from .peers import BLOCKING, KNOW_NO_TLS

FIRST = 20  # at a time; what comes only once has come with the first
COUNT = 500


def cases(plan: Plan) -> Iterator[Case]:
    names = [name for name in plan.peers("echo") if name not in (*BLOCKING[:2], "bare epoll")]
    plan.leave_out("memory of servers with threads", "theirs is mostly their threads' stacks")
    many = min(plan.most, 500 if plan.quick else 2000)
    if plan.can_hold(many + FIRST):
        yield _case(plan, names, f"{many:,} idle connections", many, None)
    certificate = plan.tools.certificate()
    if certificate:
        secured = [name for name in names if name not in KNOW_NO_TLS]
        few = min(plan.most, 200)
        yield _case(plan, secured, f"{few} idle connections of TLS", few, certificate)
    yield Case("a socket", {"aiosock": _weights}, pairs=[], once=True)


def _case(plan: Plan, names: list[str], what: str, count: int, certificate: str | None) -> Case:
    def taking(name: str) -> Take:
        def take() -> Rates:
            found = {}
            for column, (work, unit) in enumerate(UNITS.items()):
                with plan.servers([name], work, certificate) as servers:
                    found[unit] = weigh(servers[name], count, bool(certificate))[column]
            return found

        return take

    return Case(what, {name: taking(name) for name in names}, sense="less", once=True)


UNITS = {"trace": "bytes of Python's, each", "weigh": "bytes resident, each"}


def weigh(server: Server, count: int, tls: bool) -> list[float]:
    """What each of many idle connections adds."""

    message = bytes(1024 if tls else 1)

    def idle(count: int) -> list[socket.socket]:
        conns = [connected(server.port, tls) for _ in range(count)]
        for conn in conns:
            conn.sendall(message)
        for conn in conns:
            taken(conn, len(message))
        return conns

    first, before = idle(FIRST), _told(server)
    held = [conn for _ in range(max(1, count // FIRST)) for conn in idle(FIRST)]
    after = _told(server)
    for conn in (*first, *held):
        conn.close()
    return [(b - a) / len(held) for a, b in zip(before, after, strict=True)]


def _told(server: Server) -> list[int]:
    return [int(number) for number in server.ask("?").split()]


# --- the servers' side -------------------------------------------------------------------


def tell_weight_when_asked(*, trace: bool) -> None:
    threading.Thread(target=_tell_weight, daemon=True).start()
    if trace:
        tracemalloc.start()


def _tell_weight() -> None:
    for _ in sys.stdin:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(tracemalloc.get_traced_memory()[0], pages * resource.getpagesize(), flush=True)


# --- a socket ----------------------------------------------------------------------------


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def weigh_sockets() -> dict[str, float]:
    pairs = [aiosock.socketpair() for _ in range(COUNT)]
    stdlib_share = weigh_stdlib()
    tracemalloc.start()
    before = traced()
    held = [aiosock.socketpair() for _ in range(COUNT)]
    fresh = (traced() - before) / (2 * COUNT) - stdlib_share
    before = traced()
    for one, other in pairs:
        reading = asyncio.create_task(one.recv(100))
        await asyncio.sleep(0)
        await other.send(b"x")
        await reading
    del reading
    waited = fresh + (traced() - before) / COUNT
    before = traced()
    waiting = [asyncio.create_task(one.recv(100)) for one, _ in held]
    await asyncio.sleep(0.01)
    in_recv = fresh + (traced() - before) / COUNT
    tracemalloc.stop()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for sock in (sock for pair in (*pairs, *held) for sock in pair):
        sock.close()
    return {"fresh": fresh, "idle after a wait": waited, "a task waits in recv": in_recv}


def weigh_stdlib() -> float:
    tracemalloc.start()
    before = traced()
    pairs = [socket.socketpair() for _ in range(COUNT)]
    share = (traced() - before) / (2 * COUNT)
    tracemalloc.stop()
    for one, other in pairs:
        one.close()
        other.close()
    return share


def tell_weights() -> None:
    for state, size in asyncio.run(weigh_sockets()).items():
        print(f"{size:6.0f} bytes, {state}", flush=True)


def _weights() -> Rates:
    with Server(*calling(tell_weights)) as program:
        lines = [program.hear() for _ in range(3)]
    told = [line.partition(" bytes, ") for line in lines]
    return {f"bytes beyond the stdlib's, {state}": float(size) for size, _, state in told}


if __name__ == "__main__":
    tell_weights()
