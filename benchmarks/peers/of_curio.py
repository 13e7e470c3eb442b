"""curio's sockets: the stdlib's calls with `await`, as aiosock's, on a kernel of its own."""

import ssl
from contextlib import suppress
from typing import Any

import curio
import curio.network
import curio.ssl

from .._programs import announce
from . import HERE, LONG, SIZE
from .of_aiosock import echo, lines, once, receive, send


async def within(conn: Any) -> None:
    while data := await curio.timeout_after(LONG, conn.recv, SIZE):
        await curio.timeout_after(LONG, conn.sendall, data)


WORKS: dict[str, Any] = {f.__name__: f for f in (echo, once, receive, send, lines)}
WORKS["within"] = within


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    secure = context and curio.ssl.CurioSSLContext(context)

    async def handle(conn: Any, peer: object) -> None:
        with suppress(OSError):
            await handler(conn)

    async def main() -> None:
        listener = curio.tcp_server_socket(*HERE, backlog=128)
        announce(listener.getsockname()[1])
        await curio.network.run_server(listener, handle, secure)

    curio.run(main)
