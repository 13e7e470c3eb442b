"""What a run is made from: a seed, which is told when a test fails, and a number of runs.

AIOSOCK_SEED    the seed of every test; without it 0 in a short run, and a new one in a long run
AIOSOCK_RUNS    how many runs of each test: a handful without it, which is the short run
"""

import os
import random
from typing import Final

__all__ = ["RUNS", "SEED", "replay"]

RUNS: Final = int(os.environ.get("AIOSOCK_RUNS", 0))
SEED: Final = int(os.environ.get("AIOSOCK_SEED", random.randrange(10**9) if RUNS else 0))


def replay() -> str:
    """What the report of a failing test shows: how to have the same again."""
    return f"AIOSOCK_SEED={SEED} AIOSOCK_RUNS={RUNS} repeats this run"
