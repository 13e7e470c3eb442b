"""The documentation: it builds, every public name is described, and the tables are true.

What its examples print is `test_readme`'s.  The build takes Sphinx, which the extra `docs` brings.
"""

import os
import re
import runpy
import socket as _stdlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from faces import FUNCTIONS, METHODS

import aiosock
import aiosock_sync
from aiosock import _constants

DOCS = Path(__file__).parent.parent / "docs"
CONSTANTS: list[str] = vars(_constants)["__all__"]
FAMILIES = re.findall(r"`(\w+)(\*?)`", (DOCS / "reference" / "constants.md").read_text())


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(module, reason="the pages are built where the extra docs is installed")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "html" / "reference" / "aiosock.html").exists()


@pytest.mark.parametrize("face", [aiosock, aiosock_sync], ids=lambda face: face.__name__)
def test_the_reference_has_every_name_that_is_no_constant(face: ModuleType) -> None:
    page = (DOCS / "reference" / f"{face.__name__}.md").read_text()
    described = re.findall(r"^\.\. auto\w+:: (?:\w+\.)?(\w+)", page, re.MULTILINE)
    named = re.findall(r"`(\w+)`", page)
    names = set(vars(face)["__all__"]) - {name for name in CONSTANTS if is_plain(name)}
    assert names - {*described, *named} == set()
    assert {name for name in described if name not in names} == set()
    ours = {name for name in names if getattr(face, name).__module__ == face.__name__}
    assert ours - {*described} - HANDED_ON == set(), "is named, but not described"


def is_plain(name: str) -> bool:
    return not isinstance(getattr(aiosock, name), type)


# Other names of what is described, and the stdlib's code.
HANDED_ON = set("SSLType SocketType fromfd has_dualstack_ipv6 recv_fds send_fds socketpair".split())


def test_every_constant_is_of_a_family_in_the_table() -> None:
    def is_told(name: str) -> bool:
        return any(name.startswith(head) if star else name == head for head, star in FAMILIES)

    assert [name for name in CONSTANTS if not is_told(name)] == []


# --- parity.md ----------------------------------------------------------------------


def test_the_table_of_names_is_what_the_code_says() -> None:
    parity = runpy.run_path(str(DOCS / "parity.py"))
    assert (DOCS / "parity.md").read_text() == parity["page"]()


def test_the_table_has_every_name_and_says_what_is_awaited() -> None:
    module, _, methods = (DOCS / "parity.md").read_text().partition("## The methods")
    rows = {row[0]: row[1:] for row in map(cells, module.splitlines()) if len(row) == 6}
    assert {name for name in _stdlib.__all__ if name not in rows} == set()
    assert {name for name in rows if rows[name][3] == "awaited"} == FUNCTIONS
    awaited = {row[0] for row in map(cells, methods.splitlines()) if row[1:2] == ["awaited"]}
    assert awaited == METHODS & set(dir(_stdlib.socket))


def cells(line: str) -> list[str]:
    return [cell.strip(" `") for cell in line.strip("|").split("|")]


# --- reference/calls.md ---------------------------------------------------------------

Row = tuple[list[str], list[str]]  # the names, and what is said of them
CALLS = (DOCS / "reference" / "calls.md").read_text()
is_awaited = runpy.run_path(str(DOCS / "parity.py"))["is_awaited"]


def rows_of(section: str) -> list[Row]:
    lines = section.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    table = [line.strip("|").split(" | ") for line in lines[begin + 1 :] if line]
    return [(re.findall(r"`(\w+)`", row[0]), [cell.strip() for cell in row[1:]]) for row in table]


SECTIONS = {section.split("\n")[0]: rows_of(section) for section in CALLS.split("\n## ")[1:]}


def awaited_in(owner: Any) -> set[str]:
    """The public calls of a class, or of a module, that are awaited."""
    own = vars(owner)["__all__"] if isinstance(owner, ModuleType) else vars(owner)
    return {name for name in own if name[0] != "_" and is_awaited(getattr(owner, name))}


def told_in(section: str) -> list[str]:
    return [name for names, _ in SECTIONS[section] for name in names]


FILES = "Files: `BinaryFile`, `RawFile`, `TextFile`"
OWNERS: dict[str, list[Any]] = {
    "`socket`": [aiosock.socket],
    "Functions": [aiosock],
    "`SSLSocket`": [aiosock.SSLSocket],
    "`SSLObject`": [aiosock.SSLObject],
    FILES: [aiosock.BinaryFile, aiosock.RawFile, aiosock.TextFile],
    "`Server`": [aiosock.Server],
}
# What waits on the blocking face alone, or not at all, though it has the same name.
ALONE = "Without await alone"
SYNC_ALONE = {"`SSLSocket`": {"accept"}, ALONE: {"call"}}
LAST = "What never waits"
CHANGELOG = (DOCS.parent / "CHANGELOG.md").read_text()
VERSIONS = re.findall(r"^## (\d+\.\d+\.\d+)\b", CHANGELOG, re.MULTILINE)


def test_the_changelog_begins_with_the_version_that_this_is() -> None:
    assert VERSIONS[0] == version("awaitable-sockets")


@pytest.mark.parametrize("section", OWNERS)
def test_the_tables_have_every_call_that_is_awaited_and_no_other(section: str) -> None:
    expected = set().union(*map(awaited_in, OWNERS[section])) | SYNC_ALONE.get(section, set())
    told = told_in(section)
    assert (set(told), len(told)) == (expected, len(expected))


def test_no_class_whose_calls_are_awaited_is_without_a_table() -> None:
    classes = {getattr(aiosock, name) for name in aiosock.__all__ if not is_plain(name)}
    ours = {found for found in classes if found.__module__ == "aiosock" and awaited_in(found)}
    # A resolver's calls are whoever's writes it.
    assert ours - {owner for owners in OWNERS.values() for owner in owners} == {aiosock.Resolver}


def test_the_tables_have_every_call_that_blocks_on_the_other_face() -> None:
    """Whatever is written for both faces waits on both; what is not is named above."""
    for name in awaited_in(aiosock):
        assert callable(getattr(aiosock_sync, name))
    for section in ("`socket`", "`SSLSocket`", "`SSLObject`", "`Server`"):
        face = getattr(aiosock_sync, section.strip("`"))
        assert {name for name in told_in(section) if not hasattr(face, name)} == set()
    assert aiosock_sync.SSLSocket.accept is not aiosock_sync.socket.accept
    assert set(told_in(ALONE)) == SYNC_ALONE[ALONE]


def test_the_last_table_has_the_rest_of_a_socket() -> None:
    rest = {name for name in dir(aiosock.socket) if name[0] != "_"} - awaited_in(aiosock.socket)
    told = told_in(LAST)
    assert (set(told), len(told)) == (rest, len(rest))


def test_the_readme_tells_of_every_call_that_is_awaited() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    table = re.findall(
        r"^\| (`.*`) \| (`.*) \|$", readme.split("## What is awaited")[1], re.MULTILINE
    )
    left, right = (
        set(re.findall(r"`(\w+)`", " ".join(column))) for column in zip(*table, strict=True)
    )
    owners = aiosock, aiosock.socket, aiosock.SSLSocket
    awaited = set().union(*map(awaited_in, owners))
    assert left == awaited
    assert not right & awaited
    assert {name for name in right if not any(hasattr(owner, name) for owner in owners)} == set()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_says_all_that_is_asked(section: str) -> None:
    columns = 2 if section == LAST else 4
    assert SECTIONS[section], "a table without rows"
    for names, said in SECTIONS[section]:
        assert names
        assert len(said) == columns, names
        assert all(said), names
        assert said[-1] in VERSIONS, names
