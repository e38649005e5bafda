"""The values of a forecast: what it is asked, and what it says. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.forecast.calibration import Widths
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.shares import Use


@dataclass(frozen=True)
class Kind:
    """Runs of one kind take about as long for a step."""

    user_id: str
    workload: str
    model: str
    nnodes: int
    gpus_per_node: int


@dataclass(frozen=True)
class Nature:
    """What a TaskSpec says of how long its run takes."""

    kind: Kind
    #: Of data, code and number of epochs: runs of one recipe make as many steps.
    recipe: str
    steps: int | None


@dataclass(frozen=True)
class RunSeen:
    """A run that is over: what is kept of it, to foretell others."""

    nature: Nature
    seconds: float
    #: Of its steps that were made; 1: it has come to its end.
    done: float
    #: Steps of the whole run; None: not known.
    steps: int | None
    #: What it still took over what was foretold; None: nothing was foretold, or it has not come to its end.
    ratio: float | None = None


@dataclass(frozen=True)
class Odds:
    """Of one workload, from its runs of late."""

    #: Actual over foretold.
    ratios: tuple[float, ...] = ()
    #: How far each has come, the good ones with 1.
    ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class History:
    """What is known of runs that are over."""

    #: The newest ones that have come to their end, of each kind that was asked for.
    runs: Mapping[Kind, tuple[RunSeen, ...]] = field(default_factory=dict)
    #: By workload.
    odds: Mapping[str, Odds] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What lives or waits, and how long it takes from now or from its start."""

    task: SlimTask
    workload: str
    #: Seconds; one of these is drawn. Empty: `why`.
    seconds: tuple[float, ...] = ()
    why: Unknown | None = None
    #: How far it is.
    done: float = 0.0
    #: `seconds` are of others' whole runs, and vary as these do; else they are foretold by its own pace.
    is_by_history: bool = False
    #: Seconds that it may take on top of these, however near its end is.
    slack: float = 0.0
    #: Seconds from its last step to its end, at most.
    tail: float = 0.0
    #: When it is stopped at the latest; it starts once more then.
    deadline: float | None = None


@dataclass(frozen=True)
class Newcomer:
    """What nobody has submitted yet. Its own length makes no difference to its start."""

    user_id: str
    workload: str
    gang: Gang


@dataclass(frozen=True)
class Question:
    now: float
    policy: AdmissionPolicy
    #: With what is free of each by the ledger.
    nodes: tuple[NodeView, ...]
    running: tuple[Run, ...]
    #: The first of the line, in its order.
    waiting: tuple[Run, ...]
    #: What ended runs have used; None: fair share is off.
    used: Mapping[str, Use] | None = None
    odds: Mapping[str, Odds] = field(default_factory=dict)
    draws: int = 100
    #: Part of what waits that is canceled before it starts.
    leaves: float = 0.0
    #: By workload.
    widths: Mapping[str, Widths] = field(default_factory=dict)
    #: The task of which alone it is asked; None: all that wait.
    only: str | None = None


@dataclass(frozen=True)
class Told:
    """Of one task that waits."""

    task_id: str
    start: Range | Unknown
    #: The ends of the range as the futures said, before it was widened.
    played: tuple[float, float] | None = None
