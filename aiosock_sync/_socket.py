"""The blocking socket: a stdlib socket whose waiting is done by an event loop.

Knows the stdlib's class, from which it inherits all that never waits, and the engine; what
waits is tried, and if it would block handed to the engine and run to its end.

The descriptor's own mode is the stdlib's: blocking while the timeout is None, so that a
child process, `os.read` or `ssl` find what `gettimeout()` says.  The attempts do not wait
all the same: they carry MSG_DONTWAIT, and the calls that know no flags (accept, connect,
sendfile) are made in a moment in which the descriptor does not block.

Attempts are made through a second object for the same descriptor, which never closes it.
The engine holds that one; were it this object, a cycle would keep each socket open.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import socket as _stdlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiosock._deadline import NOW, deadline_after, timed_out
from aiosock._names import needs_lookup, numeric_address
from aiosock._operations import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
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
from aiosock._readiness import Direction, Readiness, Stateful

from ._driver import is_late, limited, loop_here, run, run_task, turn_once

if TYPE_CHECKING:
    import asyncio
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["socket"]

T = TypeVar("T")
Address = Any  # its shape depends on the family; AF_INET: (host, port)
Attempt = Callable[..., Any]


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

    One thread at a time: another's end would be the end of this one's moment.
    """

    def __init__(self, raw: _stdlib.socket, lock: threading.Lock) -> None:
        self._raw, self._lock = raw, lock
        self.family = raw.family

    @contextmanager
    def _unblocked(self) -> Iterator[_stdlib.socket]:
        with self._lock:
            fd = self._raw.fileno()
            blocking = fd >= 0 and os.get_blocking(fd)
            if blocking:
                os.set_blocking(fd, False)
            try:
                yield self._raw
            finally:
                if blocking and self._raw.fileno() == fd:
                    os.set_blocking(fd, True)

    def accept(self) -> tuple[int, Address]:
        with self._unblocked() as raw:
            fd, address = raw._accept()  # type: ignore[attr-defined]  # the stdlib's
            return fd, address

    def connect(self, address: Address) -> None:
        with self._unblocked() as raw:
            raw.connect(address)

    def connect_ex(self, address: Address) -> int:
        with self._unblocked() as raw:
            return raw.connect_ex(address)

    def sendfile(self, *args: int) -> int:
        with self._unblocked():
            return os.sendfile(*args)

    def getsockopt(self, level: int, option: int) -> int:
        return self._raw.getsockopt(level, option)

    def fileno(self) -> int:
        return self._raw.fileno()

    def send(self, data: ReadableBuffer, flags: int) -> int:
        return self._raw.send(data, flags | MSG_DONTWAIT)


class socket(_stdlib.socket):
    """A socket as `socket.socket` documents it, that waits in an event loop.

    All that the stdlib's has, with its modes, errors and texts, and beyond it: a call that
    another thread's `close` ends raises OSError(EBADF), `fail_after` bounds calls together,
    and whatever a `sendall` raises tells in ``bytes_sent`` how far it got.
    """

    __slots__ = ("_lock", "_quietly", "_raw", "_readiness", "_reading", "_sending", "_stream")

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._raw = raw = _another(self)
        self._readiness = readiness = _Readiness(raw)
        self._reading, self._stream = readiness.reading, raw.type == _stdlib.SOCK_STREAM
        # poll() calls an AF_UNIX socket writable although the receiver's queue is full.
        silent = raw.family == AF_UNIX and not self._stream
        self._sending = readiness.pausing if silent else readiness.writing
        # A process may have undone that Python ignores SIGPIPE.
        self._quietly = MSG_DONTWAIT | (MSG_NOSIGNAL if raw.family in SIGNALLING else 0)
        self._lock = threading.Lock()

    # --- waiting --------------------------------------------------------------------

    def _complete(
        self, direction: Direction, asked: int, flags: Any, attempt: Callable[..., T], *args: Any
    ) -> T:
        """The attempt's result: at once, or when the engine has brought it about."""
        self._be_in_time()
        if direction.instead is None:
            try:
                return attempt(*args)
            except BlockingIOError:
                if not self._may_wait(flags):
                    raise
            if asked:
                direction.line.drained = direction.line.watched
        return run(direction.complete(self._deadline(), asked, attempt, *args))

    def _may_wait(self, flags: Any) -> bool:
        """In blocking mode not on a descriptor that somebody else has made non-blocking."""
        timeout = self.gettimeout()
        if timeout is None:
            return not has(flags, MSG_DONTWAIT) and os.get_blocking(self.fileno())
        return timeout > 0

    def _be_in_time(self) -> None:
        if is_late() and self.gettimeout() != NOW:
            raise timed_out()

    def _deadline(self) -> float | None:
        self._be_in_time()
        timeout = self.gettimeout()
        return limited(timeout and deadline_after(timeout))

    # --- waiting: connections -------------------------------------------------------

    def accept(self) -> tuple[socket, Address]:
        """Wait for a connection; a pair of its socket and the address of its other end."""
        moment = _Moment(self._raw, self._lock)
        fd, address = self._complete(self._reading, 0, 0, moment.accept)
        return _taken_over(self.family, self.type, self.proto, fd), address

    def bind(self, address: Address, /) -> None:
        """Bind to an address; a host name is looked up by the resolver of `set_resolver`."""
        super().bind(self._numeric("bind", address, limited(None)))

    def connect(self, address: Address, /) -> None:
        """Connect to an address; the timeout bounds lookup and connection together."""
        error = self._connect("connect", address, self._deadline())
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: Address, /) -> int:
        """Connect, and return the errno of connect(2): 0, or EAGAIN when late."""
        own = deadline_after(self.gettimeout())
        deadline = limited(own)
        try:
            return self._connect("connect_ex", address, deadline)
        except TimeoutError:
            if deadline != own:  # that was fail_after
                raise
            return errno.EAGAIN

    def _connect(self, call: str, address: Address, deadline: float | None) -> int:
        address = self._numeric(call, address, deadline)
        moment = _Moment(self._raw, self._lock)
        begin = getattr(moment, call)
        return run(connect(self._readiness, moment, deadline, begin, address))  # type: ignore[arg-type]  # of a socket it has what connecting takes

    def _numeric(self, call: str, address: Address, deadline: float | None, *data: Any) -> Address:
        if not needs_lookup(self._raw.family, address):
            return address
        lookup = numeric_address(self._raw, call, address, *data)
        return run_task(self._readiness.errand(lookup, deadline))

    # --- waiting: receiving ---------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Wait for data: at least one byte and at most `bufsize`, b"" at the end."""
        if flags or type(bufsize) is not int:
            data: bytes = self._receive(flags, "recv", bufsize)
            return data
        reading, recv = self._reading, self._raw.recv
        line, asked = reading.line, bufsize if self._stream else 0
        if asked and line.drained and line.watched:
            deadline = self._deadline()
            # A conversation comes here each time, and has a third of its CPU time to save:
            # one turn of the loop is all there is to do, and no coroutine is needed for it.
            if deadline is None and turn_once(line.loop) and reading.instead is None:
                try:
                    data = recv(bufsize, MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                else:
                    line.drained = line.remembers and 0 < len(data) < bufsize
                    return data
            return run(reading.complete(deadline, asked, recv, bufsize, MSG_DONTWAIT))
        return self._complete(reading, asked, 0, recv, bufsize, MSG_DONTWAIT)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Wait for data and write it to `buffer`; how many bytes."""
        if flags or nbytes or not self._stream:
            size: int = self._receive(flags, "recv_into", buffer, nbytes)
            return size
        recv_into, asked = self._raw.recv_into, max(0, room_of(buffer))
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

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Wait for data and ancillary data: (data, ancdata, msg_flags, address)."""
        return self._receive(flags, "recvmsg", bufsize, ancbufsize)

    def recvmsg_into(
        self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> Any:
        """Wait for data and scatter it into `buffers`: (nbytes, ancdata, msg_flags, address)."""
        return self._receive(flags, "recvmsg_into", again(buffers), ancbufsize)

    def _receive(self, flags: Any, verb: str, *args: Any) -> Any:
        if not flags or not isinstance(flags, int):
            attempt = getattr(self._raw, verb)
            return self._complete(self._reading, 0, flags, attempt, *args, _at_once(flags))
        blocking, deadline = self.gettimeout() is None, self._deadline()
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
        quiet = self._quiet(flags) if flags else self._quietly
        if self._wants_whole(flags):
            return self._send_whole(flags, self._raw.send, data, quiet)
        return self._complete(self._sending, 0, flags, self._raw.send, data, quiet)

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send all of the data; the timeout is for all of it together."""
        quiet = self._quiet(flags) if flags else self._quietly
        self._send_whole(flags, self._raw.send, data, quiet)

    def sendto(self, *args: Any) -> int:
        """``sendto(data[, flags], address)``: wait for room, and send to an address."""
        if not 2 <= len(args) <= 3:
            return self._raw.sendto(*args)
        data, flags = args[0], args[1] if len(args) == 3 else 0
        address = self._numeric("sendto", args[-1], self._deadline(), *args[:-1])
        args = (data, self._quiet(flags), address)
        if self._wants_whole(flags):
            return self._send_whole(flags, self._raw.sendto, *args)
        return self._complete(self._sending, 0, flags, self._raw.sendto, *args)

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        address: Address = None,
        /,
    ) -> int:
        """Wait for room, and send buffers and ancillary data as one message."""
        address = self._numeric("bind", address, self._deadline())
        args = (again(buffers), again(ancdata), self._quiet(flags), address)
        if self._wants_whole(flags):
            return self._run(SendingMessage(self._raw.sendmsg, *args))
        return self._complete(self._sending, 0, flags, self._raw.sendmsg, *args)

    if hasattr(_stdlib.socket, "sendmsg_afalg"):

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
        """Send a file, or `count` bytes of it from `offset`; how many that was."""
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]  # the stdlib's own judge
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        moment = _Moment(self._raw, self._lock)
        return self._run(SendingFile(moment, file, offset, count, moment.sendfile))

    def _wants_whole(self, flags: Any) -> bool:
        whole = self._stream and self.gettimeout() is None
        return whole and not (flags and has(flags, MSG_DONTWAIT))

    def _quiet(self, flags: Any) -> Any:
        return flags | self._quietly if isinstance(flags, int) else flags

    def _send_whole(
        self, flags: Any, send: Callable[..., int], data: ReadableBuffer, *args: Any
    ) -> int:
        sent = 0
        if not self._sending.line.busy and not is_late():
            try:
                sent = send(data, *args)
            except BlockingIOError as error:
                if not self._may_wait(flags):
                    error.bytes_sent = 0  # type: ignore[attr-defined]  # ours, as documented
                    raise
            except BaseException as error:
                error.bytes_sent = 0  # type: ignore[attr-defined]  # ours, as documented
                raise
            if sent == (len(data) if type(data) is bytes else memoryview(data).nbytes):
                return sent
        return self._run(Sending(sent, send, data, *args), flags)

    def _run(self, attempt: Stateful, flags: Any = 0) -> int:
        now = has(flags, MSG_DONTWAIT) and self.gettimeout() is None
        try:
            deadline = NOW if now else self._deadline()
        except TimeoutError as late:
            attempt.stopped(late)
            raise
        sent: int = run(self._sending.complete(deadline, 0, attempt))
        return sent

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
        self._raw.detach()
        return super().detach()

    def _real_close(self, _ss: Any = _socket.socket) -> None:
        def close_both() -> None:
            self._raw.detach()
            _ss.close(self)

        self._readiness.end(close_both)

    def __del__(self) -> None:
        readiness = getattr(self, "_readiness", None)  # not there if __init__ failed
        if readiness is not None and self._raw.fileno() >= 0:
            readiness.end(self._raw.detach)
        _socket.socket.__del__(self)  # type: ignore[attr-defined]  # closes, with a ResourceWarning


def _another(sock: _stdlib.socket) -> _stdlib.socket:
    """A second object for a socket's descriptor; it must be detached, never closed.

    It has no timeout of its own: its calls do not wait in C.
    """
    family, kind, proto = (getattr(_socket.socket, n).__get__(sock) for n in _KIND)
    raw = _stdlib.socket(family, kind, proto, sock.fileno())
    if raw.gettimeout() is not None:
        raw.settimeout(None)
        _socket.socket.settimeout(sock, sock.gettimeout())  # the descriptor's mode again
    return raw


_KIND: Final = ("family", "type", "proto")


def _taken_over(family: int, type: int, proto: int, fd: int) -> socket:
    """A socket for a descriptor of our own; closed if none can be made of it."""
    try:
        return socket(family, type, proto, fileno=fd)
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise


def _at_once(flags: Any) -> Any:
    return flags | MSG_DONTWAIT if isinstance(flags, int) else flags
