"""Every awaited name of aiosock is stopped at every turn of the loop, and has lost nothing.

test_cancellation.py and test_tls_cancellation.py sweep what receives, sends, connects and
shakes hands; here is all else that is awaited: files, names, the makers of connections and
servers, `serve`, what TLS has besides, and the manual's SSL objects.  The first test asks
aiosock which names it awaits: one that no sweep knows fails there.

Each call is made again and again and stopped at another turn, before, in and after those in
which its event comes: by a cancellation, by the end of an `asyncio.timeout`, or by its own
timeout.  Then the books are made up, and what the call opened is gone: no descriptor, no
task, no timer and no registration is left.
"""

import asyncio
import inspect
import io
import socket as _stdlib
import ssl
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from unittest import mock

import pytest
from secured import (
    HOST,
    TINY,
    Peer,
    certificate,
    exactly,
    plain_pair,
    serving,
    trusting,
    usual,
    with_peer,
)
from test_cancellation import (
    AGAIN,
    CANCELLED,
    ENDLESS,
    EVENT,
    HELLO,
    TOO_LATE,
    Attempt,
    SendDatagram,
    greet,
    moments,
)
from test_cancellation import CASES as PLAIN_CASES
from test_cancellation import play as play_plain
from test_race import refusing
from test_tls_cancellation import CASES as TLS_CASES
from test_tls_cancellation import LOTS, Case, Receive, Send, StartTLS, put, step, sweep
from wires import wired

import aiosock
import aiosock_sync

WAYS = (CANCELLED, (Attempt.expire, ENDLESS))
LOOPBACK = ("127.0.0.1", 0)
NAME = ("name.test", 0)

# --- the names ------------------------------------------------------------------------

DUNDERS = {"__aenter__", "__aexit__", "__anext__"}
AT_ONCE = {  # coroutines that wait for nothing
    "socket.__aenter__",
    "socket.__aexit__",
    "BinaryFile.__aenter__",
    "TextFile.__aenter__",
    "RawFile.flush",
}
REFUSED = {  # by TLS, at once; without it they are the plain socket's
    "SSLSocket.recvfrom",
    "SSLSocket.recvfrom_into",
    "SSLSocket.sendto",
}


def awaited_names() -> set[str]:
    """All that is awaited: functions, and methods in the class that defines them."""
    names = set()
    for name in vars(aiosock)["__all__"]:
        found = getattr(aiosock, name)
        if getattr(found, "__module__", None) != "aiosock" or name == "Resolver":
            continue
        if inspect.isclass(found):
            methods = vars(found).items()
            names |= {f"{found.__name__}.{own}" for own, made in methods if is_awaited(own, made)}
        elif is_awaited(name, found):
            names.add(name)
    return names


def is_awaited(name: str, function: object) -> bool:
    if not inspect.isfunction(function) or (name.startswith("_") and name not in DUNDERS):
        return False
    hint = str(function.__annotations__["return"])
    return inspect.iscoroutinefunction(function) or hint.startswith(("Awaited[", "Opening["))


def swept() -> set[str]:
    names = set()
    for case in PLAIN_CASES:
        name = case.split()[0]
        names.add(f"socket.{name}" if hasattr(aiosock.socket, name) else name)
    for case in TLS_CASES:
        name = case.split()[0]
        names.add(f"SSLSocket.{name}" if name in vars(aiosock.SSLSocket) else f"socket.{name}")
    return names | {case.split()[0] for case in CASES} | {"socket.sendmsg_afalg"}


def test_every_awaited_name_is_swept() -> None:
    assert awaited_names() - AT_ONCE - REFUSED - swept() == set()


# --- reading files --------------------------------------------------------------------

Call = Callable[[Any], Awaitable[Any]]
TEXT = "grün\nund blau\n"
PIECES = (b"gr\xc3", b"\xbcn\nund", b" blau\n")
WHOLE = b"".join(PIECES)
assert TEXT.encode() == WHOLE


class ReadFile(Case):
    """What the call gave and what the file still gives are what the peer has sent."""

    turns = EVENT + 6

    def __init__(self, stack: ExitStack, secure: bool, mode: str, size: int, call: Call) -> None:
        super().__init__(stack)
        self.secure, self.mode, self.size, self._call = secure, mode, size, call
        self.buffer = bytearray(6)

    async def prepare(self) -> None:
        self.sock, self.wire = await wired(self.stack, self.secure)
        self.file: Any = self.sock.makefile(self.mode, self.size, encoding=self.encoding)
        self.to_come = [self.wire.sealed(piece) for piece in PIECES]

    @property
    def encoding(self) -> str | None:
        return None if "b" in self.mode else "utf-8"

    async def call(self) -> Any:
        answer = await self._call(self)
        return answer if answer is not None else b""

    def happen(self) -> None:
        if self.to_come:
            self.wire.put(self.to_come.pop(0))
            if not self.to_come:
                self.wire.end()

    async def account(self, attempt: Attempt) -> None:
        while self.to_come:
            self.happen()
        got = self.told(attempt.value) if attempt.returned else self.told(None)
        assert got + await self.file.read() == (WHOLE if "b" in self.mode else TEXT)
        await self.file.close()

    def told(self, value: Any) -> Any:
        nothing: Any = b"" if "b" in self.mode else ""
        if value is None:
            assert not any(self.buffer)
            self.buffer.extend(b"free to be resized")
            return nothing
        if isinstance(value, int):
            return bytes(self.buffer[:value])
        return nothing.join(value) if isinstance(value, list) else value


class Peek(ReadFile):
    def told(self, value: Any) -> bytes:
        assert value is None or (value and WHOLE.startswith(value))
        return b""


READING: dict[str, Call] = {
    "read": lambda case: case.file.read(6),
    "read all": lambda case: case.file.read(),
    "readline": lambda case: case.file.readline(),
    "readlines": lambda case: case.file.readlines(3),
    "readlines all": lambda case: case.file.readlines(),
    "__anext__": lambda case: case.file.__anext__(),
}
READING_BYTES: dict[str, Call] = {
    **READING,
    "read1": lambda case: case.file.read1(100),
    "readinto": lambda case: case.file.readinto(case.buffer),
    "readinto1": lambda case: case.file.readinto1(case.buffer),
    "readuntil": lambda case: case.file.readuntil(b"\nun"),
    "readexactly": lambda case: case.file.readexactly(6),
}


# --- writing files --------------------------------------------------------------------


class WriteFile(Case):
    """All that was taken goes out once and in order, whatever stopped the call."""

    turns = EVENT + 12
    ends = {"returned", "stopped"}

    def __init__(self, stack: ExitStack, secure: bool, mode: str, size: int, call: Call) -> None:
        super().__init__(stack)
        self.secure, self.mode, self.size, self._call = secure, mode, size, call
        self.got = bytearray()
        self.data: Any = LOTS if "b" in mode else "y" * len(LOTS)
        self.again: Any = AGAIN if "b" in mode else AGAIN.decode()

    async def prepare(self) -> None:
        self.sock, self.wire = await wired(self.stack, self.secure, tiny=True)
        encoding = None if "b" in self.mode else "ascii"
        self.file: Any = self.sock.makefile(self.mode, self.size, encoding=encoding)

    async def call(self) -> Any:
        await self._call(self)
        return True

    def happen(self) -> None:
        self.got += self.wire.take()

    async def account(self, attempt: Attempt) -> None:
        closing = asyncio.create_task(self.close())
        while not closing.done():
            self.happen()
            await asyncio.sleep(0)
        await closing
        self.happen()
        self.check(bytes(self.got), attempt)

    async def close(self) -> None:
        await self.file.write(self.again)
        await self.file.close()

    def check(self, got: bytes, attempt: Attempt) -> None:
        taken = len(self.data) if attempt.returned else self.taken(attempt.error)
        assert got == self.bytes_of(self.data[:taken] + self.again)

    def taken(self, error: BaseException | None) -> int:
        return getattr(error, "characters_written", 0)

    def bytes_of(self, data: Any) -> bytes:
        encoded: bytes = data if isinstance(data, bytes) else data.encode()
        return encoded


class WriteLines(WriteFile):
    """Each of the lines was taken whole, or not at all."""

    async def call(self) -> bool:
        await self.file.writelines([self.data[:9000], self.data[9000:]])
        return True

    def check(self, got: bytes, attempt: Attempt) -> None:
        may = {0, 9000, len(self.data)} if not attempt.returned else {len(self.data)}
        assert got in [self.bytes_of(self.data[:taken] + self.again) for taken in may]


class FlushFile(WriteFile):
    """What was not sent is kept."""

    async def prepare(self) -> None:
        await super().prepare()
        await self.file.write(self.data)

    def taken(self, error: BaseException | None) -> int:
        return len(self.data)


class CloseFile(FlushFile):
    """The file is closed in every case, the socket is not, and what went is torn nowhere."""

    async def close(self) -> None:
        self.closed = self.file.closed
        if not self.closed:  # a call that was stopped before it began
            await self.file.close()
        await self.sock.sendall(AGAIN)

    def check(self, got: bytes, attempt: Attempt) -> None:
        assert self.closed == (attempt.returned or attempt.error is not None)
        went, whole = got.removesuffix(AGAIN), self.bytes_of(self.data)
        assert got.endswith(AGAIN)
        assert went == whole[: len(went)]
        assert len(went) == len(whole) or (not attempt.returned and self.closed)


class WriteRaw(WriteFile):
    """What the call or its error tells is on its way, and nothing follows."""

    async def call(self) -> int:
        sent: int = await self._call(self)
        return sent

    def check(self, got: bytes, attempt: Attempt) -> None:
        sent = attempt.value if attempt.returned else self.taken(attempt.error)
        assert got == self.data[:sent] + self.again

    def taken(self, error: BaseException | None) -> int:
        return getattr(error, "bytes_sent", 0)

    async def close(self) -> None:
        assert await self.file.write(self.again) == len(AGAIN)
        await self.file.close()


WRITING: dict[str, tuple[type[WriteFile], Call]] = {
    "write": (WriteFile, lambda case: case.file.write(case.data)),
    "writelines": (WriteLines, lambda case: case.file),
    "flush": (FlushFile, lambda case: case.file.flush()),
    "close": (CloseFile, lambda case: case.file.close()),
    "__aexit__": (CloseFile, lambda case: case.file.__aexit__(None, None, None)),
}


def files(secure: bool) -> Iterator[tuple[str, Callable[[ExitStack], Case]]]:
    over = " tls" if secure else ""
    for name, call in READING_BYTES.items():
        yield f"BinaryFile.{name}{over}", partial(made, ReadFile, secure, "rb", -1, call)
    for name in ("read", "readall", "read1", "readinto", "readinto1"):
        call = READING_BYTES.get(name, lambda case: case.file.readall())
        yield f"RawFile.{name}{over}", partial(made, ReadFile, secure, "rb", 0, call)
    for name, call in READING.items():
        yield f"TextFile.{name}{over}", partial(made, ReadFile, secure, "r", -1, call)
    peek: Call = lambda case: case.file.peek()  # noqa: E731  # a call as the others in the tables
    yield f"BinaryFile.peek{over}", partial(made, Peek, secure, "rb", -1, peek)
    for kind, mode in (("BinaryFile", "wb"), ("TextFile", "w")):
        for name, (case, call) in WRITING.items():
            size = 100 if case in (WriteFile, WriteLines) else 2 * len(LOTS)
            yield f"{kind}.{name}{over}", partial(made, case, secure, mode, size, call)
    call = WRITING["write"][1]
    yield f"RawFile.write{over}", partial(made, WriteRaw, secure, "wb", 0, call)


def made(kind: Callable[..., Case], *args: Any) -> Case:
    *before, stack = args
    return kind(stack, *before)


# --- names ------------------------------------------------------------------------------


class Late:
    """A resolver that answers when it is told to, and from then on at once."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.found = [LOOPBACK]

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, kind: int, proto: int, flags: int, /
    ) -> list[Any]:
        await self.told.wait()
        if family == _stdlib.AF_INET6:
            return []
        return [(_stdlib.AF_INET, _stdlib.SOCK_STREAM, 6, "", found) for found in self.found]

    async def getnameinfo(self, sockaddr: Any, flags: int, /) -> tuple[str, str]:
        await self.told.wait()
        return "name.test", "echo"


class Lookup(Case):
    """The next call has its answer; the socket, if there is one, is as it was."""

    turns = EVENT + 6
    kind = _stdlib.SOCK_STREAM

    def __init__(self, stack: ExitStack, call: Call, check: Callable[[Any], object]) -> None:
        super().__init__(stack)
        self._call, self.check = call, check

    async def prepare(self) -> None:
        self.sock = self.stack.enter_context(aiosock.socket(_stdlib.AF_INET, self.kind))
        self.late = Late()
        aiosock.set_resolver(self.late)
        self.stack.callback(aiosock.set_resolver, None)

    async def call(self) -> Any:
        answer = await self._call(self)
        return True if answer is None else answer

    def happen(self) -> None:
        self.late.told.set()

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        answer = attempt.value if attempt.returned else await self.retried()
        assert self.check(answer)

    async def retried(self) -> Any:
        return await self.call()


class Bind(Lookup):
    async def retried(self) -> Any:
        assert self.sock.getsockname() == ("0.0.0.0", 0)
        return await super().retried()


class SendToName(Lookup):
    """A datagram to a name is sent once or not at all."""

    kind = _stdlib.SOCK_DGRAM

    def __init__(self, stack: ExitStack, call: Call) -> None:
        super().__init__(stack, call, bool)

    async def prepare(self) -> None:
        await super().prepare()
        self.receiver = self.stack.enter_context(
            _stdlib.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM)
        )
        self.receiver.bind(LOOPBACK)
        self.receiver.settimeout(5)
        self.to = "name.test", self.receiver.getsockname()[1]

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        await self.sock.sendto(AGAIN, self.receiver.getsockname())
        got = [self.receiver.recv(100)]
        while got[-1] != AGAIN:
            got.append(self.receiver.recv(100))
        assert got == [HELLO] * attempt.returned + [AGAIN]


class ConnectToName(Lookup):
    """Connected, or good for nothing but to be closed."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        super().__init__(stack, lambda _: getattr(self.sock, name)(self.to), bool)

    async def prepare(self) -> None:
        await super().prepare()
        self.listener = self.stack.enter_context(_stdlib.create_server(LOOPBACK))
        self.listener.settimeout(5)
        self.to = "name.test", self.listener.getsockname()[1]

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        if attempt.returned and attempt.value in (True, 0):
            await greet(self.sock, self.listener)


class Create(Lookup):
    """A maker: what it has made works, and what was stopped has left nothing."""

    turns = EVENT + 14

    def __init__(self, stack: ExitStack, call: Call) -> None:
        super().__init__(stack, call, bool)

    async def prepare(self) -> None:
        await super().prepare()
        self.listener = self.stack.enter_context(_stdlib.create_server(LOOPBACK))
        self.listener.settimeout(5)
        self.late.found = [refusing(self.stack), self.listener.getsockname()]

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        sock = attempt.value if attempt.returned else await self.retried()
        with sock:
            await greet(sock, self.listener)


class CreateSecure(Create):
    """The race, and then a handshake, in which the other end takes part."""

    turns = EVENT + 16

    async def prepare(self) -> None:
        await super().prepare()
        self.late.found = [self.listener.getsockname()]
        self.listener.setblocking(False)
        self.peers: list[Peer] = []

    def happen(self) -> None:
        super().happen()
        with suppress(BlockingIOError):
            accepted = self.listener.accept()[0]
            sock = aiosock.from_stdlib_socket(accepted)
            self.peers.append(Peer(self.stack.enter_context(sock), True))
        for peer in self.peers:
            with suppress(OSError, ssl.SSLError):  # who was stopped has gone
                step(peer, peer.tls.do_handshake)

    async def account(self, attempt: Attempt) -> None:
        making = asyncio.create_task(self.retried()) if not attempt.returned else None
        while making and not making.done():
            self.happen()
            await asyncio.sleep(0)
        secure = making.result() if making else attempt.value
        with secure:
            await secure.sendall(HELLO)
            assert await self.peers[-1].recv() == HELLO


class CreateServer(Create):
    async def account(self, attempt: Attempt) -> None:
        self.happen()
        listener = attempt.value if attempt.returned else await self.retried()
        with listener, _stdlib.create_connection(listener.getsockname()) as client:
            conn, address = await listener.accept()
            conn.close()
            assert address == client.getsockname()


class InThread(Case):
    """A lookup in a thread: the answer of one that was stopped is heard by nobody."""

    turns = EVENT + 3
    pause = 0.002
    ends = {"stopped"}  # the thread may take its time

    def __init__(self, stack: ExitStack, name: str, asked: Any, answer: Any) -> None:
        super().__init__(stack)
        self.name, self.asked, self.answer = name, asked, answer
        self.told = threading.Event()

    async def prepare(self) -> None:
        self.sock = self.stack.enter_context(aiosock.socket())
        self.stack.enter_context(mock.patch.object(_stdlib, self.name, self.look_up))
        self.stack.callback(self.told.set)

    def look_up(self, *args: Any) -> Any:
        assert self.told.wait(10)
        return self.answer

    def call(self) -> Awaitable[Any]:
        answer: Awaitable[Any] = getattr(aiosock, self.name)(self.asked)
        return answer

    def happen(self) -> None:
        self.told.set()

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        assert (attempt.value if attempt.returned else await self.call()) == self.answer


IN_THREADS: dict[str, tuple[Any, Any]] = {
    "gethostbyname": ("name.test", "127.0.0.1"),
    "gethostbyname_ex": ("name.test", ("name.test", [], ["127.0.0.1"])),
    "gethostbyaddr": ("127.0.0.1", ("name.test", [], ["127.0.0.1"])),
    "getfqdn": ("name", "name.test"),
    "getprotobyname": ("tcp", 6),
    "getservbyname": ("echo", 7),
    "getservbyport": (7, "echo"),
}


# --- serving ----------------------------------------------------------------------------


async def echo(conn: aiosock.socket, peer: Any) -> None:
    while data := await conn.recv(100):
        await conn.sendall(data)


async def answers(client: aiosock.socket) -> None:
    await client.sendall(HELLO)
    assert await client.recv(100) == HELLO


class Serve(Lookup):
    """A server that was not entered holds nothing, and can be entered again."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack, lambda _: self.server.__aenter__(), bool)

    async def prepare(self) -> None:
        await super().prepare()
        self.server = aiosock.serve(echo, NAME)

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        if not attempt.returned:
            assert self.server.sockets == ()
            await self.server.__aenter__()
        address = self.server.sockets[0].getsockname()
        async with aiosock.create_connection(address) as client:
            await answers(client)
        await self.server.__aexit__()


class Running(Case):
    """A server and a connection that it serves."""

    turns = EVENT + 7

    async def prepare(self) -> None:
        self.sock = self.stack.enter_context(await aiosock.create_server(LOOPBACK))
        self.server = aiosock.serve(echo, self.sock, grace_period=None)
        await self.server.__aenter__()
        opened = await aiosock.create_connection(self.sock.getsockname())
        self.client = self.stack.enter_context(opened)
        await answers(self.client)

    async def account(self, attempt: Attempt) -> None:
        await self.check(attempt)
        self.client.close()
        await self.server.__aexit__()
        assert (self.server.active, self.server.sockets) == (0, ())
        assert self.server.accepted == 1

    async def check(self, attempt: Attempt) -> None:
        raise NotImplementedError


class ServeForever(Running):
    """Whoever stops waiting for the server has not stopped it."""

    async def call(self) -> bool:
        await self.server.serve_forever()
        return True

    def happen(self) -> None:
        self.server.close()

    async def check(self, attempt: Attempt) -> None:
        await answers(self.client)


class WaitClosed(Running):
    async def call(self) -> bool:
        self.server.close()
        await self.server.wait_closed()
        return True

    def happen(self) -> None:
        self.client.close()

    async def check(self, attempt: Attempt) -> None:
        assert self.server.active == 0 or not attempt.returned
        if self.client.fileno() >= 0:
            await answers(self.client)


class Drain(WaitClosed):
    """A drain that was stopped has cancelled the handlers, and awaited them."""

    async def call(self) -> bool:
        await self.server.__aexit__()
        return True

    async def check(self, attempt: Attempt) -> None:
        if attempt.returned or attempt.error is not None:
            assert self.server.active == 0
            if self.client.fileno() >= 0:
                assert await self.client.recv(100) == b""


# --- TLS ----------------------------------------------------------------------------------


class SendFile(Send):
    """The file's position follows what was sent."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack, lambda sock: sock.sendfile(self.file))
        self.file = io.BytesIO(self.data)

    async def account(self, attempt: Attempt) -> None:
        assert self.file.tell() == self.sent(attempt)
        await super().account(attempt)


class WaitWritable(Send):
    """Before the call there was something that the kernel did not take."""

    ends = {"returned", "stopped"}

    def __init__(self, stack: ExitStack, call: Call = aiosock.SSLSocket.wait_writable) -> None:
        super().__init__(stack, call)

    async def prepare(self) -> None:
        await self.secured()
        self.sock.settimeout(0.0)
        with pytest.raises(ssl.SSLWantWriteError) as full:
            await self.sock.sendall(self.data)
        self.before = full.value.bytes_sent  # type: ignore[attr-defined]  # ours, as documented

    async def secured(self) -> None:
        await super().prepare()

    def end(self, attempt: Attempt) -> str:
        return "returned" if attempt.returned else "stopped"

    def sent(self, attempt: Attempt) -> int:
        sent: int = self.before
        return sent


class SendEof(WaitWritable):
    """The end comes behind what was sent, and is said whole or, at a second try, for good."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack, aiosock.SSLSocket.send_eof)

    async def account(self, attempt: Attempt) -> None:
        hearing = asyncio.create_task(self.peer.recv_all())
        await self._call(self.sock)
        assert self.got + await hearing == self.data[: self.before]
        await self.peer.send(HELLO)
        assert await self.sock.recv(100) == HELLO


class AskForCertificate(WaitWritable):
    """The question goes out, at the latest with what is sent next."""

    data = LOTS * 16  # more than the kernel takes, which grew before it was told not to

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack, aiosock.SSLSocket.verify_client_post_handshake)

    async def secured(self) -> None:
        here = serving(verify_mode=ssl.CERT_REQUIRED, post_handshake_auth=True)
        there = trusting(certificate("somebody@example.org"), post_handshake_auth=True)
        self.secure, self.peer = await with_peer(
            self.stack, server_side=True, context=here, peers=there
        )
        self.secure.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, TINY)
        assert not self.secure.getpeercert()
        self.sock = self.secure

    def happen(self) -> None:
        super().happen()
        # Who has just spoken acknowledges late.
        self.peer.sock.setsockopt(_stdlib.IPPROTO_TCP, _stdlib.TCP_QUICKACK, 1)

    async def account(self, attempt: Attempt) -> None:
        await super().account(attempt)
        if attempt.returned or attempt.error is not None:  # it had begun
            assert self.secure.getpeercert()


class Old:
    """An SSL object and its socket, by the names of today."""

    def __init__(self, sock: aiosock.socket, old: aiosock.SSLObject) -> None:
        self.recv, self.sendall = old.read, old.write
        self.fileno, self.settimeout, self.close = sock.fileno, sock.settimeout, sock.close

    @classmethod
    async def over(cls, stack: ExitStack, tiny: bool) -> tuple[Any, Peer]:
        client, server = plain_pair(stack, tiny)
        peer = Peer(server, True)
        insecurely(stack)
        made, _ = await asyncio.gather(aiosock.ssl(client), peer.shake_hands())
        return cls(client, made), peer


def insecurely(stack: ExitStack) -> None:
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore", aiosock.InsecureWarning)


class OldRead(Receive):
    async def prepare(self) -> None:
        self.sock, self.peer = await Old.over(self.stack, tiny=False)
        sealed = self.peer.sealed(HELLO)
        self.to_come = [sealed[:7], sealed[7:]]

    async def account(self, attempt: Attempt) -> None:
        self.sock.settimeout(None)
        await super().account(attempt)


class OldWrite(Send):
    async def prepare(self) -> None:
        self.sock, self.peer = await Old.over(self.stack, tiny=True)

    async def account(self, attempt: Attempt) -> None:
        self.sock.settimeout(None)
        await super().account(attempt)


class OldStart(StartTLS):
    """The socket stays its owner's, and open."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack, server_side=False)

    async def prepare(self) -> None:
        await super().prepare()
        insecurely(self.stack)

    async def call(self) -> Any:
        return await aiosock.ssl(self.sock)

    async def account(self, attempt: Attempt) -> None:
        assert self.sock.fileno() >= 0
        if attempt.returned:
            await self.peer.shake_hands()
            await attempt.value.write(HELLO)
            assert await self.peer.recv() == HELLO


class Accepted(Case):
    """A connection that a listener with a context has accepted, before its handshake."""

    turns = EVENT + 6
    said = HELLO  # as soon as the handshake allows

    def __init__(self, stack: ExitStack, call: Call) -> None:
        super().__init__(stack)
        self._call = call

    async def prepare(self) -> None:
        self.listener = await aiosock.create_server(LOOPBACK, ssl=usual(True))
        self.stack.enter_context(self.listener)
        client = await aiosock.create_connection(self.listener.getsockname())
        self.peer = Peer(self.stack.enter_context(client), False)
        self.sock, _ = await self.listener.accept()
        self.stack.enter_context(self.sock)

    async def call(self) -> Any:
        answer = await self._call(self.sock)
        return True if answer is None else answer

    def happen(self) -> None:
        step(self.peer, self.peer.tls.do_handshake)
        if self.said and self.peer.tls.version():
            with suppress(ssl.SSLWantReadError):
                put(self.peer, self.peer.sealed(self.said))
                self.said = b""

    async def account(self, attempt: Attempt) -> None:
        receiving = asyncio.create_task(exactly(len(HELLO), self.sock.recv))
        while self.said:
            self.happen()
            await asyncio.sleep(0)
        got = attempt.value if isinstance(attempt.value, bytes) else b""
        if got:
            receiving.cancel()
            await asyncio.wait([receiving])
        else:
            got = await receiving
        assert got == HELLO
        await self.sock.sendall(AGAIN)
        assert await self.peer.recv() == AGAIN


class AcceptSecure(Case):
    """Each connection is returned or waits in the queue, and shakes no hands meanwhile."""

    async def prepare(self) -> None:
        listener = await aiosock.create_server(LOOPBACK, ssl=usual(True))
        self.sock = self.stack.enter_context(listener)
        self.client: aiosock.socket | None = None

    def call(self) -> Awaitable[Any]:
        return self.sock.accept()

    def happen(self) -> None:
        if self.client is None:
            raw = _stdlib.create_connection(self.sock.getsockname())
            self.client = self.stack.enter_context(aiosock.from_stdlib_socket(raw))

    async def account(self, attempt: Attempt) -> None:
        self.happen()
        conn: Any
        conn, _ = attempt.value if attempt.returned else await self.sock.accept()
        assert self.client is not None
        with conn:
            peer = Peer(self.client, False)
            await asyncio.gather(conn.do_handshake(), peer.shake_hands())
            await conn.sendall(HELLO)
            assert await peer.recv() == HELLO


# --- the sweep ----------------------------------------------------------------------------

afalg: Callable[..., Any] = lambda s, address: s.sendmsg_afalg([HELLO], op=1)  # noqa: E731  # a call as the others in the tables
CASES: dict[str, Callable[[ExitStack], Case]] = {
    **dict(files(secure=False)),
    **dict(files(secure=True)),
    "getaddrinfo": partial(
        Lookup,
        call=lambda _: aiosock.getaddrinfo(*NAME),
        check=lambda found: found[0][4] == LOOPBACK,
    ),
    "getnameinfo": partial(
        Lookup,
        call=lambda _: aiosock.getnameinfo(("127.0.0.1", 7), 0),
        check=lambda found: found == ("name.test", "echo"),
    ),
    **{
        name: partial(InThread, name=name, asked=asked, answer=answer)
        for name, (asked, answer) in IN_THREADS.items()
    },
    "socket.bind": partial(Bind, call=lambda case: case.sock.bind(NAME), check=lambda _: True),
    "socket.connect to a name": partial(ConnectToName, name="connect"),
    "socket.connect_ex to a name": partial(ConnectToName, name="connect_ex"),
    "socket.sendto a name": partial(SendToName, call=lambda case: case.sock.sendto(HELLO, case.to)),
    "socket.sendmsg to a name": partial(
        SendToName, call=lambda case: case.sock.sendmsg([HELLO], (), 0, case.to)
    ),
    "socket.send_many to a name": partial(
        SendToName, call=lambda case: case.sock.send_many([(HELLO, case.to)])
    ),
    "create_connection": partial(
        Create,
        call=lambda _: aiosock.create_connection(NAME, ENDLESS, happy_eyeballs_delay=0),
    ),
    "create_connection in sequence": partial(
        Create,
        call=lambda _: aiosock.create_connection(NAME, ENDLESS, happy_eyeballs_delay=None),
    ),
    "create_connection tls": partial(
        CreateSecure,
        call=lambda _: aiosock.create_connection(
            NAME, ENDLESS, ssl=usual(False), server_hostname=HOST
        ),
    ),
    "create_server": partial(CreateServer, call=lambda _: aiosock.create_server(NAME)),
    "create_server tls": partial(
        CreateServer, call=lambda _: aiosock.create_server(NAME, ssl=usual(True))
    ),
    "Server.__aenter__": Serve,
    "Server.serve_forever": ServeForever,
    "Server.wait_closed": WaitClosed,
    "Server.__aexit__": Drain,
    "SSLSocket.do_handshake": partial(Accepted, call=lambda sock: sock.do_handshake()),
    "SSLSocket.recv before the handshake": partial(Accepted, call=lambda sock: sock.recv(100)),
    "SSLListener.accept": AcceptSecure,
    "SSLSocket.write": partial(Send, call=lambda sock: sock.write(LOTS)),
    "SSLSocket.sendfile": SendFile,
    "SSLSocket.wait_writable": WaitWritable,
    "SSLSocket.send_eof": SendEof,
    "SSLSocket.verify_client_post_handshake": AskForCertificate,
    "ssl": OldStart,
    "SSLObject.read": partial(OldRead, name="recv"),
    "SSLObject.write": partial(OldWrite, call=lambda old: old.sendall(LOTS)),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_call_stopped_at_any_turn_loses_nothing(name: str) -> None:
    make = CASES[name]
    with ExitStack() as stack:
        case = make(stack)
    ways = WAYS[:1] if case.pause else WAYS
    assert await sweep(make, moments(range(case.turns), *ways)) >= case.ends


@pytest.mark.parametrize("name", CASES)
async def test_a_timeout_that_ends_in_the_turn_of_the_event_loses_nothing(name: str) -> None:
    await sweep(CASES[name], TOO_LATE)


async def test_a_message_to_the_kernels_ciphers_is_sent_once_or_not_at_all() -> None:
    """This kernel may have none: any send stands for theirs."""

    def send(sock: _stdlib.socket, msg: tuple[bytes], *, op: int, flags: int) -> int:
        return sock.send(*msg, flags)

    with mock.patch.object(_stdlib.socket, "sendmsg_afalg", send, create=True):
        for moment in moments(range(EVENT + 3), CANCELLED):
            await play_plain(partial(SendDatagram, call=afalg), moment)


@pytest.mark.parametrize("name", CASES)
def test_nor_does_it_within_a_blocking_program(name: str) -> None:
    """On the loop of a thread's blocking calls."""
    plan = moments(range(EVENT, EVENT + 2), CANCELLED)
    aiosock_sync.call(sweep, CASES[name], plan)
