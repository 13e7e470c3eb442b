"""The other end of a connection, which acts at once and never waits.

What a test lets it say is in the kernel when the call returns; what it takes is all that has
come.  So a test says in which turn of the loop its peer does what.  Plain, or over TLS.
"""

import os
import socket as _stdlib
import ssl
import struct
from contextlib import ExitStack, suppress

from secured import Peer, plain_pair, with_peer

import aiosock

__all__ = ["SecureWire", "Wire", "wired"]

AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: a close resets the connection


class Wire:
    """The plain one."""

    def __init__(self, sock: aiosock.socket) -> None:
        self.sock = sock
        self.ended = False  # our end has said that nothing follows

    def sealed(self, data: bytes) -> bytes:
        """The bytes that stand for the data, to be put in pieces."""
        return data

    def put(self, data: bytes) -> None:
        """Have the kernel take all of it, at once."""
        assert not data or os.write(self.sock.fileno(), data) == len(data)

    def say(self, data: bytes) -> None:
        self.put(self.sealed(data))

    def end(self) -> None:
        """Nothing follows."""
        self.sock.shutdown(_stdlib.SHUT_WR)

    def cut(self) -> None:
        """Nothing follows, and over TLS nobody has said so."""
        self.sock.shutdown(_stdlib.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, AT_ONCE)
        self.sock.close()

    def take(self) -> bytes:
        """All that has come."""
        got = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.sock.fileno(), 2**20):
                got += piece
            self.ended = True
        # Who has just spoken would acknowledge late, and the other waits for room.
        self.sock.setsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_QUICKACK, 1)
        return got


class SecureWire(Wire):
    """The one over TLS, which says what the ssl object has to say at once too."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.sock)
        self.peer = peer

    def sealed(self, data: bytes) -> bytes:
        return self.peer.sealed(data)

    def end(self) -> None:
        self.put(self.peer.farewell())
        super().end()

    def take(self) -> bytes:
        self.peer.incoming.write(super().take())
        got = b""
        try:
            while piece := self.peer.tls.read(2**16):
                got += piece
            self.ended = True
        except ssl.SSLWantReadError:
            self.ended = False
        except ssl.SSLError:  # the end, or an alert, as one who was cut sends
            self.ended = True
        self.put(self.peer.outgoing.read())
        return got


async def wired(stack: ExitStack, secure: bool, tiny: bool = False) -> tuple[aiosock.socket, Wire]:
    """A socket of ours, and the other end; `tiny` if the kernel shall not take much."""
    if secure:
        # To a server no tickets come, which whoever reads would hear; from a client goes more.
        sock, peer = await with_peer(stack, server_side=not tiny, tiny=tiny)
        return sock, SecureWire(peer)
    one, other = plain_pair(stack, tiny)
    return one, Wire(other)
