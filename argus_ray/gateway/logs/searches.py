"""What all searches of logs share at one gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from argus_ray.disk.log_search import Budget
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.http.turns import Turns


@dataclass
class Searches:
    """It belongs to one event loop."""

    #: One of a caller at a time, so that nobody takes all threads.
    turns: Turns = field(default_factory=lambda: Turns(at_once=1))
    #: These compute as well, and no log should wait for them.
    threads: BoundedThreads = field(default_factory=lambda: BoundedThreads("argus-searches", 2))
    #: Seconds of one call. A filesystem that hangs must not hang the gateway.
    timeout_s: float = 15.0

    def budget(self) -> Budget:
        """Of a call that begins now."""
        return Budget()
