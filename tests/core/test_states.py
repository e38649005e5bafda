from __future__ import annotations

import itertools

import pytest

from argus_ray.core.errors import IllegalTransition
from argus_ray.core.states import ACTIVE, FINAL, TRANSITIONS, WAITING, Cause, TaskState, check_move


def test_each_state_is_of_one_kind() -> None:
    assert frozenset(TaskState) == WAITING | ACTIVE | FINAL
    assert len(WAITING) + len(ACTIVE) + len(FINAL) == len(TaskState)
    for state in TaskState:
        assert [state.is_waiting, state.is_active, state.is_final].count(True) == 1


def test_nothing_leaves_a_final_state() -> None:
    assert not [move for move in TRANSITIONS if move[0] in FINAL]


def test_cancel_works_in_every_other_state() -> None:
    for state in WAITING | ACTIVE:
        check_move(state, TaskState.CANCELED, Cause.CANCELED_BY_USER)


def test_a_lost_attempt_takes_the_task_back() -> None:
    for state in ACTIVE:
        check_move(state, TaskState.QUEUED, Cause.INFRASTRUCTURE_LOSS)
        check_move(state, TaskState.PENDING_RESOURCES, Cause.INSUFFICIENT_RESOURCES)


def test_everything_that_is_not_in_the_table_raises() -> None:
    allowed = {(old, new, cause) for (old, new), causes in TRANSITIONS.items() for cause in causes}
    for old, new, cause in itertools.product(TaskState, TaskState, Cause):
        if (old, new, cause) in allowed:
            check_move(old, new, cause)
        else:
            with pytest.raises(IllegalTransition, match=f"{old.value} to {new.value}"):
                check_move(old, new, cause)


def test_every_state_can_be_reached_and_every_cause_is_used() -> None:
    reached = {TaskState.QUEUED}
    for _ in TaskState:
        reached |= {new for (old, new) in TRANSITIONS if old in reached}
    assert reached == set(TaskState)
    used = {cause for causes in TRANSITIONS.values() for cause in causes}
    assert used | {Cause.ACCEPTED} == set(Cause)
