"""Corners of the engine: several loops on one socket, and what was put back."""

import asyncio
import gc
import os
import socket as _stdlib
import ssl
import struct
import threading

import pytest

import aiosock
from aiosock import _constructors, _names
from aiosock._cli import demo


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def another_loop_has_waited_on(sock: aiosock.socket, peer: aiosock.socket) -> asyncio.Runner:
    """A loop that still is open, and to which the socket's first line belongs."""

    async def wait_once() -> None:
        reading = asyncio.create_task(sock.recv(1))
        await ticks()
        await peer.send(b"x")
        await reading
        sock.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_SNDBUF, 4096)
        filling = asyncio.create_task(sock.sendall(bytes(10**6)))
        await ticks()
        got = 0
        while got < 10**6:
            got += len(await peer.recv(10**6))
        await filling

    runner = asyncio.Runner()
    runner.run(wait_once())
    return runner


def test_two_sendalls_do_not_mix_although_an_older_loop_is_open() -> None:
    one, other = aiosock.socketpair()

    async def main() -> bytes:
        sending = [asyncio.create_task(one.sendall(letter * 10**6)) for letter in (b"1", b"2")]
        got = b""
        while len(got) < 2 * 10**6:
            got += await other.recv(10**6)
        await asyncio.gather(*sending)
        return got

    with one, other, another_loop_has_waited_on(one, other), asyncio.Runner() as runner:
        assert runner.run(main()) == b"1" * 10**6 + b"2" * 10**6


def test_a_loop_that_closes_leaves_the_waiters_of_another_alone() -> None:
    one, other = aiosock.socketpair()
    older = another_loop_has_waited_on(one, other)

    async def main() -> tuple[bytes, bytes]:
        first = asyncio.create_task(one.recv(1))
        await ticks()
        await asyncio.to_thread(older.close)
        second = asyncio.create_task(one.recv(1))
        await ticks()
        await other.send(b"ab")
        async with asyncio.timeout(5):
            return await first, await second

    with one, other, asyncio.Runner() as runner:
        assert runner.run(main()) == (b"a", b"b")


async def cancelled_waitall(sock: aiosock.socket, gathered: int) -> None:
    task = asyncio.create_task(sock.recv(gathered + 10, aiosock.MSG_WAITALL))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_peek_sees_what_was_put_back() -> None:
    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        sock = await aiosock.create_connection(listener.getsockname())
        peer, _ = await listener.accept()
        with sock, peer:
            await peer.send(b"abc")
            await cancelled_waitall(sock, 3)
            peeking = sock.recv(3, aiosock.MSG_PEEK | aiosock.MSG_WAITALL)
            assert await peeking == b"abc"
            assert await sock.recv(10) == b"abc"


async def test_nothing_that_was_put_back_is_read_from_a_closed_socket() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        await other.send(b"abc")
        gathering = asyncio.create_task(one.recv(10, aiosock.MSG_WAITALL))
        behind = asyncio.create_task(one.recv(1))
        await asyncio.sleep(0.01)
        one.close()
        for task in (gathering, behind, asyncio.create_task(one.recv(1))):
            with pytest.raises(OSError, match="Bad file descriptor"):
                await task


async def fill_with_empty_datagrams(sock: aiosock.socket) -> None:
    for _ in range(100_000):
        try:
            await sock.send(b"")
        except BlockingIOError:
            return


async def test_an_empty_sendall_waits_for_room_too() -> None:
    one, other = aiosock.socketpair(aiosock.AF_UNIX, aiosock.SOCK_DGRAM)
    with one, other:
        one.settimeout(0.0)
        await fill_with_empty_datagrams(one)
        with pytest.raises(BlockingIOError):
            await one.sendall(b"")


async def test_a_failed_lookup_keeps_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> object:
        raise _stdlib.gaierror(_stdlib.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(_stdlib, "getaddrinfo", unknown)
    sock = aiosock.socket(aiosock.AF_INET)
    fd = sock.fileno()
    gc.disable()
    try:
        with pytest.raises(_stdlib.gaierror):
            await sock.connect(("nosuch.test", 1))
        for thread in threading.enumerate():
            if thread.name == "aiosock-names":
                thread.join()  # until it ends it holds the error that it delivered
        with pytest.warns(ResourceWarning, match=f"unclosed <socket.socket fd={fd}"):
            del sock
    finally:
        gc.enable()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_socket_closes_although_its_loop_closed_during_a_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(_stdlib, "getaddrinfo", lambda *args: go_on.wait(10))
    sock = aiosock.socket(aiosock.AF_INET)
    loop = asyncio.new_event_loop()
    connecting = sock.connect(("slow.test", 1))
    task = loop.create_task(connecting)
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    sock.close()
    assert sock.fileno() == -1
    go_on.set()
    connecting.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # abandoned on purpose


async def test_a_system_without_threads_fails_a_lookup_and_serves_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for _ in range(_names.THREADS + 1):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_more)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await aiosock.getservbyname("http")
    async with asyncio.timeout(5):
        assert await aiosock.getservbyname("http") == 80


def test_a_tls_socket_is_not_taken_over_as_a_plain_one() -> None:
    one, other = _stdlib.socketpair()
    context = ssl.create_default_context()
    with (
        other,
        context.wrap_socket(one, do_handshake_on_connect=False, server_hostname="a.test") as secure,
    ):
        with pytest.raises(
            TypeError, match="a plain socket.socket is needed, not aiosock.SSLSocket"
        ):
            aiosock.from_stdlib_socket(secure)
        assert secure.fileno() >= 0


async def test_data_and_reset_in_one_event_serve_both_who_wait() -> None:
    with _stdlib.create_server(("127.0.0.1", 0)) as listener:
        async with aiosock.create_connection(listener.getsockname()) as sock:
            peer, _ = listener.accept()
            reading = [asyncio.create_task(sock.recv(10)) for _ in range(2)]
            await ticks()
            peer.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_LINGER, struct.pack("ii", 1, 0))
            peer.send(b"abc")
            peer.close()
            async with asyncio.timeout(5):
                assert await reading[0] == b"abc"
                with pytest.raises(ConnectionResetError):
                    await reading[1]


async def test_the_shortest_timeout_looks_once_though_the_stream_was_empty() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        reading = asyncio.create_task(one.recv(10))
        await ticks()
        await other.send(b"a")
        assert await reading == b"a"
        await other.send(b"b")
        one.settimeout(1e-9)
        assert await one.recv(10) == b"b"


async def test_who_is_cancelled_as_his_turn_comes_hands_it_on() -> None:
    one, other = aiosock.socketpair()

    async def first() -> bytes:
        got = await one.recv(1)
        second.cancel()  # to whom the place has just been given
        return got

    with one, other:
        tasks = [asyncio.create_task(first())]
        await ticks()
        second = asyncio.create_task(one.recv(1))
        await ticks()
        third = asyncio.create_task(one.recv(1))
        await ticks()
        await other.send(b"ab")
        async with asyncio.timeout(5):
            assert (await tasks[0], await third) == (b"a", b"b")
        assert second.cancelled()


async def test_an_urgent_byte_that_there_can_never_be_is_not_waited_for() -> None:
    sock, other = aiosock.socketpair(type=aiosock.SOCK_DGRAM)
    with sock, other:
        sock.settimeout(5)
        with pytest.raises(OSError, match="not supported"):
            await sock.recv(1, aiosock.MSG_OOB)


async def test_what_was_put_back_is_no_matter_to_who_takes_nothing() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        await other.send(b"abc")
        await cancelled_waitall(one, 3)
        await one.wait_readable()
        with pytest.raises(OSError, match="Invalid argument"):
            await one.accept()
        assert await one.recv(10) == b"abc"


async def test_a_system_without_more_threads_makes_a_lookup_wait_for_those_that_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(_stdlib, "getservbyname", lambda name: go_on.wait(5) and 80)

    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    slow = asyncio.create_task(aiosock.getservbyname("slow"))
    await ticks()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        queued = asyncio.create_task(aiosock.getservbyname("http"))
        await ticks()
    go_on.set()
    async with asyncio.timeout(5):
        assert (await slow, await queued) == (80, 80)


def test_the_time_that_is_left_for_a_handshake_may_be_none() -> None:
    with pytest.raises(TimeoutError, match="^timed out$"):
        _constructors._rest(0.0)


async def test_other_ancillary_data_beside_descriptors_is_left_out() -> None:
    one, other = aiosock.socketpair()
    with one, other:
        other.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_PASSCRED, 1)
        await aiosock.send_fds(one, [b"x"], [one.fileno()])
        data, got, _, _ = await aiosock.recv_fds(other, 10, 20)
        for number in got:
            os.close(number)
        assert (data, len(got)) == (b"x", 1)


def test_the_demo_says_what_went_wrong() -> None:
    with pytest.raises(SystemExit, match="^demo: sent b'a', received b'b'$"):
        demo.check(b"a", b"b")


async def test_a_socket_that_is_dropped_in_another_thread_leaves_the_loop_alone() -> None:
    """It is off the loop that watched it, and its number serves the next socket."""
    one, other = aiosock.socketpair()
    await other.send(b"x")
    reading = asyncio.create_task(one.recv(5))
    await ticks()
    assert await reading == b"x"
    waiting = asyncio.create_task(one.recv(5))
    await ticks()
    await other.send(b"y")
    assert await waiting == b"y"
    del reading, waiting
    number, dropped = one.fileno(), [one]
    del one
    with pytest.warns(ResourceWarning, match="unclosed"):
        await asyncio.to_thread(dropped.clear)
    other.close()
    one, other = aiosock.socketpair()
    with one, other:
        assert number in (one.fileno(), other.fileno())
        async with asyncio.timeout(5):
            for sock, peer in ((one, other), (other, one)):
                waiting = asyncio.create_task(sock.recv(5))
                await ticks()
                await peer.send(b"z")
                assert await waiting == b"z"
