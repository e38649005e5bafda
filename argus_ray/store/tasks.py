"""Rows of `tasks`: writing them and finding one. Each function works in the caller's transaction; updates
name the state that they expect. Lists and counts are in `queue`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from argus_ray.core.errors import FieldError
from argus_ray.core.exports import WORKLOAD, Export
from argus_ray.core.model import FilesAt, Gang, Task
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.states import Cause, TaskState
from argus_ray.store import attempts, columns, events, exports
from argus_ray.store import settings as setting_rows


def add(
    db: sqlite3.Connection,
    *,
    task_id: str,
    user_id: str,
    workload: str,
    gang: Gang,
    spec_yaml: str,
    idempotency_key: str | None,
    now: float,
    message: str,
    resubmitted_from: str | None = None,
    resume_roots: Sequence[str] | None = None,
    warnings: Sequence[FieldError] = (),
    presets: Sequence[str] = (),
    settings: str | None = None,
    export: Export | None = None,
) -> int | None:
    """A new task at the end of the queue, with its first event: its `seq`. None: this task id is taken, and
    nothing was changed but `settings` kept. These are text of core/verl/layers.py."""
    digest = None if settings is None else setting_rows.keep(db, settings)
    cursor = db.execute(
        "INSERT INTO tasks (task_id, user_id, workload, state, nnodes, gpus_per_node, cpus_per_node,"
        " extra_cpus, spec_yaml, idempotency_key, created_at, updated_at, resubmitted_from, resume_roots, warnings,"
        " presets, settings, export_of, export, kind, changed)"
        " VALUES (?, ?, ?, 'QUEUED', ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " (SELECT newest + 1 FROM change_clock)) ON CONFLICT (task_id) DO NOTHING",
        (
            task_id,
            user_id,
            workload if export is None else export.workload,
            gang.nnodes,
            gang.gpus_per_node,
            gang.cpus_per_node,
            spec_yaml,
            idempotency_key,
            now,
            now,
            resubmitted_from,
            None if resume_roots is None else json.dumps(list(resume_roots)),
            json.dumps([asdict(warning) for warning in warnings]),
            json.dumps(list(presets)),
            digest,
            None if export is None else export.of,
            None if export is None else exports.stored(export),
            workload if export is None else WORKLOAD,
        ),
    )
    if cursor.rowcount != 1:
        return None
    seq = cursor.lastrowid
    events.add_move(db, task_id, now, None, TaskState.QUEUED, Cause.ACCEPTED, message)
    return seq


def find(db: sqlite3.Connection, task_id: str) -> Task | None:
    """With its attempts and its settings."""
    found = _whole(db, db.execute("SELECT * FROM tasks WHERE task_id = ?", (task_id,)).fetchall())
    return found[0] if found else None


def find_of(db: sqlite3.Connection, user_id: str, task_id: str) -> Task | None:
    """The same; None also for another user's, whose row is not read. By the one index that begins with the
    owner: by the other one the search would find the row first, and look at its owner then."""
    rows = db.execute(
        "SELECT * FROM tasks INDEXED BY tasks_of_owner WHERE user_id = ? AND task_id = ?", (user_id, task_id)
    ).fetchall()
    found = _whole(db, rows)
    return found[0] if found else None


def by_key(db: sqlite3.Connection, user_id: str, idempotency_key: str) -> Task | None:
    """The task that this user submitted under this Idempotency-Key, with its attempts."""
    rows = db.execute(
        "SELECT * FROM tasks WHERE user_id = ? AND idempotency_key = ?", (user_id, idempotency_key)
    ).fetchall()
    found = with_attempts(db, rows)
    return found[0] if found else None


def by_ids(db: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, Task]:
    """Those of these tasks that exist, by id, with their attempts and settings: three statements for all."""
    rows = db.execute(
        "SELECT tasks.* FROM json_each(?) AS wanted CROSS JOIN tasks ON tasks.task_id = wanted.value",
        (json.dumps(list(task_ids)),),
    ).fetchall()
    return {task.task_id: task for task in _whole(db, rows)}


def waiting_among(db: sqlite3.Connection, task_ids: Iterable[str]) -> set[str]:
    """Those of these tasks that wait."""
    rows = db.execute(
        "SELECT tasks.task_id FROM json_each(?) AS wanted CROSS JOIN tasks ON tasks.task_id = wanted.value"
        " WHERE state IN ('QUEUED', 'PENDING_RESOURCES')",
        (json.dumps(list(task_ids)),),
    )
    return {row["task_id"] for row in rows}


def move(
    db: sqlite3.Connection, old: Task, new: Task, cause: Cause, message: str, submission_id: str | None = None
) -> bool:
    """Write the state and the facts of `new` over `old`, with the event. False: the task has moved on, and
    nothing was changed. The caller has asked `check_move`."""
    if not update(db, old, new):
        return False
    events.add_move(db, old.task_id, new.updated_at, old.state, new.state, cause, message, submission_id)
    return True


def update(db: sqlite3.Connection, old: Task, new: Task) -> bool:
    """As `move`, without an event: for facts, not for states."""
    cursor = db.execute(
        "UPDATE tasks SET state = ?, updated_at = ?, reason = ?, reason_code = ?, not_before = ?,"
        " overtaken_since = ?, started_at = ?, ended_at = ?, losses = ? WHERE task_id = ? AND state = ?",
        (
            new.state.value,
            new.updated_at,
            *_reason_columns(new.reason),
            new.not_before,
            new.overtaken_since,
            new.started_at,
            new.ended_at,
            new.losses,
            old.task_id,
            old.state.value,
        ),
    )
    return cursor.rowcount == 1


def _reason_columns(reason: Reason | str | None) -> tuple[str | None, str | None]:
    if isinstance(reason, Reason):
        return json.dumps(dict(reason.facts)), reason.code.value
    return reason, None


def read_reason(stored: str | None, code: str | None) -> Reason | str | None:
    """Of the columns `reason` and `reason_code`."""
    if code is None or stored is None:
        return stored
    try:
        facts = json.loads(stored)
        if all(isinstance(fact, (int, float, str)) for fact in facts.values()):
            return because(Code(code), **facts)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    # Of another version of Argus: one odd row must not hide all the others.
    return f"{code} {stored}"


def _whole(db: sqlite3.Connection, rows: list[sqlite3.Row]) -> tuple[Task, ...]:
    return with_attempts(db, rows, setting_rows.texts(db, (row["settings"] for row in rows)))


def with_attempts(
    db: sqlite3.Connection, rows: list[sqlite3.Row], settings: Mapping[str, str] | None = None
) -> tuple[Task, ...]:
    """The tasks of these rows, in the same order: one statement for the attempts of all. `settings`: texts by digest;
    lists show none, and have none."""
    if not rows:
        return ()
    tried = attempts.of_tasks(db, (row["task_id"] for row in rows))
    return tuple(
        Task(
            task_id=row["task_id"],
            user_id=row["user_id"],
            seq=row["seq"],
            workload=row["workload"] if row["export_of"] is None else WORKLOAD,
            state=TaskState(row["state"]),
            gang=Gang(row["nnodes"], row["gpus_per_node"], row["cpus_per_node"]),
            spec_yaml=row["spec_yaml"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            reason=read_reason(row["reason"], row["reason_code"]),
            not_before=row["not_before"],
            overtaken_since=row["overtaken_since"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            losses=row["losses"],
            warnings=columns.warnings(row["warnings"]),
            attempts=tried.get(row["task_id"], ()),
            resubmitted_from=row["resubmitted_from"],
            files_at=FilesAt(row["files_at"]),
            resume_roots=None if row["resume_roots"] is None else columns.texts(row["resume_roots"]),
            presets=columns.texts(row["presets"]),
            # A text that is missing is none that can be read: the defaults in its place would train something else.
            settings=None if settings is None or row["settings"] is None else settings.get(row["settings"], ""),
            export=None if row["export_of"] is None else exports.read(row["export_of"], row["workload"], row["export"]),
        )
        for row in rows
    )
