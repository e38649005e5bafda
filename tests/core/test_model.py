"""What the nouns say of themselves."""

from __future__ import annotations

import pytest

from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import AttemptState, TaskState

TASK = "argus-ada-sft-20270115-080000-0001"


def attempt(number: int, state: AttemptState) -> Attempt:
    return Attempt(f"{TASK}--a{number:02d}", TASK, number, state, 0.0, f"/private/users/ada/jobs/{number}")


def task(*states: AttemptState) -> Task:
    attempts = tuple(attempt(number, state) for number, state in enumerate(states, start=1))
    return Task(TASK, "ada", 1, "sft", TaskState.RUNNING, Gang(1, 1, 3.0), "", 0.0, 0.0, attempts=attempts)


@pytest.mark.parametrize(("number", "label"), [(1, "a01"), (12, "a12"), (99, "a99"), (100, "a100")])
def test_an_attempts_label_is_the_end_of_its_submission_id(number: int, label: str) -> None:
    one = attempt(number, AttemptState.RUNNING)
    assert one.label == label
    assert one.submission_id == f"{one.task_id}--{one.label}"


@pytest.mark.parametrize("state", [state for state in AttemptState if state is not AttemptState.ENDED])
def test_the_live_attempt_is_the_one_that_has_not_ended(state: AttemptState) -> None:
    found = task(AttemptState.ENDED, state).live_attempt
    assert found is not None and (found.number, found.state) == (2, state)


@pytest.mark.parametrize("states", [(), (AttemptState.ENDED,), (AttemptState.ENDED, AttemptState.ENDED)])
def test_a_task_whose_attempts_have_ended_has_no_live_one(states: tuple[AttemptState, ...]) -> None:
    assert task(*states).live_attempt is None
