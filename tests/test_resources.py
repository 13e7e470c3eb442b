"""What is scarce: descriptors, memory, threads for lookups, and many connections at once.

What fails for want of something raises the system's error, has lost nothing and leaves
nothing, and works when there is some again.  Nothing grows with the number of connections
that have been.

The numbers are small enough for every run.  ``AIOSOCK_RESOURCES=50 pytest
tests/test_resources.py`` has a hundred thousand connections in sequence on each loop, fifty
thousand of threads, and `tests/soak.py` mixes all kinds of load for as long as it is told to.
"""

import asyncio
import errno
import gc
import os
import resource
import shutil
import socket as _stdlib
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import soak
from blocking import HELLO, ended, in_thread, pair
from conftest import LOOPS
from faces import LIMIT, Face, open_descriptors
from secured import HOST, serving, trusting

import aiosock
import aiosock_sync
from aiosock import _names, _serving

TIMES = int(os.environ.get("AIOSOCK_RESOURCES", "1"))
LOOPBACK = "127.0.0.1", 0
WITH_OURS = {**os.environ, "PYTHONPATH": str(Path(aiosock.__file__).parents[1])}


# --- descriptors ------------------------------------------------------------------------------


@contextmanager
def so_many_more_descriptors(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    for number in free:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Make = Callable[[Face, Any, Any], Any]  # of a face, a listener to which a client connects, a socket
MAKERS: dict[str, tuple[int, Make]] = {  # how many descriptors it needs, and what it is
    "socket": (1, lambda face, listener, sock: face.socket()),
    "dup": (1, lambda face, listener, sock: sock.dup()),
    "fromfd": (1, lambda face, listener, sock: face.fromfd(sock.fileno(), sock.family, sock.type)),
    "socketpair": (2, lambda face, listener, sock: face.socketpair()),
    "accept": (1, lambda face, listener, sock: listener.accept()),
    "create_server": (1, lambda face, listener, sock: face.create_server(LOOPBACK)),
    "create_connection": (
        1,
        lambda face, listener, sock: face.create_connection(listener.getsockname()),
    ),
}


async def outcome_of(made: Any) -> list[Any]:
    """The sockets that were made."""
    made = await made if isinstance(made, Awaitable) else made
    return [
        sock for sock in (made if isinstance(made, tuple) else (made,)) if hasattr(sock, "close")
    ]


@pytest.mark.parametrize("name", MAKERS)
async def test_without_a_descriptor_nothing_is_made_and_later_it_is(net: Face, name: str) -> None:
    needed, make = MAKERS[name]
    listener, (one, _) = await net.listener(), await net.tcp_pair()
    client = net.socket()
    await client.connect(listener.getsockname())
    await asyncio.to_thread(lambda: None)  # its threads have what they need
    before = open_descriptors(queues=True)
    for spare in range(needed):
        with so_many_more_descriptors(spare), pytest.raises(OSError, match="Too many") as refused:
            await outcome_of(make(net, listener, one))
        assert refused.value.errno == errno.EMFILE
        gc.collect()
        assert open_descriptors(queues=True) <= before
    async with asyncio.timeout(LIMIT):
        for sock in await outcome_of(make(net, listener, one)):
            sock.close()


# The call that the kernel refuses, which one of its kind in the program, and what calls it.
FULL_TABLE: dict[str, tuple[str, int, str]] = {
    "socket": ("socket", 2, "face.socket(face.AF_INET)"),
    "accept": ("accept4", 1, "listener.accept()"),
    "create_server": ("socket", 2, "face.create_server(('127.0.0.1', 0))"),
    "create_connection": ("socket", 2, "face.create_connection(listener.getsockname())"),
}
PROGRAM = """
import asyncio, errno, gc, inspect, os, socket, {face} as face

async def made(value):
    value = await value if inspect.isawaitable(value) else value
    (value[0] if isinstance(value, tuple) else value).close()

async def main():
    with face.create_server(("127.0.0.1", 0)) if {blocking} else await face.create_server(
        ("127.0.0.1", 0)
    ) as listener:
        before = len(os.listdir("/proc/self/fd"))
        try:
            await made({call})
        except OSError as error:
            assert error.errno == errno.ENFILE, error
        else:
            raise AssertionError("it was not refused")
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor is left"
        with {client}:
            await made({call})

asyncio.run(main())
"""


@pytest.mark.parametrize("face", ["aiosock", "aiosock_sync"])
@pytest.mark.parametrize("name", FULL_TABLE)
def test_a_system_that_has_no_more_files_is_told_of_and_the_next_try_succeeds(
    name: str, face: str
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace, which has the kernel refuse a call, is not installed")
    refused, which, call = FULL_TABLE[name]
    client = "socket.create_connection(listener.getsockname())" if name == "accept" else "listener"
    program = PROGRAM.format(face=face, call=call, client=client, blocking=face == "aiosock_sync")
    inject = f"inject={refused}:error=ENFILE:when={which}"
    command = [strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={refused}", "-e", inject]
    may = subprocess.run([*command, "true"], capture_output=True, timeout=50, check=False)
    if may.returncode:
        pytest.skip(f"strace may not trace: {may.stderr.decode()}")
    done = subprocess.run(
        [*command, sys.executable, "-Werror", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=WITH_OURS,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_descriptors_that_cannot_be_received_are_told_and_none_leaks(ours: Face) -> None:
    one, other = ours.socketpair()
    numbers = [os.dup(0) for _ in range(3)]
    await ours.send_fds(one, [b"x"], numbers)
    for number in numbers:
        os.close(number)
    before = open_descriptors()
    with so_many_more_descriptors(1):
        data, got, flags, _ = await ours.recv_fds(other, 10, 3)
    assert (data, len(got), flags & _stdlib.MSG_CTRUNC) == (b"x", 1, _stdlib.MSG_CTRUNC)
    os.close(got[0])
    assert open_descriptors() == before


async def test_files_and_tls_need_no_descriptor(net: Face) -> None:
    one, other = await net.tcp_pair()
    with so_many_more_descriptors(0):
        file = one.makefile("rb", 0)
        await other.sendall(HELLO)
        assert await file.read(5) == HELLO
        await file.close()


async def test_a_handshake_needs_no_descriptor() -> None:
    """But for what the contexts read, which are made before."""
    listener = await aiosock.create_server(LOOPBACK)
    client, context, hidden = aiosock.socket(), trusting(), serving()
    HOST.encode("idna")  # Python reads a file for it, once
    with listener, client:
        await client.connect(listener.getsockname())
        conn, _ = await listener.accept()
        with so_many_more_descriptors(0):
            ours, theirs = await asyncio.gather(
                client.start_tls(context, server_hostname=HOST),
                conn.start_tls(hidden, server_side=True),
            )
            with ours, theirs:
                await ours.sendall(HELLO)
                assert await theirs.recv(10) == HELLO


WAITING: dict[str, Callable[[Any], Any]] = {
    "recv": lambda sock: sock.recv(1),
    "wait_readable": lambda sock: sock.wait_readable(),
    "sendall": lambda sock: sock.sendall(bytes(10**7)),
    "a function": lambda sock: aiosock_sync.call(asyncio.sleep, 0),
    "a lookup": lambda sock: aiosock_sync.getaddrinfo("localhost", 80),
}


@pytest.mark.parametrize("spare", range(3))
@pytest.mark.parametrize("name", WAITING)
def test_a_thread_that_cannot_have_a_loop_is_told_and_later_has_one(
    name: str, spare: int, stack: ExitStack
) -> None:
    """A loop takes three; of those that there are none is kept."""
    one, other = pair(stack)
    one.settimeout(0.01)
    with so_many_more_descriptors(spare):
        error = ended(*in_thread(lambda: WAITING[name](one)))
    assert (type(error), error.errno) == (OSError, errno.EMFILE)
    if name == "sendall":
        assert len(other.recv(10**7)) > 0
    gc.collect()
    later = ended(*in_thread(lambda: WAITING[name](one)))
    assert not isinstance(later, Exception) or isinstance(later, TimeoutError)


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_loop_without_a_queue_is_told_and_later_has_one(loop_name: str, stack: ExitStack) -> None:
    """Ours: the loop's own it has."""

    async def main() -> None:
        one, other = aiosock.socketpair()
        with one, other:
            with so_many_more_descriptors(0), pytest.raises(OSError, match="Too many open files"):
                await one.recv(1)
            waiting = asyncio.create_task(one.recv(1))
            await asyncio.sleep(0)
            await other.sendall(b"x")
            assert await waiting == b"x"

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())


@contextmanager
def counted_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What each attempt to accept that failed had as its answer."""
    monkeypatch.setattr(_serving, "PAUSE", 0.05)
    real, pauses = _serving.Triage.pause_after, list[float]()

    def pause_after(triage: _serving.Triage, error: OSError) -> float:
        pauses.append(real(triage, error))
        return pauses[-1]

    monkeypatch.setattr(_serving.Triage, "pause_after", pause_after)
    yield pauses


def does_not_spin(pauses: list[float], begun: float, busy: float) -> None:
    assert set(pauses) == {0.05}
    assert len(pauses) <= 2 + (time.monotonic() - begun) / 0.05
    assert time.process_time() - busy < (time.monotonic() - begun) / 2


async def echo(conn: Any, peer: Any) -> None:
    while data := await conn.recv(100):
        await conn.sendall(data)


def blocking_echo(conn: Any, peer: Any) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


async def test_a_server_without_descriptors_does_not_spin_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with aiosock.serve(echo, LOOPBACK) as server:
        await asyncio.sleep(0.01)  # the loop has its queue
        with aiosock.socket() as sock, counted_pauses(monkeypatch) as pauses:
            with so_many_more_descriptors(0):
                begun, busy = time.monotonic(), time.process_time()
                await sock.connect(server.sockets[0].getsockname())
                await sock.sendall(HELLO)
                await asyncio.sleep(0.4)
                does_not_spin(pauses, begun, busy)
            async with asyncio.timeout(LIMIT):
                assert await sock.recv(10) == HELLO


def test_nor_does_one_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        aiosock_sync.serve(blocking_echo, LOOPBACK) as server,
        aiosock_sync.socket() as sock,
        counted_pauses(monkeypatch) as pauses,
    ):
        time.sleep(0.05)  # the acceptor has its loop
        with so_many_more_descriptors(0):
            begun, busy = time.monotonic(), time.process_time()
            sock.connect(server.sockets[0].getsockname())
            sock.sendall(HELLO)
            time.sleep(0.4)
            does_not_spin(pauses, begun, busy)
        with aiosock_sync.fail_after(LIMIT):
            assert sock.recv(10) == HELLO
        sock.close()


# --- memory -----------------------------------------------------------------------------------

NO_MEMORY = """
import _testcapi, gc, os, sys, threading
import socket as stdlib
import aiosock_sync

def without(number, call):  # the outcome of a call whose number-th allocation fails
    outcome = error = None
    _testcapi.set_nomemory(number, number + 1)
    try:
        outcome = call()
    except BaseException as raised:
        error = type(raised)
    finally:
        _testcapi.remove_mem_hooks()
    # CPython says SystemError or RuntimeError where it had no memory for what it would say
    assert error in (None, MemoryError, SystemError, RuntimeError, TimeoutError), error
    return outcome

def open_now():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

def talks(one, other):
    one.settimeout(5)
    sending = threading.Timer(0.001, lambda: other.sendall(b"again"))
    sending.start()
    assert one.recv(5, stdlib.MSG_WAITALL) == b"again"
    sending.join()

def rest(sock):
    sock.settimeout(0)
    try:
        return sock.recv(2000)
    except BlockingIOError:
        return b""

def recv(number, module):
    one, other = module.socketpair()
    with one, other:
        other.sendall(b"hello")
        got = without(number, lambda: one.recv(10)) or rest(one)
        talks(one, other)
        return got == b"hello"

def wait(number, module):
    one, other = module.socketpair()
    with one, other:
        one.settimeout(0.001)
        without(number, lambda: one.recv(10))
        talks(one, other)
        return True

def recvmsg(number, module):
    one, other = module.socketpair()
    with one, other:
        stdlib.send_fds(other, [b"hello"], [0])
        got = without(number, lambda: one.recvmsg(10, 100))
        for _, _, fd in got[1] if got else ():
            os.close(int.from_bytes(fd, sys.byteorder))
        kept = got or rest(one)
        talks(one, other)
        return bool(kept)

def sendall(number, module):
    one, other = module.socketpair()
    with one, other:
        without(number, lambda: one.sendall(b"x" * 1000))
        assert len(rest(other)) in (0, 1000)
        other.settimeout(None)
        talks(one, other)
        return True

def makefile(number, module):
    one, other = module.socketpair()
    def read():
        with one.makefile("rb") as file:
            return file.read(5)
    with one, other:
        other.sendall(b"hello")
        without(number, read)
        one._io_refs = 0  # a file that is half made counts for ever, with any socket
    return one.fileno() == other.fileno() == -1

def accept(number, module):
    with module.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        for call in (lambda: without(number, listener.accept), listener.accept):
            with stdlib.create_connection(listener.getsockname()):
                made = call()
                if made:
                    made[0].close()
        return True

def connect(number, module):
    with stdlib.create_server(("127.0.0.1", 0)) as listener, module.socket() as sock:
        without(number, lambda: sock.connect(listener.getsockname()))
        sock.settimeout(5)
        assert sock.connect_ex(listener.getsockname()) in (0, 106)
        assert sock.getpeername() == listener.getsockname()
        return True

def sweep(scene, module):  # how often what was there was lost, and what stayed open
    scene(10**6, module)
    before = open_now()
    lost = sum(not scene(number, module) for number in range(int(sys.argv[1])))
    return lost, open_now() - before

sys.unraisablehook = lambda told: None
for scene in (recv, wait, recvmsg, sendall, makefile, accept, connect):
    ours, stdlibs = sweep(scene, aiosock_sync), sweep(scene, stdlib)
    assert ours[0] <= stdlibs[0] and ours[1] <= stdlibs[1], (scene, ours, stdlibs)
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="from 3.12 on CPython itself crashes, in any Python code, after a failed allocation",
)
def test_where_there_is_no_memory_no_more_is_lost_than_with_the_stdlibs() -> None:
    """CPython itself may have none between the system call and its answer."""
    pytest.importorskip("_testcapi", reason="only with it memory can be made to run out")
    command = [sys.executable, "-W", "ignore", "-c", NO_MEMORY, str(100 * min(TIMES, 10))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50 * TIMES, check=False, env=WITH_OURS
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- threads for lookups ----------------------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """All threads for lookups are busy, until the event."""
    over = threading.Event()
    monkeypatch.setattr(_stdlib, "gethostbyname_ex", lambda name: over.wait(LIMIT))
    waiting = [
        in_thread(lambda: aiosock_sync.gethostbyname_ex("slow")) for _ in range(_names.THREADS)
    ]
    while len(_names._threads._workers) < _names.THREADS:
        time.sleep(0.001)
    yield over
    over.set()
    for thread in waiting:
        ended(*thread)


@pytest.mark.usefixtures("stuck")
async def test_the_time_in_the_queue_for_a_lookup_counts(ours: Face) -> None:
    sock = ours.socket(_stdlib.AF_INET)
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError, match="(?m)^timed out$"):
        await sock.connect(("localhost", 9))
    with pytest.raises(TimeoutError):
        await ours.create_connection(("localhost", 9), timeout=0.05)
    with pytest.raises(ConnectionRefusedError):
        await sock.connect(("127.0.0.1", 9))


async def test_who_gave_up_leaves_the_queue_to_others(
    ours: Face, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def getservbyname(name: str) -> int:
        asked.append(name)
        return 7

    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: asked.append("nowhere"))
    monkeypatch.setattr(_stdlib, "getservbyname", getservbyname)
    sock = ours.socket(_stdlib.AF_INET)
    sock.settimeout(0.01)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await sock.connect(("nowhere.invalid", 9))
    last = asyncio.create_task(ours.getservbyname("last"))
    await asyncio.sleep(0.01)
    stuck.set()
    async with asyncio.timeout(LIMIT):
        assert await last == 7
    assert asked == ["last"]


# --- many connections -------------------------------------------------------------------------

AT_ONCE = 5000


def test_five_thousand_connections_at_once() -> None:
    """Fewer where the system allows fewer descriptors, of which each takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(AT_ONCE, (hard - 200) // 2)

    async def main() -> None:
        async with aiosock.serve(echo, LOOPBACK, backlog=count) as server:
            address = server.sockets[0].getsockname()
            with ExitStack() as stack:
                socks = [stack.enter_context(aiosock.socket()) for _ in range(count)]
                for at in range(0, count, 250):
                    await asyncio.gather(*(sock.connect(address) for sock in socks[at : at + 250]))
                answers = await asyncio.gather(*(said(sock) for sock in socks))
                assert answers == [HELLO] * count
                assert server.active == count
        assert (server.active, server.accepted, server.failed) == (0, count, 0)

    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        aiosock.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def said(sock: Any) -> bytes:
    await sock.sendall(HELLO)
    data: bytes = await sock.recv(100)
    return data


def test_a_hundred_threads_at_once() -> None:
    """Each has a loop of its own, which takes three descriptors."""
    with aiosock_sync.serve(blocking_echo, LOOPBACK) as server, ExitStack() as stack:
        address = server.sockets[0].getsockname()
        socks = [stack.enter_context(aiosock_sync.create_connection(address)) for _ in range(100)]
        for _ in range(2):
            for sock in socks:
                sock.sendall(HELLO)
            assert [sock.recv(100) for sock in socks] == [HELLO] * 100
        assert server.active == 100


def is_flat(once: Callable[[], Any], count: int) -> None:
    """Done so often, it takes no more memory and descriptors than done a few times."""
    for _ in range(5):
        once()
    before = soak.Size.now()
    for _ in range(count):
        once()
    soak.Size.now().must_not_exceed(before)


def contexts(secret: bool) -> tuple[Any, Any]:
    """The server's, and what a client says."""
    return (serving(), {"ssl": trusting(), "server_hostname": HOST}) if secret else (None, {})


SECRETS = [(False, 2000), (True, 200)]  # whether it is by TLS, and how many connections


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("secret", "count"), SECRETS)
def test_one_connection_after_the_other_leaves_nothing(
    loop_name: str, secret: bool, count: int
) -> None:
    hidden, how = contexts(secret)
    server: Any = aiosock.serve(echo, LOOPBACK, ssl=hidden)

    async def some() -> None:
        address = server.sockets[0].getsockname()
        for _ in range(20):
            async with aiosock.create_connection(address, **how) as sock:
                assert await said(sock) == HELLO
        while server.active:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(server.__aenter__())
        is_flat(lambda: runner.run(some()), TIMES * count // 20)
        runner.run(server.__aexit__(None, None, None))


@pytest.mark.parametrize(("secret", "count"), SECRETS)
def test_nor_does_one_thread_after_the_other(secret: bool, count: int) -> None:
    hidden, how = contexts(secret)
    made: Any = aiosock_sync.serve(blocking_echo, LOOPBACK, ssl=hidden)
    with made as server:
        address = server.sockets[0].getsockname()

        def some() -> None:
            for _ in range(20):
                with aiosock_sync.create_connection(address, **how) as sock:
                    sock.sendall(HELLO)
                    assert sock.recv(100) == HELLO
            while server.active:
                time.sleep(0.001)

        is_flat(some, TIMES * count // 40)


def test_a_mix_of_all_kinds_of_load_leaves_nothing() -> None:
    done = aiosock.run(soak.mix(3.0, seed=7))
    assert len(done) == 9
