"""create_connection's race against listeners that answer, refuse or stay silent, in any order.

A host has addresses of each family, which a resolver tells at once, when a rule says so, or
never.  An address answers, refuses or stays silent; a path whose queue is full answers when a
rule makes room.  Several calls are under way at once, with any delay, and end by themselves, by
their timeout or by a cancellation.

What is judged: the winner is an address that answers, and the connection works; who lost has
no descriptor and no task any more when the call is over; `attempts`, and the notes of an error,
tell of each address what it did; a call that cannot succeed fails for the reason that it has.

How often it runs is told in stateful.py.
"""

import asyncio
import itertools
import socket as _stdlib
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from faces import LIMIT, open_descriptors
from hypothesis import strategies as st
from hypothesis.stateful import rule
from stateful import Machine, each_loop, run_machine

import aiosock
from aiosock import Attempt

V4, V6, UNIX = int(_stdlib.AF_INET), int(_stdlib.AF_INET6), int(_stdlib.AF_UNIX)
LONG = 30.0  # seconds: nobody waits so long
SOON = 0.05
LOOPBACKS = {V4: "127.0.0.1", V6: "::1"}
KINDS = st.sampled_from(["answers", "refuses", "silent"])
SAID = st.sampled_from(["at once", "later", "unknown"])
TOKEN = b"winner"
UNKNOWN = (_stdlib.EAI_NONAME, "Name or service not known")


class Place:
    """An address, and how it behaves."""

    def __init__(self, family: int, kind: str) -> None:
        self.family, self.kind = family, kind
        self.sockets = [self.made(_stdlib.socket(family))]
        self.sock = self.sockets[0]
        self.sock.bind("" if family == UNIX else (LOOPBACKS[family], 0))
        self.address = self.sock.getsockname()
        if kind != "refuses":
            self.sock.listen(0 if kind in ("silent", "full") else 16)
        if kind in ("silent", "full"):
            self.crowd()

    def made(self, sock: _stdlib.socket) -> _stdlib.socket:
        sock.setblocking(False)
        return sock

    def crowd(self) -> None:
        """Fill the queue."""
        for _ in range(3):
            self.sockets.append(self.made(_stdlib.socket(self.family)))
            self.sockets[-1].connect_ex(self.address)

    def accepted(self) -> list[_stdlib.socket]:
        """All who are in the queue."""
        found = []
        with suppress(OSError):  # nobody, or it does not listen
            while True:
                found.append(self.made(self.sock.accept()[0]))
        return found

    def make_room(self) -> None:
        if self.kind == "full":
            for sock in self.sockets[1:]:
                sock.close()
            self.sock.listen(16)
            self.kind = "answers"

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    @property
    def info(self) -> Any:
        return _stdlib.AddressFamily(self.family), _stdlib.SOCK_STREAM, 0, "", self.address


class Host:
    """What the resolver says of a name."""

    def __init__(self, places: list[Place], said: dict[int, str]) -> None:
        self.places, self.said = places, said
        self.told = {family: asyncio.Event() for family in said}
        for family, when in said.items():
            if when != "later":
                self.told[family].set()

    async def addresses(self, family: int) -> list[Any]:
        await self.told[family].wait()
        if self.said[family] == "unknown":
            raise _stdlib.gaierror(*UNKNOWN)
        return [place.info for place in self.of(family)]

    def of(self, family: int) -> list[Place]:
        """The addresses that are told with a family: paths with IPv4."""
        return [place for place in self.places if (place.family == V6) == (family == V6)]

    @property
    def known(self) -> list[Place]:
        """Those that are, or will be, told."""
        said = [family for family, when in self.said.items() if when != "unknown"]
        return [place for family in said for place in self.of(family)]

    @property
    def all_is_told(self) -> bool:
        return all(event.is_set() for event in self.told.values())


class Hosts(dict[str, Host]):
    """The resolver."""

    async def getaddrinfo(self, host: Any, port: Any, family: int, *_: Any) -> list[Any]:
        return await self[host].addresses(family)

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        raise NotImplementedError


class Called:
    """A call of create_connection, and how it ended."""

    def __init__(
        self, name: str, host: Host, delay: float, timeout: float | None, all_errors: bool
    ) -> None:
        self.host, self.delay, self.timeout, self.all_errors = host, delay, timeout, all_errors
        self.begun, self.cancelled = time.monotonic(), False
        self.outcome: Any = None
        self._opening = aiosock.create_connection(
            (name, 1), timeout, all_errors=all_errors, happy_eyeballs_delay=delay
        )

    async def run(self) -> None:
        try:
            self.outcome = await self._opening
        except BaseException as error:
            self.outcome = error
        self.took = time.monotonic() - self.begun

    def close(self) -> None:
        if isinstance(self.outcome, aiosock.socket):
            self.outcome.close()

    @property
    def must_end(self) -> bool:
        """Whether it ends by itself, and soon, once all is told."""
        kinds = [place.kind for place in self.host.known]
        if self.timeout is not None:
            return True
        if self.delay == LONG:  # one that stays silent may be in the way
            return not {"silent", "full"} & set(kinds)
        return "answers" in kinds or not {"silent", "full"} & set(kinds)


class Racing(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.hosts = Hosts()
        aiosock.set_resolver(self.hosts)
        self.stack.callback(aiosock.set_resolver, None)
        self.calls: list[tuple[Called, asyncio.Task[None]]] = []
        self.mine = 0  # descriptors

    # --- what happens -------------------------------------------------------------------

    @rule(
        six=st.lists(KINDS, max_size=2),
        four=st.lists(KINDS, max_size=3),
        paths=st.lists(st.just("full"), max_size=1),
        six_said=SAID,
        four_said=SAID,
        delay=st.sampled_from([0, 0.01, LONG]),
        timeout=st.sampled_from([None, SOON]),
        all_errors=st.booleans(),
    )
    def call(
        self,
        six: list[str],
        four: list[str],
        paths: list[str],
        six_said: str,
        four_said: str,
        delay: float,
        timeout: float | None,
        all_errors: bool,
    ) -> None:
        before = open_descriptors()
        asked = [*((V6, k) for k in six), *((V4, k) for k in four), *((UNIX, k) for k in paths)]
        host = Host([Place(*one) for one in asked], {V6: six_said, V4: four_said})
        for place in host.places:
            self.stack.callback(place.close)
        self.mine += open_descriptors() - before
        name = f"h{len(self.hosts)}.test"
        self.hosts[name] = host
        called = Called(name, host, delay, timeout, all_errors)
        self.stack.callback(called.close)
        self.calls.append((called, self.start(called.run())))
        self.settle()

    @rule(at=st.integers(0, 3), family=st.sampled_from([V4, V6]))
    def tell(self, at: int, family: int) -> None:
        if at < len(self.calls):
            self.calls[at][0].host.told[family].set()
            self.settle()

    @rule(at=st.integers(0, 3))
    def make_room(self, at: int) -> None:
        if at < len(self.calls):
            before = open_descriptors()
            for place in self.calls[at][0].host.places:
                place.make_room()
            self.mine += open_descriptors() - before
            self.settle()

    @rule(at=st.integers(0, 3), turns=st.integers(0, 8))
    def cancel(self, at: int, turns: int) -> None:
        self.turn(turns)
        if at < len(self.calls):
            called, task = self.calls[at]
            if not task.done():
                called.cancelled = task.cancel()
            self.settle()

    @rule(seconds=st.sampled_from([0.001, 0.02]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))
        self.settle()

    # --- what must be true --------------------------------------------------------------

    def settle(self) -> None:
        self.turn()
        for called, task in [entry for entry in self.calls if entry[1].done()]:
            self.calls.remove((called, task))
            self.judge(called)
        if not self.calls:
            assert self.run(self.there())["descriptors"] == self.before["descriptors"] + self.mine

    def judge(self, called: Called) -> None:
        outcome = called.outcome
        if isinstance(outcome, aiosock.socket):
            with outcome:
                self.judge_winner(called, outcome)
        else:
            self.judge_failure(called, outcome)
        for place in called.host.places:
            if place.kind != "full":
                self.judge_losers(place)

    def judge_winner(self, called: Called, sock: aiosock.socket) -> None:
        places = {place.address: place for place in called.host.known}
        place = places[sock.getpeername()]
        assert place.kind == "answers"
        won = [attempt for attempt in sock.attempts if attempt.error is None]
        assert [attempt.address for attempt in won] == [place.address]
        assert sock.gettimeout() == called.timeout
        self.judge_attempts(called, sock.attempts, places)
        self.run(sock.sendall(TOKEN))
        conns = place.accepted()
        heard = [said(conn) for conn in conns]
        assert heard.count(TOKEN) == 1
        assert set(heard) <= {TOKEN, b""}, "who was given up is closed"
        for conn in conns:
            conn.close()

    def judge_attempts(
        self, called: Called, attempts: Iterable[Attempt], places: dict[Any, Place]
    ) -> None:
        attempts = list(attempts)
        assert len({attempt.address for attempt in attempts}) == len(attempts)
        starts = [attempt.started for attempt in attempts]
        assert starts == sorted(starts)
        for attempt in attempts:
            assert 0 <= attempt.started <= attempt.ended <= called.took
            may: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
            if places[attempt.address].kind == "refuses":
                may += (ConnectionRefusedError,)
            assert attempt.error is None or isinstance(attempt.error, may)
        if called.delay == LONG:  # one after the other
            pairs = itertools.pairwise(attempts)
            assert all(one.ended <= other.started for one, other in pairs)

    def judge_failure(self, called: Called, error: BaseException) -> None:
        kinds = [place.kind for place in called.host.known]
        notes = getattr(error, "__notes__", [])
        if isinstance(error, asyncio.CancelledError):
            assert called.cancelled
            return
        late = called.timeout is not None and called.took >= called.timeout
        if isinstance(error, TimeoutError):
            assert late
            assert str(error) == "timed out"
        elif isinstance(error, BaseExceptionGroup):
            assert called.all_errors
            may = (ConnectionRefusedError, TimeoutError) if late else ConnectionRefusedError
            assert all(isinstance(one, may) for one in error.exceptions)
        elif isinstance(error, ConnectionRefusedError):
            assert not called.all_errors
        else:
            assert isinstance(error, OSError), error
            assert kinds == []
        if not late:
            assert set(kinds) <= {"refuses"}
            tried = [note for note in notes if "Connection refused" in note]
            assert len(tried) == len(kinds)
        for note in notes:
            for place in called.host.known:
                if note.startswith(repr(place.address)) and "Connection refused" in note:
                    assert place.kind == "refuses"

    def judge_losers(self, place: Place) -> None:
        for conn in place.accepted():
            assert said(conn) == b"" or place.kind == "silent"
            conn.close()

    def finish(self) -> None:
        for called, _ in self.calls:
            for event in called.host.told.values():
                event.set()
        for called, task in self.calls:
            if called.must_end:
                self.run(asyncio.wait([task], timeout=LIMIT))
                assert task.done(), "it hangs"
                assert called.cancelled or called.timeout or success(called)
            elif not task.done():
                called.cancelled = task.cancel()
                self.run(asyncio.wait([task], timeout=LIMIT))
        self.settle()
        assert self.calls == []


def success(called: Called) -> bool:
    """Whether it ended as it had to, one that had all the time."""
    may = "answers" in [place.kind for place in called.host.known]
    return may == isinstance(called.outcome, aiosock.socket)


def said(conn: _stdlib.socket) -> bytes:
    """What has come; of one that was closed nothing."""
    try:
        return conn.recv(100)
    except BlockingIOError:
        return b"it is open"
    except ConnectionResetError:
        return b""


@each_loop
def test_the_winner_is_right_and_the_losers_are_gone(loop: str) -> None:
    run_machine(Racing, loop)
