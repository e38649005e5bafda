"""Impossible rows are refused by the database itself, whatever the code above believes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

import pytest

from argus_ray.core.model import FilesAt, Gang, UserState
from argus_ray.core.retention import Chore
from argus_ray.core.states import ACTIVE, FINAL, WAITING, AttemptState, Outcome, TaskState
from argus_ray.store import Store, disk, feed, migrations, queue, tasks
from tests.store.rows import add_task
from tests.support.fresh import put_database

TASK = "argus-alice-sft-20270115-080000-0001"
OTHER = "argus-alice-sft-20270115-080000-0002"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction with a user, a task that is QUEUED and one that runs its first attempt."""
    put_database(tmp_path / "argus.db")
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        db.execute("INSERT INTO users VALUES ('alice', '', 'ACTIVE', 0)")
        for task_id in (TASK, OTHER):
            add_task(db, task_id, settings="[]")
        db.execute("UPDATE tasks SET state = 'SUBMITTING' WHERE task_id = ?", (OTHER,))
        add_attempt(db, OTHER, 1)
        yield db
    store.close()


def add_attempt(db: sqlite3.Connection, task_id: str, number: int, state: str = "SUBMITTING") -> None:
    name = f"{task_id}--a{number:02d}"
    db.execute(
        "INSERT INTO attempts (submission_id, task_id, number, state, created_at, job_root, command, env)"
        " VALUES (?, ?, ?, ?, 0, ?, '[]', '[]')",
        (name, task_id, number, state, f"/x/{name}"),
    )


def test_tasks_table_has_user_id(db: sqlite3.Connection) -> None:
    """A task always belongs to a user, and the queue of a user holds only their tasks."""
    columns = {row["name"]: row["notnull"] for row in db.execute("PRAGMA table_info(tasks)")}
    assert columns["user_id"] == 1
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE tasks SET user_id = NULL")
    with pytest.raises(sqlite3.IntegrityError):
        tasks.add(
            db,
            task_id="argus-x",
            user_id="nobody",
            workload="sft",
            gang=Gang(1, 1, 1.0),
            spec_yaml="",
            idempotency_key=None,
            now=1.0,
            message="m",
        )
    assert {task.task_id for task, _ in queue.entries(db, "alice")} == {TASK, OTHER}
    assert queue.entries(db, "bob") == ()


IMPOSSIBLE = {
    "unknown task state": "UPDATE tasks SET state = 'PAUSED'",
    "final without an end": "UPDATE tasks SET state = 'CANCELED'",
    "an end without final": "UPDATE tasks SET ended_at = 1",
    "failed without a reason": "UPDATE tasks SET state = 'FAILED', ended_at = 1",
    "waiting for resources without a reason": "UPDATE tasks SET state = 'PENDING_RESOURCES'",
    "running and waiting": "UPDATE tasks SET state = 'RUNNING', not_before = 1",
    "negative losses": "UPDATE tasks SET losses = -1",
    "no nodes": "UPDATE tasks SET nnodes = 0",
    "another workload": "UPDATE tasks SET workload = 'dpo'",
    "text for a time": "UPDATE tasks SET updated_at = 'now'",
    "a new place in the line": "UPDATE tasks SET seq = seq + 10",
    "a new owner": "UPDATE tasks SET user_id = user_id",
    "a new id": "UPDATE tasks SET task_id = 'argus-x'",
    "a new spec": "UPDATE tasks SET spec_yaml = 'x: y'",
    "other settings": "UPDATE tasks SET settings = NULL",
    "other presets": "UPDATE tasks SET presets = '[\"long\"]'",
    "presets that are no list": "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node,"
    " cpus_per_node, extra_cpus, spec_yaml, created_at, updated_at, presets) SELECT 'argus-z', user_id, workload,"
    " 'QUEUED', 1, 1, 1, 0, '', 0, 0, '{}' FROM tasks LIMIT 1",
    "settings that are nowhere": "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node,"
    " cpus_per_node, extra_cpus, spec_yaml, created_at, updated_at, settings) SELECT 'argus-z', user_id, workload,"
    " 'QUEUED', 1, 1, 1, 0, '', 0, 0, hex(zeroblob(32)) FROM tasks LIMIT 1",
    "stored settings changed": "UPDATE settings SET text = '[1]'",
    "stored settings removed": "DELETE FROM settings",
    "settings that are no list": "INSERT INTO settings VALUES (hex(zeroblob(32)), '{}')",
    "settings by a short name": "INSERT INTO settings VALUES ('abc', '[]')",
    "a task with a used place": "INSERT INTO tasks SELECT * FROM tasks",
    "a task with attempts removed": "DELETE FROM tasks",
    "unknown attempt state": "UPDATE attempts SET state = 'LOST'",
    "ended without outcome": "UPDATE attempts SET state = 'ENDED', ended_at = 1",
    "ended without a time": "UPDATE attempts SET state = 'ENDED', outcome = 'SUCCEEDED'",
    "an outcome while alive": "UPDATE attempts SET outcome = 'SUCCEEDED'",
    "an exit code while alive": "UPDATE attempts SET exit_code = 0",
    "unknown outcome": "UPDATE attempts SET state = 'ENDED', ended_at = 1, outcome = 'MAYBE'",
    "running without a start": "UPDATE attempts SET state = 'RUNNING'",
    "attempt number 0": "UPDATE attempts SET number = 0",
    "a number that is not the id's": "UPDATE attempts SET number = 2",
    "a command that is no JSON": "UPDATE attempts SET command = 'python3'",
    "a command that is no list": "UPDATE attempts SET command = '{}'",
    "an environment that is no JSON": "UPDATE attempts SET env = ''",
    "a relative job root": "UPDATE attempts SET job_root = 'x'",
    "an event changed": "UPDATE events SET message = 'x'",
    "an event removed": "DELETE FROM events",
    "an event of no task": "INSERT INTO events (task_id, at, kind, message) VALUES ('x', 0, 'note', 'm')",
    "an event of unknown kind": "INSERT INTO events (task_id, at, kind, message) SELECT task_id, 0, 'x', 'm'"
    " FROM tasks",
    "a note without words": "INSERT INTO events (task_id, at, kind, message) SELECT task_id, 0, 'note', '' FROM tasks",
    "a move without a cause": "INSERT INTO events (task_id, at, kind, old_state, new_state, message)"
    " SELECT task_id, 0, 'move', 'QUEUED', 'RUNNING', 'm' FROM tasks",
    "a move from nowhere": "INSERT INTO events (task_id, at, kind, new_state, cause, message)"
    " SELECT task_id, 0, 'move', 'RUNNING', 'admitted', 'm' FROM tasks",
    "a note that moves": "INSERT INTO events (task_id, at, kind, old_state, message)"
    " SELECT task_id, 0, 'note', 'QUEUED', 'm' FROM tasks",
    "files that leave before the end": "UPDATE tasks SET files_at = 'LEAVING'",
    "files nowhere": "UPDATE tasks SET files_at = 'ELSEWHERE'",
    "a time in the trash before it": "UPDATE tasks SET trashed_at = 1",
    "a size of no attempt": "INSERT INTO disk_use VALUES ('x', 1)",
    "a negative size": "INSERT INTO disk_use SELECT submission_id, -1 FROM attempts",
    "a stall without words": "UPDATE attempts SET stalled_since = 1",
    "a resume of nobody's": "UPDATE tasks SET resume_roots = '[]'",
    "an origin that does not exist": "UPDATE tasks SET resubmitted_from = 'argus-y'",
    "a reason that is no data": "UPDATE tasks SET reason = 'why', reason_code = 'pool_busy'",
    "a code without facts": "UPDATE tasks SET reason_code = 'pool_busy'",
    "a negative count": "UPDATE task_counts SET n = -1",
    "a user with a capital": "INSERT INTO users VALUES ('Alice', '', 'ACTIVE', 0)",
    "a user with a slash": "INSERT INTO users VALUES ('a/b', '', 'ACTIVE', 0)",
    "a user twice": "INSERT INTO users VALUES ('alice', '', 'ACTIVE', 0)",
    "unknown user state": "UPDATE users SET state = 'GONE'",
    "a user with tasks removed": "DELETE FROM users",
    "a plain token": "INSERT INTO tokens VALUES ('t', 'alice', 'argus_u_' || hex(zeroblob(32)), '', 0,"
    " NULL, NULL, NULL)",
    "a short digest": "INSERT INTO tokens VALUES ('t', 'alice', 'abc', '', 0, NULL, NULL, NULL)",
    "a digest in capitals": "INSERT INTO tokens VALUES ('t', 'alice', replace(hex(zeroblob(32)), '0', 'A'),"
    " '', 0, NULL, NULL, NULL)",
    "a token that was never valid": "INSERT INTO tokens VALUES ('t', 'alice', hex(zeroblob(32)), '', 5, 5, NULL, NULL)",
    "a token of nobody": "INSERT INTO tokens VALUES ('t', 'bob', hex(zeroblob(32)), '', 0, NULL, NULL, NULL)",
    "a cordon of nothing": "INSERT INTO cordons VALUES ('', 'admin', 1, '', 0, NULL, NULL)",
    "a cordon by nobody": "INSERT INTO cordons VALUES ('m', '', 1, '', 0, NULL, NULL)",
    "a deadline without a drain": "INSERT INTO cordons VALUES ('m', 'admin', 1, '', 0, 5, NULL)",
    "orders of a second pool": "INSERT INTO pool_orders (id, version) VALUES (2, 0)",
    "an order without a new version": "UPDATE pool_orders SET maintenance_by = 'admin', maintenance_since = 1",
    "maintenance by nobody": "UPDATE pool_orders SET version = version + 1, maintenance_since = 1",
    "the orders removed": "DELETE FROM pool_orders",
    "a second writer": "INSERT INTO writer VALUES (2, 1, hex(zeroblob(16)), 0)",
    "epoch 0": "UPDATE writer SET epoch = 0",
}


@pytest.mark.parametrize("statement", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_rows(db: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)


def test_one_live_attempt_at_most(db: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        add_attempt(db, OTHER, 2)
    db.execute("UPDATE attempts SET state = 'STOPPING'")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        add_attempt(db, OTHER, 2)
    db.execute("UPDATE attempts SET state = 'ENDED', ended_at = 1, outcome = 'INFRASTRUCTURE'")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        add_attempt(db, OTHER, 1)
    add_attempt(db, OTHER, 2)
    add_attempt(db, TASK, 123)


def test_final_is_final(db: sqlite3.Connection) -> None:
    db.execute("UPDATE tasks SET state = 'CANCELED', ended_at = 1 WHERE task_id = ?", (TASK,))
    with pytest.raises(sqlite3.IntegrityError, match="ended does not move"):
        db.execute("UPDATE tasks SET state = 'QUEUED', ended_at = NULL WHERE task_id = ?", (TASK,))
    db.execute("UPDATE attempts SET state = 'ENDED', ended_at = 1, outcome = 'CANCELED'")
    with pytest.raises(sqlite3.IntegrityError, match="ended does not change"):
        db.execute("UPDATE attempts SET outcome = 'SUCCEEDED'")


def test_a_taken_task_id_is_told_and_changes_nothing(db: sqlite3.Connection) -> None:
    before = db.total_changes
    assert add_task(db, TASK) is None
    assert db.total_changes == before


def test_the_schema_lists_the_words_of_the_core() -> None:
    sql = "".join(migration.sql for migration in migrations.known())
    lists = {frozenset(re.findall(r"'(\w+)'", found)) for found in re.findall(r"\bIN \(([^)]*)\)", sql)}

    def words(members: Iterable[Enum]) -> frozenset[str]:
        return frozenset(str(member.value) for member in members)

    kinds: list[Iterable[Enum]] = [TaskState, AttemptState, Outcome, UserState, FilesAt, WAITING, FINAL]
    for kind in kinds:
        assert words(kind) in lists, kind
    for path in Path(queue.__file__).parent.glob("*.py"):
        for found in re.findall(r"\bIN \(('[A-Z][^)]*)\)", path.read_text()):
            used = frozenset(re.findall(r"'(\w+)'", found))
            assert used in {words(WAITING), words(ACTIVE), words(FINAL), frozenset({"STOPPING", "ENDED"})}, path


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT * FROM {line} ORDER BY seq LIMIT 5", "tasks_in_line"),
        ("SELECT count(*) FROM {line} AND seq <= 5", "tasks_in_line"),
        ("SELECT task_id FROM tasks WHERE user_id = 'a' AND {waits} AND seq < 5", "tasks_"),
        (
            "SELECT * FROM attempts CROSS JOIN tasks USING (task_id) WHERE attempts.state <> 'ENDED'",
            "one_live_attempt",
        ),
        ("SELECT * FROM tasks WHERE user_id = 'a' AND idempotency_key = 'k'", "tasks_by_key"),
        ("SELECT * FROM events WHERE task_id = 'a' AND event_id > 5 ORDER BY event_id", "events_by_task"),
        ("SELECT * FROM tokens JOIN users USING (user_id) WHERE digest = 'a'", "sqlite_autoindex_tokens"),
    ],
)
def test_what_is_asked_often_is_asked_by_index(db: sqlite3.Connection, query: str, index: str) -> None:
    plan = [
        row["detail"]
        for row in db.execute("EXPLAIN QUERY PLAN " + query.format(line=queue.WAITING, waits=queue._WAITS))
    ]
    assert index in plan[0], plan
    assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_pages_and_the_queue_do_not_walk_the_past(db: sqlite3.Connection) -> None:
    values = {"states": "[]", "user_id": "alice", "below": 9, "limit": 9, "before": 9, "spared": "[]"}
    values |= {"due": 9, "per_user": 9}
    asked = (queue._PAGE_OF_ALL, queue._PAGE_OF_USER, queue._QUEUE, disk._CLAIM, disk._ROOTS_IN_USE, feed._ALL)
    for query in (*asked, *disk._QUERIES.values()):
        plan = [row["detail"] for row in db.execute("EXPLAIN QUERY PLAN " + query, values)]
        assert not [step for step in plan if re.match("SCAN (tasks|due|attempts)", step) and "INDEX" not in step], plan


@pytest.mark.parametrize("chore", [Chore.TRASH, Chore.DELETE, Chore.ENDED])
def test_housekeeping_finds_by_user_and_due_time(db: sqlite3.Connection, chore: Chore) -> None:
    """So that neither what is not due nor what others have costs anything."""
    plan = [
        row["detail"]
        for row in db.execute("EXPLAIN QUERY PLAN " + disk._QUERIES[chore], {"due": 9, "per_user": 9, "limit": 9})
    ]
    assert any("tasks_by_look (user_id=? AND files_at=? AND look_after<?)" in step for step in plan), plan
