"""A connection that changes hands: to asyncio's streams, and back to aiosock.

    python examples/streams_handover.py

`to_streams` gives a socket away for good: `detach` gives its descriptor back in blocking mode,
as the stdlib has it, and the streams take it from there.  What the socket has not received is
received by the streams.

`from_streams` needs two steps.  A transport closes its own descriptor in the end, so the socket
that comes back has a duplicate of it: the connection stays.  And a transport receives before
anybody asks, so that bytes may lie in the StreamReader: they are handed out beside the socket,
and come before what it receives.  Closing the transport ends its reading at once, and sends
what it has not sent.  Both do the same on uvloop.  TLS does not change hands: it is more than a
descriptor.
"""

import asyncio
import socket

import aiosock

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def to_streams(sock: aiosock.socket) -> Streams:
    """Streams in the place of a connected socket, which is closed then."""
    if isinstance(sock, aiosock.SSLSocket):
        raise TypeError("a plain socket is needed: TLS is more than a descriptor")
    return await asyncio.open_connection(sock=socket.socket(fileno=sock.detach()))


async def from_streams(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[aiosock.socket, bytes]:
    """A socket in the place of streams, and what they have received that nobody has read.

    Awaits that all is sent.  A cancelled or failed call closes the connection.
    """
    if writer.get_extra_info("ssl_object") is not None:
        raise TypeError("plain streams are needed: TLS is more than a descriptor")
    theirs = writer.get_extra_info("socket")  # forbids all but questions
    sock = aiosock.fromfd(theirs.fileno(), theirs.family, theirs.type, theirs.proto)
    try:
        writer.close()
        await writer.wait_closed()
        return sock, await reader.read()  # its end is the transport's, not the peer's
    except BaseException:
        writer.transport.abort()
        sock.close()
        raise


# --- the example ------------------------------------------------------------------------


async def answer(conn: aiosock.socket) -> None:
    """The other end: two lines for each line that comes."""
    async with conn, conn.makefile("rw") as lines:
        async for line in lines:
            await lines.write(f"{line.strip()} yourself\nand so on\n")
            await lines.flush()


async def main() -> None:
    sock, other = aiosock.socketpair()
    answering = asyncio.create_task(answer(other))

    await sock.sendall(b"hello\n")
    print("aiosock received", await sock.recv(6))

    reader, writer = await to_streams(sock)
    print("streams read", await reader.readline())
    writer.write(b"good day\n")

    sock, ahead = await from_streams(reader, writer)
    print("streams had read ahead", ahead)
    async with sock:
        print("aiosock received", await sock.recv(100))
    await answering


if __name__ == "__main__":
    aiosock.run(main())
