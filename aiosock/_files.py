"""What `makefile` returns: files over a socket, whose calls are awaited.

Knows a socket's `recv` and `sendall`; knows nothing of loops or of how one waits, nor
whether there is TLS beneath.

Nothing leaves a file's buffer before a call is complete.  Each reading call says how much
its answer is, and receives until it can say so; what a cancelled or late call had received
is read by the next one.  That stands once, in `_Buffer._until`.  (The stdlib's own file is
of no use after a timeout.)  What could not be sent is kept too, and goes with the next call.

A call that need not receive, or not send, does not wait: no other task runs meanwhile.
Those that wait stand in line, so that each is whole, as with the socket itself.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import io
import re
import warnings
from collections.abc import Callable, Iterable
from math import inf
from operator import index
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, Self, TypeVar

from ._advice import AsyncOnly

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["BinaryFile", "RawFile", "TextFile", "file_of"]

T = TypeVar("T", bytes, str)
Enough = Callable[[int], int]

AT_ONCE: Final = 65536  # bytes received at once where nothing else is said
NOT_YET: Final = -1
TURN: Final = 128  # answers out of a buffer before other tasks get a turn
ANY_END: Final = re.compile("\r\n|\n|\r")
CLOSED: Final = "I/O operation on closed file."


class Source(Protocol):
    """What a file needs of its socket."""

    _io_refs: int

    def _decref_socketios(self) -> None: ...
    def recv(self, bufsize: int, /) -> Any: ...
    def send(self, data: Any, /) -> Any: ...
    def sendall(self, data: Any, /) -> Any: ...
    def fileno(self) -> int: ...


def file_of(
    sock: Source,
    mode: str,
    buffering: int | None,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    limit: int | None,
) -> BinaryFile | TextFile:
    """The file that `makefile` is asked for."""
    if not set(mode) <= {"r", "w", "b"}:
        raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
    size = None if buffering is None or buffering < 0 else index(buffering)
    if "b" in mode:
        return RawFile(sock, mode, 1, limit) if size == 0 else BinaryFile(sock, mode, size, limit)
    if size == 0:
        raise ValueError("unbuffered streams must be binary")
    encoder = io.TextIOWrapper(_Sink(), io.text_encoding(encoding, 3), errors, newline)
    return TextFile(BinaryFile(sock, mode, size, None), mode, encoder, newline, limit)


# --- what all files do ----------------------------------------------------------------


class _Turns:
    """One operation after the other, in the order in which they came."""

    __slots__ = ("_lock", "users")

    def __init__(self) -> None:
        self.users = 0
        self._lock: asyncio.Lock | None = None

    async def __aenter__(self) -> None:
        if self._lock is None:
            self._lock = asyncio.Lock()  # of the loop that runs now, until nobody needs it
        self.users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *args: object) -> None:
        assert self._lock is not None
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self.users -= 1
        if not self.users:
            self._lock = None


class _Buffer(AsyncOnly, Generic[T]):
    """Data received and not read yet, of which each call takes its answer at once."""

    def __init__(self, nothing: T, limit: int | None) -> None:
        self._data: Any = nothing
        self._start = 0  # of what has not been read
        self._type: Any = type(nothing)
        self._answered = 0  # since other tasks had a turn
        self._reading = _Turns()
        self.limit = limit

    if not TYPE_CHECKING:  # who is to refuse it as well

        def __iter__(self) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__!r} object is not iterable: "
                f"its lines are awaited, by `async for`"
            )

    async def _receive(self, at_once: int | None) -> bool:
        """Await more data; whether there is any.  A cancelled call has lost nothing."""
        raise NotImplementedError

    async def _until(self, enough: Enough, at_once: int | None = None) -> T:
        """As much as `enough` says, which is told how much there is; at the end all of it."""
        if self._answered >= TURN:
            self._answered = 0
            await asyncio.sleep(0)
        if not self._reading.users and (count := enough(self._unread())) != NOT_YET:
            return self._take(count)
        async with self._reading:
            while (count := enough(self._unread())) == NOT_YET:
                if not await self._receive(at_once):
                    count = enough(self._unread())
                    break
            return self._take(self._unread() if count == NOT_YET else count)

    async def _some(self, enough: Enough, at_once: int | None = None) -> T | None:
        """As `_until`; in non-blocking mode what there is, and None for nothing."""
        try:
            return await self._until(enough, at_once)
        except BlockingIOError:
            return self._take(self._unread()) or None

    def _unread(self) -> int:
        return len(self._data) - self._start

    def _take(self, count: int) -> T:
        self._answered += 1
        start, self._start = self._start, self._start + count
        taken: T = self._type(self._data[start : self._start])
        return taken

    def _line(
        self,
        end_of: Callable[[Any, int, int], int],
        most: int = -1,
        limit: float | None = None,
        seen: int = 0,
    ) -> Enough:
        """How much a line is: up to where `end_of` finds its end, which is behind `seen`."""
        limit = self.limit if limit is None else limit

        def enough(unread: int) -> int:
            nonlocal seen
            end = end_of(self._data, self._start, self._start + seen) - self._start
            length = end if end > 0 else unread
            if 0 <= most <= length:
                return most
            if limit is not None and length > limit:
                raise asyncio.LimitOverrunError(f"the line is longer than {limit}", unread)
            seen = max(seen, unread)
            return end if end > 0 else NOT_YET

        return enough


def exactly(size: int) -> Enough:
    """All to the end, if the size is negative."""
    return lambda unread: size if 0 <= size <= unread else NOT_YET


def at_most(size: int) -> Enough:
    """At least one; any number, if the size is negative."""
    return lambda unread: (unread if size < 0 else min(unread, size)) or NOT_YET


def as_count(size: Any) -> int:
    if size is None:
        return -1
    try:
        return index(size)
    except TypeError:
        kind = type(size).__name__
        raise TypeError(f"argument should be integer or None, not {kind!r}") from None


# --- bytes ----------------------------------------------------------------------------


class BinaryFile(_Buffer[bytes]):
    """Bytes over a socket, buffered in both directions; made by `socket.makefile`.

    Works in ``async with``, which closes it, and in ``async for``, line by line.  A cancellation
    that leaves the ``async with`` does not await that what is unsent goes out.  A reading
    call that is cancelled or late has taken nothing: the next one goes on where it stopped.
    In non-blocking mode a call gives what there is, as the stdlib's does.  One thread at a
    time may use a file; of several tasks each has its turn.

    `limit` is how many bytes a line may have; None, as in the stdlib: as many as come.  `mode` and
    `closed` are there too.
    """

    closed: bool = True  # until it is open

    def __init__(self, sock: Source, mode: str, size: int | None, limit: int | None) -> None:
        super().__init__(b"", limit)
        self._sock = sock
        self._at_once, self._room = size or AT_ONCE, size or io.DEFAULT_BUFFER_SIZE
        self._writes = "w" in mode
        self._reads = "r" in mode or not self._writes
        self.mode = "r" * self._reads + "w" * self._writes + "b"
        self._writing = _Turns()
        self._unsent = bytearray()
        self._cut_short = False  # a send was: what TLS has encrypted by then goes with the next
        sock._io_refs += 1
        self.closed = False

    # --- reading ----------------------------------------------------------------------

    async def read(self, size: int | None = -1, /) -> bytes:
        """Await `size` bytes, fewer only at the end of the stream; by default all up to there.

        In non-blocking mode what there is, None for nothing.
        """
        wanted = as_count(size)
        self._must_read("read")
        if wanted < -1:
            raise ValueError("read length must be non-negative or -1")
        return await self._some(exactly(wanted))  # type: ignore[return-value]  # as typeshed has it

    async def read1(self, size: int = -1, /) -> bytes:
        """Await at least one byte and at most `size`, received at once; b"" at the end."""
        most = index(size)
        self._must_read("read", "read1")
        return await self._some(at_most(most)) or b"" if most else b""

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As `read`, for all the buffer's room, written to it when complete; how many bytes."""
        room = self._room_of(buffer)
        return put(await self.read(room), buffer)

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """As `read1`, written to the buffer; how many bytes."""
        room = self._room_of(buffer)
        return put(await self._some(at_most(room)), buffer) if room else 0

    async def peek(self, size: int = 0, /) -> bytes:
        """Await at least one byte, b"" at the end, and leave them; `size` says nothing."""
        index(size)
        self._must_read("peek")
        await self._some(lambda unread: 0 if unread else NOT_YET)
        return bytes(self._data[self._start :])

    async def readline(self, size: int | None = -1, /, *, limit: int | None = None) -> bytes:
        """Await a line with its end; what there is without one at the end of the stream.

        At most `size` bytes of it.  A line of more than `limit` bytes, if that is given here or
        to `makefile`, raises `asyncio.LimitOverrunError`, and can still be read.
        """
        hasty = size == -1 and limit is None is self.limit and not self._reading.users
        if hasty and self._answered < TURN:
            data, start = self._data, self._start
            if end := data.find(b"\n", start) + 1:  # nearly always, and then this is all
                self._start = end
                self._answered += 1
                return data[start:end] if type(data) is bytes else bytes(data[start:end])
        most = as_count(size)
        self._must_read("readline")
        return await self._some(self._line(after(b"\n"), most, limit)) or b""

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Await the lines up to the end of the stream, or until they are more than `hint` bytes."""
        least = as_count(hint)
        self._must_read()
        enough = self._line(after(b"\n"), limit=inf, seen=least) if least > 0 else exactly(-1)
        return io.BytesIO(await self._some(enough) or b"").readlines()

    async def readuntil(self, separator: bytes = b"\n", *, limit: int | None = None) -> bytes:
        """Await bytes up to a separator, which is part of them.

        Raises `asyncio.IncompleteReadError`, which has what came, at the end of the stream,
        and `asyncio.LimitOverrunError` as `readline`.
        """
        self._must_read()
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        data = await self._until(self._line(after(separator), limit=limit))
        if not data.endswith(separator):
            raise asyncio.IncompleteReadError(data, None)
        return data

    async def readexactly(self, n: int) -> bytes:
        """Await `n` bytes.

        Raises `asyncio.IncompleteReadError`, which has what came, at the end of the stream.
        """
        self._must_read()
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        data = await self._until(exactly(n))
        if len(data) < n:
            raise asyncio.IncompleteReadError(data, n)
        return data

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    async def _receive(self, at_once: int | None) -> bool:
        data: bytes = await self._sock.recv(at_once or self._at_once)
        left = self._unread()
        if not left:
            self._data = data
        elif left < self._at_once:
            self._data = self._data[self._start :] + data
        else:  # a long answer, which shall not be copied with each piece
            self._data = bytearray(self._data) if type(self._data) is bytes else self._data
            del self._data[: self._start]
            self._data += data
        self._start = 0
        self._must_be_open("read of closed file")
        return bool(data)

    def _must_read(self, call: str = "", otherwise: str = "read") -> None:
        if not call:
            self._must_be_open(CLOSED)
        if not self._reads:
            raise io.UnsupportedOperation(otherwise)
        self._must_be_open(f"{call} of closed file")

    def _room_of(self, buffer: WriteableBuffer) -> int:
        self._must_read("readinto")
        io.BytesIO().readinto(buffer)  # refuses in the stdlib's words
        return memoryview(buffer).nbytes

    # --- writing ----------------------------------------------------------------------

    async def write(self, data: ReadableBuffer, /) -> int:
        """Take all of `data`, for `flush` to send, or this call if the buffer is full; how much.

        A late, cancelled or failed call has taken it as well: what is not sent goes with the
        next one, and is not to be repeated.  In non-blocking mode ``characters_written`` of the
        BlockingIOError tells how much there was room for.
        """
        self._must_write()
        with view_of(data) as view:
            self._must_be_open("write to closed file")
            self._unsent += view
            size = view.nbytes
        if len(self._unsent) > self._room:
            await self._make_room(size)
        return size

    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Await `write` for each of the lines, to which nothing is added.

        A late or cancelled call has taken those up to the one that it waited with.
        """
        self._must_be_open(CLOSED)
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Await that all is sent.  What a cancelled, late or failed call has not sent is kept."""
        self._must_be_open("flush of closed file" if self._writes else CLOSED)
        await self._send_unsent()

    async def close(self) -> None:
        """Send what is unsent, and close the file, in every case; the socket stays open.

        The connection of a socket that was closed before ends now.
        """
        try:
            if not self.closed:
                await self._send_unsent()
        finally:
            self._end()

    async def _make_room(self, size: int) -> None:
        """Send, after something of that size was taken."""
        try:
            await self._send_unsent()
        except BlockingIOError:
            # What was taken before this call stays.
            excess = min(size, max(0, len(self._unsent) - self._room))
            del self._unsent[len(self._unsent) - excess :]
            if excess:
                raise would_block(size - excess) from None
        except BaseException as error:
            error.characters_written = size  # type: ignore[attr-defined]  # the stdlib's word, on all errors
            raise

    async def _send_unsent(self) -> None:
        """Send all that was taken until it is this call's turn."""
        if not (self._unsent or self._writing.users or self._cut_short):
            return
        async with self._writing:
            data, self._unsent = self._unsent, bytearray()
            try:
                if data or self._cut_short:
                    await self._sock.sendall(data)
                    self._cut_short = False
            except BaseException as error:
                self._cut_short = True
                self._unsent[:0] = data[getattr(error, "bytes_sent", 0) :]
                if isinstance(error, BlockingIOError):
                    raise would_block(0) from None
                raise

    def _must_write(self) -> None:
        if not self._writes:
            raise io.UnsupportedOperation("write")

    # --- what it is -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._must_be_open(CLOSED)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *args: object) -> None:
        if kind is None or issubclass(kind, Exception):
            await self.close()
        else:  # a cancellation, which a peer that reads nothing shall not hold up
            self._end()

    @property
    def name(self) -> int:
        """The socket's descriptor, -1 when the file is closed."""
        return -1 if self.closed else self._sock.fileno()

    def fileno(self) -> int:
        """The socket's descriptor."""
        self._must_be_open(CLOSED)
        return self._sock.fileno()

    def readable(self) -> bool:
        """Whether the file is for reading."""
        self._must_be_open("I/O operation on closed socket.")
        return self._reads

    def writable(self) -> bool:
        """Whether the file is for writing."""
        self._must_be_open("I/O operation on closed socket.")
        return self._writes

    def seekable(self) -> bool:
        """False."""
        self._must_be_open("I/O operation on closed socket.")
        return False

    def isatty(self) -> bool:
        """False."""
        self._must_be_open(CLOSED)
        return False

    def _must_be_open(self, text: str) -> None:
        if self.closed:
            raise ValueError(text)

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._sock._decref_socketios()

    def __repr__(self) -> str:
        return f"<aiosock.{type(self).__name__} name={self.name} mode={self.mode!r}>"

    def __del__(self) -> None:
        if not self.closed and self._unsent:
            lost = f"unclosed file {self!r}: {len(self._unsent)} bytes were not sent"
            warnings.warn(lost, ResourceWarning, stacklevel=2, source=self)
        self._end()


class RawFile(BinaryFile):
    """Bytes over a socket, with no buffer: made by `makefile` with a buffering of 0.

    Nothing is received that is not the answer.  Otherwise as `BinaryFile`.
    """

    async def read(self, size: int = -1, /) -> bytes | None:  # type: ignore[override]  # as the stdlib's raw files
        """Await at least one byte and at most `size`, received at once; b"" at the end.

        By default all up to the end.  In non-blocking mode None for nothing.
        """
        most = index(size)
        self._must_read()
        if not most:
            return b""
        if most < 0:
            return await self._some(exactly(most), AT_ONCE)
        return await self._some(at_most(most), most)

    async def readall(self) -> bytes | None:
        """Await all up to the end of the stream."""
        return await self.read()

    async def read1(self, size: int = -1, /) -> bytes:
        """As `read`, and without a size what comes at once."""
        most = index(size)
        return await self.read(most if most >= 0 else AT_ONCE) or b""

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """As `readinto`."""
        return await self.readinto(buffer)

    async def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]  # as the stdlib's raw files
        """Await `socket.send`; how many bytes it took, None in non-blocking mode for none."""
        self._must_write()
        view_of(data).release()
        try:
            sent: int = await self._sock.send(data)
        except BlockingIOError:
            return None
        return sent

    async def flush(self) -> None:
        """Nothing: there is no buffer."""
        self._must_be_open(CLOSED)

    def _must_read(self, call: str = "", otherwise: str = "") -> None:
        super()._must_read("", "File or stream is not readable.")

    def _must_write(self) -> None:
        self._must_be_open(CLOSED)
        if not self._writes:
            raise io.UnsupportedOperation("File or stream is not writable.")


def after(separator: bytes | str) -> Callable[[Any, int, int], int]:
    """Finds where a separator ends, from `start` on, that does not end before `at`; 0: nowhere."""
    overlap = len(separator) - 1

    def end_of(data: Any, start: int, at: int) -> int:
        found: int = data.find(separator, max(start, at - overlap))
        return found + len(separator) if found >= 0 else 0

    return end_of


def put(data: bytes | None, buffer: WriteableBuffer) -> int:
    if data is None:
        return None  # type: ignore[return-value]  # likewise
    with memoryview(buffer) as view:
        view.cast("B")[: len(data)] = data
    return len(data)


def view_of(data: ReadableBuffer) -> memoryview:
    try:
        return memoryview(data).cast("B")
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"a bytes-like object is required, not {kind!r}") from None


def would_block(written: int) -> BlockingIOError:
    text = "write could not complete without blocking"
    return BlockingIOError(errno.EAGAIN, text, written)


# --- characters -----------------------------------------------------------------------


class _Sink(io.BytesIO):
    """Where the stdlib's text file puts bytes that are to be sent."""

    def seekable(self) -> bool:
        return False  # which has a say in how a text begins

    def take(self) -> bytes:
        data = self.getvalue()
        self.seek(0)
        self.truncate()
        return data


class TextFile(_Buffer[str]):
    """Characters over a socket; made by `socket.makefile` with a mode that has no "b".

    Works in ``async with`` and in ``async for``, as `BinaryFile`, which `buffer` is; sizes and
    `limit` count characters.  Line ends are translated as the stdlib's files do it.
    """

    def __init__(
        self,
        buffer: BinaryFile,
        mode: str,
        encoder: io.TextIOWrapper[_Sink],
        newline: str | None,
        limit: int | None,
    ) -> None:
        super().__init__("", limit)
        self.buffer: BinaryFile = buffer
        self.mode: str = mode
        self.encoding: str = encoder.encoding
        self.errors: str = encoder.errors or "strict"
        self._encoder = encoder
        decoder: Any = codecs.getincrementaldecoder(self.encoding)(self.errors)
        if not newline:
            decoder = io.IncrementalNewlineDecoder(decoder, translate=newline is None)
        self._decoder = decoder
        self._end_of = after_any if newline == "" else after(newline or "\n")

    # --- reading ----------------------------------------------------------------------

    async def read(self, size: int | None = -1, /) -> str:
        """Await `size` characters, fewer only at the end; by default all up to there."""
        wanted = as_count(size)
        self._must_read()
        return await self._until(exactly(wanted))

    async def readline(self, size: int = -1, /, *, limit: int | None = None) -> str:
        """Await a line, as `BinaryFile.readline`."""
        most = index(size)
        self._must_read()
        return await self._until(self._line(self._end_of, most, limit))

    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """Await lines, as `BinaryFile.readlines`."""
        least = as_count(hint)
        self._must_read()
        enough = self._line(self._end_of, limit=inf, seen=least) if least > 0 else exactly(-1)
        text, lines, start = await self._until(enough), list[str](), 0
        while start < len(text):
            end = self._end_of(text, start, start) or len(text)
            lines.append(text[start:end])
            start = end
        return lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    async def _receive(self, at_once: int | None) -> bool:
        data = await self.buffer._some(at_most(-1))
        if data is None:  # in non-blocking mode what there is, is the answer
            return False
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self.buffer._start -= len(data)  # another reader may make sense of it
            raise
        # In a variable of its own a text grows in place: a long line is not copied for each piece.
        known, self._data = self._data, ""
        if self._start:
            known, self._start = known[self._start :], 0
        known += text
        self._data = known
        return bool(data)

    def _must_read(self) -> None:
        self.buffer._must_be_open(CLOSED)
        if not self.buffer._reads:
            raise io.UnsupportedOperation("not readable")

    # --- writing ----------------------------------------------------------------------

    async def write(self, text: str, /) -> int:
        """As `BinaryFile.write`; how many characters.  Also in non-blocking mode all are taken."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.buffer._must_be_open(CLOSED)
        if not self.buffer._writes:
            raise io.UnsupportedOperation("not writable")
        self._encoder.write(text)
        self._encoder.flush()
        data = self._encoder.buffer.take()
        try:
            await self.buffer.write(data)
        except BaseException as error:
            if isinstance(error, BlockingIOError):
                self.buffer._unsent += data[error.characters_written :]
            error.characters_written = len(text)  # type: ignore[attr-defined]  # as there
            raise
        return len(text)

    async def writelines(self, lines: Iterable[str], /) -> None:
        """Await `write` for each of the lines, to which nothing is added.

        A late or cancelled call has taken those up to the one that it waited with.
        """
        self.buffer._must_be_open(CLOSED)
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Await that all is sent.  What a cancelled, late or failed call has not sent is kept."""
        self.buffer._must_be_open(CLOSED)
        await self.buffer.flush()

    async def close(self) -> None:
        """As `BinaryFile.close`."""
        await self.buffer.close()

    # --- what it is -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.buffer._must_be_open(CLOSED)
        return self

    async def __aexit__(self, *args: Any) -> None:
        await self.buffer.__aexit__(*args)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.buffer.closed

    @property
    def name(self) -> int:
        """The socket's descriptor, -1 when the file is closed."""
        return self.buffer.name

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The kinds of line ends that were translated so far."""
        found: str | tuple[str, ...] | None = getattr(self._decoder, "newlines", None)
        return found

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.buffer.fileno()

    def readable(self) -> bool:
        """Whether the file is for reading."""
        return self.buffer.readable()

    def writable(self) -> bool:
        """Whether the file is for writing."""
        return self.buffer.writable()

    def seekable(self) -> bool:
        """False."""
        return self.buffer.seekable()

    def isatty(self) -> bool:
        """False."""
        return self.buffer.isatty()

    def __repr__(self) -> str:
        return f"<aiosock.TextFile name={self.name} mode={self.mode!r} encoding={self.encoding!r}>"


def after_any(text: str, start: int, at: int) -> int:
    """Where the next line end of whatever kind ends; 0 if there is none."""
    found = ANY_END.search(text, at)
    return found.end() if found else 0
