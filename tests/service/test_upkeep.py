"""What a pass over the disk is allowed to do: whose files leave, whose never, and what a resume may still count on."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential, Submitted
from argus_ray.core.lifecycle import Advance, Deleted, End, FilesMeasured, Trashed
from argus_ray.core.model import Event, FilesAt, Task
from argus_ray.core.retention import DAY_S, Chore, Seen, TaskFiles
from argus_ray.core.states import Outcome, TaskState
from argus_ray.store import disk, migrations
from tests.support.builders import World, make_service
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


@dataclass(frozen=True)
class Found:
    """All that a pass may do."""

    live: tuple[TaskFiles, ...]
    ended: tuple[TaskFiles, ...]
    trash: tuple[TaskFiles, ...]
    delete: tuple[TaskFiles, ...]
    prunable: frozenset[str]

    @property
    def look(self) -> tuple[TaskFiles, ...]:
        return self.live + self.ended


def chores(world: World, begun: float | None = None) -> Found:
    found = {chore: world.service.chores(chore, begun) for chore in Chore}
    return Found(
        **{chore.value: each.tasks for chore, each in found.items()},
        prunable=frozenset(name for each in found.values() for name in each.prunable),
    )


def ids(tasks: Sequence[Task | TaskFiles]) -> list[str]:
    return [task.task_id for task in tasks]


ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "CANCELED in the line")
ALL = ("QUEUED", "LOST", "RUNNING", "STOPPING", *ENDED)


@pytest.mark.parametrize("days", [9.9, 10.0, 11.0])
@pytest.mark.parametrize("state", ALL)
def test_only_what_ended_long_ago_leaves(world: World, ada: Credential, state: str, days: float) -> None:
    task = brought_to(world, ada, state)
    world.clock.advance(days * DAY_S)
    leaves = state in ENDED and days >= 10
    found = chores(world)
    assert ids(found.trash) == ([task.task_id] if leaves else [])
    assert world.task(task.task_id).files_at is (FilesAt.LEAVING if leaves else FilesAt.JOB_ROOT)
    assert found.delete == ()
    assert ids(chores(world).trash) == ids(found.trash), "a pass that died is repeated"


def test_from_the_job_root_to_nothing(world: World, ada: Credential) -> None:
    task = brought_to(world, ada, "FAILED")
    (attempt,) = task.attempts
    assert world.service.apply([Trashed(task.task_id, "x"), Deleted(task.task_id, "x")]) == [False, False]
    assert world.service.apply([FilesMeasured(task.task_id, ((attempt.submission_id, 5000), ("of-another", 1)))]) == [
        True
    ]
    assert world.task(task.task_id).attempts[0].disk_bytes == 5000
    world.clock.advance(10 * DAY_S)
    assert ids(chores(world).trash) == [task.task_id]
    assert world.service.apply([Trashed(task.task_id, "moved"), Trashed(task.task_id, "moved")]) == [
        True,
        False,
    ]
    assert world.task(task.task_id).files_at is FilesAt.TRASH
    with world.store.transaction() as db:
        due = db.execute("SELECT look_after FROM tasks").fetchone()[0]
    assert due == world.clock(), "it is found by this time, not by looking through the trash"
    assert chores(world).trash == chores(world).look == chores(world).delete == ()
    world.clock.advance(4.9 * DAY_S)
    assert chores(world).delete == ()
    world.clock.advance(0.1 * DAY_S)
    assert ids(chores(world).delete) == [task.task_id]
    assert world.service.apply([Deleted(task.task_id, "deleted")] * 2) == [True, False]
    gone = world.task(task.task_id)
    assert (gone.files_at, gone.attempts[0].disk_bytes, gone.state) == (FilesAt.DELETED, 0, TaskState.FAILED)
    world.clock.advance(1000 * DAY_S)
    found = chores(world)
    assert (found.look, found.trash, found.delete) == ((), (), ())
    events = world.service.handle(ada, actions.TaskEvents(task.task_id))
    assert isinstance(events, tuple)
    assert [each.message for each in events if isinstance(each, Event) and each.kind == "note"] == ["moved", "deleted"]


def test_by_default_nothing_goes(world: World, ada: Credential) -> None:
    brought_to(world, ada, "FAILED")
    world.reopen(settings={})
    world.clock.advance(10_000 * DAY_S)
    found = chores(world)
    assert (found.trash, found.delete) == ((), ())
    assert len(found.look) == 1, "it is measured all the same"


def test_what_may_be_resumed_from_stays(world: World, ada: Credential) -> None:
    old = brought_to(world, ada, "FAILED")
    world.clock.advance(11 * DAY_S)
    new = resume(world, ada, old)
    for step in range(3):
        found = chores(world)
        assert found.trash == () and old.task_id not in found.prunable, step
        assert old.task_id in ids(found.look)
        if step == 0:
            name = run(world, new)
        elif step == 1:
            # Canceled, and yet its job may be reading there.
            world.service.handle(ada, actions.CancelTask(new.task_id))
    assert world.service.apply([End(name, Outcome.CANCELED, "")]) == [True]
    found = chores(world)
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
    assert ids(chores(world).trash) == [old.task_id]
    assert list(resume(world, ada, newer).resume_roots or ()) == roots[1:], "not of those that leave"
    assert resume(world, ada, old).resume_roots == ()


def test_what_is_pruned_is_over(world: World, ada: Credential) -> None:
    tasks = {state: brought_to(world, ada, state) for state in ALL}
    found = chores(world)
    assert found.prunable == {tasks[state].task_id for state in ENDED}
    assert set(ids(found.look)) == found.prunable | {tasks["RUNNING"].task_id, tasks["STOPPING"].task_id}


def test_each_is_looked_at_in_its_turn(world: World, ada: Credential) -> None:
    live, ended = brought_to(world, ada, "RUNNING"), brought_to(world, ada, "FAILED")
    never = brought_to(world, ada, "CANCELED in the line")
    everyone = [live.task_id, ended.task_id, never.task_id]
    assert sorted(ids(chores(world).look)) == sorted(everyone)
    assert all(world.service.apply([FilesMeasured(name) for name in everyone]))
    assert chores(world).look == ()
    world.clock.advance(3600)
    assert ids(chores(world).look) == [live.task_id]
    world.clock.advance(DAY_S)
    assert ids(chores(world).look) == [live.task_id, ended.task_id]


def test_files_that_cannot_be_moved_let_the_others_by(world: World, ada: Credential) -> None:
    stuck, other = brought_to(world, ada, "FAILED"), brought_to(world, ada, "FAILED")
    world.clock.advance(10 * DAY_S)
    assert len(chores(world).trash) == 2
    assert world.service.apply([FilesMeasured(stuck.task_id)]) == [True]
    assert ids(chores(world).trash) == [other.task_id]
    world.clock.advance(DAY_S)
    assert ids(chores(world).trash) == [other.task_id, stuck.task_id]


def look_at(world: World, task: Task, seen: Seen) -> None:
    assert world.service.apply([FilesMeasured(task.task_id, seen=seen)]) == [True]


def test_what_has_ended_is_looked_at_once_and_then_ever_more_seldom(world: World, ada: Credential) -> None:
    world.reopen(settings={})
    live = brought_to(world, ada, "RUNNING")
    look_at(world, live, Seen.ALIVE)
    world.clock.advance(60)
    assert chores(world).look == ()
    assert world.service.apply([End(live.attempts[-1].submission_id, Outcome.SUCCEEDED, "")]) == [True]
    looks = []
    for day in range(1000):
        if chores(world).ended:
            looks.append(day)
            look_at(world, live, Seen.OVER)
        assert chores(world).look == ()
        world.clock.advance(DAY_S)
    assert looks == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_what_ended_while_it_was_measured_is_measured_again(world: World, ada: Credential) -> None:
    task = brought_to(world, ada, "FAILED")
    look_at(world, task, Seen.ALIVE)
    assert ids(chores(world).ended) == [task.task_id]


@pytest.mark.parametrize("seen", [Seen.PARTLY, Seen.NEEDED])
def test_where_more_is_to_be_done_the_next_look_is_soon(world: World, ada: Credential, seen: Seen) -> None:
    task = brought_to(world, ada, "FAILED")
    world.clock.advance(8 * DAY_S)
    look_at(world, task, seen)
    assert chores(world).look == ()
    world.clock.advance(DAY_S)
    assert ids(chores(world).ended) == [task.task_id]


@pytest.mark.parametrize(("old", "new", "is_due"), [(0, 2, True), (2, 1, True), (1, 2, False), (1, 0, False)])
def test_a_rule_by_which_more_goes_is_for_what_ended_long_ago_too(
    world: World, ada: Credential, old: int, new: int, is_due: bool
) -> None:
    world.reopen(settings={"retention": {"keep_checkpoints": old}})
    tasks = [brought_to(world, ada, "FAILED") for _ in range(5)]
    chores(world)
    world.clock.advance(100 * DAY_S)
    for task in tasks:
        look_at(world, task, Seen.OVER)
    assert chores(world).look == ()
    world.reopen(settings={"retention": {"keep_checkpoints": new}})
    assert len(chores(world).ended) == (5 if is_due else 0)
    for task in tasks:
        look_at(world, task, Seen.OVER)
    assert chores(world).look == (), "once"


def test_a_rule_is_brought_to_many_tasks_step_by_step(
    world: World, ada: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_BROUGHT_FORWARD", 2)
    world.reopen(settings={})
    tasks = [brought_to(world, ada, "FAILED") for _ in range(5)]
    chores(world)
    world.clock.advance(100 * DAY_S)
    for task in tasks:
        look_at(world, task, Seen.OVER)
    world.reopen(settings={"retention": {"keep_checkpoints": 1}})
    due = []
    for step in range(4):
        if step == 2:
            world.reopen()
        due.append(ids(world.service.chores(Chore.ENDED).tasks))
        for name in due[-1]:
            look_at(world, world.task(name), Seen.OVER)
    names = ids(tasks)
    assert due == [names[3:], names[1:3], names[:1], []]


def test_what_a_pass_has_done_is_not_due_in_it_again(world: World, ada: Credential) -> None:
    world.reopen(settings={})
    task = brought_to(world, ada, "RUNNING")
    begun = world.clock()
    world.clock.advance(3600)
    assert ids(chores(world, begun).live) == [task.task_id]
    look_at(world, task, Seen.ALIVE)
    world.clock.advance(3600)
    assert chores(world, begun).look == ()
    assert ids(chores(world).live) == [task.task_id]


def test_each_user_has_a_part_of_an_answer(world: World, ada: Credential) -> None:
    bob = world.user("bob")
    for _ in range(30):
        brought_to(world, ada, "FAILED")
    last = brought_to(world, bob, "FAILED")
    found = world.service.chores(Chore.ENDED)
    assert last.task_id in ids(found.tasks[:2]) and len(found.tasks) == found.per_user + 1
    world.clock.advance(10 * DAY_S)
    found = world.service.chores(Chore.TRASH)
    assert last.task_id in ids(found.tasks[:2]) and len(found.tasks) == found.per_user + 1
    leaving = [task for task in world.all_tasks() if task.files_at is FilesAt.LEAVING]
    assert len(leaving) == len(found.tasks), "the others may still be resumed from"


def test_what_moves_to_the_scheduler_is_what_housekeeping_needs(world: World, ada: Credential) -> None:
    """No specs and no commands, which may be large: nobody reads them there."""
    for _ in range(20):
        task = world.submit(ada, model_id="org/" + "x" * 90)
        admit = replace(world.admission(task), command=("python3", "x" * 5000))
        assert world.service.apply([admit, End(admit.submission_id, Outcome.APPLICATION, "why" * 500)]) == [True, True]
    found = world.service.chores(Chore.ENDED)
    assert len(found.tasks) == 20
    assert len(pickle.dumps(found)) < 20 * 500


def test_where_there_are_many_users_an_answer_stays_small(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_AT_ONCE", 6)
    for number in range(9):
        who = world.user(f"u{number}")
        for _ in range(3):
            brought_to(world, who, "FAILED")
    found = world.service.chores(Chore.ENDED)
    assert (len(found.tasks), found.per_user) == (6, 1)
    assert len({task.user_id for task in found.tasks}) == 6
    seen = set()
    for _ in range(50):
        tasks = world.service.chores(Chore.ENDED).tasks
        seen.update(ids(tasks))
        for name in ids(tasks):
            look_at(world, world.task(name), Seen.OVER)
    assert len(seen) == 27


def steps(db: sqlite3.Connection, ask: Callable[[], object]) -> int:
    """Of SQLite's machine, in tens: what a question costs, on any computer."""
    count = [0]

    def step() -> int:
        count[0] += 1
        return 0

    db.set_progress_handler(step, 10)
    try:
        ask()
    finally:
        db.set_progress_handler(None, 0)
    return count[0]


def test_a_pass_costs_the_same_with_any_past(tmp_path: Path) -> None:
    """Tasks that are measured, in the trash, deleted, or were made again from others long ago."""
    world = make_service(tmp_path.resolve(), settings={"retention": {"trash_after_days": 10, "delete_after_days": 5}})
    ada = world.user("ada")
    seed, _ = brought_to(world, ada, "FAILED"), brought_to(world, ada, "RUNNING")
    world.clock.advance(DAY_S)
    columns: dict[str, str] = {"state": "'FAILED'", "reason": "'x'"}
    costs = []
    for past in (20, 4000):
        with world.store.transaction() as db:
            db.execute("DELETE FROM tasks WHERE seq > 1000")
            db.execute("DELETE FROM changed_tasks WHERE seq > 1000")  # no task ever has the place of another one
            names = [row["name"] for row in db.execute("PRAGMA table_info(tasks)")]
            columns |= {
                "seq": "1000 + n", "task_id": "task_id || '-' || n", "look_after": ":now + 1",
                "files_at": "CASE n % 4 WHEN 0 THEN 'TRASH' WHEN 1 THEN 'DELETED' ELSE 'JOB_ROOT' END",
                "trashed_at": "CASE WHEN n % 4 < 2 THEN :now END",
                "resubmitted_from": "task_id", "changed": "NULL", "resume_roots": """json_array('/x')""",
            }  # fmt: skip
            values = ", ".join(columns.get(name, name) for name in names)
            counted = (
                "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :past) SELECT * FROM c)"
            )
            db.execute(
                f"INSERT INTO tasks ({', '.join(names)}) SELECT {values} FROM {counted} AS c, tasks WHERE seq = :seq",  # noqa: S608
                {"past": past, "now": world.clock(), "seq": seed.seq},
            )
        costs.append({chore: steps(db, partial(world.service.chores, chore)) for chore in Chore})
    before, after = costs
    assert all(after[chore] <= 1.2 * before[chore] + 5 for chore in Chore), (before, after)
    world.close()


def test_what_was_in_the_trash_before_an_upgrade_stays_its_time(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    known = migrations.known()
    before = next(index for index, each in enumerate(known) if "housekeeping" in each.name)
    migrations.migrate(db, known[:before])
    db.execute("INSERT INTO users VALUES ('ada', '', 'ACTIVE', 0)")
    db.execute(
        "INSERT INTO tasks (seq, task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
        " spec_yaml, created_at, updated_at, ended_at, files_at, trashed_at)"
        " VALUES (1, 'argus-x', 'ada', 'sft', 'CANCELED', 1, 1, 1, 0, '', 1, 1, 1, 'TRASH', 1000)"
    )
    migrations.migrate(db, known)
    db.row_factory = sqlite3.Row
    assert disk.due(db, Chore.DELETE, 999, 20) == ()
    assert [task.task_id for task in disk.due(db, Chore.DELETE, 1000, 20)] == ["argus-x"]
    db.close()
