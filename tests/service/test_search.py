"""Lists and counts by a filter, held against the same filter in plain Python over all tasks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions, ids
from argus_ray.core.actions import Credential
from argus_ray.core.errors import ArgusError, Forbidden, InvalidRequest, UserNotFound
from argus_ray.core.exports import Export, Part
from argus_ray.core.lifecycle import Admit, Advance, Change, End
from argus_ray.core.model import Gang, Task
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.task_filter import KINDS, TaskFilter
from argus_ray.store import search as rows
from argus_ray.store import tasks as task_rows
from tests.support.builders import ADMIN, World, make_service

#: One is the beginning of the other, and looks like another's id.
USERS = ("ali", "alice", "ali-sft-2027")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path, settings={"limits": {"waiting_tasks_per_user": 1000}})
    yield made
    made.close()


def add(world: World, user_id: str, kind: str, tail: int) -> str:
    """As a submission stores it, at the clock's time."""
    stamp = world.clock.now
    export = None
    if kind == "export":
        with world.store.transaction() as db:
            of = db.execute("SELECT task_id FROM tasks WHERE kind = 'sft'").fetchone()[0]
        export = Export(of, "sft", 1, 1, Part.ACTOR, "/x", is_newest=True, trusts_code=False)
    task_id = ids.task_id(user_id, kind, stamp, tail.to_bytes(2, "big"))
    with world.store.transaction() as db:
        seq = task_rows.add(
            db,
            task_id=task_id,
            user_id=user_id,
            workload=kind,
            gang=Gang(1, 1, 1.0),
            spec_yaml="workload: sft",
            idempotency_key=None,
            now=stamp,
            message="accepted",
            export=export,
        )
    assert seq is not None
    return task_id


def end(world: World, task_id: str, outcome: Outcome) -> None:
    change: Admit = world.admission(world.task(task_id))
    changes: list[Change] = [
        change,
        Advance(change.submission_id, running=True),
        End(change.submission_id, outcome, "it", 1),
    ]
    assert all(world.service.apply(changes))


def fill(world: World, dice: random.Random, count: int) -> dict[str, Credential]:
    who = {user: world.user(user) for user in USERS}
    add(world, "ali", "sft", 0)
    for number in range(1, count):
        # Now and then in the same second, and sometimes the clock is set back.
        world.clock.advance(dice.choice([0, 0, 0.3, 5, 3600, 50_000, -7000]))
        task_id = add(world, dice.choice(USERS), dice.choice(KINDS), number * 257 % 65536)
        chosen = dice.random()
        if chosen < 0.3:
            world.service.handle(ADMIN, actions.CancelTask(task_id))
        elif chosen < 0.5 and "-export-" not in task_id:
            end(world, task_id, dice.choice([Outcome.SUCCEEDED, Outcome.APPLICATION]))
        elif chosen < 0.6:
            assert all(world.service.apply([world.admission(world.task(task_id))]))
    return who


def matches(task: Task, where: TaskFilter, owner: str | None) -> bool:
    return (
        (owner is None or task.user_id == owner)
        and (not where.states or task.state in where.states)
        and (not where.workloads or task.workload in where.workloads)
        and (where.since is None or task.created_at >= where.since)
        and (where.until is None or task.created_at < where.until)
        and task.task_id.startswith(where.id_prefix)
        and task.task_id.endswith(where.id_suffix)
        and (not where.ids or task.task_id in where.ids)
    )


def listed(world: World, who: Credential, where: TaskFilter, limit: int) -> list[Task]:
    found: list[Task] = []
    cursor = None
    while True:
        page = world.service.handle(who, actions.ListTasks(where, limit, cursor))
        found += page.tasks
        if page.next_cursor is None:
            return found
        assert len(page.tasks) == limit
        cursor = page.next_cursor


def random_filter(dice: random.Random, tasks: tuple[Task, ...]) -> TaskFilter:
    one = dice.choice(tasks)
    where = TaskFilter()
    if dice.random() < 0.4:
        where = replace(where, states=tuple(dice.sample(list(TaskState), dice.randint(1, 4))))
    if dice.random() < 0.4:
        where = replace(where, workloads=tuple(dice.sample(KINDS, dice.randint(1, 3))))
    if dice.random() < 0.4:
        where = replace(where, since=dice.choice([one.created_at, one.created_at + 1]))
    if dice.random() < 0.4:
        where = replace(where, until=dice.choice([dice.choice(tasks).created_at, one.created_at + 1]))
    if dice.random() < 0.4:
        where = replace(where, id_prefix=one.task_id[: dice.randint(1, len(one.task_id))])
    if dice.random() < 0.2:
        where = replace(where, id_suffix=one.task_id[-dice.choice([4, 5, 11]) :])
    if dice.random() < 0.2:
        some = tuple(task.task_id for task in dice.sample(tasks, 12))
        where = replace(where, ids=(*some, one.task_id, "argus-none", some[0]))
    return where


def test_each_filter_finds_what_it_says_in_pages_and_counts(world: World) -> None:
    dice = random.Random(14)
    who = fill(world, dice, 160)
    tasks = world.all_tasks()
    assert len({task.created_at for task in tasks}) < len(tasks), "some of one moment"
    assert [task.created_at for task in tasks] != sorted(task.created_at for task in tasks)
    found_some = 0
    for _ in range(200):
        where = random_filter(dice, tasks)
        name = dice.choice([*USERS, None, None])
        asker, owner = (ADMIN, None) if name is None else (who[name], name)
        if owner is not None and dice.random() < 0.3:
            asker, where = ADMIN, replace(where, user_id=owner)
        wanted = {task.task_id for task in tasks if matches(task, where, owner)}
        found = listed(world, asker, where, dice.choice([1, 2, 7, 500]) if len(wanted) < 9 else 9)
        assert [task.task_id for task in found] == list(dict.fromkeys(task.task_id for task in found))
        assert {task.task_id for task in found} == wanted, where
        if not where.is_by_state_alone:
            places = [(task.created_at, task.seq) for task in found]
            assert places == sorted(places, reverse=True)
        counts = world.service.handle(asker, actions.CountTasks(where))
        assert counts == dict.fromkeys(TaskState, 0) | Counter(task.state for task in found), where
        found_some += bool(found)
    assert found_some > 70


def test_the_counts_are_those_of_the_rows_whatever_happened(world: World) -> None:
    fill(world, random.Random(1), 60)
    with world.store.transaction() as db:
        kept = db.execute("SELECT user_id, kind, state, n FROM kind_counts WHERE n > 0 ORDER BY 1, 2, 3").fetchall()
        real = db.execute(
            "SELECT user_id, kind, state, count(*) AS n FROM tasks GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ).fetchall()
    assert [tuple(row) for row in kept] == [tuple(row) for row in real]


def test_of_another_user_nothing_is_found_or_counted(world: World) -> None:
    who = fill(world, random.Random(2), 60)
    theirs = [task for task in world.all_tasks() if task.user_id != "alice"]
    one = theirs[-1]
    for where in (
        TaskFilter(ids=tuple(task.task_id for task in theirs[:100])),
        TaskFilter(id_prefix=f"argus-{one.user_id}-"),
        TaskFilter(id_prefix=one.task_id),
        TaskFilter(id_suffix=one.task_id[-12:]),
    ):
        assert listed(world, who["alice"], where, 500) == []
        assert not any(world.service.handle(who["alice"], actions.CountTasks(where)).values())
    for action in (
        actions.ListTasks(TaskFilter(user_id="ali", workloads=("sft",))),
        actions.CountTasks(TaskFilter(user_id="ali")),
        actions.CountTasks(TaskFilter(user_id="nobody")),
    ):
        with pytest.raises(Forbidden):
            world.service.handle(who["alice"], action)
    with pytest.raises(UserNotFound):
        world.service.handle(ADMIN, actions.CountTasks(TaskFilter(user_id="nobody")))


def test_a_page_begins_after_an_own_task_only(world: World) -> None:
    who = fill(world, random.Random(3), 30)
    told = set()
    for cursor in (next(task.seq for task in world.all_tasks() if task.user_id == "ali"), 10**9):
        with pytest.raises(InvalidRequest) as caught:
            world.service.handle(who["alice"], actions.ListTasks(TaskFilter(since=0.0), 5, cursor))
        told.add(repr(caught.value.fields))
    assert len(told) == 1


@pytest.mark.parametrize(
    ("where", "field"),
    [
        (TaskFilter(workloads=("dpo",)), "workload"),
        (TaskFilter(ids=tuple(map(str, range(101)))), "ids"),
        (TaskFilter(id_suffix="abc"), "id_suffix"),
    ],
)
def test_what_no_filter_is_names_its_field(world: World, where: TaskFilter, field: str) -> None:
    for action in (actions.ListTasks(where), actions.CountTasks(where)):
        with pytest.raises(InvalidRequest) as caught:
            world.service.handle(ADMIN, action)
        assert [error.field for error in caught.value.fields] == [field]


def test_a_prefix_that_may_be_anybodys_is_refused_when_they_are_many(world: World) -> None:
    for number in range(17):
        world.user(f"bob{number}")
    world.user("eve")
    add(world, "eve", "sft", 1)
    with pytest.raises(InvalidRequest) as caught:
        listed(world, ADMIN, TaskFilter(id_prefix="argus-bob"), 5)
    assert caught.value.fields[0].field == "id_prefix"
    assert listed(world, ADMIN, TaskFilter(id_prefix="argus-bob7"), 5) == []
    assert listed(world, ADMIN, TaskFilter(id_prefix="argus-bob", user_id="bob1"), 5) == []
    assert len(listed(world, ADMIN, TaskFilter(id_prefix="argus-e"), 5)) == 1
    assert len(listed(world, ADMIN, TaskFilter(id_prefix="arg"), 5)) == 1


@pytest.mark.parametrize("user_id", ["alice", None])
def test_no_statement_walks_the_past(world: World, user_id: str | None) -> None:
    """Each by an index of all that it narrows, without a sort, and a walk without a look at a row."""
    values = {"user_id": "a", "kind": "sft", "state": "RUNNING", "since": 0.0, "until": 9.0, "at": 9.0, "below": 9}
    values |= {"limit": 9, "prefix": "", "wanted": "[]"}
    source = rows._OF_ALL if user_id is None else rows._OF_USER
    owner = "" if user_id is None else "user_id=? AND "
    by_kind = "tasks_by_kind" if user_id is None else "tasks_of_user_by_kind"
    walk = f"COVERING INDEX {by_kind} ({owner}kind=? AND state=? AND "
    by_tail = rows._BY_TAIL if user_id is None else f"{rows._BY_TAIL} AND user_id = :user_id"
    by_ids = rows._BY_IDS_OF_ALL if user_id is None else rows._BY_IDS
    for query, index in (
        (rows._WALK.format(tasks=source, begins=""), walk),
        (rows._COUNT.format(tasks=source, begins=""), walk + "created_at>? AND created_at<?)"),
        (by_tail, "<expr>=?" if user_id is None else "<expr>=? AND user_id=?"),
        (by_ids, "(task_id=?)" if user_id is None else "(user_id=? AND task_id=?)"),
    ):
        with world.store.transaction() as db:
            plan = [row["detail"] for row in db.execute("EXPLAIN QUERY PLAN " + query, values)]
        assert any(index in step for step in plan), (index, plan)
        assert not [step for step in plan if "B-TREE" in step or step.startswith("SCAN tasks")], plan


def test_what_is_asked_of_the_database_does_not_grow_with_what_is_not_asked_for(world: World) -> None:
    """By the steps of its machine: ten times as many tasks of others, of other kinds, times and states."""
    alice, _ = world.user("alice"), world.user("bob")
    mine = [add(world, "alice", "sft", number) for number in range(5)]
    add(world, "alice", "grpo", 77)
    world.clock.advance(100)
    asked = {
        "workload": TaskFilter(workloads=("grpo",)),
        "state and workload": TaskFilter(workloads=("sft",), states=(TaskState.QUEUED,)),
        "until": TaskFilter(until=world.clock.now - 50),
        "suffix": TaskFilter(id_suffix=mine[0][-8:]),
        "prefix": TaskFilter(id_prefix=mine[0][:-5]),
        "ids": TaskFilter(ids=(mine[1],)),
    }

    def steps() -> dict[str, int]:
        found = {}
        for name, where in asked.items():
            for action in (actions.ListTasks(where), actions.CountTasks(where)):
                seen = [0]

                def step(seen: list[int] = seen) -> int:
                    seen[0] += 1
                    return 0

                world.store._db.set_progress_handler(step, 1)
                answer = world.service.handle(alice, action)
                world.store._db.set_progress_handler(None, 1)
                assert not isinstance(answer, ArgusError)
                found[f"{name}, {type(action).__name__}"] = seen[0]
        return found

    more_kinds = ["sft", "ppo"]
    for number in range(40):
        canceled = add(world, "alice", more_kinds[number % 2], 1000 + number)
        world.service.handle(ADMIN, actions.CancelTask(canceled))
        add(world, "bob", "sft", 2000 + number)
    before = steps()
    for number in range(400):
        canceled = add(world, "alice", more_kinds[number % 2], 5000 + number)
        world.service.handle(ADMIN, actions.CancelTask(canceled))
        add(world, "bob", "sft", 9000 + number)
    grown = {name: (was, now) for (name, was), now in zip(before.items(), steps().values(), strict=True)}
    # Not a step more for each row; a few where an index became deeper.
    assert all(now <= was * 1.1 + 20 for was, now in grown.values()), grown
