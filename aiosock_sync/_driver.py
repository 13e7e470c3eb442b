"""Runs one coroutine to its end, on this thread's own event loop.

Knows loops, threads and signals; knows nothing of sockets.

An operation of the engine is stepped by hand.  Most never wait, and then no loop is
entered.  One that has to wait hands out a future; the loop turns until that is done, and
the coroutine is stepped again.  No task, no running loop: measured, `run_until_complete`
costs three times as much.  What is no operation of the engine (a name looked up in a
thread, an async function of the user) runs as a task, as under `asyncio.run`.

The loop is asyncio's selector loop: to enter and leave uvloop costs four times as much, and
uvloop swallows what a signal handler raises.  Each thread has one, made when it first has
to wait, and closed when the thread ends.  Its selector and the engine's poller are one
queue in the kernel, so that a wait is one system call.

Whatever interrupts a wait (Ctrl-C, a signal handler that raises) is thrown into the
coroutine, which takes its traces away, and comes out of the call.  It may have hit between
the kernel's telling of an event and our hearing of it, so nothing that was remembered is
believed any more.

A signal that comes between Python's last look for one and the system call interrupts
nothing: CPython's own blocking calls then sleep on.  Only the main thread runs handlers, so
there no wait is longer than `A_LOOK`.

A call made while this thread's loop turns (by a signal handler, or by an async function
that calls blocking code) waits on a loop beside it.  A loop of somebody else that runs in
this thread is set aside for the time of the call: it blocks, as any blocking call would.

A forked child closes its copy of the queue and tells the kernel nothing: the queue is its
parent's as well.
"""

import asyncio
import inspect
import logging
import os
import select
import selectors
import threading
import types
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, ParamSpec, TypeVar

from aiosock._deadline import time_left, timed_out
from aiosock._poller import Poller, serve_with, set_aside

__all__ = [
    "call",
    "fail_after",
    "is_late",
    "limited",
    "limits",
    "loop_here",
    "run",
    "run_task",
    "turn_once",
    "until",
]

P = ParamSpec("P")
T = TypeVar("T")

MANY: Final = 128  # events fetched at once
A_LOOK: Final = 1.0  # seconds until the main thread looks for signals
LONGEST: Final = 1e6  # seconds that epoll_wait(2) can count
FOR_EVER: Final = 1e9  # seconds, or thirty years: as good as no limit


class _Queue(selectors.BaseSelector):
    """A selector that shares its queue with the engine's poller."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.longest = A_LOOK if threading.current_thread() is threading.main_thread() else LONGEST
        self.keys: dict[int, selectors.SelectorKey] = {}
        self.poller: Poller

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self.epoll.register(fd, _mask(events))
        self.keys[fd] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self.keys.pop(fd)
        with suppress(OSError):  # it was closed already
            self.epoll.unregister(fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wake the engine's waiters; what is not theirs is returned."""
        keys, longest = self.keys, self.longest
        events = self.epoll.poll(longest if timeout is None else min(timeout, longest), MANY)
        self.poller.dispatch(events)
        return [(keys[fd], _events(mask) & keys[fd].events) for fd, mask in events if fd in keys]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self.keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def close(self) -> None:
        self.keys.clear()
        self.epoll.close()
        self.poller.end()

    def abandon(self) -> None:
        """Leave the queue to the process that made it; an empty one takes its place."""
        self.epoll.close()
        self.epoll = select.epoll()


def _mask(events: int) -> int:
    reading = select.EPOLLIN if events & selectors.EVENT_READ else 0
    return reading | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _events(mask: int) -> int:
    reading = selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
    return reading | (selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0)


class _Loop(asyncio.SelectorEventLoop):
    """A loop that can also be turned by hand, until one future is done."""

    # Of BaseEventLoop, the same since it exists.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _run_once: Callable[[], None]

    _run_forever_cleanup: Callable[[], None]  # since Python 3.12; before, nothing comes between

    _raised: BaseException | None

    def __init__(self, queue: _Queue) -> None:
        with _quietly():
            super().__init__(queue)
        self._poll, self._longest = queue.epoll.poll, queue.longest
        self.poller = queue.poller = Poller(self, queue.epoll)
        self._note = self.poller.note
        self._by_hand, self._raised = False, None
        serve_with(self.poller)

    def __del__(self) -> None:
        """Its driver closes it; one half made (Ctrl-C), or left by its thread, closes itself."""
        with suppress(Exception):
            self.close()

    def turn(self) -> None:
        """Wait until something happens, and see to it."""
        if self._ready:
            self._run_handles()
            return
        timers = self._scheduled  # with nothing else to do, a turn is a look at the queue
        timeout = self._longest
        if timers:
            timeout = max(0.0, min(timeout, timers[0].when() - self.time()))
        if not self._note(self._poll(timeout, MANY)):
            self._run_handles()  # a timer, or a call from another thread

    def _run_handles(self) -> None:
        self._by_hand = True
        try:
            self._run_once()
        finally:
            self._by_hand = False
        self._raise_it()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a handle raised, which asyncio only logs.

        Turned by hand, all handles are the engine's and raise nothing: a signal handler did.
        So it is with the steps of a task, and with what else is ours.
        """
        handle = context.get("handle")
        if handle is not None and (self._by_hand or _raises_nothing(handle._callback)):
            self._raised = context["exception"]
            if not self._by_hand:
                self.stop()
        else:
            super().call_exception_handler(context)

    def run_forever(self) -> None:
        before = self.is_running()
        try:
            super().run_forever()
        finally:
            if self.is_running() and not before:  # its end was interrupted, which is a function
                self._run_forever_cleanup()
        self._raise_it()

    def _raise_it(self) -> None:
        raised, self._raised = self._raised, None
        if raised is not None:
            try:
                raise raised
            finally:
                del raised  # which knows this frame


def _raises_nothing(callback: object) -> bool:
    if isinstance(getattr(callback, "__self__", None), asyncio.Task | _Loop):
        return True
    return getattr(callback, "__module__", None) in _OURS


@contextmanager
def _quietly() -> Iterator[None]:
    """Let no handler hear that a loop is made: it may be the one that needs it."""
    me = threading.get_ident()
    mute: Callable[[logging.LogRecord], bool] = lambda record: record.thread != me  # noqa: E731  # a filter is a function here
    logger = logging.getLogger("asyncio")
    logger.addFilter(mute)
    try:
        yield
    finally:
        logger.removeFilter(mute)


class _Driver:
    """A loop, and the way to go on with a coroutine on it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._queue = _Queue()
        self.loop = _Loop(self._queue)
        self.turn = self.loop.poller.turn
        self.thread = threading.get_ident()
        self.busy, self.turn.thread = False, self.thread
        self._main: asyncio.Task[Any] | None = None  # for which the loop runs
        self.outer: _Driver | None = None  # busy, and the thread's again when this one has ended

    def make_way(self) -> None:
        """For the outer one, in whose place it was."""
        _here.driver = self.outer
        self.close()

    def finish_task(self, coro: Coroutine[Any, Any, T], deadline: float | None) -> T:
        """The outcome of a coroutine run as a task; no task is left behind."""
        task = late = None
        try:
            self._main = task = self.loop.create_task(coro)
            if deadline is not None:
                late = self.loop.call_later(time_left(deadline), task.cancel, _LATE)
            task.add_done_callback(self._stop)
            # Not run_until_complete(), whose frame knows the task: since Python 3.12 the task's
            # error knows that frame.
            self.loop.run_forever()
            if not task.done():
                raise RuntimeError("Event loop stopped before Future completed.")
            return task.result()
        except asyncio.CancelledError as error:
            if error.args != (_LATE,):
                raise
            raise timed_out() from None
        finally:
            if late is not None:
                late.cancel()
            self._main = None
            self._end_tasks(task)
            del task

    def _stop(self, task: asyncio.Task[Any]) -> None:
        """The task has ended, for which the loop may not be running any more."""
        if self._main is task:
            self.loop.stop()

    def _end_tasks(self, task: asyncio.Task[Any] | None) -> None:
        """Also after an interruption, that may have ended the first without his hearing of it."""
        if task is not None and task.done() and not task.cancelled():
            task.exception()
        tasks = asyncio.all_tasks(self.loop)
        for other in tasks:
            other.cancel()
        if tasks:
            self.loop.poller.doubt()
            self.loop.run_until_complete(asyncio.sleep(0))  # a turn, in which each hears of it
            for other in tasks:
                _end_if_deaf(other)
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def close(self) -> None:
        if self._pid != os.getpid():
            self._queue.abandon()
        self.loop.close()

    def __del__(self) -> None:
        with suppress(Exception):  # at the interpreter's end what it needs may be gone
            self.close()


def _end_if_deaf(task: asyncio.Task[Any]) -> None:
    """An interruption may have taken the loop's order to step a task: nobody steps it again."""
    if not task.done() and task._must_cancel:  # type: ignore[attr-defined]  # of Task, the same since it exists
        asyncio.Future.cancel(task)  # who awaits it is told, and it itself is not asked
        coro: Any = task.get_coro()
        with suppress(RuntimeError):  # it would go on
            coro.close()


_LATE: Final = "aiosock_sync: the time is over"
_OURS: Final = ("aiosock._names", "aiosock_sync._driver")
_INNARDS: Final = ("asyncio", "selectors", "aiosock_sync._driver", "aiosock._poller")


def _beyond(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """What of a traceback is not the loop's: a signal handler's part, if it raised."""
    while traceback and traceback.tb_frame.f_globals["__name__"].startswith(_INNARDS):
        traceback = traceback.tb_next
    return traceback


# --- what each thread has ---------------------------------------------------------------


class _End:
    """The end of a thread, whose driver may live on in a traceback."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def __del__(self) -> None:
        with suppress(Exception):  # at the interpreter's end what it needs may be gone
            self._driver.close()


class _Here(threading.local):
    driver: _Driver | None = None
    end: _End | None = None


_here: Final = _Here()
# Set by fail_after.  Of the context, and so of a task, where several share a thread.
_limit: Final[ContextVar["_Limit | None"]] = ContextVar("aiosock_sync.fail_after", default=None)
limits: Final = set["_Limit"]()  # those that hold anywhere: mostly none, and then nobody need ask


def _free_driver() -> _Driver:
    """The thread's own, or one beside it while that is busy."""
    driver = outer = _here.driver
    if driver is not None and driver.loop.is_closed():  # by somebody who found it
        driver = outer = None
    if driver is None or driver.busy:
        driver = _here.driver = _Driver()
        driver.outer = outer
        if outer is None:
            _here.end = _End(driver)
    return driver


def loop_here() -> asyncio.AbstractEventLoop:
    """The loop on which a blocking call of this thread waits."""
    return _free_driver().loop


# Each of the three that follow frees its driver in its own ``finally``: a signal handler may raise
# where a function is entered, and would leave it busy for good.


def run(coro: Coroutine[Any, Any, T]) -> T:
    """The outcome of an operation of the engine; this thread is blocked until it is there.

    The operation is stepped whenever something has happened, whatever it was: the engine
    tries again then, and waits again.
    """
    driver = None
    try:
        while True:
            if coro.send(None) is None:
                continue  # it gives way to other tasks, of which there are none
            if driver is None:
                driver = _free_driver()
                driver.busy, driver.turn.thread = True, 0
                turn = driver.loop.turn
            turn()
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the coroutine returned
    except BaseException as error:
        if inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED:  # it is not its own error
            if driver is not None:
                driver.loop.poller.doubt()
            coro.throw(error.with_traceback(_beyond(error.__traceback__)))
        raise
    finally:
        if driver is not None:
            driver.busy, driver.turn.thread = False, driver.thread
            if driver.outer is not None:
                driver.make_way()


def turn_once(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Wait until something happens on a loop; False if it is not this thread's, or not free."""
    driver = _here.driver
    if driver is None or driver.busy or driver.loop is not loop:
        return False
    driver.busy, driver.turn.thread = True, 0
    try:
        driver.loop.turn()
    except BaseException as error:
        driver.loop.poller.doubt()
        error.__traceback__ = _beyond(error.__traceback__)
        raise
    finally:
        driver.busy, driver.turn.thread = False, driver.thread
    return True


def run_task(coro: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
    """The outcome of any other coroutine; TimeoutError when the deadline is over."""
    driver = None
    try:
        driver = _free_driver()
        driver.busy, driver.turn.thread = True, 0  # who calls meanwhile takes another
        with set_aside(_get_running_loop()):
            return driver.finish_task(coro, deadline)
    except BaseException as error:
        error.__traceback__ = _beyond(error.__traceback__)
        raise
    finally:
        if driver is not None:
            driver.busy, driver.turn.thread = False, driver.thread
            if driver.outer is not None:
                driver.make_way()
        coro.close()  # it may not have begun


def call(
    async_function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run an async function, one written against `aiosock`, from blocking code; its result.

    It runs on this thread's loop, an asyncio one, which stays for the next call: sockets
    made in one call may be used in another.  Tasks that it leaves behind are cancelled.
    Also from inside a running event loop, which is blocked for that time.  Within
    `fail_after`, TimeoutError when the time is over: the function is cancelled then.
    """
    if asyncio.iscoroutine(async_function):
        async_function.close()  # nobody will await it
        raise TypeError(
            "call() takes an async function and its arguments, not the coroutine that it returns: "
            "call(f, x) in place of call(f(x))"
        )
    coro = async_function(*args, **kwargs)
    if not asyncio.iscoroutine(coro):
        raise TypeError(f"an async function is needed: {async_function!r} returned {coro!r}")
    return run_task(coro, _limit_now())


@contextmanager
def fail_after(seconds: float) -> Iterator[None]:
    """Bound all blocking calls of this thread inside the ``with``, together, by one deadline.

    Each of them, name lookups and connects included, raises TimeoutError("timed out") when
    `seconds` have passed since the ``with`` was entered, and so does one that is made later,
    whether it would have to wait or not; a socket's own timeout holds besides.  Of nested
    ones the nearest deadline counts.  It holds for the task where tasks share the thread.
    TypeError for what is no number, ValueError if it is negative or NaN; infinity, and what
    is as good as that, is no limit.
    """
    if not isinstance(seconds, int | float):
        raise TypeError(
            f"seconds must be a number (math.inf for no limit), not {type(seconds).__name__!r}"
        )
    if not seconds >= 0:
        raise ValueError(f"seconds must not be negative or NaN: {seconds!r}")
    with until(monotonic() + seconds if seconds < FOR_EVER else None):
        yield


class _Limit:
    """A deadline, and in which other one it lies.  It holds as long as it is among `limits`."""

    __slots__ = ("deadline", "outer")

    def __init__(self, deadline: float | None, outer: "_Limit | None") -> None:
        self.deadline, self.outer = deadline, outer


@contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """Bound the calls inside the ``with`` by a deadline, as `fail_after` does.

    An interruption may have a ``with`` end late, when one around it has ended before.
    """
    limit = _Limit(limited(deadline), _limit.get())
    try:
        _limit.set(limit)
        limits.add(limit)
        yield
    finally:
        limits.discard(limit)
        if _limit.get() is limit:
            _limit.set(limit.outer)


def _limit_now() -> float | None:
    limit = _limit.get()
    while limit is not None and limit not in limits:
        limit = limit.outer
    return None if limit is None else limit.deadline


def limited(deadline: float | None) -> float | None:
    """A deadline, or that of `fail_after` where it is nearer."""
    limit = _limit_now()
    if limit is None or (deadline is not None and deadline < limit):
        return deadline
    return limit


def is_late() -> bool:
    """Whether the deadline of `fail_after` is over."""
    limit = _limit_now()
    return limit is not None and monotonic() >= limit


def _let_parent_alone() -> None:
    driver, _here.driver, _here.end = _here.driver, None, None
    if driver is not None:
        with suppress(RuntimeError):  # it runs: what forks is an async function of the user
            driver.close()


os.register_at_fork(after_in_child=_let_parent_alone)
