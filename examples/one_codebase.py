"""One client for both worlds: written once with await, offered to blocking code as well.

    python examples/one_codebase.py

`Store` speaks a protocol of lines: a line for a command, a line for its answer.  Its async
methods are all there is of it.  `blocking` makes the twin of each, which has the same
arguments and, without await, the same result; type checkers know both.
"""

import time
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from functools import wraps
from threading import Thread
from typing import Any, ParamSpec, TypeVar

import aiosock
import aiosock_sync

P = ParamSpec("P")
T = TypeVar("T")


def blocking(async_function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The blocking twin of an async function or method."""

    @wraps(async_function)
    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        return aiosock_sync.call(async_function, *args, **kwargs)

    return twin


class Store:
    def __init__(self, sock: aiosock.socket) -> None:
        self._sock, self._received = sock, bytearray()

    async def set(self, key: str, value: str) -> None:
        await self._ask(f"SET {key} {value}")

    async def get(self, key: str) -> str | None:
        kind, _, value = (await self._ask(f"GET {key}")).partition(" ")
        return value if kind == "VALUE" else None

    async def _ask(self, command: str) -> str:
        await self._sock.sendall(f"{command}\n".encode())
        while b"\n" not in self._received:
            data = await self._sock.recv(4096)
            if not data:
                raise ConnectionError("the store has hung up")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:  # never waits: it serves both worlds as it is
        self._sock.close()

    set_sync, get_sync = blocking(set), blocking(get)


async def open_store(address: tuple[str, int]) -> Store:
    return Store(await aiosock.create_connection(address))


open_store_sync = blocking(open_store)


async def with_await(address: tuple[str, int]) -> None:
    with closing(await open_store(address)) as store:
        await store.set("colour", "deep blue")
        print("async: colour is", await store.get("colour"))


def without_await(address: tuple[str, int]) -> None:
    with closing(open_store_sync(address)) as store:
        store.set_sync("shape", "round")
        print("blocking: shape is", store.get_sync("shape"))
        try:
            print("blocking: size is", value_of("size", store, seconds=0.2))
        except TimeoutError as error:  # the answer may be on its way: close the store now
            print("blocking: size", error)


def value_of(key: str, store: Store, seconds: float) -> str:
    """Ask until somebody has set it; one deadline for all the calls together."""
    with aiosock_sync.fail_after(seconds):
        while (value := store.get_sync(key)) is None:
            time.sleep(0.01)
        return value


def serve(server: aiosock_sync.socket) -> None:
    """A store: one client after the other, until the server's socket is closed."""
    values: dict[str, str] = {}
    while True:
        try:
            conn, _ = server.accept()
        except OSError:  # closed, which wakes whoever waits for it
            return
        with conn, conn.makefile() as lines, suppress(ConnectionError):
            for line in lines:
                conn.sendall(f"{answer(line.rstrip(), values)}\n".encode())


def answer(command: str, values: dict[str, str]) -> str:
    match command.split(" ", 2):
        case ["SET", key, value]:
            values[key] = value
        case ["GET", key] if key in values:
            return f"VALUE {values[key]}"
    return "DONE"


def main() -> None:
    with aiosock_sync.create_server(("127.0.0.1", 0)) as server:
        serving = Thread(target=serve, args=(server,))
        serving.start()
        aiosock.run(with_await(server.getsockname()))
        without_await(server.getsockname())
    serving.join()


if __name__ == "__main__":
    main()
