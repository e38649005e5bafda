"""What is known of the tasks' files: where they are, how large. Each function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from argus_ray.core.model import FilesAt, Task
from argus_ray.store.tasks import with_attempts

_ALL_ENDED = "NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.task_id = tasks.task_id AND attempts.state <> 'ENDED')"


_ROOTS_IN_USE = f"""
    SELECT DISTINCT roots.value FROM tasks INDEXED BY tasks_that_resume, json_each(tasks.resume_roots) AS roots
    WHERE resume_roots IS NOT NULL AND (state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED') OR NOT {_ALL_ENDED})
"""  # noqa: S608 - a constant
_CLAIM = f"""
    UPDATE tasks SET files_at = 'LEAVING', look_after = 0 WHERE seq IN (
        SELECT seq FROM tasks INDEXED BY tasks_at_home_by_end
        WHERE files_at = 'JOB_ROOT' AND ended_at IS NOT NULL AND ended_at <= :before AND {_ALL_ENDED}
              AND task_id NOT IN (SELECT value FROM json_each(:spared))
        ORDER BY ended_at LIMIT :limit)
"""  # noqa: S608 - a constant


def roots_in_use(db: sqlite3.Connection) -> frozenset[str]:
    """Job roots of other tasks that one which is alive or waits resumes from, or may."""
    return frozenset(row[0] for row in db.execute(_ROOTS_IN_USE))


def claim_for_trash(db: sqlite3.Connection, ended_before: float, spared: Iterable[str], limit: int) -> int:
    """Mark what leaves: tasks that are over with all their attempts, the longest ended first. `spared`: task ids."""
    values = {"before": ended_before, "spared": json.dumps(sorted(spared)), "limit": limit}
    return db.execute(_CLAIM, values).rowcount


def to_look_at(db: sqlite3.Connection, now: float, limit: int) -> tuple[Task, ...]:
    """Those that have begun, the longest unseen first."""
    rows = db.execute(
        "SELECT * FROM tasks INDEXED BY tasks_by_files WHERE files_at = 'JOB_ROOT' AND look_after <= ?"
        " AND state NOT IN ('QUEUED', 'PENDING_RESOURCES') ORDER BY look_after LIMIT ?",
        (now, limit),
    )
    return with_attempts(db, rows.fetchall())


def leaving(db: sqlite3.Connection, now: float, limit: int) -> tuple[Task, ...]:
    rows = db.execute(
        "SELECT * FROM tasks INDEXED BY tasks_by_files WHERE files_at = 'LEAVING' AND look_after <= ?"
        " ORDER BY look_after LIMIT ?",
        (now, limit),
    )
    return with_attempts(db, rows.fetchall())


def to_delete(db: sqlite3.Connection, now: float, trashed_before: float, limit: int) -> tuple[Task, ...]:
    rows = db.execute(
        "SELECT * FROM tasks INDEXED BY tasks_by_files WHERE files_at = 'TRASH' AND look_after <= ?"
        " AND trashed_at <= ? ORDER BY look_after LIMIT ?",
        (now, trashed_before, limit),
    )
    return with_attempts(db, rows.fetchall())


def look_again(db: sqlite3.Connection, task_id: str, after: float) -> None:
    db.execute("UPDATE tasks SET look_after = ? WHERE task_id = ?", (after, task_id))


def measured(db: sqlite3.Connection, sizes: Iterable[tuple[str, int]]) -> None:
    """Submission ids with bytes."""
    db.executemany(
        "INSERT INTO disk_use (submission_id, bytes) VALUES (?, ?)"
        " ON CONFLICT (submission_id) DO UPDATE SET bytes = excluded.bytes",
        sizes,
    )


def moved(db: sqlite3.Connection, task_id: str, old: FilesAt, new: FilesAt, now: float) -> bool:
    """False: they are not at `old`."""
    cursor = db.execute(
        "UPDATE tasks SET files_at = ?, trashed_at = coalesce(trashed_at, ?), look_after = 0"
        " WHERE task_id = ? AND files_at = ?",
        (new.value, now, task_id, old.value),
    )
    return cursor.rowcount == 1
