"""The audit as rows: nothing changes or removes one, old ones go by one door, and lists are found by indexes."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from argus_ray.core.audit import AuditEntry, AuditFilter
from argus_ray.store import Store, audit
from tests.support.fresh import put_database

ENTRY = AuditEntry(0, 1000, "alice", "user", "tok-1", "10.0.0.1", "task.submit", "argus-alice-1", "alice", "done")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    put_database(tmp_path / "argus.db")
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        yield db
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'bob'",
        "UPDATE audit SET detail = NULL",
        "UPDATE audit SET audit_id = 7",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE audit_id = 1",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit",
        "INSERT OR REPLACE INTO audit (audit_id, at, role, action, result) VALUES (1, 0, 'user', 'x', 'done')",
        "UPDATE OR REPLACE audit SET audit_id = 1 WHERE audit_id = 2",
        "DELETE FROM audit_cut",
        "INSERT OR REPLACE INTO audit_cut VALUES (1, 5)",
        "INSERT INTO audit_cut VALUES (2, 9999)",
        "UPDATE audit_cut SET before = -1",
        "INSERT INTO audit (at, role, action, result) VALUES (0, 'root', 'x', 'done')",
        "INSERT INTO audit (at, role, action, result, detail) VALUES (0, 'user', 'x', 'done', '{')",
    ],
)
def test_the_database_refuses(db: sqlite3.Connection, statement: str) -> None:
    audit.add(db, ENTRY)
    audit.add(db, ENTRY)
    before = audit.after(db, 0, 10)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    assert audit.after(db, 0, 10) == before
    assert len(before) == 2


def test_old_entries_go_by_the_one_door_and_ids_are_not_used_again(db: sqlite3.Connection) -> None:
    for at_ms in (1000, 2000, 3000, 4000):
        for action in ("task.submit", "user.create"):
            audit.add(db, replace(ENTRY, at_ms=at_ms, action=action))
    assert audit.remove_before(db, 3000, 3) == 3, "a part at a time"
    assert audit.remove_before(db, 3000, 100) == 1
    assert audit.remove_before(db, 3000, 100) == 0
    assert {entry.at_ms for entry in audit.after(db, 0, 100)} == {3000, 4000}
    with pytest.raises(sqlite3.IntegrityError, match="only added"):
        db.execute("DELETE FROM audit WHERE at = 3000")
    assert audit.remove_before(db, 2000, 100) == 0, "an earlier cut opens nothing"
    assert audit.remove_before(db, 9000, 100) == 4
    assert audit.newest(db) == 8
    audit.add(db, ENTRY)
    assert [entry.audit_id for entry in audit.after(db, 0, 100)] == [9]


def some_entries(count: int, seed: int) -> list[AuditEntry]:
    draw = random.Random(seed)
    found = []
    for number in range(1, count + 1):
        actor = draw.choice(["alice", "bob", "admin", None])
        found.append(
            AuditEntry(
                audit_id=number,
                # Not in the order of ids: a clock was set.
                at_ms=draw.randrange(60),
                actor=actor,
                role="admin" if actor == "admin" else "user",
                token_id=None,
                address=None,
                action=draw.choice(["task.submit", "task.cancel", "user.list"]),
                target=None,
                user_id=draw.choice(["alice", "bob", actor, None]),
                result="done",
                detail=draw.choice([None, {"n": number}]),
            )
        )
    return found


def test_each_filter_finds_what_it_says_in_pages(db: sqlite3.Connection) -> None:
    entries = some_entries(300, 7)
    for entry in entries:
        audit.add(db, entry)
    newest_first = sorted(entries, key=lambda entry: (entry.at_ms, entry.audit_id), reverse=True)
    names = (None, "alice", "bob", "admin", "nobody")
    actions = (None, "task.submit", "user.list", "x")
    times = ((None, None), (10, 50), (10, None), (None, 30), (40, 20))
    tried = 0
    for user, actor, action, (since, until) in product(names, names, actions, times):
        wanted = AuditFilter(user, actor, action, since, until)
        expected = [
            entry
            for entry in newest_first
            if wanted.takes(entry)
            and (since is None or entry.at_ms >= since)
            and (until is None or entry.at_ms < until)
        ]
        found: list[AuditEntry] = []
        place = None
        while page := audit.page(db, wanted, place, 37):
            found += page
            place = page[-1].at_ms, page[-1].audit_id
        assert found == expected, wanted
        tried += len(expected)
    assert tried > 2000


def test_no_list_reads_the_past(db: sqlite3.Connection) -> None:
    values = dict.fromkeys(("actions", "actor", "user", "since", "at", "id", "limit"), 1)
    for query in (audit._BY_ACTION, audit._BY_ACTOR, audit._OWN, audit._ON_USER, audit._ON_USER_BY):
        plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        assert any("SEARCH there USING" in step and "at>? AND at<?" in step for step in plan), plan
        assert any("SEARCH audit USING INTEGER PRIMARY KEY" in step for step in plan), plan
        assert not any("SCAN" in step and "wanted" not in step for step in plan), plan
    for query, parameters in (
        (audit._ACTIONS, ()),
        (audit._OLD, ("x", 1, 1)),
        (audit._AFTER, (1, 1)),
        ("DELETE FROM audit WHERE audit_id IN (SELECT value FROM json_each(?))", ("[]",)),
    ):
        plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", parameters)]
        assert not any(step.startswith("SCAN audit") for step in plan), plan
