"""TLS with await: handshakes, bytes, both ends of a stream, and all that peers do to them.

Our sockets verify what they talk to, host names too.  The peers are the stdlib's SSLObject,
whose records are held in our hands and go out piece by piece, the stdlib's SSLSocket in a
thread, and OpenSSL's own s_client and s_server.  Where the stdlib's SSLSocket refuses
something, ours is held against it in the same test.
"""

import asyncio
import ctypes
import errno
import importlib
import inspect
import io
import os
import random
import shutil
import socket as _stdlib
import ssl
import struct
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import trustme
from faces import open_descriptors
from secured import (
    HOST,
    TLS12,
    TLS13,
    Peer,
    authority,
    certificate,
    exactly,
    plain_pair,
    raw_pair,
    secured_pair,
    serving,
    start,
    trusting,
    usual,
    with_peer,
)

import aiosock
from aiosock._tls import SSLListener

LIMIT = 5.0  # seconds until a test gives up
RECORD = 2**14  # the most bytes of a record
BULK = random.Random(8).randbytes(300_000)
HELLO = b"hello"

versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


def in_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    @wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(LIMIT):
            await test(*args, **kwargs)

    return limited


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call returns, or its error."""
    try:
        return await call
    except (OSError, ValueError) as error:
        return error


def named(sock: aiosock.SSLSocket) -> Any:
    """What the peer's certificate is for."""
    shown = sock.getpeercert()
    assert shown
    return shown["subjectAltName"]


async def both(*calls: Awaitable[Any]) -> list[Any]:
    """The outcomes of calls that go on at once."""
    return await asyncio.gather(*map(outcome, calls))


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that waits in the call."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.005)
    assert not task.done()
    return task


async def cancelled(task: asyncio.Task[Any]) -> int:
    """Stop a task; how much it says that it has sent."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as stopped:
        await task
    return getattr(stopped.value, "bytes_sent", -1)


def reset(sock: Any) -> None:
    """Close so that the peer is sent RST."""
    sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# --- handshakes: who is believed ------------------------------------------------------


@versions
async def test_the_right_host_is_believed(version: Any, stack: ExitStack) -> None:
    client, server = await secured_pair(stack, trusting(version=version))
    await client.sendall(HELLO)
    assert await server.recv() == HELLO
    await server.sendall(HELLO[::-1])
    assert await client.recv() == HELLO[::-1]
    assert named(client) == (("DNS", HOST), ("IP Address", "127.0.0.1"))
    assert client.getpeercert(True)
    assert server.getpeercert() is None


async def test_an_address_is_verified_too(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    ours, others = await both(
        client.start_tls(trusting(), server_hostname="127.0.0.1"), start(server, True)
    )
    with ours, others:
        assert ours.server_hostname == "127.0.0.1"


def expired() -> Any:
    now = datetime.now(UTC)
    return certificate(HOST, not_before=now - timedelta(9), not_after=now - timedelta(1))


def other_authority() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trustme.CA().configure_trust(context)
    return context


UNBELIEVED: dict[str, tuple[Callable[[], Any], Callable[..., ssl.SSLContext], str]] = {
    "wrong host": (lambda: certificate("www.example.org"), trusting, "Hostname mismatch"),
    "wrong address": (lambda: certificate("127.0.0.9"), trusting, "Hostname mismatch"),
    "expired": (expired, trusting, "certificate has expired"),
    "unknown authority": (certificate, other_authority, "self-signed certificate in "),
}


@versions
@pytest.mark.parametrize("name", UNBELIEVED)
async def test_whom_the_context_does_not_believe(name: str, version: Any, stack: ExitStack) -> None:
    shown, trust, complaint = UNBELIEVED[name]
    client, server = plain_pair(stack)
    context = serving(shown(), version=version)
    ours, theirs = await both(
        client.start_tls(trust(), server_hostname=HOST), first_bytes(server, context)
    )
    assert type(ours) is ssl.SSLCertVerificationError
    assert complaint in ours.verify_message
    assert type(theirs) is ssl.SSLError  # it is told why
    assert theirs.reason in ("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE") or (
        "CERTIFICATE" in theirs.reason
    )
    assert client.fileno() == server.fileno() == -1


async def first_bytes(sock: aiosock.socket, context: ssl.SSLContext) -> bytes:
    """A server's handshake and what it receives first; its connection is closed then."""
    with await sock.start_tls(context, server_side=True) as made:
        return await made.recv()


async def test_a_server_that_shows_no_certificate(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    ours, theirs = await both(
        start(client, False),
        server.start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True),
    )
    assert (type(ours), ours.reason) == (ssl.SSLError, "SSLV3_ALERT_HANDSHAKE_FAILURE")
    assert (type(theirs), theirs.reason) == (ssl.SSLError, "NO_SHARED_CIPHER") or (
        theirs.reason == "NO_SUITABLE_SIGNATURE_ALGORITHM"
    )


@versions
async def test_a_client_shows_its_certificate(version: Any, stack: ExitStack) -> None:
    mine = certificate("somebody@example.org")
    asking = serving(version=version, verify_mode=ssl.CERT_REQUIRED)
    client, server = await secured_pair(stack, trusting(mine), asking)
    assert named(server) == (("email", "somebody@example.org"),)
    await client.sendall(HELLO)
    assert await server.recv() == HELLO


async def test_a_client_without_a_certificate_hears_it_in_the_handshake(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    asking = serving(version=TLS12, verify_mode=ssl.CERT_REQUIRED)
    ours, theirs = await both(start(client, False), server.start_tls(asking, server_side=True))
    assert ours.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert theirs.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert client.fileno() == server.fileno() == -1


async def test_a_client_without_a_certificate_hears_it_with_what_it_receives_first(
    stack: ExitStack,
) -> None:
    """A TLS 1.3 client has made its handshake before the server has looked."""
    client, server = plain_pair(stack)
    asking = serving(version=TLS13, verify_mode=ssl.CERT_REQUIRED)
    ours, theirs = await both(start(client, False), server.start_tls(asking, server_side=True))
    assert theirs.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    with ours, pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await ours.recv()


async def test_no_version_in_common(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    ours, theirs = await both(
        start(client, False, trusting(version=TLS12)), start(server, True, serving(version=TLS13))
    )
    assert ours.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert theirs.reason == "UNSUPPORTED_PROTOCOL"


async def test_what_a_client_does_not_verify_is_not_shown(stack: ExitStack) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client, _ = await secured_pair(stack, context)
    assert client.getpeercert() == {}
    assert client.getpeercert(True)


# --- handshakes: what is agreed upon --------------------------------------------------


@versions
async def test_what_was_agreed_upon_is_what_the_peer_has(version: Any, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, context=trusting(version=version))
    assert sock.version() == peer.tls.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert sock.cipher() == peer.tls.cipher()
    assert sock.compression() is None
    assert sock.shared_ciphers() is None
    assert sock.selected_alpn_protocol() is None
    assert sock.pending() == 0
    assert (sock.server_side, sock.server_hostname) == (False, HOST)
    assert sock.session_reused is False
    if version == TLS12:
        binding = sock.get_channel_binding()
        assert binding
        assert binding == peer.tls.get_channel_binding("tls-unique")
    with pytest.raises(ValueError, match="channel binding type not implemented"):
        sock.get_channel_binding("none")
    with pytest.warns(DeprecationWarning, match="NPN is deprecated"):
        sock.selected_npn_protocol()


async def test_a_server_knows_what_the_client_offers(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, server_side=True)
    assert sock.shared_ciphers()
    assert sock.shared_ciphers() == peer_shared(peer, sock)
    assert (sock.server_side, sock.server_hostname) == (True, None)


def peer_shared(peer: Peer, sock: aiosock.SSLSocket) -> Any:
    """The offered ones that the server knows, in the order of the offer."""
    known = {cipher["name"] for cipher in sock.context.get_ciphers()}
    offered = [cipher["name"] for cipher in trusting().get_ciphers()]
    shared = sock.shared_ciphers() or []
    assert [name for name, _, _ in shared] == [name for name in offered if name in known]
    return shared


@pytest.mark.skipif(
    not hasattr(ssl.SSLSocket, "get_verified_chain"), reason="this Python's ssl has no chains"
)
async def test_the_chains(stack: ExitStack) -> None:
    client, server = await secured_pair(stack)
    mine, whole = client.get_unverified_chain(), client.get_verified_chain()
    assert mine[0] == whole[0] == client.getpeercert(True)
    assert len(whole) == 2
    assert server.get_unverified_chain() in ([], None)


@versions
async def test_alpn(version: Any, stack: ExitStack) -> None:
    here, there = trusting(version=version), serving()
    here.set_alpn_protocols(["h2", "http/1.1"])
    there.set_alpn_protocols(["http/1.1"])
    client, server = await secured_pair(stack, here, there)
    assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "http/1.1"


@versions
async def test_an_sni_callback_chooses_the_context(version: Any, stack: ExitStack) -> None:
    asked: list[Any] = []
    chosen = serving()

    def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
        asked.append((name, context))
        tls.context = chosen

    first = serving(certificate("www.example.org"), version=version)
    first.sni_callback = choose
    client, server = await secured_pair(stack, None, first)
    assert asked == [(HOST, first)]
    assert server.context is chosen
    assert named(client)[0] == ("DNS", HOST)


async def test_a_context_can_be_replaced_by_another(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack)
    other = trusting()
    sock.context = other
    assert sock.context is other
    sock.shutdown(_stdlib.SHUT_RDWR)
    assert sock.context is other


async def test_an_sni_callback_that_refuses(stack: ExitStack) -> None:
    context = serving()
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    client, server = plain_pair(stack)
    ours, theirs = await both(start(client, False), start(server, True, context))
    assert ours.reason == "TLSV1_UNRECOGNIZED_NAME"
    assert theirs.reason == "CALLBACK_FAILED"


@versions
async def test_a_session_is_taken_up_again(version: Any, stack: ExitStack) -> None:
    here, there = trusting(version=version), serving()
    client, server = await secured_pair(stack, here, there)
    await server.sendall(HELLO)  # the tickets of TLS 1.3 come before it
    assert await client.recv() == HELLO
    session = client.session
    assert session is not None
    assert session.id
    assert not client.session_reused
    again, _ = await secured_pair(stack, here, there, session=session)
    assert again.session_reused
    with pytest.raises(ValueError, match="Cannot set session after handshake"):
        again.session = session


async def test_a_server_takes_no_session(stack: ExitStack) -> None:
    client, _ = await secured_pair(stack, trusting(version=TLS12))
    sock, peer = plain_pair(stack)
    with pytest.raises(ValueError, match="session can only be specified in client mode"):
        await sock.start_tls(serving(), server_side=True, session=client.session)
    await unharmed(sock, peer)


async def test_a_session_of_another_context_is_refused(stack: ExitStack) -> None:
    client, _ = await secured_pair(stack, trusting(version=TLS12))
    fresh, _ = plain_pair(stack)
    with pytest.raises(ValueError, match="Session refers to a different SSLContext"):
        await start(fresh, False, session=client.session)
    await unharmed(fresh, _)


async def unharmed(sock: aiosock.socket, peer: aiosock.socket) -> None:
    """Both ends still speak plain text."""
    await sock.sendall(HELLO)
    assert await peer.recv(100) == HELLO
    await peer.sendall(HELLO)
    assert await sock.recv(100) == HELLO


async def test_post_handshake_authentication(stack: ExitStack) -> None:
    here = trusting(certificate("somebody@example.org"), post_handshake_auth=True)
    there = serving(verify_mode=ssl.CERT_REQUIRED, post_handshake_auth=True)
    client, server = await secured_pair(stack, here, there)
    assert not server.getpeercert()
    await server.verify_client_post_handshake()
    listening = await waiting(client.recv())  # which answers for the client
    hearing = await waiting(server.recv())
    await server.sendall(HELLO)
    assert await listening == HELLO
    await client.sendall(HELLO)
    assert await hearing == HELLO
    assert named(server) == (("email", "somebody@example.org"),)


@sides
async def test_post_handshake_authentication_that_is_not_on(
    server_side: bool, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, server_side)
    with pytest.raises(ssl.SSLError) as refused:
        await sock.verify_client_post_handshake()
    assert refused.value.reason == ("EXTENSION_NOT_RECEIVED" if server_side else "NOT_SERVER")
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_a_handshake_that_has_been_made_is_not_made_again(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    for block in (False, True):
        await sock.do_handshake(block)
    sock.settimeout(0.0)
    await sock.do_handshake(True)
    await sock.do_handshake()
    await peer.send(HELLO)
    sock.settimeout(None)
    assert await sock.recv() == HELLO


async def test_the_socket_takes_the_place_of_the_plain_one(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    number, names = client.fileno(), (client.getsockname(), client.getpeername())
    client.settimeout(7.0)
    one, other = await both(start(client, False), start(server, True))
    with one, other:
        assert client.fileno() == -1
        assert one.fileno() == number
        assert (one.getsockname(), one.getpeername()) == names
        assert one.gettimeout() == one.timeout == 7.0
        assert (one.family, one.type) == (_stdlib.AF_INET, _stdlib.SOCK_STREAM)
        assert repr(one).startswith(f"<aiosock.SSLSocket fd={number}, family=2")
        assert isinstance(one, aiosock.socket)
        assert not one.get_inheritable()
        one.setsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_NODELAY, 1)
        assert one.getsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_NODELAY)
    assert one.fileno() == -1


async def test_whoever_waited_on_the_plain_socket_finds_it_closed(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    reading = await waiting(outcome(client.recv(100)))
    one, other = await both(start(client, False), start(server, True))
    with one, other:
        assert (await reading).errno == errno.EBADF
        await one.sendall(HELLO)
        assert await other.recv() == HELLO


def test_there_is_no_constructor() -> None:
    with pytest.raises(TypeError, match="use socket.start_tls"):
        aiosock.SSLSocket()


# --- handshakes: what does not fit ----------------------------------------------------

WRONG: dict[str, tuple[Callable[[aiosock.socket], Awaitable[Any]], Any, str]] = {
    "no context": (lambda s: s.start_tls(None), TypeError, "context must be an ssl.SSLContext"),  # type: ignore[arg-type]  # wrong
    "a module": (lambda s: s.start_tls(ssl), TypeError, "not 'module'"),  # type: ignore[arg-type]  # wrong
    "no host": (lambda s: s.start_tls(trusting()), ValueError, "check_hostname requires"),
    "empty host": (
        lambda s: s.start_tls(trusting(), server_hostname=""),
        ValueError,
        "check_hostname requires",
    ),
    "host of a server": (
        lambda s: s.start_tls(serving(), server_side=True, server_hostname=HOST),
        ValueError,
        "server_hostname can only be specified in client mode",
    ),
    "dotted host": (
        lambda s: s.start_tls(trusting(), server_hostname=".localhost"),
        ValueError,
        "cannot be an empty string or start with a leading dot|label empty",
    ),
    "host with NUL": (
        lambda s: s.start_tls(trusting(), server_hostname="a\0b"),
        TypeError,
        "null bytes",
    ),
    "host that is no text": (
        lambda s: s.start_tls(trusting(), server_hostname=5),  # type: ignore[arg-type]  # wrong
        (TypeError, AttributeError),
        "int",
    ),
    "context of a client": (
        lambda s: s.start_tls(unverifying(), server_side=True),
        ssl.SSLError,
        "Cannot create a server socket with a PROTOCOL_TLS_CLIENT context",
    ),
    "context of a server": (
        lambda s: s.start_tls(serving(), server_hostname=HOST),
        ssl.SSLError,
        "Cannot create a client socket with a PROTOCOL_TLS_SERVER context",
    ),
    "session that is none": (
        lambda s: s.start_tls(trusting(), server_hostname=HOST, session="x"),  # type: ignore[arg-type]  # wrong
        TypeError,
        "Value is not a SSLSession",
    ),
}


def unverifying() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_arguments_leave_the_socket_as_it_was(name: str, stack: ExitStack) -> None:
    call, kind, text = WRONG[name]
    sock, peer = plain_pair(stack)
    with pytest.raises(kind, match=text):
        await call(sock)
    await unharmed(sock, peer)


async def test_tls_twice(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    with pytest.raises(ValueError, match="TLS has been started on this socket"):
        await start(sock, False)
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_tls_on_a_socket_that_is_not_connected(stack: ExitStack) -> None:
    sock = stack.enter_context(aiosock.socket())
    with pytest.raises(OSError, match="not connected") as refused:
        await start(sock, False)
    assert refused.value.errno == errno.ENOTCONN
    listener = stack.enter_context(await aiosock.create_server(("127.0.0.1", 0)))
    with pytest.raises(OSError, match="not connected"):
        await start(listener, True)
    await sock.connect(listener.getsockname())
    server, _ = await listener.accept()
    await unharmed(sock, stack.enter_context(server))


async def test_tls_on_datagrams(stack: ExitStack) -> None:
    one, other = (
        stack.enter_context(sock)
        for sock in aiosock.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    )
    with pytest.raises(NotImplementedError, match="^only stream sockets are supported$"):
        await start(one, False)
    await unharmed(one, other)


async def test_tls_on_a_closed_socket(stack: ExitStack) -> None:
    sock, _ = plain_pair(stack)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await start(sock, False)


async def test_tls_on_a_non_blocking_socket(stack: ExitStack) -> None:
    sock, peer = plain_pair(stack)
    sock.settimeout(0.0)
    with pytest.raises(ValueError, match="a non-blocking socket cannot wait for a handshake"):
        await start(sock, False)
    sock.settimeout(None)
    await unharmed(sock, peer)


async def test_tls_over_a_socket_pair(stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    client, server = await both(start(one, False), start(other, True))
    with client, server:
        await client.sendall(BULK[:5])
        assert await server.recv() == BULK[:5]


# --- handshakes: peers that do not play -----------------------------------------------

STALLS = {
    "client: nothing comes": (False, 0, 0),
    "client: half of the server's flight": (False, 1, 0.5),
    "server: nothing comes": (True, 0, 0),
    "server: half a hello": (True, 0, 0.5),
    "server: a hello and no more": (True, 1, 0),
    "server: half of the client's last flight": (True, 1, 0.5),
}


async def stalled(sock: aiosock.socket, peer: Peer, flights: int, part: float) -> None:
    """The peer's side of a handshake, so many flights and a part of the next long."""
    for _ in range(flights if peer.tls.server_side else flights + 1):
        with suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        if not flights:
            break
        flights -= 1
        if peer.tls.server_side:
            await peer.hear()
            break
        await peer.say()
        await peer.hear()
    with suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    data = peer.outgoing.read()
    await peer.sock.sendall(data[: int(len(data) * part)])


@pytest.fixture(params=STALLS)
async def stall(
    request: pytest.FixtureRequest, stack: ExitStack
) -> tuple[aiosock.socket, Peer, Callable[[], Awaitable[Any]], bool]:
    """A socket, and a peer that stops at some point of the handshake."""
    server_side, flights, part = STALLS[request.param]
    client, server = plain_pair(stack)
    ours, others = (server, client) if server_side else (client, server)
    peer = Peer(others, not server_side)
    return ours, peer, partial(stalled, ours, peer, flights, part), server_side


Stall = tuple[aiosock.socket, Peer, Callable[[], Awaitable[Any]], bool]


async def seen_closed(peer: Peer) -> None:
    """Our end of the connection is closed."""
    with suppress(ConnectionError):
        while await peer.sock.recv(2**16):
            pass


async def test_a_stalled_handshake_ends_with_the_timeout(stall: Stall) -> None:
    sock, peer, play, server_side = stall
    sock.settimeout(0.05)
    before = open_descriptors()
    error, _ = await both(start(sock, server_side), play())
    assert type(error) is TimeoutError
    assert str(error) == "timed out"
    assert open_descriptors() == before - 1
    await seen_closed(peer)


async def test_a_stalled_handshake_can_be_cancelled(stall: Stall) -> None:
    sock, peer, play, server_side = stall
    before = open_descriptors()
    shaking = asyncio.create_task(start(sock, server_side))
    await play()
    await asyncio.sleep(0.01)
    assert not shaking.done()
    await cancelled(shaking)
    assert open_descriptors() == before - 1
    await seen_closed(peer)


async def test_a_connection_that_ends_in_a_handshake(stall: Stall) -> None:
    sock, peer, play, server_side = stall
    shaking = asyncio.create_task(outcome(start(sock, server_side)))
    await play()
    await asyncio.sleep(0.01)
    peer.sock.close()
    error = await shaking
    assert isinstance(error, ssl.SSLEOFError | ConnectionResetError)
    assert sock.fileno() == -1


async def test_a_reset_in_a_handshake(stall: Stall) -> None:
    sock, peer, play, server_side = stall
    shaking = asyncio.create_task(outcome(start(sock, server_side)))
    await play()
    await asyncio.sleep(0.01)
    reset(peer.sock)
    assert type(await shaking) is ConnectionResetError
    assert sock.fileno() == -1


@sides
async def test_a_peer_that_speaks_plain_text(server_side: bool, stack: ExitStack) -> None:
    sock, peer = plain_pair(stack)
    shaking = asyncio.create_task(outcome(start(sock, server_side)))
    await peer.sendall(b"GET / HTTP/1.1\r\n\r\n" if server_side else b"220 hello, who are you\r\n")
    error = await shaking
    assert type(error) is ssl.SSLError
    assert error.reason == ("HTTP_REQUEST" if server_side else "WRONG_VERSION_NUMBER")
    assert sock.fileno() == -1


@sides
async def test_garbage_in_the_middle_of_a_handshake(server_side: bool, stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    ours, others = (server, client) if server_side else (client, server)
    peer = Peer(others, not server_side)
    shaking = asyncio.create_task(outcome(start(ours, server_side)))
    with suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    if not server_side:
        await peer.hear()
        with suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
    flight = bytearray(peer.outgoing.read())
    flight[len(flight) // 2 :] = bytes(len(flight) - len(flight) // 2)
    await others.sendall(flight)
    error = await shaking
    assert isinstance(error, ssl.SSLError)
    assert error.reason
    assert ours.fileno() == -1


async def fill(sock: aiosock.socket) -> int:
    """Send plain bytes until no more fit; how many went."""
    sock.settimeout(0.0)
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += await sock.send(b"." * 1000)
    sock.settimeout(None)
    return sent


async def test_a_handshake_waits_until_its_flight_fits(stack: ExitStack) -> None:
    client, server = plain_pair(stack, tiny=True)
    filled = await fill(client)
    shaking = await waiting(start(client, False))
    assert len(await exactly(filled, server.recv)) == filled
    made, other = await both(shaking, start(server, True))
    with made, other:
        await made.sendall(HELLO)
        assert await other.recv() == HELLO


@pytest.mark.parametrize("timeout", [None, 0.05])
async def test_a_handshake_whose_flight_never_fits(timeout: float | None, stack: ExitStack) -> None:
    client, server = plain_pair(stack, tiny=True)
    filled = await fill(client)
    client.settimeout(timeout)
    shaking = asyncio.create_task(start(client, False))
    await asyncio.sleep(0.01)
    if timeout is None:
        await cancelled(shaking)
    else:
        with pytest.raises(TimeoutError):
            await shaking
    assert client.fileno() == -1
    assert (await exactly(filled, server.recv)).strip(b".") == b""
    await exactly(2**20, server.recv)  # a part of the hello may have fitted


async def test_a_hundred_silent_clients_hold_up_nobody(stack: ExitStack) -> None:
    before = open_descriptors()
    silent = [plain_pair(stack) for _ in range(100)]
    shaking = [asyncio.create_task(start(server, True)) for _, server in silent]
    client, server = await secured_pair(stack)
    await client.sendall(HELLO)
    assert await server.recv() == HELLO
    for task in shaking:
        task.cancel()
    await asyncio.gather(*shaking, return_exceptions=True)
    for one, _ in silent:
        one.close()
    client.close()
    server.close()
    assert open_descriptors() == before


# --- an upgrade, and back -------------------------------------------------------------


async def test_plain_bytes_and_then_tls(stack: ExitStack) -> None:
    client, server = plain_pair(stack)

    async def serve() -> aiosock.SSLSocket:
        await server.sendall(b"220 ready\r\n")
        assert await server.recv(100) == b"STARTTLS\r\n"
        await server.sendall(b"go on\r\n")
        return await start(server, True)

    async def ask() -> aiosock.SSLSocket:
        assert await client.recv(100) == b"220 ready\r\n"
        await client.sendall(b"STARTTLS\r\n")
        assert await client.recv(100) == b"go on\r\n"
        return await start(client, False)

    one, other = await asyncio.gather(ask(), serve())
    with one, other:
        await one.sendall(HELLO)
        assert await other.recv() == HELLO


@pytest.mark.parametrize("size", [1, 4, 50, 10_000])
async def test_bytes_of_the_flight_that_were_taken_before(size: int, stack: ExitStack) -> None:
    """A receive of all that is stopped puts back what it had gathered."""
    client, server = plain_pair(stack)
    peer = Peer(client, False)
    with suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    hello = peer.outgoing.read()
    gathering = asyncio.create_task(server.recv(20_000, _stdlib.MSG_WAITALL))
    await client.sendall(hello[:size])
    await asyncio.sleep(0.01)
    await cancelled(gathering)
    shaking = asyncio.create_task(start(server, True))
    await client.sendall(hello[size:])
    await peer.shake_hands()
    with await shaking as sock:
        await peer.send(HELLO)
        assert await sock.recv() == HELLO


@versions
@sides
async def test_data_in_the_same_segment_as_the_end_of_the_handshake(
    server_side: bool, version: Any, stack: ExitStack
) -> None:
    client, server = plain_pair(stack)
    ours, others = (server, client) if server_side else (client, server)
    peer = Peer(others, not server_side, (trusting if server_side else serving)(version=version))
    shaking = asyncio.create_task(start(ours, server_side))
    await peer.until(peer.tls.do_handshake)
    await others.sendall(peer.sealed(HELLO))  # and before it the end of the handshake
    with await shaking as sock:
        await sock.wait_readable()
        assert await sock.recv() == HELLO


@pytest.mark.parametrize("receive", ["recv", "recv_into", "read", "sendall"])
async def test_the_whole_flight_and_data_taken_before(receive: str, stack: ExitStack) -> None:
    """All of it is there when TLS begins: no event comes any more."""
    client, server = plain_pair(stack)
    peer = Peer(client, False, trusting(version=TLS13))
    shaking = asyncio.create_task(start(server, True))
    await peer.until(peer.tls.do_handshake)
    await client.sendall(peer.sealed(HELLO) + peer.farewell())
    with await shaking as sock:
        if receive == "sendall":
            await sock.sendall(HELLO)
        elif receive == "recv_into":
            buffer = bytearray(100)
            assert await sock.recv_into(buffer) == len(HELLO)
            assert buffer.startswith(HELLO)
        else:
            assert await getattr(sock, receive)(100) == HELLO
        assert await sock.recv() == (HELLO if receive == "sendall" else b"")


async def both_unwrapped(
    one: aiosock.SSLSocket, other: aiosock.SSLSocket
) -> tuple[aiosock.SSLSocket, aiosock.SSLSocket]:
    assert list(await asyncio.gather(one.unwrap(), other.unwrap())) == [one, other]
    return one, other


@versions
async def test_back_to_plain_bytes_and_to_tls_again(version: Any, stack: ExitStack) -> None:
    one, other = await secured_pair(stack, trusting(version=version))
    for _ in range(3):
        await one.sendall(HELLO)
        assert await other.recv() == HELLO
        await both_unwrapped(one, other)
        assert one.version() is None
        assert one.pending() == 0
        assert one.cipher() is None
        await unharmed(one, other)
        one, other = await asyncio.gather(start(one, False), start(other, True))
        stack.enter_context(one)
        stack.enter_context(other)


async def test_after_unwrap_the_methods_are_the_plain_sockets(stack: ExitStack) -> None:
    one, other = await both_unwrapped(*await secured_pair(stack))
    await one.send(b"abc")
    assert (await other.recvfrom(100))[0] == b"abc"
    await one.sendto(b"abc", one.getpeername())
    assert (await other.recvfrom_into(bytearray(9)))[0] == 3
    await one.sendfile(io.BytesIO(HELLO))
    buffer = bytearray(3)
    assert await other.recv_into(buffer) == 3
    assert await other.recv(100, _stdlib.MSG_PEEK) == await other.recv(100) == HELLO[3:]
    for call in (one.read(), one.write(b"x")):
        with pytest.raises(ValueError, match="on closed or unwrapped SSL socket"):
            await call
    for refused in (one.getpeercert, one.get_channel_binding):
        with pytest.raises(ValueError, match="No SSL wrapper around"):
            refused()
    with pytest.raises(ValueError, match="No SSL wrapper around"):
        await one.unwrap()


RECEIVED: dict[str, Callable[[aiosock.socket], Coroutine[Any, Any, bytes]]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: into(s),
    "recv all": lambda s: s.recv(9, _stdlib.MSG_WAITALL),
    "peek": lambda s: s.recv(100, _stdlib.MSG_PEEK),
    "one by one": lambda s: exactly(9, lambda _: s.recv(1)),
}


async def into(sock: aiosock.socket) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: await sock.recv_into(buffer)])


@pytest.mark.parametrize("name", RECEIVED)
@pytest.mark.parametrize("first", ["peer", "we"])
async def test_unwrap_keeps_the_bytes_behind_close_notify(
    name: str, first: str, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack)
    if first == "peer":
        await peer.sock.sendall(peer.farewell() + b"plain one")
        await sock.unwrap()
    else:
        leaving = await waiting(sock.unwrap())
        await peer.sock.sendall(peer.farewell() + b"plain one")
        await leaving
    await sock.wait_readable()
    assert await RECEIVED[name](sock) == b"plain one"
    if name == "peek":
        assert await sock.recv(100) == b"plain one"
    await sock.sendall(HELLO)
    with suppress(ssl.SSLWantReadError):
        await peer.do(peer.tls.unwrap)
    assert peer.incoming.read() or await peer.sock.recv(100) == HELLO
    await peer.sock.sendall(HELLO)
    assert await sock.recv(100) == HELLO


async def test_unwrap_after_the_end_was_received(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await peer.sock.sendall(peer.sealed(HELLO) + peer.farewell() + b"plain")
    assert await sock.recv(100) == HELLO
    assert await sock.recv(100) == await sock.recv(100) == b""
    await sock.unwrap()
    assert await sock.recv(100) == b"plain"


async def test_bytes_behind_close_notify_are_the_next_handshakes(stack: ExitStack) -> None:
    """TLS, and at once TLS again: the hello comes with the close_notify."""
    sock, peer = await with_peer(stack, server_side=True)
    again = Peer(peer.sock, False)
    with suppress(ssl.SSLWantReadError):
        again.tls.do_handshake()
    await peer.sock.sendall(peer.farewell() + again.outgoing.read())
    await sock.unwrap()
    await peer.do(peer.tls.unwrap)
    again.incoming.write(peer.incoming.read())
    shaking = asyncio.create_task(start(sock, True))
    await again.shake_hands()
    with await shaking as new:
        await again.send(HELLO)
        assert await new.recv() == HELLO


@pytest.mark.parametrize("way", ["timeout", "cancel"])
async def test_unwrap_with_a_silent_peer(way: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    if way == "timeout":
        sock.settimeout(0.03)
        with pytest.raises(TimeoutError, match="^timed out$"):
            await sock.unwrap()
        sock.settimeout(None)
    else:
        await cancelled(await waiting(sock.unwrap()))
    with pytest.raises(ssl.SSLError, match="PROTOCOL_IS_SHUTDOWN"):
        await sock.sendall(HELLO)
    await peer.hear()
    assert peer.tls.read() == b""
    leaving = await waiting(sock.unwrap())
    await peer.sock.sendall(peer.farewell() + b"plain")
    assert await leaving is sock
    assert await sock.recv(100) == b"plain"


async def test_unwrap_of_a_connection_that_is_cut(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    leaving = await waiting(outcome(sock.unwrap()))
    peer.sock.close()
    assert isinstance(await leaving, ssl.SSLEOFError | ConnectionResetError)


async def test_unwrap_while_data_is_on_its_way(stack: ExitStack) -> None:
    """What the peer had sent must be received before, as with the stdlib's."""
    sock, peer = await with_peer(stack)
    await peer.send(HELLO)
    with pytest.raises(ssl.SSLError, match="APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
        await sock.unwrap()


# --- the end of one way ---------------------------------------------------------------

BEFORE = {  # what has come when we say that nothing follows, and how much of it is received
    "nothing": (b"", 0),
    "a record": (HELLO, 0),
    "half a record": (HELLO, 2),
    "many records": (BULK[: 3 * RECORD], 1),
    "more than is taken at once": (BULK, RECORD + 1),
}


async def all_by(call: Callable[[aiosock.SSLSocket], Awaitable[bytes]], sock: Any) -> bytes:
    pieces = []
    while piece := await call(sock):
        pieces.append(piece)
    return b"".join(pieces)


TO_THE_END: dict[str, Callable[[aiosock.SSLSocket], Awaitable[bytes]]] = {
    "recv": lambda s: s.recv(100),
    "recv much": lambda s: s.recv(2**20),
    "recv_into": lambda s: into(s),
}


@versions
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", TO_THE_END)
@in_time
async def test_after_send_eof_all_that_the_peer_says_is_received(
    name: str, before: str, version: Any, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, context=trusting(version=version))
    said, received = BEFORE[before]
    saying = asyncio.create_task(peer.send(said))
    got = await exactly(received, sock.recv)
    await sock.send_eof()
    assert await peer.recv() == b""
    await saying
    await peer.send(BULK)
    await peer.sock.sendall(peer.farewell())
    assert got + await all_by(TO_THE_END[name], sock) == said + BULK
    assert await sock.recv() == await sock.recv() == b""
    assert await sock.recv_into(bytearray(9)) == 0


async def test_after_send_eof_decrypted_bytes_are_counted_and_need_no_wait(
    stack: ExitStack,
) -> None:
    sock, peer = await with_peer(stack)
    await peer.send(HELLO)
    assert await sock.recv(1) == HELLO[:1]
    await sock.send_eof()
    assert sock.pending() == 4
    await sock.wait_readable()
    assert [await sock.recv(1) for _ in range(4)] == [b"e", b"l", b"l", b"o"]
    assert sock.pending() == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sock.wait_readable(), 0.02)


@pytest.mark.parametrize("send", ["send", "sendall", "write", "sendfile"])
async def test_after_send_eof_nothing_can_be_sent(send: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await sock.send_eof()
    await sock.send_eof()  # which has been said
    with pytest.raises(ssl.SSLError, match="PROTOCOL_IS_SHUTDOWN"):
        await getattr(sock, send)(io.BytesIO(HELLO) if send == "sendfile" else HELLO)
    assert await peer.recv_all() == b""
    await peer.send(HELLO)
    assert await sock.recv() == HELLO
    sock.close()
    await peer.hear()
    assert peer.incoming.eof  # and nothing else has been said


async def test_send_eof_leaves_a_reader_waiting(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await peer.sock.sendall((sealed := peer.sealed(HELLO))[:9])
    reading = await waiting(sock.recv())
    await sock.send_eof()
    await peer.sock.sendall(sealed[9:])
    assert await reading == HELLO


async def test_send_eof_makes_the_handshake_first(stack: ExitStack) -> None:
    async with aiosock.create_server(("127.0.0.1", 0), ssl=usual(True)) as listener:
        client = stack.enter_context(await aiosock.create_connection(listener.getsockname()))
        server, _ = await listener.accept()
        with server:
            secure, _ = await asyncio.gather(start(client, False), server.send_eof())
            with secure:
                assert await secure.recv() == b""


async def test_send_eof_comes_behind_what_is_being_sent(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    sending = await waiting(sock.sendall(BULK))
    ending = await waiting(sock.send_eof())
    assert await peer.recv_all() == BULK
    await asyncio.gather(sending, ending)


@pytest.mark.parametrize("way", ["timeout", "cancel", "non-blocking"])
async def test_send_eof_that_was_stopped_can_be_repeated(way: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await sock.sendall(10 * BULK)
    if way == "cancel":
        assert await cancelled(await waiting(sock.send_eof())) == 0
    else:
        sock.settimeout(0.02 if way == "timeout" else 0)
        with pytest.raises(TimeoutError if way == "timeout" else ssl.SSLWantWriteError):
            await sock.send_eof()
        sock.settimeout(None)
    hearing = asyncio.create_task(peer.recv_all())
    await sock.send_eof()
    assert (10 * BULK).startswith(await hearing)
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_unwrap_after_send_eof_is_for_when_all_is_received(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await peer.send(HELLO)
    assert await sock.recv(1) == HELLO[:1]
    await sock.send_eof()
    with pytest.raises(ssl.SSLError, match="must be received before"):
        await sock.unwrap()
    assert await sock.recv() == HELLO[1:]
    await peer.sock.sendall(peer.farewell() + b"plain")
    assert await (await sock.unwrap()).recv(100) == b"plain"
    with pytest.raises(ValueError, match="No SSL wrapper around"):
        await sock.send_eof()


@pytest.mark.parametrize("honest", [True, False], ids=["ended", "cut"])
async def test_send_eof_to_a_peer_that_has_said_all(honest: bool, stack: ExitStack) -> None:
    """What comes of the end is told to the reader."""
    sock, peer = await with_peer(stack)
    await peer.sock.sendall(peer.sealed(HELLO) + (peer.farewell() if honest else b""))
    peer.sock.shutdown(_stdlib.SHUT_WR)
    assert await sock.recv(1) == HELLO[:1]
    await sock.send_eof()
    assert await sock.recv() == HELLO[1:]
    for _ in range(2):
        end = await outcome(sock.recv())
        assert end == b"" if honest else isinstance(end, ssl.SSLEOFError)
    if honest:
        assert await sock.unwrap() is sock


@sides
async def test_send_eof_to_the_stdlibs_socket(server_side: bool, stack: ExitStack) -> None:
    """It hears the end, and answers behind it."""

    def answer(theirs: _stdlib.socket) -> bytes:
        context = usual(not server_side)
        host = HOST if server_side else None
        with context.wrap_socket(theirs, not server_side, server_hostname=host) as peer:
            heard = b"".join(iter(partial(peer.recv, 2**16), b""))
            peer.sendall(BULK)
            peer.unwrap()
            return heard

    client, server = raw_pair()
    ours, theirs = (server, client) if server_side else (client, server)
    answering = asyncio.create_task(asyncio.to_thread(answer, theirs))
    async with await start(aiosock.from_stdlib_socket(ours), server_side) as sock:
        await sock.sendall(BULK)
        await sock.send_eof()
        assert await all_by(TO_THE_END["recv much"], sock) == BULK
        assert await answering == BULK


# --- bytes ----------------------------------------------------------------------------

SIZES = [1, RECORD - 1, RECORD, RECORD + 1, 4 * RECORD, 5 * RECORD + 1, len(BULK)]


@versions
@sides
@pytest.mark.parametrize("size", SIZES)
async def test_so_many_bytes_go_through(
    size: int, server_side: bool, version: Any, stack: ExitStack
) -> None:
    context = (serving if server_side else trusting)(version=version)
    sock, peer = await with_peer(stack, server_side, context=context)
    sending = asyncio.create_task(sock.sendall(BULK[:size]))
    assert await exactly(size, peer.recv) == BULK[:size]
    await sending
    back = asyncio.create_task(peer.send(BULK[:size]))
    assert await exactly(size, sock.recv) == BULK[:size]
    await back
    await peer.send(HELLO)
    assert await sock.recv(2**16) == HELLO


@pytest.mark.parametrize(
    "data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aabbcc")[::2].tobytes()]
)
@pytest.mark.parametrize("send", ["send", "sendall", "write"])
async def test_what_can_be_sent(send: str, data: Any, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sent = await getattr(sock, send)(data)
    assert sent == (None if send == "sendall" else 3)
    assert await peer.recv() == b"abc"


async def test_wide_items_are_counted_in_bytes(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    wide = memoryview(bytearray(8)).cast("I")
    wide[0], wide[1] = 1, 2
    assert await sock.send(wide) == 8
    assert await peer.recv() == bytes(wide)
    await peer.send(b"x" * 8)
    assert await sock.recv_into(wide) == 8
    assert bytes(wide) == b"x" * 8


@pytest.mark.parametrize("send", ["send", "sendall", "write"])
async def test_nothing_is_sent(send: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    assert await getattr(sock, send)(b"") == (None if send == "sendall" else 0)
    await sock.sendall(HELLO)
    assert await peer.recv() == HELLO


async def test_nothing_is_wanted(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    assert await sock.recv(0) == b""
    assert await sock.recv_into(bytearray()) == 0
    await peer.send(HELLO)
    assert await sock.recv(0) == b""
    assert await sock.recv_into(bytearray(), 5) == 0
    assert await sock.recv() == HELLO


async def test_one_byte_a_write(stack: ExitStack) -> None:
    one, other = await secured_pair(stack)

    async def write() -> None:
        for byte in BULK[:500]:
            await one.sendall(bytes([byte]))

    writing = asyncio.create_task(write())
    assert await exactly(500, other.recv) == BULK[:500]
    await writing


async def test_one_byte_a_segment(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    reading = asyncio.create_task(exactly(10, sock.recv))
    for byte in peer.sealed(HELLO) + peer.sealed(HELLO):
        await peer.sock.sendall(bytes([byte]))
        await asyncio.sleep(0)
    assert await reading == HELLO * 2


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 2**16])
async def test_many_records_in_one_segment(size: int, stack: ExitStack) -> None:
    """All of them were taken at once: no event comes for the later ones."""
    sock, peer = await with_peer(stack)
    for _ in range(2):
        await peer.sock.sendall(b"".join(peer.sealed(HELLO) for _ in range(20)))
        assert await exactly(100, lambda left: sock.recv(min(size, left))) == HELLO * 20
    waits = await waiting(sock.recv())
    await peer.send(HELLO)
    assert await waits == HELLO


@pytest.mark.parametrize("asked", [None, 0, -1, 3, 10, 1000])
async def test_recv_into_takes_what_there_is_room_for(asked: int | None, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await peer.send(b"0123456789" * 3)
    buffer = bytearray(10)
    size = 3 if asked == 3 else 10
    assert await sock.recv_into(buffer, asked) == size
    assert buffer == b"0123456789"[:size] + bytes(10 - size)
    left = b"0123456789" * 3
    assert await sock.recv() == left[size:]
    await peer.send(HELLO)
    assert await sock.read(2, memoryview(buffer)[4:]) == 2
    assert buffer[4:6] == HELLO[:2]
    assert sock.pending() == 3
    assert await sock.read(100) == HELLO[2:]


async def test_as_many_bytes_as_are_taken_at_once(stack: ExitStack) -> None:
    """Records that fill a receive from the kernel to the last byte, and one behind them."""
    sock, peer = await with_peer(stack)
    first = peer.sealed(b"x")
    await peer.sock.sendall(first)
    assert await sock.recv() == b"x"
    data = BULK[: RECORD - len(first) + 1]
    for more in (b"", b"and one more"):
        sealed = b"".join(peer.sealed(data) for _ in range(4))
        assert len(sealed) == 2**16
        await peer.sock.sendall(sealed + peer.sealed(more))
        assert await exactly(4 * len(data), sock.recv) == data * 4
        waits = asyncio.create_task(sock.recv())
        if not more:
            await asyncio.sleep(0.005)
            await peer.send(more := HELLO)
        assert await waits == more


async def test_who_waits_in_line_for_readability_hears_of_decrypted_bytes(
    stack: ExitStack,
) -> None:
    sock, peer = await with_peer(stack)
    first, ready, last = [
        await waiting(call) for call in (sock.recv(1), sock.wait_readable(), sock.recv(4))
    ]
    await peer.send(HELLO)
    async with asyncio.timeout(5):
        assert await first + await last == HELLO
        await ready


async def test_readers_behind_a_sender_who_gave_up_hear_all_that_comes(stack: ExitStack) -> None:
    """What he left unsent makes all of them wait for both directions."""
    sock, peer = await with_peer(stack, tiny=True)
    await cancelled(await waiting(sock.sendall(BULK)))
    readers = {await waiting(sock.recv(100)) for _ in range(4)}
    while readers:
        await peer.sock.sendall(peer.sealed(HELLO))
        how = asyncio.FIRST_COMPLETED
        done, readers = await asyncio.wait(readers, timeout=5, return_when=how)
        assert [reader.result() for reader in done] == [HELLO]
        await asyncio.sleep(0.005)  # the others see that nothing is left


async def test_what_others_have_left_says_nothing_of_the_kernel(stack: ExitStack) -> None:
    """Readers in line, of whom the first has taken all, and data that comes meanwhile."""
    sock, peer = await with_peer(stack)
    readers = [await waiting(sock.recv(1)) for _ in HELLO]
    await peer.send(HELLO)
    await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    await peer.send(b"!")
    async with asyncio.timeout(5):
        assert b"".join([await reader for reader in readers]) == HELLO
        assert await sock.recv(1) == b"!"


async def test_close_tells_readers_in_line_the_same_behind_the_peers_end(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    readers = [await waiting(outcome(sock.recv(1))) for _ in range(9)]
    await peer.sock.sendall(peer.farewell())
    await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    sock.close()
    told = [getattr(seen, "errno", seen) for seen in [await reader for reader in readers]]
    ended = told.index(errno.EBADF)
    assert told == [b""] * ended + [errno.EBADF] * (9 - ended)


async def test_wait_readable_knows_of_decrypted_bytes(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, server_side=True)  # and no tickets come
    sock.settimeout(0.0)
    with pytest.raises(ssl.SSLWantReadError):
        await sock.recv()
    sock.settimeout(None)
    ready = await waiting(sock.wait_readable())
    await peer.send(HELLO)
    await ready
    assert await sock.recv(2) == HELLO[:2]
    assert sock.pending() == 3
    await sock.wait_readable()
    assert await sock.recv(100) == HELLO[2:]
    assert sock.pending() == 0
    await peer.sock.sendall(peer.sealed(HELLO) + peer.sealed(b"again"))
    await sock.wait_readable()
    assert await sock.recv() == HELLO
    await sock.wait_readable()
    assert await sock.recv() == b"again"
    sock.settimeout(0.02)
    with pytest.raises(TimeoutError):
        await sock.wait_readable()
    await sock.wait_writable()


def sources(stack: ExitStack) -> dict[str, Any]:
    real = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack does
    for file in (real, memory := io.BytesIO()):
        file.write(BULK)
        file.seek(0)
    return {"regular": real, "memory": memory}


@pytest.mark.parametrize("kind", ["regular", "memory"])
@pytest.mark.parametrize(("offset", "count"), [(0, None), (10, None), (0, 70_000), (7, RECORD + 1)])
async def test_sendfile(kind: str, offset: int, count: int | None, stack: ExitStack) -> None:
    file = sources(stack)[kind]
    wanted = BULK[offset:] if count is None else BULK[offset : offset + count]
    one, other = await secured_pair(stack, tiny=kind == "memory")
    reading = asyncio.create_task(exactly(len(wanted), other.recv))
    assert await one.sendfile(file, offset, count) == len(wanted)
    assert await reading == wanted
    assert file.tell() == offset + len(wanted)
    await one.sendall(HELLO)
    assert await other.recv() == HELLO


async def test_sendfile_refuses_as_the_stdlibs(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack)
    for bad in ((io.StringIO("x"),), (io.BytesIO(b"x"), 0, 0), (io.BytesIO(b"x"), 0, -1)):
        with _stdlib.socket() as plain, pytest.raises((ValueError, TypeError)) as theirs:
            plain.sendfile(*bad)
        with pytest.raises((ValueError, TypeError)) as ours:
            await sock.sendfile(*bad)
        like(ours.value, theirs.value)


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_sendfile_stopped_half_way(way: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    file = io.BytesIO(BULK)
    if way == "timeout":
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError) as late:
            await sock.sendfile(file)
        sent = late.value.bytes_sent  # type: ignore[attr-defined]  # ours
    else:
        sent = await cancelled(await waiting(sock.sendfile(file)))
    assert 0 < sent < len(BULK)
    assert file.tell() == sent
    sock.settimeout(None)
    rest = asyncio.create_task(sock.sendfile(file, sent))
    assert await exactly(len(BULK), peer.recv) == BULK
    assert await rest == len(BULK) - sent


# --- both directions, and several tasks -----------------------------------------------


@versions
async def test_both_directions_at_once_under_tiny_buffers(version: Any, stack: ExitStack) -> None:
    one, other = await secured_pair(stack, trusting(version=version), tiny=True)
    sent = one.sendall(BULK), other.sendall(BULK[::-1])
    got = exactly(len(BULK), one.recv), exactly(len(BULK), other.recv)
    _, _, back, there = await asyncio.gather(*sent, *got)
    assert there == BULK
    assert back == BULK[::-1]


async def test_two_readers_are_served_in_order(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    first, second, third = [await waiting(sock.recv(100)) for _ in range(3)]
    await peer.send(b"one")
    assert await first == b"one"
    assert not second.done()
    await cancelled(second)
    await peer.sock.sendall(peer.sealed(b"two") + peer.sealed(b"three"))
    assert await third == b"two"
    assert await sock.recv() == b"three"


async def test_two_readers_of_one_segment(stack: ExitStack) -> None:
    """What the first one took from the kernel is enough for both."""
    sock, peer = await with_peer(stack)
    for size in (100, 5):
        readers = [await waiting(sock.recv(size)) for _ in range(3)]
        await peer.sock.sendall(peer.sealed(HELLO) + peer.sealed(HELLO) + peer.sealed(HELLO))
        assert await asyncio.gather(*readers) == [HELLO] * 3


async def test_readers_share_a_record(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    readers = [await waiting(sock.recv(2)), await waiting(sock.recv_into(bytearray(2)))]
    readers.append(await waiting(sock.recv(2)))
    await peer.send(HELLO)
    assert await asyncio.gather(*readers) == [b"he", 2, b"o"]


async def test_the_bytes_of_two_senders_do_not_mix(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    letters = b"abcd"
    sending = [asyncio.create_task(sock.sendall(bytes([letter]) * 60_000)) for letter in letters]
    await asyncio.sleep(0.01)
    got = await exactly(240_000, peer.recv)
    await asyncio.gather(*sending)
    assert got == b"".join(bytes([letter]) * 60_000 for letter in letters)


async def test_a_sender_in_line_that_is_cancelled_sends_nothing(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    first = await waiting(sock.sendall(BULK))
    second = await waiting(sock.sendall(b"second"))
    third = await waiting(sock.sendall(b"third"))
    assert await cancelled(second) in (0, -1)
    assert await exactly(len(BULK) + 5, peer.recv) == BULK + b"third"
    await asyncio.gather(first, third)


async def test_a_reader_is_not_held_up_by_a_sender_that_is_stuck(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    sending = await waiting(sock.sendall(BULK))
    for _ in range(10):
        await peer.send(HELLO)
        assert await sock.recv() == HELLO
    sealed = peer.sealed(HELLO)
    reading = asyncio.create_task(sock.recv())
    for half in (sealed[:9], sealed[9:]):
        await peer.sock.sendall(half)
        await asyncio.sleep(0.005)
    assert await reading == HELLO
    assert await exactly(len(BULK), peer.recv) == BULK
    await sending


async def test_a_waiting_reader_sends_what_a_cancelled_sender_left(stack: ExitStack) -> None:
    """The peer answers what it has got whole: the record must not lie about half sent."""
    sock, peer = await with_peer(stack, tiny=True)
    reading = await waiting(sock.recv())
    sent = await cancelled(await waiting(sock.sendall(BULK)))
    assert await exactly(sent, peer.recv) == BULK[:sent]
    await peer.send(HELLO)
    assert await reading == HELLO


async def test_close_lets_the_kernel_send_what_it_has_taken(stack: ExitStack) -> None:
    """A client that has never received, and so not taken the server's tickets."""
    sock, peer = await with_peer(stack)
    sock.settimeout(0.0)
    sent = 0
    with suppress(ssl.SSLWantWriteError):
        while sent < len(BULK):
            sent += await sock.send(BULK[sent : sent + 1000])
    assert sent == len(BULK)
    sock.close()
    assert await peer.recv_all() == BULK


@pytest.mark.parametrize("waits", [False, True])
async def test_a_reader_is_not_held_up_by_what_a_cancelled_sender_left(
    waits: bool, stack: ExitStack
) -> None:
    """A peer that takes nothing before it has sent all; its records come in pieces."""
    sock, peer = await with_peer(stack, tiny=True)
    reading = await waiting(sock.recv()) if waits else None
    sent = await cancelled(await waiting(sock.sendall(BULK)))
    sealed = peer.sealed(HELLO)
    for half in (sealed[:9], sealed[9:]):
        reading = reading or asyncio.create_task(sock.recv())
        await peer.sock.sendall(half)
        await asyncio.sleep(0.005)
    assert reading
    async with asyncio.timeout(1):
        assert await reading == HELLO
    left = asyncio.create_task(sock.sendall(BULK[sent:]))
    assert await exactly(len(BULK), peer.recv) == BULK
    await left


# --- stopped half-way -----------------------------------------------------------------


@pytest.mark.parametrize("receive", ["recv", "recv_into", "read"])
@pytest.mark.parametrize("cut", [1, 4, 5, 6, 20, -1])
async def test_a_receive_cancelled_in_mid_record_loses_nothing(
    cut: int, receive: str, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack)
    sealed = peer.sealed(HELLO)
    buffer = bytearray(100)
    call = getattr(sock, receive)(buffer if receive == "recv_into" else 100)
    reading = await waiting(call)
    await peer.sock.sendall(sealed[:cut])
    await asyncio.sleep(0.005)
    await cancelled(reading)
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        await sock.recv()
    sock.settimeout(None)
    await peer.sock.sendall(sealed[cut:])
    assert await sock.recv() == HELLO
    assert not any(buffer)
    buffer.extend(b"free to be resized")


async def drained(sock: aiosock.SSLSocket, peer: Peer) -> bytes:
    """What comes until our side ends TLS."""
    leaving = asyncio.create_task(sock.unwrap())
    got: bytes = await peer.recv_all()
    await peer.sock.sendall(peer.farewell())
    await leaving
    return got


@pytest.mark.parametrize("way", ["cancel", "timeout"])
@pytest.mark.parametrize("send", ["send", "sendall", "write"])
async def test_a_send_stopped_half_way_tells_what_the_peer_gets(
    send: str, way: str, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    if way == "timeout" and send != "sendall":
        pytest.skip("with a timeout it sends a record, not all")
    if way == "timeout":
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError, match="^timed out$") as late:
            await sock.sendall(BULK)
        sent = late.value.bytes_sent  # type: ignore[attr-defined]  # ours
        sock.settimeout(None)
    else:
        sent = await cancelled(await waiting(getattr(sock, send)(BULK)))
    assert 0 < sent < len(BULK)
    assert await drained(sock, peer) == BULK[:sent]


@pytest.mark.parametrize("then", ["send", "recv", "sendfile", "unwrap"])
async def test_the_next_call_sends_what_a_cancelled_one_left(then: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    sent = await cancelled(await waiting(sock.sendall(BULK)))
    file = io.BytesIO(HELLO)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "send": lambda: sock.send(HELLO),
        "recv": lambda: sock.recv(),
        "sendfile": lambda: sock.sendfile(file),
        "unwrap": lambda: sock.unwrap(),
    }
    calling = asyncio.ensure_future(calls[then]())
    more = HELLO if "send" in then else b""
    assert await exactly(sent + len(more), peer.recv) == BULK[:sent] + more
    if then == "recv":
        await peer.send(HELLO)
        assert await calling == HELLO
    elif then == "unwrap":
        assert await peer.recv() == b""
        await peer.do(peer.tls.unwrap)
        await calling
    else:
        assert await calling == len(HELLO)


async def test_a_cancelled_send_again_and_again_leaves_the_stream_whole(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    chance = random.Random(9)
    sent = 0
    reading = asyncio.create_task(exactly(len(BULK), peer.recv))
    while sent < len(BULK):
        sending = asyncio.create_task(sock.send(BULK[sent : sent + chance.randrange(60_000)]))
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        sending.cancel()
        try:
            sent += await sending
        except asyncio.CancelledError as error:
            sent += getattr(error, "bytes_sent", 0)
    await sock.sendall(b"")  # what the last one left
    assert await reading == BULK


@pytest.mark.parametrize("way", ["cancel", "timeout", "close"])
async def test_a_stopped_call_holds_no_buffer(way: str, stack: ExitStack) -> None:
    sock, _ = await with_peer(stack, tiny=True)
    sock.settimeout(0.05 if way == "timeout" else None)
    into, out = bytearray(100), bytearray(BULK)

    async def use(call: Awaitable[Any], buffer: bytearray) -> None:
        try:
            await call
        except (asyncio.CancelledError, OSError):
            buffer.extend(b"while the error is handled")
            raise

    tasks = [
        await waiting(use(sock.recv_into(into), into)),
        await waiting(use(sock.sendall(out), out)),
    ]
    for task in tasks if way == "cancel" else ():
        task.cancel()
    if way == "close":
        sock.close()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError | OSError), ended
    assert into.endswith(b"handled")
    assert out.endswith(b"handled")


# --- the end of the stream ------------------------------------------------------------

RECEIVE: dict[str, Callable[[aiosock.SSLSocket], Coroutine[Any, Any, Any]]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: s.recv_into(bytearray(100)),
    "read": lambda s: s.read(100),
    "read into": lambda s: s.read(100, bytearray(100)),
}
receiving = pytest.mark.parametrize("name", RECEIVE)


@versions
@receiving
async def test_the_peer_ends_tls(name: str, version: Any, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, context=trusting(version=version))
    await peer.sock.sendall(peer.sealed(HELLO) + peer.farewell())
    assert await sock.recv() == HELLO
    for _ in range(2):
        assert not await RECEIVE[name](sock)
    peer.sock.close()
    assert not await RECEIVE[name](sock)


async def test_after_the_peers_end_one_may_still_send(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await peer.sock.sendall(peer.farewell())
    assert await sock.recv() == b""
    await sock.sendall(HELLO)
    await peer.hear()
    assert peer.incoming.pending > len(HELLO)


@versions
@receiving
@pytest.mark.parametrize("record", ["whole", "half"])
async def test_a_connection_that_is_cut(
    record: str, name: str, version: Any, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, context=trusting(version=version))
    sealed = peer.sealed(HELLO)
    await peer.sock.sendall(sealed + (sealed[:9] if record == "half" else b""))
    assert await sock.recv() == HELLO
    reading = await waiting(RECEIVE[name](sock))
    peer.sock.close()
    with pytest.raises(ssl.SSLEOFError, match="EOF occurred in violation of protocol"):
        await reading
    with pytest.raises(ssl.SSLEOFError):
        await RECEIVE[name](sock)


@receiving
async def test_a_cut_that_is_to_look_like_an_end(name: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, suppress_ragged_eofs=True)
    assert sock.suppress_ragged_eofs
    await peer.send(HELLO)
    peer.sock.close()
    assert await sock.recv() == HELLO
    for _ in range(2):
        assert not await RECEIVE[name](sock)


@receiving
async def test_a_reset(name: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    reading = await waiting(RECEIVE[name](sock))
    reset(peer.sock)
    with pytest.raises(ConnectionResetError):
        await reading


@pytest.mark.parametrize("answers", [False, True])
async def test_who_cannot_say_anything_any_more_still_hears(
    answers: bool, stack: ExitStack
) -> None:
    """What had come before the reset is received: an answer that is owed is no matter then."""
    sock, peer = await with_peer(stack, tiny=True)
    if not answers:
        await cancelled(await waiting(sock.sendall(BULK)))
    keys = new_keys(peer, True) if answers else b""
    sealed = peer.sealed(HELLO)
    await peer.sock.sendall(keys + sealed[:9])
    reading = await waiting(sock.recv())
    await peer.sock.sendall(sealed[9:])
    reset(peer.sock)
    assert await reading == HELLO
    with pytest.raises(ConnectionResetError):
        await sock.recv()


async def test_a_reset_that_met_an_answer_is_no_ragged_end(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True, suppress_ragged_eofs=True)
    await cancelled(await waiting(sock.sendall(BULK)))
    sealed = peer.sealed(HELLO)
    await peer.sock.sendall(sealed[:9])
    reading = await waiting(sock.recv())
    await peer.sock.sendall(sealed[9:])
    reset(peer.sock)
    assert await reading == HELLO
    with pytest.raises(ConnectionResetError):
        await sock.recv()
    assert await sock.recv() == b""


async def test_a_reset_under_a_sender(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    sending = await waiting(sock.sendall(BULK))
    reset(peer.sock)
    with pytest.raises((ConnectionResetError, BrokenPipeError)) as error:
        await sending
    assert 0 < error.value.bytes_sent < len(BULK)  # type: ignore[attr-defined]  # ours
    for _ in range(2):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sock.sendall(HELLO)


@pytest.mark.parametrize("at", [0, 3, 5, 12])
async def test_a_record_that_was_tampered_with(at: int, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sealed = bytearray(peer.sealed(HELLO))
    sealed[at] ^= 0x40
    await peer.sock.sendall(sealed)
    peer.sock.shutdown(_stdlib.SHUT_WR)
    with pytest.raises(ssl.SSLError):
        await sock.recv()


async def test_close_tells_the_peer(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    await sock.sendall(HELLO)
    sock.close()
    sock.close()
    assert await peer.recv() == HELLO
    assert await peer.recv() == b""
    assert await peer.sock.recv(100) == b""


async def test_close_with_a_dead_peer_does_not_wait(stack: ExitStack) -> None:
    """And what could not be sent is no clean end."""
    sock, peer = await with_peer(stack, tiny=True)
    sent = await cancelled(await waiting(sock.sendall(BULK)))
    sock.close()
    got = bytearray()
    with suppress(ssl.SSLEOFError, ConnectionResetError):
        while piece := await peer.recv():
            got += piece
        raise AssertionError("it looks like a clean end")
    assert BULK[:sent].startswith(got)


async def test_close_wakes_who_waits(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack, tiny=True)
    calls = [sock.recv(9), sock.recv_into(bytearray(9)), sock.sendall(BULK), sock.sendall(HELLO)]
    tasks = [await waiting(outcome(call)) for call in (*calls, sock.wait_readable())]
    sock.close()
    for error in await asyncio.gather(*tasks):
        assert isinstance(error, OSError)
        assert error.errno == errno.EBADF


async def test_close_wakes_a_reader_who_sends_what_was_left(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack, tiny=True)
    await cancelled(await waiting(sock.sendall(BULK)))
    reading = await waiting(outcome(sock.recv()))
    sock.close()
    assert (await reading).errno == errno.EBADF


CLOSED: dict[str, Callable[[aiosock.SSLSocket], Awaitable[Any]]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: s.recv_into(bytearray(9)),
    "send": lambda s: s.send(b"x"),
    "sendall": lambda s: s.sendall(b"x"),
    "wait_readable": lambda s: s.wait_readable(),
    "wait_writable": lambda s: s.wait_writable(),
    "recvfrom": lambda s: s.recvfrom(100),
}


@pytest.mark.parametrize("name", CLOSED)
async def test_a_closed_socket(name: str, stack: ExitStack) -> None:
    """Also with bytes that were decrypted."""
    sock, peer = await with_peer(stack)
    await peer.send(HELLO)
    assert await sock.recv(1) == b"h"
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        await CLOSED[name](sock)
    assert error.value.errno == errno.EBADF
    assert sock.fileno() == -1
    assert "[closed]" in repr(sock)
    assert sock.pending() == 0


async def test_leaving_the_context_closes(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    async with sock:
        await sock.sendall(HELLO)
    assert sock.fileno() == -1
    assert await peer.recv_all() == HELLO


async def test_a_socket_that_is_dropped_is_closed(stack: ExitStack) -> None:
    client, server = plain_pair(stack)
    peer = Peer(client, False)
    shaking = asyncio.create_task(start(server, True))
    await peer.shake_hands()
    await shaking
    del shaking
    with pytest.warns(ResourceWarning, match="unclosed"):
        await asyncio.sleep(0)
    with pytest.raises(ssl.SSLEOFError):
        await peer.recv()


async def test_shutdown_is_the_connections(stack: ExitStack) -> None:
    """As the stdlib's it drops TLS, and says no close_notify."""
    sock, peer = await with_peer(stack)
    sock.shutdown(_stdlib.SHUT_WR)
    assert sock.version() is None
    with pytest.raises(ssl.SSLEOFError):
        await peer.recv()


async def test_detach_gives_the_connection_away(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    with _stdlib.socket(fileno=sock.detach()) as raw:
        assert raw.gettimeout() is None
        assert os.get_blocking(raw.fileno())
        assert sock.fileno() == -1
        raw.send(b"plain")
        assert await peer.sock.recv(100) == b"plain"
    for call in (sock.recv(9), sock.sendall(HELLO)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await call


# --- non-blocking ---------------------------------------------------------------------


def stdlib_refusal(call: Callable[[ssl.SSLSocket], Any], contexts: Any = None) -> BaseException:
    """What a non-blocking SSLSocket of the stdlib raises."""
    raw, other = raw_pair(tiny=True)
    with (
        other,
        usual(False).wrap_socket(raw, server_hostname=HOST, do_handshake_on_connect=False) as sock,
    ):
        sock.setblocking(False)
        with pytest.raises(Exception) as error:  # noqa: PT011  # which is the question
            call(sock)
        return error.value


def like(ours: BaseException, theirs: BaseException) -> None:
    """The same exception with the same text, but for the class and the line in C."""
    assert type(ours) is type(theirs)
    texts = [
        str(error)
        .split(" (_ssl.c")[0]
        .removeprefix("memoryview: ")
        .replace("aiosock._tls.", "ssl.")
        .replace("aiosock.", "ssl.")
        for error in (ours, theirs)
    ]
    assert texts[0] == texts[1]


@receiving
async def test_nothing_to_receive_in_non_blocking_mode(name: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sock.setblocking(False)
    theirs = stdlib_refusal(lambda s: s.recv(100))
    for half in (b"", (sealed := peer.sealed(HELLO))[:9]):
        await peer.sock.sendall(half)
        with pytest.raises(ssl.SSLWantReadError) as ours:
            await RECEIVE[name](sock)
        like(ours.value, theirs)
        assert ours.value.errno == theirs.errno == ssl.SSL_ERROR_WANT_READ  # type: ignore[attr-defined]  # like() says of what kind
    await peer.sock.sendall(sealed[9:])
    assert await RECEIVE[name](sock) in (HELLO, 5)
    with pytest.raises(BlockingIOError):
        await sock.wait_readable()


@pytest.mark.parametrize("send", ["send", "sendall"])
async def test_no_room_to_send_in_non_blocking_mode(send: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    sock.setblocking(False)
    sent = 0

    async def send_on() -> None:
        nonlocal sent
        while True:
            more = await getattr(sock, send)(BULK[sent : sent + 1000])
            sent += 1000 if more is None else more

    with pytest.raises(ssl.SSLWantWriteError, match="operation did not complete .write.") as full:
        await send_on()
    assert full.value.errno == ssl.SSL_ERROR_WANT_WRITE
    sent += full.value.bytes_sent  # type: ignore[attr-defined]  # ours
    with pytest.raises(ssl.SSLWantWriteError) as full:
        await getattr(sock, send)(HELLO)
    assert full.value.bytes_sent == 0  # type: ignore[attr-defined]  # ours
    sock.setblocking(True)
    assert await drained(sock, peer) == BULK[:sent]


@pytest.mark.parametrize("timeout", [0.0, 0.01])
async def test_what_a_send_has_not_counted_may_be_sent_again(
    timeout: float, stack: ExitStack
) -> None:
    """The way of all who use non-blocking sockets: nothing comes twice, nothing is missing."""
    sock, peer = await with_peer(stack, tiny=True)
    sock.settimeout(timeout)
    reading = asyncio.create_task(exactly(100_000, peer.recv))
    left, told = BULK[:100_000], []
    while left:
        try:
            left = left[await sock.send(left[:5000]) :]
        except (ssl.SSLWantWriteError, TimeoutError) as error:
            told.append(error.bytes_sent)  # type: ignore[union-attr]  # ours
            await asyncio.sleep(0.001)
    assert told or timeout
    assert not any(told)
    while not reading.done():  # and to look for an answer sends what is left
        with suppress(ssl.SSLWantReadError, TimeoutError):
            await sock.recv()
        await asyncio.sleep(0.001)
    assert await reading == BULK[:100_000]


async def test_a_receive_sends_what_a_counted_send_has_left(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, tiny=True)
    for _ in range(2):  # a conversation: the next receive would await an event at once
        reading = await waiting(sock.recv())
        await peer.send(HELLO)
        assert await reading == HELLO
    sock.settimeout(0.0)
    sent = 0
    with suppress(ssl.SSLWantWriteError):
        while True:
            sent += await sock.send(BULK[sent : sent + 5000])
    sock.settimeout(None)
    reading = asyncio.create_task(sock.recv())
    assert await exactly(sent, peer.recv) == BULK[:sent]
    await peer.send(HELLO)
    assert await reading == HELLO


async def test_unwrap_in_non_blocking_mode(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sock.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        await sock.unwrap()
    assert await peer.recv() == b""
    await peer.do(peer.tls.unwrap)
    await asyncio.sleep(0.005)
    await sock.unwrap()


async def test_a_timeout_of_a_receive(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sock.settimeout(0.02)
    for receive in RECEIVE.values():
        with pytest.raises(TimeoutError, match="^timed out$"):
            await receive(sock)
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_a_send_with_a_timeout_sends_a_part(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    sock.settimeout(5.0)
    sent = await sock.send(BULK)
    assert RECORD <= sent < len(BULK)
    assert await exactly(sent, peer.recv) == BULK[:sent]


# --- what TLS refuses, in the stdlib's words ------------------------------------------

PEEK = _stdlib.MSG_PEEK
REFUSED: dict[str, Callable[[Any], Any]] = {
    "recv with flags": lambda s: s.recv(10, PEEK),
    "recv with None for flags": lambda s: s.recv(10, None),
    "sendall with None for flags": lambda s: s.sendall(b"x", None),
    "recv_into with flags": lambda s: s.recv_into(bytearray(9), 9, PEEK),
    "send with flags": lambda s: s.send(b"x", PEEK),
    "sendall with flags": lambda s: s.sendall(b"x", PEEK),
    "recvfrom": lambda s: s.recvfrom(10),
    "recvfrom_into": lambda s: s.recvfrom_into(bytearray(9)),
    "sendto": lambda s: s.sendto(b"x", ("127.0.0.1", 9)),
    "sendto with flags": lambda s: s.sendto(b"x", 0, ("127.0.0.1", 9)),
    "recvmsg": lambda s: s.recvmsg(10),
    "recvmsg_into": lambda s: s.recvmsg_into([bytearray(9)]),
    "sendmsg": lambda s: s.sendmsg([b"x"]),
    "dup": lambda s: s.dup(),
    "recv of less than nothing": lambda s: s.recv(-1),
    "recv of text": lambda s: s.recv("1"),
    "recv of None": lambda s: s.recv(None),
    "recv_into text": lambda s: s.recv_into("x"),
    "recv_into bytes": lambda s: s.recv_into(b"x"),
    "send text": lambda s: s.send("x"),
    "sendall text": lambda s: s.sendall("x"),
    "sendall a number": lambda s: s.sendall(5),
    "a binding of no kind": lambda s: s.get_channel_binding("none"),
}


async def awaited(call: Callable[[Any], Any], sock: aiosock.SSLSocket) -> None:
    found = call(sock)
    if inspect.isawaitable(found):
        await found


@pytest.mark.parametrize("name", REFUSED)
async def test_what_the_stdlib_refuses(name: str, stack: ExitStack) -> None:
    sock, peer = await with_peer(stack)
    theirs = stdlib_refusal(REFUSED[name])
    with pytest.raises(type(theirs)) as ours:
        await awaited(REFUSED[name], sock)
    if name != "recv_into text":
        like(ours.value, theirs)
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_fds_are_refused(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack)
    for call in (aiosock.send_fds(sock, [b"x"], [0]), aiosock.recv_fds(sock, 10, 1)):
        with pytest.raises(NotImplementedError, match="not allowed on instances of"):
            await call


async def test_it_has_all_names_of_the_stdlibs(stack: ExitStack) -> None:
    sock, _ = await with_peer(stack)
    absent = {"share", "ioctl", "accept", "connect", "connect_ex"}
    wanted = {name for name in dir(ssl.SSLSocket) if not name.startswith("_")}
    assert not {name for name in wanted - absent if not hasattr(sock, name)}
    assert sock.context.check_hostname
    with pytest.raises(AttributeError):
        sock.nonsense = 1  # type: ignore[attr-defined]  # which is the point


# --- what TLS says of itself: new keys, and handshakes in the middle ------------------


def libssl(name: str) -> Any:
    """A function of the OpenSSL that Python's ssl uses."""
    file = getattr(importlib.import_module("_ssl"), "__file__", None)
    try:
        return getattr(ctypes.CDLL(file), name)
    except AttributeError:
        pytest.skip(f"this Python's OpenSSL does not show {name}()")


def beneath(tls: ssl.SSLObject) -> ctypes.c_void_p:
    """OpenSSL's own object, the second field of the one in C."""
    start = id(tls._sslobj) + object.__basicsize__  # type: ignore[attr-defined]  # the stdlib's
    return ctypes.c_void_p.from_address(start + ctypes.sizeof(ctypes.c_void_p))


def new_keys(peer: Peer, requested: bool = False) -> bytes:
    """The record in which the peer changes its keys, and may ask for as much."""
    assert libssl("SSL_key_update")(beneath(peer.tls), int(requested)) == 1
    peer.tls.do_handshake()
    return peer.outgoing.read()


def hello_request(peer: Peer) -> bytes:
    """The record in which a TLS 1.2 server asks for another handshake."""
    assert libssl("SSL_renegotiate")(beneath(peer.tls)) == 1
    peer.tls.do_handshake()
    return peer.outgoing.read()


@sides
@pytest.mark.parametrize("requested", [False, True])
async def test_the_peer_changes_its_keys(
    requested: bool, server_side: bool, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, server_side)
    reading = await waiting(sock.recv())
    for _ in range(3):
        await peer.sock.sendall(new_keys(peer, requested))
        await asyncio.sleep(0)
    await peer.send(HELLO)
    assert await reading == HELLO
    await sock.sendall(HELLO)
    assert await peer.recv() == HELLO
    await peer.sock.sendall(new_keys(peer, requested) + peer.sealed(HELLO))
    assert await sock.recv() == HELLO
    await sock.sendall(BULK)
    assert await exactly(len(BULK), peer.recv) == BULK


async def test_the_peer_asks_for_new_keys_all_the_time(stack: ExitStack) -> None:
    """It gets them, or an error: nothing hangs and nothing grows."""
    sock, peer = await with_peer(stack, tiny=True)
    reading = asyncio.create_task(outcome(exactly(5 * 200, sock.recv)))
    asking = asyncio.create_task(outcome(ask_for_keys(peer)))
    assert await reading == HELLO * 200
    await asking
    await sock.sendall(HELLO)
    assert await exactly(len(HELLO), peer.recv) == HELLO


async def ask_for_keys(peer: Peer) -> None:
    for _ in range(200):
        await peer.sock.sendall(new_keys(peer, True) + peer.sealed(HELLO))


@pytest.mark.parametrize("stopped", [False, True])
async def test_new_keys_while_a_writer_is_stuck(stopped: bool, stack: ExitStack) -> None:
    """The answer goes out behind the record that is half sent."""
    sock, peer = await with_peer(stack, tiny=True)
    reading = await waiting(sock.recv())
    sending, sent = await waiting(sock.sendall(BULK)), 0
    if stopped:
        sent = await cancelled(sending)
    for _ in range(3):
        await peer.sock.sendall(new_keys(peer, True))
    await asyncio.sleep(0.005)
    await peer.send(HELLO)
    assert await reading == HELLO
    if stopped:
        sending = asyncio.create_task(sock.sendall(BULK[sent:]))
    assert await exactly(len(BULK), peer.recv) == BULK
    await sending


NO_RESUMPTION = 1 << 16  # SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION


async def renegotiable(stack: ExitStack, tiny: bool = False) -> tuple[aiosock.SSLSocket, Peer]:
    peers = serving()
    peers.options |= NO_RESUMPTION  # each handshake has all its flights
    return await with_peer(stack, tiny=tiny, context=trusting(version=TLS12), peers=peers)


async def test_the_peer_negotiates_anew(stack: ExitStack) -> None:
    sock, peer = await renegotiable(stack)
    before = sock.get_channel_binding()
    for _ in range(2):
        reading = await waiting(sock.recv())
        await peer.sock.sendall(hello_request(peer))
        answering = asyncio.create_task(peer.recv())
        await asyncio.sleep(0.005)
        assert not reading.done()
        assert not answering.done()
        await sock.sendall(HELLO)
        assert await answering == HELLO
        await peer.send(HELLO)
        assert await reading == HELLO
    assert sock.get_channel_binding() not in (before, None)


async def test_a_reader_alone_answers_a_peer_that_negotiates_anew(stack: ExitStack) -> None:
    sock, peer = await renegotiable(stack)
    before = peer.tls.get_channel_binding("tls-unique")
    reading = await waiting(sock.recv())
    await peer.sock.sendall(hello_request(peer))
    while peer.tls.get_channel_binding("tls-unique") == before:
        await peer.hear()
        with suppress(ssl.SSLWantReadError):
            peer.tls.read()
        await peer.say()
    await peer.send(HELLO)
    assert await reading == HELLO


async def test_a_client_may_not_negotiate_anew(stack: ExitStack) -> None:
    """OpenSSL's servers refuse it since version 3: it is told, and the stream goes on."""
    context = trusting(version=TLS12)
    sock, peer = await with_peer(stack, server_side=True, peers=context)
    reading = await waiting(sock.recv())
    assert libssl("SSL_renegotiate")(beneath(peer.tls)) == 1
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    await peer.say()
    with pytest.raises(ssl.SSLError, match="NO_RENEGOTIATION"):
        await peer.recv()
    with pytest.raises(ssl.SSLError):
        await reading


async def test_the_peer_negotiates_anew_while_a_writer_is_stuck(stack: ExitStack) -> None:
    """It takes nothing before it has said so; our hello goes out behind what is half sent."""
    sock, peer = await renegotiable(stack, tiny=True)
    before = sock.get_channel_binding()
    sending = await waiting(sock.sendall(BULK))
    reading = await waiting(sock.recv())
    await peer.sock.sendall(hello_request(peer))
    await asyncio.sleep(0.005)
    assert await exactly(len(BULK), peer.recv) == BULK
    await sending
    await peer.send(HELLO)
    assert await reading == HELLO
    assert sock.get_channel_binding() != before


async def test_both_directions_are_busy_when_the_peer_negotiates_anew(stack: ExitStack) -> None:
    sock, peer = await renegotiable(stack, tiny=True)
    before = sock.get_channel_binding()
    sending = await waiting(sock.sendall(BULK))
    reading = asyncio.create_task(exactly(len(BULK), sock.recv))
    await peer.send(BULK[:20_000])
    await peer.sock.sendall(hello_request(peer))
    assert await exactly(len(BULK), peer.recv) == BULK
    await peer.send(BULK[20_000:])
    assert await reading == BULK
    await sending
    assert sock.get_channel_binding() != before


@pytest.mark.parametrize("reader", [False, True])
async def test_a_writer_goes_on_when_the_reader_has_gone(reader: bool, stack: ExitStack) -> None:
    """In the middle of another handshake: what he has to hear he hears himself."""
    sock, peer = await renegotiable(stack)
    reading = await waiting(sock.recv())
    await peer.sock.sendall(hello_request(peer))
    await asyncio.sleep(0.005)
    sending = await waiting(sock.sendall(HELLO)) if reader else None
    await cancelled(reading)
    sending = sending or await waiting(sock.sendall(HELLO))
    assert await peer.recv() == HELLO
    await sending
    await peer.send(HELLO)
    assert await sock.recv() == HELLO


async def test_what_a_writer_heard_beside_is_for_the_reader(stack: ExitStack) -> None:
    """No event comes for it: the writer has taken it from the kernel."""
    sock, peer = await renegotiable(stack)
    reading = await waiting(sock.recv())
    await peer.sock.sendall(hello_request(peer))
    await asyncio.sleep(0.005)
    await cancelled(reading)
    sending = await waiting(sock.sendall(HELLO))
    await peer.hear()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.read()
    await peer.say()
    await peer.hear()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.read()
    await peer.sock.sendall(peer.sealed(HELLO))  # behind the last flight
    await sending
    assert await peer.recv() == HELLO
    await asyncio.sleep(0.005)
    assert await sock.recv() == HELLO


@pytest.mark.parametrize("way", ["cancel", "timeout"])
async def test_a_send_stopped_while_the_peer_negotiates(way: str, stack: ExitStack) -> None:
    sock, peer = await renegotiable(stack)
    reading = await waiting(sock.recv())
    await peer.sock.sendall(hello_request(peer))
    await asyncio.sleep(0.005)
    await cancelled(reading)
    if way == "cancel":
        assert await cancelled(await waiting(sock.sendall(HELLO))) == 0
    else:
        sock.settimeout(0.02)
        with pytest.raises(TimeoutError) as late:
            await sock.sendall(HELLO)
        assert late.value.bytes_sent == 0  # type: ignore[attr-defined]  # ours
    sock.settimeout(None)
    answering = asyncio.create_task(peer.recv())
    await sock.sendall(b"again")
    assert await answering == b"again"


async def test_an_answer_goes_out_with_the_receive_that_owes_it(stack: ExitStack) -> None:
    """And not with our next call, for which the peer may wait."""
    here = trusting(certificate("somebody@example.org"), post_handshake_auth=True)
    there = serving(verify_mode=ssl.CERT_REQUIRED, post_handshake_auth=True)
    sock, peer = await with_peer(stack, context=here, peers=there)
    peer.tls.verify_client_post_handshake()
    peer.tls.do_handshake()
    await peer.sock.sendall(peer.outgoing.read() + peer.sealed(HELLO))
    assert await sock.recv() == HELLO
    await peer.hear()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.read()
    assert peer.tls.getpeercert()


async def test_authentication_is_asked_for_while_a_writer_is_stuck(stack: ExitStack) -> None:
    here = trusting(certificate("somebody@example.org"), post_handshake_auth=True)
    there = serving(verify_mode=ssl.CERT_REQUIRED, post_handshake_auth=True)
    sock, peer = await with_peer(stack, tiny=True, context=here, peers=there)
    sending = await waiting(sock.sendall(BULK))
    reading = await waiting(sock.recv())
    peer.tls.verify_client_post_handshake()
    await peer.do(peer.tls.do_handshake)
    await asyncio.sleep(0.005)
    assert await exactly(len(BULK), peer.recv) == BULK
    await sending
    await sock.sendall(HELLO)
    assert await exactly(len(HELLO), peer.recv) == HELLO
    shown = peer.tls.getpeercert()
    assert shown
    assert shown["subjectAltName"] == (("email", "somebody@example.org"),)
    await peer.send(HELLO)
    assert await reading == HELLO


# --- a listener whose connections speak TLS -------------------------------------------


async def listening(
    stack: ExitStack, context: ssl.SSLContext | None = None
) -> tuple[Any, aiosock.SSLSocket, aiosock.socket]:
    """A listener, a connection that it has accepted, and its other end, which is silent yet."""
    plain = await aiosock.create_server(("127.0.0.1", 0))
    listener = stack.enter_context(SSLListener._over(plain, context or usual(True)))
    client = stack.enter_context(await aiosock.create_connection(listener.getsockname()))
    server, address = await listener.accept()
    assert address == client.getsockname()
    return listener, stack.enter_context(server), client


FIRST: dict[str, Callable[[aiosock.SSLSocket], Awaitable[Any]]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: s.recv_into(bytearray(100)),
    "sendall": lambda s: s.sendall(HELLO),
    "send": lambda s: s.send(HELLO),
    "sendfile": lambda s: s.sendfile(io.BytesIO(HELLO)),
    "do_handshake": lambda s: s.do_handshake(),
    "read and write": lambda s: asyncio.gather(s.recv(100), s.sendall(HELLO), s.recv(1)),
}


@pytest.mark.parametrize("name", FIRST)
async def test_the_first_call_shakes_hands(name: str, stack: ExitStack) -> None:
    _, server, client = await listening(stack)
    assert server.version() is None
    calling = await waiting(FIRST[name](server))
    peer = Peer(client, False)
    await peer.shake_hands()
    if "rec" in name or "read" in name:
        await peer.sock.sendall(peer.sealed(HELLO) + peer.sealed(HELLO))
    await calling
    if "send" in name or "read" in name:
        assert await peer.recv() == HELLO
    await peer.send(b"!")
    while not (await server.recv()).endswith(b"!"):
        pass


async def test_words_in_one_piece_with_the_end_of_the_handshake_are_answered(
    stack: ExitStack,
) -> None:
    _, server, client = await listening(stack)
    receiving = await waiting(server.recv(100))
    peer = Peer(client, False)
    await peer.until(peer.tls.do_handshake)  # its end is not said yet
    await peer.send(HELLO)
    assert await receiving == HELLO
    async with asyncio.timeout(LIMIT):
        await server.sendall(HELLO)
    assert await peer.recv() == HELLO


async def test_a_silent_client_holds_up_no_other(stack: ExitStack) -> None:
    listener, server, _ = await listening(stack)
    silent = await waiting(server.recv())
    client = stack.enter_context(await aiosock.create_connection(listener.getsockname()))
    other, _ = await listener.accept()
    peer = Peer(client, False)
    shaking = asyncio.create_task(peer.shake_hands())
    with other:
        await other.sendall(HELLO)
        assert await peer.recv() == HELLO
    await shaking
    await cancelled(silent)


async def test_the_timeout_is_for_the_first_handshake_too(stack: ExitStack) -> None:
    _, server, client = await listening(stack)
    server.settimeout(0.02)
    for name in FIRST:
        with pytest.raises(TimeoutError, match="^timed out$"):
            await FIRST[name](server)
    server.settimeout(None)
    calling = await waiting(server.recv())
    peer = Peer(client, False)
    await peer.shake_hands()
    await peer.send(HELLO)
    assert await calling == HELLO


async def test_a_first_handshake_that_fails(stack: ExitStack) -> None:
    _, server, client = await listening(stack)
    await client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    for name in ("recv", "sendall", "do_handshake"):
        with pytest.raises(ssl.SSLError):
            await FIRST[name](server)
    server.close()


# --- loops of two threads ---------------------------------------------------------------


async def test_one_thread_receives_and_one_sends(stack: ExitStack) -> None:
    one, other = await secured_pair(stack, tiny=True)

    def in_a_loop(call: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        return asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(call())))

    sending = in_a_loop(lambda: one.sendall(BULK)), in_a_loop(lambda: other.sendall(BULK[::-1]))
    there = in_a_loop(lambda: exactly(len(BULK), other.recv))
    assert await exactly(len(BULK), one.recv) == BULK[::-1]
    assert await there == BULK
    await asyncio.gather(*sending)


# --- the manual's ssl() ---------------------------------------------------------------


@asynccontextmanager
async def old_style(
    stack: ExitStack, peers: ssl.SSLContext | None = None, **arguments: Any
) -> AsyncIterator[tuple[aiosock.SSLObject, aiosock.socket, Peer]]:
    """What ssl() gives, the socket beneath it, and its peer."""
    sock, other = plain_pair(stack)
    peer = Peer(other, True, peers)
    shaking = asyncio.create_task(peer.shake_hands())
    with pytest.warns(aiosock.InsecureWarning):
        made = await aiosock.ssl(sock, **arguments)
    await shaking
    yield made, sock, peer


async def test_ssl_writes_and_reads(stack: ExitStack) -> None:
    async with old_style(stack) as (old, sock, peer):
        assert await old.write(HELLO) == len(HELLO)
        assert await peer.recv() == HELLO
        await peer.send(HELLO * 2)
        assert await old.read(0) == b""
        assert await old.read(3) == b"hel"
        assert await old.read(100) == b"lohello"
        writing = asyncio.create_task(old.write(BULK))
        assert await exactly(len(BULK), peer.recv) == BULK
        assert await writing == len(BULK)
        assert isinstance(old, aiosock.SSLType)
        assert sock.fileno() >= 0


@pytest.mark.parametrize("end", ["clean", "ragged"])
async def test_ssl_reads_to_the_end(end: str, stack: ExitStack) -> None:
    async with old_style(stack) as (old, _, peer):
        reading = await waiting(old.read())
        sending = asyncio.create_task(peer.send(BULK))
        await sending
        if end == "clean":
            await peer.sock.sendall(peer.farewell())
        peer.sock.close()
        assert await reading == BULK
        assert await old.read() == b""
        kind = ssl.SSLZeroReturnError if end == "clean" else ssl.SSLEOFError
        with pytest.raises(kind):
            await old.read(10)


async def test_ssl_names(stack: ExitStack) -> None:
    cert = certificate(
        "www.example.org",
        common_name="www.example.org",
        organization_name="Ex/ample",
        organization_unit_name="Unit",
    )
    async with old_style(stack, serving(cert)) as (old, _, _):
        assert old.server() == "/O=Ex\\/ample/OU=Unit/CN=www.example.org"
        issuer = old.issuer()
        assert issuer.startswith("/O=trustme v")
        assert "/OU=Testing CA #" in issuer


async def test_ssl_without_a_certificate_has_no_names(stack: ExitStack) -> None:
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        anonymous.set_ciphers("ADH:@SECLEVEL=0")
    except ssl.SSLError:
        pytest.skip("this OpenSSL has no anonymous ciphers")
    sock, other = plain_pair(stack)
    peer = Peer(other, True, anonymous)
    with pytest.warns(aiosock.InsecureWarning), pytest.raises(ssl.SSLError):
        await asyncio.gather(aiosock.ssl(sock), peer.shake_hands(), return_exceptions=False)
    assert sock.fileno() >= 0


async def test_ssl_warns_at_the_callers_line(stack: ExitStack) -> None:
    sock, other = plain_pair(stack)
    shaking = asyncio.create_task(Peer(other, True).shake_hands())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]  # CPython has one
        await aiosock.ssl(sock)
    await shaking
    (warning,) = caught
    assert warning.category is aiosock.InsecureWarning
    assert "start_tls" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line)


async def test_ssl_as_an_error_leaves_the_socket(stack: ExitStack) -> None:
    sock, other = plain_pair(stack)
    with pytest.raises(aiosock.InsecureWarning):
        await aiosock.ssl(sock)
    await unharmed(sock, other)


async def test_ssl_sends_a_name(stack: ExitStack) -> None:
    asked = []
    context = serving()
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with old_style(stack, context, server_hostname="www.example.org"):
        assert asked == ["www.example.org"]
    async with old_style(stack, context):
        assert asked == ["www.example.org", None]


async def test_ssl_shows_a_certificate(stack: ExitStack, tmp_path: Path) -> None:
    mine = certificate("somebody@example.org")
    key, chain = str(tmp_path / "key.pem"), str(tmp_path / "chain.pem")
    mine.private_key_pem.write_to_path(key)
    mine.cert_chain_pems[0].write_to_path(chain)
    asking = serving(verify_mode=ssl.CERT_REQUIRED)
    async with old_style(stack, asking, keyfile=key, certfile=chain) as (_, _, peer):
        shown = peer.tls.getpeercert()
        assert shown
        assert shown["subjectAltName"] == (("email", "somebody@example.org"),)


BOTH_OR_NEITHER = "Both the key & certificate files must be specified"
MISUSED: dict[str, tuple[Callable[[aiosock.socket], Awaitable[Any]], type[Exception], str]] = {
    "key alone": (lambda s: aiosock.ssl(s, "key.pem"), ssl.SSLError, BOTH_OR_NEITHER),
    "certificate alone": (
        lambda s: aiosock.ssl(s, certfile="cert.pem"),
        ssl.SSLError,
        BOTH_OR_NEITHER,
    ),
    "no such file": (
        lambda s: aiosock.ssl(s, "/nowhere/key.pem", "/nowhere/cert.pem"),
        FileNotFoundError,
        "No such file",
    ),
}


@pytest.mark.parametrize("name", MISUSED)
async def test_ssl_refuses(name: str, stack: ExitStack) -> None:
    call, kind, text = MISUSED[name]
    sock, other = plain_pair(stack)
    with pytest.raises(kind, match=text):
        await call(sock)
    await unharmed(sock, other)


async def test_ssl_needs_a_connected_stream(stack: ExitStack) -> None:
    loose = stack.enter_context(aiosock.socket())
    with pytest.raises(OSError, match="not connected"):
        await aiosock.ssl(loose)
    datagrams = stack.enter_context(aiosock.socket(type=_stdlib.SOCK_DGRAM))
    with pytest.raises(NotImplementedError):
        await aiosock.ssl(datagrams)
    loose.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await aiosock.ssl(loose)


async def test_ssl_dropped_leaves_the_socket(stack: ExitStack) -> None:
    async with old_style(stack) as (old, sock, peer):
        await old.write(HELLO)
        del old
        assert sock.fileno() >= 0
        assert await peer.recv() == HELLO
        await sock.sendall(b"plain")
        assert await peer.sock.recv(100) == b"plain"


async def test_ssl_keeps_the_socket_alive(stack: ExitStack) -> None:
    raw, other = raw_pair()
    peer = Peer(stack.enter_context(aiosock.from_stdlib_socket(other)), True)
    shaking = asyncio.create_task(peer.shake_hands())
    with pytest.warns(aiosock.InsecureWarning):
        old = await aiosock.ssl(aiosock.from_stdlib_socket(raw))
    await shaking
    await old.write(HELLO)
    assert await peer.recv() == HELLO
    old._sock.close()


async def test_ssl_over_a_socket_that_was_closed(stack: ExitStack) -> None:
    async with old_style(stack) as (old, sock, peer):
        sock.close()
        await seen_closed(peer)
        for call in (old.read(), old.read(5), old.write(HELLO)):
            with pytest.raises(ssl.SSLError, match="^.*Underlying socket has been closed"):
                await call


async def test_ssl_obeys_the_timeout(stack: ExitStack) -> None:
    sock, other = plain_pair(stack, tiny=True)
    sock.settimeout(0.03)
    with pytest.warns(aiosock.InsecureWarning), pytest.raises(TimeoutError, match="^timed out$"):
        await aiosock.ssl(sock)
    assert sock.fileno() >= 0
    async with old_style(stack) as (old, beneath_it, _):
        beneath_it.settimeout(0.02)
        for call in (old.read(), old.read(5), old.write(BULK * 100)):
            with pytest.raises(TimeoutError, match="^timed out$"):
                await call
    other.close()


async def test_ssl_with_a_peer_that_speaks_plain_text(stack: ExitStack) -> None:
    sock, other = plain_pair(stack)
    await other.sendall(b"220 hello, who are you\r\n")
    with pytest.warns(aiosock.InsecureWarning), pytest.raises(ssl.SSLError, match="WRONG_VERSION"):
        await aiosock.ssl(sock)
    assert sock.fileno() >= 0


# --- the stdlib's SSLSocket in a thread -----------------------------------------------


def echo(raw: _stdlib.socket, server_side: bool, context: ssl.SSLContext) -> bytes:
    """Send back what comes, and leave as TLS wants it; plain bytes that come then."""
    raw.settimeout(LIMIT)
    host = None if server_side else HOST
    with context.wrap_socket(raw, server_side, server_hostname=host) as sock:
        while data := sock.recv(10_000):
            sock.sendall(data)
        return sock.unwrap().recv(100)


@versions
@sides
async def test_the_stdlibs_socket_as_a_peer(
    server_side: bool, version: Any, stack: ExitStack
) -> None:
    client, server = raw_pair()
    ours, others = (server, client) if server_side else (client, server)
    context = (trusting if server_side else serving)(version=version)
    echoing = asyncio.create_task(asyncio.to_thread(echo, others, not server_side, context))
    sock = stack.enter_context(await start(aiosock.from_stdlib_socket(ours), server_side))
    sending = asyncio.create_task(sock.sendall(BULK))
    assert await exactly(len(BULK), sock.recv) == BULK
    await sending
    await sock.unwrap()
    await sock.sendall(b"plain")
    assert await echoing == b"plain"


# --- OpenSSL's own programs -----------------------------------------------------------

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")


class Program:
    """``openssl s_client`` or ``s_server``, and what it says."""

    def __init__(self, stack: ExitStack, folder: Path, *arguments: str) -> None:
        authority().cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate().private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        self.process = subprocess.Popen(
            ["openssl", *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        stack.enter_context(self.process)
        stack.callback(self.process.kill)

    async def line(self, part: bytes) -> bytes:
        """The next line with a part that is awaited."""
        assert self.process.stdout
        while line := await asyncio.to_thread(self.process.stdout.readline):
            if part in line:
                return line
        raise AssertionError(f"it has ended and never said {part!r}")

    def type(self, text: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + b"\n")
        self.process.stdin.flush()


async def s_server(
    stack: ExitStack, folder: Path, *arguments: str
) -> tuple[aiosock.SSLSocket, Program]:
    command = "s_server -accept 127.0.0.1:0 -naccept 1 -cert server.pem -CAfile ca.pem"
    program = Program(stack, folder, *command.split(), *arguments)
    said = await program.line(b"ACCEPT")
    sock = await aiosock.create_connection(("127.0.0.1", int(said.rsplit(b":")[-1])))
    return stack.enter_context(await start(sock, False)), program


async def s_client(
    stack: ExitStack, folder: Path, context: ssl.SSLContext, *arguments: str
) -> tuple[aiosock.SSLSocket, Program]:
    listener = stack.enter_context(await aiosock.create_server(("127.0.0.1", 0)))
    command = "s_client -CAfile ca.pem -verify_return_error -verify_hostname localhost"
    where = f"-connect 127.0.0.1:{listener.getsockname()[1]}"
    program = Program(stack, folder, *command.split(), *where.split(), *arguments)
    sock, _ = await listener.accept()
    return stack.enter_context(await start(sock, True, context)), program


async def talk(sock: aiosock.SSLSocket, program: Program) -> None:
    await sock.sendall(b"from us\n")
    await program.line(b"from us")
    program.type(b"from it")
    assert await sock.recv() == b"from it\n"


@openssl
@pytest.mark.parametrize("command", ["", "r", "R", "k", "K"])
async def test_openssl_s_server(command: str, stack: ExitStack, tmp_path: Path) -> None:
    """r and R: another handshake, without and with a certificate; k and K: new keys."""
    version = "-tls1_2" if command in ("r", "R") else "-tls1_3"
    sock, program = await s_server(stack, tmp_path, version)
    await talk(sock, program)
    if command:
        reading = await waiting(sock.recv())
        program.type(command.encode())
        await asyncio.sleep(0.03)
        program.type(b"still here")
        assert await reading == b"still here\n"
    await talk(sock, program)
    program.type(b"Q")
    with pytest.raises(ssl.SSLEOFError):  # it just goes
        await sock.recv()


@openssl
@pytest.mark.parametrize("command", ["", "k", "K"])
async def test_openssl_s_client(command: str, stack: ExitStack, tmp_path: Path) -> None:
    sock, program = await s_client(stack, tmp_path, serving(version=TLS13))
    await talk(sock, program)
    if command:
        reading = await waiting(sock.recv())
        program.type(command.encode())
        await asyncio.sleep(0.03)
        program.type(b"still here")
        assert await reading == b"still here\n"
    await talk(sock, program)
    program.type(b"Q")
    assert await sock.recv() == b""


@openssl
async def test_openssl_s_client_may_not_negotiate_anew(stack: ExitStack, tmp_path: Path) -> None:
    """OpenSSL's servers refuse it since version 3; s_client leaves then."""
    sock, program = await s_client(stack, tmp_path, serving(version=TLS12))
    await talk(sock, program)
    reading = await waiting(outcome(sock.recv()))
    program.type(b"R")
    ended = await reading
    assert ended == b"" or isinstance(ended, ssl.SSLError | ConnectionResetError)


@openssl
async def test_openssl_s_client_takes_up_a_session(stack: ExitStack, tmp_path: Path) -> None:
    context = serving(version=TLS13)
    file = str(tmp_path / "session.pem")
    sock, program = await s_client(stack, tmp_path, context, "-sess_out", file)
    assert sock.session_reused is False
    await talk(sock, program)
    program.type(b"Q")
    assert await sock.recv() == b""
    again, program = await s_client(stack, tmp_path, context, "-sess_in", file)
    assert again.session_reused
    await talk(again, program)


@openssl
async def test_openssl_s_client_believes_no_other_host(stack: ExitStack, tmp_path: Path) -> None:
    other = serving(certificate("www.example.org"), version=TLS12)
    with pytest.raises(ssl.SSLError, match="BAD_CERTIFICATE|CERTIFICATE_UNKNOWN"):
        await s_client(stack, tmp_path, other)


for _name, _test in list(globals().items()):
    if _name.startswith("test_") and inspect.iscoroutinefunction(_test):
        globals()[_name] = in_time(_test)
