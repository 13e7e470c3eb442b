"""Makes the operations that wait for one socket, each whole and in its turn.

Knows what a poller tells; knows nothing of addresses, bytes or what an operation does.
The whole engine is one sentence: *try; if it would block, wait for the direction that can
help; try again.*  It stands once, in `Direction.complete`.

The event only wakes.  The system call is made by the task that awaits, with no
suspension between the call and the return: a cancelled task has either taken nothing
or is not cancelled.  A loop's own ``sock_recv`` calls in the callback and parks the
result in a future, where a cancellation loses it.

Readiness is remembered.  A stream that gave less than was asked for is empty; the
next read waits at once, and the attempt that would have failed is saved.

One operation at a time waits for an event, and holds the place of its direction until it
is over; others stand in line for that place.  That makes one `sendall` whole against
another without a lock.  The task that waits is kept alive by the line and keeps its
socket alive; nothing here refers to the socket's public object, so an idle one closes
when its last name goes.

One socket may be used from loops of several threads.  Each loop has a line of its own;
in the order across loops the kernel decides, as between threads.

Closing is: take off every loop, close, wake.  Whoever waited tries once more, and the
closed socket tells him so.
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
from math import inf
from threading import get_ident
from typing import Any, Final, TypeVar

from ._advice import CLOSED, explain, noted
from ._deadline import NOW, time_left, timed_out
from ._poller import READ, WRITE, Event, Poller, Turn, Waiter, poller_of, wake

__all__ = [
    "BUDGET",
    "Direction",
    "Readiness",
    "Stateful",
    "StillReady",
    "adopting",
    "bad_descriptor",
    "running_loop",
    "vet",
]

T = TypeVar("T")
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


class StillReady(BlockingIOError):  # noqa: N818  # a turn given up, no error
    """Raised by an attempt that could go on at once, but lets others have a turn before."""


class Line(Waiter):
    """Who waits on one loop for one direction of one socket.

    The poller holds the line, and so whoever waits in it; the line holds no socket.
    """

    __slots__ = (
        "_alarm",
        "_deadline",
        "_poller",
        "_rings_at",
        "busy",
        "fd",
        "loop",
        "queue",
        "turn",
        "watched",
    )

    direction: int

    def __init__(self, fd: int, poller: Poller) -> None:
        super().__init__(poller.loop)
        self.fd, self.loop = fd, poller.loop
        self.turn, self._poller = poller.turn, poller
        self.busy = False  # somebody holds the place
        self.queue: list[asyncio.Future[bool]] = []
        self.watched = False
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = self._deadline = inf

    def watch(self) -> None:
        """Have the loop tell of events."""
        self._poller.watch(self.fd, self.direction, self)
        self.watched = True

    def forget(self) -> None:
        """No more events: before the descriptor closes, and from any thread."""
        self.drained = False
        if self.watched:
            self.watched = False
            self._poller.forget(self.fd, self.direction)

    # --- time -----------------------------------------------------------------------

    def until(self, deadline: float) -> Event:
        """To be awaited: an event, or the deadline.

        The timer is kept, like the registration.  When it rings too early for the one who
        waits by then, it is set again: thousands of waits that end in time cost no timer.
        """
        self._deadline = deadline
        if deadline < self._rings_at:
            self._set_alarm()
        return self.event

    def _set_alarm(self) -> None:
        self.silence()
        self._rings_at = self._deadline
        self._alarm = self._call_later(time_left(self._deadline), self._ring)

    def _ring(self) -> None:
        self._alarm, self._rings_at = None, inf
        if self.is_awaited and time_left(self._deadline):
            self._set_alarm()
        else:
            self.wake()

    def silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._rings_at = None, inf

    def _call_later(self, delay: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        assert self.loop is not None
        return self.loop.call_later(delay, act)

    # --- the line -------------------------------------------------------------------

    async def stand(self, deadline: float | None) -> None:
        """Await the place, and hold it."""
        assert self.loop is not None
        turn: asyncio.Future[bool] = self.loop.create_future()
        self.queue.append(turn)
        alarm = None
        if deadline is not None:
            alarm = self.loop.call_later(time_left(deadline), _be_late, turn, deadline)
        try:
            if not await turn:
                raise timed_out()
        except BaseException:
            if turn in self.queue:
                self.queue.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.result():
                self.hand_on()
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def hand_on(self) -> None:
        """The place is free: it belongs to the next in line."""
        while self.queue and not self.is_gone():
            turn = self.queue.pop(0)
            if not turn.done():
                turn.set_result(True)
                return
        self.busy = False

    def nudge(self) -> None:
        """Let whoever waits look again, for a reason of which no event tells."""
        self.drained = False
        if self.busy and self.loop is not None:
            self.loop.call_soon(self.wake)

    def evict(self) -> None:
        """Everybody looks again, and finds the socket closed."""
        self.silence()
        self.nudge()
        evicted, self.queue = self.queue, []
        for turn in evicted:
            _answer(turn, True)

    # --- the loop -------------------------------------------------------------------

    def doubt(self) -> None:
        super().doubt()
        self.silence()

    def lose_loop(self) -> None:
        super().lose_loop()
        self.watched = False
        self.silence()
        self.queue = []

    def is_gone(self) -> bool:
        return self.loop is None or self.loop.is_closed()

    def do(self, act: Callable[[], None]) -> None:
        """Act on the line from any thread, but within the thread that runs its loop."""
        if self.turn.thread == get_ident() or self.loop is _get_running_loop():
            act()
            return
        with suppress(RuntimeError):  # closed meanwhile: it let go of everything itself
            self.loop.call_soon_threadsafe(act)


class _ReadLine(Line):
    __slots__ = ()
    direction = READ


class _WriteLine(Line):
    __slots__ = ()
    direction = WRITE


class _Pause(Event):
    """Awaited, it is over after a while."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        alarm = self[0].get_loop().call_later(PAUSE, wake, self[0])
        try:
            yield from super().__await__()
        finally:
            alarm.cancel()


class _PauseLine(Line):
    """Where the kernel has no readiness to report: try again after a pause.

    A full backlog or receive queue of AF_UNIX (poll() says writable all the time), the
    error queue, urgent data.
    """

    __slots__ = ()
    direction = READ  # or WRITE: it serves both

    def renew(self) -> None:
        super().renew()
        self.event = _Pause([self.future])

    def watch(self) -> None:
        self.watched = True

    def forget(self) -> None: ...


class _Signpost(Line):
    """In the place of a line: the way to one has to be asked for."""

    __slots__ = ()
    direction = READ  # or WRITE: nobody knows

    def __init__(self, busy: bool) -> None:
        self.busy, self.drained, self.remembers, self.watched = busy, False, False, False
        self.queue, self.turn = [], Turn()


_NOWHERE: Final = _Signpost(busy=False)  # nobody has waited yet
_CROSSROADS: Final = _Signpost(busy=True)  # loops of several threads have a line each


class Direction:
    """One direction of one socket: it completes operations, one after the other."""

    __slots__ = ("_kind", "_lines", "_sock", "ending", "instead", "line", "spent")

    def __init__(self, sock: _stdlib.socket, kind: type[Line], spent: list[int]) -> None:
        self._sock = sock  # lives until no loop knows its number any more
        self._kind = kind
        self.line: Line = _NOWHERE
        self._lines: tuple[Line, ...] = ()
        self.spent = spent  # by both directions since one of them waited
        self.instead: Instead | None = None  # what to try after a put back
        self.ending = False  # nobody is to wait any more

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
            return self._at_once(attempt, args)
        line, spent, held = self.line, self.spent, False
        try:
            if line.busy or spent[0] >= BUDGET:
                line, held = await self._turn(deadline, attempt, args), True
                if self.instead is not None:
                    attempt, args = self.instead(attempt, args)
            look = held or not (asked and line.drained)
            while True:
                if look:
                    try:
                        result = attempt(*args)
                        break
                    except BlockingIOError as refusal:
                        again = type(refusal) is StillReady
                # `look` is asked again for what the compilers of Python 3.12 and 3.13 make of it:
                # behind an ``except`` that nothing else leads to, a signal handler could raise
                # where no clause of ours would hear of it.
                if look and deadline is not None and not time_left(deadline):
                    raise timed_out()
                if not held:
                    if line.turn.thread != get_ident() or not line.watched:
                        line = self._line_here()
                    line.busy = held = True
                if look and again:
                    line.nudge()  # as no event will tell
                look = True
                # What awaiting the future does, but for the question whether it is done.
                line.future._asyncio_future_blocking = True
                await (line.event if deadline is None else line.until(deadline))
                if self.instead is not None:
                    attempt, args = self.instead(attempt, args)
        except BaseException as error:
            line.drained = False
            if held:
                try:
                    line.renew()
                finally:  # no memory, or a signal handler: the place is free all the same
                    if line.queue:
                        line.hand_on()
                    else:
                        line.busy = False
            if isinstance(attempt, Stateful):
                attempt.stopped(error)
            explain(error, self._sock, attempt, args, held)
            raise
        if held:
            spent[0] = 0
            if line.queue:
                line.hand_on()
            else:
                line.busy = False
        else:
            spent[0] += 1
        # Of another thread's line an event may just have gone by, and bytes that were put back
        # say nothing of the kernel's.
        if (
            asked
            and line.remembers
            and self.instead is None
            and (held or line.turn.thread == get_ident())
        ):
            line.drained = 0 < (result if type(result) is int else len(result)) < asked  # type: ignore[operator,arg-type]  # asked is 0 unless it is bytes or a count
        return result

    def _at_once(self, attempt: Callable[..., T], args: Args) -> T:
        """The result of the only attempt.  It comes between no pieces of an operation that waits.

        What there is to receive is anybody's, but a sender may have sent a part.
        """
        try:
            line = self.line
            if line.busy and line.direction == WRITE and not line.is_gone():
                vet(attempt, args)
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return attempt(*args)
        except BaseException as error:
            if isinstance(attempt, Stateful):
                attempt.stopped(error)
            explain(error, self._sock, attempt, args, waited=False)
            raise

    async def next_piece(
        self, size: int, attempt: Callable[[int, int], bytes], flags: int
    ) -> bytes:
        """At most `size` bytes of a stream, with no deadline: `complete` where little happens.

        Nobody else waits, the last piece emptied the stream, the loop is the one it was.
        A peer that talks and listens in turn makes this of nearly every receive, and the
        course of `complete` without what that asks and keeps takes 5 % off a whole echo.
        Whatever else is the case, or comes up, is left to `complete`.
        """
        line = self.line
        if line.drained and line.watched and not line.busy and line.turn.thread == get_ident():
            line.busy = True
            try:
                line.future._asyncio_future_blocking = True
                await line.event
                if self.instead is not None:
                    raise StillReady
                data = attempt(size, flags)
            except BaseException as error:
                line.drained = False
                try:
                    line.renew()
                finally:
                    line.hand_on()
                if not isinstance(error, BlockingIOError):
                    explain(error, self._sock, attempt, (), waited=True)
                    raise
            else:
                self.spent[0] = 0
                if line.queue:
                    line.hand_on()
                else:
                    line.busy = False
                if line.remembers:
                    line.drained = 0 < len(data) < size
                return data
        return await self.complete(None, size, attempt, size, flags)

    async def _turn(self, deadline: float | None, attempt: Callable[..., Any], args: Args) -> Line:
        """The line of this loop, with its place held; other tasks have had a turn."""
        line = self._line_here()
        if line.busy:
            vet(attempt, args)
            await line.stand(deadline)
        try:
            line.busy = True
            if self.spent[0] >= BUDGET:
                self.spent[0] = 0
                await _GIVE_WAY
        except BaseException:
            line.hand_on()
            raise
        return line

    def put_back(self, instead: Instead) -> None:
        """Something was taken too much: attempts from now on are what `instead` makes of them."""
        if self._sock.fileno() >= 0:  # of a closed socket nobody takes anything
            self.instead = instead
        for line in self.lines():
            line.do(line.nudge)

    def _loop_here(self) -> asyncio.AbstractEventLoop:
        """Where an operation waits that has to."""
        return running_loop()

    def _line_here(self) -> Line:
        """The line of the loop that runs now."""
        loop = self._loop_here()
        with adopting:
            if self.ending or self._sock.fileno() < 0:  # by another thread, just now
                raise bad_descriptor()
            lines = self.lines()
            line = next((line for line in lines if line.loop is loop), None)
            if line is None:
                line = self._kind(self._sock.fileno(), poller_of(loop))
                lines.append(line)
            self._lines = tuple(lines)
            self.line = line if len(lines) == 1 else _CROSSROADS
            if not line.watched:
                line.watch()
        return line

    def lines(self) -> list[Line]:
        """Those that a loop knows."""
        return [line for line in self._lines if not line.is_gone()]

    def __del__(self) -> None:
        for line in self.lines() if getattr(self, "_lines", ()) else ():  # none if it is half made
            line.forget()
            line.do(line.silence)


# What Python says was never awaited, of those that are handed out as they are.
Direction.next_piece.__qualname__ = "socket.recv"
Direction.complete.__qualname__ = "socket operation"


class Readiness:
    """The directions of one socket, and the end of them all."""

    __slots__ = ("_errands", "_pausing", "_sock", "_spent", "reading", "writing")

    direction: type[Direction] = Direction

    def __init__(self, sock: _stdlib.socket) -> None:
        self._sock = sock
        self._spent = [0]
        self.reading = self.direction(sock, _ReadLine, self._spent)
        self.writing = self.direction(sock, _WriteLine, self._spent)
        self._pausing: Direction | None = None
        self._errands: set[asyncio.Future[Any]] | None = None

    @property
    def pausing(self) -> Direction:
        if self._pausing is None:
            self._pausing = self.direction(self._sock, _PauseLine, self._spent)
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
            while not task.done():
                left = time_left(deadline) if deadline else None
                if left == 0:
                    raise timed_out()
                await asyncio.wait([task], timeout=left)
            if task.cancelled():
                raise noted(bad_descriptor(), CLOSED)
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

    def end(self, end: Callable[[], T]) -> T:
        """Close the socket, or detach it: off every loop before, and everybody wakes after."""
        for task in tuple(self._errands or ()):
            with suppress(RuntimeError):  # its loop has closed
                task.get_loop().call_soon_threadsafe(task.cancel)
        with adopting:
            for direction in self._directions():
                direction.ending = True
            lines = self._lines()
        for line in lines:
            line.forget()
        try:
            return end()
        finally:
            for line in lines:
                line.do(line.evict)

    def _directions(self) -> list[Direction]:
        return [d for d in (self.reading, self.writing, self._pausing) if d is not None]

    def _lines(self) -> list[Line]:
        known = [direction for direction in self._directions() if direction._lines]
        return [line for direction in known for line in direction.lines()]


class _GiveWay:
    def __await__(self) -> Generator[None, None, None]:
        yield


_GIVE_WAY: Final = _GiveWay()
# Reentrant, as a finalizer or a signal handler may close a socket while it is held; and no
# fork happens while another thread holds it: in the child nobody would release it.
adopting: Final = threading.RLock()
os.register_at_fork(
    before=adopting.acquire,
    after_in_parent=adopting.release,
    after_in_child=adopting.release,
)
_no_descriptor: Final = _stdlib.socket.__new__(_stdlib.socket)


def _answer(turn: asyncio.Future[bool], answer: bool) -> None:
    if not turn.done():
        turn.set_result(answer)


def _be_late(turn: asyncio.Future[bool], deadline: float) -> None:
    """No turn came in time.  A loop that counts milliseconds may ring a part of one early."""
    if left := time_left(deadline):
        turn.get_loop().call_later(left, _be_late, turn, deadline)
    else:
        _answer(turn, False)


def vet(attempt: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Refuse now what the call would refuse when its turn comes.

    The same method of a socket without a descriptor gets no further than its arguments.
    """
    attempt, args = getattr(attempt, "first_call", (attempt, args))
    if isinstance(attempt, types.BuiltinMethodType):
        with suppress(OSError):
            getattr(_no_descriptor, attempt.__name__)(*args)
