"""Tells which sockets are ready: one queue in the kernel for each event loop.

Knows descriptors and event loops; knows nothing of sockets or of what a task does with
one.  A loop listens to our queue alone, as to one more descriptor; what the queue holds
is the poller's business.

Why not the loop's own ``add_reader`` for each socket?  It reports levels: between the
event and the step of the task that reads, asyncio polls again and reports the same event
again.  It costs a microsecond of Python an event on asyncio.  And loops differ: uvloop
drops a descriptor without a word after an ICMP error, and aborts when one is closed that
it still lists.  The queue reports edges: each change once, whoever waits or not, so that
a registration is made once in a socket's life on a loop and never touched between waits.
It may be changed from any thread.

Edges are safe because nobody waits who was not told "no" by the kernel before: the call
failed, or a stream gave less than was asked for.  The second tells nothing once the other
end is closed, since the edge may have gone by together with the data, nor at TCP's urgent
mark, where the kernel stops; from an event that speaks of an end, an error or urgent data
on, the waiter `remembers` no more.

The queue is an epoll(7), which Linux has.

The loop's hold on the queue is the queue's life.  The callback belongs to an object that
only the loop holds; when it lets go (it closes, or ends), the queue closes, and whatever
waited is let go too.
"""

import asyncio
import os
import select
import weakref
from asyncio import _set_running_loop
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

__all__ = [
    "READ",
    "WRITE",
    "Event",
    "Poller",
    "Turn",
    "Waiter",
    "poller_of",
    "serve_with",
    "set_aside",
    "wake",
]

if not hasattr(select, "epoll"):
    raise ImportError("aiosock waits by epoll(7), which this system has not: it needs Linux")

READ: Final = 1
WRITE: Final = 2
MANY: Final = 128  # events fetched at once
LOOKS: Final = range(4)  # in a row, as a turn of the loop costs as much as serving a message


def wake(future: "asyncio.Future[None]") -> None:
    """Resume the task that awaits, at once; the future stays as it is."""
    callbacks = future._callbacks
    if callbacks:
        resume, context = callbacks[0]
        future.remove_done_callback(resume)
        try:
            context.run(resume, _DONE)
        finally:
            del callbacks, resume  # as an error that the task keeps knows this frame


class Event(list["asyncio.Future[None]"]):
    """Awaited like the future in it; and awaited again, as that future is never done."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, None]: ...

    else:
        __await__ = list.__iter__  # in C, as this is the hot path


class Waiter:
    """Where one task at a time awaits an event, and is resumed within the loop's callback.

    The task awaits a plain future.  To set its result would have the loop resume the task
    in its next turn, which costs a handle, a turn, and a new future for the next wait.  So
    `wake` takes the task's own callback out of the future and calls it at once.  All else is
    the future's: a cancelled task cancels it, and a task of another loop is refused.
    """

    __slots__ = ("_loop", "drained", "event", "future", "remembers")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self.drained = False  # the kernel said that there is nothing, and no event came since
        self.remembers = True  # whether to conclude that from a short read
        if loop is not None:
            self.renew()

    def renew(self) -> None:
        """A new future, after one was cancelled or abandoned."""
        assert self._loop is not None
        self.future: asyncio.Future[None] = self._loop.create_future()
        self.event = Event([self.future])

    def wake(self) -> None:
        """Resume whoever waits.  Only a loop's callback may call this, no task."""
        self.drained = False
        wake(self.future)

    def lose_loop(self) -> None:
        """The loop is gone, and resumes nobody: let the task go."""
        for resume, _ in self.future._callbacks or ():
            self.future.remove_done_callback(resume)

    def doubt(self) -> None:
        """Events may have been lost: who comes next looks for himself."""
        self.drained = False

    @property
    def is_awaited(self) -> bool:
        return bool(self.future._callbacks)


class _NoLoop:
    """Where a future that is done already belongs."""

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: object) -> None: ...


_DONE: Final[asyncio.Future[None]] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]  # never waited for
_DONE.set_result(None)


class Turn:
    """In which thread a poller hands out events now: there its loop is the one that runs.

    It spares the tasks that it wakes the question which loop that is, and Python 3.11 a
    system call for the answer.
    """

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = 0


class Poller:
    """Which waiters a loop wakes, by descriptor and direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoll: select.epoll | None = None) -> None:
        self._epoll = epoll or select.epoll()
        self.poll = self._epoll.poll
        self.waiters: dict[int, dict[int, Waiter]] = {READ: {}, WRITE: {}}
        self._readers, self._writers = self.waiters.values()
        self.loop = loop
        self.turn = Turn()

    def watch(self, fd: int, direction: int, waiter: Waiter) -> None:
        """Wake the waiter when the descriptor becomes ready, now or later, until `forget`."""
        self.waiters[direction][fd] = waiter
        self._tell_kernel(fd)

    def forget(self, fd: int, direction: int) -> None:
        """The opposite, before the descriptor is closed.  From any thread."""
        if self.waiters[direction].pop(fd, None) is not None:
            with suppress(OSError, ValueError):  # it was closed behind our back, or the queue was
                self._tell_kernel(fd)

    def _tell_kernel(self, fd: int) -> None:
        interest = 0
        if fd in self._readers:
            interest |= _READING
        if fd in self._writers:
            interest |= _WRITING
        if not interest:
            self._epoll.unregister(fd)
            return
        try:
            self._epoll.register(fd, interest)
        except FileExistsError:
            self._epoll.modify(fd, interest)

    def dispatch(self, events: list[tuple[int, int]]) -> None:
        """Wake whoever waits for these events."""
        readers, writers = self._readers, self._writers
        callbacks = resume = None
        before, self.turn.thread = self.turn.thread, get_ident()
        try:
            for fd, event in events:
                if event == _IN:  # nearly always: as `wake` does, and a call less
                    waiter = readers.get(fd)
                    if waiter is not None:
                        waiter.drained = False
                        future = waiter.future
                        if callbacks := future._callbacks:
                            resume, context = callbacks[0]
                            future.remove_done_callback(resume)
                            context.run(resume, _DONE)
                    continue
                if event != _OUT:
                    waiter = readers.get(fd)
                    if waiter is not None:
                        if event & _ENDING:
                            waiter.remembers = False
                        waiter.wake()
                waiter = writers.get(fd)
                if waiter is not None and event & _NOT_IN:
                    wake(waiter.future)
        finally:
            self.turn.thread = before
            del callbacks, resume  # as an error that a task keeps knows this frame

    def wake_all_soon(self) -> None:
        """Have everybody look, when events were told of and may not have been heard."""
        for waiter in self._all():
            self.loop.call_soon(waiter.wake)

    def _all(self) -> list[Waiter]:
        return [waiter for waiters in self.waiters.values() for waiter in list(waiters.values())]

    def note(self, events: list[tuple[int, int]]) -> bool:
        """What events say, where whoever waits looks for himself; whether any is for a waiter."""
        noted = False
        for fd, event in events:
            waiter = self._readers.get(fd)
            if waiter is not None:
                noted, waiter.drained = True, False
                if event & _ENDING:
                    waiter.remembers = False
            elif fd in self._writers:
                noted = True
        return noted

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def end(self) -> None:
        """The loop let go."""
        self.close()
        for waiters in self.waiters.values():
            while waiters:
                waiters.popitem()[1].lose_loop()

    def doubt(self) -> None:
        """Something was interrupted, and may have taken an event with it: remember nothing."""
        for waiter in self._all():
            waiter.doubt()


class _Watch:
    """What a loop holds: its end is the poller's."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def fire(self) -> None:
        """What the loop calls when there are events."""
        poller = self._poller
        try:
            for _ in LOOKS:
                events = poller.poll(0, MANY)
                if not events:
                    return
                poller.dispatch(events)
        except BaseException:  # Ctrl-C, or a task that ends the program: others go on
            poller.wake_all_soon()
            raise

    def __del__(self) -> None:
        self._poller.end()


_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_NOT_IN: Final = ~(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI)
_ENDING: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLPRI
_READING: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
_WRITING: Final = select.EPOLLOUT | select.EPOLLET

_pollers: Final[weakref.WeakValueDictionary[int, Poller]] = weakref.WeakValueDictionary()


def poller_of(loop: asyncio.AbstractEventLoop) -> Poller:
    """The poller of a loop that runs in this thread."""
    poller = _pollers.get(id(loop))  # it holds the loop: nothing else has that id meanwhile
    if poller is None:
        poller = Poller(loop)
        try:
            loop.add_reader(poller.fileno(), _Watch(poller).fire)
        except (NotImplementedError, AttributeError):
            raise NotImplementedError(
                f"aiosock needs an event loop with add_reader(), which {type(loop).__name__} "
                f"lacks: start one that has it, with asyncio.run(main(), "
                f"loop_factory=asyncio.SelectorEventLoop) or aiosock.run()"
            ) from None
        _pollers[id(loop)] = poller
    return poller


def serve_with(poller: Poller) -> None:
    """Have this poller serve its loop, which listens to it in a way of its own."""
    _pollers[id(poller.loop)] = poller


@contextmanager
def set_aside(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """For a while no loop runs in this thread, although this one does."""
    turn = _pollers[id(loop)].turn if id(loop) in _pollers else Turn()
    before, turn.thread = turn.thread, 0
    try:
        _set_running_loop(None)
        yield
    finally:
        _set_running_loop(loop)
        turn.thread = before


def _let_parent_alone() -> None:
    """In a forked child: the queues are its parent's too, and only their numbers are its own."""
    for poller in list(_pollers.values()):
        poller.close()
    _pollers.clear()


os.register_at_fork(after_in_child=_let_parent_alone)
