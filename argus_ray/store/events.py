"""Rows of `events`: only ever added. Each function works in the caller's transaction."""

from __future__ import annotations

import sqlite3

from argus_ray.core.model import Event
from argus_ray.core.states import Cause, TaskState

_STATES = frozenset(state.value for state in TaskState)


def add_move(
    db: sqlite3.Connection,
    task_id: str,
    at: float,
    old: TaskState | None,
    new: TaskState,
    cause: Cause,
    message: str,
    submission_id: str | None = None,
) -> None:
    """The task changed its state. `old` is None for its first event alone."""
    db.execute(
        "INSERT INTO events (task_id, at, kind, old_state, new_state, cause, message, submission_id)"
        " VALUES (?, ?, 'move', ?, ?, ?, ?, ?)",
        (task_id, at, None if old is None else old.value, new.value, cause.value, message, submission_id),
    )


def add_remark(
    db: sqlite3.Connection, task_id: str, at: float, kind: str, message: str, submission_id: str | None = None
) -> None:
    """Something happened, and the task's state is as before. Kinds: `reason`, `attempt`, `note`."""
    db.execute(
        "INSERT INTO events (task_id, at, kind, message, submission_id) VALUES (?, ?, ?, ?, ?)",
        (task_id, at, kind, message, submission_id),
    )


def has_note(db: sqlite3.Connection, task_id: str, message: str) -> bool:
    """Whether the task was told this already."""
    query = "SELECT 1 FROM events WHERE task_id = ? AND kind = 'note' AND message = ? LIMIT 1"
    return db.execute(query, (task_id, message)).fetchone() is not None


def of_task(db: sqlite3.Connection, task_id: str, after: int, limit: int) -> tuple[Event, ...]:
    """Oldest first, at most `limit`, with an id above `after`."""
    rows = db.execute(
        "SELECT * FROM events WHERE task_id = ? AND event_id > ? ORDER BY event_id LIMIT ?",
        (task_id, after, limit),
    )
    return tuple(_event(row) for row in rows)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        event_id=row["event_id"],
        task_id=row["task_id"],
        at=row["at"],
        kind=row["kind"],
        old_state=_state(row["old_state"]),
        new_state=_state(row["new_state"]),
        cause=row["cause"],
        message=row["message"],
        submission_id=row["submission_id"],
    )


def _state(stored: str | None) -> TaskState | None:
    """None also for a state of another version of Argus, which must not hide the other events."""
    return TaskState(stored) if stored in _STATES else None
