"""Random programs on sockets, judged by a model: no byte lost, no descriptor left, nobody asleep.

Hypothesis chooses the steps of a program and makes a failing one short.  Each program runs on
a loop of its own, which turns only as often as a step says: what comes between two turns is
part of the program.  Whenever a program is quiet, the books are made up (see `modelled`): who
waits must have nothing to wait for by the kernel's own word, and as many sockets are open as
the model knows.

The short run has few programs, always the same.  A long one, of new programs:

    AIOSOCK_RUNS=200 .venv/bin/python -m pytest -q tests/test_stateful_sockets.py

A failing test shows its seed: AIOSOCK_SEED=... repeats the run.
"""

import asyncio
import io
import os
import random
import socket as _stdlib
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

import pytest
from conftest import LOOPS
from faults import RUNS, SEED, replay
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from modelled import Act, Connection, End, Handle, Reading, Sending, open_sockets
from secured import HOST, raw_pair, usual

import aiosock

T = TypeVar("T")

FEW = 12  # programs of a short run
STEPS = 30
LIMIT = 5.0  # seconds until what must happen is given up
SHORT = 0.01  # seconds: a timeout that is waited for
LONG = 30.0  # seconds: a timeout that never comes
AT_ONCE = struct.pack("ii", 1, 0)  # lingering for no time: closing resets

picks = st.integers(0, 2**16)
turns = st.integers(0, 3)
sizes = st.one_of(st.integers(1, 50), st.integers(1, 20000))
lengths = st.one_of(st.integers(0, 50), st.integers(0, 5000), st.integers(10**5, 4 * 10**5))
timeouts = st.sampled_from([None, None, 0.0, SHORT, LONG])


class Program(RuleBasedStateMachine):
    """A program on a loop of its own: acts that are under way, and turns of the loop."""

    make_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.make_loop()
        self.acts = list[Act]()
        self.has_failed = False  # there is no model of that
        self.turn(1)
        self.before = open_sockets()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self.judged():
            result = self.loop.run_until_complete(asyncio.wait_for(work, LIMIT))
            self.acts = [act for act in self.acts if not act.is_over()]
            return result

    @contextmanager
    def judged(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.has_failed = True
            raise

    def turn(self, times: int) -> None:
        self.run(_turn(times))

    def start(self, *acts: Act, then: int) -> None:
        async def main() -> None:
            for act in acts:
                act.start()
            await _turn(then)

        self.acts += acts
        self.run(main())

    def until(self, complaints: Callable[[], list[str]]) -> None:
        """Turn until nobody complains."""
        self.turn(2)
        started = self.loop.time()
        with self.judged():
            while found := complaints():
                assert self.loop.time() - started < LIMIT, found
                self.run(asyncio.sleep(0.001))

    def over(self, acts: list[Act]) -> None:
        self.until(lambda: ["it goes on" for act in acts if act in self.acts])


def on_one(**given: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule of which the first argument is one of the open descriptors, if there is one.

    Which rules there are must not hang on who has ended by now: no precondition asks for it.
    """

    def decorate(step: Callable[..., None]) -> Any:
        def on_a_handle(self: Any, pick: int, **chosen: Any) -> None:
            if handles := self.handles():
                step(self, handles[pick % len(handles)], **chosen)

        on_a_handle.__name__ = step.__name__
        return rule(pick=picks, **given)(on_a_handle)

    return decorate


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def first(pair: Awaitable[tuple[bytes, Any]]) -> bytes:
    return (await pair)[0]


async def message(received: Awaitable[tuple[bytes, Any, int, Any]]) -> bytes:
    data, ancillary, flags, _ = await received
    assert not ancillary
    assert not flags
    return data


def filled(receive: Callable[[bytearray], Awaitable[Any]], size: int) -> Callable[[], Any]:
    async def call() -> bytes:
        buffer = bytearray(size)
        got = await receive(buffer)
        return bytes(buffer[: got[0] if isinstance(got, tuple) else got])

    return call


READS: dict[str, Callable[[Any, int], Callable[[], Awaitable[bytes]]]] = {
    "recv": lambda sock, size: lambda: sock.recv(size),
    "recv_into": lambda sock, size: filled(sock.recv_into, size),
    "recvfrom": lambda sock, size: lambda: first(sock.recvfrom(size)),
    "recvfrom_into": lambda sock, size: filled(sock.recvfrom_into, size),
    "recvmsg": lambda sock, size: lambda: message(sock.recvmsg(size)),
    "recvmsg_into": lambda sock, size: filled(lambda buffer: sock.recvmsg_into([buffer]), size),
}
IN_TLS = ["recv", "recv_into"]


class Files:
    """What sendfile is given: one that the kernel can read, and one that it cannot."""

    @staticmethod
    def inner(payload: bytes) -> Any:
        return io.BytesIO(payload)

    @staticmethod
    def real(payload: bytes) -> Any:
        file = os.fdopen(os.memfd_create("payload"), "w+b")
        file.write(payload)
        file.seek(0)
        return file


async def send_file(sock: Any, make: Callable[[bytes], Any], payload: bytes) -> Any:
    with make(payload) as file:
        try:
            sent = await sock.sendfile(file)
        except BaseException as error:
            assert file.tell() == error.bytes_sent  # type: ignore[attr-defined]  # ours, as documented
            raise
        assert file.tell() == sent
        return sent


WRITES: dict[str, Callable[[Any, bytes], Callable[[], Awaitable[Any]]]] = {
    "sendall": lambda sock, data: lambda: sock.sendall(data),
    "send": lambda sock, data: lambda: sock.send(data),
    "sendfile": lambda sock, data: lambda: send_file(sock, Files.real, data),
    "sendfile of no file": lambda sock, data: lambda: send_file(sock, Files.inner, data),
    "sendmsg": lambda sock, data: lambda: sock.sendmsg([data[:7], data[7:]]),
}
WHOLE = {"sendall", "sendfile", "sendfile of no file"}


class Streams(Program):
    """Connections of TCP and AF_UNIX, plain and over TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = list[Connection]()
        self.written = 0

    # --- what there is ----------------------------------------------------------------

    def handles(self) -> list[Handle]:
        return [handle for each in self.connections for handle in each.handles if handle.is_open]

    def waiting(self) -> list[Act]:
        return [act for handle in self.handles() for act in handle.acts]

    def complaints(self) -> list[str]:
        said = [what for each in self.connections for h in each.handles for what in h.sleepers()]
        return [what for what in said if what]

    # --- connections --------------------------------------------------------------------

    @precondition(lambda self: len(self.connections) < 3)
    @rule(kind=st.sampled_from(["tcp", "unix"]), tiny=st.booleans())
    def connect(self, kind: str, tiny: bool) -> None:
        one, other = raw_pair(tiny) if kind == "tcp" else _stdlib.socketpair()
        for sock in (one, other) if tiny and kind == "unix" else ():
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_SNDBUF, 4096)
        pair = aiosock.from_stdlib_socket(one), aiosock.from_stdlib_socket(other)
        self.connections.append(Connection(*pair, kind))

    @on_one(timeout=timeouts)
    def set_timeout(self, handle: Handle, timeout: float | None) -> None:
        sock = handle.sock
        if timeout in (None, 0.0):
            sock.setblocking(timeout is None)
        else:
            sock.settimeout(timeout)
        assert sock.gettimeout() == timeout

    # --- receiving ------------------------------------------------------------------------

    @on_one(verb=st.sampled_from([*READS]), size=sizes, then=turns)
    def receive(self, handle: Handle, verb: str, size: int, then: int) -> None:
        if handle.was_secure and verb not in IN_TLS:
            verb = IN_TLS[size % 2]
        self.start(Reading(handle, READS[verb](handle.sock, size), size), then=then)

    @on_one(size=sizes, count=st.integers(2, 4), then=turns)
    def receive_at_once(self, handle: Handle, size: int, count: int, then: int) -> None:
        """Several readers of one socket."""
        call = READS["recv"](handle.sock, size)
        self.start(*(Reading(handle, call, size) for _ in range(count)), then=then)

    @on_one(size=sizes, then=turns)
    def receive_all(self, handle: Handle, size: int, then: int) -> None:
        if not handle.end.connection.is_secure and len(handle.end.open) == 1:
            call = lambda: handle.sock.recv(size, aiosock.MSG_WAITALL)  # noqa: E731  # as its neighbours
            self.start(Reading(handle, call, size, whole=True), then=then)

    @on_one(size=sizes, then=turns)
    def peek(self, handle: Handle, size: int, then: int) -> None:
        if not handle.end.connection.is_secure:
            call = lambda: handle.sock.recv(size, aiosock.MSG_PEEK)  # noqa: E731  # as its neighbours
            self.start(Reading(handle, call, size, peeks=True), then=then)

    @on_one(then=turns)
    def wait_readable(self, handle: Handle, then: int) -> None:
        self.start(Reading(handle, handle.sock.wait_readable, 0), then=then)

    # --- sending --------------------------------------------------------------------------

    @on_one(verb=st.sampled_from([*WRITES]), size=lengths, then=turns)
    def send(self, handle: Handle, verb: str, size: int, then: int) -> None:
        others = [each for each in handle.end.open if each is not handle]
        if any(other.senders for other in others):
            return  # the kernel alone knows how two descriptors mix
        if handle.was_secure and verb == "sendmsg":
            verb = "send"
        self.written += 1
        payload = random.Random(self.written).randbytes(size)
        call = WRITES[verb](handle.sock, payload)
        self.start(Sending(handle, call, payload, verb in WHOLE), then=then)

    # --- ends -----------------------------------------------------------------------------

    @rule(pick=picks, then=turns)
    def cancel(self, pick: int, then: int) -> None:
        if acts := self.waiting():
            acts[pick % len(acts)].cancel()
            self.turn(then)

    @on_one()
    def close(self, handle: Handle) -> None:
        self._close(handle, lambda sock: sock.close())

    def _close(self, handle: Handle, close: Callable[[Any], T]) -> T:
        if len(handle.end.open) == 1:
            handle.end.ends()
        acts, handle.is_open = handle.acts, False

        async def main() -> T:
            return close(handle.sock)

        result = self.run(main())
        self.over(acts)
        assert handle.sock.fileno() == -1
        return result

    @on_one()
    def reset(self, handle: Handle) -> None:
        if handle.end.connection.kind == "tcp" and len(handle.end.open) == 1:
            handle.sock.setsockopt(aiosock.SOL_SOCKET, aiosock.SO_LINGER, AT_ONCE)
            handle.end.out.torn = True
            self._close(handle, lambda sock: sock.close())

    @on_one()
    def half_close(self, handle: Handle) -> None:
        """In TLS that is a cut."""
        end, secure = handle.end, handle.end.connection.is_secure
        if end.out.senders or end.out.torn or (secure and end.out.ended):
            return
        with suppress(OSError):  # it is not connected any more
            handle.sock.shutdown(aiosock.SHUT_WR)
        end.out.ended = True
        if secure:
            end.out.cut = end.out.torn = True
            self._close(handle, lambda sock: sock.close())

    # --- descriptors ------------------------------------------------------------------------

    @on_one()
    def dup(self, handle: Handle) -> None:
        gathers = any(isinstance(act, Reading) and act.whole for act in handle.acts)
        if handle.was_secure or handle.holds or gathers:
            return
        if len(handle.end.open) < 3:
            copy = handle.end.add(handle.sock.dup())
            assert copy.sock.gettimeout() == handle.sock.gettimeout()

    @on_one()
    def detach(self, handle: Handle) -> None:
        """The descriptor goes from one socket to another."""
        gathers = any(isinstance(act, Reading) and act.whole for act in handle.acts)
        if handle.end.connection.is_secure or handle.holds or gathers:
            return
        timeout, acts, handle.is_open = handle.sock.gettimeout(), handle.acts, False
        fd = self.run(_detached(handle.sock))
        assert os.get_blocking(fd) == (timeout is None)
        self.over(acts)
        handle.end.add(aiosock.socket(fileno=fd)).sock.settimeout(timeout)

    # --- TLS --------------------------------------------------------------------------------

    def pair(self, pick: int, secure: bool) -> tuple[Handle, Handle] | None:
        """The two ends of a connection that has nothing to do."""
        self.quiet()
        idle = [c for c in self.connections if c.is_secure == secure and c.is_idle()]
        if not idle:
            return None
        one, other = idle[pick % len(idle)].ends
        for end in (one, other):
            end.open[0].sock.settimeout(None)
        return one.open[0], other.open[0]

    @rule(pick=picks)
    def start_tls(self, pick: int) -> None:
        if pair := self.pair(pick, False):
            client, server = pair
            client.sock, server.sock = self.run(_secured(client.sock, server.sock))
            client.end.connection.is_secure = True

    @rule(pick=picks, patience=turns)
    def unwrap(self, pick: int, patience: int) -> None:
        """One side tries alone at first, and gives up."""
        if pair := self.pair(pick, True):
            one, other = pair
            self.run(_given_up(one.sock.unwrap(), patience))
            self.run(_both(one.sock.unwrap(), other.sock.unwrap()))
            one.end.connection.is_secure = False

    @rule(pick=picks, patience=turns, server_side=st.booleans(), late=st.booleans())
    def give_a_handshake_up(
        self, pick: int, patience: int, server_side: bool, late: bool
    ) -> None:
        """The peer is silent: the connection is closed, whoever gave up."""
        if pair := self.pair(pick, False):
            one, other = pair
            if late:
                one.sock.settimeout(SHORT)
            name = None if server_side else HOST
            shaking = one.sock.start_tls(
                usual(server_side), server_side=server_side, server_hostname=name
            )
            error = self.run(_given_up(shaking, LONG if late else patience + 1))
            assert isinstance(error, TimeoutError if late else asyncio.CancelledError)
            assert one.sock.fileno() == -1
            one.is_open = False
            self._close(other, lambda sock: sock.close())

    # --- quiet --------------------------------------------------------------------------------

    @rule()
    def quiet(self) -> None:
        """All that can happen has happened: nobody waits who need not, and nothing is left."""
        self.until(self.complaints)
        for handle in self.handles():
            handle.holds = handle.holds and not handle.end.into.is_dry
        assert open_sockets() - self.before == len(self.handles())

    @rule()
    def let_time_pass(self) -> None:
        self.over([act for act in self.acts if act.timeout == SHORT])

    @on_one()
    def read_to_the_end(self, handle: Handle) -> None:
        """All that one end has said arrives at the other, if that has been silent so far."""
        self._read_to_the_end(handle)

    def _read_to_the_end(self, handle: Handle) -> None:
        end, pipe = handle.end, handle.end.into
        if len(end.open) > 1 or end.acts or pipe.held or pipe.torn:
            return
        handle.sock.settimeout(None)
        while pipe.left or pipe.senders:
            act = Reading(handle, READS["recv"](handle.sock, 2**16), 2**16)
            self.start(act, then=1)
            self.over([act])

    def teardown(self) -> None:
        try:
            if not self.has_failed:
                self.end()
        finally:
            for act in self.acts:
                act.cancel()
            self.clean_up()
            self.loop.run_until_complete(_turn(3))
            self.loop.close()

    def end(self) -> None:
        self.quiet()
        for handle in self.handles():
            self._read_to_the_end(handle)
        for handle in self.handles():
            self._close(handle, lambda sock: sock.close())
        assert not self.acts
        assert open_sockets() == self.before

    def clean_up(self) -> None:
        for handle in self.handles():
            handle.sock.close()


async def _detached(sock: Any) -> int:
    fd: int = sock.detach()
    return fd


async def _both(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls)


async def _secured(client: Any, server: Any) -> list[Any]:
    return await _both(
        client.start_tls(usual(False), server_hostname=HOST),
        server.start_tls(usual(True), server_side=True),
    )


async def _given_up(call: Coroutine[Any, Any, Any], patience: float) -> BaseException | None:
    """The error of a call that is cancelled after some turns, if it has not ended by itself."""
    task = asyncio.ensure_future(call)
    if patience == LONG:
        await asyncio.wait([task])
    else:
        await _turn(int(patience))
    task.cancel()
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("machine", [Streams])
def test_programs(machine: type[Program], loop: str) -> None:
    print(replay())  # shown where the test fails

    made = type(machine.__name__, (machine,), {"make_loop": staticmethod(LOOPS[loop])})
    run_state_machine_as_test(
        seed(SEED)(made),
        settings=settings(
            max_examples=RUNS or FEW,
            stateful_step_count=STEPS,
            deadline=None,  # a busy machine is no fault
            database=None,
            suppress_health_check=[HealthCheck.too_slow],  # programs wait for timeouts
        ),
    )
