"""Hostile input at random: each target of tests/fuzz gets the same inputs with every run.

    RUNS=100000 python -m pytest tests/test_fuzz.py

is a longer form, and tests/fuzz/fuzz.py one that looks for inputs by what they reach.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
RUNS = int(os.environ.get("RUNS", 0))
COSTLY = {"tls_client": 60, "tls_server": 60}  # runs: two handshakes, or more, in each

sys.path.insert(1, str(FUZZ))
import targets  # noqa: E402  # found there


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_input_gets_more_than_it_may(name: str) -> None:
    with targets.prepared():
        for data in targets.some_inputs(name, RUNS or COSTLY.get(name, 500)):
            targets.TARGETS[name](data)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed: extra dev"
)
def test_no_input_that_atheris_finds_does(tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ / "fuzz.py"), "every", f"-runs={RUNS or 1000}", "-seed=1"]
    told = subprocess.run(
        [*command, "-verbosity=0", f"-max_total_time={40 + RUNS // 20}"],
        cwd=tmp_path,  # where it would leave the input
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        capture_output=True,
        text=True,
        timeout=120 + RUNS / 10,
    )
    assert told.returncode == 0, told.stdout + told.stderr
