"""Socket options and ancillary data that are awkward when raw: structs, and missing names.

Knows ``setsockopt`` and ``getsockopt`` of whatever socket it is given, one of either face or
the stdlib's; knows nothing of waiting.

What is one number needs no helper, as ``setsockopt(IPPROTO_IP, IP_MULTICAST_TTL, 4)``.
"""

import errno
import os
import socket as _stdlib
import struct
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "Ancillary",
    "PacketInfo",
    "PeerCredentials",
    "enable_ancillary",
    "join_group",
    "leave_group",
    "parse_ancillary",
    "peer_credentials",
    "set_multicast_interface",
]

IP: Final = _stdlib.IPPROTO_IP
IPV6: Final = _stdlib.IPPROTO_IPV6

# Linux's numbers.  Python has names for some of them since 3.12 or 3.14, for others none.
IP_PKTINFO: Final = 8
IP_RECVTTL: Final = 12
IP_RECVTOS: Final = 13
IP_ADD_SOURCE_MEMBERSHIP: Final = 39
IP_DROP_SOURCE_MEMBERSHIP: Final = 40
SO_RXQ_OVFL: Final = 40
MCAST_JOIN_SOURCE_GROUP: Final = 46
MCAST_LEAVE_SOURCE_GROUP: Final = 47

Interface = str | int | None


class HasOptions(Protocol):
    """A socket of either face, or the stdlib's."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...

    def setsockopt(self, level: int, optname: int, value: int | bytes, /) -> None: ...


# --- multicast ----------------------------------------------------------------------


def join_group(
    sock: HasOptions, group: str, interface: Interface = None, source: str | None = None
) -> None:
    """Receive what is sent to a multicast group, an IPv4 or IPv6 address.

    `interface` is where to listen: a name ("eth0"), an index, or for IPv4 an address of
    this machine; the system chooses if it is None.  With `source` only what comes from that
    address is received (source-specific multicast); each source is joined by a call.

    The datagrams come to whoever is bound to their port, at "" or at the group's address.
    What is sent to a group reaches this machine's own members too, unless the sender says
    ``setsockopt(IPPROTO_IP, IP_MULTICAST_LOOP, 0)``, and goes no further than the next
    router, unless he says ``setsockopt(IPPROTO_IP, IP_MULTICAST_TTL, 8)`` or the like; for
    IPv6 these are IPPROTO_IPV6 with IPV6_MULTICAST_LOOP and IPV6_MULTICAST_HOPS.

    ValueError for a group that is no multicast address and a source that is no address of
    its family; OSError for an unknown interface, and for a group joined already.
    """
    sock.setsockopt(*_membership(group, interface, source, join=True))


def leave_group(
    sock: HasOptions, group: str, interface: Interface = None, source: str | None = None
) -> None:
    """Undo a `join_group` with the same arguments; closing the socket does so too.

    OSError if the group was not joined.
    """
    sock.setsockopt(*_membership(group, interface, source, join=False))


def set_multicast_interface(sock: HasOptions, interface: Interface) -> None:
    """Send to multicast groups by this interface from now on; None lets the system choose.

    `interface` is as for `join_group`.  OSError for an unknown one.
    """
    if sock.family == _stdlib.AF_INET6:
        sock.setsockopt(IPV6, _stdlib.IPV6_MULTICAST_IF, _index(interface))
    else:
        there = struct.pack("=4s4si", bytes(4), *_place(interface))
        sock.setsockopt(IP, _stdlib.IP_MULTICAST_IF, there)


def _membership(
    group: str, interface: Interface, source: str | None, join: bool
) -> tuple[int, int, bytes]:
    """The option that joins or leaves: its level, its number and its value."""
    family, packed = _numbers(group)
    if packed is None or not _is_multicast(packed):
        raise ValueError(f"a group is an IPv4 or IPv6 multicast address, not {group!r}")
    level = IPV6 if family == _stdlib.AF_INET6 else IP
    if source is not None:
        return level, *_source_membership(family, packed, interface, source, join)
    if family == _stdlib.AF_INET6:
        number = _stdlib.IPV6_JOIN_GROUP if join else _stdlib.IPV6_LEAVE_GROUP
        return level, number, struct.pack("=16sI", packed, _index(interface))
    number = _stdlib.IP_ADD_MEMBERSHIP if join else _stdlib.IP_DROP_MEMBERSHIP
    return level, number, struct.pack("=4s4si", packed, *_place(interface))


def _source_membership(
    family: int, group: bytes, interface: Interface, source: str, join: bool
) -> tuple[int, bytes]:
    kind, packed = _numbers(source)
    if packed is None or kind != family:
        name = "IPv6" if family == _stdlib.AF_INET6 else "IPv4"
        raise ValueError(f"the source of an {name} group is an {name} address, not {source!r}")
    address, index = _place(interface) if family == _stdlib.AF_INET else (b"", _index(interface))
    if any(address):  # the one thing that the newer option does not take
        number = IP_ADD_SOURCE_MEMBERSHIP if join else IP_DROP_SOURCE_MEMBERSHIP
        return number, struct.pack("=4s4s4s", group, address, packed)
    number = MCAST_JOIN_SOURCE_GROUP if join else MCAST_LEAVE_SOURCE_GROUP
    both = _sockaddr(family, group), _sockaddr(family, packed)
    return number, struct.pack("@I0L128s128s", index, *both)  # sockaddr_storage is aligned


def _sockaddr(family: int, packed: bytes) -> bytes:
    """struct sockaddr_in or sockaddr_in6, with port 0."""
    gap = 6 if family == _stdlib.AF_INET6 else 2
    return struct.pack("=H", family) + bytes(gap) + packed


def _numbers(address: str) -> tuple[int, bytes | None]:
    for family in _stdlib.AF_INET, _stdlib.AF_INET6:
        try:
            return family, _stdlib.inet_pton(family, address)
        except OSError:
            pass
    return _stdlib.AF_UNSPEC, None


def _is_multicast(packed: bytes) -> bool:
    return packed[0] == 0xFF if len(packed) == 16 else packed[0] >> 4 == 0xE


def _index(interface: Interface) -> int:
    if isinstance(interface, str):
        return _stdlib.if_nametoindex(interface)
    if interface:
        _stdlib.if_indextoname(interface)  # OSError if there is none
    return interface or 0


def _place(interface: Interface) -> tuple[bytes, int]:
    """An interface in IPv4's words: an address of it, or its index."""
    if isinstance(interface, str):
        family, packed = _numbers(interface)
        if family == _stdlib.AF_INET and packed is not None:
            return packed, 0
    return bytes(4), _index(interface)


# --- ancillary data -----------------------------------------------------------------


class PacketInfo(NamedTuple):
    """Where a datagram arrived.

    `address` is what it was sent to, `interface` the index of the network interface.
    """

    address: str
    interface: int


class Ancillary(NamedTuple):
    """What travelled beside a datagram; None is what was not told.

    `ttl` is of IPv6 the hop limit, `tos` the traffic class.  `dropped` counts the datagrams that
    the socket has lost so far for want of room in its queue.
    """

    ttl: int | None = None
    tos: int | None = None
    pktinfo: PacketInfo | None = None
    dropped: int = 0


def enable_ancillary(
    sock: HasOptions,
    *,
    ttl: bool | None = None,
    tos: bool | None = None,
    pktinfo: bool | None = None,
    dropped: bool | None = None,
) -> None:
    """Have ``recvmsg`` tell what travels beside datagrams, or no more; None changes nothing::

        enable_ancillary(sock, ttl=True, dropped=True)
        data, ancdata, msg_flags, address = await sock.recvmsg(2048, 256)
        told = parse_ancillary(ancdata)

    On an IPv6 socket that takes IPv4 too (IPV6_V6ONLY is 0), of both kinds of datagram.
    """
    options = {IP_RECVTTL: ttl, IP_RECVTOS: tos, IP_PKTINFO: pktinfo}
    if sock.family == _stdlib.AF_INET6:
        v6 = {_stdlib.IPV6_RECVHOPLIMIT: ttl, _stdlib.IPV6_RECVTCLASS: tos}
        _enable(sock, IPV6, v6 | {_stdlib.IPV6_RECVPKTINFO: pktinfo})
        del options[IP_PKTINFO]  # IPv6's tells it of both
        if int.from_bytes(sock.getsockopt(IPV6, _stdlib.IPV6_V6ONLY, 4), sys.byteorder):
            options = {}
    _enable(sock, IP, options)
    _enable(sock, _stdlib.SOL_SOCKET, {SO_RXQ_OVFL: dropped})


def _enable(sock: HasOptions, level: int, options: dict[int, bool | None]) -> None:
    for number, wanted in options.items():
        if wanted is not None:
            sock.setsockopt(level, number, int(wanted))


def parse_ancillary(ancdata: Iterable[tuple[int, int, bytes]]) -> Ancillary:
    """What the ancillary data of ``recvmsg`` says; unknown and cut off items are left out."""
    told: dict[str, Any] = {}
    for level, kind, data in ancdata:
        name, read, size = _ITEMS.get((level, kind), ("", bytes, 0))
        if name and len(data) >= size:
            told[name] = read(data)
    return Ancillary(**told)


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder)


def _pktinfo(data: bytes) -> PacketInfo:
    index, address = struct.unpack_from("=i4x4s", data)
    return PacketInfo(_stdlib.inet_ntop(_stdlib.AF_INET, address), index)


def _pktinfo_v6(data: bytes) -> PacketInfo:
    address, index = struct.unpack_from("=16si", data)
    return PacketInfo(_stdlib.inet_ntop(_stdlib.AF_INET6, address), index)


# The field, how to read it, and how long it is at least: the TOS is one byte.
_ITEMS: Final[dict[tuple[int, int], tuple[str, Any, int]]] = {
    (IP, _stdlib.IP_TTL): ("ttl", _number, 4),
    (IP, _stdlib.IP_TOS): ("tos", _number, 1),
    (IP, IP_PKTINFO): ("pktinfo", _pktinfo, 12),
    (IPV6, _stdlib.IPV6_HOPLIMIT): ("ttl", _number, 4),
    (IPV6, _stdlib.IPV6_TCLASS): ("tos", _number, 4),
    (IPV6, _stdlib.IPV6_PKTINFO): ("pktinfo", _pktinfo_v6, 20),
    (_stdlib.SOL_SOCKET, SO_RXQ_OVFL): ("dropped", _number, 4),
}


# --- who is at the other end --------------------------------------------------------


class PeerCredentials(NamedTuple):
    """The process at the other end of a connection, and its user and group, as numbers."""

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: HasOptions) -> PeerCredentials:
    """Who is at the other end of an AF_UNIX connection, as the kernel knows it (SO_PEERCRED).

    As it was when the other end connected, listened or made the pair: the process may have
    ended since, and its pid be another's.  The pid is 0 for a process out of sight, in
    another pid namespace.  ValueError for other families, OSError(ENOTCONN) where no
    credentials are known: the socket is not connected, or is for datagrams and no pair.
    """
    if sock.family != _stdlib.AF_UNIX:
        raise ValueError(f"only AF_UNIX sockets have peer credentials, not {sock.family!r}")
    told = struct.unpack("=iII", sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_PEERCRED, 12))
    if told[1] == NOBODY:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return PeerCredentials(*told)


NOBODY: Final = 2**32 - 1  # the uid -1
