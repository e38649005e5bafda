"""What is known of the tasks' files: where they are, how large, when they are due. Each function works in the caller's
transaction. What is due is found by an index, user by user, so neither the past nor one user's many tasks cost the
others anything."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from argus_ray.core import ids
from argus_ray.core.model import FilesAt
from argus_ray.core.retention import Chore, JobRoot, TaskFiles

#: Tasks of one answer, and of one user in it.
_AT_ONCE = 200
_PER_USER = 20
#: Tasks whose due time is brought forward at once.
_BROUGHT_FORWARD = 2000

_ALL_ENDED = "NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.task_id = {task}.task_id AND attempts.state <> 'ENDED')"

_ROOTS_IN_USE = """
    SELECT roots.value FROM tasks INDEXED BY tasks_that_resume, json_each(tasks.resume_roots) AS roots
    WHERE resume_roots IS NOT NULL AND state IN ('QUEUED', 'PENDING_RESOURCES')
    UNION
    SELECT roots.value FROM attempts CROSS JOIN tasks USING (task_id), json_each(tasks.resume_roots) AS roots
    WHERE attempts.state <> 'ENDED' AND resume_roots IS NOT NULL
    UNION
    SELECT json_extract(export, '$.job_root') FROM tasks INDEXED BY exports_that_wait
    WHERE export IS NOT NULL AND state IN ('QUEUED', 'PENDING_RESOURCES')
    UNION
    SELECT json_extract(export, '$.job_root') FROM attempts CROSS JOIN tasks USING (task_id)
    WHERE attempts.state <> 'ENDED' AND export IS NOT NULL
"""
_CLAIM = f"""
    UPDATE tasks SET files_at = 'LEAVING', look_after = 0 WHERE seq IN (
        SELECT tasks.seq FROM users CROSS JOIN tasks ON tasks.seq IN (
            SELECT due.seq FROM tasks AS due INDEXED BY tasks_at_home_by_end
            WHERE due.user_id = users.user_id AND due.files_at = 'JOB_ROOT' AND due.ended_at IS NOT NULL
                  AND due.ended_at <= :before AND {_ALL_ENDED.format(task="due")}
                  AND due.task_id NOT IN (SELECT value FROM json_each(:spared))
            ORDER BY due.ended_at LIMIT :per_user))
"""  # noqa: S608 - a constant

_LIVE = """
    attempts CROSS JOIN tasks USING (task_id)
    WHERE attempts.state <> 'ENDED' AND files_at = 'JOB_ROOT' AND look_after <= :due
"""
_OVER = """
    users CROSS JOIN tasks ON tasks.seq IN (
        SELECT due.seq FROM tasks AS due INDEXED BY tasks_by_look
        WHERE due.user_id = users.user_id AND due.files_at = '{at}' AND due.look_after <= :due AND {only}
              AND due.ended_at IS NOT NULL AND due.files_at <> 'DELETED'
        ORDER BY due.look_after LIMIT :per_user)
"""
# Everybody's first before anybody's second; where there are more users than places, chance decides.
_DUE = """
    SELECT task_id, user_id, workload, nnodes * gpus_per_node AS gpus, ended_at IS NOT NULL AS has_ended FROM (
        SELECT seq, place FROM (
            SELECT tasks.seq,
                   row_number() OVER (PARTITION BY tasks.user_id ORDER BY tasks.look_after, tasks.seq) AS place
            FROM {due}
        ) WHERE place <= :per_user ORDER BY place, random() LIMIT :limit
    ) AS chosen CROSS JOIN tasks USING (seq) ORDER BY place, look_after, seq
"""
_ATTEMPTS = """
    SELECT attempts.task_id, submission_id, number, job_root, state <> 'ENDED' AS is_live
    FROM json_each(?) AS wanted CROSS JOIN attempts ON attempts.task_id = wanted.value ORDER BY attempts.task_id, number
"""
_QUERIES = {
    Chore.LIVE: _DUE.format(due=_LIVE),
    Chore.TRASH: _DUE.format(due=_OVER.format(at="LEAVING", only="true")),
    Chore.DELETE: _DUE.format(due=_OVER.format(at="TRASH", only="due.trashed_at <= :due")),
    Chore.ENDED: _DUE.format(due=_OVER.format(at="JOB_ROOT", only=_ALL_ENDED.format(task="due"))),
}


def roots_in_use(db: sqlite3.Connection) -> frozenset[str]:
    """Job roots of other tasks that one which is alive or waits resumes from, or may, or exports."""
    return frozenset(row[0] for row in db.execute(_ROOTS_IN_USE))


def per_user(db: sqlite3.Connection) -> int:
    """Tasks of one user in one answer: fewer where there are many users."""
    users = int(db.execute("SELECT count(*) FROM users").fetchone()[0])
    return max(1, min(_PER_USER, _AT_ONCE // max(1, users)))


def claim_for_trash(db: sqlite3.Connection, ended_before: float, spared: Iterable[str], per_user: int) -> int:
    """Mark what leaves: tasks that are over with all their attempts, of each user the longest ended first. `spared`:
    task ids."""
    values = {"before": ended_before, "spared": json.dumps(sorted(spared)), "per_user": per_user}
    return db.execute(_CLAIM, values).rowcount


def due(db: sqlite3.Connection, chore: Chore, at: float, per_user: int) -> tuple[TaskFiles, ...]:
    """Whose turn has come by this time, each user's longest due first. For DELETE: who is in the trash since then."""
    rows = db.execute(_QUERIES[chore], {"due": at, "per_user": per_user, "limit": _AT_ONCE}).fetchall()
    attempts: defaultdict[str, list[sqlite3.Row]] = defaultdict(list)
    for attempt in db.execute(_ATTEMPTS, (json.dumps([row["task_id"] for row in rows]),)):
        attempts[attempt["task_id"]].append(attempt)
    return tuple(_files(row, attempts[row["task_id"]]) for row in rows)


def _files(row: sqlite3.Row, attempts: Sequence[sqlite3.Row]) -> TaskFiles:
    return TaskFiles(
        task_id=row["task_id"],
        user_id=row["user_id"],
        workload=row["workload"],
        gpus=row["gpus"],
        is_over=bool(row["has_ended"]) and not any(attempt["is_live"] for attempt in attempts),
        roots=tuple(
            JobRoot(attempt["submission_id"], ids.attempt_label(attempt["number"]), attempt["job_root"])
            for attempt in attempts
        ),
    )


def bring_forward(db: sqlite3.Connection, keep: int, now: float) -> None:
    """After a change of the settings by which more checkpoints go: what has ended is due at once, some tasks with each
    call, the newest first."""
    rule = db.execute("SELECT keep, up_to FROM checkpoint_rule").fetchone()
    if rule is None or rule["keep"] != keep:
        is_stricter = rule is not None and keep and (keep < rule["keep"] or not rule["keep"])
        newest = int(db.execute("SELECT coalesce(max(seq), 0) FROM tasks").fetchone()[0])
        up_to = newest if is_stricter else 0
        db.execute("INSERT OR REPLACE INTO checkpoint_rule (id, keep, up_to) VALUES (1, ?, ?)", (keep, up_to))
    else:
        up_to = int(rule["up_to"])
    if up_to:
        below = max(0, up_to - _BROUGHT_FORWARD)
        db.execute(
            "UPDATE tasks SET look_after = 0 WHERE seq > ? AND seq <= ? AND files_at = 'JOB_ROOT'"
            " AND ended_at IS NOT NULL AND started_at IS NOT NULL AND look_after > ?",
            (below, up_to, now),
        )
        db.execute("UPDATE checkpoint_rule SET up_to = ?", (below,))


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
        "UPDATE tasks SET files_at = ?, trashed_at = coalesce(trashed_at, ?), look_after = ?"
        " WHERE task_id = ? AND files_at = ?",
        (new.value, now, now, task_id, old.value),
    )
    return cursor.rowcount == 1
