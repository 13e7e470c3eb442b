"""The load: load.c, or the same in Python where no compiler is, slower than some servers.

It connects, and works whenever it is asked, for so many seconds; see load.c.
"""

import functools
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from ._programs import LOADING, Program, Server, answer, calling

Mode = Literal["echo", "short", "pour", "drain"]
PIECE, LINE = 1 << 18, 128
HERE = Path(__file__).parent


class Tools:
    """What is compiled for this run, if there is a compiler."""

    def __init__(self, folder: str, *, python_only: bool = False) -> None:
        self.folder = folder
        self.compiler = None if python_only else shutil.which("cc")
        self._made: dict[str, str | None] = {}

    def program(self, name: str, *flags: str) -> str | None:
        """The path of a program of ours in C."""
        key = f"{name}{''.join(flags)}"
        if key not in self._made:
            self._made[key] = self._compiled(name, f"{self.folder}/{name}{len(self._made)}", flags)
        return self._made[key]

    def _compiled(self, name: str, path: str, flags: tuple[str, ...]) -> str | None:
        if self.compiler is None:
            return None
        command = [self.compiler, "-O2", "-o", path, str(HERE / f"{name}.c"), *flags]
        done = subprocess.run(command, capture_output=True)
        return path if done.returncode == 0 else None

    def load(
        self, server: Server, mode: Mode, connections: int, active: int, size: int, tls: bool
    ) -> Program:
        flags = ("-DTLS", "-lssl", "-lcrypto") if tls else ()
        words = (mode, server.port, connections, active, size)
        program = self.program("load", *flags)
        command = [program, *map(str, words)] if program else calling(serve_load, *words, int(tls))
        return Program(*command, core=LOADING)

    def certificate(self) -> str | None:
        """A file with a certificate of localhost and its key, if something here can make one."""
        path = Path(self.folder, "certificate.pem")
        if not path.exists():
            with suppress(OSError, subprocess.CalledProcessError):
                _certify_by_openssl(path)
            if not path.exists():
                with suppress(ImportError):
                    _certify_by_trustme(path)
        return str(path) if path.exists() else None


@contextmanager
def tools(*, python_only: bool = False) -> Iterator[Tools]:
    with tempfile.TemporaryDirectory() as folder:
        yield Tools(folder, python_only=python_only)


def _certify_by_openssl(path: Path) -> None:
    made = "openssl req -x509 -nodes -days 2 -subj /CN=localhost -newkey ec"
    key = path.with_suffix(".key")
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(key) + "c"]
    subprocess.run([*made.split(), *curve], check=True, capture_output=True)
    path.write_bytes(key.read_bytes() + Path(str(key) + "c").read_bytes())


def _certify_by_trustme(path: Path) -> None:
    import trustme

    made = trustme.CA().issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    made.private_key_and_cert_chain_pem.write_to_path(str(path))


# --- the same in Python ------------------------------------------------------------------


@functools.cache
def unverified() -> ssl.SSLContext:
    """A client's context that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


RESET = b"\1\0\0\0\0\0\0\0"  # a struct linger: a close that leaves nothing in TIME_WAIT


def connected(port: int, tls: bool = False) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return unverified().wrap_socket(sock) if tls else sock


def taken(sock: socket.socket, size: int) -> None:
    """Receive so many bytes."""
    while size:
        got = len(sock.recv(min(size, PIECE)))
        if not got:
            raise ConnectionError("the server has closed too early")
        size -= got


class _Trips:
    """Echo, on connections that stay or that are short."""

    def __init__(self, active: int, size: int, connect: Callable[[], socket.socket]) -> None:
        self.active, self.size, self.connect = active, size, connect
        self.epoll, self.socks = select.epoll(), dict[int, socket.socket]()
        self.missing: dict[int, int] = {}
        self.message = b"x" * size

    def begin(self) -> None:
        sock = self.connect()
        self.socks[sock.fileno()] = sock
        self.epoll.register(sock, select.EPOLLIN)

    def say(self, fd: int) -> None:
        self.missing[fd] = self.size
        self.socks[fd].sendall(self.message)

    def heard(self, fd: int) -> bool:
        sock, pending = self.socks[fd], True
        while pending and self.missing[fd]:
            self.missing[fd] -= len(sock.recv(self.missing[fd]))
            pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        return not self.missing[fd]

    def ended(self, fd: int) -> bool:
        with suppress(ConnectionError, ssl.SSLError):
            if self.socks[fd].recv(self.size):
                return False
        self.socks.pop(fd).close()
        return True

    def stay(self, seconds: float) -> tuple[float, float]:
        return self._run(seconds, lambda: None, self.heard)

    def come_and_go(self, seconds: float) -> tuple[float, float]:
        for _ in range(self.active):
            self.begin()
        return self._run(seconds, self.begin, self.ended)

    def _run(
        self, seconds: float, begin: Callable[[], None], over: Callable[[int], bool]
    ) -> tuple[float, float]:
        done, start, short = 0, time.perf_counter(), over == self.ended
        for fd in list(self.socks):
            self.say(fd)
        under_way = self.active
        while under_way:
            for fd, _ in self.epoll.poll():
                if not over(fd):
                    continue
                done += 1
                if time.perf_counter() >= start + seconds:
                    under_way -= 1
                    continue
                begin()
                self.say(next(reversed(self.socks)) if short else fd)
        return done, time.perf_counter() - start


def _bulk(sock: socket.socket, pour: bool, size: int, seconds: float) -> tuple[float, float]:
    message = (b"x" * (LINE - 1) + b"\n") * (size // LINE)
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds or not done:
        sock.sendall(message if pour else b"x")
        taken(sock, 1 if pour else size)
        done += size
    return done, now - start


def serve_load(mode: str, *numbers: str) -> None:
    """What load.c does."""
    port, connections, active, size, tls = map(int, numbers)
    connect = functools.partial(connected, port, bool(tls))
    if mode in ("pour", "drain"):
        sock = connect()
        return answer(lambda seconds: _bulk(sock, mode == "pour", size, seconds))
    if mode == "short":
        return answer(_Trips(active, size, lambda: _reset(connect())).come_and_go)
    trips, idle = _Trips(active, size, connect), list[Any]()
    for number in range(connections):
        if number < active:
            trips.begin()
            sock = next(reversed(trips.socks.values()))
        else:
            idle.append(sock := connect())
        sock.sendall(trips.message)
        taken(sock, size)
    return answer(trips.stay)


def _reset(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return sock
