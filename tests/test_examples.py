"""The example programs, each run as its reader would run it.

Every server talks to every client of ours, to the stdlib's socket and, where it is
installed, to netcat; it runs as a process of its own, on a free port, and must have
nothing to say on stderr.  The echo server also has to stand what clients do to servers; the
async one is run on uvloop and, with uvloop hidden, on asyncio's loop; the blocking one has
a thread for each client.  Those that speak TLS meet each other, the stdlib's ssl and
OpenSSL's own client, with certificates of an authority that lives as long as the run.

The document's five programs differ from its text in what Python 3 and `await` ask for (on
the blocking face in what Python 3 asks for), in the host, which is this machine unless the
command line says otherwise, and in closing the listening socket, about which today's
Python warns.
"""

import ast
import os
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

import aiosock

ROOT = Path(aiosock.__file__).parents[1]
FILES = sorted((ROOT / "examples").glob("*.py"))
PATIENCE = 20  # seconds until a test gives a program up

FACES = ["{}.py", "{}_sync.py"]  # the async one and the blocking one
ECHO_SERVERS = [face.format("echo_server") for face in FACES]
ECHO_CLIENTS = [face.format("echo_client") for face in FACES]
DUAL_STACK_SERVERS = [face.format("dual_stack_server") for face in FACES]
DUAL_STACK_CLIENTS = [face.format("dual_stack_client") for face in FACES]
MANUALS_SERVERS = [*(face.format("ipv4_server") for face in FACES), *DUAL_STACK_SERVERS]
MANUALS_CLIENTS = [*(face.format("ipv4_client") for face in FACES), *DUAL_STACK_CLIENTS]
SERVERS = [*ECHO_SERVERS, *MANUALS_SERVERS]
CLIENTS = {
    **dict.fromkeys(ECHO_CLIENTS, "Hello, world\n"),
    **dict.fromkeys(MANUALS_CLIENTS, "Received b'Hello, world'\n"),
}
TLS_SERVERS = ["tls_echo_server.py"]
TLS_CLIENTS = ["tls_echo_client.py", *(face.format("ssl_client") for face in FACES)]
SEVERAL = ["multi_process_server.py", "handover_server.py"]  # processes that share a port
PLACED = [*SERVERS, *CLIENTS, *TLS_SERVERS, *TLS_CLIENTS, *SEVERAL]  # who take a host and a port
WHOLE = ["one_codebase.py", "starttls.py"]  # both sides in one program
ELSEWHERE = [  # run by test files of their own
    "anyio_stream.py",
    "dns_client.py",
    "h11_client.py",
    "h11_server.py",
    "httpcore_backend.py",
    "streams_handover.py",
    "wsproto_echo.py",
]


def meetings(servers: list[str], clients: list[str]) -> list[tuple[str, str]]:
    """Each server meets the first client, and each client the first server."""
    return sorted({(server, clients[0]) for server in servers} | {(servers[0], c) for c in clients})


RUN = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
LOOPS = {"uvloop": "", "asyncio": "import sys; sys.modules['uvloop'] = None"}
KINDS = {  # of echo server, and Python to run before it
    **{loop: ("echo_server.py", first) for loop, first in LOOPS.items()},
    "threads": ("echo_server_sync.py", ""),
}
on_each_loop = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
on_each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
on_each_server = pytest.mark.parametrize("server", SERVERS)

SLEEPS = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)$", re.M)

Address = tuple[str, int]
Kind = tuple[str, str]


def can_listen(family: int, address: Address) -> bool:
    with socket.socket(family) as sock:
        try:
            sock.bind(address)
        except OSError:
            return False
        return True


needs_ipv6 = pytest.mark.skipif(
    not can_listen(socket.AF_INET6, ("::1", 0)), reason="this machine has no IPv6 loopback"
)


# --- programs -----------------------------------------------------------------------


class Program:
    """An example that runs, and what it has printed when it is over."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed = ""
        self._ahead = ""  # what it has printed, and nobody has asked for

    def first_line(self) -> str:
        """Of what it has printed since; waits for it."""
        assert self.process.stdout is not None
        while "\n" not in self._ahead:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], "it prints nothing"
            printed = os.read(self.process.stdout.fileno(), 65536).decode()
            assert printed, "it has ended"
            self._ahead += printed
        line, _, self._ahead = self._ahead.partition("\n")
        return line + "\n"

    def address(self) -> Address:
        """Where it listens."""
        found = wait_for(lambda: self.process.poll() is not None or listening(self.process.pid))
        assert isinstance(found, tuple), self.process.communicate()
        return found

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def allow(self, descriptors: int) -> None:
        _, most = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (descriptors, most))

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it printed on stdout and on stderr; waits for its end."""
        printed, complaint = self.process.communicate(timeout=PATIENCE)
        self.printed = self._ahead + printed
        return self.process.returncode, self.printed, complaint

    def steps(self) -> int:
        """How often its threads went to sleep so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int(found) for task in tasks for found in SLEEPS.findall(read(task / "status")))

    def rests(self) -> bool:
        before = self.steps()
        time.sleep(0.05)
        return self.steps() == before

    def interrupt(self) -> tuple[int, str, str]:
        """By Ctrl-C, while it waits: Python drops one that comes within a weakref's callback."""
        wait_for(self.rests)
        self.process.send_signal(signal.SIGINT)
        return self.end()


@contextmanager
def running(name: str, *args: object, first: str = "") -> Iterator[Program]:
    """An example as a process, which is gone at the end; `first` is Python to run before it."""
    before = ["-c", f"{first}\n{RUN}"] if first else []
    command = [sys.executable, "-W", "error", *before, str(ROOT / "examples" / name)]
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        process = subprocess.Popen(
            [*command, *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()


def read(path: Path) -> str:
    with suppress(OSError):  # of a thread that has just ended
        return path.read_text()
    return ""


def run(name: str, *args: object, first: str = "") -> tuple[int, str, str]:
    with running(name, *args, first=first) as program:
        return program.end()


@contextmanager
def echo_server(kind: Kind) -> Iterator[tuple[Program, Address]]:
    """An echo server and its address; serves to the end, and stops without complaint."""
    name, first = kind
    with running(name, "127.0.0.1", 0, first=first) as program:
        told = re.fullmatch(r"listening on (\(.*\))\n", program.first_line())
        assert told
        address = ast.literal_eval(told[1])
        yield program, address[:2]
        with client(address[:2]) as sock:
            assert echo_of(b"still here?", sock) == b"still here?"
        code, _, complaint = program.interrupt()
        assert (code, complaint) == (0, "")


def wait_for(look: Callable[[], object]) -> object:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)
    return found


def listening(pid: int) -> Address | None:
    """Where a process listens, as Linux tells."""
    held = set(open_files(pid))
    for table in ("tcp", "tcp6"):
        with Path(f"/proc/{pid}/net/{table}").open() as rows:
            next(rows)
            for row in rows:
                _, local, _, state, *_, inode = row.split()[:10]
                if state != "0A":  # those that listen are the first; of others there are thousands
                    break
                if f"socket:[{inode}]" in held:
                    host, port = local.split(":")
                    return written(host), int(port, 16)
    return None


def open_files(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in this moment
            yield os.readlink(link)


def written(host: str) -> str:
    """An address of /proc/net (words of the machine's order, in hex) as it is written."""
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


# --- certificates -------------------------------------------------------------------


class Authority:
    """One that signs certificates, and the files that a program takes them from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ca = folder, trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)
        self.certificate = self.issue("localhost", "127.0.0.1", common_name="localhost")

    def issue(self, *names: str, **fields: Any) -> Path:
        file = self._folder / f"{len(list(self._folder.iterdir()))}.pem"
        self._ca.issue_cert(*names, **fields).private_key_and_cert_chain_pem.write_to_path(file)
        return file


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def secured(sock: socket.socket, authority: Authority) -> ssl.SSLSocket:
    """The stdlib's TLS on a client's socket, which it takes over."""
    context = ssl.create_default_context(cafile=authority.file)
    return context.wrap_socket(sock, server_hostname="localhost")


@contextmanager
def tls_echo_server(
    authority: Authority, first: str = "", certificate: Path | None = None
) -> Iterator[tuple[Program, Address]]:
    """The echo server over TLS and its address; serves to the end, stops without complaint."""
    file = certificate or authority.certificate
    with running(TLS_SERVERS[0], "127.0.0.1", 0, "--certificate", file, first=first) as program:
        yield program, program.address()
        if certificate is None:
            with secured(client(program.address()), authority) as sock:
                assert echo_of(b"still here?", sock) == b"still here?"
        code, _, complaint = program.interrupt()
        assert (code, complaint) == (0, "")


@contextmanager
def a_server(serve: Callable[[socket.socket], object]) -> Iterator[Address]:
    """Serves one client, with the stdlib's sockets; what goes wrong there comes out here."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        listener.settimeout(PATIENCE)

        def accept() -> None:
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(PATIENCE)
                serve(conn)

        served = pool.submit(accept)
        yield listener.getsockname()
        served.result()


# --- clients ------------------------------------------------------------------------


def client(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


def received(sock: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def echo_of(message: bytes, sock: socket.socket) -> bytes:
    """What comes back for a message, up to its length."""
    sock.sendall(message)
    echo = b""
    while len(echo) < len(message) and (data := sock.recv(65536)):
        echo += data
    return echo


def send_and_finish(message: bytes, sock: socket.socket) -> None:
    sock.sendall(message)
    sock.shutdown(socket.SHUT_WR)


def send_unread(sock: socket.socket) -> None:
    """As much as the buffers take, with nobody reading the echo."""
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.sendall(bytes(2**26))


def reset(sock: socket.socket) -> None:
    """Close with RST in place of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def netcat() -> str:
    """OpenBSD's netcat, the one that knows -N."""
    program = shutil.which("nc.openbsd") or shutil.which("nc")
    if program is None:
        pytest.skip("netcat is not installed")
    told = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=PATIENCE)
    if "OpenBSD" not in told.stdout + told.stderr:
        pytest.skip("the netcat that is installed is not OpenBSD's")
    return program


# --- every example ------------------------------------------------------------------


def test_every_example_is_among_those_that_are_run_here() -> None:
    assert [file.name for file in FILES] == sorted([*PLACED, *WHOLE, *ELSEWHERE])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_says_what_it_shows_and_how_to_run_it(file: Path) -> None:
    told = ast.get_docstring(ast.parse(file.read_text())) or ""
    arguments = " [host] [port]" if file.name in PLACED else ""
    assert f"\n    python examples/{file.name}{arguments}" in told


@pytest.mark.parametrize("name", [name for name in PLACED if "_sync" not in name])
def test_an_async_example_has_an_async_main(name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    assert "async def main() -> None:\n" in text
    assert text.endswith("    aiosock.run(main())\n")


@pytest.mark.parametrize("name", [name for name in PLACED if "_sync" in name])
def test_a_blocking_example_needs_another_import_alone(name: str) -> None:
    tree = ast.parse((ROOT / "examples" / name).read_text())
    imports = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import)}
    assert "import aiosock_sync as socket" in imports
    waits = ast.AsyncFunctionDef | ast.AsyncWith | ast.AsyncFor | ast.Await
    assert not [node for node in ast.walk(tree) if isinstance(node, waits)]
    assert not imports & {"import aiosock", "import asyncio", "import socket"}


@pytest.mark.parametrize(("server", "name"), meetings(SERVERS, list(CLIENTS)))
def test_every_client_gets_its_echo_and_every_server_serves(server: str, name: str) -> None:
    with running(server, "127.0.0.1", 0) as program:
        assert run(name, *program.address()) == (0, CLIENTS[name], "")


@on_each_server
def test_every_server_serves_netcat(server: str) -> None:
    with running(server, "127.0.0.1", 0) as program:
        command = [netcat(), "-N", *map(str, program.address())]
        told = subprocess.run(command, input=b"from nc\n", capture_output=True, timeout=PATIENCE)
        assert told.stdout == b"from nc\n"


@on_each_server
def test_a_server_serves_this_machine_alone_unless_told_otherwise(server: str) -> None:
    if not can_listen(socket.AF_INET, ("127.0.0.1", 50007)):
        pytest.skip("port 50007 is in use on this machine")
    with running(server) as program:
        assert program.address() in [("127.0.0.1", 50007), ("::1", 50007)]


@pytest.mark.parametrize("command", [TLS_SERVERS, ["starttls.py", "server"]], ids=" ".join)
def test_a_tls_server_serves_this_machine_alone_unless_told_otherwise(
    command: list[str], authority: Authority
) -> None:
    if not can_listen(socket.AF_INET, ("127.0.0.1", 50007)):
        pytest.skip("port 50007 is in use on this machine")
    with running(*command, "--certificate", authority.certificate) as program:
        assert program.address() == ("127.0.0.1", 50007)


@needs_ipv6
@pytest.mark.parametrize(
    ("server", "name"),
    meetings([*ECHO_SERVERS, *DUAL_STACK_SERVERS], [*ECHO_CLIENTS, *DUAL_STACK_CLIENTS]),
)
def test_ipv6_is_served_too(server: str, name: str) -> None:
    with running(server, "::1", 0) as program:
        host, port = program.address()
        assert host == "::1"
        assert run(name, host, port) == (0, CLIENTS[name], "")


# --- the manual's four --------------------------------------------------------------


@pytest.mark.parametrize("server", MANUALS_SERVERS)
def test_a_server_of_the_manual_serves_one_client_and_ends(server: str) -> None:
    message = bytes(range(256)) * 40
    with running(server, "127.0.0.1", 0) as program, client(program.address()) as sock:
        assert echo_of(b"one", sock) == b"one"
        assert echo_of(message, sock) == message
        sock.shutdown(socket.SHUT_WR)
        assert received(sock) == b""
        assert program.end() == (0, f"Connected by {sock.getsockname()}\n", "")


def resolving_to(*addresses: Address) -> str:
    """Python that makes every name have a socket type that there is not, then these addresses."""
    found = [(2, 99, 6, "", addresses[0]), *((2, 1, 6, "", address) for address in addresses)]
    return f"import socket; socket.getaddrinfo = lambda *args: {found}"


@pytest.fixture
def taken() -> Iterator[Address]:
    """An address where nobody listens and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.mark.parametrize("face", FACES)
def test_the_dual_stack_programs_take_the_first_address_that_works(
    face: str, taken: Address
) -> None:
    server, name = face.format("dual_stack_server"), face.format("dual_stack_client")
    several = resolving_to(taken, ("127.0.0.1", 0), taken)
    with running(server, "some.name", 0, first=several) as program:
        several = resolving_to(taken, program.address(), taken)
        assert run(name, "some.name", 1, first=several) == (0, CLIENTS[name], "")


@pytest.mark.parametrize("name", [*DUAL_STACK_SERVERS, *DUAL_STACK_CLIENTS])
def test_the_dual_stack_programs_say_when_no_address_is_left(name: str, taken: Address) -> None:
    assert run(name, *taken) == (1, "could not open socket\n", "")


# --- the echo server ----------------------------------------------------------------

CUT = "handlers cancelled as the server ends: {}\n"


@on_each_kind
def test_the_echo_server_serves_many_clients_at_once(kind: Kind) -> None:
    with echo_server(kind) as (_, address), ExitStack() as stack:
        socks = [stack.enter_context(client(address)) for _ in range(30)]
        for turn in range(3):
            for number, sock in reversed(list(enumerate(socks))):
                message = b"%d in turn %d" % (number, turn)
                assert echo_of(message, sock) == message


@on_each_kind
def test_the_echo_server_returns_more_than_any_buffer_holds(kind: Kind) -> None:
    message = os.urandom(2**20) * 16
    with echo_server(kind) as (_, address), client(address) as sock, ThreadPoolExecutor() as pool:
        sending = pool.submit(send_and_finish, message, sock)
        assert received(sock) == message
        sending.result()


@on_each_kind
def test_the_echo_server_survives_clients_that_reset(kind: Kind) -> None:
    with echo_server(kind) as (program, address), client(address) as witness:
        assert echo_of(b"hello", witness) == b"hello"
        alone = program.descriptors()
        for _ in range(20):
            reset(client(address))
        talker, flooder = client(address), client(address)
        assert echo_of(b"some", talker) == b"some"
        send_unread(flooder)
        reset(talker)
        reset(flooder)
        assert echo_of(b"me too?", witness) == b"me too?"
        wait_for(lambda: program.descriptors() <= alone)
    assert program.printed.count("is gone: [Errno 104] Connection reset by peer\n") == 22


@on_each_kind
def test_the_echo_server_stops_at_ctrl_c_in_the_midst_of_its_work(kind: Kind) -> None:
    name, before = kind
    with running(name, "127.0.0.1", 0, first=before) as program:
        address = program.address()
        with client(address) as idle, client(address) as served, client(address) as flooder:
            assert echo_of(b"hello", served) == b"hello"
            send_unread(flooder)
            assert program.interrupt() == (0, f"listening on {address}\n{CUT.format(3)}", "")
            assert received(idle) == received(served) == b""


@on_each_loop
def test_the_echo_server_outlives_a_lack_of_descriptors(loop: str) -> None:
    with echo_server(("echo_server.py", loop)) as (program, address), ExitStack() as stack:
        with client(address) as first:
            assert echo_of(b"hello", first) == b"hello"  # from here on it opens nothing else
        program.allow(program.descriptors() + 3)
        socks = [stack.enter_context(client(address)) for _ in range(8)]
        for sock in socks:
            with sock:
                assert echo_of(b"at last", sock) == b"at last"
    assert "cannot accept: [Errno 24] Too many open files" in program.printed


def test_the_blocking_echo_server_outlives_a_lack_of_descriptors() -> None:
    with echo_server(KINDS["threads"]) as (program, address):
        program.allow(program.descriptors())
        with client(address) as sock:
            assert "cannot accept: [Errno 24] Too many open files;" in program.first_line()
            program.allow(256)
            assert echo_of(b"at last", sock) == b"at last"


@pytest.mark.parametrize("name", ECHO_SERVERS)
def test_the_echo_server_says_which_address_is_taken(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        code, printed, complaint = run(name, *address)
        assert (code, printed) == (1, "")
        assert f"(while attempting to bind on address {address!r})" in complaint


# --- the echo client ----------------------------------------------------------------


@pytest.mark.parametrize("name", ECHO_CLIENTS)
@pytest.mark.parametrize("message", ["", "na\xefve \u2603", "x" * 100_000])
def test_the_echo_client_sends_the_message_it_is_given(name: str, message: str) -> None:
    with running("echo_server.py", "127.0.0.1", 0) as program:
        assert run(name, *program.address(), message) == (0, message + "\n", "")


@pytest.mark.parametrize("name", ECHO_CLIENTS)
def test_the_echo_client_fails_where_nobody_listens(name: str, taken: Address) -> None:
    code, printed, complaint = run(name, *taken)
    assert (code, printed) == (1, "")
    assert "ConnectionRefusedError: [Errno 111] Connection refused\n" in complaint


@pytest.mark.parametrize("name", ECHO_CLIENTS)
def test_the_echo_client_stops_at_ctrl_c_while_it_sends_and_receives(name: str) -> None:
    endless = f"import sys; sys.argv.append('x' * {2**26})"  # no buffer holds it
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        running(name, *listener.getsockname(), first=endless) as program,
    ):
        listener.settimeout(PATIENCE)
        conn, _ = listener.accept()
        with conn:
            assert select.select([conn], [], [], PATIENCE)[0], "it sends nothing"
            code, printed, complaint = program.interrupt()
            assert (code, printed) == (-signal.SIGINT, "")
            assert "\nKeyboardInterrupt\n" in complaint


# --- written once, offered twice ----------------------------------------------------


@on_each_loop
def test_one_codebase_serves_both_worlds(loop: str) -> None:
    told = "async: colour is deep blue\nblocking: shape is round\nblocking: size timed out\n"
    assert run("one_codebase.py", first=loop) == (0, told, "")


# --- the echo server over TLS -------------------------------------------------------


@on_each_loop
def test_the_tls_echo_server_serves_our_client(loop: str, authority: Authority) -> None:
    trust = ["--ca", authority.file]
    with tls_echo_server(authority, loop) as (_, (host, port)):
        told = (0, "Hello, world\n", "")
        assert run("tls_echo_client.py", host, port, *trust, first=loop) == told
        for message in ("", "na\xefve \u2603", "x" * 100_000):
            told = (0, message + "\n", "")
            assert run("tls_echo_client.py", "localhost", port, message, *trust) == told


@on_each_loop
def test_the_tls_echo_server_serves_the_stdlibs_clients(loop: str, authority: Authority) -> None:
    message = os.urandom(100_000)
    with tls_echo_server(authority, loop) as (_, address), ExitStack() as stack:
        plain = [client(address) for _ in range(20)]
        socks = [stack.enter_context(secured(sock, authority)) for sock in plain]
        for sock in reversed(socks):
            assert echo_of(message, sock) == message


@on_each_loop
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_the_tls_echo_server_serves_openssls_client(
    loop: str, version: str, authority: Authority
) -> None:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("the program openssl is not installed")
    with tls_echo_server(authority, loop) as (_, (host, port)):
        trust = ["-CAfile", str(authority.file), "-verify_hostname", "localhost"]
        command = [openssl, "s_client", "-connect", f"{host}:{port}", version, "-quiet"]
        with subprocess.Popen(
            [*command, "-verify_return_error", *trust, "-no_ign_eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"from openssl\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], PATIENCE)[0], "it says nothing"
            assert process.stdout.readline() == b"from openssl\n"
            told, complaint = process.communicate(timeout=PATIENCE)
            assert (told, process.returncode) == (b"", 0), complaint


@on_each_loop
def test_the_tls_echo_server_outlives_who_speaks_no_tls(loop: str, authority: Authority) -> None:
    with tls_echo_server(authority, loop) as (program, address):
        for _ in range(3):
            with client(address) as sock, suppress(ConnectionResetError):
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                received(sock)
    assert len(re.findall(r"no TLS handshake with .*: \[SSL: HTTP_REQUEST\]", program.printed)) == 3


@on_each_loop
def test_the_tls_echo_server_waits_for_no_silent_client(loop: str, authority: Authority) -> None:
    with tls_echo_server(authority, loop) as (program, address), ExitStack() as stack:
        silent = [stack.enter_context(client(address)) for _ in range(10)]
        with secured(client(address), authority) as sock:
            assert echo_of(b"hello", sock) == b"hello"
        assert select.select(silent, [], [], 0)[0] == []
    assert "timed out" not in program.printed


@on_each_loop
def test_the_tls_echo_server_lets_a_silent_client_go(loop: str, authority: Authority) -> None:
    hasty = """
import aiosock
serve = aiosock.serve
aiosock.serve = lambda *args, **how: serve(*args, **{**how, "ssl_handshake_timeout": 0.2})
"""
    with (
        tls_echo_server(authority, loop + hasty) as (program, address),
        client(address) as silent,
        secured(client(address), authority) as sock,
    ):
        assert received(silent) == b""
        assert echo_of(b"hello", sock) == b"hello"  # whom no timeout bounds any more
    assert len(re.findall("no TLS handshake with .*: timed out\n", program.printed)) == 1


@on_each_loop
def test_the_tls_echo_server_survives_clients_that_reset(loop: str, authority: Authority) -> None:
    with (
        tls_echo_server(authority, loop) as (program, address),
        secured(client(address), authority) as witness,
    ):
        assert echo_of(b"hello", witness) == b"hello"
        alone = program.descriptors()
        for _ in range(10):
            reset(client(address))
            midway = client(address)
            midway.sendall(b"\x16\x03\x01\x02\x00\x01")  # a hello begins
            reset(midway)
        talker, flooder = (secured(client(address), authority) for _ in range(2))
        assert echo_of(b"some", talker) == b"some"
        send_unread(flooder)
        reset(talker)
        reset(flooder)
        assert echo_of(b"me too?", witness) == b"me too?"
        wait_for(lambda: program.descriptors() <= alone)
    assert program.printed.count(": [Errno 104] Connection reset by peer\n") == 22


@on_each_loop
def test_the_tls_echo_server_tells_of_a_cut_connection(loop: str, authority: Authority) -> None:
    with (
        tls_echo_server(authority, loop) as (program, address),
        secured(client(address), authority) as sock,
    ):
        assert echo_of(b"hello", sock) == b"hello"  # and the stdlib's close says nothing
    assert program.printed.count("EOF occurred in violation of protocol") >= 1


@on_each_loop
def test_the_tls_echo_server_stops_at_ctrl_c_in_the_midst_of_its_work(
    loop: str, authority: Authority
) -> None:
    arguments = ["127.0.0.1", 0, "--certificate", authority.certificate]
    with running(TLS_SERVERS[0], *arguments, first=loop) as program:
        address = program.address()
        with (
            client(address) as silent,
            secured(client(address), authority) as served,
            secured(client(address), authority) as flooder,
        ):
            assert echo_of(b"hello", served) == b"hello"
            send_unread(flooder)
            assert program.interrupt() == (0, f"listening on {address}\n{CUT.format(3)}", "")
            assert received(silent) == received(served) == b""


# --- whom the clients trust ---------------------------------------------------------


def test_the_tls_echo_client_refuses_another_host(authority: Authority) -> None:
    other = authority.issue("other.example")
    with tls_echo_server(authority, certificate=other) as (program, (_, port)):
        code, printed, complaint = run(
            "tls_echo_client.py", "localhost", port, "secret", "--ca", authority.file
        )
        assert (code, printed) == (1, "")
        assert complaint.startswith("localhost is not to be trusted: Hostname mismatch, ")
        assert complaint.count("\n") == 1
    assert "secret" not in program.printed


def test_the_tls_echo_client_refuses_an_unknown_authority(authority: Authority) -> None:
    with tls_echo_server(authority) as (program, (_, port)):
        told = "localhost is not to be trusted: unable to get local issuer certificate\n"
        assert run("tls_echo_client.py", "localhost", port) == (1, "", told)
    assert "unknown ca" in program.printed


def test_the_tls_echo_client_fails_where_the_server_is_cut_off(authority: Authority) -> None:
    def cut(conn: socket.socket) -> None:
        with serving(authority.certificate).wrap_socket(conn, server_side=True) as tls:
            assert tls.recv(100) == b"Hello, world"
            tls.sendall(b"Hello")

    with a_server(cut) as (_, port):
        code, printed, complaint = run(
            "tls_echo_client.py", "localhost", port, "--ca", authority.file
        )
    assert (code, printed) == (1, "")
    assert "\nssl.SSLEOFError: " in complaint


# --- servers of several processes ------------------------------------------------------

LISTENS = re.compile(r"process (\d+) listens on (\(.*\))\n")


def listens(program: Program) -> tuple[int, Address]:
    """Which process has said that it listens, and where."""
    told = LISTENS.fullmatch(program.first_line())
    assert told
    return int(told[1]), ast.literal_eval(told[2])


@on_each_loop
def test_the_multi_process_server_divides_its_clients_and_drains_at_sigterm(loop: str) -> None:
    arguments = ["127.0.0.1", 0, "--workers", 3]
    with running(SEVERAL[0], *arguments, first=loop) as program, ExitStack() as stack:
        (one, address), (other, same), (third, _) = (listens(program) for _ in range(3))
        assert address == same
        assert len({program.process.pid, one, other, third}) == 4
        socks = [stack.enter_context(client(address)) for _ in range(30)]
        assert [echo_of(b"hello", sock) for sock in socks] == [b"hello"] * 30
        program.process.terminate()
        wait_for(lambda: not any(listening(pid) for pid in (one, other, third)))
        for sock in socks:
            with sock:
                assert echo_of(b"still here?", sock) == b"still here?"
        assert program.end() == (0, "", "")


def test_the_multi_process_server_ends_with_any_of_its_processes() -> None:
    with running(SEVERAL[0], "127.0.0.1", 0, "--workers", 2) as program:
        pid, _ = listens(program)
        listens(program)
        os.kill(pid, signal.SIGKILL)
        assert program.end() == (1, "", "")


def test_the_multi_process_server_stops_at_ctrl_c() -> None:
    with running(SEVERAL[0], "127.0.0.1", 0, "--workers", 2) as program:
        for _ in range(2):
            listens(program)
        assert program.interrupt() == (0, "", "")


@on_each_loop
def test_the_handover_server_is_relieved_and_no_connection_is_lost(
    loop: str, tmp_path: Path
) -> None:
    arguments = ["127.0.0.1", 0, "--control", tmp_path / "control"]

    def connect_all_the_time() -> int:
        count = 0
        while not over:
            with client(address) as sock:
                assert echo_of(b"hello", sock) == b"hello"
            count += 1
        return count

    over = list[bool]()
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        program = stack.enter_context(running(SEVERAL[1], *arguments, first=loop))
        pid, address = listens(program)
        clients = [pool.submit(connect_all_the_time) for _ in range(2)]
        stack.callback(over.append, True)
        for _ in range(2):
            witness = stack.enter_context(client(address))
            assert echo_of(b"hello", witness) == b"hello"
            successor = stack.enter_context(running(SEVERAL[1], *arguments, first=loop))
            pid, same = listens(successor)
            assert (pid, same) == (successor.process.pid, address)
            wait_for(lambda: not listening(program.process.pid))  # noqa: B023  # asked at once
            assert echo_of(b"still here?", witness) == b"still here?"
            witness.close()
            assert program.end() == (0, "", "")
            program = successor
        over.append(True)
        assert all(client.result() > 10 for client in clients)
        assert program.interrupt() == (0, "", "")


def test_the_handover_server_goes_on_when_its_successor_fails(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with running(SEVERAL[1], "127.0.0.1", 0, "--control", control) as program:
        _, address = listens(program)
        assert control.stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as failing:
            failing.connect(str(control))
            _, fds, _, _ = socket.recv_fds(failing, 1, 2)
            for fd in fds:
                os.close(fd)
        with client(address) as sock:
            assert echo_of(b"hello", sock) == b"hello"
        assert program.interrupt() == (0, "", "")
    with running(SEVERAL[1], "127.0.0.1", 0, "--control", control) as program:
        listens(program)  # the path that was left is no hindrance
        assert program.interrupt() == (0, "", "")


# --- TLS in the midst of a conversation ---------------------------------------------


@contextmanager
def starttls_server(authority: Authority, loop: str = "") -> Iterator[tuple[Program, Address]]:
    arguments = ["server", "127.0.0.1", 0, "--certificate", authority.certificate]
    with running("starttls.py", *arguments, first=loop) as program:
        yield program, program.address()
        code, _, complaint = program.interrupt()
        assert (code, complaint) == (0, "")


def ask(line: bytes, sock: socket.socket) -> bytes:
    """The line that comes back, and all that comes with it."""
    sock.sendall(line + b"\n")
    answer = b""
    while not answer.endswith(b"\n") and (data := sock.recv(4096)):
        answer += data
    return answer


@on_each_loop
def test_starttls_turns_to_tls_and_back(loop: str, authority: Authority) -> None:
    with starttls_server(authority, loop) as (program, (_, port)):
        for _ in range(3):
            told = "HELLO in plain\nHELLO in TLSv1.3\nGOODBYE in plain\n"
            arguments = ["client", "localhost", port, "--ca", authority.file]
            assert run("starttls.py", *arguments, first=loop) == (0, told, "")
    assert "is gone" not in program.printed


@on_each_loop
def test_starttls_serves_the_stdlibs_client(loop: str, authority: Authority) -> None:
    with starttls_server(authority, loop) as (_, address), ExitStack() as stack:
        sock = stack.enter_context(client(address))
        for _ in range(2):  # as often as one likes
            assert ask(b"HELLO", sock) == b"HELLO in plain\n"
            assert ask(b"STOPTLS", sock) == b"PARDON?\n"
            assert ask(b"STARTTLS", sock) == b"GO AHEAD\n"
            tls = stack.enter_context(secured(sock, authority))
            assert ask(b"HELLO", tls) == b"HELLO in TLSv1.3\n"
            assert ask(b"STARTTLS", tls) == b"PARDON?\n"
            assert ask(b"STOPTLS", tls) == b"AS YOU LIKE\n"
            sock = tls.unwrap()
        assert ask(b"BYE", sock) == b"GOODBYE in plain\n"
        assert received(sock) == b""


def test_starttls_takes_nothing_that_came_in_plain(authority: Authority) -> None:
    with starttls_server(authority) as (program, address):
        with client(address) as sock, suppress(ConnectionResetError):
            assert ask(b"STARTTLS\nHELLO", sock) in (b"", b"GO AHEAD\n")
            assert received(sock) == b""
        with client(address) as sock, suppress(ConnectionResetError):
            assert ask(b"STARTTLS", sock) == b"GO AHEAD\n"
            assert not ask(b"HELLO", sock).startswith(b"HELLO")
        with client(address) as sock:
            assert ask(b"HELLO", sock) == b"HELLO in plain\n"
    assert "something came in plain where TLS should begin\n" in program.printed
    assert "is gone: [SSL: " in program.printed


def test_starttls_goes_on_in_tls_or_not_at_all() -> None:
    def without_tls(conn: socket.socket) -> None:
        for line in conn.makefile("rb"):
            conn.sendall(b"HELLO in plain\n" if line == b"HELLO\n" else b"PARDON?\n")

    with a_server(without_tls) as (_, port):
        told = (1, "HELLO in plain\n", "the server does not speak TLS\n")
        assert run("starttls.py", "client", "localhost", port) == told


def test_starttls_refuses_who_is_not_to_be_trusted(authority: Authority) -> None:
    with starttls_server(authority) as (_, (_, port)):
        code, printed, complaint = run("starttls.py", "client", "localhost", port)
        assert (code, printed) == (1, "HELLO in plain\n")
        assert complaint.startswith("localhost is not to be trusted: unable to get local issuer")


# --- the manual's SSL client --------------------------------------------------------


def distinguished_names(certificate: Path) -> list[str]:
    """The subject's and the issuer's, as the manual writes them."""
    shown = x509.load_pem_x509_certificate(certificate.read_bytes())
    return [
        "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)
        for name in (shown.subject, shown.issuer)
    ]


@pytest.mark.parametrize("face", FACES)
@on_each_loop
def test_the_manuals_ssl_client_prints_whom_the_certificate_names(
    face: str, loop: str, authority: Authority
) -> None:
    asked = []

    def answer(conn: socket.socket) -> None:
        with serving(authority.certificate).wrap_socket(conn, server_side=True) as tls:
            asked.append(tls.recv(1000))
            tls.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(100_000))

    with a_server(answer) as (_, port):
        warned = f"{loop}\nimport warnings; warnings.simplefilter('always', UserWarning)"
        code, printed, complaint = run(face.format("ssl_client"), "localhost", port, first=warned)
    assert (code, printed.splitlines()) == (
        0,
        [repr(name) for name in distinguished_names(authority.certificate)],
    )
    assert "/CN=localhost'\n" in printed
    assert asked == [b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"]
    assert "InsecureWarning: ssl() verifies no certificate" in complaint
    assert complaint.count("\n") == 2  # that, and the line it is about
