"""A TLS call that is stopped at any turn of the loop has lost nothing of the stream.

The sweep of test_cancellation.py, over TLS: each call is made again and again and stopped
at another turn, before, in and after those in which the peer acts.  Then the books are made
up: every byte was delivered or comes with the next call, what was encrypted is what the
call tells, a handshake that was stopped has closed the connection.
"""

import asyncio
import itertools
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
from secured import TLS12, Peer, exactly, plain_pair, start, trusting, with_peer
from test_cancellation import (
    AGAIN,
    BULK,
    CANCELLED,
    ENDLESS,
    EVENT,
    HELLO,
    TOO_LATE,
    Attempt,
    Moment,
    moments,
    serves_again,
)
from test_race import nothing_more
from test_tls import hello_request, new_keys

import aiosock

WAYS = (CANCELLED, (Attempt.cancel_soon, None), (Attempt.expire, ENDLESS))
PLAIN = b"plain"
LOTS = BULK * 2  # more than the kernel takes


def put(peer: Peer, data: bytes) -> None:
    """Have the kernel take all of it, at once."""
    assert os.write(peer.sock.fileno(), data) == len(data)


def take(peer: Peer) -> None:
    with suppress(BlockingIOError):
        peer.incoming.write(os.read(peer.sock.fileno(), 2**16))


def step(peer: Peer, act: Callable[[], Any]) -> Any:
    """One turn of the peer: it hears, acts and says; None if it has to hear more."""
    take(peer)
    result = None
    with suppress(ssl.SSLWantReadError):
        result = act()
    put(peer, peer.outgoing.read())
    return result


class Case:
    """One awaited call of TLS.  `happen` is what the peer does in a turn."""

    turns = EVENT + 4
    pause = 0.0  # between the turns, for what a thread does
    ends = {"returned", "stopped"}
    sock: aiosock.socket
    peer: Peer

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack)

    def call(self) -> Awaitable[Any]:
        raise NotImplementedError

    def happen(self) -> None:
        raise NotImplementedError

    def end(self, attempt: Attempt) -> str:
        return "returned" if attempt.returned else "stopped"

    async def account(self, attempt: Attempt) -> None:
        raise NotImplementedError


RECEIVING: dict[str, tuple[Callable[..., Any], Callable[..., bytes]]] = {
    "recv": (lambda s, b: s.recv(100), lambda v, b: v),
    "recv_into": (lambda s, b: s.recv_into(b), lambda v, b: bytes(b[:v])),
    "read some": (lambda s, b: s.read(2), lambda v, b: v),
    "wait_readable": (lambda s, b: ready(s), lambda v, b: b""),
}


async def ready(sock: aiosock.socket) -> bool:
    await sock.wait_readable()
    return True


class Receive(Case):
    """A record comes in pieces, and another."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        super().__init__(stack)
        self._call, self._data = RECEIVING[name]
        self.buffer = bytearray(100)

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack, server_side=True)  # no tickets come
        sealed = self.peer.sealed(HELLO)
        self.to_come = [sealed[:7], sealed[7:]]

    def call(self) -> Awaitable[Any]:
        result: Awaitable[Any] = self._call(self.sock, self.buffer)
        return result

    def happen(self) -> None:
        if self.to_come:
            put(self.peer, self.to_come.pop(0))

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        if attempt.returned:
            got = self._data(attempt.value, self.buffer)
        else:
            got = b""
            assert not any(self.buffer)
            self.buffer.extend(b"free to be resized")
        got += await exactly(len(HELLO) - len(got), self.sock.recv)
        assert got == HELLO
        await self.converse()

    async def converse(self) -> None:
        await self.peer.send(AGAIN)
        assert await self.sock.recv(100) == AGAIN
        await self.sock.sendall(AGAIN)
        assert await self.peer.recv() == AGAIN


class ReceiveNext(Receive):
    """In a conversation, which takes a shorter way through the engine."""

    turns = EVENT + 6

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack)
        sealed = self.peer.sealed(AGAIN), self.peer.sealed(HELLO)
        self.to_come = [sealed[0], sealed[1][:7], sealed[1][7:]]
        self.first = b""

    async def call(self) -> bytes:
        self.first = await self.sock.recv(100)
        return await self.sock.recv(100)

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        got = self.first + (attempt.value or b"")
        got += await exactly(len(AGAIN + HELLO) - len(got), self.sock.recv)
        assert got == AGAIN + HELLO
        await self.converse()


class ReceiveAmongKeys(Receive):
    """Between the records the peer changes its keys, and asks for ours."""

    async def prepare(self) -> None:
        await super().prepare()
        keys = new_keys(self.peer, True)
        self.to_come = [*self.to_come, keys[:3], keys[3:] + self.peer.sealed(AGAIN)]

    async def converse(self) -> None:
        assert await self.sock.recv(100) == AGAIN
        await super().converse()


class ReceiveAmongHandshakes(Receive):
    """The peer wants another handshake before it says anything."""

    turns = EVENT + 6

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack, context=trusting(version=TLS12))
        self.to_come = []
        self.asked = self.said = False
        self.before = self.peer.tls.get_channel_binding("tls-unique")

    def happen(self) -> None:
        if not self.asked:
            put(self.peer, hello_request(self.peer))
            self.asked = True
        elif not self.said:
            step(self.peer, self.peer.tls.read)
            if self.peer.tls.get_channel_binding("tls-unique") != self.before:
                with suppress(ssl.SSLWantReadError):
                    put(self.peer, self.peer.sealed(HELLO))
                    self.said = True

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        rest = asyncio.create_task(self.rest(attempt))
        while not self.said:
            self.happen()
            await asyncio.sleep(0)
        await rest

    async def rest(self, attempt: Attempt) -> None:
        await super().account(attempt)


class Send(Case):
    """What the call says that it has sent is what the peer gets, and nothing is torn."""

    turns = EVENT + 11
    ends = {"returned", "stopped half-way"}
    data = LOTS

    def __init__(self, stack: ExitStack, call: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(stack)
        self._call = call
        self.got = bytearray()

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack, tiny=True)

    async def call(self) -> int:
        sent = await self._call(self.sock)
        return len(self.data) if sent is None else sent

    def happen(self) -> None:
        take(self.peer)
        while data := step(self.peer, self.peer.tls.read):
            self.got += data

    def end(self, attempt: Attempt) -> str:
        return super().end(attempt) + (" half-way" if attempt.bytes_sent else "")

    def sent(self, attempt: Attempt) -> int:
        return int(attempt.value) if attempt.returned else attempt.bytes_sent

    async def account(self, attempt: Attempt) -> None:
        sent = self.sent(attempt)
        sending = asyncio.create_task(self.sock.sendall(AGAIN))
        self.got += await exactly(sent + len(AGAIN) - len(self.got), self.peer.recv)
        await sending
        assert self.got == self.data[:sent] + AGAIN
        await self.peer.send(AGAIN)
        assert await self.sock.recv(100) == AGAIN


class ReceiveBehindASender(Receive):
    """One who was stopped: his record goes out while we wait for ours."""

    turns = EVENT + 14

    async def prepare(self) -> None:
        self.sock, self.peer = await with_peer(self.stack, tiny=True)
        sending = asyncio.create_task(self.sock.sendall(LOTS))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError) as stopped:
            await sending
        self.left = stopped.value.bytes_sent  # type: ignore[attr-defined]  # ours
        self.sent, self.got = self.left, bytearray()
        sealed = self.peer.sealed(HELLO)
        self.to_come = [sealed[:7], sealed[7:]]

    def happen(self) -> None:
        super().happen()
        if data := step(self.peer, self.peer.tls.read):
            self.got += data

    async def converse(self) -> None:
        sending = asyncio.create_task(self.sock.sendall(AGAIN))
        self.got += await exactly(self.sent + len(AGAIN) - len(self.got), self.peer.recv)
        assert self.got == LOTS[: self.sent] + AGAIN
        await sending
        await super().converse()


class StartTLS(Case):
    """A handshake that was stopped has closed the connection; its number is free."""

    turns = EVENT + 5

    def __init__(self, stack: ExitStack, server_side: bool) -> None:
        super().__init__(stack)
        self.server_side = server_side

    async def prepare(self) -> None:
        client, server = plain_pair(self.stack)
        self.sock, other = (server, client) if self.server_side else (client, server)
        self.peer = Peer(other, not self.server_side)

    async def call(self) -> aiosock.SSLSocket:
        return self.stack.enter_context(await start(self.sock, self.server_side))

    def happen(self) -> None:
        with suppress(ConnectionError, BrokenPipeError):
            step(self.peer, self.peer.tls.do_handshake)

    async def account(self, attempt: Attempt) -> None:
        if attempt.returned:
            await self.peer.shake_hands()
            await attempt.value.sendall(HELLO)
            assert await self.peer.recv() == HELLO
            await self.peer.send(AGAIN)
            assert await attempt.value.recv() == AGAIN
            attempt.value.close()
        elif attempt.error is not None:  # it had begun
            assert self.sock.fileno() == -1
            with suppress(ConnectionError):
                while await self.peer.sock.recv(2**16):
                    pass


class Unwrap(Case):
    """A call that was stopped can be repeated; what follows the end is still there."""

    async def prepare(self) -> None:
        self.secure, self.peer = await with_peer(self.stack)
        self.sock = self.secure
        farewell = self.peer.farewell()
        self.to_come = [farewell[:9], farewell[9:] + PLAIN]

    async def call(self) -> bool:
        await self.secure.unwrap()
        return True

    def happen(self) -> None:
        if self.to_come:
            put(self.peer, self.to_come.pop(0))

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        if not attempt.returned:
            await self.secure.unwrap()
        assert await exactly(len(PLAIN), self.sock.recv) == PLAIN
        await self.peer.do(self.peer.tls.unwrap)
        await self.sock.sendall(PLAIN)
        assert (self.peer.incoming.read() or await self.peer.sock.recv(100)) == PLAIN
        await self.peer.sock.sendall(AGAIN)
        assert await self.sock.recv(100) == AGAIN


CASES: dict[str, Callable[[ExitStack], Case]] = {
    **{name: partial(Receive, name=name) for name in RECEIVING},
    "recv next": partial(ReceiveNext, name="recv"),
    "recv among keys": partial(ReceiveAmongKeys, name="recv"),
    "recv among handshakes": partial(ReceiveAmongHandshakes, name="recv"),
    "recv behind a sender": partial(ReceiveBehindASender, name="recv"),
    "send": partial(Send, call=lambda s: s.send(LOTS)),
    "sendall": partial(Send, call=lambda s: s.sendall(LOTS)),
    "start_tls": partial(StartTLS, server_side=False),
    "start_tls of a server": partial(StartTLS, server_side=True),
    "unwrap": Unwrap,
}


async def play(make: Callable[[ExitStack], Case], moment: Moment) -> str:
    """One call, stopped at one moment; how it ended."""
    with ExitStack() as stack:
        case = make(stack)
        await case.prepare()
        number = case.sock.fileno()
        case.sock.settimeout(moment.timeout)
        attempt = Attempt(case.call)
        for turn in itertools.count():
            if turn == moment.turn and not moment.event_first:
                moment.stop(attempt)
            if turn >= EVENT:
                case.happen()
            if turn == moment.turn and moment.event_first:
                moment.stop(attempt)
            await asyncio.sleep(case.pause)
            if turn >= moment.turn and attempt.task.done():
                break
        await asyncio.wait([attempt.task])
        attempt.check()
        for sock in (case.sock, attempt.value):
            if isinstance(sock, aiosock.socket) and sock.fileno() >= 0:
                sock.settimeout(None)
        await case.account(attempt)
        case.sock.close()
        await serves_again(number)
        return case.end(attempt)


async def sweep(make: Callable[[ExitStack], Case], plan: list[Moment]) -> set[str]:
    ends = set()
    for moment in plan:
        try:
            async with asyncio.timeout(5):
                with nothing_more():
                    ends.add(await play(make, moment))
        except BaseException as error:
            error.add_note(f"stopped at {moment}")
            raise
    return ends


@pytest.mark.parametrize("name", CASES)
async def test_a_call_stopped_at_any_turn_loses_nothing(name: str) -> None:
    make = CASES[name]
    with ExitStack() as stack:
        kind = type(make(stack))
    assert await sweep(make, moments(range(kind.turns), *WAYS)) >= kind.ends


@pytest.mark.parametrize("name", CASES)
async def test_a_timeout_that_ends_in_the_turn_of_the_event_loses_nothing(name: str) -> None:
    await sweep(CASES[name], TOO_LATE)
