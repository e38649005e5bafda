"""What all comparisons of curves share at one gateway, and all calls for small ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.http.turns import Turns
from argus_ray.gateway.metrics.curves import CurveReader, Limits


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


@dataclass
class Sparklines:
    """It belongs to one event loop."""

    #: Files of one metric each, so many of them are kept in little room.
    reader: CurveReader = field(default_factory=lambda: CurveReader(Limits(entries=1024, request_s=1.5)))
    threads: BoundedThreads = field(default_factory=lambda: BoundedThreads("argus-sparklines", 2))
    turns: Turns = field(default_factory=lambda: Turns(at_once=1))
    #: Seconds of one call. A filesystem that hangs must not hang the gateway.
    timeout_s: float = 10.0
