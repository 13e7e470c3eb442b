"""What each side sees of a connection to which something happens: both faces, every loop.

Between two sockets of ours stands a proxy of `faults`, and the test says to the byte what
must have been seen: all in order up to the cut, then the error that tells of the cut.  A
failing test shows its seed; `faults/plan.py` says how to run it again and how to run more:

    AIOSOCK_RUNS=50 .venv/bin/python -m pytest -q tests/test_faults.py
"""

import asyncio
import random
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from faces import LIMIT, Face, awaited
from faults import RUNS, SEED, PostOffice, Proxy, Service, Way, full_backlog, replay
from secured import HOST, usual

import aiosock

ROOM = 32768  # bytes of the sender's buffer
SHORT = 0.05  # seconds after which a call gives up
BULK = 2**20  # bytes: more than all buffers between the two ends hold
DATAGRAMS = 60


@pytest.fixture(params=range(max(RUNS, 1)), ids=lambda run: f"run{run}")
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chooses sizes and moments."""
    print(replay())  # shown where the test fails
    return random.Random(f"{SEED} {request.node.name}")


def some(dice: random.Random, least: int = 1000, most: int = 30000) -> bytes:
    return dice.randbytes(dice.randint(least, most))


# --- two ends and what is between -----------------------------------------------------


@dataclass
class Seen:
    """What one end has sent and seen."""

    sent: int = 0
    got: bytearray = field(default_factory=bytearray)
    sending: BaseException | None = None
    end: BaseException | None = None


class Between:
    """Two sockets of a face, the client's and the server's, and a proxy between them."""

    def __init__(self, face: Face, stack: ExitStack, dice: random.Random) -> None:
        self.face, self.dice, self._stack = face, dice, stack
        self.is_tls = False

    async def connect(self, up: Way | None = None, down: Way | None = None) -> None:
        listener = await self.face.listener()
        self.proxy = Proxy(listener.getsockname(), up, down, self.dice.randrange(2**32))
        self._stack.enter_context(self.proxy)
        self.client = self.face.socket()
        self.client.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_SNDBUF, ROOM)
        await self.client.connect(self.proxy.address)
        server, _ = await listener.accept()
        self.server = self.face.keep(server)

    async def start_tls(self, **settings: Any) -> None:
        self.is_tls = True
        self.client, self.server = await asyncio.gather(
            self._secured(self.client, server_hostname=HOST, **settings),
            self._secured(self.server, server_side=True, **settings),
        )

    async def _secured(self, sock: Any, **settings: Any) -> Any:
        context = usual(bool(settings.get("server_side")))
        made = await called(sock, "start_tls", context, **settings)
        return self.face.keep(made)

    async def talk(self, up: bytes, down: bytes) -> tuple[Seen, Seen]:
        """What client and server see when both send and receive at the same time."""
        client, server = Seen(), Seen()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(
                self._send(self.client, up, client),
                self._send(self.server, down, server),
                self._receive(self.client, len(down), client),
                self._receive(self.server, len(up), server),
            )
        return client, server

    async def _send(self, sock: Any, data: bytes, seen: Seen) -> None:
        try:
            await sock.sendall(data)
        except OSError as error:
            seen.sent, seen.sending = error.bytes_sent, error  # type: ignore[attr-defined]  # ours, as documented
        else:
            seen.sent = len(data)
            if not self.is_tls:
                self._shut(sock)

    def _shut(self, sock: Any) -> None:
        with suppress(OSError):  # it was cut meanwhile
            sock.shutdown(aiosock.SHUT_WR)

    async def _receive(self, sock: Any, size: int, seen: Seen) -> None:
        """All there is; in TLS, which has no half close, all that was to come."""
        try:
            while not (self.is_tls and len(seen.got) == size):
                if not (data := await sock.recv(self.dice.randint(1, 9000))):
                    break
                seen.got += data
        except OSError as error:
            seen.end = error


async def called(sock: Any, name: str, *args: Any, **named: Any) -> Any:
    """The outcome of a call that TLS adds, on each face."""
    if hasattr(sock, "sock"):
        return await awaited(getattr(sock.sock, name))(*args, **named)
    return await getattr(sock, name)(*args, **named)


@pytest.fixture
async def between(ours: Face, stack: ExitStack, dice: random.Random) -> Between:
    return Between(ours, stack, dice)


def begins(seen: Seen, whole: bytes, other: Seen) -> None:
    """What came is the beginning of what was sent, and no more than the sender was told."""
    assert seen.got == whole[: len(seen.got)]
    assert len(seen.got) <= other.sent


def is_reset(seen: Seen) -> bool:
    """Whether the end has heard of a reset: the kernel tells it once, sender or receiver.

    Behind the end of what is received it is EPIPE that a sender hears.
    """
    broken = type(seen.sending) is BrokenPipeError and seen.end is None
    return broken or ConnectionResetError in (type(seen.sending), type(seen.end))


# --- what hurts nobody ----------------------------------------------------------------

HARMLESS: dict[str, Way] = {
    "latency": Way(slices=(4000, 8000), latency=0.002),
    "jitter": Way(slices=(1000, 9000), jitter=0.004),
    "bandwidth": Way(slices=(500, 1500), bandwidth=10**6),
    "slices": Way(slices=(1, 200)),
    "single bytes": Way(slices=(1, 1)),
}
each_harmless = pytest.mark.parametrize("weather", HARMLESS)


def both_ways(dice: random.Random, weather: str) -> tuple[bytes, bytes]:
    most = 800 if weather == "single bytes" else 30000
    return some(dice, 500, most), some(dice, 500, most)


@each_harmless
async def test_all_arrives_in_order(between: Between, dice: random.Random, weather: str) -> None:
    await between.connect(HARMLESS[weather], HARMLESS[weather])
    up, down = both_ways(dice, weather)
    client, server = await between.talk(up, down)
    assert client == Seen(len(up), bytearray(down))
    assert server == Seen(len(down), bytearray(up))


@each_harmless
async def test_all_arrives_in_order_over_tls(
    between: Between, dice: random.Random, weather: str
) -> None:
    await between.connect(HARMLESS[weather], HARMLESS[weather])
    await between.start_tls()
    up, down = both_ways(dice, weather)
    client, server = await between.talk(up, down)
    assert client == Seen(len(up), bytearray(down))
    assert server == Seen(len(down), bytearray(up))
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(called(between.client, "unwrap"), called(between.server, "unwrap"))


@each_harmless
async def test_lines_arrive_whole(between: Between, dice: random.Random, weather: str) -> None:
    await between.connect(HARMLESS[weather], HARMLESS[weather])
    lines = [f"{dice.randbytes(dice.randrange(60)).hex()}\n" for _ in range(20)]
    got = []
    async with asyncio.timeout(LIMIT):
        async with between.client.makefile("w") as file:
            await file.writelines(lines)
        between.client.close()
        async with between.server.makefile("r") as file:
            async for line in file:
                got.append(line)
    assert got == lines


async def test_what_was_sent_before_accept_waits(
    ours: Face, stack: ExitStack, dice: random.Random
) -> None:
    listener, data = await ours.listener(), some(dice)
    proxy = stack.enter_context(Proxy(listener.getsockname(), accepts=False))
    client = ours.socket()
    await client.connect(proxy.address)
    async with asyncio.timeout(LIMIT):
        sending = asyncio.create_task(client.sendall(data))
        proxy.accept()
        server = ours.keep((await listener.accept())[0])
        await sending
        client.close()
        assert await all_of(server) == data


async def all_of(sock: Any) -> bytes:
    got = bytearray()
    while data := await sock.recv(9000):
        got += data
    return bytes(got)


# --- resets -----------------------------------------------------------------------------


def moment(dice: random.Random, data: bytes, which: str) -> int | None:
    return {"before the first byte": 0, "mid message": dice.randrange(1, len(data))}.get(which)


@pytest.mark.parametrize("which", ["before the first byte", "mid message", "after half close"])
async def test_all_before_a_reset_is_seen(
    between: Between, dice: random.Random, which: str
) -> None:
    up, down = some(dice), some(dice)
    at = moment(dice, down, which)
    await between.connect(down=Way((1, 5000), stalls_at=0, ends_at=at, end="reset"))
    between.proxy.go_on()  # no sooner: a connect would hear of it
    client, server = await between.talk(up, down)
    assert client.got == down[:at]
    assert is_reset(client)
    begins(server, up, client)
    assert is_reset(server) or server == Seen(len(down), bytearray(up))


async def test_a_reset_fails_a_sendall_that_tells_how_far_it_got(
    between: Between, dice: random.Random
) -> None:
    at = dice.randrange(1, 10**5)
    await between.connect(up=Way(ends_at=at, end="reset"))
    up = some(dice, BULK, BULK)
    client, server = await between.talk(up, b"")
    assert at <= client.sent < len(up)
    assert server.got == up[:at]
    assert is_reset(client)
    assert is_reset(server)


async def test_lines_before_a_reset_are_seen(between: Between, dice: random.Random) -> None:
    lines = [b"%d\n" % dice.randrange(10**9) for _ in range(100)]
    whole = dice.randrange(1, 99)
    at = len(b"".join(lines[:whole])) + dice.randrange(2)
    await between.connect(down=Way(slices=(1, 100), ends_at=at, end="reset"))
    await between.server.sendall(b"".join(lines))
    file, got = between.client.makefile("rb"), list[bytes]()
    with pytest.raises(ConnectionResetError):
        await read_lines(file, got)
    await file.close()
    assert got == lines[:whole]


async def read_lines(file: Any, got: list[bytes]) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            got.append(await file.readline())


async def test_a_reset_is_a_reset_in_tls_too(between: Between, dice: random.Random) -> None:
    up, down = some(dice, BULK, BULK), some(dice)
    at = dice.randrange(10000, 10**5)  # behind the handshake
    await between.connect(up=Way(ends_at=at, end="reset"))
    await between.start_tls()
    client, server = await between.talk(up, down)
    assert is_reset(client)
    assert is_reset(server)
    begins(server, up, client)
    begins(client, down, server)


# --- half closes and truncation -----------------------------------------------------------


async def test_a_half_close_ends_one_direction(between: Between, dice: random.Random) -> None:
    up, down = some(dice), some(dice)
    at = dice.randrange(len(down))
    await between.connect(down=Way(slices=(1, 5000), ends_at=at))
    client, server = await between.talk(up, down)
    assert client == Seen(len(up), bytearray(down[:at]))
    assert server == Seen(len(down), bytearray(up))


async def test_the_last_line_may_be_cut(between: Between, dice: random.Random) -> None:
    lines = [b"%d\n" % dice.randrange(10**9) for _ in range(100)]
    at = dice.randrange(1, len(b"".join(lines)))
    await between.connect(down=Way(slices=(1, 100), ends_at=at))
    await between.server.sendall(b"".join(lines))
    async with asyncio.timeout(LIMIT), between.client.makefile("rb") as file:
        got = [line async for line in file]
    assert got == b"".join(lines)[:at].splitlines(keepends=True)


@pytest.mark.parametrize("hides", [False, True], ids=["honest", "ragged"])
async def test_truncation_in_tls_is_no_end(
    between: Between, dice: random.Random, hides: bool
) -> None:
    up, down = b"", some(dice, BULK, BULK)
    await between.connect(down=Way(ends_at=dice.randrange(50000, 10**6)))
    await between.start_tls(suppress_ragged_eofs=hides)
    client, server = await between.talk(up, down)
    assert type(client.end) is (type(None) if hides else ssl.SSLEOFError)
    assert client.got
    begins(client, down, server)
    assert server.sent == len(down)


@pytest.mark.parametrize("end", ["reset", "half close"])
async def test_a_cut_handshake_fails(between: Between, dice: random.Random, end: Any) -> None:
    failure = ConnectionResetError if end == "reset" else ssl.SSLEOFError
    await between.connect(down=Way(slices=(1, 300), ends_at=dice.randrange(1, 400), end=end))
    context, sock = usual(False), between.server
    shaking = asyncio.create_task(called(sock, "start_tls", usual(True), server_side=True))
    async with asyncio.timeout(LIMIT):
        with pytest.raises(failure):
            await called(between.client, "start_tls", context, server_hostname=HOST)
        assert between.client.fileno() == -1
        with pytest.raises((ConnectionResetError, ssl.SSLError)):  # an alert comes of the end
            await shaking
        assert sock.fileno() == -1


# --- stalls -------------------------------------------------------------------------------

RECEIVES: dict[str, Callable[[Any, int], Any]] = {
    "recv": lambda sock, size: sock.recv(size),
    "recv_into": lambda sock, size: received(sock, bytearray(size)),
}


async def receive_for_ever(receive: Callable[[], Any], got: bytearray) -> None:
    while True:
        got += await receive()


async def received(sock: Any, buffer: bytearray) -> bytes:
    return bytes(buffer[: await sock.recv_into(buffer)])


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", RECEIVES)
async def test_a_stall_ends_in_a_timeout_and_loses_nothing(
    between: Between, dice: random.Random, name: str, secure: bool
) -> None:
    size = dice.randint(1, 9000)
    data = some(dice, 20000, 30000)
    at = dice.randrange(10000, 20000)  # behind the handshake
    await between.connect(down=Way(stalls_at=at))
    if secure:
        await between.start_tls()
    sock = between.client
    receive = partial(RECEIVES[name], sock, size)
    sock.settimeout(SHORT)
    await between.server.sendall(data)
    got = bytearray()
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        await receive_for_ever(receive, got)
    assert len(got) <= at
    between.proxy.go_on()
    sock.settimeout(LIMIT)
    while len(got) < len(data):
        got += await receive()
    assert got == data


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_sendall_that_stalls_goes_on_where_it_says(
    between: Between, dice: random.Random, secure: bool
) -> None:
    data, sock = some(dice, BULK, BULK), await stalled(between, dice, secure)
    sock.settimeout(SHORT)
    with pytest.raises(TimeoutError, match=r"^timed out$") as told:
        await sock.sendall(data)
    await goes_on(between, data, told.value)


async def stalled(between: Between, dice: random.Random, secure: bool) -> Any:
    await between.connect(up=Way(stalls_at=dice.randrange(10000, 20000)))
    if secure:
        await between.start_tls()
    return between.client


async def goes_on(between: Between, data: bytes, told: Any) -> None:
    """What the error says is on its way, and the rest follows."""
    assert 0 < told.bytes_sent < len(data)
    between.proxy.go_on()
    between.client.settimeout(LIMIT)
    seen = Seen()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(
            between._send(between.client, data[told.bytes_sent :], seen),
            between._receive(between.server, len(data), seen),
        )
    assert seen == Seen(len(data) - told.bytes_sent, bytearray(data))


async def test_a_file_that_stalls_times_out(between: Between, dice: random.Random) -> None:
    lines = [b"%d\n" % dice.randrange(10**9) for _ in range(100)]
    await between.connect(down=Way(stalls_at=dice.randrange(1, 300)))
    between.client.settimeout(SHORT)
    await between.server.sendall(b"".join(lines))
    file, got = between.client.makefile("rb"), list[bytes]()
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        await read_lines(file, got)
    between.proxy.go_on()
    between.client.settimeout(LIMIT)
    if between.face.blocks:
        with pytest.raises(OSError, match="cannot read from timed out object"):
            await file.readline()
    else:
        got += [await file.readline() for _ in lines[len(got) :]]
        assert got == lines
    await file.close()


# --- backlogs -------------------------------------------------------------------------------


async def test_a_full_backlog_ends_in_a_timeout(ours: Face, dice: random.Random) -> None:
    with full_backlog() as listener:
        for _ in range(2):
            sock = ours.socket()
            sock.settimeout(SHORT)
            with pytest.raises(TimeoutError, match=r"^timed out$"):
                await sock.connect(listener.getsockname())
            sock.close()


async def test_a_full_backlog_of_unix_is_waited_for(ours: Face, dice: random.Random) -> None:
    with full_backlog(aiosock.AF_UNIX) as listener:
        sock = ours.socket(aiosock.AF_UNIX)
        connecting = asyncio.create_task(sock.connect(listener.getsockname()))
        await asyncio.sleep(dice.uniform(0, SHORT))
        assert not connecting.done()
        accepted = listener.accept()[0]
        async with asyncio.timeout(LIMIT):
            await connecting
        accepted.close()
        assert sock.getpeername() == listener.getsockname()


# --- datagrams --------------------------------------------------------------------------------


async def one_by_one(sock: Any, size: int) -> list[bytes]:
    return [(await sock.recvfrom(2000))[0] for _ in range(size)]


async def many_at_once(sock: Any, size: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < size:
        got += [data for data, _ in await sock.recv_many(7, 2000)]
    return got


@pytest.mark.parametrize("receive", [one_by_one, many_at_once])
@pytest.mark.parametrize(
    "service",
    [Service(lost=0.3), Service(doubled=0.3), Service(held=0.4), Service(0.2, 0.2, 0.2)],
    ids=["lost", "doubled", "reordered", "all three"],
)
async def test_datagrams_are_seen_as_they_were_delivered(
    ours: Face, stack: ExitStack, dice: random.Random, service: Service, receive: Any
) -> None:
    client, server = (ours.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM) for _ in range(2))
    await server.bind(("127.0.0.1", 0))
    office = stack.enter_context(PostOffice(server.getsockname(), service, dice.randrange(2**32)))
    await client.connect(office.address)
    letters = [some(dice, 0, 500) for _ in range(DATAGRAMS)]
    async with asyncio.timeout(LIMIT):
        assert await client.send_many(letters) == DATAGRAMS
        delivered = await office.sent_up(DATAGRAMS)
        assert await receive(server, len(delivered)) == delivered
        await server.send_many([(letter, office.sender) for letter in letters])
        delivered = await office.sent_down(DATAGRAMS)
        assert await receive(client, len(delivered)) == delivered
    for sock in (client, server):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            await sock.recv(2000)
