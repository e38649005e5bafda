"""What tasks were accepted with: once for each content, found with the task, and none for those of before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from argus_ray.store import Store, migrations, queue, settings, tasks
from tests.store.rows import add_task

ONE, OTHER = '[["optim.lr",0.001,"default"]]', '[["optim.lr",0.01,"preset fast"]]'


def add(db: sqlite3.Connection, number: int, text: str | None, presets: tuple[str, ...] = ()) -> str:
    name = f"argus-alice-sft-20270115-080000-{number:04}"
    assert add_task(db, name, presets=presets, settings=text) is not None
    return name


def test_a_thousand_tasks_with_the_same_settings_are_one_row(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        db.execute("INSERT INTO users VALUES ('alice', '', 'ACTIVE', 0)")
        for number in range(1000):
            add(db, number, ONE)
        other = add(db, 1000, OTHER, ("fast", "long"))
        assert db.execute("SELECT count(*) FROM settings").fetchone()[0] == 2
    store.close()
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        first = tasks.find(db, "argus-alice-sft-20270115-080000-0000")
        assert first is not None and (first.settings, first.presets) == (ONE, ())
        found = tasks.find_of(db, "alice", other)
        assert found is not None and (found.settings, found.presets) == (OTHER, ("fast", "long"))
        assert tasks.by_ids(db, [other, first.task_id]) == {other: found, first.task_id: first}
        # What no list shows is read for none.
        assert {task.settings for task, _ in queue.entries(db, "alice")} == {None}
    store.close()


def test_a_text_that_is_gone_is_not_taken_for_none(tmp_path: Path) -> None:
    """Of none the defaults would be trained. What cannot be read is held by whoever reads it."""
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        db.execute("INSERT INTO users VALUES ('alice', '', 'ACTIVE', 0)")
        name = add(db, 1, ONE)
    store.close()
    by_hand = sqlite3.connect(tmp_path / "argus.db")
    by_hand.execute("DELETE FROM settings")
    by_hand.commit()
    by_hand.close()
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        found = tasks.find(db, name)
        assert found is not None and found.settings == ""
    store.close()


def test_tasks_of_an_earlier_version_have_none(tmp_path: Path) -> None:
    path = tmp_path / "argus.db"
    db = sqlite3.connect(path, isolation_level=None)
    known = migrations.known()
    before = next(each.version for each in known if each.name.endswith("_settings.sql")) - 1
    migrations.migrate(db, known[:before])
    db.execute("INSERT INTO users VALUES ('alice', '', 'ACTIVE', 0)")
    db.execute(
        "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node, extra_cpus,"
        " spec_yaml, created_at, updated_at) VALUES ('argus-old', 'alice', 'sft', 'QUEUED', 1, 1, 1, 0, 'a: b', 1, 1)"
    )
    db.close()
    store = Store.open(path)
    with store.transaction() as db:
        found = tasks.find(db, "argus-old")
        assert found is not None and (found.settings, found.presets) == (None, ())
        assert settings.texts(db, [None]) == {}
    store.close()
