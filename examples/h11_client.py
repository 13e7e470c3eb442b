"""An HTTP/1.1 client with `h11`: prints what is at a URL, as it comes; or posts a file.

    python examples/h11_client.py [url] [--post FILE] [--ca FILE]

A file of any size is sent in pieces, while the answer is received: a server may begin to answer
before it has all.  The status goes to stderr, the body to stdout.  https is trusted by the
authorities that this machine knows, or by those of the FILE given.
"""

import argparse
import asyncio
import ssl
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, nullcontext
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import h11

import aiosock

Pieces = Iterable[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP/1.1 client.")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:50007/")
    parser.add_argument("--post", metavar="FILE", help="what to send")
    parser.add_argument("--ca", metavar="FILE", help="certificates of the authorities, PEM")
    args = parser.parse_args()
    context = ssl.create_default_context(cafile=args.ca)
    with open(args.post, "rb") if args.post else nullcontext() as file:
        pieces = iter(partial(file.read, 65536), b"") if file else None
        aiosock.run(show(args.url, context, pieces))


async def show(url: str, context: ssl.SSLContext, pieces: Pieces | None) -> None:
    async with aclosing(fetch(url, context, pieces)) as events:
        async for event in events:
            if isinstance(event, h11.Response):
                print(event.status_code, event.reason.decode(), file=sys.stderr)
            elif isinstance(event, h11.Data):
                sys.stdout.buffer.write(event.data)
                sys.stdout.flush()


async def fetch(
    url: str, context: ssl.SSLContext, pieces: Pieces | None = None
) -> AsyncGenerator[Any, None]:
    """h11's events of the answer: the Response, its Data, the EndOfMessage."""
    where = urlsplit(url)
    secure = where.scheme == "https"
    address = where.hostname, where.port or (443 if secure else 80)
    target = (where.path or "/") + (f"?{where.query}" if where.query else "")
    headers = [("Host", where.netloc), ("Connection", "close")]
    if pieces is not None:
        headers.append(("Transfer-Encoding", "chunked"))
    request = h11.Request(
        method="GET" if pieces is None else "POST", target=target, headers=headers
    )
    async with aiosock.create_connection(
        address, timeout=30, ssl=context if secure else None
    ) as sock:
        http = h11.Connection(h11.CLIENT)
        await sock.sendall(http.send(request))
        posting = asyncio.create_task(post(sock, http, pieces or ()))
        try:
            async for event in answer(sock, http):
                yield event
        finally:
            posting.cancel()  # the server may not want to have all of it


async def post(sock: aiosock.socket, http: h11.Connection, pieces: Pieces) -> None:
    body = (h11.Data(data=piece) for piece in pieces)
    for event in chain(body, [h11.EndOfMessage()]):
        try:
            await sock.sendall(http.send(event) or b"")
        except OSError:
            return  # the server has enough of it, and its answer may say why


async def answer(sock: aiosock.socket, http: h11.Connection) -> AsyncGenerator[Any, None]:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await sock.recv(65536))
            continue
        yield event
        if isinstance(event, h11.EndOfMessage):
            return


if __name__ == "__main__":
    main()
