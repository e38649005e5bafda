"""The reserve: what of the shared filesystem logs and new tasks leave to the database. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from argus_ray.core.decision import OWN_TROUBLES
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import SlimTask
from argus_ray.core.quotas import OF_QUOTAS, with_clock_stopped
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.states import TaskState
from argus_ray.core.text import size_words


@dataclass(frozen=True)
class Space:
    """What is free where there is least of it, in bytes."""

    free: int
    #: The folder that was looked at.
    at: str
    #: Of its filesystem, in bytes.
    size: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LowDisk:
    """Less than the reserve was free, and not enough is free again yet."""

    #: Unix time.
    since: float
    reserve: int
    #: At the last look.
    space: Space

    @property
    def until(self) -> int:
        return enough(self.reserve)

    def reason(self) -> Reason:
        """It does not change with what is free: each task that waits has it stored."""
        return because(Code.LOW_DISK, reserve=self.reserve, until=self.until)

    def words(self) -> str:
        free, reserve, until = size_words(self.space.free), size_words(self.reserve), size_words(self.until)
        return (
            f"{free} free at {self.space.at}, and the reserve is {reserve}: "
            f"nothing starts, and logs do not grow, until {until} are free"
        )


def enough(reserve: int) -> int:
    """Bytes that must be free again: more than the reserve, so that nothing starts and stops with each file."""
    return reserve + max(1, reserve // 10)


def judge(old: LowDisk | None, seen: Space | None, reserve: int, now: float) -> LowDisk | None:
    """What follows from a look; None: there is enough, as far as is known. `seen` None: the disk did not say, which
    changes nothing. `reserve` 0: there is none."""
    if not reserve:
        return None
    if seen is None:
        return old
    if old is None:
        return LowDisk(now, reserve, seen) if seen.free < reserve else None
    return LowDisk(old.since, reserve, seen) if seen.free < enough(reserve) else None


def holds(waiting: Iterable[SlimTask], low: LowDisk, now: float) -> Iterator[Hold]:
    """What is new of the tasks that wait: their reason. Those that could not start anyhow keep their own, and nobody is
    overtaken meanwhile, so the clocks of that stand."""
    reason = low.reason()
    for task in waiting:
        old = task.reason
        if task.is_early(now) or (old is not None and old.code in _KEPT):
            continue
        if old == reason and task.state is TaskState.PENDING_RESOURCES:
            continue
        new = with_clock_stopped(task, reason, now)
        if new is not None:
            yield Hold(task.task_id, new, None, task.overtaken_since)


_KEPT = OWN_TROUBLES | OF_QUOTAS
