"""Writes parity.md: every name of `socket`, in which Python, and what it is on each face.

    .venv/bin/python docs/parity.py

A test holds the page against what this makes on the Python that runs, and another the stub of
the constants, which says since which Python they are there, against the stdlib's module.
"""

import ast
import functools
import inspect
import socket as _stdlib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiosock
import aiosock_sync

PAGE = Path(__file__).with_name("parity.md")
STUB = Path(aiosock.__file__).with_name("_constants.pyi")
PYTHONS = (11, 12, 13)
HEAD = """# Every name of `socket`

Made by `docs/parity.py`, from the code. {names} names, those of Linux, in Python 3.11, 3.12 and
3.13; some are there only where Python was built with the headers for them.

- **constant**: the stdlib's very object.
- **the stdlib's**: a function or a class that never waits, handed on as it is.
- **awaited**, **blocks**: written here; a coroutine on `aiosock`, a plain call on `aiosock_sync`.
- **the stdlib's code**: its function, which makes our sockets and looks names up our way.
- **ours**: written here, and never waits.

## The module

| name | 3.11 | 3.12 | 3.13 | `aiosock` | `aiosock_sync` |
|---|---|---|---|---|---|
"""
METHODS = """
## The methods and attributes of a socket

The same in each of these Pythons.

| name | `aiosock.socket` | `aiosock_sync.socket` |
|---|---|---|
"""


def page() -> str:
    names = sorted(since(), key=lambda name: (name in constants(), name))
    module = table(names, lambda name: [*pythons(name), on_async(name), on_sync(name)])
    attributes = sorted(name for name in dir(_stdlib.socket) if name[0] != "_")
    socket = table(attributes, lambda name: [method_on_async(name), method_on_sync(name)])
    return f"{HEAD.format(names=len(names))}{module}{METHODS}{socket}"


def table(names: list[str], cells: Callable[[str], list[str]]) -> str:
    return "".join(f"| {' | '.join([f'`{name}`', *cells(name)])} |\n" for name in names)


# --- which names, and since when --------------------------------------------------------


def since() -> dict[str, int]:
    """Every public name, and the minor version of the first of these Pythons that has it."""
    return dict.fromkeys([*_stdlib.__all__, "SocketIO"], PYTHONS[0]) | constants()


@functools.cache
def constants() -> dict[str, int]:
    """Those of the stub, whose ``if sys.version_info >= (3, 12):`` says since when."""
    found: dict[str, int] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.If):
            first = ast.literal_eval(node.test.comparators[0])[1]  # type: ignore[attr-defined]  # a comparison
            found |= dict.fromkeys(declared(node.body), first)
        else:
            found |= dict.fromkeys(declared([node]), PYTHONS[0])
    return found


def declared(nodes: list[ast.stmt]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not node.target.id.startswith("_"):
                yield node.target.id
        elif isinstance(node, ast.ImportFrom) and node.module == "socket":
            yield from (alias.name for alias in node.names)


def pythons(name: str) -> list[str]:
    return ["yes" if minor >= since()[name] else "" for minor in PYTHONS]


# --- what they are ----------------------------------------------------------------------


def on_async(name: str) -> str:
    return is_handed_on(name, aiosock) or named(getattr(aiosock, name), "ours")


def on_sync(name: str) -> str:
    if handed_on := is_handed_on(name, aiosock_sync):
        return handed_on
    ours, theirs = getattr(aiosock_sync, name), getattr(_stdlib, name)
    if isinstance(theirs, types.FunctionType) and ours.__code__ is theirs.__code__:
        return "the stdlib's code"
    return named(ours, "blocks")


def is_handed_on(name: str, face: Any) -> str:
    """How, for what is the stdlib's own; empty for what is not."""
    if name in constants() and not inspect.isclass(getattr(_stdlib, name, None)):
        return "constant"
    if getattr(face, name) is not getattr(_stdlib, name):
        return ""
    return "the stdlib's, a class" if inspect.isclass(getattr(face, name)) else "the stdlib's"


def named(ours: Any, otherwise: str) -> str:
    if inspect.isclass(ours):
        return "class of ours"
    return "awaited" if is_awaited(ours) else otherwise


def is_awaited(function: Any) -> bool:
    returned = str(getattr(function, "__annotations__", {}).get("return"))
    return inspect.iscoroutinefunction(function) or returned.startswith(("Awaited[", "Opening["))


def method_on_async(name: str) -> str:
    found = getattr(aiosock.socket, name)
    return named(found, "never waits") if callable(found) else "attribute"


def method_on_sync(name: str) -> str:
    if name not in vars(aiosock_sync.socket):
        return "inherited"
    return "blocks" if is_awaited(getattr(aiosock.socket, name)) else "ours"


if __name__ == "__main__":
    PAGE.write_text(page())
