"""WebSocket with `wsproto`: an echo server, and a client that sends it all kinds of message.

    python examples/wsproto_echo.py server [host] [port]
    python examples/wsproto_echo.py client [host] [port] [message ...]

The server sends each piece of a message back as it comes, with the fragments that it came in, and
so never holds a whole one.  Who does not ask for a WebSocket is refused, and who has not asked
after ten seconds is let go.  The client sends its messages as text, then one of bytes, then one
in fragments with a ping between them, and prints what comes; then both sides close.

Both send from wherever they are: two `sendall` never mix.  The server serves this machine only
unless another host is given; port 0 takes a free one.  Ctrl-C stops it.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

import aiosock


class WebSocket:
    """One side of a talk: `wsproto` has the protocol, and the socket has the bytes."""

    def __init__(self, sock: aiosock.socket, side: ConnectionType) -> None:
        self._sock, self._protocol = sock, WSConnection(side)

    async def connect(self, host: str, target: str = "/") -> None:
        await self.send(Request(host=host, target=target))
        answer = await self._first_event()
        if isinstance(answer, RejectConnection):
            raise ConnectionRefusedError(f"no WebSocket here: {answer.status_code}")

    async def accept(self) -> None:
        try:
            await self._first_event()
        except (RemoteProtocolError, UnicodeError) as error:  # of a host that is no name
            await self.send(getattr(error, "event_hint", None) or RejectConnection())
            raise ConnectionError(f"this is no WebSocket's request: {error}") from error
        await self.send(AcceptConnection())

    async def send(self, event: Event) -> None:
        await self._sock.sendall(self._protocol.send(event))

    async def events(self) -> AsyncIterator[Event]:
        """What comes, up to a CloseConnection; that, and pings, are answered beside."""
        while True:
            for event in self._protocol.events():
                if isinstance(event, Ping) and self._is_in(ConnectionState.OPEN):
                    await self.send(event.response())
                yield event
                if isinstance(event, CloseConnection):
                    if self._is_in(ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                        await self.send(event.response())
                    return
            data = await self._sock.recv(65536)
            self._protocol.receive_data(data or None)  # the end comes as CloseConnection(1006)

    async def _first_event(self) -> Event:
        while (event := next(self._protocol.events(), None)) is None:
            if not (data := await self._sock.recv(65536)):
                raise ConnectionError("the peer has hung up before the handshake")
            self._protocol.receive_data(data)
        return event

    def _is_in(self, *states: ConnectionState) -> bool:
        return self._protocol.state in states


# --- the server -------------------------------------------------------------------------


async def serve(host: str, port: int) -> None:
    async with aiosock.serve(echo, (host, port), grace_period=1) as server:
        print("listening on", server.sockets[0].getsockname(), flush=True)
        await server.serve_forever()


async def echo(conn: aiosock.socket, peer: Any) -> None:
    websocket = WebSocket(conn, ConnectionType.SERVER)
    try:
        async with asyncio.timeout(10):
            await websocket.accept()
        async for event in websocket.events():
            if isinstance(event, Message):
                await websocket.send(event)
            elif isinstance(event, CloseConnection):
                print(peer, "has closed:", int(event.code), event.reason or "", flush=True)
    except OSError as error:
        print(peer, f"is gone: {error!r}", flush=True)


# --- the client -------------------------------------------------------------------------


async def talk(host: str, port: int, messages: list[str]) -> None:
    async with aiosock.create_connection((host, port), timeout=30) as sock:
        websocket = WebSocket(sock, ConnectionType.CLIENT)
        await websocket.connect(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await asyncio.gather(say(websocket, messages), hear(websocket, len(messages) + 2))


async def say(websocket: WebSocket, messages: list[str]) -> None:
    for message in messages:
        await websocket.send(TextMessage(data=message))
    await websocket.send(BytesMessage(data=bytes(range(8))))
    await websocket.send(TextMessage(data="in frag", message_finished=False))
    await websocket.send(Ping(payload=b"between"))
    await websocket.send(TextMessage(data="ments"))


async def hear(websocket: WebSocket, count: int) -> None:
    """Print what comes, and close after so many messages."""
    pieces: list[Any] = []
    async for event in websocket.events():
        if isinstance(event, Message):
            pieces.append(event.data)
            if event.message_finished:
                print("message", repr(type(event.data)().join(pieces)))
                pieces, count = [], count - 1
                if not count:
                    await websocket.send(CloseConnection(code=1000, reason="that was all"))
        elif isinstance(event, Pong):
            print("pong", bytes(event.payload))
        elif isinstance(event, CloseConnection):
            print("closed:", int(event.code), event.reason or "")


async def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server and client over WebSocket.")
    parser.add_argument("side", choices=["server", "client"])
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("message", nargs="*", default=["Hello, world"])
    args = parser.parse_args()
    if args.side == "server":
        await serve(args.host, args.port)
    else:
        await talk(args.host, args.port, args.message)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
