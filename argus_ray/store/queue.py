"""Lists and counts of tasks: the queue, pages of the past. All by an index; that of the queue is `tasks_in_line`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from argus_ray.core.actions import QueueShare
from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.store.tasks import with_attempts

_WAITS = "state IN ('QUEUED', 'PENDING_RESOURCES')"
#: Named, since the planner prefers two walks and a sort. The index holds for exactly this condition.
WAITING = f"tasks INDEXED BY tasks_in_line WHERE {_WAITS}"


_QUEUE = f"""
    SELECT tasks.*, queue.position
    FROM (SELECT seq, user_id, row_number() OVER (ORDER BY seq) AS position FROM {WAITING}
          UNION ALL
          SELECT seq, user_id, NULL FROM tasks WHERE state IN ('SUBMITTING', 'SUBMITTED', 'RUNNING')) AS queue
    JOIN tasks USING (seq)
    WHERE :user_id IS NULL OR queue.user_id = :user_id
    ORDER BY seq
"""  # noqa: S608 - a constant


def entries(db: sqlite3.Connection, user_id: str | None) -> tuple[tuple[Task, int | None], ...]:
    """Waiting and active tasks in the order of the queue, each with its place among all that wait (None: it is active).
    `user_id` None: of all users."""
    rows = db.execute(_QUEUE, {"user_id": user_id}).fetchall()
    return tuple(zip(with_attempts(db, rows), (row["position"] for row in rows), strict=True))


def position(db: sqlite3.Connection, task: Task) -> int | None:
    """1 for the head of the queue; None for a task that does not wait."""
    if not task.state.is_waiting:
        return None
    query = f"SELECT count(*) FROM {WAITING} AND seq <= ?"  # noqa: S608
    return int(db.execute(query, (task.seq,)).fetchone()[0])


def own_ahead(db: sqlite3.Connection, task: Task) -> tuple[str, ...]:
    """The waiting tasks of the same user that stand before this one, by id."""
    query = f"SELECT task_id FROM tasks WHERE user_id = ? AND {_WAITS} AND seq < ? ORDER BY seq"  # noqa: S608
    return tuple(row["task_id"] for row in db.execute(query, (task.user_id, task.seq)))


# One index walk of at most `limit` rows for each state, so that a rare state does not read the whole past.
_PAGE_OF_ALL = """
    SELECT tasks.* FROM json_each(:states) AS wanted CROSS JOIN tasks ON tasks.seq IN (
        SELECT seq FROM tasks WHERE state = wanted.value AND seq < :below ORDER BY seq DESC LIMIT :limit
    ) ORDER BY tasks.seq DESC LIMIT :limit
"""
_PAGE_OF_USER = """
    SELECT tasks.* FROM json_each(:states) AS wanted CROSS JOIN tasks ON tasks.seq IN (
        SELECT seq FROM tasks WHERE user_id = :user_id AND state = wanted.value AND seq < :below
        ORDER BY seq DESC LIMIT :limit
    ) ORDER BY tasks.seq DESC LIMIT :limit
"""


def page(
    db: sqlite3.Connection, user_id: str | None, states: Sequence[TaskState], below: int, limit: int
) -> tuple[Task, ...]:
    """Newest first, at most `limit`, with a `seq` below the cursor. `user_id` None: of all users."""
    rows = db.execute(
        _PAGE_OF_ALL if user_id is None else _PAGE_OF_USER,
        {
            "states": json.dumps([state.value for state in states]),
            "user_id": user_id,
            "below": below,
            "limit": limit,
        },
    )
    return with_attempts(db, rows.fetchall())


def count_waiting(db: sqlite3.Connection) -> int:
    query = f"SELECT coalesce(sum(n), 0) FROM task_counts WHERE {_WAITS}"  # noqa: S608
    return int(db.execute(query).fetchone()[0])


def count_waiting_of(db: sqlite3.Connection, user_id: str) -> int:
    query = f"SELECT coalesce(sum(n), 0) FROM task_counts WHERE {_WAITS} AND user_id = ?"  # noqa: S608
    return int(db.execute(query, (user_id,)).fetchone()[0])


_SHARES = f"""
    SELECT user_id, sum(waiting) AS waiting, sum(active) AS active, sum(gpus) AS gpus FROM (
        SELECT user_id, n AS waiting, 0 AS active, 0 AS gpus FROM task_counts WHERE {_WAITS} AND n > 0
        UNION ALL
        SELECT user_id, 0, n, 0 FROM task_counts WHERE state IN ('SUBMITTING', 'SUBMITTED', 'RUNNING') AND n > 0
        UNION ALL
        SELECT user_id, 0, 0, nnodes * gpus_per_node FROM attempts CROSS JOIN tasks USING (task_id)
        WHERE attempts.state <> 'ENDED'
    ) GROUP BY user_id
"""  # noqa: S608 - a constant


def shares(db: sqlite3.Connection) -> dict[str, QueueShare]:
    """What each user has who has something in the queue, or holds GPUs. It costs what is there, and not what was."""
    rows = db.execute(_SHARES)
    return {row["user_id"]: QueueShare(row["waiting"], row["active"], row["gpus"]) for row in rows}


def count_by_state(db: sqlite3.Connection) -> dict[str, int]:
    """States without a task are left out."""
    rows = db.execute("SELECT state, sum(n) AS n FROM task_counts GROUP BY state HAVING sum(n) > 0")
    return {row["state"]: row["n"] for row in rows}
