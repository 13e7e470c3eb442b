"""No tasks, no loop but this one: what Python allows at most."""

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._programs import announce
from . import HERE, SIZE


class Plain:
    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    def hear(self) -> bool:
        """Echo what comes; whether more may come."""
        data = self.sock.recv(SIZE)
        self.sock.sendall(data)
        return bool(data)


class Once(Plain):
    def hear(self) -> bool:
        super().hear()
        return False


class Secure(Plain):
    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        super().__init__(sock, context)
        assert context is not None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.talk = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.act: Callable[[], None] = self.shake_hands

    def shake_hands(self) -> None:
        self.talk.do_handshake()
        self.act = self.echo

    def echo(self) -> None:
        self.talk.write(self.talk.read(SIZE))

    def hear(self) -> bool:
        data = self.sock.recv(SIZE)
        self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            while data:
                self.act()
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())
        return bool(data)


WORKS = {"echo": Plain, "once": Once, "secure": Secure}


def run(handler: Any, subject: str, context: ssl.SSLContext | None) -> None:
    epoll, conns = select.epoll(), dict[int, Plain]()
    kind = handler if context is None else Secure
    with socket.create_server(HERE, backlog=128) as listener:
        epoll.register(listener, select.EPOLLIN)
        announce(listener.getsockname()[1])
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    conn, _ = listener.accept()
                    conns[conn.fileno()] = kind(conn, context)
                    epoll.register(conn, select.EPOLLIN)
                    continue
                with suppress(OSError):  # whoever goes, and how
                    if conns[fd].hear():
                        continue
                conns.pop(fd).sock.close()
