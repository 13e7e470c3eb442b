"""What a socket weighs: the figure that the docs give, from the command they name."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_idle_socket_takes_at_most_two_kib_beyond_the_stdlib_socket() -> None:
    command = [sys.executable, "-m", "benchmarks.memory"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    weights = {line.split(", ")[1]: int(line.split()[0]) for line in told.stdout.splitlines()}
    assert 0 < weights["fresh"] <= weights["idle after a wait"] <= 2048
    assert weights["a task waits in recv"] > weights["idle after a wait"]
