"""Timeouts that never fire: echo with a timeout for each wait beside the same without any.

On sockets of ours and the stdlib's by settimeout(3600) on every one; elsewhere by what there is
for each wait: asyncio.timeout, trio.fail_after, and so on.  Each subject is compared with itself.
An hour, as a shorter one would fire on connections that idle while others are measured.
"""

from collections.abc import Iterator

from ._rounds import Case, Plan
from .peers import LIMITS

WITHIN = " with timeout"
SIZE = 1024
WAITING = {"10 connections": (10, 10), "2,000 connections, 200 active": (2000, 200)}
NO_THREADS = 200


def cases(plan: Plan) -> Iterator[Case]:
    for name, (connections, active) in list(WAITING.items())[: 1 if plan.quick else None]:
        if not plan.can_hold(connections):
            plan.leave_out(f"timeouts of {name}", "more descriptors than RLIMIT_NOFILE allows")
            continue
        names = plan.peers("echo", "within")
        if connections > NO_THREADS:
            names = [n for n in names if n not in ("aiosock_sync", "stdlib threads")]
        with plan.servers(names, "echo") as free, plan.servers(names, "within") as bound:
            servers = {**free, **{name + WITHIN: server for name, server in bound.items()}}
            servers.pop(LIMITS[1], None)
            with plan.loads(servers, "echo", connections, SIZE, active) as loads:
                pairs = [(name + WITHIN, name) for name in names]
                yield Case(f"echo on {name}", plan.rates(loads, "round trips"), pairs=pairs)
