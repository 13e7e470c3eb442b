"""The names of the module and of its socket: all that the stdlib has, and a few of ours.

Each name of `socket.__all__` is of one kind: a constant or another object of the stdlib,
handed on as it is; a function that is awaited; a maker of sockets that is not.  A name
that a new Python brings and nobody has thought of fails here.

Decided where the document and today's Python differ: `SocketType` is the class `socket`.
"""

import ast
import enum
import errno
import inspect
import os
import pickle
import re
import socket as _stdlib
import ssl
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faces import FUNCTIONS, METHODS, Face

import aiosock
from aiosock import _addresses, _constants, _options

ROOT = Path(aiosock.__file__).parents[1]

FAMILIES = (
    "AF_ AI_ ALG_ BDADDR_ BTPROTO_ CAN_ EAI_ ETHERTYPE_ ETH_P_ HCI_ INADDR_ IOCTL_VM_SOCKETS_ IP_ "
    "IPPORT_ IPPROTO_ IPV6_ J1939_ MSG_ NETLINK_ NI_ PACKET_ PF_ SCM_ SHUT_ SO_ SOCK_ SOL_ TCP_ "
    "TIPC_ UDPLITE_ VMADDR_ VM_SOCKETS_"
).split()
SINGLE = "CAPI SOMAXCONN has_ipv6".split()
HANDED_ON = (
    "AddressFamily SocketKind CMSG_LEN CMSG_SPACE close dup error gaierror getdefaulttimeout "
    "gethostname has_dualstack_ipv6 herror htonl htons if_indextoname if_nameindex if_nametoindex "
    "inet_aton inet_ntoa inet_ntop inet_pton ntohl ntohs setdefaulttimeout sethostname timeout"
).split()
MAKERS = "SocketType fromfd socket socketpair".split()

BESIDE_ALL = "AddressInfo EAGAIN EBADF EWOULDBLOCK MsgFlag SocketIO".split()
FILES = "BinaryFile RawFile TextFile".split()
ADDRESSES: list[str] = vars(_addresses)["__all__"]
OPTIONS: list[str] = vars(_options)["__all__"]
BEYOND = "Attempt Resolver Server from_stdlib_socket listen_fds run serve set_resolver".split()
TLS = "InsecureWarning SSLListener SSLObject SSLSocket SSLType ssl".split()
OF_SSL = [  # of the stdlib's ssl, which were names of socket once
    "sslerror",
    "RAND_add",
    "RAND_status",
    *(name for name in vars(ssl) if name.startswith("SSL_ERROR_")),
]
CLASSES = {"Ancillary", "Attempt", "PacketInfo", "PeerCredentials", "Resolver"}
OURS = sorted({*FUNCTIONS, *MAKERS, *BEYOND, *OPTIONS})

# Of Pythons that were built with Bluetooth's headers.
BUILT_IN_SOMEWHERE = re.compile("AF_BLUETOOTH|(BDADDR|BTPROTO|HCI)_.*|SOL_HCI")


def is_constant(name: str) -> bool:
    return name in SINGLE or name.startswith(tuple(FAMILIES))


ALL_CONSTANTS: list[str] = vars(_constants)["__all__"]
CONSTANTS = [name for name in _stdlib.__all__ if is_constant(name)]
KINDS: dict[str, Callable[[str], bool]] = {
    "constant": is_constant,
    "handed on": HANDED_ON.__contains__,
    "awaited": FUNCTIONS.__contains__,
    "maker": MAKERS.__contains__,
}


def public(names: typing.Iterable[str]) -> set[str]:
    return {name for name in names if name[0] not in "_@"}  # pytest adds to what it rewrites


# --- the module's names -------------------------------------------------------------


def test_every_name_of_the_stdlib_is_of_one_kind() -> None:
    kinds = {name: [kind for kind, has in KINDS.items() if has(name)] for name in _stdlib.__all__}
    assert {name: found for name, found in kinds.items() if len(found) != 1} == {}


def test_every_name_of_the_stdlib_is_here() -> None:
    assert [name for name in _stdlib.__all__ if not hasattr(aiosock, name)] == []


def test_what_never_waits_is_the_stdlibs_own() -> None:
    for name in [*CONSTANTS, *HANDED_ON, *BESIDE_ALL]:
        assert getattr(aiosock, name) is getattr(_stdlib, name), name


def test_what_waits_or_makes_sockets_is_ours() -> None:
    for name in [*FUNCTIONS, *MAKERS]:
        assert getattr(aiosock, name) is not getattr(_stdlib, name), name


def test_exactly_the_functions_that_may_wait_are_awaited() -> None:
    functions = {name for name in OURS if inspect.isfunction(getattr(aiosock, name))}
    assert {name for name in functions if is_awaited(getattr(aiosock, name))} == FUNCTIONS


def test_there_are_no_other_names() -> None:
    assert set(aiosock.__all__) == {
        *_stdlib.__all__,
        *BESIDE_ALL,
        *BEYOND,
        *ADDRESSES,
        *FILES,
        *OPTIONS,
        *TLS,
        *OF_SSL,
    }
    assert public(vars(aiosock)) == set(aiosock.__all__)


def test_all_has_each_name_once_ours_in_order_then_the_addresses_and_the_constants() -> None:
    assert len(aiosock.__all__) == len(set(aiosock.__all__))
    rest = ADDRESSES + ALL_CONSTANTS
    first = aiosock.__all__[: -len(rest)]
    assert first == sorted(first, key=lambda name: (not name.isupper(), name.islower(), name))
    assert aiosock.__all__[len(first) :] == rest
    assert sorted(ADDRESSES) == ADDRESSES
    assert sorted(ALL_CONSTANTS) == ALL_CONSTANTS


def test_a_star_imports_them_all() -> None:
    namespace: dict[str, object] = {}
    exec("from aiosock import *", namespace)
    assert public(namespace) == set(aiosock.__all__)


def test_the_class_has_two_names() -> None:
    assert aiosock.SocketType is aiosock.socket


def test_objects_of_ours_are_named_after_the_package() -> None:
    for name in OURS:
        found = getattr(aiosock, name)
        assert found.__module__ == "aiosock", name
        assert pickle.loads(pickle.dumps(found)) is found


def test_a_repr_names_the_package() -> None:
    with aiosock.socket() as sock:
        assert repr(sock).startswith(f"<aiosock.socket fd={sock.fileno()}, family=")


# --- constants ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    """
    AF_INET AF_INET6 AF_UNIX AF_UNSPEC
    SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET
    SO_REUSEADDR SO_KEEPALIVE SO_BROADCAST SO_LINGER SO_RCVBUF SO_SNDBUF SO_ERROR SO_TYPE
    SOMAXCONN
    MSG_OOB MSG_PEEK MSG_DONTROUTE MSG_WAITALL MSG_TRUNC MSG_CTRUNC
    SOL_SOCKET SOL_IP SOL_TCP SOL_UDP
    IPPROTO_IP IPPROTO_TCP IPPROTO_UDP IPPROTO_ICMP IPPROTO_IPV6 IPPROTO_RAW
    IPPORT_RESERVED IPPORT_USERRESERVED
    INADDR_ANY INADDR_BROADCAST INADDR_LOOPBACK INADDR_NONE
    IP_OPTIONS IP_HDRINCL IP_TOS IP_TTL IP_MULTICAST_IF IP_ADD_MEMBERSHIP
    IPV6_V6ONLY IPV6_UNICAST_HOPS IPV6_JOIN_GROUP IPV6_MULTICAST_IF
    EAI_AGAIN EAI_BADFLAGS EAI_FAIL EAI_FAMILY EAI_MEMORY EAI_NONAME EAI_SERVICE EAI_SOCKTYPE
    AI_PASSIVE AI_CANONNAME AI_NUMERICHOST AI_NUMERICSERV
    NI_DGRAM NI_NAMEREQD NI_NOFQDN NI_NUMERICHOST NI_NUMERICSERV
    TCP_NODELAY TCP_MAXSEG TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT
    SHUT_RD SHUT_WR SHUT_RDWR
    """.strip().splitlines(),
    ids=lambda names: names.split()[0],
)
def test_each_documented_family_of_constants_is_here(names: str) -> None:
    for name in names.split():
        assert isinstance(getattr(aiosock, name), int)


def test_has_ipv6_is_a_bool() -> None:
    assert type(aiosock.has_ipv6) is bool


def test_error_numbers_are_those_of_errno() -> None:
    assert errno.EBADF == aiosock.EBADF
    assert errno.EAGAIN == aiosock.EAGAIN
    assert errno.EWOULDBLOCK == aiosock.EWOULDBLOCK


def test_exceptions_are_the_builtin_ones() -> None:
    assert aiosock.error is OSError
    assert aiosock.timeout is TimeoutError
    assert issubclass(aiosock.gaierror, OSError)
    assert issubclass(aiosock.herror, OSError)


def declared() -> Iterator[tuple[str, str]]:
    """The names in _constants.pyi that stand for this Python, each with its type."""
    for node in ast.parse(Path(_constants.__file__).with_suffix(".pyi").read_text()).body:
        guard = node.test if isinstance(node, ast.If) else ast.Constant(value=True)
        expression = compile(ast.fix_missing_locations(ast.Expression(guard)), "guard", "eval")
        if not eval(expression, {"sys": sys}):
            continue
        for entry in node.body if isinstance(node, ast.If) else [node]:
            if isinstance(entry, ast.AnnAssign):
                yield ast.unparse(entry.target), ast.unparse(entry.annotation)
            elif isinstance(entry, ast.ImportFrom):
                yield from ((alias.asname, "type") for alias in entry.names if alias.asname)


@pytest.mark.skipif(sys.platform != "linux", reason="the .pyi declares what there is on Linux")
def test_the_pyi_declares_exactly_what_this_python_has() -> None:
    names = [name for name, _ in declared() if not name.startswith("_")]
    assert len(names) == len(set(names))
    assert set(ALL_CONSTANTS) - set(names) == set()
    absent = set(names) - set(ALL_CONSTANTS)
    assert {name for name in absent if not BUILT_IN_SOMEWHERE.fullmatch(name)} == set()


def test_the_pyi_declares_the_right_types() -> None:
    types = {name: kind for name, kind in declared() if name in ALL_CONSTANTS}
    for name, declared_type in types.items():
        value = getattr(_constants, name)
        right = type(value).__name__
        if isinstance(value, enum.EnumMeta):
            right = "type"
        elif name == "CAPI":
            right = "object"
        assert declared_type == right, name


# --- the socket's names -------------------------------------------------------------


def test_the_socket_has_the_stdlibs_attributes_and_six_of_its_own() -> None:
    theirs, ours = public(dir(_stdlib.socket)), public(dir(aiosock.socket))
    assert not theirs - ours
    own = {"attempts", "recv_many", "send_many", "start_tls", "wait_readable", "wait_writable"}
    assert ours - theirs == own


def methods() -> list[str]:
    return [n for n in public(dir(aiosock.socket)) if callable(getattr(aiosock.socket, n))]


def is_awaited(function: Any) -> bool:
    hint = str(function.__annotations__["return"])
    return inspect.iscoroutinefunction(function) or hint.startswith(("Awaited[", "Opening["))


def test_exactly_the_methods_that_may_wait_are_awaited() -> None:
    awaited = {name for name in methods() if is_awaited(getattr(aiosock.socket, name))}
    assert awaited == METHODS | {"start_tls", "wait_readable", "wait_writable"}


def test_every_attribute_of_the_socket_is_described() -> None:
    for name in public(dir(aiosock.socket)):
        described = getattr(aiosock.socket, name).__doc__
        assert described, name
        assert name not in METHODS or re.search("[Aa]wait", described), name


def test_every_object_of_ours_is_described() -> None:
    for name in OURS:
        described = getattr(aiosock, name).__doc__
        assert described, name
        assert name not in FUNCTIONS or re.search("[Aa]wait", described), name


@pytest.mark.parametrize("module", [_stdlib, aiosock], ids=["stdlib", "aiosock"])
@pytest.mark.parametrize("name", ["family", "type", "proto", "timeout"])
def test_an_attribute_can_only_be_read(module: Any, name: str) -> None:
    with module.socket() as sock, pytest.raises(AttributeError):
        setattr(sock, name, 1)


# --- arguments ----------------------------------------------------------------------

# As the C code of the stdlib takes them: it shows no signature of its own.
METHOD_ARGUMENTS = {
    "makefile": "self, mode='r', buffering=None, *, encoding=None, errors=None, newline=None, "
    "bufsize=None, limit=None",
    "start_tls": "self, context, *, server_side=False, server_hostname=None, session=None, "
    "suppress_ragged_eofs=False",
    "bind": "self, address, /",
    "connect": "self, address, /",
    "connect_ex": "self, address, /",
    "fileno": "self",
    "getblocking": "self",
    "getpeername": "self",
    "getsockname": "self",
    "gettimeout": "self",
    "listen": "self, backlog=128, /",
    "recv": "self, bufsize, flags=0, /",
    "recv_into": "self, buffer, nbytes=0, flags=0",
    "recvfrom": "self, bufsize, flags=0, /",
    "recvfrom_into": "self, buffer, nbytes=0, flags=0",
    "recvmsg": "self, bufsize, ancbufsize=0, flags=0, /",
    "recvmsg_into": "self, buffers, ancbufsize=0, flags=0, /",
    "recv_many": "self, max, bufsize=65536, flags=0",
    "send": "self, data, flags=0, /",
    "sendall": "self, data, flags=0, /",
    "sendmsg": "self, buffers, ancdata=(), flags=0, address=None, /",
    "send_many": "self, messages, flags=0",
    "sendmsg_afalg": "self, msg=(), *, op, iv=None, assoclen=None, flags=0",
    "setblocking": "self, flag, /",
    "settimeout": "self, value, /",
    "shutdown": "self, how, /",
    "wait_readable": "self",
    "wait_writable": "self",
}
OVERLOADED = {
    "getsockopt": ["self, level, optname, /", "self, level, optname, buflen, /"],
    "sendto": ["self, data, address, /", "self, data, flags, address, /"],
    "setsockopt": ["self, level, optname, value, /", "self, level, optname, value, optlen, /"],
}
# As the stdlib's, and what makes them secure.
CONNECTING = "address, timeout=_GLOBAL_DEFAULT_TIMEOUT, source_address=None"
SERVING = "address, *, family=AF_INET, backlog=None, reuse_port=False, dualstack_ipv6=False"
FUNCTION_ARGUMENTS = {
    "create_connection": f"{CONNECTING}, *, all_errors=False, ssl=None, server_hostname=None, "
    "happy_eyeballs_delay=0.25",
    "create_server": f"{SERVING}, ssl=None",
    "gethostbyaddr": "ip_address, /",
    "gethostbyname": "hostname, /",
    "gethostbyname_ex": "hostname, /",
    "getnameinfo": "sockaddr, flags, /",
    "getprotobyname": "protocolname, /",
    "getservbyname": "servicename, /, *protocolname",
    "getservbyport": "port, /, *protocolname",
    "enable_ancillary": "sock, *, ttl=None, tos=None, pktinfo=None, dropped=None",
    "from_stdlib_socket": "sock",
    "join_group": "sock, group, interface=None, source=None",
    "leave_group": "sock, group, interface=None, source=None",
    "parse_ancillary": "ancdata",
    "peer_credentials": "sock",
    "run": "main, *, debug=None, loop_factory=None",
    "set_multicast_interface": "sock, interface",
    "Server": "terms, places",
    "listen_fds": "",
    "serve": "handler, listener_or_address, *, ssl=None, ssl_handshake_timeout=60.0, "
    "max_connections=None, grace_period=10.0, backlog=None, reuse_port=False, "
    "dualstack_ipv6=False",
    "set_resolver": "resolver",
}


NOWHERE = "\0nobody listens here"
POSITIONAL: dict[str, dict[str, Any]] = {
    "bind": {"address": ""},
    "connect": {"address": NOWHERE},
    "connect_ex": {"address": NOWHERE},
    "getsockopt": {"level": _stdlib.SOL_SOCKET, "optname": _stdlib.SO_TYPE},
    "listen": {"backlog": 1},
    "recv": {"bufsize": 1},
    "recvfrom": {"bufsize": 1},
    "recvmsg": {"bufsize": 1},
    "recvmsg_into": {"buffers": [bytearray(1)]},
    "send": {"data": b"x"},
    "sendall": {"data": b"x"},
    "sendmsg": {"buffers": [b"x"]},
    "sendto": {"data": b"x", "address": NOWHERE},
    "setblocking": {"flag": True},
    "settimeout": {"value": None},
    "shutdown": {"how": _stdlib.SHUT_RD},
}


def arguments(function: Callable[..., Any]) -> list[tuple[str, object, object]]:
    given = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in given]


def taking(text: str) -> list[tuple[str, object, object]]:
    return arguments(eval(f"lambda {text}: 0", dict(vars(_stdlib))))


@pytest.mark.parametrize("name", sorted(set(methods()) - set(OVERLOADED)))
def test_a_method_takes_the_stdlibs_arguments(name: str) -> None:
    method = getattr(aiosock.socket, name)
    if name in METHOD_ARGUMENTS:
        assert arguments(method) == taking(METHOD_ARGUMENTS[name])
    else:
        assert arguments(method) == arguments(getattr(_stdlib.socket, name))


@pytest.mark.parametrize("name", OVERLOADED)
def test_an_overloaded_method_takes_the_stdlibs_arguments(name: str) -> None:
    overloads = typing.get_overloads(getattr(aiosock.socket, name))
    assert list(map(arguments, overloads)) == list(map(taking, OVERLOADED[name]))


@pytest.mark.parametrize("name", [name for name in OURS if name not in CLASSES])
def test_a_function_takes_the_stdlibs_arguments(name: str) -> None:
    function = getattr(aiosock, name)
    if name in FUNCTION_ARGUMENTS:
        assert arguments(function) == taking(FUNCTION_ARGUMENTS[name])
    else:
        theirs = _stdlib.socket if name == "SocketType" else getattr(_stdlib, name)
        assert arguments(function) == arguments(theirs)


async def outcome(method: Callable[..., Any], named: dict[str, Any]) -> Any:
    result = method(**named)
    return await result if inspect.isawaitable(result) else result


async def test_names_of_positional_arguments_are_refused(net: Face) -> None:
    one, other = net.socketpair()
    await other.sendall(b"something to receive")
    for name, named in POSITIONAL.items():
        with pytest.raises(TypeError):
            await outcome(getattr(one, name), named)


async def test_receiving_into_takes_its_arguments_by_name(net: Face) -> None:
    one, other = net.socketpair()
    buffer = bytearray(b".....")
    await other.sendall(b"abcd")
    assert await one.recv_into(flags=net.MSG_PEEK, nbytes=2, buffer=buffer) == 2
    assert buffer == b"ab..."
    size, _ = await one.recvfrom_into(flags=0, nbytes=3, buffer=buffer)
    assert size == 3
    assert buffer == b"abc.."


# --- importing ----------------------------------------------------------------------

IMPORTING = """
import asyncio, gc, os, sys, threading
before = os.listdir("/proc/self/fd")
import aiosock
assert threading.active_count() == 1, threading.enumerate()
assert "uvloop" not in sys.modules
assert os.listdir("/proc/self/fd") == before
assert not [o for o in gc.get_objects() if isinstance(o, asyncio.AbstractEventLoop)]
"""


def test_importing_starts_no_thread_makes_no_loop_and_leaves_uvloop_out() -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=20,
        check=True,
    )
