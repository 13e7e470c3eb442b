"""Signal handlers that raise: in every call that waits, and at every moment of a call.

Python runs a signal handler where a function begins and where one written in C returns.
`at_moment` raises at the n-th of these, by a profiler, which is told of the same places; so a
sweep over n is every moment there is, each time the same ones.  What a handler raises within
a finalizer Python drops: no sweep goes there.
"""

import asyncio
import gc
import io
import os
import random
import socket as _stdlib
import ssl
import sys
import threading
import types
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from blocking import (
    BULK,
    HELLO,
    Interrupted,
    alarm,
    black_hole,
    ended,
    fill,
    in_thread,
    interrupt,
    pair,
    tcp_pair,
)
from faces import LIMIT
from secured import HOST, authority, serving, trusting

import aiosock_sync
from aiosock import _names, _readiness
from aiosock._records import PIECE
from aiosock_sync import _driver

Call = Callable[[], Any]
Scene = tuple[Call, Call, Any]  # a call that waits, what ends it, and its outcome then


# --- in every call that waits ---------------------------------------------------------------


def receiving(call: Callable[[Any], Any], outcome: Any = HELLO) -> Callable[[ExitStack], Scene]:
    def make(stack: ExitStack) -> Scene:
        one, other = pair(stack)
        return lambda: call(one), lambda: other.sendall(HELLO), outcome

    return make


def filling(call: Callable[[Any], Any]) -> Callable[[ExitStack], Scene]:
    """Of datagrams, each of which is as long as another."""

    def make(stack: ExitStack) -> Scene:
        kind = _stdlib.AF_UNIX, _stdlib.SOCK_DGRAM
        one, other = map(stack.enter_context, aiosock_sync.socketpair(*kind))
        fill(one)
        return lambda: call(one), lambda: other.recv(2**20), 1

    return make


def reading(read: Callable[[Any], Any], *how: Any, outcome: Any = b"a line\n") -> Any:
    def make(stack: ExitStack) -> Scene:
        one, other = pair(stack)
        file = stack.enter_context(one.makefile(*how))
        return lambda: read(file), lambda: other.sendall(b"a line\n"), outcome

    return make


def tls_pair(stack: ExitStack, shaken: bool = True) -> tuple[Any, Any]:
    authority()  # one for both threads
    one, other = tcp_pair(stack)
    context, hidden = trusting(), serving()
    context.sslsocket_class = hidden.sslsocket_class = aiosock_sync.SSLSocket
    client: Any = context.wrap_socket(one, server_hostname=HOST, do_handshake_on_connect=False)
    server: Any = hidden.wrap_socket(other, server_side=True, do_handshake_on_connect=False)
    for sock in (client, server):
        stack.enter_context(sock)
    if shaken:
        shaking = in_thread(server.do_handshake)
        client.do_handshake()
        ended(*shaking)
    return client, server


def hearing(call: Callable[[Any], Any], outcome: Any = HELLO) -> Callable[[ExitStack], Scene]:
    def make(stack: ExitStack) -> Scene:
        client, server = tls_pair(stack)
        return lambda: call(client), lambda: server.sendall(HELLO), outcome

    return make


def shaking_hands(stack: ExitStack) -> Scene:
    client, server = tls_pair(stack, shaken=False)
    return client.do_handshake, server.do_handshake, None


def parting(stack: ExitStack) -> Scene:
    client, server = tls_pair(stack)
    return lambda: client.unwrap() is client, server.unwrap, True


def accepting_tls(stack: ExitStack) -> Scene:
    authority()
    listener = aiosock_sync.create_server(("127.0.0.1", 0), ssl=serving())
    stack.enter_context(listener)

    def accept() -> bytes:
        with listener.accept()[0] as conn:
            return conn.recv(10)

    def connect() -> None:
        address = "127.0.0.1", listener.getsockname()[1]
        with aiosock_sync.create_connection(address, ssl=trusting(), server_hostname=HOST) as sock:
            sock.sendall(HELLO)

    return accept, connect, HELLO


def in_the_old_way(stack: ExitStack) -> Scene:
    one, other = tcp_pair(stack)
    authority()
    shaking = in_thread(lambda: other.start_tls(serving(), server_side=True))
    with pytest.warns(aiosock_sync.InsecureWarning):
        old = aiosock_sync.ssl(one)
    server = stack.enter_context(ended(*shaking))
    return lambda: old.read(10), lambda: server.sendall(HELLO), HELLO


def into(call: Callable[[Any, bytearray], Any]) -> Callable[[Any], Any]:
    """Receives into a buffer; what is there then."""

    def receive(sock: Any) -> bytes:
        buffer = bytearray(len(HELLO))
        call(sock, buffer)
        return bytes(buffer)

    return receive


MESSAGE: Any = (HELLO, [], 0, None)
SCENES: dict[str, Callable[[ExitStack], Scene]] = {
    "recv": receiving(lambda sock: sock.recv(10)),
    "recv with a timeout": receiving(lambda sock: [sock.settimeout(LIMIT), sock.recv(10)][1]),
    "recv_into": receiving(into(lambda sock, buffer: sock.recv_into(buffer))),
    "recvfrom": receiving(lambda sock: sock.recvfrom(10), (HELLO, None)),
    "recvfrom_into": receiving(into(lambda sock, buffer: sock.recvfrom_into(buffer))),
    "recvmsg": receiving(lambda sock: sock.recvmsg(10), MESSAGE),
    "recvmsg_into": receiving(into(lambda sock, buffer: sock.recvmsg_into([buffer]))),
    "waitall": receiving(lambda sock: sock.recv(len(HELLO), _stdlib.MSG_WAITALL)),
    "truncated": receiving(lambda sock: sock.recv(len(HELLO), _stdlib.MSG_TRUNC)),
    "wait_readable": receiving(lambda sock: [sock.wait_readable(), sock.recv(10)][1]),
    "send": filling(lambda sock: sock.send(b"x")),
    "send_many": filling(lambda sock: sock.send_many([b"x"])),
    "sendmsg": filling(lambda sock: sock.sendmsg([b"x"])),
    "read": reading(lambda file: file.read(7), "rb"),
    "readline": reading(lambda file: file.readline(), "rb"),
    "readinto": reading(lambda file: file.readinto(bytearray(7)), "rb", outcome=7),
    "raw read": reading(lambda file: file.read(7), "rb", 0),
    "readline of text": reading(lambda file: file.readline(), "r", outcome="a line\n"),
    "the next line": reading(next, "rwb"),
    "tls recv": hearing(lambda sock: sock.recv(10)),
    "tls recv_into": hearing(into(lambda sock, buffer: sock.recv_into(buffer))),
    "tls read": hearing(lambda sock: sock.read(10)),
    "tls read into": hearing(into(lambda sock, buffer: sock.read(5, buffer))),
    "tls file": hearing(lambda sock: sock.makefile("rb").read(5)),
    "tls wait_readable": hearing(lambda sock: [sock.wait_readable(), sock.recv(10)][1]),
    "do_handshake": shaking_hands,
    "unwrap": parting,
    "tls accept": accepting_tls,
    "the old ssl": in_the_old_way,
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
@pytest.mark.parametrize("name", SCENES)
def test_an_interrupted_call_has_taken_nothing_and_can_be_made_again(
    name: str, error: type[BaseException], stack: ExitStack
) -> None:
    call, end, outcome = SCENES[name](stack)
    for _ in range(2):
        with pytest.raises(error), alarm(0.01, lambda: interrupt(error), again=LIMIT):
            call()
        assert tied_up() == []
    ending = in_thread(end)
    assert call() == outcome
    ended(*ending)


SAYING: dict[str, Callable[[Any], Any]] = {
    "send": lambda sock: sock.send(BULK),
    "sendall": lambda sock: sock.sendall(BULK),
    "write": lambda sock: sock.write(BULK),
    "sendfile": lambda sock: sock.sendfile(io.BytesIO(BULK)),
}


@pytest.mark.parametrize("name", SAYING)
def test_tls_tells_how_far_it_got(name: str, stack: ExitStack) -> None:
    client, server = tls_pair(stack)
    with pytest.raises(KeyboardInterrupt) as caught, alarm(0.1, interrupt, again=LIMIT):
        SAYING[name](client)
    told = vars(caught.value)["bytes_sent"]
    hearing = in_thread(lambda: sum(map(len, iter(lambda: server.recv(2**16), b""))))
    client.sendall(HELLO)
    client.close()
    assert 0 <= ended(*hearing) - len(HELLO) - told <= PIECE  # which had just gone


LOOKUPS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "getaddrinfo": ("getaddrinfo", ("somewhere", 80)),
    "getnameinfo": ("getnameinfo", (("127.0.0.1", 80), 0)),
    "gethostbyname": ("gethostbyname", ("somewhere",)),
    "gethostbyname_ex": ("gethostbyname_ex", ("somewhere",)),
    "gethostbyaddr": ("gethostbyaddr", ("somewhere",)),
    "getfqdn": ("gethostbyaddr", ("somewhere",)),
    "getprotobyname": ("getprotobyname", ("tcp",)),
    "getservbyname": ("getservbyname", ("http",)),
    "getservbyport": ("getservbyport", (80,)),
    "bind": ("getaddrinfo", (("somewhere", 80),)),
    "sendto": ("getaddrinfo", (HELLO, ("somewhere", 80))),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_an_interrupted_lookup_is_over_and_the_next_is_made(
    name: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, arguments = LOOKUPS[name]
    over = threading.Event()
    stack.callback(over.set)
    sock = stack.enter_context(aiosock_sync.socket(type=_stdlib.SOCK_DGRAM))
    call = getattr(sock if name in ("bind", "sendto") else aiosock_sync, name)
    with monkeypatch.context() as patch:
        patch.setattr(_stdlib, asked, lambda *_: over.wait(LIMIT))
        with pytest.raises(KeyboardInterrupt), alarm(0.01, interrupt, again=LIMIT):
            call(*arguments)
    over.set()
    assert tied_up() == []
    assert aiosock_sync.getservbyname("http") == 80


@pytest.mark.parametrize("context", [None, ssl.create_default_context()], ids=["plain", "tls"])
def test_an_interrupted_create_connection_leaves_no_socket(
    context: ssl.SSLContext | None, stack: ExitStack
) -> None:
    address = black_hole(stack)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), alarm(0.01, interrupt, again=LIMIT):
            aiosock_sync.create_connection(address, ssl=context)
        assert tied_up() == []


@pytest.mark.parametrize("name", ["serve_forever", "wait_closed"])
def test_an_interrupted_wait_for_a_server_leaves_it_serving(name: str) -> None:
    def echo(conn: aiosock_sync.socket, peer: Any) -> None:
        conn.sendall(conn.recv(10))

    with aiosock_sync.serve(echo, ("127.0.0.1", 0)) as server:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), alarm(0.01, interrupt, again=LIMIT):
                getattr(server, name)()
            with aiosock_sync.create_connection(server.sockets[0].getsockname()) as sock:
                sock.sendall(HELLO)
                assert sock.recv(10) == HELLO


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(3))
def test_signals_at_random_moments_leave_a_conversation_usable(seed: int, stack: ExitStack) -> None:
    chance = random.Random(seed)
    one, other = pair(stack)
    talking = in_thread(lambda: echo(other))
    for number in range(150):
        one.settimeout(chance.choice([None, LIMIT]))
        moment = chance.uniform(2e-5, 1e-3)
        with suppress(Interrupted), alarm(moment, lambda: interrupt(Interrupted), again=LIMIT):
            while True:
                one.sendall(b"x")
                one.recv(chance.choice([1, 100]))
        assert tied_up() == []
        if number % 10 == 0:
            assert said_and_heard(one, b"<%d>" % number)
    one.shutdown(_stdlib.SHUT_WR)
    ended(*talking)


def said_and_heard(sock: Any, word: bytes) -> bool:
    """Behind whatever is still on its way."""
    got = b""
    with aiosock_sync.fail_after(LIMIT):
        sock.sendall(word)
        while not got.endswith(word):
            got += sock.recv(100)
    return True


def echo(sock: Any) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


# --- at every moment ------------------------------------------------------------------------


def at_moment(number: int, call: Call, meanwhile: Call = lambda: None) -> tuple[Any, str]:
    """What the call returns, and where it was interrupted; "" if it has not so many moments.

    Meanwhile its error holds on to all that it knows; then that is let go.
    """
    left, begun, where = number, set[types.FrameType](), ""

    def profile(frame: types.FrameType, event: str, function: Any) -> None:
        nonlocal left, where
        code = frame.f_code
        goes_on = code.co_flags & 0x80 and frame in begun  # behind an await no handler runs
        begun.add(frame)
        if event not in ("call", "c_return") or goes_on or is_left_out(frame):
            return
        left -= 1
        if left < 0:
            sys.setprofile(None)
            begun.clear()
            where = f"{event} of {getattr(function, '__name__', code.co_name)}"
            raise Interrupted

    def run() -> Any:
        sys.setprofile(profile)
        try:
            return call()
        finally:
            sys.setprofile(None)

    try:
        return run(), where
    except Interrupted:
        meanwhile()
        return None, where


def is_left_out(frame: types.FrameType | None) -> bool:
    """Finalizers, and the starting of threads, which CPython itself leaves half done."""
    while frame is not None and frame.f_code.co_name != "run":
        if (
            frame.f_code.co_name in ("__del__", "_remove")
            or "threading" in frame.f_code.co_filename
        ):
            return True
        frame = frame.f_back
    return False


def tied_up() -> list[str]:
    """What of this thread an interruption has left occupied."""
    driver = _driver._here.driver
    found = {
        "the lock": not _readiness.adopting.acquire(timeout=LIMIT),
        "the loop": driver is not None
        and (driver.busy or driver.turn.thread != driver.thread or driver.loop.is_running()),
        "the thread": asyncio._get_running_loop() is not None,
        "the limit": bool(_driver.limits) or _driver._limit_now() is not None,
    }
    if not found["the lock"]:
        _readiness.adopting.release()
    return [name for name, is_so in found.items() if is_so]


Act = tuple[Call, Callable[[Any], Any]]  # a call, and what is to be said of its outcome or None


def sweep(make: Callable[[ExitStack], Act]) -> list[tuple[str, Any]]:
    """Of each moment of the call: where that was, and what is to be said."""
    said: list[tuple[str, Any]] = []
    while not said or said[-1][0]:
        with ExitStack() as stack:
            call, look = make(stack)
            outcome, where = at_moment(len(said), call)
            assert tied_up() == [], where
            said.append((where, look(outcome)))
    assert len(said) > 2
    return said


@pytest.fixture
def warm(stack: ExitStack) -> None:
    """This thread has its loop, and Python has seen the code."""
    one, _ = pair(stack)
    with suppress(TimeoutError), aiosock_sync.fail_after(0.001):
        one.recv(1)


def receive_what_is_there(stack: ExitStack) -> Act:
    one, other = pair(stack)
    other.sendall(HELLO)
    return lambda: one.recv(10), lambda got: rest_of(one, other, got)


def wait_and_receive(stack: ExitStack) -> Act:
    one, other = pair(stack)
    sending = threading.Timer(0.002, lambda: other.sendall(HELLO))

    def look(got: Any) -> Any:
        sending.join()
        return rest_of(one, other, got)

    sending.start()
    return lambda: one.recv(10), look


def wait_in_vain(stack: ExitStack) -> Act:
    one, other = pair(stack)
    one.settimeout(0.001)

    def receive() -> None:
        with suppress(TimeoutError):
            one.recv(10)

    return receive, lambda _: rest_of(one, other, HELLO)


def receive_many(stack: ExitStack) -> Act:
    kind = _stdlib.AF_UNIX, _stdlib.SOCK_DGRAM
    one, other = map(stack.enter_context, aiosock_sync.socketpair(*kind))
    other.send_many([b"1", b"2"])

    def look(got: Any) -> Any:
        one.settimeout(0.001)
        with suppress(TimeoutError):
            got = [*(got or []), *one.recv_many(10)]
        return [data for data, _ in got or []]

    return lambda: one.recv_many(10), look


def rest_of(one: Any, other: Any, got: Any) -> Any:
    """All that was received in the end; and the next data comes."""
    one.settimeout(0.001)
    with suppress(TimeoutError):
        got = one.recv(10) if got is None else got
    one.settimeout(None)
    sending = threading.Timer(0.001, lambda: other.sendall(b"again"))
    sending.start()
    with aiosock_sync.fail_after(LIMIT):
        assert one.recv(10) == b"again"
    sending.join()
    return got


@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [receive_what_is_there, wait_and_receive, wait_in_vain])
def test_only_right_behind_the_system_call_data_is_lost(make: Callable[[ExitStack], Act]) -> None:
    """As it is with a socket of the stdlib, whose caller is interrupted there."""
    lost = [where for where, got in sweep(make) if got != HELLO]
    assert set(lost) <= {"c_return of recv"}
    assert len(lost) <= 1


@pytest.mark.usefixtures("warm")
def test_what_recv_many_takes_is_lost_right_behind_it_alone() -> None:
    lost = [where for where, got in sweep(receive_many) if got != [b"1", b"2"]]
    assert set(lost) <= {"c_return of len", "c_return of extend"}


def accept_one(stack: ExitStack) -> Act:
    listener = stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0)))
    client = stack.enter_context(_stdlib.create_connection(listener.getsockname()))

    def look(accepted: Any) -> str:
        assert os.get_blocking(listener.fileno())
        listener.settimeout(0.001)
        with suppress(TimeoutError):
            (accepted or listener.accept())[0].close()
        client.settimeout(LIMIT)
        return repr(client.recv(1))

    return listener.accept, look


@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_client_waits_for_an_accept_that_was_interrupted() -> None:
    """Its connection is the next one's, or closed."""
    assert {told for _, told in sweep(accept_one)} == {"b''"}


def connect(stack: ExitStack) -> Act:
    listener = stack.enter_context(_stdlib.create_server(("127.0.0.1", 0)))
    sock = stack.enter_context(aiosock_sync.socket())

    def look(_: Any) -> bool:
        assert os.get_blocking(sock.fileno())
        with aiosock_sync.fail_after(LIMIT):
            assert sock.connect_ex(listener.getsockname()) in (0, 106)
        return bool(sock.getpeername() == listener.getsockname())

    return lambda: sock.connect(listener.getsockname()), look


@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connect_can_be_made_again() -> None:
    assert all(is_connected for _, is_connected in sweep(connect))


def take_over(stack: ExitStack) -> Call:
    sock = _stdlib.socket()
    number = sock.fileno()

    def close_what_is_lost() -> None:
        """For a moment it is a mere number, of which nobody is in charge."""
        with suppress(OSError):
            os.close(number)

    stack.callback(close_what_is_lost)
    stack.enter_context(sock)
    return lambda: aiosock_sync.from_stdlib_socket(sock)


def accept_a_client(stack: ExitStack) -> Call:
    call, _ = accept_one(stack)
    return call


@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [take_over, accept_a_client])
def test_a_descriptor_is_closed_but_once(make: Callable[[ExitStack], Call]) -> None:
    """Not again when the error goes: by then its number is somebody else's."""
    number, where = 0, "at the start"
    while where:
        with ExitStack() as stack:
            files: list[Any] = []
            open_files = lambda: files.extend(open(os.devnull) for _ in range(3))  # noqa: E731, B023, SIM115  # closed below
            made, where = at_moment(number, make(stack), open_files)
            del made
            gc.collect()
            for file in files:
                os.fstat(file.fileno())
                file.close()
        number += 1
    assert number > 10


def bound(stack: ExitStack) -> Act:
    one, other = pair(stack)
    other.sendall(HELLO)

    def call() -> bytes:
        with aiosock_sync.fail_after(LIMIT), aiosock_sync.fail_after(2 * LIMIT):
            return one.recv(1)

    return call, lambda _: None


def call_a_function(stack: ExitStack) -> Act:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 5

    return lambda: aiosock_sync.call(answer), lambda _: aiosock_sync.call(answer)


def look_up(stack: ExitStack) -> Act:
    def look(_: Any) -> int:
        return aiosock_sync.getservbyname("http")

    return lambda: aiosock_sync.getservbyname("ftp"), look


def close_one(stack: ExitStack) -> Act:
    one, _ = pair(stack)
    with suppress(TimeoutError), aiosock_sync.fail_after(0.001):
        one.recv(1)

    def look(_: Any) -> int:
        one.close()
        return one.fileno()

    return one.close, look


def send_all(stack: ExitStack) -> Act:
    one, other = pair(stack)

    def look(_: Any) -> bool:
        one.sendall(b"again")
        one.close()
        got = b"".join(iter(lambda: other.recv(10), b""))
        return got in (b"again", HELLO + b"again")

    return lambda: one.sendall(HELLO), look


# asyncio tells of what an interruption has left of a task that was just being made.
@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("make", "outcome"),
    [(bound, None), (call_a_function, 5), (look_up, 80), (close_one, -1), (send_all, True)],
)
def test_the_next_call_is_right(make: Callable[[ExitStack], Act], outcome: Any) -> None:
    assert {said for _, said in sweep(make)} == {outcome}
    assert len(_names._threads._workers) < _names.THREADS / 2  # none holds its place for ever
