"""Exports as the service accepts them: whose they are, what they are made from, what is refused, and what stays on the
disk for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential, Exported, ExportSource, TaskView
from argus_ray.core.errors import (
    IdempotencyConflict,
    InvalidRequest,
    NothingToExport,
    QueueFull,
    TaskNotFound,
)
from argus_ray.core.exports import MAX_AT_A_TIME, Part
from argus_ray.core.lifecycle import Advance, Deleted, End, Trashed
from argus_ray.core.model import Event, Gang, Task
from argus_ray.core.retention import DAY_S, Chore
from argus_ray.core.states import Outcome, TaskState
from tests.support.builders import ADMIN, World
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
    """The job root of the new attempt."""
    admit = world.admission(world.task(task.task_id))
    assert all(world.service.apply([admit, Advance(admit.submission_id, running=True)]))
    return admit.job_root


def end(world: World, task: Task, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    attempt = world.task(task.task_id).live_attempt
    assert attempt is not None
    assert world.service.apply([End(attempt.submission_id, outcome, "why")]) == [True]


def trained(world: World, who: Credential, **spec: Any) -> tuple[Task, str]:
    """A task that has ended, and its job root."""
    task = world.submit(who, **spec)
    root = run(world, task)
    end(world, task)
    return world.task(task.task_id), root


def call(task: Task, root: str, step: int = 10, **options: Any) -> actions.ExportTask:
    return actions.ExportTask(task.task_id, **{"step": step, "job_root": root, **options})


def export(world: World, who: Credential, task: Task, root: str, step: int = 10, **options: Any) -> Task:
    answer = world.service.handle(who, call(task, root, step, **options))
    return world.task(answer.submitted.task_id)


def view(world: World, who: Credential, task: Task) -> TaskView:
    return world.service.handle(who, actions.GetTask(task.task_id))


def test_an_export_is_a_task_of_its_own(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    new = export(world, ada, old, root)
    assert new.task_id.startswith("argus-ada-export-")
    assert (new.user_id, new.workload, new.state) == ("ada", "export", TaskState.QUEUED)
    assert new.gang == Gang(1, 0, 2.0)
    made = new.export
    assert made is not None
    assert (made.of, made.step, made.part, made.workload, made.processes) == (old.task_id, 10, Part.ACTOR, "sft", 4)
    assert made.checkpoint == f"{root}/checkpoints/global_step_10"
    assert new.spec_yaml == f"export_of: {old.task_id}\nstep: 10\npart: actor\n"
    events = world.service.handle(ada, actions.TaskEvents(new.task_id))
    assert isinstance(events[0], Event) and events[0].message == f"accepted: export of step 10 of {old.task_id}"
    (*_, last) = world.service.handle(ada, actions.TaskEvents(old.task_id))
    assert last.message == f"step 10 is exported as {new.task_id}"
    assert world.service.handle(ada, actions.ShowQueue())[0].task.task_id == new.task_id
    world.reopen()
    assert world.task(new.task_id).export == made


def test_the_task_shows_its_exports_and_where_they_lie(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    first, second = export(world, ada, old, root), export(world, ada, old, root, step=20)
    seen = view(world, ada, old).exports
    assert [(each.task_id, each.step, each.state, each.path) for each in seen] == [
        (second.task_id, 20, TaskState.QUEUED, None),
        (first.task_id, 10, TaskState.QUEUED, None),
    ]
    assert view(world, ada, old).export is None
    run(world, first)
    end(world, first, Outcome.INFRASTRUCTURE)
    made_in = run(world, first)
    assert made_in.endswith("--a02")
    assert view(world, ada, first).export == view(world, ada, old).exports[1]
    end(world, first)
    assert view(world, ada, old).exports[1].path == f"{made_in}/export", "of the attempt that made it"
    assert view(world, ada, first).export == view(world, ada, old).exports[1]
    world.clock.advance(11 * DAY_S)
    world.service.handle(ada, actions.CancelTask(second.task_id))
    assert first.task_id in {task.task_id for task in world.service.chores(Chore.TRASH).tasks}
    assert view(world, ada, old).exports[1].path is None, "on its way to the trash"


def test_a_task_that_runs_is_exported_too(world: World, ada: Credential) -> None:
    old = world.submit(ada)
    root = run(world, old)
    assert export(world, ada, old, root).export is not None


def test_where_to_look_is_told_first(world: World, ada: Credential) -> None:
    old = world.submit(ada, workload="ppo")
    roots = [run(world, old)]
    end(world, old, Outcome.INFRASTRUCTURE)
    roots.append(run(world, old))
    wish = actions.ExportTask(old.task_id, part=Part.CRITIC)
    assert world.service.handle(ada, actions.ReadExport(wish)) == ExportSource(tuple(roots), "ppo", 4)


def test_a_repetition_gives_the_first_one(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    first = export(world, ada, old, root, idempotency_key="k")
    again = world.service.handle(ada, actions.ReadExport(actions.ExportTask(old.task_id, idempotency_key="k")))
    assert isinstance(again, Exported)
    assert (again.submitted.task_id, again.submitted.created) == (first.task_id, False)
    # A newer checkpoint is there now, and the key decides all the same.
    assert export(world, ada, old, root, step=20, idempotency_key="k").task_id == first.task_id
    other, other_root = trained(world, ada)
    for action in (
        call(old, root, wanted_step=10, idempotency_key="k"),
        call(old, root, part=Part.CRITIC, idempotency_key="k"),
        call(other, other_root, idempotency_key="k"),
        actions.ResubmitTask(old.task_id, idempotency_key="k"),
        world.submission(world.spec(), "k"),
    ):
        with pytest.raises(IdempotencyConflict):
            world.service.handle(ada, action)
    world.submit(ada, "submitted")
    with pytest.raises(IdempotencyConflict):
        export(world, ada, old, root, idempotency_key="submitted")


def test_a_step_that_was_asked_for_is_another_wish_than_the_newest(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    asked = call(old, root, wanted_step=10, idempotency_key="k")
    first = world.service.handle(ada, asked)
    assert world.service.handle(ada, asked).submitted.task_id == first.submitted.task_id
    with pytest.raises(IdempotencyConflict):
        world.service.handle(ada, call(old, root, idempotency_key="k"))


def test_another_user_gets_the_answer_for_no_task(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    bob = world.user("bob")
    for action in (call(old, root), actions.ReadExport(call(old, root))):
        with pytest.raises(TaskNotFound):
            world.service.handle(bob, action)


def test_what_an_admin_exports_is_the_owners(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    new = export(world, ADMIN, old, root)
    assert new.user_id == "ada"
    (*_, last) = world.service.handle(ada, actions.TaskEvents(old.task_id))
    assert last.message == f"step 10 is exported by an admin as {new.task_id}"


def test_what_is_refused(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    new = export(world, ada, old, root)
    with pytest.raises(NothingToExport, match="an export itself"):
        world.service.handle(ada, actions.ReadExport(actions.ExportTask(new.task_id)))
    with pytest.raises(InvalidRequest) as refused:
        world.service.handle(ada, actions.ReadExport(actions.ExportTask(old.task_id, part=Part.CRITIC)))
    assert [(error.field, error.rule) for error in refused.value.fields] == [
        ("part", "a task of the workload sft has no critic")
    ]
    run(world, new)
    end(world, new)
    with pytest.raises(InvalidRequest, match=f"POST /api/v2/tasks/{old.task_id}:export"):
        world.service.handle(ada, actions.ResubmitTask(new.task_id))
    for wrong in (call(old, f"{root}x"), call(old, root, step=0), call(old, root, wanted_step=9)):
        with pytest.raises(NothingToExport):
            world.service.handle(ada, wrong)


def test_files_in_the_trash_are_not_exported(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    world.clock.advance(11 * DAY_S)
    world.service.chores(Chore.TRASH)
    with pytest.raises(NothingToExport, match="trash"):
        export(world, ada, old, root)
    assert world.service.apply([Trashed(old.task_id, "gone"), Deleted(old.task_id, "gone")]) == [True, True]
    with pytest.raises(NothingToExport, match="deleted"):
        export(world, ada, old, root)


def test_one_user_has_a_few_at_a_time(world: World, ada: Credential) -> None:
    """They hold no GPUs, so no quota keeps them from taking all CPUs."""
    old, root = trained(world, ada)
    made = [export(world, ada, old, root) for _ in range(MAX_AT_A_TIME)]
    run(world, made[0])
    for action in (call(old, root), actions.ReadExport(call(old, root))):
        with pytest.raises(QueueFull):
            world.service.handle(ada, action)
    end(world, made[0])
    world.service.handle(ada, actions.CancelTask(made[1].task_id))
    export(world, ada, old, root)
    export(world, ada, old, root)
    with pytest.raises(QueueFull):
        export(world, ada, old, root)


def test_it_may_run_the_code_that_its_run_was_told_to_run(world: World, ada: Credential) -> None:
    old = world.submit(ada)
    admit = world.admission(old)
    trusting = replace(admit, command=(*admit.command, "model.trust_remote_code=True"))
    assert all(world.service.apply([trusting, Advance(admit.submission_id, running=True)]))
    made = export(world, ada, old, admit.job_root).export
    assert made is not None and made.trusts_code
    other, root = trained(world, ada)
    made = export(world, ada, other, root).export
    assert made is not None and not made.trusts_code


def test_no_quota_bounds_it(tmp_path: Path) -> None:
    for world in checked_service(tmp_path, settings={"limits": {"running_gpus_per_user": 4}}):
        ada = world.user("ada")
        old = world.submit(ada)
        root = run(world, old)  # holds all of the quota
        assert export(world, ada, old, root).state is TaskState.QUEUED


def test_a_quota_that_is_less_than_what_its_user_holds_keeps_none_from_starting(tmp_path: Path) -> None:
    """The scheduler's pass of quotas passes over it: refused here, it would wait with no reason."""
    for world in checked_service(tmp_path):
        ada = world.user("ada")
        old = world.submit(ada)
        new = export(world, ada, old, run(world, old))
        world.reopen(settings={"limits": {"running_gpus_per_user": 2}})
        run(world, world.task(new.task_id))


@pytest.mark.parametrize("runs", [False, True])
def test_the_checkpoint_stays_while_an_export_waits_or_runs(world: World, ada: Credential, runs: bool) -> None:
    old, root = trained(world, ada)
    new = export(world, ada, old, root)
    if runs:
        run(world, new)
    world.clock.advance(40 * DAY_S)
    assert old.task_id not in {task.task_id for task in world.service.chores(Chore.TRASH).tasks}
    found = world.service.chores(Chore.ENDED)
    assert old.task_id in {task.task_id for task in found.tasks} and old.task_id not in found.prunable
    if runs:
        end(world, new)
    else:
        world.service.handle(ada, actions.CancelTask(new.task_id))
    assert old.task_id in world.service.chores(Chore.ENDED).prunable
    assert old.task_id in {task.task_id for task in world.service.chores(Chore.TRASH).tasks}


def test_what_it_is_made_from_never_changes(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    new = export(world, ada, old, root)
    for column in ("export", "export_of"):
        with pytest.raises(sqlite3.IntegrityError, match="origin"), world.store.transaction() as db:
            db.execute(f"UPDATE tasks SET {column} = {column} WHERE task_id = ?", (new.task_id,))  # noqa: S608


@pytest.mark.parametrize(
    "change",
    [
        """export_of = 'argus-y', export = '{"job_root": "/x"}'""",
        "export_of = task_id",
        "export = '{}'",
        "export_of = task_id, export = '{}'",
        "export_of = task_id, export = '/x'",
        """export_of = task_id, export = '{"job_root": null}'""",
    ],
)
def test_impossible_rows(world: World, ada: Credential, change: str) -> None:
    world.submit(ada)
    with pytest.raises(sqlite3.IntegrityError, match="constraint failed"), world.store.transaction() as db:
        db.execute("DROP TRIGGER identity_of_a_task")
        db.execute(f"UPDATE tasks SET {change}")  # noqa: S608


def test_an_odd_row_hides_no_other(world: World, ada: Credential) -> None:
    old, root = trained(world, ada)
    new = export(world, ada, old, root)
    with world.store.transaction() as db:
        db.execute("DROP TRIGGER identity_of_a_task")
        db.execute("UPDATE tasks SET export = json_set(export, '$.part', 'soul') WHERE task_id = ?", (new.task_id,))
    assert world.task(new.task_id).export is None
    assert view(world, ada, old).exports == ()
