"""Lists and counts of tasks by more than their state. A walk goes along an index of one kind and one state, so that
what is not asked for is not read; ids and their ends find their few rows at once.

The order is that of acceptance by the clock, the newest first. Each function works in the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import nlargest

from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.core.task_filter import TAIL, Span
from argus_ray.store.tasks import with_attempts

#: When a task was accepted, and its `seq`: its place in a list.
Place = tuple[float, int]
_NOT_YET: Place = (float("inf"), 2**63 - 1)

# ruff: noqa: S608 - statements of constants
_OF_USER = "tasks INDEXED BY tasks_of_user_by_kind WHERE user_id = :user_id AND kind = :kind AND state = :state"
_OF_ALL = "tasks INDEXED BY tasks_by_kind WHERE kind = :kind AND state = :state"
_TIMES = "created_at >= :since AND created_at < :until"
#: Only where the second is not all that the prefix tells: it reads the rows themselves.
_BEGINS = "AND substr(task_id, 1, length(:prefix)) = :prefix"
_WALK = (
    f"SELECT created_at, seq FROM {{tasks}} AND {_TIMES} AND (created_at, seq) < (:at, :below) {{begins}}"
    " ORDER BY created_at DESC, seq DESC LIMIT :limit"
)
_COUNT = f"SELECT count(*) FROM {{tasks}} AND {_TIMES} {{begins}}"
_COUNTS_OF_USER = "SELECT kind, state, n FROM kind_counts WHERE user_id = ? AND n > 0"
_COUNTS_OF_ALL = "SELECT kind, state, sum(n) AS n FROM kind_counts WHERE n > 0 GROUP BY kind, state"
_FOUND = "tasks.seq, tasks.task_id, tasks.created_at, tasks.kind, tasks.state"
_BY_IDS = (
    f"SELECT {_FOUND} FROM json_each(:wanted) AS wanted CROSS JOIN tasks INDEXED BY tasks_of_owner"
    " ON user_id = :user_id AND task_id = wanted.value"
)
_BY_IDS_OF_ALL = f"SELECT {_FOUND} FROM json_each(:wanted) AS wanted CROSS JOIN tasks ON task_id = wanted.value"
_BY_TAIL = f"SELECT {_FOUND} FROM tasks INDEXED BY tasks_by_tail WHERE substr(task_id, -4) = :wanted"


@dataclass(frozen=True)
class Found:
    """Of a task that was found by its id."""

    place: Place
    task_id: str
    kind: str
    state: TaskState


def by_ids(db: sqlite3.Connection, user_id: str | None, ids: Collection[str]) -> list[Found]:
    """Those that exist, in any order. `user_id` None: of all users."""
    query = _BY_IDS_OF_ALL if user_id is None else _BY_IDS
    return _found(db.execute(query, {"wanted": json.dumps(sorted(set(ids))), "user_id": user_id}))


def by_suffix(db: sqlite3.Connection, user_id: str | None, suffix: str) -> list[Found]:
    """Those whose id ends so, in any order. The suffix has at least TAIL characters."""
    query = _BY_TAIL + ("" if user_id is None else " AND user_id = :user_id")
    rows = _found(db.execute(query, {"wanted": suffix[-TAIL:], "user_id": user_id}))
    return [row for row in rows if row.task_id.endswith(suffix)]


def _found(cursor: sqlite3.Cursor) -> list[Found]:
    return [
        Found((row["created_at"], row["seq"]), row["task_id"], row["kind"], TaskState(row["state"])) for row in cursor
    ]


def walk(
    db: sqlite3.Connection,
    spans: Sequence[Span],
    states: Collection[TaskState],
    limit: int,
    *,
    after: Place | None = None,
    prefix: str = "",
) -> list[Place]:
    """The newest of these spans and states after this place. `prefix`: of the ids, if the spans do not tell it all."""
    at, below = after or _NOT_YET
    found: list[Place] = []
    for span, state in _walks(db, spans, states):
        query = _WALK.format(tasks=_tasks(span), begins=_BEGINS if prefix else "")
        values = _values(span, state) | {"at": at, "below": below, "prefix": prefix, "limit": limit}
        found += ((row["created_at"], row["seq"]) for row in db.execute(query, values))
    return nlargest(limit, found)


def count(
    db: sqlite3.Connection, spans: Sequence[Span], states: Collection[TaskState], *, prefix: str = ""
) -> dict[TaskState, int]:
    """By state; without those of which there is none. Where no time is asked for nothing is counted: it is known."""
    found: dict[TaskState, int] = {}
    for user_id in dict.fromkeys(span.user_id for span in spans):
        known = _known(db, user_id)
        for span in spans:
            for state in states:
                n = known.get((span.kind, state.value), 0) if span.user_id == user_id else 0
                if n and not (span.is_unbounded and not prefix):
                    query = _COUNT.format(tasks=_tasks(span), begins=_BEGINS if prefix else "")
                    n = int(db.execute(query, _values(span, state) | {"prefix": prefix}).fetchone()[0])
                if n:
                    found[state] = found.get(state, 0) + n
    return found


def _walks(
    db: sqlite3.Connection, spans: Sequence[Span], states: Collection[TaskState]
) -> list[tuple[Span, TaskState]]:
    """Those that find something, perhaps."""
    known = {user_id: _known(db, user_id) for user_id in {span.user_id for span in spans}}
    return [(span, state) for span in spans for state in states if (span.kind, state.value) in known[span.user_id]]


def _known(db: sqlite3.Connection, user_id: str | None) -> dict[tuple[str, str], int]:
    """How many there are of each kind and state."""
    rows = db.execute(_COUNTS_OF_ALL) if user_id is None else db.execute(_COUNTS_OF_USER, (user_id,))
    return {(row["kind"], row["state"]): row["n"] for row in rows}


def _tasks(span: Span) -> str:
    return _OF_ALL if span.user_id is None else _OF_USER


def _values(span: Span, state: TaskState) -> dict[str, object]:
    return {
        "user_id": span.user_id,
        "kind": span.kind,
        "state": state.value,
        "since": span.since,
        "until": span.until,
    }


def place(db: sqlite3.Connection, user_id: str | None, seq: int) -> Place | None:
    """Of this task; None if there is none. `user_id` None: whosever it is."""
    row = db.execute(
        "SELECT created_at FROM tasks WHERE seq = :seq AND (:user_id IS NULL OR user_id = :user_id)",
        {"seq": seq, "user_id": user_id},
    ).fetchone()
    return None if row is None else (row["created_at"], seq)


def at(db: sqlite3.Connection, places: Sequence[Place]) -> tuple[Task, ...]:
    """The tasks at these places, in their order, with their attempts and without their settings."""
    rows = db.execute(
        "SELECT tasks.* FROM json_each(?) AS wanted CROSS JOIN tasks ON tasks.seq = wanted.value ORDER BY wanted.key",
        (json.dumps([seq for _, seq in places]),),
    ).fetchall()
    return with_attempts(db, rows)
