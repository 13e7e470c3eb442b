"""Files over sockets: the stdlib's on the stdlib's socket and on ours, and the awaited ones.

What the faces share is one text.  What is ours alone is that a file outlives a timeout and
a cancellation, the limit of a line, and the calls that asyncio's streams have.
"""

import asyncio
import gc
import io
import os
import socket as _stdlib
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from faces import LIMIT, Face
from secured import exactly, secured_pair, with_peer

import aiosock
import aiosock_sync
from aiosock._files import AT_ONCE

Pair = tuple[aiosock.socket, aiosock.socket]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    one, other = aiosock.socketpair()
    with one, other:
        yield one, other


async def fill(sock: Any) -> None:
    """Leave no room in the kernel for more."""
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            await sock.send(bytes(4096))
    with suppress(BlockingIOError):
        while True:
            await sock.send(b"x")


async def drain(sock: Any) -> bytes:
    """All that is there."""
    sock.setblocking(False)
    data = b""
    with suppress(BlockingIOError):
        while piece := await sock.recv(2**20):
            data += piece
    return data


# --- modes and arguments -----------------------------------------------------------------

KINDS = {
    "r": (aiosock.TextFile, io.TextIOWrapper),
    "": (aiosock.TextFile, io.TextIOWrapper),
    "w": (aiosock.TextFile, io.TextIOWrapper),
    "rw": (aiosock.TextFile, io.TextIOWrapper),
    "rb": (aiosock.BinaryFile, io.BufferedReader),
    "b": (aiosock.BinaryFile, io.BufferedReader),
    "wb": (aiosock.BinaryFile, io.BufferedWriter),
    "rwb": (aiosock.BinaryFile, io.BufferedRWPair),
}


@pytest.mark.parametrize("mode", KINDS)
async def test_the_mode_says_what_kind_of_file_it_is(net: Face, mode: str) -> None:
    one, _ = net.socketpair()
    file: Any = one.makefile(mode)
    ours, theirs = KINDS[mode]
    kind: Any = type(getattr(file, "file", file))
    assert kind is (theirs if net.blocks else ours)
    reads, writes = "r" in mode or "w" not in mode, "w" in mode
    assert (file.readable(), file.writable()) == (reads, writes)
    assert not file.seekable()
    assert not file.isatty()
    assert not file.closed
    if mode in ("r", "w", "", "rw"):
        assert file.mode == mode
    await file.close()
    assert file.closed


@pytest.mark.parametrize("mode", ["rb", "wb"])
async def test_without_a_buffer_it_is_raw(net: Face, mode: str) -> None:
    one, _ = net.socketpair()
    async with one.makefile(mode, 0) as file:
        assert type(getattr(file, "file", file)) is (
            _stdlib.SocketIO if net.blocks else aiosock.RawFile
        )
        assert (file.mode, file.name) == (mode, one.fileno())
    assert (file.mode, file.name) == (mode, -1)


async def test_a_file_knows_its_descriptor_while_it_is_open(net: Face) -> None:
    one, _ = net.socketpair()
    for mode in ("r", "rb", "wb", "w"):
        file = one.makefile(mode)
        assert file.fileno() == file.name == one.fileno()
        await file.close()
        assert file.name == -1


BAD_ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("rb+",), {}),
    (("x",), {}),
    (("U",), {}),
    ((3,), {}),
    ((None,), {}),
    (("r", 0), {}),
    (("rb", 1.5), {}),
    (("r", "x"), {}),
    (("r",), {"encoding": "nope"}),
    (("r",), {"encoding": "hex"}),
    (("r",), {"encoding": 3}),
    (("r",), {"newline": "x"}),
    (("r",), {"newline": 3}),
    (("r", None, "utf-8"), {}),
]


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is the question
        call(*args, **kwargs)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(("args", "kwargs"), BAD_ARGUMENTS)
async def test_wrong_arguments_are_refused_in_the_words_of_the_stdlib(
    pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    theirs = _stdlib.socket()
    kind, text = refusal(theirs.makefile, *args, **kwargs)
    os.close(theirs.detach())  # a file that came to nothing may still hold it
    assert kind in (TypeError, ValueError, LookupError)
    if len(args) < 3:  # else the text counts arguments, of which we have one more
        assert refusal(pair[0].makefile, *args, **kwargs) == (kind, text)
    else:
        assert refusal(pair[0].makefile, *args, **kwargs)[0] is kind
    pair[0].close()
    assert pair[0].fileno() == -1, "no file is left that holds the connection"


async def test_the_old_manual_calls_the_size_bufsize(ours: Face) -> None:
    one, _ = ours.socketpair()
    async with one.makefile("rb", bufsize=0) as file:
        assert file.mode == "rb"
        assert not hasattr(file, "peek") or type(file) is aiosock.RawFile
    with pytest.raises(TypeError, match="both"):
        one.makefile("rb", 1, bufsize=1)


# --- reading bytes -----------------------------------------------------------------------

TEXT = b"one\ntwo\r\n\nfour" + b"x" * 20_000 + b"\nend"


async def read_all(file: Any) -> list[bytes]:
    return [await file.read()]


async def read_pieces(file: Any) -> list[bytes]:
    pieces = []
    while piece := await file.read(7):
        pieces.append(piece)
    return pieces


async def read_lines(file: Any) -> list[bytes]:
    return [line async for line in file]


async def read_list(file: Any) -> list[bytes]:
    lines: list[bytes] = await file.readlines()
    return lines


async def read_some_lines(file: Any) -> list[bytes]:
    return [b"|".join(await file.readlines(hint)) for hint in (4, 6, 1, 0)]


async def read_parts_of_lines(file: Any) -> list[bytes]:
    return [
        await file.readline(2),
        await file.readline(0),
        await file.readline(9999),
        *await read_all(file),
    ]


async def read_into(file: Any) -> list[bytes]:
    buffer, pieces = bytearray(5000), []
    while count := await file.readinto(buffer):
        pieces.append(bytes(buffer[:count]))
    return pieces


async def look_and_read(file: Any) -> list[bytes]:
    seen = await file.peek()
    return [seen[:3], await file.read(3), await file.read(0), *await read_all(file)]


READS: list[Callable[[Any], Awaitable[list[bytes]]]] = [
    read_all,
    read_pieces,
    read_lines,
    read_list,
    read_some_lines,
    read_parts_of_lines,
    read_into,
    look_and_read,
]


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("size", [-1, 3, 70_000])
async def test_bytes_are_read_as_from_any_file(net: Face, reads: Any, size: int) -> None:
    one, other = net.socketpair()
    await one.sendall(TEXT)
    one.shutdown(_stdlib.SHUT_WR)
    async with other.makefile("rb", size) as file:
        assert await reads(file) == await reads(Awaited(io.BufferedReader(io.BytesIO(TEXT))))
        assert await file.read() == b""
        assert await file.readline() == b""


class Awaited:
    """A file of the stdlib, of which the calls are awaited."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            return getattr(self.file, name)(*args)

        return call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self.file:
            yield line


@pytest.mark.parametrize("call", ["read1", "peek", "readinto1"])
async def test_what_is_received_at_once_is_enough(net: Face, call: str) -> None:
    one, other = net.socketpair()
    async with other.makefile("rb") as file:
        await one.sendall(b"abc")
        assert await file.read(1) == b"a"
        if call == "readinto1":
            buffer = bytearray(10)
            assert await file.readinto1(buffer) == 2
            assert buffer[:2] == b"bc"
        else:
            assert await getattr(file, call)() == b"bc"


async def test_read1_takes_at_most_so_many(net: Face) -> None:
    one, other = net.socketpair()
    async with other.makefile("rb") as file:
        await one.sendall(b"abc")
        assert await file.read1(0) == b""
        assert await file.read1(2) == b"ab"
        one.shutdown(_stdlib.SHUT_WR)
        assert await file.read1(2) == b"c"
        assert await file.read1(2) == await file.read1() == await file.peek() == b""


async def test_a_raw_file_receives_nothing_but_the_answer(net: Face) -> None:
    one, other = net.socketpair()
    await one.sendall(b"line\nabcdefghi")
    async with other.makefile("rb", 0) as file:
        assert await file.readline() == b"line\n"
        assert await file.read(3) == b"abc"
        buffer = bytearray(2)
        assert await file.readinto(buffer) == 2
        assert buffer == b"de"
        assert await other.recv(2) == b"fg"
        assert await file.read(0) == b""
        assert await file.read(100) == b"hi"
        await one.sendall(TEXT)
        one.shutdown(_stdlib.SHUT_WR)
        assert await file.readlines(5) == [b"one\n", b"two\r\n"]
        assert await file.readall() == TEXT[9:]
        assert await file.read() == await file.read(1) == b""


BAD_READS: list[tuple[str, tuple[Any, ...]]] = [
    ("read", ("x",)),
    ("read", (-5,)),
    ("read1", ("x",)),
    ("peek", ("x",)),
    ("readline", ("x",)),
    ("readlines", ("x",)),
    ("readinto", ("x",)),
    ("readinto", (b"x",)),
    ("write", (b"x",)),
    ("writelines", ([b"x"],)),
]
BAD_WRITES: list[tuple[str, tuple[Any, ...]]] = [
    ("write", ("x",)),
    ("write", (3,)),
    ("writelines", (3,)),
    ("read", ()),
    ("read1", ()),
    ("readline", ()),
    ("readlines", ()),
    ("readinto", (bytearray(3),)),
]
BAD_TEXT: list[tuple[str, tuple[Any, ...]]] = [
    ("read", ("x",)),
    ("readline", ("x",)),
    ("readlines", ("x",)),
    ("write", ("x",)),
    ("write", (b"x",)),
    ("writelines", (["x"],)),
]
BAD_TEXT_WRITES: list[tuple[str, tuple[Any, ...]]] = [
    ("write", (b"x",)),
    ("write", (3,)),
    ("writelines", (3,)),
    ("read", ()),
    ("readline", ()),
    ("readlines", ()),
]
BAD_RAW: list[tuple[str, tuple[Any, ...]]] = [("write", (b"x",)), ("read", ("x",))]
BAD_RAW_WRITES: list[tuple[str, tuple[Any, ...]]] = [
    ("read", ()),
    ("read", (3,)),
    ("readline", ()),
    ("readlines", ()),
    ("readinto", (bytearray(3),)),
]
BAD_CALLS = [
    (("rb",), BAD_READS),
    (("wb",), BAD_WRITES),
    (("r",), BAD_TEXT),
    (("w",), BAD_TEXT_WRITES),
    (("rb", 0), BAD_RAW),
    (("wb", 0), BAD_RAW_WRITES),
]


async def outcome(file: Any, call: str, args: tuple[Any, ...]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is the question
        async with asyncio.timeout(LIMIT):
            await getattr(file, call)(*args)
    assert type(caught.value) is not TimeoutError
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("how", "call", "args"),
    [(how, call, args) for how, calls in BAD_CALLS for call, args in calls],
)
async def test_what_a_file_is_not_for_is_refused_in_the_words_of_the_stdlib(
    pair: Pair, how: tuple[Any, ...], call: str, args: tuple[Any, ...]
) -> None:
    one, other = _stdlib.socketpair()
    with one, other, one.makefile(*how) as theirs:
        expected = refusal(getattr(theirs, call), *args)
    async with pair[0].makefile(*how) as file:
        assert await outcome(file, call, args) == expected


CLOSED_CALLS: dict[str, tuple[Any, ...]] = {
    "read": (),
    "read1": (),
    "peek": (),
    "readline": (),
    "readlines": (),
    "readinto": (bytearray(3),),
    "flush": (),
    "write": (b"x",),
    "writelines": ([],),
    "fileno": (),
    "readable": (),
    "writable": (),
    "seekable": (),
    "isatty": (),
}


@pytest.mark.parametrize("call", CLOSED_CALLS)
@pytest.mark.parametrize("how", [("rb",), ("wb",), ("r",), ("w",), ("rb", 0), ("wb", 0)])
async def test_a_closed_file_answers_as_the_stdlibs(
    pair: Pair, how: tuple[Any, ...], call: str
) -> None:
    one, other = _stdlib.socketpair()
    with one, other, one.makefile(*how) as theirs:
        pass
    async with pair[0].makefile(*how) as file:
        pass
    await file.close()  # again
    args = ("x",) if (call, "b" in how[0]) == ("write", False) else CLOSED_CALLS[call]
    if hasattr(theirs, call):
        expected = await answer(theirs, call, args)
        if expected == (False,):  # of a direction that the stdlib's file has not at all
            expected = ValueError, "I/O operation on closed socket."
        assert await answer(file, call, args) == expected
    elif hasattr(file, call):
        assert (await answer(file, call, args))[0] in (ValueError, io.UnsupportedOperation)


async def answer(file: Any, call: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        found = getattr(file, call)(*args)
        return (await found,) if asyncio.iscoroutine(found) else (found,)
    except (ValueError, TypeError) as error:
        return type(error), str(error)


# --- text ---------------------------------------------------------------------------------

LINES = "grün\r\nblau\nrot\r\r\nweiß\n\nEnde \N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}"


def as_the_stdlib_reads(data: bytes, how: dict[str, Any]) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), **how)


HOW: list[dict[str, Any]] = [
    {"encoding": encoding, "newline": newline}
    for encoding in ("utf-8", "utf-16")
    for newline in (None, "", "\n", "\r", "\r\n")
]


@pytest.mark.parametrize("how", HOW)
async def test_text_is_read_as_from_any_file(net: Face, how: dict[str, Any]) -> None:
    data = LINES.encode(how["encoding"])
    one, other = net.socketpair()
    await one.sendall(data)
    one.shutdown(_stdlib.SHUT_WR)
    theirs = as_the_stdlib_reads(data, how)
    async with other.makefile("r", **how) as file:
        assert await file.readline() == theirs.readline()
        assert await file.readline(3) == theirs.readline(3)
        assert await file.read(0) == await file.readline(0) == ""
        assert await file.read(2) == theirs.read(2)
        assert await file.readlines(2) == theirs.readlines(2)
        assert [line async for line in file] == list(theirs)
        assert await file.read() == await file.read(1) == await file.readline() == ""
        assert file.newlines == theirs.newlines
        assert file.encoding == theirs.encoding
        assert file.errors == "strict"


@pytest.mark.parametrize("how", HOW)
async def test_characters_and_line_ends_may_come_in_any_pieces(
    pair: Pair, how: dict[str, Any]
) -> None:
    one, other = pair
    data = LINES.encode(how["encoding"])

    async def dribble() -> None:
        for number in range(len(data)):
            await one.sendall(data[number : number + 1])
            await asyncio.sleep(0)
        one.shutdown(_stdlib.SHUT_WR)

    sending = asyncio.create_task(dribble())
    async with other.makefile("r", 1, **how) as file:
        assert await file.readlines() == list(as_the_stdlib_reads(data, how))
    await sending


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
async def test_text_is_written_as_by_the_stdlib(
    net: Face, encoding: str, newline: str | None
) -> None:
    one, other = net.socketpair()
    async with one.makefile("w", encoding=encoding, newline=newline) as file:
        assert await file.write("a\nü") == 3
        await file.writelines(["c\r", "\n"])
        await file.flush()
    text = "a\nüc\r\n".replace("\n", newline or "\n")
    if encoding == "utf-16":  # of which what cannot be rewound has no mark
        encoding = f"utf-16-{sys.byteorder[0]}e"
    assert await other.recv(100) == text.encode(encoding)


async def test_what_makes_text_of_bytes_is_named(net: Face) -> None:
    one, other = net.socketpair()
    await one.sendall(b"\xe9\r\n\xff")
    one.shutdown(_stdlib.SHUT_WR)
    async with other.makefile("r", encoding="ascii", errors="replace", newline="") as file:
        assert file.errors == "replace"
        assert await file.read() == "\N{REPLACEMENT CHARACTER}\r\n\N{REPLACEMENT CHARACTER}"


async def test_the_encoding_is_the_locales_where_none_is_named(net: Face) -> None:
    one, _ = net.socketpair()
    async with one.makefile() as file:
        assert file.encoding == io.TextIOWrapper(io.BytesIO(), io.text_encoding(None)).encoding


async def test_half_a_character_at_the_end_belongs_to_the_last_line(net: Face) -> None:
    one, other = net.socketpair()
    await one.sendall(b"a\r\xe2\x82")
    one.shutdown(_stdlib.SHUT_WR)
    async with other.makefile(encoding="utf-8", errors="replace") as file:
        assert await file.readline() == "a\n"
        assert await file.readline() == "\N{REPLACEMENT CHARACTER}"


async def test_bytes_that_are_no_text_can_still_be_read_as_bytes(pair: Pair) -> None:
    one, other = pair
    await one.sendall(b"\xff\xfe!")
    async with other.makefile(encoding="utf-8") as file:
        with pytest.raises(UnicodeDecodeError):
            await file.readline()
        assert await file.buffer.read(3) == b"\xff\xfe!"


# --- writing bytes --------------------------------------------------------------------------


async def test_what_is_written_goes_out_when_it_is_flushed(net: Face) -> None:
    one, other = net.socketpair()
    other.setblocking(False)
    async with one.makefile("wb") as file:
        assert await file.write(b"abc") == 3
        await file.writelines([b"de", bytearray(b"f"), memoryview(b"g")])
        with pytest.raises(BlockingIOError):
            await other.recv(1)
        await file.flush()
        assert await other.recv(100) == b"abcdefg"
        await file.write(b"last")
    assert await other.recv(100) == b"last"


@pytest.mark.parametrize("size", [10, 9_999, 300_000])
async def test_more_than_the_buffer_holds_goes_out_at_once_and_in_order(
    net: Face, size: int
) -> None:
    one, other = net.socketpair()

    async def send() -> None:
        async with one.makefile("wb", 16) as file:
            await file.write(b"head")
            assert await file.write(memoryview(bytes(size // 2 * 2)).cast("H")) == size // 2 * 2
            await file.write(b"tail")
        one.shutdown(_stdlib.SHUT_WR)

    sending = asyncio.create_task(send())
    async with other.makefile("rb") as file:
        assert await file.read() == b"head" + bytes(size)[: size // 2 * 2] + b"tail"
    await sending


async def test_a_raw_file_sends_at_once(net: Face) -> None:
    one, other = net.socketpair()
    async with one.makefile("wb", 0) as file:
        assert await file.write(b"abc") == 3
        assert await other.recv(100) == b"abc"
        await file.flush()


async def test_both_ways_in_one_file(net: Face) -> None:
    one, other = net.socketpair()
    async with one.makefile("rwb") as file:
        await file.write(b"hello\n")
        await file.flush()
        assert await other.recv(100) == b"hello\n"
        await other.sendall(b"abc" * 20_000 + b"\n")
        assert await file.readline() == b"abc" * 20_000 + b"\n"


# --- the connection ---------------------------------------------------------------------------


async def test_the_connection_lives_as_long_as_a_file(net: Face) -> None:
    one, other = net.socketpair()
    file, second = one.makefile("rb"), one.makefile("w")
    one.close()
    assert one.fileno() >= 0
    assert "[closed]" in repr(one)
    one.settimeout(5)
    await other.sendall(b"still here")
    assert await file.read(10) == b"still here"
    await file.close()
    await file.close()
    assert one.fileno() >= 0
    await second.close()
    assert one.fileno() == -1
    assert await other.recv(1) == b""


async def test_a_file_that_closes_leaves_the_socket_open(net: Face) -> None:
    one, other = net.socketpair()
    async with one.makefile("wb") as file:
        await file.write(b"flushed")
    assert await other.recv(100) == b"flushed"
    await one.sendall(b"and on")
    assert await other.recv(100) == b"and on"


async def test_a_forgotten_file_is_closed(net: Face) -> None:
    one, other = net.socketpair()
    file = one.makefile("rb")
    one.close()
    del file
    assert one.fileno() == -1
    assert await other.recv(1) == b""


async def test_a_detached_socket_leaves_its_files_without_a_descriptor(net: Face) -> None:
    one, _ = net.socketpair()
    file = one.makefile("rb", 0)
    os.close(one.detach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        await file.read(1)
    await file.close()


async def test_a_file_of_a_closed_socket_can_be_made_but_not_read(net: Face) -> None:
    one, _ = net.socketpair()
    one.close()
    async with one.makefile("rb") as file:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await file.read(1)


async def test_a_forgotten_file_tells_what_was_not_sent(pair: Pair) -> None:
    file = pair[0].makefile("wb")
    await file.write(b"abc")
    with pytest.warns(ResourceWarning, match="unclosed file .*: 3 bytes were not sent"):
        del file


async def test_a_file_closes_although_it_cannot_send(pair: Pair) -> None:
    one, other = pair
    file = one.makefile("wb")
    await file.write(b"abc")
    other.close()
    one.close()
    with pytest.raises(BrokenPipeError):
        await file.close()
    assert file.closed
    assert one.fileno() == -1


async def test_a_reader_of_a_file_that_closes_is_told_when_something_comes(pair: Pair) -> None:
    one, other = pair
    file = one.makefile("rb")
    reading = asyncio.create_task(file.readline())
    await asyncio.sleep(0)
    await file.close()
    await other.sendall(b"x\n")
    with pytest.raises(ValueError, match="of closed file"):
        await reading


async def test_a_file_says_what_it_is(pair: Pair) -> None:
    one, _ = pair
    fd = one.fileno()
    kinds: list[tuple[tuple[Any, ...], str]] = [
        (("rb",), f"<aiosock.BinaryFile name={fd} mode='rb'>"),
        (("b", 0), f"<aiosock.RawFile name={fd} mode='rb'>"),
        (("wrb",), f"<aiosock.BinaryFile name={fd} mode='rwb'>"),
        (("rw",), f"<aiosock.TextFile name={fd} mode='rw' encoding='"),
    ]
    for args, text in kinds:
        async with one.makefile(*args) as file:
            assert repr(file).startswith(text)


# --- non-blocking mode ------------------------------------------------------------------------


async def test_a_non_blocking_file_gives_what_there_is(net: Face) -> None:
    one, other = net.socketpair()
    one.setblocking(False)
    async with one.makefile("rb") as file:
        assert await file.read() is None
        assert await file.read(3) is None
        assert await file.readline() == await file.read1() == await file.peek() == b""
        assert await file.readlines() == []
        assert await file.readinto(bytearray(3)) is await file.readinto1(bytearray(3)) is None
        for call, args in [("readline", ()), ("read", (5,)), ("read", ()), ("readlines", ())]:
            await other.sendall(b"abc")
            assert await getattr(file, call)(*args) in (b"abc", [b"abc"])
    async with one.makefile("rb", 0) as raw:
        assert await raw.read() is await raw.read(3) is await raw.readinto(bytearray(3)) is None
    async with one.makefile("r") as text:
        await other.sendall(b"abc")
        assert await text.read(5) == "abc"
        assert await text.readline() == ""
        assert [line async for line in text] == []


async def test_a_non_blocking_file_takes_what_it_has_room_for(net: Face) -> None:
    one, other = net.socketpair()
    await fill(one)
    raw, file = one.makefile("wb", 0), one.makefile("wb", 100)
    assert await raw.write(b"x") is None
    await raw.close()
    assert await file.write(bytes(60)) == 60
    for size, taken in [(60, 40), (1, 0), (1000, 0)]:
        with pytest.raises(BlockingIOError, match="^.Errno 11. write could not complete") as caught:
            await file.write(b"x" * size)
        assert caught.value.characters_written == taken
    with pytest.raises(BlockingIOError, match="^.Errno 11. write could not complete") as caught:
        await file.flush()
    assert caught.value.characters_written == 0
    await drain(other)
    assert await file.write(b"end") == 3
    await file.close()
    assert await drain(other) == bytes(60) + b"x" * 40 + b"end"


async def test_of_a_long_piece_a_non_blocking_file_keeps_as_much_as_fits(net: Face) -> None:
    one, other = net.socketpair()
    one.setblocking(False)
    file = one.makefile("wb", 1000)
    data = os.urandom(2_000_000)
    with pytest.raises(BlockingIOError) as caught:
        await file.write(data)
    taken = caught.value.characters_written
    assert 1000 < taken < len(data)
    got = await drain(other)
    assert len(got) == taken - 1000
    await file.close()
    assert got + await drain(other) == data[:taken]


@pytest.mark.parametrize("mode", ["w", "wb"])
async def test_what_a_late_call_has_left_stays_when_there_is_no_room_for_more(
    pair: Pair, mode: str
) -> None:
    one, other = pair
    one.settimeout(0.01)
    data: Any = "A" * 1_000_000 if mode == "w" else b"A" * 1_000_000
    file = one.makefile(mode)
    with pytest.raises(TimeoutError):
        await file.write(data)
    one.setblocking(False)
    with pytest.raises(BlockingIOError) as full:
        await file.write(data[:5])
    taken = full.value.characters_written
    assert taken == (5 if mode == "w" else 0)
    one.setblocking(True)
    closing = asyncio.create_task(file.close())
    async with asyncio.timeout(LIMIT), other.makefile("rb") as reader:
        assert await reader.readexactly(len(data) + taken) == b"A" * (len(data) + taken)
    await closing


async def test_text_that_cannot_be_sent_now_goes_with_what_follows(pair: Pair) -> None:
    one, other = pair
    await fill(one)
    file = one.makefile("w", 10, encoding="ascii")
    with pytest.raises(BlockingIOError):
        await file.write("a" * 100)
    await drain(other)
    await file.write("b")
    await file.close()
    assert await drain(other) == b"a" * 100 + b"b"


@pytest.mark.parametrize("call", ["readuntil", "readexactly"])
async def test_all_or_nothing_is_nothing_in_non_blocking_mode(pair: Pair, call: str) -> None:
    one, other = pair
    one.setblocking(False)
    args = (b"\n",) if call == "readuntil" else (4,)
    async with one.makefile("rb") as file:
        await other.sendall(b"abc")
        with pytest.raises(BlockingIOError):
            await getattr(file, call)(*args)
        await other.sendall(b"\n")
        assert await getattr(file, call)(*args) == b"abc\n"


# --- what streams have ------------------------------------------------------------------------


async def test_bytes_up_to_a_separator(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("rb", 2) as file:
        await one.sendall(b"one\r\ntwo\r\r\n---rest")
        assert await file.readuntil(b"\r\n") == b"one\r\n"
        assert await file.readuntil(b"\r\n") == b"two\r\r\n"
        assert await file.readuntil(b"---") == b"---"
        one.shutdown(_stdlib.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await file.readuntil()
        assert (caught.value.partial, caught.value.expected) == (b"rest", None)
        with pytest.raises(ValueError, match="^Separator should be at least one-byte string$"):
            await file.readuntil(b"")


async def test_a_separator_does_not_begin_before_what_is_unread(pair: Pair) -> None:
    one, other = pair
    await one.sendall(b"x\r\nabc\r\ny\r\nz\r\n")
    async with other.makefile("rb") as file:
        assert await file.readexactly(2) == b"x\r"
        assert await file.readuntil(b"\r\n") == b"\nabc\r\n"
        text = other.makefile("r", newline="\r\n")
        text.buffer._data = await file.read1()
        assert await text.read(2) == "y\r"
        assert await text.readline() == "\nz\r\n"
        await text.close()


async def test_a_hint_of_lines_knows_no_limit(pair: Pair) -> None:
    one, other = pair
    for mode in ("rb", "r"):
        await one.sendall(b"abc\n" * 10)
        async with other.makefile(mode, limit=10) as file:
            assert len(await file.readlines(20)) == 6
            assert len([await file.readline() for _ in range(4)]) == 4


async def test_so_many_bytes_and_no_fewer(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("rb") as file:
        await one.sendall(b"abcdef")
        assert await file.readexactly(4) == b"abcd"
        assert await file.readexactly(0) == b""
        one.shutdown(_stdlib.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await file.readexactly(4)
        assert (caught.value.partial, caught.value.expected) == (b"ef", 4)
        with pytest.raises(ValueError, match="^readexactly size can not be less than zero$"):
            await file.readexactly(-1)


@pytest.mark.parametrize("call", ["readline", "readuntil", "__anext__"])
async def test_a_line_longer_than_its_limit_can_still_be_read(pair: Pair, call: str) -> None:
    one, other = pair
    async with other.makefile("rb", 10, limit=None if call != "__anext__" else 20) as file:
        how = {} if call == "__anext__" else {"limit": 20}
        await one.sendall(b"x" * 19 + b"\n" + b"y" * 20 + b"\n")
        assert await getattr(file, call)(**how) == b"x" * 19 + b"\n"
        with pytest.raises(
            asyncio.LimitOverrunError, match="^the line is longer than 20$"
        ) as caught:
            await getattr(file, call)(**how)
        assert caught.value.consumed >= 20
        assert await file.read(21) == b"y" * 20 + b"\n"
        await one.sendall(b"z" * 21)
        with pytest.raises(asyncio.LimitOverrunError):
            await getattr(file, call)(**how)
        assert await file.read(21) == b"z" * 21


async def test_the_limit_of_text_counts_characters(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("r", encoding="utf-8", limit=4) as file:
        await one.sendall("äöü\näöüß\n".encode())
        assert await file.readline() == "äöü\n"
        with pytest.raises(asyncio.LimitOverrunError):
            await file.readline()
        assert await file.readline(limit=5) == "äöüß\n"


async def test_a_peer_who_sends_a_line_without_end_is_stopped_at_the_limit(pair: Pair) -> None:
    one, other = pair
    sending = asyncio.create_task(one.sendall(bytes(2**24)))
    async with other.makefile("rb", limit=2**16) as file:
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await file.readline()
        assert caught.value.consumed <= 2**16 + AT_ONCE
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


# --- time and cancellation -----------------------------------------------------------------------

PARTS = (b"ab", b"cd", b"e\n", b"f")
INTERRUPTED: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "read": lambda file: file.read(6),
    "readline": lambda file: file.readline(),
    "readlines": lambda file: file.readlines(4),
    "readuntil": lambda file: file.readuntil(b"e\n"),
    "readexactly": lambda file: file.readexactly(6),
    "readinto": lambda file: read_six(file),
    "__anext__": lambda file: anext(file),
}


async def read_six(file: Any) -> bytes:
    buffer = bytearray(6)
    assert await file.readinto(buffer) == 6
    return bytes(buffer)


@pytest.mark.parametrize("call", INTERRUPTED)
@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_a_late_call_has_lost_nothing(pair: Pair, call: str, mode: str) -> None:
    one, other = pair
    other.settimeout(0.01)
    async with other.makefile(mode) as file:
        if mode == "r" and not hasattr(file, call):
            return
        for part in PARTS[:-1]:
            with pytest.raises(TimeoutError, match="^timed out$"):
                await INTERRUPTED[call](file)
            await one.sendall(part)
        found = await INTERRUPTED[call](file)
        assert found in (b"abcde\n", "abcde\n", [b"abcde\n"], ["abcde\n"])
        await one.sendall(PARTS[-1])
        assert await file.read(1) in (b"f", "f")


@pytest.mark.parametrize("module", [_stdlib, aiosock_sync])
def test_a_blocking_file_cannot_be_read_after_a_timeout(module: Any) -> None:
    one, other = module.socketpair()
    with one, other, one.makefile("rb") as file:
        one.settimeout(0.01)
        other.sendall(b"half a line")
        with pytest.raises(TimeoutError, match="^timed out$"):
            file.readline()
        with pytest.raises(OSError, match="^cannot read from timed out object$"):
            file.readline()


@pytest.mark.parametrize("call", INTERRUPTED)
@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_call_has_lost_nothing(pair: Pair, call: str, turns: int) -> None:
    one, other = pair
    async with other.makefile("rb") as file:
        lost = 0
        for part in (*PARTS, b"ghi\n"):
            reading = asyncio.ensure_future(INTERRUPTED[call](file))
            await asyncio.sleep(0)
            await one.sendall(part)
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                found = await reading
                assert found in (b"abcde\n", [b"abcde\n"])
                lost = 6
                break
        one.shutdown(_stdlib.SHUT_WR)
        rest = await file.read()
        assert len(rest) + lost in (6, 7, 11)
        assert (b"abcde\n" * (lost > 0) + rest) in (b"abcde\n", b"abcde\nf", b"abcde\nfghi\n")


async def test_a_late_flush_goes_on_where_it_stopped(pair: Pair) -> None:
    one, other = pair
    one.settimeout(0.01)
    file, data = one.makefile("wb"), os.urandom(1_000_000)
    with pytest.raises(TimeoutError) as caught:
        await file.write(data)
    assert caught.value.characters_written == len(data)  # type: ignore[attr-defined]  # the file's own
    with pytest.raises(TimeoutError) as caught:
        await file.write(b"behind it")
    assert caught.value.characters_written == 9  # type: ignore[attr-defined]  # the file's own
    data += b"behind it"
    got = await drain(other)
    while len(got) < len(data):
        with suppress(TimeoutError):
            await file.flush()
        got += await drain(other)
    await file.close()
    assert got + await drain(other) == data


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_write_has_taken_what_it_says(pair: Pair, turns: int) -> None:
    one, other = pair
    file, data = one.makefile("wb", 100), os.urandom(1_000_000)
    await file.write(b"before")
    writing = asyncio.create_task(file.write(data))
    for _ in range(turns):
        await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await writing
    taken = getattr(caught.value, "characters_written", 0)
    assert taken == len(data) or not (turns or taken)  # an eager task has begun at once
    closing = asyncio.create_task(file.close())
    async with asyncio.timeout(LIMIT):
        got = b""
        while len(got) < 6 + taken:
            got += await other.recv(2**20)
        await closing
    assert got == b"before" + data[:taken]


async def test_cancelled_writelines_have_taken_the_lines_up_to_the_one_that_waited(
    pair: Pair,
) -> None:
    one, other = pair
    first, waits, never = (letter * 1_000_000 + b"\n" for letter in (b"1", b"2", b"3"))
    file, reader = one.makefile("wb", 100), other.makefile("rb")
    writing = asyncio.create_task(file.writelines([first, waits, never]))
    async with asyncio.timeout(LIMIT), reader:
        assert await reader.readline() == first
        for _ in range(10):  # in which it goes on to the next
            await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        closing = asyncio.create_task(file.close())
        assert await reader.readline() == waits
        await closing
        one.close()
        assert await reader.read() == b""


async def test_a_write_that_is_cancelled_in_line_cuts_no_other_in_two(pair: Pair) -> None:
    one, other = pair
    file = one.makefile("w", encoding="ascii")
    first = asyncio.create_task(file.write("A" * 1_000_000 + "\n"))
    await asyncio.sleep(0)
    second = asyncio.create_task(file.write("B" * 10_000 + "\n"))
    await asyncio.sleep(0)
    for writing in (second, first):
        writing.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await writing
        assert caught.value.characters_written > 10_000  # type: ignore[attr-defined]  # the file's own
    closing = asyncio.create_task(file.close())
    async with other.makefile() as reader:
        assert await reader.readline() == "A" * 1_000_000 + "\n"
        assert await reader.readline() == "B" * 10_000 + "\n"
    await closing


@pytest.mark.parametrize("and_the_socket", [False, True])
async def test_close_waits_for_who_writes(pair: Pair, and_the_socket: bool) -> None:
    one, other = pair
    file = one.makefile("wb")
    writing = asyncio.create_task(file.write(b"A" * 1_000_000))
    await asyncio.sleep(0)
    if and_the_socket:
        one.close()
    closing = asyncio.create_task(file.close())
    async with other.makefile("rb") as reader:
        assert await reader.read(1_000_000) == b"A" * 1_000_000
    assert await writing == 1_000_000
    await closing


@pytest.mark.parametrize("and_the_socket", [False, True])
async def test_close_waits_for_those_who_write(pair: Pair, and_the_socket: bool) -> None:
    one, other = pair
    file = one.makefile("wb")
    calls = [file.write(b"A" * 1_000_000), file.write(b"B" * 10), file.flush()]
    writing = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    if and_the_socket:
        one.close()
    closing = asyncio.create_task(file.close())
    async with other.makefile("rb") as reader:
        assert await reader.read(1_000_010) == b"A" * 1_000_000 + b"B" * 10
    assert await asyncio.gather(*writing) == [1_000_000, 10, None]
    await closing
    assert (one.fileno() == -1) is and_the_socket


async def test_a_cancellation_leaves_a_file_without_waiting(pair: Pair) -> None:
    async def write_much() -> None:
        async with file:
            await file.write("A" * 2_000_000)

    file = pair[0].makefile("w")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(write_much(), 0.02)
    assert file.closed


async def test_an_error_leaves_a_file_with_what_was_written(pair: Pair) -> None:
    async def write_and_fail() -> None:
        async with pair[0].makefile("wb") as file:
            await file.write(b"before it")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await pair[1].recv(100) == b"before it"


async def test_a_cancelled_close_closes(pair: Pair) -> None:
    one, other = pair
    await fill(one)
    one.settimeout(None)
    file = one.makefile("wb")
    await file.write(b"abc")
    one.close()
    closing = asyncio.create_task(file.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert file.closed
    assert one.fileno() == -1
    await drain(other)


# --- several tasks, several loops -------------------------------------------------------


async def test_each_of_several_readers_gets_a_whole_line(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("rb", 3) as file:
        reading = [asyncio.create_task(file.readline()) for _ in range(5)]
        for number in range(5):
            await asyncio.sleep(0)
            await one.sendall(b"line %d\n" % number)
        assert await asyncio.gather(*reading) == [b"line %d\n" % n for n in range(5)]


async def test_who_comes_later_does_not_take_what_another_waits_for(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("rb") as file:
        first = asyncio.create_task(file.readexactly(6))
        await one.sendall(b"ab\n")
        while not file._unread():  # noqa: ASYNC110  # nothing tells when it has come
            await asyncio.sleep(0)
        later = [asyncio.create_task(call) for call in (file.readline(), file.read(1))]
        await asyncio.sleep(0)
        await one.sendall(b"cd\nef\nx")
        assert await asyncio.gather(first, *later) == [b"ab\ncd\n", b"ef\n", b"x"]


async def test_a_cancelled_reader_gives_the_turn_on(pair: Pair) -> None:
    one, other = pair
    async with other.makefile("rb") as file:
        first, second, third = (asyncio.create_task(file.readline()) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await one.sendall(b"line\n")
        assert await third == b"line\n"
        assert not file._reading.users


async def test_each_of_several_writers_writes_whole_pieces_in_order(pair: Pair) -> None:
    one, other = pair
    async with one.makefile("wb", 10) as file:
        pieces = [bytes([number]) * 200_000 for number in range(3)] + [b"x"]
        writing = [asyncio.create_task(file.write(piece)) for piece in pieces]
        async with other.makefile("rb") as reader:
            assert await reader.read(600_000) == b"".join(pieces[:3])
            await asyncio.gather(*writing)
            await file.flush()
            assert await reader.read(1) == b"x"


def test_a_file_may_be_used_in_one_loop_after_another() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        file = other.makefile("rb")

        async def wait_twice() -> None:
            waiting = [asyncio.create_task(file.readline()) for _ in range(2)]
            await asyncio.sleep(0)
            await one.sendall(b"half")
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

        async def end() -> list[bytes]:
            async with file:
                waiting = [asyncio.create_task(file.readline()) for _ in range(2)]
                await asyncio.sleep(0)
                await one.sendall(b" line\nand one\n")
                return await asyncio.gather(*waiting)

        asyncio.run(wait_twice())
        assert asyncio.run(end()) == [b"half line\n", b"and one\n"]


async def test_a_file_makes_no_cycle_that_keeps_it(pair: Pair) -> None:
    one, other = pair
    file = one.makefile("rwb")
    await other.sendall(b"abc\n")
    assert await file.readline() == b"abc\n"
    other.settimeout(0.01)
    gc.disable()
    try:
        one.close()
        del file
        assert one.fileno() == -1
    finally:
        gc.enable()


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
async def secure() -> AsyncIterator[tuple[aiosock.SSLSocket, aiosock.SSLSocket]]:
    with ExitStack() as stack:
        yield await secured_pair(stack)


async def test_lines_go_through_tls(secure: tuple[aiosock.SSLSocket, aiosock.SSLSocket]) -> None:
    one, other = secure
    async with one.makefile("rw", newline="\r\n") as file, other.makefile("rwb") as peer:
        await file.write("grün\n" * 10_000)
        flushing = asyncio.create_task(file.flush())
        assert await peer.readline() == "grün\r\n".encode()
        assert await peer.readexactly(9_999 * 7) == "grün\r\n".encode() * 9_999
        await flushing
        await peer.write(b"end\r\n")
        await peer.flush()
        assert await file.readline() == "end\r\n"


@pytest.mark.parametrize("end", ["flush", "close"])
async def test_what_tls_has_encrypted_for_a_cancelled_call_is_waited_for(
    end: str, stack: ExitStack
) -> None:
    one, peer = await with_peer(stack, tiny=True)
    file, data = one.makefile("wb"), os.urandom(60_000)
    writing = asyncio.create_task(file.write(data))
    await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    ending = asyncio.create_task(getattr(file, end)())
    await asyncio.sleep(0.01)
    assert not ending.done()
    async with asyncio.timeout(LIMIT):
        assert await exactly(len(data), peer.recv) == data
        await ending
        await file.close()


async def test_close_notify_is_said_when_the_last_file_closes(
    secure: tuple[aiosock.SSLSocket, aiosock.SSLSocket],
) -> None:
    one, other = secure
    file = one.makefile("wb")
    one.close()
    await file.write(b"last words")
    await file.close()
    async with other.makefile("rb") as reader:
        assert await reader.read() == b"last words"


async def test_a_cut_connection_is_no_end_of_a_file(
    secure: tuple[aiosock.SSLSocket, aiosock.SSLSocket],
) -> None:
    one, other = secure
    async with other.makefile("rb") as reader:
        await one.sendall(b"half a line")
        one.shutdown(_stdlib.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            await reader.readline()
        assert await reader.read1() == b"half a line"


async def test_tls_does_not_start_over_an_open_file(pair: Pair) -> None:
    """What it has read ahead, or has not sent, would be lost."""
    one, _ = pair
    async with one.makefile("rb"):
        with pytest.raises(ValueError, match="^a file of this socket is open"):
            await one.start_tls(ssl.create_default_context(), server_hostname="localhost")
    assert one.fileno() >= 0


async def test_a_reader_of_many_lines_gives_way(pair: Pair) -> None:
    one, other = pair
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for mode in ("rb", "r"):
        await one.sendall(b"x\n" * 20_000)
        async with other.makefile(mode) as file:
            await file.readline()
            before = turns
            for _ in range(19_000):
                await file.readline()
            assert turns - before >= 100
            assert len(await file.read(1998)) == 1998
    counting.cancel()


# --- corners ---------------------------------------------------------------------------------


async def test_a_size_of_none_is_none(pair: Pair) -> None:
    one, other = pair
    await one.sendall(b"a\nb\n")
    one.close()
    async with other.makefile("rb") as file:
        assert await file.readline(None) == b"a\n"
        assert await file.read(None) == b"b\n"


async def test_a_raw_file_fills_a_buffer_as_far_as_there_is_something(pair: Pair) -> None:
    one, other = pair
    await one.sendall(b"abc")
    buffer = bytearray(5)
    async with other.makefile("rb", buffering=0) as file:
        assert await file.readinto1(buffer) == 3
    assert buffer == b"abc\0\0"


async def test_a_non_blocking_write_of_which_the_rest_has_room_is_no_error(pair: Pair) -> None:
    one, other = pair
    one.settimeout(0)
    with pytest.raises(BlockingIOError) as full:
        await one.sendall(bytes(2**24))
    room: int = full.value.bytes_sent  # type: ignore[attr-defined]  # ours, as documented
    got = 0
    while got < room:
        got += len(await other.recv(2**16))
    async with one.makefile("wb", buffering=2**20) as file:
        size = 2**20 + room // 2  # more than the buffer; and what is not sent, less
        assert await file.write(bytes(size)) == size
        one.settimeout(None)
        taking = asyncio.create_task(exactly_so_many(other, size))
        await file.flush()
        assert await taking == size


async def exactly_so_many(sock: Any, size: int) -> int:
    got = 0
    while got < size:
        got += len(await sock.recv(2**16))
    return got


async def test_what_came_before_a_reset_is_read_first(net: Face) -> None:
    one, other = await net.tcp_pair()
    file = other.makefile("rb")
    await one.sendall(b"line\nand half")
    one.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    assert await file.readline() == b"line\n"
    with pytest.raises(ConnectionResetError):
        await file.readline()
    left = await file.read1(100)
    assert left == (b"" if net.blocks else b"and half")  # the stdlib's file has lost it
    await file.close()
