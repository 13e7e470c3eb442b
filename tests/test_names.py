"""Names and numbers of hosts and services, and that looking them up holds nothing up.

What a lookup gives is compared with what the stdlib's function gives on the same
machine.  One thing differs: an empty host means None, as the module's first
documentation says and its own server example needs; the stdlib refuses it today.

A lookup runs in a thread, which nobody can interrupt.  Here it is replaced by one that
waits for an event, or by a resolver of the test's own.
"""

import asyncio
import contextlib
import errno
import gc
import socket as _stdlib
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from faces import Face

import aiosock
from aiosock import (
    AF_INET,
    AF_INET6,
    AI_NUMERICHOST,
    AI_PASSIVE,
    NI_NUMERICHOST,
    NI_NUMERICSERV,
    SOCK_DGRAM,
    SOCK_STREAM,
    _names,
)
from aiosock._readiness import Direction, Readiness

NUMERIC = NI_NUMERICHOST | NI_NUMERICSERV
LONG_LABEL = "a" * 64

Outcome = tuple[str, Any, Any]


def failure(error: Exception) -> Outcome:
    return "raised", type(error), str(error)


def outcome(name: str, *args: Any, **named: Any) -> Outcome:
    """What the stdlib does."""
    try:
        found = getattr(_stdlib, name)(*args, **named)
    except Exception as error:
        return failure(error)
    return "gave", type(found), found


async def awaited(face: Face, name: str, *args: Any, **named: Any) -> Outcome:
    """What one of our faces does."""
    try:
        found = await getattr(face, name)(*args, **named)
    except Exception as error:
        return failure(error)
    return "gave", type(found), found


# --- the same answers as the stdlib's -----------------------------------------------

SAME: dict[str, list[tuple[Any, ...]]] = {
    "getaddrinfo": [
        ("127.0.0.1", 80),
        ("::1", 80),
        (b"127.0.0.1", b"80"),
        ("127.0.0.1", "http"),
        ("localhost", 80),
        ("localhost", "http"),
        ("localhost", None, AF_INET, SOCK_STREAM),
        ("127.0.0.1", None),
        (None, 80),
        (None, "http", 0, 0, 0, AI_PASSIVE),
        (None, None),
        ("*", 80),
        ("127.1", 80),
        ("0x7f.1", 80),
        ("127.0.0.1", True),
        ("127.0.0.1", 1.0),
        ("localhost", 1.0),
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("127.0.0.1", 2**70),
        ("127.0.0.1", "nosuchservice"),
        (bytearray(b"127.0.0.1"), 80),
        (5, 80),
        ("127.0.0.1", 80, 99),
        ("127.0.0.1", 80, 0, 99),
        ("127.0.0.1", 80, "x"),
        ("::1", 80, AF_INET),
        ("127.0.0.1", 80, AF_INET6),
        ("nosuch.invalid", 80),
        ("localhost", 80, 0, 0, 0, AI_NUMERICHOST),
        (LONG_LABEL, 80),
        (f"{LONG_LABEL}.example", 80),
        ("::1%lo", 80),
        ("fe80::1%lo", 80),
        ("fe80::1%nosuch", 80),
        ("\0", 80),
        ("\xe9.invalid", 80),
    ],
    "gethostbyname": [
        ("",),
        ("<broadcast>",),
        ("127.1",),
        ("127.0.0.1",),
        (b"127.0.0.1",),
        ("::1",),
        (None,),
        (5,),
        ("localhost",),
        ("nosuch.invalid",),
        (LONG_LABEL,),
        ("\0x",),
    ],
    "gethostbyname_ex": [("127.0.0.1",), ("localhost",), ("::1",), ("nosuch.invalid",), (None,)],
    "gethostbyaddr": [("127.0.0.1",), ("::1",), ("localhost",), ("nosuch.invalid",), (None,)],
    "getfqdn": [(), ("",), ("0.0.0.0",), ("::",), ("127.0.0.1",), ("nosuch.invalid",)],
    "getnameinfo": [
        (("127.0.0.1", 80), NUMERIC),
        (("127.0.0.1", 80), 0),
        (("127.0.0.1", 70000), NUMERIC),
        (("fe80::1", 80, 0, 1), NUMERIC),
        (("::1", 80), NI_NUMERICHOST),
        (["127.0.0.1", 80], 0),
        (("127.0.0.1", 80, 0, 0), NUMERIC),
        (("::1", 80, 2**21, 0), NUMERIC),
        (("::1", 80, 2**21, 0), 0),
        (("nosuch.invalid", 80), NUMERIC),
        (("localhost", 80), 0),
        (("127.0.0.1",), NUMERIC),
        (("127.0.0.1", "x"), 0),
        (("127.0.0.1", 80), "x"),
    ],
    "getservbyname": [("http",), ("http", "tcp"), ("nosuch",), ("http", "nosuch"), (5,)],
    "getservbyport": [(80,), (80, "tcp"), (80, "nosuch"), (65536,), (-1,), ("x",)],
    "getprotobyname": [("tcp",), ("udp",), ("nosuch",), (6,)],
}


@pytest.mark.parametrize("name", SAME)
async def test_every_lookup_gives_what_the_stdlib_gives(ours: Face, name: str) -> None:
    for arguments in SAME[name]:
        assert await awaited(ours, name, *arguments) == outcome(name, *arguments), arguments


REFUSED: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("getaddrinfo", ("127.0.0.1", True), OSError, "Int or String expected"),
    ("getaddrinfo", ("127.0.0.1", 1.5), OSError, "Int or String expected"),
    ("getnameinfo", ((), 0), TypeError, "getnameinfo(): illegal sockaddr argument"),
    ("getnameinfo", (["::1", 1], 0), TypeError, "getnameinfo() argument 1 must be a tuple"),
    ("getnameinfo", (("127.0.0.1", 1, 0, 0), 0), OSError, "IPv4 sockaddr must be 2 tuple"),
    ("getservbyname", ("nosuch",), OSError, "service/proto not found"),
    ("getservbyport", (80, "nosuch"), OSError, "port/proto not found"),
    ("getservbyport", (65536,), OverflowError, "getservbyport: port must be 0-65535."),
    ("getprotobyname", ("nosuch",), OSError, "protocol not found"),
]


async def test_what_is_refused_is_refused_in_these_words(net: Face) -> None:
    for name, arguments, error, text in REFUSED:
        with pytest.raises(error) as caught:
            await getattr(net, name)(*arguments)
        assert (type(caught.value), str(caught.value)) == (error, text), arguments


@pytest.mark.parametrize("name", ["gethostbyname", "gethostbyname_ex"])
async def test_an_unknown_host(net: Face, name: str) -> None:
    with pytest.raises(aiosock.gaierror):
        await getattr(net, name)("nosuch.invalid")


@pytest.mark.parametrize("name", ["getaddrinfo", "gethostbyname"])
async def test_an_overlong_label_is_no_lookup_error(net: Face, name: str) -> None:
    more = (80,) if name == "getaddrinfo" else ()
    with pytest.raises(UnicodeError, match="too long"):
        await getattr(net, name)(LONG_LABEL, *more)


async def test_getaddrinfo_takes_names(net: Face) -> None:
    found = await net.getaddrinfo(
        host="127.0.0.1", port=80, family=AF_INET, type=SOCK_STREAM, proto=6, flags=AI_PASSIVE
    )
    assert found == [(AF_INET, SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
    family, kind, *_ = found[0]
    assert (type(family), type(kind)) == (aiosock.AddressFamily, aiosock.SocketKind)


@pytest.mark.parametrize("host", ["", b"", None])
@pytest.mark.parametrize("flags", [0, AI_PASSIVE])
async def test_an_empty_host_means_none(ours: Face, host: Any, flags: int) -> None:
    found = await ours.getaddrinfo(host, 80, 0, SOCK_STREAM, 0, flags)
    assert found == _stdlib.getaddrinfo(None, 80, 0, SOCK_STREAM, 0, flags)


async def test_an_empty_port_means_none(ours: Face) -> None:
    assert await ours.getaddrinfo("127.0.0.1", "") == _stdlib.getaddrinfo("127.0.0.1", None)
    for host in ("", None):
        with pytest.raises(aiosock.gaierror):
            await ours.getaddrinfo(host, "")


# --- lookups that hang --------------------------------------------------------------


class Stuck:
    """A ``socket.getaddrinfo`` that answers when it is let go."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.asking = threading.Semaphore(0)
        self.go = threading.Event()
        self.error: Exception | None = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.asked.append(args[0])
        self.asking.release()
        self.go.wait(20)
        if self.error is not None:
            raise self.error
        return [(AF_INET, SOCK_STREAM, 6, "", ("127.0.0.1", args[1] or 0))]

    async def begun(self, count: int = 1) -> None:
        for _ in range(count):
            async with asyncio.timeout(5):
                while not self.asking.acquire(blocking=False):  # noqa: ASYNC110  # a thread tells
                    await asyncio.sleep(0.001)


@contextlib.contextmanager
def no_names_thread_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "aiosock-names":
            thread.join(5)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    lookup = Stuck()
    monkeypatch.setattr(_stdlib, "getaddrinfo", lookup)
    with no_names_thread_left():
        try:
            yield lookup
        finally:
            lookup.go.set()


@pytest.mark.parametrize("host", ["576\0..>x8", "127.0.0.1\0..x", "0" * 70 + "1", "1..2"])
async def test_what_the_codec_of_names_refuses_is_no_number(ours: Face, host: str) -> None:
    with pytest.raises((UnicodeError, _stdlib.gaierror)) as theirs:
        _stdlib.getaddrinfo(host, 80)
    with pytest.raises(type(theirs.value)):
        await ours.getaddrinfo(host, 80)


async def test_a_replaced_getaddrinfo_is_used(ours: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = [(AF_INET, SOCK_STREAM, 6, "", ("192.0.2.7", 1))]
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args, **named: made_up)
    assert await ours.getaddrinfo("name.test", 1) == made_up


async def test_the_loop_turns_during_a_lookup(stuck: Stuck) -> None:
    lookup = asyncio.create_task(aiosock.getaddrinfo("name.test", 80))
    await stuck.begun()
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not lookup.done()
    stuck.go.set()
    assert (await lookup)[0][4] == ("127.0.0.1", 80)
    assert stuck.asked == ["name.test"]


async def test_numeric_addresses_do_not_wait_behind_lookups(ours: Face, stuck: Stuck) -> None:
    lookups = [asyncio.create_task(aiosock.getaddrinfo(f"n{n}.test", 80)) for n in range(40)]
    await stuck.begun(2)
    async with asyncio.timeout(5):
        assert (await ours.getaddrinfo("127.0.0.1", 80))[0][4] == ("127.0.0.1", 80)
        assert await ours.getnameinfo(("127.0.0.1", 80), NUMERIC) == ("127.0.0.1", "80")
        await ours.socket().connect((await ours.listener()).getsockname())
    assert not any(lookup.done() for lookup in lookups)
    stuck.go.set()
    assert len(await asyncio.gather(*lookups)) == 40
    assert len(stuck.asked) == 40


async def test_slow_lookups_take_a_bounded_number_of_threads(stuck: Stuck) -> None:
    lookups = [asyncio.create_task(aiosock.getaddrinfo(f"n{n}.test", 80)) for n in range(40)]
    await stuck.begun(2)
    await asyncio.sleep(0.05)
    names = [thread.name for thread in threading.enumerate()]
    assert 2 <= names.count("aiosock-names") <= 16
    stuck.go.set()
    await asyncio.gather(*lookups)


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads that wait so long for the next lookup that a busy machine is in time."""
    monkeypatch.setattr(_names, "MOMENT", 0.3)
    with no_names_thread_left():
        yield


@pytest.mark.usefixtures("lasting")
async def test_one_thread_serves_lookups_that_follow_each_other(
    ours: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = list[threading.Thread]()  # their numbers are used again

    def look_up(name: str) -> str:
        threads.append(threading.current_thread())
        return name

    monkeypatch.setattr(_stdlib, "gethostbyname", look_up)
    for _ in range(8):
        await ours.gethostbyname("name.test")
    assert len(set(threads)) < len(threads) == 8


@pytest.mark.usefixtures("lasting")
async def test_no_lookup_waits_behind_a_slow_one_for_the_thread_that_is_left(stuck: Stuck) -> None:
    assert await aiosock.gethostbyname("localhost")  # its thread is left
    slow = [asyncio.create_task(aiosock.getaddrinfo(f"n{n}.test", 80)) for n in range(3)]
    await stuck.begun(3)
    async with asyncio.timeout(5):
        assert await aiosock.gethostbyname("localhost")
    assert not any(lookup.done() for lookup in slow)
    stuck.go.set()
    await asyncio.gather(*slow)


async def test_lookups_leave_the_default_executor_alone(stuck: Stuck) -> None:
    lookups = [asyncio.create_task(aiosock.getaddrinfo(f"n{n}.test", 80)) for n in range(40)]
    await stuck.begun(2)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: 5) == 5
    stuck.go.set()
    await asyncio.gather(*lookups)


async def test_no_lookup_reads_the_answer_of_another(ours: Face) -> None:
    """The stdlib's functions do, in threads: the system has one place for all of them."""
    asked = {"http": 80, "ssh": 22, "domain": 53}
    for _ in range(20):
        found = await asyncio.gather(*(ours.getservbyname(name) for name in [*asked] * 40))
        assert found == [*asked.values()] * 40


@pytest.mark.parametrize("error", [None, aiosock.gaierror(-2, "late")])
async def test_a_cancelled_lookup_returns_at_once(stuck: Stuck, error: Exception | None) -> None:
    """What it would have given is dropped without a word."""
    words: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: words.append(told))
    lookup = asyncio.create_task(aiosock.getaddrinfo("name.test", 80))
    await stuck.begun()
    lookup.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await lookup
    stuck.error = error
    stuck.go.set()
    await asyncio.sleep(0.05)
    assert words == []


async def test_a_cancelled_lookup_that_is_queued_is_not_made(stuck: Stuck) -> None:
    lookups = [asyncio.create_task(aiosock.getaddrinfo(f"n{n}.test", 80)) for n in range(40)]
    await stuck.begun(2)
    await asyncio.sleep(0.02)
    for lookup in lookups:
        lookup.cancel()
    await asyncio.gather(*lookups, return_exceptions=True)
    stuck.go.set()
    assert await aiosock.getaddrinfo("last.test", 80)
    assert len(stuck.asked) <= 17


@pytest.mark.parametrize(
    "name",
    "gethostbyname gethostbyname_ex gethostbyaddr getfqdn getservbyname getservbyport "
    "getprotobyname getnameinfo".split(),
)
async def test_no_lookup_holds_the_loop_up(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    go, main = threading.Event(), threading.get_ident()

    def slow(*args: Any) -> Any:
        assert threading.get_ident() != main
        go.wait(20)
        return ("a", "b") if name == "getnameinfo" else 7

    monkeypatch.setattr(_stdlib, name, slow)
    arguments: tuple[Any, ...] = (("127.0.0.1", 80), 0) if name == "getnameinfo" else ("x",)
    lookup = asyncio.create_task(getattr(aiosock, name)(*arguments))
    await asyncio.sleep(0.01)
    assert not lookup.done()
    go.set()
    with no_names_thread_left():
        assert str(await lookup) in ("7", "('a', 'b')")


def test_a_stuck_lookup_does_not_hold_up_the_end_of_the_loop(stuck: Stuck) -> None:
    async def main() -> None:
        lookup = asyncio.create_task(aiosock.getaddrinfo("name.test", 80))
        await stuck.begun()
        assert not lookup.done()

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10
    stuck.go.set()  # and the answer for the closed loop is dropped


def test_a_stuck_lookup_does_not_hold_up_the_end_of_the_interpreter() -> None:
    program = """
        import asyncio, socket, threading, time
        import aiosock

        begun = threading.Event()

        def stuck(*args):
            begun.set()
            time.sleep(60)

        async def main():
            socket.getaddrinfo = stuck
            names = [f"n{n}.test" for n in range(40)]
            lookups = [asyncio.create_task(aiosock.getaddrinfo(name, 80)) for name in names]
            while not begun.is_set():
                await asyncio.sleep(0.001)
            print("over", flush=True)

        asyncio.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (found.returncode, found.stdout, found.stderr) == (0, "over\n", "")


def test_a_forked_child_looks_names_up_although_its_parent_is_stuck() -> None:
    """The parent's threads do not exist in the child; it must not queue behind them."""
    program = """
        import asyncio, os, socket, sys, threading, time
        import aiosock

        begun = threading.Semaphore(0)

        def stuck(*args):
            begun.release()
            time.sleep(60)

        def at_once(*args):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 1))]

        async def busy():
            socket.getaddrinfo = stuck
            names = [f"n{n}.test" for n in range(40)]
            lookups = [asyncio.create_task(aiosock.getaddrinfo(name, 1)) for name in names]
            for _ in range(16):
                while not begun.acquire(blocking=False):
                    await asyncio.sleep(0.001)
            for lookup in lookups:
                lookup.cancel()

        async def child():
            socket.getaddrinfo = at_once
            async with asyncio.timeout(5):
                found = await aiosock.getaddrinfo("name.test", 1)
            return 0 if found == at_once() else 1

        asyncio.run(busy())
        pid = os.fork()
        if not pid:
            status = 2
            try:
                status = asyncio.run(child())
            finally:
                os._exit(status)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert found.returncode == 0, found.stderr


# --- names in socket addresses ------------------------------------------------------


async def test_the_timeout_of_connect_bounds_the_lookup(stuck: Stuck) -> None:
    with aiosock.socket() as sock:
        sock.settimeout(0.05)
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError) as caught:
                await sock.connect(("name.test", 9))
        assert caught.value.args == ("timed out",)
        assert await sock.connect_ex(("name.test", 9)) == errno.EAGAIN


async def test_the_timeout_of_connect_is_for_lookup_and_connection_together() -> None:
    class Slow(Book):
        async def getaddrinfo(self, *args: Any) -> Any:
            await asyncio.sleep(0.5)
            return await super().getaddrinfo(*args)

    with aiosock.socket(aiosock.AF_INET) as full, using(Slow()), contextlib.ExitStack() as opened:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        for _ in range(4):  # fill its queue, so that the next is not answered
            filler = opened.enter_context(aiosock.socket())
            filler.setblocking(False)
            await filler.connect_ex(("127.0.0.1", port))
        sock = opened.enter_context(aiosock.socket())
        sock.settimeout(0.6)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await sock.connect(("name.test", port))
        assert time.monotonic() - began < 1.0  # a second span would end at 1.1


async def test_close_wakes_a_connect_that_looks_a_name_up(stuck: Stuck) -> None:
    with aiosock.socket() as sock:
        connecting = [
            asyncio.create_task(sock.connect(("name.test", 9))),
            asyncio.create_task(sock.connect_ex(("name.test", 9))),
            asyncio.create_task(sock.bind(("name.test", 0))),
        ]
        await stuck.begun()
        await asyncio.sleep(0.01)
        sock.close()
        for task in connecting:
            async with asyncio.timeout(5):
                with pytest.raises(OSError, match="Bad file descriptor") as caught:
                    await task
            assert caught.value.errno == errno.EBADF


async def test_a_cancelled_connect_leaves_the_lookup(stuck: Stuck) -> None:
    with aiosock.socket() as sock:
        connecting = asyncio.create_task(sock.connect(("name.test", 9)))
        await stuck.begun()
        connecting.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await connecting
        assert sock.fileno() >= 0


async def test_an_unknown_host_is_raised_by_connect_ex_too(net: Face) -> None:
    with pytest.raises(aiosock.gaierror):
        await net.socket().connect_ex(("nosuch.invalid", 9))


# --- a resolver of one's own --------------------------------------------------------


class Book:
    """A resolver with names of its own, which remembers what it was asked."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[Any] = []

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int, /
    ) -> list[Any]:
        self.asked.append(host)
        await asyncio.sleep(0)
        address = self.hosts.get(host.split(".")[0], "127.0.0.1")
        kind = family or AF_INET
        rest = (0, 0) if kind == AF_INET6 else ()
        return [
            (kind, type or SOCK_STREAM, proto, "", (found, port or 0, *rest))
            for found in address.split()
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        self.asked.append(sockaddr)
        return "name.test", "service"


@contextlib.contextmanager
def using(resolver: aiosock.Resolver) -> Iterator[None]:
    aiosock.set_resolver(resolver)
    try:
        yield
    finally:
        aiosock.set_resolver(None)


@pytest.fixture
def book() -> Iterator[Book]:
    resolver = Book()
    with using(resolver):
        yield resolver


async def test_a_resolver_is_asked_by_the_functions(ours: Face, book: Book) -> None:
    assert await ours.getaddrinfo("name.test", 80) == [
        (AF_INET, SOCK_STREAM, 0, "", ("127.0.0.1", 80))
    ]
    assert await ours.getnameinfo(("127.0.0.1", 80), 0) == ("name.test", "service")
    assert book.asked == ["name.test", ("127.0.0.1", 80)]


async def bind(sock: Any, host: Any, peer: Any) -> None:
    await sock.bind((host, 0))


async def connect(sock: Any, host: Any, peer: Any) -> None:
    await sock.connect((host, *peer[1:]))


async def connect_ex(sock: Any, host: Any, peer: Any) -> None:
    assert await sock.connect_ex((host, *peer[1:])) == 0


async def sendto(sock: Any, host: Any, peer: Any) -> None:
    assert await sock.sendto(b"data", (host, *peer[1:])) == 4


async def sendto_with_flags(sock: Any, host: Any, peer: Any) -> None:
    assert await sock.sendto(b"data", 0, (host, *peer[1:])) == 4


async def sendmsg(sock: Any, host: Any, peer: Any) -> None:
    assert await sock.sendmsg([b"da", b"ta"], [], 0, (host, *peer[1:])) == 4


Use = Callable[[Any, Any, Any], Awaitable[None]]
USES: list[Use] = [bind, connect, connect_ex, sendto, sendto_with_flags, sendmsg]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("family", "host"), [(AF_INET, "127.0.0.1"), (AF_INET6, "::1")])
async def test_a_resolver_is_asked_for_names_in_addresses(
    ours: Face, book: Book, use: Use, family: int, host: str
) -> None:
    book.hosts["name"] = host
    with ours.socket(family, SOCK_DGRAM) as peer, ours.socket(family, SOCK_DGRAM) as sock:
        await peer.bind((host, 0))
        await use(sock, "name.test", peer.getsockname())
        assert book.asked == ["name.test"]
        if use.__name__.startswith("send"):
            assert await peer.recv(9) == b"data"
        elif use is bind:
            assert sock.getsockname()[0] == host
        else:
            assert sock.getpeername()[:2] == peer.getsockname()[:2]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", [b"name.test", bytearray(b"name.test"), "n\xe4me.test"])
async def test_a_name_may_have_other_types(ours: Face, book: Book, use: Use, name: Any) -> None:
    with ours.socket(type=SOCK_DGRAM) as peer, ours.socket(type=SOCK_DGRAM) as sock:
        await peer.bind(("127.0.0.1", 0))
        await use(sock, name, peer.getsockname())
    assert book.asked == ["xn--nme-qla.test" if isinstance(name, str) else "name.test"]


@pytest.mark.parametrize("use", USES)
async def test_a_resolver_is_not_asked_for_numbers(ours: Face, book: Book, use: Use) -> None:
    for host in ("127.0.0.1", "127.1", b"127.0.0.1", bytearray(b"127.0.0.1"), "0x7f.1"):
        with ours.socket(type=SOCK_DGRAM) as peer, ours.socket(type=SOCK_DGRAM) as sock:
            await peer.bind(("127.0.0.1", 0))
            await use(sock, host, peer.getsockname())
    assert book.asked == []


async def test_a_resolver_is_not_asked_for_special_hosts(ours: Face, book: Book) -> None:
    with ours.socket(type=SOCK_DGRAM) as sock:
        await sock.bind(("", 0))
        assert sock.getsockname()[0] == "0.0.0.0"
        with pytest.raises(PermissionError):
            await sock.sendto(b"", ("<broadcast>", 9))
    with ours.socket(AF_INET6, SOCK_DGRAM) as sock:
        await sock.bind(("", 0))
        assert sock.getsockname()[0] == "::"
    assert await ours.getaddrinfo("127.0.0.1", 80)
    assert await ours.getaddrinfo(None, 80)
    assert await ours.getnameinfo(("127.0.0.1", 80), NUMERIC) == ("127.0.0.1", "80")
    assert book.asked == []


async def test_a_numeric_address_of_the_other_family_is_refused_without_asking(
    ours: Face, book: Book
) -> None:
    for family, host in [(AF_INET, "::1"), (AF_INET6, "127.0.0.1")]:
        with ours.socket(family) as sock:
            with pytest.raises(aiosock.gaierror) as caught:
                await sock.connect((host, 9))
            assert caught.value.errno == _stdlib.EAI_ADDRFAMILY
    assert book.asked == []


async def test_a_name_without_an_address_has_failed(ours: Face) -> None:
    with using(Book(name="")), ours.socket() as sock:
        assert await ours.getaddrinfo("name.test", 80) == []
        for work in (sock.connect(("name.test", 9)), sock.bind(("name.test", 0))):
            with pytest.raises(OSError, match="(?m)^getaddrinfo returns an empty list$"):
                await work


async def test_the_first_address_of_a_name_is_used(ours: Face) -> None:
    with using(Book(name="127.0.0.2 127.0.0.3")), ours.socket() as sock:
        await sock.bind(("name.test", 0))
        assert sock.getsockname()[0] == "127.0.0.2"


async def test_create_connection_asks_for_each_family_and_tries_in_order(ours: Face) -> None:
    resolver = Book(name="127.0.0.2 127.0.0.1")
    with using(resolver), ours.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with ours.keep(await ours.create_connection(("name.test", port))) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
    assert resolver.asked == ["name.test"] * 2


async def test_create_connection_without_an_address(ours: Face) -> None:
    with (
        using(Book(name="")),
        pytest.raises(OSError, match="^getaddrinfo returns an empty list$"),
    ):
        await ours.create_connection(("name.test", 9))


async def test_create_server_asks_the_resolver(ours: Face, book: Book) -> None:
    with ours.keep(await ours.create_server(("name.test", 0))) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    assert book.asked == ["name.test"]


async def test_an_error_of_the_resolver_comes_out(ours: Face) -> None:
    class Broken(Book):
        async def getaddrinfo(self, *args: Any) -> Any:
            raise aiosock.gaierror(-3, "try again")

    with using(Broken()), ours.socket() as sock:
        for work in (
            ours.getaddrinfo("name.test", 80),
            sock.connect(("name.test", 80)),
            sock.connect_ex(("name.test", 80)),
            sock.bind(("name.test", 80)),
            ours.create_connection(("name.test", 80)),
        ):
            with pytest.raises(aiosock.gaierror, match="try again") as caught:
                await work
            assert caught.value.errno == -3


async def test_none_restores_the_resolver_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()
    aiosock.set_resolver(book)
    aiosock.set_resolver(None)
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args, **named: [])
    assert await aiosock.getaddrinfo("name.test", 80) == []
    assert book.asked == []


async def test_a_bad_resolver_is_refused_and_the_old_one_stays(ours: Face, book: Book) -> None:
    class Half:
        async def getaddrinfo(self, *args: Any) -> Any: ...

    for bad, missing in [(object(), "getaddrinfo"), (Half(), "getnameinfo"), (5, "getaddrinfo")]:
        with pytest.raises(TypeError, match=f"has no {missing}$"):
            ours.set_resolver(bad)
    await ours.getaddrinfo("name.test", 80)
    assert book.asked == ["name.test"]


async def test_wrong_addresses_with_a_name_are_refused_without_asking(
    ours: Face, book: Book
) -> None:
    with ours.socket(type=SOCK_DGRAM) as sock:
        for address in [("name.test", "9"), ("name.test", 9, 0), ("name.test", 1.5)]:
            for work in (sock.connect(address), sock.bind(address), sock.sendto(b"", address)):
                with pytest.raises(TypeError):
                    await work
    assert book.asked == []


async def test_a_name_is_looked_up_before_the_port_is_judged(net: Face) -> None:
    with pytest.raises(aiosock.gaierror):
        await net.socket().connect(("nosuch.invalid", 70000))
    with pytest.raises(OverflowError) as caught:
        await net.socket().connect(("localhost", 70000))
    assert str(caught.value) == "connect(): port must be 0-65535."


async def test_the_scope_in_the_address_is_kept(ours: Face) -> None:
    index = aiosock.if_nametoindex("lo")
    with using(Book(name="::1")), ours.socket(AF_INET6, SOCK_DGRAM) as sock:
        await sock.bind(("name.test", 0, 0, index))
        assert sock.getsockname()[0] == "::1"
        with pytest.raises(OverflowError, match="flowinfo must be 0-1048575"):
            await sock.connect(("name.test", 9, 2**20, 0))


async def test_an_error_that_nobody_awaits_any_more_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = asyncio.get_running_loop().create_future()
    _names._set_exception(answer, OSError("of nobody's interest"))
    del answer
    gc.collect()
    assert caplog.records == []


async def test_localhost_is_known(net: Face) -> None:
    sock = net.socket()
    await sock.bind(("localhost", 0))
    assert sock.getsockname()[0] == "127.0.0.1"


async def test_a_resolver_holds_for_every_loop_and_thread(book: Book) -> None:
    found = await asyncio.to_thread(lambda: asyncio.run(aiosock.getaddrinfo("name.test", 80)))
    assert found[0][4] == ("127.0.0.1", 80)
    assert book.asked == ["name.test"]


async def test_lookup_and_sending_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float | None] = []
    errand, complete = Readiness.errand, Direction.complete

    async def recorded_errand(self: Readiness, work: Any, deadline: float | None) -> Any:
        deadlines.append(deadline)
        return await errand(self, work, deadline)

    def recorded(self: Direction, deadline: float | None, *args: Any) -> Any:
        deadlines.append(deadline)
        return complete(self, deadline, *args)

    monkeypatch.setattr(Readiness, "errand", recorded_errand)
    monkeypatch.setattr(Direction, "complete", recorded)
    with aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        assert await sock.sendto(b"x", ("localhost", 9)) == 1
        assert await sock.sendmsg([b"x"], (), 0, ("localhost", 9)) == 1
    first, second, third, fourth = deadlines
    assert first is not None
    assert (first, third) == (second, fourth)
