"""Peers that mean harm: what they cost, and that others are served meanwhile.

Clients that dawdle, in lines and in handshakes; lines without end; peers who take nothing of
what they ask for; floods of datagrams, of descriptors, and of all that TLS lets a peer say
beside data.  Inputs at random are test_fuzz's.
"""

import asyncio
import os
import socket as _stdlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from faces import LIMIT, Face, open_descriptors
from secured import HOST, Peer, plain_pair, serving, start, trusting, usual, with_peer
from test_peers import no_more_descriptors, peak_of_memory
from test_tls import new_keys

import aiosock
import aiosock_sync
from aiosock import _records
from aiosock._records import SIZE

LOOPBACK = ("127.0.0.1", 0)
HELLO = b"hello"
MIB = 2**20

Address = tuple[str, int]


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not look():  # noqa: ASYNC110  # some of it is done by the kernel
            await asyncio.sleep(0.005)


def shut_hard(sock: Any) -> None:
    """Close so that the peer is sent RST."""
    sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# --- clients that dawdle ----------------------------------------------------------------

PATIENCE = 0.6  # seconds that a server has for a client
MANY = 30


async def hurried(conn: aiosock.socket, peer: Any) -> None:
    """Answers a line, for which it has so much patience as a whole, however it comes."""
    with suppress(TimeoutError, asyncio.LimitOverrunError):
        async with asyncio.timeout(PATIENCE), conn.makefile("rwb", limit=100) as file:
            while line := await file.readline():
                await file.write(line)
                await file.flush()


def hurried_there(conn: aiosock_sync.socket, peer: Any) -> None:
    """The same on the blocking face."""
    with suppress(TimeoutError), aiosock_sync.fail_after(PATIENCE), conn.makefile("rwb") as file:
        while line := file.readline(100):
            file.write(line)
            file.flush()


@pytest.fixture(params=["aiosock", "sync"])
def face(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@asynccontextmanager
async def at_work(face: str, **how: Any) -> AsyncIterator[Address]:
    """Serves in a hurry; the address."""
    if face == "aiosock":
        async with asyncio.timeout(2 * LIMIT), aiosock.serve(hurried, LOOPBACK, **how) as server:
            yield server.sockets[0].getsockname()
        return
    there = aiosock_sync.serve(hurried_there, LOOPBACK, **how)
    await asyncio.to_thread(there.__enter__)
    try:
        async with asyncio.timeout(2 * LIMIT):
            yield there.sockets[0].getsockname()
    finally:
        await asyncio.to_thread(there.__exit__, None, None, None)


async def drip(address: Address, data: bytes) -> int:
    """Send a byte now and then, until the server has had enough; how many it took."""
    async with aiosock.create_connection(address) as sock:
        for sent in range(len(data)):
            try:
                await sock.send(data[sent : sent + 1])
            except (ConnectionResetError, BrokenPipeError):
                return sent
            await asyncio.sleep(0.03)
    return len(data)


async def answered(address: Address, context: ssl.SSLContext | None = None) -> bytes:
    secure: dict[str, Any] = {"ssl": context, "server_hostname": HOST} if context else {}
    async with aiosock.create_connection(address, **secure) as sock:
        await sock.sendall(b"hello\n")
        got: bytes = await sock.recv(100)
        return got


async def test_who_drips_a_line_is_let_go_and_holds_up_nobody(face: str) -> None:
    async with at_work(face) as address:
        dawdlers = [asyncio.create_task(drip(address, b"x" * 90)) for _ in range(MANY)]
        for _ in range(5):
            assert await answered(address) == b"hello\n"
        assert all(taken < 90 for taken in await asyncio.gather(*dawdlers))


async def test_dawdlers_in_all_places_are_let_go_and_then_others_are_served(face: str) -> None:
    async with at_work(face, max_connections=3) as address:
        dawdlers = [asyncio.create_task(drip(address, b"x" * 90)) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert await answered(address) == b"hello\n"
        assert all(taken < 90 for taken in await asyncio.gather(*dawdlers))


@pytest.mark.parametrize("places", [3, None])
async def test_who_drips_a_handshake_is_let_go_and_holds_up_nobody(
    places: int | None, face: str
) -> None:
    """Its time is for all of the handshake, and not anew for each byte."""
    how: dict[str, Any] = {"max_connections": places} if places else {}
    hello = client_hello()
    async with at_work(face, ssl=serving(), ssl_handshake_timeout=PATIENCE, **how) as address:
        dawdlers = [asyncio.create_task(drip(address, hello)) for _ in range(places or MANY)]
        await asyncio.sleep(0.02)
        for _ in range(3):
            assert await answered(address, trusting()) == b"hello\n"
        assert all(taken < len(hello) for taken in await asyncio.gather(*dawdlers))


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    talk = usual(False).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    with suppress(ssl.SSLWantReadError):
        talk.do_handshake()
    return outgoing.read()


async def test_clients_that_reset_at_once_cost_nothing_that_stays(face: str) -> None:
    async with at_work(face) as address:
        before = open_descriptors()
        for _ in range(200):
            shut_hard(await aiosock.create_connection(address))
        assert await answered(address) == b"hello\n"
        await until(lambda: open_descriptors() <= before)


# --- lines without end ------------------------------------------------------------------

READS: dict[str, tuple[str, Callable[[Any], Awaitable[Any]]]] = {
    "readline": ("rb", lambda file: file.readline()),
    "readline of text": ("r", lambda file: file.readline()),
    "readuntil": ("rb", lambda file: file.readuntil(b"\r\n")),
    "async for": ("rb", lambda file: anext(aiter(file))),
    "async for of text": ("r", lambda file: anext(aiter(file))),
}


@pytest.mark.parametrize("name", READS)
async def test_a_line_without_end_costs_its_limit_and_no_more(name: str, stack: ExitStack) -> None:
    mode, read = READS[name]
    one, other = map(stack.enter_context, aiosock.socketpair())
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8"}
    with peak_of_memory() as peak:
        sending = asyncio.create_task(one.sendall(b"x" * 8 * MIB))
        async with asyncio.timeout(LIMIT), other.makefile(mode, limit=2**16, **text) as file:
            for _ in range(2):
                with pytest.raises(asyncio.LimitOverrunError):
                    await read(file)
        assert peak() < 10 * MIB  # of which 8 are the line itself
    sending.cancel()
    await asyncio.wait([sending])


@pytest.mark.parametrize("mode", ["r", "rb"])
async def test_a_line_has_no_limit_where_none_is_set(mode: str, stack: ExitStack) -> None:
    """As in the stdlib, and as documented."""
    one, other = map(stack.enter_context, aiosock.socketpair())
    line = b"x" * 2 * MIB + b"\n"
    sending = asyncio.create_task(one.sendall(line))
    async with other.makefile(mode) as file:
        assert len(await file.readline()) == len(line)
    await sending


# --- peers who take nothing -------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_what_nobody_takes_waits_where_it_is_until_the_timeout(
    secure: bool, stack: ExitStack
) -> None:
    data = bytes(32 * MIB)
    sock: aiosock.socket
    if secure:
        sock, _ = await with_peer(stack, tiny=True)
    else:
        sock, _ = map(stack.enter_context, aiosock.socketpair())
    sock.settimeout(0.2)
    with peak_of_memory() as peak:
        with pytest.raises(TimeoutError, match="^timed out$") as late:
            await sock.sendall(data)
        assert peak() < MIB
    assert 0 < late.value.bytes_sent < MIB  # type: ignore[attr-defined]  # ours
    sock.close()  # which does not wait either


# --- what TLS lets a peer say beside data -----------------------------------------------

sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


def owed(sock: aiosock.SSLSocket) -> int:
    """Bytes that are encrypted, and that the peer has not taken."""
    assert sock._tls is not None
    records = sock._tls.records
    return len(records.unsent) + records._outgoing.pending


def unread(sock: aiosock.SSLSocket) -> int:
    """Bytes that were received, and are not decrypted."""
    assert sock._tls is not None
    return sock._tls.records._incoming.pending


async def flood(peer: Peer, more: Callable[[], bytes], count: int) -> tuple[int, bytes]:
    """Send so many of them and read nothing; how many went whole, and the rest of the next."""
    peer.sock.settimeout(0.2)
    for sent in range(count):
        data = more()
        try:
            await peer.sock.sendall(data)
        except TimeoutError as late:
            return sent, data[late.bytes_sent :]  # type: ignore[attr-defined]  # ours
        except OSError:  # that was enough for the other side
            return sent, b""
    return count, b""


async def listen(peer: Peer) -> None:
    while True:
        await peer.hear()
        with suppress(ssl.SSLWantReadError):
            while peer.tls.read(2**16):
                pass


async def up_to_hello(sock: aiosock.socket) -> bytes:
    got = bytearray()
    while not got.endswith(HELLO):
        got += await sock.recv(2**16)
    return bytes(got)


@pytest.mark.parametrize("data", [b"", b"x"], ids=["alone", "with data"])
@pytest.mark.parametrize("busy", [False, True], ids=["reader", "reader and writer"])
async def test_questions_for_new_keys_pile_no_answers_up_for_a_peer_who_takes_none(
    busy: bool, data: bytes, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is taken from him then; and when he takes them, all goes on."""
    monkeypatch.setattr(_records, "OWED", 2**14)
    sock, peer = await with_peer(stack, tiny=True)
    reading = asyncio.create_task(up_to_hello(sock))
    sending = asyncio.create_task(sock.sendall(bytes(MIB) if busy else HELLO))
    asked, rest = await flood(peer, lambda: new_keys(peer, True) + peer.sealed(data), 5000)
    assert 100 < asked < 5000
    assert owed(sock) < 2**17
    assert unread(sock) <= SIZE
    peer.sock.settimeout(LIMIT)
    listening = asyncio.create_task(listen(peer))
    async with asyncio.timeout(LIMIT):
        await peer.sock.sendall(rest + peer.sealed(HELLO))
        assert await reading == data * (asked + 1) + HELLO
        await sending
    listening.cancel()
    await asyncio.wait([listening])


@sides
async def test_new_keys_without_end_let_others_have_their_turn(
    server_side: bool, stack: ExitStack
) -> None:
    sock, peer = await with_peer(stack, server_side)
    reading = asyncio.create_task(sock.recv())
    asking = asyncio.create_task(flood(peer, lambda: new_keys(peer), 2000))
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 20
    if await asking == (2000, b""):
        await peer.send(HELLO)
        assert await reading == HELLO
    else:
        with pytest.raises(ssl.SSLError):
            await reading


async def test_tickets_without_end_are_read_and_not_kept(stack: ExitStack) -> None:
    sock, peer = await with_peer(stack, peers=serving(num_tickets=2000))
    await peer.send(HELLO)
    async with asyncio.timeout(LIMIT):
        assert await sock.recv() == HELLO
    assert unread(sock) == owed(sock) == 0


RECORDS = {
    "empty handshake": b"\x16\x03\x03\0\0",
    "empty data": b"\x17\x03\x03\0\0",
    "warning": b"\x15\x03\x03\0\2\1\x5a",
    "change of cipher": b"\x14\x03\x03\0\1\1",
    "unknown": b"\x99\x03\x03\0\0",
}


@sides
@pytest.mark.parametrize("name", RECORDS)
async def test_records_that_say_nothing_end_a_handshake(
    name: str, server_side: bool, stack: ExitStack
) -> None:
    sock, other = plain_pair(stack)
    flooding = asyncio.create_task(other.sendall(RECORDS[name] * 100_000))
    async with asyncio.timeout(LIMIT):
        with pytest.raises(ssl.SSLError):
            await start(sock, server_side)
        with suppress(ConnectionResetError, BrokenPipeError):
            await flooding


# --- datagrams --------------------------------------------------------------------------

RECEIVES: dict[str, Callable[[aiosock.socket], Awaitable[Any]]] = {
    "recv": lambda sock: sock.recv(100),
    "recvfrom": lambda sock: sock.recvfrom(100),
    "recvmsg": lambda sock: sock.recvmsg(100),
    "recv_many": lambda sock: sock.recv_many(100),
}


@pytest.mark.parametrize("name", RECEIVES)
async def test_beside_datagrams_without_end_others_are_served(name: str, stack: ExitStack) -> None:
    async def drink() -> None:
        for _ in range(100_000):
            sender.send(HELLO)  # as many as are taken: there always is another one
            await RECEIVES[name](flooded)

    sender, receiver = _stdlib.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    stack.enter_context(sender)
    flooded = stack.enter_context(aiosock.from_stdlib_socket(receiver))
    sender.send(HELLO)
    one, other = map(stack.enter_context, aiosock.socketpair())
    drinking = asyncio.create_task(drink())
    async with asyncio.timeout(LIMIT):
        for _ in range(20):
            await one.sendall(HELLO)
            assert await other.recv(100) == HELLO
            await asyncio.sleep(0)
    assert not drinking.done()
    drinking.cancel()
    await asyncio.wait([drinking])


# --- descriptors ------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["recv", "recv_into", "recvfrom", "recvmsg", "file"])
async def test_descriptors_that_nobody_asked_for_are_closed(read: str, stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    file: Any = other.makefile("rb", buffering=1)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "recv": lambda: other.recv(1),
        "recv_into": lambda: other.recv_into(bytearray(1)),
        "recvfrom": lambda: other.recvfrom(1),
        "recvmsg": lambda: other.recvmsg(1),
        "file": lambda: file.read(1),
    }
    before = open_descriptors()
    for _ in range(100):
        await aiosock.send_fds(one, [b"x"], [one.fileno()] * 50)
        await calls[read]()
        assert open_descriptors() == before
    await file.close()


@pytest.mark.parametrize("kind", [_stdlib.SOCK_DGRAM, _stdlib.SOCK_SEQPACKET])
async def test_descriptors_that_come_with_many_datagrams_are_closed(
    kind: int, stack: ExitStack
) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair(_stdlib.AF_UNIX, kind))
    before = open_descriptors()
    for _ in range(50):
        await aiosock.send_fds(one, [b"x"], [one.fileno()] * 50)
        await aiosock.send_fds(one, [b"x"], [one.fileno()] * 50)
        assert len(await other.recv_many(100)) == 2
        assert open_descriptors() == before


async def test_descriptors_for_which_there_is_no_room_are_closed(stack: ExitStack) -> None:
    one, other = map(stack.enter_context, aiosock.socketpair())
    before = open_descriptors()
    for _ in range(50):
        await aiosock.send_fds(one, [b"x"], [one.fileno()] * 50)
        _, got, flags, _ = await aiosock.recv_fds(other, 1, 3)
        assert len(got) == 3
        assert flags & _stdlib.MSG_CTRUNC
        for number in got:
            os.close(number)
        assert open_descriptors() == before


@pytest.mark.parametrize("verb", ["recvmsg", "recv_fds"])
async def test_descriptors_that_nobody_can_have_are_lost_and_that_is_told(
    verb: str, net: Face
) -> None:
    one, other = net.socketpair()
    await net.send_fds(one, [b"data"], [one.fileno()] * 3)
    other.setblocking(False)
    with no_more_descriptors():
        if verb == "recvmsg":
            data, got, flags, _ = await other.recvmsg(100, 100)
        else:
            data, got, flags, _ = await net.recv_fds(other, 100, 3)
    assert (data, got) == (b"data", [])
    assert flags & _stdlib.MSG_CTRUNC
