"""Messages that keep their boundaries, what travels beside them, and flags.

Empty, truncated and oversized datagrams, refusals by ICMP, full queues of AF_UNIX,
SOCK_SEQPACKET, descriptors and other ancillary data, and the flags that change how a
receive or a send goes about its work.

Where aiosock differs from the stdlib, on purpose: with MSG_TRUNC a receive gives no more
bytes than it was asked for, where the stdlib hands out memory behind its buffer; an urgent
byte is waited for until it comes, where the stdlib's wait does not see it come; and what
recv_fds receives is not inheritable.
"""

import array
import asyncio
import errno
import os
import socket as _stdlib
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from faces import AIOSOCK, LIMIT, Face, count_calls, failure, open_descriptors

import aiosock

REFUSED = failure(ConnectionRefusedError, errno.ECONNREFUSED)
RESET = failure(ConnectionResetError, errno.ECONNRESET)
BROKEN = failure(BrokenPipeError, errno.EPIPE)
TOO_LONG = failure(OSError, errno.EMSGSIZE)
NOT_NOW = failure(BlockingIOError, errno.EAGAIN)
INVALID = failure(OSError, errno.EINVAL)
LATE = TimeoutError, None, "timed out"


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call returns, or what it raises, in full."""
    try:
        async with asyncio.timeout(LIMIT):
            return await call
    except OSError as error:
        return type(error), error.errno, error.strerror or str(error)


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that waits in the call, and then has its outcome."""
    task = asyncio.create_task(outcome(call))
    await asyncio.sleep(0.015)
    assert not task.done()
    return task


async def connected(net: Face, kind: str) -> tuple[Any, Any]:
    """Two connected sockets, of one of the kinds that keep boundaries or of TCP."""
    if kind == "tcp":
        return await net.tcp_pair()
    if kind == "stream":
        return net.socketpair()
    if kind != "udp":
        of_type = {"unix": _stdlib.SOCK_DGRAM, "seqpacket": _stdlib.SOCK_SEQPACKET}[kind]
        return net.socketpair(_stdlib.AF_UNIX, of_type)
    one, other = [await udp(net) for _ in range(2)]
    await one.connect(other.getsockname())
    await other.connect(one.getsockname())
    return one, other


async def udp(net: Face, family: int = _stdlib.AF_INET, host: str = "127.0.0.1") -> Any:
    sock = net.socket(family, _stdlib.SOCK_DGRAM)
    await sock.bind((host, 0))
    return sock


def mode(sock: Any, timeout: float | None) -> Any:
    sock.settimeout(timeout)
    return sock


of_each_kind = pytest.mark.parametrize("kind", ["udp", "unix", "seqpacket"])
of_both_streams = pytest.mark.parametrize("kind", ["tcp", "stream"])

# --- empty --------------------------------------------------------------------------


@of_each_kind
async def test_empty_datagrams_are_sent_and_received(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    assert await one.send(b"") == 0
    assert await one.sendall(b"") is None
    assert await one.sendmsg([]) == 0
    assert await one.sendmsg([b"", b""]) == 0
    assert await one.send(b"full") == 4
    assert [await other.recv(10) for _ in range(5)] == [b"", b"", b"", b"", b"full"]
    other.settimeout(0.0)
    assert await outcome(other.recv(10)) == NOT_NOW


@of_each_kind
async def test_an_empty_datagram_wakes_each_kind_of_receive(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    buffer = bytearray(b"untouched")
    for verb, what, expected in [
        ("recv", 10, b""),
        ("recv_into", buffer, 0),
        ("recvmsg", 10, b""),
        ("recvmsg_into", [buffer], 0),
        ("recvfrom", 10, b""),
        ("recvfrom_into", buffer, 0),
    ]:
        task = await waiting(getattr(other, verb)(what))
        await one.send(b"")
        got = await task
        assert (got[0] if type(got) is tuple else got) == expected
    assert buffer == b"untouched"


async def test_an_empty_datagram_has_a_sender(net: Face) -> None:
    one, other = await udp(net), await udp(net)
    assert await one.sendto(b"", other.getsockname()) == 0
    assert await other.recvfrom(10) == (b"", one.getsockname())
    assert await one.sendmsg([], [], 0, other.getsockname()) == 0
    assert await other.recvmsg(10) == (b"", [], 0, one.getsockname())


@of_both_streams
async def test_sending_nothing_on_a_stream_is_no_end(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    assert await one.send(b"") == 0
    assert await one.sendall(b"") is None
    assert await one.sendmsg([]) == 0
    task = await waiting(other.recv(10))
    await one.send(b"something")
    assert await task == b"something"


async def test_asking_for_nothing_takes_a_datagram_only_with_its_address(net: Face) -> None:
    one, other = await connected(net, "udp")
    await one.send(b"first")
    assert await other.recv(0) == b""
    assert await other.recvfrom(0) == (b"", one.getsockname())
    await one.send(b"second")
    assert await other.recvmsg(0) == (b"", [], _stdlib.MSG_TRUNC, one.getsockname())
    other.settimeout(0.0)
    assert await outcome(other.recv(10)) == NOT_NOW


# --- truncated ----------------------------------------------------------------------


@of_each_kind
async def test_what_does_not_fit_is_cut_off_and_gone(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    for _ in range(6):
        await one.send(b"0123456789")
    buffers = [bytearray(4) for _ in range(4)]
    assert await other.recv(4) == b"0123"
    assert (await other.recvfrom(4))[0] == b"0123"
    assert (await other.recvmsg(4))[:3] == (b"0123", [], _stdlib.MSG_TRUNC)
    assert await other.recv_into(buffers[0]) == 4
    assert (await other.recvfrom_into(buffers[1]))[0] == 4
    assert (await other.recvmsg_into(buffers[2:]))[:3] == (8, [], _stdlib.MSG_TRUNC)
    assert buffers == [b"0123", b"0123", b"0123", b"4567"]
    other.settimeout(0.0)
    assert await outcome(other.recv(10)) == NOT_NOW


@of_each_kind
async def test_msg_trunc_gives_no_more_than_was_asked_for(ours: Face, kind: str) -> None:
    one, other = await connected(ours, kind)
    flag, buffer = aiosock.MSG_TRUNC, bytearray(4)
    for _ in range(6):
        await one.send(b"0123456789")
    assert await other.recv(4, flag) == b"0123"
    assert (await other.recvfrom(4, flag))[0] == b"0123"
    assert (await other.recvmsg(4, 0, flag))[::2][:1] == (b"0123",)
    assert await other.recv(100, flag) == b"0123456789"
    assert await other.recv_into(buffer, 0, flag) == 10  # how long it was
    assert buffer == b"0123"
    assert (await other.recvfrom_into(buffer, 0, flag))[0] == 10


@of_each_kind
async def test_msg_trunc_is_told_by_recvmsg(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    for data, told in (b"0123", 0), (b"01234", _stdlib.MSG_TRUNC):
        await one.send(data)
        buffer = bytearray(4)
        size, _, flags, _ = await other.recvmsg_into([buffer], 0, _stdlib.MSG_TRUNC)
        assert (size, flags & _stdlib.MSG_TRUNC, bytes(buffer)) == (len(data), told, b"0123")


# --- refused ------------------------------------------------------------------------


async def refused(net: Face, timeout: float | None = 0.1) -> Any:
    """A UDP socket whose first datagram has come back: nobody listens there."""
    gone = await udp(net)
    sock = mode(net.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM), timeout)
    await sock.connect(gone.getsockname())
    gone.close()
    await sock.send(b"anybody?")
    await asyncio.sleep(0.01)
    return sock


NEXT: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
    "sendto": lambda sock: sock.sendto(b"x", sock.getpeername()),
}


async def test_a_refusal_is_told_once_by_the_next_call(net: Face) -> None:
    for name, call in NEXT.items():
        sock = await refused(net, 0.02)
        assert await outcome(call(sock)) == REFUSED, name
        assert await outcome(sock.recv(10)) == LATE, name


async def test_a_refusal_that_so_error_has_told_is_told_no_more(net: Face) -> None:
    sock = await refused(net)
    number = sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR)
    assert number == errno.ECONNREFUSED
    assert await outcome(sock.recv(10)) == LATE


@pytest.mark.parametrize("timeout", [None, LIMIT], ids=["blocking", "timeout"])
async def test_a_refusal_wakes_who_waits_and_every_later_one_does(
    net: Face, timeout: float | None
) -> None:
    gone = await udp(net)
    sock = mode(net.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM), timeout)
    await sock.connect(gone.getsockname())
    gone.close()
    for _ in range(3):
        task = await waiting(sock.recv(10))
        assert await sock.send(b"anybody?") == 8
        assert await task == REFUSED


async def test_after_a_refusal_datagrams_are_still_waited_for(net: Face) -> None:
    sock = await refused(net, LIMIT)
    assert await outcome(sock.recv(10)) == REFUSED
    task = await waiting(sock.recv(10))
    born_again = net.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
    await born_again.bind(sock.getpeername())
    await born_again.sendto(b"here I am", sock.getsockname())
    assert await task == b"here I am"


async def test_an_unconnected_socket_is_told_of_no_refusal(net: Face) -> None:
    gone, sock = await udp(net), mode(await udp(net), 0.05)
    address = gone.getsockname()
    gone.close()
    for _ in range(2):
        assert await sock.sendto(b"anybody?", address) == 8
        assert await outcome(sock.recv(10)) == LATE


IP_RECVERR = 11


async def test_the_error_queue_tells_who_refused(net: Face) -> None:
    gone, sock = await udp(net), mode(await udp(net), LIMIT)
    sock.setsockopt(_stdlib.IPPROTO_IP, IP_RECVERR, 1)
    address = gone.getsockname()
    gone.close()
    for _ in range(2):
        task = await waiting(sock.recv(10))
        await sock.sendto(b"anybody?", address)
        assert await task == REFUSED
        data, [(level, kind, told)], flags, sender = await sock.recvmsg(
            100, 200, _stdlib.MSG_ERRQUEUE
        )
        assert (data, sender) == (b"anybody?", address)
        assert (level, kind) == (_stdlib.IPPROTO_IP, IP_RECVERR)
        assert struct.unpack_from("i", told)[0] == errno.ECONNREFUSED
        assert flags & _stdlib.MSG_ERRQUEUE


async def test_an_empty_error_queue_is_not_waited_for_in_blocking_mode(net: Face) -> None:
    sock = await udp(net)
    assert await outcome(sock.recvmsg(100, 200, _stdlib.MSG_ERRQUEUE)) == NOT_NOW
    sock.settimeout(0.05)
    assert await outcome(sock.recvmsg(100, 200, _stdlib.MSG_ERRQUEUE)) == LATE


# --- too long, and no room ----------------------------------------------------------


@of_each_kind
async def test_what_is_too_long_is_refused_at_once(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    data = bytes(65508 if kind == "udp" else 10**6)
    for timeout in None, LIMIT, 0.0:
        one.settimeout(timeout)
        for verb, what in ("send", data), ("sendall", data), ("sendmsg", [data]):
            assert await outcome(getattr(one, verb)(what)) == TOO_LONG, (timeout, verb)
    await one.send(b"short")
    assert await other.recv(10) == b"short"


async def test_the_longest_datagram_arrives(net: Face) -> None:
    one, other = await connected(net, "udp")
    data = os.urandom(65507)
    assert await one.sendto(data, other.getsockname()) == len(data)
    assert await other.recv(70_000) == data


async def receiver(net: Face) -> tuple[Any, bytes]:
    """A bound AF_UNIX datagram socket and its name."""
    sock = net.socket(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    await sock.bind("")
    return sock, sock.getsockname()


async def sender_to_full(net: Face, name: bytes, connects: bool) -> tuple[Any, int]:
    """A sender that finds the receiver's queue full, and how many datagrams are in it."""
    sock = mode(net.socket(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM), 0.0)
    if connects:
        await sock.connect(name)
    sent = 0
    while await outcome(sock.sendto(b"%d" % sent, name)) != NOT_NOW:
        sent += 1
    return sock, sent


connected_or_not = pytest.mark.parametrize("connects", [True, False], ids=["connected", "not"])


@connected_or_not
async def test_with_the_queue_full_a_datagram_waits_for_room(net: Face, connects: bool) -> None:
    target, name = await receiver(net)
    sock, sent = await sender_to_full(net, name, connects)
    sock.settimeout(None)
    task = await waiting(sock.sendto(b"last", name))
    got = [await target.recv(10) for _ in range(sent + 1)]
    assert await task == 4
    assert got == [*(b"%d" % number for number in range(sent)), b"last"]


async def test_no_datagram_overtakes_one_that_waits_for_room() -> None:
    with AIOSOCK.closing():
        target, name = await receiver(AIOSOCK)
        sock, sent = await sender_to_full(AIOSOCK, name, connects=False)
        sock.settimeout(None)
        task = await waiting(sock.sendto(b"first", name))
        for _ in range(2):
            await target.recv(10)  # room for both
        await sock.sendto(b"second", name)
        got = [await target.recv(10) for _ in range(sent)]
        assert got[-2:] == [b"first", b"second"]
        assert await task == 5


@pytest.mark.parametrize("verb", ["send", "sendall", "sendmsg"])
async def test_with_the_queue_full_a_datagram_is_sent_once(net: Face, verb: str) -> None:
    target, name = await receiver(net)
    sock, sent = await sender_to_full(net, name, connects=True)
    sock.settimeout(None)
    task = await waiting(getattr(sock, verb)([b"last"] if verb == "sendmsg" else b"last"))
    got = [await target.recv(10) for _ in range(sent + 1)]
    assert got[-1] == b"last"
    assert await task == (None if verb == "sendall" else 4)
    target.settimeout(0.0)
    assert await outcome(target.recv(10)) == NOT_NOW


@connected_or_not
async def test_with_the_queue_full_a_datagram_is_late_after_its_timeout(
    net: Face, connects: bool
) -> None:
    target, name = await receiver(net)
    sock, sent = await sender_to_full(net, name, connects)
    sock.settimeout(0.05)
    assert await outcome(sock.sendto(b"late", name)) == LATE
    sock.settimeout(None)
    assert await outcome(sock.sendto(b"impatient", _stdlib.MSG_DONTWAIT, name)) == NOT_NOW
    for number in range(sent):
        assert await target.recv(10) == b"%d" % number
    target.settimeout(0.0)
    assert await outcome(target.recv(10)) == NOT_NOW


@connected_or_not
async def test_a_datagram_that_waits_is_refused_when_the_receiver_closes(
    net: Face, connects: bool
) -> None:
    target, name = await receiver(net)
    sock, _ = await sender_to_full(net, name, connects)
    sock.settimeout(None)
    task = await waiting(sock.sendto(b"last", name))
    target.close()
    assert await task == REFUSED


@connected_or_not
async def test_with_the_queue_full_nothing_spins(
    monkeypatch: pytest.MonkeyPatch, connects: bool
) -> None:
    with AIOSOCK.closing():
        _target, name = await receiver(AIOSOCK)
        sock, _ = await sender_to_full(AIOSOCK, name, connects)
        attempts = count_calls(monkeypatch, "sendto", "send", "sendmsg")
        sock.settimeout(0.25)
        assert await outcome(sock.sendto(b"late", name)) == LATE
        assert 2 <= len(attempts) <= 100


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_a_datagram_that_waits_no_more_is_not_sent(end: str) -> None:
    with AIOSOCK.closing():
        target, name = await receiver(AIOSOCK)
        sock, sent = await sender_to_full(AIOSOCK, name, connects=False)
        sock.settimeout(None)
        task = asyncio.create_task(sock.sendto(b"late", name))
        await asyncio.sleep(0.02)
        if end == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            sock.close()
            assert await outcome(task) == failure(OSError, errno.EBADF)
        for number in range(sent):
            assert await target.recv(10) == b"%d" % number
        await asyncio.sleep(0.02)
        target.settimeout(0.0)
        assert await outcome(target.recv(10)) == NOT_NOW


@pytest.mark.parametrize("kind", ["unix", "seqpacket"])
async def test_a_pair_with_no_room_waits_for_it(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    one.settimeout(0.0)
    sent = 0
    while await outcome(one.send(b"%d" % sent)) != NOT_NOW:
        sent += 1
    one.settimeout(None)
    task = await waiting(one.send(b"last"))
    got = [await other.recv(10) for _ in range(sent + 1)]
    assert await task == 4
    assert got == [*(b"%d" % number for number in range(sent)), b"last"]


# --- boundaries of SOCK_SEQPACKET ---------------------------------------------------


async def test_a_seqpacket_connection_keeps_boundaries_and_ends(net: Face) -> None:
    listener = net.socket(_stdlib.AF_UNIX, _stdlib.SOCK_SEQPACKET)
    await listener.bind("")
    listener.listen()
    client = net.socket(_stdlib.AF_UNIX, _stdlib.SOCK_SEQPACKET)
    await client.connect(listener.getsockname())
    server, _ = await listener.accept()
    net.keep(server)
    assert server.type == _stdlib.SOCK_SEQPACKET
    await client.send(b"one")
    await client.sendmsg([b"t", b"wo"])
    await client.sendall(b"three")
    assert [await server.recv(2) for _ in range(3)] == [b"on", b"tw", b"th"]
    client.close()
    assert [await server.recv(10) for _ in range(2)] == [b"", b""]
    assert await outcome(server.send(b"x")) == BROKEN


async def test_a_seqpacket_connection_is_reset_when_messages_are_unread(net: Face) -> None:
    one, other = await connected(net, "seqpacket")
    task = await waiting(one.recv(10))
    await one.send(b"never read")
    other.close()
    assert await task == RESET
    assert await outcome(one.recv(10)) == b""


async def test_a_closed_peer_of_a_unix_datagram_pair_refuses(net: Face) -> None:
    one, other = await connected(net, "unix")
    other.close()
    assert await outcome(one.send(b"x")) == failure(ConnectionRefusedError, errno.ECONNREFUSED)
    one.settimeout(0.05)
    assert await outcome(one.recv(10)) == LATE


# --- descriptors --------------------------------------------------------------------


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def rights(*numbers: int) -> list[tuple[int, int, Any]]:
    return [(_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS, array.array("i", numbers))]


def taken(ancdata: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in some ancillary data."""
    numbers = array.array("i")
    for level, kind, data in ancdata:
        assert (level, kind) == (_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS)
        numbers.frombytes(data)
    return list(numbers)


def close_all(numbers: list[int]) -> int:
    for number in numbers:
        os.close(number)
    return len(numbers)


ROOM = _stdlib.CMSG_SPACE(4 * 4)
with_rights = pytest.mark.parametrize("kind", ["stream", "unix", "seqpacket"])


@with_rights
async def test_a_descriptor_arrives_and_works(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    with pipe() as (reader, writer):
        task = await waiting(other.recvmsg(10, ROOM))
        assert await one.sendmsg([b"a ", b"pipe"], rights(writer)) == 6
        data, ancdata, flags, _ = await task
        assert (data, flags) == (b"a pipe", 0)
        [received] = taken(ancdata)
        assert received != writer
        os.write(received, b"through")
        assert close_all([received]) == 1
        assert os.read(reader, 10) == b"through"


@with_rights
async def test_descriptors_without_room_are_closed_and_that_is_told(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    with pipe() as (reader, writer):
        before = open_descriptors()
        for room, delivered in (_stdlib.CMSG_LEN(4), 1), (ROOM, 4), (0, 0):
            await one.sendmsg([b"four"], rights(reader, writer, reader, writer))
            data, ancdata, flags, _ = await other.recvmsg(10, room)
            assert data == b"four"
            assert bool(flags & _stdlib.MSG_CTRUNC) == (delivered < 4)
            assert open_descriptors() == before + delivered
            assert close_all(taken(ancdata)) == delivered


@with_rights
async def test_a_receive_that_cannot_tell_of_descriptors_closes_them(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    with pipe() as (reader, _):
        before = open_descriptors()
        for verb, what in (
            ("recv", 10),
            ("recv_into", bytearray(10)),
            ("recvfrom", 10),
            ("recvfrom_into", bytearray(10)),
            ("recvmsg", 10),
            ("recvmsg_into", [bytearray(10)]),
        ):
            await one.sendmsg([b"ignored"], rights(reader))
            await getattr(other, verb)(what)
            assert open_descriptors() == before, verb


async def test_filling_a_buffer_closes_the_descriptors_that_come_with_it(net: Face) -> None:
    one, other = await connected(net, "stream")
    with pipe() as (reader, _):
        before = open_descriptors()
        await one.sendmsg([b"abcd"], rights(reader))
        assert await other.recv(4, _stdlib.MSG_WAITALL) == b"abcd"
        assert open_descriptors() == before


async def test_descriptors_part_a_stream(net: Face) -> None:
    one, other = await connected(net, "stream")
    with pipe() as (reader, _):
        await one.sendmsg([b"with"], rights(reader))
        await one.send(b" and without")
        data, ancdata, _, _ = await other.recvmsg(100, ROOM)
        assert data == b"with"
        assert close_all(taken(ancdata)) == 1
        assert await other.recv(100) == b" and without"


async def test_a_descriptor_is_received_as_inheritable_as_the_flag_says(net: Face) -> None:
    one, other = await connected(net, "stream")
    with pipe() as (reader, _):
        for flags, inheritable in (0, True), (_stdlib.MSG_CMSG_CLOEXEC, False):
            await one.sendmsg([b"x"], rights(reader))
            _, ancdata, _, _ = await other.recvmsg(10, ROOM, flags)
            numbers = taken(ancdata)
            assert [os.get_inheritable(number) for number in numbers] == [inheritable]
            close_all(numbers)


async def test_peeking_at_descriptors_gives_them_and_leaves_them(net: Face) -> None:
    one, other = await connected(net, "stream")
    with pipe() as (reader, _):
        await one.sendmsg([b"x"], rights(reader))
        for flags in _stdlib.MSG_PEEK, 0:
            data, ancdata, _, _ = await other.recvmsg(10, ROOM, flags)
            assert data == b"x"
            assert close_all(taken(ancdata)) == 1


async def test_a_descriptor_that_is_none_is_not_sent(net: Face) -> None:
    one, other = await connected(net, "stream")
    closed = os.dup(0)
    os.close(closed)
    assert await outcome(one.sendmsg([b"x"], rights(closed))) == failure(OSError, errno.EBADF)
    assert await outcome(one.sendmsg([b"x"], rights(*[0] * 300))) == INVALID
    other.settimeout(0.0)
    assert await outcome(other.recv(10)) == NOT_NOW


@with_rights
async def test_a_cancelled_recvmsg_leaves_the_descriptors_in_the_socket(kind: str) -> None:
    with AIOSOCK.closing(), pipe() as (reader, _):
        one, other = await connected(AIOSOCK, kind)
        before = open_descriptors()
        for turns in range(6):
            task = asyncio.create_task(other.recvmsg(10, ROOM))
            await asyncio.sleep(0.001)
            await one.sendmsg([b"x"], rights(reader))
            for _ in range(turns % 3):
                await asyncio.sleep(0)
            task.cancel()
            try:
                _, ancdata, _, _ = await task
            except asyncio.CancelledError:
                _, ancdata, _, _ = await outcome(other.recvmsg(10, ROOM))
            assert open_descriptors() == before + 1
            assert close_all(taken(ancdata)) == 1


async def test_closing_a_socket_closes_the_descriptors_that_nobody_took() -> None:
    with AIOSOCK.closing(), pipe() as (reader, writer):
        one, other = await connected(AIOSOCK, "stream")
        await one.sendmsg([b"x"], rights(writer))
        os.set_blocking(reader, False)
        copy = os.dup(writer)
        await one.sendmsg([b"x"], rights(copy))
        os.close(copy)
        before = open_descriptors()
        other.close()
        assert open_descriptors() == before - 1


async def test_send_fds_and_recv_fds(net: Face) -> None:
    one, other = await connected(net, "stream")
    with pipe() as ends:
        before = open_descriptors()
        assert await net.send_fds(one, [b"ab", b"c"], ends) == 3
        data, numbers, flags, _ = await net.recv_fds(other, 10, 2)
        assert (data, flags & _stdlib.MSG_CTRUNC) == (b"abc", 0)
        assert open_descriptors() == before + 2
        assert close_all(numbers) == 2
        await net.send_fds(one, [b"abc"], [*ends, *ends])
        data, numbers, flags, _ = await net.recv_fds(other, 10, 1)
        assert data == b"abc"
        assert flags & _stdlib.MSG_CTRUNC
        close_all(numbers)
        assert open_descriptors() == before


# --- other ancillary data -----------------------------------------------------------


async def test_credentials_come_as_ancillary_data(net: Face) -> None:
    one, other = await connected(net, "stream")
    other.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_PASSCRED, 1)
    task = await waiting(other.recvmsg(10, _stdlib.CMSG_SPACE(12)))
    await one.send(b"who?")
    data, [(level, kind, told)], flags, _ = await task
    assert (data, flags) == (b"who?", 0)
    assert (level, kind) == (_stdlib.SOL_SOCKET, _stdlib.SCM_CREDENTIALS)
    assert struct.unpack("3i", told) == (os.getpid(), os.getuid(), os.getgid())


IP_PKTINFO = 8
SO_TIMESTAMPNS = 35


async def test_the_address_a_datagram_was_sent_to_comes_as_ancillary_data(net: Face) -> None:
    server, client = await udp(net, host="0.0.0.0"), await udp(net)
    port = server.getsockname()[1]
    server.setsockopt(_stdlib.IPPROTO_IP, IP_PKTINFO, 1)
    for host in "127.0.0.1", "127.0.0.2":
        task = await waiting(server.recvmsg(10, _stdlib.CMSG_SPACE(12)))
        await client.sendto(b"x", (host, port))
        data, [(level, kind, info)], flags, sender = await task
        assert (data, flags, sender) == (b"x", 0, client.getsockname())
        assert (level, kind) == (_stdlib.IPPROTO_IP, IP_PKTINFO)
        assert info[8:] == _stdlib.inet_aton(host)


async def test_the_address_a_datagram_is_sent_from_goes_as_ancillary_data(net: Face) -> None:
    server, client = await udp(net), await udp(net, host="0.0.0.0")
    info = struct.pack("i4s4s", 0, _stdlib.inet_aton("127.0.0.3"), bytes(4))
    ancdata = [(_stdlib.IPPROTO_IP, IP_PKTINFO, info)]
    assert await client.sendmsg([b"x"], ancdata, 0, server.getsockname()) == 1
    assert await server.recvfrom(10) == (b"x", ("127.0.0.3", client.getsockname()[1]))


async def test_when_a_datagram_came_is_told_as_ancillary_data(net: Face) -> None:
    server, client = await udp(net), await udp(net)
    server.setsockopt(_stdlib.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    before = time.time()
    await client.sendto(b"x", server.getsockname())
    _, [(level, kind, stamp)], _, _ = await server.recvmsg(10, _stdlib.CMSG_SPACE(16))
    seconds, nanoseconds = struct.unpack("ll", stamp)
    assert (level, kind) == (_stdlib.SOL_SOCKET, SO_TIMESTAMPNS)
    assert before - 1 < seconds + nanoseconds / 1e9 < time.time() + 1


async def test_several_items_of_ancillary_data_over_v6(net: Face) -> None:
    server, client = [await udp(net, _stdlib.AF_INET6, "::1") for _ in range(2)]
    for option in _stdlib.IPV6_RECVPKTINFO, _stdlib.IPV6_RECVTCLASS, _stdlib.IPV6_RECVHOPLIMIT:
        server.setsockopt(_stdlib.IPPROTO_IPV6, option, 1)
    ancdata = [
        (_stdlib.IPPROTO_IPV6, _stdlib.IPV6_TCLASS, struct.pack("i", 0x20)),
        (_stdlib.IPPROTO_IPV6, _stdlib.IPV6_HOPLIMIT, struct.pack("i", 7)),
    ]
    assert await client.sendmsg([b"x"], iter(ancdata), 0, server.getsockname()) == 1
    data, received, flags, sender = await server.recvmsg(10, 200)
    assert (data, flags, sender) == (b"x", 0, client.getsockname())
    told = {kind: value for level, kind, value in received if level == _stdlib.IPPROTO_IPV6}
    assert struct.unpack("i", told[_stdlib.IPV6_TCLASS]) == (0x20,)
    assert struct.unpack("i", told[_stdlib.IPV6_HOPLIMIT]) == (7,)
    assert told[_stdlib.IPV6_PKTINFO][:16] == _stdlib.inet_pton(_stdlib.AF_INET6, "::1")
    await client.sendto(b"x", server.getsockname())
    assert (await server.recvmsg(10, 1))[2] & _stdlib.MSG_CTRUNC


# --- MSG_WAITALL --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("stream", "recv"),
        ("tcp", "recv"),
        ("tcp", "recv_into"),
        ("tcp", "recvfrom"),
        ("tcp", "recvmsg"),
        ("tcp", "recvmsg_into"),
    ],
)
async def test_waitall_waits_for_all_in_blocking_mode(net: Face, kind: str, verb: str) -> None:
    one, other = await connected(net, kind)
    buffers, flag = [bytearray(4), bytearray(6)], _stdlib.MSG_WAITALL
    whole = bytearray(10)
    arguments: dict[str, tuple[Any, ...]] = {
        "recv": (10, flag),
        "recv_into": (whole, 0, flag),
        "recvfrom": (10, flag),
        "recvmsg": (10, 0, flag),
        "recvmsg_into": (buffers, 0, flag),
    }
    task = await waiting(getattr(other, verb)(*arguments[verb]))
    for piece in b"hel", b"lo":
        await one.send(piece)
        await asyncio.sleep(0.005)
    assert not task.done()
    await one.send(b"world, and more")
    got = await task
    filled = {"recv_into": bytes(whole), "recvmsg_into": b"".join(buffers)}
    first = got[0] if type(got) is tuple else got
    assert filled.get(verb, first) == b"helloworld"
    assert first in (10, b"helloworld")
    assert await other.recv(20) == b", and more"


@of_both_streams
@pytest.mark.parametrize("end", ["close", "shutdown"])
async def test_waitall_is_short_at_the_end(net: Face, kind: str, end: str) -> None:
    one, other = await connected(net, kind)
    task = await waiting(other.recv(10, _stdlib.MSG_WAITALL))
    await one.send(b"hello")
    await asyncio.sleep(0.01)
    if end == "close":
        one.close()
    else:
        other.shutdown(_stdlib.SHUT_RD)
    assert await task == b"hello"
    assert await other.recv(10, _stdlib.MSG_WAITALL) == b""


async def test_waitall_is_short_before_a_reset_which_comes_next(net: Face) -> None:
    one, other = await connected(net, "tcp")
    task = await waiting(other.recv(10, _stdlib.MSG_WAITALL))
    await one.send(b"hello")
    await asyncio.sleep(0.01)
    one.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    assert await task == b"hello"
    assert [await outcome(other.recv(10)) for _ in range(2)] == [RESET, b""]


@of_both_streams
async def test_waitall_takes_what_there_is_in_the_other_modes(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    flag = _stdlib.MSG_WAITALL
    other.settimeout(LIMIT)
    task = await waiting(other.recv(10, flag))
    await one.send(b"hello")
    assert await task == b"hello"
    await one.send(b"again")
    other.settimeout(0.0)
    await asyncio.sleep(0.005)
    assert [await outcome(other.recv(10, flag)) for _ in range(2)] == [b"again", NOT_NOW]


@of_each_kind
async def test_waitall_takes_one_datagram(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    await one.send(b"one")
    await one.send(b"two")
    assert await outcome(other.recv(10, _stdlib.MSG_WAITALL)) == b"one"
    assert await outcome(other.recv(10, _stdlib.MSG_WAITALL)) == b"two"


async def test_a_cancelled_waitall_leaves_its_bytes_to_the_next_call() -> None:
    with AIOSOCK.closing():
        one, other = await connected(AIOSOCK, "tcp")
        task = asyncio.create_task(other.recv(10, aiosock.MSG_WAITALL))
        await one.send(b"hello")
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.send(b"world")
        assert await other.recv(10, aiosock.MSG_WAITALL) == b"helloworld"


# --- MSG_DONTWAIT, MSG_PEEK, MSG_OOB ------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "stream", "udp", "unix", "seqpacket"])
async def test_dontwait_does_not_wait_in_blocking_mode(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    flag, buffer = _stdlib.MSG_DONTWAIT, bytearray(10)
    calls: list[tuple[str, *tuple[Any, ...]]] = [
        ("recv", 10, flag),
        ("recv_into", buffer, 0, flag),
        ("recvfrom", 10, flag),
        ("recvfrom_into", buffer, 0, flag),
        ("recvmsg", 10, 0, flag),
        ("recvmsg_into", [buffer], 0, flag),
        ("recv", 10, flag | _stdlib.MSG_WAITALL),
        ("recv", 10, flag | _stdlib.MSG_PEEK),
    ]
    for verb, *args in calls:
        assert await outcome(getattr(other, verb)(*args)) == NOT_NOW, verb
    await one.send(b"here", flag)
    await asyncio.sleep(0.005)
    assert await other.recv(10, flag) == b"here"


@of_both_streams
async def test_dontwait_sends_what_fits_in_blocking_mode(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    flag, data = _stdlib.MSG_DONTWAIT, bytes(16 * 2**20)
    sent = await outcome(one.send(data, flag))
    assert 0 < sent < len(data)
    while type(more := await outcome(one.send(data, flag))) is int:
        sent += more
    assert more == NOT_NOW
    assert await outcome(one.sendall(data, flag)) == NOT_NOW
    assert await outcome(one.sendmsg([data], [], flag)) == NOT_NOW
    one.close()
    while piece := await other.recv(2**20):
        sent -= len(piece)
    assert sent == 0


async def test_dontwait_changes_nothing_in_timeout_mode(net: Face) -> None:
    one, other = await connected(net, "tcp")
    other.settimeout(LIMIT)
    task = await waiting(other.recv(10, _stdlib.MSG_DONTWAIT))
    await one.send(b"came")
    assert await task == b"came"
    other.settimeout(0.03)
    assert await outcome(other.recv(10, _stdlib.MSG_DONTWAIT)) == LATE


@pytest.mark.parametrize("kind", ["tcp", "stream", "udp", "unix", "seqpacket"])
async def test_peek_waits_for_data_and_takes_none(net: Face, kind: str) -> None:
    one, other = await connected(net, kind)
    flag, buffer = _stdlib.MSG_PEEK, bytearray(3)
    task = await waiting(other.recv(3, flag))
    await one.send(b"hello")
    assert await task == b"hel"
    assert await other.recv(100, flag) == b"hello"
    assert await other.recv_into(buffer, 0, flag) == 3
    assert buffer == b"hel"
    assert (await other.recvfrom(100, flag))[0] == b"hello"
    assert (await other.recvmsg(100, 0, flag))[0] == b"hello"
    assert await other.recv(100) == b"hello"


async def test_peek_with_waitall_waits_for_all_and_takes_none(net: Face) -> None:
    one, other = await connected(net, "tcp")
    flags = _stdlib.MSG_PEEK | _stdlib.MSG_WAITALL
    task = await waiting(other.recv(10, flags))
    await one.send(b"hello")
    await asyncio.sleep(0.01)
    assert not task.done()
    await one.send(b"world")
    assert await task == b"helloworld"
    task = await waiting(other.recv(20, flags))
    one.close()
    assert await task == b"helloworld"
    assert await other.recv(20) == b"helloworld"


async def test_an_urgent_byte_is_received_out_of_band(net: Face) -> None:
    one, other = await connected(net, "tcp")
    assert await one.send(b"ab") == 2
    assert await one.send(b"!", _stdlib.MSG_OOB) == 1
    await asyncio.sleep(0.01)
    assert await other.recv(1, _stdlib.MSG_OOB) == b"!"
    assert await other.recv(10) == b"ab"
    assert await outcome(other.recv(1, _stdlib.MSG_OOB)) == INVALID


async def test_an_urgent_byte_that_does_not_come_is_late_in_timeout_mode(net: Face) -> None:
    _, other = await connected(net, "tcp")
    other.settimeout(0.03)
    assert await outcome(other.recv(1, _stdlib.MSG_OOB)) == LATE


async def test_an_urgent_byte_is_waited_for_in_timeout_mode() -> None:
    with AIOSOCK.closing():
        one, other = await connected(AIOSOCK, "tcp")
        other.settimeout(LIMIT)
        task = await waiting(other.recv(1, aiosock.MSG_OOB))
        await one.send(b"!", aiosock.MSG_OOB)
        assert await task == b"!"


@pytest.mark.parametrize("timeout", [None, 0.0], ids=["blocking", "non-blocking"])
async def test_an_urgent_byte_is_not_waited_for_in_the_other_modes(
    net: Face, timeout: float | None
) -> None:
    _, other = await connected(net, "tcp")
    other.settimeout(timeout)
    assert await outcome(other.recv(1, _stdlib.MSG_OOB)) == INVALID


async def test_an_urgent_byte_inline_parts_the_stream(net: Face) -> None:
    one, other = await connected(net, "tcp")
    other.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_OOBINLINE, 1)
    await one.send(b"ab")
    await one.send(b"!", _stdlib.MSG_OOB)
    await one.send(b"cd")
    await asyncio.sleep(0.01)
    assert [await other.recv(10) for _ in range(2)] == [b"ab", b"!cd"]
    assert await outcome(other.recv(1, _stdlib.MSG_OOB)) == INVALID


async def test_an_urgent_byte_leaves_a_waiting_reader_alone(net: Face) -> None:
    one, other = await connected(net, "tcp")
    task = await waiting(other.recv(10))
    await one.send(b"!", _stdlib.MSG_OOB)
    await asyncio.sleep(0.01)
    assert not task.done()
    await one.send(b"normal")
    assert await task == b"normal"


async def test_datagrams_have_nothing_urgent(net: Face) -> None:
    for kind in "udp", "unix":
        one, other = await connected(net, kind)
        unsupported = failure(OSError, errno.EOPNOTSUPP)
        assert await outcome(one.send(b"!", _stdlib.MSG_OOB)) == unsupported
        other.settimeout(0.0)
        assert await outcome(other.recv(1)) == NOT_NOW
