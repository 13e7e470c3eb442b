"""A `recv` that need not wait, beside the stdlib's: how many microseconds more it takes.

Each takes a byte of a socket pair in which there are many, on a socket of its own kind; what
a library gives other tasks in between is counted too.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import aiosock
import aiosock_sync

from ._programs import answer, calling
from ._rounds import Case, Plan, Rates, Take
from .peers import BLOCKING, PEERS, answer_on

STDLIB = "stdlib threads"
Timed = tuple[float, float]  # how many, and in what time
MANY = 200  # bytes between looks at the clock; few enough for the pair to hold


def cases(plan: Plan) -> Iterator[Case]:
    kinds = ("aiosock", "aiosock_sync", "sock_*", "trio", "curio", "gevent")
    among = [name for name in PEERS if name.partition(" on ")[0] in kinds]
    names = [*plan.peers(among=among), STDLIB]
    with plan.workers({name: calling(receiver, name) for name in names}) as workers:

        def taking(name: str) -> Take:
            def take() -> Rates:
                done, elapsed = workers[name].work(plan.seconds)
                return {"us a recv": elapsed / done * 1e6}

            return take

        pairs = [(name, STDLIB) for name in names[:-1]]
        takes = {name: taking(name) for name in names}
        yield Case("ready recv", takes, sense="beyond", pairs=pairs)


# --- the work, each in a program of its own ----------------------------------------------


def receiver(subject: str) -> None:
    sock, fill = filled()
    if subject in BLOCKING:
        recv = blocking(subject, sock)
        answer(lambda seconds: timed(recv, fill, seconds))
    else:
        answer_on(subject, lambda seconds: timed_in_task(subject, sock, fill, seconds))


def filled() -> tuple[socket.socket, Callable[[], None]]:
    """A socket, and what puts MANY bytes into it."""
    one, other = socket.socketpair()
    return other, lambda: one.sendall(bytes(MANY))


def blocking(subject: str, sock: socket.socket) -> Callable[[int], Any]:
    if subject == "stdlib threads":
        return sock.recv
    module: Any = aiosock_sync if subject == "aiosock_sync" else import_module("gevent.socket")
    receive: Callable[[int], Any] = module.socket(fileno=sock.detach()).recv
    return receive


def awaited(subject: str, sock: socket.socket) -> Callable[[int], Any]:
    """To be called in a task of the subject's loop."""
    kind, own = subject.partition(" on ")[0], sock.dup()
    own.setblocking(False)
    if kind == "sock_*":
        return partial(asyncio.get_running_loop().sock_recv, own)
    made: Any
    if kind == "aiosock":
        made = aiosock.from_stdlib_socket(own)
        made.setblocking(True)
    elif kind == "trio":
        made = import_module("trio").socket.from_stdlib_socket(own)
    else:
        made = import_module("curio.io").Socket(own)
    receive: Callable[[int], Any] = made.recv
    return receive


def timed(recv: Callable[[int], Any], fill: Callable[[], None], seconds: float) -> Timed:
    done, elapsed = 0, 0.0
    while elapsed < seconds:
        fill()
        start = time.perf_counter()
        for _ in range(MANY):
            recv(1)
        elapsed += time.perf_counter() - start
        done += MANY
    return done, elapsed


async def timed_in_task(
    subject: str, sock: socket.socket, fill: Callable[[], None], seconds: float
) -> Timed:
    recv, done, elapsed = awaited(subject, sock), 0, 0.0
    while elapsed < seconds:
        fill()
        start = time.perf_counter()
        for _ in range(MANY):
            await recv(1)
        elapsed += time.perf_counter() - start
        done += MANY
    return done, elapsed
