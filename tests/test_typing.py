"""What a type checker knows of the package: a few calls, and the types that they reveal.

mypy runs once, as a process of its own (inside this one it would change the garbage
collector's thresholds and the recursion limit for the tests that follow), over a program
made of the expressions below.
"""

import importlib.util
import json
import os
import re
import socket as _stdlib
import subprocess
import sys
import typing
from contextlib import suppress
from pathlib import Path

import pytest

import aiosock
import aiosock_sync
from aiosock import _addresses

ROOT = Path(aiosock.__file__).parents[1]

BEFORE = """
import socket as stdlib
import aiosock
import aiosock_sync
import ssl
from pathlib import Path
from aiosock import SO_REUSEADDR

context: ssl.SSLContext
flag: bool

async def seven() -> int:
    return 7

async def plain(conn: aiosock.socket, peer: tuple[str, int]) -> None: ...
async def secure(conn: aiosock.SSLSocket, peer: tuple[str, int]) -> None: ...
def blocking(conn: aiosock_sync.socket, peer: tuple[str, int]) -> None: ...

async def program(
    sock: aiosock.socket,
    tls: aiosock.SSLSocket,
    blocking_tls: aiosock_sync.SSLSocket,
    buffer: bytearray,
) -> None:
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
    "aiosock_sync.socket().recvmsg(1)": "tuple[bytes, list[tuple[int, int, bytes]], int, Any]",
    "aiosock_sync.socket().recvmsg_into([buffer])": "tuple[int, list[tuple[int, int, bytes]], "
    "int, Any]",
    # names
    "await aiosock.getaddrinfo('x', 1)": "list[tuple[AddressFamily, SocketKind, int, str, "
    "tuple[str, int] | tuple[str, int, int, int]]]",
    "(await aiosock.getaddrinfo('x', 1))[0][4][0]": "str",
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
    "sock.makefile('rb', bufsize=100)": "BinaryFile",
    "sock.makefile('r', bufsize=100)": "TextFile",
    "sock.makefile(str())": "BinaryFile | TextFile",
    "await sock.makefile().readline()": "str",
    "await sock.makefile('rb').readline()": "bytes",
    "await sock.makefile('rb').read()": "bytes",
    "await sock.makefile('rb', 0).read()": "bytes | None",
    # what may be TLS
    "aiosock.create_connection(('127.0.0.1', 1), ssl=True)": "Opening[SSLSocket]",
    "aiosock.create_connection(('127.0.0.1', 1), ssl=False)": "Opening[socket]",
    "aiosock.create_connection(('127.0.0.1', 1), ssl=flag)": "Opening[socket]",
    "aiosock.create_connection(b'/path', ssl=context)": "Opening[SSLSocket]",
    "aiosock.create_server(('127.0.0.1', 1), ssl=context)": "Opening[SSLListener]",
    "aiosock.create_server(('127.0.0.1', 1), ssl=context if flag else None)": "Opening[socket]",
    "aiosock_sync.create_connection(('127.0.0.1', 1), ssl=True)": "SSLSocket",
    "aiosock_sync.create_connection(('127.0.0.1', 1), ssl=flag)": "socket",
    "await aiosock.ssl(sock)": "SSLObject",
    "tls.getpeercert()": "dict[str, Any] | None",
    "tls.getpeercert(True)": "bytes | None",
    "tls.getpeercert(flag)": "dict[str, Any] | bytes | None",
    "await tls.read()": "bytes",
    "await tls.read(5, buffer)": "int",
    "await tls.recvfrom(5)": "tuple[bytes, Any]",
    "await tls.recvfrom_into(buffer)": "tuple[int, Any]",
    "await tls.sendto(b'x', 0, ('127.0.0.1', 1))": "int",
    "blocking_tls.read()": "bytes",
    "blocking_tls.read(5, buffer)": "int",
    # addresses
    "await sock.connect('/path')": "None",
    "await sock.sendto(b'x', 0, ('::1', 1, 0, 0))": "int",
    "await sock.sendmsg([b'x'], [], 0, None)": "int",
    "aiosock_sync.socket().sendto(b'x', ('127.0.0.1', 1))": "int",
    # run
    "aiosock.run(seven())": "int",
    "aiosock.run(seven)": "int",
}

# Addresses of each family, of which `connect` says nothing worse than that nobody is there.
RIGHT = {
    "AF_INET": ["('127.0.0.1', 1)", "(b'127.0.0.1', 1)", "(bytearray(b'127.0.0.1'), 1)"],
    "AF_INET6": ["('::1', 1)", "('::1', 1, 0)", "('::1', 1, 0, 0)", "(b'::1', 1, 0, 0)"],
    "AF_UNIX": ["'/no/path'", "b'/no/path'", "bytearray(b'\\0none')", "memoryview(b'/no/path')"],
    "AF_NETLINK": ["(0, 0)"],
    "AF_VSOCK": ["(1, 1)"],
    "AF_QIPCRTR": ["(1, 1)"],
    "AF_PACKET": ["('lo', 0)", "('lo', 0, 0)", "('lo', 0, 0, 1)", "('lo', 0, 0, 1, b'123456')"],
    "AF_CAN": ["('none0',)"],
    "AF_TIPC": ["(2, 7000, 0, 0)", "(1, 7000, 0, 0, 1)"],
    "AF_ALG": ["('hash', 'none')", "('hash', 'none', 0)", "('hash', 'none', 0, 0)"],
}
# What no family takes.
WRONG = [
    "('127.0.0.1', '80')",
    "('127.0.0.1', 80.0)",
    "('::1', '80', 0, 0)",
    "('::1', 80, 0, 0, 0)",
    "('::1', 80, 0, 0, 0, 0)",
    "['127.0.0.1', 80]",
    "(None, 80)",
    "(80, '127.0.0.1')",
    "Path('/path')",
    "('/path', b'')",
    "8080",
    "()",
]
TAKING = [
    "await sock.connect({})",
    "await sock.connect_ex({})",
    "await sock.bind({})",
    "await sock.sendto(b'x', {})",
    "await sock.sendto(b'x', 0, {})",
    "await sock.sendmsg([b'x'], [], 0, {})",
    "await tls.sendto(b'x', {})",
    "aiosock.create_server({})",
    "aiosock_sync.socket().connect({})",
    "aiosock_sync.socket().connect_ex({})",
    "aiosock_sync.socket().bind({})",
    "aiosock_sync.socket().sendto(b'x', {})",
    "aiosock_sync.socket().sendmsg([b'x'], [], 0, {})",
    "aiosock_sync.create_server({})",
    "blocking_tls.connect({})",
    "blocking_tls.connect_ex({})",
]

NO_ADDRESS = "arg-type|call-overload"

REFUSED = {
    **{call.format(one): NO_ADDRESS for call in TAKING for one in WRONG},
    "await sock.connect('127.0.0.1', 80)": "call-arg",
    "aiosock_sync.socket().connect('127.0.0.1', 80)": "call-arg",
    "aiosock.create_connection(['127.0.0.1', 80])": NO_ADDRESS,
    "aiosock.create_connection(('127.0.0.1', 80.0))": NO_ADDRESS,
    "aiosock.create_connection(('::1', 80, 0, 0))": NO_ADDRESS,
    "aiosock.create_connection('127.0.0.1', 80, '127.0.0.1', 0)": NO_ADDRESS,
    "aiosock.create_connection(('x', 80), source_address=('127.0.0.1', '0'))": NO_ADDRESS,
    "aiosock_sync.create_connection(['127.0.0.1', 80])": NO_ADDRESS,
    "aiosock_sync.create_connection(('x', 80), source_address=(0, 0))": NO_ADDRESS,
    "aiosock.serve(plain, ('127.0.0.1', '80'))": NO_ADDRESS,
    "aiosock.serve(plain, [('127.0.0.1', '80')])": "list-item|arg-type",
    "aiosock.serve(plain, (1, 80))": NO_ADDRESS,
    "aiosock_sync.serve(blocking, ('127.0.0.1', '80'))": NO_ADDRESS,
    "await aiosock.getnameinfo(('127.0.0.1', '80'), 0)": "arg-type",
    "await aiosock.getnameinfo((b'127.0.0.1', 80), 0)": "arg-type",
    "aiosock_sync.getnameinfo('127.0.0.1', 0)": "arg-type",
    "await sock.send_many([(b'x', ('127.0.0.1', '80'))])": "list-item",
    "await sock.sendmsg([b'x'], [(1, 2)])": "list-item",
    "aiosock_sync.socket().sendmsg([b'x'], [(1, 2)])": "list-item",
    "await sock.sendto(b'x', None)": NO_ADDRESS,
    "aiosock_sync.socket().sendto(b'x', None)": NO_ADDRESS,
    "with aiosock.create_connection(('127.0.0.1', 1)): ...": "attr-defined",
    "with aiosock.serve(plain, ('127.0.0.1', 1)): ...": "attr-defined",
    "aiosock.create_connection(('127.0.0.1', 1)).sendall(b'')": "attr-defined",
    "aiosock_sync.call(seven())": "arg-type",
    "sock.recv(1).decode()": "attr-defined",
    "await sock.recv(bufsize=1)": "call-arg",
    "await sock.send('text')": "arg-type",
    "aiosock.serve(secure, ('127.0.0.1', 1))": "arg-type",
    "aiosock.serve(blocking, ('127.0.0.1', 1))": "arg-type",
    "aiosock.serve(plain, 8080)": NO_ADDRESS,
    "aiosock_sync.serve(blocking, 8080)": NO_ADDRESS,
    "await sock.makefile('w').write(b'')": "arg-type",
    "await sock.makefile('wb').write('')": "arg-type",
    "await sock.send_many(['text'])": "list-item",
    "aiosock.NO_SUCH_NAME": "attr-defined",
    "aiosock.run(7)": "arg-type",
    "await tls.recvmsg(1)": "arg-type",  # the last, since it never returns
}


Answers = dict[str, str]


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config) -> Path:
    """Where mypy finds what it found out the last time."""
    folder = Path(pytestconfig.rootpath, ".mypy_cache", "test_typing")
    folder.mkdir(parents=True, exist_ok=True)
    Path(folder, "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> Answers:
    """What mypy says of each expression."""
    asked = [*REVEALED, *REFUSED]
    lines = [f"    reveal_type({one})\n" if one in REVEALED else f"    {one}\n" for one in asked]
    Path(folder, "program.py").write_text(BEFORE + "".join(lines))
    ran = check("mypy", "--strict", "--cache-dir=.", "program.py", cwd=folder)
    told = re.findall(r"^program\.py:(\d+): (.*)$", ran.stdout, re.MULTILINE)
    assert told, ran
    first = BEFORE.count("\n") + 1
    assert min(int(number) for number, _ in told) >= first, told
    return {asked[int(number) - first]: text for number, text in reversed(told)}  # the first counts


@pytest.fixture(scope="module")
def refused_elsewhere(folder: Path, answers: Answers) -> set[str]:
    """Which of the expressions basedpyright refuses."""
    ran = check("basedpyright", "--outputjson", "program.py", cwd=folder)
    lines = Path(folder, "program.py").read_text().splitlines()
    told = json.loads(ran.stdout)["generalDiagnostics"]
    wrong = [one["range"]["start"]["line"] for one in told if one["severity"] == "error"]
    assert wrong, ran
    return {lines[number].strip() for number in wrong}


# The same types in the words of every checker: what none of them may disagree on.
ASSERTED = """
import socket as stdlib
import ssl
from typing import Any, assert_type
import aiosock
import aiosock_sync

async def program(
    sock: aiosock.socket, tls: aiosock.SSLSocket, flag: bool, context: ssl.SSLContext
) -> None:
    where = ("127.0.0.1", 1)
    assert_type(await sock.recv(1), bytes)
    assert_type(await sock.recv_into(bytearray(1)), int)
    assert_type(await sock.recvfrom(1), tuple[bytes, Any])
    assert_type(await sock.sendto(b"x", where), int)
    assert_type(await sock.sendto(b"x", 0, "/path"), int)
    assert_type(await sock.accept(), tuple[aiosock.socket, Any])
    assert_type(sock.getsockopt(1, 2), int)
    assert_type(sock.getsockopt(1, 2, 3), bytes)
    assert_type(sock.makefile("rb"), aiosock.BinaryFile)
    assert_type(sock.makefile("rb", 0), aiosock.RawFile)
    assert_type(sock.makefile(), aiosock.TextFile)
    assert_type(aiosock.socketpair(), tuple[aiosock.socket, aiosock.socket])
    assert_type(await aiosock.create_connection(where), aiosock.socket)
    assert_type(await aiosock.create_connection(where, ssl=flag), aiosock.socket)
    assert_type(await aiosock.create_connection(where, ssl=True), aiosock.SSLSocket)
    assert_type(await aiosock.create_server(where, ssl=context), aiosock.SSLListener)
    async with aiosock.create_connection(where, ssl=context) as entered:
        assert_type(entered, aiosock.SSLSocket)
    async with aiosock.create_server(where) as server:
        assert_type(server, aiosock.socket)
    assert_type(await sock.start_tls(context), aiosock.SSLSocket)
    assert_type(await aiosock.ssl(sock), aiosock.SSLObject)
    assert_type(await tls.read(), bytes)
    assert_type(await tls.read(1, bytearray(1)), int)
    assert_type(tls.getpeercert(True), bytes | None)
    assert_type(aiosock.AF_INET, stdlib.AddressFamily)
    assert_type(aiosock.SOL_SOCKET, int)

async def annotated(sock: aiosock.socket, path: str | bytes) -> None:
    conn, peer = await sock.accept()
    annotated: aiosock.Inet6Address = peer
    assert_type(annotated[3], int)
    host, port = sock.getsockname()
    await sock.connect((host, port))
    data, sender = await sock.recvfrom(100)
    await sock.sendto(data, sender)
    await sock.sendto(data, sender[:2])
    await sock.send_many(await sock.recv_many(10))
    for family, kind, proto, name, address in await aiosock.getaddrinfo("x", 1):
        assert_type(address, aiosock.InetAddress | aiosock.Inet6Address)
        assert_type(address[:2], tuple[str, int])
        await sock.connect(address)
        await aiosock.getnameinfo(address, 0)
    for info in stdlib.getaddrinfo("x", 1):
        await sock.connect(info[4])
    await sock.connect(path)
    serving = [info[4] for info in await aiosock.getaddrinfo("x", 1)]
    aiosock.serve(handler, serving)
    aiosock.serve(handler, [("127.0.0.1", 1), ("::1", 1, 0, 0), "/path", b"/path", sock])
    aiosock.serve(handler, (("127.0.0.1", 1), ("::1", 1)))
    aiosock.serve(handler, (sock, sock))

async def handler(conn: aiosock.socket, peer: aiosock.InetAddress | aiosock.Inet6Address) -> None:
    if len(peer) == 2:
        assert_type(peer, aiosock.InetAddress)
    else:
        assert_type(peer, aiosock.Inet6Address)

def loosely(sock: aiosock_sync.socket, address: tuple[Any, ...], anything: Any) -> None:
    sock.connect(address)
    sock.bind(anything)
    sock.sendmsg([b"x"], [(1, 2, b"x")], 0, address)

def blocking(sock: aiosock_sync.socket, flag: bool) -> None:
    where = ("127.0.0.1", 1)
    assert_type(sock.recv(1), bytes)
    assert_type(sock.sendto(b"x", where), int)
    assert_type(sock.accept(), tuple[aiosock_sync.socket, Any])
    assert_type(aiosock_sync.create_connection(where), aiosock_sync.socket)
    assert_type(aiosock_sync.create_connection(where, ssl=flag), aiosock_sync.socket)
    assert_type(aiosock_sync.create_connection(where, ssl=True), aiosock_sync.SSLSocket)
    assert_type(aiosock_sync.call(aiosock.getfqdn, "x"), str)
"""


# Of each kind of address that every call takes: all but a bare number, which HCI gives.
TAKEN = [name for name in vars(_addresses)["__all__"] if name != "BluetoothAddress"]
FAMILY = """
async def take_{name}(
    sock: aiosock.socket, blocking: aiosock_sync.socket, address: {face}.{name}
) -> None:
    await sock.connect(address)
    await sock.sendto(b"x", address)
    await aiosock.create_server(address)
    blocking.bind(address)
    blocking.sendmsg([b"x"], [], 0, address)
"""
ASSERTED += "".join(
    FAMILY.format(name=name, face=face).replace("take_", f"take_{face}_")
    for name in TAKEN
    for face in ("aiosock", "aiosock_sync")
)
ASSERTED += "".join(
    f"\nasync def right_{number}(sock: aiosock.socket) -> None:\n    await sock.connect({one})\n"
    for number, one in enumerate(one for family in RIGHT.values() for one in family)
)


def check(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a checker of this environment, if it is there; pyright asks PATH which that is."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": here, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("package", ["aiosock", "aiosock_sync"])
def test_every_public_name_has_a_type(package: str, tmp_path: Path) -> None:
    done = check("basedpyright", "--verifytypes", package, "--ignoreexternal", cwd=tmp_path)
    assert "Type completeness score: 100%" in done.stdout, done.stdout


def test_two_checkers_agree_on_the_types(folder: Path) -> None:
    Path(folder, "asserted.py").write_text(ASSERTED)
    ran = check("mypy", "--strict", "--cache-dir=.", "asserted.py", cwd=folder)
    assert ran.returncode == 0, ran.stdout
    ran = check("basedpyright", "asserted.py", cwd=folder)
    assert ran.returncode == 0, ran.stdout


def test_the_examples_of_the_page_on_types_are_typed(folder: Path) -> None:
    page = (ROOT / "docs" / "reference" / "types.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = [f"example_{number}.py" for number, _ in enumerate(examples)]
    for name, example in zip(names, examples, strict=True):
        Path(folder, name).write_text(example)
    ran = check("mypy", "--strict", "--cache-dir=.", *names, cwd=folder)
    assert (ran.returncode, len(names)) == (0, 3), ran.stdout
    ran = check("basedpyright", *names, cwd=folder)
    assert ran.returncode == 0, ran.stdout


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
    assert re.fullmatch(rf"error: .*\[({REFUSED[expression]})\]", answers[expression])


@pytest.mark.parametrize("expression", REFUSED)
def test_another_checker_finds_it_as_well(refused_elsewhere: set[str], expression: str) -> None:
    assert expression in refused_elsewhere


# --- the types of addresses beside what addresses are -----------------------------------

FAMILIES = {
    "AF_INET": _addresses.InetAddress,
    "AF_INET6": _addresses.Inet6Address,
    "AF_UNIX": _addresses.UnixAddress,
    "AF_NETLINK": _addresses.NetlinkAddress,
    "AF_VSOCK": _addresses.VsockAddress,
    "AF_QIPCRTR": _addresses.QipcrtrAddress,
    "AF_PACKET": _addresses.PacketAddress,
    "AF_CAN": _addresses.CanAddress,
    "AF_TIPC": _addresses.TipcAddress,
    "AF_ALG": None,
}
KINDS = {"AF_ALG": _stdlib.SOCK_SEQPACKET, "AF_CAN": _stdlib.SOCK_RAW}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sock(family: str) -> typing.Iterator[_stdlib.socket]:
    """A socket of the stdlib's of the family, where the kernel has it."""
    proto = getattr(_stdlib, "CAN_RAW", 1) if family == "AF_CAN" else 0
    try:
        number = getattr(_stdlib, family)
        made = _stdlib.socket(number, KINDS.get(family, _stdlib.SOCK_DGRAM), proto)
    except (AttributeError, OSError) as error:
        pytest.skip(f"no {family} here: {error}")
    with made:
        made.setblocking(False)
        yield made


def test_what_is_taken_is_what_the_stdlib_takes(sock: _stdlib.socket, family: str) -> None:
    for text in RIGHT[family]:
        with suppress(OSError):
            sock.connect(eval(text))


def test_what_is_refused_the_stdlib_refuses(sock: _stdlib.socket) -> None:
    for text in WRONG:
        with pytest.raises(TypeError):
            sock.connect(eval(text))


def test_what_is_given_is_of_the_familys_type(sock: _stdlib.socket, family: str) -> None:
    if family == "AF_ALG":
        pytest.skip("it has no such call")
    given, shapes = sock.getsockname(), typing.get_args(FAMILIES[family])
    if family == "AF_UNIX":
        assert type(given) in shapes
    elif family == "AF_CAN":
        assert tuple(map(type, given)) in map(typing.get_args, shapes)
    else:
        assert tuple(map(type, given)) == shapes


def test_what_is_given_is_of_a_type_that_can_be_asked_at_run_time() -> None:
    def connect(address: aiosock.AddressLike) -> None: ...

    (hint,) = set(typing.get_type_hints(connect).values()) - {type(None)}
    assert tuple[int, int] in typing.get_args(hint)
