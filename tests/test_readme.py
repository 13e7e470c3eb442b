"""The README, the docs and the demo: every example runs and prints what stands beneath it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pages import PAGES, ROOT, blocks

README = (ROOT / "README.md").read_text()
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
PROGRAM = re.compile(r"```python\n(?P<code>.*?)```\s+```text\n(?P<printed>.*?)```", re.DOTALL)
PROGRAMS = [
    pytest.param(program["code"], program["printed"], id=f"{page}-{number}")
    for page, text in TEXTS.items()
    for number, program in enumerate(PROGRAM.finditer(text), 1)
]

# As a notebook runs a cell, which may await at the top level.
CELL = """
import ast, asyncio, sys
cell = eval(compile(sys.argv[1], "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
if cell is not None:
    asyncio.run(cell)
"""

# A process that has imported asyncio, and nothing of ours, and forks for each program it is told.
STARTER = """
import asyncio, json, os, ssl, sys
for line in sys.stdin:
    program, sys.argv[1:], said = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number in (1, 2):
        os.dup2(os.open(f"{said}.{number}", os.O_WRONLY | os.O_CREAT), number)
    break
else:
    sys.exit()
exec(program, {"__name__": "__main__"})
"""

TLS_SERVER = 8443  # the port of the server that the README's example in TLS talks to
WITHOUT_TRUSTME = "import sys; sys.modules['trustme'] = None; sys.argv[1:] = ['demo']"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def tls_echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The example server's port, and the file of the authority that has to be trusted."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    shown, trusted = folder / "server.pem", folder / "ca.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(shown)
    authority.cert_pem.write_to_path(trusted)
    program = str(ROOT / "examples" / "tls_echo_server.py")
    with subprocess.Popen(
        [sys.executable, program, "127.0.0.1", "0", "--certificate", str(shown)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = re.fullmatch(r"listening on \('127.0.0.1', (\d+)\)\n", process.stdout.readline())
            assert told
            yield told[1], str(trusted)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def starter(tls_echo_server: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STARTER],
        env={**os.environ, "SSL_CERT_FILE": tls_echo_server[1]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def test_every_example_has_its_output_beneath_it() -> None:
    assert len(PROGRAMS) == len(blocks("python")) >= 3


@pytest.mark.parametrize(("code", "printed"), PROGRAMS)
def test_an_example_prints_what_is_written_beneath_it(
    code: str,
    printed: str,
    tls_echo_server: tuple[str, str],
    starter: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    assert starter.stdin is not None
    assert starter.stdout is not None
    code = code.replace(str(TLS_SERVER), tls_echo_server[0])
    program = (CELL, [code]) if re.search("^await ", code, re.MULTILINE) else (code, [])
    print(json.dumps([*program, f"{tmp_path}/said"]), file=starter.stdin, flush=True)
    returned = int(starter.stdout.readline())
    stdout, stderr = ((tmp_path / f"said.{number}").read_text() for number in (1, 2))
    assert (stdout, stderr, returned) == (printed, "", 0)


def test_the_readme_shows_tls_in_six_lines() -> None:
    codes = (program["code"] for program in PROGRAM.finditer(README))
    (code,) = (code for code in codes if str(TLS_SERVER) in code)
    assert len([line for line in code.splitlines() if line]) == 6


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 250


def test_the_first_screen_has_two_commands_that_need_nothing_but_python() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("python -m aiosock demo")
    assert commands[1].endswith("python -m pytest -q -n 3")


def test_the_name_on_the_index_is_never_recommended() -> None:
    texts = [
        *PAGES,
        *ROOT.glob("aiosock*/*.py"),
        *ROOT.glob("examples/*.py"),
    ]
    wrong = re.compile(r"pip install (-\S+ )*aiosock\b")
    assert [text.name for text in texts if wrong.search(text.read_text())] == []


def test_the_demo_tells_each_step_and_ends() -> None:
    done = run("-m", "aiosock", "demo")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("echo server at 127.0.0.1:")
    assert re.fullmatch(r"closed after \d+ connections; every byte came back", lines[-1])
    assert len([line for line in lines if "sent and received" in line]) >= 8
    assert re.search(r"\n  async, TLS +TLSv1.3, sent and received .* round trips/s", done.stdout)


def test_the_demo_says_that_trustme_is_missing_and_goes_on() -> None:
    done = run("-c", f"{WITHOUT_TRUSTME}\nfrom aiosock.__main__ import main; main()")
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: trustme is not installed" in done.stdout
    assert done.stdout.endswith(" connections; every byte came back\n")


def test_the_command_line_says_what_it_takes() -> None:
    done = run("-m", "aiosock")
    assert done.returncode == 2
    assert "usage: python -m aiosock" in done.stderr


FORGOTTEN = {
    "aiosock.socket().recv(1)": "socket.recv",
    "one.sendall(b'x')": "socket.sendall",
    "one.recv_into(bytearray(1))": "socket operation",
    "aiosock.create_connection(('127.0.0.1', 1))": "create_connection",
    "aiosock.create_server(('127.0.0.1', 0))": "create_server",
}


@pytest.mark.parametrize("call", FORGOTTEN)
def test_in_development_mode_a_forgotten_await_tells_its_line(call: str, tmp_path: Path) -> None:
    program = tmp_path / "forgetful.py"
    lines = ["import aiosock", "async def main():", "    one, _ = aiosock.socketpair()"]
    program.write_text("\n".join([*lines, f"    {call}", "aiosock.run(main)"]))
    command = [sys.executable, "-X", "dev", str(program)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert f"coroutine '{FORGOTTEN[call]}' was never awaited" in told
    assert f'File "{program}", line 4, in main' in told


def links_of(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())


def test_every_link_leads_somewhere() -> None:
    links = [(page, to) for page in PAGES for to in links_of(page)]
    assert len(links) > 10
    assert {page.name for page, _ in links} >= {"README.md", "CONTRIBUTING.md"}
    assert [(page.name, to) for page, to in links if not (page.parent / to).exists()] == []


def test_links_lead_from_the_readme_to_every_page() -> None:
    """By the index at most: where Markdown alone is shown there is no table of contents."""
    readme, index = ROOT / "README.md", ROOT / "docs" / "index.md"
    linked = {(page.parent / to).resolve() for page in (readme, index) for to in links_of(page)}
    assert index in linked
    assert {page.name for page in PAGES if page.resolve() not in linked | {readme}} == set()
