"""Many connections: the cost of a message at 1 to 8,000 of which 1 % are active.

In microseconds of the server's CPU.  At 1 and 10 connections one is active: each message is a
turn of the loop of its own; with more, one turn serves several.
"""

from collections.abc import Callable, Iterator, Mapping

from ._programs import Program
from ._rounds import Case, Plan, Rates, Take

SIZE = 100
COUNTS = (1, 10, 100, 1000, 8000)
SUBJECTS = [
    *("aiosock on uvloop", "aiosock on asyncio", "aiosock_sync", "streams on uvloop"),
    *("streams on asyncio", "protocol on uvloop", "trio", "curio", "gevent", "bare epoll"),
]
NO_THREADS = 1000  # connections, beyond which a thread for each is nobody's plan


def costs(plan: Plan, loads: dict[str, Program], servers: Mapping[str, Program]) -> dict[str, Take]:
    def take(name: str) -> Rates:
        cpu = servers[name].cpu()
        done, _ = loads[name].work(plan.seconds)
        return {"us of its CPU a message": servers[name].cpu_since(cpu) / done * 1e6}

    def of(name: str) -> Callable[[], Rates]:
        return lambda: take(name)

    return {name: of(name) for name in loads}


def cases(plan: Plan) -> Iterator[Case]:
    for count in COUNTS[:3] if plan.quick else COUNTS:
        what = f"scale at {count:,} connections"
        if not plan.can_hold(count):
            plan.leave_out(what, "more descriptors than a process may open (RLIMIT_NOFILE)")
            continue
        if count > plan.most:
            plan.leave_out(what, "more than was asked for")
            continue
        names = plan.peers("echo", among=SUBJECTS)
        if count > NO_THREADS and "aiosock_sync" in names:
            names.remove("aiosock_sync")
            plan.leave_out(f"aiosock_sync at {count:,} connections", "it has a thread for each")
        active = max(1, count // 100)
        name = f"{count:,} connection{'s' * (count > 1)}, {active:,} active"
        with plan.loaded("echo", "echo", count, SIZE, active, names=names) as (loads, servers):
            yield Case(name, costs(plan, loads, servers), sense="less", at=count)
