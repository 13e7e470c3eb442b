"""The servers that are measured: each peer once, with one small function for each work.

A module stands for one way to write a server; it has `WORKS`, a handler of a connection for
each work that this way knows, and `run`, which says its port and serves until it is killed.

    echo       what comes, goes back
    within     the same, with a timeout of an hour for each wait, which never comes
    once       one message is echoed, and the connection closed
    receive    for each BATCH that was received, into one buffer, a byte goes back
    send       for each byte that comes, a BATCH goes out, in pieces of PIECE
    lines      for each LINES that were read, a byte goes back
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from .._programs import answer, calling

HERE: Final = ("127.0.0.1", 0)
SIZE: Final = 65536  # asked of a recv
BUFFER: Final = 1 << 18  # of a recv_into
PIECE: Final = bytes(1 << 20)
BATCH: Final = 8 << 20
LINES: Final = 8192  # of 128 bytes
LONG: Final = 3600.0  # seconds, as connections idle while others are measured
BLOCKING: Final = ("aiosock_sync", "stdlib threads", "gevent")  # whose text has no await
KNOW_NO_TLS: Final = ("sock_* on uvloop", "sock_* on asyncio")
LIMITS: Final = ("bare epoll", "epoll in C")


class Peer(NamedTuple):
    module: str
    needs: tuple[str, ...] = ()
    loop: str = ""

    @property
    def lacks(self) -> str | None:
        """What of it is not installed."""
        return next((name for name in self.needs if find_spec(name) is None), None)


def _on_loops(kind: str, module: str, *needs: str) -> dict[str, Peer]:
    return {
        f"{kind} on uvloop": Peer(module, ("uvloop", *needs), "uvloop"),
        f"{kind} on asyncio": Peer(module, needs, "asyncio"),
    }


PEERS: Final[dict[str, Peer]] = {
    **_on_loops("aiosock", "of_aiosock"),
    "aiosock_sync": Peer("of_threads"),
    **_on_loops("sock_*", "of_sock_calls"),
    **_on_loops("streams", "of_streams"),
    **_on_loops("protocol", "of_protocols"),
    **_on_loops("anyio", "of_anyio", "anyio"),
    "trio": Peer("of_trio", ("trio",)),
    "curio": Peer("of_curio", ("curio",)),
    "gevent": Peer("of_gevent", ("gevent",)),
    "stdlib threads": Peer("of_threads"),
    "bare epoll": Peer("of_epoll"),
}


def loop_of(subject: str) -> str:
    return subject.rpartition(" on ")[2] if " on " in subject else ""


def works_of(peer: Peer) -> dict[str, Any]:
    works: dict[str, Any] = import_module(f".{peer.module}", __name__).WORKS
    return works


def command(subject: str, work: str, certificate: str | None = None) -> list[str]:
    return calling(serve, subject, work, certificate or "")


def serve(subject: str, work: str, certificate: str) -> None:
    module = import_module(f".{PEERS[subject].module}", __name__)
    context = None
    if certificate:
        kind = getattr(module, "SSLContext", ssl.SSLContext)
        context = kind(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    if work in ("weigh", "trace"):
        from ..memory import tell_weight_when_asked

        tell_weight_when_asked(trace=work == "trace")
        work = "echo"
    module.run(module.WORKS[work], subject, context)


def on_loop_of(subject: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    with runner_of(subject) as runner:
        runner.run(main())


def runner_of(subject: str) -> asyncio.Runner:
    if loop_of(subject) == "uvloop":
        return asyncio.Runner(loop_factory=import_module("uvloop").new_event_loop)
    return asyncio.Runner()


def answer_on(
    subject: str, work: Callable[[float], Coroutine[Any, Any, tuple[float, float]]]
) -> None:
    """Work whenever asked, in a task on the subject's own loop."""
    if subject in ("trio", "curio"):
        run = import_module(subject).run
        return answer(lambda seconds: run(work, seconds))
    with runner_of(subject) as runner:
        answer(lambda seconds: runner.run(work(seconds)))
    return None
