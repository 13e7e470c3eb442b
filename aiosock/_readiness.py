"""Wakes the operations that wait for one socket.

Knows descriptors and event loops; knows nothing of addresses, bytes or what an
operation does.  The whole engine is one sentence: *try; if it would block, wait for
the direction that can help; try again.*  It stands once, in `Direction.complete`.

The callback only wakes.  The system call is made by the task that awaits, with no
suspension between the call and the return: a cancelled task has either taken nothing
or is not cancelled.  A loop's own ``sock_recv`` calls in the callback and parks the
result in a future, where a cancellation loses it.

Registrations are kept.  ``add_reader`` costs two system calls and as much again in
Python; so it is done when the first operation waits and undone when an event finds
nobody waiting, or before close.  Loops report levels, so nothing is missed between.

Readiness is remembered.  A stream that gave less than was asked for is empty; the
next read waits at once, and the attempt that would have failed is saved.

The loop's hold on our callback *is* the registration.  uvloop drops a descriptor for
good at an event with POLLERR (an ICMP error, a reset, an entry in the error queue),
after it called back once and without a word.  So the callback belongs to an object
that only the loop holds, and whose end marks the line as unregistered.

Waiters stand in line, and only the first may try.  A place is kept until the whole
operation is over; that makes one `sendall` whole against another without a lock.
The task that waits is kept alive by the line and keeps its socket alive; nothing here
refers to the socket's public object, so an idle one closes when its last name goes.

One socket may be used from loops of several threads.  Each loop has a line of its own;
in the order across loops the kernel decides, as between threads.

Closing is: take off the loop, evict, close; an empty line is the mark by which whoever
stood in it knows.  A descriptor closed while a loop
still lists it puts the next socket with that number to sleep (asyncio) or aborts the
process (uvloop).  If a loop runs in another thread, the number is kept from reuse
until that thread has let go.
"""

import asyncio
import errno
import os
import socket as _stdlib
import threading
import types
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from ._deadline import NOW, time_left, timed_out

__all__ = ["Direction", "Readiness", "Stateful", "bad_descriptor", "running_loop", "vet"]

T = TypeVar("T")
Waiter = asyncio.Future[None]
Args = tuple[Any, ...]
Instead = Callable[[Callable[..., Any], Args], tuple[Callable[..., Any], Args]]

BUDGET: Final = 64  # operations that one direction completes in a row without a wait
PAUSE: Final = 0.005  # seconds between attempts where the kernel cannot tell when


def bad_descriptor() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def running_loop() -> asyncio.AbstractEventLoop:
    loop = _get_running_loop()
    if loop is None:
        raise RuntimeError(
            "no running event loop: an aiosock operation that has to wait must be awaited "
            "in a task of an asyncio loop; start one with aiosock.run() or asyncio.run()"
        )
    return loop


class Stateful:
    """An attempt that keeps progress of its own between its calls."""

    __slots__ = ()

    first_call: tuple[Callable[..., Any], tuple[Any, ...]]

    def __call__(self) -> Any:
        raise NotImplementedError

    def stopped(self, error: BaseException) -> None:
        """It will not be called again: `error` is raised instead of its outcome."""


class Line:
    """Those who wait on one loop for one direction, in order, and what the loop was told.

    The loop holds the line, and so whoever waits in it; the line holds no socket.
    """

    __slots__ = ("_told", "drained", "fd", "loop", "new_waiter", "queue", "registered")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.adopt(None)

    def adopt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Belong to this loop from now on; whatever was before it is gone."""
        self.loop = loop
        self.queue: list[Waiter] = []
        self.drained = False
        self.new_waiter: Callable[[], Waiter] = loop.create_future if loop else _no_waiter
        self.registered = False
        self._told = False

    def alarm(self, waiter: Waiter, deadline: float) -> asyncio.TimerHandle:
        assert self.loop is not None
        return self.loop.call_later(time_left(deadline), _ring, waiter)

    def keep_going(self) -> None:
        """Whoever is first now must not wait for a loop that has let go."""
        if not self.registered:
            self.register()

    def give_up(self, waiter: Waiter | None) -> None:
        """After a failure: the next looks for himself, and nothing stays on an idle loop."""
        self.drained = False
        if waiter in self.queue:
            self.queue.remove(waiter)
        if self.queue:
            self.keep_going()
            self.nudge()
        else:
            self.unregister()

    def nudge(self) -> None:
        """Let the first look again, for a reason of which no event tells."""
        self.drained = False
        if self.queue:
            _ring(self.queue[0])

    def find_nobody(self) -> None:
        """An event for which nobody waits: it is remembered, and the loop need tell no more."""
        self.drained = False
        self.unregister()

    def register(self) -> None:
        self.unregister()  # uvloop keeps a dead registration until it is taken off
        try:
            self._add(_Registration(self).wake)
        except (NotImplementedError, AttributeError):
            raise NotImplementedError(
                f"aiosock needs an event loop with add_reader() and add_writer(), which "
                f"{type(self.loop).__name__} lacks: start one that has them, with "
                f"asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop) or aiosock.run()"
            ) from None
        self.registered = self._told = True

    def unregister(self, *kept: object) -> None:
        if self._told:
            self.registered = self._told = False
            if not self.is_gone():
                self._remove()

    def _add(self, wake: Callable[[], None]) -> None:
        raise NotImplementedError

    def _remove(self) -> None:
        raise NotImplementedError

    def evict(self, *kept: object) -> None:
        """Off the loop, and whoever waits looks again.  What is kept dies afterwards."""
        self.unregister()
        evicted, self.queue = self.queue, []
        self.drained = False
        for waiter in evicted:
            _ring(waiter)

    def is_gone(self) -> bool:
        return self.loop is None or self.loop.is_closed()

    def do(self, act: Callable[..., None], *kept: object) -> None:
        """Act on the line from any thread, but within the thread that runs its loop."""
        if self.loop is None or not self.runs_elsewhere():
            act()
            return
        with suppress(RuntimeError):  # closed meanwhile: it let go of everything itself
            self.loop.call_soon_threadsafe(act, *kept)

    def runs_elsewhere(self) -> bool:
        """Whether another thread may be inside the loop."""
        loop = self.loop
        return loop is not None and loop.is_running() and loop is not _get_running_loop()


class _Registration:
    """What a loop holds as long as it listens; when it lets go, the line knows."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def wake(self) -> None:
        """What the loop calls at each event: the first in line looks again."""
        queue = self._line.queue
        if not queue:
            self._line.find_nobody()
        elif not queue[0].done():
            queue[0].set_result(None)

    def __del__(self) -> None:
        self._line.registered = False


class _ReadLine(Line):
    __slots__ = ()

    def _add(self, wake: Callable[[], None]) -> None:
        assert self.loop is not None
        self.loop.add_reader(self.fd, wake)

    def _remove(self) -> None:
        assert self.loop is not None
        self.loop.remove_reader(self.fd)


class _WriteLine(Line):
    __slots__ = ()

    def _add(self, wake: Callable[[], None]) -> None:
        assert self.loop is not None
        self.loop.add_writer(self.fd, wake)

    def _remove(self) -> None:
        assert self.loop is not None
        self.loop.remove_writer(self.fd)


class _PauseLine(Line):
    """Where the kernel has no readiness to report: try again after a pause.

    A full backlog or receive queue of AF_UNIX (poll() says writable all the time), the
    error queue, urgent data.
    """

    __slots__ = ()

    def adopt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        super().adopt(loop)
        if loop is not None:
            self.new_waiter = partial(_restless, loop)

    def _add(self, wake: Callable[[], None]) -> None: ...

    def _remove(self) -> None: ...


class Direction:
    """One direction of one socket: it completes operations, one after the other."""

    __slots__ = ("_elsewhere", "_line", "_sock", "_spent", "instead")

    def __init__(self, sock: _stdlib.socket, line: Line, spent: list[int]) -> None:
        self._sock = sock  # lives until no loop knows its number any more
        self._line = line
        self._elsewhere: tuple[Line, ...] = ()
        self._spent = spent  # by both directions since one of them waited
        self.instead: Instead | None = None  # what to try after a put back

    async def complete(
        self, deadline: float | None, asked: int, attempt: Callable[..., T], *args: Any
    ) -> T:
        """The result of ``attempt(*args)``, made once it no longer would block.

        An attempt raises BlockingIOError to be called again when its direction is
        ready; whatever else it raises or returns is the outcome.  `asked` is how many
        bytes are wanted of a stream, 0 where the answer's size tells nothing.
        """
        if self.instead is not None:
            attempt, args = self.instead(attempt, args)
        if deadline is not None and deadline == NOW:
            return _at_once(attempt, args)
        line, waiter = self._nearest_line() if self._elsewhere else self._line, None
        first = not (line.queue or (asked and line.drained))
        try:
            if first and self._spent[0] >= BUDGET:
                self._spent[0] = 0
                await _GIVE_WAY
                first = not line.queue
                if self.instead is not None:
                    attempt, args = self.instead(attempt, args)
            while True:
                if first:
                    try:
                        result = attempt(*args)
                    except BlockingIOError:
                        pass
                    else:
                        break
                if waiter is None:
                    if not (first or asked):
                        vet(attempt, args)
                    if line.loop is not _get_running_loop() or line.loop is None:
                        line = self._line_here()
                if deadline is not None and not time_left(deadline):
                    if first or line.queue:
                        raise timed_out()
                    first = True  # it is late, but nobody has looked yet
                    continue
                if not line.registered:
                    line.register()
                fresh = line.new_waiter()
                if waiter is None:
                    line.queue.append(fresh)
                else:  # his old place again
                    line.queue[line.queue.index(waiter)] = fresh
                waiter = fresh
                if deadline is None:
                    await waiter
                else:
                    alarm = line.alarm(waiter, deadline)
                    try:
                        await waiter
                    finally:
                        alarm.cancel()
                if self.instead is not None:
                    attempt, args = self.instead(attempt, args)
                if not line.queue:
                    raise bad_descriptor()  # evicted: the socket is closed
                first = line.queue[0] is waiter
        except BaseException as error:
            if waiter is not None or not line.runs_elsewhere():
                line.give_up(waiter)
            if isinstance(attempt, Stateful):
                attempt.stopped(error)
            raise
        if waiter is None:
            self._spent[0] += 1
            return result
        self._spent[0] = 0
        del line.queue[0]
        if line.queue:
            line.keep_going()
        if asked:
            line.drained = 0 < (result if result.__class__ is int else len(result)) < asked  # type: ignore[operator,arg-type]  # asked is 0 unless it is bytes or a count
        return result

    def put_back(self, instead: Instead) -> None:
        """Something was taken too much: attempts from now on are what `instead` makes of them."""
        if self._sock.fileno() >= 0:  # of a closed socket nobody takes anything
            self.instead = instead
        for line in self.lines():
            line.do(line.nudge)

    def is_free(self) -> bool:
        """Whether an attempt may be made at once: nobody waits, and others had their turn."""
        spent, line = self._spent, self._nearest_line() if self._elsewhere else self._line
        spent[0] += 1
        return not line.queue and spent[0] < BUDGET

    def _line_here(self) -> Line:
        """The line of the loop that runs now: the first, or one beside it."""
        loop = running_loop()
        with _adopting:
            for line in self.lines():
                if line.loop is loop:
                    return line
            line = self._line if self._line.is_gone() else type(self._line)(self._line.fd)
            line.adopt(loop)
            if line is not self._line:
                live = [line for line in self._elsewhere if not line.is_gone()]
                self._elsewhere = (*live, line)
            return line

    def _nearest_line(self) -> Line:
        """The line of the loop that runs now if it has one, else the first."""
        loop = _get_running_loop()
        return next((line for line in self.lines() if line.loop is loop), self._line)

    def lines(self) -> list[Line]:
        """Those that a loop knows."""
        return [line for line in (self._line, *self._elsewhere) if not line.is_gone()]

    def __del__(self) -> None:
        for line in self.lines():
            line.do(line.unregister, self._sock)


class Readiness:
    """The directions of one socket, and the end of them all."""

    __slots__ = ("_errands", "_pausing", "_sock", "_spent", "reading", "writing")

    def __init__(self, sock: _stdlib.socket) -> None:
        self._sock = sock
        self._spent = [0]
        self.reading = Direction(sock, _ReadLine(sock.fileno()), self._spent)
        self.writing = Direction(sock, _WriteLine(sock.fileno()), self._spent)
        self._pausing: Direction | None = None
        self._errands: set[asyncio.Future[Any]] | None = None

    @property
    def pausing(self) -> Direction:
        if self._pausing is None:
            self._pausing = Direction(self._sock, _PauseLine(self._sock.fileno()), self._spent)
        self._pausing.instead = self.reading.instead
        return self._pausing

    async def errand(self, work: Coroutine[Any, Any, T], deadline: float | None) -> T:
        """The result of work done elsewhere for this socket (a name looked up).

        Over when the deadline is, or when the socket closes.
        """
        task = asyncio.ensure_future(work)
        self._errands = self._errands or set()
        self._errands.add(task)
        try:
            await asyncio.wait([task], timeout=time_left(deadline) if deadline else None)
            if not task.done():
                raise timed_out()
            if task.cancelled():
                raise bad_descriptor()
            return task.result()
        finally:
            with suppress(RuntimeError):  # its loop has closed
                task.cancel()
            self._errands.discard(task)
            del task, work  # a failed one's error knows this frame, and so the socket

    def nudge(self) -> None:
        """Let all who are first look again: what they wait for may have changed silently."""
        for line in self._lines():
            line.do(line.nudge)

    def close(self) -> None:
        afar = self._evict()
        if afar:
            number = _Number(self._sock.detach())
        else:
            self._sock.close()
        for line in afar:
            line.do(line.evict, number)

    def detach(self) -> int:
        for line in self._evict():
            line.do(line.evict)
        return self._sock.detach()

    def _evict(self) -> list[Line]:
        """Evict and take off the loop: here at once; lines of other threads are returned."""
        for task in tuple(self._errands or ()):
            with suppress(RuntimeError):  # its loop has closed
                task.get_loop().call_soon_threadsafe(task.cancel)
        afar = [line for line in self._lines() if line.runs_elsewhere()]
        for line in self._lines():
            if line not in afar:
                line.evict()
        return afar

    def _directions(self) -> list[Direction]:
        return [d for d in (self.reading, self.writing, self._pausing) if d is not None]

    def _lines(self) -> list[Line]:
        return [line for direction in self._directions() for line in direction.lines()]


class _Number:
    """A descriptor that closes when the last thread has let go of it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self._fd)


class _GiveWay:
    def __await__(self) -> Generator[None, None, None]:
        yield


_GIVE_WAY: Final = _GiveWay()
_adopting: Final = threading.Lock()
_no_descriptor: Final = _stdlib.socket.__new__(_stdlib.socket)


def _restless(loop: asyncio.AbstractEventLoop) -> Waiter:
    """A waiter who looks again after a pause."""
    waiter: Waiter = loop.create_future()
    loop.call_later(PAUSE, _ring, waiter)
    return waiter


def _no_waiter() -> Waiter:
    raise AssertionError("a line without a loop")


def _at_once(attempt: Callable[..., T], args: tuple[Any, ...]) -> T:
    try:
        return attempt(*args)
    except BaseException as error:
        if isinstance(attempt, Stateful):
            attempt.stopped(error)
        raise


def _ring(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)


def vet(attempt: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Refuse now what the call would refuse when its turn comes.

    The same method of a socket without a descriptor gets no further than its arguments.
    """
    attempt, args = getattr(attempt, "first_call", (attempt, args))
    if isinstance(attempt, types.BuiltinMethodType):
        with suppress(OSError):
            getattr(_no_descriptor, attempt.__name__)(*args)
