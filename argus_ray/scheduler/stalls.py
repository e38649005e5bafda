"""Telling which attempts make no steps. Seldom, since it asks the disk about each one that runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from argus_ray.core import claims, stall
from argus_ray.core.lifecycle import Halt, Stall
from argus_ray.core.model import ClusterView, SlimAttempt, SlimTask
from argus_ray.core.states import AttemptState
from argus_ray.scheduler.ports import Files

log = logging.getLogger(__name__)

#: Between two looks at the metrics files; seconds.
_MAX_PAUSE_S = 60.0


@dataclass
class StallWatch:
    files: Files
    clock: Callable[[], float]
    policy: stall.StallPolicy
    _growth: dict[str, stall.Growth] = field(default_factory=dict)
    _again_at: float = 0.0

    async def watch(self, tasks: Collection[SlimTask], view: ClusterView) -> list[Stall | Halt]:
        """What is new of those that run. Nothing, if the time for the next look has not come."""
        now = self.clock()
        if now < self._again_at <= now + _MAX_PAUSE_S:
            return []
        bounds = [bound for bound in (self.policy.after_s, self.policy.claim_after_s) if bound > 0]
        self._again_at = now + min([_MAX_PAUSE_S, *(bound / 10 for bound in bounds)])
        pairs = [(task, task.live) for task in tasks if task.live and task.live.state is AttemptState.RUNNING]
        grown = await asyncio.gather(*(self._grown(attempt, now) for _, attempt in pairs))
        found: list[Stall | Halt | None] = []
        for (task, attempt), growth in zip(pairs, grown, strict=True):
            if growth is None:
                continue
            held = view.gpus_of_job(attempt.ray_job_id)
            found.append(stall.check_stall(attempt, task.gang, growth, held, now, self.policy))
            if not growth.size:
                found.append(claims.check_claim(attempt, task.gang, view, now, self.policy.claim_after_s))
        return [change for change in found if change is not None]

    def keep_only(self, submission_ids: Collection[str]) -> None:
        """The attempts that are alive."""
        self._growth = {name: growth for name, growth in self._growth.items() if name in submission_ids}

    async def _grown(self, attempt: SlimAttempt, now: float) -> stall.Growth | None:
        """None: the disk did not say, and nothing follows."""
        if self.policy.after_s <= 0 and self.policy.claim_after_s <= 0:
            return stall.Growth(0, now)
        name = attempt.submission_id
        try:
            seen = await self.files.metrics(attempt.job_root)
        except Exception as error:
            log.warning("the metrics file of %s was not looked at: %s: %s", name, type(error).__name__, error)
            self._again_at = now + _MAX_PAUSE_S
            return None
        started_at = now if attempt.started_at is None else attempt.started_at
        growth = self._growth[name] = stall.follow(self._growth.get(name), seen, started_at, now)
        return growth
