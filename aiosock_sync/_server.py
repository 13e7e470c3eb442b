"""serve() for blocking handlers: a thread accepts, and each connection has a thread.

Knows the blocking socket, the stdlib's maker of listeners and threads; what an error means and
what is logged is `aiosock._serving`'s.

A handler is cancelled in the one way that a blocking call knows: its socket is closed.  All
threads are daemons, so that no handler can hang the interpreter's end.

A signal handler may close the server, whatever is interrupted by it.  So nobody who holds the
lock here waits for anything else.
"""

from __future__ import annotations

import errno
import socket as _stdlib
import ssl as _ssl
import threading
from collections.abc import Callable
from typing import Any, Final, Self, Unpack, overload

from aiosock._addresses import Inet6AddressLike
from aiosock._deadline import deadline_after, time_left
from aiosock._records import as_server
from aiosock._serving import (
    PAUSE,
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

from ._constructors import remade
from ._driver import loop_here, run
from ._socket import Address, _Moment, socket
from ._tls import SSLSocket

__all__ = ["Server", "listen_fds", "serve"]

Handler = Callable[[Any, Address], object]  # of a socket or an SSLSocket
One = At | socket
Place = One | Several[One] | tuple[Inet6AddressLike | socket, ...]
Secure = SSLSocket | list[SSLSocket]

LAST: Final = 1.0  # seconds for a handler whose socket was closed
create_server: Final = remade({**vars(_stdlib), "socket": socket})["create_server"]


@overload
def serve(
    handler: Callable[[socket, Address], object],
    listener_or_address: Place,
    *,
    ssl: None = None,
    **keywords: Unpack[Keywords],
) -> Server: ...


@overload
def serve(
    handler: Callable[[SSLSocket, Address], object],
    listener_or_address: Place,
    *,
    ssl: _ssl.SSLContext,
    **keywords: Unpack[Keywords],
) -> Server: ...


@overload
def serve(
    handler: Callable[[SSLSocket, Address], object],
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
    """Run ``handler(conn, peer)`` for each connection, in a thread; enter it by ``with``.

    Where: an address, which is ``(host, port)`` or a path for AF_UNIX, a socket that listens, or
    a list of several.  What serve makes for an address it also closes (and takes the path away);
    a listener that is given stays its owner's, and open.  `backlog`, `reuse_port` and
    `dualstack_ipv6` are those of `create_server`.  An error says which address it was.

    `conn` is a `socket`, closed when the handler ends, in every case.  What a handler raises is
    logged by the logger "aiosock" and ends no other; at debug level if it only says that the
    peer is gone.  While `max_connections` are served nothing is accepted: more clients wait in
    the kernel's queue.  So they do while no descriptor or memory is left, of which a warning is
    logged.

    With `ssl`, or a listener that has a context, `conn` is an `SSLSocket` that has shaken hands,
    in its own thread and within `ssl_handshake_timeout` seconds: a silent client holds up
    nobody.

    Leaving the ``with`` stops accepting and waits for the handlers: for `grace_period` seconds,
    or with None as long as they take.  The sockets of those that are left then, or at Ctrl-C,
    are closed, which ends every call that waits for one; a handler that goes on all the same is
    left behind after a second, with a warning.
    """
    if is_async(handler):
        raise TypeError(
            f"the handler must be a blocking function, which {handler!r} is not; "
            f"aiosock.serve() takes coroutine functions"
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
    if ssl is not None and any(isinstance(place, SSLSocket) for place in places):
        raise ValueError("ssl is given, and a listener has a context of its own")
    return Server(terms, places)


class Server(Counts):
    """What `serve` returns: listeners, and the threads of the connections that they accept."""

    def __init__(self, terms: Terms, places: list[Any]) -> None:
        super().__init__()
        self._terms, self._places = terms, places
        self._listeners: list[socket] = []
        self._endings: list[Callable[[], object]] = []
        self._acceptors: list[threading.Thread] = []
        self._error: Exception | None = None  # which has ended accepting
        self._changed = threading.Condition()  # and the lock of what follows
        self._accepting = 0  # how many acceptors have not ended
        self._begun = 0  # attempts to accept, each of which has a place if it succeeds
        self._handling: dict[threading.Thread, socket] = {}
        self._ended: list[threading.Thread] = []  # in their last step, or beyond it
        self._cut = False  # the handlers' time is over

    @property
    def sockets(self) -> tuple[socket, ...]:
        """The listeners; none when the server is closed."""
        return tuple(self._listeners)

    @property
    def active(self) -> int:
        """How many connections are served now."""
        return len(self._handling)

    def close(self) -> None:
        """Stop accepting, at once; handlers go on.  A second call does nothing.

        From any thread, and from a signal handler.
        """
        endings, self._listeners, self._endings = self._endings, [], []
        for end in endings:
            end()
        with self._changed:
            self._changed.notify_all()

    def serve_forever(self) -> None:
        """Wait until accepting has ended: by `close`, or by an error, which is raised.

        Ctrl-C ends this call, and not the server.
        """
        must_run(self._acceptors, "with")
        with self._changed:
            self._changed.wait_for(lambda: not self._accepting)
        if self._error is not None:
            raise self._error

    def wait_closed(self) -> None:
        """Wait until accepting has ended, and then every handler."""
        with self._changed:
            self._changed.wait_for(lambda: not self._accepting and not self._handling)

    def __enter__(self) -> Self:
        if self._acceptors:
            raise RuntimeError("this server is running")
        try:
            for place in self._places:
                self._listeners.append(self._listener_at(place))
        except BaseException:
            self.close()
            raise
        for listener in self._listeners:
            self._acceptors.append(_thread(self._accept, listener, Triage(listener)))
        self._accepting, self._cut = len(self._acceptors), False
        for acceptor in self._acceptors:
            acceptor.start()
        return self

    def _listener_at(self, place: Any) -> socket:
        if isinstance(place, socket):
            vet_listener(place)
            self._endings.append(place._readiness.nudge)
            return place
        listener: socket = create_server(place, **self._terms.how_to_listen(family_of(place)))
        self._endings.append(listener.close)
        self._endings.append(remover(listener))
        return listener

    # --- accepting: a thread for each listener --------------------------------------------

    def _accept(self, listener: socket, triage: Triage) -> None:
        try:
            self._accept_all(listener, triage)
        except Exception as error:
            logger.error("the server stops accepting", exc_info=error)
            self._error = error
            self.close()
        finally:
            with self._changed:
                self._accepting -= 1
                self._changed.notify_all()

    def _accept_all(self, listener: socket, triage: Triage) -> None:
        context = listener.context if isinstance(listener, SSLSocket) else self._terms.context
        moment = _Moment(listener)
        while self._listeners:
            try:
                listener._reading._line_here()  # from here on a nudge is heard
                attempt = listener._reading.complete(None, 0, self._accept_one, listener, moment)
                conn, peer = run(attempt)
            except Full:
                self._rest(None)
            except OSError as error:
                if listener._reading.ending:
                    return
                self._rest(triage.pause_after(error))
            else:
                self._begin(conn, peer, context, triage)
                del conn, attempt

    def _accept_one(self, listener: socket, moment: _Moment) -> tuple[socket, Address]:
        with self._changed:
            if self._is_full() or not self._listeners:
                raise Full
            self._begun += 1
        try:
            return moment.accept()
        except BaseException:
            with self._changed:
                self._begun -= 1
                self._changed.notify_all()
            raise

    def _is_full(self) -> bool:
        most = self._terms.max_connections
        return most is not None and len(self._handling) + self._begun >= most

    def _rest(self, seconds: float | None) -> None:
        """Wait for the end of a connection, which may free what was lacking, or that time."""
        with self._changed:
            if self._listeners and (seconds is not None or self._is_full()):
                self._changed.wait(seconds)

    # --- a connection: a thread -----------------------------------------------------------

    def _begin(
        self, conn: socket, peer: Address, context: _ssl.SSLContext | None, triage: Triage
    ) -> None:
        while self._ended:
            self._ended.pop().join()
        conn._heirs = []
        opened = threading.Event()
        thread = _thread(self._handle, conn, peer, context, triage, opened)
        with self._changed:
            self._begun -= 1
            self._accepted += 1
            self._handling[thread] = conn
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            self._fail(thread, peer, error)
            self._end(thread)
            self._ended.remove(thread)
            self._rest(PAUSE)
        else:
            opened.wait()

    def _handle(
        self,
        conn: socket,
        peer: Address,
        context: _ssl.SSLContext | None,
        triage: Triage,
        opened: threading.Event,
    ) -> None:
        try:
            self._open_loop(triage, opened)
            if context is None:
                self._terms.handler(conn, peer)
            else:
                self._handle_secured(conn, peer, context)
        except Exception as error:
            self._fail(threading.current_thread(), peer, error)
        finally:
            self._end(threading.current_thread())

    def _open_loop(self, triage: Triage, opened: threading.Event) -> None:
        """Open this thread's loop, before the next connection takes the last descriptors."""
        try:
            while True:
                try:
                    loop_here()
                    return
                except OSError as error:
                    pause = triage.pause_after(error)
                    if not self._listeners:
                        raise
                    self._rest(pause)
        finally:
            opened.set()

    def _handle_secured(self, conn: socket, peer: Address, context: _ssl.SSLContext) -> None:
        timeout = conn.gettimeout()
        try:
            secure = self._secured(conn, context)
            secure.settimeout(self._terms.ssl_handshake_timeout)
            secure.do_handshake()
            secure.settimeout(timeout)
        except OSError as error:
            with self._changed:
                self._failed += 1
            log_handshake(peer, error)
        else:
            self._terms.handler(secure, peer)

    def _secured(self, conn: socket, context: _ssl.SSLContext) -> SSLSocket:
        """Before its handshake, and in the place of the plain one, so that it can be closed."""
        secure: SSLSocket = SSLSocket._create(  # type: ignore[attr-defined]  # the stdlib's
            conn, server_side=True, do_handshake_on_connect=False, context=context
        )
        secure._heirs = []
        with self._changed:
            self._handling[threading.current_thread()] = secure
            cut = self._cut
        if cut:
            shut(secure)
        return secure

    def _fail(self, thread: threading.Thread, peer: Address, error: Exception) -> None:
        if self._cut and isinstance(error, OSError) and error.errno == errno.EBADF:
            return  # it was cancelled
        with self._changed:
            self._failed += 1
        log_failure(peer, self._handling[thread], error)

    def _end(self, thread: threading.Thread) -> None:
        shut(self._handling[thread])
        with self._changed:
            del self._handling[thread]
            self._ended.append(thread)
            self._changed.notify_all()

    # --- the end --------------------------------------------------------------------------

    def __exit__(self, *args: object) -> None:
        self.close()
        try:
            self._join(self._terms.grace_period)
        finally:
            self._cut_off()
            self._acceptors, self._error = [], None

    def _join(self, seconds: float | None) -> None:
        """Wait for the end of every thread, for so long."""
        deadline = deadline_after(seconds)
        for acceptor in self._acceptors:
            acceptor.join()
        for thread in list(self._handling):
            thread.join(None if deadline is None else time_left(deadline))
        while self._ended:
            self._ended.pop().join()

    def _cut_off(self) -> None:
        """Cancel the handlers that are left."""
        with self._changed:
            self._cut, left = True, list(self._handling.values())
        if left:
            logger.warning("handlers cancelled as the server ends: %d", len(left))
        for conn in left:
            shut(conn)
        self._join(LAST)
        if self._handling:
            logger.warning("handlers that do not end and are left behind: %d", self.active)


def _thread(target: Callable[..., None], *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, daemon=True, name="aiosock_sync.serve")


def listen_fds() -> list[socket]:
    """The sockets that the service manager passed to this process, as by systemd's activation.

    Those of LISTEN_FDS, if LISTEN_PID says that this process is meant; else an empty list, as
    for a second call.  They are for `serve`, and not inherited by child processes.
    """
    socks = [socket(fileno=fd) for fd in passed_descriptors()]
    for sock in socks:
        sock.settimeout(sock.gettimeout())  # which the descriptor's mode may not have been
    return socks
