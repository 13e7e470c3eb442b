"""What strangers decide, made of the bytes of a fuzzer's input; each target is a function.

A target returns, or raises where something does not hold.  The stdlib is the oracle wherever
it does the same: `io` of files, `getaddrinfo` and `inet_pton` of addresses, its own sockets
of messages.  Nothing here leaves the machine, and nothing waits for a clock.
"""

import asyncio
import io
import os
import random
import re
import socket as _stdlib
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, TypeVar

from faces import LIMIT, open_descriptors
from secured import HOST, authority, certificate, usual

import aiosock
from aiosock import _names
from aiosock._certificates import names
from aiosock._files import file_of

T = TypeVar("T")
Target = Callable[[bytes], None]


class Draw:
    """Decisions made of an input; when it is used up they are the first of each kind."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def number(self, below: int) -> int:
        size = (below.bit_length() + 7) // 8
        return int.from_bytes(self._left.read(size), "big") % below

    def of(self, choices: Any) -> Any:
        return choices[self.number(len(choices))]

    def octets(self, most: int) -> bytes:
        return self._left.read(self.number(most + 1))

    def word(self, letters: str, most: int) -> str:
        return "".join(letters[octet % len(letters)] for octet in self.octets(most))

    def rest(self) -> bytes:
        return self._left.read()


# --- addresses ------------------------------------------------------------------------

LETTERS = "0123456789.:%abfx/ lo-<>\t\0é。\uff11"
FAMILIES = [_stdlib.AF_INET, _stdlib.AF_INET6]
LOOKED_UP = {_stdlib.EAI_NONAME, _stdlib.EAI_AGAIN, _stdlib.EAI_FAIL, _stdlib.EAI_NODATA}
REFUSALS = (OSError, TypeError, ValueError, OverflowError)


def is_number(host: bytes) -> bool:
    """Whether it is an address of either family, by the stdlib's readers of numbers."""
    with suppress(OSError, ValueError):
        _stdlib.inet_pton(_stdlib.AF_INET6, host.decode("ascii"))
        return True
    with suppress(OSError, ValueError):
        _stdlib.inet_aton(host.decode("ascii"))
        return not re.search(rb"\s", host)  # behind a blank inet_aton reads no more
    return False


def numeric_hosts(data: bytes) -> None:
    """A host is a name, or a number: as the stdlib judges, and without asking anybody."""
    draw = Draw(data)
    family, port = draw.of(FAMILIES), draw.of([0, 1, 65535])
    word = draw.word(LETTERS, 45)
    host = draw.of([word, word.encode()])
    named = _names.needs_lookup(family, (host, port))
    encoded = _names._encoded(host)
    if b"%" not in encoded and encoded not in (b"", b"<broadcast>") and b"\0" not in encoded:
        assert named == (not is_number(encoded)), host
    if not named:
        told = outcome(_names._closed(family).sendto, b"", (host, port))
        assert isinstance(told, REFUSALS)
        assert not isinstance(told, _stdlib.gaierror) or told.errno not in LOOKED_UP, host
    found = _names.numeric_addresses(host, port, family, 0, 0, 0)
    if found is not None and host:
        assert found == _stdlib.getaddrinfo(host, port, family), host


def an_item(draw: Draw) -> Any:
    """Something to stand in an address, as a rule what does not belong there."""
    kinds: list[Callable[[], Any]] = [
        lambda: draw.of(["127.0.0.1", "::1", "127.1", "::1%lo", "::1%1", "", "name.invalid"]),
        lambda: draw.of([0, 1, 65535, 65536, -1, 2**31, 2**32, 2**70]),
        lambda: draw.word(LETTERS, 20),
        lambda: draw.octets(20),
        lambda: draw.of([None, 1.5, True, (), ("127.0.0.1", 1), bytearray(b"::1")]),
    ]
    return draw.of(kinds)()


def an_address(draw: Draw) -> Any:
    items = [an_item(draw) for _ in range(draw.number(6))]
    return draw.of([tuple(items), tuple(items), list(items), *items[:1]])


class NoBook:
    """A resolver that knows one name, and raises what the system's does for all else."""

    async def getaddrinfo(self, host: Any, port: Any, *args: Any) -> Any:
        if host not in ("name.invalid", None):
            raise _stdlib.gaierror(_stdlib.EAI_NONAME, "Name or service not known")
        return _stdlib.getaddrinfo("127.0.0.1", port, *args)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise AssertionError("nobody asks this")


def socket_addresses(data: bytes) -> None:
    """Whatever is said to be an address is refused, in the stdlib's words, on a closed socket."""
    draw = Draw(data)
    family = draw.of([*FAMILIES, _stdlib.AF_UNIX])
    call = draw.of(["connect", "connect_ex", "sendto", "bind"])
    address = an_address(draw)
    args = (b"", address) if call == "sendto" else (address,)
    with aiosock.socket(family, _stdlib.SOCK_DGRAM) as sock:
        pass
    told = outcome(run(getattr(sock, call), *args))
    if _names.needs_lookup(family, address):
        assert isinstance(told, REFUSALS), (call, address, told)
    else:
        with _stdlib.socket(family, _stdlib.SOCK_DGRAM) as theirs:
            pass
        expected = outcome(getattr(theirs, call), *args)
        assert repr(told) == repr(expected), (call, address)


def connections(data: bytes) -> None:
    """create_connection makes one, or refuses; nothing stays open."""
    draw = Draw(data)
    address = tuple(an_item(draw) for _ in range(draw.number(5)))
    how = {
        "happy_eyeballs_delay": draw.of([0.001, None]),
        "source_address": draw.of([None, ("127.0.0.1", 0), ("::1", 0), an_address(draw)]),
        "all_errors": bool(draw.number(2)),
    }
    if address and isinstance(address[0], str | bytes) and is_foreign(address[0]):
        return
    before = open_descriptors()
    told = outcome(run(aiosock.create_connection, address, 1, **how))
    if isinstance(told, aiosock.socket):
        told.close()
    else:
        assert isinstance(told, (*REFUSALS, ExceptionGroup)), (address, how, told)
    assert open_descriptors() == before, (address, how)


def is_foreign(host: str | bytes) -> bool:
    """Whether a connection to it would leave the machine."""
    found = _names.numeric_addresses(host, 1, 0, 0, 0, 0) or []
    return not all(each[4][0] in ("127.0.0.1", "::1") for each in found)


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except Exception as error:
        return error


# --- a loop for all inputs ------------------------------------------------------------

_loop: asyncio.AbstractEventLoop


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """The call, which must be over in time; on one loop, that of all the inputs."""

    async def bounded() -> Any:
        async with asyncio.timeout(LIMIT):
            return await function(*args, **kwargs)

    return lambda: _loop.run_until_complete(bounded())


@contextmanager
def prepared() -> Iterator[None]:
    """Within it targets can be called."""
    global _loop
    aiosock.set_resolver(NoBook())
    with closing(asyncio.new_event_loop()) as _loop:
        yield
    aiosock.set_resolver(None)


# --- ancillary data, messages and descriptors -----------------------------------------


def ancillary(data: bytes) -> None:
    """Whatever stands in control data is read, or left out."""
    draw, items = Draw(data), []
    for _ in range(draw.number(8)):
        level = draw.of([_stdlib.IPPROTO_IP, _stdlib.IPPROTO_IPV6, _stdlib.SOL_SOCKET])
        items.append((level, draw.number(80), draw.octets(30)))
    told = aiosock.parse_ancillary(items)
    for number in told.ttl, told.tos, told.dropped:
        assert number is None or 0 <= number < 2**32, items
    assert told.pktinfo is None or isinstance(told.pktinfo.address, str)


RECEIVES: list[Callable[..., Any]] = [
    lambda sock, size, room: sock.recvmsg(size, room),
    lambda sock, size, room: sock.recvmsg(size),
    lambda sock, size, room: sock.recv(size),
    lambda sock, size, room: sock.recvfrom(size),
    lambda sock, size, room: sock.recv_into(bytearray(max(size, 1))),
    lambda sock, size, room: sock.recvmsg_into([bytearray(size), bytearray(3)], room),
]


def messages(data: bytes) -> None:
    """A message with descriptors comes as to the stdlib's socket; none of them is lost."""
    draw = Draw(data)
    kind = draw.of([_stdlib.SOCK_STREAM, _stdlib.SOCK_DGRAM, _stdlib.SOCK_SEQPACKET])
    receive, size, room = draw.of(RECEIVES), draw.number(40), draw.number(200)
    count, body = draw.number(9), draw.octets(60) or b"x"
    before = open_descriptors()
    with ExitStack() as stack:
        ours, peer_of_ours = map(stack.enter_context, aiosock.socketpair(_stdlib.AF_UNIX, kind))
        theirs, peer = map(stack.enter_context, _stdlib.socketpair(_stdlib.AF_UNIX, kind))
        for sender in peer_of_ours._sock, peer:
            _stdlib.send_fds(sender, [body], [sender.fileno()] * count)
        told = run(receive, ours, size, room)()
        expected = receive(theirs, size, room)
        assert without_descriptors(told) == without_descriptors(expected), (body, count)
    assert open_descriptors() == before


def without_descriptors(told: Any) -> Any:
    """What a receive gave, with how many descriptors came in the place of these, now closed."""
    if not isinstance(told, tuple) or len(told) < 4:
        return told
    counts = []
    for level, kind, content in told[1]:
        assert (level, kind) == (_stdlib.SOL_SOCKET, _stdlib.SCM_RIGHTS)
        found = struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
        for number in found:
            os.close(number)
        counts.append(len(found))
    return told[0], counts, told[2] & ~_stdlib.MSG_CMSG_CLOEXEC, told[3]


# --- files ----------------------------------------------------------------------------


class Pieces:
    """A socket that gives a stream in the pieces that a stranger chose."""

    _io_refs = 0

    def __init__(self, draw: Draw, letters: bytes) -> None:
        pieces = [draw.octets(30) for _ in range(draw.number(12))]
        self._pieces = [bytes(letters[at % len(letters)] for at in piece) for piece in pieces]
        self.whole = b"".join(self._pieces)

    async def recv(self, size: int) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if len(piece) > size:
                self._pieces.insert(0, piece[size:])
            if piece:
                return piece[:size]
        return b""

    def fileno(self) -> int:
        return -1

    def _decref_socketios(self) -> None:
        pass

    send = sendall = recv  # of a file that is only read


def at_once(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """What a coroutine function returns that never waits for anybody."""
    coroutine = function(*args)
    while True:
        try:
            coroutine.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result


def steps(draw: Draw) -> list[tuple[str, tuple[int, ...]]]:
    """Calls of a file that is read, up to its end."""
    calls = []
    for _ in range(draw.number(10)):
        name = draw.of(["readline", "read", "readlines"])
        calls.append((name, (draw.number(25),) if name != "readline" or draw.number(2) else ()))
    return [*calls, ("readlines", ())]


ENCODINGS = ["utf-8", "utf-16", "utf-8-sig", "utf-32", "utf-7", "shift_jis", "iso2022_jp", "ascii"]
ERRORS = ["strict", "replace", "ignore", "surrogateescape", "backslashreplace"]


def text(data: bytes) -> None:
    """Characters come as from `io.TextIOWrapper`, in whatever pieces their bytes come."""
    draw = Draw(data)
    encoding, errors = draw.of(ENCODINGS), draw.of(ERRORS)
    newline, calls = draw.of([None, "", "\n", "\r", "\r\n"]), steps(draw)
    sock = Pieces(draw, draw.of([bytes(range(256)), b"ab\r\n\xc3\xa9\xff"]))
    file: Any = file_of(sock, "r", None, encoding, errors, newline, None)
    oracle = io.TextIOWrapper(io.BytesIO(sock.whole), encoding, errors, newline)
    got: list[Any] = []
    for name, args in calls:
        ours = outcome(at_once, getattr(file, name), *args)
        if isinstance(ours, UnicodeError):
            with suppress(UnicodeError):
                io.TextIOWrapper(io.BytesIO(sock.whole), encoding, errors, newline).read()
                raise AssertionError(f"{ours!r}, of {sock.whole!r}")
            return
        got.append(ours)
    expected = [getattr(oracle, name)(*args) for name, args in calls]
    assert got == expected, (sock.whole, calls)


def lines(data: bytes) -> None:
    """Bytes come as from `io.BufferedReader`, in whatever pieces."""
    draw = Draw(data)
    calls, size = steps(draw), draw.of([None, 1, 7])
    sock = Pieces(draw, b"abcde\r\n")
    file: Any = file_of(sock, "rb", size, None, None, None, None)
    oracle = io.BufferedReader(io.BytesIO(sock.whole))
    for name, args in calls:
        assert at_once(getattr(file, name), *args) == getattr(oracle, name)(*args), calls


def limited(data: bytes) -> None:
    """Up to a separator or a limit: what comes is what stands there, and nothing is lost."""
    draw = Draw(data)
    separator, limit = draw.word("ab\n", 3).encode() or b"\n", draw.number(20)
    sock = Pieces(draw, b"ab\n")
    file: Any = file_of(sock, "rb", draw.of([None, 1, 7]), None, None, None, limit)
    got = bytearray()
    while True:
        left = sock.whole[len(got) :]
        end = left.find(separator) + len(separator) if separator in left else len(left)
        told = outcome(at_once, file.readuntil, separator)
        if isinstance(told, asyncio.LimitOverrunError):
            assert end > limit
            got += at_once(file.readexactly, min(limit + 1, len(left)))
        elif isinstance(told, asyncio.IncompleteReadError):
            assert told.partial == left
            assert len(left) <= limit
            return
        else:
            assert told == left[:end]
            assert end <= limit
            got += told


# --- certificates ---------------------------------------------------------------------


def certificates(data: bytes) -> None:
    """Whom a certificate names is told in printable letters, or it is no certificate."""
    told = outcome(names, data)
    if isinstance(told, ValueError):
        assert re.search(r"\boffset \d+", str(told))
    else:
        assert all(len(line) < 256 and line.isascii() and line.isprintable() for line in told)


def genuine() -> list[bytes]:
    issued = certificate().cert_chain_pems[0].bytes(), authority().cert_pem.bytes()
    return [ssl.PEM_cert_to_DER_cert(pem.decode()) for pem in issued]


# --- TLS ------------------------------------------------------------------------------

SAID = b"0123456789" * 10


def spoilt(draw: Draw, flight: bytes) -> bytes:
    """A flight as a stranger on the way would leave it; nearly always as it was."""
    if not flight or draw.number(4):
        return flight
    at = draw.number(len(flight))
    kinds: list[Callable[[], bytes]] = [
        lambda: flight[:at] + bytes([flight[at] ^ (1 << draw.number(8))]) + flight[at + 1 :],
        lambda: flight[:at],
        lambda: flight[at:],
        lambda: flight + flight,
        lambda: flight[:at] + draw.octets(20) + flight[at:],
        lambda: draw.octets(200),
        lambda: a_record(draw) + flight,
        lambda: flight + a_record(draw),
    ]
    found: bytes = draw.of(kinds)()
    return found


def a_record(draw: Draw) -> bytes:
    """Something with the head of a record, whose kind and length may be right."""
    content = draw.octets(40)
    size = draw.of([len(content), len(content), 0, 2**14, 2**16 - 1])
    return struct.pack("!BHH", draw.of([20, 21, 22, 23, 24, 0]), 0x0303, size) + content


async def stranger(draw: Draw, sock: aiosock.socket, server_side: bool) -> None:
    """Shakes hands, sends, and ends, all of it more or less; waits for nothing."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    host = None if server_side else HOST
    talk = usual(server_side).wrap_bio(incoming, outgoing, server_side, host)
    acts: list[Callable[[], Any]] = [talk.do_handshake, lambda: talk.write(SAID), talk.unwrap]
    sock.settimeout(0)
    with suppress(OSError):
        for turn in range(12):
            with suppress(ssl.SSLError):
                acts[min(turn // 4, 2)]()
            await sock.send(spoilt(draw, outgoing.read()))
            for _ in range(6):  # as many as an answer takes
                await asyncio.sleep(0)
            with suppress(BlockingIOError):
                incoming.write(await sock.recv(2**16))
        await sock.send(draw.of([b"", SAID, a_record(draw), draw.octets(50)]))
    if draw.number(2):
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, linger)
    sock.close()


async def converse(data: bytes, server_side: bool) -> None:
    draw = Draw(data)
    sock, other = aiosock.socketpair()
    meeting = asyncio.create_task(stranger(draw, other, not server_side))
    got = bytearray()
    try:
        if server_side:
            sock = await sock.start_tls(usual(True), server_side=True)
        else:
            sock = await sock.start_tls(usual(False), server_hostname=HOST)
        await sock.sendall(SAID)
        while piece := await sock.recv(2**16):
            got += piece
        await sock.unwrap()
    except OSError:  # of which SSLError is one
        pass
    finally:
        await meeting
        sock.close()
    assert (SAID * 12).startswith(got), "it says what its peer has not said"


def over_tls(data: bytes, server_side: bool) -> None:
    run(converse, b"", server_side)()  # the first makes what stays
    before = open_descriptors()
    run(converse, data, server_side)()
    assert open_descriptors() == before


def tls_client(data: bytes) -> None:
    """A client hears strangers: an SSLError or OSError comes out, or what its server said."""
    over_tls(data, False)


def tls_server(data: bytes) -> None:
    """A server hears strangers: an SSLError or OSError comes out, or what its client said."""
    over_tls(data, True)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        numeric_hosts,
        socket_addresses,
        connections,
        ancillary,
        messages,
        text,
        lines,
        limited,
        certificates,
        tls_client,
        tls_server,
    )
}


def every(data: bytes) -> None:
    """All targets in one: the first byte says which."""
    list(TARGETS.values())[data[0] % len(TARGETS) if data else 0](data[1:])


def some_inputs(name: str, count: int) -> list[bytes]:
    """Inputs to begin with: at random, but always the same."""
    dice = random.Random(name)
    if name == "certificates":
        return [replaced(dice, dice.choice(genuine())) for _ in range(count)]
    return [dice.randbytes(dice.randrange(300)) for _ in range(count)]


def replaced(dice: random.Random, data: bytes) -> bytes:
    """With one byte that is another."""
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(1) + data[at + 1 :]
