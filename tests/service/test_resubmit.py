"""A new task from one that has ended: whose it is, what it keeps, where it resumes from, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential, Submitted
from argus_ray.core.errors import (
    IdempotencyConflict,
    InvalidRequest,
    NothingToResume,
    QueueFull,
    TaskNotEnded,
    TaskNotFound,
    Unauthenticated,
)
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import Event, Task
from argus_ray.core.states import Outcome, TaskState
from tests.support.builders import ADMIN, World
from tests.support.sanity import checked_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path, settings={"limits": {"waiting_tasks_per_user": 3}})


@pytest.fixture
def ada(world: World) -> Credential:
    return world.user("ada")


def again(world: World, who: Credential, task: Task, resume: bool = False, key: str | None = None) -> Submitted:
    answer = world.service.handle(who, actions.ResubmitTask(task.task_id, resume, key))
    assert isinstance(answer, Submitted)
    return answer


def made_again(world: World, who: Credential, task: Task, resume: bool = False) -> Task:
    return world.task(again(world, who, task, resume).task_id)


def run(world: World, task: Task) -> str:
    admit = world.admission(world.task(task.task_id))
    assert all(world.service.apply([admit, Advance(admit.submission_id, running=True)]))
    return admit.job_root


def end(world: World, task: Task, outcome: Outcome) -> None:
    (attempt,) = [a for a in world.task(task.task_id).attempts if a.outcome is None]
    assert world.service.apply([End(attempt.submission_id, outcome, "why")]) == [True]


def ended(world: World, who: Credential, state: TaskState) -> Task:
    task = world.submit(who)
    if state is TaskState.CANCELED:
        world.service.handle(who, actions.CancelTask(task.task_id))
    else:
        run(world, task)
        end(world, task, Outcome.SUCCEEDED if state is TaskState.SUCCEEDED else Outcome.APPLICATION)
    assert world.task(task.task_id).state is state
    return world.task(task.task_id)


def messages(world: World, who: Credential, task: Task) -> list[str]:
    found = world.service.handle(who, actions.TaskEvents(task.task_id))
    assert isinstance(found, tuple)
    return [event.message for event in found if isinstance(event, Event)]


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED])
def test_an_ended_task_is_made_again(world: World, ada: Credential, state: TaskState) -> None:
    old = ended(world, ada, state)
    submitted = again(world, ada, old)
    assert submitted.created
    new = world.task(submitted.task_id)
    assert submitted == Submitted.of(new, created=True)
    assert (new.state, new.user_id, new.spec_yaml, new.gang) == (TaskState.QUEUED, "ada", old.spec_yaml, old.gang)
    assert (new.resubmitted_from, new.resume_roots, new.attempts) == (old.task_id, None, ())
    assert new.seq > old.seq, "at the end of the line"
    assert messages(world, ada, new) == [f"accepted: sft on 1 x 4 GPUs; resubmitted from {old.task_id}"]
    assert messages(world, ada, old)[-1] == f"resubmitted as {new.task_id}"
    world.reopen()
    assert world.task(new.task_id) == new


@pytest.mark.parametrize("steps", range(4))
def test_a_task_that_has_not_ended_is_refused(world: World, ada: Credential, steps: int) -> None:
    task = world.submit(ada)
    if steps:
        admit = world.admission(task)
        seen = [Advance(admit.submission_id, running=running) for running in (False, True)]
        assert all(world.service.apply([admit, *seen[: steps - 1]]))
    before = messages(world, ada, task)
    for resume in (False, True):
        with pytest.raises(TaskNotEnded, match=world.task(task.task_id).state.value):
            again(world, ada, task, resume)
    assert messages(world, ada, task) == before


def test_only_its_owner_and_admins(world: World, ada: Credential) -> None:
    old = ended(world, ada, TaskState.FAILED)
    bob = world.user("bob")
    with pytest.raises(TaskNotFound):
        again(world, bob, old)
    with pytest.raises(TaskNotFound):
        world.service.handle(bob, actions.ResubmitTask("argus-none"))
    with pytest.raises(Unauthenticated):
        world.service.handle(Credential(actions.Role.USER, "0" * 64), actions.ResubmitTask(old.task_id))
    new = made_again(world, ADMIN, old)
    assert new.user_id == "ada"
    assert messages(world, ada, old)[-1] == f"resubmitted by an admin as {new.task_id}"


def test_resume_knows_the_job_roots_of_the_old_task(world: World, ada: Credential) -> None:
    old = world.submit(ada)
    roots = [run(world, old)]
    end(world, old, Outcome.INFRASTRUCTURE)
    roots.append(run(world, old))
    end(world, old, Outcome.APPLICATION)
    new = made_again(world, ada, old, resume=True)
    assert new.resume_roots == tuple(roots)
    assert messages(world, ada, new)[0].endswith(f"from {old.task_id}, to resume from its newest checkpoint")
    # One that ended before it saved anything hands on what it was to resume from.
    roots.append(run(world, new))
    end(world, new, Outcome.APPLICATION)
    newer = made_again(world, ada, new, resume=True)
    assert newer.resume_roots == tuple(roots)
    assert made_again(world, ada, new).resume_roots is None
    assert world.task(newer.task_id).resume_roots == tuple(roots)


def test_resume_of_a_task_that_never_ran(world: World, ada: Credential) -> None:
    assert made_again(world, ada, ended(world, ada, TaskState.CANCELED), resume=True).resume_roots == ()


def test_resume_of_a_run_that_is_done_is_refused(world: World, ada: Credential) -> None:
    old = ended(world, ada, TaskState.SUCCEEDED)
    with pytest.raises(NothingToResume, match="without resume"):
        again(world, ada, old, resume=True)


def test_a_key_returns_the_first_one(world: World, ada: Credential) -> None:
    old, other = ended(world, ada, TaskState.FAILED), ended(world, ada, TaskState.FAILED)
    first = again(world, ada, old, key="k")
    assert first.created
    assert again(world, ada, old, key="k") == replace(first, created=False)
    assert len([m for m in messages(world, ada, old) if m.startswith("resubmitted")]) == 1
    for task, resume in ((old, True), (other, False)):
        with pytest.raises(IdempotencyConflict):
            again(world, ada, task, resume, "k")
    with pytest.raises(IdempotencyConflict):  # another call, though of the same text
        world.submit(ada, key="k")
    submitted = world.submit(ada, key="m")
    world.service.handle(ada, actions.CancelTask(submitted.task_id))
    with pytest.raises(IdempotencyConflict):
        again(world, ada, submitted, key="m")
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        again(world, ada, old, key="\t")
    world.service.handle(ada, actions.CancelTask(first.task_id))
    assert again(world, ada, old, key="k").task_id == first.task_id, "whatever became of it"


def test_the_limits_of_a_submission_hold(world: World, ada: Credential) -> None:
    old = ended(world, ada, TaskState.FAILED)
    for _ in range(3):
        world.submit(ada)
    before = messages(world, ada, old)
    with pytest.raises(QueueFull):
        again(world, ada, old)
    with pytest.raises(QueueFull):  # the owner's limit, whoever asks
        again(world, ADMIN, old)
    assert messages(world, ada, old) == before


def test_reading_again_says_what_resubmitting_would_and_changes_nothing(world: World, ada: Credential) -> None:
    def read(who: Credential, task: Task, key: str | None = None) -> str | None:
        asked = actions.ReadResubmission(actions.ResubmitTask(task.task_id, False, key))
        found = world.service.handle(who, asked)
        assert found is None or (found.user_id, found.presets) == ("ada", ())
        return None if found is None else found.spec_yaml

    old, waiting = ended(world, ada, TaskState.FAILED), world.submit(ada)
    before = messages(world, ada, old)
    assert read(ada, old) == read(ADMIN, old) == old.spec_yaml
    with pytest.raises(TaskNotFound):
        read(world.user("bob"), old)
    with pytest.raises(TaskNotEnded):
        read(ada, waiting)
    assert messages(world, ada, old) == before and len(world.waiting()) == 1
    again(world, ada, old, key="k")
    assert read(ada, old, "k") is None
    with pytest.raises(IdempotencyConflict):
        read(ada, ended(world, ada, TaskState.FAILED), "k")
    world.submit(ada)
    with pytest.raises(QueueFull):
        read(ada, old)


def test_its_origin_does_not_change(world: World, ada: Credential) -> None:
    old = ended(world, ada, TaskState.FAILED)
    again(world, ada, old, resume=True)
    for change in ("resume_roots = NULL", "resubmitted_from = NULL", "resume_roots = '{}'", "resume_roots = '['"):
        with pytest.raises(sqlite3.IntegrityError), world.store.transaction() as db:
            db.execute(f"UPDATE tasks SET {change}")  # noqa: S608 - constants
