"""Every fenced block of the pages is run by a test; those for a shell are run by these.

A shell gets a copy of the checkout, with an environment `.venv` that is the one of this test.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from pages import PAGES, ROOT, Block, blocks, blocks_of

from benchmarks.__main__ import arguments

TESTS = Path(__file__).parent
PATIENCE = 100  # seconds until a shell is given up

# The test that runs all blocks of a kind.
RUN_BY = {
    "python": "test_readme.py",
    "py": "test_pytest_plugin.py",
    "ini": "test_pytest_plugin.py",
    "console": "test_cli.py",
    "sh": "test_pages.py",
}
SPHINX = ["{eval-rst}", "{include}", "{toctree}"]  # which fail the build, by test_docs, if wrong
PRINTED = "text"  # what the program above it prints, or
DRAWINGS = {"docs/explanation/engine.md": "the engine"}

# What no test can run, and why.
NOT_RUN = {
    "python3 -m venv .venv": "the environment is there; .ci/run makes it, from this very line",
    ".venv/bin/pip install -q .": "asks an index; .ci/run does it",
    ".venv/bin/pip install -q -e '.[test]'": "asks an index; .ci/run does it",
    ".venv/bin/pip install -q -e '.[dev]'": "asks an index; .ci/run does it",
    ".venv/bin/pip install -q -e '.[bench]'": "asks an index",
    ".venv/bin/coverage erase": "coverage looks at the run of all tests: see the next ones",
    ".venv/bin/coverage run -m pytest -q -n 3": "all tests, within one of them; .ci/run does it",
    ".venv/bin/coverage combine -q": "as the one before",
    ".venv/bin/coverage report": "as the one before",
}


class Smaller(NamedTuple):
    """A command that is run as it stands, but with less to do."""

    words: str = ""  # in the place of its end
    instead_of: str = ""
    variables: dict[str, str] = {}
    needs: str = ""  # a module of an extra that not every environment has


FEW = " --quick --rounds 2 --seconds 0.002 --only imports"
SMALLER = {
    ".venv/bin/python -m pytest -q -n 3": Smaller(
        variables={"PYTEST_ADDOPTS": "tests/test_deadline.py -p no:cacheprovider"}
    ),
    ".venv/bin/python tests/fuzz/fuzz.py every -max_total_time=600": Smaller(
        "=1", instead_of="=600", needs="atheris"
    ),
    ".venv/bin/python -m benchmarks": Smaller(FEW),
    ".venv/bin/python tests/soak.py --hours 1": Smaller("0.0003", instead_of="1"),
    ".venv/bin/python -m benchmarks --json speed.json --plot speed.svg --write-docs": Smaller(
        FEW, needs="matplotlib"
    ),
}


# --- every block ------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_a_test_runs() -> None:
    kinds = {block.kind.split(" ")[0] for block in blocks()}
    known = {*RUN_BY, *SPHINX, PRINTED}
    assert kinds - known == set(), "a block of this kind is run by no test"
    assert known - kinds == set(), "there is none of this kind any more"


@pytest.mark.parametrize("kind", RUN_BY)
def test_the_test_that_is_named_takes_all_blocks_of_the_kind(kind: str) -> None:
    assert f'blocks("{kind}")' in (TESTS / RUN_BY[kind]).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_fence_is_overlooked(page: Path) -> None:
    fences = re.findall(r"^[\s>]*(?:```|~~~)", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks_of(page))


def test_a_text_that_no_program_prints_is_a_drawing() -> None:
    alone = [
        block.page
        for page in PAGES
        for before, block in zip([None, *blocks_of(page)], blocks_of(page), strict=False)
        if block.kind == PRINTED and (before is None or before.kind != "python")
    ]
    assert alone == list(DRAWINGS)


# --- those of a shell -------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout") / "aiosock"
    left_out = shutil.ignore_patterns(".*", "_build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left_out)
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return copy


def shell(folder: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COVERAGE"))}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**inherited, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


RUN = {block: [c for c in block.commands if c not in NOT_RUN] for block in blocks("sh")}


@pytest.mark.parametrize(
    "block", [block for block, commands in RUN.items() if commands], ids=lambda block: block.id
)
def test_a_block_for_a_shell_does_its_work(block: Block, checkout: Path) -> None:
    text, variables = block.text, dict[str, str]()
    for command in sorted(block.commands, key=len, reverse=True):
        if command in NOT_RUN:
            text = re.sub(rf"(?<!\S){re.escape(command)}(?!\S)", "true", text)
        elif smaller := SMALLER.get(command):
            if smaller.needs and find_spec(smaller.needs) is None:
                pytest.skip(f"{smaller.needs} is not installed")
            text = text.replace(command, command.removesuffix(smaller.instead_of) + smaller.words)
            variables |= smaller.variables
    done = shell(checkout, text, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_run_or_made_smaller_is_still_in_the_pages() -> None:
    commands = {command for block in blocks("sh") for command in block.commands}
    assert {*NOT_RUN, *SMALLER} - commands == set()


def test_a_command_that_fails_is_noticed(checkout: Path) -> None:
    for text in "false && true", "false; true", ".venv/bin/python -m aiosock nonsense":
        assert shell(checkout, text).returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_extra_that_a_page_installs_is_there(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"pip install [^`\n]*\.\[(\w+)\]", page.read_text())
    assert set(extras) - set(project["optional-dependencies"]) == set()


# --- what is named in passing -----------------------------------------------------------

NAMED = re.compile(r"`((?:\.ci|aiosock|aiosock_sync|benchmarks|docs|examples|tests)/[\w./-]+)`")
MEASURING = re.compile(r"python -m benchmarks( -[^`\n]*)?(?=[`\n])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists()] == []


def test_every_command_that_measures_is_understood() -> None:
    told = [words for page in PAGES for words in MEASURING.findall(page.read_text())]
    assert len(told) > 10
    for words in told:
        arguments().parse_args(words.split())
