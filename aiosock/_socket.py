"""The awaitable socket: a method per documented method, most of them one line.

Knows the stdlib's socket, which it holds, and the engine, to which it hands the stdlib's
methods as attempts; knows nothing of loops or of how one waits.  It holds a socket and
is none: as a subclass it would break every promise that it inherits.

The descriptor underneath is non-blocking in every mode; the mode itself lives here.
Where the kernel of a blocking descriptor would go on until all is done (send, sendmsg,
MSG_WAITALL on a stream), so does the operation here.
"""

from __future__ import annotations

import errno
import os
import select
import socket as _stdlib
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    Self,
    SupportsIndex,
    TypeVar,
    overload,
)

from ._addresses import AddressLike
from ._advice import explain, tell_closed, tell_shape
from ._datagrams import ROOMY, SendingMany, receive_many, receiving_many
from ._deadline import NOW, as_blocking, as_timeout, deadline_after
from ._files import BinaryFile, RawFile, TextFile, file_of
from ._names import looking_up, needs_lookup, numeric_address
from ._operations import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    NO_FLAGS,
    SHOWING_ALL,
    SIGNALLING,
    Sending,
    SendingFile,
    SendingMessage,
    again,
    await_ready,
    connect,
    has,
    receiving,
    room_of,
)
from ._race import Attempt
from ._readiness import BUDGET, Readiness, bad_descriptor

if TYPE_CHECKING:
    from socket import _SendableFile
    from ssl import SSLContext, SSLSession

    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._tls import SSLSocket

__all__ = ["from_stdlib_socket", "socket", "taken_over"]

T = TypeVar("T")
S = TypeVar("S", bound="socket")
Awaited = Coroutine[Any, Any, T]
BinaryMode = Literal["b", "rb", "br", "wb", "bw", "rwb", "rbw", "wrb", "wbr", "brw", "bwr"]
TextMode = Literal["", "r", "w", "rw", "wr"]
Address = Any  # as it is told: its shape depends on the family; AF_INET: (host, port)

MOST: Final = sys.maxsize
STREAM: Final = int(_stdlib.SOCK_STREAM)
BACKLOG: Final = min(_stdlib.SOMAXCONN, 128)


class socket:
    """A socket whose calls are awaited where they may wait.

    ``socket(family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None)``, as in the stdlib's
    module.  A descriptor given as `fileno` is taken over, and made non-blocking.

    Three modes, set by `settimeout` and `setblocking`: blocking (the task waits, the
    loop goes on), timeout (TimeoutError when so many seconds have passed) and
    non-blocking (BlockingIOError at once).  In all three a cancelled call has taken
    nothing from the socket, unless its description says how it tells what it has done.

    Several tasks may wait for one socket: in each direction they are served in order,
    one operation after the other.  `close` wakes them with OSError(EBADF).  A waiting task
    is kept alive by the wait, and its socket with it.

    A socket belongs to no loop: it may be used in one after the other, and in those of
    several threads.  Works in ``with`` and in ``async with``.
    """

    __slots__ = (
        "__weakref__",
        "_attempts",
        "_family",
        "_heirs",
        "_io_refs",
        "_kind",
        "_nosignal",
        "_readiness",
        "_reading",
        "_recv",
        "_send",
        "_sending",
        "_shows_all",
        "_shut",
        "_sock",
        "_stream",
        "_timeout",
    )

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: SupportsIndex | None = None
    ) -> None:
        self._hold(_stdlib.socket(family, type, proto, fileno))  # type: ignore[arg-type]  # the C class beneath takes any index

    def _hold(self, sock: _stdlib.socket) -> None:
        self._timeout = sock.gettimeout()
        self._io_refs, self._shut = 0, False
        self._heirs: list[socket] | None = None  # whose the connection is now, where that counts
        self._attempts: tuple[Attempt, ...] = ()
        sock.setblocking(False)
        self._sock = sock
        plain: Any = super(_stdlib.socket, sock)  # numbers; to make enums of them costs more
        self._family, self._kind = plain.family, plain.type
        self._stream = self._kind == STREAM
        self._shows_all = self._stream and self._family in SHOWING_ALL
        self._nosignal = MSG_NOSIGNAL if self._family in SIGNALLING else 0
        self._readiness = readiness = Readiness(sock)
        # Kept at hand for the calls that are made most: to look them up costs a tenth of these.
        self._recv, self._send, self._reading = sock.recv, sock.send, readiness.reading
        # poll() calls an AF_UNIX socket writable although the receiver's queue is full.
        silent = self._family == AF_UNIX and not self._stream
        self._sending = readiness.pausing if silent else readiness.writing

    # --- waiting: connections -------------------------------------------------------

    async def accept(self) -> tuple[socket, Address]:
        """Await a connection; a pair of its socket and the address of its other end.

        The new socket has the default timeout and is not inheritable.  A cancelled or
        late call has accepted nothing: the connection stays in the queue.
        """
        return await self._reading.complete(self._deadline(), 0, self._accept_one)

    def _accept_one(self) -> tuple[socket, Address]:
        # accept() would make an object to be thrown away.
        fd, address = self._sock._accept()  # type: ignore[attr-defined]  # the stdlib's
        return taken_over(socket, self._family, self._kind, self.proto, fd), address

    async def bind(self, address: AddressLike, /) -> None:
        """Bind to an address.  Awaits the lookup of a host name, and nothing else.

        Raises OSError, of an address in use or not of this host, and `gaierror`.  A cancelled
        call has not bound the socket.
        """
        try:
            self._sock.bind(await self._numeric("bind", address, None))
        except TypeError as error:
            tell_shape(error, self._family, address)
            raise
        except OSError as error:
            tell_closed(error, self._sock)
            raise

    async def connect(self, address: AddressLike, /) -> None:
        """Await a connection to `address`; a host name is looked up off the loop.

        The first address of a name is taken, as in the stdlib.  The timeout bounds the
        lookup and the connection together (in the stdlib the connection alone).  Raises
        OSError (ConnectionRefusedError and the like), `gaierror` and TimeoutError.  After a
        cancelled or late call the socket is half connected: close it.
        """
        error = await self._connect("connect", address)
        if error:
            raise tell_closed(OSError(error, os.strerror(error)), self._sock)

    async def connect_ex(self, address: AddressLike, /) -> int:
        """Await as `connect` does, but return the errno of connect(2): 0, or EAGAIN when late.

        Errors of other kinds (an unknown host, a port out of range) are still raised.
        """
        try:
            return await self._connect("connect_ex", address)
        except TimeoutError:
            return errno.EAGAIN

    async def _connect(self, call: str, address: Address) -> int:
        deadline = self._deadline()
        address = await self._numeric(call, address, deadline)
        begin, blocking = getattr(self._sock, call), deadline is None
        return await connect(self._readiness, self._sock, deadline, begin, address, blocking)

    async def _numeric(
        self, call: str, address: Address, deadline: float | None, *data: Any
    ) -> Address:
        if not needs_lookup(self._family, address):
            return address
        lookup = numeric_address(self._sock, call, address, *data)
        with looking_up(address[0]):
            return await self._readiness.errand(lookup, deadline)

    # --- waiting: receiving ---------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> Awaited[bytes]:
        """Await data: at least one byte and at most `bufsize`, b"" at the end of the stream.

        A cancelled or late call has taken nothing.  MSG_WAITALL in blocking mode waits for
        all of it; what a cancelled one had gathered comes first in this object's next call
        (other descriptors of the connection do not see it any more).  Unlike the stdlib's,
        MSG_TRUNC never gives more than `bufsize` bytes.
        """
        if flags is not NO_FLAGS or type(bufsize) is not int or not 0 < bufsize <= MOST:
            return self._receive(bufsize, flags, "recv", bufsize, flags)
        if self._timeout is None and self._shows_all:
            return self._reading.next_piece(bufsize, self._recv, 0)
        asked = bufsize if self._shows_all else 0
        deadline = self._timeout and deadline_after(self._timeout)
        return self._reading.complete(deadline, asked, self._recv, bufsize)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> Awaited[int]:
        """Await data and write it to `buffer`; how many bytes, 0 at the end of the stream.

        At most `nbytes`, or as many as the buffer holds.  The buffer is written to, and
        held, only in the moment of the system call: never after a cancelled or late call.
        """
        room = len(buffer) if isinstance(buffer, bytearray) else room_of(buffer)
        if flags is not NO_FLAGS or nbytes is not NO_FLAGS or room <= 0:
            return self._receive(room, flags, "recv_into", buffer, nbytes, flags)
        return self._reading.complete(
            self._timeout and deadline_after(self._timeout),
            room if self._shows_all else 0,
            self._sock.recv_into,
            buffer,
        )

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Awaited[tuple[bytes, Address]]:
        """Await data; a pair of at most `bufsize` bytes and the sender's address.

        A datagram that is longer is cut; `recvmsg` tells when.  A cancelled or late call
        has taken nothing.
        """
        if flags is not NO_FLAGS:
            return self._receive(None, flags, "recvfrom", bufsize, flags)
        deadline = self._timeout and deadline_after(self._timeout)
        return self._reading.complete(deadline, 0, self._sock.recvfrom, bufsize)

    def recvfrom_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> Awaited[tuple[int, Address]]:
        """Await data and write it to `buffer`; a pair of its size and the sender's address.

        Otherwise as `recv_into`.
        """
        return self._receive(None, flags, "recvfrom_into", buffer, nbytes, flags)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> Awaited[tuple[bytes, list[tuple[int, int, bytes]], int, Address]]:
        """Await data and ancillary data: (data, ancdata, msg_flags, address).

        A cancelled or late call has taken nothing: descriptors in a message that was not
        received stay in the kernel.
        """
        if flags is not NO_FLAGS:
            return self._receive(None, flags, "recvmsg", bufsize, ancbufsize, flags)
        deadline = self._timeout and deadline_after(self._timeout)
        return self._reading.complete(deadline, 0, self._sock.recvmsg, bufsize, ancbufsize)

    def recvmsg_into(
        self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> Awaited[tuple[int, list[tuple[int, int, bytes]], int, Address]]:
        """Await data and scatter it into `buffers`: (nbytes, ancdata, msg_flags, address).

        A cancelled or late call has taken nothing and written nothing.
        """
        return self._receive(None, flags, "recvmsg_into", again(buffers), ancbufsize, flags)

    def recv_many(
        self, max: int, bufsize: int = ROOMY, flags: int = 0
    ) -> Awaited[list[tuple[bytes, Address]]]:
        """Await a datagram, and take it with those behind it that have come: at most `max`.

        A list of what `recvfrom` gives for each: (data, address).  A datagram longer than
        `bufsize` (65536) is cut.  In the spirit of recvmmsg(2): one wait for many, never
        more than 1024, and an error behind the first is raised by the next receive.  On a
        SOCK_SEQPACKET connection an empty message, which may be the end, is the last of a
        list.  MSG_PEEK shows the first alone.

        ValueError on a stream, which has no messages, and if `max` is less than 1.  A
        cancelled or late call has taken nothing.
        """
        direction, deadline, asked, args = receiving_many(
            self._readiness,
            self._sock,
            self._kind,
            self._timeout is None,
            self._deadline(),
            flags,
            max,
            bufsize,
        )
        return direction.complete(deadline, asked, receive_many, *args, flags)

    def _receive(self, size: object, flags: Any, verb: str, *args: Any) -> Awaited[Any]:
        if flags and isinstance(flags, int):
            blocking, deadline = self._timeout is None, self._deadline()
            direction, deadline, attempt, args = receiving(
                self._readiness, self._sock, blocking, deadline, int(flags), verb, args
            )
            return direction.complete(deadline, 0, attempt, *args)
        deadline = NOW if size == 0 else self._deadline()  # nothing is wanted: nothing to wait for
        return self._reading.complete(deadline, 0, getattr(self._sock, verb), *args)

    # --- waiting: sending -----------------------------------------------------------

    async def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Await room for data and send it; how many bytes were taken.

        On a stream in blocking mode all of it is, as by the kernel of a blocking
        descriptor, and whatever is raised tells in ``bytes_sent`` how much was; else a
        cancelled or late call has sent nothing.
        """
        if not self._wants_whole(flags):
            return await self._send_once(flags, self._send, data, self._quiet(flags))
        await self.sendall(data, flags)
        return memoryview(data).nbytes

    async def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Await until all of `data` is sent; the timeout is for all of it together.

        Whatever is raised instead, a cancellation too, tells in ``bytes_sent`` how many
        bytes are on their way, which the stdlib does not tell; none follows after that.
        """
        # Nearly always the first piece is all there is.  Then nothing is made to keep
        # count of the rest: measured, half of what this call costs beside the kernel.
        sent, quiet = 0, self._nosignal if flags is NO_FLAGS else self._quiet(flags)
        sending = self._sending
        if not sending.line.busy and sending.spent[0] < BUDGET:
            try:
                sent = self._send(data, quiet)
            except BlockingIOError:
                pass
            except BaseException as error:
                error.bytes_sent = 0  # type: ignore[attr-defined]  # ours, as documented
                explain(error, self._sock, self._send, (data, quiet), waited=False)
                raise
            else:
                sending.spent[0] += 1
                if sent == (len(data) if type(data) is bytes else memoryview(data).nbytes):
                    return
        whole = Sending(sent, self._send, data, quiet)
        await sending.complete(self._deadline_with(flags), 0, whole)

    @overload
    def sendto(self, data: ReadableBuffer, address: AddressLike, /) -> Awaited[int]: ...

    @overload
    def sendto(self, data: ReadableBuffer, flags: int, address: AddressLike, /) -> Awaited[int]: ...

    async def sendto(self, *args: Any) -> int:
        """``sendto(data[, flags], address)``: await room, and send to an address.

        A host name is looked up off the loop.  Otherwise as `send`.
        """
        if not 2 <= len(args) <= 3:
            self._sock.sendto(*args)  # refuses in the stdlib's words
        data, address, flags = args[0], args[-1], args[1] if len(args) == 3 else 0
        if needs_lookup(self._family, address):
            return await self._send_to_name(flags, self._deadline(), *args)
        sending = self._sending
        handy = flags is NO_FLAGS and not self._stream
        if handy and not sending.line.busy and sending.spent[0] < BUDGET:
            # A datagram has room, nearly always: as in `sendall`.
            try:
                sent = self._sock.sendto(data, self._nosignal, address)
            except BlockingIOError:
                pass
            except (TypeError, OSError) as error:
                explain(error, self._sock, self._sock.sendto, (data, address), waited=False)
                raise
            else:
                sending.spent[0] += 1
                return sent
        return await self._send_to(flags, self._deadline_with(flags), data, address)

    def _send_to(self, flags: Any, deadline: float | None, *args: Any) -> Awaited[int]:
        data, address = args
        sendto, quiet = self._sock.sendto, self._quiet(flags)
        if self._wants_whole(flags):
            whole = Sending(0, sendto, data, quiet, address)
            return self._readiness.writing.complete(deadline, 0, whole)
        return self._sending.complete(deadline, 0, sendto, data, quiet, address)

    async def _send_to_name(self, flags: Any, deadline: float | None, *args: Any) -> int:
        """Lookup and sending share one deadline."""
        *data, name = args
        address = await self._numeric("sendto", name, deadline, *data)
        return await self._send_to(flags, self._never_with(flags, deadline), data[0], address)

    async def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: AddressLike | None = None,
        /,
    ) -> int:
        """Await room, and send buffers and ancillary data as one message.

        Otherwise as `send`.
        """
        buffers, ancdata, deadline = again(buffers), again(ancdata), self._deadline()
        address = await self._numeric("bind", address, deadline)
        deadline = self._never_with(flags, deadline)
        args = (buffers, ancdata, self._quiet(flags), address)
        if self._wants_whole(flags):
            message = SendingMessage(self._sock.sendmsg, *args)
            return await self._readiness.writing.complete(deadline, 0, message)
        return await self._sending.complete(deadline, 0, self._sock.sendmsg, *args)

    async def send_many(
        self,
        messages: Iterable[ReadableBuffer | tuple[ReadableBuffer, AddressLike | None]],
        flags: int = 0,
    ) -> int:
        """Await until all `messages` are sent, each as a datagram; how many that were.

        A message is bytes-like, on a connected socket, or a pair (data, address), as
        `recv_many` gives them; an address of None is the other end's.  Host names are
        looked up off the loop before the first is sent, each name once.  The timeout is for
        all of it together.  In non-blocking mode, and with MSG_DONTWAIT, what there is room
        for is sent, and BlockingIOError means none.

        An OSError, TimeoutError or cancellation tells in ``messages_sent`` how many are on
        their way; the next one is not, nor any behind it.  (sendmmsg(2) would return that
        number, and lose sight of the error.)  ValueError on a stream.
        """
        deadline, quiet = self._deadline_with(flags), self._quiet(flags)
        spent = self._sending.spent
        sending = SendingMany(self._sock, self._kind, messages, quiet, deadline != NOW, spent)
        if sending.has_names(self._family):
            try:
                await self._readiness.errand(sending.look_up(), deadline)
            except BaseException as error:
                sending.stopped(error)
                raise
        return await self._sending.complete(deadline, 0, sending)

    async def sendmsg_afalg(
        self,
        msg: Iterable[ReadableBuffer] = (),
        *,
        op: int,
        iv: Any = None,
        assoclen: int | None = None,
        flags: int = 0,
    ) -> int:
        """Await room, and send a message to an AF_ALG socket, with its operation and key data.

        How many bytes were taken.  A cancelled or late call has sent nothing.
        """
        given = {"iv": iv, "assoclen": assoclen}
        extra = {name: value for name, value in given.items() if value is not None}
        attempt = partial(self._sock.sendmsg_afalg, again(msg), op=op, flags=flags, **extra)
        return await self._send_once(flags, attempt)

    async def sendfile(self, file: _SendableFile, offset: int = 0, count: int | None = None) -> int:
        """Await until a file, or `count` bytes of it from `offset`, is sent; how many that was.

        A regular file goes by os.sendfile(), any other object is read.  The file's
        position follows what was sent; whatever is raised tells it in ``bytes_sent``.
        The disk may block the loop, as it does in every asyncio program.  Unlike the
        stdlib's it serves non-blocking sockets too: what fits is sent.
        """
        self._sock._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]  # the stdlib's own judge
        return await self._send_whole(SendingFile(self._sock, file, offset, count))

    def _wants_whole(self, flags: Any) -> bool:
        return self._timeout is None and self._stream and not has(flags, MSG_DONTWAIT)

    def _quiet(self, flags: Any) -> Any:
        """The flags, and no SIGPIPE: a process may have undone that Python ignores it."""
        return flags | self._nosignal if isinstance(flags, int) else flags

    def _send_whole(self, attempt: Sending | SendingMessage | SendingFile) -> Awaited[int]:
        return self._readiness.writing.complete(self._deadline(), 0, attempt)

    def _send_once(self, flags: Any, attempt: Callable[..., int], *args: Any) -> Awaited[int]:
        return self._sending.complete(self._deadline_with(flags), 0, attempt, *args)

    def _deadline_with(self, flags: Any) -> float | None:
        return self._never_with(flags, self._deadline())

    def _never_with(self, flags: Any, deadline: float | None) -> float | None:
        """The deadline; in blocking mode MSG_DONTWAIT says never to wait."""
        return NOW if self._timeout is None and has(flags, MSG_DONTWAIT) else deadline

    # --- files ------------------------------------------------------------------------

    @overload
    def makefile(
        self, mode: BinaryMode, buffering: Literal[0], *, limit: int | None = ...
    ) -> RawFile: ...

    @overload
    def makefile(
        self,
        mode: BinaryMode,
        buffering: int | None = ...,
        *,
        bufsize: int | None = ...,
        limit: int | None = ...,
    ) -> BinaryFile: ...

    @overload
    def makefile(
        self,
        mode: TextMode = ...,
        buffering: int | None = ...,
        *,
        encoding: str | None = ...,
        errors: str | None = ...,
        newline: str | None = ...,
        bufsize: int | None = ...,
        limit: int | None = ...,
    ) -> TextFile: ...

    @overload
    def makefile(
        self,
        mode: str = ...,
        buffering: int | None = ...,
        *,
        encoding: str | None = ...,
        errors: str | None = ...,
        newline: str | None = ...,
        bufsize: int | None = ...,
        limit: int | None = ...,
    ) -> BinaryFile | TextFile: ...

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        bufsize: int | None = None,
        limit: int | None = None,
    ) -> BinaryFile | TextFile:
        """A file over the connection, whose calls are awaited; itself it never waits.

        `mode` is made of "r", "w" and "b", without which it is a file of text; `buffering` is a
        size in bytes, 0 for none (`bufsize` in the original manual).  `encoding`, `errors` and
        `newline` are for text, as in ``open``.  `limit` bounds the length of a line.

        The file uses the socket's timeout for each receive and send; unlike the stdlib's it goes
        on after a timeout or a cancellation.  The connection ends when the socket and all its
        files are closed.
        """
        if bufsize is not None:
            if buffering is not None:
                raise TypeError("buffering and bufsize are the same: give one, not both")
            buffering = bufsize
        return file_of(self, mode, buffering, encoding, errors, newline, limit)

    # --- waiting: readiness ---------------------------------------------------------

    async def wait_readable(self) -> None:
        """Await that a receive or accept would not block; takes nothing.

        In the socket's mode: TimeoutError when late, BlockingIOError at once if it is not so
        and the socket is non-blocking.  A cancelled call changes nothing.
        """
        await self._reading.complete(self._deadline(), 0, await_ready, self._sock, select.POLLIN)

    async def wait_writable(self) -> None:
        """Await that a send would not block, or that a connect is over; sends nothing.

        Modes and errors as with `wait_readable`.
        """
        await self._readiness.writing.complete(
            self._deadline(), 0, await_ready, self._sock, select.POLLOUT
        )

    # --- waiting: TLS ----------------------------------------------------------------

    async def start_tls(
        self,
        context: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: SSLSession | None = None,
        suppress_ragged_eofs: bool = False,
    ) -> SSLSocket:
        """Await a TLS handshake; an `SSLSocket` in the place of this one, which is closed then.

        Also after plain bytes were exchanged.  The context says what is verified:
        ``ssl.create_default_context()`` verifies the peer and its `server_hostname`.
        `session` takes up that of an earlier connection.  A connection cut without
        close_notify raises `ssl.SSLEOFError`, or with `suppress_ragged_eofs` looks ended.

        Raises `ssl.SSLError`, and TimeoutError when the socket's timeout is over; a failed,
        late or cancelled handshake closes the connection.  What is wrong with the arguments,
        or a socket that is not connected, is told before and changes nothing.
        """
        return await self._start_tls(
            self, context, server_side, server_hostname, session, suppress_ragged_eofs
        )

    _start_tls: ClassVar[Callable[..., Coroutine[Any, Any, SSLSocket]]]  # set by _tls, above here

    # --- the end --------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket; who waits for it gets OSError(EBADF).  A second call does nothing.

        While a file of `makefile` is open, the connection is too.
        """
        self._shut = True
        if not self._io_refs:
            self._real_close()

    def _real_close(self) -> None:
        self._readiness.end(self._sock.close)

    def _decref_socketios(self) -> None:
        """A file has closed."""
        self._io_refs -= 1
        if self._shut and not self._io_refs:
            self._real_close()

    def detach(self) -> int:
        """Give the descriptor away, in the mode that `gettimeout` says, and be closed.

        Who waits for it gets OSError(EBADF).  Bytes that this object still has (of a cancelled
        receive with MSG_WAITALL, behind the end of TLS) do not go along: receive them before.
        """
        fd = self._readiness.end(self._sock.detach)
        if fd >= 0:
            os.set_blocking(fd, self._timeout is None)
        return fd

    def shutdown(self, how: int, /) -> None:
        """Shut one half of the connection down, or both: SHUT_RD, SHUT_WR, SHUT_RDWR.

        Who waits for that half looks again: no event would tell him in each case.
        """
        self._sock.shutdown(how)
        self._readiness.nudge()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.close()

    # --- modes ----------------------------------------------------------------------

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout of the calls that follow, in seconds: None blocks, 0.0 never waits.

        ValueError for a negative one, as in the stdlib.  A call that waits keeps the one that it
        began with.
        """
        self._set(as_timeout(value))

    def setblocking(self, flag: bool, /) -> None:
        """``settimeout(None)`` if true, ``settimeout(0.0)`` if false."""
        self._set(as_blocking(flag))

    def _set(self, timeout: float | None) -> None:
        self._timeout = timeout
        if self.fileno() < 0:
            raise bad_descriptor()

    def gettimeout(self) -> float | None:
        """The timeout in seconds, None where there is none."""
        return self._timeout

    def getblocking(self) -> bool:
        """Whether the socket may wait: its timeout is not 0.0."""
        return self._timeout != 0.0

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, None where there is none."""
        return self._timeout

    def _deadline(self) -> float | None:
        timeout = self._timeout
        return deadline_after(timeout) if timeout else timeout

    # --- at once: what never waits --------------------------------------------------

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """Let the socket accept connections, `backlog` of which may queue.

        By default 128, or SOMAXCONN where that is less.
        """
        self._sock.listen(backlog)

    def dup(self) -> Self:
        """A new socket for the same connection, with the same timeout, not inheritable."""
        fd = _stdlib.dup(self.fileno())
        copy = taken_over(type(self), self.family, self.type, self.proto, fd)
        copy.settimeout(self._timeout)
        return copy

    def fileno(self) -> int:
        """The descriptor, -1 when closed.  It is non-blocking in every mode."""
        return self._sock.fileno()

    def getsockname(self) -> Address:
        """The socket's own address."""
        return self._sock.getsockname()

    def getpeername(self) -> Address:
        """The address of the other end."""
        return self._sock.getpeername()

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...

    def getsockopt(self, *args: int) -> int | bytes:
        """``getsockopt(level, optname[, buflen])``: an option's value, as int or as bytes."""
        return self._sock.getsockopt(*args)

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...

    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...

    def setsockopt(self, *args: Any) -> None:
        """``setsockopt(level, optname, value)``, or ``(level, optname, None, optlen)``."""
        self._sock.setsockopt(*args)

    def get_inheritable(self) -> bool:
        """Whether child processes inherit the descriptor."""
        return self._sock.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Whether child processes shall inherit the descriptor."""
        self._sock.set_inheritable(inheritable)

    @property
    def family(self) -> _stdlib.AddressFamily:
        """The address family: an `AddressFamily` where it has a name."""
        return self._sock.family

    @property
    def type(self) -> _stdlib.SocketKind:
        """The socket type: a `SocketKind` where it has a name."""
        return self._sock.type

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._sock.proto

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The addresses that `create_connection` has tried for this socket; () without it."""
        return self._attempts

    @property
    def _closed(self) -> bool:
        return self._shut or self._sock.fileno() < 0

    def __repr__(self) -> str:
        return _stdlib.socket.__repr__(
            self
        )  # asks for what we have, and so looks the same on each Python

    def __getstate__(self) -> object:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


def taken_over(kind: type[S], family: int, type: int, proto: int, fd: int) -> S:
    """A socket for a descriptor of our own; closed if none can be made of it."""
    try:
        return kind(family, type, proto, fileno=fd)
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise


def from_stdlib_socket(sock: _stdlib.socket) -> socket:
    """Take a stdlib socket over: its descriptor and its timeout; `sock` is closed then.

    The other way is ``socket.socket(fileno=s.detach())`` of the stdlib.
    """
    if not isinstance(sock, _stdlib.socket) or hasattr(sock, "do_handshake"):
        raise TypeError(
            f"a plain socket.socket is needed, not {type(sock).__module__}.{type(sock).__name__}; "
            f"fromfd() makes a socket of a duplicate of any descriptor"
        )
    timeout = sock.gettimeout()
    taken = taken_over(socket, sock.family, sock.type, sock.proto, sock.detach())
    taken._timeout = timeout
    return taken
