"""Both ends of TLS: certificates of one authority, and a peer whose records are in our hands."""

import asyncio
import socket as _stdlib
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any

import trustme

import aiosock

HOST = "localhost"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
TINY = 4096  # bytes of a kernel's buffer, of which it makes twice as many


# --- certificates and contexts --------------------------------------------------------


@cache
def authority() -> Any:
    return trustme.CA()


@cache
def certificate(*hosts: str, **fields: Any) -> Any:
    return authority().issue_cert(*hosts or (HOST, "127.0.0.1"), **fields)


def adjusted(context: ssl.SSLContext, settings: dict[str, Any]) -> ssl.SSLContext:
    if version := settings.pop("version", None):
        context.minimum_version = context.maximum_version = version
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def serving(shown: Any = None, **settings: Any) -> ssl.SSLContext:
    """A server's context, which shows a certificate and believes those of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (shown or certificate()).configure_cert(context)
    authority().configure_trust(context)
    return adjusted(context, settings)


def trusting(shown: Any = None, **settings: Any) -> ssl.SSLContext:
    """A client's context, which verifies the server; with a certificate if one is to be shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    assert context.check_hostname
    return adjusted(context, settings)


# --- connections ----------------------------------------------------------------------


def raw_pair(tiny: bool = False) -> tuple[_stdlib.socket, _stdlib.socket]:
    """The client's and the server's end of a TCP connection."""
    with _stdlib.socket() as listener:
        client = _stdlib.socket()
        for sock in (listener, client) if tiny else ():
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, TINY)
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_RCVBUF, TINY)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):  # a small piece waits for no acknowledgement of another
        sock.setsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_NODELAY, 1)
    return client, server


@cache
def usual(server_side: bool) -> ssl.SSLContext:
    """The context where a test asks for nothing particular."""
    return serving() if server_side else trusting()


def plain_pair(stack: ExitStack, tiny: bool = False) -> tuple[aiosock.socket, aiosock.socket]:
    one, other = (aiosock.from_stdlib_socket(sock) for sock in raw_pair(tiny))
    return stack.enter_context(one), stack.enter_context(other)


async def secured_pair(
    stack: ExitStack,
    client_context: ssl.SSLContext | None = None,
    server_context: ssl.SSLContext | None = None,
    tiny: bool = False,
    **arguments: Any,
) -> tuple[aiosock.SSLSocket, aiosock.SSLSocket]:
    """Two of our own that have shaken hands: the client's and the server's."""
    client, server = plain_pair(stack, tiny)
    async with asyncio.TaskGroup() as group:
        one = group.create_task(
            client.start_tls(client_context or usual(False), server_hostname=HOST, **arguments)
        )
        other = group.create_task(server.start_tls(server_context or usual(True), server_side=True))
    return stack.enter_context(one.result()), stack.enter_context(other.result())


async def with_peer(
    stack: ExitStack,
    server_side: bool = False,
    tiny: bool = False,
    context: ssl.SSLContext | None = None,
    peers: ssl.SSLContext | None = None,
    **arguments: Any,
) -> tuple[aiosock.SSLSocket, "Peer"]:
    """A socket of ours on the side that is asked for, and its peer, after the handshake."""
    client, server = plain_pair(stack, tiny)
    ours, others = (server, client) if server_side else (client, server)
    peer = Peer(others, not server_side, peers)
    made, _ = await asyncio.gather(
        start(ours, server_side, context, **arguments), peer.shake_hands()
    )
    return stack.enter_context(made), peer


async def start(
    sock: aiosock.socket, server_side: bool, context: ssl.SSLContext | None = None, **arguments: Any
) -> aiosock.SSLSocket:
    """The handshake on one side, with the usual context."""
    if server_side:
        return await sock.start_tls(context or usual(True), server_side=True, **arguments)
    return await sock.start_tls(context or usual(False), server_hostname=HOST, **arguments)


class Peer:
    """The other end: the stdlib's SSLObject on a plain socket, speaking when we let it."""

    def __init__(
        self, sock: aiosock.socket, server_side: bool, context: ssl.SSLContext | None = None
    ) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or usual(server_side)
        host = None if server_side else HOST
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, host)

    async def say(self) -> None:
        if self.outgoing.pending:
            await self.sock.sendall(self.outgoing.read())

    async def hear(self) -> None:
        if data := await self.sock.recv(2**16):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    async def until(self, act: Callable[..., Any], *args: Any) -> Any:
        """What an act of TLS gives; what it has to say at its end is not said yet."""
        while True:
            try:
                return act(*args)
            except ssl.SSLWantReadError:
                await self.say()
                await self.hear()

    async def do(self, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return await self.until(act, *args)
        finally:
            await self.say()

    async def shake_hands(self) -> None:
        await self.do(self.tls.do_handshake)

    def sealed(self, data: bytes) -> bytes:
        """The records of the data, behind what has not been said yet."""
        while data:
            data = data[self.tls.write(data) :]
        return self.outgoing.read()

    def farewell(self) -> bytes:
        """A close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        await self.sock.sendall(self.sealed(data))

    async def recv(self, size: int = 2**16) -> bytes:
        data: bytes = await self.do(self.tls.read, size)
        return data

    async def recv_all(self) -> bytes:
        """All to the end of TLS."""
        pieces = []
        while piece := await self.recv():
            pieces.append(piece)
        return b"".join(pieces)


async def exactly(size: int, receive: Callable[[int], Any]) -> bytes:
    """So many bytes, in as many calls as it takes."""
    got = bytearray()
    while len(got) < size and (data := await receive(size - len(got))):
        got += data
    return bytes(got)
