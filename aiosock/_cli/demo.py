"""The main job, shown: an echo server on a free loopback port, and real clients against it.

Knows the public names of aiosock and aiosock_sync alone, and may be read as an example of
them.  The step in TLS needs certificates, which trustme makes where it is installed.
"""

import asyncio
import importlib
import importlib.util
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from time import perf_counter

import aiosock
import aiosock_sync

__all__ = ["Fault", "demo"]

Address = tuple[str, int]


class Fault(Exception):  # noqa: N818  # its text is the line that the user reads
    """Something else came back than was sent."""


async def demo() -> None:
    """Run every step, print a line for each, leave nothing behind."""
    async with aiosock.serve(echo, ("127.0.0.1", 0)) as server:
        address = server.sockets[0].getsockname()
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        print(f"echo server at {address[0]}:{address[1]}, on {loop}'s loop")
        for name, step in STEPS.items():
            start = perf_counter()
            told = await step(address)
            print(f"  {name:34} {told}, {(perf_counter() - start) * 1000:.0f} ms")
    check(0, server.failed)
    print(f"closed after {server.accepted} connections; every byte came back")


async def echo(conn: aiosock.socket, peer: Address) -> None:
    while data := await conn.recv(65536):
        await conn.sendall(data)


async def one_client(address: Address, trips: int = 2000, size: int = 1024) -> str:
    message, start = os.urandom(size), perf_counter()
    async with aiosock.create_connection(address) as sock:
        for _ in range(trips):
            await sock.sendall(message)
            check(message, await sock.recv(size, aiosock.MSG_WAITALL))
    rate = trips / (perf_counter() - start)
    return f"sent and received {trips} x {size} bytes, {rate:,.0f} round trips/s"


async def many_clients(address: Address) -> str:
    start = perf_counter()
    await asyncio.gather(*(one_client(address, trips=20) for _ in range(100)))
    rate = 2000 / (perf_counter() - start)
    return f"sent and received 2000 x 1024 bytes, {rate:,.0f} round trips/s"


async def bulk(address: Address) -> str:
    data, got, start = os.urandom(2**24), bytearray(), perf_counter()
    async with aiosock.create_connection(address) as sock:
        sending = asyncio.create_task(sock.sendall(data))
        while len(got) < len(data):
            got += await sock.recv(2**18)
        await sending
    check(data, bytes(got))
    rate = len(data) / 2**20 / (perf_counter() - start)
    return f"sent and received {len(data) // 2**20} MiB at once, {rate:,.0f} MiB/s"


async def datagrams(address: Address) -> str:
    count, start = 2000, perf_counter()
    with (
        aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM) as one,
        aiosock.socket(aiosock.AF_INET, aiosock.SOCK_DGRAM) as other,
    ):
        await one.bind(("127.0.0.1", 0))
        await other.bind(("127.0.0.1", 0))
        for number in range(count):
            await one.sendto(str(number).encode(), other.getsockname())
            data, sender = await other.recvfrom(100)
            check(str(number).encode(), data)
            check(one.getsockname(), sender)
    rate = count / (perf_counter() - start)
    return f"sent and received {count} datagrams, {rate:,.0f} a second"


async def passed_file(address: Address) -> str:
    one, other = aiosock.socketpair()
    with one, other, tempfile.TemporaryFile() as file:
        file.write(b"hello")
        file.flush()
        await aiosock.send_fds(one, [b"a file"], [file.fileno()])
        data, fds, *_ = await aiosock.recv_fds(other, 100, 1)
        check(b"a file", data)
        check(b"hello", os.pread(fds[0], 100, 0))
        os.close(fds[0])
    return "sent and received 1 open file over a unix socket"


async def lines(address: Address, count: int = 20_000) -> str:
    async with aiosock.create_connection(address) as sock, sock.makefile("rw") as file:
        sending = asyncio.create_task(write_lines(file, count))
        for number in range(count):
            check(f"line {number}\n", await file.readline())
        await sending
    return f"sent and received {count} lines"


async def write_lines(file: aiosock.TextFile, count: int) -> None:
    for number in range(count):
        await file.write(f"line {number}\n")
    await file.flush()


async def patience(address: Address) -> str:
    async with aiosock.create_connection(address, timeout=0.05) as sock:
        try:
            await sock.recv(1)
        except TimeoutError as error:
            told = str(error)
        await sock.sendall(b"still here")
        check(b"still here", await sock.recv(100))
    return f"a silent server: {told!r}; then sent and received 10 bytes"


async def one_blocking_client(address: Address) -> str:
    return await asyncio.to_thread(without_await, address)


def without_await(address: Address, trips: int = 2000, size: int = 1024) -> str:
    message, start = os.urandom(size), perf_counter()
    with aiosock_sync.create_connection(address, timeout=10) as sock:
        for _ in range(trips):
            sock.sendall(message)
            check(message, sock.recv(size, aiosock_sync.MSG_WAITALL))
    rate = trips / (perf_counter() - start)
    return f"sent and received {trips} x {size} bytes, {rate:,.0f} round trips/s"


async def secured(address: Address, trips: int = 2000, size: int = 1024) -> str:
    if importlib.util.find_spec("trustme") is None:
        return "left out: trustme is not installed, which makes its certificate"
    authority = importlib.import_module("trustme").CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(address[0]).configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with aiosock.serve(echo, (address[0], 0), ssl=serving) as server:
        return await one_secure_client(server.sockets[0].getsockname(), trusting, trips, size)


async def one_secure_client(
    address: Address, trusting: ssl.SSLContext, trips: int, size: int
) -> str:
    message, start = os.urandom(size), perf_counter()
    async with aiosock.create_connection(address, ssl=trusting) as sock:
        for _ in range(trips):
            await sock.sendall(message)
            echo = b""
            while len(echo) < size and (data := await sock.recv(size - len(echo))):
                echo += data
            check(message, echo)
        shown = sock.getpeercert() or {}
        names = [name for _, name in shown["subjectAltName"]]
        check([address[0]], names)
        version = sock.version()
    rate = trips / (perf_counter() - start)
    return f"{version}, sent and received {trips} x {size} bytes, {rate:,.0f} round trips/s"


STEPS: dict[str, Callable[[Address], Awaitable[str]]] = {
    "async, one client": one_client,
    "async, a hundred clients": many_clients,
    "async, bulk, both ways at once": bulk,
    "async, UDP": datagrams,
    "async, a descriptor passed along": passed_file,
    "async, a file of text": lines,
    "async, a timeout": patience,
    "sync, one client": one_blocking_client,
    "async, TLS": secured,
}


def check(sent: object, received: object) -> None:
    if sent != received:
        raise Fault(f"sent {sent!r:.60}, received {received!r:.60}")
