"""The conformance run judges as it should; the run itself is a command of its own."""

import pytest
import run
from child import FAILED, PASSED, SKIPPED
from run import Outcome, compare

ONE, TWO = "test_socket.A.one", "test_socket.A.two"
STDLIB = {
    ONE: Outcome(PASSED),
    TWO: Outcome(PASSED),
    "test_socket.A.not": Outcome(SKIPPED),
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


def test_what_is_accepted_may_differ_and_must() -> None:
    failed = {**STDLIB, ONE: Outcome(FAILED)}
    assert compare(STDLIB, failed, {ONE: "a reason"}).holds
    assert compare(STDLIB, STDLIB, {ONE: "a reason"}).stale == [ONE]
    assert not compare(STDLIB, STDLIB, {ONE: "a reason"}).holds


def test_what_this_python_does_not_have_may_stand_in_the_list() -> None:
    assert compare(STDLIB, STDLIB, {"test_socket.B.other": "a reason"}).holds


def test_a_suite_in_which_nothing_passes_does_not_hold() -> None:
    assert not compare({}, {}, {}).holds


def test_each_listed_test_has_a_reason() -> None:
    listed = {**run.reasons("accepted"), **run.reasons("excluded")}
    assert all(len(reason) > 20 for reason in listed.values())


@pytest.mark.skipif(not run.is_shipped("test_socketserver"), reason="a Python without its tests")
def test_a_suite_conforms() -> None:
    comparison = run.check("test_socketserver")
    assert len(comparison.passing) > 20
    assert comparison.holds
