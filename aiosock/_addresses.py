"""The shapes of an address, a family at a time, as type checkers know them.

Knows types alone, and costs no call anything: what an address is at run time the stdlib says.

An ...Address is what the calls give (`accept`, `recvfrom`, `getsockname`), and what they take;
where they take more shapes than they give, `bind`, `connect` and `sendto` take an
...AddressLike.  All of these together are `AddressLike`.  Each is as narrow as it can be, so
that all together refuse a port that is text, or a host that is None.

What a call gives stays Any to a type checker, as in typeshed: it does not know the family, and
a union would have to be narrowed by whoever knows it.
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as _Buffer
else:  # for who asks at run time what an annotation means
    _Buffer = bytes | bytearray | memoryview

__all__ = [
    "AddressLike",
    "AlgAddress",
    "BluetoothAddress",
    "BluetoothAddressLike",
    "CanAddress",
    "Inet6Address",
    "Inet6AddressLike",
    "InetAddress",
    "InetAddressLike",
    "NetlinkAddress",
    "PacketAddress",
    "PacketAddressLike",
    "QipcrtrAddress",
    "TipcAddress",
    "TipcAddressLike",
    "UnixAddress",
    "UnixAddressLike",
    "VsockAddress",
]

_Host: TypeAlias = str | bytes | bytearray

# (host, port), and of IPv6 (host, port, flowinfo, scope_id), whose end may be left out.
InetAddress: TypeAlias = tuple[str, int]
InetAddressLike: TypeAlias = tuple[_Host, int]
Inet6Address: TypeAlias = tuple[str, int, int, int]
Inet6AddressLike: TypeAlias = (
    tuple[_Host, int] | tuple[_Host, int, int] | tuple[_Host, int, int, int]
)

# A path is given as str, an abstract name as bytes; of a PathLike os.fspath() is taken.
UnixAddress: TypeAlias = str | bytes
UnixAddressLike: TypeAlias = str | _Buffer

NetlinkAddress: TypeAlias = tuple[int, int]  # (pid, groups)
VsockAddress: TypeAlias = tuple[int, int]  # (cid, port)
QipcrtrAddress: TypeAlias = tuple[int, int]  # (node, port)

# (interface, protocol, packet type, hardware type, hardware address)
PacketAddress: TypeAlias = tuple[str, int, int, int, bytes]
PacketAddressLike: TypeAlias = (
    tuple[str, int]
    | tuple[str, int, int]
    | tuple[str, int, int, int]
    | tuple[str, int, int, int, _Buffer]
)

# (interface,); CAN_ISOTP (interface, rx_addr, tx_addr); CAN_J1939 (interface, name, pgn, addr)
CanAddress: TypeAlias = tuple[str] | tuple[str, int, int] | tuple[str, int, int, int]

# (type, v1, v2, v3, scope)
TipcAddress: TypeAlias = tuple[int, int, int, int, int]
TipcAddressLike: TypeAlias = tuple[int, int, int, int] | TipcAddress

# (type, name, feat, mask), for bind() alone; no call gives one.
_Algorithm: TypeAlias = Literal["aead", "hash", "rng", "skcipher"]
AlgAddress: TypeAlias = (
    tuple[_Algorithm, str] | tuple[_Algorithm, str, int] | tuple[_Algorithm, str, int, int]
)

# L2CAP (address, psm[, cid[, address type]]), RFCOMM (address, channel), SCO an address;
# HCI (device[, channel]), of which the bare number comes back.
BluetoothAddress: TypeAlias = (
    tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int] | str | int | tuple[int, int]
)
BluetoothAddressLike: TypeAlias = (
    tuple[str, int]
    | tuple[str, int, int]
    | tuple[str, int, int, int]
    | str
    | bytes
    | tuple[int]
    | tuple[int, int]
)

# Each shape once, since a type checker shows them all to who has another: those of AF_INET,
# Bluetooth, CAN and AF_PACKET that are missing here are among those of AF_INET6.  The last is
# what typeshed says of getaddrinfo() in a Python that has no IPv6.
AddressLike: TypeAlias = (
    Inet6AddressLike
    | UnixAddressLike
    | NetlinkAddress
    | tuple[str, int, int, int, _Buffer]
    | TipcAddressLike
    | AlgAddress
    | tuple[str]
    | tuple[int]
    | tuple[int, bytes]
)
