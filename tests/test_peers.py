"""What peers, the kernel and limits do to a connection, and what the caller then sees.

Resets in every state, data followed by a reset, half-closed connections, descriptors used
up, accept's errors, slow and stalled peers, thousands of connections, SIGPIPE.

Where aiosock differs from the stdlib, on purpose: what a `sendall` raises tells how far it
got, and so does what a `send` of a blocking socket raises when the peer resets half-way, for
which the stdlib returns a count that is too small.  In a process where SIGPIPE kills, a
broken pipe is an error all the same.  `shutdown` wakes a sender of AF_UNIX in timeout mode
too.
"""

import array
import asyncio
import errno
import io
import os
import resource
import select
import signal
import socket as _stdlib
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faces import AIOSOCK, LIMIT, Face, failure

import aiosock

MIB = 2**20


RESET = failure(ConnectionResetError, errno.ECONNRESET)
BROKEN = failure(BrokenPipeError, errno.EPIPE)
UNCONNECTED = failure(OSError, errno.ENOTCONN)
TOO_MANY = failure(OSError, errno.EMFILE)


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call returns, or what it raises, in full."""
    try:
        async with asyncio.timeout(LIMIT):
            return await call
    except OSError as error:
        return type(error), error.errno, error.strerror


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that waits in the call, and then has its outcome."""
    task = asyncio.create_task(outcome(call))
    await asyncio.sleep(0.02)
    assert not task.done()
    return task


async def connected(net: Face, kind: str) -> tuple[Any, Any]:
    return await net.tcp_pair() if kind == "tcp" else net.socketpair()


def reset(sock: Any) -> None:
    """Close so that the peer is sent RST."""
    sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def read_all(sock: Any, size: int = 65536) -> bytes:
    """What comes until the stream ends."""
    pieces = []
    while piece := await sock.recv(size):
        pieces.append(piece)
    return b"".join(pieces)


# --- resets -------------------------------------------------------------------------

RECEIVING: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(10)),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(10)]),
    "recv of all": lambda sock: sock.recv(10, _stdlib.MSG_WAITALL),
}
SENDING: dict[str, Callable[[Any, bytes], Awaitable[Any]]] = {
    "send": lambda sock, data: sock.send(data),
    "sendall": lambda sock, data: sock.sendall(data),
    "sendto": lambda sock, data: sock.sendto(data, ("127.0.0.1", 1)),
    "sendmsg": lambda sock, data: sock.sendmsg([data]),
    "sendfile": lambda sock, data: sock.sendfile(io.BytesIO(data)),
}
sending = pytest.mark.parametrize("send", SENDING.values(), ids=SENDING)
of_both_kinds = pytest.mark.parametrize("kind", ["tcp", "unix"])


async def test_a_connection_reset_in_the_queue_is_accepted_and_then_fails(net: Face) -> None:
    listener = await net.listener()
    clients = [net.socket() for _ in range(2)]
    for client in clients:
        await client.connect(listener.getsockname())
    reset(clients[0])
    server, _ = await listener.accept()
    net.keep(server)
    with pytest.raises(OSError, match="^.Errno 107. Transport endpoint is not connected$"):
        server.getpeername()
    assert await outcome(server.recv(10)) == RESET
    healthy, _ = await listener.accept()
    net.keep(healthy)
    await clients[1].sendall(b"well")
    assert await healthy.recv(10) == b"well"


async def test_after_a_reset_recv_fails_once_and_then_the_stream_has_ended(net: Face) -> None:
    client, server = await net.tcp_pair()
    reset(client)
    assert [await outcome(server.recv(10)) for _ in range(3)] == [RESET, b"", b""]


@sending
async def test_after_a_reset_each_send_fails(
    net: Face, send: Callable[[Any, bytes], Awaitable[Any]]
) -> None:
    client, server = await net.tcp_pair()
    reset(client)
    assert [await outcome(send(server, b"x")) for _ in range(3)] == [RESET, BROKEN, BROKEN]


async def test_a_reset_is_told_once_to_whoever_asks_first(net: Face) -> None:
    client, server = await net.tcp_pair()
    reset(client)
    assert await outcome(server.send(b"x")) == RESET
    assert await outcome(server.recv(10)) == b""
    client, server = await net.tcp_pair()
    reset(client)
    assert server.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR) == errno.ECONNRESET
    assert server.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR) == 0
    assert await outcome(server.recv(10)) == b""
    assert await outcome(server.send(b"x")) == BROKEN


async def test_a_reset_wakes_who_waits_for_data(net: Face) -> None:
    for name, receive in RECEIVING.items():
        client, server = await net.tcp_pair()
        task = await waiting(receive(server))
        reset(client)
        assert await task == RESET, name
        assert await outcome(server.recv(10)) == b"", name


@pytest.mark.parametrize("verb", ["sendall", "sendfile"])
async def test_a_reset_wakes_who_waits_for_room(net: Face, verb: str) -> None:
    client, server = await net.tcp_pair()
    task = await waiting(SENDING[verb](server, bytes(16 * MIB)))
    reset(client)
    assert await task == RESET
    assert await outcome(server.send(b"x")) == BROKEN


async def test_a_reset_wakes_reader_and_writer(net: Face) -> None:
    client, server = await net.tcp_pair()
    reader = await waiting(server.recv(10))
    writer = await waiting(server.sendall(bytes(16 * MIB)))
    reset(client)
    assert (await reader, await writer) in [(RESET, BROKEN), (b"", RESET)]


async def test_a_reset_comes_through_after_our_half_is_shut(net: Face) -> None:
    client, server = await net.tcp_pair()
    server.shutdown(_stdlib.SHUT_WR)
    task = await waiting(server.recv(10))
    reset(client)
    assert await task == RESET
    assert await outcome(server.recv(10)) == b""
    assert await outcome(server.send(b"x")) == BROKEN


@of_both_kinds
async def test_closing_with_unread_data_resets_the_peer(net: Face, kind: str) -> None:
    client, server = await connected(net, kind)
    await server.sendall(b"goodbye")
    await client.sendall(b"never read")
    server.close()
    assert [await outcome(client.recv(10)) for _ in range(3)] == [b"goodbye", RESET, b""]
    assert await outcome(client.send(b"x")) == BROKEN


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("size", [2, 100])
async def test_data_comes_before_the_reset_that_followed_it(net: Face, size: int, how: str) -> None:
    client, server = await net.tcp_pair()
    got = bytearray()
    await server.sendall(b"hello")
    if how == "before":
        reset(server)
    while len(got) < 5:
        got += await client.recv(size)
    if how == "after":
        reset(server)
    assert got == b"hello"
    assert [await outcome(client.recv(size)) for _ in range(3)] == [RESET, b"", b""]


async def test_a_reset_that_a_send_has_told_does_not_take_the_data(net: Face) -> None:
    client, server = await net.tcp_pair()
    await server.sendall(b"hello")
    reset(server)
    assert await outcome(client.send(b"x")) == RESET
    assert [await outcome(client.recv(3)) for _ in range(3)] == [b"hel", b"lo", b""]


@sending
async def test_what_a_reset_raises_tells_how_much_was_sent(
    send: Callable[[Any, bytes], Awaitable[Any]],
) -> None:
    with AIOSOCK.closing():
        client, server = await AIOSOCK.tcp_pair()
        call = send(server, bytes(16 * MIB))
        task = asyncio.ensure_future(call)
        got = len(await client.recv(1000))
        await asyncio.sleep(0.02)
        reset(client)
        with pytest.raises(ConnectionResetError) as caught:
            await task
        assert got <= caught.value.bytes_sent < 16 * MIB  # type: ignore[attr-defined]  # ours
        with pytest.raises(BrokenPipeError) as caught_then:
            await send(server, b"x")
        assert caught_then.value.bytes_sent == 0  # type: ignore[attr-defined]  # ours


# --- half of a connection -----------------------------------------------------------


@of_both_kinds
@pytest.mark.parametrize("shutter", ["the client", "the server"])
async def test_the_end_of_one_half_leaves_the_other_open(
    net: Face, kind: str, shutter: str
) -> None:
    client, server = await connected(net, kind)
    one, other = (client, server) if shutter == "the client" else (server, client)
    await one.sendall(b"request")
    one.shutdown(_stdlib.SHUT_WR)
    assert await read_all(other) == b"request"
    data = os.urandom(MIB) * 4
    answering = asyncio.create_task(other.sendall(data))
    got = bytearray()
    while len(got) < len(data):
        got += await one.recv(65536)
        assert await other.recv(10) == b""
    await answering
    assert got == data
    other.close()
    assert await one.recv(10) == b""
    assert await outcome(one.send(b"x")) == BROKEN


@of_both_kinds
async def test_an_end_that_comes_while_a_writer_waits_is_the_readers_alone(
    net: Face, kind: str
) -> None:
    client, server = await connected(net, kind)
    writer = await waiting(server.sendall(bytes(8 * MIB)))
    reader = await waiting(server.recv(10))
    client.shutdown(_stdlib.SHUT_WR)
    assert await reader == b""
    assert not writer.done()
    got = 0
    while got < 8 * MIB:
        got += len(await client.recv(MIB))
    assert await writer is None


@of_both_kinds
@pytest.mark.parametrize("how", [_stdlib.SHUT_RD, _stdlib.SHUT_RDWR], ids=["RD", "RDWR"])
async def test_shutting_ones_own_reading_half_wakes_the_reader(
    net: Face, kind: str, how: int
) -> None:
    _, server = await connected(net, kind)
    reader = await waiting(server.recv(10))
    server.shutdown(how)
    assert await reader == b""
    assert await server.recv(10) == b""


@of_both_kinds
@pytest.mark.parametrize("how", [_stdlib.SHUT_WR, _stdlib.SHUT_RDWR], ids=["WR", "RDWR"])
async def test_shutting_ones_own_writing_half_wakes_the_writer(
    net: Face, kind: str, how: int
) -> None:
    _, server = await connected(net, kind)
    writer = await waiting(server.sendall(bytes(16 * MIB)))
    server.shutdown(how)
    assert await writer == BROKEN


@of_both_kinds
async def test_shutting_wakes_every_writer_in_timeout_mode_too(kind: str) -> None:
    with AIOSOCK.closing():
        _, server = await connected(AIOSOCK, kind)
        server.settimeout(LIMIT)
        writers = [await waiting(server.sendall(bytes(16 * MIB))) for _ in range(2)]
        server.shutdown(_stdlib.SHUT_WR)
        assert [await writer for writer in writers] == [BROKEN, BROKEN]


async def test_shutting_a_listener_wakes_who_waits_in_accept(net: Face) -> None:
    listener = await net.listener()
    accepting = await waiting(listener.accept())
    listener.shutdown(_stdlib.SHUT_RD)
    assert await accepting == failure(OSError, errno.EINVAL)


@of_both_kinds
async def test_the_stream_ends_again_and_again(net: Face, kind: str) -> None:
    client, server = await connected(net, kind)
    client.close()
    assert [await server.recv(10) for _ in range(3)] == [b"", b"", b""]
    buffer = bytearray(b"untouched")
    assert await server.recv_into(buffer) == 0
    assert buffer == b"untouched"
    assert (await server.recvmsg(10))[:3] == (b"", [], 0)


# --- descriptors used up, and what else accept may raise ----------------------------


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """The next descriptor is one too many."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_accept_without_a_free_descriptor_fails_and_keeps_the_connection(net: Face) -> None:
    listener = await net.listener()
    client = net.socket()
    await client.connect(listener.getsockname())
    with no_more_descriptors():
        failures = [await outcome(listener.accept()) for _ in range(3)]
    assert failures == [TOO_MANY] * 3
    server, address = await listener.accept()
    net.keep(server)
    assert address == client.getsockname()


async def test_a_waiting_accept_without_a_free_descriptor_fails_and_keeps_the_connection(
    net: Face,
) -> None:
    listener = await net.listener()
    listener.settimeout(LIMIT)  # in blocking mode the kernel takes a descriptor before it waits
    client = net.socket()
    client.setblocking(False)  # a thread's first wait takes descriptors for its loop
    accepting = await waiting(listener.accept())
    with no_more_descriptors():
        await client.connect_ex(listener.getsockname())
        assert await accepting == TOO_MANY
    server, address = await listener.accept()
    net.keep(server)
    assert address == client.getsockname()


async def test_making_sockets_without_a_free_descriptor_fails(net: Face) -> None:
    sock = net.socket()
    with no_more_descriptors():
        for make in (net.socket, net.socketpair, sock.dup):
            with pytest.raises(OSError, match="^.Errno 24. Too many open files$"):
                make()


FROM_ACCEPT = {
    "ECONNABORTED": ConnectionAbortedError,
    "EPROTO": OSError,
    "EPERM": PermissionError,
    "ENETDOWN": OSError,
    "EHOSTUNREACH": OSError,
    "ENFILE": OSError,
    "ENOBUFS": OSError,
    "ENOMEM": OSError,
}


def accept_fails_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The system call under `accept` fails, once, where it would give a connection."""
    real = _stdlib.socket._accept  # type: ignore[attr-defined]  # the call under accept, on both faces
    errors = [number]

    def accept(sock: _stdlib.socket) -> Any:
        if errors and select.select([sock], [], [], 0)[0]:
            raise OSError(errors[0], os.strerror(errors.pop()))
        return real(sock)

    monkeypatch.setattr(_stdlib.socket, "_accept", accept, raising=False)


async def test_an_error_from_accept_is_raised_and_the_listener_serves_on(
    net: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await net.listener()
    for name, kind in FROM_ACCEPT.items():
        number = getattr(errno, name)
        client = net.socket()
        await client.connect(listener.getsockname())
        with monkeypatch.context() as patch:
            accept_fails_once(patch, number)
            assert await outcome(listener.accept()) == failure(kind, number)
        server, address = await listener.accept()
        net.keep(server)
        assert address == client.getsockname()


async def test_an_error_from_accept_goes_to_the_first_who_waits_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with AIOSOCK.closing():
        accept_fails_once(monkeypatch, errno.ECONNABORTED)
        listener = await AIOSOCK.listener()
        first, second = [await waiting(listener.accept()) for _ in range(2)]
        client = AIOSOCK.socket()
        await client.connect(listener.getsockname())
        assert await first == failure(ConnectionAbortedError, errno.ECONNABORTED)
        server, address = await second
        AIOSOCK.keep(server)
        assert address == client.getsockname()


# --- slow readers -------------------------------------------------------------------

VIEWS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array of shorts": lambda data: array.array("H", data),
    "view in two dimensions": lambda data: memoryview(data).cast("B", (2, len(data) // 2)),
}


async def squeezed(net: Face, kind: str) -> tuple[Any, Any]:
    """A pair whose first end has as small a send buffer as the kernel allows."""
    one, other = await connected(net, kind)
    one.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, 1)
    return one, other


@of_both_kinds
async def test_all_of_any_buffer_goes_through_a_tiny_send_buffer(net: Face, kind: str) -> None:
    for name, view in VIEWS.items():
        one, other = await squeezed(net, kind)
        data = os.urandom(200_000)
        task = await waiting(one.sendall(view(data)))
        got = bytearray()
        while len(got) < len(data):
            got += await other.recv(10_000)
        assert await task is None, name
        assert got == data, name


@contextmanager
def peak_of_memory() -> Iterator[Callable[[], int]]:
    """How many bytes more than at its beginning were ever in use at once."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("verb", "size"), [("sendall", 16), ("send", 4), ("sendmsg", 4)])
async def test_what_a_slow_reader_leaves_waiting_is_not_copied(verb: str, size: int) -> None:
    data = os.urandom(MIB) * size
    with AIOSOCK.closing():
        one, other = await squeezed(AIOSOCK, "unix")
        buffer = bytearray(1024)
        with peak_of_memory() as peak, memoryview(data) as expected:
            call = one.sendmsg([data[:0], data]) if verb == "sendmsg" else getattr(one, verb)(data)
            task, got = asyncio.create_task(call), 0
            while got < len(data):
                piece = await other.recv_into(buffer)
                assert buffer[:piece] == expected[got : got + piece]
                got += piece
            assert await task == (None if verb == "sendall" else len(data))
            assert peak() < 256 * 1024


async def test_a_sendall_to_a_slow_reader_is_bounded_as_a_whole() -> None:
    with AIOSOCK.closing():
        one, other = await squeezed(AIOSOCK, "unix")
        one.settimeout(0.2)
        got = 0
        async with asyncio.timeout(LIMIT):
            task = asyncio.create_task(one.sendall(bytes(16 * MIB)))
            while not task.done():
                got += len(await other.recv(512))
                await asyncio.sleep(0.005)
        with pytest.raises(TimeoutError, match="^timed out$") as caught:
            await task
        one.close()
        assert got + len(await read_all(other)) == caught.value.bytes_sent  # type: ignore[attr-defined]  # ours


# --- stalled peers ------------------------------------------------------------------


async def trickle(sock: Any, pause: float, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(pause)
        await sock.send(b"x")


async def read_line(sock: Any, got: bytearray) -> None:
    while b"\n" not in got:
        got += await sock.recv(1)


async def test_each_operation_has_the_timeout_anew(net: Face) -> None:
    client, server = await net.tcp_pair()
    server.settimeout(0.2)
    peer = asyncio.create_task(trickle(client, 0.08, 4))
    got = bytearray()
    with pytest.raises(TimeoutError, match="^timed out$"):
        await read_line(server, got)
    await peer
    assert got == b"xxxx"


async def test_a_deadline_for_the_whole_exchange_takes_nothing_from_it() -> None:
    with AIOSOCK.closing():
        client, server = await AIOSOCK.tcp_pair()
        server.settimeout(LIMIT)
        peer = asyncio.create_task(trickle(client, 0.01, 20))
        got = bytearray()
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(read_line(server, got), 0.1)
        assert caught.value.args == ()  # asyncio's, not the socket's
        assert 0 < len(got) < 20
        await peer
        client.close()
        assert got + await read_all(server) == b"x" * 20


async def test_stalled_connections_do_not_delay_a_healthy_one() -> None:
    with AIOSOCK.closing():
        stalled = [AIOSOCK.socketpair() for _ in range(200)]
        reading = [asyncio.create_task(read_all(server)) for _, server in stalled]
        client, server = await AIOSOCK.tcp_pair()
        async with asyncio.timeout(LIMIT):
            for turn in range(100):
                await stalled[turn][0].send(b"x")
                await client.send(b"ping")
                assert await server.recv(10) == b"ping"
        for slow, _ in stalled:
            slow.close()
        assert b"".join(await asyncio.gather(*reading)) == b"x" * 100


# --- many connections ---------------------------------------------------------------


@contextmanager
def room_for(pairs: int) -> Iterator[int]:
    """Raise the limit of descriptors as far as that needs; how many pairs fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * pairs + 200
    limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield min(pairs, (limit - 200) // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_thousands_of_connections_wait_and_those_with_data_are_served() -> None:
    with room_for(2000) as count, AIOSOCK.closing():
        pairs = [AIOSOCK.socketpair() for _ in range(count)]
        readers = [asyncio.create_task(outcome(server.recv(10))) for _, server in pairs]
        await asyncio.sleep(0.1)
        active = range(0, count, 100)
        for number in active:
            await pairs[number][0].send(b"%d" % number)
        got = [await readers[number] for number in active]
        assert got == [b"%d" % number for number in active]
        assert sum(reader.done() for reader in readers) == len(active)
        for _, server in pairs:
            server.close()
        closed = failure(OSError, errno.EBADF)
        outcomes = await asyncio.gather(*readers)
        assert outcomes.count(closed) == count - len(active)
        assert [await client.recv(1) for client, _ in pairs] == [b""] * count


async def test_a_storm_of_connections_is_accepted_one_by_one() -> None:
    with room_for(500) as count, AIOSOCK.closing():
        listener = await AIOSOCK.listener()
        listener.listen(count)
        clients = [AIOSOCK.socket() for _ in range(count)]
        addresses: set[tuple[str, int]] = set()

        async def accept() -> None:
            while len(addresses) < count:
                server, address = await listener.accept()
                addresses.add(address)
                AIOSOCK.keep(server)

        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as storm:
            storm.create_task(accept())
            for client in clients:
                storm.create_task(client.connect(listener.getsockname()))
        assert addresses == {client.getsockname() for client in clients}


async def test_a_full_queue_of_connections_leaves_other_tasks_their_turns() -> None:
    with AIOSOCK.closing():
        listener = await AIOSOCK.listener()
        listener.listen(300)
        for _ in range(300):
            await AIOSOCK.socket().connect(listener.getsockname())
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(take_turns())
        for _ in range(300):
            server, _ = await listener.accept()
            server.close()
        other.cancel()
        assert turns >= 3


async def test_an_idle_connection_costs_little_memory() -> None:
    with room_for(500) as count, AIOSOCK.closing():
        pairs = [_stdlib.socketpair() for _ in range(count)]
        with peak_of_memory() as peak:
            servers = [AIOSOCK.keep(aiosock.from_stdlib_socket(server)) for _, server in pairs]
            readers = [asyncio.create_task(server.recv(1)) for server in servers]
            await asyncio.sleep(0.05)
            assert peak() / count < 10 * 1024
        for client, _ in pairs:
            client.close()
        assert await asyncio.gather(*readers) == [b""] * count


# --- SIGPIPE ------------------------------------------------------------------------

DEAF = """
import asyncio, io, signal
import aiosock

signal.signal(signal.SIGPIPE, signal.SIG_DFL)

async def main():
    listener = await aiosock.create_server(("127.0.0.1", 0))
    tcp = await aiosock.create_connection(listener.getsockname())
    for client in tcp, aiosock.socketpair()[0]:
        client.shutdown(aiosock.SHUT_WR)
        for timeout in (None, 0.0, 1.0):
            client.settimeout(timeout)
            try:
                await {call}
            except BrokenPipeError as error:
                print(error.errno, flush=True)
        client.close()
    listener.close()

asyncio.run(main())
"""
CALLS = [
    "client.send(b'x')",
    "client.send(b'x', aiosock.MSG_DONTWAIT)",
    "client.sendall(b'x')",
    "client.sendall(bytes(10**6))",
    "(client.sendto(b'x', 0, client.getsockname()) if client is tcp else client.send(b'x'))",
    "client.sendmsg([b'x'])",
    "client.sendfile(io.BytesIO(b'x'))",
]


@pytest.mark.parametrize("call", CALLS)
def test_a_broken_pipe_is_an_error_where_sigpipe_would_kill(call: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DEAF.format(call=call)],
        cwd=Path(aiosock.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode != -signal.SIGPIPE, "killed by SIGPIPE"
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == [str(errno.EPIPE)] * 6


@sending
async def test_sending_after_shutting_ones_own_half_is_a_broken_pipe(
    net: Face, send: Callable[[Any, bytes], Awaitable[Any]]
) -> None:
    _, server = await net.tcp_pair()
    server.shutdown(_stdlib.SHUT_WR)
    assert [await outcome(send(server, b"x")) for _ in range(2)] == [BROKEN, BROKEN]
