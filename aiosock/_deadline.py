"""When an operation must be over, and what a timeout may be.

Knows clocks and numbers; knows nothing of sockets, loops or tasks.

A timeout is what the user sets, in seconds, and has the stdlib's three values:
None waits for ever, 0.0 never waits, anything else waits so long.  A deadline is
made of it once, when a call begins, and handed down through every stage of that
call: None is never over, NOW is over before any wait, anything else is a point in
time on the monotonic clock.  A call of many steps (a name looked up, a connection
made; a megabyte sent in pieces) is bounded as a whole because its steps share one
point in time and never start a span of their own.
"""

import math
import socket as _stdlib
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from ._advice import tell_timeout

__all__ = ["NOW", "as_blocking", "as_timeout", "deadline_after", "time_left", "timed_out"]

NOW: Final = 0.0


def as_timeout(value: Any) -> float | None:
    """What ``settimeout(value)`` sets; refuses what the stdlib refuses, in its words."""
    try:
        return _timeout_set_by("settimeout", value)
    except TypeError as error:
        tell_timeout(error, value)
        raise


def as_blocking(flag: Any) -> float | None:
    """What ``setblocking(flag)`` sets: None or 0.0."""
    return _timeout_set_by("setblocking", flag)


def _timeout_set_by(setter: str, value: Any) -> float | None:
    # A socket without a descriptor: it takes the value as each Python takes it, stores
    # it, and fails with EBADF only then.  No rule is copied, so none can differ.
    judge = _stdlib.socket.__new__(_stdlib.socket)
    with suppress(OSError):
        getattr(judge, setter)(value)
    return judge.gettimeout()


def deadline_after(timeout: float | None) -> float | None:
    return monotonic() + timeout if timeout else timeout


def time_left(deadline: float) -> float:
    """Seconds until then, rounded up to a millisecond; never negative.

    Rounded up because a loop may count in milliseconds (uvloop does) and a timer must
    not ring early; the stdlib rounds the time it hands to poll() in the same way.
    """
    return math.ceil(max(0.0, deadline - monotonic()) * 1000) / 1000


def timed_out() -> TimeoutError:
    return TimeoutError("timed out")
