"""What serve() has on the blocking face alone: threads, Ctrl-C, and handlers that hang."""

import errno
import logging
import os
import signal
import socket as _stdlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faces import LIMIT
from secured import serving

import aiosock_sync
from aiosock import _serving
from aiosock_sync import _driver, _server

LOOPBACK = ("127.0.0.1", 0)
ROOT = Path(aiosock_sync.__file__).parents[1]


def echo(conn: aiosock_sync.socket, peer: Any) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def connected(server: aiosock_sync.Server) -> _stdlib.socket:
    return _stdlib.create_connection(server.sockets[0].getsockname(), timeout=LIMIT)


def answer(sock: _stdlib.socket) -> bytes:
    sock.sendall(b"hello")
    return sock.recv(100)


def until(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def alarm(act: Callable[..., Any], seconds: float = 0.05, again: float = 0.0) -> Iterator[None]:
    """Have a signal handler act in this thread, whatever it does then."""
    before = signal.signal(signal.SIGALRM, act)
    signal.setitimer(signal.ITIMER_REAL, seconds, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


# --- threads ----------------------------------------------------------------------------


def test_each_connection_has_a_thread_and_none_is_left() -> None:
    before = threading.active_count()
    with (
        aiosock_sync.serve(echo, LOOPBACK) as server,
        connected(server) as one,
        connected(server) as other,
    ):
        assert answer(one) == answer(other) == b"hello"
        assert threading.active_count() == before + 3  # one accepts
        one.close()
        other.close()
    assert threading.active_count() == before


def test_threads_that_have_ended_are_not_kept() -> None:
    with aiosock_sync.serve(echo, LOOPBACK) as server:
        for _ in range(20):
            with connected(server) as sock:
                assert answer(sock) == b"hello"
            until(lambda: not server.active)
        assert len(server._ended) <= 2


def test_a_connection_for_which_there_is_no_thread_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, fail = threading.Thread.start, [True]

    def start(self: threading.Thread) -> None:
        if fail and "_handle" in repr(self._target):  # type: ignore[attr-defined]  # the stdlib's
            fail.pop()
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(_server, "PAUSE", 0.01)
    with aiosock_sync.serve(echo, LOOPBACK) as server:
        with connected(server) as sock, suppress(ConnectionResetError):
            assert answer(sock) == b""
        with connected(server) as sock:
            assert answer(sock) == b"hello"
            assert (server.accepted, server.active, server.failed) == (2, 1, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_handler_that_waits_for_descriptors_keeps_others_in_the_queue(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, may = _driver.loop_here, threading.Event()

    def loop_here() -> object:
        if not may.is_set():
            raise OSError(errno.EMFILE, "Too many open files")
        return real()

    monkeypatch.setattr(_server, "loop_here", loop_here)
    monkeypatch.setattr(_serving, "PAUSE", 0.01)
    with aiosock_sync.serve(echo, LOOPBACK) as server:
        with connected(server) as one, connected(server) as other:
            until(lambda: server.active)
            time.sleep(0.05)
            assert server.accepted == 1
            may.set()
            assert answer(one) == answer(other) == b"hello"
        may.clear()
        with connected(server):
            until(lambda: server.accepted == 3)
            server.close()  # and there is nothing to wait for any more
            until(lambda: server.failed == 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_a_listener_that_is_about_to_close_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is to wait for it any more, and its descriptor is there yet."""
    with aiosock_sync.create_server(LOOPBACK) as listener, ExitStack() as stack:
        server = stack.enter_context(aiosock_sync.serve(echo, listener))
        until(lambda: listener._reading.lines() and listener._reading.line.busy)  # it accepts
        listener._reading.ending = True
        with connected(server) as sock:
            assert answer(sock) == b"hello"
            server.serve_forever()
    assert caplog.records == []


# --- the end ----------------------------------------------------------------------------


def test_a_handler_that_reads_a_file_of_its_socket_is_cancelled_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aiosock")

    def read_lines(conn: aiosock_sync.socket, peer: Any) -> None:
        with conn.makefile("rwb", buffering=0) as file:
            for line in file:
                file.write(line)

    with aiosock_sync.serve(read_lines, LOOPBACK, grace_period=0) as server:
        sock = connected(server)
        sock.sendall(b"hello\n")
        assert sock.recv(100) == b"hello\n"
    with sock:
        assert sock.recv(100) == b""
    assert (server.active, server.failed) == (0, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_handshake_that_begins_as_the_time_is_over_is_cancelled_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = aiosock_sync.SSLSocket._create  # type: ignore[attr-defined]  # the stdlib's

    def late(*args: Any, **how: Any) -> Any:
        secure = real(*args, **how)
        until(lambda: server._cut)
        time.sleep(0.02)
        return secure

    monkeypatch.setattr(aiosock_sync.SSLSocket, "_create", late)
    with aiosock_sync.serve(echo, LOOPBACK, ssl=serving(), grace_period=0) as server:
        silent = connected(server)
        until(lambda: server.active)
    with silent:
        assert silent.recv(100) == b""
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_handler_that_does_not_end_is_left_behind_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_server, "LAST", 0.05)
    go_on = threading.Event()

    def hang(conn: aiosock_sync.socket, peer: Any) -> None:
        conn.recv(100)
        go_on.wait(LIMIT)

    with aiosock_sync.serve(hang, LOOPBACK, grace_period=0.01) as server:
        sock = connected(server)
        sock.sendall(b"hello")
        until(lambda: server.active)
    with sock:
        assert sock.recv(100) == b""  # closed all the same
    assert [record.getMessage() for record in caplog.records] == [
        "handlers cancelled as the server ends: 1",
        "handlers that do not end and are left behind: 1",
    ]
    go_on.set()
    until(lambda: not server.active)


def test_ctrl_c_ends_serve_forever_and_the_handlers_are_let_finish() -> None:
    finished = []

    def finish(conn: aiosock_sync.socket, peer: Any) -> None:
        echo(conn, peer)
        finished.append(True)

    def serve_one() -> None:
        with aiosock_sync.serve(finish, LOOPBACK) as server:
            sock = connected(server)
            assert answer(sock) == b"hello"
            threading.Timer(0.1, sock.close).start()
            with alarm(interrupt, 0.03):
                server.serve_forever()

    with pytest.raises(KeyboardInterrupt):
        serve_one()
    assert finished == [True]


def test_another_ctrl_c_cancels_the_handlers() -> None:
    socks = []

    def serve_one() -> None:
        with aiosock_sync.serve(echo, LOOPBACK, grace_period=None) as server:
            socks.append(connected(server))
            assert answer(socks[0]) == b"hello"
            signal.setitimer(signal.ITIMER_REAL, 0.03, 0.05)
            server.serve_forever()

    with alarm(interrupt, 0), pytest.raises(KeyboardInterrupt):
        serve_one()
    with socks[0] as sock:
        assert sock.recv(100) == b""


def test_a_signal_handler_may_close_the_server() -> None:
    with aiosock_sync.serve(echo, LOOPBACK) as server:
        with alarm(lambda *_: server.close()):
            server.serve_forever()
        assert server.sockets == ()


ABANDONED = """
import os, aiosock_sync
def hang(conn, peer):
    os.write(1, b"hangs")
    conn.recv(100)
server = aiosock_sync.serve(hang, ("127.0.0.1", 0)).__enter__()
sock = aiosock_sync.create_connection(server.sockets[0].getsockname())
while not server.active:
    pass
"""


def test_the_interpreters_end_waits_for_no_handler() -> None:
    command = [sys.executable, "-c", ABANDONED]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, timeout=20, check=True)
