"""The faces of one assertion text: the stdlib's socket and ours, all with ``await``.

A Face has the module's names.  What aiosock awaits is awaited on every face: the calls of
the two that block, the stdlib's and aiosock_sync's, run in threads, so that a test may
start one and go on.
"""

import asyncio
import os
import socket as _stdlib
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import aiosock
import aiosock_sync

LIMIT = 5.0  # seconds until a test gives a hanging call up

METHODS = frozenset(
    "accept bind connect connect_ex recv recv_into recvfrom recvfrom_into recvmsg "
    "recvmsg_into recv_many send sendall sendto sendmsg sendmsg_afalg sendfile send_many".split()
)
WAITS = frozenset(["wait_readable", "wait_writable"])
FUNCTIONS = frozenset(
    "getaddrinfo getnameinfo gethostbyname gethostbyname_ex gethostbyaddr getfqdn "
    "getprotobyname getservbyname getservbyport create_connection create_server "
    "send_fds recv_fds".split()
)


FILE_CALLS = frozenset(
    "read read1 readall readinto readinto1 readline readlines peek write writelines flush "
    "close".split()
)


class ThreadedFile:
    """A blocking file whose waiting calls are awaited; all else is its own."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.file, name)
        return awaited(found) if name in FILE_CALLS else found

    def __aiter__(self) -> "ThreadedFile":
        return self

    async def __anext__(self) -> Any:
        line = await asyncio.to_thread(next, self.file, None)
        if line is None:
            raise StopAsyncIteration
        return line

    async def __aenter__(self) -> "ThreadedFile":
        self.file.__enter__()
        return self

    async def __aexit__(self, *args: object) -> None:
        await asyncio.to_thread(self.file.__exit__, *args)


class Threaded:
    """A blocking socket whose waiting calls are awaited; all else is its own."""

    def __init__(self, sock: _stdlib.socket) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.sock, name)
        return awaited(found) if name in METHODS | WAITS else found

    def __repr__(self) -> str:
        return repr(self.sock)

    def dup(self) -> "Threaded":
        return Threaded(self.sock.dup())

    def makefile(self, *args: Any, **kwargs: Any) -> ThreadedFile:
        return ThreadedFile(self.sock.makefile(*args, **kwargs))

    def __enter__(self) -> "Threaded":
        self.sock.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.sock.__exit__(*args)


def wrapped(value: Any) -> Any:
    if isinstance(value, _stdlib.socket):
        return Threaded(value)
    return tuple(map(wrapped, value)) if type(value) is tuple else value


def bare(value: Any) -> Any:
    return value.sock if isinstance(value, Threaded) else value


def awaited(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    def outcome(*args: Any, **kwargs: Any) -> tuple[Any, Exception | None]:
        try:
            return function(*args, **kwargs), None
        except Exception as error:  # a TimeoutError would arrive as another, without attributes
            return None, error

    async def call(*args: Any, **kwargs: Any) -> Any:
        result, error = await asyncio.to_thread(outcome, *map(bare, args), **kwargs)
        try:
            if error is not None:
                raise error
        finally:
            del error  # which knows this frame
        return wrapped(result)

    return call


class Face:
    """The names of `socket` on one of the faces; sockets made through it are remembered."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.is_stdlib = module is _stdlib
        self.blocks = module is not aiosock
        self.made: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if self.blocks and name in FUNCTIONS:
            return awaited(found)
        return found

    def __repr__(self) -> str:
        return self.name

    def keep(self, sock: Any) -> Any:
        """Have the socket closed at the end of the test; the socket itself."""
        self.made.append(sock)
        return sock

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        sock = self.module.socket(*args, **kwargs)
        return self.keep(Threaded(sock) if self.blocks else sock)

    def socketpair(self, *args: Any) -> tuple[Any, Any]:
        one, other = wrapped(self.module.socketpair(*args))
        return self.keep(one), self.keep(other)

    def fromfd(self, *args: Any) -> Any:
        return self.keep(wrapped(self.module.fromfd(*args)))

    async def listener(self, family: int = _stdlib.AF_INET, address: Any = None) -> Any:
        """A listening socket on a free loopback port."""
        host = "127.0.0.1" if family == _stdlib.AF_INET else "::1"
        sock = self.socket(family)
        await sock.bind(address or (host, 0))
        sock.listen()
        return sock

    async def tcp_pair(self, family: int = _stdlib.AF_INET) -> tuple[Any, Any]:
        """Two connected TCP sockets."""
        listener = await self.listener(family)
        client = self.socket(family)
        await client.connect(listener.getsockname())
        server, _ = await listener.accept()
        listener.close()
        return client, self.keep(server)

    @contextmanager
    def closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            while self.made:
                self.made.pop().close()


STDLIB = Face("stdlib", _stdlib)
SYNC = Face("sync", aiosock_sync)
AIOSOCK = Face("aiosock", aiosock)


def open_descriptors(*, queues: bool = False) -> int:
    """How many descriptors are open, not counting the event queues of loops."""
    numbers = os.listdir("/proc/self/fd")
    if queues:
        return len(numbers) - 1  # but for the one with which we look
    return sum(is_no_queue(number) for number in numbers)


def is_no_queue(number: str) -> bool:
    with suppress(FileNotFoundError):  # the one with which we look
        return "eventpoll" not in os.readlink(f"/proc/self/fd/{number}")
    return False


def queue_of(listener: Any) -> int:
    """The length that the kernel allows it: tcpi_sacked of its TCP_INFO."""
    info = listener.getsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, 28)[0])


def failure(kind: type[OSError], number: int) -> tuple[type[OSError], int, str]:
    return kind, number, os.strerror(number)


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The names of the stdlib's methods as they are called from now on."""
    calls: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(_stdlib.socket, name)

        def call(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        return call

    for name in names:
        monkeypatch.setattr(_stdlib.socket, name, counted(name), raising=False)
    return calls
