"""Networks that misbehave as a seed says: proxies on loopback, and listeners that do not accept.

Knows the stdlib's sockets and asyncio's own loop, which runs in a thread of its own; knows
nothing of what is tested through it.

    plan     seeds, how many runs, and the sizes that a seed chooses
    streams  TCP: latency, jitter, bandwidth, slices, stalls, half closes, resets, truncation
    letters  UDP: datagrams that are lost, doubled or overtaken
    thread   the thread in which they run
"""

from .letters import PostOffice, Service
from .plan import RUNS, SEED, replay
from .streams import Proxy, Way, full_backlog

__all__ = ["RUNS", "SEED", "PostOffice", "Proxy", "Service", "Way", "full_backlog", "replay"]
