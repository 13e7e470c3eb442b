"""What a message costs in the steady state: system calls, turns of the loop, calls of Python.

Counts, not times: exact, on any machine, however busy.  They are today's, and may fall; what
makes one grow has to be worth it.  Each is counted for blocks of round trips (two messages
each, and both ends where these are tasks of one loop), and the block with the fewest counts:
the kernel may deliver late what goes over loopback, and then there is one look more.

System calls are told by strace(1), where it is installed and may trace.  Calls are those of
functions of ours, and those of functions in C that ours make.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from steady import BLOCKS, MARK, TRIPS, run

import aiosock
import aiosock_sync

OURS = tuple(str(Path(str(package.__file__)).parent) for package in (aiosock, aiosock_sync))
STEADY = Path(__file__).with_name("steady.py")
PATIENCE = 60  # seconds until a program is given up
Counts = dict[str, float]  # for each round trip
Trace = Callable[[str, str], list[Counter[str]]]

TASKS_TALK = {"sendto": 2, "recvfrom": 2}
SYSTEM_CALLS: dict[tuple[str, str], Counts] = {
    ("asyncio", "plain"): {**TASKS_TALK, "epoll_wait": 2.5},
    ("asyncio", "tls"): {**TASKS_TALK, "epoll_wait": 2.5},
    ("uvloop", "plain"): {**TASKS_TALK, "epoll_wait": 2, "epoll_pwait": 0.5},
    ("uvloop", "tls"): {**TASKS_TALK, "epoll_wait": 2, "epoll_pwait": 0.5},
    ("blocking", "plain"): {"sendto": 1, "recvfrom": 1, "epoll_wait": 1, "fcntl": 1},
    ("blocking", "tls"): {"sendto": 1, "recvfrom": 2, "epoll_wait": 1, "fcntl": 1},
}
CALLS: dict[tuple[str, str], Counts] = {
    ("asyncio", "plain"): {"turns": 0.5, "Python": 10.5, "C": 20},
    ("asyncio", "tls"): {"turns": 0.5, "Python": 24.5, "C": 42},
    ("uvloop", "plain"): {"turns": 0.5, "Python": 10.5, "C": 20},
    ("uvloop", "tls"): {"turns": 0.5, "Python": 24.5, "C": 42},
    ("blocking", "plain"): {"turns": 1, "Python": 9, "C": 9},
    ("blocking", "tls"): {"turns": 1, "Python": 45, "C": 39},
}
A_TURN = ("_Watch.fire", "_Loop.turn")  # what a loop calls, or is called for, once a turn

each_conversation = pytest.mark.parametrize(
    ("where", "layer"), CALLS, ids=[" ".join(key) for key in CALLS]
)


def fewest(blocks: list[Counter[str]]) -> Counts:
    """Of the block with the fewest, for each round trip; what is rarer is not the steady state."""
    block = min(blocks, key=lambda block: block.total())
    return {name: count / TRIPS for name, count in block.items() if count * 4 > TRIPS}


def grown(counts: Counts, limits: Counts) -> Counts:
    slack = 2 / TRIPS  # where a block begins in the middle of a turn
    return {name: n for name, n in counts.items() if n > limits.get(name, 0) + slack}


@each_conversation
def test_a_round_trip_takes_no_more_calls_and_turns(where: str, layer: str) -> None:
    counts, marks = Counter[str](), list[Counter[str]]()

    def count(frame: FrameType, event: str, arg: Any) -> None:
        if not frame.f_code.co_filename.startswith(OURS):
            return
        if event == "call":
            counts["Python"] += 1
            counts["turns"] += frame.f_code.co_qualname in A_TURN
        elif event == "c_call":
            counts["C"] += 1

    sys.setprofile(count)
    try:
        run(where, layer == "tls", lambda: marks.append(counts.copy()))
    finally:
        sys.setprofile(None)
    found = fewest([after - before for before, after in pairwise(marks)])
    assert found.keys() == {"turns", "Python", "C"}
    assert not grown(found, CALLS[where, layer]), found


@each_conversation
def test_a_round_trip_takes_no_more_system_calls(where: str, layer: str, traced: Trace) -> None:
    found = fewest(traced(where, layer))
    assert {"sendto", "recvfrom"} <= found.keys()
    assert not grown(found, SYSTEM_CALLS[where, layer]), found


@pytest.fixture
def traced(tmp_path: Path) -> Trace:
    """What counts the system calls of a conversation, for each block."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    told = tmp_path / "trace"
    command = [strace, "-f", "-o", str(told)]
    may = subprocess.run([*command, "true"], capture_output=True, timeout=PATIENCE)
    if may.returncode:
        pytest.skip(f"strace may not trace: {may.stderr.decode()}")

    def trace(where: str, layer: str) -> list[Counter[str]]:
        program = [sys.executable, str(STEADY), where, layer]
        subprocess.run([*command, *program], check=True, timeout=PATIENCE)
        return blocks_of(told.read_text().splitlines())

    return trace


def blocks_of(lines: list[str]) -> list[Counter[str]]:
    """The names of the system calls of the first process, between its marks."""
    first, blocks = lines[0].split()[0], list[Counter[str]]()
    for line in lines:
        process, _, said = line.partition(" ")
        call = re.match(r"\s*(\w+)\(", said)
        if process != first or not call:
            continue
        if MARK in said:
            blocks.append(Counter())
        elif blocks:
            blocks[-1][call[1]] += 1
    assert len(blocks) == BLOCKS + 1
    return blocks[:-1]
