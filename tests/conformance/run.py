"""CPython's own tests of `socket` and its clients, with `aiosock_sync` in the place of `socket`.

    python tests/conformance/run.py [--suite NAME ...] [-v]

Knows how to run a suite in a process of its own, how two runs of it compare, and which
differences have a reason (`differences.toml`); knows nothing of what happens in that
process: that is `child.py`.

Each suite of the `test` package that this Python ships runs twice, beside each other: on
the stdlib's `socket`, and on ours.  What passes on the stdlib's must pass on ours; a test
that is skipped there, or no longer exists, is as lost as one that fails.  What is skipped on
the stdlib's must be skipped on ours, and no test may be there on ours alone.  A difference
without a reason ends the run with 1, and so does a reason whose test no longer differs.

A test that is stuck, or takes the process down, is lost; the rest goes on in a new process.
Tests of sockets are now and then disturbed by what else runs.  So whatever failed on the
stdlib's, and whatever differs on ours, is run once more with nothing beside it, and counts
as it ends then; what passes only then is named.

A suite that this Python does not ship is skipped, and said to be.
"""

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from child import PASSED, SKIPPED, STARTED

HERE: Final = Path(__file__).resolve().parent
FACE: Final = "aiosock_sync"
SUITES: Final = (
    "test_socket test_timeout test_socketserver test_ftplib "
    "test_smtplib test_poplib test_httplib test_xmlrpc test_ssl"
).split()
LIMIT: Final = 30.0  # seconds for one test
TAIL: Final = 4000  # characters of what a process said before it died


class Outcome(NamedTuple):
    status: str
    detail: str = ""


Outcomes = dict[str, Outcome]
VANISHED: Final = Outcome("vanished", "there is no such test")


def reasons(kind: str) -> dict[str, str]:
    """The tests that are accepted, or excluded, and why."""
    listed: dict[str, str] = tomllib.loads((HERE / "differences.toml").read_text())[kind]
    return listed


def is_shipped(suite: str) -> bool:
    with suppress(ModuleNotFoundError):  # nor is the package that it would be in
        return importlib.util.find_spec(f"test.{suite}") is not None
    return False


# --- a run ---------------------------------------------------------------------------


class Run:
    """A module of tests on one face: started when it is made, over when it has outcomes."""

    def __init__(
        self, module: str, face: str, only: Collection[str] | None = None, limit: float = LIMIT
    ) -> None:
        self._job = {
            "module": module,
            "face": face,
            "only": None if only is None else list(only),
            "excluded": list(reasons("excluded")),
            "limit": limit,
        }
        self._outcomes: Outcomes = {}
        self._place = tempfile.TemporaryDirectory(prefix="run-", ignore_cleanup_errors=True)
        self._folder = Path(self._place.name)
        self._start()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_child()
        self._place.cleanup()

    def outcomes(self) -> Outcomes:
        """How each test ended; waits for it."""
        while not self._is_over():
            self._start()
        return self._outcomes

    def _start(self) -> None:
        job = self._job | {"done": list(self._outcomes)}
        (self._folder / "job").write_text(json.dumps(job))
        with (self._folder / "log").open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-P", HERE / "child.py", self._folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=os.environ | {"TMPDIR": str(self._folder)},
                start_new_session=True,
            )

    def _is_over(self) -> bool:
        """Wait for the child; whether there is nothing left for another."""
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        self._end_child()
        news = self._news()
        if news.pop("", None):  # it came to its end
            self._outcomes |= news
            return True
        running = [name for name, outcome in news.items() if outcome.status == STARTED]
        died = Outcome("died", (self._folder / "log").read_text(errors="replace")[-TAIL:])
        self._outcomes |= news | dict.fromkeys(running or [f"outside of tests, {FACE}"], died)
        return not running

    def _news(self) -> Outcomes:
        events = self._folder / "events"
        lines = events.read_text().splitlines() if events.exists() else []
        events.unlink(missing_ok=True)
        return {name: Outcome(*rest) for name, *rest in map(json.loads, lines)}

    def _end_child(self) -> None:
        """With whatever it has started: its number is its group's, and not free before wait."""
        if self._child.returncode is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


# --- two runs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What a suite says: tests that pass on the stdlib, and all that end otherwise on ours."""

    passing: list[str]
    different: Outcomes
    accepted: Mapping[str, str]
    second: list[str] = field(default_factory=list)  # passed, but not on the first try

    @property
    def unexplained(self) -> Outcomes:
        return {name: o for name, o in self.different.items() if name not in self.accepted}

    @property
    def stale(self) -> list[str]:
        """Accepted without need.  A test that this Python does not have or run may differ."""
        passing = set(self.passing) - set(self.different)
        return [name for name in self.accepted if name in passing]

    @property
    def holds(self) -> bool:
        return bool(self.passing) and not self.unexplained and not self.stale


def compare(stdlib: Outcomes, ours: Outcomes, accepted: Mapping[str, str]) -> Comparison:
    """What passes must pass, what is skipped be skipped, and nothing be on ours alone."""
    passing = [name for name, outcome in stdlib.items() if outcome.status == PASSED]
    skipped = [name for name, outcome in stdlib.items() if outcome.status == SKIPPED]
    alone = [name for name in ours if name not in stdlib]
    different = Outcomes()
    for name in (*passing, *skipped, *alone):
        theirs, other = stdlib.get(name, VANISHED), ours.get(name, VANISHED)
        if other.status != theirs.status:
            detail = other.detail or f"{theirs.status} on the stdlib: {theirs.detail}"
            different[name] = Outcome(other.status, detail)
    return Comparison(passing, different, accepted)


def check(suite: str) -> Comparison:
    """Run a suite of this Python's on both faces."""
    module, accepted = f"test.{suite}", reasons("accepted")
    with Run(module, "socket") as base, Run(module, FACE) as face:
        stdlib, ours = base.outcomes(), face.outcomes()
    wrong = [name for name, o in stdlib.items() if o.status not in (PASSED, SKIPPED)]
    stdlib = again(module, "socket", stdlib, wrong)
    different = compare(stdlib, ours, accepted).unexplained
    comparison = compare(stdlib, again(module, FACE, ours, different), accepted)
    second = [name for name in comparison.passing if name in (*wrong, *different)]
    return replace(comparison, second=[n for n in second if n not in comparison.different])


def again(module: str, face: str, outcomes: Outcomes, names: Collection[str]) -> Outcomes:
    """The outcomes, those of some tests replaced by what they are with nothing beside them."""
    if not names:
        return outcomes
    with Run(module, face, names) as run:
        return {n: o for n, o in outcomes.items() if n not in names} | run.outcomes()


# --- the report ----------------------------------------------------------------------


def told(suite: str, comparison: Comparison, verbose: bool) -> str:
    """A line of the table, and one for each difference below it."""
    lost = [name for name in comparison.passing if name in comparison.different]
    passing = len(comparison.passing)
    lines = [f"{suite:20}{passing:8}{passing - len(lost):14}"]
    lines += [difference(comparison, name, verbose) for name in comparison.different]
    lines += [f"    no longer different: {name}" for name in comparison.stale]
    lines += [f"    passed on the second try: {name}" for name in comparison.second]
    return "\n".join(lines if passing else [*lines, "    nothing passes on the stdlib"])


def difference(comparison: Comparison, name: str, verbose: bool) -> str:
    outcome, reason = comparison.different[name], comparison.accepted.get(name)
    said = outcome.detail.strip() or "-"
    why = f"accepted: {reason}" if reason else said if verbose else said.splitlines()[-1]
    return f"    {outcome.status} {name}\n" + "\n".join(f"        {x}" for x in why.splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=SUITES, metavar="NAME")
    parser.add_argument("-v", "--verbose", action="store_true", help="whole tracebacks")
    arguments = parser.parse_args()
    print(f"{'Python ' + platform.python_version():20}{'stdlib':>8}{FACE:>14}", flush=True)
    hold = []
    for suite in arguments.suite:
        if not is_shipped(suite):
            print(f"{suite:20} skipped: this Python does not ship test.{suite}", flush=True)
            continue
        comparison = check(suite)
        print(told(suite, comparison, arguments.verbose), flush=True)
        hold.append(comparison.holds)
    return 0 if all(hold) else 1


if __name__ == "__main__":
    sys.exit(main())
