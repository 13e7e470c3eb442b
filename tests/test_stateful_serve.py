"""serve() under storms: clients and handlers that do what they like, limits, drains, restarts.

Clients come in crowds, say what their handler shall do (answer, crash, hang, cancel itself), half
close, reset the connection or stay silent.  The server has a limit or none, speaks TLS or not; it
is drained with more or less patience, also by one who is cancelled meanwhile, and another
one starts at the same listener.

What is judged: in the order in which they came as many clients are served as may be, and who
waits in the kernel's queue is served by whichever server comes next; what each says is
answered; a drain ends, and behind it no connection that was accepted is open, no handler runs,
and the numbers are right.

How often it runs is told in stateful.py.
"""

import asyncio
import logging
import socket as _stdlib
import struct
from contextlib import suppress
from typing import Any

from faces import LIMIT
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from secured import HOST, usual
from stateful import Machine, each_loop, run_machine

import aiosock

AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: a close resets the connection
ORDERS = ["answer", "crash", "hang", "cancel"]
SOON = 0.005  # seconds of patience
MOST = 6  # clients at a time


class Client:
    """One who connects, and says one word at a time."""

    def __init__(self, sock: aiosock.socket, secure: bool) -> None:
        self.sock, self.secure = sock, secure
        self.order = "answer"  # the last one
        self.hearing = asyncio.ensure_future(self.hear())
        self.heard = b""

    async def hear(self) -> None:
        """All that comes, until the end."""
        with suppress(OSError):
            if self.secure:
                context = usual(False)
                self.sock = await self.sock.start_tls(context, server_hostname=HOST)
            while data := await self.sock.recv(1000):
                self.heard += data

    async def say(self, word: str) -> None:
        self.order = word
        with suppress(OSError):
            await self.sock.sendall(word.encode() + b"\n")

    def reset(self) -> None:
        with suppress(OSError):  # in the midst of a handshake it is another object's
            self.sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, AT_ONCE)
        self.close()

    def close(self) -> None:
        self.hearing.cancel()
        self.sock.close()


class Serving(Machine):
    listener: aiosock.socket | None = None

    @initialize(secure=st.booleans(), most=st.sampled_from([None, 1, 2]))
    def begin(self, secure: bool, most: int | None) -> None:
        self.secure, self.most = secure, most
        self.listener = self.run(self.listening())
        self.stack.enter_context(self.listener)
        self.clients: list[Client] = []
        self.running = 0
        self.conns: list[aiosock.socket] = []
        self.server: aiosock.Server | None = None
        self.serve()

    async def listening(self) -> aiosock.socket:
        return await aiosock.create_server(("127.0.0.1", 0))

    async def handle(self, conn: aiosock.socket, peer: Any) -> None:
        self.conns.append(conn)
        self.running += 1
        self.served += 1
        try:
            await conn.sendall(b"welcome\n")
            async with conn.makefile("rb") as file:
                async for word in file:
                    await self.obey(conn, word.decode().strip())
        finally:
            self.running -= 1

    async def obey(self, conn: aiosock.socket, order: str) -> None:
        if order == "crash":
            self.crashed += 1
            raise ZeroDivisionError
        if order == "hang":
            await asyncio.sleep(60)
        if order == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
        await conn.sendall(b"answer\n")

    def serve(self) -> None:
        assert self.listener is not None
        self.crashed = self.served = 0
        self.stuck = 0  # handlers that hang, and whose client has gone
        self.server = aiosock.serve(
            self.handle,
            self.listener,
            ssl=usual(True) if self.secure else None,
            max_connections=self.most,
            grace_period=SOON,
        )
        self.run(self.server.__aenter__())
        self.settle()

    # --- clients --------------------------------------------------------------------------

    @precondition(lambda self: self.listener)
    @rule(count=st.integers(1, 4))
    def come(self, count: int) -> None:
        for _ in range(min(count, MOST - len(self.clients))):
            client = self.run(self.connected())
            self.stack.callback(client.close)
            self.clients.append(client)
        self.settle()

    async def connected(self) -> Client:
        assert self.listener is not None
        sock = await aiosock.create_connection(self.listener.getsockname())
        return Client(sock, self.secure)

    @precondition(lambda self: self.listener)
    @rule(at=st.integers(0, MOST - 1), order=st.sampled_from(ORDERS))
    def order(self, at: int, order: str) -> None:
        if at >= len(self.clients):
            return
        client = self.clients[at]
        if not client.heard or client.order != "answer" or client.hearing.done():
            return
        before = client.heard
        self.run(client.say(order))
        if order == "answer":
            self.until(lambda: client.heard != before)
            assert client.heard == before + b"answer\n"
        elif order in ("crash", "cancel"):
            self.until(client.hearing.done)
            self.forget(client)
        self.settle()

    @precondition(lambda self: self.listener)
    @rule(at=st.integers(0, MOST - 1), how=st.sampled_from(["reset", "close"]))
    def go(self, at: int, how: str) -> None:
        if at < len(self.clients):
            client = self.clients[at]
            getattr(client, how)()
            self.until(client.hearing.done)
            self.stuck += client.order == "hang"
            self.forget(client)
            self.settle()

    def forget(self, client: Client) -> None:
        client.close()
        self.clients.remove(client)

    # --- the server ----------------------------------------------------------------------

    @precondition(lambda self: self.listener)
    @rule(impatient=st.booleans(), turns=st.integers(0, 4))
    def restart(self, impatient: bool, turns: int) -> None:
        self.drain(impatient, turns)
        self.serve()

    def drain(self, impatient: bool, turns: int) -> None:
        """Leave the server, and be cancelled meanwhile if one is impatient."""
        server = self.server
        assert server is not None
        leaving = self.start(server.__aexit__())
        self.turn(turns)
        if impatient:
            leaving.cancel()
        self.run(asyncio.wait([leaving], timeout=LIMIT))
        assert leaving.done(), "the drain hangs"
        assert leaving.cancelled() or leaving.result() is None
        assert (server.active, server.sockets, self.running) == (0, (), 0)
        assert all(conn.fileno() == -1 for conn in self.conns)
        assert server.accepted >= self.served
        if not self.secure:
            assert server.accepted == self.served
        assert server.failed >= self.crashed
        self.conns.clear()
        for client in [client for client in self.clients if client.heard]:
            self.until(client.hearing.done)  # whoever was served sees the end
            self.forget(client)

    # --- what must be true ----------------------------------------------------------------

    def settle(self) -> None:
        """As many as may be are served, the first comers first; nobody else is."""
        self.turn()
        room = len(self.clients) if self.most is None else self.most - self.stuck
        for client in self.clients[:room]:
            self.until(lambda client=client: client.heard)
        self.turn()
        if self.most is not None:
            assert self.running <= self.most
        for client in self.clients[room:]:
            assert not client.heard
        for client in self.clients[:room]:
            assert client.heard.startswith(b"welcome\n")

    def until(self, true: Any) -> None:
        self.run(self.wait_for(true))

    async def wait_for(self, true: Any) -> None:
        while not true():  # noqa: ASYNC110  # the kernel makes it true, which can set no Event
            await asyncio.sleep(0)

    def finish(self) -> None:
        if self.listener is None:
            return
        self.drain(False, 0)
        for client in list(self.clients):  # in the queue, where nobody serves them
            assert not client.heard
            client.close()
            self.until(client.hearing.done)


@each_loop
def test_nobody_is_lost_and_every_drain_ends(loop: str) -> None:
    logging.getLogger("aiosock").setLevel(logging.CRITICAL)
    try:
        run_machine(Serving, loop)
    finally:
        logging.getLogger("aiosock").setLevel(logging.NOTSET)
