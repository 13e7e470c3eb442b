"""The conformance run judges as it should; the run itself is a command of its own."""

import sys
from pathlib import Path

import pytest
import run
from child import FAILED, PASSED, SKIPPED
from run import Outcome, compare

ONE, TWO, NOT = "test_socket.A.one", "test_socket.A.two", "test_socket.A.not"
STDLIB = {
    ONE: Outcome(PASSED),
    TWO: Outcome(PASSED),
    NOT: Outcome(SKIPPED, "a reason"),
}


def test_what_passes_on_both_holds() -> None:
    assert compare(STDLIB, STDLIB, {}).holds


@pytest.mark.parametrize("end", [FAILED, SKIPPED, "died"])
def test_what_does_not_pass_is_lost(end: str) -> None:
    comparison = compare(STDLIB, {**STDLIB, ONE: Outcome(end)}, {})
    assert list(comparison.unexplained) == [ONE]
    assert not comparison.holds


def test_what_is_not_there_any_more_is_lost() -> None:
    ours = {name: outcome for name, outcome in STDLIB.items() if name != ONE}
    assert compare(STDLIB, ours, {}).unexplained == {ONE: run.VANISHED}


@pytest.mark.parametrize("end", [PASSED, FAILED, "died", None])
def test_what_is_skipped_on_the_stdlib_must_be_skipped(end: str | None) -> None:
    ours = {name: outcome for name, outcome in STDLIB.items() if name != NOT}
    comparison = compare(STDLIB, ours if end is None else ours | {NOT: Outcome(end)}, {})
    assert list(comparison.unexplained) == [NOT]
    assert not comparison.holds
    assert f"{NOT}\n" in run.told("test_socket", comparison, False)


@pytest.mark.parametrize("end", [PASSED, FAILED, SKIPPED])
def test_what_is_there_on_ours_alone_differs(end: str) -> None:
    assert list(compare(STDLIB, {**STDLIB, "more": Outcome(end)}, {}).unexplained) == ["more"]


def test_what_is_accepted_may_differ_and_must() -> None:
    failed = {**STDLIB, ONE: Outcome(FAILED)}
    assert compare(STDLIB, failed, {ONE: "a reason"}).holds
    assert compare(STDLIB, STDLIB, {ONE: "a reason"}).stale == [ONE]
    assert not compare(STDLIB, STDLIB, {ONE: "a reason"}).holds


def test_what_this_python_does_not_have_may_stand_in_the_list() -> None:
    assert compare(STDLIB, STDLIB, {"test_socket.B.other": "a reason"}).holds


def test_a_suite_in_which_nothing_passes_does_not_hold() -> None:
    assert not compare({}, {}, {}).holds


def test_what_passes_only_on_the_second_try_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = {run.FACE: [{**STDLIB, ONE: Outcome(FAILED)}, {ONE: Outcome(PASSED)}]}
    tries["socket"] = [{**STDLIB, TWO: Outcome(FAILED)}, {TWO: Outcome(PASSED)}]

    class Run:
        def __init__(self, module: str, face: str, only: object = None) -> None:
            self.outcomes = lambda: tries[face].pop(0)

        def __enter__(self) -> "Run":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(run, "Run", Run)
    comparison = run.check("test_socket")
    assert comparison.holds
    assert sorted(comparison.second) == [ONE, TWO]
    assert f"    passed on the second try: {ONE}" in run.told("test_socket", comparison, False)


FIXTURES = """
import unittest

class Leaves(unittest.TestCase):
    def test(self): pass

    @classmethod
    def tearDownClass(cls): raise ValueError

class Enters(unittest.TestCase):
    def test(self): pass

    @classmethod
    def setUpClass(cls): raise unittest.SkipTest("a reason")

@unittest.skip("a reason")
class Stays(unittest.TestCase):
    def test(self): pass
"""


def test_fixtures_are_told_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixtures.py").write_text(FIXTURES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with run.Run("fixtures", "socket") as whole:
        first = whole.outcomes()
    assert {name: outcome.status for name, outcome in first.items()} == {
        "fixtures.Leaves.test": PASSED,
        "tearDownClass (fixtures.Leaves)": FAILED,
        "setUpClass (fixtures.Enters)": SKIPPED,
        "fixtures.Stays.test": SKIPPED,
    }
    wrong = "tearDownClass (fixtures.Leaves)"
    assert run.again("fixtures", "socket", first, [wrong])[wrong].status == FAILED


@pytest.mark.parametrize("missing", [run.SUITES, run.SUITES[1:]])
def test_a_suite_that_is_not_shipped_is_skipped_and_named(
    missing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setattr(run, "is_shipped", lambda suite: suite not in missing)
    monkeypatch.setattr(run, "check", lambda suite: compare(STDLIB, STDLIB, {}))
    assert run.main() == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said if "this Python does not ship" in line] == missing


def test_each_listed_test_has_a_reason() -> None:
    listed = {**run.reasons("accepted"), **run.reasons("excluded")}
    assert all(len(reason) > 20 for reason in listed.values())


@pytest.mark.skipif(not run.is_shipped("test_socketserver"), reason="a Python without its tests")
def test_a_suite_conforms() -> None:
    comparison = run.check("test_socketserver")
    assert len(comparison.passing) > 20
    assert comparison.holds
