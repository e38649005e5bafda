"""Numbers of changes: one for each that is visible, found by an index, and free while nothing happens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.store import Store, changes
from tests.store.rows import add_task
from tests.support.fresh import put_database

ONE, TWO, THREE = (f"argus-alice-sft-20270115-080000-000{n}" for n in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    put_database(tmp_path / "argus.db")
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        for name in ("alice", "bob"):
            db.execute("INSERT INTO users VALUES (?, '', 'ACTIVE', 0)", (name,))
        add_task(db, ONE)
    yield store
    store.close()


def numbers(db: sqlite3.Connection) -> dict[str, int]:
    return {task.task_id: number for number, task in changes.since(db, None, 0, 1000)}


VISIBLE = (
    "UPDATE tasks SET reason = 'words'",
    "UPDATE tasks SET state = 'PENDING_RESOURCES', reason = 'other words'",
    "UPDATE tasks SET not_before = 5",
    "UPDATE tasks SET not_before = NULL, overtaken_since = NULL, state = 'SUBMITTING'",
    "UPDATE tasks SET updated_at = updated_at + 1",
    "UPDATE attempts SET state = 'RUNNING', started_at = 1",
    "UPDATE attempts SET stalled_since = 2, stalled_why = 'it'",
    "UPDATE attempts SET stalled_why = 'another thing'",
    "UPDATE attempts SET stalled_since = NULL, stalled_why = NULL",
    "UPDATE tasks SET state = 'CANCELED', ended_at = 3, reason = 'canceled'",
    "UPDATE attempts SET state = 'ENDED', ended_at = 4, outcome = 'CANCELED'",
    "UPDATE tasks SET files_at = 'LEAVING'",
    "UPDATE tasks SET files_at = 'TRASH', trashed_at = 5",
)
HIDDEN = (
    "UPDATE tasks SET reason = reason, state = state, not_before = not_before",
    "UPDATE tasks SET overtaken_since = 1",
    "UPDATE tasks SET losses = losses + 1",
    "UPDATE tasks SET look_after = look_after + 1",
    "UPDATE attempts SET session = 's', ray_job_id = 'x'",
)


def test_each_visible_change_has_a_number_and_no_other_one(store: Store) -> None:
    with store.transaction() as db:
        add_task(db, TWO)
        db.execute(
            "INSERT INTO attempts (submission_id, task_id, number, state, created_at, job_root, command, env)"
            " VALUES (?, ?, 1, 'SUBMITTING', 0, '/x', '[]', '[]')",
            (f"{ONE}--a01", ONE),
        )
        seen, two = numbers(db)[ONE], numbers(db)[TWO]
        for statement in (*HIDDEN, *VISIBLE):
            mine = statement if " attempts " in statement else f"{statement} WHERE task_id = '{ONE}'"
            assert db.execute(mine).rowcount == 1, "a trigger's rows do not count"
            now = numbers(db)
            assert (now[ONE] > seen) is (statement in VISIBLE), statement
            assert (now[TWO], changes.clock(db)[0]) == (two, max(now.values()))
            seen = now[ONE]


def test_numbers_only_rise_also_after_a_rollback_and_a_restart(store: Store, tmp_path: Path) -> None:
    with store.transaction() as db:
        before = changes.clock(db)
    with pytest.raises(KeyError), store.transaction() as db:
        add_task(db, TWO)
        raise KeyError
    with store.transaction() as db:
        assert (changes.clock(db), set(numbers(db))) == (before, {ONE})
    store.close()
    again = Store.open(tmp_path / "argus.db")
    with again.transaction() as db:
        assert changes.clock(db) == before
        add_task(db, TWO)
        assert numbers(db)[TWO] > before[0]
    again.close()


def test_a_page_holds_the_oldest_changes_of_one_user_or_of_all(store: Store) -> None:
    with store.transaction() as db:
        add_task(db, TWO)
        add_task(db, "argus-bob-sft-20270115-080000-0001", user_id="bob")
        add_task(db, THREE)
        db.execute("UPDATE tasks SET reason = 'r' WHERE task_id = ?", (ONE,))
        assert [task.task_id for _, task in changes.since(db, "alice", 0, 9)] == [TWO, THREE, ONE]
        [(at, first), _] = changes.since(db, "alice", 0, 2)
        assert first.task_id == TWO
        assert [task.task_id for _, task in changes.since(db, "alice", at, 9)] == [THREE, ONE]
        assert [task.user_id for _, task in changes.since(db, None, at, 2)] == ["bob", "alice"]
        assert changes.since(db, "bob", changes.clock(db)[0], 9) == []


def test_each_query_goes_by_an_index_whatever_came_before(store: Store) -> None:
    with store.transaction() as db:
        for query, index in ((changes._OF_ALL, "tasks_by_change"), (changes._OF_USER, "tasks_by_own_change")):
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}", {"user_id": "alice", "after": 5, "limit": 9}).fetchall()
            told = [row["detail"] for row in plan]
            assert len(told) == 1 and f"SEARCH tasks USING INDEX {index} (" in told[0] and "changed>?" in told[0], told
        plan = db.execute(f"EXPLAIN QUERY PLAN {changes._COUNTS}", {"users": "[]", "states": "[]"}).fetchall()
        assert any("SEARCH task_counts USING PRIMARY KEY (state=? AND user_id=?)" in row["detail"] for row in plan)


def test_a_long_past_costs_nothing(store: Store) -> None:
    """By the work that SQLite does, in steps of its virtual machine: with 3,000 tasks as with 20."""
    steps = {}
    for count in (20, 3_000):
        with store.transaction() as db:
            have = db.execute("SELECT count(*) FROM tasks").fetchone()[0]
            for n in range(have, count):
                add_task(db, f"argus-alice-sft-20270115-080000-x{n}")
            newest, _ = changes.clock(db)
            work = [0]

            def note(work: list[int] = work) -> int:
                work[0] += 1
                return 0

            db.set_progress_handler(note, 10)
            for after in (newest, newest - 5):
                changes.clock(db)
                assert len(changes.since(db, None, after, 100)) == newest - after
                assert len(changes.since(db, "alice", after, 100)) == newest - after
            changes.counts(db, ["alice", "bob"])
            db.set_progress_handler(None, 0)
            steps[count] = work[0]
    assert steps[3_000] < 1.5 * steps[20] + 10, steps


def test_a_look_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = Path(f"{store.path}-wal")
    before = wal.stat()
    with store.transaction() as db:
        changes.since(db, None, changes.clock(db)[0], 9)
        changes.counts(db, ["alice"])
    after = wal.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_counts_are_those_of_the_tasks(store: Store) -> None:
    with store.transaction() as db:
        add_task(db, TWO)
        db.execute("UPDATE tasks SET state = 'SUBMITTING' WHERE task_id = ?", (ONE,))
        found = changes.counts(db, ["alice", "bob", "nobody"])
        assert {user: {state.value: n for state, n in counts.items()} for user, counts in found.items()} == {
            "alice": {"QUEUED": 1, "SUBMITTING": 1}, "bob": {}, "nobody": {},
        }  # fmt: skip
