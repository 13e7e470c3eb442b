"""Timeouts and deadlines as numbers: what may be set, and how much time is left.

A timeout is judged by the stdlib itself, so each test compares with a stdlib socket
that was given the same value.
"""

import math
import socket as _stdlib
from fractions import Fraction
from time import monotonic
from typing import Any

import pytest

import aiosock._deadline as clock
from aiosock._deadline import NOW, as_blocking, as_timeout, deadline_after, time_left, timed_out


class Index:
    def __index__(self) -> int:
        return 3


VALUES = [
    *(None, 0, 5, True, False, 2.5, -0.0, 1e-12, 9e9, Index()),
    *(-1, -0.5, math.nan, math.inf, -math.inf, 1e20, 10**30),
    *("", "1", b"1", 1j, Fraction(1), [], [1]),
]


def outcome(setter: str, value: Any) -> Any:
    """What a stdlib socket makes of the value: its timeout, or the error."""
    with _stdlib.socket() as sock:
        sock.settimeout(7)
        try:
            getattr(sock, setter)(value)
        except Exception as error:
            return type(error), str(error)
        return sock.gettimeout()


@pytest.mark.parametrize(
    ("setter", "judge"), [("settimeout", as_timeout), ("setblocking", as_blocking)]
)
def test_a_value_is_taken_or_refused_as_by_a_socket(setter: str, judge: Any) -> None:
    for value in VALUES:
        expected = outcome(setter, value)
        if isinstance(expected, tuple):
            with pytest.raises(expected[0]) as refused:
                judge(value)
            assert (type(refused.value), str(refused.value)) == expected
        else:
            assert judge(value) == expected
            assert type(judge(value)) is type(expected)


def test_a_negative_zero_is_a_plain_zero() -> None:
    zero = as_timeout(-0.0)
    assert zero is not None
    assert math.copysign(1, zero) == 1


def test_the_least_timeout_is_rounded_up_and_stays_one() -> None:
    assert as_timeout(1e-12) == 1e-09


def test_no_timeout_and_no_time_are_their_own_deadlines() -> None:
    assert deadline_after(None) is None
    assert deadline_after(0.0) == NOW


def test_a_deadline_is_a_point_on_the_monotonic_clock() -> None:
    before = monotonic()
    deadline = deadline_after(60.0)
    assert deadline is not None
    assert before + 60 <= deadline <= monotonic() + 60


@pytest.mark.parametrize(
    ("ahead", "left"),
    [(2.5, 2.5), (0.001, 0.001), (0.0011, 0.002), (1e-9, 0.001), (0.0, 0.0), (-5.0, 0.0)],
)
def test_time_left_is_rounded_up_to_a_millisecond(
    monkeypatch: pytest.MonkeyPatch, ahead: float, left: float
) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
    assert time_left(ahead) == left


def test_time_left_shrinks_as_the_clock_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 12.5, 14.0])
    monkeypatch.setattr(clock, "monotonic", lambda: next(times))
    deadline = deadline_after(3.0)
    assert deadline is not None
    assert [time_left(deadline) for _ in range(3)] == [2.0, 0.5, 0.0]


def test_the_error_has_the_words_and_no_number() -> None:
    error = timed_out()
    assert type(error) is TimeoutError
    assert error.args == ("timed out",)
    assert error.errno is None
