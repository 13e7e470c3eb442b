"""The import: how many milliseconds more than `import asyncio` it takes, in new processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

from ._programs import MEASURED
from ._rounds import Case, Plan, Rates, Take

MODULES = "aiosock aiosock_sync uvloop anyio trio curio gevent".split()
NOTHING_MORE = "asyncio"


def cases(plan: Plan) -> Iterator[Case]:
    names = [name for name in MODULES if find_spec(name) and plan.wants(name)]
    pairs = [(name, NOTHING_MORE) for name in names]
    takes = {name: taking(name) for name in [*names, NOTHING_MORE]}
    yield Case("import", takes, sense="beyond", pairs=pairs)


def taking(module: str) -> Take:
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as anything installed is
    command = [sys.executable, "-c", f"import {module}"]

    def take() -> Rates:
        start = time.perf_counter()
        with subprocess.Popen(command, env=compiled) as process:
            os.sched_setaffinity(process.pid, {MEASURED})
        return {"ms": (time.perf_counter() - start) * 1000}

    return take
