"""Standard input and output, which may be files, pipes or terminals, and never block the loop.

Knows descriptors, poll(2) and threads.  An event loop watches no file, and to watch a
terminal or a pipe uvloop would make it non-blocking, also for the shell and whoever else has
it.  So a thread waits, in poll(2), for the descriptor and for a bell, by which it ends.
"""

import asyncio
import os
import select
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from .words import OutputClosedError, Refusal, unwritable

__all__ = ["Input", "Output"]

T = TypeVar("T")


class _Pipe:
    """A descriptor, the thread that waits for it, and the bell that the thread hears."""

    def __init__(self, fd: int, event: int) -> None:
        self._fd, self._event = fd, event
        self._bell, self._rope = os.pipe()
        self._thread = ThreadPoolExecutor(1)

    def _in_thread(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _is_ready(self) -> bool:
        """Waits; False if the bell rings, and the descriptor is not ready."""
        poll = select.poll()
        poll.register(self._fd, self._event)
        poll.register(self._bell, select.POLLIN)
        return self._fd in dict(poll.poll())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        os.close(self._rope)
        self._thread.shutdown()
        os.close(self._bell)


class Input(_Pipe):
    """Standard input.  A cancelled read has taken nothing."""

    def __init__(self, size: int, fd: int = 0) -> None:
        super().__init__(fd, select.POLLIN)
        self._size = size
        self._reading: asyncio.Future[bytes | None] | None = None
        self._hurries = False
        self.ended = sys.stdin is None

    async def read(self) -> bytes:
        """Await some bytes; b"" at the end of the input, or after `hurry` if there are none."""
        while not self.ended:
            if self._reading is None:
                self._reading = self._in_thread(self._take)
            data = await asyncio.shield(self._reading)
            self._reading = None
            if data is not None:
                return data
            if self._hurries:
                break
        return b""

    def hurry(self) -> None:
        """What is there may still be read, and no more is waited for."""
        if not self._hurries:
            self._hurries = True
            os.write(self._rope, b"!")

    def linger(self) -> None:
        """Wait for more again."""
        if self._hurries:
            self._hurries = False
            os.read(self._bell, 1)

    def _take(self) -> bytes | None:
        """What comes; None if the bell rings and there is nothing."""
        if not self._is_ready():
            return None
        try:
            data = os.read(self._fd, self._size)
        except OSError as error:
            raise Refusal(f"standard input cannot be read: {error.strerror}") from error
        self.ended = not data
        return data


class Output(_Pipe):
    """Standard output."""

    def __init__(self, fd: int = 1) -> None:
        if sys.stdout is None:
            raise Refusal("standard output is closed: send it to a file, or to /dev/null")
        super().__init__(fd, select.POLLOUT)
        # A pipe or a terminal that is ready takes so many bytes at once, and a file any number.
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._most = sys.maxsize if is_file else select.PIPE_BUF
        self.is_terminal = os.isatty(fd)

    async def write(self, data: bytes) -> None:
        """Await that all is written, or not wanted."""
        await self._in_thread(self._put, memoryview(data))

    def _put(self, data: memoryview) -> None:
        try:
            while data and self._is_ready():
                data = data[os.write(self._fd, data[: self._most]) :]
        except BrokenPipeError:
            raise OutputClosedError from None
        except OSError as error:
            raise unwritable(error) from error
