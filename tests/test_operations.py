"""Receiving and sending, to the letter: arguments, flags, results, errors, and how far one came.

What the stdlib does is asked of the stdlib by the same text.  These differ on purpose
and are asked of aiosock alone:

* ``recv(n, MSG_TRUNC)`` never gives more than n bytes, on both faces.  The stdlib hands out
  the whole length of the datagram, with memory that is not the datagram's at its end.
* ``sendfile`` works on a non-blocking socket too; the stdlib refuses to.
* A sending call that stops half-way tells in ``bytes_sent`` how far it came.
* A cancelled receiving call has taken nothing, and no two ``sendall`` are ever mixed.
"""

import array
import asyncio
import contextlib
import errno
import io
import itertools
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest
from faces import Face

import aiosock
from aiosock import (
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    SHUT_RDWR,
    SHUT_WR,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_SNDBUF,
    SO_TYPE,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
)

MEGABYTES = 10_000_000  # more than any buffer takes
NOWHERE = ("127.0.0.1", 9)  # where a connected stream is told to send, and does not

Pair = Callable[[Face], Any]


async def tcp(net: Face) -> tuple[Any, Any]:
    pair: tuple[Any, Any] = await net.tcp_pair()
    return pair


async def unix(net: Face) -> tuple[Any, Any]:
    return net.socketpair()


async def udp(net: Face) -> tuple[Any, Any]:
    """A connected socket, and the one that it sends to."""
    receiver, sender = net.socket(type=SOCK_DGRAM), net.socket(type=SOCK_DGRAM)
    await receiver.bind(("127.0.0.1", 0))
    await sender.connect(receiver.getsockname())
    return sender, receiver


def reset(sock: Any) -> None:
    """Close it so that the other end gets a reset."""
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def drained(sock: Any) -> bytes:
    """All that comes until the end of the stream."""
    found = bytearray()
    while data := await sock.recv(1 << 20):
        found += data
    return bytes(found)


async def waiting(work: Any) -> Any:
    """A task for the call, which by now waits."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.02)
    assert not task.done()
    return task


async def cancelled(task: Any) -> Any:
    """The CancelledError that comes out of a waiting task."""
    task.cancel()
    return await raised(task, asyncio.CancelledError)


async def raised(work: Any, expected: type[BaseException]) -> Any:
    """The exception that comes out of a call, of exactly this type."""
    with pytest.raises(expected) as caught:
        await work
    assert type(caught.value) is expected
    return caught.value


async def for_ever(call: Callable[..., Any], *args: Any) -> None:
    while True:
        await call(*args)


# --- arguments of receiving calls ---------------------------------------------------


@pytest.mark.parametrize(("verb", "argument", "result"), [("recv", 0, b""), ("recv_into", b"", 0)])
async def test_who_wants_nothing_does_not_wait(
    net: Face, verb: str, argument: Any, result: object
) -> None:
    one, _ = await net.tcp_pair()
    argument = bytearray(argument) if verb == "recv_into" else argument
    async with asyncio.timeout(5):
        assert await getattr(one, verb)(argument) == result


HUGE = "Python int too large to convert to C ssize_t"
NOT_WRITABLE = "argument 1 must be read-write bytes-like object, not"
NOT_BUFFERS = "recvmsg_into() argument 1 must be an iterable of single-segment read-write buffers"
STRIDED = memoryview(bytearray(10))[::2]

REFUSED_BY_RECV: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("recv", (-1,), ValueError, "negative buffersize in recv"),
    ("recvfrom", (-1,), ValueError, "negative buffersize in recvfrom"),
    ("recv_into", (bytearray(4), -1), ValueError, "negative buffersize in recv_into"),
    ("recvfrom_into", (bytearray(4), -1), ValueError, "negative buffersize in recvfrom_into"),
    ("recvmsg", (-1,), ValueError, "negative buffer size in recvmsg()"),
    ("recvmsg", (1, -1), ValueError, "invalid ancillary data buffer length"),
    ("recvmsg", (1, 2**40), ValueError, "invalid ancillary data buffer length"),
    ("recvmsg_into", ([bytearray(1)], -1), ValueError, "invalid ancillary data buffer length"),
    ("recv_into", (bytearray(4), 5), ValueError, "buffer too small for requested bytes"),
    (
        "recvfrom_into",
        (bytearray(4), 5),
        ValueError,
        "nbytes is greater than the length of the buffer",
    ),
    ("recv", (1, 2**40), OverflowError, "signed integer is greater than maximum"),
    ("recv_into", (b"abc",), TypeError, f"recv_into() {NOT_WRITABLE} bytes"),
    ("recv_into", (STRIDED,), TypeError, f"recv_into() {NOT_WRITABLE} memoryview"),
    ("recv_into", (None,), TypeError, f"recv_into() {NOT_WRITABLE} None"),
    ("recvfrom_into", (b"abc",), TypeError, f"recvfrom_into() {NOT_WRITABLE} bytes"),
    ("recvfrom_into", (STRIDED,), TypeError, f"recvfrom_into() {NOT_WRITABLE} memoryview"),
    ("recvmsg_into", (5,), TypeError, "recvmsg_into() argument 1 must be an iterable"),
    ("recvmsg_into", ([5],), TypeError, NOT_BUFFERS),
    ("recvmsg_into", ([b"abc"],), TypeError, NOT_BUFFERS),
    ("recvmsg_into", ([STRIDED],), TypeError, NOT_BUFFERS),
    ("recvmsg_into", (bytearray(3),), TypeError, NOT_BUFFERS),
]
for _verb in ("recv", "recvfrom", "recvmsg"):
    REFUSED_BY_RECV += [(_verb, (2**70,), OverflowError, HUGE)]
    REFUSED_BY_RECV += [
        (_verb, (size,), TypeError, f"'{name}' object cannot be interpreted as an integer")
        for size, name in [(1.0, "float"), (None, "NoneType"), ("x", "str")]
    ]
    REFUSED_BY_RECV += [
        (_verb, arguments, TypeError, "'float' object cannot be interpreted as an integer")
        for arguments in [(1, *(0,) * (_verb == "recvmsg"), 1.0)]
    ]


async def refusal(call: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str]:
    """Type and text of the exception that a call with these arguments raises."""
    try:
        await call(*arguments)
    except Exception as error:
        return type(error), str(error)
    return None, "nothing raised"


async def test_wrong_arguments_of_receiving_are_refused_at_once(net: Face) -> None:
    one, _ = net.socketpair()
    async with asyncio.timeout(20):
        for verb, arguments, error, text in REFUSED_BY_RECV:
            assert await refusal(getattr(one, verb), arguments) == (error, text), (verb, arguments)


NO_INTEGERS: tuple[object, ...] = (None, 0.0, 1.5, [], "")  # most of them as false as no flags are


@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
async def test_flags_are_integers_however_false(net: Face, wrong: object) -> None:
    one, other = net.socketpair()
    await other.send(b"here")
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("recv", (4, wrong)),
        ("recv_into", (bytearray(4), 4, wrong)),
        ("recv_into", (bytearray(4), wrong)),
        ("recvfrom", (4, wrong)),
        ("recvfrom_into", (bytearray(4), 4, wrong)),
        ("recvmsg", (4, 0, wrong)),
        ("recvmsg_into", ([bytearray(4)], 0, wrong)),
        ("send", (b"x", wrong)),
        ("sendall", (b"x", wrong)),
        ("sendmsg", ([b"x"], [], wrong)),
        ("sendto", (b"x", wrong, NOWHERE)),
    ]
    refused = f"'{type(wrong).__name__}' object cannot be interpreted as an integer"
    async with asyncio.timeout(5):
        for verb, arguments in calls:
            assert await refusal(getattr(one, verb), arguments) == (TypeError, refused), verb
        assert await one.recv(4, False) == b"here"


async def test_wrong_arguments_are_refused_while_others_wait() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        reader = await waiting(one.recv(1))
        async with asyncio.timeout(5):
            with pytest.raises(ValueError, match="^negative buffersize in recv$"):
                await one.recv(-1)
            with pytest.raises(TypeError, match="must be read-write bytes-like object, not bytes"):
                await one.recv_into(b"abc")
        await other.send(b"x")
        assert await reader == b"x"


@pytest.mark.parametrize("verb", ["recv_into", "recvfrom_into"])
async def test_receiving_into_a_buffer_takes_names(net: Face, verb: str) -> None:
    one, other = net.socketpair()
    await other.send(b"hello")
    room = bytearray(5)
    got = await getattr(one, verb)(buffer=room, nbytes=3, flags=MSG_PEEK)
    assert got == (3 if verb == "recv_into" else (3, None))
    assert room == b"hel\0\0"
    assert await one.recv(9) == b"hello"


NAMED: list[tuple[str, dict[str, Any]]] = [
    ("recv", {"bufsize": 1}),
    ("recvfrom", {"bufsize": 1}),
    ("recvmsg", {"bufsize": 1}),
    ("send", {"data": b"x"}),
    ("sendall", {"data": b"x"}),
    ("sendto", {"data": b"x", "address": NOWHERE}),
    ("sendmsg", {"buffers": [b"x"]}),
]


async def test_other_calls_take_no_names(net: Face) -> None:
    one, _ = net.socketpair()
    for verb, names in NAMED:
        with pytest.raises(TypeError):
            await getattr(one, verb)(**names)


async def test_sizes_may_be_anything_that_is_an_index(net: Face) -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    one, other = net.socketpair()
    await other.send(b"hello you")
    assert await one.recv(Three()) == b"hel"
    assert await one.recv(True) == b"l"
    room = bytearray(5)
    assert await one.recv_into(room, Three()) == 3
    assert room == b"o y\0\0"


async def test_no_size_means_the_whole_buffer(net: Face) -> None:
    for verb, nbytes in itertools.product(INTO[:2], [(), (0,)]):
        one, other = net.socketpair()
        await other.send(b"hello")
        room = bytearray(4)
        await getattr(one, verb)(room, *nbytes)
        assert room == b"hell"
        assert await one.recv(9) == b"o"


def an_array() -> tuple[Any, Any]:
    room = array.array("H", [0, 0, 0])
    return room, room


def a_slice() -> tuple[Any, Any]:
    room = bytearray(9)
    return memoryview(room)[1:7], memoryview(room)[1:7]


def a_table() -> tuple[Any, Any]:
    room = bytearray(6)
    return memoryview(room).cast("B", (2, 3)), room


def a_map() -> tuple[Any, Any]:
    room = mmap.mmap(-1, 6)
    return room, room


async def test_any_writable_buffer_is_filled(net: Face) -> None:
    for verb, make in itertools.product(INTO, [an_array, a_slice, a_table, a_map]):
        one, other = net.socketpair()
        await other.send(b"abcdef")
        buffer, room = make()
        got = await getattr(one, verb)([buffer] if verb == "recvmsg_into" else buffer)
        assert (got if verb == "recv_into" else got[0]) == 6
        assert bytes(room) == b"abcdef"


async def test_received_bytes_are_bytes(net: Face) -> None:
    one, other = net.socketpair()
    for flags in (0, MSG_PEEK, MSG_WAITALL, MSG_WAITALL | MSG_PEEK, MSG_DONTWAIT):
        await other.send(b"abc")
        assert type(await one.recv(3, flags)) is bytes
        await one.recv(3, MSG_DONTWAIT) if flags & MSG_PEEK else None
        await other.send(b"abc")
        assert type((await one.recvfrom(3))[0]) is bytes
        await other.send(b"abc")
        assert type((await one.recvmsg(3))[0]) is bytes


async def test_recvmsg_gives_four_things(net: Face) -> None:
    one, other = await net.tcp_pair()
    await other.sendmsg([b"a", b"bc"])
    assert await one.recvmsg(3, 100) == (b"abc", [], 0, None)
    await other.send(b"defg")
    rooms = [bytearray(3), bytearray(5)]
    assert await one.recvmsg_into(iter(rooms), 100) == (4, [], 0, None)
    assert rooms == [b"def", b"g\0\0\0\0"]


async def test_a_stream_tells_no_sender(net: Face) -> None:
    one, other = await net.tcp_pair()
    await other.send(b"abcdef")
    assert await one.recvfrom(3) == (b"abc", None)
    assert await one.recvfrom_into(bytearray(2)) == (2, None)
    assert await one.recvmsg(3) == (b"f", [], 0, None)


async def test_a_buffer_is_held_only_while_it_is_filled() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        room = bytearray(4)
        reader = await waiting(one.recv_into(room))
        room.extend(b"more")
        await other.send(b"abcdefghi")
        assert await reader == 8
        room.clear()
        assert await one.recv(9) == b"i"


async def test_a_cancelled_call_never_writes_to_its_buffer_again() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        room = bytearray(4)
        await cancelled(await waiting(one.recv_into(room)))
        await other.send(b"data")
        await asyncio.sleep(0.01)
        assert room == bytes(4)
        room.extend(b"x")
        assert await one.recv(9) == b"data"


# --- arguments of sending calls -----------------------------------------------------

REFUSED_BY_SEND: list[tuple[str, tuple[Any, ...], type[Exception], str]] = []
for _verb, _more in [("send", ()), ("sendall", ()), ("sendto", (NOWHERE,))]:
    REFUSED_BY_SEND += [
        (_verb, ("abc", *_more), TypeError, "a bytes-like object is required, not 'str'"),
        (_verb, (None, *_more), TypeError, "a bytes-like object is required, not 'NoneType'"),
        (
            _verb,
            (STRIDED, *_more),
            BufferError,
            "memoryview: underlying buffer is not C-contiguous",
        ),
        (
            _verb,
            (b"abc", "x", *_more),
            TypeError,
            "'str' object cannot be interpreted as an integer",
        ),
    ]
REFUSED_BY_SEND += [
    ("sendto", (), TypeError, "sendto() takes 2 or 3 arguments (0 given)"),
    ("sendto", (b"",), TypeError, "sendto() takes 2 or 3 arguments (1 given)"),
    ("sendto", (b"", 0, NOWHERE, 3), TypeError, "sendto() takes 2 or 3 arguments (4 given)"),
    (
        "sendto",
        (b"", NOWHERE, 0),
        TypeError,
        "'tuple' object cannot be interpreted as an integer",
    ),
    ("sendmsg", (b"x",), TypeError, "a bytes-like object is required, not 'int'"),
    ("sendmsg", (["x"],), TypeError, "a bytes-like object is required, not 'str'"),
    ("sendmsg", (5,), TypeError, "sendmsg() argument 1 must be an iterable"),
    ("sendmsg", ([STRIDED],), BufferError, "memoryview: underlying buffer is not C-contiguous"),
    ("sendmsg", ([b""], 5), TypeError, "sendmsg() argument 2 must be an iterable"),
    (
        "sendmsg",
        ([b""], [5]),
        TypeError,
        "[sendmsg() ancillary data items]() argument must be 3-item sequence, not int",
    ),
    (
        "sendmsg",
        ([b""], [(1, 2)]),
        TypeError,
        "[sendmsg() ancillary data items]() argument must be sequence of length 3, not 2",
    ),
    ("sendmsg", ([b""], [(1, 2, "")]), TypeError, "a bytes-like object is required, not 'str'"),
]


@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])
async def test_wrong_arguments_of_sending_are_refused(net: Face, timeout: float | None) -> None:
    one, other = await net.tcp_pair()
    one.settimeout(timeout)
    for verb, arguments, error, text in REFUSED_BY_SEND:
        assert await refusal(getattr(one, verb), arguments) == (error, text), (verb, arguments)
    one.close()
    assert await other.recv(1) == b""


@pytest.mark.parametrize("make", [tcp, unix])
@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])
async def test_sending_nothing(net: Face, make: Pair, timeout: float | None) -> None:
    one, other = await make(net)
    one.settimeout(timeout)
    assert await one.send(b"") == 0
    assert await one.sendall(b"") is None
    assert await one.sendmsg([]) == 0
    assert await one.sendmsg([b"", b""]) == 0
    one.close()
    assert await other.recv(1) == b""


@pytest.mark.parametrize(
    ("verb", "data"), [("send", b""), ("sendall", b""), ("sendmsg", []), ("send", b"x")]
)
async def test_a_broken_pipe_shows_even_when_nothing_is_sent(
    net: Face, verb: str, data: Any
) -> None:
    one, _ = await net.tcp_pair()
    one.shutdown(SHUT_WR)
    with pytest.raises(BrokenPipeError) as caught:
        await getattr(one, verb)(data)
    assert caught.value.args == (errno.EPIPE, "Broken pipe")


async def test_sendto_on_a_connected_stream_ignores_the_address(net: Face) -> None:
    one, other = await net.tcp_pair()
    assert await one.sendto(b"hey", NOWHERE) == 3
    assert await one.sendto(b" you", 0, NOWHERE) == 4
    assert await other.recv(9) == b"hey you"


@pytest.mark.parametrize(
    "data",
    [array.array("H", [1, 2, 3]), memoryview(b"abcdef")[1:5], bytearray(b"xyz")],
    ids=["array", "memoryview", "bytearray"],
)
async def test_any_buffer_is_sent_as_its_bytes(net: Face, data: Any) -> None:
    for verb in ("send", "sendall", "sendmsg", "sendto"):
        one, other = await net.tcp_pair()
        size = len(bytes(data))
        given = [data] if verb == "sendmsg" else data
        more = (NOWHERE,) if verb == "sendto" else ()
        assert await getattr(one, verb)(given, *more) == (None if verb == "sendall" else size)
        assert await other.recv(99) == bytes(data)


async def test_wide_items_are_counted_in_bytes(net: Face) -> None:
    one, other = net.socketpair()
    data = array.array("I", range(300_000))
    sending = [
        asyncio.create_task(one.sendall(data)),
        asyncio.create_task(drained(other)),
    ]
    await sending[0]
    one.shutdown(SHUT_WR)
    assert await sending[1] == data.tobytes()


async def test_sendmsg_takes_iterators(net: Face) -> None:
    one, other = net.socketpair()
    assert await one.sendmsg(iter([b"ab", bytearray(b"c")]), iter(())) == 3
    assert await other.recv(9) == b"abc"


# --- datagrams ----------------------------------------------------------------------


async def test_an_empty_datagram_is_not_the_end(net: Face) -> None:
    sender, receiver = await udp(net)
    assert await sender.send(b"") == 0
    assert await sender.sendto(b"", receiver.getsockname()) == 0
    assert await sender.sendmsg([]) == 0
    await sender.send(b"more")
    async with asyncio.timeout(5):
        assert await receiver.recv(9) == b""
        assert await receiver.recvfrom(9) == (b"", sender.getsockname())
        assert (await receiver.recvmsg(9))[0] == b""
        assert await receiver.recv(9) == b"more"


async def test_a_long_datagram_is_cut(net: Face) -> None:
    sender, receiver = await udp(net)
    for _ in range(5):
        await sender.send(b"0123456789")
    here = sender.getsockname()
    room = bytearray(4)
    assert await receiver.recv(4) == b"0123"
    assert await receiver.recvfrom(4) == (b"0123", here)
    assert await receiver.recvfrom_into(room) == (4, here)
    assert await receiver.recvmsg(4) == (b"0123", [], MSG_TRUNC, here)
    assert await receiver.recvmsg(10) == (b"0123456789", [], 0, here)


async def test_a_datagram_may_be_too_long_to_send(net: Face) -> None:
    sender, _ = await udp(net)
    assert await sender.send(bytes(65507)) == 65507
    for verb, data in [
        ("send", bytes(65508)),
        ("sendall", bytes(65508)),
        ("sendmsg", [b"x" * 65508]),
    ]:
        with pytest.raises(OSError, match="Message too long") as caught:
            await getattr(sender, verb)(data)
        assert caught.value.errno == errno.EMSGSIZE


async def test_a_refused_datagram_shows_once_in_the_next_call(net: Face) -> None:
    sender, receiver = await udp(net)
    receiver.close()
    for verb, argument in [("recv", 9), ("send", b"y")]:
        assert await sender.send(b"x") == 1
        await asyncio.sleep(0.02)
        with pytest.raises(ConnectionRefusedError) as caught:
            await getattr(sender, verb)(argument)
        assert caught.value.args == (errno.ECONNREFUSED, "Connection refused")
    sender.settimeout(0.01)
    with pytest.raises(TimeoutError):
        await sender.recv(9)


async def test_a_refused_datagram_wakes_who_waits(net: Face) -> None:
    sender, receiver = await udp(net)
    receiver.close()
    reader = await waiting(sender.recv(9))
    await sender.send(b"x")
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionRefusedError):
            await reader


@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])
async def test_msg_trunc_never_gives_more_bytes_than_asked_for(
    ours: Face, timeout: float | None
) -> None:
    """Where the buffer is the caller's the number is the datagram's size, as from the kernel."""
    receiver, sender = ours.socket(type=SOCK_DGRAM), ours.socket(type=SOCK_DGRAM)
    await receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(timeout)
    for verb in VERBS:
        await sender.sendto(b"0123456789", receiver.getsockname())
        room = bytearray(3)
        what: Any = [room] if verb == "recvmsg_into" else room if "into" in verb else 3
        between = () if verb in ("recv", "recvfrom") else (0,)
        got = await getattr(receiver, verb)(what, *between, MSG_TRUNC)
        first = got[0] if isinstance(got, tuple) else got
        assert first == (10 if "into" in verb else b"012"), verb
        assert room == (b"012" if "into" in verb else bytes(3))


# --- errors of connections ----------------------------------------------------------


UNCONNECTED: list[tuple[str, Any, int]] = [
    ("recv", 1, errno.ENOTCONN),
    ("recvfrom", 1, errno.ENOTCONN),
    ("recvmsg", 1, errno.ENOTCONN),
    ("send", b"x", errno.EPIPE),
    ("sendall", b"x", errno.EPIPE),
    ("sendmsg", [b"x"], errno.EPIPE),
]


@pytest.mark.parametrize("timeout", [None, 5.0, 0.0])
async def test_an_unconnected_stream(net: Face, timeout: float | None) -> None:
    for verb, argument, error in UNCONNECTED:
        sock = net.socket()
        sock.settimeout(timeout)
        async with asyncio.timeout(5):
            with pytest.raises(OSError, match=os.strerror(error)) as caught:
                await getattr(sock, verb)(argument)
        assert caught.value.errno == error


@pytest.mark.parametrize("make", [tcp, unix])
async def test_the_end_comes_again_and_again(net: Face, make: Pair) -> None:
    one, other = await make(net)
    await other.send(b"last")
    other.shutdown(SHUT_WR)
    assert await one.recv(9) == b"last"
    for _ in range(3):
        assert await one.recv(9) == b""
        assert (await one.recvfrom(9))[0] == b""
        assert (await one.recvmsg(9))[0] == b""
        assert await one.recv_into(bytearray(3)) == 0
    assert await one.send(b"the other way") == 13
    assert await other.recv(99) == b"the other way"


async def test_after_a_reset_the_reader_is_told_once(net: Face) -> None:
    one, other = await net.tcp_pair()
    await other.send(b"data")
    reset(other)
    await asyncio.sleep(0.02)
    assert await one.recv(9) == b"data"
    with pytest.raises(ConnectionResetError) as caught:
        await one.recv(9)
    assert caught.value.args == (errno.ECONNRESET, "Connection reset by peer")
    assert await one.recv(9) == b""


async def test_after_a_reset_the_writer_is_told_each_time(net: Face) -> None:
    one, other = await net.tcp_pair()
    reset(other)
    await asyncio.sleep(0.02)
    for error in (ConnectionResetError, BrokenPipeError, BrokenPipeError):
        with pytest.raises(error):
            await one.send(b"x")


async def test_a_reset_wakes_who_waits(net: Face) -> None:
    one, other = await net.tcp_pair()
    reader = await waiting(one.recv(9))
    reset(other)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await reader


# --- shutdown -----------------------------------------------------------------------


async def test_shutdown(net: Face) -> None:
    one, other = await net.tcp_pair()
    for how in (SHUT_WR, SHUT_WR, SHUT_RDWR, SHUT_RDWR):
        assert one.shutdown(how) is None
    assert await other.recv(1) == b""


@pytest.mark.parametrize("how", [7, -1])
async def test_shutdown_refuses_other_numbers(net: Face, how: int) -> None:
    one, _ = await net.tcp_pair()
    with pytest.raises(OSError, match="Invalid argument") as caught:
        one.shutdown(how)
    assert caught.value.errno == errno.EINVAL


async def test_shutdown_takes_a_number(net: Face) -> None:
    for how, name in [("x", "str"), (1.0, "float"), (None, "NoneType")]:
        one, _ = await net.tcp_pair()
        text = f"^'{name}' object cannot be interpreted as an integer$"
        with pytest.raises(TypeError, match=text):
            one.shutdown(how)


async def test_shutdown_of_an_unconnected_stream(net: Face) -> None:
    with pytest.raises(OSError, match="not connected") as caught:
        net.socket().shutdown(SHUT_RDWR)
    assert caught.value.errno == errno.ENOTCONN


async def test_shutdown_wakes_a_reader(net: Face) -> None:
    one, _ = await net.tcp_pair()
    reader = await waiting(one.recv(1))
    one.shutdown(SHUT_RDWR)
    async with asyncio.timeout(5):
        assert await reader == b""


# --- a blocking stream sends to the end ---------------------------------------------


def sending(verb: str, data: bytes) -> tuple[Any, ...]:
    """The arguments with which `verb` sends the data."""
    half = len(data) // 2
    view = memoryview(data)
    return {
        "send": (data,),
        "sendto": (data, NOWHERE),
        "sendmsg": ([view[:half], b"", view[half:]],),
        "sendall": (data,),
    }[verb]


WHOLE = [
    (make, verb)
    for make in (tcp, unix)
    for verb in ("send", "sendto", "sendmsg")
    if (make, verb) != (unix, "sendto")  # there it must not have an address
]


@pytest.mark.parametrize(("make", "verb"), WHOLE)
async def test_a_blocking_stream_takes_everything(net: Face, make: Pair, verb: str) -> None:
    one, other = await make(net)
    data = bytes(range(250)) * (MEGABYTES // 250)
    reader = asyncio.create_task(drained(other))
    assert await getattr(one, verb)(*sending(verb, data)) == MEGABYTES
    one.shutdown(SHUT_WR)
    assert await reader == data


@pytest.mark.parametrize(("make", "verb"), WHOLE)
@pytest.mark.parametrize("timeout", [5.0])
async def test_another_stream_takes_what_fits(
    net: Face, make: Pair, verb: str, timeout: float
) -> None:
    one, other = await make(net)
    one.settimeout(timeout)
    data = bytes(range(250)) * (MEGABYTES // 250)
    sent = await getattr(one, verb)(*sending(verb, data))
    assert 0 < sent < MEGABYTES
    one.shutdown(SHUT_WR)
    assert await drained(other) == data[:sent]


@pytest.mark.parametrize(("make", "verb"), WHOLE)
async def test_with_msg_dontwait_a_blocking_stream_takes_what_fits(
    net: Face, make: Pair, verb: str
) -> None:
    one, other = await make(net)
    data = bytes(range(250)) * (MEGABYTES // 250)
    arguments = sending(verb, data)
    if verb == "sendmsg":
        arguments += ([], MSG_DONTWAIT)
    else:
        arguments = (arguments[0], MSG_DONTWAIT, *arguments[1:])
    sent: list[int] = []

    async def fill() -> None:
        while True:
            sent.append(await getattr(one, verb)(*arguments))

    async with asyncio.timeout(5):
        error = await raised(fill(), BlockingIOError)
    assert error.args == (errno.EAGAIN, os.strerror(errno.EAGAIN))
    assert 0 < sent[0] < MEGABYTES
    one.shutdown(SHUT_WR)
    assert len(await drained(other)) == sum(sent)


async def test_a_blocking_message_of_many_buffers_takes_everything(net: Face) -> None:
    one, other = net.socketpair()
    pieces = [bytes([n % 251]) * 5000 for n in range(200)]
    reader = asyncio.create_task(drained(other))
    assert await one.sendmsg(pieces) == 1_000_000
    one.shutdown(SHUT_WR)
    assert await reader == b"".join(pieces)


async def test_ancillary_data_goes_once_with_a_long_message(net: Face) -> None:
    one, other = net.socketpair()
    rights = (SOL_SOCKET, aiosock.SCM_RIGHTS, array.array("i", [one.fileno()]))
    sender = asyncio.create_task(one.sendmsg([bytes(1_000_000)], [rights]))
    got, found = 0, list[bytes]()
    while got < 1_000_000:
        data, ancdata, _, _ = await other.recvmsg(1 << 20, aiosock.CMSG_SPACE(64))
        got += len(data)
        found += [rights for _, _, rights in ancdata]
    assert await sender == 1_000_000
    (fd,) = array.array("i", b"".join(found))
    os.close(fd)


# --- flags of receiving -------------------------------------------------------------

INTO = ["recv_into", "recvfrom_into", "recvmsg_into"]
VERBS = ["recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"]


class Receiving:
    """One call of a receiving method, and the bytes that it gave."""

    def __init__(self, verb: str, size: int) -> None:
        self.verb, self.size = verb, size
        self.room = bytearray(size)

    async def __call__(self, sock: Any, flags: int = 0) -> bytes:
        what: Any = self.size
        if self.verb == "recvmsg_into":
            half = self.size // 2
            what = [memoryview(self.room)[:half], memoryview(self.room)[half:]]
        elif self.verb.endswith("into"):
            what = self.room
        between = (0,) if self.verb != "recv" and self.verb != "recvfrom" else ()
        got = await getattr(sock, self.verb)(what, *between, flags)
        first = got[0] if isinstance(got, tuple) else got
        return bytes(self.room[:first]) if isinstance(first, int) else bytes(first)


async def test_msg_waitall_in_blocking_mode_waits_for_all(net: Face) -> None:
    for verb in VERBS:
        one, other = await net.tcp_pair()
        await other.send(b"hello")
        reader = await waiting(Receiving(verb, 10)(one, MSG_WAITALL))
        await other.send(b"wor")
        await asyncio.sleep(0.01)
        assert not reader.done()
        await other.send(b"ld!")
        assert await reader == b"helloworld"
        assert await one.recv(9) == b"!"


@pytest.mark.parametrize("timeout", [5.0, 0.0])
async def test_msg_waitall_in_other_modes_gives_what_is_there(net: Face, timeout: float) -> None:
    for verb in VERBS:
        one, other = net.socketpair()
        one.settimeout(timeout)
        await other.send(b"12")
        assert await Receiving(verb, 5)(one, MSG_WAITALL) == b"12"


async def test_msg_waitall_is_short_at_the_end(net: Face) -> None:
    for verb in VERBS:
        one, other = await net.tcp_pair()
        await other.send(b"12")
        reader = await waiting(Receiving(verb, 5)(one, MSG_WAITALL))
        other.close()
        assert await reader == b"12"
        assert await one.recv(5, MSG_WAITALL) == b""


async def test_msg_waitall_is_short_at_an_error_which_comes_next(net: Face) -> None:
    for verb in VERBS:
        one, other = await net.tcp_pair()
        await other.send(b"12")
        reader = await waiting(Receiving(verb, 5)(one, MSG_WAITALL))
        reset(other)
        assert await reader == b"12"
        with pytest.raises(ConnectionResetError):
            await one.recv(5)
        assert await one.recv(5) == b""


async def test_msg_waitall_of_a_datagram_is_one_datagram(net: Face) -> None:
    for verb in VERBS:
        sender, receiver = await udp(net)
        await sender.send(b"12")
        async with asyncio.timeout(5):
            assert await Receiving(verb, 5)(receiver, MSG_WAITALL) == b"12"


async def test_a_cancelled_msg_waitall_has_taken_nothing() -> None:
    for verb in VERBS:
        one, other = aiosock.socketpair()
        with one, other:
            await other.send(b"hello")
            await cancelled(await waiting(Receiving(verb, 10)(one, MSG_WAITALL)))
            assert await one.recv(2) == b"he"
            assert await one.recv(2, MSG_PEEK) == b"ll"
            reader = await waiting(Receiving(verb, 5)(one, MSG_WAITALL))
            await cancelled(reader)
            await other.send(b"world")
            assert await one.recv(8, MSG_WAITALL) == b"lloworld"


async def test_who_stands_behind_a_cancelled_msg_waitall_gets_its_bytes() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        await other.send(b"hello")
        first = await waiting(one.recv(10, MSG_WAITALL))
        second = await waiting(one.recv(10))
        await cancelled(first)
        async with asyncio.timeout(5):
            assert await second == b"hello"


async def test_msg_peek_takes_nothing(net: Face) -> None:
    for verb in VERBS:
        one, other = await net.tcp_pair()
        await other.send(b"hello")
        for _ in range(2):
            assert await Receiving(verb, 3)(one, MSG_PEEK) == b"hel"
        assert await one.recv(9) == b"hello"


async def test_msg_peek_waits(net: Face) -> None:
    one, other = await net.tcp_pair()
    reader = await waiting(one.recv(3, MSG_PEEK))
    await other.send(b"hello")
    assert await reader == b"hel"
    assert await one.recv(9) == b"hello"


async def test_msg_peek_with_msg_waitall_waits_for_all_and_takes_nothing(net: Face) -> None:
    one, other = await net.tcp_pair()
    await other.send(b"he")
    reader = await waiting(one.recv(5, MSG_PEEK | MSG_WAITALL))
    await other.send(b"llo")
    async with asyncio.timeout(5):
        assert await reader == b"hello"
    assert await one.recv(9) == b"hello"


async def test_msg_peek_with_msg_waitall_is_short_at_the_end(net: Face) -> None:
    one, other = await net.tcp_pair()
    await other.send(b"he")
    reader = await waiting(one.recv(5, MSG_PEEK | MSG_WAITALL))
    other.close()
    async with asyncio.timeout(5):
        assert await reader == b"he"
    assert await one.recv(9) == b"he"


@pytest.mark.parametrize("timeout", [None, 0.0])
async def test_msg_dontwait_never_waits(net: Face, timeout: float | None) -> None:
    for verb in VERBS:
        one, other = net.socketpair()
        one.settimeout(timeout)
        async with asyncio.timeout(5):
            with pytest.raises(BlockingIOError) as caught:
                await Receiving(verb, 5)(one, MSG_DONTWAIT)
        assert caught.value.args == (errno.EAGAIN, os.strerror(errno.EAGAIN))
        await other.send(b"hello")
        assert await Receiving(verb, 9)(one, MSG_DONTWAIT) == b"hello"


async def test_msg_dontwait_with_msg_waitall_gives_what_is_there(net: Face) -> None:
    one, other = net.socketpair()
    await other.send(b"12")
    async with asyncio.timeout(5):
        assert await one.recv(5, MSG_DONTWAIT | MSG_WAITALL) == b"12"


async def test_with_a_timeout_msg_dontwait_waits(net: Face) -> None:
    for verb in VERBS:
        one, other = net.socketpair()
        one.settimeout(0.02)
        with pytest.raises(TimeoutError, match="^timed out$"):
            await Receiving(verb, 5)(one, MSG_DONTWAIT)
        one.settimeout(5)
        reader = await waiting(Receiving(verb, 5)(one, MSG_DONTWAIT))
        await other.send(b"hello")
        assert await reader == b"hello"


async def test_a_datagram_with_msg_dontwait_does_not_wait_for_room(net: Face) -> None:
    one, _ = net.socketpair(aiosock.AF_UNIX, SOCK_DGRAM)
    async with asyncio.timeout(5):
        await raised(for_ever(one.send, bytes(1000), MSG_DONTWAIT), BlockingIOError)


async def test_urgent_data(net: Face) -> None:
    one, other = await net.tcp_pair()
    assert await one.send(b"abc", MSG_OOB) == 3
    await other.recv(1, MSG_PEEK)
    assert await other.recv(1, MSG_OOB) == b"c"
    assert await other.recv(9) == b"ab"


async def test_no_urgent_data(net: Face) -> None:
    _, other = await net.tcp_pair()
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            await other.recv(1, MSG_OOB)
    assert caught.value.errno == errno.EINVAL


async def test_an_empty_error_queue(net: Face) -> None:
    sender, _ = await udp(net)
    async with asyncio.timeout(5):
        with pytest.raises(BlockingIOError) as caught:
            await sender.recvmsg(9, 512, MSG_ERRQUEUE)
        assert caught.value.errno == errno.EAGAIN
        sender.settimeout(0.02)
        with pytest.raises(TimeoutError, match="^timed out$"):
            await sender.recvmsg(9, 512, MSG_ERRQUEUE)


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_the_error_queue_gives_the_datagram_back(net: Face, timeout: float | None) -> None:
    sender, receiver = await udp(net)
    gone = receiver.getsockname()
    ip_recverr = 11
    sender.setsockopt(aiosock.IPPROTO_IP, ip_recverr, 1)
    receiver.close()
    await sender.send(b"lost")
    await asyncio.sleep(0.02)
    sender.settimeout(timeout)
    data, ancdata, flags, address = await sender.recvmsg(9, 512, MSG_ERRQUEUE)
    assert (data, bool(flags & MSG_ERRQUEUE), address) == (b"lost", True, gone)
    [(level, kind, report)] = ancdata
    assert (level, kind) == (aiosock.IPPROTO_IP, ip_recverr)
    assert struct.unpack_from("I", report) == (errno.ECONNREFUSED,)


async def test_an_entry_in_the_error_queue_wakes_who_waits_for_it() -> None:
    with aiosock.socket(type=SOCK_DGRAM) as sender, aiosock.socket(type=SOCK_DGRAM) as receiver:
        await receiver.bind(("127.0.0.1", 0))
        await sender.connect(receiver.getsockname())
        sender.setsockopt(aiosock.IPPROTO_IP, 11, 1)
        receiver.close()
        sender.settimeout(5)
        reader = await waiting(sender.recvmsg(9, 512, MSG_ERRQUEUE))
        await sender.send(b"lost")
        assert (await reader)[0] == b"lost"


# --- descriptors in messages --------------------------------------------------------


async def test_descriptors_that_nobody_takes_are_closed(net: Face) -> None:
    one, other = net.socketpair()
    probe, far = net.socketpair()
    rights = (SOL_SOCKET, aiosock.SCM_RIGHTS, array.array("i", [probe.fileno()]))
    for receive in (Receiving("recv", 9), Receiving("recvmsg", 9)):
        await one.sendmsg([b"x"], [rights])
        assert await receive(other) == b"x"
    probe.close()
    async with asyncio.timeout(5):
        assert await far.recv(1) == b""


async def test_a_cancelled_recvmsg_leaves_descriptors_in_the_kernel() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        reader = await waiting(other.recvmsg(9, aiosock.CMSG_SPACE(4)))
        rights = (SOL_SOCKET, aiosock.SCM_RIGHTS, array.array("i", [one.fileno()]))
        await one.sendmsg([b"x"], [rights])
        await cancelled(reader)
        data, [(_, _, fds)], _, _ = await other.recvmsg(9, aiosock.CMSG_SPACE(4))
        assert data == b"x"
        os.close(*array.array("i", fds))


# --- options ------------------------------------------------------------------------


async def test_options(net: Face) -> None:
    sock = net.socket()
    assert sock.getsockopt(SOL_SOCKET, SO_TYPE) == SOCK_STREAM
    assert sock.getsockopt(SOL_SOCKET, SO_TYPE, 0) == SOCK_STREAM
    stream = struct.pack("i", SOCK_STREAM)
    assert sock.getsockopt(SOL_SOCKET, SO_TYPE, 4) == stream
    assert sock.getsockopt(SOL_SOCKET, SO_TYPE, 1024) == stream
    assert sock.getsockopt(SOL_SOCKET, SO_TYPE, 1) == stream[:1]


async def test_values_of_options(net: Face) -> None:
    for value in (1, True, b"\1\0\0\0", bytearray(b"\1\0\0\0")):
        sock = net.socket()
        assert sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, value) is None
        assert sock.getsockopt(SOL_SOCKET, SO_KEEPALIVE) == 1


REFUSED_OPTIONS: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("getsockopt", (SO_TYPE, 1025), OSError, "getsockopt buflen out of range"),
    ("getsockopt", (SO_TYPE, -1), OSError, "getsockopt buflen out of range"),
    ("getsockopt", (SO_TYPE, "x"), TypeError, "'str' object cannot be interpreted as an integer"),
    ("getsockopt", (9999,), OSError, "[Errno 92] Protocol not available"),
    ("setsockopt", (9999, 1), OSError, "[Errno 92] Protocol not available"),
    ("setsockopt", (SO_KEEPALIVE, "x"), TypeError, "a bytes-like object is required, not 'str'"),
    ("setsockopt", (SO_KEEPALIVE, 1.0), TypeError, "a bytes-like object is required, not 'float'"),
    (
        "setsockopt",
        (SO_KEEPALIVE, None),
        TypeError,
        "a bytes-like object is required, not 'NoneType'",
    ),
    ("setsockopt", (SO_KEEPALIVE, None, 0), OSError, "[Errno 22] Invalid argument"),
    ("setsockopt", (SO_KEEPALIVE, None, 4), OSError, "[Errno 14] Bad address"),
    ("setsockopt", (SO_KEEPALIVE, 1, 2), TypeError, "setsockopt() takes exactly 3 arguments"),
]


async def test_wrong_options_are_refused(net: Face) -> None:
    sock = net.socket()
    for verb, arguments, error, text in REFUSED_OPTIONS:
        with pytest.raises(error) as caught:
            getattr(sock, verb)(SOL_SOCKET, *arguments)
        assert type(caught.value) is error
        assert str(caught.value).startswith(text), (verb, arguments)


# --- cancelled reading loses nothing ------------------------------------------------


@pytest.mark.parametrize("flags", [0, MSG_WAITALL])
async def test_cancelled_in_the_tick_of_the_data_nothing_is_lost(flags: int) -> None:
    for verb in VERBS:
        one, other = aiosock.socketpair()
        with one, other:
            got = bytearray()
            for number in range(40):
                reader = asyncio.create_task(Receiving(verb, 3)(one, flags))
                await asyncio.sleep(0)
                await other.send(b"%03d" % number)
                asyncio.get_running_loop().call_soon(reader.cancel)
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                try:
                    got += await reader
                except asyncio.CancelledError:
                    got += await one.recv(3)
            assert got == b"".join(b"%03d" % number for number in range(40))


async def test_late_in_the_tick_of_the_data_nothing_is_lost() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        got = bytearray()
        for number in range(40):
            one.settimeout(0.002)
            reader = asyncio.create_task(one.recv(3))
            await asyncio.sleep(0.001 + number % 5 / 2000)
            await other.send(b"%03d" % number)
            try:
                got += await reader
            except TimeoutError:
                one.settimeout(5)
                got += await one.recv(3)
        assert got == b"".join(b"%03d" % number for number in range(40))


# --- two senders --------------------------------------------------------------------


def small(sock: Any) -> Any:
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
    return sock


@pytest.mark.parametrize("verb", ["sendall", "send", "sendmsg"])
async def test_two_senders_are_never_mixed(verb: str) -> None:
    one, other = aiosock.socketpair()
    with small(one), other:
        size = 300_000
        letters = b"ABC"
        senders = [
            asyncio.create_task(getattr(one, verb)(*sending(verb, bytes([letter]) * size)))
            for letter in letters
        ]
        got = bytearray()
        while len(got) < size * len(letters):
            got += await other.recv(1000 + len(got) % 777)
        await asyncio.gather(*senders)
        assert got == b"".join(bytes([letter]) * size for letter in letters)


async def test_a_short_send_waits_for_a_long_sendall() -> None:
    one, other = aiosock.socketpair()
    with small(one), other:
        long = asyncio.create_task(one.sendall(b"A" * 300_000))
        await asyncio.sleep(0)
        short = asyncio.create_task(one.send(b"B"))
        got = bytearray()
        while len(got) < 300_001:
            got += await other.recv(1000)
        await long
        assert await short == 1
        assert got == b"A" * 300_000 + b"B"


async def test_both_directions_at_once(net: Face) -> None:
    one, other = net.socketpair()
    data = bytes(range(256)) * 4000

    async def talk(sock: Any) -> bytes:
        reader = asyncio.create_task(drained(sock))
        await sock.sendall(data)
        sock.shutdown(SHUT_WR)
        return await reader

    async with asyncio.timeout(20):
        assert list(await asyncio.gather(talk(small(one)), talk(small(other)))) == [data, data]


# --- how far a sending call came ----------------------------------------------------

LONG = bytes(range(250)) * 4000


@contextlib.contextmanager
def a_file(data: bytes = LONG) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def start(sock: Any, verb: str, file: IO[bytes]) -> Any:
    return sock.sendfile(file) if verb == "sendfile" else getattr(sock, verb)(*sending(verb, LONG))


STOPPING = ["sendall", "send", "sendmsg", "sendfile"]


@pytest.mark.parametrize("verb", STOPPING)
async def test_a_cancelled_call_tells_how_much_was_sent(verb: str) -> None:
    one, other = aiosock.socketpair()
    with other, a_file() as file:
        with small(one):
            sender = await waiting(start(one, verb, file))
            error = await cancelled(sender)
            assert 0 < error.bytes_sent < len(LONG)
        assert await drained(other) == LONG[: error.bytes_sent]
        assert verb != "sendfile" or file.tell() == error.bytes_sent


@pytest.mark.parametrize("verb", STOPPING)
async def test_a_call_that_waits_for_its_turn_has_sent_nothing(verb: str) -> None:
    one, other = aiosock.socketpair()
    with other, a_file() as file:
        with small(one):
            first = await waiting(one.sendall(LONG))
            error = await cancelled(await waiting(start(one, verb, file)))
            assert error.bytes_sent == 0
            error = await cancelled(first)
        assert await drained(other) == LONG[: error.bytes_sent]


@pytest.mark.parametrize("verb", ["sendall", "sendfile"])
@pytest.mark.parametrize("timeout", [0.05, 0.0])
async def test_a_late_call_tells_how_much_was_sent(ours: Face, verb: str, timeout: float) -> None:
    if ours.blocks and verb == "sendfile" and not timeout:
        pytest.skip("the blocking face refuses it, as the stdlib does")
    one, other = ours.socketpair()
    with a_file() as file:
        small(one).settimeout(timeout)
        late = TimeoutError if timeout else BlockingIOError
        sent = (await raised(start(one, verb, file), late)).bytes_sent
        assert 0 < sent < len(LONG)
        one.close()
        assert await drained(other) == LONG[:sent]
        assert verb != "sendfile" or file.tell() == sent


@pytest.mark.parametrize("verb", STOPPING)
async def test_a_failed_call_tells_how_much_was_sent(ours: Face, verb: str) -> None:
    one, other = ours.socketpair()
    with a_file() as file:
        sender = await waiting(start(small(one), verb, file))
        got = await other.recv(1 << 20)
        other.close()
        error = await raised(sender, BrokenPipeError)
        assert len(got) <= error.bytes_sent < len(LONG)


@pytest.mark.parametrize("verb", STOPPING)
async def test_a_call_whose_socket_is_closed_tells_how_much_was_sent(ours: Face, verb: str) -> None:
    one, other = ours.socketpair()
    with a_file() as file:
        sender = await waiting(start(small(one), verb, file))
        one.close()
        error = await raised(sender, OSError)
        assert error.errno == errno.EBADF
        assert await drained(other) == LONG[: error.bytes_sent]
        assert 0 < error.bytes_sent < len(LONG)


@pytest.mark.parametrize("verb", STOPPING)
async def test_a_call_that_fails_at_once_has_sent_nothing(ours: Face, verb: str) -> None:
    one, other = ours.socketpair()
    other.close()
    with a_file() as file:
        error = await raised(start(one, verb, file), BrokenPipeError)
        assert error.bytes_sent == 0


async def test_a_late_call_lets_go_of_its_buffer(net: Face) -> None:
    """Also while its error, which knows the frames, is handled."""
    one, _ = net.socketpair()
    one.settimeout(0.01)
    for verb in INTO:
        room = bytearray(4)
        error = await raised(
            getattr(one, verb)([room] if verb == "recvmsg_into" else room), TimeoutError
        )
        room.extend(b"more")
        assert error.args == ("timed out",)
    for verb in ("sendall", "send", "sendmsg"):
        data = bytearray(MEGABYTES)
        given = [data] if verb == "sendmsg" else data
        error = await raised(for_ever(getattr(one, verb), given), TimeoutError)
        data.clear()
        assert error.args == ("timed out",)


@pytest.mark.parametrize("verb", ["sendall", "send", "sendmsg"])
async def test_a_stopped_call_lets_go_of_its_buffer(verb: str) -> None:
    one, other = aiosock.socketpair()
    with small(one), other:
        data = bytearray(LONG)
        sender = await waiting(getattr(one, verb)([data] if verb == "sendmsg" else data))
        await cancelled(sender)
        data.clear()


async def test_the_timeout_is_for_the_whole_sendall(net: Face) -> None:
    """A reader who takes a little again and again does not keep it alive."""
    one, other = net.socketpair()
    small(one).settimeout(0.3)
    sender = asyncio.create_task(one.sendall(bytes(5_000_000)))
    async with asyncio.timeout(5):
        while not sender.done():
            await other.recv(1000)
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await sender


# --- sendfile -----------------------------------------------------------------------


class Reader(io.BytesIO):
    """A file without a number."""


def numbered(data: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the tests close it
    file.write(data)
    file.seek(0)
    return file


PARTS: list[tuple[tuple[int, ...], int, int]] = [
    ((), 0, 30_000),
    ((100,), 100, 30_000),
    ((100, 50), 100, 150),
    ((0, 20_000), 0, 20_000),
    ((29_990, 100), 29_990, 30_000),
    ((0, 30_000), 0, 30_000),
]
FILES = pytest.mark.parametrize("make", [numbered, Reader])


@FILES
async def test_the_blocking_sendfile_refuses_a_non_blocking_socket(
    net: Face, make: Callable[[bytes], Any]
) -> None:
    if not net.blocks:
        pytest.skip("the awaitable one serves it")
    one, _ = net.socketpair()
    one.setblocking(False)
    with (
        make(b"x") as file,
        pytest.raises(ValueError, match="^non-blocking sockets are not supported$"),
    ):
        await one.sendfile(file)


@FILES
async def test_sendfile_sends_a_part(net: Face, make: Callable[[bytes], Any]) -> None:
    data = LONG[:30_000]
    for arguments, first, last in PARTS:
        one, other = net.socketpair()
        with make(data) as file:
            reader = asyncio.create_task(drained(other))
            assert await one.sendfile(file, *arguments) == last - first
            assert file.tell() == last
        one.close()
        assert await reader == data[first:last]


@FILES
async def test_sendfile_sends_more_than_fits(net: Face, make: Callable[[bytes], Any]) -> None:
    one, other = net.socketpair()
    data = LONG * 3
    with make(data) as file:
        reader = asyncio.create_task(drained(other))
        assert await one.sendfile(file) == len(data)
        assert file.tell() == len(data)
    one.close()
    assert await reader == data


@FILES
async def test_sendfile_of_an_empty_file(net: Face, make: Callable[[bytes], Any]) -> None:
    one, _ = net.socketpair()
    with make(b"") as file:
        assert await one.sendfile(file) == 0


@FILES
async def test_sendfile_behind_the_end_sends_nothing(
    net: Face, make: Callable[[bytes], Any]
) -> None:
    one, _ = net.socketpair()
    with make(b"data") as file:
        assert await one.sendfile(file, 10) == 0


async def test_sendfile_takes_names(net: Face) -> None:
    one, other = net.socketpair()
    with Reader(b"0123456789") as file:
        assert await one.sendfile(file=file, offset=2, count=3) == 3
    assert await other.recv(99) == b"234"


async def test_sendfile_of_what_has_a_number_and_is_no_file(net: Face) -> None:
    one, other = net.socketpair()
    reading, writing = os.pipe()
    os.write(writing, b"in the pipe")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        sent = await one.sendfile(file)
    one.close()
    assert await drained(other) == b"in the pipe"[:sent]


async def test_sendfile_refuses_text(net: Face) -> None:
    one, _ = net.socketpair()
    with (
        tempfile.TemporaryFile("w") as file,
        pytest.raises(ValueError, match="^file should be opened in binary mode$"),
    ):
        await one.sendfile(file)


async def test_sendfile_refuses_datagrams(net: Face) -> None:
    one, _ = net.socketpair(aiosock.AF_UNIX, SOCK_DGRAM)
    with (
        Reader(b"x") as file,
        pytest.raises(ValueError, match="^only SOCK_STREAM type sockets are supported$"),
    ):
        await one.sendfile(file)


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("x", TypeError)]
)
async def test_sendfile_refuses_counts(net: Face, count: Any, error: type[Exception]) -> None:
    one, _ = net.socketpair()
    with Reader(b"x") as file, pytest.raises(error) as caught:
        await one.sendfile(file, 0, count)
    assert str(caught.value) == f"count must be a positive integer (got {count!r})"


@FILES
async def test_a_late_sendfile_leaves_the_file_behind_what_was_sent(
    net: Face, make: Callable[[bytes], Any]
) -> None:
    one, other = net.socketpair()
    small(one).settimeout(0.05)
    with make(LONG) as file:
        with pytest.raises(TimeoutError, match="^timed out$"):
            await one.sendfile(file, 100)
        behind = file.tell()
    one.close()
    got = await drained(other)
    assert 0 < len(got) < len(LONG)
    # A file that is read may stand behind a block that was read and sent in part.
    assert behind == 100 + len(got) or (make is Reader and net.is_stdlib)
    assert got == LONG[100 : 100 + len(got)]


@FILES
async def test_sendfile_serves_a_non_blocking_socket(make: Callable[[bytes], Any]) -> None:
    one, other = aiosock.socketpair()
    one.setblocking(False)
    with one, other, make(LONG[:1000]) as file:
        assert await one.sendfile(file) == 1000
        assert await other.recv(2000) == LONG[:1000]


async def test_a_sendfile_is_not_mixed_with_other_sending() -> None:
    one, other = aiosock.socketpair()
    with small(one), other, a_file() as file:
        senders = [
            asyncio.create_task(one.sendfile(file)),
            asyncio.create_task(one.sendall(b"behind it")),
        ]
        got = bytearray()
        while len(got) < len(LONG) + 9:
            got += await other.recv(5000)
        assert await asyncio.gather(*senders) == [len(LONG), None]
        assert got == LONG + b"behind it"


# --- other modes --------------------------------------------------------------------


async def test_a_non_blocking_receiving_call_never_waits(net: Face) -> None:
    for verb in VERBS:
        one, _ = await net.tcp_pair()
        one.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            await Receiving(verb, 4)(one)
        assert caught.value.args == (errno.EAGAIN, os.strerror(errno.EAGAIN))


@pytest.mark.parametrize("verb", ["send", "sendall", "sendmsg"])
async def test_a_non_blocking_sending_call_never_waits(net: Face, verb: str) -> None:
    one, _ = net.socketpair()
    one.setblocking(False)
    call = for_ever(getattr(one, verb), *sending(verb, bytes(100_000)))
    assert (await raised(call, BlockingIOError)).errno == errno.EAGAIN


@pytest.mark.parametrize("verb", ["send", "sendmsg"])
async def test_a_full_stream_is_late(net: Face, verb: str) -> None:
    one, _ = net.socketpair()
    one.settimeout(0.02)
    call = for_ever(getattr(one, verb), *sending(verb, bytes(100_000)))
    assert (await raised(call, TimeoutError)).args == ("timed out",)


async def test_a_full_queue_of_datagrams_is_waited_for(net: Face) -> None:
    """The kernel calls such a socket writable all the while."""
    one, other = net.socketpair(aiosock.AF_UNIX, SOCK_DGRAM)
    one.setblocking(False)
    await raised(for_ever(one.send, b"x"), BlockingIOError)
    one.settimeout(0.02)
    with pytest.raises(TimeoutError):
        await one.send(b"late")
    one.settimeout(None)
    sender = await waiting(one.send(b"last"))
    while (data := await other.recv(9)) == b"x":
        pass
    assert data == b"last"
    assert await sender == 4
