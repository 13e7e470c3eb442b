"""The command line, in real processes and on a real terminal; its words and formats in this one.

The peers are the stdlib's sockets and OpenSSL's own client and server, and netcat where it is
installed.  A process must say nothing on stderr beyond what a test expects, with every warning
an error.
"""

import errno
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from pages import Block, blocks
from test_race import using

import aiosock
import aiosock_sync
from aiosock import _race
from aiosock._cli import trace
from aiosock._cli.demo import check
from aiosock._cli.endpoints import Endpoint, OneFamily, duration, endpoint, listening_address
from aiosock._cli.formats import Crlf, Escaper, HexDump, in_words
from aiosock._cli.main import main
from aiosock._cli.resolve import in_order
from aiosock._cli.trace import Step, drawn
from aiosock._cli.words import Misuse, Refusal, explained

trustme = pytest.importorskip("trustme", reason="it makes the certificates of these tests")

PATIENCE = 20.0
LOCALHOST = "127.0.0.1"
BIG = os.urandom(2**20)

COMMAND = [sys.executable, "-W", "error", "-m", "aiosock"]
HIDING = "import sys; sys.modules['uvloop'] = None; from aiosock.__main__ import main"
LOOPS = {"uvloop": COMMAND, "asyncio": [*COMMAND[:3], "-c", f"{HIDING}; sys.exit(main())"]}
on_each_loop = pytest.mark.parametrize("command", LOOPS.values(), ids=LOOPS)
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
needs_netcat = pytest.mark.skipif(not shutil.which("nc"), reason="netcat is not installed")


# --- processes ------------------------------------------------------------------------------


class Running:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        assert select.select([self.process.stderr], [], [], PATIENCE)[0], "it tells nothing"
        return self.process.stderr.readline().decode()

    def listening(self) -> Any:
        """Where it listens, as it tells: a pair, or a path."""
        told = re.match(r"aiosock: listening at (\S+?)(;|$)", self.line())
        assert told
        place = endpoint(told[1])
        return place.path or (place.host, place.port)

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def receive(self, size: int) -> bytes:
        """So many bytes of its output."""
        assert self.process.stdout is not None
        got = b""
        while len(got) < size:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], got
            piece = os.read(self.process.stdout.fileno(), size - len(got))
            assert piece, got
            got += piece
        return got

    def _rests(self) -> bool:
        before = self._steps()
        time.sleep(0.05)
        return self._steps() == before

    def _steps(self) -> list[str]:
        """How often each of its threads went to sleep so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/status")
        return [re.findall(r"^vol.*:\s*(\d+)$", task.read_text(), re.M)[0] for task in tasks]

    def end(self, data: bytes | None = None) -> tuple[int, bytes, str]:
        """Its exit code, and what it has printed and told; the input ends with `data`."""
        printed, told = self.process.communicate(data, timeout=PATIENCE)
        return self.process.returncode, printed or b"", (told or b"").decode()

    def interrupt(self) -> tuple[int, bytes, str]:
        """By Ctrl-C, while it waits: Python drops one that comes within a weakref's callback."""
        deadline = time.monotonic() + PATIENCE
        while not self._rests() and time.monotonic() < deadline:
            pass
        self.process.send_signal(signal.SIGINT)
        return self.end()


@contextmanager
def running(
    *arguments: object, command: list[str] = COMMAND, stdin: Any = subprocess.PIPE, **how: Any
) -> Iterator[Running]:
    """A command as a process, which is gone at the end."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **how}
    command = [*command, *map(str, arguments)]
    with subprocess.Popen(command, bufsize=0, stdin=stdin, **how) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def run(*arguments: object, data: bytes = b"", **how: Any) -> tuple[int, bytes, str]:
    with running(*arguments, **how) as command:
        return command.end(data)


def at(address: Any) -> str:
    return f"{LOCALHOST}:{address[1]}"


@contextmanager
def a_peer(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """The stdlib's listener."""
    host = "::1" if family == socket.AF_INET6 else LOCALHOST
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def accepted(stack: ExitStack, listener: socket.socket) -> socket.socket:
    conn = stack.enter_context(listener.accept()[0])
    conn.settimeout(PATIENCE)
    return conn


def connected(stack: ExitStack, address: Any) -> socket.socket:
    """The stdlib's client of a pair or a path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if family == socket.AF_INET and ":" in address[0]:
        family = socket.AF_INET6
    sock = stack.enter_context(socket.socket(family))
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def all_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(2**16), b""))


def exactly(sock: socket.socket, size: int) -> bytes:
    return sock.recv(size, socket.MSG_WAITALL)


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that nobody listens at, or can: it is bound."""
    with socket.socket() as sock:
        sock.bind((LOCALHOST, 0))
        yield sock.getsockname()[1]


# --- endpoints and durations ------------------------------------------------------------------

ENDPOINTS = {
    "tcp://example.org:80": Endpoint("tcp", "example.org", 80),
    "udp://example.org:53": Endpoint("udp", "example.org", 53),
    "tls://example.org:https": Endpoint("tls", "example.org", "https"),
    "tcp://[::1]:80": Endpoint("tcp", "::1", 80),
    "tls://[fe80::1%lo]:0": Endpoint("tls", "fe80::1%lo", 0),
    "tcp://:65535": Endpoint("tcp", "", 65535),
    "tcp://*:80": Endpoint("tcp", "*", 80),
    "localhost:80": Endpoint("tcp", "localhost", 80, is_bare=True),
    "[::1]:80": Endpoint("tcp", "::1", 80, is_bare=True),
    ":8080": Endpoint("tcp", "", 8080, is_bare=True),
    "unix:/run/a.sock": Endpoint("unix", path="/run/a.sock"),
    "unix:///run/a.sock": Endpoint("unix", path="/run/a.sock"),
    "unix:a.sock": Endpoint("unix", path="./a.sock"),
    "unix:@name": Endpoint("unix", path="\0name"),
    "/run/a.sock": Endpoint("unix", path="/run/a.sock"),
    "./a:80": Endpoint("unix", path="./a:80"),
}
NO_ENDPOINTS = {
    "": "a port is missing",
    "localhost": "as in localhost:80",
    "8080": "as in :8080",
    "localhost:": "a port is missing",
    "::1": "in brackets",
    "::1:80": "in brackets",
    "tcp://::1:80": "in brackets",
    "[::1]": "a port is missing",
    "[::1": r"as \[::1\]:80",
    "[]:80": r"as \[::1\]:80",
    "[::1]80": "a port is missing",
    "localhost:65536": "0 to 65535",
    "localhost:-1": "0 to 65535",
    "localhost:80x": "0 to 65535",
    "localhost:\u0663": "0 to 65535",
    "http://example.org:80": "http:// is not known; there are tcp://, udp://, tls:// and unix:",
    "unix:": "a path is missing",
    "unix:@": "a path is missing",
    "unix:/a\0b": "a path is missing",
}


@pytest.mark.parametrize("text", ENDPOINTS)
def test_an_endpoint_is_read(text: str) -> None:
    assert endpoint(text) == ENDPOINTS[text]


@pytest.mark.parametrize("text", [text for text in ENDPOINTS if not ENDPOINTS[text].is_bare])
def test_an_endpoint_is_written_as_it_is_read(text: str) -> None:
    place = endpoint(text)
    again = endpoint(str(place))
    assert (again.host or "localhost", again.port) == (place.host or "localhost", place.port)
    assert (again.scheme, again.path) == (place.scheme, place.path)


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_what_is_no_endpoint_is_told_how_to_be_one(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=NO_ENDPOINTS[text]) as refused:
        endpoint(text)
    assert str(refused.value).startswith(repr(text))


def test_a_connection_needs_a_host_and_a_port() -> None:
    assert endpoint(":80").target() == ("localhost", 80)
    assert endpoint("unix:@x").target() == "\0x"
    for text in "*:80", "host:0":
        with pytest.raises(Misuse, match="is for listening"):
            endpoint(text).target()


DURATIONS = {"500ms": 0.5, "2s": 2.0, "1m": 60.0, "1.5h": 5400.0, "3": 3.0, "0.25": 0.25}


@pytest.mark.parametrize("text", DURATIONS)
def test_a_duration_is_read(text: str) -> None:
    assert duration(text) == DURATIONS[text]


@pytest.mark.parametrize(
    "text", ["", "s", "2x", "-1s", "1 s", "1e3", "nan", "inf", ".5s", "\u0663s"]
)
def test_what_is_no_duration_is_told_how_to_be_one(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is written as 500ms, 2s, 1.5m or 1h"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "0ms", "8761h", "9" * 400])
def test_a_duration_is_more_than_nothing_and_has_an_end(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="more than nothing, and at most a year"):
        duration(text)


# --- formats ----------------------------------------------------------------------------------

SHOWN = {
    b"plain text\n": b"plain text\n",
    b"a\ttab\r\n": b"a\ttab\n",
    "gr\u00fc\u00dfe \u4f60\u597d".encode(): "gr\u00fc\u00dfe \u4f60\u597d".encode(),
    b"\x1b[31mred\x1b[0m": rb"\x1b[31mred\x1b[0m",
    b"over\rwritten": rb"over\rwritten",
    b"\r\r\n": b"\\r\n",
    b"end\r": rb"end\r",
    b"\0\a\b\x7f": rb"\x00\x07\x08\x7f",
    "\u202eback\u202c \x9b".encode(): rb"\u202eback\u202c \x9b",
    b"\xff\xfe": rb"\xff\xfe",
    b"cut \xe2\x82": rb"cut \xe2\x82",
}


def pieces(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for cut in range(len(data) + 1):
        yield data[:cut], data[cut:]


@pytest.mark.parametrize("data", SHOWN)
def test_control_characters_are_escaped_wherever_the_pieces_are_cut(data: bytes) -> None:
    for one, other in pieces(data):
        escaper = Escaper()
        assert escaper.feed(one) + escaper.feed(other) + escaper.feed(b"", True) == SHOWN[data]


def test_what_a_terminal_has_no_letters_for_is_escaped() -> None:
    assert Escaper("ascii").feed("\u00fc\n".encode()) == b"\\xfc\n"


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb\r\nc\rd\n\n", b"\r\r\n\n"])
def test_every_lf_has_a_cr_wherever_the_pieces_are_cut(data: bytes) -> None:
    expected = re.sub(rb"(?<!\r)\n", b"\r\n", data)
    for one, other in pieces(data):
        crlf = Crlf()
        assert crlf.feed(one) + crlf.feed(other) == expected


def test_a_hex_dump_counts_on() -> None:
    dump = HexDump("<")
    assert dump.feed(bytes(range(48, 66))).decode().splitlines() == [
        "< 00000000  30 31 32 33 34 35 36 37  38 39 3a 3b 3c 3d 3e 3f  |0123456789:;<=>?|",
        "< 00000010  40 41                                             |@A|",
    ]
    assert dump.feed(b"\0\n").startswith(b"< 00000012  00 0a ")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (2**21, "2.0 MiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_a_size_is_told_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


def test_a_bar_is_within_its_room_and_is_seen() -> None:
    spans = (0, 1), (0, 0), (1, 1), (0.5, 0.7)
    bars = [drawn(Step("", begun, ended, ""), 1.0, 10) for begun, ended in spans]
    assert [bar.replace("\u2588", "#") for bar in bars] == [
        "##########",
        "#         ",
        "         #",
        "     ##   ",
    ]


# --- errors -----------------------------------------------------------------------------------

ERRORS = {
    "nobody listens there": ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    "broken the connection off": ConnectionResetError(errno.ECONNRESET, "Connection reset"),
    "take another port": OSError(
        errno.EADDRINUSE, "Address already in use (while attempting to x)"
    ),
    "need privileges": PermissionError(errno.EACCES, "Permission denied"),
    "a longer -w waits longer": TimeoutError("timed out"),
    "connection timed out": TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    "check its spelling": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "is there a network": socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
    "write its number": socket.gaierror(socket.EAI_SERVICE, "Servname not supported"),
    "middle of TLS": ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    "AF_UNIX path too long": OSError("AF_UNIX path too long"),
    "no such file or directory: there is no such socket": OSError(
        errno.ENOENT, "No such file or directory"
    ),
    "TLS failed: no reason is known;": ssl.SSLError("No reason is known"),
    "TLS failed: alert no application protocol; the server speaks none": ssl.SSLError(
        1, "[SSL] alert no application protocol (_ssl.c:1006)"
    ),
    "--cert FILE and --key FILE say it": ssl.SSLError(1, "tlsv13 alert certificate required"),
    "that is no host name": UnicodeError("label empty or too long"),
    "as it says": Refusal("as it says"),
    "this is a bug": ZeroDivisionError("division by zero"),
}


@pytest.mark.parametrize("advice", ERRORS)
def test_an_error_is_one_line_that_says_what_to_do(advice: str) -> None:
    said = explained(ERRORS[advice])
    assert advice in said
    assert "\n" not in said
    assert "Errno" not in said


MISUSES: dict[str, list[object]] = {
    "the following arguments are required: ENDPOINT": ["connect"],
    "invalid choice: 'frobnicate'": ["frobnicate"],
    "connect: unrecognized arguments: --verb; see": ["connect", ":1", "--verb"],
    "a port is missing": ["listen", "localhost"],
    "a duration is written as": ["connect", ":1", "-w", "soon"],
    "not allowed with argument": ["connect", ":1", "-4", "-6"],
    "::1 is an IPv6 address, and IPv4 is asked for": ["connect", "-4", "[::1]:1"],
    "-u is for UDP, which unix:/a is not": ["connect", "-u", "unix:/a"],
    "--tls is for TCP, which udp is not": ["connect", "--tls", "udp://:1"],
    "--cafile is for TLS": ["connect", ":1", "--cafile", "x"],
    "--cafile /nowhere.pem: No such file": ["connect", "tls://:1", "--cafile", "/nowhere.pem"],
    "--cert/--key /dev/null: it is no PEM file": ["echo", "tls://:0", "--cert", "/dev/null"],
    "give --cert FILE and --key FILE": ["listen", "tls://:0"],
    "give --cert FILE too": ["connect", "tls://:1", "--key", "x"],
    "port 0 is for listening": ["connect", ":0"],
    "`*` is for listening": ["trace", "*:80"],
    "--alpn 'h2,,x': a protocol's name has": ["connect", "tls://:1", "--alpn", "h2,,x"],
    "--alpn '': a protocol's name has": ["connect", "tls://:1", "--alpn", ""],
    "1 to 255 ASCII characters": ["connect", "tls://:1", "--alpn", "h" * 256],
    "write HOST PORT, as in `aiosock resolve localhost 80`": ["resolve", "localhost:80"],
    "as in `aiosock resolve [::1] 80`": ["resolve", "[::1]:80"],
    "trace follows a connection": ["trace", "udp://:1"],
    "is no port": ["resolve", "localhost", "99999"],
}


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """Runs a command in this very process, which costs less."""

    def run_here(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["aiosock/__main__.py", *map(str, arguments)])
        monkeypatch.setattr("aiosock._cli.main.log_in_lines", lambda is_verbose: None)
        return main(), *capsys.readouterr()

    yield run_here
    aiosock.set_resolver(None)


@pytest.mark.parametrize("said", MISUSES)
def test_a_misuse_is_told_in_one_line(said: str, here: Here) -> None:
    code, printed, told = here(*MISUSES[said])
    assert (code, printed) == (2, "")
    assert said in told
    assert re.fullmatch(r"[^\n]+\n", told)


NO_HOSTS = {"a label too long": f"{'a' * 64}.example", "an empty label": "a..b", "a dot": "."}


@pytest.mark.parametrize("host", NO_HOSTS.values(), ids=NO_HOSTS)
def test_what_is_no_host_name_is_told(host: str, here: Here) -> None:
    line = f"{host}: that is no host name; check its spelling\n"
    assert here("resolve", host) == (1, "", f"aiosock: {line}")
    code, printed, told = here("trace", f"{host}:80")
    assert (code, told) == (1, f"aiosock: tcp://{line.replace(': ', ':80: ', 1)}")
    assert "that is no host name" in printed


@pytest.mark.parametrize("option", [["-u"], []], ids=["by -u", "by the endpoint"])
@pytest.mark.parametrize("command", ["listen", "echo"])
def test_a_port_of_udp_that_is_in_use_is_told_as_one_of_udp(
    command: str, option: list[str], here: Here
) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        place = f"udp://{at(sock.getsockname())}"
        code, _, told = here(command, *option, place.removeprefix("udp://" if option else ""))
    assert code == 1
    assert told.startswith(f"aiosock: {place}: address already in use: ")


def test_datagrams_that_nobody_takes_are_told_as_those_of_udp() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        sock.connect(sock.getsockname())  # and so it hears nobody else
        place = at(sock.getsockname())
        code, _, told = run("connect", "-u", place, data=b"x")
    assert code == 1
    assert told.startswith(f"aiosock: udp://{place}: connection refused: nobody listens there; ")


def test_what_cannot_be_connected_to_in_tls_is_told_as_that_of_tls(nobody: int) -> None:
    place = f"{LOCALHOST}:{nobody}"
    code, _, told = run("connect", "--tls", place)
    assert code == 1
    assert told.startswith(f"aiosock: tls://{place}: connection refused: ")


def test_a_path_that_cannot_be_listened_at_is_told_of(tmp_path: Path) -> None:
    missing, used = tmp_path / "none" / "x", tmp_path / "used"
    code, _, told = run("echo", f"unix:{missing}")
    assert code == 1
    assert told.endswith("its directory is missing; make it first\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(used))
        code, _, told = run("echo", f"unix:{used}")
    assert code == 1
    assert told.endswith("stop who listens there, or remove the path if it was left behind\n")


def test_what_standard_output_has_no_letters_for_is_escaped() -> None:
    ascii_only = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    code, printed, told = run("trace", "unix:/nowhere/\xfc", env=ascii_only)
    assert code == 1
    assert rb"unix:/nowhere/\xfc: failed" in printed
    assert "this is a bug" not in told


def test_a_fault_that_the_demo_finds_is_told_in_one_line(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def finds_one(address: Any) -> str:
        check(b"ping", b"pong")
        return ""

    monkeypatch.setattr("aiosock._cli.demo.STEPS", {"a step": finds_one})
    code, _, told = here("demo")
    assert code == 1
    assert told == "aiosock: the demo has found a fault: sent b'ping', received b'pong'\n"


def test_a_misuse_ends_the_process_with_2() -> None:
    for arguments in ["connect", "localhost"], ["connect", ":0"]:
        code, printed, told = run(*arguments)
        assert (code, printed, told.count("\n")) == (2, b"", 1)


def test_a_traceback_is_shown_only_on_request(nobody: int) -> None:
    place = f"{LOCALHOST}:{nobody}"
    line = f"aiosock: tcp://{place}: connection refused: nobody listens there; .*\n"
    code, printed, told = run("connect", place)
    assert (code, printed) == (1, b"")
    assert re.fullmatch(line, told)
    for arguments, command in (
        (["connect", place, "--traceback"], COMMAND),
        (["connect", place], [sys.executable, "-X", "dev", *COMMAND[1:]]),
    ):
        code, printed, told = run(*arguments, command=command)
        assert code == 1
        assert told.startswith("Traceback")
        assert re.search(line + r"\Z", told)


def test_in_verbose_mode_every_address_that_was_tried_is_told(nobody: int) -> None:
    told = run("connect", "-v", f"{LOCALHOST}:{nobody}")[2]
    assert re.match(rf"aiosock: \('{LOCALHOST}', {nobody}\) from 0\.\d+ s to ", told)


def test_every_command_has_help_with_examples(here: Here) -> None:
    code, text, told = here("--help")
    assert (code, told) == (0, "")
    commands = re.findall(r"^  (\w+)  +\w", text, re.M)
    assert commands == "demo connect listen echo resolve trace doctor".split()
    for command in commands:
        code, text, told = here(command, "--help")
        assert (code, told) == (0, "")
        assert text.startswith(f"usage: python -m aiosock {command}")
        assert "Examples:" in text or command in ("demo", "doctor")
        assert max(map(len, text.splitlines())) < 110


def test_the_version_is_told() -> None:
    assert re.fullmatch(rb"aiosock [\d.]+ on Python 3\.[\d.]+\w*\n", run("--version")[1])


def test_importing_the_library_does_not_import_the_command_line() -> None:
    program = (
        "import aiosock, sys; print([m for m in sys.modules if '_cli' in m or m == 'argparse'])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert told.stdout == b"[]\n"


# --- connect ----------------------------------------------------------------------------------


@on_each_loop
def test_the_end_of_the_input_is_told_and_the_answer_printed(
    stack: ExitStack, command: list[str]
) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname()), command=command) as client:
        conn = accepted(stack, peer)
        client.send(b"question")
        assert exactly(conn, 8) == b"question"
        client.end_input()
        assert conn.recv(1) == b""
        conn.sendall(b"raw \x1b\0\xff\r\n")
        conn.close()
        assert client.end() == (0, b"raw \x1b\0\xff\r\n", "")


SOURCES: dict[str, Callable[[], Any]] = {
    "pipe": lambda: reversed(os.pipe()),
    "terminal": pty.openpty,
    "socket": lambda: (sock.detach() for sock in socket.socketpair()),
}


@on_each_loop
@pytest.mark.parametrize("source", SOURCES)
def test_it_ends_when_the_peer_closes_though_the_input_goes_on(
    stack: ExitStack, command: list[str], source: str
) -> None:
    ours, its = SOURCES[source]()
    stack.callback(os.close, ours)
    stack.callback(os.close, its)
    with (
        a_peer() as peer,
        running("connect", at(peer.getsockname()), command=command, stdin=its) as client,
    ):
        conn = accepted(stack, peer)
        os.write(ours, b"line\n")
        assert exactly(conn, 5) == b"line\n"
        assert os.get_blocking(its), "the shell has it too"
        conn.sendall(b"bye")
        conn.close()
        assert client.end() == (0, b"bye", "")


@on_each_loop
def test_a_file_is_sent_whole_though_the_peer_has_said_all(
    stack: ExitStack, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(BIG)
    with (tmp_path / "file").open("rb") as file, a_peer() as peer:
        address = at(peer.getsockname())
        with running("connect", address, command=command, stdin=file) as client:
            conn = accepted(stack, peer)
            conn.shutdown(socket.SHUT_WR)
            assert all_of(conn) == BIG
            assert client.end() == (0, b"", "")


@pytest.mark.parametrize("says_so", [True, False])
def test_a_peer_that_closes_too_early_is_told_of(
    stack: ExitStack, tmp_path: Path, says_so: bool
) -> None:
    (tmp_path / "file").write_bytes(BIG * 16)
    file = stack.enter_context((tmp_path / "file").open("rb"))
    with a_peer() as peer, running("connect", at(peer.getsockname()), stdin=file) as client:
        conn = accepted(stack, peer)
        if says_so:
            conn.shutdown(socket.SHUT_WR)
        else:  # also if nothing has come behind what is taken
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exactly(conn, len(BIG))
        conn.close()
        code, _, told = client.end()
    assert code == 1
    how = "closed before all input was sent" if says_so else "broken the connection off"
    assert re.fullmatch(rf"aiosock: .*the other side has {how}.*\n", told)


def test_without_shutdown_the_end_of_the_input_is_kept(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname()), "--no-shutdown") as client:
        conn = accepted(stack, peer)
        client.send(b"all")
        client.end_input()
        assert exactly(conn, 3) == b"all"
        conn.settimeout(0.2)
        with pytest.raises(TimeoutError):
            conn.recv(1)
        conn.close()
        assert client.end() == (0, b"", "")


def test_lines_get_their_cr_and_bytes_are_dumped_both_ways(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname()), "--crlf", "--hex") as client:
        conn = accepted(stack, peer)
        client.send(b"GET\n")
        assert exactly(conn, 5) == b"GET\r\n"
        conn.sendall(b"\0yes")
        conn.close()
        code, printed, told = client.end()
    assert (code, told) == (0, "")
    assert printed.decode().splitlines() == [
        f"> 00000000  {'47 45 54 0d 0a':48}  |GET..|",
        f"< 00000000  {'00 79 65 73':48}  |.yes|",
    ]


def test_a_silence_longer_than_w_ends_it(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname()), "-w", "1s") as client:
        conn = accepted(stack, peer)
        conn.sendall(b"one")
        assert client.receive(3) == b"one"
        assert client.process.wait(PATIENCE) == 1
        assert client.line() == "aiosock: nothing was sent or received for 1 s (-w)\n"


def test_a_connection_that_is_not_made_within_w_is_given_up(stack: ExitStack) -> None:
    full = stack.enter_context(socket.socket())
    full.bind((LOCALHOST, 0))
    full.listen(0)
    for _ in range(4):  # what comes next has to wait
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    code, printed, told = run("connect", at(full.getsockname()), "-w", "300ms")
    assert (code, printed) == (1, b"")
    assert re.fullmatch(r"aiosock: tcp://\S+: no answer in time; .*\n", told)


def test_the_bytes_are_counted_on_request(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname()), "--progress", "-v") as client:
        conn = accepted(stack, peer)
        client.send(b"x" * 2048)
        exactly(conn, 2048)
        conn.sendall(b"yes")
        conn.close()
        code, printed, told = client.end()
    assert (code, printed) == (0, b"yes")
    counts = r"sent 2\.0 KiB, received 3 bytes, \S+ (bytes|KiB|MiB)/s, \d+\.\d s\n"
    made = r"aiosock: connected to tcp://127\.0\.0\.1:\d+ in \S+ ms\n"
    assert re.fullmatch(f"{made}{counts}aiosock: ended: {counts}", told)


def test_an_output_that_nobody_reads_ends_it_silently(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname())) as client:
        conn = accepted(stack, peer)
        conn.sendall(b"some")
        assert client.receive(4) == b"some"
        assert client.process.stdout is not None
        client.process.stdout.close()
        client.process.stdout = None
        conn.sendall(b"more")
        assert client.process.wait(PATIENCE) == 1
        assert client.end() == (1, b"", "")


def test_an_output_that_is_full_or_slow_does_not_keep_it_from_ctrl_c(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname())) as client:
        conn = accepted(stack, peer)
        conn.setblocking(False)
        deadline = time.monotonic() + PATIENCE
        while select.select([], [conn], [], 0.3)[1] and time.monotonic() < deadline:
            conn.send(BIG)  # until every buffer on the way is full
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(PATIENCE) == 130
        assert client.end()[2] == ""


def test_ctrl_c_ends_it_with_130(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", at(peer.getsockname())) as client:
        conn = accepted(stack, peer)
        client.send(b"x")
        exactly(conn, 1)
        assert client.interrupt() == (130, b"", "")


CLOSED = {  # by the shell: code, and what is told on stderr
    "0<&-": (0, ""),
    "1>&-": (1, "aiosock: standard output is closed: send it to a file, or to /dev/null\n"),
    "2>&-": (0, ""),
}


@on_each_loop
@pytest.mark.parametrize("what", CLOSED)
def test_standard_descriptors_may_be_closed(
    stack: ExitStack, command: list[str], what: str
) -> None:
    shell = ["sh", "-c", f'exec "$@" {what}', "sh", *command]
    with a_peer() as peer, running("connect", at(peer.getsockname()), command=shell) as client:
        if CLOSED[what][0] == 0:
            accepted(stack, peer).close()
        code, _, told = client.end(b"")
    assert (code, told) == CLOSED[what]


def test_an_output_that_takes_nothing_is_told_of(stack: ExitStack) -> None:
    with Path("/dev/full").open("wb") as full, a_peer() as peer:
        with running("connect", at(peer.getsockname()), stdout=full) as client:
            accepted(stack, peer).sendall(b"x")
            told = (1, b"", "aiosock: standard output cannot be written: No space left on device\n")
            assert client.end() == told
        assert run("resolve", LOCALHOST, stdout=full) == told


def test_a_listing_that_nobody_reads_ends_silently() -> None:
    ours, its = os.pipe()
    os.close(ours)
    try:
        assert run("doctor", stdout=its) == (1, b"", "")
        assert run("--help", stdout=its) == (1, b"", "")
    finally:
        os.close(its)


@needs_ipv6
def test_ipv6_is_spoken(stack: ExitStack) -> None:
    with (
        a_peer(socket.AF_INET6) as peer,
        running("connect", "-6", f"[::1]:{peer.getsockname()[1]}") as client,
    ):
        accepted(stack, peer).sendall(b"six")
        stack.close()
        assert client.end() == (0, b"six", "")
    with running("listen", "-6", ":0") as server:
        address = server.listening()
        assert address[0] == "::1"
        connected(stack, address).sendall(b"six")
        stack.close()
        assert server.end() == (0, b"six", "")


def test_a_missing_unix_socket_is_told_of(tmp_path: Path) -> None:
    code, _, told = run("connect", f"unix:{tmp_path}/none")
    assert code == 1
    assert "no such file or directory: there is no such socket; check the path" in told


def test_datagrams_are_exchanged_until_it_is_silent(stack: ExitStack) -> None:
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.bind((LOCALHOST, 0))
    peer.settimeout(PATIENCE)
    with running("connect", "-u", at(peer.getsockname()), "-w", "1s") as client:
        client.send(b"question")
        data, address = peer.recvfrom(100)
        assert data == b"question"
        for answer in b"an", b"", b"swer":
            peer.sendto(answer, address)
        assert client.end() == (0, b"answer", "")


def test_a_datagram_that_nobody_takes_is_told_of() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        place = f"udp://{at(sock.getsockname())}"
    code, _, told = run("connect", place, data=b"x")
    assert (code, told.partition(";")[0]) == (
        1,
        f"aiosock: {place}: connection refused: nobody listens there",
    )


# --- a terminal ---------------------------------------------------------------------------------


@contextmanager
def on_a_terminal(*arguments: object) -> Iterator[Any]:
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *map(str, arguments)], env=ENVIRONMENT, timeout=PATIENCE
    )
    try:
        yield child
    finally:
        child.close(force=True)


def test_on_a_terminal_what_comes_is_escaped_and_ctrl_d_ends_the_input(stack: ExitStack) -> None:
    with a_peer() as peer, on_a_terminal("connect", at(peer.getsockname())) as terminal:
        conn = accepted(stack, peer)
        terminal.sendline("typed")
        assert exactly(conn, 6) == b"typed\n"
        conn.sendall(b"\x1b[2J\aquiet\r\nover\rwritten\xff\n")
        terminal.expect_exact("\\x1b[2J\\x07quiet\r\nover\\rwritten\\xff\r\n")
        terminal.sendeof()
        assert conn.recv(1) == b""
        conn.close()
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0


def test_on_a_terminal_ctrl_c_ends_it_and_the_progress_is_one_line(stack: ExitStack) -> None:
    with (
        a_peer() as peer,
        on_a_terminal("connect", at(peer.getsockname()), "--progress") as terminal,
    ):
        conn = accepted(stack, peer)
        terminal.expect_exact("\rsent 0 bytes, received 0 bytes")
        conn.sendall(b"text\n")
        terminal.expect_exact("text")
        terminal.expect_exact("\rsent 0 bytes, received 5 bytes")
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 130


def test_a_terminal_that_goes_is_the_end_of_the_input(stack: ExitStack) -> None:
    ours, its = pty.openpty()
    with a_peer() as peer, running("connect", at(peer.getsockname()), stdin=its) as client:
        os.close(its)
        conn = accepted(stack, peer)
        os.close(ours)
        assert conn.recv(1) == b""
        conn.close()
        assert client.end() == (0, b"", "")


# --- listen -------------------------------------------------------------------------------------


@on_each_loop
def test_a_client_is_talked_to_and_then_it_ends(stack: ExitStack, command: list[str]) -> None:
    with running("listen", ":0", command=command) as server:
        address = server.listening()
        assert address[0] == LOCALHOST
        client = connected(stack, address)
        server.send(b"welcome")
        assert exactly(client, 7) == b"welcome"
        with pytest.raises(ConnectionRefusedError):
            connected(stack, address)
        client.sendall(b"goodbye")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert server.end() == (0, b"goodbye", "")


def test_with_k_one_client_follows_the_other_until_ctrl_c(stack: ExitStack) -> None:
    with running("listen", "-k", ":0", "-v") as server:
        address = server.listening()
        for name in b"one", b"two":
            client = connected(stack, address)
            assert server.line().startswith("aiosock: connected to tcp://127.0.0.1:")
            client.sendall(name)
            assert server.receive(3) == name
            server.send(b"to " + name)
            assert exactly(client, 6) == b"to " + name
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            assert server.line().startswith("aiosock: ended: sent 6 bytes, received 3 bytes")
        assert server.interrupt() == (130, b"", "")


def test_with_k_a_silent_client_leaves_the_input_to_the_next(stack: ExitStack) -> None:
    with running("listen", "-k", ":0", "-w", "300ms") as server:
        address = server.listening()
        assert connected(stack, address).recv(1) == b""
        assert server.line() == "aiosock: nothing was sent or received for 0.3 s (-w)\n"
        server.send(b"for the next")
        assert exactly(connected(stack, address), 12) == b"for the next"
        assert server.line().startswith("aiosock: nothing was")
        assert server.interrupt() == (130, b"", "")


def test_with_k_a_broken_connection_ends_no_other(stack: ExitStack, certified: "Files") -> None:
    with running("listen", "-k", "tls://:0", "--cert", certified.shown) as server:
        address = server.listening()
        connected(stack, address).sendall(b"this is no TLS\r\n\r\n")
        assert server.line().startswith("aiosock: the other side does not speak TLS")
        client = certified.secured(connected(stack, address))
        client.sendall(b"but this")
        assert server.receive(8) == b"but this"
        client.close()


def test_a_path_is_listened_at_and_taken_away(stack: ExitStack, tmp_path: Path) -> None:
    with running("listen", "unix:a.sock", cwd=tmp_path) as server:
        assert server.listening() == "./a.sock"
        client = connected(stack, str(tmp_path / "a.sock"))
        client.sendall(b"path")
        client.close()
        assert server.end() == (0, b"path", "")
    assert list(tmp_path.iterdir()) == []


def test_an_address_in_use_is_told_of() -> None:
    with a_peer() as peer:
        code, _, told = run("listen", at(peer.getsockname()))
    assert code == 1
    assert "address already in use: stop who listens there, or take another port" in told


def test_of_udp_callers_the_first_is_answered_and_with_k_the_last(stack: ExitStack) -> None:
    one, other = (
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
    )
    for answered, keep in ((one, []), (other, ["-k"])):
        with running("listen", "-u", ":0", *keep) as server:
            address = server.listening()
            one.sendto(b"one", address)
            assert server.receive(3) == b"one"
            other.sendto(b"other", address)
            if keep:
                assert server.receive(5) == b"other"
            server.send(b"answer")
            answered.settimeout(PATIENCE)
            assert answered.recv(100) == b"answer"
            assert server.interrupt() == (130, b"", "")


LISTENING = {
    (":80", 0): ((LOCALHOST, 80), False),
    (":80", socket.AF_INET6): (("::1", 80, 0, 0), False),
    ("*:80", socket.AF_INET): (("0.0.0.0", 80), False),
    ("127.0.0.2:80", 0): (("127.0.0.2", 80), False),
    ("unix:/a", 0): ("/a", False),
}


@pytest.mark.parametrize(("text", "family"), LISTENING)
async def test_it_listens_at_loopback_unless_told_otherwise(text: str, family: int) -> None:
    expected, _ = LISTENING[text, family]
    assert await listening_address(endpoint(text), family, socket.SOCK_STREAM) == expected


@needs_ipv6
async def test_a_star_is_every_address() -> None:
    assert (await listening_address(endpoint("*:80"), 0, socket.SOCK_STREAM))[0] == "::"


# --- echo ---------------------------------------------------------------------------------------


@on_each_loop
def test_the_echo_server_sends_back_until_ctrl_c(stack: ExitStack, command: list[str]) -> None:
    with running("echo", ":0", command=command) as server:
        address = server.listening()
        assert address[0] == LOCALHOST
        clients = [connected(stack, address) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendall(str(number).encode())
        assert [exactly(client, 1) for client in clients] == [b"0", b"1", b"2"]
        code, printed, told = run("connect", at(address), data=BIG)
        assert (code, printed == BIG, told) == (0, True, "")
        assert server.interrupt() == (130, b"", "")
        assert clients[0].recv(1) == b""


def test_the_echo_server_speaks_udp_and_unix(stack: ExitStack, tmp_path: Path) -> None:
    with running("echo", "udp://:0", "-v") as server:
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(PATIENCE)
        address = server.listening()
        for message in b"datagram", b"", b"x" * 60000:
            client.sendto(message, address)
            assert client.recvfrom(2**16) == (message, address)
        assert server.line().startswith("aiosock: 8 bytes from udp://127.0.0.1:")
        assert server.interrupt()[0] == 130
    with running("echo", f"unix:{tmp_path}/e") as server:
        path = server.listening()
        assert run("connect", f"unix:{path}", data=b"over a path") == (0, b"over a path", "")
        assert server.interrupt() == (130, b"", "")
    assert list(tmp_path.iterdir()) == []


# --- TLS ----------------------------------------------------------------------------------------


class Files:
    """Certificates of an authority, in files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._authority = folder, trustme.CA()
        self.trusted = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.trusted)
        self.shown = self.issue(LOCALHOST, "localhost")

    def issue(self, *names: str) -> Path:
        file = self._folder / f"{names[0]}.pem"
        self._authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(file)
        return file

    def secured(self, sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.trusted))
        return context.wrap_socket(sock, server_hostname=LOCALHOST)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


def test_a_certificate_that_does_not_do_is_told_of(certified: Files) -> None:
    with running("echo", "tls://:0", "--cert", certified.issue("other.example")) as server:
        place = f"tls://{at(server.listening())}"
        code, printed, told = run("connect", place)
        assert (code, printed) == (1, b"")
        assert re.fullmatch(
            rf"aiosock: {place}: the certificate is not trusted: .*--cafile.*\n", told
        )
        code, printed, told = run("connect", place, "--cafile", certified.trusted)
        assert (code, printed) == (1, b"")
        assert re.fullmatch(
            r"aiosock: \S+: the certificate is another host's: .*--servername.*\n", told
        )
        how = ["-w", "1s", "--cafile", certified.trusted, "--servername", "other.example"]
        assert run("connect", place, *how, data=b"right") == (0, b"right", "")
        code, printed, told = run("connect", place, "-w", "1s", "--insecure", data=b"anybody")
        assert (code, printed) == (0, b"anybody")
        assert told.startswith("aiosock: warning: --insecure: ")


def test_a_server_without_tls_is_told_of(stack: ExitStack) -> None:
    with a_peer() as peer, running("connect", "--tls", at(peer.getsockname())) as client:
        accepted(stack, peer).sendall(b"220 hello, I speak no TLS\r\n")
        code, _, told = client.end()
    assert code == 1
    assert "the other side does not speak TLS; leave TLS out" in told


def a_secure_peer(certified: Files, newest: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified.shown)
    context.maximum_version = newest
    return context


def test_a_connection_cut_in_tls_is_told_of(stack: ExitStack, certified: Files) -> None:
    context = a_secure_peer(certified, ssl.TLSVersion.TLSv1_3)
    with a_peer() as peer:
        place = f"tls://{at(peer.getsockname())}"
        with running("connect", place, "--cafile", certified.trusted) as client:
            conn = context.wrap_socket(accepted(stack, peer), server_side=True)
            conn.sendall(b"part")
            assert client.receive(4) == b"part"
            socket.socket(fileno=conn.detach()).close()
            code, _, told = client.end()
    assert code == 1
    assert told.startswith(f"aiosock: {place}: the connection was cut in the middle of TLS: ")


@on_each_loop
def test_in_tls_too_the_end_of_the_input_is_told_and_the_answer_printed(
    command: list[str], stack: ExitStack, certified: Files
) -> None:
    context = a_secure_peer(certified, ssl.TLSVersion.TLSv1_3)
    with a_peer() as peer:
        place = f"tls://{at(peer.getsockname())}"
        with running("connect", place, "--cafile", certified.trusted, command=command) as client:
            conn = stack.enter_context(context.wrap_socket(accepted(stack, peer), server_side=True))
            conn.sendall(b"what came before, ")
            client.send(b"question")
            client.end_input()
            assert all_of(conn) == b"question"
            conn.sendall(b"and the answer")
            conn.unwrap()
            assert client.end() == (0, b"what came before, and the answer", "")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_where_tls_has_one_end_or_on_request_it_is_not_told(
    newest: ssl.TLSVersion, stack: ExitStack, certified: Files
) -> None:
    context = a_secure_peer(certified, newest)
    how = ["--cafile", certified.trusted, "-w", "0.3s"]
    how += ["--no-shutdown"] if newest == ssl.TLSVersion.TLSv1_3 else []
    with a_peer() as peer, running("connect", f"tls://{at(peer.getsockname())}", *how) as client:
        conn = stack.enter_context(context.wrap_socket(accepted(stack, peer), server_side=True))
        conn.sendall(b"the answer")
        assert client.receive(10) == b"the answer"
        assert client.end(b"question") == (0, b"", "")
        assert conn.recv(100) == b"question"
        assert conn.recv(100) == b""  # behind the silence


def test_both_ends_of_tls_tell_the_end_of_their_input(certified: Files) -> None:
    with running("listen", "tls://:0", "--cert", certified.shown) as server:
        place = f"tls://{at(server.listening())}"
        with running("connect", place, "--cafile", certified.trusted) as client:
            client.send(b"question")
            assert server.receive(8) == b"question"
            client.end_input()
            assert server.end() == (0, b"", "")
            assert client.end() == (0, b"", "")


@contextmanager
def openssl(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    command = ["openssl", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


@needs_openssl
def test_openssl_s_server_is_talked_to(certified: Files) -> None:
    how = ["-accept", f"{LOCALHOST}:0", "-cert", certified.shown, "-key", certified.shown]
    with openssl("s_server", *how, "-rev", "-alpn", "h2") as server:
        assert server.stdout is not None
        told = next(line for line in server.stdout if line.startswith(b"ACCEPT "))
        place = f"tls://{LOCALHOST}:{told.rpartition(b':')[2].strip().decode()}"
        how = ["--cafile", certified.trusted, "--alpn", "h2,http/1.1", "-v"]
        code, printed, told_by_us = run("connect", place, *how, data=b"hello\n")
    assert (code, printed) == (0, b"olleh\n")
    assert re.match(
        rf"aiosock: connected to {place} in .*, TLSv1.3, TLS_\w+, ALPN h2\n", told_by_us
    )


@needs_openssl
def test_the_answer_of_openssls_web_server_is_printed_whole(certified: Files) -> None:
    how = ["-accept", f"{LOCALHOST}:0", "-cert", certified.shown, "-key", certified.shown]
    with openssl("s_server", *how, "-www") as server:
        assert server.stdout is not None
        told = next(line for line in server.stdout if line.startswith(b"ACCEPT "))
        place = f"{LOCALHOST}:{told.rpartition(b':')[2].strip().decode()}"
        how = ["--tls", "--crlf", "--cafile", certified.trusted]
        code, printed, told_by_us = run("connect", place, *how, data=b"GET / HTTP/1.0\n\n")
    assert (code, told_by_us) == (0, "")
    assert printed.startswith(b"HTTP/1.0 200 ok\r\n")
    assert printed.endswith(b"</HTML>\r\n\r\n")


@needs_openssl
def test_openssl_s_client_is_talked_to(certified: Files) -> None:
    with running("listen", "tls://:0", "--cert", certified.shown) as server:
        how = ["-connect", at(server.listening()), "-quiet", "-verify_return_error"]
        with openssl("s_client", *how, "-CAfile", certified.trusted) as client:
            server.send(b"from us\n")
            assert client.stdout is not None
            assert b"from us\n" in iter(client.stdout.readline, b"")
            assert client.stdin is not None
            client.stdin.write(b"from openssl\n")
            client.stdin.flush()
            assert server.receive(13) == b"from openssl\n"


@needs_netcat
def test_netcat_is_talked_to() -> None:
    with running("listen", ":0") as server:
        host, port = server.listening()
        done = subprocess.run(
            ["nc", "-N", host, str(port)],
            input=b"netcat",
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0
        assert server.end()[:2] == (0, b"netcat")


# --- resolve, trace, doctor ---------------------------------------------------------------------


class Resolver:
    """Knows loopback addresses of one host, of both families."""

    hosts = {
        socket.AF_INET6: ["::1", "::ffff:127.0.0.4"],
        socket.AF_INET: ["127.0.0.3", "127.0.0.2"],
    }

    async def getaddrinfo(self, host: Any, port: Any, family: int, *how: Any) -> list[Any]:
        stream = socket.SOCK_STREAM
        return [
            answer
            for host in self.hosts[socket.AddressFamily(family)]
            for answer in socket.getaddrinfo(host, port, family, stream)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    with using(Resolver()) as made:
        yield made


@needs_ipv6
async def test_addresses_are_listed_as_create_connection_tries_them(
    resolver: Resolver, nobody: int
) -> None:
    listed = [info[4] for info in await in_order("host.example", nobody)]
    hosts = ["::1", "127.0.0.3", "::ffff:127.0.0.4", "127.0.0.2"]
    assert [address[0] for address in listed] == hosts
    with pytest.raises(ConnectionRefusedError) as refused:
        await aiosock.create_connection(("host.example", nobody), timeout=PATIENCE)
    tried = [note.partition(" from")[0] for note in refused.value.__notes__]
    assert tried == list(map(str, listed))


async def test_of_one_family_no_other_address_is_known(resolver: Resolver) -> None:
    one = OneFamily(socket.AF_INET, resolver)
    found = await one.getaddrinfo("host.example", 80, 0, 0, 0, 0)
    assert {info[0] for info in found} == {socket.AF_INET}
    with pytest.raises(socket.gaierror, match="not asked for"):
        await one.getaddrinfo("host.example", 80, socket.AF_INET6, 0, 0, 0)


def test_numeric_addresses_are_listed_as_they_are() -> None:
    assert run("resolve", "127.0.0.1") == (0, b"127.0.0.1\n", "")
    assert run("resolve", "[::1]", "80") == (0, b"[::1]:80\n", "")


def test_a_connection_is_traced(certified: Files) -> None:
    with running("echo", "tls://:0", "--cert", certified.shown) as server:
        host, port = server.listening()
        code, printed, told = run(
            "trace", f"tls://localhost:{port}", "-4", "--cafile", certified.trusted
        )
    assert (code, told) == (0, "")
    *steps, whole = printed.decode().splitlines()
    assert [re.split(r"  +", step)[0] for step in steps][-2:] == [f"{host}:{port}", "TLS handshake"]
    assert any(step.startswith("look up IPv4 ") for step in steps)
    assert re.search(r"TLSv1\.3, TLS_\w+$", steps[-1])
    assert re.search(r"connected, and secure: certificate for .*localhost.*, \d+\.\d ms$", whole)


STEP = re.compile(r"(?P<name>.*?) +(?P<begun>\d+\.\d) +\+(?P<took>\d+\.\d) ms  ")


@pytest.mark.parametrize("answers", [True, False])
def test_all_steps_of_a_trace_have_one_origin(
    answers: bool, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on with each look at it: what follows begins later."""
    ticks = itertools.count(1000)  # of a tenth of a millisecond
    monkeypatch.setattr(_race, "monotonic", lambda: next(ticks) / 10_000)
    with a_peer() as peer, socket.socket() as deaf:
        deaf.bind((LOCALHOST, 0))
        port = (peer if answers else deaf).getsockname()[1]
        code, printed, _ = here("trace", f"localhost:{port}", "-4")
    *steps, whole = printed.splitlines()
    assert code == (0 if answers else 1)
    found = [match for match in map(STEP.match, steps) if match]
    assert [step["name"] for step in found] == ["look up IPv4", f"{LOCALHOST}:{port}"]
    at = 0.0
    for step in found:
        assert float(step["begun"]) > at
        assert float(step["took"]) > 0
        at = float(step["begun"]) + float(step["took"])
    assert float(whole.split()[-2]) > at


def test_the_steps_of_a_trace_are_drawn_in_the_order_in_which_they_began(
    capsys: pytest.CaptureFixture[str],
) -> None:
    timeline = trace.Timeline()
    timeline.steps = [Step("later", 0.2, 0.3, ""), Step("first", 0.0, 0.4, "")]
    trace.draw(Endpoint("tcp"), timeline, "connected")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][:2] == [
        "first",
        "later",
    ]


@pytest.mark.parametrize("is_over", [False, True])
def test_the_time_for_a_trace_is_for_all_of_it(
    is_over: bool, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a server that says nothing; and if connecting has taken all the time."""
    if is_over:
        monkeypatch.setattr(trace, "deadline_after", lambda timeout: 0.0)
    with a_peer() as peer:
        code, printed, told = here("trace", "--tls", at(peer.getsockname()), "-w", "100ms")
    attempt, *rest, _ = printed.splitlines()
    assert attempt.endswith("  connected")
    assert [step.split("  ")[0] for step in rest] == ["TLS handshake"] * (not is_over)
    assert "no answer in time" in told
    assert code == 1


def test_of_a_host_that_is_not_known_the_lookups_are_all_that_is_drawn(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*args: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    code, printed, told = here("trace", "nowhere.test:80")
    assert "the host is not known" in told
    steps = [line.split("  ")[0] for line in printed.splitlines()[:-1]]
    assert (code, sorted(steps)) == (1, ["look up IPv4", "look up IPv6"])


def test_what_fails_is_traced_too(nobody: int) -> None:
    place = f"{LOCALHOST}:{nobody}"
    code, printed, told = run("trace", place)
    assert code == 1
    step, whole = printed.decode().splitlines()
    assert re.fullmatch(rf"{place} +0\.\d +\+\d+\.\d ms  [ \u2588]+  Connection refused", step)
    assert re.fullmatch(rf"tcp://{place}: failed, \d+\.\d ms", whole)
    assert "nobody listens there" in told


def test_the_doctor_tells_what_a_report_needs_and_no_names() -> None:
    code, printed, told = run("doctor")
    text = printed.decode()
    assert (code, told) == (0, "")
    for name in "aiosock", "Python", "system", "TLS", "uvloop", "open files", "families":
        assert re.search(rf"^{name} +\S", text, re.M)
    assert "INET" in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


# --- the page of the manual ---------------------------------------------------------------------

ELSEWHERE = "example.org"  # what the pages say of the world is shown with servers of this test
SHOWN_AS = "[2001:db8::1]:443"  # how the page writes the address of one
PORT = "8443"  # of the pages' own servers, in whose place is one that is free
BARS = re.compile(r" *\u2588+ *|  +")
TIMES = re.compile(r"\b\d+\.\d\b")

# The command `aiosock`, for which the ports of one host are ports of this machine.
INSTALLED = """
import json, os, socket, sys
from aiosock.__main__ import main

known, ask = json.loads(os.environ["HOSTS"]), socket.getaddrinfo

def getaddrinfo(host, port, family=0, *how):
    here = known.get(host)
    if here is None:
        return ask(host, port, family, *how)
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    return ask(address, here[str(port)], family, *how) * 2

socket.getaddrinfo = getaddrinfo
sys.exit(main())
"""


def matches(shown: str, line: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, shown.split("…"))), line))


def steady(line: str) -> str:
    """A line without the times in it, which differ, and the bars that are drawn of them."""
    return TIMES.sub("…", BARS.sub("  ", line))


@pytest.fixture
def elsewhere() -> Iterator[dict[str, str]]:
    """The environment of a shell where a web server of this process is the host of the pages."""

    def answer(conn: aiosock_sync.socket, peer: Any) -> None:
        request = conn.recv(1000)
        if request.startswith(b"GET / HTTP/1.1\r\nHost: "):
            conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert(ELSEWHERE).configure_cert(context)
    with (
        authority.cert_pem.tempfile() as trusted,
        aiosock_sync.serve(answer, ("::1", 0)) as plain,
        aiosock_sync.serve(answer, ("::1", 0), ssl=context, grace_period=0) as secure,
    ):
        ports = [server.sockets[0].getsockname()[1] for server in (plain, secure)]
        hosts = {ELSEWHERE: {"80": ports[0], "443": ports[1]}}
        yield {"HOSTS": json.dumps(hosts), "SSL_CERT_FILE": trusted, "SECURE": f"[::1]:{ports[1]}"}


@pytest.fixture
def shell(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str], Callable[[], str]]]:
    """Runs a line in a shell that has the command `aiosock`; gives what reads a line of output."""
    needed = ELSEWHERE in request.node.callspec.params["block"].text
    world = request.getfixturevalue("elsewhere") if needed else {"HOSTS": "{}"}
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "aiosock"
    script.write_text(f"#!{sys.executable} -Werror\n{INSTALLED}")
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["sh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        cwd=tmp_path,
        env={**ENVIRONMENT, **world, "PATH": path},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        given, answers = process.stdin, process.stdout

        def read() -> str:
            assert select.select([answers], [], [], PATIENCE)[0], "it prints nothing"
            line = answers.readline().decode().rstrip("\r\n")
            return line.replace(world.get("SECURE", SHOWN_AS), SHOWN_AS)

        def do(line: str) -> Callable[[], str]:
            given.write(f"{line}\n".encode())
            return read

        yield do
        os.killpg(process.pid, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOCALHOST, 0))
        port: int = sock.getsockname()[1]
    return port


def is_run_here(block: Block) -> Any:
    needs = {ELSEWHERE: needs_ipv6, "openssl": needs_openssl}
    marks = [mark for word, mark in needs.items() if word in block.text]
    return pytest.param(block, marks=marks, id=block.id)


@pytest.mark.parametrize("block", [is_run_here(block) for block in blocks("console")])
def test_an_example_of_the_pages_prints_what_it_shows(
    block: Block, shell: Callable[[str], Callable[[], str]]
) -> None:
    for line in block.text.replace(PORT, str(free_port())).splitlines():
        if line.startswith("$ "):
            read = shell(line.removeprefix("$ "))
        else:
            printed = read()
            assert matches(steady(line), steady(printed)), (line, printed)
