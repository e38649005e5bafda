"""Rows of `audit`: only ever added; old ones go by its one door. Each function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from argus_ray.core.audit import AuditEntry, AuditFilter

# ruff: noqa: S608 - statements of constants
_COLUMNS = "audit_id, at, actor, role, token_id, address, action, target, user_id, result, detail"
_ADD = (
    "INSERT INTO audit (at, actor, role, token_id, address, action, target, user_id, result, detail)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
#: All that there are, also of another version: one search for each.
_ACTIONS = (
    "WITH RECURSIVE names (name) AS (SELECT min(action) FROM audit UNION ALL"
    " SELECT (SELECT min(action) FROM audit WHERE action > name) FROM names WHERE name IS NOT NULL)"
    " SELECT name FROM names WHERE name IS NOT NULL"
)
#: Of each action the newest ones, by an index; the newest of all of them.
_RUN = (
    "SELECT audit_id FROM audit AS there INDEXED BY {index} WHERE {who} action = wanted.value"
    " AND at >= :since AND at <= :at AND (at < :at OR audit_id < :id) ORDER BY at DESC, audit_id DESC LIMIT :limit"
)
_PAGE = (
    f"SELECT {_COLUMNS} FROM json_each(:actions) AS wanted CROSS JOIN audit ON audit_id IN ({{run}})"
    " ORDER BY at DESC, audit_id DESC LIMIT :limit"
)
_BY_ACTION = _PAGE.format(run=_RUN.format(index="audit_by_action", who=""))
_BY_ACTOR = _PAGE.format(run=_RUN.format(index="audit_by_actor", who="actor = :actor AND"))
_OWN = _PAGE.format(run=_RUN.format(index="audit_by_actor", who="actor = :user AND user_id = :user AND"))
_OF_OTHERS = "user_id = :user AND user_id IS NOT actor AND"
_ON_USER = _PAGE.format(run=_RUN.format(index="audit_by_user", who=_OF_OTHERS))
_ON_USER_BY = _PAGE.format(run=_RUN.format(index="audit_by_user", who=f"{_OF_OTHERS} actor = :actor AND"))
_AFTER = f"SELECT {_COLUMNS} FROM audit WHERE audit_id > ? ORDER BY audit_id LIMIT ?"
_OLD = "SELECT audit_id FROM audit INDEXED BY audit_by_action WHERE action = ? AND at < ? ORDER BY at LIMIT ?"


def add(db: sqlite3.Connection, entry: AuditEntry) -> None:
    """It gets an id of its own."""
    db.execute(
        _ADD,
        (
            entry.at_ms,
            entry.actor,
            entry.role,
            entry.token_id,
            entry.address,
            entry.action,
            entry.target,
            entry.user_id,
            entry.result,
            None if entry.detail is None else json.dumps(dict(entry.detail), separators=(",", ":"), ensure_ascii=False),
        ),
    )


def actions(db: sqlite3.Connection) -> list[str]:
    """Names of all that was ever done or refused, by name."""
    return [row[0] for row in db.execute(_ACTIONS)]


def page(
    db: sqlite3.Connection, wanted: AuditFilter, before: tuple[int, int] | None, limit: int
) -> tuple[AuditEntry, ...]:
    """Newest first by time, at most `limit`, from after the place `before`."""
    names = actions(db) if wanted.action is None else [wanted.action]
    last_ms = 2**63 - 1 if wanted.until_ms is None else wanted.until_ms - 1
    at_ms, audit_id = (last_ms, 2**63 - 1) if before is None or before[0] > last_ms else before
    values = {
        "actions": json.dumps(names),
        "actor": wanted.actor,
        "user": wanted.user_id,
        "since": -(2**63) if wanted.since_ms is None else wanted.since_ms,
        "at": at_ms,
        "id": audit_id,
        "limit": limit,
    }
    found = [_entry(row) for query in _queries(wanted) for row in db.execute(query, values)]
    found.sort(key=lambda entry: (entry.at_ms, entry.audit_id), reverse=True)
    return tuple(found[:limit])


def _queries(wanted: AuditFilter) -> tuple[str, ...]:
    if wanted.user_id is None:
        return (_BY_ACTION,) if wanted.actor is None else (_BY_ACTOR,)
    if wanted.actor is None:
        return _OWN, _ON_USER
    return (_OWN,) if wanted.actor == wanted.user_id else (_ON_USER_BY,)


def after(db: sqlite3.Connection, audit_id: int, limit: int) -> tuple[AuditEntry, ...]:
    """Oldest first by id."""
    return tuple(map(_entry, db.execute(_AFTER, (audit_id, limit))))


def newest(db: sqlite3.Connection) -> int:
    """The newest id that was ever given; 0: none was."""
    row = db.execute("SELECT seq FROM main.sqlite_sequence WHERE name = 'audit'").fetchone()
    return 0 if row is None else int(row[0])


def remove_before(db: sqlite3.Connection, at_ms: int, limit: int) -> int:
    """At most so many of the entries from before this time; how many went."""
    removed = 0
    for name in actions(db):
        old = [row[0] for row in db.execute(_OLD, (name, at_ms, limit - removed))]
        if old:
            db.execute("UPDATE audit_cut SET before = max(before, ?)", (at_ms,))
            db.execute("DELETE FROM audit WHERE audit_id IN (SELECT value FROM json_each(?))", (json.dumps(old),))
            removed += len(old)
    return removed


def _entry(row: sqlite3.Row) -> AuditEntry:
    return AuditEntry(
        audit_id=row["audit_id"],
        at_ms=row["at"],
        actor=row["actor"],
        role=row["role"],
        token_id=row["token_id"],
        address=row["address"],
        action=row["action"],
        target=row["target"],
        user_id=row["user_id"],
        result=row["result"],
        detail=_detail(row["detail"]),
    )


def _detail(stored: str | None) -> dict[str, Any] | None:
    read = None if stored is None else json.loads(stored)  # the column takes nothing else
    return read if isinstance(read, dict) or read is None else {"value": read}
