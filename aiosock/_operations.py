"""Operations longer than one attempt: connecting, sending all, receiving all.

Knows the system calls that may stop half-way and what is left to do then; knows
nothing of loops, of waiting or of the public socket.  Each operation is an object that
is called until it no longer raises BlockingIOError: it keeps its own progress, so that
the one wait loop of the engine can drive it as it drives a plain ``sock.recv``.

Nobody else's bytes come between the pieces: the engine keeps an operation's place in
line until it is over.  A piece that was taken only in part has filled the kernel's
buffer; the operation says so without trying again, for the answer is known.
"""

import errno
import io
import os
import select
import socket as _stdlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import Any, Final, TypeVar

from ._advice import tell_shape
from ._deadline import NOW
from ._readiness import Direction, Readiness, Stateful, StillReady, bad_descriptor, vet

__all__ = [
    "AF_UNIX",
    "MSG_DONTWAIT",
    "MSG_NOSIGNAL",
    "MSG_PEEK",
    "MSG_TRUNC",
    "NO_FLAGS",
    "SHOWING_ALL",
    "SIGNALLING",
    "Leftover",
    "Sending",
    "SendingFile",
    "SendingMessage",
    "again",
    "await_ready",
    "connect",
    "has",
    "placed",
    "receiving",
    "room_of",
]

T = TypeVar("T")

# Plain ints: an operation on an enum's member takes a microsecond.
MSG_DONTWAIT: Final = int(getattr(_stdlib, "MSG_DONTWAIT", 0))
MSG_ERRQUEUE: Final = int(getattr(_stdlib, "MSG_ERRQUEUE", 0))
MSG_NOSIGNAL: Final = int(getattr(_stdlib, "MSG_NOSIGNAL", 0))
MSG_OOB: Final = int(_stdlib.MSG_OOB)
MSG_PEEK: Final = int(_stdlib.MSG_PEEK)
MSG_TRUNC: Final = int(_stdlib.MSG_TRUNC)
MSG_WAITALL: Final = int(_stdlib.MSG_WAITALL)
NO_FLAGS: Final = 0  # by identity: what merely equals it is left to the stdlib to judge
AF_UNIX: Final = getattr(_stdlib, "AF_UNIX", None)
# What a stream of these gives short of what was asked is all it has.  AF_UNIX also stops at
# descriptors that come along, and between two senders.
SHOWING_ALL: Final = (_stdlib.AF_INET, _stdlib.AF_INET6)
SIGNALLING: Final = (_stdlib.AF_INET, _stdlib.AF_INET6, AF_UNIX)  # may raise SIGPIPE

BLOCK: Final = 8192  # bytes read at once from a file that os.sendfile() refuses
POLLRDHUP: Final = getattr(select, "POLLRDHUP", 0)
LARGEST: Final = 2**20  # bytes of a file sent before other tasks get a turn


def has(flags: object, flag: int) -> bool:
    return isinstance(flags, int) and bool(flags & flag)


def again(items: Iterable[T]) -> Iterable[T]:
    """An iterable that an attempt may walk through each time it is made."""
    return tuple(items) if isinstance(items, Iterable) else items


def room_of(buffer: object) -> int:
    """How many bytes may be written to a buffer; -1 where that will be refused."""
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]  # whether it is a buffer is the question
    except TypeError:
        return -1
    return view.nbytes if view.c_contiguous and not view.readonly else -1


def would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


# --- connecting ---------------------------------------------------------------------


class Connecting(Stateful):
    """connect(2) carried to its end; the outcome is an errno, 0 for success.

    The end is told by SO_ERROR.  A 0 there may also mean "not yet" after a false
    wake-up, and leaves Linux thinking that the caller still has to fetch the result;
    so the call is repeated: it answers 0 or EISCONN when connected, EALREADY when not.

    An earlier connect may be left behind: a pending one answers EALREADY, for which only
    blocking mode waits; a failed one answers ECONNABORTED once, and then is forgotten.

    AF_UNIX answers EAGAIN when the listener's queue is full.  That is no "in progress":
    nothing was begun, and poll() calls the socket writable all the while.
    """

    def __init__(
        self,
        sock: _stdlib.socket,
        blocking: bool,
        begin: Callable[[Any], int | None],
        address: Any,
    ) -> None:
        self._sock, self._begin, self._address = sock, begin, address
        self._pending = (errno.EINPROGRESS, errno.EALREADY if blocking else None)
        self._begun = False

    def __call__(self) -> int:
        error = self._result() if self._begun else self._first()
        if error in self._pending:
            self._begun = True
            self._pending = (errno.EINPROGRESS, errno.EALREADY)
            raise would_block()
        if error == errno.EAGAIN and self._sock.family == AF_UNIX:
            raise would_block()
        return error

    def _first(self) -> int:
        error = self.begin()
        return self.begin() if error == errno.ECONNABORTED else error

    def begin(self) -> int:
        """The first call's errno; what is no answer of connect(2) is raised."""
        try:
            return self._begin(self._address) or 0
        except _stdlib.gaierror:
            raise
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
        except TypeError as error:
            tell_shape(error, self._sock.family, self._address)
            raise

    def _result(self) -> int:
        error = self._sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR)
        if not error and self._sock.family in (_stdlib.AF_INET, _stdlib.AF_INET6):
            error = self._sock.connect_ex(self._address)
        return 0 if error == errno.EISCONN else error


async def connect(
    readiness: Readiness,
    sock: _stdlib.socket,
    deadline: float | None,
    begin: Callable[[Any], int | None],
    address: Any,
    blocking: bool,
) -> int:
    """The errno of a connect to an address that needs no lookup; TimeoutError when late."""
    attempt = Connecting(sock, blocking, begin, address)
    if deadline == NOW:
        return attempt.begin()
    direction = readiness.pausing if sock.family == AF_UNIX else readiness.writing
    return await direction.complete(deadline, 0, attempt)


# --- sending ------------------------------------------------------------------------


def keep(owner: object, name: str, values: Iterator[Any]) -> None:
    """Set an attribute to what an iterator gives.

    Where that is a `map` of a system call, all of it is in C: no signal handler can raise
    between the call and the attribute, which then would not know what the kernel has.
    """
    try:
        deque(map(setattr, (owner,), (name,), values), 0)
    finally:
        del values  # which may hold a buffer of the caller's


class Sending(Stateful):
    """send(2) of what is left of some data, until all of it is taken.

    Whatever is raised instead carries ``bytes_sent``.
    """

    __slots__ = ("_rest", "first_call", "sent")

    def __init__(self, sent: int, send: Callable[..., int], data: Any, *args: Any) -> None:
        self.first_call = send, (data, *args)
        self.sent = sent
        self._rest = memoryview(data).cast("B") if sent else None

    def __call__(self) -> int:
        send, (data, *args) = self.first_call
        keep(self, "sent", map(add, (self.sent,), map(send, (self._left(data),), *zip(args))))
        if self._rest is None:
            self._rest = memoryview(data).cast("B")
        if self.sent < len(self._rest):
            raise would_block()
        self._rest.release()
        return self.sent

    def _left(self, data: Any) -> Any:
        return self._rest[self.sent :] if self._rest and self.sent else data

    def stopped(self, error: BaseException) -> None:
        error.bytes_sent = self.sent  # type: ignore[attr-defined]  # an attribute of ours, documented with sendall
        if self._rest is not None:
            self._rest.release()  # the caller may resize the buffer while he handles the error


class SendingMessage(Stateful):
    """sendmsg(2) until all buffers are taken; ancillary data goes with the first piece."""

    __slots__ = ("_buffers", "_rest", "first_call", "sent")

    def __init__(
        self, sendmsg: Callable[..., int], buffers: Iterable[Any], ancdata: Any, *args: Any
    ) -> None:
        self._buffers = buffers
        self.first_call = sendmsg, (buffers, ancdata, *args)
        self.sent = 0
        self._rest: list[memoryview] | None = None

    def __call__(self) -> int:
        sendmsg, (buffers, ancdata, *args) = self.first_call
        if self._rest is not None:
            ancdata = ()
        before, others = self.sent, zip((ancdata, *args))
        keep(self, "sent", map(add, (before,), map(sendmsg, (self._rest or buffers,), *others)))
        if self._rest is None:
            self._rest = [memoryview(buffer).cast("B") for buffer in buffers]
        self._rest = _without(self._rest, self.sent - before)
        if self._rest:
            raise would_block()
        return self.sent

    def stopped(self, error: BaseException) -> None:
        error.bytes_sent = self.sent  # type: ignore[attr-defined]  # an attribute of ours, documented with sendall
        self._rest = None


class SendingFile(Stateful):
    """sendfile(2) until the file or `count` ends, or send(2) where the file has no number.

    Reading the file is the one thing here that may block: regular files are never
    "not ready", on any system.  The file's position follows, also after an error.
    """

    def __init__(
        self,
        sock: Any,
        file: Any,
        offset: int,
        count: int | None,
        sendfile: Callable[..., int] = os.sendfile,
    ):
        self.sent, self._sendfile = 0, sendfile
        self._sock, self._file, self._offset, self._count = sock, file, offset, count
        self._unsent = memoryview(b"")
        self._fileno, size = _number_and_size(file)
        if self._fileno is None:
            self._read_instead()
        elif not size:
            self._count = 0

    def __call__(self) -> int:
        turn = self.sent + LARGEST
        while wanted := LARGEST if self._count is None else self._count - self.sent:
            before, room = self.sent, self._piece(min(wanted, LARGEST))
            if self.sent == before:
                break  # the file ends here
            if not room:
                raise would_block()
            if self.sent >= turn:
                raise StillReady
        self._follow()
        return self.sent

    def stopped(self, error: BaseException) -> None:
        error.bytes_sent = self.sent  # type: ignore[attr-defined]  # an attribute of ours, documented with sendall
        self._follow()

    def _piece(self, wanted: int) -> bool:
        """Send some, and whether the kernel may take more."""
        if self._fileno is None:
            return self._send(wanted)
        try:
            start = self._offset + self.sent
            args = self._sock.fileno(), self._fileno, start, wanted
            keep(self, "sent", map(add, (self.sent,), map(self._sendfile, *zip(args))))
        except OSError as error:
            if self.sent or isinstance(error, BlockingIOError) or self._sock.fileno() < 0:
                raise
            self._read_instead()
            return self._send(wanted)
        return True

    def _read_instead(self) -> None:
        self._fileno = None
        if self._offset:
            self._file.seek(self._offset)

    def _send(self, wanted: int) -> bool:
        self._unsent = self._unsent or memoryview(self._file.read(min(wanted, BLOCK)))
        if self._unsent:
            before, sent = self.sent, map(self._sock.send, (self._unsent,), (MSG_NOSIGNAL,))
            keep(self, "sent", map(add, (before,), sent))
            self._unsent = self._unsent[self.sent - before :]
        return not self._unsent

    def _follow(self) -> None:
        """The file's position behind what was sent."""
        if (self.sent or self._unsent) and hasattr(self._file, "seek"):
            self._file.seek(self._offset + self.sent)


def _number_and_size(file: Any) -> tuple[int | None, int]:
    """The descriptor of a file that sendfile(2) may read, None where it has none."""
    try:
        fileno = file.fileno()
        size = os.fstat(fileno).st_size
    except (AttributeError, io.UnsupportedOperation, OSError):
        return None, 0
    return fileno, size


# --- receiving ----------------------------------------------------------------------

Shape = Callable[[bytes, int, list[Any], int, Any], Any]
SHAPES: Final[dict[str, Shape]] = {
    "recv": lambda data, size, ancdata, flags, address: data,
    "recv_into": lambda data, size, ancdata, flags, address: size,
    "recvfrom": lambda data, size, ancdata, flags, address: (data, address),
    "recvfrom_into": lambda data, size, ancdata, flags, address: (size, address),
    "recvmsg": lambda data, size, ancdata, flags, address: (data, ancdata, flags, address),
    "recvmsg_into": lambda data, size, ancdata, flags, address: (size, ancdata, flags, address),
}


class Filling(Stateful):
    """MSG_WAITALL on a descriptor that never blocks: receives until the buffers are full.

    Short, as with the kernel's own, at the end of the stream, at an error (which the next
    call then raises) and behind ancillary data.  What a cancelled one had taken is put
    back, for the next call to take again.
    """

    def __init__(
        self,
        source: Any,
        put_back: Callable[[Any], None],
        verb: str,
        args: tuple[Any, ...],
    ) -> None:
        vet(getattr(source, verb), args)
        self._source, self._shape = source, SHAPES[verb]
        self._buffers, self._ancbufsize, flags = _buffers(verb, *args)
        self._flags = flags & ~_stdlib.MSG_WAITALL
        self._rest = self._buffers
        self._got = 0
        self._put_back = put_back

    def __call__(self) -> Any:
        while (result := self._piece()) is None:
            pass  # until the kernel says that there is no more: less than asked for is no answer
        return result

    def _piece(self) -> Any:
        try:
            message = self._source.recvmsg_into(self._rest, self._ancbufsize, self._flags)
        except OSError as error:
            closed = self._source.fileno() < 0
            if not self._got or closed or isinstance(error, BlockingIOError):
                raise
            self._put_back(Leftover(self._source, b"", error).instead)
            message = 0, [], 0, None
        return self._take(*message)

    def _take(self, size: int, ancdata: list[Any], flags: int, address: Any) -> Any:
        self._got += size
        self._rest = _without(self._rest, size)
        if size and self._rest and not ancdata:
            return None
        return self._shape(self._data(), self._got, ancdata, flags, address)

    def _data(self) -> bytes:
        return b"".join(self._buffers)[: self._got]

    def stopped(self, error: BaseException) -> None:
        if self._got:
            self._put_back(Leftover(self._source, self._data(), None).instead)
        self._release()

    def _release(self) -> None:
        """Let the caller's buffers go: he may resize them while he handles the error."""
        for view in (*self._buffers, *self._rest):
            view.release()

    def take_from(self, source: Any) -> None:
        self._source = source


class FillingAPeek(Filling):
    """MSG_WAITALL with MSG_PEEK: looks again until there is enough to see."""

    def _take(self, size: int, ancdata: list[Any], flags: int, address: Any) -> Any:
        short = size < sum(map(len, self._buffers))
        if short and not ready(self._source.fileno(), POLLRDHUP):
            raise would_block()
        self._got = size
        return self._shape(self._data(), size, ancdata, flags, address)

    def stopped(self, error: BaseException) -> None:
        self._release()


class Leftover:
    """A socket to receive from, before whose bytes come some that were taken already."""

    def __init__(self, source: Any, data: bytes, error: OSError | None) -> None:
        while isinstance(source, Leftover) and not source.waits:
            source = source._source
        self._source: Any = source
        self._data, self._error = bytearray(data), error

    @property
    def waits(self) -> bool:
        return bool(self._data or self._error)

    def instead(
        self, attempt: Callable[..., Any], args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The same attempt, made on this and no longer on the socket behind it."""
        if not self.waits:
            return attempt, args
        if isinstance(attempt, Filling):
            attempt.take_from(self)
        elif getattr(attempt, "__self__", None) is self._source:
            attempt = getattr(self, attempt.__name__, attempt)
        elif args and args[0] is self._source:
            args = (self, *args[1:])
        return attempt, args

    def drain(self) -> bytes:
        """All of it, to go another way."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def fileno(self) -> int:
        return int(self._source.fileno())

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0) -> Any:
        if self._data:
            return self._give([memoryview(buffer).cast("B") for buffer in buffers], flags)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._source.recvmsg_into(buffers, ancbufsize, flags)

    def _give(self, buffers: list[memoryview], flags: int) -> Any:
        given = 0
        for view in buffers:
            piece = self._data[given : given + len(view)]
            view[: len(piece)] = piece
            given += len(piece)
        if not flags & _stdlib.MSG_PEEK:
            del self._data[:given]
        return given, [], 0, None

    def _receive(self, verb: str, *args: Any) -> Any:
        if not self.waits:
            return getattr(self._source, verb)(*args)
        vet(getattr(self._source, verb), args)
        return cut(self, verb, *args)

    def recv(self, bufsize: int, flags: int = 0) -> Any:
        return self._receive("recv", bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
        return self._receive("recv_into", buffer, nbytes, flags)

    def recvfrom(self, bufsize: int, flags: int = 0) -> Any:
        return self._receive("recvfrom", bufsize, flags)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
        return self._receive("recvfrom_into", buffer, nbytes, flags)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        return self._receive("recvmsg", bufsize, ancbufsize, flags)


Route = tuple[Direction, float | None, Callable[..., Any], tuple[Any, ...]]


def placed(
    readiness: Readiness, blocking: bool, deadline: float | None, flags: object
) -> tuple[Direction, float | None]:
    """Where and until when a receive with flags waits."""
    if blocking and has(flags, MSG_DONTWAIT | MSG_ERRQUEUE):
        deadline = NOW
    beside = has(flags, MSG_OOB | MSG_ERRQUEUE)  # the stream, and no event tells of them
    return readiness.pausing if beside else readiness.reading, deadline


def receiving(
    readiness: Readiness,
    sock: _stdlib.socket,
    blocking: bool,
    deadline: float | None,
    flags: int,
    verb: str,
    args: tuple[Any, ...],
) -> Route:
    """How a receive with flags is done: where and until when it waits, and for what attempt."""
    direction, deadline = placed(readiness, blocking, deadline, flags)
    if blocking and flags & MSG_WAITALL and deadline != NOW and sock.type == _stdlib.SOCK_STREAM:
        return _receiving_all(readiness, sock, deadline, flags, verb, args)
    if flags & MSG_TRUNC:
        return direction, deadline, cut, (sock, verb, *args)
    method = getattr(sock, verb)
    if flags & MSG_OOB and deadline:
        return direction, deadline, urgent, (method, *args)
    return direction, deadline, method, args


def _receiving_all(
    readiness: Readiness,
    sock: _stdlib.socket,
    deadline: float | None,
    flags: int,
    verb: str,
    args: tuple[Any, ...],
) -> Route:
    reading = readiness.reading
    if not flags & MSG_PEEK:
        return reading, deadline, Filling(sock, reading.put_back, verb, args), ()
    if sock.family == AF_UNIX:  # the kernel itself gives what there is
        return reading, deadline, getattr(sock, verb), args
    return readiness.pausing, deadline, FillingAPeek(sock, reading.put_back, verb, args), ()


def _buffers(verb: str, what: Any, *more: Any) -> tuple[list[memoryview], int, int]:
    """The buffers, ancbufsize and flags with which recvmsg_into() does the work of `verb`."""
    ancbufsize, flags = (more[0], more[1]) if "msg" in verb else (0, more[-1])
    if not verb.endswith("_into"):
        return [memoryview(bytearray(what))], ancbufsize, flags
    if verb == "recvmsg_into":
        return [memoryview(buffer).cast("B") for buffer in what], ancbufsize, flags
    view = memoryview(what).cast("B")
    return [view[: more[0] or len(view)]], ancbufsize, flags


def _without(buffers: list[memoryview], size: int) -> list[memoryview]:
    """What is left of the buffers behind their first `size` bytes."""
    left = []
    for view in buffers:
        if size < len(view):
            left.append(view[size:])
        size = max(0, size - len(view))
    return left


def cut(source: Any, verb: str, *args: Any) -> Any:
    """MSG_TRUNC without the stdlib's wart: never more than was asked for.

    The kernel answers with the datagram's full length, and the stdlib hands out as many
    bytes, the tail of them from outside its buffer.
    """
    vet(getattr(source, verb), args)
    buffers, ancbufsize, flags = _buffers(verb, *args)
    size, *rest = source.recvmsg_into(buffers, ancbufsize, flags)
    return SHAPES[verb](b"".join(buffers)[:size], size, *rest)


def urgent(receive: Callable[..., Any], *args: Any) -> Any:
    """MSG_OOB while there is time left: EINVAL means that no urgent byte has come yet."""
    try:
        return receive(*args)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise would_block() from None
        raise


def ready(fd: int, events: int) -> bool:
    """Whether poll(2) reports one of the events, or trouble, now."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


def await_ready(sock: Any, events: int) -> None:
    if sock.fileno() < 0:
        raise bad_descriptor()
    if not (isinstance(sock, Leftover) and sock.waits) and not ready(sock.fileno(), events):
        raise would_block()
