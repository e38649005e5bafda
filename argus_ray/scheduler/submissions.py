"""Giving attempts to Ray: with a pause after a failure, and an end after too many refusals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from argus_ray.core.attempts import SubmitTrouble, after_failed_submit
from argus_ray.core.lifecycle import Advance, Change, End, Note
from argus_ray.core.model import Attempt, Task
from argus_ray.core.states import Outcome
from argus_ray.scheduler.follow import may_end
from argus_ray.scheduler.ports import Files, Jobs, SubmissionRefused

log = logging.getLogger(__name__)


@dataclass
class Submitter:
    jobs: Jobs
    files: Files
    #: Seconds of a clock that nobody sets.
    monotonic: Callable[[], float]
    #: After a failed submission, in seconds; doubles with each one, up to a bound.
    pause_s: float = 0.5
    _troubles: dict[str, SubmitTrouble] = field(default_factory=dict)

    def may_try(self, submission_id: str) -> bool:
        trouble = self._troubles.get(submission_id)
        return trouble is None or self.monotonic() >= trouble.again_at

    def keep_only(self, submission_ids: Collection[str]) -> None:
        """The attempts that are alive."""
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in submission_ids}

    async def submit(self, wanted: Sequence[tuple[Task, Attempt]], session: str) -> list[Change]:
        """What is to be stored of it. Losing that (in a crash) loses nothing: the next tick asks Ray for each id."""
        results = await asyncio.gather(
            *(self._submit(task, attempt, session) for task, attempt in wanted), return_exceptions=True
        )
        changes = []
        for (_, attempt), result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException):
                log.error("submitting %s failed; the next tick looks again", attempt.submission_id, exc_info=result)
            elif result is not None:
                changes.append(result)
        return changes

    async def _submit(self, task: Task, attempt: Attempt, session: str) -> Change | None:
        name = attempt.submission_id
        try:
            if not attempt.command:
                # The row is odd. Refused as if by Ray, since a new attempt brings a command of its own.
                raise SubmissionRefused("the stored command of the attempt cannot be read")
            await self.jobs.submit(task, attempt)
        except Exception as error:
            return await self._failed(attempt, error)
        self._troubles.pop(name, None)
        return Advance(name, running=False, session=session)

    async def _failed(self, attempt: Attempt, error: Exception) -> Change | None:
        # Unless Ray refused it, it may have arrived: the next tick asks for this id before it submits again.
        name, refused = attempt.submission_id, isinstance(error, SubmissionRefused)
        before = self._troubles.get(name, SubmitTrouble())
        trouble = after_failed_submit(before, refused=refused, now=self.monotonic(), resubmit_s=self.pause_s)
        self._troubles[name] = trouble
        log.warning("submitting %s (try %d): %s", name, trouble.tries, error)
        if trouble.is_lost:
            reason = f"Ray refused the job {trouble.refusals} times: {error}"
            end = End(name, Outcome.INFRASTRUCTURE, reason[:1000])
            return end if await may_end(self.files, attempt, end, known_to_ray=False) else None
        if trouble.tries > 1:
            return None
        words = "Ray refused the job" if refused else "Ray has not confirmed that it has the job"
        return Note(attempt.task_id, f"{words}; trying again", name)
