"""The DNS client among the examples, against a server of the test's own on loopback.

It must take the server's answer and nobody else's, ask again where nothing comes, and turn
to TCP for what did not fit.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

import aiosock

ROOT = Path(aiosock.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "dns_client.py"
PATIENCE = 20
NAME, TTL = "name.test.", 60
LINE = f"{NAME} {TTL} IN A 192.0.2.7\n"

Message = Any
Send = Callable[[bytes], object]
Behave = Callable[[Message, Send, tuple[str, int]], None]


def reply_to(query: Message, *addresses: str) -> Message:
    reply = dns.message.make_response(query)
    if addresses:
        reply.answer = [dns.rrset.from_text_list(query.question[0].name, TTL, "IN", "A", addresses)]
    return reply


def send_to(sock: socket.socket, client: tuple[str, int], data: bytes) -> None:
    sock.sendto(data, client)


@contextmanager
def server(behave: Behave, over_tcp: Callable[[Message], bytes] | None = None) -> Iterator[int]:
    """Serves over UDP, and over TCP at the same port; what goes wrong there comes out here."""
    failures: list[BaseException] = []

    def serve_udp() -> None:
        with suppress(TimeoutError):
            while True:
                data, client = udp.recvfrom(65535)
                if not data:
                    return
                behave(dns.message.from_wire(data), partial(send_to, udp, client), client)

    def serve_tcp() -> None:
        conn, _ = tcp.accept()
        with conn, conn.makefile("rb") as file:
            size = int.from_bytes(file.read(2), "big")
            assert over_tcp is not None
            conn.sendall(over_tcp(dns.message.from_wire(file.read(size))))

    def noting(serve: Callable[[], None]) -> None:
        try:
            serve()
        except BaseException as error:
            failures.append(error)

    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(tcp.getsockname())
        for sock in udp, tcp:
            sock.settimeout(PATIENCE)
        serving = [serve_udp, serve_tcp] if over_tcp else [serve_udp]
        threads = [threading.Thread(target=noting, args=(serve,)) for serve in serving]
        for thread in threads:
            thread.start()
        try:
            yield tcp.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"", udp.getsockname())
            for thread in threads:
                thread.join()
    assert failures == []


RUN = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


def run(*args: object, first: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the example; `first` is Python to run before it."""
    program = f"{first}\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(EXAMPLE), *map(str, args)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def ask(port: int, *, first: str = "") -> tuple[int, str, str]:
    return run(NAME, "A", "127.0.0.1", port, first=first)


HASTY = "import asyncio; real = asyncio.timeout; asyncio.timeout = lambda _: real(0.2)"
LOOPS = {"uvloop": "", "asyncio": "import sys; sys.modules['uvloop'] = None"}


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 80


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_short_answer_comes_over_udp(loop: str) -> None:
    def behave(query: Message, send: Send, _: object) -> None:
        send(reply_to(query, "192.0.2.7").to_wire())

    with server(behave) as port:
        assert ask(port, first=loop) == (0, LINE, "")


def cut_off(query: Message, send: Send, _: object) -> None:
    reply = reply_to(query)
    reply.flags |= dns.flags.TC
    send(reply.to_wire())


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_an_answer_that_was_cut_off_comes_over_tcp(loop: str) -> None:
    addresses = [f"192.0.2.{number}" for number in range(200)]

    def over_tcp(query: Message) -> bytes:
        wire: bytes = reply_to(query, *addresses).to_wire(prepend_length=True)
        assert len(wire) > 512
        return wire

    with server(cut_off, over_tcp) as port:
        code, printed, complaint = ask(port, first=loop)
    assert (code, complaint) == (0, "")
    assert sorted(line.split()[-1] for line in printed.splitlines()) == sorted(addresses)


def test_what_answers_another_question_is_passed_over() -> None:
    def behave(query: Message, send: Send, client: tuple[str, int]) -> None:
        forged = reply_to(query, "192.0.2.66")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(forged.to_wire(), client)
        forged.id ^= 1
        send(forged.to_wire())
        other = dns.message.make_query("other.test.", "A")
        other.id = query.id
        send(reply_to(other, "192.0.2.66").to_wire())
        send(query.to_wire())  # a question is no answer
        send(b"no message")
        send(reply_to(query, "192.0.2.7").to_wire())

    with server(behave) as port:
        assert ask(port) == (0, LINE, "")


def test_what_was_lost_is_asked_again() -> None:
    asked: list[int] = []

    def behave(query: Message, send: Send, _: object) -> None:
        asked.append(query.id)
        if len(asked) == 2:
            send(reply_to(query, "192.0.2.7").to_wire())

    with server(behave) as port:
        assert ask(port, first=HASTY) == (0, LINE, "")
    assert len(asked) == 2


def test_a_server_that_does_not_answer_is_told_of() -> None:
    asked: list[int] = []
    with server(lambda query, send, client: asked.append(query.id)) as port:
        told = "no answer: the server does not answer\n"
        assert ask(port, first=HASTY) == (1, "", told)
    assert len(asked) == 3


def test_where_no_server_is_that_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.connect(("127.0.0.1", 9))  # it hears nobody else: an ICMP error is the answer
        assert ask(port) == (1, "", "no answer: [Errno 111] Connection refused\n")


@pytest.mark.parametrize("kind", ["id", "cut", "nothing"])
def test_over_tcp_too_only_the_answer_counts(kind: str) -> None:
    def over_tcp(query: Message) -> bytes:
        query.id ^= kind == "id"
        wire: bytes = reply_to(query, "192.0.2.66").to_wire(prepend_length=True)
        return wire if kind == "id" else wire[:20] if kind == "cut" else b""

    with server(cut_off, over_tcp) as port:
        code, printed, complaint = ask(port)
    assert (code, printed) == (1, "")
    assert complaint.startswith("no answer: ")
    assert complaint.count("\n") == 1


def test_an_answer_without_records_tells_why() -> None:
    def behave(query: Message, send: Send, _: object) -> None:
        reply = reply_to(query)
        reply.set_rcode(dns.rcode.NXDOMAIN)
        send(reply.to_wire())

    with server(behave) as port:
        assert ask(port) == (0, "NXDOMAIN\n", "")


def test_what_cannot_be_asked_is_told() -> None:
    assert run(NAME, "NOSUCHTYPE", "127.0.0.1") == (
        1,
        "",
        "no answer: DNS resource record type is unknown.\n",
    )
    code, printed, complaint = run()
    assert (code, printed) == (1, "")
    assert "python examples/dns_client.py name [type] [server] [port]" in complaint
