"""Bulk over TCP: received by recv_into 256 KiB, and sent by sendall of 1 MiB.

Where there is no recv_into (streams, protocols, trio, anyio), as much is asked of what there is.
What costs a server little costs the load as much: therefore also for a second of its CPU.
"""

from collections.abc import Iterator

from ._rounds import Case, Plan
from .peers import BATCH

MIB = 1 << 20


def cases(plan: Plan) -> Iterator[Case]:
    with plan.loaded("receive", "pour", size=BATCH) as (loads, servers):
        yield Case("received", plan.rates(loads, "MiB", servers, per=MIB))
    with plan.loaded("send", "drain", size=BATCH) as (loads, servers):
        yield Case("sent", plan.rates(loads, "MiB", servers, per=MIB))
