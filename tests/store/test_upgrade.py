"""An old database that is brought to the newest schema: with all that was in it, and read few times."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from argus_ray.store import Store, migrations, usage
from tests.support.sanity import sanity_check

#: The schema of version 0.1.
FIRST = 14
TASKS = 1500
DAY_S = 86_400.0


def old_database(path: Path) -> None:
    """Of tasks that have ended, each with one attempt whose command is long, as verl's are."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    migrations.migrate(db, migrations.known()[:FIRST])
    db.execute("BEGIN")
    db.execute("INSERT INTO writer VALUES (1, 1, ?, 0)", ("a" * 32,))
    db.executemany("INSERT INTO users VALUES (?, '', 'ACTIVE', 0)", [("alice",), ("bob",)])
    for n in range(TASKS):
        user_id = ("alice", "bob")[n % 2]
        task_id, at = f"argus-{user_id}-sft-20260101-000000-{n * 7919 % TASKS:04x}", 1_760_000_000.0 + n * 600
        db.execute(
            "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
            " spec_yaml, created_at, updated_at, started_at, ended_at)"
            " VALUES (?, ?, 'sft', 'SUCCEEDED', 1, 2, 2, 0, ?, ?, ?, ?, ?)",
            (task_id, user_id, "x: y\n" * 300, at, at + 90, at + 30, at + 90),
        )
        name = f"{task_id}--a01"
        db.execute(
            "INSERT INTO attempts (submission_id, task_id, number, state, created_at, job_root, started_at, ended_at,"
            " outcome, command, env) VALUES (?, ?, 1, 'ENDED', ?, ?, ?, ?, 'SUCCEEDED', ?, '[]')",
            (name, task_id, at, f"/x/users/{user_id}/jobs/{name}", at + 30, at + 90, f'["{"z" * 3000}"]'),
        )
        for old, new, cause, event_at in (
            (None, "QUEUED", "accepted", at),
            ("QUEUED", "SUBMITTING", "admitted", at),
            ("SUBMITTING", "RUNNING", "driver_started", at + 30),
            ("RUNNING", "SUCCEEDED", "succeeded", at + 90),
        ):
            db.execute(
                "INSERT INTO events (task_id, at, kind, old_state, new_state, cause, message)"
                " VALUES (?, ?, 'move', ?, ?, ?, 'm')",
                (task_id, event_at, old, new, cause),
            )
    db.execute("COMMIT")
    db.close()


def bytes_read() -> int:
    """By this process, from files and their caches."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar:")).split()[1])


def test_an_old_database_is_upgraded_with_its_past_and_read_few_times(tmp_path: Path) -> None:
    path = tmp_path / "argus.db"
    old_database(path)
    size = path.stat().st_size
    assert size > 8 * 2**20, "many times SQLite's own page cache"
    before = bytes_read()
    store = Store.open(path)
    try:
        read = bytes_read() - before
        # 4.3 times with SQLite's own cache.
        assert read < 1.6 * size, f"{read / size:.1f} times its size"
        with store.transaction() as db:
            assert db.execute("PRAGMA cache_size").fetchone()[0] == -2000, "a writer keeps no more than before"
            found = usage.part_of_user(db, "alice", (), 0, 99_999)[0][None, None]
            assert (found.gpu_ms, found.tasks, found.succeeded) == (TASKS // 2 * 120_000, TASKS // 2, TASKS // 2)
        sanity_check(store)
    finally:
        store.close()


def test_the_newest_schema_is_the_same_by_any_way(tmp_path: Path) -> None:
    """A new database, and one that was brought up one version after another by separate writers."""

    def schema(db: sqlite3.Connection) -> list[tuple[str, ...]]:
        return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()

    at_once, by_steps = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    known = migrations.known()
    migrations.migrate(at_once, known)
    for n in range(1, len(known) + 1):
        migrations.migrate(by_steps, known[:n])
    assert schema(at_once) == schema(by_steps)


def test_a_step_that_fails_leaves_the_version_before_it_and_the_cache_as_it_was() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    cache = db.execute("PRAGMA cache_size").fetchone()[0]
    bad = migrations.Migration(3, "0003_bad.sql", "CREATE TABLE here (n);\nSELECT no_such_function();\n")
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(db, [*migrations.known()[:2], bad])
    assert db.execute("PRAGMA user_version").fetchone()[0] == 2
    assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'here'").fetchall()
    assert db.execute("PRAGMA cache_size").fetchone()[0] == cache
