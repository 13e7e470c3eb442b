"""The documentation: it builds, every public name is described, and the tables are true.

What its examples print is `test_readme`'s.  The build takes Sphinx, which the extra `docs` brings.
"""

import os
import re
import runpy
import socket as _stdlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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
