"""Lines of 128 bytes over TCP, read by the readline of a file or of a stream."""

from collections.abc import Iterator

from ._rounds import Case, Plan
from .peers import LINES

LINE = 128


def cases(plan: Plan) -> Iterator[Case]:
    with plan.loaded("lines", "pour", size=LINES * LINE) as (loads, servers):
        yield Case("readline", plan.rates(loads, "lines", servers, per=LINE))
