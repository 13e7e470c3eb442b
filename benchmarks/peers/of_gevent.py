"""gevent: blocking text, as of threads, on greenlets."""

import socket
import ssl
from contextlib import suppress
from importlib import import_module
from typing import Any

from .._programs import announce
from . import HERE
from .of_threads import echo, lines, once, receive, send, within

SSLContext: Any = import_module("gevent.ssl").SSLContext  # the stdlib's would block them all
WORKS = {f.__name__: f for f in (echo, within, once, receive, send, lines)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    def handle(conn: Any, peer: object) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            handler(conn)

    servers: Any = import_module("gevent.server")
    secure = {} if context is None else {"ssl_context": context}
    server = servers.StreamServer(HERE, handle, backlog=128, **secure)
    server.start()
    announce(server.server_port)
    server.serve_forever()
