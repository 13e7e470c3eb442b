"""Blocking sockets and a thread for each connection: the stdlib's, or aiosock_sync's."""

import socket
import socketserver
import ssl
from collections.abc import Callable
from typing import Any

import aiosock_sync

from .._programs import announce
from . import BATCH, BUFFER, HERE, LINES, LONG, PIECE, SIZE


def echo(conn: socket.socket) -> None:
    while data := conn.recv(SIZE):
        conn.sendall(data)


def within(conn: socket.socket) -> None:
    conn.settimeout(LONG)
    echo(conn)


def once(conn: socket.socket) -> None:
    conn.sendall(conn.recv(SIZE))


def receive(conn: socket.socket) -> None:
    buffer, missing = bytearray(BUFFER), BATCH
    while got := conn.recv_into(buffer):
        missing -= got
        if not missing:
            conn.sendall(b"x")
            missing = BATCH


def send(conn: socket.socket) -> None:
    while conn.recv(1):
        for _ in range(BATCH // len(PIECE)):
            conn.sendall(PIECE)


def lines(conn: socket.socket) -> None:
    with conn.makefile("rb") as file:
        while True:
            for _ in range(LINES):
                file.readline()
            conn.sendall(b"x")


WORKS = {f.__name__: f for f in (echo, within, once, receive, send, lines)}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    if subject == "aiosock_sync":
        _serve_by_aiosock(handler, context)
    else:
        _serve_by_stdlib(handler, context)


def _serve_by_aiosock(handler: Any, context: ssl.SSLContext | None) -> None:
    def handle(conn: socket.socket, peer: object) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler(conn)

    with aiosock_sync.serve(handle, HERE, ssl=context) as server:
        announce(server.sockets[0].getsockname()[1])
        server.serve_forever()


def _serve_by_stdlib(handler: Callable[..., None], context: ssl.SSLContext | None) -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                return handler(self.request)
            with context.wrap_socket(self.request, server_side=True) as conn:
                handler(conn)
            return None

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 128
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None: ...

    with Server(HERE, Handler) as server:
        announce(server.server_address[1])
        server.serve_forever()
