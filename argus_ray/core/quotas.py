"""Quotas: how many GPUs a user may hold at a time. What they do to an overtaking clock: it stands, and runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from argus_ray.core.model import SlimTask
from argus_ray.core.reasons import Code, Reason, because


@dataclass(frozen=True)
class Quotas:
    """GPUs that a user may hold at a time. None: any number."""

    default: int | None = None
    of_user: Mapping[str, int | None] = field(default_factory=dict)

    def limit_of(self, user_id: str) -> int | None:
        return self.of_user.get(user_id, self.default)

    @property
    def are_on(self) -> bool:
        return self.default is not None or any(limit is not None for limit in self.of_user.values())


NO_QUOTAS = Quotas()

#: Reasons that a quota gives.
OF_QUOTAS = frozenset({Code.OVER_QUOTA, Code.QUOTA_TOO_SMALL})
#: Reasons with which the overtaking clock stands; their fact `passed` says where.
CLOCK_STANDS = OF_QUOTAS | {Code.LOW_DISK}


def with_clock_stopped(task: SlimTask, reason: Reason, now: float) -> Reason | None:
    """The reason, with the seconds that the overtaking clock of this task has run, so that it can run on from there.
    None: it stands already, for this reason."""
    if task.overtaken_since is None:
        return reason
    passed = seconds_when_stopped(task)
    if passed is None:
        passed = max(0.0, now - task.overtaken_since)
    stopped = because(reason.code, **dict(reason.facts), passed=passed)
    return None if stopped == task.reason else stopped


def without_clock(reason: Reason) -> Reason:
    return because(reason.code, **{name: fact for name, fact in reason.facts if name != "passed"})


def overtaken_since(task: SlimTask, now: float, since: float) -> float:
    """`since`, but for a clock that has stood: it is as far as it was when it stopped."""
    passed = seconds_when_stopped(task)
    return since if passed is None else now - passed


def seconds_when_stopped(task: SlimTask) -> float | None:
    """How far its overtaking clock had run when it stopped; None: it does not stand."""
    reason = task.reason
    if reason is None or reason.code not in CLOCK_STANDS:
        return None
    passed = dict(reason.facts).get("passed")
    return passed if isinstance(passed, float) else None
