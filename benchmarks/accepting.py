"""Connections of a byte each way, which the server closes; ten at a time.

To connect costs the load about what it costs a server to accept: therefore also for a second
of the server's CPU.
"""

from collections.abc import Iterator

from ._rounds import Case, Plan


def cases(plan: Plan) -> Iterator[Case]:
    with plan.loaded("once", "short", connections=10) as (loads, servers):
        yield Case("accept and close", plan.rates(loads, "connections", servers))
