"""Multicast, ancillary data and peer credentials, without structs in the caller's code.

The helpers serve any socket: they are tested on the stdlib's and on those of both faces,
over loopback, which passes multicast on once a group is joined there.
"""

import errno
import os
import random
import socket as _stdlib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faces import LIMIT, Face, failure

import aiosock
from aiosock import (
    Ancillary,
    PacketInfo,
    enable_ancillary,
    join_group,
    leave_group,
    parse_ancillary,
    peer_credentials,
    set_multicast_interface,
)

LO = _stdlib.if_nametoindex("lo")
V4, V6 = int(_stdlib.AF_INET), int(_stdlib.AF_INET6)
GROUPS = {V4: "239.255.7.7", V6: "ff15::7:7"}
HERE = {V4: "127.0.0.1", V6: "::1"}


def has_ipv6() -> bool:
    with _stdlib.socket(V6, _stdlib.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
        return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
of_both = pytest.mark.parametrize(
    "family", [pytest.param(V4, id="v4"), pytest.param(V6, id="v6", marks=needs_ipv6)]
)
PLACES: dict[int, list[str | int]] = {V4: ["lo", LO, "127.0.0.1"], V6: ["lo", LO]}


async def udp(net: Face, family: int, host: str) -> Any:
    sock = net.socket(family, _stdlib.SOCK_DGRAM)
    await sock.bind((host, 0))
    sock.settimeout(LIMIT)
    return sock


async def outcome(call: Any) -> Any:
    try:
        return await call
    except OSError as error:
        return type(error), error.errno, error.strerror or str(error)


async def comes(receiver: Any, sender: Any, data: bytes, group: str) -> bool:
    """Whether what is sent to a group is received."""
    await outcome(sender.sendto(data, (group, receiver.getsockname()[1])))
    receiver.settimeout(0.05)
    got = await outcome(receiver.recv(100))
    assert got in (data, (TimeoutError, None, "timed out"))
    return bool(got == data)


# --- multicast ----------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES[V4])
async def test_who_has_joined_a_group_receives_what_is_sent_to_it_until_he_leaves(
    net: Face, place: str | int
) -> None:
    group = GROUPS[V4]
    receiver, sender = await udp(net, V4, group), await udp(net, V4, HERE[V4])
    set_multicast_interface(sender, place)
    join_group(receiver, group, place)
    assert await comes(receiver, sender, b"joined", group)
    leave_group(receiver, group, place)
    assert not await comes(receiver, sender, b"left", group)


@pytest.mark.parametrize("place", PLACES[V4])
async def test_from_the_sources_that_were_joined_it_is_received_and_from_nobody_else(
    net: Face, place: str | int
) -> None:
    group, stranger = GROUPS[V4], "127.0.0.9"
    receiver, sender = await udp(net, V4, group), await udp(net, V4, HERE[V4])
    set_multicast_interface(sender, place)
    join_group(receiver, group, place, stranger)
    assert not await comes(receiver, sender, b"not from him", group)
    join_group(receiver, group, place, source=HERE[V4])
    assert await comes(receiver, sender, b"from him", group)
    leave_group(receiver, group, place, stranger)
    assert await comes(receiver, sender, b"from him still", group)
    leave_group(receiver, group, place, HERE[V4])
    assert not await comes(receiver, sender, b"no more", group)


def joined_on_lo(group: str, source: str | None = None) -> bool:
    """As Linux tells: it passes no IPv6 multicast on over loopback."""
    names = [_stdlib.inet_pton(V6, name).hex() for name in (group, source) if name]
    file = Path("/proc/net/mcfilter6" if source else "/proc/net/igmp6")
    return any(
        row.split()[1] == "lo" and all(f"0x{name}" in row or name in row for name in names)
        for row in file.read_text().splitlines()
    )


@needs_ipv6
@pytest.mark.parametrize("place", PLACES[V6])
async def test_a_group_of_ipv6_is_joined_and_left(net: Face, place: str | int) -> None:
    group, sock = "ff15::7:7", await udp(net, V6, "::1")
    join_group(sock, group, place)
    assert joined_on_lo(group)
    leave_group(sock, group, place)
    assert not joined_on_lo(group)


@needs_ipv6
@pytest.mark.parametrize("place", PLACES[V6])
async def test_sources_of_a_group_of_ipv6_are_joined_and_left(net: Face, place: str | int) -> None:
    group, sock = "ff15::7:8", await udp(net, V6, "::1")
    sources = "2001:db8::1", "2001:db8::2"
    for source in sources:
        join_group(sock, group, place, source)
    assert [joined_on_lo(group, source) for source in sources] == [True, True]
    leave_group(sock, group, place, sources[0])
    assert [joined_on_lo(group, source) for source in sources] == [False, True]
    leave_group(sock, group, place, sources[1])
    assert not joined_on_lo(group)


@of_both
async def test_a_group_is_joined_once_and_left_once(net: Face, family: int) -> None:
    sock = await udp(net, family, HERE[family])
    join_group(sock, GROUPS[family], "lo")
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        join_group(sock, GROUPS[family], LO)
    leave_group(sock, GROUPS[family], "lo")
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        leave_group(sock, GROUPS[family], "lo")


@of_both
async def test_the_interface_that_multicast_is_sent_by_is_as_it_was_set(
    net: Face, family: int
) -> None:
    sock = await udp(net, family, HERE[family])
    level, option = {
        V4: (_stdlib.IPPROTO_IP, _stdlib.IP_MULTICAST_IF),
        V6: (_stdlib.IPPROTO_IPV6, _stdlib.IPV6_MULTICAST_IF),
    }[family]
    for place in PLACES[family]:
        set_multicast_interface(sock, place)
        told = sock.getsockopt(level, option, 4)
        if family == V6:
            assert struct.unpack("i", told) == (LO,)
        elif place == "127.0.0.1":
            assert told == _stdlib.inet_aton(place)
        set_multicast_interface(sock, None)
        assert sock.getsockopt(level, option, 4) == bytes(4)


JOINING: dict[str, Callable[..., None]] = {"join": join_group, "leave": leave_group}


@pytest.mark.parametrize("call", JOINING.values(), ids=JOINING)
def test_what_is_no_group_is_refused_in_clear_words(call: Callable[..., None]) -> None:
    with _stdlib.socket(V4, _stdlib.SOCK_DGRAM) as sock:
        for wrong in "127.0.0.1", "255.255.255.255", "223.1.1.1", "240.0.0.1", "::1", "fe80::1":
            with pytest.raises(ValueError, match="^a group is an IPv4 or IPv6 multicast address"):
                call(sock, wrong)
        for wrong in "", "name.test", "224.0.0", "ff02::1%lo":
            with pytest.raises(ValueError, match=f"multicast address, not {wrong!r}$"):
                call(sock, wrong)
        for no_text in b"224.0.0.1", None, 7:
            with pytest.raises(TypeError, match="must be str"):
                call(sock, no_text)


@pytest.mark.parametrize("call", JOINING.values(), ids=JOINING)
def test_a_source_is_an_address_of_the_groups_family(call: Callable[..., None]) -> None:
    with _stdlib.socket(V4, _stdlib.SOCK_DGRAM) as sock:
        for wrong in "::1", "name.test", "":
            with pytest.raises(ValueError, match="^the source of an IPv4 group is an IPv4 address"):
                call(sock, GROUPS[V4], source=wrong)
        with pytest.raises(ValueError, match="^the source of an IPv6 group .*, not '127.0.0.1'$"):
            call(sock, GROUPS[V6], source="127.0.0.1")


@of_both
def test_an_unknown_interface_is_told_of_by_the_system(family: int) -> None:
    group, source = GROUPS[family], HERE[family]
    calls: list[Callable[[Any], None]] = [
        lambda place: join_group(sock, group, place),
        lambda place: join_group(sock, group, place, source),
        lambda place: leave_group(sock, group, place),
        lambda place: set_multicast_interface(sock, place),
    ]
    with _stdlib.socket(family, _stdlib.SOCK_DGRAM) as sock:
        for call in calls:
            with pytest.raises(OSError, match="no interface with this name"):
                call("nosuch0")
            with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
                call(987654)
            with pytest.raises(TypeError):
                call(1.5)
            with pytest.raises(OverflowError):
                call(-1)


# --- ancillary data -----------------------------------------------------------------


async def received(sock: Any) -> tuple[bytes, Ancillary]:
    data, ancdata, flags, _ = await sock.recvmsg(100, 256)
    assert not flags & _stdlib.MSG_CTRUNC
    return data, parse_ancillary(ancdata)


async def test_what_travels_beside_a_datagram_is_told(net: Face) -> None:
    server, client = await udp(net, V4, "0.0.0.0"), await udp(net, V4, "127.0.0.1")
    here = "127.0.0.5", server.getsockname()[1]
    enable_ancillary(server, ttl=True, tos=True, pktinfo=True)
    client.setsockopt(_stdlib.IPPROTO_IP, _stdlib.IP_TTL, 7)
    client.setsockopt(_stdlib.IPPROTO_IP, _stdlib.IP_TOS, 0x20)
    await client.sendto(b"x", here)
    assert await received(server) == (b"x", Ancillary(7, 0x20, PacketInfo("127.0.0.5", LO), 0))
    enable_ancillary(server, ttl=False, pktinfo=False)
    await client.sendto(b"y", here)
    assert await received(server) == (b"y", Ancillary(tos=0x20))


@needs_ipv6
async def test_what_travels_beside_a_datagram_of_ipv6_is_told(net: Face) -> None:
    server, client = [await udp(net, V6, "::1") for _ in range(2)]
    enable_ancillary(server, ttl=True, tos=True, pktinfo=True)
    client.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_UNICAST_HOPS, 7)
    client.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_TCLASS, 0x20)
    await client.sendto(b"x", server.getsockname())
    assert await received(server) == (b"x", Ancillary(7, 0x20, PacketInfo("::1", LO)))


@needs_ipv6
async def test_a_socket_for_both_kinds_is_told_of_both(net: Face) -> None:
    server = net.socket(V6, _stdlib.SOCK_DGRAM)
    server.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, 0)
    await server.bind(("::", 0))
    enable_ancillary(server, ttl=True, pktinfo=True)
    for family, address in (V4, "::ffff:127.0.0.1"), (V6, "::1"):
        client = await udp(net, family, HERE[family])
        level, option = {
            V4: (_stdlib.IPPROTO_IP, _stdlib.IP_TTL),
            V6: (_stdlib.IPPROTO_IPV6, _stdlib.IPV6_UNICAST_HOPS),
        }[family]
        client.setsockopt(level, option, 9)
        await client.sendto(b"x", (HERE[family], server.getsockname()[1]))
        assert await received(server) == (b"x", Ancillary(9, None, PacketInfo(address, LO)))


@needs_ipv6
async def test_of_a_socket_for_ipv6_alone_nothing_else_is_asked(net: Face) -> None:
    sock = net.socket(V6, _stdlib.SOCK_DGRAM)
    sock.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, 1)
    before = sock.getsockopt(_stdlib.IPPROTO_IP, 12)  # IP_RECVTTL
    enable_ancillary(sock, ttl=True)
    assert (before, sock.getsockopt(_stdlib.IPPROTO_IP, 12)) == (0, 0)
    assert sock.getsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_RECVHOPLIMIT) == 1


async def test_how_many_datagrams_had_no_room_is_told(net: Face) -> None:
    server, client = [await udp(net, V4, "127.0.0.1") for _ in range(2)]
    server.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_RCVBUF, 4096)
    enable_ancillary(server, dropped=True)
    sent = 50
    for _ in range(sent):
        await client.sendto(bytes(500), server.getsockname())
    server.settimeout(0.0)
    taken, dropped = 0, []
    while type(await outcome(server.recv(1, _stdlib.MSG_PEEK))) is bytes:
        _, told = await received(server)
        dropped.append(told.dropped)
        taken += 1
    await client.sendto(b"and now", server.getsockname())
    server.settimeout(LIMIT)
    data, told = await received(server)
    assert data == b"and now"
    assert told == Ancillary(dropped=sent - taken)
    assert dropped[0] == 0
    assert 0 < taken < sent


ITEMS = {
    (_stdlib.IPPROTO_IP, _stdlib.IP_TTL): struct.pack("i", 64),
    (_stdlib.IPPROTO_IP, _stdlib.IP_TOS): b"\x20",
    (_stdlib.IPPROTO_IP, 8): struct.pack("i4s4s", 3, bytes(4), _stdlib.inet_aton("192.0.2.1")),
    (_stdlib.IPPROTO_IPV6, _stdlib.IPV6_PKTINFO): struct.pack(
        "16sI", _stdlib.inet_pton(V6, "2001:db8::1"), 4
    ),
    (_stdlib.SOL_SOCKET, 40): struct.pack("I", 2**32 - 1),
}


def test_of_nothing_nothing_is_told() -> None:
    assert parse_ancillary([]) == Ancillary() == (None, None, None, 0)


def test_items_are_read_in_any_order_and_foreign_ones_are_left_out() -> None:
    items = [(*key, data) for key, data in ITEMS.items() if key[0] != _stdlib.IPPROTO_IPV6]
    foreign = (_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS, bytes(8))
    expected = Ancillary(64, 0x20, PacketInfo("192.0.2.1", 3), 2**32 - 1)
    for ancdata in [*items, foreign], [foreign, *reversed(items)]:
        assert parse_ancillary(ancdata) == expected


@pytest.mark.parametrize("key", ITEMS)
def test_an_item_that_was_cut_off_is_left_out(key: tuple[int, int]) -> None:
    whole = ITEMS[key]
    assert parse_ancillary([(*key, whole)]) != Ancillary()
    for size in range(len(whole)):
        assert parse_ancillary([(*key, whole[:size])]) == Ancillary()


def test_no_bytes_whatever_make_the_reader_fail() -> None:
    chance = random.Random(8)
    levels = [_stdlib.IPPROTO_IP, _stdlib.IPPROTO_IPV6, _stdlib.SOL_SOCKET, -1, 2**31 - 1]
    for _ in range(20_000):
        ancdata = [
            (
                chance.choice(levels),
                chance.randrange(-1, 80),
                chance.randbytes(chance.randrange(40)),
            )
            for _ in range(chance.randrange(4))
        ]
        told = parse_ancillary(ancdata)
        assert all(value is None or isinstance(value, int) for value in (told.ttl, told.tos))
        assert told.pktinfo is None or ":" in told.pktinfo.address or "." in told.pktinfo.address
        assert 0 <= told.dropped < 2**32


# --- who is at the other end --------------------------------------------------------

ME = os.getpid(), os.getuid(), os.getgid()
CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("\\0" + sys.argv[1])
    sock.recv(1)
"""


@pytest.mark.parametrize("kind", [_stdlib.SOCK_STREAM, _stdlib.SOCK_DGRAM, _stdlib.SOCK_SEQPACKET])
async def test_of_a_pair_it_is_who_made_it(net: Face, kind: int) -> None:
    for sock in net.socketpair(_stdlib.AF_UNIX, kind):
        assert peer_credentials(sock) == ME


async def test_of_a_connection_it_is_who_connected_and_who_listened(net: Face) -> None:
    listener = net.socket(_stdlib.AF_UNIX)
    await listener.bind("")
    listener.listen()
    name = listener.getsockname()[1:].decode()
    command = [sys.executable, "-c", CONNECT, name]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:  # noqa: ASYNC220  # it takes a moment
        conn, _ = await listener.accept()
        with conn:
            told = peer_credentials(conn)
            assert (told.pid, told.uid, told.gid) == (process.pid, *ME[1:])
    client = net.socket(_stdlib.AF_UNIX)
    await client.connect(listener.getsockname())
    assert peer_credentials(client) == ME


async def test_where_nobody_is_known_that_is_told(net: Face) -> None:
    not_connected = failure(OSError, errno.ENOTCONN)
    for kind in _stdlib.SOCK_STREAM, _stdlib.SOCK_DGRAM:
        with pytest.raises(OSError, match=not_connected[2]) as caught:
            peer_credentials(net.socket(_stdlib.AF_UNIX, kind))
        assert caught.value.errno == errno.ENOTCONN


async def test_other_families_have_no_credentials(net: Face) -> None:
    for sock in await net.tcp_pair():
        with pytest.raises(ValueError, match="^only AF_UNIX sockets have .*AF_INET"):
            peer_credentials(sock)


async def test_a_closed_socket_has_no_options(net: Face) -> None:
    sock, _ = net.socketpair()
    sock.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        peer_credentials(sock)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        enable_ancillary(sock, ttl=True)


def test_the_types_say_what_they_hold() -> None:
    assert aiosock.Ancillary._fields == ("ttl", "tos", "pktinfo", "dropped")
    assert aiosock.PacketInfo._fields == ("address", "interface")
    assert aiosock.PeerCredentials._fields == ("pid", "uid", "gid")
