"""Where a message's time goes: what of it is Python's, what the kernel's; calls and instructions.

The echo of 1 KiB on 10 connections again, but here a server is watched:

- time: its CPU a message, split as the kernel splits it.  What a bare loop in C needs is the
  kernel's part of everybody; what one in Python needs beyond is the least that Python costs.
- system calls: told by strace(1).  "beside the waits" leaves out those in which a loop waits, since
  one of them serves as many messages as have come.
- instructions: told by callgrind, of valgrind(1), which knows nothing of the kernel's.  Counted for
  two runs, so that the start of the program is in neither.  They hardly change from day to day.

Not among the groups that are measured unless told: strace and valgrind make it slow.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ._programs import Program, Server
from ._rounds import Case, Plan, Rates, Take
from .peers import LIMITS, PEERS, command

SIZE, CONNECTIONS = 1024, 10
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")
TICKS = 20  # of 10 ms, in which the kernel counts the two parts of a program's time
SLOWER = 50  # times that callgrind makes a program
SETTLE = 0.5  # seconds until strace is attached


def cases(plan: Plan) -> Iterator[Case]:
    names = plan.peers("echo")
    with plan.loaded("echo", "echo", CONNECTIONS, SIZE, names=names) as (loads, servers):
        yield Case("time", _each(loads, servers, plan.seconds * TICKS, _split), "less", once=True)
        if strace := _found(plan, "strace"):
            takes = _each(loads, servers, plan.seconds, lambda *it: _system_calls(strace, *it))
            yield Case("system calls", takes, "less", once=True)
    if valgrind := _found(plan, "valgrind"):
        takes = {
            name: _instructions(plan, valgrind, name)
            for name in (*names, LIMITS[1])
            if plan.wants(name) and PEERS.get(name) != PEERS["stdlib threads"]
        }
        yield Case("instructions", takes, "less", once=True)


Watch = Callable[[Server, Callable[[], float]], Rates]  # while a number of messages is done


def _each(
    loads: dict[str, Program], servers: dict[str, Server], seconds: float, watch: Watch
) -> dict[str, Take]:
    def take(name: str) -> Rates:
        return watch(servers[name], lambda: loads[name].work(seconds)[0])

    return {name: lambda name=name: take(name) for name in loads}  # type: ignore[misc]  # mypy infers no lambda with defaults


def _found(plan: Plan, tool: str) -> str | None:
    path = shutil.which(tool)
    if path is None:
        plan.leave_out(f"what {tool} counts", "it is not installed")
    return path


# --- time --------------------------------------------------------------------------------


def _split(server: Server, work: Callable[[], float]) -> Rates:
    cpu, before = server.cpu(), _ticks(server)
    messages = work()
    spent, ticks = (
        server.cpu_since(cpu),
        [b - a for a, b in zip(before, _ticks(server), strict=True)],
    )
    share = ticks[1] / max(1, sum(ticks))
    return {
        "us of its CPU": spent / messages * 1e6,
        "us of it in the kernel": spent / messages * 1e6 * share,
        "us of it outside": spent / messages * 1e6 * (1 - share),
    }


def _ticks(server: Server) -> list[int]:
    """Of user's and of system's time; see proc(5)."""
    stat = Path(f"/proc/{server.process.pid}/stat").read_text()
    return [int(field) for field in stat.rpartition(")")[2].split()[11:13]]


# --- system calls ------------------------------------------------------------------------


def _system_calls(strace: str, server: Server, work: Callable[[], float]) -> Rates:
    with tempfile.NamedTemporaryFile("r") as told:
        words = [strace, "-f", "-c", "-o", told.name, "-p", str(server.process.pid)]
        tracing = subprocess.Popen(words, stderr=subprocess.PIPE)
        time.sleep(SETTLE)
        messages = work()
        tracing.terminate()
        _, said = tracing.communicate()
        counts = _counts(told.read())
    if not counts:
        raise RuntimeError(f"strace tells nothing: {said.decode().strip()}")
    others = sum(count for name, count in counts.items() if name not in WAITS)
    return {
        "system calls a message": sum(counts.values()) / messages,
        "of them beside the waits": others / messages,
    }


def _counts(table: str) -> dict[str, int]:
    """How often each was made, of what ``strace -c`` tells."""
    rows = [line.split() for line in table.splitlines()]
    return {
        row[-1]: int(row[3])
        for row in rows
        if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"
    }


# --- instructions ------------------------------------------------------------------------


def _instructions(plan: Plan, valgrind: str, name: str) -> Take:
    def take() -> Rates:
        (few, before), (many, after) = (
            _counted(plan, valgrind, name, plan.seconds * SLOWER * times) for times in (0.1, 1)
        )
        return {"instructions a message": (after - before) / (many - few)}

    return take


def _counted(plan: Plan, valgrind: str, name: str, seconds: float) -> tuple[float, int]:
    """How many messages a server echoed until it ended, and of how many instructions."""
    in_c = plan.tools.program("limit")
    words = [in_c, "echo"] if name == LIMITS[1] and in_c else command(name, "echo")
    with ExitStack() as stack:
        told = Path(stack.enter_context(tempfile.TemporaryDirectory()), "told")
        counting = ["--tool=callgrind", f"--callgrind-out-file={told}", "--quiet"]
        server = stack.enter_context(Server(valgrind, *counting, *words)).started()
        asked: tuple[Any, ...] = ("echo", CONNECTIONS, CONNECTIONS, SIZE, False)
        load = stack.enter_context(plan.tools.load(server, *asked))
        load.hear()
        messages, _ = load.work(seconds)
        server.process.terminate()
        server.process.wait()
        return messages, _total(told.read_text())


def _total(told: str) -> int:
    return sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("totals:"))
