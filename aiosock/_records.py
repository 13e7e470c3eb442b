"""TLS as attempts: what an ssl object wants to read and to write, on a socket that never blocks.

Knows the stdlib's ssl objects and the two system calls beneath them; knows nothing of
loops, of waiting or of the public sockets.  Each attempt raises BlockingIOError to be made
again when its direction is ready, as a plain receive or send does.

The ssl object works on two memory BIOs, and the bytes pass through our hands.  On the
descriptor itself OpenSSL reads a record's head and body in two system calls and cannot tell
whether the kernel has more, so each record costs a third call that fails.  Through BIOs one
receive takes all there is, and a short one says that there is no more: measured, an echo of
1 KiB is 1.3 times as fast.  What is given up is TLS in the kernel.

An operation may need the other direction.  A reader who has something to say (a handshake's
flight, the answer to a key update) says it at once if the kernel takes it.  If not, a writer
at work says it first; with none, the reader is `Stuck` and has to write himself.  A writer
who has to listen (the peer negotiates anew) leaves that to a reader at work, who nudges him;
with none, he is stuck too.

What was encrypted is sent before anything else, whoever encrypted it: a record is never
given up half-way, and a cancelled sender's last one goes out with the next operation.  Nothing
is taken from a peer who lets more than OWED bytes wait: each may be a question to be answered.

One lock holds the order of bytes between the kernel and the ssl object when threads share
a socket; nobody waits while he holds it.
"""

import errno
import os
import select
import socket as _stdlib
import ssl as _ssl
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from operator import add, call, getitem
from typing import Any, Final, NoReturn

from ._advice import tell_text
from ._certificates import names
from ._deadline import NOW
from ._operations import MSG_NOSIGNAL, SendingFile, await_ready, keep
from ._readiness import Readiness, Stateful, bad_descriptor

__all__ = [
    "PLENTY",
    "Giving",
    "GivingFile",
    "InsecureWarning",
    "Legacy",
    "Records",
    "Speech",
    "Stuck",
    "as_client",
    "as_server",
    "ended",
    "inherit",
    "legacy_context",
    "nbytes",
    "refuse_flags",
    "vet_start",
    "want_read",
    "want_write",
]

SIZE: Final = 65536  # bytes taken from the kernel at once
PLENTY: Final = 2**62  # more than any answer: so much is asked of a socket that is read to the end
NOTHING: Final = memoryview(b"")
PIECE: Final = 65536  # bytes encrypted before the kernel is asked whether it takes them
OWED: Final = 2 * PIECE  # bytes: a piece, and a handshake's flight


class Stuck(Exception):  # noqa: N818  # a turn to take, no error
    """The operation goes on when the other direction has done something."""


class Speech:
    """An ssl object between two memory BIOs, before it meets a socket."""

    __slots__ = ("incoming", "made", "outgoing")

    def __init__(self, wrap: Callable[..., Any], *how: Any, **more: Any) -> None:
        """Made by `wrap` of a context: raises what is wrong with the arguments of that."""
        self.incoming, self.outgoing = _ssl.MemoryBIO(), _ssl.MemoryBIO()
        self.made = wrap(self.incoming, self.outgoing, *how, **more)


class Records:
    """Both ways of one TLS connection."""

    __slots__ = (
        "_acquire",
        "_flags",
        "_full",
        "_incoming",
        "_left",
        "_listens",
        "_outgoing",
        "_quietly",
        "_read",
        "_readiness",
        "_recv",
        "_release",
        "_reset",
        "_send",
        "_write",
        "lock",
        "more",
        "shaken",
        "starved",
        "talk",
        "unsent",
    )

    def __init__(self, sock: Any, readiness: Readiness, flags: int, speech: Speech) -> None:
        self._recv, self._send = sock.recv, sock.send
        self._flags, self._quietly = flags, flags | MSG_NOSIGNAL
        self._readiness = readiness
        self._incoming, self._outgoing = speech.incoming, speech.outgoing
        # An SSLObject's own methods only call those of its _sslobj.
        self.talk: Any = getattr(speech.made, "_sslobj", speech.made)
        self._read, self._write = self.talk.read, self.talk.write
        self.unsent: bytes | memoryview = NOTHING  # encrypted, and the kernel had no room for it
        self.starved = False  # a writer waits until a reader has heard something
        self._reset = False  # as a reader has yet to hear
        self._full = False  # the kernel may have more than it gave
        self._left = bytearray()  # decrypted before we said that nothing follows
        self.more = True  # there may be something to read without an event
        self.shaken = False
        self._listens = bool(self.talk.server_side)  # until something is heard nothing can be said
        self.lock = threading.RLock()
        self._acquire, self._release = self.lock.acquire, self.lock.release

    # --- between the kernel and the ssl object ----------------------------------------

    def feed(self, instead: Any) -> None:
        """What was taken from the connection before, and put back."""
        if instead is not None:
            self._incoming.write(instead.__self__.drain())

    def rest(self) -> bytes:
        """Bytes that follow the end of TLS, and are none of its records."""
        return self._incoming.read()

    def fill(self) -> None:
        """Take what the kernel has."""
        with self.lock:
            self._fill()

    def _fill(self) -> None:
        if self.unsent and len(self.unsent) + self._outgoing.pending > OWED:
            raise Stuck
        try:
            data = self._recv(SIZE, self._flags)
        except BlockingIOError:
            if self.unsent and not self._readiness.writing.line.busy:
                raise Stuck from None  # the peer may wait for it
            raise
        if data:
            self._incoming.write(data)
        elif self._reset:
            self._reset = False
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        else:
            self._incoming.write_eof()
        self._full = len(data) == SIZE
        if self.starved:
            self.let_writers_look()

    def fill_for_writer(self) -> None:
        """The same; what came beside that for which the writer waited is for a reader."""
        try:
            self.fill()
        except Stuck:
            raise BlockingIOError from None
        self.more = True

    def fill_for_reader(self) -> None:
        """The same, unless another reader who was stuck has done it."""
        if not (self.shaken and self.more):
            self.fill_for_writer()

    def flush(self) -> None:
        """Have the kernel take what is encrypted."""
        with self.lock:
            while True:  # with a condition, the jump back would not be within the ``with``
                if not (self.unsent or self._outgoing.pending):
                    return
                if not self.unsent:
                    keep(self, "unsent", map(memoryview, map(call, (self._outgoing.read,))))
                unsent = memoryview(self.unsent)
                sent = map(self._send, (unsent,), (self._quietly,))
                keep(self, "unsent", map(getitem, (unsent,), map(slice, sent, (None,))))

    def flush_for_reader(self) -> None:
        """The same.  A peer who cannot be told anything any more may have said something.

        The kernel tells of a reset once: a reader hears of it behind what was said.
        """
        try:
            self.flush()
        except BlockingIOError:
            raise
        except ConnectionResetError:
            self._reset = True
        except OSError:
            pass

    def flush_quietly(self) -> None:
        """As much as fits."""
        with suppress(OSError):
            self.flush_for_reader()

    def let_writers_look(self) -> None:
        """One may have left the reading to a reader, who has heard something, or goes."""
        if self.starved:
            self.starved = False
            for line in self._readiness.writing.lines():
                line.do(line.nudge)

    def let_readers_look(self) -> None:
        """A writer goes who has left something unsent."""
        if self.unsent:
            for line in self._readiness.reading.lines():
                line.do(line.nudge)

    # --- attempts of a reader ---------------------------------------------------------

    def take(self, asked: int, size: int) -> bytes:
        """At most `size` bytes, b"" at the end.  Signed as a receive, whose flags `size` is.

        What is `asked` of the kernel is not answered from what others have left: the engine
        would conclude that the kernel has no more.
        """
        read: Callable[..., bytes] = self._read
        self._acquire()  # what `with` does, at half the price
        try:
            if size < 1:
                return read(size)  # nothing, or refused
            if self.shaken and not self.more:  # a conversation: one receive brings one record
                self._fill()
                try:
                    data = read(size)
                except _ssl.SSLWantReadError:  # there was less than a record, or none of data
                    self._finish_saying()
                except _ssl.SSLError:
                    self.flush_quietly()
                    raise
                else:
                    self._note(len(data), size)
                    return data
            elif asked:
                raise Stuck
            taken: bytes = self._take_with_care(read, size)
            return taken
        finally:
            self._release()

    def take_into(self, buffer: Any, size: int) -> int:
        """The same, written to a buffer; how many bytes.  A size below 1 means all its room."""
        with self.lock:
            room = memoryview(buffer).nbytes
            wanted = min(size, room) if size > 0 else room
            got: int = self._take_with_care(self._read, wanted, buffer) if wanted else 0
            return got

    def _take_with_care(self, read: Callable[..., Any], size: int, *buffer: Any) -> Any:
        if not self.shaken:
            self.shake_hands()
        elif not self.more:
            self.fill()
        answer = self.converse(read, size, *buffer)
        self._note(answer if buffer else len(answer), size)
        return answer

    def _note(self, got: int, size: int) -> None:
        """After a read: whether more can be read, and whether there is something to say."""
        left = self._incoming.pending or self._full or (got == size and self.pending())
        self.more = bool(left) or not got  # at the end nothing has to be awaited
        if self._outgoing.pending:
            self.flush_quietly()

    def pending(self) -> int:
        """How many bytes are decrypted."""
        decrypted: int = self.talk.pending()
        return len(self._left) + decrypted

    def await_readable(self) -> None:
        """As a plain socket's, but for what has been received and not taken."""
        sock = self._recv.__self__
        if sock.fileno() < 0 or not (self.more or self.pending()):
            await_ready(sock, select.POLLIN)

    def shake_hands(self) -> None:
        if not self.shaken:
            if self._listens and not self._incoming.pending:
                self._finish_saying()
                self.fill()
            self.converse(self.talk.do_handshake)
            self._finish_saying()
            self.shaken = True
            self.more = bool(self._incoming.pending or self._full)  # data that came along

    def converse(self, act: Callable[..., Any], *args: Any) -> Any:
        """What the ssl object answers, when it has heard enough."""
        with self.lock:
            while True:
                try:
                    answer = act(*args)
                    break
                except _ssl.SSLWantReadError:
                    self.more, self._listens = False, True
                except _ssl.SSLError:
                    self._must_be_open()
                    self._listens = False  # to call again tells again
                    self.flush_quietly()  # the peer is told why
                    raise
                self._finish_saying()
                self.fill()
            return answer

    def _finish_saying(self) -> None:
        try:
            self.flush_for_reader()
        except BlockingIOError:
            if not self._readiness.writing.line.busy:
                raise Stuck from None

    # --- attempts of a writer ---------------------------------------------------------

    def give(self, data: Any, giving: Any) -> None:
        """Encrypt some of the data, after a `flush` of all before it, and count it as sent."""
        with self.lock:
            sent, before = giving.sent, self._outgoing.pending
            try:
                keep(giving, "sent", map(add, (giving.sent,), map(self._write, (data,))))
            except _ssl.SSLWantReadError:
                self.flush()
                self._leave_to_reader()
            except _ssl.SSLError:
                self._must_be_open()
                self.flush_quietly()
                raise
            except BaseException:  # of a signal handler: write() calls it when all is encrypted
                if giving.sent == sent and self._outgoing.pending > before:
                    giving.sent += len(data)
                raise

    def _must_be_open(self) -> None:
        """Or that is why the ssl object complains: `close` has ended TLS too."""
        if self._recv.__self__.fileno() < 0:
            raise bad_descriptor() from None

    def give_at_once(self, data: Any) -> int:
        """Encrypt and send a message that nothing holds up; how much of it is left to encrypt.

        The kernel may have left some of it: that is `unsent`.
        """
        size, given = nbytes(data), 0
        self._acquire()
        try:
            if self.unsent or not self.shaken or not 0 < size <= PIECE:
                return size
            given = self._write(data)
            self.unsent = unsent = self._outgoing.read()  # as `flush`, and two calls less
            sent = self._send(unsent, self._quietly)
            self.unsent = memoryview(unsent)[sent:] if sent < len(unsent) else NOTHING
        except (BlockingIOError, _ssl.SSLWantReadError):
            pass
        except OSError as error:
            error.bytes_sent = given  # type: ignore[attr-defined]  # ours, as documented
            self.flush_quietly()
            raise
        finally:
            self._release()
        return size - given

    def _leave_to_reader(self) -> None:
        if not self._readiness.reading.line.busy:
            raise Stuck from None
        self.starved = True
        raise BlockingIOError from None

    # --- the end ----------------------------------------------------------------------

    def say_end(self, shut: Callable[[], object]) -> None:
        """Say that nothing follows, after a `flush` of all before it, and go on hearing.

        The ssl object, told to end, listens for the peer's end at once, and fails for ever if it
        hears data: so what has come is taken from it before.
        """
        with suppress(_ssl.SSLError):  # a reader will hear of it
            while piece := self.talk.read(SIZE):
                self._left += piece
        with suppress(_ssl.SSLWantReadError):
            shut()
        self._read, self.more = self._read_on, True

    def _read_on(self, size: int, *buffer: Any) -> Any:
        """What the ssl object reads when we have said our end, behind what it had read before."""
        if not self._left:
            try:
                return self.talk.read(size, *buffer)
            except _ssl.SSLZeroReturnError:  # no error, it says while we may speak
                return 0 if buffer else b""
        piece = bytes(self._left[:size])
        for into in buffer:
            memoryview(into).cast("B")[: len(piece)] = piece
        del self._left[:size]
        return len(piece) if buffer else piece

    def part(self, shut: Callable[[], object]) -> None:
        """Say that nothing follows, and hear the same."""
        if self._left:
            raise _ssl.SSLError(_ssl.SSL_ERROR_SSL, "data that has come must be received before")
        self.converse(shut)
        self._finish_saying()

    def farewell(self, shut: Callable[[], object]) -> None:
        """Say that nothing follows, if the kernel takes it, and wait for no answer."""
        with self.lock, suppress(_ssl.SSLError, ValueError, OSError):
            if self.shaken:
                with suppress(_ssl.SSLWantReadError):
                    shut()
                self.flush()
                # A server's tickets, say: with anything not taken the kernel resets the
                # connection, and throws away what it has not sent yet.
                self._recv(SIZE, self._flags)


class Giving(Stateful):
    """Data encrypted and sent until all of it is.  What is raised carries ``bytes_sent``."""

    __slots__ = ("_act", "_data", "_records", "_whole", "sent")

    def __init__(
        self,
        records: Records,
        data: Any,
        whole: bool = True,
        sent: int = 0,
        act: Callable[[], object] | None = None,
    ) -> None:
        self._records, self._whole, self.sent = records, whole, sent
        self._act = act  # what is said without data
        try:
            self._data = memoryview(data).cast("B")
        except TypeError as error:
            tell_text(error, data)
            raise

    def __call__(self) -> int:
        records, data = self._records, self._data
        with records.lock:
            records.flush()  # what an attempt before this left
            if self._act:
                self._act()
            while True:  # as in `flush`
                if self.sent >= len(data) or (self.sent and not self._whole):
                    break
                records.give(data[self.sent : self.sent + PIECE], self)
                records.flush()
            records.flush()
        data.release()
        return self.sent

    def stopped(self, error: BaseException) -> None:
        if not isinstance(error, Stuck):
            error.bytes_sent = self.sent  # type: ignore[attr-defined]  # an attribute of ours, documented with sendall
            self._data.release()


class GivingFile(SendingFile):
    """A file read, encrypted and sent, from `offset` to its end or for `count` bytes."""

    def __init__(self, records: Records, file: Any, offset: int, count: int | None) -> None:
        self._records = records
        super().__init__(_Giver(records), file, offset, count)
        if self._fileno is not None:
            self._read_instead()

    def __call__(self) -> int:
        sent = super().__call__()
        self._records.flush()
        return sent

    def stopped(self, error: BaseException) -> None:
        if not isinstance(error, Stuck):
            super().stopped(error)


class _Giver:
    """Looks like a socket that has no descriptor."""

    def __init__(self, records: Records) -> None:
        self._records, self.sent = records, 0

    def send(self, data: Any, flags: int) -> int:
        self._records.flush()
        self.sent = 0
        self._records.give(data, self)
        return self.sent


# --- what both faces say of TLS -------------------------------------------------------------


class InsecureWarning(UserWarning):
    """A connection was made whose peer nobody has verified."""


def as_client(ssl: Any, server_hostname: str | None) -> _ssl.SSLContext | None:
    """The context that `create_connection` is asked for; True means the default one."""
    if not ssl and server_hostname is not None:
        raise ValueError("server_hostname is only meaningful with ssl")
    if not isinstance(ssl, _ssl.SSLContext | bool | None):
        raise TypeError(f"ssl must be an ssl.SSLContext or a bool, not {type(ssl).__name__!r}")
    return _ssl.create_default_context() if ssl is True else ssl or None


def as_server(ssl: Any) -> _ssl.SSLContext | None:
    """The context that `create_server` is asked for: one with a certificate of its own."""
    if not (ssl is None or isinstance(ssl, _ssl.SSLContext)):
        raise TypeError(f"ssl must be an ssl.SSLContext, not {type(ssl).__name__!r}")
    return ssl


def inherit(sock: Any, heir: Any) -> None:
    """The connection is another object's: known to who has to close it."""
    if sock._heirs is not None:
        sock._heirs.append(heir)
        heir._heirs = []


def vet_start(sock: Any, is_on: bool, *how: Any) -> None:
    """Refuse to start TLS where it cannot be, while the socket is still what it was."""
    vet(sock, *how)
    if is_on:
        raise ValueError("TLS has been started on this socket: unwrap() ends it")
    if sock._io_refs:
        raise ValueError(
            "a file of this socket is open, which may have read ahead or not sent all: close it "
            "before; what is said before TLS is best read by recv(), or by a file with buffering=0"
        )
    sock.getpeername()
    if sock.gettimeout() == NOW:
        raise ValueError("a non-blocking socket cannot wait for a handshake: set a timeout before")


def vet(sock: Any, context: Any, server_side: bool, server_hostname: Any, session: Any) -> None:
    """Refuse what no handshake can be made of."""
    if not isinstance(context, _ssl.SSLContext):
        raise TypeError(f"context must be an ssl.SSLContext, not {type(context).__name__!r}")
    if server_side and server_hostname:
        raise ValueError("server_hostname can only be specified in client mode")
    if server_side and session is not None:
        raise ValueError("session can only be specified in client mode")
    if context.check_hostname and not server_hostname:
        raise ValueError("check_hostname requires server_hostname")
    if sock.type != _stdlib.SOCK_STREAM:
        raise NotImplementedError("only stream sockets are supported")


def legacy_context(
    sock: Any, keyfile: str | None, certfile: str | None, server_hostname: str | None
) -> _ssl.SSLContext:
    """What the manual's ssl() shakes hands with: any certificate will do, and a warning says so."""
    if (keyfile is None) != (certfile is None):
        raise _ssl.SSLError("Both the key & certificate files must be specified")
    context = _ssl.SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, _ssl.CERT_NONE
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile)
    vet(sock, context, False, server_hostname, None)
    sock.getpeername()
    warnings.warn(
        "ssl() verifies no certificate; socket.start_tls() does", InsecureWarning, stacklevel=3
    )
    return context


class Legacy:
    """What the manual's SSL objects are on both faces."""

    def __init__(self, sock: Any, talk: _ssl.SSLObject) -> None:
        self._sock, self._talk = sock, talk

    def server(self) -> str:
        """The distinguished name of the server's certificate, as ``/C=US/.../CN=name``."""
        return self._names()[0]

    def issuer(self) -> str:
        """The distinguished name of who issued the server's certificate."""
        return self._names()[1]

    def _names(self) -> tuple[str, str]:
        certificate = self._talk.getpeercert(binary_form=True)
        return names(certificate) if certificate else ("", "")

    def _must_be_open(self) -> None:
        if self._sock.fileno() < 0:
            raise _ssl.SSLError("Underlying socket has been closed.")


def ended() -> _ssl.SSLZeroReturnError:
    return _ssl.SSLZeroReturnError(_ssl.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed")


def nbytes(data: Any) -> int:
    try:
        return len(data) if type(data) is bytes else memoryview(data).nbytes
    except TypeError as error:
        tell_text(error, data)
        raise


def refuse_flags(name: str, sock: object) -> NoReturn:
    raise ValueError(f"non-zero flags not allowed in calls to {name}() on {type(sock)}")


def want_read() -> _ssl.SSLWantReadError:
    return _ssl.SSLWantReadError(_ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")


def want_write(error: BlockingIOError) -> _ssl.SSLWantWriteError:
    """The same for a writer, who tells how far he got."""
    told = _ssl.SSLWantWriteError(
        _ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"
    )
    told.bytes_sent = error.bytes_sent  # type: ignore[attr-defined]  # ours, as documented
    return told
