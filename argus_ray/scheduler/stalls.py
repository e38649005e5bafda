"""Telling which attempts make no steps. Seldom, since it asks the disk about each one that runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from argus_ray.core import claims, stall
from argus_ray.core.lifecycle import Halt, Stall
from argus_ray.core.model import ClusterView, SlimAttempt, SlimTask
from argus_ray.core.states import AttemptState
from argus_ray.scheduler import gently
from argus_ray.scheduler.ports import Files

log = logging.getLogger(__name__)

#: Between two looks at the metrics files; seconds.
_MAX_PAUSE_S = 60.0


@dataclass
class _Watch:
    """What this scheduler has seen of one attempt. Times by the monotonic clock."""

    #: Since when it has seen the attempt run, and its file not grow.
    quiet_since: float
    #: It was seen before it ran, so all of its run was seen.
    is_whole: bool
    growth: stall.Growth | None = None
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.quiet_since


@dataclass
class StallWatch:
    files: Files
    #: Unix time, as in what is stored and told; and seconds of a clock that nobody sets, by which all is measured.
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    policy: stall.StallPolicy
    _watches: dict[str, _Watch] = field(default_factory=dict)
    _again_at: float = float("-inf")

    async def watch(self, tasks: Collection[SlimTask], view: ClusterView) -> list[Stall | Halt]:
        """What is new of those that run. Nothing, if the time for the next look has not come."""
        now = self.monotonic()
        # Without a GPU nothing is trained, so no steps are made: an export.
        pairs = [(task, task.live) for task in tasks if task.live and task.gang.gpus and self._runs(task.live, now)]
        if now < self._again_at:
            return []
        bounds = [bound for bound in (self.policy.after_s, self.policy.claim_after_s) if bound > 0]
        self._again_at = now + min([_MAX_PAUSE_S, *(bound / 10 for bound in bounds)])
        wall = self.clock()
        grown = await gently.gather(self._grown(attempt, now, wall) for _, attempt in pairs)
        found: list[Stall | Halt | None] = []
        async for (task, attempt), growth in gently.over(zip(pairs, grown, strict=True)):
            if isinstance(growth, BaseException):
                raise growth
            if growth is None:
                continue
            held = view.gpus_of_job(attempt.ray_job_id)
            watched_s = now - self._watches[attempt.submission_id].quiet_since
            told = replace(growth, at=wall - (now - growth.at))
            found.append(stall.check_stall(attempt, task.gang, told, held, wall, self.policy, watched_s=watched_s))
            if not growth.size:
                found.append(claims.check_claim(attempt, task.gang, view, watched_s, self.policy.claim_after_s))
        return [change for change in found if change is not None]

    def keep_only(self, submission_ids: Collection[str]) -> None:
        """The attempts that are alive."""
        self._watches = {name: watch for name, watch in self._watches.items() if name in submission_ids}

    def stepped_s(self, submission_id: str, told_s: float) -> float:
        """For how long an attempt has made steps. `told_s`: by stored times and those of files, which may be wrong;
        what this scheduler has seen itself bounds it on both sides."""
        watch = self._watches.get(submission_id)
        if watch is None or not watch.is_whole:
            return told_s
        seen_s = watch.growth.at - watch.began if watch.growth is not None and watch.growth.size else 0.0
        return min(max(told_s, seen_s), self.monotonic() - watch.began)

    def _runs(self, attempt: SlimAttempt, now: float) -> bool:
        """Also notes since when."""
        runs = attempt.state is AttemptState.RUNNING
        if not runs:
            self._watches[attempt.submission_id] = _Watch(now, is_whole=True)
        elif attempt.submission_id not in self._watches:
            self._watches[attempt.submission_id] = _Watch(now, is_whole=False)
        return runs

    async def _grown(self, attempt: SlimAttempt, now: float, wall: float) -> stall.Growth | None:
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
        watch = self._watches[name]
        known, began = watch.growth, watch.quiet_since
        if known is None:
            # A scheduler that has just begun has only stored times and those of files to go by. They may be wrong, so
            # nothing is stopped for them.
            if not watch.is_whole and attempt.started_at is not None:
                began = min(now, now - (wall - attempt.started_at))
            seen = replace(seen, modified_at=now - (wall - seen.modified_at))
        elif seen.size > known.size:
            watch.quiet_since = now
        watch.growth = stall.follow(known, seen, began, now)
        return watch.growth
