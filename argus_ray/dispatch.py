"""The scheduler's work: follow the attempts that are alive, then admit what fits. Plain code without Ray.

It fetches facts through four ports, asks the core, and sends the answer to the state actor. It remembers nothing that
matters: after a crash the first tick sees the same rows and the same jobs, so starting is recovering.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core import ids, observation, paths, scheduler
from argus_ray.core.lifecycle import Admit, Advance, Change, End, Note
from argus_ray.core.model import Attempt, ClusterView, Task
from argus_ray.core.observation import FilesSeen, JobSeen, JobStatus, Stop, Submit, Wait
from argus_ray.core.states import AttemptState, Outcome

log = logging.getLogger(__name__)

#: Definite refusals of one submission by Ray before its attempt counts as lost.
_MAX_REFUSALS = 5


class State(Protocol):
    """The state actor, as the scheduler uses it."""

    async def active(self) -> tuple[Task, ...]: ...
    async def waiting(self) -> tuple[Task, ...]: ...
    async def apply(self, changes: Sequence[Change]) -> list[bool]: ...


class Jobs(Protocol):
    """Ray Jobs. `submit` and `stop` raise on failure; `look` answers UNKNOWN instead."""

    async def submit(self, task: Task, attempt: Attempt) -> None: ...
    async def look(self, submission_id: str) -> JobSeen: ...
    async def stop(self, submission_id: str) -> None: ...
    async def forget(self, submission_id: str) -> None: ...


class Files(Protocol):
    """The attempt's files on the shared filesystem. OSError or TimeoutError: no observation."""

    async def look(self, job_root: str) -> FilesSeen: ...
    async def forbid_start(self, job_root: str) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """The resolved command of an attempt, stored with it before Ray is called."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


@dataclass
class Dispatcher:
    state: State
    jobs: Jobs
    files: Files
    #: Ray's view of the cluster, or None when Ray did not answer.
    look_at_cluster: Callable[[], Awaitable[ClusterView | None]]
    prepare: Callable[[Task, str, str], Prepared]
    shared_root: str
    policy: scheduler.Policy
    clock: Callable[[], float]
    #: Between two admission passes when nothing has changed.
    tick_s: float
    #: After a failed submission; doubles with each one.
    resubmit_s: float = 1.0
    view: ClusterView | None = None
    _refusals: dict[str, int] = field(default_factory=dict)
    _resubmit_at: dict[str, float] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)
    _passed: tuple[object, float] | None = None

    async def tick(self, *, woken: bool = True) -> bool:
        """Follow, then admit. Returns whether anything is alive or waiting, so that the next tick should come soon.

        `woken`: something happened that may let a task start (or this is the first tick).
        """
        self.view = await self.look_at_cluster()
        if self.view is None:
            return True
        active = await self.state.active()
        ended = await self._attend_all(active, self.view)
        if ended:
            active = await self.state.active()
        self._forget_all_but(active)
        # The view must not be older than the list of live attempts: an attempt that has ended since the view was
        # taken would be missing from the claims while its GPUs still look free.
        signature = (self.view.nodes, frozenset(task.task_id for task in active))
        now = self.clock()
        if woken or ended or self._passed is None or self._passed[0] != signature or self._due(now):
            self._passed = (signature, now)
            return await self._admit(active) or bool(active)
        return True

    def _due(self, now: float) -> bool:
        return self._passed is not None and now - self._passed[1] >= self.tick_s

    # --- follow ---------------------------------------------------------------------------------------------------

    async def _attend_all(self, active: Sequence[Task], view: ClusterView) -> bool:
        pairs = [(task, live) for task in active if (live := live_attempt(task)) is not None]
        results = await asyncio.gather(*(self._attend(t, a, view) for t, a in pairs), return_exceptions=True)
        for (_, attempt), result in zip(pairs, results, strict=True):
            if isinstance(result, BaseException):
                # One attempt that cannot be followed now must not stop the others.
                log.error("following %s failed; trying again", attempt.submission_id, exc_info=result)
        return any(result is True for result in results)

    async def _attend(self, task: Task, attempt: Attempt, view: ClusterView) -> bool:
        """Look at one attempt and do what follows. True if it has ended."""
        if attempt.state is AttemptState.STOPPING:
            # Before anything else: a submission that is still on its way must find the marker.
            await self.files.forbid_start(attempt.job_root)
        job = await self.jobs.look(attempt.submission_id)
        if job.status is JobStatus.UNKNOWN:
            log.warning("Ray did not say how %s is: %s", attempt.submission_id, job.message)
            return False
        files = FilesSeen()
        if job.status in (JobStatus.ABSENT, JobStatus.FAILED):
            files = await self.files.look(attempt.job_root)
        verdict = observation.judge(attempt, job, files, view.session)
        match verdict:
            case Wait():
                pass
            case Submit():
                await self._submit(task, attempt)
            case Stop():
                await self.jobs.stop(attempt.submission_id)
            case Advance():
                if _is_news(attempt, verdict):
                    await self.state.apply([verdict])
            case End():
                await self._end(attempt, verdict, known_to_ray=job.status is not JobStatus.ABSENT)
                return True
        return False

    async def _end(self, attempt: Attempt, end: End, *, known_to_ray: bool) -> None:
        if end.outcome in (Outcome.INFRASTRUCTURE, Outcome.CANCELED):
            # Whatever may be left of this attempt on a node that we cannot see ends itself at this marker.
            await self.files.forbid_start(attempt.job_root)
        (applied,) = await self.state.apply([end])
        log.info(
            "%s ended: %s %s (stored: %s)",
            attempt.submission_id,
            end.outcome.value,
            end.reason[:200],
            applied,
        )
        if known_to_ray:
            try:
                await self.jobs.forget(attempt.submission_id)
            except Exception as error:
                # The record only takes space; the result is stored.
                log.info("Ray keeps its record of %s: %s", attempt.submission_id, error)

    async def _submit(self, task: Task, attempt: Attempt) -> None:
        key, now = attempt.submission_id, self.clock()
        if now < self._resubmit_at.get(key, 0.0):
            return
        try:
            await self.jobs.submit(task, attempt)
        except SubmissionRefused as error:
            refusals = self._refusals[key] = self._refusals.get(key, 0) + 1
            self._resubmit_at[key] = now + self.resubmit_s * 2**refusals
            log.warning("Ray refused %s (%d of %d): %s", key, refusals, _MAX_REFUSALS, error)
            if refusals >= _MAX_REFUSALS:
                await self._end(
                    attempt, End(key, Outcome.INFRASTRUCTURE, f"Ray refused it: {error}"), known_to_ray=False
                )
        except Exception as error:
            # It may have arrived all the same: the next tick asks for this id before it submits again.
            self._resubmit_at[key] = now + self.resubmit_s
            log.warning("submitting %s: %s", key, error)
            if self._told.get(key) != str(error):
                self._told[key] = str(error)
                words = f"Ray has not confirmed the submission yet; trying on: {error}"[:500]
                await self.state.apply([Note(task.task_id, words, key)])
        else:
            await self.state.apply([Advance(key, running=False, session=self.view.session if self.view else None)])

    def _forget_all_but(self, active: Sequence[Task]) -> None:
        alive = {attempt.submission_id for task in active if (attempt := live_attempt(task))}
        for memory in (self._refusals, self._resubmit_at, self._told):
            for key in memory.keys() - alive:
                memory.pop(key)

    # --- admit ----------------------------------------------------------------------------------------------------

    async def _admit(self, active: Sequence[Task]) -> bool:
        """Decide over the whole line. True if anything waits."""
        waiting = await self.state.waiting()
        if not waiting:
            return False
        view = self.view = await self.look_at_cluster()
        if view is None:
            return True
        claims = [claim for task in active if (claim := claim_of(task, view))]
        now = self.clock()
        decision = scheduler.decide(waiting, view.nodes, claims, now, self.policy)
        admits = [self._admission(task) for task in decision.admitted]
        applied = await self.state.apply([*admits, *decision.holds])
        started = [
            self._submit(task, _new_attempt(admit, now))
            for task, admit, ok in zip(decision.admitted, admits, applied, strict=False)
            if ok
        ]
        if started:
            log.info("admitted %d of %d waiting tasks", len(started), len(waiting))
        for result in await asyncio.gather(*started, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a submission failed; the next tick looks again", exc_info=result)
        return True

    def _admission(self, task: Task) -> Admit:
        number = 1 + max((attempt.number for attempt in task.attempts), default=0)
        submission_id = ids.submission_id(task.task_id, number)
        job_root = paths.job_root(self.shared_root, task.user_id, submission_id)
        prepared = self.prepare(task, submission_id, job_root)
        return Admit(task.task_id, number, submission_id, job_root, prepared.command, prepared.env)


class SubmissionRefused(Exception):
    """Ray looked at the submission and refused it."""


def live_attempt(task: Task) -> Attempt | None:
    """The attempt of this task that has not ended, if any. There is at most one."""
    return next((attempt for attempt in task.attempts if attempt.state is not AttemptState.ENDED), None)


def claim_of(task: Task, view: ClusterView) -> scheduler.Claim | None:
    """What the live attempt of this task holds, and how much of it Ray's view does not show yet."""
    attempt = live_attempt(task)
    if attempt is None:
        return None
    seen = view.gpus_of_job.get(attempt.ray_job_id or "", 0.0)
    return scheduler.Claim(task.gang, max(0, task.gang.nnodes - int(seen // task.gang.gpus_per_node)))


def _new_attempt(admit: Admit, now: float) -> Attempt:
    return Attempt(
        submission_id=admit.submission_id,
        task_id=admit.task_id,
        number=admit.number,
        state=AttemptState.SUBMITTING,
        created_at=now,
        job_root=admit.job_root,
        command=admit.command,
        env=admit.env,
    )


def _is_news(attempt: Attempt, advance: Advance) -> bool:
    later = [AttemptState.RUNNING] if advance.running else [AttemptState.SUBMITTED, AttemptState.RUNNING]
    facts = ("session", "ray_job_id", "node_id", "node_ip")
    return attempt.state not in later or any(
        getattr(advance, fact) is not None and getattr(advance, fact) != getattr(attempt, fact) for fact in facts
    )
