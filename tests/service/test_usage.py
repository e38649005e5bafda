"""What was used, whatever the order of ends and whoever sets the clock; beside a sum over all attempts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.actions import CancelTask, Credential, ExportTask
from argus_ray.core.errors import Forbidden, InvalidRequest
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import Task
from argus_ray.core.states import Outcome
from argus_ray.core.usage import ShowMe, ShowUsage, Usage, by_day, day_of, milliseconds
from argus_ray.store import migrations, usage
from tests.support.builders import ADMIN, World, make_service

DAY_S = 86_400.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def start(world: World, task: Task) -> str:
    change = world.admission(task)
    assert all(world.service.apply([change, Advance(change.submission_id, running=True)]))
    return change.submission_id


def end(world: World, submission_id: str, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    assert all(world.service.apply([End(submission_id, outcome, "it is over", 0)]))


def gpu_ms(world: World) -> int:
    """In all, of all days."""
    last = day_of(milliseconds(world.clock.now))
    return sum(
        row.usage.gpu_ms
        for first in range(0, last + 1, 400)
        for row in world.service.handle(ADMIN, ShowUsage((), first, min(first + 399, last))).rows
    )


def from_attempts(world: World) -> Counter[tuple[str, str, int]]:
    """The same from the rows of all attempts that are over."""
    found: Counter[tuple[str, str, int]] = Counter()
    with world.store.transaction() as db:
        rows = db.execute(
            "SELECT user_id, workload, nnodes * gpus_per_node AS gpus, counts_from, attempts.ended_at"
            " FROM attempts JOIN tasks USING (task_id)"
            " WHERE attempts.state = 'ENDED' AND counts_from IS NOT NULL"
        ).fetchall()
    for row in rows:
        parts = by_day(row["gpus"], milliseconds(row["counts_from"]), milliseconds(row["ended_at"]))
        found.update({(row["user_id"], row["workload"], day): part for day, part in parts.items()})
    return found


def stored(world: World) -> Counter[tuple[str, str, int]]:
    with world.store.transaction() as db:
        return Counter(
            {
                (row["user_id"], row["workload"], row["day"]): row["gpu_ms"]
                for row in db.execute("SELECT * FROM usage WHERE gpu_ms > 0")
            }
        )


@pytest.mark.parametrize("seed", range(4))
def test_sums_are_those_of_the_runs_whatever_happens_to_the_clock(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    world = make_service(tmp_path)
    who = [world.user(name) for name in ("alice", "bob")]
    live: dict[str, tuple[str, float, int]] = {}
    truth: Counter[str] = Counter()
    started = [0, 0]
    for _ in range(60):
        what = draw.choice(["start", "start", "end", "cancel", "wait", "wait", "set"])
        if what == "start":
            number = draw.randrange(2)
            task = world.submit(who[number], n_gpus_per_node=draw.randrange(1, 9), nnodes=draw.randrange(1, 3))
            live[start(world, task)] = task.user_id, world.clock.since_boot, task.gang.gpus
            started[number] += 1
        elif what in ("end", "cancel") and live:
            name = draw.choice(sorted(live))
            user_id, since, gpus = live.pop(name)
            if what == "cancel":
                world.service.handle(ADMIN, CancelTask(name.partition("--")[0]))
            outcome = draw.choice([Outcome.SUCCEEDED, Outcome.APPLICATION]) if what == "end" else Outcome.CANCELED
            end(world, name, outcome)
            truth[user_id] += round(gpus * (world.clock.since_boot - since) * 1000)
        elif what == "wait":
            world.clock.advance(draw.choice([1.5, 3600.25, 2.5 * DAY_S]))
        elif what == "set":
            world.clock.jump(draw.choice([-7200, 7200, 30 * DAY_S, -2 * DAY_S]))
            world.service.queue_changes("", 0)  # the scheduler's next tick
    assert from_attempts(world) == stored(world)
    by_user = Counter[str]()
    for (user_id, _, _), part in stored(world).items():
        by_user[user_id] += part
    assert by_user == truth
    with world.store.transaction() as db:
        totals = dict(db.execute("SELECT user_id, sum(gpu_ms) FROM usage_totals GROUP BY user_id").fetchall())
    assert totals == {user: part for user, part in truth.items() if part}
    running = sum(round(gpus * (world.clock.since_boot - since) * 1000) for _, since, gpus in live.values())
    assert gpu_ms(world) == truth.total() + running, "what is alive is added when somebody asks"
    rows = world.service.handle(ADMIN, ShowUsage(("user",), last_day=99_999, first_day=99_999 - 399)).rows
    assert not rows
    tasks = _counts(world)
    assert [tasks.get("alice", 0), tasks.get("bob", 0)] == started
    world.close()


def _counts(world: World) -> dict[str, int]:
    with world.store.transaction() as db:
        rows = db.execute("SELECT user_id, sum(tasks) FROM usage GROUP BY user_id").fetchall()
        return {str(row[0]): int(row[1]) for row in rows}


def test_by_user_workload_and_day(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    world.clock.now = 20_000 * DAY_S - 60  # a minute before midnight
    first = world.submit(alice, n_gpus_per_node=4)
    second = world.submit(bob, n_gpus_per_node=2)
    waits = world.submit(bob)
    one, two = start(world, first), start(world, second)
    world.clock.advance(180)
    end(world, one)
    end(world, two, Outcome.APPLICATION)
    world.service.handle(bob, CancelTask(waits.task_id))

    def rows(*by: str, **options: Any) -> list[tuple[str | None, str | None, int | None, Usage]]:
        found = world.service.handle(ADMIN, ShowUsage(by, **options)).rows
        return [(row.user_id, row.workload, row.day, row.usage) for row in found]

    assert rows() == [(None, None, None, Usage(180 * 6 * 1000, 3, 1, 1, 1))]
    assert rows("user") == [
        ("alice", None, None, Usage(720_000, 1, 1, 0, 0)),
        ("bob", None, None, Usage(360_000, 2, 0, 1, 1)),
    ]
    assert rows("workload") == [(None, "sft", None, Usage(1_080_000, 3, 1, 1, 1))]
    assert rows("user", "day") == [
        ("alice", None, 19_999, Usage(240_000, 1, 0, 0, 0)),
        ("alice", None, 20_000, Usage(480_000, 0, 1, 0, 0)),
        ("bob", None, 19_999, Usage(120_000, 2, 0, 0, 0)),
        ("bob", None, 20_000, Usage(240_000, 0, 0, 1, 1)),
    ]
    one_by_one, place = [], None
    for _ in range(4):
        part = world.service.handle(ADMIN, ShowUsage(("user", "day"), limit=1, after=place))
        one_by_one += [(row.user_id, row.workload, row.day, row.usage) for row in part.rows]
        place = part.next_place
    assert one_by_one == rows("user", "day") and place is None
    assert rows("day", first_day=20_000, last_day=20_000) == [(None, None, 20_000, Usage(720_000, 0, 1, 1, 1))]
    assert rows("user", last_day=19_990) == []


def test_an_export_uses_no_gpu_and_is_a_workload(world: World) -> None:
    task = world.submit(world.user("alice"))
    name = start(world, task)
    root = world.task(task.task_id).attempts[0].job_root
    end(world, name)
    world.service.handle(ADMIN, ExportTask(task.task_id, step=5, job_root=root))
    rows = world.service.handle(ADMIN, ShowUsage(("workload",))).rows
    assert [(row.workload, row.usage.tasks) for row in rows] == [("export", 1), ("sft", 1)]


def test_own_use_and_limits(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    done = start(world, world.submit(alice, n_gpus_per_node=4))
    world.clock.advance(10)
    end(world, done)
    world.clock.advance(40 * DAY_S)
    start(world, world.submit(alice, n_gpus_per_node=2))
    world.submit(alice)
    start(world, world.submit(bob, n_gpus_per_node=8))
    world.clock.advance(5)
    me = world.service.handle(alice, ShowMe())
    assert me.principal.user_id == "alice"
    assert (me.principal.token_id or "").startswith("tok-")
    assert me.lately == Usage(10_000, 2)
    assert me.total == Usage(50_000, 3, succeeded=1)
    assert me.limits is not None
    assert (me.limits.waiting_tasks, me.limits.gpus_held, me.limits.gpus_quota) == (1, 2, None)
    assert world.service.handle(ADMIN, ShowMe()).total is None
    with pytest.raises(Forbidden):
        world.service.handle(alice, ShowUsage())


@pytest.mark.parametrize(
    "action",
    [
        ShowUsage(("task",)),
        ShowUsage(limit=0),
        ShowUsage(limit=10**6),
        ShowUsage(first_day=10, last_day=9),
        ShowUsage(first_day=0, last_day=400),
    ],
)
def test_a_question_that_has_no_answer(world: World, action: ShowUsage) -> None:
    with pytest.raises(InvalidRequest) as refused:
        world.service.handle(ADMIN, action)
    assert refused.value.fields


def test_what_an_earlier_version_has_left_is_counted_once(tmp_path: Path) -> None:
    """The same numbers from the rows as were kept while they were made."""
    world = make_service(tmp_path)
    who: list[Credential] = [world.user("alice"), world.user("bob")]
    for number in range(6):
        world.clock.advance(0.7 * DAY_S)
        name = start(world, world.submit(who[number % 2], n_gpus_per_node=1 + number))
        world.clock.advance(1234.567 + number * DAY_S)
        end(world, name, Outcome.SUCCEEDED if number % 3 else Outcome.APPLICATION)
    with world.store.transaction() as db:
        tables = ("SELECT * FROM usage ORDER BY 1, 2, 3", "SELECT * FROM usage_totals ORDER BY 1, 2")
        kept = [[tuple(row) for row in db.execute(table)] for table in tables]
        [made] = [each for each in migrations.known() if each.name.endswith("_audit_usage.sql")]
        fill = [text for text in made.statements() if "INSERT INTO usage " in text and "TRIGGER" not in text]
        assert len(fill) == 3
        db.execute("DROP TRIGGER usage_is_not_removed")
        db.execute("DELETE FROM usage")
        db.execute("DELETE FROM usage_totals")
        for statement in fill:
            db.execute(statement)
        assert [[tuple(row) for row in db.execute(table)] for table in tables] == kept
        assert len(kept[0]) > 8
    world.close()


def test_no_question_reads_the_past(world: World) -> None:
    with world.store.transaction() as db:
        for query, values in (
            (usage._OF_USER, ("alice", 1, 2)),
            (usage._COUNTS, ("alice",)),
            (usage._TOTAL, ("alice",)),
            (usage._LIVE, ("export",)),
            (usage._PART_OF_USER.format(workload="NULL", day="day"), ("alice", 1, 2)),
            (usage._USERS, ("alice", 9)),
        ):
            plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            for table in ("usage", "usage_totals", "task_counts", "tasks"):
                assert f"SCAN {table}" not in plan, plan
