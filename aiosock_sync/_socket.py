"""The blocking socket: a stdlib socket whose waiting is done by an event loop.

Knows the stdlib's class, from which it inherits all that never waits, and the engine; what
waits is tried, and if it would block handed to the engine and run to its end.

The descriptor's own mode is the stdlib's: blocking while the timeout is None, so that a
child process, `os.read` or `ssl` find what `gettimeout()` says.  The attempts do not wait
all the same: they carry MSG_DONTWAIT, and the calls that know no flags (accept, connect) are
made in a moment in which the descriptor does not block.  While one is on, no other thread
begins another, sets a mode, asks for one, or forks.  Other processes that have the same
descriptor (workers that accept from one listener) are kept out by a record lock.

Attempts are made through a second object for the same descriptor, which never closes it.
The engine holds that one; were it this object, a cycle would keep each socket open.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import socket as _stdlib
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import starmap
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, overload

from aiosock._addresses import AddressLike
from aiosock._advice import explain, tell_closed, tell_shape, tell_timeout
from aiosock._datagrams import ROOMY, SendingMany, receive_many, receiving_many
from aiosock._deadline import NOW, deadline_after, timed_out
from aiosock._names import looking_up, needs_lookup, numeric_address
from aiosock._operations import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    NO_FLAGS,
    SHOWING_ALL,
    SIGNALLING,
    Leftover,
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
from aiosock._race import Attempt
from aiosock._readiness import Direction, Readiness, Stateful, adopting

from ._driver import is_late, limited, limits, loop_here, run, run_task, turn_once, until

if TYPE_CHECKING:
    import asyncio
    from socket import _SendableFile
    from ssl import SSLContext, SSLSession

    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._tls import SSLSocket

__all__ = ["socket"]

T = TypeVar("T")
Address = Any  # its shape depends on the family; AF_INET: (host, port)
Message = tuple[bytes, list[tuple[int, int, bytes]], int, Address]
Scattered = tuple[int, list[tuple[int, int, bytes]], int, Address]

PIECE: Final = 2**18  # bytes read at once from a file that is sent


class _Direction(Direction):
    """Waits on the loop of the thread that calls."""

    __slots__ = ()

    def _loop_here(self) -> asyncio.AbstractEventLoop:
        return loop_here()


class _Readiness(Readiness):
    __slots__ = ()
    direction = _Direction


class _Moment:
    """The calls that know no MSG_DONTWAIT, made while the descriptor does not block.

    A signal handler may act within one, on the same socket too, or raise between any two
    steps.  The end gives the descriptor the mode that gettimeout() says by then.
    """

    def __init__(self, sock: socket) -> None:
        self._sock, self._raw = sock, sock._raw
        self.family = sock._raw.family

    def _do(self, call: Callable[..., T], *args: Any) -> T:
        sock = self._sock
        with adopting:
            if sock._lent or sock.timeout is not None:
                return call(*args)
            try:
                sock._lend()
                return call(*args)
            finally:
                try:
                    sock._take_back()
                except BaseException:  # a signal handler's
                    sock._take_back()
                    raise

    def accept(self) -> tuple[socket, Address]:
        """The connection is in a list before any signal handler can raise, and closed then."""
        sock, made, taken = self._sock, socket.__new__(socket), list[tuple[int, Address]]()
        accept = self._raw._accept  # type: ignore[attr-defined]  # the stdlib's
        try:
            self._do(taken.extend, starmap(accept, ((),)))
            ((fd, address),) = taken
            socket.__init__(made, sock.family, sock.type, sock.proto, fd)
        except BaseException:
            for fd, _ in taken:
                _let_go(fd, made)
            raise
        return made, address

    def connect(self, address: Address) -> None:
        self._do(self._raw.connect, address)

    def connect_ex(self, address: Address) -> int:
        return self._do(self._raw.connect_ex, address)

    def getsockopt(self, level: int, option: int) -> int:
        return self._raw.getsockopt(level, option)


class _FileTarget:
    """What sending a file needs of a socket, with MSG_DONTWAIT.

    sendfile(2) knows no such flag, and a moment of its own would be as long as a slow disk
    likes: pread(2) and send(2) do its work.
    """

    def __init__(self, raw: _stdlib.socket) -> None:
        self._raw, self.fileno = raw, raw.fileno

    def send(self, data: ReadableBuffer, flags: int) -> int:
        return self._raw.send(data, flags | MSG_DONTWAIT)

    def sendfile(self, _: int, file: int, offset: int, count: int) -> int:
        return self.send(os.pread(file, min(count, PIECE), offset), MSG_NOSIGNAL)


class socket(_stdlib.socket):
    """A socket as `socket.socket` documents it, that waits in an event loop.

    All that the stdlib's has, with its modes, errors and texts, and beyond it: a call that
    another thread's `close` ends raises OSError(EBADF), `fail_after` bounds calls together,
    and whatever a `sendall` raises tells in ``bytes_sent`` how far it got.

    A receive or an accept that is late, or that Ctrl-C ends, has taken nothing.  After a
    `connect` of that kind the socket is half connected: close it.
    """

    __slots__ = (
        "_attempts",
        "_heirs",
        "_lent",
        "_quietly",
        "_raw",
        "_readiness",
        "_reading",
        "_sending",
        "_shows_all",
        "_stream",
    )

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._raw = raw = _another(self)
        self._readiness = readiness = _Readiness(raw)
        self._reading, self._stream = readiness.reading, raw.type == _stdlib.SOCK_STREAM
        self._shows_all = self._stream and raw.family in SHOWING_ALL
        # poll() calls an AF_UNIX socket writable although the receiver's queue is full.
        silent = raw.family == AF_UNIX and not self._stream
        self._sending = readiness.pausing if silent else readiness.writing
        # A process may have undone that Python ignores SIGPIPE.
        self._quietly = MSG_DONTWAIT | (MSG_NOSIGNAL if raw.family in SIGNALLING else 0)
        self._lent = False  # to a moment: the descriptor blocks but for that
        self._attempts: tuple[Attempt, ...] = ()
        self._heirs: list[socket] | None = None  # whose the connection is now, where that counts

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The addresses that `create_connection` has tried for this socket; () without it."""
        return self._attempts

    # --- the mode -------------------------------------------------------------------

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout: None to wait for ever, 0 never to wait, else seconds."""
        try:
            self._set(super().settimeout, value)
        except TypeError as error:
            tell_timeout(error, value)
            raise

    def setblocking(self, flag: bool, /) -> None:
        """Set blocking mode, as settimeout(None) does, or non-blocking, as settimeout(0)."""
        self._set(super().setblocking, flag)

    def _set(self, setter: Callable[[Any], None], value: Any) -> None:
        with adopting:
            setter(value)
            if self._lent:  # and this is a signal handler within the moment
                os.set_blocking(self._raw.fileno(), False)

    def _lend(self) -> None:
        """The descriptor to a moment; one that somebody else made non-blocking stays so."""
        fd = self._raw.fileno()
        if fd >= 0:
            _lock(fd, fcntl.LOCK_EX)
            self._lent = os.get_blocking(fd)
            os.set_blocking(fd, False)

    def _take_back(self) -> None:
        """It may have been closed in the moment, by a signal handler."""
        fd = self._raw.fileno()
        if fd >= 0:
            if self._lent:
                os.set_blocking(fd, self.timeout is None)
            _lock(fd, fcntl.LOCK_UN)
        self._lent = False

    # --- waiting --------------------------------------------------------------------

    def _complete(
        self, direction: Direction, asked: int, flags: Any, attempt: Callable[..., T], *args: Any
    ) -> T:
        """The attempt's result: at once, or when the engine has brought it about."""
        if limits:
            self._be_in_time()
        if direction.instead is None:
            try:
                return attempt(*args)
            except BlockingIOError:
                if not self._may_wait(flags):
                    raise
            except (TypeError, OSError) as error:
                explain(error, self._raw, attempt, args, waited=False)
                raise
            line = direction.line
            if asked and line.turn.thread == threading.get_ident():
                line.drained = line.watched
        return run(direction.complete(self._deadline(), asked, attempt, *args))

    def _waits_for_ever(self) -> bool:
        if self.gettimeout() is not None or (limits and limited(None) is not None):
            return False
        return self._blocks()

    def _may_wait(self, flags: Any) -> bool:
        """In blocking mode not on a descriptor that somebody else has made non-blocking."""
        timeout = self.gettimeout()
        if timeout is None:
            return not (flags and has(flags, MSG_DONTWAIT)) and self._blocks()
        return timeout > 0

    def _blocks(self) -> bool:
        """Whether the descriptor does, but for a moment of ours or of another process."""
        fd = self._raw.fileno()  # of a closed one the engine tells
        return fd < 0 or os.get_blocking(fd) or _Moment(self)._do(lambda: self._lent)

    def _be_in_time(self) -> None:
        if is_late() and self.gettimeout() != NOW:
            raise timed_out()

    def _deadline(self) -> float | None:
        self._be_in_time()
        timeout = self.gettimeout()
        return limited(timeout and deadline_after(timeout))

    # --- files ------------------------------------------------------------------------

    if not TYPE_CHECKING:  # pragma: no branch  # whom the stdlib's many signatures tell more

        def makefile(self, mode="r", buffering=None, *, bufsize=None, **how):
            """The stdlib's file over the socket; the original manual calls the size `bufsize`."""
            if None not in (buffering, bufsize):
                raise TypeError("buffering and bufsize are the same: give one, not both")
            size = bufsize if buffering is None else buffering
            return super().makefile(mode, size, **how)

        makefile.__wrapped__ = _stdlib.socket.makefile  # has the signature

    # --- waiting: connections -------------------------------------------------------

    def accept(self) -> tuple[socket, Address]:
        """Wait for a connection; a pair of its socket and the address of its other end."""
        return self._complete(self._reading, 0, 0, _Moment(self).accept)

    def bind(self, address: AddressLike, /) -> None:
        """Bind to an address; a host name is looked up by the resolver of `set_resolver`."""
        try:
            super().bind(self._numeric("bind", address, limited(None)))
        except TypeError as error:
            tell_shape(error, self.family, address)
            raise
        except OSError as error:
            tell_closed(error, self._raw)
            raise

    def connect(self, address: AddressLike, /) -> None:
        """Connect to an address; the timeout bounds lookup and connection together."""
        error = self._connect("connect", address, self._deadline())
        if error:
            raise tell_closed(OSError(error, os.strerror(error)), self._raw)

    def connect_ex(self, address: AddressLike, /) -> int:
        """Connect, and return the errno of connect(2): 0, or EAGAIN when late."""
        self._be_in_time()
        own = deadline_after(self.gettimeout())
        deadline = limited(own)
        try:
            return self._connect("connect_ex", address, deadline)
        except TimeoutError:
            if own and deadline == own:
                return errno.EAGAIN
            raise  # that was fail_after

    def _connect(self, call: str, address: Address, deadline: float | None) -> int:
        address = self._numeric(call, address, deadline)
        blocking = self.gettimeout() is None
        if blocking and not self._blocks():
            deadline = NOW
        moment = _Moment(self)
        begin = getattr(moment, call)
        return run(connect(self._readiness, moment, deadline, begin, address, blocking))  # type: ignore[arg-type]  # of a socket it has what connecting takes

    def _numeric(self, call: str, address: Address, deadline: float | None, *data: Any) -> Address:
        if not needs_lookup(self._raw.family, address):
            return address
        lookup = numeric_address(self._raw, call, address, *data)
        # A socket that never waits waits for the lookup, and `fail_after` bounds that too.
        with looking_up(address[0]):
            return run_task(self._readiness.errand(lookup, deadline or limited(None)))

    # --- waiting: receiving ---------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Wait for data: at least one byte and at most `bufsize`, b"" at the end."""
        if flags is not NO_FLAGS or type(bufsize) is not int or not 0 < bufsize <= sys.maxsize:
            data: bytes = self._receive(flags, "recv", bufsize)
            return data
        reading, recv = self._reading, self._raw.recv
        line, asked = reading.line, bufsize if self._shows_all else 0
        if asked and line.drained and line.watched and self._waits_for_ever():
            # A conversation comes here each time, and has a third of its CPU time to save:
            # one turn of the loop is all there is to do, and no coroutine is needed for it.
            if turn_once(line.loop) and reading.instead is None:
                try:
                    data = recv(bufsize, MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                else:
                    line.drained = line.remembers and 0 < len(data) < bufsize
                    return data
            return run(reading.complete(None, asked, recv, bufsize, MSG_DONTWAIT))
        return self._complete(reading, asked, 0, recv, bufsize, MSG_DONTWAIT)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Wait for data and write it to `buffer`; how many bytes."""
        if flags is not NO_FLAGS or nbytes is not NO_FLAGS or not self._stream:
            size: int = self._receive(flags, "recv_into", buffer, nbytes)
            return size
        recv_into, asked = self._raw.recv_into, max(0, room_of(buffer)) if self._shows_all else 0
        return self._complete(self._reading, asked, 0, recv_into, buffer, 0, MSG_DONTWAIT)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Address]:
        """Wait for data; a pair of at most `bufsize` bytes and the sender's address."""
        received: tuple[bytes, Address] = self._receive(flags, "recvfrom", bufsize)
        return received

    def recvfrom_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Address]:
        """Wait for data and write it to `buffer`; a pair of its size and the sender's address."""
        received: tuple[int, Address] = self._receive(flags, "recvfrom_into", buffer, nbytes)
        return received

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Message:
        """Wait for data and ancillary data: (data, ancdata, msg_flags, address)."""
        received: Message = self._receive(flags, "recvmsg", bufsize, ancbufsize)
        return received

    def recvmsg_into(
        self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> Scattered:
        """Wait for data and scatter it into `buffers`: (nbytes, ancdata, msg_flags, address)."""
        received: Scattered = self._receive(flags, "recvmsg_into", again(buffers), ancbufsize)
        return received

    def recv_many(
        self, max: int, bufsize: int = ROOMY, flags: int = 0
    ) -> list[tuple[bytes, Address]]:
        """Wait for a datagram, and take it with those behind it that have come: at most `max`.

        A list of what `recvfrom` gives for each: (data, address).  One wait for many, never
        more than 1024; an error behind the first is raised by the next receive.  On a
        SOCK_SEQPACKET connection an empty message, which may be the end, is the last of a
        list.  MSG_PEEK shows the first alone.  ValueError on a stream, and if `max` is less
        than 1.
        """
        blocking = self.gettimeout() is None
        direction, deadline, asked, args = receiving_many(
            self._readiness,
            self._raw,
            self._raw.type,
            blocking,
            self._deadline(),
            flags,
            max,
            bufsize,
        )
        args = (*args, _at_once(flags))
        if deadline == NOW and blocking:
            return receive_many(*args)
        return self._complete(direction, asked, flags, receive_many, *args)

    def _receive(self, flags: Any, verb: str, *args: Any) -> Any:
        if not flags or not isinstance(flags, int):
            attempt = getattr(self._raw, verb)
            return self._complete(self._reading, 0, flags, attempt, *args, _at_once(flags))
        blocking, deadline = self.gettimeout() is None and self._blocks(), self._deadline()
        direction, deadline, attempt, args = receiving(
            self._readiness, self._raw, blocking, deadline, flags, verb, (*args, _at_once(flags))
        )
        if deadline == NOW and blocking:
            return attempt(*args)
        if isinstance(attempt, Stateful):
            return run(direction.complete(deadline, 0, attempt))
        return self._complete(direction, 0, flags, attempt, *args)

    # --- waiting: sending -----------------------------------------------------------

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Wait for room and send data; how many bytes: on a stream in blocking mode all."""
        quiet = self._quietly if flags is NO_FLAGS else self._quiet(flags)
        if self._wants_whole(flags):
            return self._send_whole(flags, False, self._raw.send, data, quiet)
        return self._complete(self._sending, 0, flags, self._raw.send, data, quiet)

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send all of the data; the timeout is for all of it together.

        Whatever is raised instead tells in ``bytes_sent`` how many bytes are on their way.
        """
        quiet = self._quietly if flags is NO_FLAGS else self._quiet(flags)
        self._send_whole(flags, True, self._raw.send, data, quiet)

    @overload
    def sendto(self, data: ReadableBuffer, address: AddressLike, /) -> int: ...

    @overload
    def sendto(self, data: ReadableBuffer, flags: int, address: AddressLike, /) -> int: ...

    def sendto(self, *args: Any) -> int:
        """``sendto(data[, flags], address)``: wait for room, and send to an address."""
        if not 2 <= len(args) <= 3:
            return self._raw.sendto(*args)
        if needs_lookup(self._raw.family, args[-1]):
            return self._send_to_name(socket.sendto, "sendto", *args)
        flags = args[1] if len(args) == 3 else 0
        args = (args[0], self._quiet(flags), args[-1])
        if self._wants_whole(flags):
            return self._send_whole(flags, False, self._raw.sendto, *args)
        return self._complete(self._sending, 0, flags, self._raw.sendto, *args)

    def _send_to_name(self, send: Callable[..., int], call: str, *args: Any) -> int:
        """Look the last argument up, and send to what it is; one deadline is for both."""
        deadline, data = self._deadline(), args[:-1]
        address = self._numeric(call, args[-1], deadline, *(data if call == "sendto" else ()))
        with until(deadline or None):
            return send(self, *data, address)

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: AddressLike | None = None,
        /,
    ) -> int:
        """Wait for room, and send buffers and ancillary data as one message."""
        if needs_lookup(self._raw.family, address):
            return self._send_to_name(socket.sendmsg, "bind", buffers, ancdata, flags, address)
        args = (again(buffers), again(ancdata), self._quiet(flags), address)
        if self._wants_whole(flags) and self._blocks():
            return self._run(SendingMessage(self._raw.sendmsg, *args))
        return self._complete(self._sending, 0, flags, self._raw.sendmsg, *args)

    def send_many(
        self,
        messages: Iterable[ReadableBuffer | tuple[ReadableBuffer, AddressLike | None]],
        flags: int = 0,
    ) -> int:
        """Wait until all `messages` are sent, each as a datagram; how many that were.

        A message is bytes-like, on a connected socket, or a pair (data, address), as
        `recv_many` gives them; an address of None is the other end's.  The timeout is for
        all of it together, names looked up included.  In non-blocking mode, and with
        MSG_DONTWAIT, what there is room for is sent, and BlockingIOError means none.

        Whatever else stops it (an OSError, TimeoutError, Ctrl-C) tells in ``messages_sent``
        how many are on their way; the next one is not, nor any behind it.  ValueError on a
        stream.
        """
        kind, quiet, waits = self._raw.type, self._quiet(flags), self._may_wait(flags)
        sending = SendingMany(self._raw, kind, messages, quiet, waits)
        try:
            if not sending.has_names(self._raw.family):
                return self._complete(self._sending, 0, flags, sending)
            deadline = self._deadline() or limited(None)
            run_task(self._readiness.errand(sending.look_up(), deadline))
            with until(deadline):
                return self._complete(self._sending, 0, flags, sending)
        except BaseException as error:
            sending.stopped(error)
            raise

    if hasattr(_stdlib.socket, "sendmsg_afalg"):  # pragma: no branch  # Linux has it

        def sendmsg_afalg(
            self,
            msg: Iterable[ReadableBuffer] = (),
            *,
            op: int,
            iv: Any = None,
            assoclen: int | None = None,
            flags: int = 0,
        ) -> int:
            """Wait for room, and send a message to an AF_ALG socket, with its key data."""
            given = {"iv": iv, "assoclen": assoclen}
            extra = {name: value for name, value in given.items() if value is not None}
            extra |= {"op": op, "flags": self._quiet(flags)}
            attempt = partial(self._raw.sendmsg_afalg, again(msg), **extra)
            return self._complete(self._sending, 0, flags, attempt)

    def sendfile(self, file: _SendableFile, offset: int = 0, count: int | None = None) -> int:
        """Send a file, or `count` bytes of it from `offset`; how many that was.

        The file is read and sent, not handed to sendfile(2).  Whatever is raised tells in
        ``bytes_sent`` how far that got.
        """
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]  # the stdlib's own judge
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        target = _FileTarget(self._raw)
        return self._run(SendingFile(target, file, offset, count, target.sendfile))

    def _wants_whole(self, flags: Any) -> bool:
        whole = self._stream and self.gettimeout() is None
        return whole and not (flags and has(flags, MSG_DONTWAIT))

    def _quiet(self, flags: Any) -> Any:
        return flags | self._quietly if isinstance(flags, int) else flags

    def _send_whole(
        self, flags: Any, must: bool, send: Callable[..., int], data: ReadableBuffer, *args: Any
    ) -> int:
        """All of it; unless it must, a part where a descriptor does not block after all."""
        sent: list[int] = []
        if not (self._sending.line.busy or (limits and is_late())):
            try:
                sent += starmap(send, [(data, *args)])  # in C, as `keep` does it
                if sent[0] == (len(data) if type(data) is bytes else memoryview(data).nbytes):
                    return sent[0]
            except BlockingIOError as error:
                if not self._may_wait(flags):
                    error.bytes_sent = 0  # type: ignore[attr-defined]  # ours, as documented
                    raise
            except BaseException as error:
                error.bytes_sent = sum(sent)  # type: ignore[attr-defined]  # ours, as documented
                explain(error, self._raw, send, (data, *args), waited=False)
                raise
        may_wait = self._may_wait(flags)
        if sent and not (must or may_wait):
            return sent[0]
        return self._run(Sending(sum(sent), send, data, *args), may_wait)

    def _run(self, attempt: Stateful, may_wait: bool = True) -> int:
        try:
            deadline = self._deadline() if may_wait else NOW
        except TimeoutError as late:
            attempt.stopped(late)
            raise
        sent: int = run(self._sending.complete(deadline, 0, attempt))
        return sent

    # --- waiting: TLS ---------------------------------------------------------------

    def start_tls(
        self,
        context: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: SSLSession | None = None,
        suppress_ragged_eofs: bool = True,
    ) -> SSLSocket:
        """Shake hands over TLS; an `SSLSocket` in the place of this one, which is closed then.

        Also after plain bytes were exchanged.  The context says what is verified:
        ``ssl.create_default_context()`` verifies the peer and its `server_hostname`.  As with
        the stdlib's, a connection cut without close_notify looks ended, unless
        `suppress_ragged_eofs` is false.  A failed or late handshake closes the connection.
        """
        return self._start_tls(
            self, context, server_side, server_hostname, session, suppress_ragged_eofs
        )

    _start_tls: ClassVar[Callable[..., SSLSocket]]  # set by _tls, above here

    def _put_back(self, data: bytes) -> None:
        self._reading.put_back(Leftover(self._raw, data, None).instead)

    # --- waiting: readiness ---------------------------------------------------------

    def wait_readable(self) -> None:
        """Wait until a receive or accept would not block; takes nothing."""
        self._complete(self._reading, 0, 0, await_ready, self._raw, select.POLLIN)

    def wait_writable(self) -> None:
        """Wait until a send would not block, or a connect is over; sends nothing."""
        writing = self._readiness.writing
        self._complete(writing, 0, 0, await_ready, self._raw, select.POLLOUT)

    # --- the end --------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """Shut one half of the connection down, or both; who waits for it looks again."""
        super().shutdown(how)
        self._readiness.nudge()

    def detach(self) -> int:
        """Give the descriptor away and be closed; who waits gets OSError(EBADF)."""
        return self._readiness.end(self._detach_both)

    def _detach_both(self) -> int:
        with adopting:
            if self._lent:
                self._take_back()
            self._raw.detach()
            return super().detach()

    def _real_close(self, _ss: Any = _socket.socket) -> None:
        def close_both() -> None:
            with adopting:  # a moment's end must not meet the descriptor's next owner
                self._raw.detach()
            _ss.close(self)

        self._readiness.end(close_both)

    def __del__(self) -> None:
        readiness = getattr(self, "_readiness", None)  # not there if __init__ failed
        if readiness is not None and self._raw.fileno() >= 0:
            readiness.end(self._raw.detach)
        _socket.socket.__del__(self)  # type: ignore[attr-defined]  # closes, with a ResourceWarning


class _Another(_stdlib.socket):
    """An object for a descriptor of which another is in charge."""

    __slots__ = ()

    def __del__(self) -> None:
        """Close nothing, also where an interruption has left it half made."""


def _another(sock: _stdlib.socket) -> _stdlib.socket:
    """A second object for a socket's descriptor.

    It has no timeout of its own: its calls do not wait in C.
    """
    family, kind, proto = (getattr(_socket.socket, n).__get__(sock) for n in _KIND)
    raw = _Another(family, kind, proto, _socket.socket.fileno(sock))
    if raw.gettimeout() is not None:
        raw.settimeout(None)
        _socket.socket.settimeout(sock, sock.gettimeout())  # the descriptor's mode again
    return raw


_KIND: Final = ("family", "type", "proto")


def _taken_over(family: int, type: int, proto: int, fd: int) -> socket:
    """A socket for a descriptor of our own; closed if none can be made of it."""
    made = socket.__new__(socket)
    try:
        socket.__init__(made, family, type, proto, fd)
    except BaseException:
        _let_go(fd, made)
        raise
    return made


def _let_go(fd: int, made: _stdlib.socket) -> None:
    """Close a descriptor, of which a socket may be in charge already; but once."""
    with suppress(OSError):
        if _socket.socket.fileno(made) == fd:
            _socket.socket.close(made)
        else:
            os.close(fd)


def _lock(fd: int, how: int) -> None:
    with suppress(OSError):  # the system may have none for sockets
        fcntl.lockf(fd, how)


def _at_once(flags: Any) -> Any:
    return flags | MSG_DONTWAIT if isinstance(flags, int) else flags


# --- to other processes, by multiprocessing -----------------------------------------------


def _reduced(sock: socket) -> Any:
    """As multiprocessing has it for the stdlib's: a duplicate, without the timeout."""
    return _passed, (DupFd(sock.fileno()), sock.family, sock.type, sock.proto)


def _passed(duplicate: Any, family: int, type: int, proto: int) -> socket:
    return _taken_over(family, type, proto, duplicate.detach())


ForkingPickler.register(socket, _reduced)
