"""The policy of attempts: what the end of one means for its task, and how often a submission is tried. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile

from argus_ray.core import paths
from argus_ray.core.lifecycle import End
from argus_ray.core.model import Attempt, Task
from argus_ray.core.states import Cause, Outcome, TaskState
from argus_ray.core.verl.failures import Failure
from argus_ray.core.verl.files import step_of

#: Definite refusals of one submission by Ray before its attempt counts as lost.
MAX_REFUSALS = 5
#: The longest wait between two submissions of one attempt; seconds.
MAX_RESUBMIT_S = 60.0
_EXHAUSTED_HINT = (
    "The budget of further attempts is spent: read the log of each attempt, and ask the operator what the pool lacks;"
    " resubmit with resume to go on from the newest checkpoint."
)
#: The first wait after a start that never began, and the longest; seconds.
START_AGAIN_S = 5.0
MAX_START_AGAIN_S = 600.0
#: Part of a wait that is added at most, so that not all come back at once.
_JITTER = 0.2
#: Waits double up to this many times: the numbers stay small, however long the trouble lasts.
_MAX_DOUBLINGS = 16


@dataclass(frozen=True)
class RetryPolicy:
    """Budgets of an attempt's end. Seconds, and counts of attempts."""

    #: Attempts that may be lost to infrastructure, without progress between them, before the task is FAILED.
    max_losses: int = 5
    #: Of a task that has no checkpoint: an attempt that has made steps for so long has made progress.
    progress_after_s: float = 14_400.0
    #: After verl's own fit check said no: the first wait; it doubles up to `max_retry_interval_s`.
    retry_interval_s: float = 60.0
    max_retry_interval_s: float = 3600.0
    #: Attempts in a row that may be refused so before the task is FAILED.
    max_refusals: int = 20
    #: Attempts in a row whose program may never begin before the task is FAILED.
    max_failed_starts: int = 50

    @property
    def longest_wait_s(self) -> float:
        """No end of an attempt makes its task wait for longer."""
        longest = max(self.retry_interval_s, self.max_retry_interval_s, MAX_START_AGAIN_S)
        return longest * (1 + _JITTER)


@dataclass(frozen=True)
class Aftermath:
    """Where a task goes when its attempt has ended."""

    state: TaskState
    cause: Cause
    reason: str | None
    losses: int
    #: Unix time.
    not_before: float | None = None
    #: In a row, with this one.
    refusals: int = 0
    #: In a row, with this one: attempts whose program never began.
    failed_starts: int = 0
    #: Why the budget of losses began anew before this one, in words that follow "it".
    progress: str | None = None


def after_end(task: Task, end: End, now: float, policy: RetryPolicy, entropy: float) -> Aftermath:
    """The move of an active task whose attempt has ended. `entropy` in [0, 1) spreads retries (jitter).

    Attempts that were lost or refused go back to the task's old place in the queue, each kind within a budget of its
    own. An end of another kind between two refusals, or two failed starts, starts their budget and their wait anew.
    """
    if end.outcome is Outcome.SUCCEEDED:
        return Aftermath(TaskState.SUCCEEDED, Cause.SUCCEEDED, None, task.losses)
    if end.outcome is Outcome.CANCELED:
        return Aftermath(TaskState.CANCELED, Cause.CANCELED_BY_USER, end.reason, task.losses)
    if end.outcome is Outcome.APPLICATION:
        return Aftermath(TaskState.FAILED, Cause.APPLICATION_FAILURE, end.reason, task.losses)
    if end.outcome is Outcome.INSUFFICIENT_RESOURCES:
        refusals = _in_a_row(task, lambda attempt: attempt.outcome is Outcome.INSUFFICIENT_RESOURCES)
        if refusals >= policy.max_refusals:
            times = f"{refusals + 1} times in a row, and the budget is {policy.max_refusals}"
            reason = f"verl found too few resources {times}: {end.reason}"
            return Aftermath(TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, reason, task.losses, refusals=refusals + 1)
        wait = _spread(_doubled(policy.retry_interval_s, refusals, policy.max_retry_interval_s), entropy)
        return Aftermath(
            TaskState.PENDING_RESOURCES,
            Cause.INSUFFICIENT_RESOURCES,
            end.reason,
            task.losses,
            not_before=now + wait,
            refusals=refusals + 1,
        )
    if end.was_drained:
        # By an order, so it costs the task nothing, not even a wait.
        return Aftermath(TaskState.QUEUED, Cause.INFRASTRUCTURE_LOSS, end.reason, task.losses)
    if end.never_began:
        return _after_failed_start(task, end, now, policy, entropy)
    progress = _progress(task, end, policy)
    losses = 1 if progress is not None else task.losses + 1
    if end.achieved is None:
        # A disk that does not answer must not fail a month of training.
        losses = min(losses, max(task.losses, policy.max_losses))
    elif losses > policy.max_losses:
        reason = f"lost {losses} attempts to infrastructure without progress, and the budget is {policy.max_losses}"
        return Aftermath(
            TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, f"{reason}: {end.reason}", losses, progress=progress
        )
    return Aftermath(TaskState.QUEUED, Cause.INFRASTRUCTURE_LOSS, end.reason, losses, progress=progress)


def _after_failed_start(task: Task, end: End, now: float, policy: RetryPolicy, entropy: float) -> Aftermath:
    """No loss: it waits, and another node may do better."""
    before = _in_a_row(task, lambda attempt: attempt.never_began)
    failed = before + 1
    if failed > policy.max_failed_starts:
        reason = f"its program never began {failed} times in a row, and the budget is {policy.max_failed_starts}"
        return Aftermath(
            TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, f"{reason}: {end.reason}", task.losses, failed_starts=failed
        )
    wait = _spread(_doubled(START_AGAIN_S, before, MAX_START_AGAIN_S), entropy)
    return Aftermath(
        TaskState.QUEUED,
        Cause.INFRASTRUCTURE_LOSS,
        end.reason,
        task.losses,
        not_before=now + wait,
        failed_starts=failed,
    )


def _progress(task: Task, end: End, policy: RetryPolicy) -> str | None:
    """What the lost attempt has achieved since the loss before it; None: nothing that counts.

    What it has saved is what the task goes on from, so where there are checkpoints nothing else counts.
    """
    if end.achieved is None:
        return None
    attempt = next((each for each in task.attempts if each.submission_id == end.submission_id), None)
    before = None if attempt is None else _resumed_step(task, attempt)
    saved = end.achieved.saved_step
    if saved is not None and (before is None or saved > before):
        return f"had saved step {saved}"
    if saved is None and before is None and end.achieved.stepped_s >= policy.progress_after_s:
        return f"had made steps for {end.achieved.stepped_s / 3600:.1f} hours"
    return None


def _resumed_step(task: Task, attempt: Attempt) -> int | None:
    """The step of the checkpoint that its command names."""
    roots = [*(task.resume_roots or ()), *(each.job_root for each in task.attempts)]
    folders = {paths.checkpoints_dir(root) for root in roots}
    for argument in attempt.command:
        folder, _, name = argument.rpartition("=")[2].rpartition("/")
        if folder in folders and (step := step_of(name)) is not None:
            return step
    return None


def _in_a_row(task: Task, is_one: Callable[[Attempt], bool]) -> int:
    """How many of its attempts, until the one that has just ended."""
    ended = (attempt for attempt in reversed(task.attempts) if attempt.outcome is not None)
    return sum(1 for _ in takewhile(is_one, ended))


def _spread(wait: float, entropy: float) -> float:
    return wait * (1 + _JITTER * entropy)


def failure_of(end: End, after: Aftermath) -> Failure | None:
    """What is kept of the log's words: one that ends its task must not promise another attempt."""
    if end.failure is None or after.cause is not Cause.ATTEMPTS_EXHAUSTED:
        return end.failure
    return replace(end.failure, hint=_EXHAUSTED_HINT)


@dataclass(frozen=True)
class SubmitTrouble:
    """The failed submissions of one attempt so far."""

    tries: int = 0
    #: Those that Ray has refused; the others may have arrived.
    refusals: int = 0
    #: Not submitted again before then; on the caller's clock.
    again_at: float = 0.0

    @property
    def is_lost(self) -> bool:
        """Ray has refused it often enough."""
        return self.refusals >= MAX_REFUSALS


def after_failed_submit(trouble: SubmitTrouble, *, refused: bool, now: float, resubmit_s: float) -> SubmitTrouble:
    """One failure more. The wait is twice `resubmit_s` at first, and doubles up to MAX_RESUBMIT_S."""
    tries = trouble.tries + 1
    wait = _doubled(resubmit_s, tries, MAX_RESUBMIT_S)
    return SubmitTrouble(tries, trouble.refusals + refused, now + wait)


def _doubled(seconds: float, times: int, most: float) -> float:
    return min(most, seconds * 2.0 ** min(times, _MAX_DOUBLINGS))
