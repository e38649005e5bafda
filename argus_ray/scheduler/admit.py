"""Looking at what the chosen tasks start from, and making their admissions.

A task that cannot start now is held until a time of its own, and until then nobody looks at it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from argus_ray.core import ids, paths
from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.lifecycle import Admit, Hold, Reject
from argus_ray.core.model import Task
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.states import Outcome
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.scheduler.ports import Inputs, Prepare

log = logging.getLogger(__name__)

#: Of what is wrong with a task's inputs, in characters.
_MAX_WORDS = 800
#: That are remembered of one another's inputs.
_MAX_LOOKS = 1000
_SO_ARE_MOST = " (so it is for most tasks that were looked at with it, so none of them fails yet)"
_HUNG = "the shared filesystem does not answer"


@dataclass
class Examined:
    """Of the tasks that were looked at, each in one of the two, by task id."""

    admits: dict[str, Admit] = field(default_factory=dict)
    stuck: dict[str, Hold | Reject] = field(default_factory=dict)


@dataclass
class Examiner:
    inputs: Inputs
    prepare: Prepare
    shared_root: str
    policy: AdmissionPolicy
    #: Unix time, for what is stored; and seconds of a clock that nobody sets, for all else.
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    #: After an error of the disk; after a hang, which holds up everybody, it is the policy's interval. Seconds.
    soon_s: float
    #: What the last looks at inputs came to: by task id, when, and whether something was wrong.
    _looks: dict[str, tuple[float, bool]] = field(default_factory=dict)
    #: The filesystem hung on a search for a checkpoint: none is begun before then.
    _search_again_at: float = float("-inf")

    async def examine(self, tasks: Sequence[Task]) -> Examined:
        """All at once: they share the bounds of the looks."""
        found = Examined()
        await self._check_inputs(tasks, found)
        checkpoints = await self._find_checkpoints([task for task in tasks if task.task_id not in found.stuck], found)
        for task in tasks:
            if task.task_id not in found.stuck:
                self._admit(task, checkpoints.get(task.task_id), found)
        return found

    async def _check_inputs(self, tasks: Sequence[Task], found: Examined) -> None:
        """Those that would fail for certain, since an input was deleted, say, while they waited: held at first, for
        somebody may just be putting it back, and FAILED if it still is so when the time comes that the hold named.

        So many that fail at once are no accident of theirs: a filesystem below the root of the inputs is away, or is
        just being filled. Then none of them fails. An export has nothing there: it says nothing of others, nor they
        of it."""
        findings = list(zip(tasks, await asyncio.gather(*map(self.inputs.check, tasks)), strict=True))
        of_inputs = [(task, seen) for task, seen in findings if task.export is None and not seen.unknown]
        are_most = self._are_most([(task.task_id, bool(seen.errors)) for task, seen in of_inputs])
        for task, seen in findings:
            what = "; ".join(f"{error.field} {error.rule}" for error in seen.errors)[:_MAX_WORDS]
            if seen.unknown:
                self._hold(task, because(Code.INPUTS_UNKNOWN, error=seen.unknown), self.policy.retry_interval_s, found)
            elif seen.errors and _was_bad(task) and not (are_most and task.export is None):
                found.stuck[task.task_id] = Reject(task.task_id, f"its inputs cannot be used: {what}")
            elif seen.errors:
                more = _SO_ARE_MOST if _was_bad(task) else ""
                self._hold(task, because(Code.BAD_INPUTS, what=what + more), self.policy.retry_interval_s, found)

    def _are_most(self, looks: Sequence[tuple[str, bool]]) -> bool:
        """Whether something is wrong with more than one and more than half, of these or of all that were looked at of
        late: where room for one task is free, each of a hundred is looked at alone."""
        now = self.monotonic()
        kept_s = 2 * self.policy.retry_interval_s  # the look before this one, of each that was held
        for name, is_bad in looks:
            self._looks.pop(name, None)  # the newest ones stand last
            self._looks[name] = (now, is_bad)
        young = [item for item in self._looks.items() if now - item[1][0] < kept_s]
        self._looks = dict(young[-_MAX_LOOKS:])
        return any(
            sum(bad) > 1 and 2 * sum(bad) > len(bad)
            for bad in ([is_bad for _, is_bad in looks], [is_bad for _, is_bad in self._looks.values()])
        )

    async def _find_checkpoints(self, tasks: Sequence[Task], found: Examined) -> Mapping[str, Checkpoint | None]:
        wanted = [task for task in tasks if _may_resume(task)]
        if not wanted:
            return {}
        if self.monotonic() < self._search_again_at:
            results: Sequence[Checkpoint | BaseException | None] = [TimeoutError() for _ in wanted]
        else:
            results = await asyncio.gather(*map(self.inputs.find_checkpoint, wanted), return_exceptions=True)
            if any(_is_hang(result) for result in results):
                self._search_again_at = self.monotonic() + self.policy.retry_interval_s
        checkpoints = {}
        for task, result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException):
                log.warning("no checkpoint of %s was looked for: %r", task.task_id, result)
                error = f"TimeoutError: {_HUNG}" if _is_hang(result) else _words(result)
                pause_s = self._search_again_at - self.monotonic() if _is_hang(result) else self.soon_s
                self._hold(task, because(Code.CHECKPOINT_UNKNOWN, error=error), pause_s, found)
            else:
                checkpoints[task.task_id] = result
        return checkpoints

    def _admit(self, task: Task, checkpoint: Checkpoint | None, found: Examined) -> None:
        number = 1 + max((attempt.number for attempt in task.attempts), default=0)
        submission_id = ids.submission_id(task.task_id, number)
        try:
            job_root = paths.job_root(self.shared_root, task.user_id, submission_id)
            prepared = self.prepare(task, submission_id, job_root, checkpoint.path if checkpoint else None)
        except Exception as error:
            log.exception("%s cannot be prepared", task.task_id)
            self._hold(task, because(Code.NO_COMMAND, error=_words(error)), self.policy.retry_interval_s, found)
            return
        note = _resume_note(task, number, checkpoint) if _may_resume(task) else None
        found.admits[task.task_id] = Admit(
            task.task_id, number, submission_id, job_root, prepared.command, prepared.env, note
        )

    def _hold(self, task: Task, reason: Reason, pause_s: float, found: Examined) -> None:
        found.stuck[task.task_id] = Hold(task.task_id, reason, self.clock() + pause_s, task.overtaken_since)


def _was_bad(task: Task) -> bool:
    return isinstance(task.reason, Reason) and task.reason.code is Code.BAD_INPUTS


def _may_resume(task: Task) -> bool:
    if task.export is not None:  # each attempt makes it anew
        return False
    if task.resume_roots is not None:
        return True
    return any(attempt.outcome is Outcome.INFRASTRUCTURE for attempt in task.attempts)


def _resume_note(task: Task, number: int, checkpoint: Checkpoint | None) -> str:
    own = {attempt.job_root: attempt.label for attempt in task.attempts}
    label = ids.attempt_label(number)
    if checkpoint is not None:
        source = own.get(checkpoint.job_root) or ids.submission_of(checkpoint.job_root)
        return f"{label} resumes from step {checkpoint.step} of {source}"
    if task.resume_roots is None:
        return f"{label} starts from the beginning: {' and '.join(own.values())} left no complete checkpoint"
    earlier = " and ".join([f"the task {task.resubmitted_from}", *own.values()])
    return f"{label} starts from the beginning: no complete checkpoint of {earlier} is there"


def _is_hang(result: object) -> bool:
    return isinstance(result, (TimeoutError, asyncio.TimeoutError))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
