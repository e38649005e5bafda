"""What it costs the database to accept a task, in statements and in steps of SQLite's virtual machine: no clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential
from argus_ray.core.errors import QueueFull
from argus_ray.store import changes
from tests.store.rows import add_task
from tests.support.builders import World, make_service
from tests.support.sanity import sanity_check

BATCH = 32


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def calls(world: World, who: list[Credential], count: int = BATCH) -> list[Any]:
    """Each with settings, as the gateway sends them."""
    text = world.spec()
    plain = world.submission(text)
    return [
        (who[n % len(who)], actions.SubmitTask(text, plain.workload, plain.gang, settings='["x"]'))
        for n in range(count)
    ]


def steps_of(world: World, batch: list[Any]) -> float:
    """Of one submission, on average."""
    count = [0]

    def note() -> int:
        count[0] += 1
        return 0

    with world.store.transaction() as db:
        connection = db
    connection.set_progress_handler(note, 1)
    try:
        answers = world.service.handle_many(batch)
    finally:
        connection.set_progress_handler(None, 0)
    assert all(answer.created for answer in answers)
    return count[0] / len(batch)


def test_statements_of_a_submission_are_few_with_those_of_its_triggers(world: World) -> None:
    who = [world.user(f"u{n}") for n in range(8)]
    world.service.handle_many(calls(world, who))
    seen: list[str] = []
    with world.store.transaction() as db:
        connection = db
    connection.set_trace_callback(seen.append)
    try:
        world.service.handle_many(calls(world, who))
    finally:
        connection.set_trace_callback(None)
    # 22.7 with a trigger for each count; 12 before anything was counted for monitoring, audit, usage and streams.
    assert len(seen) / BATCH <= 19, seen[:40]


def test_accepting_costs_the_same_with_many_users_whose_tasks_wait(world: World) -> None:
    who = [world.user(f"u{n}") for n in range(4)]
    world.service.handle_many(calls(world, who))
    few = steps_of(world, calls(world, who))
    others = [world.user(f"v{n}") for n in range(120)]
    world.service.handle_many(calls(world, others, 120))
    many = steps_of(world, calls(world, who))
    # All are counted once a batch, and not for each submission of it.
    assert many < few * 1.1 + 8 * 120 / BATCH, (few, many)
    assert few < 1100, few


def test_a_limit_holds_to_the_task_within_a_batch_also_beside_what_fails_and_leaves(tmp_path: Path) -> None:
    settings = {"limits": {"waiting_tasks": 7, "waiting_tasks_per_user": 4}}
    world = make_service(tmp_path, settings=settings)
    alice, bob = world.user("alice"), world.user("bob")
    first = world.submit(alice, "key")
    [(_, submission)] = calls(world, [alice], 1)
    conflict = world.submission(world.spec(nnodes=2), "key")
    answers = world.service.handle_many(
        [
            *((alice, submission) for _ in range(2)),
            (alice, conflict),
            *((alice, submission) for _ in range(2)),  # the fourth, and one too many
            (alice, actions.CancelTask(first.task_id)),
            *((alice, submission) for _ in range(2)),  # one has left, so one may come
            *((bob, submission) for _ in range(4)),  # three of these: seven in all
        ]
    )
    told = ["full" if isinstance(each, QueueFull) else "ok" for each in answers]
    assert answers[2].code == "idempotency_conflict"
    del told[2], told[4]
    assert told == ["ok", "ok", "ok", "full", "ok", "full", "ok", "ok", "ok", "full"]
    sanity_check(world.store)
    world.close()


def test_a_row_without_its_number_gets_one_and_a_wrong_one_is_refused(world: World) -> None:
    world.user("alice")
    with world.store.transaction() as db:
        add_task(db, "argus-alice-sft-20270115-080000-0001")
        newest, _ = changes.clock(db)
        copied = (
            "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
            " spec_yaml, created_at, updated_at, kind, changed)"
            " VALUES (?, 'alice', 'sft', 'QUEUED', 1, 1, 1, 0, '', 0, 0, ?, ?)"
        )
        db.execute(copied, ("argus-alice-sft-20270115-080000-0002", "sft", None))
        assert changes.newest_of(db, "alice") == newest + 1 == changes.clock(db)[0]
        for wrong in (newest + 1, newest + 3, 1):
            with pytest.raises(sqlite3.IntegrityError, match="next one"):
                db.execute(copied, ("argus-alice-sft-20270115-080000-0003", "sft", wrong))
        with pytest.raises(sqlite3.IntegrityError, match="follows from what it is"):
            db.execute(copied, ("argus-alice-sft-20270115-080000-0003", "export", None))
        assert changes.clock(db)[0] == newest + 1
        assert db.execute("SELECT sum(tasks) FROM usage").fetchone()[0] == 2
        assert db.execute("SELECT sum(n) FROM task_counts").fetchone()[0] == 2
        assert db.execute("SELECT sum(n) FROM kind_counts").fetchone()[0] == 2


def test_settings_are_kept_once(world: World) -> None:
    alice = world.user("alice")
    world.service.handle_many(calls(world, [alice], 3))
    with world.store.transaction() as db:
        assert [tuple(row) for row in db.execute("SELECT text FROM settings")] == [('["x"]',)]
        with pytest.raises(sqlite3.IntegrityError):
            add_task(db, "argus-alice-sft-20270115-080000-0009", settings="{}")
