"""A socket's life: connecting, accepting, being ready, closing, and the loops it serves.

Decided for the awaitable face where the stdlib differs: a unix socket waits for room in
the listener's queue with a timeout too (in the stdlib that is EAGAIN at once); ``close``
wakes who waits with EBADF (in the stdlib a waiting thread sleeps on); a host name is
looked up off the loop, by ``bind`` too.
"""

import asyncio
import errno
import gc
import io
import os
import resource
import socket as _stdlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Loop
from faces import AIOSOCK, Face, bare, queue_of, wrapped
from test_socket import STREAMING, drain, each_loop, fill, refused, run, waiting

import aiosock

NOWHERE = ("127.0.0.1", 9)


async def closed_port(net: Face) -> tuple[str, int]:
    """The address of a socket that does not listen."""
    sock = net.socket()
    await sock.bind(("127.0.0.1", 0))
    address: tuple[str, int] = sock.getsockname()
    return address


async def full_listener(net: Face) -> Any:
    """A listener with room for one connection, which it has: a second gets no answer."""
    listener = await net.listener()
    listener.listen(0)
    await net.socket().connect(listener.getsockname())
    return listener


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of a call that must not wait; there is no loop."""
    try:
        call.send(None)
    except StopIteration as stop:
        return stop.value
    call.close()
    raise AssertionError("it waits")


# --- connecting ---------------------------------------------------------------------


async def test_a_closed_port_refuses(net: Face) -> None:
    for timeout in (None, 5.0):
        address = await closed_port(net)
        sock, other = net.socket(), net.socket()
        sock.settimeout(timeout)
        other.settimeout(timeout)
        with refused(errno.ECONNREFUSED):
            await sock.connect(address)
        assert await other.connect_ex(address) == errno.ECONNREFUSED


async def test_a_non_blocking_connect_is_in_progress(net: Face) -> None:
    """Also to a closed port of this machine."""
    for listens in (True, False):
        address = (await net.listener()).getsockname() if listens else await closed_port(net)
        sock, other = net.socket(), net.socket()
        sock.setblocking(False)
        other.setblocking(False)
        with refused(errno.EINPROGRESS):
            await sock.connect(address)
        assert await other.connect_ex(address) == errno.EINPROGRESS


async def test_a_late_connect_says_so_in_two_ways(net: Face) -> None:
    address = (await full_listener(net)).getsockname()
    sock, other = net.socket(), net.socket()
    sock.settimeout(0.05)
    other.settimeout(0.05)
    with pytest.raises(TimeoutError) as late:
        await sock.connect(address)
    assert (late.value.args, late.value.errno) == (("timed out",), None)
    assert await other.connect_ex(address) == errno.EAGAIN


async def test_a_connect_goes_on_although_it_is_late(net: Face) -> None:
    for timeout in (0.05, 0.0):
        address = (await full_listener(net)).getsockname()
        sock = net.socket()
        sock.settimeout(timeout)
        first = await sock.connect_ex(address)
        assert first == (errno.EAGAIN if timeout else errno.EINPROGRESS)
        assert await sock.connect_ex(address) == errno.EALREADY
        with refused(errno.EALREADY):
            await sock.connect(address)


async def test_one_connection_is_enough(net: Face) -> None:
    for timeout in (None, 5.0, 0.0):
        listener = await net.listener()
        sock = net.socket()
        await sock.connect(listener.getsockname())
        sock.settimeout(timeout)
        with refused(errno.EISCONN):
            await sock.connect(listener.getsockname())
        assert await sock.connect_ex(listener.getsockname()) == errno.EISCONN


async def test_a_connect_is_over_when_there_is_a_peer(net: Face) -> None:
    for timeout in (None, 5.0):
        listener = await net.listener()
        address = listener.getsockname()
        for call, result in (("connect", None), ("connect_ex", 0)):
            sock = net.socket()
            sock.settimeout(timeout)
            assert await getattr(sock, call)(address) == result
            assert sock.getpeername() == address


async def test_a_refused_socket_may_connect_again(net: Face) -> None:
    sock = net.socket()
    assert await sock.connect_ex(await closed_port(net)) == errno.ECONNREFUSED
    await sock.connect((await net.listener()).getsockname())
    assert await sock.send(b"x") == 1


BAD: list[tuple[Any, type[Exception], str]] = [
    (("127.0.0.1", 70000), OverflowError, "{call}(): port must be 0-65535."),
    (("127.0.0.1", -1), OverflowError, "{call}(): port must be 0-65535."),
    (["127.0.0.1", 1], TypeError, "{call}(): AF_INET address must be tuple, not list"),
    ("127.0.0.1", TypeError, "{call}(): AF_INET address must be tuple, not str"),
    (("127.0.0.1",), TypeError, "AF_INET address must be a pair (host, port)"),
    (("127.0.0.1", "1"), TypeError, "'str' object cannot be interpreted as an integer"),
    ((None, 1), TypeError, "str, bytes or bytearray expected, not NoneType"),
    (("é" * 100, 1), TypeError, "encoding of hostname failed"),
]


async def test_a_bad_address_is_raised_in_the_name_of_the_call(net: Face) -> None:
    for call in ("connect", "connect_ex", "bind", "sendto"):
        sock = net.socket(net.AF_INET, net.SOCK_DGRAM)
        data = (b"x",) if call == "sendto" else ()
        for address, error, text in BAD:
            with pytest.raises(error) as caught:
                await getattr(sock, call)(*data, address)
            assert str(caught.value) == text.format(call=call)


async def test_a_bad_name_is_raised(net: Face) -> None:
    """Before the port is looked at."""
    for call in ("connect", "connect_ex", "bind"):
        with _stdlib.socket() as sock, pytest.raises(_stdlib.gaierror) as expected:
            sock.connect(("nosuch.invalid", 70000))
        for port in (1, 70000):
            with pytest.raises(_stdlib.gaierror) as caught:
                await getattr(net.socket(), call)(("nosuch.invalid", port))
            assert caught.value.args == expected.value.args
        with pytest.raises(UnicodeEncodeError):
            await getattr(net.socket(net.AF_UNIX), call)("\ud800")


async def test_an_address_is_one_argument(net: Face) -> None:
    for call in ("connect", "connect_ex", "bind"):
        sock = net.socket()
        with pytest.raises(TypeError):
            await getattr(sock, call)("127.0.0.1", 1)
        with pytest.raises(TypeError):
            await getattr(sock, call)()


async def test_a_datagram_socket_connects_as_often_as_it_likes(net: Face) -> None:
    sock = net.socket(net.AF_INET, net.SOCK_DGRAM)
    for port in (9, 10, 11):
        await sock.connect(("127.0.0.1", port))
        assert sock.getpeername() == ("127.0.0.1", port)
    await sock.connect(("0.0.0.0", 0))
    with refused(errno.ENOTCONN):
        sock.getpeername()


async def test_a_unix_path_must_listen(net: Face, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sock, server = net.socket(net.AF_UNIX), net.socket(net.AF_UNIX)
    with refused(errno.ENOENT):
        await sock.connect(path)
    assert await sock.connect_ex(path) == errno.ENOENT
    await server.bind(path)
    with refused(errno.ECONNREFUSED):
        await sock.connect(path)


async def full_unix_listener(net: Face, path: Path) -> Any:
    listener = net.socket(net.AF_UNIX)
    await listener.bind(str(path))
    listener.listen(0)
    await net.socket(net.AF_UNIX).connect(str(path))
    return listener


async def test_a_full_unix_queue_is_no_connection(net: Face, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await full_unix_listener(net, path)
    sock = net.socket(net.AF_UNIX)
    sock.setblocking(False)
    with refused(errno.EAGAIN):
        await sock.connect(str(path))
    assert await sock.connect_ex(str(path)) == errno.EAGAIN
    with refused(errno.ENOTCONN):
        sock.getpeername()


async def test_a_connect_waits_for_room_in_a_unix_queue(net: Face, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = await full_unix_listener(net, path)
    sock = net.socket(net.AF_UNIX)
    connecting = await waiting(sock.connect(str(path)))
    net.keep((await listener.accept())[0])
    await connecting
    assert sock.getpeername() == str(path)


async def test_the_wait_for_room_in_a_unix_queue_has_its_limit(ours: Face, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await full_unix_listener(ours, path)
    sock = ours.socket(_stdlib.AF_UNIX)
    sock.settimeout(0.02)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await sock.connect(str(path))
    assert await sock.connect_ex(str(path)) == errno.EAGAIN


# --- names --------------------------------------------------------------------------


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Lookups of names wait until the event is set."""
    go, real = threading.Event(), _stdlib.getaddrinfo

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        go.wait(10)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(_stdlib, "getaddrinfo", slow)
    yield go
    go.set()


NAMED: dict[str, Callable[[Any, Any], Coroutine[Any, Any, Any]]] = {
    "connect": lambda sock, address: sock.connect(address),
    "connect_ex": lambda sock, address: sock.connect_ex(address),
    "bind": lambda sock, address: sock.bind(address),
    "sendto": lambda sock, address: sock.sendto(b"x", address),
}


@pytest.mark.parametrize("how", NAMED)
async def test_a_name_is_looked_up_off_the_loop(slow_names: threading.Event, how: str) -> None:
    with aiosock.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM) as sock:
        naming = await waiting(NAMED[how](sock, ("a.slow.name", 0 if how == "bind" else 9)))
        slow_names.set()
        await naming
        assert sock.getsockname()[1] or how == "sendto"


async def test_a_numeric_address_does_not_wait_for_names(slow_names: threading.Event) -> None:
    for call in NAMED.values():
        with aiosock.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM) as sock:
            async with asyncio.timeout(5):
                await call(sock, ("127.0.0.1", 0 if call is NAMED["bind"] else 9))


@pytest.mark.parametrize("how", NAMED)
async def test_a_cancelled_lookup_leaves_the_socket_open(
    slow_names: threading.Event, how: str
) -> None:
    with aiosock.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM) as sock:
        naming = await waiting(NAMED[how](sock, ("a.slow.name", 9)))
        naming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await naming
        assert sock.fileno() >= 0
        slow_names.set()
        await asyncio.sleep(0.02)
        with refused(errno.ENOTCONN):
            sock.getpeername()
        await sock.connect(NOWHERE)


async def test_closing_ends_a_lookup(slow_names: threading.Event) -> None:
    for call in NAMED.values():
        with aiosock.socket(_stdlib.AF_INET, _stdlib.SOCK_DGRAM) as sock:
            naming = await waiting(call(sock, ("a.slow.name", 9)))
            sock.close()
            with refused(errno.EBADF):
                await naming


async def test_a_lookup_counts_against_the_timeout(slow_names: threading.Event) -> None:
    with aiosock.socket() as sock:
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError, match="(?m)^timed out$"):
            await sock.connect(("a.slow.name", 9))
        assert await sock.connect_ex(("a.slow.name", 9)) == errno.EAGAIN


async def test_a_cancelled_connect_can_be_closed() -> None:
    with AIOSOCK.closing():
        address = (await full_listener(AIOSOCK)).getsockname()
        sock = AIOSOCK.socket()
        connecting = await waiting(sock.connect(address))
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        number = sock.fileno()
        assert number >= 0
        sock.close()
        await works_with_the_number(number)


# --- binding, listening, accepting --------------------------------------------------


async def test_an_accepted_socket_starts_anew(net: Face) -> None:
    listener = await net.listener()
    for timeout in (None, 0.0, 2.5):
        listener.settimeout(timeout)
        client = net.socket()
        await client.connect(listener.getsockname())
        sock, address = await listener.accept()
        net.keep(sock)
        assert address == client.getsockname() == sock.getpeername()
        assert sock.gettimeout() is None
        assert sock.get_inheritable() is False
        assert (sock.family, sock.type, sock.proto) == (net.AF_INET, net.SOCK_STREAM, 0)


async def test_a_subclass_accepts_plain_sockets(net: Face) -> None:
    class Own(net.module.socket):  # type: ignore[misc,name-defined]  # the class of either face
        pass

    listener = net.keep(wrapped(Own()))
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    await net.socket().connect(listener.getsockname())
    accepted = net.keep((await listener.accept())[0])
    assert type(bare(accepted)) is net.module.socket


async def test_who_does_not_listen_accepts_nothing(net: Face) -> None:
    for timeout in (None, 5.0, 0.0):
        sock = net.socket()
        sock.settimeout(timeout)
        with refused(errno.EINVAL):
            await sock.accept()


async def test_an_empty_queue_is_waited_for(net: Face) -> None:
    listener = await net.listener()
    listener.setblocking(False)
    with refused(errno.EAGAIN):
        await listener.accept()
    listener.settimeout(0.02)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await listener.accept()
    listener.settimeout(None)
    accepting = await waiting(listener.accept())
    await net.socket().connect(listener.getsockname())
    net.keep((await accepting)[0])


@pytest.mark.skipif(not hasattr(_stdlib, "TCP_INFO"), reason="no TCP_INFO")
async def test_the_backlog_may_be_left_out_and_changed(net: Face) -> None:
    sock = net.socket()
    sock.listen()
    assert sock.getsockname()[1]
    assert queue_of(sock) == min(net.SOMAXCONN, 128)
    for given, taken in ((-5, 0), (7, 7), (1, 1), (True, 1)):
        sock.listen(given)
        assert queue_of(sock) == taken


async def test_a_backlog_is_a_number(net: Face) -> None:
    for value in ("1", 1.5, None):
        with pytest.raises(TypeError, match="object cannot be interpreted as an integer$"):
            net.socket().listen(value)


async def test_datagrams_are_not_listened_for(net: Face) -> None:
    with refused(errno.EOPNOTSUPP):
        net.socket(net.AF_INET, net.SOCK_DGRAM).listen()


async def test_an_address_is_bound_once(net: Face) -> None:
    listener = await net.listener()
    with refused(errno.EADDRINUSE):
        await net.socket().bind(listener.getsockname())
    with refused(errno.EADDRNOTAVAIL):
        await net.socket().bind(("192.0.2.1", 0))
    with refused(errno.EINVAL):
        await listener.bind(("127.0.0.1", 0))


async def test_a_name_can_be_bound(net: Face) -> None:
    sock = net.socket()
    await sock.bind(("localhost", 0))
    assert sock.getsockname()[0] == "127.0.0.1"


async def test_waiting_accepts_are_served_in_order() -> None:
    with AIOSOCK.closing():
        listener = await AIOSOCK.listener()
        accepting = [await waiting(listener.accept()) for _ in range(4)]
        clients = [AIOSOCK.socket() for _ in accepting]
        for client in clients:
            await client.connect(listener.getsockname())
        async with asyncio.timeout(5):
            accepted = [await task for task in accepting]
        for sock, _ in accepted:
            AIOSOCK.keep(sock)
        assert [address for _, address in accepted] == [c.getsockname() for c in clients]


async def test_a_cancelled_accept_loses_no_connection() -> None:
    """Cancelled in the very turn of the loop in which the connection is there."""
    loop = asyncio.get_running_loop()
    with AIOSOCK.closing():
        listener = await AIOSOCK.listener()
        for _ in range(30):
            accepting = asyncio.ensure_future(listener.accept())
            await asyncio.sleep(0)
            client = AIOSOCK.keep(_stdlib.create_connection(listener.getsockname()))
            loop.call_soon(accepting.cancel)
            try:
                sock, address = await accepting
            except asyncio.CancelledError:
                async with asyncio.timeout(5):
                    sock, address = await listener.accept()
            AIOSOCK.keep(sock)
            assert address == client.getsockname()


async def test_without_a_free_number_accept_fails_and_loses_nothing(net: Face) -> None:
    listener = await net.listener()
    client = net.socket()
    await client.connect(listener.getsockname())
    await asyncio.to_thread(int)  # the thread of the stdlib's calls is there
    free = os.dup(listener.fileno())
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with refused(errno.EMFILE):
            await listener.accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sock, address = await listener.accept()
    net.keep(sock)
    assert address == client.getsockname()


# --- readiness ----------------------------------------------------------------------


async def test_readable_is_waited_for_and_nothing_is_taken(ours: Face) -> None:
    sock, peer = ours.socketpair()
    ready = await waiting(sock.wait_readable())
    await peer.send(b"x")
    await ready
    for timeout in (None, 5.0, 0.0):
        sock.settimeout(timeout)
        await sock.wait_readable()
    assert await sock.recv(10) == b"x"


async def test_writable_is_waited_for_and_nothing_is_sent(ours: Face) -> None:
    sock, peer = ours.socketpair()
    for timeout in (None, 5.0, 0.0):
        sock.settimeout(timeout)
        await sock.wait_writable()
    sock.settimeout(None)
    sent = fill(sock)
    ready = await waiting(sock.wait_writable())
    assert len(await drain(peer, sent)) == sent
    await ready
    sock.close()
    assert await peer.recv(1) == b""


@pytest.mark.parametrize("how", ["wait_readable", "wait_writable"])
async def test_readiness_has_the_three_modes(ours: Face, how: str) -> None:
    sock, _peer = ours.socketpair()
    fill(sock)
    wait = getattr(sock, how)
    sock.settimeout(0.2)
    late = await waiting(wait())
    with pytest.raises(TimeoutError, match="^timed out$"):
        await late
    sock.setblocking(False)
    with refused(errno.EAGAIN):
        await wait()
    sock.close()
    with refused(errno.EBADF):
        await wait()


async def test_a_connect_in_progress_ends_writable(ours: Face) -> None:
    listener = await ours.listener()
    sock = ours.socket()
    sock.setblocking(False)
    assert await sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    sock.settimeout(5)
    await sock.wait_writable()
    assert sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR) == 0
    assert sock.getpeername() == listener.getsockname()


# --- closing ------------------------------------------------------------------------

AFTER_CLOSE: dict[str, Callable[[Any], Any]] = {
    **STREAMING,
    "accept": lambda sock: sock.accept(),
    "bind": lambda sock: sock.bind(("127.0.0.1", 0)),
    "connect": lambda sock: sock.connect(NOWHERE),
    "sendto": lambda sock: sock.sendto(b"x", NOWHERE),
}
AFTER_CLOSE_AT_ONCE: dict[str, Callable[[Any], Any]] = {
    "listen": lambda sock: sock.listen(),
    "shutdown": lambda sock: sock.shutdown(_stdlib.SHUT_RDWR),
    "getsockname": lambda sock: sock.getsockname(),
    "getpeername": lambda sock: sock.getpeername(),
    "getsockopt": lambda sock: sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_TYPE),
    "setsockopt": lambda sock: sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_KEEPALIVE, 1),
    "dup": lambda sock: sock.dup(),
    "get_inheritable": lambda sock: sock.get_inheritable(),
    "set_inheritable": lambda sock: sock.set_inheritable(False),
}


async def test_a_closed_socket_does_nothing(net: Face) -> None:
    for timeout in (None, 5.0, 0.0):
        sock = net.socket()
        sock.settimeout(timeout)
        sock.close()
        for call in AFTER_CLOSE.values():
            with refused(errno.EBADF):
                await call(sock)
        if timeout != 0.0:
            with refused(errno.EBADF):
                await sock.sendfile(io.BytesIO(b"x"))


async def test_a_closed_socket_says_nothing(net: Face) -> None:
    sock = net.socket()
    sock.close()
    for call in AFTER_CLOSE_AT_ONCE.values():
        with refused(errno.EBADF):
            call(sock)


async def test_a_closed_socket_is_closed(net: Face) -> None:
    sock = net.socket()
    sock.close()
    assert sock.close() is None
    assert (sock.fileno(), sock.detach()) == (-1, -1)
    assert await sock.connect_ex(NOWHERE) == errno.EBADF
    with sock as entered:
        assert entered is sock


async def test_with_closes_after_success_and_failure(net: Face) -> None:
    with net.socket() as sock:
        assert sock.fileno() >= 0
    assert sock.fileno() == -1
    with pytest.raises(KeyError), net.socket() as sock:
        raise KeyError
    assert sock.fileno() == -1


async def test_async_with_closes_after_success_and_failure() -> None:
    async with aiosock.socket() as sock:
        assert sock.fileno() >= 0
    assert sock.fileno() == -1
    with pytest.raises(KeyError):
        async with aiosock.socket() as sock:
            raise KeyError
    assert sock.fileno() == -1


async def test_detaching_closes_nothing(net: Face) -> None:
    sock, peer = net.socketpair()
    again = net.socket(fileno=sock.detach())
    with refused(errno.EBADF):
        await sock.send(b"x")
    sock.close()
    await peer.send(b"x")
    assert await again.recv(1) == b"x"


WAITING: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    **STREAMING,
    "wait_readable": lambda sock: sock.wait_readable(),
    "wait_writable": lambda sock: sock.wait_writable(),
    "waitall": lambda sock: sock.recv(9, _stdlib.MSG_WAITALL),
}


async def works_with_the_number(number: int) -> None:
    """The next socket with the number of a closed one waits and is woken."""
    one, other = aiosock.socketpair()
    with one, other:
        assert number in (one.fileno(), other.fileno())
        for sock, peer in ((one, other), (other, one)):
            reading = await waiting(sock.recv(1))
            await peer.send(b"x")
            async with asyncio.timeout(5):
                assert await reading == b"x"


@pytest.mark.parametrize("end", ["close", "detach"])
async def test_the_end_wakes_all_who_wait(end: str) -> None:
    for call in WAITING.values():
        sock, peer = aiosock.socketpair()
        with sock, peer:
            fill(sock)
            tasks = [await waiting(call(sock)) for _ in range(2)]
            fd = getattr(sock, end)()
            async with asyncio.timeout(5):
                for task in tasks:
                    with refused(errno.EBADF):
                        await task
            if fd is not None:
                os.close(fd)


async def test_closing_wakes_accept_and_connect() -> None:
    for timeout in (None, 5.0):
        with AIOSOCK.closing():
            listener = await full_listener(AIOSOCK)
            client, server = AIOSOCK.socket(), await AIOSOCK.listener()
            client.settimeout(timeout)
            server.settimeout(timeout)
            tasks = [
                await waiting(client.connect(listener.getsockname())),
                await waiting(server.accept()),
            ]
            client.close()
            server.close()
            async with asyncio.timeout(5):
                for task in tasks:
                    with refused(errno.EBADF):
                        await task


@pytest.mark.parametrize("how", ["recv", "send"])
async def test_closing_is_seen_by_the_peer_and_frees_the_number(how: str) -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        sent = fill(sock)
        task = await waiting(WAITING[how](sock))
        number = sock.fileno()
        sock.close()
        assert len(await drain(peer, sent + 1)) == sent
        await works_with_the_number(number)
        with refused(errno.EBADF):
            await task


# --- being dropped ------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_dropped_socket_warns_and_is_closed_at_once(net: Face) -> None:
    sock, peer = net.module.socketpair()
    number = sock.fileno()
    with pytest.warns(ResourceWarning, match=rf"^unclosed <\w+\.socket fd={number}, "):
        del sock
    with refused(errno.EBADF):
        os.fstat(number)
    peer.close()


@pytest.mark.parametrize("how", ["recv", "sendall", "wait_readable", "waitall"])
@pytest.mark.usefixtures("no_collector")
async def test_a_socket_that_has_waited_is_dropped_as_well(how: str) -> None:
    sock, peer = aiosock.socketpair()
    number, sent = sock.fileno(), fill(sock)
    task = await waiting(WAITING[how](sock))
    await drain(peer, sent)
    await peer.send(bytes(9 if how == "waitall" else 1))
    await task
    del task
    with pytest.warns(ResourceWarning, match=rf"^unclosed <\w+\.socket fd={number}, "):
        del sock
    with refused(errno.EBADF):
        os.fstat(number)
    with peer:
        await works_with_the_number(number)


@pytest.mark.usefixtures("no_collector")
async def test_a_late_or_cancelled_call_does_not_keep_the_socket() -> None:
    sock, peer = aiosock.socketpair()
    number = sock.fileno()
    reading = await waiting(sock.recv(1))
    reading.cancel()
    await asyncio.wait([reading])
    del reading
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        await sock.recv(1)
    with pytest.warns(ResourceWarning, match=rf"^unclosed <\w+\.socket fd={number}, "):
        del sock
    with peer:
        assert await peer.recv(1) == b""


async def test_a_waiting_task_keeps_itself_and_its_socket() -> None:
    taken: list[bytes] = []

    async def take(sock: aiosock.socket) -> None:
        with sock:
            taken.append(await sock.recv(1))

    sock, peer = aiosock.socketpair()
    task = await waiting(take(sock))
    del sock, task
    gc.collect()
    with peer:
        await peer.send(b"x")
        assert await peer.recv(1) == b""
    assert taken == [b"x"]


# --- loops --------------------------------------------------------------------------


async def exchange(sock: aiosock.socket, peer: aiosock.socket) -> None:
    """Wait on a socket in both directions."""
    for one, other in ((sock, peer), (peer, sock)):
        reading = await waiting(one.recv(1))
        await other.send(b"x")
        assert await reading == b"x"
    sent = fill(sock)
    sending = await waiting(sock.sendall(b"x"))
    assert len(await drain(peer, sent + 1)) == sent + 1
    await sending


@each_loop
def test_a_socket_outlives_its_loops(make: Callable[[], Loop]) -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        for _ in range(3):
            run(make, exchange(sock, peer))


@each_loop
def test_a_socket_serves_loops_in_turn(make: Callable[[], Loop]) -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer, asyncio.Runner(loop_factory=make) as one, asyncio.Runner() as other:
        for _ in range(3):
            one.run(exchange(sock, peer))
            other.run(exchange(sock, peer))


@each_loop
def test_two_threads_read_and_write_one_socket(make: Callable[[], Loop]) -> None:
    data = os.urandom(1000) * 3000
    sock, peer = aiosock.socketpair()

    async def echo() -> None:
        while piece := await peer.recv(65536):
            await peer.sendall(piece)

    async def write() -> None:
        await sock.sendall(data)

    async def read() -> bytes:
        received = await drain(sock, len(data))
        sock.shutdown(_stdlib.SHUT_WR)
        return received

    with sock, peer, ThreadPoolExecutor() as threads:
        reading = threads.submit(run, make, read())
        writing = threads.submit(run, make, write())
        run(make, asyncio.wait_for(echo(), 20))
        writing.result(20)
        assert reading.result(20) == data


@each_loop
def test_two_threads_read_one_socket(make: Callable[[], Loop]) -> None:
    sock, peer = aiosock.socketpair(_stdlib.AF_UNIX, _stdlib.SOCK_DGRAM)
    sock.settimeout(10)
    messages = [b"%d" % number for number in range(500)]

    async def read() -> list[bytes]:
        got = []
        while message := await sock.recv(10):
            got.append(message)
        return got

    async def write() -> None:
        for message in [*messages, b"", b""]:
            await peer.send(message)

    with sock, peer, ThreadPoolExecutor() as threads:
        reading = [threads.submit(run, make, read()) for _ in range(2)]
        run(make, asyncio.wait_for(write(), 20))
        got = [reader.result(20) for reader in reading]
    assert sorted(got[0] + got[1]) == sorted(messages)
    assert all(part == sorted(part, key=int) for part in got)


@pytest.mark.parametrize("how", ["recv", "sendall"])
@each_loop
def test_closing_in_another_thread_wakes_who_waits(make: Callable[[], Loop], how: str) -> None:
    sock, peer = aiosock.socketpair()
    fill(sock)
    begun = threading.Event()

    async def wait() -> None:
        asyncio.get_running_loop().call_later(0.02, begun.set)
        with refused(errno.EBADF):
            await asyncio.wait_for(WAITING[how](sock), 10)

    with sock, peer, ThreadPoolExecutor() as threads:
        waiter = threads.submit(run, make, wait())
        assert begun.wait(10)
        sock.close()
        assert sock.fileno() == -1
        waiter.result(10)


def test_what_need_not_wait_needs_no_loop() -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        assert at_once(sock.send(b"hello")) == 5
        assert at_once(peer.recv(10)) == b"hello"
        at_once(sock.sendall(b"again"))
        assert at_once(peer.recvfrom(10)) == (b"again", None)
    with aiosock.socket() as listener, aiosock.socket() as client:
        at_once(listener.bind(("127.0.0.1", 0)))
        listener.listen()
        client.setblocking(False)
        assert at_once(client.connect_ex(listener.getsockname())) == errno.EINPROGRESS
        accepted, _ = at_once(listener.accept())
        accepted.close()


def test_a_short_read_does_not_make_the_next_one_need_a_loop() -> None:
    """Within a loop the next would wait at once: less came than was asked for."""
    sock, peer = aiosock.socketpair()
    with sock, peer:
        for data in (b"hello", b"again"):
            at_once(sock.send(data))
            assert at_once(peer.recv(10)) == data


def test_a_non_blocking_call_never_asks_for_a_loop() -> None:
    sock, peer = aiosock.socketpair()
    with sock, peer:
        fill(sock)
        sock.setblocking(False)
        for call in STREAMING.values():
            with refused(errno.EAGAIN):
                call(sock).send(None)


def test_what_must_wait_says_that_it_needs_a_loop() -> None:
    for how in WAITING:
        sock, peer = aiosock.socketpair()
        with sock, peer:
            sent = fill(sock)
            call = WAITING[how](sock)
            with pytest.raises(RuntimeError, match=r"no running event loop.*aiosock\.run\(\)"):
                call.send(None)
            assert len(at_once(peer.recv(2 * sent))) > 0
            at_once(peer.send(b"x"))
            assert at_once(sock.recv(10)) == b"x"


class Bare(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as the proactor loop of Windows."""

    add_reader = asyncio.AbstractEventLoop.add_reader
    add_writer = asyncio.AbstractEventLoop.add_writer


def test_a_loop_that_watches_nothing_is_named_with_a_remedy() -> None:
    async def wait(call: Coroutine[Any, Any, Any]) -> None:
        remedy = r"add_reader\(\).*Bare.*loop_factory=asyncio\.SelectorEventLoop"
        with pytest.raises(NotImplementedError, match=remedy):
            await call

    sock, peer = aiosock.socketpair()
    with sock, peer:
        fill(sock)
        for call in WAITING.values():
            run(Bare, wait(call(sock)))
        assert at_once(peer.recv(1)) == bytes(1)
