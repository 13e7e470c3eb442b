"""The blocking face of TLS: the stdlib's SSLSocket, whose waiting is done by the loop.

Knows the blocking socket, the records beneath both faces and the stdlib's SSLSocket, which
it is a subclass of: what a handshake found, what is refused and in which words is all there.
What is redone is what waits, and the making, which the stdlib keeps to itself.

``SSLContext.wrap_socket(sock)`` gives the stdlib's class, which waits in C; with
``context.sslsocket_class = aiosock_sync.SSLSocket`` it gives this one.
"""

from __future__ import annotations

import ssl as _ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from aiosock._addresses import AddressLike
from aiosock._deadline import NOW
from aiosock._operations import MSG_DONTWAIT
from aiosock._records import (
    Giving,
    GivingFile,
    InsecureWarning,
    Legacy,
    Records,
    Speech,
    Stuck,
    ended,
    inherit,
    legacy_context,
    refuse_flags,
    vet_start,
    want_read,
    want_write,
)

from ._socket import Address, socket

if TYPE_CHECKING:
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["InsecureWarning", "SSLObject", "SSLSocket", "ssl"]

T = TypeVar("T")


class Conversation:
    """How TLS is spoken on one socket: which attempt is made in which direction."""

    def __init__(self, sock: socket, speech: Speech) -> None:
        self._sock = sock
        self.records = Records(sock._raw, sock._readiness, MSG_DONTWAIT, speech)

    def hear(self, attempt: Callable[..., T], *args: Any, asked: int = 0) -> T:
        """The result of a reader's attempt; `asked` is 1 if it is data."""
        sock = self._sock
        try:
            while True:
                try:
                    return sock._complete(sock._reading, asked, 0, attempt, *args)
                except Stuck:
                    sock._sending._line_here()  # whose events step the operation as well
                    sock._complete(sock._reading, 0, 0, self._flush_or_fill)
        except BlockingIOError:
            raise want_read() from None
        finally:
            self.records.let_writers_look()

    def _flush_or_fill(self) -> None:
        """Something goes out or comes in: the peer may take nothing before we do."""
        try:
            self.records.flush_for_reader()
        except BlockingIOError:
            self.records.fill_for_reader()

    def say(self, attempt: Giving | GivingFile) -> int:
        """The result of a writer's attempt."""
        sock = self._sock
        try:
            while True:
                try:
                    return sock._run(attempt)
                except Stuck:
                    sock._complete(sock._reading, 0, 0, self.records.fill_for_writer)
        except BlockingIOError as error:
            attempt.stopped(error)
            raise want_write(error) from None
        except BaseException as error:
            attempt.stopped(error)
            self.records.let_readers_look()
            raise


class SSLSocket(_ssl.SSLSocket, socket):  # type: ignore[misc]  # it refuses what is for messages
    """The stdlib's SSLSocket, waiting in an event loop; made by `socket.start_tls`.

    Its methods, errors and texts are the stdlib's; `fail_after`, a close by another thread
    and ``bytes_sent`` are as with every socket here.  `close` says to the peer that nothing
    follows, if the kernel takes it, which the stdlib's does not.
    """

    _tls: Conversation | None = None
    _talk: Any = None

    @property
    def _sslobj(self) -> Any:
        """What speaks TLS.  The stdlib makes one on the descriptor; ours takes its place."""
        return self._talk

    @_sslobj.setter
    def _sslobj(self, talk: object) -> None:
        if talk is None:
            self._tls = self._talk = None
            return
        how = self.server_side, self.server_hostname
        wrap = self._context._wrap_bio  # type: ignore[attr-defined]  # the stdlib's
        session = self._session  # type: ignore[attr-defined]  # likewise
        speech = Speech(wrap, *how, owner=self, session=session)
        self._talk, self._tls = speech.made, Conversation(self, speech)

    def _hidden(self) -> Conversation:
        if self._tls is None:
            raise ValueError(f"No SSL wrapper around {self}")
        return self._tls

    # --- waiting: connections, the handshake and its end --------------------------------

    def accept(self) -> tuple[Self, Address]:
        """Wait for a connection, and for its handshake unless that was not to be made."""
        conn, address = socket.accept(self)
        secure = type(self)._create(  # type: ignore[attr-defined]  # the stdlib's
            conn,
            server_side=True,
            do_handshake_on_connect=self.do_handshake_on_connect,  # type: ignore[attr-defined]  # likewise
            suppress_ragged_eofs=self.suppress_ragged_eofs,  # type: ignore[attr-defined]  # likewise
            context=self.context,
        )
        return secure, address

    def do_handshake(self, block: bool = False) -> None:
        """Wait for the handshake; with `block` in non-blocking mode too."""
        self._check_connected()  # type: ignore[attr-defined]  # the stdlib's
        tls, timeout = self._hidden(), self.gettimeout()
        if block and timeout == NOW:
            self.settimeout(None)
        try:
            tls.hear(tls.records.shake_hands)
        finally:
            if block and timeout == NOW:
                self.settimeout(timeout)

    def unwrap(self) -> Self:
        """Wait for the end of TLS on both sides; this very socket, which is plain then."""
        tls = self._hidden()
        tls.hear(tls.records.part, self._talk.shutdown)
        self._sslobj = None
        if rest := tls.records.rest():
            self._put_back(rest)
        return self

    def send_eof(self) -> None:
        """Wait until the peer is told that nothing follows (close_notify), and go on receiving.

        From then on nothing can be sent.  In TLS 1.3 the peer may still send; in TLS 1.2 he is to
        end the connection, and may drop what he was about to say.
        """
        tls = self._hidden()
        if not tls.records.shaken:
            tls.hear(tls.records.shake_hands)
        end = partial(tls.records.say_end, self._talk.shutdown)
        tls.say(Giving(tls.records, b"", act=end))

    def pending(self) -> int:
        """How many bytes are decrypted and can be received at once."""
        return 0 if self._tls is None else self._tls.records.pending()

    def verify_client_post_handshake(self) -> None:
        """Ask a TLS 1.3 client for its certificate; it comes with what is received next."""
        tls = self._hidden()
        self._talk.verify_client_post_handshake()
        tls.say(Giving(tls.records, b"", act=self._talk.do_handshake))

    # --- waiting: data -------------------------------------------------------------------

    @overload  # type: ignore[override]  # typeshed does not know that with a buffer it is an int
    def read(self, len: int = 1024, buffer: None = None) -> bytes: ...

    @overload
    def read(self, len: int, buffer: WriteableBuffer) -> int: ...

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes | int:
        """Wait for at most `len` bytes, b"" at the end; with a buffer, how many."""
        if self._tls is None:
            raise ValueError("Read on closed or unwrapped SSL socket.")
        records = self._tls.records
        try:
            if buffer is None:
                return self._tls.hear(records.take, 0, index(len), asked=1)
            return self._tls.hear(records.take_into, buffer, index(len), asked=1)
        except _ssl.SSLEOFError:
            if not self.suppress_ragged_eofs:  # type: ignore[attr-defined]  # the stdlib's
                raise
            return b"" if buffer is None else 0

    def write(self, data: ReadableBuffer) -> int:
        """Wait until data is encrypted and sent; how many bytes: in blocking mode all."""
        if self._tls is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        return self._give(self._tls, data, self.gettimeout() is None)

    def _give(self, tls: Conversation, data: ReadableBuffer, whole: bool) -> int:
        if not tls.records.shaken:
            tls.hear(tls.records.shake_hands)
        giving = Giving(tls.records, data, whole)
        try:
            return tls.say(giving)
        except (TimeoutError, _ssl.SSLWantWriteError):
            if whole or not giving.sent:
                raise
            return giving.sent  # on its way: a caller who sends it again would send it twice

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Encrypt and send data; how many bytes: in blocking mode all."""
        if self._tls is None:
            return socket.send(self, data, flags)
        if flags != 0:
            refuse_flags("send", self)
        return self.write(data)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Encrypt and send all of the data; the timeout is for all of it together."""
        if self._tls is None:
            return socket.sendall(self, data, flags)
        if flags != 0:
            refuse_flags("sendall", self)
        self._give(self._tls, data, True)
        return None

    def sendfile(self, file: _SendableFile, offset: int = 0, count: int | None = None) -> int:
        """Send a file, or `count` bytes of it from `offset`; how many that was."""
        if self._tls is None:
            return socket.sendfile(self, file, offset, count)
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]  # the stdlib's own judge
        if not self._tls.records.shaken:
            self.do_handshake()
        return self._tls.say(GivingFile(self._tls.records, file, offset, count))

    def wait_readable(self) -> None:
        """Wait until a receive need not wait for the kernel; decrypted bytes count."""
        if self._tls is None:
            return socket.wait_readable(self)
        records = self._tls.records
        try:
            return self._complete(self._reading, 0, 0, records.await_readable)
        finally:
            records.let_writers_look()

    if TYPE_CHECKING:  # whom the stdlib's class tells less of addresses

        def connect(self, addr: AddressLike) -> None: ...

        def connect_ex(self, addr: AddressLike) -> int: ...

    # --- the end ----------------------------------------------------------------------------

    def _real_close(self, *args: Any) -> None:
        if self._tls is not None:
            self._tls.records.farewell(self._talk.shutdown)
        super()._real_close(*args)


class SSLObject(Legacy):
    """What `ssl` returns: TLS over a socket that stays its owner's, as in the old days.

    To end the connection, close the socket, not this object.
    """

    def __init__(self, sock: socket, context: _ssl.SSLContext, server_hostname: str | None) -> None:
        speech = Speech(context.wrap_bio, server_hostname=server_hostname)
        super().__init__(sock, speech.made)
        self._tls = Conversation(sock, speech)
        self._tls.hear(self._tls.records.shake_hands)

    def write(self, s: ReadableBuffer, /) -> int:
        """Wait until all of the bytes are encrypted and sent; how many that was."""
        self._must_be_open()
        return self._tls.say(Giving(self._tls.records, s))

    def read(self, n: int | None = None, /) -> bytes:
        """Wait for at least one byte and at most `n`; or all to the end without `n`.

        At the end `read(n)` raises `ssl.SSLZeroReturnError`, or `ssl.SSLEOFError` where the
        connection was cut.
        """
        self._must_be_open()
        if n is None:
            return self._read_all()
        if not (data := self._take(n)) and n:
            raise ended()
        return data

    def _read_all(self) -> bytes:
        pieces = list[bytes]()
        with suppress(_ssl.SSLEOFError):
            while piece := self._take(2**16):
                pieces.append(piece)
        return b"".join(pieces)

    def _take(self, size: int) -> bytes:
        return self._tls.hear(self._tls.records.take, 0, index(size), asked=1)


def ssl(
    sock: socket,
    keyfile: str | None = None,
    certfile: str | None = None,
    *,
    server_hostname: str | None = None,
) -> SSLObject:
    """Shake hands over a connected socket, and verify nothing: the manual's old call.

    Whoever sits between here and the server can read and change everything; that is what
    `InsecureWarning` says.  `socket.start_tls` verifies.  `keyfile` and `certfile` name PEM
    files of one's own key and certificate chain, both or neither.  `server_hostname` is sent
    to a server of many names.  The socket's timeout is for the handshake and each call.
    """
    context = legacy_context(sock, keyfile, certfile, server_hostname)
    return SSLObject(sock, context, server_hostname)


def _start_tls(
    sock: socket,
    context: _ssl.SSLContext,
    server_side: bool,
    server_hostname: str | None,
    session: _ssl.SSLSession | None,
    suppress_ragged_eofs: bool,
) -> SSLSocket:
    is_on = isinstance(sock, SSLSocket) and sock._tls is not None
    vet_start(sock, is_on, context, server_side, server_hostname, session)
    Speech(context.wrap_bio, server_side, server_hostname, session)  # a trial: _create detaches
    before = sock._reading.instead
    secure: SSLSocket = SSLSocket._create(  # type: ignore[attr-defined]  # the stdlib's
        sock, server_side, False, suppress_ragged_eofs, server_hostname, context, session
    )
    secure._attempts = sock._attempts
    inherit(sock, secure)
    try:
        secure._hidden().records.feed(before)
        secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


socket._start_tls = staticmethod(_start_tls)
