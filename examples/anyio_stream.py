"""Code written for anyio, over aiosock's sockets: lines with a limit, in plain or in TLS.

    python examples/anyio_stream.py

`Stream` makes an anyio byte stream of a connected socket.  All that anyio has for byte streams
works on top: its buffered streams, its TLSStream, typed attributes; `raw_socket` among these is
the socket itself, with all that anyio does not show.  It is of use where anyio runs on asyncio,
uvloop included.

Who wants to have anyio's own socket stream, and be done with aiosock, gives the descriptor away:
``await anyio.abc.SocketStream.from_socket(sock.detach())``.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteStream

import aiosock


class Stream(ByteStream):
    """An anyio byte stream over a connected socket, whose timeout is anyio's business then."""

    def __init__(self, sock: aiosock.socket) -> None:
        sock.settimeout(None)
        self._sock = sock

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if max_bytes < 1:
            raise ValueError("max_bytes must be a positive integer")
        await checkpoint()  # anyio's calls always give way; a socket's, where they have to wait
        with anyios_errors():
            data = await self._sock.recv(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        await checkpoint()
        with anyios_errors():
            await self._sock.sendall(item)

    async def send_eof(self) -> None:
        with anyios_errors():
            self._sock.shutdown(aiosock.SHUT_WR)
        await checkpoint()

    async def aclose(self) -> None:
        self._sock.close()  # whoever waits for it gets ClosedResourceError
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        sock = self._sock
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: sock.family,
            SocketAttribute.local_address: sock.getsockname,
            SocketAttribute.remote_address: sock.getpeername,
            SocketAttribute.raw_socket: lambda: sock,
        }
        if sock.family in (aiosock.AF_INET, aiosock.AF_INET6):
            attributes[SocketAttribute.local_port] = lambda: sock.getsockname()[1]
            attributes[SocketAttribute.remote_port] = lambda: sock.getpeername()[1]
        return attributes


@contextmanager
def anyios_errors() -> Iterator[None]:
    """A socket's errors in anyio's words."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBADF:
            raise anyio.ClosedResourceError from error
        raise anyio.BrokenResourceError from error


# --- the example ------------------------------------------------------------------------


async def shout(stream: ByteStream) -> None:
    """What knows anyio alone: says each line louder, and ends with who says a long one."""
    async with BufferedByteStream(stream) as lines:
        try:
            while True:
                line = await lines.receive_until(b"\n", max_bytes=80)
                await lines.send(line.upper() + b"!\n")
        except anyio.DelimiterNotFound:
            await lines.send(b"too long\n")
        except anyio.IncompleteRead:
            print("shout: from", stream.extra(SocketAttribute.remote_address), "no more")


async def main() -> None:
    async with (
        aiosock.create_server(("127.0.0.1", 0)) as server,
        aiosock.create_connection(server.getsockname()) as client,
        anyio.create_task_group() as tasks,
    ):
        conn, peer = await server.accept()
        print("connected from", peer)
        tasks.start_soon(shout, Stream(conn))
        async with BufferedByteStream(Stream(client)) as lines:
            for word in (b"hear", b"me"):
                await lines.send(word + b"\n")
                print(await lines.receive_until(b"\n", max_bytes=100))
            with anyio.move_on_after(0.05):
                await lines.receive()
            print("nothing comes unasked")


if __name__ == "__main__":
    aiosock.run(main())
