"""The runs that live: how far each is, by its steps, and what is kept of it once it is over, to foretell others.

What is remembered here is a help, and nothing depends on it: a new scheduler learns it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core import ids
from argus_ray.core.forecast.draw import MIN_SAMPLES
from argus_ray.core.forecast.model import Nature, RunSeen
from argus_ray.core.forecast.nature import nature_of
from argus_ray.core.forecast.pace import Pace, StepsSeen
from argus_ray.core.model import SlimTask, Task
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.scheduler import collector, gently

log = logging.getLogger(__name__)

#: Tasks that are fetched whole at a time: their specs are read once.
_AT_ONCE = 64
#: Runs that are looked at in one pass, those first that were not for longest.
_MAX_LOOKS = 256
#: Between two looks at one run: while something waits, and while nothing does. Seconds.
_LOOK_EVERY_S = 60.0
_IDLE_LOOK_EVERY_S = 600.0
#: What a run still needs is judged by its end only if it was as much. Seconds.
_LEAST_JUDGED_S = 60.0
#: Of so many runs it is known how long they take from their last step to their end; while they are few, it is taken to
#: be so much. Seconds.
_MAX_TAILS, _UNSEEN_TAIL_S = 200, 240.0


class Tasks(Protocol):
    """The state actor."""

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]: ...


#: (job root, whether verl's log should be asked for the number of steps). OSError or TimeoutError: no observation.
Look = Callable[[str, bool], Awaitable[StepsSeen]]


@dataclass
class _Known:
    """Of one attempt."""

    task: SlimTask
    pace: Pace
    nature: Nature | None = None
    looked_at: float = float("-inf")
    #: What was foretold first, and when.
    foretold: tuple[float, float] | None = None


@dataclass
class Runs:
    state: Tasks
    look: Look
    natures: dict[str, Nature] = field(default_factory=dict)
    #: By submission id.
    known: dict[str, _Known] = field(default_factory=dict)
    #: By workload, of runs of late: from the last step to the end. Seconds.
    _tails: dict[str, deque[float]] = field(default_factory=dict)

    async def follow(self, live: Sequence[SlimTask], now: float, *, is_wanted: bool) -> list[tuple[str, RunSeen]]:
        """Looks at the runs; those that are over since the last pass."""
        names = {task.live.submission_id: task for task in live if task.live is not None}
        gone = {name: known for name, known in self.known.items() if name not in names}
        before = len(self.known)
        async for name, task in gently.over(names.items()):
            attempt = task.live
            if attempt is None or attempt.state is not AttemptState.RUNNING:
                continue
            known = self.known.get(name)
            if known is None:
                known = self.known[name] = _Known(task, Pace(attempt.started_at or now))
            known.task = task
        collector.have_come(len(self.known) - before)
        every_s = _LOOK_EVERY_S if is_wanted else _IDLE_LOOK_EVERY_S
        due = [known for name, known in self.known.items() if name in names and now - known.looked_at >= every_s]
        due.sort(key=lambda known: known.looked_at)
        await self.learn_natures([known.task.task_id for known in [*due[:_MAX_LOOKS], *gone.values()]])
        await gently.gather(self._look_at(known, now) for known in due[:_MAX_LOOKS] if known.task.gang.gpus)
        found = await self._ended(gone, now) if gone else []
        for name in gone:
            del self.known[name]
        return found

    async def _look_at(self, known: _Known, now: float) -> None:
        attempt = known.task.live
        if attempt is None:
            return
        known.nature = self.natures.get(known.task.task_id, known.nature)
        if known.nature is not None and known.nature.steps is not None:
            known.pace.total = known.nature.steps
        known.looked_at = now
        try:
            seen = await self.look(attempt.job_root, known.pace.total is None)
        except (OSError, asyncio.TimeoutError) as error:
            log.info("the steps of %s were not looked at: %s", attempt.submission_id, type(error).__name__)
            return
        known.pace.look(seen)
        left = known.pace.left(now)
        if known.foretold is None and isinstance(left, float) and left >= _LEAST_JUDGED_S:
            known.foretold = (now, left)

    async def _ended(self, gone: Mapping[str, _Known], now: float) -> list[tuple[str, RunSeen]]:
        found = []
        names = sorted({known.task.task_id for known in gone.values()})
        for at in range(0, len(names), _AT_ONCE):
            for task in await self.state.tasks(names[at : at + _AT_ONCE]):
                for attempt in task.attempts:
                    known = gone.get(attempt.submission_id)
                    if known is None or attempt.ended_at is None or attempt.used_since is None:
                        continue
                    if attempt.outcome is Outcome.INFRASTRUCTURE:
                        continue  # which says nothing of runs
                    await self._look_at(known, now)
                    is_good = attempt.outcome is Outcome.SUCCEEDED
                    seconds = max(0.0, attempt.ended_at - attempt.used_since)
                    done = 1.0 if is_good else min(0.999, known.pace.done)
                    ratio = None
                    if is_good and known.pace.looks:
                        tails = self._tails.setdefault(ids.workload_of(task.task_id), deque(maxlen=_MAX_TAILS))
                        tails.append(max(0.0, attempt.ended_at - known.pace.looks[-1][0]))
                    if is_good and known.foretold is not None:
                        at_, left = known.foretold
                        ratio = max(0.01, (attempt.ended_at - at_) / left)
                    # One that went on from a checkpoint says nothing of how long a whole run takes.
                    is_whole = attempt.number == 1 and task.resume_roots is None
                    steps = known.pace.total if is_whole else None
                    nature = known.nature or nature_of(task)
                    if is_whole or ratio is not None or not is_good:
                        found.append((attempt.submission_id, RunSeen(nature, seconds, done, steps, ratio)))
        return found

    async def learn_natures(self, task_ids: Sequence[str]) -> None:
        """What does not change is asked for once."""
        wanted = [name for name in dict.fromkeys(task_ids) if name not in self.natures]
        for at in range(0, len(wanted), _AT_ONCE):
            for task in await self.state.tasks(wanted[at : at + _AT_ONCE]):
                self.natures[task.task_id] = nature_of(task)
            await gently.others_first()

    def forget_natures(self, task_ids: Sequence[str]) -> None:
        """All but of these, and of what is followed."""
        if len(self.natures) > 20 * _AT_ONCE + 2 * len(task_ids):
            keep = {known.task.task_id for known in self.known.values()} | set(task_ids)
            self.natures = {name: nature for name, nature in self.natures.items() if name in keep}

    def tail_s(self, workload: str) -> float:
        """How long runs take at most from their last step to their end."""
        tails: Sequence[float] = self._tails.get(workload, ())
        return 1.25 * max([*tails, *([_UNSEEN_TAIL_S] if len(tails) < MIN_SAMPLES else [])])
