"""The two faces beside the stdlib's module, and beside each other.

aiosock_sync has every name of `socket`, private ones too, with the stdlib's signatures;
what is not its own is the stdlib's very object.  Each call that aiosock awaits has a twin
there that blocks, by the same name and with the same arguments.
"""

import ast
import contextlib
import inspect
import pickle
import socket as _stdlib
import ssl
import types
from pathlib import Path
from typing import Any

import pytest
from faces import FUNCTIONS, METHODS

import aiosock
import aiosock_sync
from aiosock import _addresses, _options

ADDRESSES = frozenset(vars(_addresses)["__all__"])
OPTIONS = frozenset(vars(_options)["__all__"])
BEYOND = set(
    "Attempt Resolver Server call fail_after from_stdlib_socket listen_fds serve".split()
) | {"set_resolver"}
TLS = {"InsecureWarning", "SSLObject", "SSLSocket", "ssl"}
SECURED = {"create_connection", "create_server"}  # the stdlib's, and TLS if they are asked for it
OF_SSL = {"sslerror", "RAND_add", "RAND_status", *(n for n in vars(ssl) if n[:10] == "SSL_ERROR_")}
WAITS = {"wait_readable", "wait_writable"}
LOOKUPS = {name for name in FUNCTIONS if name.startswith("get")}

# With arguments that the stdlib's C code takes and Python's grammar cannot spell.
VARIADIC = {"sendto", "getservbyname", "getservbyport"}


def own_names() -> list[str]:
    return [name for name in vars(_stdlib) if not name.startswith("__")]


def signature_of(function: Any) -> inspect.Signature | None:
    """Names, kinds and defaults of the arguments; None where C tells nothing.

    A name that no caller can use does not count.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    empty = inspect.Signature.empty
    parameters = [
        p.replace(annotation=empty, name=f"_{n}" if p.kind is p.POSITIONAL_ONLY else p.name)
        for n, p in enumerate(signature.parameters.values())
    ]
    return signature.replace(parameters=parameters, return_annotation=empty)


# --- aiosock_sync and the stdlib ------------------------------------------------------


def test_every_name_of_the_stdlib_is_in_the_sync_face() -> None:
    for name in own_names():
        theirs, ours = getattr(_stdlib, name), getattr(aiosock_sync, name)
        if name in LOOKUPS | SECURED or name in ("socket", "SocketType"):
            assert ours is not theirs, name
        elif isinstance(theirs, types.FunctionType):
            assert ours.__code__ is theirs.__code__, name
            assert ours.__globals__ is vars(aiosock_sync), name
        else:
            assert ours is theirs, name


def test_the_sync_face_has_no_other_public_names() -> None:
    names = {*_stdlib.__all__, "SocketIO", "SSLType", *BEYOND, *ADDRESSES, *OPTIONS, *TLS, *OF_SSL}
    assert set(vars(aiosock_sync)["__all__"]) == names
    assert aiosock_sync.SSLType is aiosock_sync.SSLObject
    assert aiosock_sync.SocketType is aiosock_sync.socket


def test_a_star_imports_them_all() -> None:
    namespace: dict[str, object] = {}
    exec("from aiosock_sync import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(vars(aiosock_sync)["__all__"])


@pytest.mark.parametrize("name", sorted({*BEYOND, *OPTIONS, *TLS, *LOOKUPS, *SECURED, "socket"}))
def test_objects_of_ours_are_named_after_the_package(name: str) -> None:
    found = getattr(aiosock_sync, name)
    shared = {"Attempt", "InsecureWarning", "Resolver", "set_resolver", *OPTIONS}
    package = "aiosock" if name in shared else "aiosock_sync"
    assert found.__module__ == package
    assert pickle.loads(pickle.dumps(found)) is found


@pytest.mark.parametrize("name", sorted({*LOOKUPS} - VARIADIC))
def test_lookups_take_the_stdlibs_arguments(name: str) -> None:
    theirs = signature_of(getattr(_stdlib, name))
    assert theirs is None or signature_of(getattr(aiosock_sync, name)) == theirs


def test_the_socket_is_a_stdlib_socket_with_all_its_attributes() -> None:
    assert issubclass(aiosock_sync.socket, _stdlib.socket)
    assert {n for n in dir(aiosock_sync.socket) if n[0] != "_"} == {
        *(n for n in dir(_stdlib.socket) if n[0] != "_"),
        *WAITS,
        "attempts",
        "recv_many",
        "send_many",
        "start_tls",
    }


@pytest.mark.parametrize("name", [n for n in dir(_stdlib.socket) if n[0] != "_"])
def test_methods_take_the_stdlibs_arguments(name: str) -> None:
    theirs = signature_of(getattr(_stdlib.socket, name))
    assert theirs is None or signature_of(getattr(aiosock_sync.socket, name)) == theirs


def test_the_socket_has_the_stdlibs_private_attributes_too() -> None:
    assert set(dir(_stdlib.socket)) - set(dir(aiosock_sync.socket)) == set()
    with (
        aiosock_sync.create_server(("127.0.0.1", 0)) as listener,
        aiosock_sync.create_connection(listener.getsockname()) as client,
    ):
        number, address = listener._accept()  # type: ignore[attr-defined]  # the stdlib's own
        aiosock_sync.socket(fileno=number).close()
        assert address == client.getsockname()


@pytest.mark.parametrize("name", sorted(SECURED))
def test_the_makers_take_the_stdlibs_arguments_and_a_few_of_ours(name: str) -> None:
    theirs, ours = signature_of(getattr(_stdlib, name)), signature_of(getattr(aiosock_sync, name))
    assert theirs is not None
    assert ours is not None
    names = list(theirs.parameters)
    assert list(ours.parameters)[: len(names)] == names
    assert [ours.parameters[name] for name in names] == list(theirs.parameters.values())
    beyond = {*ours.parameters} - {*names}
    assert beyond <= {"ssl", "server_hostname", "happy_eyeballs_delay"}
    assert {ours.parameters[name].kind for name in beyond} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("module", [_stdlib, aiosock_sync], ids=["stdlib", "sync"])
def test_every_maker_gives_the_class_of_its_module(module: Any) -> None:
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context
        listener = keep(module.create_server(("127.0.0.1", 0)))
        client = keep(module.create_connection(listener.getsockname()))
        made = [listener, client, keep(listener.accept()[0]), keep(client.dup())]
        made += [keep(sock) for sock in module.socketpair()]
        made += [keep(module.fromfd(client.fileno(), client.family, client.type))]
        made += [keep(module.socket()), keep(module.socket(fileno=module.socket().detach()))]
        assert {type(sock) for sock in made} == {module.socket}
        assert isinstance(client, _stdlib.socket)


def test_the_stub_names_what_is_there() -> None:
    stub = Path(aiosock_sync.__file__).with_suffix(".pyi")
    names: set[str] = set()
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names if alias.asname}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    assert {name for name in names if not hasattr(aiosock_sync, name)} == set()
    missing = set(vars(aiosock_sync)["__all__"]) - names - {"SocketType", "SSLType", "sslerror"}
    constants = set(vars(aiosock.__dict__["_constants"])["__all__"])
    assert missing - constants - ADDRESSES == set(), "what no star stands for"


# --- the two faces ------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHODS | WAITS))
def test_each_awaited_method_has_a_twin_with_the_same_arguments(name: str) -> None:
    awaited = getattr(aiosock.socket, name)
    blocking = getattr(aiosock_sync.socket, name)
    assert not inspect.iscoroutinefunction(blocking)
    assert signature_of(blocking) == signature_of(awaited)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_awaited_function_has_a_twin_with_the_same_arguments(name: str) -> None:
    blocking = getattr(aiosock_sync, name)
    assert not inspect.iscoroutinefunction(blocking)
    assert signature_of(blocking) == signature_of(getattr(aiosock, name))


def test_each_other_attribute_is_on_both() -> None:
    names = {n for n in dir(aiosock.socket) if n[0] != "_"}
    assert names - set(dir(aiosock_sync.socket)) == set()


@pytest.mark.parametrize("name", ["SSLSocket", "SSLObject"])
def test_what_is_awaited_over_tls_has_a_twin(name: str) -> None:
    awaited, blocking = getattr(aiosock, name), getattr(aiosock_sync, name)
    names = {n for n in dir(awaited) if n[0] != "_" and callable(getattr(awaited, n))}
    assert {n for n in names if not callable(getattr(blocking, n, None))} == set()
    assert {n for n in names if inspect.iscoroutinefunction(getattr(blocking, n))} == set()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_helpers_for_options_are_the_same_on_both(name: str) -> None:
    assert getattr(aiosock_sync, name) is getattr(aiosock, name)


@pytest.mark.parametrize("name", ["serve", "listen_fds"])
def test_serving_takes_the_same_arguments_on_both(name: str) -> None:
    assert signature_of(getattr(aiosock_sync, name)) == signature_of(getattr(aiosock, name))


def test_a_server_has_the_same_names_on_both() -> None:
    names = [{n for n in dir(face.Server) if n[0] != "_"} for face in (aiosock, aiosock_sync)]
    assert names[0] == names[1]
