"""What the end of an attempt means for its task, and how often a submission is tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.attempts import (
    MAX_REFUSALS,
    MAX_RESUBMIT_S,
    RetryPolicy,
    SubmitTrouble,
    after_end,
    after_failed_submit,
    failure_of,
)
from argus_ray.core.lifecycle import Achieved, End
from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import ACTIVE, AttemptState, Cause, Outcome, TaskState, check_move
from argus_ray.core.verl.failures import Failure

POLICY = RetryPolicy(max_losses=2, retry_interval_s=60, max_retry_interval_s=600, max_refusals=2000)
NOW = 1000.0


def task(losses: int = 0, refusals: int = 0, state: TaskState = TaskState.RUNNING) -> Task:
    attempts = tuple(
        Attempt(f"t--a{n:02d}", "t", n, AttemptState.ENDED, 0, "/x", outcome=Outcome.INSUFFICIENT_RESOURCES)
        for n in range(1, refusals + 1)
    )
    return Task("t", "u", 1, "sft", state, Gang(1, 1, 1), "", 0, 0, losses=losses, attempts=attempts)


def end(outcome: Outcome, reason: str = "why") -> End:
    return End("t--a01", outcome, reason)


def test_success() -> None:
    after = after_end(task(losses=1), end(Outcome.SUCCEEDED), NOW, POLICY, 0)
    assert (after.state, after.reason, after.losses) == (TaskState.SUCCEEDED, None, 1)


def test_an_application_failure_is_final_and_says_why() -> None:
    after = after_end(task(), end(Outcome.APPLICATION, "exit code 1"), NOW, POLICY, 0)
    assert (after.state, after.cause, after.reason) == (
        TaskState.FAILED, Cause.APPLICATION_FAILURE, "exit code 1",
    )  # fmt: skip


def test_losses_spend_the_budget() -> None:
    for losses in (0, 1):
        after = after_end(task(losses), end(Outcome.INFRASTRUCTURE), NOW, POLICY, 0)
        assert (after.state, after.losses, after.not_before) == (TaskState.QUEUED, losses + 1, None)
    after = after_end(task(2), end(Outcome.INFRASTRUCTURE), NOW, POLICY, 0)
    assert (after.state, after.cause, after.losses) == (TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, 3)
    assert "why" in (after.reason or "")


def test_a_budget_of_none_fails_at_the_first_loss() -> None:
    after = after_end(task(), end(Outcome.INFRASTRUCTURE), NOW, RetryPolicy(max_losses=0), 0)
    assert after.state is TaskState.FAILED


@pytest.mark.parametrize(("refusals", "wait"), [(0, 60), (1, 120), (2, 240), (3, 480), (4, 600), (1000, 600)])
def test_refusals_wait_longer_each_time_and_spend_no_budget(refusals: int, wait: float) -> None:
    after = after_end(task(2, refusals), end(Outcome.INSUFFICIENT_RESOURCES), NOW, POLICY, 0)
    assert (after.state, after.losses) == (TaskState.PENDING_RESOURCES, 2)
    assert after.not_before == NOW + wait


def tried(*outcomes: Outcome, losses: int = 0) -> Task:
    """Its last attempt is the one that has just ended."""
    ended = [
        Attempt(f"t--a{n:02d}", "t", n, AttemptState.ENDED, 0, "/x", outcome=outcome)
        for n, outcome in enumerate(outcomes, start=1)
    ]
    number = len(ended) + 1
    live = Attempt(f"t--a{number:02d}", "t", number, AttemptState.RUNNING, 0, "/x")
    return replace(task(losses), attempts=(*ended, live))


REFUSED, LOST = Outcome.INSUFFICIENT_RESOURCES, Outcome.INFRASTRUCTURE


def test_refusals_in_a_row_have_a_budget_of_their_own() -> None:
    policy = replace(POLICY, max_refusals=3)
    for before in range(3):
        after = after_end(tried(*[REFUSED] * before), end(REFUSED), NOW, policy, 0)
        assert (after.state, after.refusals) == (TaskState.PENDING_RESOURCES, before + 1)
    after = after_end(tried(*[REFUSED] * 3), end(REFUSED, "4 < 8"), NOW, policy, 0)
    assert (after.state, after.cause, after.losses, after.not_before) == (
        TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, 0, None,
    )  # fmt: skip
    assert after.reason == "verl found too few resources 4 times in a row, and the budget is 3: 4 < 8"


def test_a_loss_between_starts_the_refusals_and_their_wait_anew() -> None:
    policy = replace(POLICY, max_refusals=3)
    after = after_end(tried(REFUSED, REFUSED, REFUSED, LOST, losses=1), end(REFUSED), NOW, policy, 0)
    assert (after.state, after.refusals, after.not_before) == (TaskState.PENDING_RESOURCES, 1, NOW + 60)
    after = after_end(tried(REFUSED, LOST, REFUSED, losses=1), end(REFUSED), NOW, policy, 0)
    assert (after.refusals, after.not_before) == (2, NOW + 120)


def test_a_budget_of_no_refusals_fails_at_the_first() -> None:
    after = after_end(tried(), end(REFUSED), NOW, replace(POLICY, max_refusals=0), 0)
    assert (after.state, after.cause) == (TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED)


def resumed(step: int | None, achieved: Achieved | None, losses: int) -> tuple[Task, End]:
    """Its second attempt, which resumed from that step of the first one, was lost."""
    task = tried(LOST, losses=losses)
    roots = ("/users/u/jobs/t--a01", "/users/u/jobs/t--a02")
    first, second = (replace(each, job_root=root) for each, root in zip(task.attempts, roots, strict=True))
    argument = () if step is None else (f"trainer.resume_from_path={roots[0]}/checkpoints/global_step_{step}",)
    # A model may be somebody's checkpoint, and is none of the task's.
    second = replace(second, command=("run", "model.path=/private/common/checkpoints/global_step_900", *argument))
    return replace(task, attempts=(first, second)), End("t--a02", LOST, "why", achieved=achieved)


@pytest.mark.parametrize(
    ("step", "achieved", "losses"),
    [
        (None, Achieved(), 3),
        (None, Achieved(10), 1),
        (None, Achieved(None, 3599), 3),
        (None, Achieved(None, 3600), 1),
        (40, Achieved(), 3),
        (40, Achieved(41), 1),
        (40, Achieved(40), 3),  # saved again, as after a step that was repeated
        (40, Achieved(30, 99_999), 3),
        (40, Achieved(None, 99_999), 3),  # it never comes to the next checkpoint
    ],
)
def test_progress_starts_the_budget_of_losses_anew(step: int | None, achieved: Achieved, losses: int) -> None:
    policy = replace(POLICY, progress_after_s=3600)
    task, last = resumed(step, achieved, losses=2)
    after = after_end(task, last, NOW, policy, 0)
    assert (after.losses, after.state) == (losses, TaskState.FAILED if losses > 2 else TaskState.QUEUED)
    assert (after.progress is None) == (losses != 1)


@pytest.mark.parametrize(("before", "losses"), [(0, 1), (1, 2), (2, 2), (3, 3)])
def test_what_the_disk_does_not_say_fails_nobody(before: int, losses: int) -> None:
    # Three of two: the settings have changed since.
    after = after_end(*resumed(40, None, before), NOW, POLICY, 0)
    assert (after.state, after.losses) == (TaskState.QUEUED, losses)


@pytest.mark.parametrize("outcome", [REFUSED, LOST])
def test_a_hint_promises_no_attempt_that_does_not_come(outcome: Outcome) -> None:
    why = Failure("node_lost", "it has died", "Nothing to do: a new attempt follows.")
    last = End("t--a01", outcome, "why", 1, why)
    policy = RetryPolicy(max_losses=1, max_refusals=1)
    goes_on = after_end(tried(), last, NOW, policy, 0)
    assert failure_of(last, goes_on) == why
    over = after_end(tried(outcome, losses=1), last, NOW, policy, 0)
    assert over.state is TaskState.FAILED
    kept = failure_of(last, over)
    assert kept is not None and (kept.code, kept.line) == (why.code, why.line)
    assert "Nothing to do" not in kept.hint and kept.hint.endswith(".")


def test_jitter_spreads_retries_by_a_fifth() -> None:
    after = after_end(task(), end(Outcome.INSUFFICIENT_RESOURCES), NOW, POLICY, 0.999)
    assert NOW + 60 < (after.not_before or 0) < NOW + 72


def test_a_job_that_was_stopped_from_outside_is_canceled() -> None:
    after = after_end(task(), end(Outcome.CANCELED), NOW, POLICY, 0)
    assert after.state is TaskState.CANCELED


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_every_end_is_a_legal_move(outcome: Outcome, state: TaskState) -> None:
    for losses in (0, 100):
        after = after_end(task(losses, state=state), end(outcome), NOW, POLICY, 0.5)
        check_move(state, after.state, after.cause)


def fail(trouble: SubmitTrouble, *, refused: bool = False, now: float = NOW) -> SubmitTrouble:
    return after_failed_submit(trouble, refused=refused, now=now, resubmit_s=0.5)


def test_a_failed_submission_is_tried_again_later_and_later() -> None:
    trouble, waits = SubmitTrouble(), []
    for _ in range(9):
        trouble = fail(trouble)
        waits.append(trouble.again_at - NOW)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (trouble.tries, trouble.is_lost) == (9, False), "it may have arrived each time"


def test_a_ray_that_does_not_answer_for_weeks_is_asked_once_a_minute() -> None:
    trouble = SubmitTrouble()
    for minute in range(30_000):
        trouble = fail(trouble, now=60.0 * minute)
    assert trouble.again_at == 60.0 * 29_999 + MAX_RESUBMIT_S


def test_only_refusals_lose_the_attempt() -> None:
    trouble = fail(SubmitTrouble())
    for number in range(1, MAX_REFUSALS + 1):
        assert not trouble.is_lost
        trouble = fail(fail(trouble), refused=True)
        assert trouble.refusals == number
    assert trouble.is_lost
