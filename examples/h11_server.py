"""An HTTP/1.1 server with `h11`: greets who asks, and sends back what is posted, as it comes.

    python examples/h11_server.py [host] [port] [--certificate FILE] [--patience SECONDS]

A connection serves one request after the other.  A bad request is answered with 400, or what
h11 finds fit, and a client that vanishes costs nobody else anything.  Who has not said what he
wants within so many seconds (10), sends nothing of his body or takes nothing of the answer, is
let go.  With FILE, which is in PEM form and holds the key and the chain of certificates, it
serves https.  It serves this machine only unless another host is given; port 0 takes a free
one.  Ctrl-C stops it: who has not had his answer after a second is cut off.
"""

import argparse
import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import h11

import aiosock


async def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP/1.1 server.")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", default=50007, type=int)
    parser.add_argument("--certificate", metavar="FILE", help="key and chain, PEM")
    parser.add_argument("--patience", metavar="SECONDS", default=10.0, type=float)
    args = parser.parse_args()
    context = None
    if args.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.certificate)
    async with aiosock.serve(
        partial(serve_client, patience=args.patience),
        (args.host, args.port),
        ssl=context,
        ssl_handshake_timeout=args.patience,
        grace_period=1,
    ) as server:
        print("listening on", server.sockets[0].getsockname(), flush=True)
        await server.serve_forever()


async def serve_client(conn: aiosock.socket, peer: Any, patience: float) -> None:
    conn.settimeout(patience)  # for each receive, and each sendall
    exchange = Exchange(conn)
    try:
        try:
            while await serve_request(exchange, peer, patience):
                exchange.http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await refuse(exchange, peer, error)
            await let_go(conn)
    except OSError as error:
        print(peer, f"is gone: {error!r}", flush=True)


class Exchange:
    """A client's side of the talk: `h11` has the protocol, and the socket has the bytes."""

    def __init__(self, sock: aiosock.socket) -> None:
        self._sock, self.http = sock, h11.Connection(h11.SERVER)
        self.asked_for_head = False

    async def next_event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self._sock.recv(65536))
        return event

    async def body(self) -> AsyncIterator[h11.Data]:
        """The pieces of a request's body, as they come."""
        while isinstance(data := await self.next_event(), h11.Data):
            yield data

    async def send(self, event: h11.Event) -> None:
        if data := self.http.send(event):
            await self._sock.sendall(data)

    async def answer(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        await self.begin(
            status, ("Content-Type", "text/plain"), ("Content-Length", str(len(text))), *headers
        )
        if not self.asked_for_head:
            await self.send(h11.Data(data=text.encode()))
        await self.send(h11.EndOfMessage())

    async def begin(self, status: int, *headers: tuple[str, str]) -> None:
        reason = HTTPStatus(status).phrase
        await self.send(h11.Response(status_code=status, reason=reason, headers=list(headers)))


async def serve_request(exchange: Exchange, peer: Any, patience: float) -> bool:
    """Whether another request may follow."""
    exchange.asked_for_head = False
    async with asyncio.timeout(patience):  # for all of it, however many pieces it comes in
        request = await exchange.next_event()
    if not isinstance(request, h11.Request):
        return False  # the client has closed the connection, between two requests
    print(peer, request.method.decode(), request.target.decode(), flush=True)
    exchange.asked_for_head = request.method == b"HEAD"
    if exchange.http.they_are_waiting_for_100_continue:
        await exchange.send(h11.InformationalResponse(status_code=100, headers=[]))
    if request.method == b"POST":
        await send_back(exchange)
    else:
        async for _ in exchange.body():
            pass
        if request.method in (b"GET", b"HEAD"):
            await exchange.answer(200, f"You asked for {request.target.decode()}\n")
        else:
            await exchange.answer(405, "GET, HEAD or POST\n", ("Allow", "GET, HEAD, POST"))
    return exchange.http.our_state is h11.DONE is exchange.http.their_state


async def send_back(exchange: Exchange) -> None:
    """The body of the request as that of the answer, without ever having all of it."""
    await exchange.begin(200, ("Content-Type", "application/octet-stream"))
    async for data in exchange.body():
        await exchange.send(data)
    await exchange.send(h11.EndOfMessage())


async def refuse(exchange: Exchange, peer: Any, error: h11.RemoteProtocolError) -> None:
    print(peer, "is refused:", error, flush=True)
    if exchange.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
        await exchange.answer(error.error_status_hint, f"{error}\n", ("Connection", "close"))


async def let_go(conn: aiosock.socket) -> None:
    """Take what is still under way for a second: to close before would recall the answer."""
    if not isinstance(conn, aiosock.SSLSocket):  # TLS has no half-closed connections
        conn.shutdown(aiosock.SHUT_WR)
    async with asyncio.timeout(1):
        while await conn.recv(65536):
            pass


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        aiosock.run(main())
