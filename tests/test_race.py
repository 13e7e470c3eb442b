"""How `create_connection` races its addresses, and what it tells of them.

The two faces race alike: most of this asks both.  Where a call is as the stdlib's, because
nothing is to be won or the race was switched off, the stdlib is asked beside them.  What is
left on a loop, and at which of its turns a call may be cancelled, is asked of aiosock.
"""

import asyncio
import errno
import gc
import os
import signal
import socket as _stdlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from faces import AIOSOCK, LIMIT, SYNC, Face, open_descriptors, wrapped
from secured import HOST, serving, trusting

import aiosock
import aiosock_sync
from aiosock import _race
from aiosock._poller import poller_of
from aiosock._race import Schedule
from aiosock_sync import _driver

V4, V6 = int(_stdlib.AF_INET), int(_stdlib.AF_INET6)
NAME = "name.test"
NONE = _stdlib.gaierror(_stdlib.EAI_NONAME, "Name or service not known")
AGAIN = _stdlib.gaierror(_stdlib.EAI_AGAIN, "Temporary failure in name resolution")
LONG = 30.0  # seconds: nobody waits so long
HUGE = 1e9


def info(address: Any) -> Any:
    family = _stdlib.AF_INET6 if ":" in address[0] else _stdlib.AF_INET
    return family, _stdlib.SOCK_STREAM, 6, "", address


class Book:
    """A resolver: what it says of each family, after how many seconds."""

    def __init__(self, v6: Any = (), v4: Any = (), late6: float = 0, late4: float = 0) -> None:
        known = [said for said in (v6, v4) if isinstance(said, tuple)]
        self.said = {V6: v6, V4: v4, 0: sum(known, ()) or v4}
        self.late = {V6: late6, V4: late4, 0: 0.0}
        self.asked: list[tuple[Any, Any, int]] = []

    async def getaddrinfo(self, host: Any, port: Any, family: int, *args: Any) -> Any:
        self.asked.append((host, port, int(family)))
        if self.late[family]:
            await asyncio.sleep(self.late[family])
        said = self.said[family]
        if isinstance(said, BaseException):
            raise type(said)(*said.args)  # anew, as an error keeps the frames that it went through
        return [info(address) for address in said]

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        raise NotImplementedError


@contextmanager
def using(resolver: Any) -> Iterator[Any]:
    aiosock.set_resolver(resolver)
    try:
        yield resolver
    finally:
        aiosock.set_resolver(None)


@pytest.fixture(params=[SYNC, AIOSOCK], ids=lambda face: face.name)
async def face(request: pytest.FixtureRequest) -> AsyncIterator[Face]:
    """One of ours, whose sockets are closed at the end."""
    face: Face = request.param
    with face.closing():
        yield face


def answering(stack: ExitStack, host: str = "127.0.0.1") -> Any:
    """The address of a listener."""
    family = _stdlib.AF_INET6 if ":" in host else _stdlib.AF_INET
    sock = stack.enter_context(_stdlib.create_server((host, 0), family=family))
    return sock.getsockname()


def silent(stack: ExitStack, host: str = "127.0.0.1") -> Any:
    """The address of a listener that answers nobody: its queue is full."""
    family = _stdlib.AF_INET6 if ":" in host else _stdlib.AF_INET
    listener = stack.enter_context(_stdlib.create_server((host, 0), family=family, backlog=0))
    for _ in range(3):
        client = stack.enter_context(_stdlib.socket(family))
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    return listener.getsockname()


def refusing(stack: ExitStack, host: str = "127.0.0.1") -> Any:
    """An address that refuses: bound, so that nobody else gets it, and not listening."""
    family = _stdlib.AF_INET6 if ":" in host else _stdlib.AF_INET
    sock = stack.enter_context(_stdlib.socket(family))
    sock.bind((host, 0))
    return sock.getsockname()


async def connected(face: Face, *args: Any, **named: Any) -> Any:
    """A connection, within the time that a test has."""
    async with asyncio.timeout(LIMIT):
        if not face.blocks:
            return face.keep(await face.create_connection(*args, **named))
        made, error = await asyncio.to_thread(ended, face.module.create_connection, *args, **named)
        if error:
            raise error
        return face.keep(wrapped(made))


def ended(function: Callable[..., Any], *args: Any, **named: Any) -> tuple[Any, Any]:
    """What came of a call; asyncio itself would make a TimeoutError anew, without its notes."""
    try:
        return function(*args, **named), None
    except BaseException as error:
        return None, error


def near(folder: Path) -> str:
    """A path in a folder, from here: an absolute one may be too long for a socket."""
    return os.path.relpath(folder / "s")


def tried(sock: Any) -> list[Any]:
    return [attempt.address for attempt in sock.attempts]


# --- the schedule ---------------------------------------------------------------------

A6, B6, C6 = (info((f"::{n}", 1, 0, 0)) for n in range(1, 4))
A4, B4 = (info((f"127.0.0.{n}", 1)) for n in range(1, 3))


def order(schedule: Schedule) -> list[Any]:
    return [schedule.next(0.0) for _ in schedule.left()]


def test_families_take_turns_each_in_the_order_it_was_told() -> None:
    schedule = Schedule(1.0)
    schedule.answer([A6, B6, C6, A4, B4], 0.0, settled=True)
    assert order(schedule) == [A6, A4, B6, B4, C6]
    schedule.answer([A4, B4, A6], 0.0, settled=True)
    schedule = Schedule(1.0)
    schedule.answer([A4, B4, A6], 0.0, settled=True)
    assert order(schedule) == [A4, A6, B4]


def test_ipv6_is_first_whichever_was_told_first() -> None:
    schedule = Schedule(1.0, (V6, V4))
    schedule.answer([A4, B4], 0.0, settled=False)
    schedule.answer([A6], 0.01, settled=True)
    assert schedule.due == 0.01
    assert order(schedule) == [A6, A4, B4]


def test_what_comes_while_the_race_is_on_is_next() -> None:
    schedule = Schedule(1.0, (V6, V4))
    schedule.answer([A4, B4], 0.0, settled=True)
    assert schedule.next(0.0) == A4
    schedule.answer([A6], 0.5, settled=True)
    assert schedule.due == 1.0
    assert order(schedule) == [A6, B4]


def test_an_address_told_twice_counts_once() -> None:
    schedule = Schedule(1.0)
    schedule.answer([A4, A4, B4, A4], 0.0, settled=True)
    assert order(schedule) == [A4, B4]


def test_ipv4_waits_a_little_for_ipv6() -> None:
    schedule = Schedule(1.0, (V6, V4))
    assert schedule.due == inf
    schedule.answer([A4], 5.0, settled=False)
    assert schedule.due == 5.05
    schedule.answer([], 5.01, settled=True)
    assert schedule.due == 5.01


def test_without_an_address_nothing_is_due() -> None:
    schedule = Schedule(1.0, (V6, V4))
    schedule.answer([], 5.0, settled=False)
    schedule.answer([], 5.0, settled=True)
    assert schedule.due == inf
    schedule.answer([A4], 6.0, settled=True)
    schedule.next(6.0)
    schedule.failed(6.5)
    assert schedule.due == inf


def test_the_next_is_due_after_the_delay_or_a_failure() -> None:
    schedule = Schedule(1.0)
    schedule.answer([A6, B6, C6], 0.0, settled=True)
    schedule.next(0.0)
    assert schedule.due == 1.0
    schedule.failed(0.3)
    assert schedule.due == 0.3
    schedule.next(0.4)
    assert schedule.due == 1.4


# --- the race -------------------------------------------------------------------------


async def test_a_first_address_that_never_answers_costs_a_quarter_of_a_second(
    face: Face, stack: ExitStack
) -> None:
    deaf, good = silent(stack, "::1"), answering(stack)
    with using(Book((deaf,), (good,))):
        start = time.monotonic()
        sock = await connected(face, (NAME, 1), LONG)
        assert time.monotonic() - start < LIMIT / 2
    assert sock.getpeername() == good
    assert sock.gettimeout() == LONG
    first, second = sock.attempts
    assert (first.address, second.address) == (deaf, good)
    assert isinstance(first.error, asyncio.CancelledError)
    assert second.error is None
    assert 0 <= first.started < 0.25 <= second.started <= second.ended


@pytest.mark.parametrize("all_errors", [False, True])
async def test_with_no_answer_anywhere_the_error_tells_every_attempt(
    face: Face, stack: ExitStack, all_errors: bool
) -> None:
    deaf = [silent(stack, host) for host in ("::1", "127.0.0.1", "127.0.0.2")]
    how = {"all_errors": all_errors, "happy_eyeballs_delay": 0}
    with (
        using(Book(tuple(deaf[:1]), tuple(deaf[1:]))),
        pytest.raises((TimeoutError, ExceptionGroup)) as caught,
    ):
        await connected(face, (NAME, 1), 0.1, **how)
    errors = [caught.value]
    if all_errors:
        assert isinstance(caught.value, ExceptionGroup)
        assert caught.value.message == "create_connection failed"
        errors = list(caught.value.exceptions)
        assert len(errors) == 3
    assert [(type(error), str(error)) for error in errors] == [(TimeoutError, "timed out")] * len(
        errors
    )
    notes = caught.value.__notes__
    assert [note.partition(" from ")[0] for note in notes] == [repr(address) for address in deaf]
    assert all(note.endswith(": timed out") for note in notes)


async def test_the_error_tells_which_addresses_were_not_tried(face: Face, stack: ExitStack) -> None:
    deaf, good = silent(stack), answering(stack)
    with using(Book((), (deaf, good))), pytest.raises(TimeoutError) as caught:
        await connected(face, (NAME, 1), 0.05, happy_eyeballs_delay=inf)
    assert caught.value.__notes__[1:] == [f"{good!r} was not tried"]


async def test_after_a_refusal_the_next_attempt_begins_at_once(
    face: Face, stack: ExitStack
) -> None:
    bad, good = [refusing(stack, host) for host in ("::1", "127.0.0.1")], answering(stack)
    with using(Book((bad[0],), (bad[1], good))):
        sock = await connected(face, (NAME, 1), happy_eyeballs_delay=LONG)
    assert tried(sock) == [*bad, good]
    codes = [getattr(attempt.error, "errno", None) for attempt in sock.attempts]
    assert codes == [errno.ECONNREFUSED, errno.ECONNREFUSED, None]
    assert [str(attempt).rpartition(" s: ")[2] for attempt in sock.attempts] == [
        "[Errno 111] Connection refused"
    ] * 2 + ["connected"]


async def test_when_all_refuse_the_last_error_is_raised_or_all_are(
    face: Face, stack: ExitStack
) -> None:
    bad = [refusing(stack, host) for host in ("::1", "127.0.0.1", "127.0.0.2")]
    with using(Book((bad[0],), (*bad[1:], ("255.255.255.255", 9)))):
        with pytest.raises(OSError, match="unreachable|denied") as caught:
            await connected(face, (NAME, 1), happy_eyeballs_delay=LONG)
        with pytest.raises(ExceptionGroup) as group:
            await connected(face, (NAME, 1), all_errors=True, happy_eyeballs_delay=LONG)
    errors = group.value.exceptions
    refused = [type(error) is ConnectionRefusedError for error in errors]
    assert refused == [True, True, True, False]
    for told in caught.value.__notes__, group.value.__notes__:
        assert len(told) == 4
        assert told[0].startswith(f"{bad[0]!r} from 0.0")
        assert told[0].endswith(" s: [Errno 111] Connection refused")


async def test_what_is_wrong_with_the_call_ends_it_at_once(face: Face, stack: ExitStack) -> None:
    with (
        using(Book((silent(stack, "::1"),), (("127.0.0.1", 70000), answering(stack)))),
        pytest.raises(OverflowError, match=r"^connect\(\): port must be 0-65535\."),
    ):
        await connected(face, (NAME, 1), LONG, happy_eyeballs_delay=0)


async def test_both_loopbacks_of_no_host_are_raced_without_a_lookup(
    face: Face, stack: ExitStack
) -> None:
    port = answering(stack)[1]
    with using(Book()) as book:
        sock = await connected(face, (None, port))
    assert sock.getpeername() == ("127.0.0.1", port)
    assert tried(sock) == [("::1", port, 0, 0), ("127.0.0.1", port)]
    assert book.asked == []


def look_away() -> None:
    """The loop does not turn for a while."""
    time.sleep(0.05)


async def test_two_that_connect_in_the_same_turn_are_one_winner_and_one_loser(
    stack: ExitStack,
) -> None:
    listeners = [stack.enter_context(_stdlib.create_server(("127.0.0.1", 0))) for _ in range(2)]
    addresses = tuple(listener.getsockname() for listener in listeners)
    before = open_descriptors()
    with using(Book((), addresses)):
        opening = aiosock.create_connection((NAME, 1), LONG, happy_eyeballs_delay=0)
        connecting = asyncio.create_task(opening)
        for _ in range(20):
            await asyncio.sleep(0)
            if open_descriptors() == before + 2:
                break
        assert not connecting.done()
        look_away()  # both are connected before the loop hears of one
        async with await connecting as sock:
            assert open_descriptors() == before + 1
    assert tried(sock) == list(addresses)
    errors = [type(attempt.error) for attempt in sock.attempts]
    assert sorted(errors, key=str) == [type(None), asyncio.CancelledError]
    assert all(attempt.started <= attempt.ended < LIMIT for attempt in sock.attempts)
    for listener in listeners:
        listener.settimeout(LIMIT)
        with listener.accept()[0] as conn, suppress(ConnectionResetError):
            conn.settimeout(LIMIT)
            assert conn.recv(1) == b""


# --- lookups --------------------------------------------------------------------------


async def test_the_families_are_asked_for_apart(face: Face, stack: ExitStack) -> None:
    with using(Book((), (answering(stack),))) as book:
        sock = await connected(face, (NAME, 7))
    assert book.asked == [(NAME, 7, V6), (NAME, 7, V4)]
    assert len(sock.attempts) == 1


@pytest.mark.parametrize("name", ["localhost", b"LocalHost.", "printer.localhost"])
async def test_this_machine_is_asked_for_once(
    face: Face, stack: ExitStack, name: str | bytes
) -> None:
    with using(Book((), (answering(stack),))) as book:
        await connected(face, (name, 7))
    assert book.asked == [(name, 7, 0)]


async def test_nothing_is_asked_for_a_number(face: Face, stack: ExitStack) -> None:
    good = answering(stack)
    with using(Book()) as book:
        sock = await connected(face, good)
    assert (book.asked, tried(sock)) == ([], [good])


async def test_a_service_is_asked_for_once_where_the_host_is_a_number(
    face: Face, stack: ExitStack
) -> None:
    good = answering(stack)
    with using(Book((), (good,))) as book:
        sock = await connected(face, ("127.0.0.1", "a-service"))
        assert sock.getpeername() == good
        await connected(face, (NAME, "a-service"))
    assert book.asked == [
        ("127.0.0.1", "a-service", 0),
        (NAME, "a-service", V6),
        (NAME, "a-service", V4),
    ]


async def test_a_service_has_its_port(net: Face) -> None:
    with pytest.raises(_stdlib.gaierror) as caught:
        await net.create_connection(("127.0.0.1", "no such service"), 5)
    assert caught.value.errno == _stdlib.EAI_SERVICE
    with pytest.raises(OSError, match="refused|timed out"):
        await net.create_connection(("127.0.0.3", "discard"), 0.2)


async def test_ipv6_that_comes_soon_is_tried_first(
    face: Face, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_race, "RESOLUTION_DELAY", LONG)
    six, four = answering(stack, "::1"), answering(stack)
    with using(Book((six,), (four,), late6=0.01)):
        assert tried(await connected(face, (NAME, 1))) == [six]


async def test_ipv6_that_is_late_is_not_waited_for(face: Face, stack: ExitStack) -> None:
    six, four = answering(stack, "::1"), answering(stack)
    with using(Book((six,), (four,), late6=LONG)):
        sock = await connected(face, (NAME, 1))
    assert tried(sock) == [four]
    assert 0.05 <= sock.attempts[0].started < LIMIT / 2


async def test_ipv6_that_is_first_does_not_wait(face: Face, stack: ExitStack) -> None:
    six, four = answering(stack, "::1"), answering(stack)
    with using(Book((six,), (four,), late4=LONG)):
        assert tried(await connected(face, (NAME, 1))) == [six]


async def test_ipv4_does_not_wait_when_there_is_no_ipv6(
    face: Face, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_race, "RESOLUTION_DELAY", LONG)
    four = answering(stack)
    for none in ((), NONE, AGAIN):
        with using(Book(none, (four,), late6=0.01)):
            assert tried(await connected(face, (NAME, 1))) == [four]


async def test_an_answer_that_comes_late_joins_the_race(
    face: Face, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_race, "RESOLUTION_DELAY", 0.0)
    six, four = answering(stack, "::1"), refusing(stack)
    with using(Book((six,), (four,), late6=0.1)):
        assert tried(await connected(face, (NAME, 1))) == [four, six]


@pytest.mark.parametrize("which", ["v6", "v4"])
async def test_a_family_that_is_not_found_does_not_end_the_other(
    face: Face, stack: ExitStack, which: str
) -> None:
    host, other = {"v6": ("::1", "v4"), "v4": ("127.0.0.1", "v6")}[which]
    good, bad = answering(stack, host), refusing(stack, host)
    for error in (NONE, AGAIN):
        found: dict[str, Any] = {which: (good,), other: error}
        refused: dict[str, Any] = {which: (bad,), other: error}
        with using(Book(**found)):
            assert tried(await connected(face, (NAME, 1))) == [good]
        with (
            using(Book(**refused)),
            pytest.raises(ConnectionRefusedError) as caught,
        ):
            await connected(face, (NAME, 1))
        family = {"v6": "IPv6", "v4": "IPv4"}[other]
        remark = f"{family} addresses of {NAME!r} are not known: {error}"
        assert caught.value.__notes__[1:] == ([remark] if error is AGAIN else [])


async def test_a_name_that_nobody_knows(face: Face) -> None:
    for v6, v4, error in [
        (NONE, NONE, NONE),
        (NONE, (), NONE),
        (AGAIN, NONE, AGAIN),
        (NONE, AGAIN, AGAIN),
    ]:
        for all_errors in (False, True):
            with using(Book(v6, v4)), pytest.raises(_stdlib.gaierror) as caught:
                await connected(face, (NAME, 1), all_errors=all_errors)
            assert caught.value.args == error.args


async def test_a_lookup_that_breaks_ends_the_call(face: Face, stack: ExitStack) -> None:
    good = answering(stack)
    for late in (0.0, LONG):
        with (
            using(Book(ZeroDivisionError("broken"), (good,), late4=late)),
            pytest.raises(ZeroDivisionError, match="^broken$"),
        ):
            await connected(face, (NAME, 1))
    with pytest.raises(UnicodeError):
        await connected(face, ("x" * 64 + ".test", 1))


async def test_the_timeout_is_for_the_lookup_too(face: Face, stack: ExitStack) -> None:
    deaf = silent(stack)
    with using(Book((), (deaf,), LONG, LONG)), pytest.raises(TimeoutError) as caught:
        await connected(face, (NAME, 1), 0.05, all_errors=True)
    assert str(caught.value) == "timed out"
    assert caught.value.__notes__ == [
        f"IPv6 addresses of {NAME!r} are not known: timed out",
        f"IPv4 addresses of {NAME!r} are not known: timed out",
    ]
    start = time.monotonic()
    with using(Book((), (deaf,), 0.2, 0.2)), pytest.raises(TimeoutError) as caught:
        await connected(face, (NAME, 1), 0.25)
    assert time.monotonic() - start < 0.4  # no span of its own
    assert len(caught.value.__notes__) == 1


async def test_a_resolver_that_tells_all_whatever_is_asked_doubles_nothing(
    face: Face, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = [refusing(stack, "::1"), refusing(stack)], answering(stack)
    found = [info(address) for address in (bad[1], bad[0], good)]
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: found)
    assert tried(await connected(face, (NAME, 1))) == [*bad, good]


@pytest.mark.parametrize("late", [V4, V6])
async def test_nor_does_it_when_what_it_tells_comes_late(
    face: Face, stack: ExitStack, late: int
) -> None:
    bad = [refusing(stack, "::1"), refusing(stack)]

    class All(Book):
        async def getaddrinfo(self, host: Any, port: Any, family: int, *args: Any) -> Any:
            await asyncio.sleep(0.1 if family == late else 0)
            return [info(address) for address in bad]

    with using(All()), pytest.raises(ExceptionGroup) as caught:
        await connected(face, (NAME, 1), all_errors=True)
    assert len(caught.value.exceptions) == 2


async def test_addresses_of_other_families_are_tried_too(
    face: Face, stack: ExitStack, tmp_path: Path
) -> None:
    place = near(tmp_path)
    stack.enter_context(_stdlib.create_server(place, family=_stdlib.AF_UNIX))

    class Local(Book):
        async def getaddrinfo(self, *args: Any) -> Any:
            return [(_stdlib.AF_UNIX, _stdlib.SOCK_STREAM, 0, "", place)]

    with using(Local()):
        assert tried(await connected(face, (NAME, 1))) == [place]


# --- as the stdlib --------------------------------------------------------------------


async def test_without_a_delay_the_sequence_and_the_timeouts_are_the_stdlibs(
    face: Face, stack: ExitStack
) -> None:
    deaf, good = silent(stack), answering(stack, "::1")
    bad = refusing(stack)
    with using(Book((), (bad, deaf, good))) as book:
        book.said[0] = (bad, deaf, good)
        sock = await connected(face, (NAME, 1), 0.05, happy_eyeballs_delay=None)
        book.said[0] = (bad, deaf, deaf)
        with pytest.raises(TimeoutError, match="^timed out") as caught:
            await connected(face, (NAME, 1), 0.05, happy_eyeballs_delay=None)
        how = {"all_errors": True, "happy_eyeballs_delay": None}
        with pytest.raises(ExceptionGroup) as group:
            await connected(face, (NAME, 1), 0.05, **how)
    assert book.asked == [(NAME, 1, 0)] * 3
    assert sock.gettimeout() == 0.05
    assert tried(sock) == [bad, deaf, good]
    assert [type(attempt.error) for attempt in sock.attempts] == [
        ConnectionRefusedError,
        TimeoutError,
        type(None),
    ]
    assert sock.attempts[1].ended - sock.attempts[1].started >= 0.05
    assert len(caught.value.__notes__) == len(group.value.exceptions) == 3
    assert [type(error) for error in group.value.exceptions] == [
        ConnectionRefusedError,
        TimeoutError,
        TimeoutError,
    ]


@pytest.mark.parametrize("default", [False, True])
async def test_in_non_blocking_mode_nothing_is_waited_for(
    net: Face, stack: ExitStack, default: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [info(answering(stack)), info(silent(stack))]
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: found)
    if default:
        stack.callback(_stdlib.setdefaulttimeout, None)
        _stdlib.setdefaulttimeout(0.0)
    given = () if default else (0,)
    with pytest.raises(BlockingIOError) as caught:
        await net.create_connection((NAME, 1), *given)
    assert caught.value.errno == errno.EINPROGRESS


async def test_a_delay_is_a_number_that_is_not_negative(face: Face) -> None:
    for wrong, kind, text in [
        (-1, ValueError, "happy_eyeballs_delay must not be negative or NaN: -1"),
        (nan, ValueError, "happy_eyeballs_delay must not be negative or NaN: nan"),
        ("1", TypeError, "happy_eyeballs_delay must be a number or None, not 'str'"),
    ]:
        with pytest.raises(kind) as caught:
            await face.create_connection(("127.0.0.1", 1), happy_eyeballs_delay=wrong)
        assert str(caught.value) == text


async def test_a_timeout_is_judged_before_anything_is_raced(face: Face) -> None:
    for wrong, kind in [(-1, ValueError), ("x", TypeError)]:
        with using(Book()) as book, pytest.raises(kind):
            await face.create_connection((NAME, 1), wrong)
        assert book.asked == []


@pytest.mark.parametrize("timeout", [None, HUGE])
async def test_very_long_times_are_no_trouble(
    face: Face, stack: ExitStack, timeout: float | None
) -> None:
    with using(Book((), (refusing(stack), answering(stack)))):
        await connected(face, (NAME, 1), timeout, happy_eyeballs_delay=HUGE)


# --- source addresses -----------------------------------------------------------------


def shares_its_port(sock: Any) -> bool:
    """Whether the option is set; where the system knows none, it is as good as set."""
    try:
        return bool(sock.getsockopt(_stdlib.IPPROTO_IP, _race.IP_BIND_ADDRESS_NO_PORT))
    except OSError:
        return True


@pytest.mark.parametrize("target", ["number", "name"])
async def test_a_source_address_without_a_port_shares_its_ports(
    face: Face, stack: ExitStack, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = answering(stack)
    asked: list[Any] = []
    real = _race.share_ports

    def share_ports(sock: Any, source: Any) -> None:
        asked.append(source)
        real(sock, source)

    for module in ("aiosock._race", "aiosock._constructors", "aiosock_sync._constructors"):
        monkeypatch.setattr(f"{module}.share_ports", share_ports)
    with using(Book((), (good,))):
        host = good if target == "number" else (NAME, 1)
        sock = await connected(face, host, source_address=("127.0.0.2", 0))
    assert sock.getsockname()[0] == "127.0.0.2"
    assert asked == [("127.0.0.2", 0)]
    assert shares_its_port(sock)


def test_only_port_0_is_shared() -> None:
    calls: list[Any] = []

    class Sock:
        def setsockopt(self, *args: Any) -> None:
            calls.append(args)
            raise OSError(errno.ENOPROTOOPT, "there is no such option")

    sources: list[Any] = [("127.0.0.1", 80), "\0path", 5, ("127.0.0.1",)]
    for source in sources:
        _race.share_ports(Sock(), source)
    assert calls == []
    for source in (("127.0.0.1", 0), ("::1", 0, 0, 0)):
        _race.share_ports(Sock(), source)
    assert calls == [(_stdlib.IPPROTO_IP, 24, 1)] * 2


async def test_a_source_of_one_family_goes_to_addresses_of_that_family(
    net: Face, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    six, four = answering(stack, "::1"), answering(stack)
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: [info(six), info(four)])
    made = await net.create_connection((NAME, 1), 5, ("127.0.0.1", 0))
    assert net.keep(made).getpeername() == four
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: [info(six)])
    with pytest.raises(_stdlib.gaierror) as caught:
        await net.create_connection((NAME, 1), 5, ("127.0.0.1", 0))
    assert caught.value.errno == _stdlib.EAI_ADDRFAMILY


async def test_the_source_may_be_a_name_whose_lookup_the_timeout_bounds(
    face: Face, stack: ExitStack
) -> None:
    good = answering(stack)
    with using(Book((), (("127.0.0.2", 0),))):
        sock = await connected(face, good, 5, ("source.test", 0))
        assert sock.getsockname()[0] == "127.0.0.2"
    with (
        using(Book((), (("127.0.0.2", 0),), late4=LONG)),
        pytest.raises(TimeoutError, match="^timed out") as caught,
    ):
        await connected(face, good, 0.05, ("source.test", 0))
    assert caught.value.__notes__[0].startswith(repr(good))


async def test_a_wrong_source_address_is_refused_in_the_stdlibs_words(
    face: Face, stack: ExitStack
) -> None:
    """The stdlib refuses in the same words, but forgets the socket."""
    good = answering(stack)
    for wrong, text in [(5, "must be tuple, not int"), (("127.0.0.1",), "must be a pair")]:
        for host in (good, (NAME, 1)):
            with using(Book((), (good,))), pytest.raises(TypeError, match=text):
                await connected(face, host, 5, wrong)


# --- paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "bytes", "abstract", "abstract bytes"])
async def test_a_path_is_connected_to(
    face: Face, stack: ExitStack, tmp_path: Path, kind: str
) -> None:
    place: str | bytes = near(tmp_path)
    if kind.startswith("abstract"):
        place = f"\0aiosock {os.getpid()} {os.urandom(4).hex()}"
    if kind.endswith("bytes"):
        place = os.fsencode(place)
    stack.enter_context(_stdlib.create_server(place, family=_stdlib.AF_UNIX))
    sock = await connected(face, place, 5)
    assert (sock.family, sock.type) == (_stdlib.AF_UNIX, _stdlib.SOCK_STREAM)
    assert os.fsencode(sock.getpeername()) == os.fsencode(place)
    assert sock.gettimeout() == 5
    assert tried(sock) == [place]


async def test_a_path_where_nobody_is(face: Face, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nobody")
    with pytest.raises(FileNotFoundError) as caught:
        await connected(face, nowhere)
    assert caught.value.__notes__[0].startswith(repr(nowhere))
    with pytest.raises(ExceptionGroup):
        await connected(face, nowhere, all_errors=True)


async def test_the_timeout_is_for_a_path_whose_queue_is_full(
    face: Face, stack: ExitStack, tmp_path: Path
) -> None:
    place = near(tmp_path)
    stack.enter_context(_stdlib.create_server(place, family=_stdlib.AF_UNIX, backlog=0))
    stack.enter_context(_stdlib.socket(_stdlib.AF_UNIX)).connect(place)
    with pytest.raises(TimeoutError, match="^timed out"):
        await connected(face, place, 0.03)


@pytest.mark.parametrize("address", ["", "name", "name.test:80", 5, None, ("127.0.0.1",)])
async def test_what_is_neither_a_pair_nor_a_path_is_refused(net: Face, address: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="unpack"):
        await net.create_connection(address)


async def test_text_of_two_characters_is_a_pair(net: Face, stack: ExitStack) -> None:
    with pytest.raises(_stdlib.gaierror):
        await net.create_connection("ab", 5)
    with pytest.raises(OSError, match="refused"):
        await net.create_connection("01", 5)  # 0.0.0.0, port 1


# --- what is told ---------------------------------------------------------------------


async def test_a_socket_that_was_not_made_by_create_connection_tells_nothing(face: Face) -> None:
    one, _ = face.socketpair()
    client, server = await face.tcp_pair()
    for sock in (one, client, server, client.dup()):
        face.keep(sock)
        assert sock.attempts == ()


def test_an_attempt_is_told_in_words() -> None:
    address = ("127.0.0.1", 80)
    for error, said in [
        (None, "connected"),
        (asyncio.CancelledError("some reason"), "given up"),
        (TimeoutError("timed out"), "timed out"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ]:
        attempt = aiosock.Attempt(address, 0.25, 0.5, error)
        assert str(attempt) == f"('127.0.0.1', 80) from 0.250 s to 0.500 s: {said}"


async def test_what_failed_on_the_way_holds_no_frame(face: Face, stack: ExitStack) -> None:
    with using(Book((silent(stack, "::1"),), (refusing(stack), answering(stack)))):
        sock = await connected(face, (NAME, 1), LONG, happy_eyeballs_delay=0.01)
    for attempt in sock.attempts[:2]:
        assert attempt.error is not None
        assert (attempt.error.__traceback__, attempt.error.__context__) == (None, None)


async def test_a_cancelled_call_tells_its_attempts_too(stack: ExitStack) -> None:
    deaf = silent(stack)
    with using(Book((), (deaf, (*deaf[:1], 1)))), pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await aiosock.create_connection((NAME, 1))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.__cause__.__notes__[0].startswith(repr(deaf))


FAILING = (OSError, ExceptionGroup, ZeroDivisionError)


def errors_alive() -> list[BaseException]:
    kinds = (*FAILING, asyncio.CancelledError)
    return [found for found in gc.get_objects() if isinstance(found, kinds)]


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What is freed is freed when its last name goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def failing(stack: ExitStack) -> Iterator[Book]:
    yield Book((refusing(stack, "::1"),), (refusing(stack), silent(stack)))
    yield Book((refusing(stack, "::1"),), (refusing(stack),))
    yield Book(OSError("unknown"), OSError("unknown"))
    yield Book(ZeroDivisionError("broken"), (silent(stack),))
    yield Book()


each_way = pytest.mark.parametrize(
    "how",
    [
        {"all_errors": all_errors, "happy_eyeballs_delay": delay}
        for all_errors in (False, True)
        for delay in (None, 0.01)
    ],
)


@each_way
@pytest.mark.usefixtures("without_collector")
async def test_an_error_is_freed_with_its_last_name(stack: ExitStack, how: Any) -> None:
    if asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip("a frame of asyncio's keeps what an eager task has raised")
    for book in failing(stack):
        before = errors_alive()
        with using(book), suppress(*FAILING):
            await aiosock.create_connection((NAME, 1), 0.05, **how)
        assert errors_alive() == before


@each_way
@pytest.mark.usefixtures("without_collector")
def test_an_error_of_the_blocking_face_is_freed_too(stack: ExitStack, how: Any) -> None:
    for book in failing(stack):
        before = errors_alive()
        with using(book), suppress(*FAILING):
            aiosock_sync.create_connection((NAME, 1), 0.05, **how)
        assert errors_alive() == before


# --- with TLS -------------------------------------------------------------------------


async def test_a_secure_socket_keeps_the_attempts(face: Face, stack: ExitStack) -> None:
    async with aiosock.create_server(("127.0.0.1", 0), ssl=serving()) as listener:
        bad, good = refusing(stack), listener.getsockname()

        async def serve() -> bytes:
            conn, _ = await listener.accept()
            async with conn:
                return await conn.recv(100)

        served = asyncio.create_task(serve())
        with using(Book((), (bad, good))):
            sock = await connected(face, (HOST, 1), 5, ssl=trusting())
        assert tried(sock) == [bad, good]
        assert sock.gettimeout() == 5
        await face.keep(sock).sendall(b"hello")
        assert await served == b"hello"


async def test_the_timeout_is_for_the_handshake_too(face: Face, stack: ExitStack) -> None:
    deaf = answering(stack)  # accepts nobody, and says nothing
    with using(Book((), (deaf,), 0.2, 0.2)):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await connected(face, (HOST, 1), 0.25, ssl=trusting())
        assert 0.25 <= time.monotonic() - start < 0.4


async def test_a_path_needs_a_name_to_verify(face: Face, stack: ExitStack, tmp_path: Path) -> None:
    place = near(tmp_path)
    stack.enter_context(_stdlib.create_server(place, family=_stdlib.AF_UNIX))
    before = open_descriptors()
    with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
        await connected(face, place, 5, ssl=trusting())
    assert open_descriptors() == before


# --- what is left on the loop ---------------------------------------------------------


def timers() -> int:
    """Those of asyncio's own loop that will act."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return sum(not handle.cancelled() for handle in scheduled)


def registrations() -> int:
    """The directions of sockets that wake somebody on this loop."""
    return sum(map(len, poller_of(asyncio.get_running_loop()).waiters.values()))


@contextmanager
def nothing_left() -> Iterator[None]:
    """At its end no task, timer, descriptor, registration and unheard error is left."""
    loop, said = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: said.append(context))
    with nothing_more():
        yield
    gc.collect()
    assert said == []
    loop.set_exception_handler(None)


@contextmanager
def nothing_more() -> Iterator[None]:
    """The same, but for errors that only the collector finds unheard."""
    before = what_there_is()
    yield
    after = what_there_is()
    assert after.pop("timers") <= before.pop("timers")  # an earlier test's may have rung
    assert after == before


def what_there_is() -> dict[str, int]:
    return {
        "registrations": registrations(),  # the first: who asks it opens the loop's queue
        "descriptors": open_descriptors(queues=True),
        "timers": timers(),
        "tasks": len(asyncio.all_tasks()),
    }


async def test_the_losers_are_gone_before_the_call_returns(stack: ExitStack) -> None:
    deaf = [silent(stack, "::1"), silent(stack)]
    with using(Book((deaf[0],), (deaf[1], answering(stack)))):
        with nothing_left():
            opening = aiosock.create_connection((NAME, 1), LONG, happy_eyeballs_delay=0.01)
            async with opening as sock:
                assert len(sock.attempts) == 3
                tasks = asyncio.all_tasks()
        assert tasks == {asyncio.current_task()}


class Brittle(Book):
    async def getaddrinfo(self, *args: Any) -> Any:
        try:
            return await super().getaddrinfo(*args)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None


def connect_calls(stack: ExitStack) -> dict[str, Callable[[], Any]]:
    six, four = silent(stack, "::1"), silent(stack)
    good, bad = answering(stack), refusing(stack)
    books = {
        "silent, silent, good": Book((six,), (four, good)),
        "refused, good": Book((), (bad, good)),
        "good, good": Book((), (good, answering(stack))),
        "unknown": Book(NONE, AGAIN),
        "lookup breaks": Book(ZeroDivisionError(), (good,)),
        "a lookup breaks when it is cancelled": Brittle((), (good,), late6=LONG),
    }

    def call(book: Book) -> Awaitable[Any]:
        aiosock.set_resolver(book)
        return aiosock.create_connection((NAME, 1), LONG, happy_eyeballs_delay=0)

    return {name: lambda book=book: call(book) for name, book in books.items()}  # type: ignore[misc]  # a default is how a loop's value is kept


async def outcome(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except (OSError, ZeroDivisionError) as error:
        return type(error)


@pytest.mark.parametrize("again", [None, 1, 2])
async def test_a_call_cancelled_at_any_turn_leaves_nothing(
    stack: ExitStack, again: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.callback(aiosock.set_resolver, None)
    monkeypatch.setattr(_race, "RESOLUTION_DELAY", 0.0)
    for name, call in connect_calls(stack).items():
        ends = set()
        with nothing_left():
            for turn in range(30):
                with nothing_more():
                    ends.add(await end_of(call, turn, again))
        assert ends == {"cancelled", "ended"}, name


async def end_of(call: Callable[[], Awaitable[Any]], turn: int, again: int | None) -> str:
    """What becomes of a call that is cancelled in that turn, and so many turns later again."""
    connecting = asyncio.create_task(outcome(call))
    for _ in range(turn):
        await asyncio.sleep(0)
    cancelled = connecting.cancel()
    for _ in range(again or 0):
        await asyncio.sleep(0)
    if again:
        connecting.cancel()
    try:
        made = await connecting
    except asyncio.CancelledError:
        assert cancelled
        return "cancelled"
    assert not cancelled
    if isinstance(made, aiosock.socket):
        made.close()
    return "ended"


async def test_a_single_address_takes_no_task(stack: ExitStack) -> None:
    good = answering(stack)
    loop = asyncio.get_running_loop()
    factory, made = loop.get_task_factory(), list[Any]()

    def noted(loop: Any, coro: Any, **named: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **named)

    loop.set_task_factory(noted)
    try:
        async with aiosock.create_connection(good, LONG) as sock:
            assert len(sock.attempts) == 1
    finally:
        loop.set_task_factory(factory)
    assert made == []


# --- the blocking face ----------------------------------------------------------------


def test_a_single_address_takes_no_task_there_either(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = answering(stack)
    monkeypatch.setattr("aiosock_sync._constructors.run_task", None)
    with aiosock_sync.create_connection(good, LONG) as sock:
        assert len(sock.attempts) == 1


async def test_it_races_within_a_running_loop(stack: ExitStack) -> None:
    deaf, good = silent(stack, "::1"), answering(stack)
    with using(Book((deaf,), (good,))), nothing_left():
        how: Any = {"happy_eyeballs_delay": 0.01}
        with aiosock_sync.create_connection((NAME, 1), LONG, **how) as sock:
            assert type(sock) is aiosock_sync.socket
            assert sock.getpeername() == good
            assert os.get_blocking(sock.fileno()) is False
        with aiosock_sync.create_connection((NAME, 1), **how) as sock:
            assert os.get_blocking(sock.fileno()) is True


@pytest.mark.parametrize("delay", [None, 0])
def test_fail_after_bounds_the_race(stack: ExitStack, delay: float | None) -> None:
    deaf = [silent(stack, "::1"), silent(stack)]
    with using(Book((deaf[0],), (deaf[1],))):
        start = time.monotonic()
        with aiosock_sync.fail_after(0.1), pytest.raises(TimeoutError) as caught:
            aiosock_sync.create_connection((NAME, 1), LONG, happy_eyeballs_delay=delay)
        assert time.monotonic() - start < LIMIT / 2
        assert [note.partition(" from ")[0] for note in caught.value.__notes__] == [
            repr(address) for address in deaf
        ]


def test_who_puts_a_socket_in_the_place_of_ours_is_heard(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Proxied(aiosock_sync.socket):
        def connect(self, address: Any, /) -> None:
            made.append(address)
            super().connect(good)

    good = answering(stack)
    monkeypatch.setattr(aiosock_sync, "socket", Proxied)
    with (
        using(Book((("::1", 1, 0, 0),), (("127.0.0.1", 1),))) as book,
        aiosock_sync.create_connection((NAME, 1), LONG) as sock,
    ):
        assert isinstance(sock, Proxied)
        assert tried(sock) == made == [("::1", 1, 0, 0), ("127.0.0.1", 1)]
    assert book.asked == [(NAME, 1, 0)]
    monkeypatch.setattr(aiosock_sync, "socket", _stdlib.socket)
    with aiosock_sync.create_connection(good) as plain:
        assert type(plain) is _stdlib.socket


def test_who_puts_a_lookup_in_the_place_of_ours_is_heard(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, asked = answering(stack), list[Any]()

    def look_up(*args: Any) -> Any:
        asked.append(args)
        return [info(good)]

    monkeypatch.setattr(aiosock_sync, "getaddrinfo", look_up)
    for host in (NAME, "192.0.2.1"):
        with aiosock_sync.create_connection((host, 7), LONG) as sock:
            assert sock.getpeername() == good
    assert asked == [(host, 7, 0, _stdlib.SOCK_STREAM) for host in (NAME, "192.0.2.1")]


class Interrupted(Exception):  # noqa: N818  # by a signal handler
    """What a signal handler raises."""


@pytest.mark.parametrize("what", ["attempts", "lookups"])
def test_an_interrupted_race_leaves_nothing_open(stack: ExitStack, what: str) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    stack.callback(signal.signal, signal.SIGALRM, before)
    late = LONG if what == "lookups" else 0.0
    book = Book((silent(stack, "::1"),), (silent(stack),), late, late)
    descriptors = open_descriptors(queues=True)
    with using(book):
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.2)
        try:
            with pytest.raises(Interrupted) as caught:
                aiosock_sync.create_connection((NAME, 1), LONG, happy_eyeballs_delay=0.01)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(getattr(caught.value, "__notes__", ())) == (2 if what == "attempts" else 0)
    assert open_descriptors(queues=True) == descriptors
    assert asyncio.all_tasks(_driver.loop_here()) == set()


def test_a_socket_that_has_won_is_closed_if_no_face_can_take_it(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(sock: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("aiosock_sync._constructors.from_stdlib_socket", broken)
    before = open_descriptors()
    good = answering(stack)
    with using(Book((), (good,))), pytest.raises(MemoryError):
        aiosock_sync.create_connection((NAME, 1))
    assert open_descriptors() == before + 1  # the listener


async def test_what_getsockname_gives_can_be_connected_to(face: Face, stack: ExitStack) -> None:
    address = answering(stack, "::1")
    assert len(address) == 4
    sock = await connected(face, address)
    assert tried(sock) == [address]
