"""connect and listen: a connection between standard input and output.

Knows the public names of aiosock; what is read and shown is other files' business.

The end of the input is told to the other side by a half-close, where the protocol has one:
datagrams have no end, and TLS before 1.3 has but one for both ways, at which the other side may
drop its answer.  There -w, if it is given, says how long to wait for more.
"""

import argparse
import asyncio
import socket as _stdlib
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any, Protocol

import aiosock

from .._serving import remover
from . import security
from .endpoints import Endpoint, allow_family, listening_address, takes_both, written
from .formats import Crlf, Escaper, HexDump, in_words
from .pipes import Input, Output
from .words import Misuse, Refusal, encoding, explained, tell

__all__ = ["connect", "listen"]

PIECE = 2**18  # bytes received, or read from the input, at once
DATAGRAM = 2**16  # more than any has
SHORT = 2**14  # bytes of input that make one datagram
ONE_END = "TLSv1", "TLSv1.1", "TLSv1.2"  # for both ways: RFC 5246, 7.2.1
OFTEN = 0.5  # seconds between two looks at the progress


# --- channels ---------------------------------------------------------------------------


class Channel(Protocol):
    """A way to and from the other side."""

    tells_end: bool

    async def receive(self) -> bytes | None:
        """Await what comes; None at the end."""

    async def send(self, data: bytes) -> None:
        """Await that it is sent."""

    async def finish(self) -> None:
        """Tell the other side that nothing follows."""


class Stream:
    """A connection, plain or in TLS."""

    def __init__(self, sock: aiosock.socket, tells_end: bool) -> None:
        self._sock = sock
        is_whole = isinstance(sock, aiosock.SSLSocket) and sock.version() in ONE_END
        self.tells_end = tells_end and not is_whole

    async def receive(self) -> bytes | None:
        return await self._sock.recv(PIECE) or None

    async def send(self, data: bytes) -> None:
        await self._sock.sendall(data)

    async def finish(self) -> None:
        with suppress(OSError):  # the other side has gone
            if isinstance(self._sock, aiosock.SSLSocket):
                await self._sock.send_eof()
            else:
                self._sock.shutdown(aiosock.SHUT_WR)


class Datagrams:
    """A UDP socket that is connected: each piece of input is a datagram."""

    tells_end = False

    def __init__(self, sock: aiosock.socket) -> None:
        self._sock = sock

    async def receive(self) -> bytes | None:
        return await self._sock.recv(DATAGRAM)

    async def send(self, data: bytes) -> None:
        await self._sock.send(data)

    async def finish(self) -> None:
        """There is no such datagram."""


class Callers(Datagrams):
    """A UDP socket that answers who has spoken first, or with `all_of_them` last."""

    def __init__(self, sock: aiosock.socket, all_of_them: bool) -> None:
        super().__init__(sock)
        self._all_of_them = all_of_them
        self._peer: Any = None  # before anybody has called
        self._has_called = asyncio.Event()

    async def receive(self) -> bytes | None:
        data, peer = await self._sock.recvfrom(DATAGRAM)
        if not (self._all_of_them or self._has_called.is_set()):
            await self._sock.connect(peer)
        self._peer = peer
        self._has_called.set()
        return data

    async def send(self, data: bytes) -> None:
        await self._has_called.wait()
        await self._sock.sendto(data, self._peer)


# --- a conversation -----------------------------------------------------------------------


class Counts:
    """Bytes in each direction, since when, and how they are told."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self._begun = monotonic()

    def __str__(self) -> str:
        passed = monotonic() - self._begun
        rate = in_words((self.sent + self.received) / max(passed, 1e-6))
        sent, received = in_words(self.sent), in_words(self.received)
        return f"sent {sent}, received {received}, {rate}/s, {passed:.1f} s"


@asynccontextmanager
async def progress(counts: Counts) -> AsyncIterator[None]:
    """Tell the counts: on a terminal all the time in one line, and else at the end."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()

    async def keep_telling() -> None:
        while True:
            tell(f"\r{counts}\x1b[K", end="")
            await asyncio.sleep(OFTEN)

    telling = asyncio.create_task(keep_telling()) if is_terminal else None
    try:
        yield
    finally:
        if telling:
            telling.cancel()
        tell(f"\r{counts}\x1b[K" if telling else str(counts))


class Conversation:
    """Input to the channel and the channel to the output, until the other side ends it."""

    def __init__(
        self, channel: Channel, source: Input, sink: Output, options: argparse.Namespace
    ) -> None:
        self._channel, self._source, self._sink = channel, source, sink
        self._patience: float | None = options.timeout
        self._crlf = Crlf() if options.crlf else None
        self._show: Escaper | HexDump | None = None
        self._show_sent: HexDump | None = None
        if options.hex:
            self._show, self._show_sent = HexDump("<"), HexDump(">")
        elif sink.is_terminal:
            self._show = Escaper(encoding())
        self._input_ended = self._cut = False
        self._idle = asyncio.timeout(None)
        self.counts = Counts()

    async def run(self) -> None:
        """Both directions, until the other side ends; a silence longer than -w ends them too."""
        self._source.linger()
        try:
            async with self._idle:
                self._heard()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send())
                    both.create_task(self._receive())
        except TimeoutError:
            if not self._input_ended or self._channel.tells_end:
                silence = f"nothing was sent or received for {self._patience:g} s (-w)"
                raise Refusal(silence) from None
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if self._cut:
            sent = in_words(self.counts.sent)
            raise Refusal(f"the other side has closed before all input was sent ({sent} were)")

    def _heard(self) -> None:
        """There is life: the silence begins anew."""
        if self._patience is not None and not self._idle.expired():
            self._idle.reschedule(asyncio.get_running_loop().time() + self._patience)

    async def _receive(self) -> None:
        while (data := await self._channel.receive()) is not None:
            self.counts.received += len(data)
            self._heard()
            await self._print(data)
        await self._print(b"", final=True)
        self._source.hurry()

    async def _print(self, data: bytes, final: bool = False) -> None:
        await self._sink.write(self._show.feed(data, final) if self._show else data)

    async def _send(self) -> None:
        while data := await self._source.read():
            self._heard()
            try:
                await self._give(self._crlf.feed(data) if self._crlf else data)
            except (BrokenPipeError, ConnectionResetError):
                self._cut = True  # the receiver hears the end, or the reason
                return
        self._input_ended = self._source.ended
        if self._channel.tells_end:
            await self._channel.finish()

    async def _give(self, data: bytes) -> None:
        if self._show_sent:
            await self._sink.write(self._show_sent.feed(data))
        await self._channel.send(data)
        self.counts.sent += len(data)
        self._heard()


async def converse(
    channel: Channel, source: Input, sink: Output, options: argparse.Namespace
) -> None:
    conversation = Conversation(channel, source, sink, options)
    async with AsyncExitStack() as stack:
        if options.progress:
            await stack.enter_async_context(progress(conversation.counts))
        await conversation.run()
    if options.verbose:
        tell(f"aiosock: ended: {conversation.counts}")


@asynccontextmanager
async def standard(is_udp: bool) -> AsyncIterator[tuple[Input, Output]]:
    with Output() as sink, Input(SHORT if is_udp else PIECE) as source:
        yield source, sink


# --- connect --------------------------------------------------------------------------------


def meant(options: argparse.Namespace) -> Endpoint:
    """The endpoint, with what the options say of its protocol; errors name that one too."""
    place: Endpoint = options.endpoint
    scheme = place.scheme
    if options.udp:
        if not (scheme == "udp" or place.is_bare):
            raise Misuse(f"-u is for UDP, which {place} is not")
        scheme = "udp"
    if options.tls:
        if scheme not in ("tcp", "tls"):
            raise Misuse(f"--tls is for TCP, which {scheme} is not")
        scheme = "tls"
    if scheme != "tls":
        security.refuse_without_tls(options)
    options.endpoint = place = Endpoint(scheme, place.host, place.port, place.path)
    return place


async def connect(options: argparse.Namespace) -> None:
    """The command `connect`."""
    place = meant(options)
    allow_family(options.family, place.host)
    open_channel = to_datagrams if place.scheme == "udp" else to_stream
    async with (
        standard(place.scheme == "udp") as (source, sink),
        open_channel(place, options) as channel,
    ):
        await converse(channel, source, sink, options)


@asynccontextmanager
async def to_stream(place: Endpoint, options: argparse.Namespace) -> AsyncIterator[Channel]:
    how: dict[str, Any] = {}
    if place.scheme == "tls":
        how = {"ssl": security.as_client(options), "server_hostname": options.servername}
    async with aiosock.create_connection(place.target(), options.timeout, **how) as sock:
        sock.settimeout(None)
        if options.verbose:
            (made,) = (attempt for attempt in sock.attempts if attempt.error is None)
            tell_connection(place, sock, made.address, f" in {1000 * made.ended:.1f} ms")
        yield Stream(sock, options.shutdown)


def tell_connection(place: Endpoint, sock: aiosock.socket, peer: Any, took: str = "") -> None:
    """What -v says of a connection, on either side."""
    secure = f", {security.spoken(sock)}" if isinstance(sock, aiosock.SSLSocket) else ""
    tell(f"aiosock: connected to {written(place.scheme, peer)}{took}{secure}")


@asynccontextmanager
async def to_datagrams(place: Endpoint, options: argparse.Namespace) -> AsyncIterator[Channel]:
    async with asyncio.timeout(options.timeout):
        host, port = place.target()
        found = await aiosock.getaddrinfo(host, port, options.family, _stdlib.SOCK_DGRAM)
    family, kind, proto, _, address = found[0]
    with aiosock.socket(family, kind, proto) as sock:
        await sock.connect(address)
        if options.verbose:
            tell(f"aiosock: sending to {written('udp', address)}")
        yield Datagrams(sock)


# --- listen ---------------------------------------------------------------------------------


async def listen(options: argparse.Namespace) -> None:
    """The command `listen`."""
    place = meant(options)
    allow_family(options.family, place.host)
    async with standard(place.scheme == "udp") as (source, sink):
        if place.scheme == "udp":
            async with bound(place, options.family) as sock:
                callers = Callers(sock, options.keep)
                await converse(callers, source, sink, options)
        else:
            await accept(place, source, sink, options)


@asynccontextmanager
async def bound(place: Endpoint, family: int, how: str = "") -> AsyncIterator[aiosock.socket]:
    """A UDP socket that listens, of which is told."""
    address = await listening_address(place, family, _stdlib.SOCK_DGRAM)
    kind = aiosock.AF_INET6 if ":" in address[0] else aiosock.AF_INET
    with aiosock.socket(kind, aiosock.SOCK_DGRAM) as sock:
        if kind == aiosock.AF_INET6:
            both = takes_both(place, family)
            sock.setsockopt(aiosock.IPPROTO_IPV6, aiosock.IPV6_V6ONLY, not both)
        await sock.bind(address)
        tell(f"aiosock: listening at {written('udp', sock.getsockname())}{how}")
        yield sock


async def accept(place: Endpoint, source: Input, sink: Output, options: argparse.Namespace) -> None:
    """One connection, or with -k one after the other."""
    context = security.as_server(options) if place.scheme == "tls" else None
    async with listener(place, options.family) as listening:
        while True:
            conn, peer = await listening.accept()
            with conn:
                if not options.keep:
                    listening.close()
                await serve_one(place, conn, peer, context, source, sink, options)
            if not options.keep:
                return


@asynccontextmanager
async def listener(place: Endpoint, family: int) -> AsyncIterator[aiosock.socket]:
    """A listening socket, of which is told; its path ends with it."""
    address = await listening_address(place, family, _stdlib.SOCK_STREAM)
    kind = aiosock.AF_UNIX if place.is_path else aiosock.AF_INET
    if not place.is_path and ":" in address[0]:
        kind = aiosock.AF_INET6
    both = takes_both(place, family)
    async with aiosock.create_server(address, family=kind, dualstack_ipv6=both) as sock:
        tell(f"aiosock: listening at {written(place.scheme, sock.getsockname())}")
        with ExitStack() as stack:
            stack.callback(remover(sock))
            yield sock


async def serve_one(
    place: Endpoint,
    conn: aiosock.socket,
    peer: Any,
    context: ssl.SSLContext | None,
    source: Input,
    sink: Output,
    options: argparse.Namespace,
) -> None:
    """A connection that was accepted; with -k what goes wrong with it ends no other."""
    try:
        if context is not None:
            conn.settimeout(options.timeout)
            conn = await conn.start_tls(context, server_side=True)
            conn.settimeout(None)
        with conn:
            if options.verbose:
                tell_connection(place, conn, peer)
            await converse(Stream(conn, options.shutdown), source, sink, options)
    except (OSError, Refusal) as error:
        if not options.keep:
            raise
        tell(f"aiosock: {explained(error)}")
