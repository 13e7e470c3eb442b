"""serve(): accepts connections, runs a handler for each, and drains at the end.

Knows the makers of listeners, the awaitable socket and asyncio's tasks; what an error means
and what is logged is `_serving`'s.

A task for each listener accepts.  A task for each connection is the handler's own coroutine,
with nothing around it: what follows it (closing, counting, logging) hangs on the task's end,
and so holds for one that is cancelled before its first step as well.
"""

from __future__ import annotations

import asyncio
import ssl as _ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack, overload

from ._addresses import Inet6AddressLike
from ._advice import AsyncOnly
from ._constructors import create_server
from ._records import as_server
from ._serving import (
    At,
    Counts,
    Full,
    Keywords,
    Several,
    Terms,
    Triage,
    family_of,
    is_async,
    log_failure,
    log_handshake,
    logger,
    must_run,
    passed_descriptors,
    places_in,
    remover,
    shut,
    vet_listener,
)
from ._socket import Address, socket
from ._tls import SSLListener, SSLSocket

__all__ = ["Server", "listen_fds", "serve"]

Ended = Coroutine[Any, Any, object]
Handler = Callable[[Any, Address], Ended]  # of a socket or an SSLSocket
One = At | socket
Place = One | Several[One] | tuple[Inet6AddressLike | socket, ...]
Secure = SSLListener | list[SSLListener]
Accepted = tuple[socket, Address]


@overload
def serve(
    handler: Callable[[socket, Address], Ended],
    listener_or_address: Place,
    *,
    ssl: None = None,
    **keywords: Unpack[Keywords],
) -> Server: ...


@overload
def serve(
    handler: Callable[[SSLSocket, Address], Ended],
    listener_or_address: Place,
    *,
    ssl: _ssl.SSLContext,
    **keywords: Unpack[Keywords],
) -> Server: ...


@overload
def serve(
    handler: Callable[[SSLSocket, Address], Ended],
    listener_or_address: Secure,
    *,
    ssl: None = None,
    **keywords: Unpack[Keywords],
) -> Server: ...


def serve(
    handler: Handler,
    listener_or_address: Any,
    *,
    ssl: _ssl.SSLContext | None = None,
    ssl_handshake_timeout: float = 60.0,
    max_connections: int | None = None,
    grace_period: float | None = 10.0,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> Server:
    """Run ``await handler(conn, peer)`` for each connection, in a task; enter by ``async with``.

    Where: an address, which is ``(host, port)`` or a path for AF_UNIX, a socket that listens, or
    a list of several.  What serve makes for an address it also closes (and takes the path away);
    a listener that is given stays its owner's, and open.  `backlog`, `reuse_port` and
    `dualstack_ipv6` are those of `create_server`.  Entering awaits the lookup of a host name;
    an error says which address it was.

    `conn` is a `socket`, closed when the handler ends, in every case.  What a handler raises is
    logged by the logger "aiosock" and ends no other; at debug level if it only says that the
    peer is gone.  While `max_connections` are served nothing is accepted: more clients wait in
    the kernel's queue.  So they do while no descriptor or memory is left, of which a warning is
    logged.

    With `ssl`, or a listener that has a context, `conn` is an `SSLSocket` that has shaken hands,
    in its own task and within `ssl_handshake_timeout` seconds: a silent client holds up nobody.

    Leaving the ``async with``, also by an error or a cancellation, stops accepting and awaits the
    handlers: for `grace_period` seconds, or with None as long as they take.  Those that are left
    then, or when this is cancelled once more, are cancelled and awaited.
    """
    if not is_async(handler):
        raise TypeError(
            f"the handler must be a coroutine function (async def), which {handler!r} is not; "
            f"aiosock_sync.serve() takes blocking ones"
        )
    keywords: Keywords = {
        "ssl_handshake_timeout": ssl_handshake_timeout,
        "max_connections": max_connections,
        "grace_period": grace_period,
        "backlog": backlog,
        "reuse_port": reuse_port,
        "dualstack_ipv6": dualstack_ipv6,
    }
    terms = Terms(handler, as_server(ssl), keywords)
    places = places_in(listener_or_address, socket)
    if ssl is not None and any(isinstance(place, SSLListener) for place in places):
        raise ValueError("ssl is given, and a listener has a context of its own")
    return Server(terms, places)


class Server(AsyncOnly, Counts):
    """What `serve` returns: listeners, and the tasks of the connections that they accept."""

    def __init__(self, terms: Terms, places: list[Any]) -> None:
        super().__init__()
        self._terms, self._places = terms, places
        self._listeners: list[socket] = []
        self._endings: list[Callable[[], None]] = []  # of the listeners that are ours
        self._acceptors: list[asyncio.Task[None]] = []
        self._handling: dict[asyncio.Task[object], Accepted] = {}
        self._freed = asyncio.Event()  # a connection has ended

    if not TYPE_CHECKING:  # who is to refuse it as well

        def __await__(self) -> NoReturn:
            raise TypeError(
                "'Server' object can't be used in 'await' expression: "
                "enter it with `async with`, which starts it, and ends it"
            )

    @property
    def sockets(self) -> tuple[socket, ...]:
        """The listeners; none when the server is closed."""
        return tuple(self._listeners)

    @property
    def active(self) -> int:
        """How many connections are served now."""
        return len(self._handling)

    def close(self) -> None:
        """Stop accepting, at once; handlers go on.  A second call does nothing."""
        for acceptor in self._acceptors:
            acceptor.cancel()
        for end in self._endings:
            end()
        self._listeners, self._endings = [], []

    async def serve_forever(self) -> None:
        """Await that accepting has ended: by `close`, or by an error, which is raised.

        A cancellation ends this call, and not the server.
        """
        must_run(self._acceptors, "async with")
        await asyncio.wait(self._acceptors)
        for acceptor in self._acceptors:
            if not acceptor.cancelled():
                acceptor.result()

    async def wait_closed(self) -> None:
        """Await that accepting has ended, and then every handler.

        A cancellation ends this call, and neither the server nor a handler.
        """
        while any(not acceptor.done() for acceptor in self._acceptors) or self._handling:
            await self._wait(None)

    async def __aenter__(self) -> Self:
        if self._acceptors:
            raise RuntimeError("this server is running")
        try:
            for place in self._places:
                self._listeners.append(await self._listener_at(place))
        except BaseException:
            self.close()
            raise
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            acceptor = loop.create_task(self._accept(listener, Triage(listener)))
            self._acceptors.append(acceptor)
            acceptor.add_done_callback(self._stopped)
        return self

    async def _listener_at(self, place: Any) -> socket:
        if isinstance(place, socket):
            vet_listener(place)
            return place
        listener: socket = await create_server(place, **self._terms.how_to_listen(family_of(place)))
        self._endings.append(listener.close)
        self._endings.append(remover(listener))
        return listener

    # --- accepting ----------------------------------------------------------------------

    async def _accept(self, listener: socket, triage: Triage) -> None:
        terms, complete = self._terms, listener._reading.complete
        context = listener._context if isinstance(listener, SSLListener) else terms.context
        start = terms.handler if context is None else partial(self._secured, context)
        attempt = partial(socket._accept_one, listener)  # before TLS, whichever listener it is
        if terms.max_connections is not None:
            attempt = partial(self._accept_if_room, terms.max_connections, listener)
        while self._listeners:
            try:
                accepted = await complete(None, 0, attempt)
            except Full:
                await self._rest(None)
            except OSError as error:
                if listener._reading.ending:
                    return
                await self._rest(triage.pause_after(error))
            else:
                self._begin(start, accepted)
                del accepted

    def _accept_if_room(self, most: int, listener: socket) -> Accepted:
        if len(self._handling) >= most:
            raise Full
        return socket._accept_one(listener)

    async def _rest(self, seconds: float | None) -> None:
        """Await the end of a connection, which may free what was lacking, or that time."""
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._freed.wait()

    def _stopped(self, acceptor: asyncio.Task[None]) -> None:
        if not acceptor.cancelled() and (error := acceptor.exception()) is not None:
            logger.error("the server stops accepting", exc_info=error)
            self.close()

    # --- a connection -------------------------------------------------------------------

    def _begin(self, start: Handler, accepted: Accepted) -> None:
        conn, peer = accepted
        conn._heirs = []
        self._accepted += 1
        try:
            task = asyncio.get_running_loop().create_task(start(conn, peer))
        except Exception as error:  # it was no coroutine function after all
            self._fail(accepted, error)
            shut(conn)
            return
        self._handling.setdefault(task, accepted)  # an eager one may have made it secure
        task.add_done_callback(self._ended)
        del task  # as the error of an eager one knows this frame

    def _ended(self, task: asyncio.Task[object]) -> None:
        accepted = self._handling.pop(task)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(accepted, error)
        shut(accepted[0])

    def _fail(self, accepted: Accepted, error: BaseException) -> None:
        self._failed += 1
        conn, peer = accepted
        if not isinstance(error, KeyboardInterrupt | SystemExit):  # the loop has raised those
            log_failure(peer, conn, error)

    async def _secured(self, context: _ssl.SSLContext, conn: socket, peer: Address) -> None:
        secure = SSLSocket._over(conn, context, True, None, None, False)
        task = asyncio.current_task()
        assert task is not None
        self._handling[task] = secure, peer
        timeout = secure.gettimeout()
        if await self._shakes_hands(secure, peer):
            secure.settimeout(timeout)
            await self._terms.handler(secure, peer)

    async def _shakes_hands(self, secure: SSLSocket, peer: Address) -> bool:
        try:
            secure.settimeout(self._terms.ssl_handshake_timeout)
            await secure.do_handshake()
        except OSError as error:
            self._failed += 1
            log_handshake(peer, error)
            return False
        return True

    # --- the end ------------------------------------------------------------------------

    async def __aexit__(self, *args: object) -> None:
        self.close()
        try:
            await self._wait(self._terms.grace_period)
        finally:
            if self._handling:
                logger.warning("handlers cancelled as the server ends: %d", self.active)
            await self._cancel()
            self._acceptors = []  # whose errors know this server

    async def _wait(self, seconds: float | None) -> None:
        if running := [*self._acceptors, *self._handling]:  # none, where it was cut short
            await asyncio.wait(running, timeout=seconds)

    async def _cancel(self) -> None:
        """Cancel the handlers, and again whenever this is cancelled, until none is left."""
        cancelled = False
        while self._handling:
            for task in self._handling:
                task.cancel()
            try:
                await self._wait(None)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError


def listen_fds() -> list[socket]:
    """The sockets that the service manager passed to this process, as by systemd's activation.

    Those of LISTEN_FDS, if LISTEN_PID says that this process is meant; else an empty list, as
    for a second call.  They are for `serve`, and not inherited by child processes.
    """
    return [socket(fileno=fd) for fd in passed_descriptors()]
