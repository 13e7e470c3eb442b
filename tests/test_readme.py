"""The README and the demo: every example runs and prints what stands beneath it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAM = re.compile(r"```python\n(?P<code>.*?)```\s+```text\n(?P<printed>.*?)```", re.DOTALL)
PROGRAMS = [(match["code"], match["printed"]) for match in PROGRAM.finditer(README)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_example_has_its_output_beneath_it() -> None:
    assert len(PROGRAMS) == README.count("```python") >= 2


@pytest.mark.parametrize(("code", "printed"), PROGRAMS)
def test_an_example_prints_what_is_written_beneath_it(code: str, printed: str) -> None:
    done = run("-c", code)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_the_first_screen_has_two_commands_that_need_nothing_but_python() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("python -m aiosock demo")
    assert commands[1].endswith("python -m pytest -q")


def test_the_name_on_the_index_is_never_recommended() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("aiosock*/*.py"), *ROOT.glob("examples/*.py")]
    wrong = re.compile(r"pip install (-\S+ )*aiosock\b")
    assert [text.name for text in texts if wrong.search(text.read_text())] == []


def test_the_demo_tells_each_step_and_ends() -> None:
    done = run("-m", "aiosock", "demo")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("echo server at 127.0.0.1:")
    assert lines[-1] == "closed; every byte came back"
    assert len([line for line in lines if "sent and received" in line]) >= 6


def test_the_command_line_says_what_it_takes() -> None:
    done = run("-m", "aiosock")
    assert done.returncode == 2
    assert "usage: python -m aiosock" in done.stderr
