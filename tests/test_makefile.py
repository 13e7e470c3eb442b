"""Files made of blocking sockets: the stdlib's own, on the stdlib's socket and on ours.

`makefile` is inherited; what it needs of a socket (`recv_into`, `send`, the timeout, the count
of open files) is ours.  One text, two modules.
"""

import contextlib
import io
import os
import socket as _stdlib
from collections.abc import Iterator
from typing import Any

import pytest

import aiosock_sync

Pair = tuple[Any, Any]


@pytest.fixture(params=[_stdlib, aiosock_sync], ids=["stdlib", "sync"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def pair(module: Any) -> Iterator[Pair]:
    one, other = module.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize(
    ("mode", "buffering", "kind"),
    [
        ("r", None, io.TextIOWrapper),
        ("w", None, io.TextIOWrapper),
        ("rw", None, io.TextIOWrapper),
        ("rb", None, io.BufferedReader),
        ("b", None, io.BufferedReader),
        ("wb", None, io.BufferedWriter),
        ("rwb", None, io.BufferedRWPair),
        ("rb", 0, _stdlib.SocketIO),
        ("wb", 0, _stdlib.SocketIO),
    ],
)
def test_the_mode_says_what_kind_of_file_it_is(
    mode: str, buffering: int | None, kind: type, pair: Pair
) -> None:
    with pair[0].makefile(mode, buffering) as file:
        assert type(file) is kind


def test_wrong_modes_are_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"^invalid mode 'rb\+' \(only r, w, b allowed\)$"):
        pair[0].makefile("rb+")
    with pytest.raises(ValueError, match="^unbuffered streams must be binary$"):
        pair[0].makefile("r", 0)


def test_lines_go_through(pair: Pair) -> None:
    one, other = pair
    with one.makefile("w", encoding="utf-8", newline="\n") as writer:
        writer.write("grün\nblau\n")
    one.shutdown(_stdlib.SHUT_WR)
    with other.makefile("r", encoding="utf-8") as reader:
        assert list(reader) == ["grün\n", "blau\n"]


def test_both_ways_in_one_binary_file(pair: Pair) -> None:
    one, other = pair
    with one.makefile("rwb") as file:
        file.write(b"hello\n")
        file.flush()
        assert other.recv(100) == b"hello\n"
        other.sendall(b"abc" * 20_000 + b"\n")
        assert file.readline() == b"abc" * 20_000 + b"\n"


def test_the_connection_lives_as_long_as_a_file(pair: Pair) -> None:
    one, other = pair
    file = one.makefile("rb")
    one.close()
    assert one.fileno() >= 0
    assert "[closed]" in repr(one)
    other.sendall(b"still here")
    assert file.read(10) == b"still here"
    file.close()
    assert one.fileno() == -1
    assert other.recv(1) == b""


def test_a_file_that_closes_leaves_the_socket_open(pair: Pair) -> None:
    one, other = pair
    with one.makefile("wb") as file:
        file.write(b"flushed")
    assert other.recv(100) == b"flushed"
    one.sendall(b"and on")
    assert other.recv(100) == b"and on"


def test_a_detached_socket_leaves_its_files_without_a_descriptor(pair: Pair) -> None:
    file = pair[0].makefile("rb", 0)
    os.close(pair[0].detach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(1)
    file.close()


def test_a_file_that_timed_out_cannot_be_read_any_more(pair: Pair) -> None:
    one, other = pair
    one.settimeout(0.01)
    with one.makefile("rb") as file:
        other.sendall(b"half a line")
        with pytest.raises(TimeoutError, match="^timed out$"):
            file.readline()
        with pytest.raises(OSError, match="^cannot read from timed out object$"):
            file.readline()


def test_a_non_blocking_socket_gives_what_there_is(pair: Pair) -> None:
    one, other = pair
    one.setblocking(False)
    with one.makefile("rb") as file:
        assert file.read() is None
        assert file.readline() == b""
    with one.makefile("rb", 0) as raw:
        assert raw.readinto(bytearray(10)) is None
    with one.makefile("wb", 0) as raw:
        while raw.write(bytes(2**16)) is not None:
            pass
    writer = one.makefile("wb")
    with pytest.raises(BlockingIOError, match="^.Errno 11. write could not complete") as caught:
        writer.write(bytes(io.DEFAULT_BUFFER_SIZE * 2))
    assert caught.value.characters_written > 0
    other.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            other.recv(2**20)
    writer.close()


def test_a_closed_file_says_so(pair: Pair) -> None:
    file = pair[0].makefile("rb", 0)
    file.close()
    with pytest.raises(ValueError, match="^I/O operation on closed file.$"):
        file.read(1)
    assert (file.name, file.mode) == (-1, "rb")


def test_a_file_of_a_closed_socket_can_be_made_but_not_read(pair: Pair) -> None:
    pair[0].close()
    with (
        pair[0].makefile("rb") as file,
        pytest.raises(OSError, match="Bad file descriptor"),
    ):
        file.read(1)
