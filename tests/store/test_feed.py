"""What has changed since a number: complete, small, and whole again when the number says nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.lifecycle import Advance, End, FilesMeasured, Hold, Stall
from argus_ray.core.model import QueueChanges
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.store import Store, feed, migrations
from argus_ray.store.store import savepoint
from tests.support.builders import World
from tests.support.sanity import checked_service

BUSY = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


class Reader:
    def __init__(self, world: World) -> None:
        self.world = world
        self.last = world.service.queue_changes("", 0)
        assert self.last.is_whole

    def read(self) -> QueueChanges:
        """What is new since this was called last."""
        self.last = self.world.service.queue_changes(self.last.writer, self.last.version)
        return self.last

    def seqs(self) -> tuple[list[int], list[int]]:
        found = self.read()
        assert not found.is_whole
        return [row.seq for row in found.rows], list(found.gone)


def test_each_change_of_a_task_in_the_queue_is_told_once(world: World) -> None:
    ada = world.user("ada")
    world.submit(ada)
    reader = Reader(world)
    assert [row.seq for row in reader.last.rows] == [1]
    assert reader.seqs() == ([], [])
    task = world.submit(ada)
    apply = world.service.apply
    name = world.admission(task).submission_id
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: apply([Hold(task.task_id, BUSY)]),
        lambda: apply([Hold(task.task_id, BUSY, None, 5.0)]),
        lambda: apply([world.admission(task)]),
        lambda: apply([Advance(name, running=False, session="s")]),
        lambda: apply([Advance(name, running=True, ray_job_id="01")]),
        lambda: apply([Stall(name, 1.0, "why")]),
        lambda: apply([End(name, Outcome.INFRASTRUCTURE, "lost")]),
    ]
    for step in steps:
        step()
        assert reader.seqs() == ([2], [])
        assert reader.seqs() == ([], [])
    world.service.handle(ada, actions.CancelTask(task.task_id))
    assert reader.seqs() == ([], [2])
    assert reader.seqs() == ([], [])


def test_many_changes_of_one_task_are_one_row(world: World) -> None:
    ada = world.user("ada")
    reader = Reader(world)
    task = world.submit(ada)
    change = world.admission(task)
    world.service.apply([Hold(task.task_id, BUSY), change, Advance(change.submission_id, running=True)])
    (row,) = reader.read().rows
    assert row.live is not None and row.live.state is AttemptState.RUNNING


def test_a_canceled_task_stays_until_its_attempt_is_over(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    change = world.admission(task)
    world.service.apply([change])
    reader = Reader(world)
    world.service.handle(ada, actions.CancelTask(task.task_id))
    (row,) = reader.read().rows
    assert row.live is not None and row.live.state is AttemptState.STOPPING and row.state.is_final
    world.service.apply([End(change.submission_id, Outcome.CANCELED, "")])
    assert reader.seqs() == ([], [1])


def test_what_is_no_business_of_the_scheduler_is_not_told(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    reader = Reader(world)
    world.issue("ada")
    world.service.apply([FilesMeasured(task.task_id, (), "a message")])
    world.service.handle(ada, actions.GetTask(task.task_id))
    assert reader.seqs() == ([], [])


def test_what_was_rolled_back_is_not_told(world: World) -> None:
    task = world.submit(world.user("ada"))
    reader = Reader(world)
    with world.store.transaction() as db:
        with pytest.raises(ZeroDivisionError), savepoint(db):
            db.execute("UPDATE tasks SET overtaken_since = 1")
            raise ZeroDivisionError
        db.execute("UPDATE tasks SET not_before = 7")
    with pytest.raises(ZeroDivisionError), world.store.transaction() as db:
        db.execute("UPDATE tasks SET not_before = 8")
        raise ZeroDivisionError
    (row,) = reader.read().rows
    assert (row.task_id, row.not_before, row.overtaken_since) == (task.task_id, 7.0, None)


def test_another_writer_tells_the_whole(world: World) -> None:
    """Its numbers may be the same, and mean something else."""
    ada = world.user("ada")
    world.submit(ada)
    reader = Reader(world)
    version = reader.last.version
    world.reopen()
    for _ in range(3):
        world.submit(ada)
    found = reader.read()
    assert found.is_whole and len(found.rows) == 4 and found.version >= version
    assert reader.seqs() == ([], [])


def test_a_number_that_is_too_old_or_from_nowhere_is_answered_by_the_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = world.user("ada")
    writer = Reader(world).last.writer
    monkeypatch.setattr(feed, "_REMOVED_AT_ONCE", 2)
    monkeypatch.setattr(feed, "_MAX_NOTED", 5)
    for _ in range(4):
        world.submit(ada)
    assert not world.service.queue_changes(writer, 0).is_whole
    assert not world.service.queue_changes(writer, 3).is_whole
    with world.store.transaction() as db:
        assert db.execute("SELECT count(*) FROM changed_tasks").fetchone()[0] == 1, "nobody needs the others any more"
    assert world.service.queue_changes(writer, 2).is_whole, "what came after 2 is forgotten in part"
    assert world.service.queue_changes(writer, 99).is_whole
    for _ in range(7):
        world.submit(ada)
    assert world.service.queue_changes(writer, 4).is_whole, "the whole is shorter"
    with world.store.transaction() as db:
        assert db.execute("SELECT count(*) FROM changed_tasks").fetchone()[0] == 0
    assert not world.service.queue_changes(writer, 11).is_whole


def test_an_older_database_keeps_its_words_and_promises_nothing_more(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "argus.db", isolation_level=None)
    migrations.migrate(db, migrations.known()[:5])
    db.execute("INSERT INTO users VALUES ('ada', '', 'ACTIVE', 0)")
    db.execute(
        "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
        " spec_yaml, created_at, updated_at, reason, next_retry_at) VALUES ('argus-x', 'ada', 'sft',"
        " 'PENDING_RESOURCES', 1, 4, 12.0, 0.0, 'a: b', 1, 1, '{no JSON}; 1 has now', 61)"
    )
    db.close()
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as rows:
        found = feed.whole(rows, "w")
        assert [(row.task_id, row.reason, row.not_before) for row in found.rows] == [("argus-x", None, None)]
        assert tuple(rows.execute("SELECT reason, reason_code, next_retry_at FROM tasks").fetchone()) == (
            "{no JSON}; 1 has now", None, None,
        )  # fmt: skip
    store.close()


def test_a_reason_of_another_version_hides_no_row(world: World) -> None:
    task = world.submit(world.user("ada"))
    with world.store.transaction() as db:
        db.execute("""UPDATE tasks SET reason = '{"odd": 1}', reason_code = 'unheard_of'""")
    assert world.task(task.task_id).reason == 'unheard_of {"odd": 1}'
    assert world.service.queue_changes("", 0).rows[0].reason is None
