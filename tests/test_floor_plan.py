"""The floor plan of the house, read from the syntax tree.

A file imports only from floors below its own; what it imports besides is the stdlib.
Imports stand at the top, where they can be seen.  The wait loop stands once: each place
that handles "would block" has its reason here.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiosock
import aiosock_sync

# From the ground up; on one floor nobody imports his neighbour.
FLOORS = [
    {"aiosock._advice", "aiosock._addresses"},
    {
        "aiosock._constants",
        "aiosock._options",
        "aiosock._deadline",
        "aiosock._serving",
        "aiosock._poller",
        "aiosock._certificates",
    },
    {"aiosock._readiness"},
    {"aiosock._operations", "aiosock._names", "aiosock._files"},
    {"aiosock._race", "aiosock._datagrams"},
    {"aiosock._records", "aiosock._socket"},
    {"aiosock._tls"},
    {"aiosock._constructors"},
    {"aiosock._run", "aiosock._server"},
    {"aiosock"},
    {"aiosock_sync._driver"},
    {"aiosock_sync._names", "aiosock_sync._socket"},
    {"aiosock_sync._tls"},
    {"aiosock_sync._constructors"},
    {"aiosock_sync._server"},
    {"aiosock_sync"},
    {"aiosock._cli"},
    {"aiosock._cli.demo", "aiosock._cli.words", "aiosock._cli.formats"},
    {"aiosock._cli.pipes", "aiosock._cli.endpoints", "aiosock._cli.security"},
    {"aiosock._cli.netcat"},
    {"aiosock._cli.echo", "aiosock._cli.resolve", "aiosock._cli.trace", "aiosock._cli.doctor"},
    {"aiosock._cli.arguments"},
    {"aiosock._cli.main"},
    {"aiosock.__main__", "aiosock._pytest"},
    {"aiosock._plugin.pytest_aiosock"},
]

WOULD_BLOCK = {
    "aiosock._readiness.Direction.complete": "this is the wait loop",
    "aiosock._socket.socket.sendall": "the first piece is nearly always all there is; "
    "no object that keeps count is made before it was not",
    "aiosock._socket.socket.sendto": "likewise",
    "aiosock_sync._socket.socket._complete": "most attempts do not block, and then nothing "
    "of the engine is needed",
    "aiosock._files._Buffer._some": "a file in non-blocking mode gives what there is",
    "aiosock._files.RawFile.write": "it says None for no room",
    "aiosock._files.BinaryFile._make_room": "what there is room for is kept",
    "aiosock._records.Records._fill": "the ssl object is to hear of an empty kernel in "
    "its own word",
    "aiosock._datagrams.receive_many": "what came before it is the answer",
    "aiosock._datagrams.SendingMany.__call__": "likewise, where it may not wait",
    "aiosock._records.Records.flush_for_reader": "any other error is left for the next read",
    "aiosock._records.Records._finish_saying": "the other direction is asked first who writes",
    "aiosock._records.Records.give_at_once": "the rest of a message is sent by an object that "
    "keeps count",
    "aiosock._tls.Conversation.hear": "non-blocking mode has ssl's own word for it",
    "aiosock._tls.Conversation.say": "likewise",
    "aiosock_sync._tls.Conversation._flush_or_fill": "the other direction is tried as well",
    "aiosock_sync._tls.Conversation.hear": "likewise",
    "aiosock_sync._tls.Conversation.say": "likewise",
    "aiosock_sync._socket.socket.recv": "in a conversation one turn of the loop is all the "
    "waiting there is, and needs no coroutine",
    "aiosock_sync._socket.socket._send_whole": "likewise, and no object that keeps count",
}

HIDDEN_IMPORTS = {
    "aiosock._run.fastest_loop": "uvloop is imported when a loop is made",
    "aiosock._cli.demo.secured": "trustme is for the one step that needs it, where it is installed",
    "aiosock._plugin.pytest_aiosock._room": "a run that asks for no fixture imports none of us",
    "aiosock._pytest.tls": "trustme is for the tests that ask for it",
    "aiosock._pytest._open_what_stays": "the blocking face and uvloop are for a checked test",
}
GUESTS = {  # what tests have
    "aiosock._pytest": ["pytest", "trustme", "uvloop"],
    "aiosock._plugin.pytest_aiosock": ["pytest"],
}
IMPORTERS = ("__import__", "import_module", "importlib.import_module")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(file: Path) -> str:
    *rooms, last = file.relative_to(HOUSE).with_suffix("").parts
    return ".".join(rooms if last == "__init__" else [*rooms, last])


PACKAGES = [Path(package.__path__[0]) for package in (aiosock, aiosock_sync)]
HOUSE = PACKAGES[0].parent
FILES = {module_name(file): file for folder in PACKAGES for file in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text()) for name, file in FILES.items()}
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that a tree imports at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from imported_from(module, node)
        elif not is_for_type_checkers(node):
            yield from imported(module, node)


def imported_from(module: str, node: ast.ImportFrom) -> Iterator[str]:
    rooms = [*module.split("."), *(["__init__"] if FILES[module].stem == "__init__" else [])]
    package = ".".join(rooms[: -node.level]) if node.level else ""
    source = ".".join(filter(None, [package, node.module]))
    for alias in node.names:
        inner = f"{source}.{alias.name}"
        yield inner if inner in FILES else source


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def within(name: str, tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every node, with the qualified name of the function or class that it stands in."""
    for node in ast.iter_child_nodes(tree):
        inner = f"{name}.{node.name}" if isinstance(node, Function | ast.ClassDef) else name
        yield inner, node
        yield from within(inner, node)


def everywhere() -> Iterator[tuple[str, ast.AST]]:
    for module, tree in TREES.items():
        yield from within(module, tree)


def handled(node: ast.AST) -> ast.expr | None:
    """What an ``except`` or a ``suppress`` names."""
    if isinstance(node, ast.ExceptHandler):
        return node.type
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return ast.Tuple(node.args)
    return None


def test_each_file_has_a_floor() -> None:
    assert set(TREES) - set(FLOOR) == set()


def test_each_file_imports_from_floors_below_its_own() -> None:
    for module, tree in TREES.items():
        for name in imported(module, tree):
            if name.partition(".")[0] in ("aiosock", "aiosock_sync"):
                assert FLOOR[name] < FLOOR[module], (module, name)
            else:
                allowed = {*sys.stdlib_module_names, *GUESTS.get(module, ())}
                assert name.partition(".")[0] in allowed, (module, name)


def test_each_file_opens_with_what_it_is() -> None:
    for module, tree in TREES.items():
        described = ast.get_docstring(tree)
        assert described, module
        assert described.splitlines()[0].endswith((".", "``.")), module


@pytest.mark.parametrize("roof", ["aiosock", "aiosock._cli"])
def test_a_roof_names_every_file_in_order(roof: str) -> None:
    lines = (ast.get_docstring(TREES[roof]) or "").splitlines()
    shown = [f"{roof}.{line.split()[0]}" for line in lines if re.match(r" {4}\w+ {2}", line)]
    assert set(shown) == {name for name in FILES if name.rpartition(".")[0] == roof}
    assert shown == sorted(shown, key=FLOOR.__getitem__)


def test_the_command_line_is_imported_by_its_own_files_alone() -> None:
    for module in TREES:
        if module != "aiosock.__main__" and not module.startswith("aiosock._cli"):
            assert not any("_cli" in name for name in imported(module, TREES[module])), module


def test_nothing_is_imported_inside_a_function() -> None:
    places = {
        place
        for place, node in everywhere()
        if isinstance(node, Function)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        or (isinstance(inner, ast.Call) and ast.unparse(inner.func) in IMPORTERS)
    }
    assert places == set(HIDDEN_IMPORTS)


def test_would_block_is_handled_only_where_there_is_a_reason() -> None:
    places = {
        place
        for place, node in everywhere()
        if (types := handled(node)) is not None
        if "BlockingIOError" in ast.unparse(types)
    }
    assert places == set(WOULD_BLOCK)
