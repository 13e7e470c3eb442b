"""Many datagrams with one wait: recvmmsg(2) and sendmmsg(2) in Python.

Knows what keeps message boundaries, and the system calls that take and give one message;
knows nothing of loops, of waiting or of the public socket.  Each of the two is an attempt
for the engine's wait loop.

The calls are made by ``list.extend`` over a ``map``: in C from the first message to the
last, where no signal handler can come between a message and the list in which it is kept.
When one of the calls raises, the list holds the results of those before it.
"""

import operator
import socket as _stdlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any, Final

from ._names import needs_lookup, numeric_address
from ._operations import MSG_PEEK, MSG_TRUNC, Leftover, has, placed
from ._readiness import Direction, Readiness, Stateful, StillReady

__all__ = ["ROOMY", "SendingMany", "receive_many", "receiving_many"]

Address = Any
Message = tuple[Any, Address]

ROOMY: Final = 65536  # bytes: no datagram of UDP is longer
MOST: Final = 1024  # messages received at once, as with recvmmsg(2)
TURN: Final = 64  # messages sent before other tasks get a turn

STREAM: Final = int(_stdlib.SOCK_STREAM)
SEQPACKET: Final = int(getattr(_stdlib, "SOCK_SEQPACKET", -1))


def _must_keep_boundaries(kind: int, call: str, instead: str) -> None:
    if kind == STREAM:
        raise ValueError(f"{call} is for messages, and a stream has none: use {instead}")


# --- receiving ----------------------------------------------------------------------


def receiving_many(
    readiness: Readiness,
    sock: _stdlib.socket,
    kind: int,
    blocking: bool,
    deadline: float | None,
    flags: Any,
    max: int,
    bufsize: int,
) -> tuple[Direction, float | None, int, tuple[Any, ...]]:
    """How it is done: where and until when it waits, how many messages are asked for so that
    fewer are all there were, and what `receive_many` takes before the flags.
    """
    _must_keep_boundaries(kind, "recv_many", "recv")
    most = operator.index(max)
    if most < 1:
        raise ValueError(f"max must be at least 1, not {most}")
    most = min(most, MOST)
    may_end = kind == SEQPACKET
    direction, asked = readiness.reading, 0 if may_end else most
    if flags:
        direction, deadline = placed(readiness, blocking, deadline, flags)
        asked = 0
        if has(flags, MSG_PEEK):
            most = 1  # the next look would see the same one
    return direction, deadline, asked, (sock, direction, may_end, most, bufsize)


def receive_many(
    source: Any, direction: Direction, may_end: bool, most: int, bufsize: int, flags: Any
) -> list[tuple[bytes, Address]]:
    """At most so many messages: what there is.  Would block if there is none.

    An error behind the first message is put back, for the next receive to raise.  Where a
    connection may have ended, an empty message is the last: at the end they never stop.
    """
    got: list[tuple[bytes, Address]] = []
    if has(flags, MSG_TRUNC):
        flags &= ~MSG_TRUNC  # never more than `bufsize` bytes, as with every receive
    messages = map(source.recvfrom, repeat(bufsize, most), repeat(flags))
    try:
        if may_end:
            _extend_to_an_empty_one(got, messages)
        else:
            got.extend(messages)
    except BlockingIOError:
        if not got:
            raise
    except OSError as error:
        if not got:
            raise
        error.with_traceback(None)  # which knows this frame, and so the socket
        direction.put_back(Leftover(source, b"", error).instead)
    direction.spent[0] += len(got)
    return got


def _extend_to_an_empty_one(got: list[Any], messages: Iterable[tuple[bytes, Address]]) -> None:
    for message in messages:
        got.append(message)
        if not message[0]:
            return


# --- sending ------------------------------------------------------------------------


class SendingMany(Stateful):
    """send(2) or sendto(2) of one message after the other, until all are sent.

    Whatever is raised instead carries ``messages_sent``.  Where it may not wait, what was
    sent before there was no room is the answer.
    """

    __slots__ = ("_calls", "_flags", "_pairs", "_sent", "_sock", "_spent", "_waits")

    def __init__(
        self,
        sock: _stdlib.socket,
        kind: int,
        messages: Iterable[Any],
        flags: Any,
        waits: bool,
        spent: list[int] | None = None,  # where other tasks are to have their turn
    ) -> None:
        _must_keep_boundaries(kind, "send_many", "sendall")
        self._sock, self._flags, self._waits, self._spent = sock, flags, waits, spent
        self._pairs = [_with_address(message) for message in messages]
        self._sent: list[int] = []
        self._calls = self._made()

    def _made(self) -> list[partial[int]]:
        flags, send, sendto = self._flags, self._sock.send, self._sock.sendto
        return [
            partial(send, data, flags) if to is None else partial(sendto, data, flags, to)
            for data, to in self._pairs
        ]

    def has_names(self, family: int) -> bool:
        return any(needs_lookup(family, to) for _, to in self._pairs if to is not None)

    async def look_up(self) -> None:
        """Put addresses in the place of host names; each name is looked up once."""
        family, found = self._sock.family, dict[str, Address]()
        for at, (data, to) in enumerate(self._pairs):
            if needs_lookup(family, to):
                name = repr(to)
                if name not in found:
                    found[name] = await numeric_address(self._sock, "sendto", to, data)
                self._pairs[at] = data, found[name]
        self._calls = self._made()

    @property
    def first_call(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:  # type: ignore[override]  # only ever read
        return (self._calls[0].func, self._calls[0].args) if self._calls else (self, ())

    def __call__(self) -> int:
        calls, sent, before = self._calls, self._sent, len(self._sent)
        while len(sent) < len(calls):
            try:
                sent.extend(map(operator.call, calls[len(sent) : len(sent) + TURN]))
            except BlockingIOError:
                if self._waits or not sent:
                    raise
                break
            if self._waits and self._spent is not None and len(sent) < len(calls):
                raise StillReady
        if self._spent is not None:
            self._spent[0] += len(sent) - before
        return len(sent)

    def stopped(self, error: BaseException) -> None:
        error.messages_sent = len(self._sent)  # type: ignore[attr-defined]  # an attribute of ours, documented with send_many


def _with_address(message: Any) -> Message:
    """A message and where it goes; None is the address of the other end."""
    if not isinstance(message, tuple):
        return message, None
    if len(message) != 2:
        raise TypeError(
            f"a message is bytes-like, or a pair of that and an address, "
            f"not a tuple of {len(message)}"
        )
    return message
