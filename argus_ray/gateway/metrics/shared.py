"""What all comparisons of curves share at one gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.http.turns import Turns


@dataclass
class Comparisons:
    """It belongs to one event loop."""

    #: Apart from those of single curves, which nobody's comparison should hold up.
    threads: BoundedThreads = field(default_factory=lambda: BoundedThreads("argus-comparisons", 2))
    #: One of a user at a time.
    turns: Turns = field(default_factory=lambda: Turns(at_once=1))
    #: Seconds, of one task from when its turn has come: more than a disk that answers takes.
    task_s: float = 4.0
    #: Of a whole call.
    call_s: float = 10.0
