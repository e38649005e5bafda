"""What a pass over the disk is allowed to do: whose files leave, whose never, and what a resume may still count on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential, Submitted
from argus_ray.core.lifecycle import Advance, Deleted, End, FilesMeasured, Trashed
from argus_ray.core.model import Event, FilesAt, Task
from argus_ray.core.retention import DAY_S
from argus_ray.core.states import Outcome, TaskState
from tests.support.builders import World
from tests.support.sanity import checked_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(
        tmp_path, settings={"retention": {"trash_after_days": 10, "delete_after_days": 5, "keep_checkpoints": 1}}
    )


@pytest.fixture
def ada(world: World) -> Credential:
    return world.user("ada")


def run(world: World, task: Task) -> str:
    admit = world.admission(world.task(task.task_id))
    assert all(world.service.apply([admit, Advance(admit.submission_id, running=True)]))
    return admit.submission_id


def brought_to(world: World, who: Credential, state: str) -> Task:
    """A task in this state; STOPPING: canceled, and its job may still run. LOST: it waits after a loss."""
    task = world.submit(who)
    if state in ("RUNNING", "STOPPING", "SUCCEEDED", "FAILED", "CANCELED", "LOST"):
        name = run(world, task)
        if state in ("STOPPING", "CANCELED"):
            world.service.handle(who, actions.CancelTask(task.task_id))
        outcomes = {
            "SUCCEEDED": Outcome.SUCCEEDED, "FAILED": Outcome.APPLICATION, "CANCELED": Outcome.CANCELED,
            "LOST": Outcome.INFRASTRUCTURE,
        }  # fmt: skip
        if state in outcomes:
            assert world.service.apply([End(name, outcomes[state], "why")]) == [True]
    elif state == "CANCELED in the line":
        world.service.handle(who, actions.CancelTask(task.task_id))
    return world.task(task.task_id)


def resume(world: World, who: Credential, task: Task) -> Task:
    answer = world.service.handle(who, actions.ResubmitTask(task.task_id, resume=True))
    assert isinstance(answer, Submitted)
    return world.task(answer.task_id)


def ids(tasks: tuple[Task, ...]) -> list[str]:
    return [task.task_id for task in tasks]


ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "CANCELED in the line")
ALL = ("QUEUED", "LOST", "RUNNING", "STOPPING", *ENDED)


@pytest.mark.parametrize("days", [9.9, 10.0, 11.0])
@pytest.mark.parametrize("state", ALL)
def test_only_what_ended_long_ago_leaves(world: World, ada: Credential, state: str, days: float) -> None:
    task = brought_to(world, ada, state)
    world.clock.advance(days * DAY_S)
    leaves = state in ENDED and days >= 10
    found = world.service.chores()
    assert ids(found.trash) == ([task.task_id] if leaves else [])
    assert world.task(task.task_id).files_at is (FilesAt.LEAVING if leaves else FilesAt.JOB_ROOT)
    assert found.delete == ()
    assert ids(world.service.chores().trash) == ids(found.trash), "a pass that died is repeated"


def test_from_the_job_root_to_nothing(world: World, ada: Credential) -> None:
    task = brought_to(world, ada, "FAILED")
    (attempt,) = task.attempts
    assert world.service.apply([Trashed(task.task_id, "x"), Deleted(task.task_id, "x")]) == [False, False]
    assert world.service.apply([FilesMeasured(task.task_id, ((attempt.submission_id, 5000), ("of-another", 1)))]) == [
        True
    ]
    assert world.task(task.task_id).attempts[0].disk_bytes == 5000
    world.clock.advance(10 * DAY_S)
    assert ids(world.service.chores().trash) == [task.task_id]
    assert world.service.apply([Trashed(task.task_id, "moved"), Trashed(task.task_id, "moved")]) == [
        True,
        False,
    ]
    assert world.task(task.task_id).files_at is FilesAt.TRASH
    assert world.service.chores().trash == world.service.chores().look == world.service.chores().delete == ()
    world.clock.advance(4.9 * DAY_S)
    assert world.service.chores().delete == ()
    world.clock.advance(0.1 * DAY_S)
    assert ids(world.service.chores().delete) == [task.task_id]
    assert world.service.apply([Deleted(task.task_id, "deleted")] * 2) == [True, False]
    gone = world.task(task.task_id)
    assert (gone.files_at, gone.attempts[0].disk_bytes, gone.state) == (FilesAt.DELETED, 0, TaskState.FAILED)
    world.clock.advance(1000 * DAY_S)
    found = world.service.chores()
    assert (found.look, found.trash, found.delete) == ((), (), ())
    events = world.service.handle(ada, actions.TaskEvents(task.task_id))
    assert isinstance(events, tuple)
    assert [each.message for each in events if isinstance(each, Event) and each.kind == "note"] == ["moved", "deleted"]


def test_by_default_nothing_goes(world: World, ada: Credential) -> None:
    brought_to(world, ada, "FAILED")
    world.reopen(settings={})
    world.clock.advance(10_000 * DAY_S)
    found = world.service.chores()
    assert (found.trash, found.delete) == ((), ())
    assert len(found.look) == 1, "it is measured all the same"


def test_what_may_be_resumed_from_stays(world: World, ada: Credential) -> None:
    old = brought_to(world, ada, "FAILED")
    world.clock.advance(11 * DAY_S)
    new = resume(world, ada, old)
    for step in range(3):
        found = world.service.chores()
        assert found.trash == () and old.task_id not in found.prunable, step
        assert old.task_id in ids(found.look)
        if step == 0:
            name = run(world, new)
        elif step == 1:
            # Canceled, and yet its job may be reading there.
            world.service.handle(ada, actions.CancelTask(new.task_id))
    assert world.service.apply([End(name, Outcome.CANCELED, "")]) == [True]
    found = world.service.chores()
    assert ids(found.trash) == [old.task_id]
    assert world.task(new.task_id).files_at is FilesAt.JOB_ROOT


def test_a_resubmission_that_comes_after_the_decision_does_not_count_on_it(world: World, ada: Credential) -> None:
    old = brought_to(world, ada, "FAILED")
    world.clock.advance(5 * DAY_S)
    newer = resume(world, ada, old)
    name = run(world, newer)
    assert world.service.apply([End(name, Outcome.APPLICATION, "why")]) == [True]
    roots = [attempt.job_root for task in (old, world.task(newer.task_id)) for attempt in task.attempts]
    assert list(resume(world, ada, newer).resume_roots or ()) == roots
    for task in world.waiting():
        world.service.handle(ada, actions.CancelTask(task.task_id))
    world.clock.advance(5 * DAY_S)
    assert ids(world.service.chores().trash) == [old.task_id]
    assert list(resume(world, ada, newer).resume_roots or ()) == roots[1:], "not of those that leave"
    assert resume(world, ada, old).resume_roots == ()


def test_what_is_pruned_is_over(world: World, ada: Credential) -> None:
    tasks = {state: brought_to(world, ada, state) for state in ALL}
    found = world.service.chores()
    assert found.prunable == {tasks[state].task_id for state in ENDED}
    assert set(ids(found.look)) == found.prunable | {tasks["RUNNING"].task_id, tasks["STOPPING"].task_id}


def test_each_is_looked_at_in_its_turn(world: World, ada: Credential) -> None:
    live, ended = brought_to(world, ada, "RUNNING"), brought_to(world, ada, "FAILED")
    never = brought_to(world, ada, "CANCELED in the line")
    everyone = [live.task_id, ended.task_id, never.task_id]
    assert sorted(ids(world.service.chores().look)) == sorted(everyone)
    assert all(world.service.apply([FilesMeasured(name) for name in everyone]))
    assert world.service.chores().look == ()
    world.clock.advance(3600)
    assert ids(world.service.chores().look) == [live.task_id]
    world.clock.advance(DAY_S)
    assert ids(world.service.chores().look) == [live.task_id, ended.task_id]


def test_files_that_cannot_be_moved_let_the_others_by(world: World, ada: Credential) -> None:
    stuck, other = brought_to(world, ada, "FAILED"), brought_to(world, ada, "FAILED")
    world.clock.advance(10 * DAY_S)
    assert len(world.service.chores().trash) == 2
    assert world.service.apply([FilesMeasured(stuck.task_id)]) == [True]
    assert ids(world.service.chores().trash) == [other.task_id]
    world.clock.advance(DAY_S)
    assert ids(world.service.chores().trash) == [other.task_id, stuck.task_id]
