"""The scheduler's work: follow the attempts that are alive, then admit what fits. Plain code without Ray.

It fetches facts through five ports, asks the core, and sends the answer to the state actor. It remembers nothing that
matters: after a crash the first tick sees the same rows and the same jobs, so starting is recovering.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core import admission, ids, observation, paths, stall
from argus_ray.core.attempts import MAX_REFUSALS, MAX_RESUBMIT_S
from argus_ray.core.lifecycle import Admit, Advance, Change, End, Hold, Note, Reject
from argus_ray.core.model import Attempt, ClusterView, Task
from argus_ray.core.observation import FilesSeen, JobSeen, JobStatus, Stop, Submit, Wait
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.disk.inputs import Findings

log = logging.getLogger(__name__)

#: Between two looks at the metrics files; seconds.
_MAX_WATCH_S = 60.0


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
    async def metrics(self, job_root: str) -> stall.MetricsSeen: ...
    async def forbid_start(self, job_root: str) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """The resolved command of an attempt, stored with it before Ray is called."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


@dataclass
class _Trouble:
    """Failed submissions of one attempt."""

    tries: int = 0
    refusals: int = 0
    again_at: float = 0.0


@dataclass
class Dispatcher:
    state: State
    jobs: Jobs
    files: Files
    #: Ray's view of the cluster, or None when Ray did not answer.
    look_at_cluster: Callable[[], Awaitable[ClusterView | None]]
    #: (task, submission id, job root, folder of the checkpoint to resume from)
    prepare: Callable[[Task, str, str, str | None], Prepared]
    #: What is wrong with the task's inputs now. Never raises.
    check_inputs: Callable[[Task], Awaitable[Findings]]
    #: The newest complete checkpoint of the task's attempts, and of those that it was to resume from. OSError or
    #: TimeoutError: no observation.
    find_checkpoint: Callable[[Task], Awaitable[Checkpoint | None]]
    shared_root: str
    policy: admission.AdmissionPolicy
    clock: Callable[[], float]
    #: Between two admission passes when nothing has changed.
    tick_s: float
    #: After a failed submission; doubles with each one, up to a bound.
    resubmit_s: float = 0.5
    stall_policy: stall.StallPolicy = field(default_factory=stall.StallPolicy)
    view: ClusterView | None = None
    _growth: dict[str, stall.Growth] = field(default_factory=dict)
    #: When the metrics files are looked at next.
    _watch_at: float = 0.0
    _troubles: dict[str, _Trouble] = field(default_factory=dict)
    _passed: tuple[object, float] | None = None
    #: The filesystem hung on a search for a checkpoint: none is begun before then, for each holds up everybody.
    _search_again_at: float = 0.0
    #: Waiting tasks with inputs that could not be used when last looked at, and since when.
    _spoiled: dict[str, float] = field(default_factory=dict)

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
        await self._watch(active, self.view)
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
        marked = False
        if attempt.state is AttemptState.STOPPING or attempt.stop_reason is not None:
            # Before anything else: a submission that is still on its way must find the marker. A disk that refuses
            # it (full, say) is no reason to let the job run on.
            marked = await self._try_to_forbid(attempt)
        job = await self.jobs.look(attempt.submission_id)
        if job.status is JobStatus.UNKNOWN:
            log.warning("Ray did not say how %s is: %s", attempt.submission_id, job.message)
            return False
        if job.status is JobStatus.ABSENT and attempt.state is AttemptState.STOPPING and not marked:
            return False
        files = FilesSeen()
        if job.status in (JobStatus.ABSENT, JobStatus.FAILED):
            files = await self.files.look(attempt.job_root)
        verdict = observation.next_step(attempt, job, files, view.session)
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
            marked = await self._try_to_forbid(attempt)
            if not marked and not known_to_ray:
                return  # without Ray's word, the marker is all that keeps it from starting
        (applied,) = await self.state.apply([end])
        log.info("%s ended: %s %s (stored: %s)", attempt.submission_id, end.outcome.value, end.reason[:200], applied)
        if known_to_ray and applied:
            try:
                await self.jobs.forget(attempt.submission_id)
            except Exception as error:
                # The record only takes space; the result is stored.
                log.info("Ray keeps its record of %s: %s", attempt.submission_id, error)

    async def _try_to_forbid(self, attempt: Attempt) -> bool:
        try:
            await self.files.forbid_start(attempt.job_root)
        except Exception as error:
            log.warning("no cancel marker for %s: %s: %s", attempt.submission_id, type(error).__name__, error)
            return False
        return True

    async def _submit(self, task: Task, attempt: Attempt) -> None:
        key, now = attempt.submission_id, self.clock()
        trouble = self._troubles.setdefault(key, _Trouble())
        if now < trouble.again_at:
            return
        try:
            await self.jobs.submit(task, attempt)
        except Exception as error:
            # Unless Ray refused it, it may have arrived: the next tick asks for this id before it submits again.
            refused = isinstance(error, SubmissionRefused)
            trouble.tries += 1
            trouble.refusals += refused
            trouble.again_at = now + min(MAX_RESUBMIT_S, self.resubmit_s * 2**trouble.tries)
            log.warning("submitting %s (try %d): %s", key, trouble.tries, error)
            if trouble.refusals >= MAX_REFUSALS:
                reason = f"Ray refused the job {trouble.refusals} times: {error}"
                await self._end(attempt, End(key, Outcome.INFRASTRUCTURE, reason[:1000]), known_to_ray=False)
            elif trouble.tries == 1:
                words = "Ray refused the job" if refused else "Ray has not confirmed that it has the job"
                await self.state.apply([Note(task.task_id, f"{words}; trying again", key)])
        else:
            await self.state.apply([Advance(key, running=False, session=self.view.session if self.view else None)])

    def _forget_all_but(self, active: Sequence[Task]) -> None:
        alive = {attempt.submission_id for task in active if (attempt := live_attempt(task))}
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if key in alive}
        self._growth = {key: growth for key, growth in self._growth.items() if key in alive}

    async def _watch(self, active: Sequence[Task], view: ClusterView) -> None:
        """Tell which attempts make no steps. Seldom, since it asks the disk about each one that runs."""
        now = self.clock()
        if now < self._watch_at <= now + _MAX_WATCH_S:
            return
        self._watch_at = now + min(_MAX_WATCH_S, self.stall_policy.after_s / 10)
        pairs = [(task, live) for task in active if (live := live_attempt(task)) and live.state is AttemptState.RUNNING]
        changes = []
        grown = await asyncio.gather(*(self._grown(attempt, now) for _, attempt in pairs))
        for (task, attempt), growth in zip(pairs, grown, strict=True):
            held = view.gpus_of_job.get(attempt.ray_job_id or "", 0.0)
            if growth is not None:
                changes.append(stall.check_stall(attempt, task.gang, growth, held, now, self.stall_policy))
        await self.state.apply([change for change in changes if change is not None])

    async def _grown(self, attempt: Attempt, now: float) -> stall.Growth | None:
        """None: the disk did not say, and nothing follows."""
        if self.stall_policy.after_s <= 0:
            return stall.Growth(0, now)
        key = attempt.submission_id
        try:
            seen = await self.files.metrics(attempt.job_root)
        except Exception as error:
            log.warning("the metrics file of %s was not looked at: %s", key, _words(error))
            self._watch_at = now + _MAX_WATCH_S
            return None
        started_at = now if attempt.started_at is None else attempt.started_at
        growth = self._growth[key] = stall.follow(self._growth.get(key), seen, started_at, now)
        return growth

    # --- admit ----------------------------------------------------------------------------------------------------

    async def _admit(self, active: Sequence[Task]) -> bool:
        """Decide over the whole line. True if anything waits."""
        waiting = await self.state.waiting()
        if not waiting:
            return False
        by_id = {task.task_id: task for task in waiting}
        self._spoiled = {task_id: since for task_id, since in self._spoiled.items() if task_id in by_id}
        # Looked at again: a view that is older than the list of live attempts could show as free what an attempt,
        # missing from the claims since it has ended, still held or was just claiming.
        view = self.view = await self.look_at_cluster()
        if view is None:
            return True
        claims = [claim for task in active if (claim := claim_of(task, view))]
        now = self.clock()
        admits, others = await self._decide(waiting, view, claims, now)
        applied = await self.state.apply([*admits, *others])
        started = [
            self._submit(by_id[admit.task_id], _new_attempt(admit, now))
            for admit, ok in zip(admits, applied, strict=False)
            if ok
        ]
        if started:
            log.info("admitted %d of %d waiting tasks", len(started), len(waiting))
        for result in await asyncio.gather(*started, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a submission failed; the next tick looks again", exc_info=result)
        return True

    async def _decide(
        self, waiting: Sequence[Task], view: ClusterView, claims: list[admission.Claim], now: float
    ) -> tuple[list[Admit], list[Hold | Reject]]:
        """Admissions with their commands. A task that cannot be given one takes no room from the others."""
        found: dict[str, Checkpoint | None] = {}
        stuck: dict[str, Hold | Reject] = {}
        looked_at: set[str] = set()
        while True:
            queue = [task for task in waiting if task.task_id not in stuck]
            decision = admission.decide(queue, view.nodes, claims, now, self.policy)
            fresh = [task for task in decision.admitted if task.task_id not in looked_at]
            stuck |= await self._look_at_inputs(fresh)
            looked_at |= {task.task_id for task in fresh}
            wanted = [task for task in decision.admitted if _may_resume(task) and task.task_id not in found]
            for task, result in zip(wanted, await self._search(wanted, now), strict=True):
                if isinstance(result, BaseException):
                    log.warning("no checkpoint of %s was looked for: %r", task.task_id, result)
                    stuck[task.task_id] = self._stuck(task, f"{_UNKNOWN_CHECKPOINT}: {_words(result)}")
                else:
                    found[task.task_id] = result
            admits = []
            for task in decision.admitted:
                if task.task_id in stuck:
                    continue
                try:
                    admits.append(self._admission(task, found.get(task.task_id)))
                except Exception as error:
                    log.exception("%s cannot be prepared", task.task_id)
                    stuck[task.task_id] = self._stuck(task, f"its command cannot be made any more: {_words(error)}")
            if len(admits) == len(decision.admitted):
                return admits, [*decision.holds, *stuck.values()]

    async def _look_at_inputs(self, tasks: Sequence[Task]) -> dict[str, Hold | Reject]:
        """Those that would fail for certain, since an input was deleted, say, while they waited: held at first, for
        somebody may just be putting it back, and FAILED if it still is so at the time that the hold named."""
        found = await asyncio.gather(*map(self.check_inputs, tasks))
        now, spoiled = self.clock(), dict[str, Hold | Reject]()
        for task, findings in zip(tasks, found, strict=True):
            if not findings.errors:
                self._spoiled.pop(task.task_id, None)
                continue
            words = "; ".join(f"{error.field} {error.rule}" for error in findings.errors)[:1000]
            until = self._spoiled.setdefault(task.task_id, now) + self.policy.retry_interval_s
            if now < until:
                reason = f"its inputs cannot be used, and it fails unless that changes soon: {words}"
                spoiled[task.task_id] = Hold(task.task_id, reason, until, None)
            else:
                spoiled[task.task_id] = Reject(task.task_id, f"its inputs cannot be used: {words}")
        return spoiled

    async def _search(self, tasks: Sequence[Task], now: float) -> list[Checkpoint | BaseException | None]:
        """For each task its checkpoint to resume from, or why that is not known. All at once: they share one bound."""
        if now < self._search_again_at:
            return [TimeoutError(_HUNG) for _ in tasks]
        results = await asyncio.gather(*map(self.find_checkpoint, tasks), return_exceptions=True)
        hung = [isinstance(result, (TimeoutError, asyncio.TimeoutError)) for result in results]
        if any(hung):
            self._search_again_at = self.clock() + self.policy.retry_interval_s
        return [TimeoutError(_HUNG) if late else result for late, result in zip(hung, results, strict=True)]

    def _stuck(self, task: Task, reason: str) -> Hold:
        return Hold(task.task_id, reason[:1000], self.clock() + self.policy.retry_interval_s, None)

    def _admission(self, task: Task, checkpoint: Checkpoint | None) -> Admit:
        number = 1 + max((attempt.number for attempt in task.attempts), default=0)
        submission_id = ids.submission_id(task.task_id, number)
        job_root = paths.job_root(self.shared_root, task.user_id, submission_id)
        prepared = self.prepare(task, submission_id, job_root, checkpoint.path if checkpoint else None)
        note = _resume_note(task, number, checkpoint) if _may_resume(task) else None
        return Admit(task.task_id, number, submission_id, job_root, prepared.command, prepared.env, note)


#: To start from zero in doubt would throw away what may be days of training.
_UNKNOWN_CHECKPOINT = "waits to learn whether an earlier attempt has left a checkpoint"
_HUNG = "the shared filesystem does not answer"


def _may_resume(task: Task) -> bool:
    if task.resume_roots is not None:
        return True
    return any(attempt.outcome is Outcome.INFRASTRUCTURE for attempt in task.attempts)


def _resume_note(task: Task, number: int, checkpoint: Checkpoint | None) -> str:
    own = {attempt.job_root: f"a{attempt.number:02d}" for attempt in task.attempts}
    if checkpoint is not None:
        # The job root of another task's attempt bears its submission id as its name.
        source = own.get(checkpoint.job_root) or checkpoint.job_root.rsplit("/", 1)[-1]
        return f"a{number:02d} resumes from step {checkpoint.step} of {source}"
    if task.resume_roots is None:
        return f"a{number:02d} starts from the beginning: {' and '.join(own.values())} left no complete checkpoint"
    earlier = " and ".join([f"the task {task.resubmitted_from}", *own.values()])
    return f"a{number:02d} starts from the beginning: no complete checkpoint of {earlier} is there"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class SubmissionRefused(Exception):
    """Ray looked at the submission and refused it."""


def live_attempt(task: Task) -> Attempt | None:
    """The attempt of this task that has not ended, if any. There is at most one."""
    return next((attempt for attempt in task.attempts if attempt.state is not AttemptState.ENDED), None)


def claim_of(task: Task, view: ClusterView) -> admission.Claim | None:
    """What the live attempt of this task holds, and how much of it Ray's view does not show yet."""
    attempt = live_attempt(task)
    if attempt is None:
        return None
    seen = view.gpus_of_job.get(attempt.ray_job_id or "", 0.0)
    return admission.Claim(task.gang, max(0, task.gang.nnodes - int(seen // task.gang.gpus_per_node)))


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
