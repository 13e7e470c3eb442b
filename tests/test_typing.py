"""What a type checker knows of the package: a few calls, and the types that they reveal.

mypy runs once, as a process of its own (inside this one it would change the garbage
collector's thresholds and the recursion limit for the tests that follow), over a program
made of the expressions below.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aiosock
import aiosock_sync

ROOT = Path(aiosock.__file__).parents[1]

BEFORE = """
import socket as stdlib
import aiosock
import aiosock_sync
import ssl
from aiosock import SO_REUSEADDR

context: ssl.SSLContext

async def seven() -> int:
    return 7

async def plain(conn: aiosock.socket, peer: tuple[str, int]) -> None: ...
async def secure(conn: aiosock.SSLSocket, peer: tuple[str, int]) -> None: ...
def blocking(conn: aiosock_sync.socket, peer: tuple[str, int]) -> None: ...

async def program(sock: aiosock.socket, buffer: bytearray) -> None:
    connected = await aiosock.create_connection(("127.0.0.1", 1))
    listening = await aiosock.create_server(("127.0.0.1", 1))
    pair = aiosock.socketpair()
    with sock as entered: ...
    async with (
        sock as entered_too,
        aiosock.create_connection(("127.0.0.1", 1)) as connection,
        aiosock.create_server(("127.0.0.1", 1)) as server,
    ): ...
"""

REVEALED = {
    # receiving
    "await sock.accept()": "tuple[socket, Any]",
    "await sock.recv(1)": "bytes",
    "await sock.recv(1, aiosock.MSG_PEEK)": "bytes",
    "await sock.recv_into(buffer)": "int",
    "await sock.recvfrom(1)": "tuple[bytes, Any]",
    "await sock.recvfrom_into(buffer)": "tuple[int, Any]",
    "await sock.recvmsg(1)": "tuple[bytes, list[tuple[int, int, bytes]], int, Any]",
    "await sock.recvmsg_into([buffer])": "tuple[int, list[tuple[int, int, bytes]], int, Any]",
    "await sock.recv_many(5)": "list[tuple[bytes, Any]]",
    # sending
    "await sock.send(b'x')": "int",
    "await sock.sendall(memoryview(b'x'))": "None",
    "await sock.sendto(b'x', ('127.0.0.1', 1))": "int",
    "await sock.sendto(b'x', 0, ('127.0.0.1', 1))": "int",
    "await sock.sendmsg([b'x'])": "int",
    "await sock.sendfile(open('x', 'rb'))": "int",
    "await sock.send_many([b'x', (b'x', ('127.0.0.1', 1))])": "int",
    "await sock.send_many(await sock.recv_many(5))": "int",
    # the rest of the socket
    "await sock.bind(('127.0.0.1', 0))": "None",
    "await sock.connect(('127.0.0.1', 1))": "None",
    "await sock.connect_ex(('127.0.0.1', 1))": "int",
    "await sock.wait_readable()": "None",
    "sock.getsockopt(1, 2)": "int",
    "sock.getsockopt(1, 2, 8)": "bytes",
    "sock.setsockopt(1, 2, 3)": "None",
    "sock.setsockopt(1, 2, None, 8)": "None",
    "sock.gettimeout()": "float | None",
    "sock.timeout": "float | None",
    "sock.dup()": "socket",
    "sock.detach()": "int",
    "entered": "socket",
    "entered_too": "socket",
    # makers
    "connected": "socket",
    "connection": "socket",
    "listening": "socket",
    "server": "socket",
    "pair": "tuple[socket, socket]",
    "aiosock.fromfd(1, aiosock.AF_INET, aiosock.SOCK_STREAM)": "socket",
    "aiosock.from_stdlib_socket(stdlib.socket())": "socket",
    "await aiosock.send_fds(sock, [b'x'], [1])": "int",
    "await aiosock.recv_fds(sock, 1, 1)": "tuple[bytes, list[int], int, Any]",
    # options
    "aiosock.join_group(sock, '224.0.0.1', 'lo')": "None",
    "aiosock.join_group(stdlib.socket(), '224.0.0.1', 1)": "None",
    "aiosock.enable_ancillary(sock, ttl=True)": "None",
    "aiosock.parse_ancillary((await sock.recvmsg(1))[1])": "tuple[int | None, int | None, "
    "tuple[str, int, fallback=PacketInfo] | None, int, fallback=Ancillary]",
    "aiosock.peer_credentials(sock)": "tuple[int, int, int, fallback=PeerCredentials]",
    "aiosock_sync.peer_credentials(aiosock_sync.socket())": "tuple[int, int, int, "
    "fallback=PeerCredentials]",
    "aiosock_sync.socket().recv_many(5)": "list[tuple[bytes, Any]]",
    # names
    "await aiosock.getaddrinfo('x', 1)": "list[tuple[AddressFamily, SocketKind, int, str, Any]]",
    "await aiosock.getnameinfo(('127.0.0.1', 1), 0)": "tuple[str, str]",
    "await aiosock.gethostbyname('x')": "str",
    "await aiosock.gethostbyname_ex('x')": "tuple[str, list[str], list[str]]",
    "await aiosock.getservbyname('http', 'tcp')": "int",
    "aiosock.gethostname()": "str",
    "aiosock.htons(1)": "int",
    # constants and types
    "aiosock.AF_INET": "AddressFamily",
    "aiosock.SOCK_STREAM": "SocketKind",
    "aiosock.MSG_PEEK": "MsgFlag",
    "aiosock.AI_PASSIVE": "AddressInfo",
    "aiosock.SOL_SOCKET": "int",
    "aiosock.has_ipv6": "bool",
    "SO_REUSEADDR": "int",
    "aiosock.SocketType()": "socket",
    # serving
    "aiosock.serve(plain, ('127.0.0.1', 1), max_connections=5)": "Server",
    "aiosock.serve(plain, [listening, '/path'])": "Server",
    "aiosock.serve(plain, [('::1', 1), ('127.0.0.1', 1)], ssl=context)": "Server",
    "aiosock.serve(secure, ('127.0.0.1', 1), ssl=context)": "Server",
    "aiosock.serve(plain, aiosock.listen_fds())": "Server",
    "aiosock_sync.serve(blocking, ('127.0.0.1', 1), grace_period=None)": "Server",
    # files
    "sock.makefile()": "TextFile",
    "sock.makefile('rw', newline='')": "TextFile",
    "sock.makefile('rb')": "BinaryFile",
    "sock.makefile('rwb', 4096, limit=100)": "BinaryFile",
    "sock.makefile('rb', 0)": "RawFile",
    "sock.makefile(str())": "BinaryFile | TextFile",
    "await sock.makefile().readline()": "str",
    "await sock.makefile('rb').readline()": "bytes",
    "await sock.makefile('rb').read()": "bytes",
    "await sock.makefile('rb', 0).read()": "bytes | None",
    # run
    "aiosock.run(seven())": "int",
    "aiosock.run(seven)": "int",
}

REFUSED = {
    "sock.recv(1).decode()": "attr-defined",
    "await sock.recv(bufsize=1)": "call-arg",
    "await sock.send('text')": "arg-type",
    "aiosock.serve(secure, ('127.0.0.1', 1))": "arg-type",
    "aiosock.serve(blocking, ('127.0.0.1', 1))": "arg-type",
    "aiosock.serve(plain, 8080)": "call-overload",
    "aiosock_sync.serve(blocking, 8080)": "call-overload",
    "await sock.makefile('w').write(b'')": "arg-type",
    "await sock.makefile('wb').write('')": "arg-type",
    "await sock.send_many(['text'])": "list-item",
    "aiosock.NO_SUCH_NAME": "attr-defined",
    "aiosock.run(7)": "arg-type",
}


Answers = dict[str, str]


@pytest.fixture(scope="module")
def answers(pytestconfig: pytest.Config) -> Answers:
    """What mypy says of each expression."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    folder = Path(pytestconfig.rootpath, ".mypy_cache", "test_typing")
    folder.mkdir(parents=True, exist_ok=True)
    asked = [*REVEALED, *REFUSED]
    lines = [f"    reveal_type({one})\n" if one in REVEALED else f"    {one}\n" for one in asked]
    Path(folder, "program.py").write_text(BEFORE + "".join(lines))
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir=.", "program.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = re.findall(r"^program\.py:(\d+): (.*)$", ran.stdout, re.MULTILINE)
    assert told, ran
    first = BEFORE.count("\n") + 1
    assert min(int(number) for number, _ in told) >= first, told
    return {asked[int(number) - first]: text for number, text in reversed(told)}  # the first counts


def test_the_packages_tell_type_checkers_that_they_are_typed() -> None:
    for package in (aiosock, aiosock_sync):
        assert Path(package.__path__[0], "py.typed").read_bytes() == b""


@pytest.mark.parametrize("expression", REVEALED)
def test_an_expression_has_its_type(answers: Answers, expression: str) -> None:
    revealed = re.fullmatch(r'note: Revealed type is "(.*)"', answers[expression])
    assert revealed, answers[expression]
    assert re.sub(r"\b[a-z_]+\.|\?", "", revealed[1]) == REVEALED[expression]


@pytest.mark.parametrize("expression", REFUSED)
def test_a_mistake_is_found(answers: Answers, expression: str) -> None:
    assert answers[expression].startswith("error: ")
    assert answers[expression].endswith(f"[{REFUSED[expression]}]")
