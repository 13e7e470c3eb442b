"""The command that measures, in its smallest form: what is asked here is that it works.

No figure is believed: a few messages, two rounds, on a machine that does other things.
"""

import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from benchmarks import _report, profile
from benchmarks.__main__ import GROUPS, PAGE, SLOW, arguments
from benchmarks._load import tools
from benchmarks._programs import ROOT, Program
from benchmarks._rounds import Case, Plan, Result, beside
from benchmarks._statistics import Spread, compared, spread
from benchmarks.peers import LIMITS, PEERS

PATIENCE = 100  # seconds until a run is given up
SMALL = "--quick --rounds 2 --seconds 0.002 --connections 20".split()
FEW = ["--subjects", *(f"{kind} on asyncio" for kind in ("aiosock", "single", "streams"))]


def measure(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )


def found_by(path: Path, *words: str) -> dict[str, Any]:
    told = measure(*SMALL, *words, "--json", str(path))
    assert not told.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# --- statistics ------------------------------------------------------------------------


def test_between_the_quarters_lie_half_of_the_rounds() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(3, 2, 4)


def test_one_round_has_no_spread() -> None:
    assert spread([2]) == Spread(2, 2, 2)


def test_a_ratio_is_one_of_each_round_and_above_one_ours_is_better() -> None:
    ours, peers = [2, 20, 200], [1, 10, 100]
    assert compared(ours, peers, "more") == Spread(2, 2, 2)
    assert compared(ours, peers, "less") == Spread(0.5, 0.5, 0.5)


def test_beyond_is_a_difference() -> None:
    assert compared([3, 4, 5], [1, 1, 1], "beyond") == Spread(3, 2.5, 3.5)


def test_ours_stand_beside_who_is_on_the_same_loop_or_on_none() -> None:
    pairs = beside(
        ["aiosock on uvloop", "aiosock_sync", "streams on uvloop", "trio", "x on asyncio"]
    )
    assert pairs == [
        ("aiosock on uvloop", "streams on uvloop"),
        ("aiosock on uvloop", "trio"),
        ("aiosock_sync", "trio"),
    ]


# --- rounds ----------------------------------------------------------------------------


@pytest.fixture
def plan() -> Any:
    with tools(python_only=True) as made:
        yield Plan(made, rounds=2)


def test_subjects_are_measured_in_turn_and_the_first_round_is_thrown_away(plan: Plan) -> None:
    turns: list[str] = []

    def taking(name: str) -> Any:
        def take() -> dict[str, float]:
            turns.append(name)
            return {"things/s": float(len(turns))}

        return take

    case = Case("a case", {name: taking(name) for name in ("aiosock on x", "y on x")})
    (result,) = plan.run("group", case, lambda text: None)
    assert turns == ["aiosock on x", "y on x"] * 3
    assert result.values == {"aiosock on x": [3, 5], "y on x": [4, 6]}
    assert result.pairs == [("aiosock on x", "y on x")]


def test_a_subject_that_fails_is_left_out_and_the_others_go_on(plan: Plan) -> None:
    def fails() -> Any:
        raise RuntimeError("it has ended")

    case = Case("a case", {"aiosock on x": lambda: {"things/s": 1.0}, "y on x": fails})
    (result,) = plan.run("group", case, lambda text: None)
    assert result.values == {"aiosock on x": [1, 1]}
    assert result.pairs == []
    assert plan.left_out == ["y on x in group: a case is left out: it has ended"]


def test_a_program_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks._programs.PATIENCE", 0.05)
    with Program("sleep", "60") as program, pytest.raises(RuntimeError, match="sleep 60 has ended"):
        program.hear()


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.find_spec", lambda name: None)
    assert set(plan.peers("echo")) == {n for n, peer in PEERS.items() if not peer.needs}
    assert "trio is left out: trio is not installed" in plan.left_out


def test_more_connections_than_descriptors_are_refused(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks._rounds.resource.getrlimit", lambda which: (1024, 1024))
    assert plan.can_hold(900)
    assert not plan.can_hold(1000)


# --- the command -----------------------------------------------------------------------


def test_each_group_measures(tmp_path: Path) -> None:
    found = found_by(tmp_path / "found.json", *FEW)
    assert not [line for line in found["left out"] if " has ended" in line]
    assert list(dict.fromkeys(result["group"] for result in found["results"])) == GROUPS
    for result in found["results"]:
        lengths = Counter(len(values) for values in result["values"].values())
        assert len(lengths) == 1
        assert set(lengths) <= {1, 2}
        for ratio in result["ratios"]:
            assert {ratio["ours"], ratio["peer"]} <= result["values"].keys()
            assert ratio["low"] <= ratio["median"] <= ratio["high"]


def test_the_profile_counts_what_its_tools_tell(tmp_path: Path) -> None:
    if which("cc") is None:
        pytest.skip("nothing here compiles the server in C, the one that starts fast enough")
    found = found_by(tmp_path / "found.json", "--only", "profile", "--subjects", LIMITS[1])
    told = {result["case"]: result["values"] for result in found["results"]}
    lines = [line for line in found["left out"] if "profile" in line or "counts" in line]
    for case, tool in [("time", None), ("system calls", "strace"), ("instructions", "valgrind")]:
        assert case in told or any(tool and tool in line for line in lines)
        assert all(value >= 0 for value in told.get(case, {LIMITS[1]: [0]})[LIMITS[1]])


def test_system_calls_are_read_from_the_table_of_strace() -> None:
    table = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000006           3         2         1 recvfrom
 40.00    0.000004           2         2           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000010           2         4         1 total
"""
    assert profile._counts(table) == {"recvfrom": 2, "epoll_wait": 2}
    assert profile._counts("") == {}


def test_instructions_are_the_totals_of_all_that_callgrind_wrote() -> None:
    assert profile._total("events: Ir\ntotals: 7\nevents: Ir\ntotals: 5\n") == 12


def test_every_peer_that_is_installed_echoes(tmp_path: Path) -> None:
    found = found_by(tmp_path / "found.json", "--only", "echo", "--rounds", "1")
    (result,) = found["results"]
    installed = {name for name, peer in PEERS.items() if not peer.lacks}
    assert result["values"].keys() - {LIMITS[1]} == installed


def test_the_load_in_python_does_what_the_one_in_c_does(tmp_path: Path) -> None:
    groups = ["echo", "bulk", "accepting", "tls"]
    found = found_by(tmp_path / "found.json", *FEW, "--python-load", "--only", *groups)
    assert list(dict.fromkeys(result["group"] for result in found["results"])) == groups
    assert any("one in Python is slower" in line for line in found["left out"])


def test_it_tells_the_machine_and_the_settings(tmp_path: Path) -> None:
    found = found_by(tmp_path / "found.json", *FEW, "--only", "imports")
    assert found["machine"].keys() >= {"cpu", "cores", "kernel", "python", "peers", "load average"}
    assert found["settings"] == {"rounds": 2, "seconds": 0.002, "quick": True}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--rounds 0", "a number from 1 on, not 0"),
        ("--rounds x", "a number from 1 on, not x"),
        ("--seconds -1", "a number above 0, not -1"),
        ("--seconds nan", "a number above 0, not nan"),
        ("--json /nowhere/at/all.json", "there is no folder /nowhere/at"),
        ("--plot picture.gif", "picture.gif is to end in .svg or .png"),
        ("--from /nowhere.json", "/nowhere.json holds no earlier run: "),
        ("--from pyproject.toml", "pyproject.toml holds no earlier run: "),
        ("--only nothing", "invalid choice: 'nothing'"),
    ],
)
def test_what_it_cannot_do_is_told_before_anything_is_measured(
    words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments().parse_args(words.split())
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_list_names_every_group() -> None:
    told = measure("--list").stdout.splitlines()
    assert [line.split()[0] for line in told] == GROUPS + SLOW


def test_a_terminal_sees_what_is_measured_now() -> None:
    ours, its = pty.openpty()
    few = ["--subjects", "aiosock", "--only", "imports"]
    command = [sys.executable, "-m", "benchmarks", *SMALL, *few]
    try:
        subprocess.run(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=its, timeout=PATIENCE, check=True
        )
        assert b"imports: import, round 1 of 2: aiosock" in os.read(ours, 10000)
    finally:
        os.close(ours)
        os.close(its)


# --- what becomes of it ----------------------------------------------------------------

RESULT = Result(
    "echo",
    "1 KiB",
    "round trips/s",
    "more",
    {"aiosock on uvloop": [2.0, 4.0], "trio": [1.0, 2.0]},
    [("aiosock on uvloop", "trio")],
    at=10,
)
TOLD = _report.as_json(
    {"cpu": "a", "cores": 2, "kernel": "b", "python": "c", "openssl": "d", "peers": {"e": "1"},
     "load average": [0.0]},
    {"rounds": 2, "seconds": 0.1, "quick": False},
    [],
    [RESULT],
)  # fmt: skip


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(TOLD))
    return path


def test_json_is_read_as_it_was_written(earlier: Path) -> None:
    told, results = _report.from_json(earlier, [RESULT.group])
    assert results == [RESULT]
    assert told == json.loads(json.dumps(TOLD))


def test_of_an_earlier_run_some_groups_are_taken(earlier: Path) -> None:
    told, results = _report.from_json(earlier, ["another"])
    assert (told["results"], results) == ([], [])


def test_an_earlier_run_is_printed_again(earlier: Path) -> None:
    told = measure("--from", str(earlier))
    assert re.search(r"^  trio +1\.50  2\.00$", told.stdout, re.M)


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_plot_is_made_of_an_earlier_run(
    suffix: str, begins: bytes, earlier: Path, tmp_path: Path
) -> None:
    if find_spec("matplotlib") is None:
        pytest.skip("matplotlib, of the extra `bench`, is not installed")
    picture = tmp_path / f"picture.{suffix}"
    measure("--from", str(earlier), "--plot", str(picture))
    assert picture.read_bytes().startswith(begins)


def test_figures_go_between_the_marks_of_their_group() -> None:
    old = "A\n<!-- figures: {} -->\nold\n<!-- end of figures -->\nB\n"
    page = old.format("echo") + old.format("tls") + old.format("machine")
    echo, tls, machine = _report.with_figures(page, TOLD, [RESULT]).split("A\n")[1:]
    assert "| trio | 1.50 | 2.00 |" in echo
    assert "old" not in echo
    assert echo.endswith("<!-- end of figures -->\nB\n")
    assert tls == old.format("tls").removeprefix("A\n")
    assert "2 rounds of 0.1 s for each" in machine


def test_the_page_has_a_place_for_each_group() -> None:
    places = re.findall(r"<!-- figures: (\w+) -->", PAGE.read_text())
    assert sorted(places) == sorted(["machine", *GROUPS, *SLOW])
    assert PAGE.read_text().count("<!-- end of figures -->") == len(places)
