"""TCP echo: messages of 64 B, 1 KiB and 64 KiB on 1, 10 and 200 connections.

The load sends on each connection, waits for the whole echo, and sends again.  "bare epoll" and
"epoll in C" are no peers but the limits: loops without tasks, which know nothing but this.
"""

from collections.abc import Iterator

from ._rounds import Case, Plan

SIZES = {"64 B": 64, "1 KiB": 1024, "64 KiB": 65536}
CONNECTIONS = (1, 10, 200)


def cases(plan: Plan) -> Iterator[Case]:
    sizes = {"1 KiB": 1024} if plan.quick else SIZES
    with plan.servers(plan.peers("echo"), "echo") as servers:
        for label, size in sizes.items():
            for connections in (10,) if plan.quick else CONNECTIONS:
                with plan.loads(servers, "echo", connections, size) as loads:
                    name = f"{label} on {connections} connection{'s' * (connections > 1)}"
                    yield Case(name, plan.rates(loads, "round trips"))
