"""serve() on both faces: each handler here is written once, with ``await``.

The blocking face runs it by hand in the connection's own thread, on a socket whose awaited
calls block.  What only one face has stands at the end, and in test_server_sync.
"""

import asyncio
import errno
import functools
import gc
import logging
import os
import re
import socket as _stdlib
import ssl
import struct
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faces import LIMIT
from secured import serving, trusting

import aiosock
import aiosock_sync
from aiosock import _serving
from aiosock_sync._socket import _Moment

LOOPBACK = ("127.0.0.1", 0)
ROOT = Path(aiosock.__file__).parents[1]
Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]


class Awaited:
    """A blocking socket whose calls are awaited, and block."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.sock, name)
        if name not in ("recv", "sendall"):
            return found

        async def call(*args: Any) -> Any:
            return found(*args)

        return call


def blocking(handler: Handler) -> Callable[[Any, Any], None]:
    def handle(conn: Any, peer: Any) -> None:
        with suppress(StopIteration):
            handler(Awaited(conn), peer).send(None)

    return handle


class Kind:
    """serve() of one of the faces."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.blocks = module is aiosock_sync

    def __repr__(self) -> str:
        return self.name

    def made(self, handler: Handler, place: Any, **how: Any) -> Any:
        return self.module.serve(blocking(handler) if self.blocks else handler, place, **how)

    @asynccontextmanager
    async def serve(
        self, handler: Handler, place: Any = LOOPBACK, **how: Any
    ) -> AsyncIterator[Any]:
        server = self.made(handler, place, **how)
        if not self.blocks:
            async with asyncio.timeout(LIMIT), server:
                yield server
            return
        await asyncio.to_thread(server.__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)

    async def enter(self, server: Any) -> None:
        if self.blocks:
            await asyncio.to_thread(server.__enter__)
        else:
            await server.__aenter__()

    async def listener(self, **how: Any) -> Any:
        made = self.module.create_server(LOOPBACK, **how)
        return made if self.blocks else await made

    async def call(self, function: Callable[[], Any]) -> Any:
        """A call that waits: of a coroutine function, or in a thread."""
        async with asyncio.timeout(LIMIT):
            return await (asyncio.to_thread(function) if self.blocks else function())

    def fail_accept(self, monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[int]:
        """Have attempts to accept fail; the numbers that are left.  0 is one that succeeds."""
        owner: Any = _Moment if self.blocks else aiosock.socket
        name, left = "accept" if self.blocks else "_accept_one", list(numbers)
        real = getattr(owner, name)

        def accept(self: Any) -> Any:
            if left and left[0]:
                number = left.pop(0)
                raise OSError(number, os.strerror(number))
            accepted = real(self)
            del left[:1]
            return accepted

        monkeypatch.setattr(owner, name, accept)
        return left


KINDS = [Kind("aiosock", aiosock), Kind("sync", aiosock_sync)]


@pytest.fixture(params=KINDS, ids=repr)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, until the test is over: an error knows frames, and those the loop."""
    caplog.set_level(logging.DEBUG, "aiosock")
    yield caplog
    for record in caplog.get_records("call"):
        record.exc_info, record.args = None, ()


def lines(logged: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what aiosock has logged."""
    return [(r.levelname, r.getMessage()) for r in logged.records if r.name == "aiosock"]


# --- handlers and clients ---------------------------------------------------------------


async def echo(conn: Any, peer: Any) -> None:
    while data := await conn.recv(100):
        await conn.sendall(data)


async def once(conn: Any, peer: Any) -> None:
    await conn.sendall(await conn.recv(100))


async def obey(conn: Any, peer: Any) -> None:
    """Raises what it is told to."""
    raise ERRORS[(await conn.recv(100)).decode()]()


ERRORS: dict[str, Callable[[], BaseException]] = {
    "a bug": ZeroDivisionError,
    "refused elsewhere": lambda: ConnectionRefusedError(errno.ECONNREFUSED, "elsewhere"),
    "late": lambda: TimeoutError("timed out"),
    "a bug among resets": lambda: ExceptionGroup("", [ConnectionResetError(), KeyError()]),
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "broken": lambda: BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "given up": lambda: TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    "cut": lambda: ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    "refused": lambda: refusal(),
    "resets": lambda: ExceptionGroup("", [ConnectionResetError(), BrokenPipeError()]),
}
OF_A_PEER = list(ERRORS)[4:]


def refusal() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    return error


def address_of(server: Any, at: int = 0) -> Any:
    return server.sockets[at].getsockname()


async def connected(address: Any) -> aiosock.socket:
    family = _serving.family_of(address)
    sock = aiosock.socket(family)
    try:
        async with asyncio.timeout(LIMIT):
            await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


async def answer(sock: aiosock.socket, message: bytes = b"hello") -> bytes:
    async with asyncio.timeout(LIMIT):
        await sock.sendall(message)
        return await sock.recv(100)


async def answered(address: Any, message: bytes = b"hello") -> bytes:
    with await connected(address) as sock:
        return await answer(sock, message)


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not look():  # noqa: ASYNC110  # some of it is done by threads
            await asyncio.sleep(0.005)


def is_quiet(sock: aiosock.socket) -> bool:
    """Whether nothing has come, and no end."""
    try:
        sock._sock.recv(1, _stdlib.MSG_PEEK | _stdlib.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False


# --- connections ------------------------------------------------------------------------


async def test_each_connection_is_served_beside_the_others_and_counted(kind: Kind) -> None:
    async with kind.serve(echo) as server:
        with ExitStack() as stack:
            socks = [stack.enter_context(await connected(address_of(server))) for _ in range(5)]
            for sock in reversed(socks):
                assert await answer(sock) == b"hello"
            assert (server.accepted, server.active, server.failed) == (5, 5, 0)
        await until(lambda: not server.active)
        assert (server.accepted, server.active, server.failed) == (5, 0, 0)


async def test_the_handler_gets_the_socket_and_the_peers_address(kind: Kind) -> None:
    seen = []

    async def look(conn: Any, peer: Any) -> None:
        seen.append((conn.getpeername(), peer, conn.gettimeout()))

    async with kind.serve(look) as server:
        with await connected(address_of(server)) as sock:
            await until(lambda: seen)
            assert seen == [(sock.getsockname(), sock.getsockname(), None)]


@pytest.mark.parametrize("handler", [once, obey])
async def test_a_connection_is_closed_when_its_handler_ends(kind: Kind, handler: Handler) -> None:
    async with kind.serve(handler) as server:
        with await connected(address_of(server)) as sock:
            await sock.sendall(b"a bug")
            async with asyncio.timeout(LIMIT):
                while await sock.recv(100):
                    pass


@pytest.mark.parametrize("context", [None, serving()], ids=["plain", "tls"])
async def test_a_connection_is_closed_although_a_file_of_it_is_open(
    kind: Kind, context: ssl.SSLContext | None
) -> None:
    files = []

    async def keep_a_file(conn: Any, peer: Any) -> None:
        files.append(conn.makefile("rb"))

    async with kind.serve(keep_a_file, ssl=context) as server:
        with await (secured if context else connected)(address_of(server)) as sock:
            async with asyncio.timeout(LIMIT):
                assert await sock.recv(100) == b""
    for file in files:
        closed = file.close()
        if not kind.blocks:
            await closed


async def test_what_a_handler_has_detached_lives_on(kind: Kind) -> None:
    taken = []

    async def take(conn: Any, peer: Any) -> None:
        taken.append(conn.detach())

    async with kind.serve(take) as server:
        with await connected(address_of(server)) as sock:
            await until(lambda: taken and not server.active)
            with _stdlib.socket(fileno=taken[0]) as kept:
                kept.sendall(b"still here")
                assert await sock.recv(100) == b"still here"


@pytest.mark.parametrize("told", ERRORS)
async def test_a_handlers_error_is_logged_with_its_peer_and_ends_no_other(
    kind: Kind, told: str, logged: pytest.LogCaptureFixture
) -> None:
    async with kind.serve(obey) as server:
        with (
            await connected(address_of(server)) as other,
            await connected(address_of(server)) as sock,
        ):
            peer = sock.getsockname()
            assert await answer(sock, told.encode()) == b""
            await until(lambda: server.failed == 1)
            await until(lambda: server.active == 1)
            assert is_quiet(other)
    record = next(r for r in logged.records if r.name == "aiosock" and str(peer) in r.getMessage())
    if isinstance(ERRORS[told](), ssl.SSLError):
        assert record.levelno == logging.DEBUG
        assert record.getMessage().startswith(f"the connection from {peer!r} is gone: ")
        assert record.exc_info is None
    else:  # the connection stands: whoever was reset is somebody else
        assert record.levelno == logging.ERROR
        assert record.getMessage() == f"the handler of the connection from {peer!r} failed"
        assert record.exc_info is not None
        assert repr(record.exc_info[1]) == repr(ERRORS[told]())


@pytest.mark.parametrize("told", ERRORS)
async def test_that_a_peer_has_gone_is_no_error(
    told: str, logged: pytest.LogCaptureFixture
) -> None:
    one, other = aiosock.socketpair()  # of which nothing tells whether it stands
    with one, other:
        _serving.log_failure("peer", one, ERRORS[told]())
    level = logging.DEBUG if told in OF_A_PEER else logging.ERROR
    assert [record.levelno for record in logged.records] == [level]


async def test_a_reset_is_told_at_debug_level(kind: Kind, logged: pytest.LogCaptureFixture) -> None:
    async with kind.serve(echo) as server:
        sock = await connected(address_of(server))
        assert await answer(sock, b"hello") == b"hello"
        sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await until(lambda: server.failed == 1)
    assert [record.levelno for record in logged.records] == [logging.DEBUG]


async def test_a_connection_that_a_handler_has_secured_is_closed_too(kind: Kind) -> None:
    kept = []

    async def secure(conn: Any, peer: Any) -> None:
        started = conn.start_tls(serving(), server_side=True)
        kept.append(started if kind.blocks else await started)

    async with kind.serve(secure) as server:
        sock = await connected(address_of(server))
        async with await sock.start_tls(trusting(), server_hostname="localhost") as client:
            async with asyncio.timeout(LIMIT):
                assert await client.recv(100) == b""
    assert [sock.fileno() for sock in kept] == [-1]


async def test_a_server_that_was_not_entered_serves_nobody(kind: Kind) -> None:
    server = kind.made(echo, LOOPBACK)
    with pytest.raises(RuntimeError, match="the server is not running"):
        await kind.call(server.serve_forever)


async def test_a_word_is_no_path(kind: Kind) -> None:
    for wrong in ("127.0.0.1", "localhost:80", "socket"):
        with pytest.raises(TypeError, match=r"is \(host, port\), or a path with a slash, not"):
            await kind.enter(kind.made(echo, wrong))


# --- where it listens -------------------------------------------------------------------


async def test_several_listeners_serve_at_once(kind: Kind, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with kind.serve(echo, [LOOPBACK, ("::1", 0), path]) as server:
        families = [_stdlib.AF_INET, _stdlib.AF_INET6, _stdlib.AF_UNIX]
        assert [sock.family for sock in server.sockets] == families
        for at in range(3):
            assert await answered(address_of(server, at)) == b"hello"
        assert server.accepted == 3
    assert server.sockets == ()


async def test_a_dual_stack_listener_serves_both(kind: Kind) -> None:
    async with kind.serve(echo, ("::", 0), dualstack_ipv6=True) as server:
        for host in ("::1", "127.0.0.1"):
            assert await answered((host, address_of(server)[1])) == b"hello"


async def test_a_path_is_taken_away_at_the_end(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with kind.serve(echo, str(path)):
        assert path.is_socket()
    assert not path.exists()


async def test_a_path_that_is_anothers_by_now_stays(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with kind.serve(echo, os.fsencode(path)):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


async def test_a_listener_that_was_given_stays_open(kind: Kind) -> None:
    with await kind.listener() as listener:
        for _ in range(2):
            async with kind.serve(echo, listener) as server:
                assert server.sockets == (listener,)
                assert await answered(listener.getsockname()) == b"hello"
        with await connected(listener.getsockname()):
            conn, _ = await kind.call(listener.accept)
            conn.close()


@pytest.mark.parametrize("timeout", [0.0, 0.01])
async def test_a_listeners_own_timeout_does_not_matter(kind: Kind, timeout: float) -> None:
    with await kind.listener() as listener:
        listener.settimeout(timeout)
        async with kind.serve(echo, (listener,)):
            await asyncio.sleep(0.03)
            assert await answered(listener.getsockname()) == b"hello"
        assert listener.gettimeout() == timeout


async def test_a_listener_that_its_owner_closes_is_done_with(
    kind: Kind, logged: pytest.LogCaptureFixture
) -> None:
    with await kind.listener() as listener, await kind.listener() as other:
        async with kind.serve(echo, [listener, other]) as server:
            assert await answered(listener.getsockname()) == b"hello"
            listener.close()
            assert await answered(other.getsockname()) == b"hello"
            other.close()
            await kind.call(server.serve_forever)
    assert lines(logged) == []


async def test_two_servers_share_a_port(kind: Kind) -> None:
    async with (
        kind.serve(echo, LOOPBACK, reuse_port=True) as one,
        kind.serve(echo, address_of(one), reuse_port=True) as other,
    ):
        assert address_of(one) == address_of(other)


async def test_the_backlog_is_how_many_wait(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], _stdlib.socket.listen

    def listen(sock: _stdlib.socket, *backlog: int) -> None:
        seen.append(backlog)
        real(sock, *backlog)

    monkeypatch.setattr(_stdlib.socket, "listen", listen)
    async with kind.serve(echo, LOOPBACK, backlog=7):
        assert seen == [(7,)]


async def test_an_address_in_use_is_named_and_nothing_stays_open(kind: Kind) -> None:
    with await kind.listener() as taken:
        address = taken.getsockname()
        with pytest.raises(OSError, match=re.escape(f"bind on address {address!r}")) as caught:
            async with kind.serve(echo, [LOOPBACK, address]):
                pass
        assert caught.value.errno == errno.EADDRINUSE


# --- what is refused --------------------------------------------------------------------


def plain(conn: object, peer: object) -> None: ...


async def one_argument(conn: object) -> None: ...


async def generator(conn: object, peer: object) -> AsyncIterator[None]:
    yield


class Handling:
    async def __call__(self, conn: Any, peer: Any) -> None:
        await echo(conn, peer)

    async def method(self, conn: Any, peer: Any) -> None:
        await echo(conn, peer)


async def with_words(words: str, conn: Any, peer: Any) -> None:
    await echo(conn, peer)


@functools.wraps(echo)
def wrapper(*args: Any) -> Any:
    return echo(*args)


COROUTINE_FUNCTIONS = [
    echo,
    Handling(),
    Handling().method,
    functools.partial(with_words, "words"),
    functools.partial(Handling()),
    wrapper,
]


@pytest.mark.parametrize("handler", [plain, generator, Handling, None, "echo", echo("", "")])
async def test_a_handler_that_is_no_coroutine_function_is_refused_at_once(handler: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a coroutine function \(async def\), which .* is"):
        aiosock.serve(handler, LOOPBACK)
    if asyncio.iscoroutine(handler):
        handler.close()


@pytest.mark.parametrize("handler", COROUTINE_FUNCTIONS)
async def test_every_kind_of_coroutine_function_is_a_handler(handler: Any) -> None:
    async with aiosock.serve(handler, LOOPBACK) as server:
        assert await answered(address_of(server)) == b"hello"


@pytest.mark.parametrize("handler", COROUTINE_FUNCTIONS)
def test_the_blocking_face_refuses_them(handler: Any) -> None:
    with pytest.raises(TypeError, match="must be a blocking function, which .* is not; aiosock"):
        aiosock_sync.serve(handler, LOOPBACK)


def test_the_blocking_face_refuses_what_is_no_function() -> None:
    with pytest.raises(TypeError, match="the handler must be a function, not 'int'"):
        aiosock_sync.serve(5, LOOPBACK)  # type: ignore[call-overload]  # that is the test


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        (
            {"max_connections": 0},
            ValueError,
            "max_connections must be a number from 1 on, or None, not 0",
        ),
        ({"grace_period": -1}, ValueError, "grace_period must not be negative or NaN: -1"),
        ({"grace_period": float("nan")}, ValueError, "must not be negative or NaN: nan"),
        ({"ssl_handshake_timeout": 0}, ValueError, "must be a positive number: 0"),
        ({"ssl": True}, TypeError, "ssl must be an ssl.SSLContext, not 'bool'"),
        ({"listener_or_address": []}, ValueError, "there is nothing to listen at"),
        ({"handler": one_argument}, TypeError, r"cannot be called with \(conn, peer\): too many"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    kind: Kind, how: dict[str, Any], error: type[Exception], text: str
) -> None:
    given = {"handler": echo, "listener_or_address": LOOPBACK, **how}
    if kind.blocks:
        given["handler"] = plain if given["handler"] is echo else lambda conn: None
    with pytest.raises(error, match=text):
        kind.module.serve(**given)


def test_a_handler_whose_arguments_nobody_can_tell_is_taken(kind: Kind) -> None:
    class Handler:
        __signature__ = "nonsense"

        async def __call__(self, *args: Any) -> None: ...

    class Blocking(Handler):
        def __call__(self, *args: Any) -> None: ...  # type: ignore[override]  # that is the test

    kind.module.serve(Blocking() if kind.blocks else Handler(), LOOPBACK)


async def test_a_socket_that_does_not_listen_is_refused(kind: Kind) -> None:
    with kind.module.socket() as sock:
        with pytest.raises(ValueError, match="the socket does not listen: <aiosock"):
            async with kind.serve(echo, sock):
                pass
        assert sock.fileno() >= 0


async def test_a_socket_of_another_kind_is_refused(kind: Kind) -> None:
    with _stdlib.create_server(LOOPBACK) as sock:
        for place in (sock, [sock], (sock, sock)):
            with pytest.raises(TypeError, match=r"a listener must be an aiosock.*\.socket, not <"):
                kind.made(echo, place)


async def test_two_contexts_for_one_listener_are_refused(kind: Kind) -> None:
    with (
        await kind.listener(ssl=serving()) as listener,
        pytest.raises(ValueError, match="a listener has a context of its own"),
    ):
        kind.made(echo, listener, ssl=serving())


async def test_a_running_server_cannot_be_entered_again(kind: Kind) -> None:
    async with kind.serve(echo) as server:
        with pytest.raises(RuntimeError, match="this server is running"):
            await kind.call(server.__enter__ if kind.blocks else server.__aenter__)
        assert await answered(address_of(server)) == b"hello"


# --- limits -----------------------------------------------------------------------------


async def test_who_comes_at_the_limit_waits_in_the_queue_and_is_not_refused(kind: Kind) -> None:
    places = [LOOPBACK, LOOPBACK]
    async with kind.serve(echo, places, max_connections=2, grace_period=0) as server:
        with ExitStack() as stack:
            addresses = [address_of(server, at % 2) for at in range(6)]
            socks = [stack.enter_context(await connected(address)) for address in addresses]
            for sock in socks:
                await sock.sendall(b"hello")
            for served in range(6):
                await until(lambda: sum(not is_quiet(s) for s in socks) >= min(2, len(socks)))
                assert server.active <= 2
                assert server.accepted <= served + 2
                ready = next(sock for sock in socks if not is_quiet(sock))
                assert await ready.recv(100) == b"hello"
                socks.remove(ready)
                ready.close()
            assert server.accepted == 6


async def test_a_server_at_its_limit_can_be_closed(kind: Kind) -> None:
    async with kind.serve(echo, max_connections=1, grace_period=0) as server:
        with await connected(address_of(server)) as sock:
            assert await answer(sock) == b"hello"
            with await connected(address_of(server)):
                server.close()
                await kind.call(server.serve_forever)


# --- errors of accept -------------------------------------------------------------------

GONE = "ECONNABORTED EPROTO EPERM ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH"


async def test_connections_that_vanished_cost_nothing_else(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    numbers = [getattr(errno, name) for name in GONE.split()]
    left = kind.fail_accept(monkeypatch, *numbers)
    async with kind.serve(echo) as server:
        name = address_of(server)
        assert await answered(name) == b"hello"
        assert (left, server.accepted, server.failed) == ([], 1, 0)
    assert lines(logged) == [
        (
            "DEBUG",
            f"a connection to {name!r} went before it was accepted: [Errno {n}] {os.strerror(n)}",
        )
        for n in numbers
    ]


@pytest.mark.parametrize("name", "EMFILE ENFILE ENOBUFS ENOMEM".split())
async def test_want_of_descriptors_is_said_once_and_waited_for(
    kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_serving, "PAUSE", 0.01)
    left = kind.fail_accept(monkeypatch, *[getattr(errno, name)] * 4)
    async with kind.serve(echo) as server:
        assert await answered(address_of(server)) == b"hello"
        assert left == []
        (line,) = lines(logged)
        assert line[0] == "WARNING"
        said = f"{os.strerror(getattr(errno, name))}; connections to {address_of(server)!r} wait"
        assert line[1] == f"cannot accept: [Errno {getattr(errno, name)}] {said}"


async def test_want_is_said_again_after_a_while(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_serving, "PAUSE", 0.01)
    monkeypatch.setattr(_serving, "SILENCE", 0.0)
    left = kind.fail_accept(monkeypatch, *[errno.EMFILE] * 3)
    async with kind.serve(echo):
        await until(lambda: not left)
    assert len(lines(logged)) == 3


async def test_a_pause_ends_with_a_connection(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serving, "PAUSE", 60.0)
    left = kind.fail_accept(monkeypatch, 0, errno.EMFILE)
    async with kind.serve(echo) as server:
        with await connected(address_of(server)) as sock:
            assert await answer(sock) == b"hello"
            await until(lambda: not left)
            with await connected(address_of(server)) as other:
                await other.sendall(b"hello")
                await asyncio.sleep(0.02)
                assert is_quiet(other)
                sock.close()
                async with asyncio.timeout(LIMIT):
                    assert await other.recv(100) == b"hello"


async def test_a_pause_ends_when_the_server_closes(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serving, "PAUSE", 60.0)
    left = kind.fail_accept(monkeypatch, errno.EMFILE)
    async with kind.serve(echo) as server:
        await until(lambda: not left)
        server.close()
        await kind.call(server.wait_closed)


async def test_any_other_error_ends_the_server(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    kind.fail_accept(monkeypatch, errno.EINVAL)
    async with kind.serve(echo, [LOOPBACK, LOOPBACK]) as server:
        with pytest.raises(OSError, match="Invalid argument"):
            await kind.call(server.serve_forever)
        await until(lambda: not server.sockets)
        with pytest.raises(OSError, match="Invalid argument"):
            await kind.call(server.serve_forever)
    assert lines(logged) == [("ERROR", "the server stops accepting")]


OUT_OF_DESCRIPTORS = """
import asyncio, logging, os, resource, sys
import aiosock, aiosock_sync

FEW, COST = int(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)

async def echo(conn, peer):
    while data := await conn.recv(100):
        await conn.sendall(data)

def blocking_echo(conn, peer):
    while data := conn.recv(100):
        conn.sendall(data)

def ready(server):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + FEW * COST, 999))
    print(server.sockets[0].getsockname()[1], flush=True)

async def main():
    async with aiosock.serve(echo, ("127.0.0.1", 0)) as server:
        await asyncio.sleep(0.05)  # the loop's queue is there
        ready(server)
        await asyncio.to_thread(sys.stdin.read)

if sys.argv[1] == "sync":
    with aiosock_sync.serve(blocking_echo, ("127.0.0.1", 0)) as server:
        import time; time.sleep(0.05)
        ready(server)
        sys.stdin.read()
else:
    asyncio.run(main())
"""


async def test_a_server_out_of_descriptors_goes_on_when_it_has_some(kind: Kind) -> None:
    few, cost = 4, (4 if kind.blocks else 1)  # a thread's loop has three
    words = [
        sys.executable,
        "-W",
        "error",
        "-c",
        OUT_OF_DESCRIPTORS,
        kind.name,
        str(few),
        str(cost),
    ]
    with subprocess.Popen(  # noqa: ASYNC220  # what waits for it does so in threads
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        with ExitStack() as stack:
            socks = [stack.enter_context(await connected(address)) for _ in range(12)]
            said = await asyncio.to_thread(process.stdout.readline)
            assert said.startswith("WARNING cannot accept: [Errno 24] Too many open files; ")
            for sock in socks:
                assert await answer(sock) == b"hello"
                sock.close()
        told, _ = process.communicate(timeout=20)
        assert (process.returncode, told) == (0, "")


# --- TLS --------------------------------------------------------------------------------


async def secured(address: Any) -> aiosock.SSLSocket:
    sock = await connected(address)
    try:
        async with asyncio.timeout(LIMIT):
            return await sock.start_tls(trusting(), server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


@pytest.fixture(params=["context", "listener"])
async def tls(request: pytest.FixtureRequest, kind: Kind) -> AsyncIterator[tuple[Any, Any]]:
    """A place and a context, of which one brings TLS."""
    if request.param == "context":
        yield LOOPBACK, serving()
    else:
        with await kind.listener(ssl=serving()) as listener:
            yield listener, None


async def test_a_handler_gets_a_socket_that_has_shaken_hands(kind: Kind, tls: Any) -> None:
    seen = []

    async def look(conn: Any, peer: Any) -> None:
        seen.append((conn.version(), conn.gettimeout()))
        await once(conn, peer)

    async with kind.serve(look, tls[0], ssl=tls[1]) as server:
        with await secured(address_of(server)) as sock:
            assert await answer(sock) == b"hello"
            assert await sock.recv(100) == b""  # and not cut
        assert seen == [("TLSv1.3", None)]
        assert (server.accepted, server.failed) == (1, 0)


async def test_a_client_that_shakes_no_hands_holds_up_nobody_and_is_let_go(
    kind: Kind, tls: Any, logged: pytest.LogCaptureFixture
) -> None:
    how = {"ssl": tls[1], "ssl_handshake_timeout": 0.2}
    async with kind.serve(echo, tls[0], **how) as server:
        with await connected(address_of(server)) as silent:
            with await secured(address_of(server)) as sock:
                assert await answer(sock) == b"hello"
                assert is_quiet(silent)
                async with asyncio.timeout(LIMIT):
                    assert await silent.recv(100) == b""
                assert await answer(sock) == b"hello"  # whom no timeout bounds any more
            await until(lambda: server.failed == 1)
            peer = silent.getsockname()
    assert ("DEBUG", f"no TLS handshake with {peer!r}: timed out") in lines(logged)


async def test_a_client_that_speaks_no_tls_is_let_go(
    kind: Kind, tls: Any, logged: pytest.LogCaptureFixture
) -> None:
    async with kind.serve(echo, tls[0], ssl=tls[1]) as server:
        with await connected(address_of(server)) as sock, suppress(ConnectionResetError):
            await answer(sock, b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: server.failed == 1 and not server.active)
    assert [level for level, _ in lines(logged)] == ["DEBUG"]
    assert "no TLS handshake with" in lines(logged)[0][1]


async def test_a_handlers_error_over_tls_is_logged_too(
    kind: Kind, tls: Any, logged: pytest.LogCaptureFixture
) -> None:
    async with kind.serve(obey, tls[0], ssl=tls[1]) as server:
        with await secured(address_of(server)) as sock:
            assert await answer(sock, b"a bug") == b""
            await until(lambda: server.failed == 1)
    assert [level for level, _ in lines(logged)] == ["ERROR"]


async def test_a_handshake_is_cancelled_at_the_end(kind: Kind, tls: Any) -> None:
    async with kind.serve(echo, tls[0], ssl=tls[1], grace_period=0) as server:
        silent = await connected(address_of(server))
        await until(lambda: server.active == 1)
    with silent:
        assert await silent.recv(100) == b""
    assert (server.active, server.failed) == (0, 1 if kind.blocks else 0)


# --- the end ----------------------------------------------------------------------------


async def test_handlers_are_let_finish(kind: Kind, logged: pytest.LogCaptureFixture) -> None:
    seen = []

    async def to_the_end(conn: Any, peer: Any) -> None:
        await echo(conn, peer)
        seen.append(peer)

    async with kind.serve(to_the_end, grace_period=None) as server:
        address = address_of(server)
        sock = await connected(address)
        peer = sock.getsockname()
        assert await answer(sock) == b"hello"
        ending = asyncio.create_task(serve_one_more(sock, address))
    await ending
    assert peer in seen
    assert lines(logged) == []


async def serve_one_more(sock: aiosock.socket, address: Any) -> None:
    with sock:
        while True:  # until nothing is accepted any more
            try:
                (await connected(address)).close()
            except ConnectionError:
                break
            await asyncio.sleep(0.01)
        assert await answer(sock) == b"hello"


async def test_handlers_that_do_not_finish_are_cancelled(
    kind: Kind, logged: pytest.LogCaptureFixture
) -> None:
    async with kind.serve(echo, grace_period=0.05) as server:
        sock = await connected(address_of(server))
        assert await answer(sock) == b"hello"
    with sock:
        assert await sock.recv(100) == b""
    assert (server.active, server.failed) == (0, 0)
    assert lines(logged) == [("WARNING", "handlers cancelled as the server ends: 1")]


async def test_close_stops_accepting_and_handlers_go_on(kind: Kind) -> None:
    async with kind.serve(echo) as server:
        address = address_of(server)
        with await connected(address) as sock:
            assert await answer(sock) == b"hello"
            forever = asyncio.create_task(kind.call(server.serve_forever))
            closed = asyncio.create_task(kind.call(server.wait_closed))
            await asyncio.sleep(0.02)
            assert not forever.done()
            server.close()
            assert server.sockets == ()
            with pytest.raises(ConnectionRefusedError):
                await connected(address)
            await forever
            server.close()
            assert await answer(sock) == b"hello"
            assert not closed.done()
        await closed
        assert server.active == 0


async def test_a_listener_that_was_given_is_no_longer_read_when_the_server_is_closed(
    kind: Kind,
) -> None:
    with await kind.listener() as listener:
        async with kind.serve(echo, listener) as server:
            server.close()
            await kind.call(server.wait_closed)
            with await connected(listener.getsockname()) as sock:
                await sock.sendall(b"hello")
                await asyncio.sleep(0.02)
                assert is_quiet(sock)
            assert server.accepted == 0


async def test_a_server_can_be_closed_at_once(kind: Kind) -> None:
    with await kind.listener() as listener:
        for place in (LOOPBACK, listener):
            async with kind.serve(echo, place) as server:
                server.close()


# --- asyncio's tasks --------------------------------------------------------------------


async def test_a_cancelled_body_drains_all_the_same() -> None:
    drained = []

    async def slow(conn: aiosock.socket, peer: Any) -> None:
        await echo(conn, peer)
        drained.append(True)

    async def body() -> None:
        async with aiosock.serve(slow, LOOPBACK) as server:
            started.set_result(address_of(server))
            await server.serve_forever()

    started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(body())
    with await connected(await started) as sock:
        assert await answer(sock) == b"hello"
        task.cancel()
        await asyncio.sleep(0.01)
        assert await answer(sock) == b"hello"
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert drained == [True]


async def test_another_cancellation_cancels_the_handlers_which_are_awaited() -> None:
    seen = []

    async def stubborn(conn: aiosock.socket, peer: Any) -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            seen.append(conn.fileno() >= 0)

    async def body() -> None:
        async with aiosock.serve(stubborn, LOOPBACK, grace_period=None) as server:
            started.set_result(server)
            await server.serve_forever()

    started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(body())
    server = await started
    with await connected(address_of(server)) as sock:
        await until(lambda: server.active)
        task.cancel()
        await until(lambda: not server.sockets)
        await asyncio.sleep(0.01)
        for times in range(3):
            assert (task.done(), len(seen)) == (False, times)
            task.cancel()
            await until(lambda: len(seen) > times)  # noqa: B023  # it is asked at once
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (seen, server.active) == ([True] * 3, 0)
        assert await sock.recv(100) == b""


async def test_a_handler_cancelled_before_its_first_step_closes_its_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    async def see(conn: aiosock.socket, peer: Any) -> None:
        seen.append(peer)
        await echo(conn, peer)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(None)  # an eager task takes it at once
    async with aiosock.serve(see, LOOPBACK) as server:
        begin = server._begin

        def begin_and_cancel(*args: Any) -> None:
            begin(*args)
            for task in server._handling:
                task.cancel()

        monkeypatch.setattr(server, "_begin", begin_and_cancel)
        with await connected(address_of(server)) as sock:
            async with asyncio.timeout(LIMIT):
                assert await sock.recv(100) == b""
        assert (seen, server.accepted, server.active, server.failed) == ([], 1, 0, 0)


async def test_a_wrapper_that_breaks_its_promise_fails_for_each_connection(
    logged: pytest.LogCaptureFixture,
) -> None:
    @functools.wraps(echo)
    def promising(conn: Any, peer: Any) -> Any:
        return None

    async with aiosock.serve(promising, LOOPBACK) as server:
        for _ in range(2):
            with await connected(address_of(server)) as sock:
                async with asyncio.timeout(LIMIT):
                    assert await sock.recv(100) == b""
        assert (server.accepted, server.active, server.failed) == (2, 0, 2)
    assert [level for level, _ in lines(logged)] == ["ERROR", "ERROR"]


async def test_a_connection_is_held_by_no_cycle(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "aiosock")
    held = []

    async def remember(conn: aiosock.socket, peer: Any) -> None:
        held.append(weakref.ref(conn))
        await asyncio.sleep(0)  # asyncio itself knows an eager task that fails at once (gh-128552)
        await obey(conn, peer)

    gc.collect()
    gc.disable()
    try:
        async with aiosock.serve(remember, LOOPBACK) as server:
            for told in (b"refused", b"cut"):
                with await connected(address_of(server)) as sock:
                    assert await answer(sock, told) == b""
            await until(lambda: not server.active)
            assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_goes_through(
    end: type[BaseException], logged: pytest.LogCaptureFixture
) -> None:
    async def leave(conn: aiosock.socket, peer: Any) -> None:
        await conn.recv(100)
        raise end

    async def main() -> None:
        async with aiosock.serve(leave, LOOPBACK) as server:
            with await connected(address_of(server)) as sock:
                await sock.sendall(b"x")
                await server.serve_forever()

    with pytest.raises(end):
        asyncio.run(main())
    assert [line for line in lines(logged) if line[0] != "WARNING"] == []


async def test_an_error_of_the_body_is_raised_after_the_drain() -> None:
    async def body() -> None:
        async with aiosock.serve(echo, LOOPBACK, grace_period=0) as server:
            seen.append(address_of(server))
            raise ZeroDivisionError

    seen: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        await body()
    with pytest.raises(ConnectionRefusedError):
        await connected(seen[0])


# --- socket activation ------------------------------------------------------------------

ACTIVATED = """
import os, sys
import aiosock, aiosock_sync
module = aiosock_sync if sys.argv[1] == "sync" else aiosock
os.dup2(int(sys.argv[2]), 3)
os.dup2(int(sys.argv[3]), 4)
os.environ.update(LISTEN_PID=sys.argv[4] or str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
socks = module.listen_fds()
for s in socks:
    mode = s.gettimeout(), os.get_blocking(s.fileno())
    print(s.fileno(), s.getsockname(), s.get_inheritable(), *mode)
print([s.fileno() for s in module.listen_fds()], [n for n in os.environ if n[:7] == "LISTEN_"])

async def once(conn, peer):
    await conn.sendall(await conn.recv(100))

async def main():
    async with module.serve(once, socks) as server:
        print("ready", flush=True)
        while not server.accepted:
            await __import__("asyncio").sleep(0.01)

if module is aiosock:
    if socks:
        aiosock.run(main)
elif socks:
    with module.serve(lambda conn, peer: conn.sendall(conn.recv(100)), socks) as server:
        print("ready", flush=True)
        while not server.accepted:
            __import__("time").sleep(0.01)
for sock in socks:
    sock.close()
"""


def activated(kind: Kind, pid: str, one: Any, other: Any) -> subprocess.Popen[str]:
    fds = one.fileno(), other.fileno()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ACTIVATED, kind.name, *map(str, fds), pid],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def test_a_service_manager_passes_listeners(kind: Kind) -> None:
    with _stdlib.create_server(LOOPBACK) as one, _stdlib.create_server(LOOPBACK) as other:
        one.setblocking(False)  # as some of them do
        with activated(kind, "", one, other) as process:
            assert process.stdout is not None
            names = [s.getsockname() for s in (one, other)]
            for fd, name in enumerate(names, 3):
                assert process.stdout.readline() == f"{fd} {name} False None {kind.blocks}\n"
            assert process.stdout.readline() == "[] []\n"
            assert process.stdout.readline() == "ready\n"
            assert await answered(names[1]) == b"hello"
            assert (process.communicate(timeout=20)[0], process.returncode) == ("", 0)


def test_listeners_for_another_process_are_left_alone(kind: Kind) -> None:
    with (
        _stdlib.create_server(LOOPBACK) as one,
        _stdlib.create_server(LOOPBACK) as other,
        activated(kind, "1", one, other) as process,
    ):
        assert (process.communicate(timeout=20)[0], process.returncode) == ("[] []\n", 0)


def test_without_a_service_manager_there_are_none(kind: Kind) -> None:
    assert kind.module.listen_fds() == []


def test_descriptors_that_are_no_number_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "abc")
    with pytest.raises(ValueError, match="^LISTEN_FDS must be a number, not 'abc'$"):
        aiosock.listen_fds()
