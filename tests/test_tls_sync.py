"""TLS on the blocking face: what is our own beside the stdlib's SSLSocket.

All that the stdlib's class does is shown by CPython's own test_ssl, in the conformance run,
and what both faces share by test_tls.  Here: `start_tls` and the makers, `fail_after`, a
close by another thread, ``bytes_sent``, and the manual's ssl().  Where nothing else would show
that our class does as the stdlib's, the same test is asked of both.
"""

import errno
import io
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from faces import LIMIT
from secured import HOST, TLS12, authority, certificate, raw_pair, serving, trusting
from test_tls import NO_RESUMPTION, beneath, libssl

import aiosock_sync
from aiosock_sync import SSLSocket

HELLO = b"hello"
BULK = bytes(range(256)) * 4000
MORE = BULK * 20  # than the kernel's buffers hold


@pytest.fixture(scope="module", autouse=True)
def authority_first() -> None:
    """One for all threads, made before they ask."""
    authority()


def beside(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call made by another thread; its outcome, once it is there."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(call())
        except Exception as error:
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def ended() -> Any:
        thread.join(LIMIT)
        assert not thread.is_alive(), "it hangs"
        return outcomes[0]

    return ended


def plain_pair(stack: ExitStack) -> tuple[aiosock_sync.socket, aiosock_sync.socket]:
    with aiosock_sync.create_server(("127.0.0.1", 0)) as listener:
        one = stack.enter_context(aiosock_sync.create_connection(listener.getsockname()))
        return one, stack.enter_context(listener.accept()[0])


def pair(stack: ExitStack) -> tuple[SSLSocket, SSLSocket]:
    """A client and a server."""
    one, other = plain_pair(stack)
    serve = beside(lambda: other.start_tls(serving(), server_side=True))
    client = stack.enter_context(one.start_tls(trusting(), server_hostname=HOST))
    return client, stack.enter_context(serve())


def test_a_secure_socket_is_a_socket_of_ours_and_of_ssls(stack: ExitStack) -> None:
    one, other = pair(stack)
    assert isinstance(one, aiosock_sync.socket)
    assert isinstance(one, ssl.SSLSocket)
    one.sendall(HELLO)
    assert other.recv(100) == HELLO
    assert one.getpeercert()["subject"] is not None  # type: ignore[index]  # it is verified
    assert repr(one).startswith("<aiosock_sync.SSLSocket fd=")


def test_bytes_before_and_behind_tls_are_plain(stack: ExitStack) -> None:
    one, other = plain_pair(stack)
    one.sendall(b"before")
    assert other.recv(100) == b"before"

    def serve() -> bytes:
        secure = other.start_tls(serving(), server_side=True)
        got: bytes = secure.recv(100)
        assert secure.recv(100) == b""
        secure.unwrap().sendall(b"behind")
        stack.callback(secure.close)
        return got

    served = beside(serve)
    secure = stack.enter_context(one.start_tls(trusting(), server_hostname=HOST))
    secure.sendall(HELLO)
    assert secure.unwrap() is secure
    assert secure.recv(100) == b"behind"
    assert served() == HELLO


def test_what_was_put_back_before_tls_belongs_to_it(stack: ExitStack) -> None:
    """The client's first flight, which a receive had gathered that was interrupted."""
    one, other = plain_pair(stack)
    connecting = beside(lambda: one.start_tls(trusting(), server_hostname=HOST))
    with pytest.raises(TimeoutError), aiosock_sync.fail_after(0.1):
        other.recv(2**20, aiosock_sync.MSG_WAITALL)
    other.settimeout(LIMIT)
    serving_side = stack.enter_context(other.start_tls(serving(), server_side=True))
    client = stack.enter_context(connecting())
    client.sendall(HELLO)
    assert serving_side.recv(100) == HELLO


@pytest.mark.parametrize("name", ["recv", "recv_into", "read", "sendall", "unwrap"])
def test_fail_after_bounds_a_call(name: str, stack: ExitStack) -> None:
    one, _ = pair(stack)
    calls: dict[str, Callable[[], Any]] = {
        "recv": lambda: one.recv(1),
        "recv_into": lambda: one.recv_into(bytearray(1)),
        "read": lambda: one.read(1),
        "sendall": lambda: one.sendall(MORE),
        "unwrap": one.unwrap,
    }
    with aiosock_sync.fail_after(0.05), pytest.raises(TimeoutError, match="^timed out$") as late:
        calls[name]()
    if name == "sendall":
        assert late.value.bytes_sent > 0  # type: ignore[attr-defined]  # ours, as documented


def test_fail_after_bounds_a_handshake_which_closes_then(stack: ExitStack) -> None:
    one, _ = plain_pair(stack)
    with aiosock_sync.fail_after(0.05), pytest.raises(TimeoutError):
        one.start_tls(trusting(), server_hostname=HOST)
    assert one.fileno() == -1


@pytest.mark.parametrize("call", ["recv", "sendall"])
def test_a_close_by_another_thread_wakes_who_waits(call: str, stack: ExitStack) -> None:
    one, _ = pair(stack)
    calling = beside(lambda: one.recv(1) if call == "recv" else one.sendall(bytes(10**8)))
    time.sleep(0.1)
    one.close()
    error = calling()
    assert isinstance(error, OSError), error
    assert error.errno == errno.EBADF


def test_reading_and_writing_threads_share_one_connection(stack: ExitStack) -> None:
    one, other = pair(stack)

    def read(sock: SSLSocket) -> bytes:
        got = bytearray()
        while len(got) < len(BULK):
            got += sock.recv(50_000)
        return bytes(got)

    both = [beside(lambda sock=sock: read(sock)) for sock in (one, other)]  # type: ignore[misc]  # this turn's
    sending = [beside(lambda sock=sock: sock.sendall(BULK)) for sock in (one, other)]  # type: ignore[misc]  # this turn's
    assert [ended() for ended in (*sending, *both)] == [None, None, BULK, BULK]


def test_a_partial_send_is_told_once(stack: ExitStack) -> None:
    """In non-blocking mode what was encrypted counts, and the usual retry sends it once."""
    one, other = pair(stack)
    one.setsockopt(aiosock_sync.SOL_SOCKET, aiosock_sync.SO_SNDBUF, 2**16)  # or it may grow
    one.setblocking(False)
    rest, reading = memoryview(BULK * 4), None
    while rest:
        try:
            rest = rest[one.send(rest[:5000]) :]
        except ssl.SSLWantWriteError:  # nobody has read so far
            reading = reading or beside(lambda: exactly(other, len(BULK) * 4))
            time.sleep(0.001)
    assert reading is not None
    one.setblocking(True)
    one.sendall(b"")
    assert reading() == BULK * 4


@pytest.mark.parametrize("first", ["hears", "says"])
def test_a_reader_behind_a_sender_who_gave_up(first: str, stack: ExitStack) -> None:
    """What he left has to go out some day, but a peer who talks first is heard."""
    one, other = pair(stack)
    one.settimeout(0.05)
    with pytest.raises(TimeoutError) as late:
        one.sendall(BULK * 20)
    one.settimeout(None)
    reading = beside(lambda: one.recv(100))
    time.sleep(0.05)
    sent: int = late.value.bytes_sent  # type: ignore[attr-defined]  # ours, as documented
    if first == "says":
        assert exactly(other, sent) == (BULK * 20)[:sent]
    other.sendall(HELLO)
    assert reading() == HELLO
    if first == "hears":
        taking = beside(lambda: exactly(other, sent + len(HELLO)))
        one.sendall(HELLO)
        assert taking() == (BULK * 20)[:sent] + HELLO


def exactly(sock: SSLSocket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += sock.recv(size - len(got))
    return bytes(got)


def test_the_makers_start_tls(stack: ExitStack) -> None:
    listener = stack.enter_context(aiosock_sync.create_server(("127.0.0.1", 0), ssl=serving()))

    def serve() -> bytes:
        conn, _ = listener.accept()
        with conn:
            return conn.recv(100)

    served = beside(serve)
    address = (HOST, listener.getsockname()[1]) if HOST == "localhost" else listener.getsockname()
    with aiosock_sync.create_connection(address, ssl=trusting(), server_hostname=HOST) as sock:
        sock.sendall(HELLO)
        assert served() == HELLO
    served = beside(serve)
    with pytest.raises(ssl.SSLCertVerificationError):
        aiosock_sync.create_connection(address, ssl=True, server_hostname=HOST)
    assert isinstance(served(), ssl.SSLError)


def test_the_makers_refuse_what_makes_no_sense() -> None:
    connect: Any = aiosock_sync.create_connection
    serve: Any = aiosock_sync.create_server
    with pytest.raises(ValueError, match="^server_hostname is only meaningful with ssl$"):
        connect(("127.0.0.1", 1), server_hostname=HOST)
    for ssl_ in (1, "yes"):
        with pytest.raises(TypeError, match=r"^ssl must be an ssl\.SSLContext or a bool, not "):
            connect(("127.0.0.1", 1), ssl=ssl_)
    with pytest.raises(TypeError, match=r"^ssl must be an ssl\.SSLContext, not 'bool'$"):
        serve(("127.0.0.1", 0), ssl=True)


def test_wrong_calls_leave_the_socket_as_it_was(stack: ExitStack) -> None:
    one, other = plain_pair(stack)
    with pytest.raises(TypeError, match=r"^context must be an ssl\.SSLContext, not 'str'$"):
        one.start_tls("context")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="^check_hostname requires server_hostname$"):
        one.start_tls(trusting())
    one.setblocking(False)
    with pytest.raises(ValueError, match="^a non-blocking socket cannot wait for a handshake"):
        one.start_tls(trusting(), server_hostname=HOST)
    one.sendall(HELLO)
    assert other.recv(100) == HELLO
    with aiosock_sync.socket() as alone, pytest.raises(OSError, match="not connected"):
        alone.start_tls(trusting(), server_hostname=HOST)
    secure, _ = pair(stack)
    with pytest.raises(ValueError, match="^TLS has been started on this socket"):
        secure.start_tls(trusting(), server_hostname=HOST)


def test_the_manuals_ssl(stack: ExitStack) -> None:
    one, other = plain_pair(stack)

    def serve() -> bytes:
        with other.start_tls(serving(), server_side=True) as secure:
            got: bytes = secure.recv(100)
            secure.sendall(b"some and more")
            return got

    served = beside(serve)
    with pytest.warns(aiosock_sync.InsecureWarning, match="start_tls") as warned:
        secure = aiosock_sync.ssl(one)
    assert warned[0].filename == __file__
    assert secure.server().startswith("/")
    assert secure.issuer().startswith("/O=trustme")
    assert secure.write(HELLO) == len(HELLO)
    assert served() == HELLO
    assert secure.read(4) == b"some"
    assert secure.read() == b" and more"
    with pytest.raises(ssl.SSLZeroReturnError):
        secure.read(1)
    assert secure.read() == b""
    del secure
    assert one.fileno() >= 0
    with pytest.raises(ssl.SSLError, match="Both the key & certificate files must be specified"):
        aiosock_sync.ssl(one, "key.pem")


# --- as the stdlib's --------------------------------------------------------------------

each_class = pytest.mark.parametrize("kind", [ssl.SSLSocket, SSLSocket], ids=["stdlib", "sync"])


def unshaken(
    stack: ExitStack,
    kind: type[ssl.SSLSocket],
    ours: ssl.SSLContext | None = None,
    peers: ssl.SSLContext | None = None,
    **how: Any,
) -> tuple[Any, "Peer"]:
    """A client of a class, and its server, whose records are in our hands."""
    context, (client, server) = ours or trusting(), raw_pair()
    peer = Peer(stack.enter_context(server), peers or serving())
    context.sslsocket_class = kind
    made = client if kind is ssl.SSLSocket else aiosock_sync.socket(fileno=client.detach())
    sock = context.wrap_socket(made, server_hostname=HOST, do_handshake_on_connect=False, **how)
    stack.enter_context(sock).settimeout(LIMIT)
    return sock, peer


def wrapped(stack: ExitStack, kind: type[ssl.SSLSocket], **how: Any) -> tuple[Any, "Peer"]:
    """The same after the handshake."""
    sock, peer = unshaken(stack, kind, **how)
    shaking = beside(peer.shake)
    sock.do_handshake()
    assert shaking() is None
    return sock, peer


class Peer:
    """A server that says what it is told to, when it is told to."""

    def __init__(self, sock: Any, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        sock.settimeout(LIMIT)

    def shake(self) -> None:
        self.do(self.tls.do_handshake)

    def do(self, act: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                answer = act(*args)
                break
            except ssl.SSLWantReadError:
                self.say()
                self.incoming.write(self.sock.recv(2**16))
        self.say()
        return answer

    def say(self, behind: bytes = b"") -> None:
        self.sock.sendall(self.outgoing.read() + behind)

    def send(self, data: bytes) -> None:
        self.do(self.tls.write, data)

    def exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            got += self.do(self.tls.read, size - len(got))
        return got


@each_class
def test_without_waiting_it_says_what_it_would_wait_for(
    kind: type[ssl.SSLSocket], stack: ExitStack
) -> None:
    sock, peer = unshaken(stack, kind)
    sock.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        sock.do_handshake()
    shaking = beside(peer.shake)
    sock.do_handshake(block=True)
    assert sock.gettimeout() == 0
    assert shaking() is None
    with pytest.raises(ssl.SSLWantReadError):
        sock.recv(100)
    peer.send(HELLO)
    sock.settimeout(LIMIT)
    assert sock.recv(100) == HELLO


@each_class
@pytest.mark.parametrize("act", ["send", "sendall", "write", "sendfile"])
def test_the_first_to_send_shakes_hands(
    act: str, kind: type[ssl.SSLSocket], stack: ExitStack
) -> None:
    sock, peer = unshaken(stack, kind)
    shaking = beside(peer.shake)
    getattr(sock, act)(io.BytesIO(HELLO) if act == "sendfile" else HELLO)
    assert shaking() is None
    assert peer.exactly(len(HELLO)) == HELLO


@each_class
@pytest.mark.parametrize("ragged", [True, False])
def test_a_cut_connection_looks_ended_unless_asked_otherwise(
    ragged: bool, kind: type[ssl.SSLSocket], stack: ExitStack
) -> None:
    sock, peer = wrapped(stack, kind, suppress_ragged_eofs=ragged)
    peer.send(HELLO)
    peer.sock.close()
    assert sock.recv(100) == HELLO
    if ragged:
        assert (sock.recv(1), sock.recv_into(bytearray(1))) == (b"", 0)
        return
    with pytest.raises(ssl.SSLEOFError):
        sock.recv(1)
    with pytest.raises(ssl.SSLEOFError):
        sock.recv_into(bytearray(1))


@each_class
def test_flags_are_refused(kind: type[ssl.SSLSocket], stack: ExitStack) -> None:
    sock, _ = wrapped(stack, kind)
    for name in "send", "sendall":
        with pytest.raises(ValueError, match=rf"^non-zero flags not allowed in calls to {name}"):
            getattr(sock, name)(HELLO, 1)


@each_class
def test_after_unwrap_it_is_plain(kind: type[ssl.SSLSocket], stack: ExitStack) -> None:
    sock, peer = wrapped(stack, kind)
    bye = beside(lambda: peer.do(peer.tls.unwrap))
    plain = sock.unwrap()
    bye()
    plain.send(b"a")
    plain.sendall(b"b")
    plain.sendfile(io.BytesIO(b"c"))
    assert peer.sock.recv(3, aiosock_sync.MSG_WAITALL) == b"abc"
    for call in (sock.unwrap, sock.read, lambda: sock.write(b"x")):
        with pytest.raises(ValueError, match="No SSL wrapper around|unwrapped SSL socket"):
            call()


def test_bytes_in_the_segment_of_the_end_of_tls_are_plain(stack: ExitStack) -> None:
    """The stdlib's class loses none because it takes none: it asks for a record at a time."""
    sock, peer = wrapped(stack, SSLSocket)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.say(b"behind")
    assert sock.recv(100) == b""
    assert sock.unwrap().recv(100) == b"behind"


@each_class
def test_post_handshake_authentication(kind: type[ssl.SSLSocket], stack: ExitStack) -> None:
    context = trusting(certificate("client"), post_handshake_auth=True)
    server = serving(post_handshake_auth=True, verify_mode=ssl.CERT_REQUIRED)
    one, other = raw_pair()
    connect = beside(lambda: context.wrap_socket(one, server_hostname=HOST))
    server.sslsocket_class = kind
    made = other if kind is ssl.SSLSocket else aiosock_sync.socket(fileno=other.detach())
    sock = stack.enter_context(server.wrap_socket(made, server_side=True))
    client = stack.enter_context(connect())
    sock.verify_client_post_handshake()
    answering = beside(lambda: (client.recv(100), client.sendall(HELLO)))
    sock.sendall(HELLO)
    assert sock.recv(100) == HELLO
    assert answering() == (HELLO, None)
    assert sock.getpeercert()["subjectAltName"] == (("DNS", "client"),)  # type: ignore[index]  # verified


@each_class
@pytest.mark.parametrize("send", ["sendall", "sendfile"])
def test_a_writer_alone_answers_a_server_that_negotiates_anew(
    send: str, kind: type[ssl.SSLSocket], stack: ExitStack
) -> None:
    peers = serving()
    peers.options |= NO_RESUMPTION  # each handshake has all its flights
    sock, peer = wrapped(stack, kind, ours=trusting(version=TLS12), peers=peers)
    assert libssl("SSL_renegotiate")(beneath(peer.tls)) == 1
    peer.tls.do_handshake()
    peer.say()
    sock.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        sock.recv(1)  # hears the question, and says its hello
    sock.settimeout(LIMIT)
    hearing = beside(lambda: peer.exactly(len(BULK)))
    getattr(sock, send)(io.BytesIO(BULK) if send == "sendfile" else BULK)
    assert hearing() == BULK


def test_what_is_decrypted_can_be_read_without_waiting(stack: ExitStack) -> None:
    one, other = pair(stack)
    other.sendall(HELLO)
    with aiosock_sync.fail_after(LIMIT):
        one.wait_readable()
        assert one.recv(1) == HELLO[:1]
        one.wait_readable()
        assert one.recv(100) == HELLO[1:]
    with aiosock_sync.fail_after(0.05), pytest.raises(TimeoutError):
        one.wait_readable()
    bye = beside(other.unwrap)
    plain = one.unwrap()
    stack.enter_context(bye()).sendall(HELLO)
    with aiosock_sync.fail_after(LIMIT):
        plain.wait_readable()
        assert plain.recv(100) == HELLO


def test_after_an_unwrap_that_is_late_nothing_can_be_sent(stack: ExitStack) -> None:
    sock, _ = wrapped(stack, SSLSocket)
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sock.unwrap()
    with pytest.raises(ssl.SSLError, match="PROTOCOL_IS_SHUTDOWN"):
        sock.sendall(HELLO)


def test_after_send_eof_the_peer_may_still_speak(stack: ExitStack) -> None:
    sock, peer = wrapped(stack, SSLSocket)
    peer.send(HELLO)
    assert sock.recv(1) == HELLO[:1]
    sock.send_eof()
    sock.send_eof()
    assert peer.do(peer.tls.read, 100) == b""
    with pytest.raises(ssl.SSLError, match="PROTOCOL_IS_SHUTDOWN"):
        sock.sendall(HELLO)
    assert sock.pending() == 4
    assert sock.recv(1) == HELLO[1:2]
    buffer = bytearray(9)
    assert sock.recv_into(buffer) == 3
    assert buffer.startswith(HELLO[2:])
    assert sock.pending() == 0
    saying = beside(lambda: peer.send(BULK))
    assert exactly(sock, len(BULK)) == BULK
    saying()
    peer.tls.unwrap()
    peer.say(b"plain")
    assert sock.recv(100) == sock.recv(100) == b""
    assert sock.unwrap().recv(100) == b"plain"
    assert sock.pending() == 0
    with pytest.raises(ValueError, match="No SSL wrapper around"):
        sock.send_eof()


def test_send_eof_makes_the_handshake_first(stack: ExitStack) -> None:
    sock, peer = unshaken(stack, SSLSocket)
    shaking = beside(peer.shake)
    sock.send_eof()
    assert shaking() is None
    assert peer.do(peer.tls.read, 100) == b""
