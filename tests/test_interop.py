"""The examples of interop: each run as its reader would run it, and used by others.

The servers are processes, one for each loop, that serve all the tests of this file: what a
client does to one must harm no other.  They are asked by the stdlib's clients, by ours, by
curl where there is one, and by bytes that no client would send.  What hands sockets to other
libraries runs here too, on each loop.
"""

import asyncio
import http.client
import http.server
import importlib
import importlib.util
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_examples import (
    LOOPS,
    PATIENCE,
    ROOT,
    Address,
    Authority,
    Program,
    a_server,
    can_listen,
    client,
    on_each_loop,
    received,
    reset,
    run,
    running,
    send_and_finish,
    serving,
    wait_for,
)

import aiosock

HASTE = 0.3  # seconds that an HTTP server waits for a client, if it is a hasty one
NEEDS = {
    "anyio_stream": ["anyio"],
    "h11_client": ["h11"],
    "h11_server": ["h11"],
    "httpcore_backend": ["anyio", "h11", "httpcore"],
    "streams_handover": [],
    "wsproto_echo": ["wsproto"],
}


def library(name: str) -> Any:
    """A library of the extra `test`."""
    return importlib.import_module(name)


def needed(name: str) -> str:
    """The example's file; what it needs has to be installed."""
    for needs in NEEDS[name]:
        library(needs)
    return f"{name}.py"


@cache
def module(name: str) -> Any:
    """An example, to be used from here."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / needed(name))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@contextmanager
def a_program_that_serves(name: str, *args: object, first: str) -> Iterator[Program]:
    """It ends at Ctrl-C without complaint, and has closed all that it opened."""
    with running(needed(name), *args, first=first) as program:
        program.address()
        wait_for(program.rests)  # its loop has opened what it needs
        alone = program.descriptors()
        yield program
        wait_for(lambda: program.descriptors() <= alone)
        assert program.interrupt()[::2] == (0, "")


@pytest.fixture(scope="module", params=LOOPS.values(), ids=list(LOOPS))
def http_server(request: pytest.FixtureRequest) -> Iterator[Address]:
    with a_program_that_serves("h11_server", "127.0.0.1", 0, first=request.param) as program:
        yield program.address()


@pytest.fixture(scope="module", params=LOOPS.values(), ids=list(LOOPS))
def hasty_server(request: pytest.FixtureRequest) -> Iterator[Address]:
    arguments = ["127.0.0.1", 0, "--patience", HASTE]
    with a_program_that_serves("h11_server", *arguments, first=request.param) as program:
        yield program.address()


@pytest.fixture(scope="module", params=LOOPS.values(), ids=list(LOOPS))
def https_server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Address]:
    arguments = ["127.0.0.1", 0, "--certificate", authority.certificate]
    with a_program_that_serves("h11_server", *arguments, first=request.param) as program:
        yield "localhost", program.address()[1]


@pytest.fixture(scope="module", params=LOOPS.values(), ids=list(LOOPS))
def websocket_server(request: pytest.FixtureRequest) -> Iterator[Address]:
    arguments = ["server", "127.0.0.1", 0]
    with a_program_that_serves("wsproto_echo", *arguments, first=request.param) as program:
        yield program.address()


def url(address: Address, scheme: str = "http") -> str:
    return f"{scheme}://{address[0]}:{address[1]}/"


def all_for(sock: socket.socket, request: bytes) -> bytes:
    """What comes back until the server closes."""
    with sock:
        sock.sendall(request)
        return received(sock)


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_of_interop_is_for_the_libraries_it_imports(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text()
    known = {needs for libraries in NEEDS.values() for needs in libraries}
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.M)) & known
    assert imported <= set(NEEDS[name])


@pytest.mark.parametrize("command", [["h11_server"], ["wsproto_echo", "server"]], ids=" ".join)
def test_a_server_serves_this_machine_alone_unless_told_otherwise(command: list[str]) -> None:
    if not can_listen(socket.AF_INET, ("127.0.0.1", 50007)):
        pytest.skip("port 50007 is in use on this machine")
    name, *args = command
    with running(needed(name), *args) as program:
        assert program.address() == ("127.0.0.1", 50007)


# --- asyncio's streams --------------------------------------------------------------


@on_each_loop
def test_the_handover_is_shown(loop: str) -> None:
    told = """\
aiosock received b'hello '
streams read b'yourself\\n'
streams had read ahead b'and so on\\n'
aiosock received b'good day yourself\\nand so on\\n'
"""
    assert run("streams_handover.py", first=loop) == (0, told, "")


async def tcp_pair() -> tuple[aiosock.socket, aiosock.socket]:
    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        sock = await aiosock.create_connection(listener.getsockname())
        return sock, (await listener.accept())[0]


async def unix_pair() -> tuple[aiosock.socket, aiosock.socket]:
    return aiosock.socketpair()


each_pair = pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
Pair = Callable[[], Any]


@each_pair
async def test_streams_receive_what_a_socket_has_not(pair: Pair) -> None:
    sock, other = await pair()
    with other:
        await other.sendall(b"one\ntwo\n")
        assert await sock.recv(4) == b"one\n"
        reader, writer = await module("streams_handover").to_streams(sock)
        assert await reader.readline() == b"two\n"
        assert sock.fileno() == -1
        writer.close()
        await writer.wait_closed()
        assert await other.recv(1) == b""


@each_pair
async def test_taken_back_streams_lose_nothing_of_what_came_or_was_written(pair: Pair) -> None:
    handover = module("streams_handover")
    sock, other = await pair()
    message, much = bytes(range(256)) * 2000, bytes(2**23)
    with other:
        reader, writer = await handover.to_streams(sock)
        sending = asyncio.create_task(other.sendall(message))
        assert await reader.readexactly(10) == message[:10]
        writer.write(much)  # more than the kernel takes
        writer.write(b"the end")
        receiving = asyncio.create_task(exactly(other, len(much) + 7))
        sock, ahead = await handover.from_streams(reader, writer)
        with sock:
            assert await receiving == much + b"the end"
            assert ahead + await exactly(sock, len(message) - 10 - len(ahead)) == message[10:]
            await sending
            await sock.sendall(b"and on")
            assert await other.recv(100) == b"and on"
            other.close()
            assert await sock.recv(1) == b""


async def exactly(sock: aiosock.socket, size: int) -> bytes:
    async with sock.makefile("rb") as file:
        return await file.readexactly(size)


async def test_streams_that_have_read_ahead_until_they_pause_hand_all_of_it_out() -> None:
    handover = module("streams_handover")
    sock, other = aiosock.socketpair()
    with other:
        reader, writer = await handover.to_streams(sock)
        sending = asyncio.create_task(other.sendall(bytes(2**19) + b"end"))
        await asyncio.sleep(0.05)
        assert not sending.done()  # the reader has enough
        sock, ahead = await handover.from_streams(reader, writer)
        with sock:
            assert len(ahead) >= 2**17
            assert (ahead + await exactly(sock, 2**19 + 3 - len(ahead))).endswith(b"\0end")
        await sending


async def test_the_end_that_streams_have_seen_is_seen_again() -> None:
    handover = module("streams_handover")
    sock, other = aiosock.socketpair()
    streams = await handover.to_streams(sock)
    with other:
        await other.sendall(b"last")
        other.shutdown(aiosock.SHUT_WR)
        while not streams[0]._eof:  # noqa: ASYNC110  # there is no event to be had
            await asyncio.sleep(0)
        streams[1].write(bytes(2**23))
        receiving = asyncio.create_task(exactly(other, 2**23 + 5))
        sock, ahead = await handover.from_streams(*streams)
        with sock:
            assert (ahead, await sock.recv(1)) == (b"last", b"")
            await sock.sendall(b"heard")  # when all before it is sent
            assert (await receiving).endswith(b"\0heard")


async def test_streams_of_asyncios_own_server_are_taken_too() -> None:
    handover = module("streams_handover")
    taken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def take(*streams: Any) -> None:
        taken.set_result(await handover.from_streams(*streams))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server, aiosock.create_connection(server.sockets[0].getsockname()) as sock:
        conn, _ = await taken
        with conn:
            await conn.sendall(b"hello")
            assert await sock.recv(100) == b"hello"


async def test_a_handover_back_that_is_cancelled_closes_the_connection() -> None:
    handover = module("streams_handover")
    sock, other = aiosock.socketpair()
    with other:
        reader, writer = await handover.to_streams(sock)
        writer.write(bytes(2**23))  # nobody receives it
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await handover.from_streams(reader, writer)
        taken = 0
        while data := await other.recv(2**20):
            taken += len(data)
        assert taken < 2**23


async def test_tls_does_not_change_hands(authority: Authority) -> None:
    handover = module("streams_handover")
    ours, theirs = ssl.create_default_context(cafile=authority.file), serving(authority.certificate)
    client, server = aiosock.socketpair()
    sock, conn = await asyncio.gather(
        client.start_tls(ours, server_hostname="localhost"),
        server.start_tls(theirs, server_side=True),
    )
    with sock, conn:
        with pytest.raises(TypeError, match="a plain socket is needed"):
            await handover.to_streams(sock)
        assert sock.fileno() >= 0
    client, server = aiosock.socketpair()
    streams, conn = await asyncio.gather(
        asyncio.open_connection(
            sock=socket.socket(fileno=client.detach()), ssl=ours, server_hostname="localhost"
        ),
        server.start_tls(theirs, server_side=True),
    )
    with conn:
        with pytest.raises(TypeError, match="plain streams are needed"):
            await handover.from_streams(*streams)
        streams[1].write(b"unharmed")
        assert await conn.recv(100) == b"unharmed"
        conn.close()
        streams[1].close()
        with suppress(OSError):
            await streams[1].wait_closed()


# --- anyio --------------------------------------------------------------------------


@on_each_loop
def test_the_anyio_stream_is_shown(loop: str) -> None:
    code, printed, complaint = run(needed("anyio_stream"), first=loop)
    assert (code, complaint) == (0, "")
    assert re.fullmatch(
        r"connected from (.+)\nb'HEAR!'\nb'ME!'\nnothing comes unasked\nshout: from \1 no more\n",
        printed,
    )


@asynccontextmanager
async def anyio_streams() -> AsyncIterator[tuple[Any, Any]]:
    stream = module("anyio_stream").Stream
    one, other = map(stream, aiosock.socketpair())
    async with one, other:
        yield one, other


async def test_anyios_buffered_streams_go_over_our_sockets() -> None:
    shout = module("anyio_stream").shout
    buffered = library("anyio.streams.buffered")
    async with anyio_streams() as (one, other):
        shouting = asyncio.create_task(shout(other))
        lines = buffered.BufferedByteStream(one)
        await lines.send(b"a\nb")
        assert await lines.receive_until(b"\n", 100) == b"A!"
        await lines.send(b"c" * 100)
        assert await lines.receive_until(b"\n", 100) == b"too long"
        await shouting


async def test_anyios_tls_goes_over_our_sockets(authority: Authority) -> None:
    anyio, tls = library("anyio"), library("anyio.streams.tls")
    ours, theirs = ssl.create_default_context(cafile=authority.file), serving(authority.certificate)
    async with anyio_streams() as (one, other):
        client, server = await asyncio.gather(
            tls.TLSStream.wrap(one, hostname="localhost", ssl_context=ours),
            tls.TLSStream.wrap(other, server_side=True, ssl_context=theirs),
        )
        await client.send(b"secret")
        assert await server.receive() == b"secret"
        assert client.extra(tls.TLSAttribute.alpn_protocol) is None
        assert client.extra(anyio.abc.SocketAttribute.raw_socket).family == aiosock.AF_UNIX
        await asyncio.gather(client.aclose(), server.aclose())


async def test_an_anyio_stream_has_anyios_errors_and_attributes() -> None:
    anyio = library("anyio")
    attribute = anyio.abc.SocketAttribute
    one, other = map(module("anyio_stream").Stream, await tcp_pair())
    async with one, other:
        attributes = [getattr(attribute, f"{side}_port") for side in ("local", "remote")]
        assert one.extra(attributes[0]) == other.extra(attributes[1])
        assert one.extra(attribute.remote_address)[1] == one.extra(attributes[1])
        assert one.extra(attribute.local_address)[0] == "127.0.0.1"
        assert one.extra(attribute.family) == aiosock.AF_INET
        with pytest.raises(ValueError, match="positive"):
            await one.receive(0)
        await one.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await other.receive()
        waiting = asyncio.create_task(one.receive())
        await asyncio.sleep(0.01)
        await one.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await waiting
        with pytest.raises(anyio.ClosedResourceError):
            await one.send(b"")
        with pytest.raises(anyio.BrokenResourceError):
            await other.send(bytes(2**24))


async def test_an_anyio_stream_that_is_cancelled_has_taken_nothing() -> None:
    anyio = library("anyio")
    async with anyio_streams() as (one, other):
        with anyio.move_on_after(0.01):
            await other.receive()
        await one.send(b"hello")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await other.receive()
        assert scope.cancelled_caught
        assert await other.receive() == b"hello"


async def test_anyios_own_stream_takes_a_descriptor() -> None:
    anyio = library("anyio")
    sock, other = await tcp_pair()
    with other:
        async with await anyio.abc.SocketStream.from_socket(sock.detach()) as stream:
            await stream.send(b"hello")
            assert await other.recv(100) == b"hello"


# --- HTTP by h11: the server --------------------------------------------------------


def test_the_stdlibs_client_has_many_answers_over_one_connection(http_server: Address) -> None:
    connection = http.client.HTTPConnection(*http_server, timeout=PATIENCE)
    with connection.sock or connection_of(connection) as sock:
        for method, target, status, text in (
            ("GET", "/", 200, b"You asked for /\n"),
            ("HEAD", "/", 200, b""),
            ("DELETE", "/", 405, b"GET, HEAD or POST\n"),
            ("GET", "/a?b=c", 200, b"You asked for /a?b=c\n"),
        ):
            connection.request(method, target, body=b"ignored" if method == "DELETE" else None)
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, text)
        connection.request("POST", "/", body=iter([b"a" * 70_000, b"b"]), encode_chunked=True)
        assert connection.getresponse().read() == b"a" * 70_000 + b"b"
        assert connection.sock is sock


def connection_of(connection: http.client.HTTPConnection) -> Any:
    connection.connect()
    return connection.sock


def test_urllib_is_served_over_tls(https_server: Address, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    where = url(https_server, "https")
    with urllib.request.urlopen(where, context=context, timeout=PATIENCE) as response:
        assert response.read() == b"You asked for /\n"
    with urllib.request.urlopen(where, b"x" * 10**6, PATIENCE, context=context) as response:
        assert response.read() == b"x" * 10**6
    with pytest.raises(urllib.error.HTTPError, match="405") as caught:
        urllib.request.urlopen(
            urllib.request.Request(where, method="PUT"), context=context, timeout=PATIENCE
        )
    caught.value.close()


def test_curl_is_served(http_server: Address) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    command = [curl, "-sS", "--http1.1", "--data-binary", "@-", "-H", "Expect: 100-continue"]
    told = subprocess.run(
        [*command, url(http_server)], input=b"x" * 10**6, capture_output=True, timeout=PATIENCE
    )
    assert (told.stdout, told.stderr) == (b"x" * 10**6, b"")


def test_requests_that_come_at_once_are_answered_in_turn(http_server: Address) -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50))
    last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = all_for(client(http_server), requests + last)
    assert re.findall(rb"You asked for (\S+)\n", answers) == [
        *(b"/%d" % n for n in range(50)),
        b"/last",
    ]


def test_who_waits_to_be_told_is_told_to_go_on(http_server: Address) -> None:
    with client(http_server) as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert b"hi" in all_for(sock, b"hi")


@pytest.mark.parametrize(
    ("request_", "status"),
    {
        "no HTTP": (b"good morning\r\n\r\n", b"400"),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"400"),
        "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        "two lengths": (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400",
        ),
        "endless": (b"GET / HTTP/1.1\r\nA: " + b"a" * 2**20, b"431"),
        "unknown coding": (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n" + bytes(2**20),
            b"501",
        ),
        "after a good one": (
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n",
            b"400",
        ),
    }.values(),
    ids=lambda value: None,
)
def test_a_bad_request_is_answered(request_: bytes, status: bytes, http_server: Address) -> None:
    with client(http_server) as sock, suppress(ConnectionResetError, BrokenPipeError):
        sock.sendall(request_)
        answer = received(sock)
    assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(status + b" ")


def test_a_bad_request_over_tls_is_answered(https_server: Address, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    with context.wrap_socket(client(https_server), server_hostname="localhost") as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1000)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhi",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_clients_that_vanish_or_dawdle_are_let_go(start: bytes, hasty_server: Address) -> None:
    for _ in range(3):
        sock = client(hasty_server)
        sock.sendall(start)
        reset(sock)
        sock = client(hasty_server)
        sock.sendall(start)
        sock.close()
    received_from = client(hasty_server)
    assert b"200" in all_for(client(hasty_server), GOOD)
    all_for(received_from, start)  # ends, although the client does nothing more


def test_who_says_what_he_wants_letter_by_letter_is_let_go(hasty_server: Address) -> None:
    with client(hasty_server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        for _ in range(100):
            if select.select([sock], [], [], 0.05)[0]:
                break
            sock.sendall(b"a")
        else:
            pytest.fail("he is listened to")
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""


GOOD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_who_takes_no_answer_is_let_go(hasty_server: Address) -> None:
    with client(hasty_server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sock.sendall((b"10000\r\n" + bytes(2**16) + b"\r\n") * 1000)


# --- HTTP by h11: the client --------------------------------------------------------


@on_each_loop
def test_the_h11_client_prints_what_it_gets(loop: str, http_server: Address) -> None:
    assert run(needed("h11_client"), f"{url(http_server)}a?b", first=loop) == (
        0,
        "You asked for /a?b\n",
        "200 OK\n",
    )


@on_each_loop
def test_the_h11_client_posts_a_file(
    loop: str, https_server: Address, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("many words " * 100_000)
    args = [url(https_server, "https"), "--post", file, "--ca", authority.file]
    assert run(needed("h11_client"), *args, first=loop) == (0, file.read_text(), "200 OK\n")


def test_the_h11_client_trusts_nobody_else(https_server: Address) -> None:
    code, printed, complaint = run(needed("h11_client"), url(https_server, "https"))
    assert (code, printed) == (1, "")
    assert "ssl.SSLCertVerificationError" in complaint


@on_each_loop
def test_the_h11_client_understands_the_stdlibs_server(loop: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello\n" * 50_000)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        where = url(server.server_address[:2])  # type: ignore[arg-type]  # (str, int) with AF_INET
        try:
            told = run(needed("h11_client"), f"{where}page", first=loop)
            assert told == (0, "hello\n" * 50_000, "200 OK\n")
            assert run("h11_client.py", f"{where}no", first=loop)[2] == "404 File not found\n"
        finally:
            server.shutdown()
            serving.join()


@on_each_loop
def test_the_h11_client_hears_a_server_that_has_enough(loop: str, tmp_path: Path) -> None:
    heard = threading.Event()

    def refuse(conn: socket.socket) -> None:
        assert conn.recv(100_000, socket.MSG_WAITALL)  # it sends more than anybody listens to
        conn.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nNo.\n")
        assert heard.wait(PATIENCE)

    file = tmp_path / "file"
    file.write_bytes(bytes(2**24))
    with a_server(refuse) as address:
        told = run(needed("h11_client"), url(address), "--post", file, first=loop)
        heard.set()
        assert told == (0, "No.\n", "413 Too Large\n")


async def test_the_h11_client_waits_for_the_answer_when_it_cannot_send() -> None:
    h11, example = library("h11"), module("h11_client")
    http = h11.Connection(h11.CLIENT)
    headers = [("Host", "a"), ("Transfer-Encoding", "chunked")]
    http.send(h11.Request(method="POST", target="/", headers=headers))
    sock, other = aiosock.socketpair()
    with sock, other:
        await other.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        other.close()
        await example.post(sock, http, [b"body"])
        events = [event async for event in example.answer(sock, http)]
        assert events[0].status_code == 400


# --- httpcore -----------------------------------------------------------------------

ANSWERS = """\
async: 200 You asked for /
async: 200 You asked for /
over [<AsyncHTTPConnection ['{}', HTTP/1.1, IDLE, Request Count: 2]>]
blocking: 200 sent back
"""


@on_each_loop
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_httpcore_asks_with_await_and_without(
    loop: str, scheme: str, authority: Authority, request: pytest.FixtureRequest
) -> None:
    needed("httpcore_backend")
    arguments = ["--certificate", authority.certificate] if scheme == "https" else []
    with a_program_that_serves("h11_server", "127.0.0.1", 0, *arguments, first=loop) as program:
        where = f"{scheme}://localhost:{program.address()[1]}"
        told = run("httpcore_backend.py", f"{where}/", "--ca", authority.file, first=loop)
        assert told == (0, ANSWERS.format(where), "")


class Front:
    """One of the two backends, whose calls are awaited here."""

    def __init__(self, name: str) -> None:
        example = module("httpcore_backend")
        self.blocks = name == "blocking"
        self.backend = example.Backend() if self.blocks else example.AsyncBackend()

    async def call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        if self.blocks:
            return await asyncio.to_thread(method, *args, **kwargs)
        return await method(*args, **kwargs)

    async def close(self, stream: Any) -> None:
        await self.call(stream.close if self.blocks else stream.aclose)


@pytest.fixture(params=["async", "blocking"])
async def front(request: pytest.FixtureRequest) -> Front:
    return Front(request.param)


@asynccontextmanager
async def connected(front: Front, **options: Any) -> AsyncIterator[tuple[Any, aiosock.socket]]:
    """A stream of httpcore's, and the other end of it."""
    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        stream = await front.call(
            front.backend.connect_tcp, *listener.getsockname(), timeout=5, **options
        )
        conn, _ = await listener.accept()
        with conn:
            yield stream, conn
            await front.close(stream)


async def test_a_httpcore_stream_reads_and_writes_and_knows_its_socket(front: Front) -> None:
    keepalive = (aiosock.SOL_SOCKET, aiosock.SO_KEEPALIVE, 1)
    options = {"local_address": "127.0.0.2", "socket_options": [keepalive]}
    async with connected(front, **options) as (stream, conn):
        await front.call(stream.write, b"question", 5)
        assert await conn.recv(100) == b"question"
        assert not stream.get_extra_info("is_readable")
        await conn.sendall(b"answer")
        assert stream.get_extra_info("is_readable")
        assert await front.call(stream.read, 100, 5) == b"answer"
        assert stream.get_extra_info("client_addr") == conn.getpeername()
        assert conn.getpeername()[0] == "127.0.0.2"
        assert stream.get_extra_info("server_addr") == conn.getsockname()
        sock = stream.get_extra_info("socket")
        assert sock.getsockopt(*keepalive[:2])
        assert sock.getsockopt(aiosock.IPPROTO_TCP, aiosock.TCP_NODELAY)
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("weather") is None
        conn.close()
        assert await front.call(stream.read, 100, 5) == b""
    assert stream.get_extra_info("is_readable")  # which makes a pool drop it


async def test_a_httpcore_stream_is_late_or_fails_in_httpcores_words(front: Front) -> None:
    httpcore = library("httpcore")
    async with connected(front) as (stream, conn):
        with pytest.raises(httpcore.ReadTimeout, match="timed out"):
            await front.call(stream.read, 100, 0.02)
        with pytest.raises(httpcore.WriteTimeout, match="timed out"):
            await front.call(stream.write, bytes(2**24), 0.02)
        conn.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        conn.close()
        with pytest.raises(httpcore.ReadError, match="reset"):
            await front.call(stream.read, 100, 5)
        with pytest.raises(httpcore.WriteError):
            await front.call(stream.write, b"any", 5)


async def test_a_httpcore_connection_that_fails_says_so_in_httpcores_words(
    front: Front, tmp_path: Path
) -> None:
    httpcore = library("httpcore")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(httpcore.ConnectError, match="refused"):
            await front.call(front.backend.connect_tcp, *taken.getsockname())
        taken.listen(0)
        with socket.create_connection(taken.getsockname()):  # the queue is full now
            with pytest.raises(httpcore.ConnectTimeout):
                await front.call(front.backend.connect_tcp, *taken.getsockname(), timeout=0.05)
            taken.accept()[0].close()
    with pytest.raises(httpcore.ConnectError, match="No such file"):
        await front.call(front.backend.connect_unix_socket, str(tmp_path / "none"))
    with pytest.raises(httpcore.ConnectError, match="not available"):
        async with connected(front, socket_options=[(aiosock.IPPROTO_TCP, 9999, 1)]):
            pass


async def test_a_httpcore_stream_turns_to_tls(front: Front, authority: Authority) -> None:
    httpcore = library("httpcore")
    context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols(["http/1.1"])
    theirs = serving(authority.certificate)
    theirs.set_alpn_protocols(["http/1.1"])
    async with connected(front) as (stream, conn):
        stream, server = await asyncio.gather(
            front.call(stream.start_tls, context, "localhost", 5),
            conn.start_tls(theirs, server_side=True),
        )
        await server.sendall(b"secret")
        assert await front.call(stream.read, 100, 5) == b"secret"
        assert stream.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        with socket.socket(fileno=server.detach()):
            pass  # cut, without close_notify
        assert await front.call(stream.read, 100, 5) == b""
        await front.close(stream)
    async with connected(front) as (stream, conn):
        serving_it = asyncio.create_task(conn.start_tls(theirs, server_side=True))
        with pytest.raises(httpcore.ConnectError, match="Hostname mismatch"):
            await front.call(stream.start_tls, context, "another.example", 5)
        with pytest.raises(ssl.SSLError):
            await serving_it


async def test_a_httpcore_handshake_may_be_late(front: Front, authority: Authority) -> None:
    httpcore = library("httpcore")
    context = ssl.create_default_context(cafile=authority.file)
    async with connected(front) as (stream, _):
        with pytest.raises(httpcore.ConnectTimeout):
            await front.call(stream.start_tls, context, "localhost", 0.02)


async def test_httpcore_goes_over_unix_sockets_and_sleeps(front: Front, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    await front.call(front.backend.sleep, 0.001)
    async with aiosock.create_server(path, family=aiosock.AF_UNIX) as listener:
        stream = await front.call(front.backend.connect_unix_socket, path, 5, [])
        conn, _ = await listener.accept()
        with conn:
            await front.call(stream.write, b"hello")
            assert await conn.recv(100) == b"hello"
        await front.close(stream)


async def test_a_pool_drops_an_idle_connection_that_the_server_has_closed() -> None:
    backend = module("httpcore_backend").AsyncBackend()
    httpcore = library("httpcore")

    async def answer_one(listener: aiosock.socket) -> None:
        conn, _ = await listener.accept()
        with conn:
            await conn.recv(1000)
            await conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with (
        aiosock.create_server(("127.0.0.1", 0)) as listener,
        httpcore.AsyncConnectionPool(network_backend=backend) as pool,
    ):
        for _ in range(3):
            serving = asyncio.create_task(answer_one(listener))
            response = await pool.request("GET", url(listener.getsockname()))
            assert response.content == b"hi"
            await serving


# --- WebSocket by wsproto -----------------------------------------------------------


@on_each_loop
def test_the_websocket_client_sends_all_kinds_and_gets_them_back(
    loop: str, websocket_server: Address
) -> None:
    messages = ["Hello, world", "na\xefve \u2603", "", "x" * 100_000]
    code, printed, complaint = run(
        needed("wsproto_echo"), "client", *websocket_server, *messages, first=loop
    )
    assert (code, complaint) == (0, "")
    *lines, pong, fragments, end = printed.splitlines()
    assert lines == [f"message {m!r}" for m in [*messages, bytes(range(8))]]
    assert pong == "pong b'between'"
    assert fragments == "message 'in fragments'"
    assert end == "closed: 1000 that was all"


KEY = b"Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
ASK = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY


def frame(head: int, payload: bytes = b"") -> bytes:
    """A client's, masked with zeros."""
    return bytes([head, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@contextmanager
def open_websocket(address: Address) -> Iterator[socket.socket]:
    with client(address) as sock:
        sock.sendall(ASK + b"\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield sock


def test_fragments_come_back_as_fragments_and_pings_between(websocket_server: Address) -> None:
    with open_websocket(websocket_server) as sock:
        parts = [frame(0x02, b"a"), frame(0x89, b"ping"), frame(0x00, b"b"), frame(0x80, b"c")]
        answer = all_for(sock, b"".join(parts) + frame(0x88, b"\x03\xe8bye"))
    assert answer == b"\x02\1a\x8a\4ping\x00\1b\x80\1c\x88\5\x03\xe8bye"


@pytest.mark.parametrize(
    ("sent", "code"),
    [(frame(0xF1), 1002), (b"\x81\x01a", 1002), (frame(0x81, b"\xff"), 1007)],
    ids=["reserved bits", "not masked", "no UTF-8"],
)
def test_a_bad_frame_closes_with_the_reason(
    sent: bytes, code: int, websocket_server: Address
) -> None:
    with open_websocket(websocket_server) as sock:
        answer = all_for(sock, sent)
    assert answer[:1] == b"\x88"
    assert int.from_bytes(answer[2:4], "big") == code


@pytest.mark.parametrize(
    "request_",
    [
        GOOD,
        b"good morning\r\n\r\n",
        ASK.replace(b"Host: a", b"Host: xn--999999999") + b"\r\n",
        ASK.replace(b"Host: a", b"Host: \xff") + b"\r\n",
        ASK.replace(b"GET", b"PUT") + b"\r\n",
    ],
    ids=["HTTP alone", "no HTTP", "no Punycode", "no ASCII", "another method"],
)
def test_who_asks_for_no_websocket_is_refused(request_: bytes, websocket_server: Address) -> None:
    assert all_for(client(websocket_server), request_).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("start", [b"", b"GET / HTT", ASK + b"\r\n" + frame(0x01, b"half")])
def test_the_websocket_server_survives_who_vanishes(
    start: bytes, websocket_server: Address
) -> None:
    for _ in range(3):
        sock = client(websocket_server)
        sock.sendall(start)
        reset(sock)
        with client(websocket_server) as sock:
            sock.sendall(start)
    with client(websocket_server) as sock:
        sock.settimeout(5)
        send_and_finish(start, sock)
        received(sock)  # ends at once
    with open_websocket(websocket_server) as sock:
        assert all_for(sock, frame(0x88)) == b"\x88\0"


@on_each_loop
def test_the_websocket_client_says_who_refuses_it(loop: str, http_server: Address) -> None:
    code, printed, complaint = run(needed("wsproto_echo"), "client", *http_server, first=loop)
    assert (code, printed) == (1, "")
    assert "ConnectionRefusedError: no WebSocket here: 200\n" in complaint
