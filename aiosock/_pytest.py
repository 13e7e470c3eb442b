"""What the fixtures are made of for tests of code that uses aiosock.

Knows the public names of both faces and pytest; nothing in the house knows it but the plugin, in
which the fixtures have their names and descriptions, and which imports this file for a test that
asks.  What one needs besides (the blocking face, uvloop, trustme) is imported for that one alone.

All fixtures are plain functions.  A socket belongs to no loop, and servers run in a thread with a
loop of its own: so they serve async tests, whichever plugin runs those, and blocking ones alike.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, Unpack
from weakref import WeakSet

import pytest

import aiosock

from . import _names

if TYPE_CHECKING:
    from ssl import SSLContext

    from ._serving import Keywords

__all__ = ["TLS", "Addresses", "Handler", "Resolve", "Serve"]

Handler = Callable[[Any, Any], Coroutine[Any, Any, object]]
Address = tuple[str, int]
Addresses = str | Iterable[str] | None
Book = Mapping[str, Addresses] | Callable[[str], Addresses | Awaitable[Addresses]]
Resolve = Callable[[Book], None]

LIMIT: Final = 10.0  # seconds for a server to begin, and for cancelled handlers to end
GRACE: Final = 1.0  # seconds for handlers to end with their test, unless it says otherwise
LOOKS: Final = 50  # in which what is on its way out may go
PASSED: Final = pytest.StashKey[bool]()


class Serve(Protocol):
    """What the fixture `aiosock_server` is."""

    def __call__(
        self, handler: Handler, *, ssl: SSLContext | None = None, **keywords: Unpack[Keywords]
    ) -> Address: ...


# --- sockets --------------------------------------------------------------------------


def pair() -> Iterator[tuple[aiosock.socket, aiosock.socket]]:
    one, other = aiosock.socketpair()
    with one, other:
        yield one, other


# --- servers --------------------------------------------------------------------------


class Servers:
    """A thread whose loop runs servers until the test is over."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._running: AsyncExitStack = AsyncExitStack()
        self._errors: list[Exception] = []
        self._handlers: list[Handler] = []  # those that run
        self._limit: float = LIMIT  # seconds for all to end
        self._thread: threading.Thread = threading.Thread(
            target=self._loop.run_forever, name="aiosock_server", daemon=True
        )
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Any], limit: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit)

    async def serve(self, handler: Handler, keywords: dict[str, Any]) -> Address:
        server = aiosock.serve(self._watched(handler), ("127.0.0.1", 0), **keywords)
        await self._running.enter_async_context(server)
        grace = keywords["grace_period"]
        self._limit += math.inf if grace is None else grace
        host, port = server.sockets[0].getsockname()
        return host, port

    def _watched(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def watched(conn: Any, peer: Any) -> None:
            self._handlers.append(handler)
            try:
                await handler(conn, peer)
            except ConnectionError:  # the peer went, as peers do
                raise
            except Exception as error:
                self._errors.append(error)
                raise
            finally:
                self._handlers.remove(handler)

        return watched

    def end(self) -> None:
        """Await the handlers; what one has raised fails the test."""
        try:
            self.do(self._running.aclose(), min(self._limit, threading.TIMEOUT_MAX))
        except TimeoutError:
            names = ", ".join(set(map(repr, self._handlers)))
            told = f"a handler does not end, though cancelled: {names}"
            raise pytest.fail.Exception(told, pytrace=False) from None
        finally:
            self._stop()
        if self._errors:
            raise ExceptionGroup("a handler of aiosock_server has failed", self._errors)

    def _stop(self) -> None:
        """A handler that blocks the loop keeps its thread, which dies with the process."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        if not self._thread.is_alive():
            self._loop.close()


def server() -> Iterator[Serve]:
    servers: list[Servers] = []

    def serve(
        handler: Handler, *, ssl: SSLContext | None = None, **keywords: Unpack[Keywords]
    ) -> Address:
        if not servers:
            servers.append(Servers())
        work = servers[0].serve(handler, {"ssl": ssl, "grace_period": GRACE, **keywords})
        address: Address = servers[0].do(work, LIMIT)
        return address

    yield serve
    for running in servers:
        running.end()


async def echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


# --- TLS ------------------------------------------------------------------------------


class TLS(NamedTuple):
    """Contexts of both ends, that trust each other: the server is "localhost" and 127.0.0.1."""

    server: SSLContext
    client: SSLContext


def tls() -> TLS:
    try:
        import trustme
    except ImportError:
        pytest.fail(
            "the fixture aiosock_tls needs the package trustme, which is not installed here: "
            "pip install trustme",
            pytrace=False,
        )
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return TLS(server, client)


# --- names ----------------------------------------------------------------------------


class FakeResolver:
    """Knows the names of a book, and no others."""

    def __init__(self, book: Book) -> None:
        self._look: Callable[[str], Any] = book if callable(book) else book.get

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int, /
    ) -> list[Any]:
        flags |= socket.AI_NUMERICHOST
        found = []
        for address in await self._addresses(host):
            with suppress(socket.gaierror):  # of another family than is asked for
                found += socket.getaddrinfo(address, port, family, type, proto, flags)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    async def _addresses(self, host: Any) -> list[str | None]:
        if host is None:
            return [None]
        found = self._look(host.decode() if isinstance(host, bytes) else host)
        if isinstance(found, Awaitable):
            found = await found
        return [found] if isinstance(found, str) else list(found or ())

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        return socket.getnameinfo(sockaddr, flags | socket.NI_NUMERICHOST)


def resolver() -> Iterator[Resolve]:
    before = _names._resolver
    yield lambda book: _names.set_resolver(FakeResolver(book))
    _names.set_resolver(before)


# --- leaks ----------------------------------------------------------------------------


def without_descriptors_left(item: pytest.Item) -> Iterator[None]:
    """Of a test that has failed nothing is asked: its traceback keeps what its frames know."""
    _open_what_stays()
    before = _descriptors()
    yield
    if not item.stash.get(PASSED, False):
        return
    if _descriptors() - before:
        gc.collect()
    for _ in range(LOOKS):
        if not (left := _descriptors() - before):
            return
        time.sleep(0.01)
    if left := _descriptors() - before:
        owners = _owners()
        _fail([f"descriptor {fd}, {owners.get(fd, link)}" for fd, link in sorted(left)])


def without_tasks_left(item: pytest.Item) -> Iterator[None]:
    before = WeakSet(_tasks())
    yield
    if left := [task for task in _tasks() if task not in before]:
        _fail([repr(task) for task in left])
    item.stash[PASSED] = True


def _fail(left: list[str]) -> NoReturn:
    """A line for each; pytest's summary shows the first, which has to name something."""
    pytest.fail("\n  ".join([f"left behind: {left[0]}", *left[1:]]), pytrace=False)


def _descriptors() -> set[tuple[int, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one with which we look
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found


@cache
def _open_what_stays() -> None:
    """What a process opens once: it is no leak of the test that happens to be the first."""
    import importlib.util

    from aiosock_sync._driver import loop_here

    loop_here()
    if importlib.util.find_spec("uvloop"):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop()


def _objects(module: str, name: str) -> list[Any]:
    """The instances that live of a class, if somebody has imported it."""
    kind = getattr(sys.modules.get(module), name, None)
    return [] if kind is None else [o for o in gc.get_objects() if issubclass(type(o), kind)]


def _tasks() -> list[asyncio.Task[Any]]:
    """Those that have not ended, but for tasks of loops that run: in other threads, as it seems."""
    tasks = _objects("asyncio", "Task")
    return [task for task in tasks if not task.done() and not task.get_loop().is_running()]


def _owners() -> dict[int, str]:
    """The sockets that are open, by descriptor; ours have one of the stdlib beneath them."""
    socks = [*_objects("socket", "socket"), *_objects("aiosock", "socket")]
    socks.sort(key=lambda sock: type(sock).__module__ in ("aiosock", "aiosock_sync"))
    return {sock.fileno(): repr(sock) for sock in socks}
