"""Errors that teach: each mistake, the error it gives, and the note on that.

The type and the text of an error are the stdlib's, or Python's, where they know the mistake; what
we know besides is a note.  The table in docs/errors.md is made of the rows below:

    .venv/bin/python tests/test_misuse.py
"""

import ast
import asyncio
import gc
import os
import re
import socket as _stdlib
import threading
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import pytest
from blocking import pair
from faces import LIMIT, Face
from secured import raw_pair, secured_pair
from test_tls_sync import pair as blocking_pair

import aiosock
import aiosock_sync

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
ANYTHING = "…"  # in a text or a note


class Row(NamedTuple):
    code: str
    error: type[BaseException]
    text: str
    note: str = ""
    on: str = ""  # the stdlib's own call, which gives the same without the note


CLOSED = "the socket was closed or detached while this call waited"
CLOSED_BEFORE = "the socket is closed already, by close, detach or start_tls"
PAIR = "an AF_INET address is (host, port), a tuple of str and int; this one is "
TARGET = (
    "an address is (host, port), or the path of an AF_UNIX socket, which is bytes or has a slash "
    "in it; this one is "
)
NOT_WITH = (
    "{!r} object does not support the context manager protocol: "
    "enter it with `async with`, not with `with`"
)
TEXT = "only bytes can be sent; text.encode() makes bytes of text"
NO_BYTES = "a bytes-like object is required, not 'str'"
NOT_FOR = "{!r} object is not iterable: its lines are awaited, by `async for`"
NO_ADDRESSES = "{} addresses of 'slow.example' are not known: timed out"

TABLES = {
    "A forgotten `await` or `async`": [
        Row("sock.recv(1)", RuntimeWarning, "coroutine 'socket.recv' was never awaited"),
        Row(
            "sock.recv(1).decode()",
            AttributeError,
            "'coroutine' object has no attribute 'decode'",
        ),
        Row(
            "aiosock.create_connection(address).sendall(b'hello')",
            AttributeError,
            "'Opening' object has no attribute 'sendall': "
            "the socket is what `await` or `async with` makes of it",
        ),
        Row("with aiosock.create_connection(address): ...", TypeError, NOT_WITH.format("Opening")),
        Row("with aiosock.create_server(address): ...", TypeError, NOT_WITH.format("Opening")),
        Row("with aiosock.serve(handler, address): ...", TypeError, NOT_WITH.format("Server")),
        Row("with one.makefile(): ...", TypeError, NOT_WITH.format("TextFile")),
        Row("for line in one.makefile(): ...", TypeError, NOT_FOR.format("TextFile")),
        Row("list(one.makefile('rb', buffering=0))", TypeError, NOT_FOR.format("RawFile")),
        Row(
            "await aiosock.serve(handler, address)",
            TypeError,
            "'Server' object can't be used in 'await' expression: "
            "enter it with `async with`, which starts it, and ends it",
        ),
        Row(
            "aiosock.serve(blocking_handler, address)",
            TypeError,
            f"the handler must be a coroutine function (async def), which {ANYTHING} is not; "
            "aiosock_sync.serve() takes blocking ones",
        ),
        Row(
            "aiosock_sync.call(main())",
            TypeError,
            "call() takes an async function and its arguments, not the coroutine that it returns: "
            "call(f, x) in place of call(f(x))",
        ),
        Row(
            "aiosock_sync.call(print)",
            TypeError,
            "an async function is needed: <built-in function print> returned None",
        ),
    ],
    "An address that is none": [
        Row(
            "await sock.connect('127.0.0.1:80')",
            TypeError,
            "connect(): AF_INET address must be tuple, not str",
            PAIR + "'127.0.0.1:80'",
            on="stdlib.socket().connect('127.0.0.1:80')",
        ),
        Row(
            "await sock.connect(('localhost', '80'))",
            TypeError,
            "'str' object cannot be interpreted as an integer",
            PAIR + "('localhost', '80')",
            on="stdlib.socket().connect(('localhost', '80'))",
        ),
        Row(
            "await sock.bind(['127.0.0.1', 80])",
            TypeError,
            "bind(): AF_INET address must be tuple, not list",
            PAIR + "['127.0.0.1', 80]",
            on="stdlib.socket().bind(['127.0.0.1', 80])",
        ),
        Row(
            "await udp.sendto(b'x', ('127.0.0.1',))",
            TypeError,
            "AF_INET address must be a pair (host, port)",
            PAIR + "('127.0.0.1',)",
            on="stdlib.socket(type=stdlib.SOCK_DGRAM).sendto(b'x', ('127.0.0.1',))",
        ),
        Row(
            "udp.setblocking(False); await udp.sendto(b'x', 80)",
            TypeError,
            "sendto(): AF_INET address must be tuple, not int",
            PAIR + "80",
        ),
        Row(
            "await udp.sendmsg([b'x'], [], 0, 80)",
            TypeError,
            "sendmsg(): AF_INET address must be tuple, not int",
            PAIR + "80",
            on="stdlib.socket(type=stdlib.SOCK_DGRAM).sendmsg([b'x'], [], 0, 80)",
        ),
        Row(
            "await aiosock.socket(aiosock.AF_INET6).connect('::1')",
            TypeError,
            "connect(): AF_INET6 address must be tuple, not str",
            "an AF_INET6 address is (host, port[, flowinfo[, scope_id]]), a tuple of str and ints; "
            "this one is '::1'",
            on="stdlib.socket(stdlib.AF_INET6).connect('::1')",
        ),
        Row(
            "await aiosock.socket(aiosock.AF_UNIX).connect(Path('/run/x'))",
            TypeError,
            "a bytes-like object is required, not 'PosixPath'",
            "an AF_UNIX address is a path as str or bytes, of a PathLike os.fspath(path); "
            "this one is PosixPath('/run/x')",
            on="stdlib.socket(stdlib.AF_UNIX).connect(Path('/run/x'))",
        ),
        Row(
            "await aiosock.create_connection('127.0.0.1:80')",
            ValueError,
            "too many values to unpack (expected 2)",
            TARGET + "'127.0.0.1:80'",
            on="stdlib.create_connection('127.0.0.1:80')",
        ),
        Row(
            "async with aiosock.serve(handler, ('127.0.0.1', '80')): ...",
            TypeError,
            "'str' object cannot be interpreted as an integer",
            PAIR + "('127.0.0.1', '80')",
        ),
        Row(
            "async with aiosock.serve(handler, '127.0.0.1:80'): ...",
            TypeError,
            "an address is (host, port), or a path with a slash, not '127.0.0.1:80'",
        ),
        Row(
            "aiosock_sync.socket().connect('127.0.0.1:80')",
            TypeError,
            "connect(): AF_INET address must be tuple, not str",
            PAIR + "'127.0.0.1:80'",
        ),
        Row(
            "aiosock_sync.socket().bind(80)",
            TypeError,
            "bind(): AF_INET address must be tuple, not int",
            PAIR + "80",
        ),
        Row(
            "aiosock_sync.socket(type=aiosock.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', '80'))",
            TypeError,
            "'str' object cannot be interpreted as an integer",
            PAIR + "('127.0.0.1', '80')",
        ),
        Row(
            "aiosock_sync.create_connection(80)",
            TypeError,
            "cannot unpack non-iterable int object",
            TARGET + "80",
            on="stdlib.create_connection(80)",
        ),
    ],
    "A name that is not known, or not in time": [
        Row(
            "await sock.connect(('nosuch.example', 80))",
            aiosock.gaierror,
            "[Errno -2] Name or service not known",
            "in the lookup of 'nosuch.example'",
        ),
        Row(
            "await aiosock.create_connection(('nosuch.example', 80))",
            aiosock.gaierror,
            "[Errno -2] Name or service not known",
            "in the lookup of 'nosuch.example'",
        ),
        Row(
            "sock.settimeout(0.01); await sock.connect(('slow.example', 80))",
            TimeoutError,
            "timed out",
            "the time went to the lookup of 'slow.example'",
        ),
        Row(
            "await aiosock.create_connection(('slow.example', 80), 0.01)",
            TimeoutError,
            "timed out",
            f"{NO_ADDRESSES.format('IPv6')}\n{NO_ADDRESSES.format('IPv4')}",
        ),
        Row(
            "aiosock_sync.socket().connect(('nosuch.example', 80))",
            aiosock.gaierror,
            "[Errno -2] Name or service not known",
            "in the lookup of 'nosuch.example'",
        ),
        Row(
            "with aiosock_sync.fail_after(0.01): aiosock_sync.getaddrinfo('slow.example', 80)",
            TimeoutError,
            "timed out",
            "the time went to the lookup of 'slow.example'",
        ),
    ],
    "A socket or a loop that cannot serve": [
        Row(
            "soon(one.close); await one.recv(1)",
            OSError,
            "[Errno 9] Bad file descriptor",
            CLOSED,
        ),
        Row(
            "soon(sock.close); await sock.connect(('slow.example', 80))",
            OSError,
            "[Errno 9] Bad file descriptor",
            f"{CLOSED}\nin the lookup of 'slow.example'",
        ),
        Row(
            "one.close(); await one.recv(1)",
            OSError,
            "[Errno 9] Bad file descriptor",
            CLOSED_BEFORE,
            on="with stdlib.socket() as gone: gone.close(); gone.recv(1)",
        ),
        Row(
            "closed = aiosock_sync.socket(); closed.close(); closed.sendall(b'x')",
            OSError,
            "[Errno 9] Bad file descriptor",
            CLOSED_BEFORE,
        ),
        Row(
            "aiosock.from_stdlib_socket(transport.get_extra_info('socket'))",
            TypeError,
            "a plain socket.socket is needed, not asyncio.trsock.TransportSocket; "
            "fromfd() makes a socket of a duplicate of any descriptor",
        ),
        Row(
            "one.recv(1).send(None)  # where no loop runs",
            RuntimeError,
            "no running event loop: an aiosock operation that has to wait must be awaited in a "
            "task of an asyncio loop; start one with aiosock.run() or asyncio.run()",
        ),
        Row(
            "aiosock.run(one.recv(1), loop_factory=ProactorEventLoop)",
            NotImplementedError,
            "aiosock needs an event loop with add_reader(), which ProactorEventLoop lacks: start "
            "one that has it, with asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop) or "
            "aiosock.run()",
        ),
    ],
    "A value that is none": [
        Row(
            "await one.sendall('text')",
            TypeError,
            NO_BYTES,
            TEXT,
            on="stdlib.socket().sendall('text')",
        ),
        Row("aiosock_sync.socket().send('text')", TypeError, NO_BYTES, TEXT),
        Row(
            "await udp.sendto('text', address)",
            TypeError,
            NO_BYTES,
            TEXT,
            on="stdlib.socket(type=stdlib.SOCK_DGRAM).sendto('text', address)",
        ),
        Row(
            "sock.settimeout('5')",
            TypeError,
            "'str' object cannot be interpreted as an integer",
            "a timeout is a number of seconds, or None for no limit; this one is '5'",
            on="stdlib.socket().settimeout('5')",
        ),
        Row(
            "aiosock_sync.socket().settimeout('5')",
            TypeError,
            "'str' object cannot be interpreted as an integer",
            "a timeout is a number of seconds, or None for no limit; this one is '5'",
        ),
        Row(
            "with aiosock_sync.fail_after(None): ...",
            TypeError,
            "seconds must be a number (math.inf for no limit), not 'NoneType'",
        ),
        Row(
            "aiosock.create_connection(address, ssl='yes')",
            TypeError,
            "ssl must be an ssl.SSLContext or a bool, not 'str'",
        ),
    ],
}
ROWS = [row for rows in TABLES.values() for row in rows]


# --- the page -------------------------------------------------------------------------


def table() -> str:
    return "\n".join(line for title, rows in TABLES.items() for line in section(title, rows))


def section(title: str, rows: list[Row]) -> Iterator[str]:
    yield from (f"## {title}", "", "| mistake | what is raised | note |", "|---|---|---|")
    for row in rows:
        notes = "<br>".join(cell(note) for note in row.note.splitlines())
        yield f"| {cell(row.code)} | `{row.error.__name__}`: {cell(row.text)} | {notes} |"
    yield ""


def cell(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def test_the_page_shows_these_rows() -> None:
    assert table() in PAGE.read_text()


# --- the mistakes ---------------------------------------------------------------------


class Slow:
    """Knows no name, and takes its time with one."""

    async def getaddrinfo(self, host: Any, *args: Any) -> list[Any]:
        if host == "slow.example":
            await asyncio.sleep(LIMIT)
        raise aiosock.gaierror(_stdlib.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


class ProactorEventLoop(asyncio.SelectorEventLoop):
    """Like that of Windows in what it lacks."""

    def add_reader(self, *args: Any) -> NoReturn:  # type: ignore[override]  # whatever it is given
        raise NotImplementedError


@contextmanager
def names() -> Iterator[dict[str, Any]]:
    """What the rows speak of."""

    async def handler(conn: aiosock.socket, peer: Any) -> None: ...

    def blocking_handler(conn: aiosock_sync.socket, peer: Any) -> None: ...

    async def main() -> None: ...

    one, other = aiosock.socketpair()
    with one, other, aiosock.socket() as sock, aiosock.socket(type=aiosock.SOCK_DGRAM) as udp:
        shown = TransportSocket(other._sock)
        transport = SimpleNamespace(get_extra_info=lambda name: shown)
        address, stdlib = ("127.0.0.1", 0), _stdlib
        yield {**globals(), **locals()}


async def with_loop(code: str, scope: dict[str, Any]) -> None:
    scope["soon"] = asyncio.get_running_loop().call_soon
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    work = eval(compile(code, "<row>", "exec", flags=flags), scope)
    if work is not None:
        await work


def outcome(code: str) -> tuple[type[BaseException], str, str] | None:
    """What a mistake raises, else warns of: its type, its text, the notes on it."""
    told = None
    with names() as scope, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            if "await " in code or "async with" in code:
                asyncio.run(with_loop(code, scope))
            else:
                exec(code, scope)
        except Exception as error:
            told = type(error), str(error), "\n".join(getattr(error, "__notes__", ()))
        gc.collect()  # what the mistake has left behind, while nobody minds
    for warning in heard if told is None else ():
        told = warning.category, str(warning.message), ""
    return told


@pytest.fixture(autouse=True)
def resolver() -> Iterator[None]:
    aiosock.set_resolver(Slow())
    yield
    aiosock.set_resolver(None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_a_mistake_is_told(row: Row) -> None:
    told = outcome(row.code)
    assert told is not None
    kind, text, note = told
    assert (kind, note) == (row.error, row.note)
    assert re.fullmatch(re.escape(row.text).replace(ANYTHING, ".*"), text), text


@pytest.mark.parametrize("row", [row for row in ROWS if row.on], ids=lambda row: row.on)
def test_the_stdlib_has_the_same_text(row: Row) -> None:
    assert outcome(row.on) == (row.error, row.text, "")


# --- what no row can show ---------------------------------------------------------------


async def test_the_time_of_a_scope_that_went_to_a_lookup_is_told_by_the_cause() -> None:
    with aiosock.socket() as sock, pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await sock.connect(("slow.example", 80))
    cause = caught.value.__cause__
    assert isinstance(cause, asyncio.CancelledError)
    assert cause.__notes__ == ["the time went to the lookup of 'slow.example'"]


async def test_a_note_on_an_error_that_a_resolver_keeps_stands_there_once() -> None:
    kept = aiosock.gaierror(-2, "unknown")

    class Keeping(Slow):
        async def getaddrinfo(self, host: Any, *args: Any) -> list[Any]:
            raise kept

    aiosock.set_resolver(Keeping())
    for _ in range(3):
        with pytest.raises(aiosock.gaierror, match="unknown"):
            await aiosock.getaddrinfo("kept.example", 80)
    assert kept.__notes__ == ["in the lookup of 'kept.example'"]
    kept.__traceback__ = None


@pytest.mark.parametrize("waiting", [1, 2], ids=["alone", "in line"])
async def test_whoever_waits_for_a_socket_that_is_closed_is_told_so(waiting: int) -> None:
    one, other = aiosock.socketpair()
    with one, other:
        tasks = [asyncio.create_task(one.recv(10)) for _ in range(waiting)]
        await asyncio.sleep(0)
        one.close()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, OSError)
            assert error.__notes__ == [CLOSED]


async def test_who_waits_in_the_midst_of_a_conversation_is_told_so_too() -> None:
    client, server = raw_pair()
    heard = asyncio.Event()

    async def listen(sock: aiosock.socket) -> None:
        assert await sock.recv(10) == b"x"
        heard.set()
        await sock.recv(10)

    with server, aiosock.from_stdlib_socket(client) as sock:
        task = asyncio.create_task(listen(sock))
        await asyncio.sleep(0)
        server.sendall(b"x")
        await heard.wait()
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await task
        assert caught.value.__notes__ == [CLOSED]


def test_a_call_that_another_thread_ends_is_told_so(stack: ExitStack) -> None:
    one, _ = pair(stack)
    timer = threading.Timer(0.02, one.close)
    timer.start()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        one.recv(1)
    timer.join()
    assert caught.value.__notes__ == [CLOSED]


async def test_only_a_wrong_address_is_told_of_its_shape(net: Face) -> None:
    udp = net.socket(type=_stdlib.SOCK_DGRAM)
    for address in (("127.0.0.1", 9), ("localhost", 9)):
        with pytest.raises(TypeError, match=f"^{NO_BYTES}") as caught:
            await udp.sendto("text", address)
        assert getattr(caught.value, "__notes__", []) == ([] if net.is_stdlib else [TEXT])


def sendings(piece: Any) -> dict[str, tuple[Any, ...]]:
    """The arguments of each call that sends."""
    return {
        "send": (piece,),
        "sendall": (piece,),
        "sendto": (piece, ("127.0.0.1", 9)),
        "sendto a name": (piece, 0, ("localhost", 9)),
        "sendmsg": ([b"x", piece],),
        "send_many": ([piece],),
    }


@pytest.mark.parametrize("timeout", [None, 1, 0])
@pytest.mark.parametrize("call", sendings(b""))
async def test_who_sends_text_is_told_how_to_make_bytes_of_it_and_nobody_else(
    ours: Face, call: str, timeout: float | None
) -> None:
    one, _ = ours.socketpair()
    sock = one if call in ("send", "sendall") else ours.socket(type=_stdlib.SOCK_DGRAM)
    sock.settimeout(timeout)
    for piece, notes in ("text", [TEXT]), (5, []):
        with pytest.raises(TypeError, match="^a bytes-like object is required") as caught:
            await getattr(sock, call.split()[0])(*sendings(piece)[call])
        assert getattr(caught.value, "__notes__", []) == notes


TLS_CALLS = pytest.mark.parametrize("call", ["send", "sendall", "write"])


@TLS_CALLS
async def test_who_sends_text_in_tls_is_told_so_too(call: str, stack: ExitStack) -> None:
    secure, _ = await secured_pair(stack)
    for piece, notes in ("text", [TEXT]), (5, []):
        with pytest.raises(TypeError, match="a bytes-like object is required") as caught:
            await getattr(secure, call)(piece)
        assert getattr(caught.value, "__notes__", []) == notes


@TLS_CALLS
def test_who_sends_text_in_tls_is_told_so_without_await_too(call: str, stack: ExitStack) -> None:
    secure, _ = blocking_pair(stack)
    for piece, notes in ("text", [TEXT]), (5, []):
        with pytest.raises(TypeError, match="a bytes-like object is required") as caught:
            getattr(secure, call)(piece)
        assert getattr(caught.value, "__notes__", []) == notes


WAITING: dict[str, tuple[Any, ...]] = {
    "accept": (),
    "bind": (("127.0.0.1", 0),),
    "connect": (("127.0.0.1", 9),),
    "recv": (1,),
    "recv_into": (bytearray(1),),
    "recvfrom": (1,),
    "recvfrom_into": (bytearray(1),),
    "recvmsg": (1,),
    "recvmsg_into": ([bytearray(1)],),
    "recv_many": (1,),
    "send": (b"x",),
    "sendall": (b"x",),
    "sendto": (b"x", ("127.0.0.1", 9)),
    "sendmsg": ([b"x"],),
    "send_many": ([b"x"],),
    "wait_readable": (),
    "wait_writable": (),
}


@pytest.mark.parametrize("timeout", [None, 1, 0])
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        *((call, _stdlib.SOCK_DGRAM) for call in WAITING),
        *((call, _stdlib.SOCK_STREAM) for call in WAITING if not call.endswith("_many")),
    ],
)
async def test_who_calls_on_a_closed_socket_is_told_so(
    ours: Face, call: str, kind: int, timeout: float | None
) -> None:
    sock = ours.socket(type=kind)
    sock.settimeout(timeout)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        await getattr(sock, call)(*WAITING[call])
    assert caught.value.__notes__ == [CLOSED_BEFORE]


async def test_a_bad_descriptor_of_an_open_socket_is_no_closed_socket(ours: Face) -> None:
    """Somebody has closed the number beneath it: there is nothing that we know besides."""
    one, _ = ours.socketpair()
    number = one.fileno()
    kept = os.dup(number)
    os.close(number)
    try:
        with pytest.raises(OSError, match="Bad file descriptor$"):
            await one.recv(1)
    finally:
        os.dup2(kept, number)
        os.close(kept)


async def test_the_warning_of_ssl_names_the_line_of_the_call_also_for_a_task() -> None:
    client, server = raw_pair()
    with server, aiosock.from_stdlib_socket(client) as sock:
        with pytest.warns(aiosock.InsecureWarning) as heard:
            task = asyncio.create_task(aiosock.ssl(sock))
        assert [warning.filename for warning in heard] == [__file__]
        task.cancel()
        await asyncio.wait([task])


async def test_a_paused_transport_shares_its_descriptor_with_a_socket() -> None:
    """There is no conflict: who is told first receives, so a transport is paused before."""
    received: asyncio.Future[bytes] = asyncio.Future()

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.set_result(data)

    here, there = _stdlib.socketpair()
    with there:
        transport, _ = await asyncio.get_running_loop().create_connection(Protocol, sock=here)
        shown = transport.get_extra_info("socket")
        transport.pause_reading()
        with aiosock.fromfd(shown.fileno(), shown.family, shown.type) as sock:
            there.sendall(b"to the socket")
            assert await sock.recv(100) == b"to the socket"
        transport.resume_reading()
        there.sendall(b"to the transport")
        assert await asyncio.wait_for(received, LIMIT) == b"to the transport"
        transport.close()
        await asyncio.sleep(0)  # in which it closes


if __name__ == "__main__":
    print(table())
