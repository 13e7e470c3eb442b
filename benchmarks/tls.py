"""TLS: aiosock beside the streams of the same loop, interleaved in one run.

    python benchmarks/tls.py [--rounds 25] [--seconds 0.15] [--work echo received ...]

Each server is a process of its own, on one core; its clients are on another, and verify
nothing.  Five works:

- echo: as in echo.py, 1 KiB on 10 connections, the limit "bare epoll" included; the load is
  load.c with OpenSSL, where a compiler and OpenSSL's headers are, or else one in Python;
- received: 64 MiB, which a client of the stdlib sends, in calls that take up to 64 KiB;
- sent: as many, in pieces of 64 KiB, to a client of the stdlib that takes them;
- handshakes: two threads of one client connect, shake hands, send a byte, get it back and
  close, again and again; no session is taken up again;
- memory: what a server's idle connection takes, of 200 that have echoed one message: of
  Python's own by tracemalloc, and in another process, without that, of resident memory.

As in echo.py each server is measured once in every round, in turn, one work after the other,
and a figure is the median of the rounds' ratios, with the quarters; memory is measured once.
The clients in Python may cost more than the server that they call: therefore received, sent
and handshakes are given for each second of the server's CPU too.  The certificate is made by
trustme (`pip install trustme`), and is ECDSA's, or RSA's with `--key RSA`; the protocol is
what Python chooses: TLS 1.3.
"""

import argparse
import asyncio
import functools
import gc
import os
import platform
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from echo import (
    SIZE,
    Load,
    Server,
    announce,
    compiled_load,
    connected,
    installed,
    measure,
    on,
    on_core,
    python_load,
    report,
)

import aiosock

PIECE = bytes(SIZE)
Rates = dict[str, float]  # by unit


# --- the servers: each prints its port, then serves until it is killed ------------------


async def aiosock_echo(conn: aiosock.SSLSocket, total: int) -> None:
    while data := await conn.recv(SIZE):
        await conn.sendall(data)


async def aiosock_receive(conn: aiosock.SSLSocket, total: int) -> None:
    while total and (data := await conn.recv(SIZE)):
        total -= len(data)
    await conn.sendall(b"x")


async def aiosock_send(conn: aiosock.SSLSocket, total: int) -> None:
    await conn.recv(1)
    for _ in range(total // SIZE):
        await conn.sendall(PIECE)


async def streams_echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, total: int
) -> None:
    while data := await reader.read(SIZE):
        writer.write(data)
        await writer.drain()


async def streams_receive(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, total: int
) -> None:
    while total and (data := await reader.read(SIZE)):
        total -= len(data)
    writer.write(b"x")
    await writer.drain()


async def streams_send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, total: int
) -> None:
    await reader.read(1)
    for _ in range(total // SIZE):
        writer.write(PIECE)
        await writer.drain()


Talk = Callable[..., Awaitable[None]]


async def aiosock_server(talk: Talk, total: int, context: ssl.SSLContext) -> None:
    tasks = set()

    async def serve(conn: aiosock.socket) -> None:
        with suppress(OSError):  # whoever goes without a word
            async with await conn.start_tls(context, server_side=True) as secure:
                await talk(secure, total)

    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        announce(listener.getsockname()[1])
        while True:
            conn, _ = await listener.accept()
            conn.setsockopt(aiosock.IPPROTO_TCP, aiosock.TCP_NODELAY, 1)
            task = asyncio.create_task(serve(conn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def streams_server(talk: Talk, total: int, context: ssl.SSLContext) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await talk(reader, writer, total)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class Bare:
    """No tasks, no loop but this one: what Python allows at most."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.talk = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.act = self.shake_hands

    def shake_hands(self) -> None:
        self.talk.do_handshake()
        self.act = self.echo

    def echo(self) -> None:
        self.talk.write(self.talk.read(SIZE))

    def hear(self) -> bool:
        data = self.sock.recv(SIZE)
        if not data:
            return False
        self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.act()
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())
        return True


def bare_server(context: ssl.SSLContext) -> None:
    epoll, conns = select.epoll(), dict[int, Bare]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        epoll.register(listener, select.EPOLLIN)
        announce(listener.getsockname()[1])
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    conn, _ = listener.accept()
                    conns[conn.fileno()] = Bare(conn, context)
                    epoll.register(conn, select.EPOLLIN)
                else:
                    with suppress(OSError):  # whoever goes, and how
                        if conns[fd].hear():
                            continue
                    conns.pop(fd).sock.close()


KINDS: dict[str, tuple[Callable[..., Awaitable[None]], dict[str, Talk]]] = {
    "aiosock": (
        aiosock_server,
        {"echo": aiosock_echo, "receive": aiosock_receive, "send": aiosock_send},
    ),
    "streams": (
        streams_server,
        {"echo": streams_echo, "receive": streams_receive, "send": streams_send},
    ),
}
NAMES = [f"{kind} on {loop}" for loop in ("uvloop", "asyncio") for kind in KINDS]
LIMIT = "bare epoll"  # which echoes only


def serve(options: argparse.Namespace) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    if options.serve == LIMIT:
        return bare_server(context)
    kind, _, loop = options.serve.split(" ")
    server, talks = KINDS[kind]

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_weight)
        await server(talks[options.talk], options.mebibytes << 20, context)

    if options.trace:
        tracemalloc.start()
    on(loop, main)()
    return None


def tell_weight() -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(tracemalloc.get_traced_memory()[0], pages * resource.getpagesize(), flush=True)


# --- the clients -------------------------------------------------------------------------


@functools.cache
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def secured(port: int) -> ssl.SSLSocket:
    return client_context().wrap_socket(connected(port))


def part(conn: ssl.SSLSocket) -> None:
    """Close, and say so; what the other end says to that is not awaited."""
    conn.setblocking(False)
    with conn, suppress(OSError):
        conn.unwrap()


class Meter:
    """Rates from now on, by the clock and by the server's CPU."""

    def __init__(self, server: Server) -> None:
        self.clock = ~server.process.pid << 3 | 2  # clock_getcpuclockid(3), which Python lacks
        self.start, self.cpu = time.perf_counter(), time.clock_gettime(self.clock)

    def rates(self, amount: float, unit: str) -> Rates:
        elapsed = time.perf_counter() - self.start
        cpu = time.clock_gettime(self.clock) - self.cpu
        return {f"{unit}/s": amount / elapsed, f"{unit}/s of the server's CPU": amount / cpu}


def send_bulk(server: Server, options: argparse.Namespace) -> Rates:
    conn = secured(server.port)
    meter = Meter(server)
    for _ in range((options.mebibytes << 20) // SIZE):
        conn.sendall(PIECE)
    conn.recv(1)
    rates = meter.rates(options.mebibytes, "MiB")
    part(conn)
    return rates


def take_bulk(server: Server, options: argparse.Namespace) -> Rates:
    conn, buffer, missing = secured(server.port), bytearray(SIZE), options.mebibytes << 20
    meter = Meter(server)
    conn.sendall(b"x")
    while missing:
        got = conn.recv_into(buffer)
        if not got:
            raise ConnectionError("the server has closed too early")
        missing -= got
    rates = meter.rates(options.mebibytes, "MiB")
    part(conn)
    return rates


def shake_hands(server: Server, options: argparse.Namespace) -> Rates:
    meter = Meter(server)

    def again_and_again(_: int) -> int:
        done = 0
        while time.perf_counter() < meter.start + options.seconds:
            conn = secured(server.port)
            conn.sendall(b"x")
            done += len(conn.recv(1))
            part(conn)
        return done

    with ThreadPoolExecutor(options.threads) as pool:
        done = sum(pool.map(again_and_again, range(options.threads)))
    return meter.rates(done, "handshakes")


def load_of(folder: str, options: argparse.Namespace) -> tuple[str, Load]:
    if not options.python_load:
        with suppress(subprocess.CalledProcessError):  # the compiler has said what it lacks
            compiled = compiled_load(folder, "-DTLS", "-lssl", "-lcrypto")
            if compiled:
                return "C", compiled
    return "Python", functools.partial(python_load, connect=secured)


# --- memory ------------------------------------------------------------------------------


def weigh(server: Server, options: argparse.Namespace) -> list[float]:
    """What each of many idle connections adds: bytes of Python's, bytes of resident memory."""

    def idle(count: int) -> list[ssl.SSLSocket]:
        conns = [secured(server.port) for _ in range(count)]
        for conn in conns:
            missing = conn.send(bytes(options.size))
            while missing:
                missing -= len(conn.recv(missing))
        return conns

    try:
        first = idle(20)  # what comes only once has come then
        before = weight_of(server)
        held = idle(options.idle)
        after = weight_of(server)
        for conn in (*first, *held):
            conn.close()
    finally:
        server.stop()
    return [(b - a) / options.idle for a, b in zip(before, after, strict=True)]


def weight_of(server: Server) -> list[int]:
    assert server.process.stdout is not None
    server.process.send_signal(signal.SIGUSR1)
    return [int(number) for number in server.process.stdout.readline().split()]


# --- all of it ---------------------------------------------------------------------------

Start = Callable[..., Server]
WORKS: dict[str, tuple[str, Callable[[Server, argparse.Namespace], Rates]]] = {
    "received": ("receive", send_bulk),
    "sent": ("send", take_bulk),
    "handshakes": ("echo", shake_hands),
}


def certificate(folder: str, key: str) -> str:
    try:
        import trustme
    except ImportError:
        sys.exit("The certificate comes from trustme, which is not installed: pip install trustme")
    path = f"{folder}/certificate.pem"
    made = trustme.CA().issue_cert("localhost", key_type=trustme.KeyType[key])
    made.private_key_and_cert_chain_pem.write_to_path(path)
    return path


def run_echo(names: list[str], start: Start, folder: str, options: argparse.Namespace) -> None:
    by, load = load_of(folder, options)
    print(f"echo: {options.connections} connections, {options.size} bytes from {by}", flush=True)
    rates = measure(
        {name: start(name, "echo") for name in [*names, LIMIT]},
        lambda server: load(server.port, options.connections, options.size, options.seconds),
        options.rounds,
    )
    report(rates, "round trips/s")


def run(work: str, names: list[str], start: Start, options: argparse.Namespace) -> None:
    print(work, flush=True)
    talk, take = WORKS[work]
    servers = {name: start(name, talk) for name in names}
    found = measure(servers, lambda server: take(server, options), options.rounds)
    for unit in found[names[0]][0]:
        report({name: [rates[unit] for rates in found[name]] for name in names}, unit)


def run_memory(names: list[str], start: Start, options: argparse.Namespace) -> None:
    print(f"memory: KiB for each of {options.idle} idle connections", flush=True)
    for name in names:
        traced, _ = weigh(start(name, "echo", "--trace"), options)
        _, resident = weigh(start(name, "echo"), options)
        print(f"  {name:22} {traced / 1024:7.1f} of Python's, {resident / 1024:7.1f} resident")


def main() -> None:
    parser = argparse.ArgumentParser(description="TLS, aiosock beside streams")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.15, help="of echo and of handshakes")
    parser.add_argument("--connections", type=int, default=10, help="of echo")
    parser.add_argument("--size", type=int, default=1024, help="of a message that is echoed")
    parser.add_argument("--mebibytes", type=int, default=64, help="received, sent")
    parser.add_argument("--threads", type=int, default=2, help="that shake hands")
    parser.add_argument("--idle", type=int, default=200, help="connections that are weighed")
    parser.add_argument("--key", choices=["ECDSA", "RSA"], default="ECDSA")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers, by part of the name")
    works = ["echo", *WORKS, "memory"]
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--python-load", action="store_true", help="as without a compiler")
    for hidden in ("--serve", "--talk", "--certificate"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    wanted = options.only or [""]
    names = [n for n in NAMES if installed(n) and any(part in n for part in wanted)]
    if not names:
        parser.error("there is no such server")
    if on_core(1):
        os.sched_setaffinity(0, {1})  # the clients are here; each server goes where it is told
    with tempfile.TemporaryDirectory() as folder:
        path = certificate(folder, options.key)
        mebibytes = str(options.mebibytes)
        print(f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {options.rounds} rounds")

        def start(name: str, talk: str, *more: str) -> Server:
            words = ["--talk", talk, "--certificate", path, "--mebibytes", mebibytes, *more]
            return Server(name, *words, program=__file__)

        for work in options.work:
            if work == "echo":
                run_echo(names, start, folder, options)
            elif work == "memory":
                run_memory(names, start, options)
            else:
                run(work, names, start, options)
    return None


if __name__ == "__main__":
    main()
