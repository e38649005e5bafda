"""What all calls for samples share at one gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from argus_ray.disk.rollouts import StepReader
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.http.turns import Turns


@dataclass
class Rollouts:
    """It belongs to one event loop."""

    reader: StepReader = field(default_factory=StepReader)
    turns: Turns = field(default_factory=lambda: Turns(at_once=1))
    #: These compute as well, and no log should wait for them.
    threads: BoundedThreads = field(default_factory=lambda: BoundedThreads("argus-rollouts", 2))
    #: Seconds of one call. A filesystem that hangs must not hang the gateway.
    timeout_s: float = 15.0
