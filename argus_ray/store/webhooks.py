"""Rows of `webhooks`: up to which event each receiver was told. Each function works in the caller's transaction."""

from __future__ import annotations

import sqlite3

from argus_ray.core.exports import WORKLOAD
from argus_ray.core.states import TaskState
from argus_ray.core.webhooks import Move, Moves
from argus_ray.store import columns

#: Events that one call looks at.
WINDOW = 256

_STATES = frozenset(state.value for state in TaskState)


def place_of(db: sqlite3.Connection, name: str) -> int | None:
    row = db.execute("SELECT delivered_to FROM webhooks WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row["delivered_to"])


def newest_event(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(event_id), 0) FROM events").fetchone()[0])


def put_place(db: sqlite3.Connection, name: str, place: int, at: float) -> None:
    """It never goes back."""
    db.execute(
        "INSERT INTO webhooks (name, delivered_to, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET delivered_to = excluded.delivered_to, updated_at = excluded.updated_at"
        " WHERE excluded.delivered_to > delivered_to",
        (name, place, at),
    )


def after(db: sqlite3.Connection, place: int) -> Moves:
    """Of the next events, those that are moves."""
    rows = db.execute(
        "SELECT e.*, t.user_id, t.workload, t.export_of, a.failure FROM events e JOIN tasks t USING (task_id)"
        " LEFT JOIN attempts a ON a.submission_id = e.submission_id"
        " WHERE e.event_id > ? ORDER BY e.event_id LIMIT ?",
        (place, WINDOW),
    ).fetchall()
    moves = (_move(row) for row in rows if row["kind"] == "move" and row["new_state"] in _STATES)
    return Moves(tuple(moves), int(rows[-1]["event_id"]) if rows else place)


def _move(row: sqlite3.Row) -> Move:
    old, new = row["old_state"], TaskState(row["new_state"])
    # The attempt may have failed since an earlier move of its was stored, which is no failure.
    failure = row["failure"] if new is TaskState.FAILED else None
    return Move(
        event_id=row["event_id"],
        task_id=row["task_id"],
        user_id=row["user_id"],
        workload=row["workload"] if row["export_of"] is None else WORKLOAD,
        at=row["at"],
        old_state=TaskState(old) if old in _STATES else None,
        new_state=new,
        cause=row["cause"],
        submission_id=row["submission_id"],
        failure_code=None if failure is None else columns.failure(failure).code,
    )
