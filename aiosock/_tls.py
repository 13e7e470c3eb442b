"""The same socket after a handshake: TLS with await, and the old ssl() with its SSL objects.

Knows the awaitable socket, the records beneath it and the stdlib's ssl contexts.  The wait
loop is the engine's; what stands here is which attempt is made in which direction.

Nothing verifies less than the context says.  A handshake runs when `start_tls` asks for it,
or with the first call on an accepted connection: never in `accept`, which a silent client
would hold up.  The end of the stream is honest: a connection cut without close_notify
raises `ssl.SSLEOFError`, as whoever cuts it may have cut the data too.
"""

from __future__ import annotations

import asyncio
import socket as _stdlib
import ssl as _ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Literal, Never, NoReturn, Self, TypeVar, overload

from ._addresses import AddressLike
from ._deadline import NOW
from ._operations import Leftover
from ._readiness import BUDGET, Readiness
from ._records import (
    PLENTY,
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
    nbytes,
    refuse_flags,
    vet_start,
    want_read,
    want_write,
)
from ._socket import Address, Awaited, socket

if TYPE_CHECKING:
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["InsecureWarning", "SSLListener", "SSLObject", "SSLSocket", "ssl"]

T = TypeVar("T")


class Conversation:
    """How TLS is spoken on one socket: which attempt is made in which direction."""

    __slots__ = ("_readiness", "records")

    def __init__(self, sock: _stdlib.socket, readiness: Readiness, speech: Speech) -> None:
        self.records = Records(sock, readiness, 0, speech)
        self._readiness = readiness

    async def hear(self, deadline: float | None, attempt: Callable[..., T], *args: Any) -> T:
        """The result of a reader's attempt."""
        readiness = self._readiness
        try:
            while True:
                try:
                    return await readiness.reading.complete(deadline, 0, attempt, *args)
                except Stuck:
                    await self._flush_or_fill(deadline)
        except BlockingIOError:
            raise want_read() from None
        finally:
            self.records.let_writers_look()

    async def say(self, deadline: float | None, attempt: Giving | GivingFile) -> int:
        """The result of a writer's attempt."""
        readiness = self._readiness
        try:
            while True:
                try:
                    return await readiness.writing.complete(deadline, 0, attempt)
                except Stuck:
                    await readiness.reading.complete(deadline, 0, self.records.fill_for_writer)
        except BlockingIOError as error:
            attempt.stopped(error)
            raise want_write(error) from None
        except BaseException as error:
            attempt.stopped(error)
            self.records.let_readers_look()
            raise

    async def _flush_or_fill(self, deadline: float | None) -> None:
        """Await that something goes out or comes in: the peer may take nothing before we do."""
        if deadline == NOW:
            self.records.flush()
            raise BlockingIOError
        ways = (
            (self._readiness.writing, self.records.flush_for_reader),
            (self._readiness.reading, self.records.fill_for_reader),
        )
        turns = [asyncio.ensure_future(way.complete(deadline, 0, act)) for way, act in ways]
        try:
            await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for turn in turns:
                turn.cancel()
            ended = await asyncio.gather(*turns, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error


class SSLSocket(socket):
    """A socket whose bytes go through TLS; made by `socket.start_tls`, never directly.

    It has all methods of a socket.  Those of datagrams and messages are refused, as the
    stdlib's SSLSocket refuses them, and flags must be 0.  In non-blocking mode what would
    wait raises `ssl.SSLWantReadError` or `ssl.SSLWantWriteError`.  A cancelled or late
    receive has taken nothing; a cancelled or late send tells in ``bytes_sent`` how much was
    encrypted: that goes out before anything else, with the next call.

    `close` says to the peer that nothing follows, if the kernel takes it, and never waits.

    `server_side`, `server_hostname` and `suppress_ragged_eofs` are what `start_tls` was given.
    """

    __slots__ = (
        "_context",
        "_session",
        "_talk",
        "_tls",
        "server_hostname",
        "server_side",
        "suppress_ragged_eofs",
    )

    _context: _ssl.SSLContext
    _session: _ssl.SSLSession | None
    _talk: _ssl.SSLObject | None
    _tls: Conversation | None
    server_hostname: str | None
    server_side: bool
    suppress_ragged_eofs: bool

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("SSLSocket has no public constructor; use socket.start_tls()")

    @classmethod
    def _over(
        cls,
        sock: socket,
        context: _ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        session: _ssl.SSLSession | None,
        suppress_ragged_eofs: bool,
    ) -> Self:
        """In the place of a plain socket, which is closed then; no byte is exchanged yet."""
        speech = Speech(context.wrap_bio, server_side, server_hostname, session)
        self = cls.__new__(cls)
        timeout, before = sock._timeout, sock._reading.instead
        self._hold(sock._readiness.end(partial(moved, sock)))
        self._timeout, self._attempts = timeout, sock._attempts
        self._context, self._session = context, session
        self.server_side, self.server_hostname = server_side, server_hostname
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._talk, self._tls = speech.made, Conversation(self._sock, self._readiness, speech)
        self._tls.records.feed(before)
        inherit(sock, self)
        return self

    def _hidden(self) -> Conversation:
        if self._tls is None:
            raise ValueError(f"No SSL wrapper around {self!r}")
        return self._tls

    # --- waiting: the handshake and its end ---------------------------------------------

    async def do_handshake(self, block: bool = False) -> None:
        """Await the handshake; at once if it has been made.

        Raises `ssl.SSLError`, of which `ssl.SSLCertVerificationError` says what the peer's
        certificate lacks.  With `block` it waits in non-blocking mode too.  After a failed,
        late or cancelled one the connection is good for nothing but to be closed.
        """
        tls = self._hidden()
        deadline = None if block and self._timeout == NOW else self._deadline()
        await tls.hear(deadline, tls.records.shake_hands)

    async def unwrap(self) -> Self:
        """Await the end of TLS on both sides; this very socket, which is plain then.

        Says close_notify and awaits the peer's.  Bytes that follow that are received next.
        A cancelled or late call may be repeated, and until then nothing can be sent.
        """
        tls, talk = self._hidden(), self._with_talk()
        await tls.hear(self._deadline(), tls.records.part, talk.unwrap)
        self._tls, self._talk = None, None
        if rest := tls.records.rest():
            self._reading.put_back(Leftover(self._sock, rest, None).instead)
        return self

    async def send_eof(self) -> None:
        """Await that the peer is told that nothing follows (close_notify), and go on receiving.

        From then on nothing can be sent.  In TLS 1.3 the peer may still send; in TLS 1.2 he is to
        end the connection, and may drop what he was about to say.  A cancelled or late call may be
        repeated.
        """
        tls, talk = self._hidden(), self._with_talk()
        await self._shake(tls)
        end = partial(tls.records.say_end, talk.unwrap)
        await tls.say(self._deadline(), Giving(tls.records, b"", act=end))

    async def verify_client_post_handshake(self) -> None:
        """Await that a TLS 1.3 client is asked for its certificate.

        It comes with what is received next.
        """
        tls, talk = self._hidden(), self._with_talk()
        talk.verify_client_post_handshake()
        await tls.say(self._deadline(), Giving(tls.records, b"", act=tls.records.talk.do_handshake))

    # --- waiting: data -------------------------------------------------------------------

    async def recv(self, bufsize: int = 1024, flags: int = 0, /) -> bytes:
        """Await data: at least one byte and at most `bufsize`, b"" when the peer has ended TLS.

        Raises `ssl.SSLEOFError` when the connection ends without that.
        """
        tls = self._tls
        if tls is None:
            return await super().recv(bufsize, flags)
        if flags != 0:
            refuse_flags("recv", self)
        records = tls.records
        try:
            hasty = records.more or records.unsent or self._timeout is not None
            if hasty or self._reading.line.busy or type(bufsize) is not int or bufsize < 1:
                return await tls.hear(self._deadline(), records.take, 0, index(bufsize))
            try:
                return await self._reading.next_piece(PLENTY, records.take, bufsize)
            except Stuck:
                return await tls.hear(None, records.take, 0, bufsize)
        except _ssl.SSLEOFError:
            if self.suppress_ragged_eofs:
                return b""
            raise
        finally:
            if records.starved:
                records.let_writers_look()

    async def recv_into(
        self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0
    ) -> int:
        """Await data and write it to `buffer`; how many bytes.  Otherwise as `recv`."""
        tls = self._tls
        if tls is None:
            return await super().recv_into(buffer, nbytes or 0, flags)
        if flags != 0:
            refuse_flags("recv_into", self)
        try:
            take_into, size = tls.records.take_into, index(nbytes or 0)
            return await tls.hear(self._deadline(), take_into, buffer, size)
        except _ssl.SSLEOFError:
            if self.suppress_ragged_eofs:
                return 0
            raise

    @overload
    async def read(self, len: int = 1024, buffer: None = None) -> bytes: ...

    @overload
    async def read(self, len: int, buffer: WriteableBuffer) -> int: ...

    async def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes | int:
        """As `recv`, or with a buffer as `recv_into`: bytes, or how many."""
        if self._tls is None:
            raise ValueError("Read on closed or unwrapped SSL socket.")
        if buffer is not None:
            return await self.recv_into(buffer, len)
        return await self.recv(len)

    async def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Await that data is encrypted and sent; how many bytes of it: in blocking mode all."""
        if self._tls is None:
            return await super().send(data, flags)
        if flags != 0:
            refuse_flags("send", self)
        left = self._give_at_once(self._tls.records, data)
        if left is None:
            return nbytes(data)
        return await self._give(self._tls, data, left, self._timeout is None)

    async def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Await until all of `data` is encrypted and sent; the timeout is for all of it."""
        if self._tls is None:
            return await super().sendall(data, flags)
        if flags != 0:
            refuse_flags("sendall", self)
        left = self._give_at_once(self._tls.records, data)
        if left is not None:
            await self._give(self._tls, data, left, True)
        return None

    async def write(self, data: ReadableBuffer) -> int:
        """As `send`."""
        if self._tls is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        return await self.send(data)

    def _give_at_once(self, records: Records, data: ReadableBuffer) -> int | None:
        """How much could not be encrypted at once; None, as nearly always, if all is gone."""
        sending = self._sending
        if sending.line.busy or sending.spent[0] >= BUDGET:
            return nbytes(data)
        left = records.give_at_once(data)
        if left or records.unsent:
            return left
        sending.spent[0] += 1
        return None

    async def _give(self, tls: Conversation, data: ReadableBuffer, left: int, whole: bool) -> int:
        """Encrypt and send what is left."""
        await self._shake(tls)
        giving = Giving(tls.records, data, whole, nbytes(data) - left)
        try:
            return await tls.say(self._deadline(), giving)
        except (TimeoutError, _ssl.SSLWantWriteError):
            if whole or not giving.sent:
                raise
            return giving.sent  # on its way: a caller who sends it again would send it twice

    async def _shake(self, tls: Conversation) -> None:
        """The handshake, made by whoever comes first: a writer cannot leave it to a reader."""
        if not tls.records.shaken:
            await tls.hear(self._deadline(), tls.records.shake_hands)

    async def sendfile(self, file: _SendableFile, offset: int = 0, count: int | None = None) -> int:
        """Await until a file, or `count` bytes of it from `offset`, is encrypted and sent."""
        tls = self._tls
        if tls is None:
            return await super().sendfile(file, offset, count)
        self._sock._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]  # the stdlib's own judge
        await self._shake(tls)
        return await tls.say(self._deadline(), GivingFile(tls.records, file, offset, count))

    async def wait_readable(self) -> None:
        """Await that a receive need not wait for the kernel; decrypted bytes count."""
        if self._tls is None:
            return await super().wait_readable()
        records = self._tls.records
        try:
            return await self._reading.complete(self._deadline(), 0, records.await_readable)
        finally:
            records.let_writers_look()

    # --- what TLS refuses ------------------------------------------------------------------

    def recvfrom(self, bufsize: int = 1024, flags: int = 0, /) -> Awaited[tuple[bytes, Address]]:
        """ValueError, as with the stdlib's; TLS has no datagrams."""
        self._must_be_plain("recvfrom")
        return super().recvfrom(bufsize, flags)

    def recvfrom_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> Awaited[tuple[int, Address]]:
        """ValueError, as with the stdlib's; TLS has no datagrams."""
        self._must_be_plain("recvfrom_into")
        return super().recvfrom_into(buffer, nbytes, flags)

    @overload
    def sendto(self, data: ReadableBuffer, address: AddressLike, /) -> Awaited[int]: ...

    @overload
    def sendto(self, data: ReadableBuffer, flags: int, address: AddressLike, /) -> Awaited[int]: ...

    def sendto(self, *args: Any) -> Awaited[int]:
        """ValueError, as with the stdlib's; TLS has no datagrams."""
        self._must_be_plain("sendto")
        return super().sendto(*args)

    def _must_be_plain(self, name: str) -> None:
        if self._tls is not None:
            raise ValueError(f"{name} not allowed on instances of {type(self)}")

    def recvmsg(self, *args: Never) -> NoReturn:  # type: ignore[override]  # so that a call is refused
        """NotImplementedError: a message would go around TLS."""
        raise NotImplementedError(f"recvmsg not allowed on instances of {type(self)}")

    def recvmsg_into(self, *args: Never) -> NoReturn:  # type: ignore[override]  # so that a call is refused
        """NotImplementedError: a message would go around TLS."""
        raise NotImplementedError(f"recvmsg_into not allowed on instances of {type(self)}")

    def sendmsg(self, *args: Never) -> NoReturn:  # type: ignore[override]  # so that a call is refused
        """NotImplementedError: a message would go around TLS."""
        raise NotImplementedError(f"sendmsg not allowed on instances of {type(self)}")

    def dup(self) -> NoReturn:
        """NotImplementedError: two objects cannot share the state of one TLS connection."""
        raise NotImplementedError(f"Can't dup() {type(self).__name__} instances")

    # --- the end -----------------------------------------------------------------------------

    def _real_close(self) -> None:
        """Say close_notify if the kernel takes it, and close.  Never waits."""
        if self._tls is not None and self._talk is not None and self.fileno() >= 0:
            self._tls.records.farewell(self._talk.unwrap)
        super()._real_close()
        self._tls, self._talk = None, None

    def shutdown(self, how: int, /) -> None:
        """Shut the connection beneath TLS down: TLS is over, without close_notify."""
        self._tls, self._talk = None, None
        super().shutdown(how)

    # --- what the handshake found ------------------------------------------------------------

    def _with_talk(self) -> _ssl.SSLObject:
        if self._talk is None:
            raise ValueError(f"No SSL wrapper around {self!r}")
        return self._talk

    @property
    def context(self) -> _ssl.SSLContext:
        """The context in use; an SNI callback may set another."""
        return self._context if self._talk is None else self._talk.context

    @context.setter
    def context(self, context: _ssl.SSLContext) -> None:
        self._with_talk().context = context
        self._context = context

    @property
    def session(self) -> _ssl.SSLSession | None:
        """The session, to be given to `start_tls` of another connection."""
        return None if self._talk is None else self._talk.session

    @session.setter
    def session(self, session: _ssl.SSLSession) -> None:
        self._with_talk().session = session

    @property
    def session_reused(self) -> bool | None:
        """Whether an earlier session was taken up."""
        return None if self._talk is None else self._talk.session_reused

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...

    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The peer's certificate: a dict, ``{}`` unless it was verified; or its DER form."""
        return self._with_talk().getpeercert(binary_form)

    def cipher(self) -> tuple[str, str, int] | None:
        """(name, protocol version, secret bits) of the cipher in use."""
        return None if self._talk is None else self._talk.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """What the client offered and this server knows."""
        return None if self._talk is None else self._talk.shared_ciphers()

    def compression(self) -> str | None:
        """The compression in use, None where there is none."""
        return None if self._talk is None else self._talk.compression()

    def version(self) -> str | None:
        """The protocol version in use, as "TLSv1.3"; None before the handshake."""
        return None if self._talk is None else self._talk.version()

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that ALPN has chosen."""
        return None if self._talk is None else self._talk.selected_alpn_protocol()

    def selected_npn_protocol(self) -> None:
        """None; NPN is no more."""
        warnings.warn("ssl NPN is deprecated, use ALPN instead", DeprecationWarning, stacklevel=2)

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Bytes that name this one connection."""
        return self._with_talk().get_channel_binding(cb_type)

    def pending(self) -> int:
        """How many bytes are decrypted and can be received at once."""
        return 0 if self._tls is None else self._tls.records.pending()

    if hasattr(_ssl.SSLObject, "get_verified_chain"):

        def get_verified_chain(self) -> list[bytes]:
            """The chain that was verified, each certificate in DER."""
            chain: list[bytes] = self._with_talk().get_verified_chain()  # type: ignore[attr-defined,unused-ignore]  # since 3.13
            return chain

        def get_unverified_chain(self) -> list[bytes]:
            """What the peer has sent, each certificate in DER."""
            chain: list[bytes] = self._with_talk().get_unverified_chain()  # type: ignore[attr-defined,unused-ignore]  # since 3.13
            return chain


class SSLListener(socket):
    """A listening socket whose connections speak TLS; made by `create_server`.

    A connection is handed out before its handshake, which its first receive or send makes, or
    `do_handshake`: a client that stays silent holds up nobody but its own task.
    """

    __slots__ = ("_context",)

    _context: _ssl.SSLContext

    @classmethod
    def _over(cls, sock: socket, context: _ssl.SSLContext) -> Self:
        self = cls.__new__(cls)
        timeout = sock._timeout
        self._hold(sock._readiness.end(partial(moved, sock)))
        self._timeout, self._context = timeout, context
        return self

    def _accept_one(self) -> tuple[SSLSocket, Address]:
        conn, address = super()._accept_one()
        return SSLSocket._over(conn, self._context, True, None, None, False), address

    if TYPE_CHECKING:

        async def accept(self) -> tuple[SSLSocket, Address]: ...


class SSLObject(Legacy):
    """What `ssl` returns: TLS over a socket that stays its owner's, as in the old days.

    To end the connection, close the socket, not this object.
    """

    def __init__(self, sock: socket, context: _ssl.SSLContext, server_hostname: str | None) -> None:
        speech = Speech(context.wrap_bio, server_hostname=server_hostname)
        super().__init__(sock, speech.made)
        self._tls = Conversation(sock._sock, sock._readiness, speech)

    async def write(self, s: ReadableBuffer, /) -> int:
        """Await until all of the bytes are encrypted and sent; how many that was.

        Whatever is raised instead tells in ``bytes_sent`` how many were encrypted.
        """
        self._must_be_open()
        return await self._tls.say(self._sock._deadline(), Giving(self._tls.records, s))

    async def read(self, n: int | None = None, /) -> bytes:
        """Await at least one byte and at most `n`; or all to the end of the stream without `n`.

        At the end `read(n)` raises `ssl.SSLZeroReturnError`, or `ssl.SSLEOFError` where the
        connection was cut.  A cancelled ``read()`` loses what it has read.
        """
        self._must_be_open()
        if n is None:
            return await self._read_all()
        if not (data := await self._take(n)) and n:
            raise ended()
        return data

    async def _read_all(self) -> bytes:
        pieces = list[bytes]()
        with suppress(_ssl.SSLEOFError):
            while piece := await self._take(2**16):
                pieces.append(piece)
        return b"".join(pieces)

    async def _take(self, size: int) -> bytes:
        tls = self._tls
        return await tls.hear(self._sock._deadline(), tls.records.take, 0, index(size))

    async def _shake(self) -> None:
        await self._tls.hear(self._sock._deadline(), self._tls.records.shake_hands)


def ssl(
    sock: socket,
    keyfile: str | None = None,
    certfile: str | None = None,
    *,
    server_hostname: str | None = None,
) -> Awaited[SSLObject]:
    """Await a TLS handshake over a connected socket, and verify nothing: the manual's old call.

    Whoever sits between here and the server can read and change everything; that is what
    `InsecureWarning` says.  `socket.start_tls` verifies.  `keyfile` and `certfile` name PEM
    files of one's own key and certificate chain, both or neither.  `server_hostname` is sent
    to a server of many names.  The socket's timeout is for the handshake and each call.
    """
    context = legacy_context(sock, keyfile, certfile, server_hostname)  # warns of the caller's line
    return _shaken(SSLObject(sock, context, server_hostname))


async def _shaken(made: SSLObject) -> SSLObject:
    await made._shake()
    return made


_shaken.__qualname__ = "ssl"  # which Python says was never awaited


def moved(sock: socket) -> _stdlib.socket:
    """Another object for the descriptor, which it takes with it."""
    proto = sock.proto
    return _stdlib.socket(sock._family, sock._kind, proto, fileno=sock._sock.detach())


async def _start_tls(
    sock: socket,
    context: _ssl.SSLContext,
    server_side: bool,
    server_hostname: str | None,
    session: _ssl.SSLSession | None,
    suppress_ragged_eofs: bool,
) -> SSLSocket:
    is_on = isinstance(sock, SSLSocket) and sock._tls is not None
    vet_start(sock, is_on, context, server_side, server_hostname, session)
    secure = SSLSocket._over(
        sock, context, server_side, server_hostname, session, suppress_ragged_eofs
    )
    try:
        await secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


socket._start_tls = staticmethod(_start_tls)
