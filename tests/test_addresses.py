"""Socket addresses, in and out: each family that this machine has, in all its shapes.

Refusals are compared in type and text.  Where a family is missing its test is skipped,
and says so: nothing but the kernel decides that.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import pathlib
import socket as _stdlib
import struct
from typing import Any

import pytest
from faces import Face

import aiosock
from aiosock import AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM

CALLS = ["connect", "connect_ex", "bind", "sendto", "sendmsg"]
Refusal = tuple[type[Exception], str]


async def call(sock: Any, name: str, address: Any) -> Any:
    """Have the method take the address."""
    match name:
        case "sendto":
            return await sock.sendto(b"", address)
        case "sendmsg":
            return await sock.sendmsg([b""], [], 0, address)
        case _:
            return await getattr(sock, name)(address)


def family(name: str, kind: int, *proto: int) -> tuple[int, ...]:
    """The arguments of socket() for a family, if there is one on this machine."""
    if not hasattr(_stdlib, name):
        pytest.skip(f"this Python has no {name}")
    arguments = (getattr(_stdlib, name), kind, *proto)
    try:
        _stdlib.socket(*arguments).close()
    except OSError as error:
        pytest.skip(f"{name} cannot be opened here: {error}")
    return arguments


# --- AF_INET ------------------------------------------------------------------------

PAIR = "AF_INET address must be a pair (host, port)"
NOT_TEXT = "str, bytes or bytearray expected, not"
NO_NUMBER = "object cannot be interpreted as an integer"

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (["127.0.0.1", 9], TypeError, "{call}(): AF_INET address must be tuple, not list"),
    ("127.0.0.1:9", TypeError, "{call}(): AF_INET address must be tuple, not str"),
    (("127.0.0.1",), TypeError, PAIR),
    ((), TypeError, PAIR),
    (("127.0.0.1", 9, 0), TypeError, PAIR),
    (("localhost", 9, 0), TypeError, PAIR),
    (("127.0.0.1", "9"), TypeError, f"'str' {NO_NUMBER}"),
    (("localhost", "9"), TypeError, f"'str' {NO_NUMBER}"),
    (("127.0.0.1", 1.0), TypeError, f"'float' {NO_NUMBER}"),
    (("127.0.0.1", None), TypeError, f"'NoneType' {NO_NUMBER}"),
    (("127.0.0.1", 65536), OverflowError, "{call}(): port must be 0-65535."),
    (("127.0.0.1", -1), OverflowError, "{call}(): port must be 0-65535."),
    (("127.0.0.1", 2**70), OverflowError, "{call}(): port must be 0-65535."),
    (("localhost", 65536), OverflowError, "{call}(): port must be 0-65535."),
    ((None, 9), TypeError, f"{NOT_TEXT} NoneType"),
    ((5, 9), TypeError, f"{NOT_TEXT} int"),
    ((memoryview(b"127.0.0.1"), 9), TypeError, f"{NOT_TEXT} memoryview"),
    (("a\0b", 9), TypeError, "host name must not contain null character"),
    ((b"a\0b", 9), TypeError, "host name must not contain null character"),
    (("\xe9" * 64, 9), TypeError, "encoding of hostname failed"),
]

V6 = "AF_INET6 address must be a tuple (host, port[, flowinfo[, scopeid]])"
FLOW = "{call}(): flowinfo must be 0-1048575."

REFUSED6: list[tuple[Any, type[Exception], str]] = [
    (["::1", 9], TypeError, "{call}(): AF_INET6 address must be tuple, not list"),
    (("::1",), TypeError, V6),
    (("::1", 9, 0, 0, 0), TypeError, V6),
    (("::1", "9"), TypeError, f"'str' {NO_NUMBER}"),
    (("::1", 9, "x"), TypeError, f"'str' {NO_NUMBER}"),
    (("::1", 9, 0, "x"), TypeError, f"'str' {NO_NUMBER}"),
    (("::1", 70000), OverflowError, "{call}(): port must be 0-65535."),
    (("::1", 9, 2**20), OverflowError, FLOW),
    (("::1", 9, -1), OverflowError, FLOW),
    (("<broadcast>", 9), OSError, "address family mismatched"),
    ((None, 9), TypeError, f"{NOT_TEXT} NoneType"),
]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("kind", "table"), [(AF_INET, REFUSED), (AF_INET6, REFUSED6)])
async def test_wrong_addresses_are_refused_in_the_name_of_the_call(
    net: Face, name: str, kind: int, table: list[tuple[Any, type[Exception], str]]
) -> None:
    sock = net.socket(kind, SOCK_DGRAM)
    for address, error, text in table:
        with pytest.raises(error) as caught:
            await call(sock, name, address)
        found = type(caught.value), str(caught.value)
        assert found == (error, text.format(call=name)), address


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("kind", "host"), [(AF_INET, "::1"), (AF_INET6, "127.0.0.1")])
async def test_a_numeric_host_of_the_other_family(
    net: Face, name: str, kind: int, host: str
) -> None:
    with pytest.raises(aiosock.gaierror) as caught:
        await call(net.socket(kind, SOCK_DGRAM), name, (host, 9))
    assert caught.value.args == (
        _stdlib.EAI_ADDRFAMILY,
        "Address family for hostname not supported",
    )


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("host", ["nosuch.invalid", "a" * 64, "a b", "fe80::1%nosuch"])
async def test_a_host_that_nobody_knows_is_judged_before_the_port(
    net: Face, name: str, host: str
) -> None:
    """As text that is all ASCII, an overlong label is left to the lookup."""
    with pytest.raises(aiosock.gaierror):
        await call(net.socket(AF_INET6, SOCK_DGRAM), name, (host, 70000))


@pytest.mark.parametrize("name", ["connect", "bind"])
@pytest.mark.parametrize("arguments", [(), ("127.0.0.1", 9)])
async def test_an_address_is_one_argument(net: Face, name: str, arguments: tuple[Any]) -> None:
    with pytest.raises(TypeError):
        await getattr(net.socket(), name)(*arguments)


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1", bytearray(b"127.0.0.1"), "localhost"])
async def test_a_host_is_text_or_bytes(net: Face, host: Any) -> None:
    sock, peer = net.socket(type=SOCK_DGRAM), net.socket(type=SOCK_DGRAM)
    await sock.bind((host, 0))
    port = sock.getsockname()[1]
    assert sock.getsockname() == ("127.0.0.1", port)
    assert await peer.sendto(b"x", (host, port)) == 1
    await peer.connect((host, port))
    assert peer.getpeername() == ("127.0.0.1", port)
    assert await sock.recvfrom(9) == (b"x", peer.getsockname())


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1"])
async def test_numbers_in_the_old_spellings(net: Face, host: str) -> None:
    sock = net.socket()
    await sock.bind((host, 0))
    assert sock.getsockname()[0] == "127.0.0.1"


async def test_a_port_is_anything_that_is_an_index(net: Face) -> None:
    class Port:
        def __index__(self) -> int:
            return 9

    for port, number in [(Port(), 9), (True, 1)]:
        sock = net.socket(type=SOCK_DGRAM)
        await sock.connect(("127.0.0.1", port))
        assert sock.getpeername() == ("127.0.0.1", number)


async def test_the_empty_host_is_every_interface(net: Face) -> None:
    sock, client = net.socket(), net.socket()
    await sock.bind(("", 0))
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.listen()
    await client.connect(("", sock.getsockname()[1]))
    assert client.getpeername()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["<broadcast>", "255.255.255.255"])
async def test_broadcast(net: Face, host: str) -> None:
    sock = net.socket(type=SOCK_DGRAM)
    with pytest.raises(PermissionError) as caught:
        await sock.sendto(b"x", (host, 9))
    assert caught.value.args == (errno.EACCES, "Permission denied")
    other = net.socket(type=SOCK_DGRAM)
    await other.bind((host, 0))
    assert other.getsockname()[0] == "255.255.255.255"


async def test_connecting_to_nowhere_dissolves_an_association(net: Face) -> None:
    sock = net.socket(type=SOCK_DGRAM)
    for _ in range(2):
        await sock.connect(("127.0.0.1", 9))
        assert sock.getpeername() == ("127.0.0.1", 9)
        await sock.connect(("0.0.0.0", 0))
        with pytest.raises(OSError, match="not connected") as caught:
            sock.getpeername()
        assert caught.value.errno == errno.ENOTCONN


async def test_sendmsg_without_an_address(net: Face) -> None:
    sock = net.socket(type=SOCK_DGRAM)
    with pytest.raises(OSError, match="Destination address required") as caught:
        await sock.sendmsg([b"x"], [], 0, None)
    assert caught.value.errno == errno.EDESTADDRREQ
    with pytest.raises(
        TypeError, match=r"(?m)^sendto\(\): AF_INET address must be tuple, not NoneType$"
    ):
        await sock.sendto(b"x", None)


async def test_every_receiving_call_tells_the_sender(net: Face) -> None:
    sock, peer = net.socket(type=SOCK_DGRAM), net.socket(type=SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    await peer.bind(("127.0.0.1", 0))
    here = peer.getsockname()
    for _ in range(4):
        await peer.sendto(b"hey", sock.getsockname())
    assert await sock.recvfrom(9) == (b"hey", here)
    assert await sock.recvfrom_into(bytearray(9)) == (3, here)
    assert await sock.recvmsg(9) == (b"hey", [], 0, here)
    assert await sock.recvmsg_into([bytearray(9)]) == (3, [], 0, here)


# --- AF_INET6 -----------------------------------------------------------------------


@pytest.mark.parametrize("rest", [(), (0,), (5,), (0, 0), (0, 1)])
async def test_ipv6_takes_two_to_four_and_gives_four(net: Face, rest: tuple[int, ...]) -> None:
    sock, client = net.socket(AF_INET6), net.socket(AF_INET6)
    await sock.bind(("::1", 0, *rest))
    sock.listen()
    port = sock.getsockname()[1]
    assert sock.getsockname() == ("::1", port, 0, 0)
    await client.connect(("::1", port, *rest[1:]))
    server, address = await sock.accept()
    net.keep(server)
    assert address == (*client.getsockname()[:2], 0, 0)
    assert len(client.getpeername()) == 4


@pytest.mark.parametrize(
    ("host", "shown"), [("", "::"), ("::", "::"), (b"::1", "::1"), ("::ffff:127.0.0.1",) * 2]
)
async def test_hosts_of_ipv6(net: Face, host: Any, shown: str) -> None:
    sock = net.socket(AF_INET6)
    await sock.bind((host, 0))
    assert sock.getsockname() == (shown, sock.getsockname()[1], 0, 0)


def link_local() -> tuple[str, int, str]:
    """An address of this machine that is good on one link only: (host, scope, interface)."""
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as table:
        for line in table:
            number, index, _, _, flags, name = line.split()
            if number.startswith("fe80") and not int(flags, 16) & 0x48:
                host = _stdlib.inet_ntop(AF_INET6, bytes.fromhex(number))
                return host, int(index, 16), name
    pytest.skip("no interface here has a link-local address that may be used")


async def test_the_scope_of_the_tuple_wins_even_when_it_is_not_given(net: Face) -> None:
    host, scope, name = link_local()
    for address in [(host, 0, 0, scope), (f"{host}%lo", 0, 0, scope)]:
        sock = net.socket(AF_INET6, SOCK_DGRAM)
        await sock.bind(address)
        assert (sock.getsockname()[0], sock.getsockname()[3]) == (host, scope)
    with pytest.raises(OSError, match="Invalid argument"):
        await net.socket(AF_INET6, SOCK_DGRAM).bind((f"{host}%{name}", 0))


async def test_a_scope_reaches_the_kernel(net: Face) -> None:
    """The scope of the tuple is written after that of the host, and wins."""
    index = aiosock.if_nametoindex("lo")
    for address in [("fe80::1%lo", 9), ("fe80::1", 9, 0, index), ("fe80::1%lo", 9, 0, 9999)]:
        ours, theirs = net.socket(AF_INET6, SOCK_DGRAM), _stdlib.socket(AF_INET6, SOCK_DGRAM)
        with theirs:
            assert await ours.connect_ex(address) == theirs.connect_ex(address)


@pytest.mark.parametrize("scope", [0, 1, 9999])
async def test_the_kernel_gets_all_four_parts(net: Face, scope: int) -> None:
    address = ("ff02::1", 9, 7, scope)
    sock = net.socket(AF_INET6, SOCK_DGRAM)
    with _stdlib.socket(AF_INET6, SOCK_DGRAM) as other:
        error = other.connect_ex(address)
        assert await sock.connect_ex(address) == error
        if not error:
            assert sock.getpeername() == other.getpeername()


# --- AF_UNIX ------------------------------------------------------------------------


def as_memory(path: bytes) -> memoryview:
    return memoryview(path)


@pytest.mark.parametrize("form", [os.fsdecode, bytes, bytearray, as_memory])
async def test_a_path_has_many_forms_and_comes_back_as_text(
    net: Face, tmp_path: pathlib.Path, form: Any
) -> None:
    path = os.fsencode(tmp_path / "s")
    sock, client = net.socket(AF_UNIX), net.socket(AF_UNIX)
    await sock.bind(form(path))
    sock.listen()
    await client.connect(form(path))
    server, address = await sock.accept()
    net.keep(server)
    shown = os.fsdecode(path)
    assert (sock.getsockname(), client.getpeername(), server.getsockname()) == (shown,) * 3
    assert (address, client.getsockname(), server.getpeername()) == ("", "", "")


async def test_a_path_may_be_of_any_bytes(net: Face, tmp_path: pathlib.Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xe9"
    sock = net.socket(AF_UNIX)
    await sock.bind(os.fsdecode(path))
    assert sock.getsockname() == os.fsdecode(path)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xe9"]


async def test_datagrams_tell_the_path_of_their_sender(net: Face, tmp_path: pathlib.Path) -> None:
    sock, named, nameless = (net.socket(AF_UNIX, SOCK_DGRAM) for _ in range(3))
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    await sock.bind(here)
    await named.bind(there)
    await named.sendto(b"a", here)
    await nameless.sendto(b"b", 0, here)
    await named.sendmsg([b"c"], [], 0, here)
    assert await sock.recvfrom(9) == (b"a", there)
    assert await sock.recvfrom(9) == (b"b", None)
    assert await sock.recvmsg(9) == (b"c", [], 0, there)


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        (pathlib.PurePosixPath("x"), TypeError, "not 'PurePosixPath'"),
        (None, TypeError, "a bytes-like object is required, not 'NoneType'"),
        (5, TypeError, "a bytes-like object is required, not 'int'"),
        (("x",), TypeError, "a bytes-like object is required, not 'tuple'"),
        ("x" * 108, OSError, "AF_UNIX path too long"),
        (b"\0" + b"x" * 108, OSError, "AF_UNIX path too long"),
    ],
)
async def test_wrong_paths_are_refused(
    net: Face, address: Any, error: type[Exception], text: str
) -> None:
    for name in ("connect", "connect_ex", "bind", "sendto"):
        with pytest.raises(error) as caught:
            await call(net.socket(AF_UNIX, SOCK_DGRAM), name, address)
        assert type(caught.value) is error
        assert str(caught.value).endswith(text), name


async def test_a_path_that_is_not_there(net: Face, tmp_path: pathlib.Path) -> None:
    sock = net.socket(AF_UNIX)
    with pytest.raises(FileNotFoundError) as caught:
        await sock.connect(str(tmp_path / "nosuch"))
    assert caught.value.args == (errno.ENOENT, "No such file or directory")
    assert await sock.connect_ex(str(tmp_path / "nosuch")) == errno.ENOENT


def unused(size: int) -> bytes:
    """An abstract name of so many bytes that nobody else has."""
    return b"\0" + os.urandom(8).hex().encode().ljust(size - 1, b"x")


@pytest.mark.parametrize("size", [20, 108])
@pytest.mark.parametrize("form", [bytes, bytes.decode])
async def test_an_abstract_name_comes_back_as_bytes(net: Face, size: int, form: Any) -> None:
    name = unused(size)
    sock, client = net.socket(AF_UNIX), net.socket(AF_UNIX)
    await sock.bind(form(name))
    sock.listen()
    await client.connect(form(name))
    assert sock.getsockname() == name
    assert client.getpeername() == name


@pytest.mark.parametrize("nothing", ["", b""])
async def test_the_kernel_finds_a_name_when_asked_to(net: Face, nothing: Any) -> None:
    sock, client = net.socket(AF_UNIX), net.socket(AF_UNIX)
    assert sock.getsockname() == ""
    await sock.bind(nothing)
    name = sock.getsockname()
    assert (type(name), len(name), name[:1]) == (bytes, 6, b"\0")
    sock.listen()
    await client.bind(nothing)
    await client.connect(name)
    server, address = await sock.accept()
    net.keep(server)
    assert address == client.getsockname() != name


async def test_datagrams_are_sent_to_abstract_names_and_come_from_them(net: Face) -> None:
    names = unused(20), unused(20)
    one, other = [net.socket(AF_UNIX, SOCK_DGRAM) for _ in names]
    await one.bind(names[0])
    nameless = net.socket(AF_UNIX, SOCK_DGRAM)
    for sender, address in (other, names[1]), (nameless, None):
        if address:
            await sender.bind(address)
        assert await sender.sendto(b"x", names[0]) == 1
        assert await one.recvfrom(10) == (b"x", address)
        assert await sender.sendto(b"y", names[0]) == 1
        assert (await one.recvmsg(10))[::3] == (b"y", address)
    await nameless.connect(names[1])
    assert (nameless.getpeername(), nameless.getsockname()) == (names[1], "")
    assert await nameless.send(b"z") == 1
    assert await other.recvfrom(10) == (b"z", None)


async def test_messages_go_over_a_connection_to_an_abstract_name(net: Face) -> None:
    name = unused(20)
    sock, client = [net.socket(AF_UNIX, SOCK_SEQPACKET) for _ in range(2)]
    with pytest.raises(ConnectionRefusedError):
        await client.connect(name)
    await sock.bind(name)
    sock.listen()
    await client.connect(name)
    server, address = await sock.accept()
    net.keep(server)
    assert (address, server.getsockname(), client.getpeername()) == ("", name, name)
    await client.send(b"one")
    await client.send(b"two")
    assert [(await server.recvfrom(10))[0] for _ in range(2)] == [b"one", b"two"]
    client.close()
    assert (await server.recvmsg(10))[0] == b""


# --- other families -----------------------------------------------------------------


async def refused(sock: Any, address: Any) -> Refusal:
    with pytest.raises((TypeError, OverflowError, OSError)) as caught:
        await sock.bind(address)
    return type(caught.value), str(caught.value)


async def test_netlink(net: Face) -> None:
    sock = net.socket(*family("AF_NETLINK", SOCK_RAW))
    assert sock.getsockname() == (0, 0)
    await sock.bind((0, 0))
    number, groups = sock.getsockname()
    assert number
    assert groups == 0
    route = struct.pack("=IHHIIBxxx", 20, 18, 0x301, 1, 0, 0)  # dump the interfaces
    assert await sock.sendto(route, (0, 0)) == 20
    async with asyncio.timeout(5):
        data, sender = await sock.recvfrom(1 << 16)
    assert b"lo\0" in data
    assert sender == (0, 0)
    assert await refused(sock, (0,)) == (
        TypeError,
        "AF_NETLINK address must be a pair (pid, groups)",
    )
    wrong = "bind(): AF_NETLINK address must be tuple, not str"
    assert await refused(sock, "x") == (TypeError, wrong)


async def test_packets(net: Face) -> None:
    kind = family("AF_PACKET", SOCK_DGRAM)
    sock = net.socket(*kind)
    assert sock.getsockname() == ("", 0, 0, 0, b"")
    protocol = 0x88B5  # left to experiments
    await sock.bind(("lo", protocol))
    loopback = 772
    assert sock.getsockname() == ("lo", protocol, 0, loopback, bytes(6))
    sender = net.socket(*kind)
    for address in [("lo", protocol), ("lo", protocol, 0, loopback, bytes(6))]:
        assert await sender.sendto(b"hello there", address) == 11
        async with asyncio.timeout(5):
            data, (name, number, *_, hardware, place) = await sock.recvfrom(99)
        assert (data, name, number) == (b"hello there", "lo", protocol)
        assert (hardware, place) == (loopback, bytes(6))


async def test_wrong_addresses_of_packets(net: Face) -> None:
    sock = net.socket(*family("AF_PACKET", SOCK_DGRAM))
    for address, expected in [
        (("nosuch0", 0), (OSError, "[Errno 19] No such device")),
        ("x", (TypeError, "bind(): AF_PACKET address must be tuple, not str")),
        (("lo",), (TypeError, "AF_PACKET address must be a tuple of two to five elements")),
        (("lo", 70000), (OverflowError, "bind(): proto must be 0-65535.")),
    ]:
        assert await refused(sock, address) == expected


async def test_vsock(net: Face) -> None:
    sock = net.socket(*family("AF_VSOCK", SOCK_STREAM))
    assert sock.getsockname() == (_stdlib.VMADDR_CID_ANY, _stdlib.VMADDR_PORT_ANY)
    await sock.bind((_stdlib.VMADDR_CID_ANY, _stdlib.VMADDR_PORT_ANY))
    cid, port = sock.getsockname()
    assert cid == _stdlib.VMADDR_CID_ANY
    assert 0 < port < _stdlib.VMADDR_PORT_ANY
    with pytest.raises(TypeError):
        await sock.bind((1,))


async def test_a_vsock_connection(net: Face) -> None:
    kind = family("AF_VSOCK", SOCK_STREAM)
    sock = net.socket(*kind)
    await sock.bind((_stdlib.VMADDR_CID_ANY, _stdlib.VMADDR_PORT_ANY))
    sock.listen()
    local = 1, sock.getsockname()[1]
    with _stdlib.socket(*kind) as probe:
        probe.settimeout(0.1)
        if probe.connect_ex(local):
            pytest.skip("the kernel has no transport for VSOCK within one machine")
    (await sock.accept())[0].close()
    client = net.socket(*kind)
    await client.connect(local)
    server, address = await sock.accept()
    net.keep(server)
    assert address == client.getsockname()
    await client.sendall(b"hello")
    assert await server.recv(9) == b"hello"


async def test_can(net: Face) -> None:
    raw = getattr(_stdlib, "CAN_RAW", 1)
    sock = net.socket(*family("AF_CAN", SOCK_RAW, raw))
    await sock.bind(("",))
    assert sock.getsockname() == ("",)
    with pytest.raises(OSError, match="No such device"):
        await sock.bind(("nosuch0",))


async def algorithm(net: Face, *address: Any) -> Any:
    sock = net.socket(*family("AF_ALG", SOCK_SEQPACKET))
    try:
        await sock.bind(address)
    except FileNotFoundError:
        pytest.skip(f"the kernel has no {address}")
    return sock


async def test_a_hash_of_the_kernel(net: Face) -> None:
    sock = await algorithm(net, "hash", "sha256")
    work = net.keep((await sock.accept())[0])
    await work.sendall(b"abc")
    assert await work.recv(512) == hashlib.sha256(b"abc").digest()
    await work.send(b"a", _stdlib.MSG_MORE)
    await work.send(b"bc")
    assert await work.recv(512) == hashlib.sha256(b"abc").digest()


async def test_a_cipher_of_the_kernel(net: Face) -> None:
    """Values from RFC 3602."""
    key = bytes.fromhex("06a9214036b8a15b512e03d534120006")
    start = bytes.fromhex("3dafba429d9eb430b422da802c9fac41")
    secret = bytes.fromhex("e353779c1079aeb82708942dbe77181a")
    sock = await algorithm(net, "skcipher", "cbc(aes)")
    sock.setsockopt(_stdlib.SOL_ALG, _stdlib.ALG_SET_KEY, key)
    work = net.keep((await sock.accept())[0])
    for op, given, wanted in [
        (_stdlib.ALG_OP_ENCRYPT, b"Single block msg", secret),
        (_stdlib.ALG_OP_DECRYPT, secret, b"Single block msg"),
    ]:
        assert await work.sendmsg_afalg([given], op=op, iv=start) == 16
        assert await work.recv(16) == wanted
        assert await work.sendmsg_afalg(op=op, iv=start, flags=_stdlib.MSG_MORE) == 0
        await work.sendall(given)
        assert await work.recv(16) == wanted


async def test_sendmsg_afalg_is_for_its_family_alone(net: Face) -> None:
    sock = net.socket(type=SOCK_DGRAM)
    with pytest.raises(OSError, match="^algset is only supported for AF_ALG$"):
        await sock.sendmsg_afalg([b"x"], op=0)
