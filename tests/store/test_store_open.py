"""Opening: the mode of the database, the lock, the epoch, the schema's version."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core.errors import StaleWriter, Unavailable
from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.store import Store, migrations, tasks
from argus_ray.store.migrations import Migration, SchemaError


def pragma(store: Store, name: str) -> object:
    with store.transaction() as db:
        return db.execute(f"PRAGMA {name}").fetchone()[0]


def epoch_in(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("SELECT epoch FROM writer").fetchone()[0])
    finally:
        db.close()


def test_durable_and_without_shared_memory(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "deep" / "er" / "argus.db")
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2
    assert pragma(store, "locking_mode") == "exclusive"
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "user_version") == migrations.known()[-1].version
    names = {entry.name for entry in store.path.parent.iterdir()}
    assert "argus.db-wal" in names
    assert not [name for name in names if name.endswith("-shm")]
    store.close()


def test_no_one_else_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = Store.open(tmp_path / "argus.db")
    finally:
        os.umask(old)
    for entry in tmp_path.iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o600, entry.name
    store.close()


def test_a_second_writer_is_refused_in_bounded_time_and_told_who_holds_it(tmp_path: Path) -> None:
    first = Store.open(tmp_path / "argus.db")
    start = time.monotonic()
    with pytest.raises(Unavailable, match=f"process {os.getpid()} of host .* since 20"):
        Store.open(tmp_path / "argus.db", lock_timeout_s=0.2)
    assert 0.15 < time.monotonic() - start < 20, "not the 30 s that are the default"
    with first.transaction() as db:  # the first has not noticed
        assert db.execute("SELECT epoch FROM writer").fetchone()[0] == 1
    first.close()
    Store.open(tmp_path / "argus.db", lock_timeout_s=0.2).close()


def test_a_second_process_is_refused_too(tmp_path: Path) -> None:
    first = Store.open(tmp_path / "argus.db")
    code = (
        "import sys; from argus_ray.store import Store\n"
        "try: Store.open(sys.argv[1], lock_timeout_s=0.1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(first.path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Unavailable the database"), done
    assert f"process {os.getpid()} " in done.stdout
    first.close()


def test_a_stranger_that_holds_the_file_makes_us_wait_for_a_bounded_time(tmp_path: Path) -> None:
    Store.open(tmp_path / "argus.db").close()
    stranger = sqlite3.connect(tmp_path / "argus.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match="locked"):
            Store.open(tmp_path / "argus.db", busy_timeout_s=0.1)
    finally:
        stranger.close()
    store = Store.open(tmp_path / "argus.db", lock_timeout_s=0.1)  # the failed one has let go of everything
    assert store.epoch == 2
    store.close()


def test_the_epoch_rises_by_one_at_each_opening(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        store = Store.open(tmp_path / "argus.db")
        assert store.epoch == expected
        store.close()
    assert epoch_in(tmp_path / "argus.db") == 3


def test_a_given_epoch_may_stay_or_rise_but_not_fall(tmp_path: Path) -> None:
    for epoch in (7, 7, 12):
        store = Store.open(tmp_path / "argus.db", epoch=epoch)
        assert store.epoch == epoch
        store.close()
    with pytest.raises(StaleWriter, match="epoch 11 is over: the database has epoch 12"):
        Store.open(tmp_path / "argus.db", epoch=11)
    store = Store.open(tmp_path / "argus.db")
    assert store.epoch == 13
    store.close()


def test_close_is_idempotent_and_final(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    store.close()
    store.close()
    with pytest.raises(Unavailable, match="closed"), store.transaction():
        pass


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable):
        Store.open(tmp_path / "file" / "argus.db")
    (tmp_path / "argus.db").mkdir()
    with pytest.raises(Unavailable):
        Store.open(tmp_path / "argus.db")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "argus.db").write_bytes(b"hello, this is not SQLite" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        Store.open(tmp_path / "argus.db")
    assert (tmp_path / "argus.db").read_bytes().startswith(b"hello")


# --- migrations ---


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "argus.db")
    db.execute("CREATE TABLE notes (x)")
    db.close()
    with pytest.raises(SchemaError, match="not a database of Argus"):
        Store.open(tmp_path / "argus.db")


def test_a_newer_version_is_refused_and_kept(tmp_path: Path) -> None:
    Store.open(tmp_path / "argus.db").close()
    db = sqlite3.connect(tmp_path / "argus.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(SchemaError, match=r"version 99.*newer version of Argus"):
        Store.open(tmp_path / "argus.db")
    assert epoch_in(tmp_path / "argus.db") == 1


def test_a_version_1_database_goes_forward_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Version 1 as it was shipped, with rows; whatever comes after it must bring them along.
    first = migrations.known()[0]
    db = sqlite3.connect(tmp_path / "argus.db", isolation_level=None)
    migrations.migrate(db, [first])
    db.execute("INSERT INTO users VALUES ('alice', 'Alice', 'ACTIVE', 5.0)")
    db.execute(
        "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
        " spec_yaml, created_at, updated_at, ended_at, reason)"
        " VALUES ('argus-x', 'alice', 'sft', 'FAILED', 1, 2, 3.0, 0.0, 'a: b', 6.0, 7.0, 7.0, 'why')"
    )
    db.execute(
        "INSERT INTO attempts (submission_id, task_id, number, state, created_at, job_root, ended_at, outcome, command,"
        " env) VALUES ('argus-x--a01', 'argus-x', 1, 'ENDED', 6.0, '/r', 7.0, 'APPLICATION', '[]', '[]')"
    )
    db.close()
    known = migrations.known()
    more = Migration(
        known[-1].version + 1,
        "more",
        "-- A comment; with a semicolon.\nALTER TABLE users ADD COLUMN quota INTEGER NOT NULL DEFAULT 3;\n"
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN\n    SELECT 1;\n    SELECT 2;\nEND;\n",
    )
    monkeypatch.setattr(migrations, "known", lambda: (*known, more))
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as rows:
        assert tuple(rows.execute("SELECT * FROM users").fetchone()) == ("alice", "Alice", "ACTIVE", 5.0, 3)
        assert rows.execute("PRAGMA user_version").fetchone()[0] == more.version
        attempt = Attempt("argus-x--a01", "argus-x", 1, AttemptState.ENDED, 6.0, "/r", ended_at=7.0)
        assert tasks.find(rows, "argus-x") == Task(
            "argus-x", "alice", 1, "sft", TaskState.FAILED, Gang(1, 2, 3.0), "a: b", 6.0, 7.0, "why", ended_at=7.0,
            attempts=(replace(attempt, outcome=Outcome.APPLICATION),),
        )  # fmt: skip
    store.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path / "argus.db").close()
    known = migrations.known()
    bad = Migration(known[-1].version + 1, "bad", "CREATE TABLE half (x);\nSELECT * FROM nowhere;\n")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "known", lambda: (*known, bad))
        with pytest.raises(Unavailable, match="nowhere"):
            Store.open(tmp_path / "argus.db")
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone()[0] == 0
    store.close()


def test_a_migration_may_not_end_within_a_statement() -> None:
    with pytest.raises(SchemaError, match="within a statement"):
        list(Migration(1, "cut", "CREATE TABLE a (x);\nCREATE TABLE b (x)\n").statements())
