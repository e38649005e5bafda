"""What has changed since a number: found by an index, whatever came before. Triggers give the numbers (0018). Each
function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.store.tasks import with_attempts

_OF_ALL = """
    SELECT * FROM tasks INDEXED BY tasks_by_change WHERE changed > :after ORDER BY changed LIMIT :limit
"""
_OF_USER = """
    SELECT * FROM tasks INDEXED BY tasks_by_own_change
    WHERE user_id = :user_id AND changed > :after ORDER BY changed LIMIT :limit
"""
_COUNTS = """
    SELECT users.value AS user_id, task_counts.state, n
    FROM json_each(:users) AS users CROSS JOIN json_each(:states) AS states
    CROSS JOIN task_counts ON task_counts.state = states.value AND task_counts.user_id = users.value
    WHERE n > 0
"""


def clock(db: sqlite3.Connection) -> tuple[int, bytes]:
    """The newest number, and the key that hides numbers from users."""
    row = db.execute("SELECT newest, key FROM change_clock").fetchone()
    return int(row["newest"]), bytes(row["key"])


def newest_of(db: sqlite3.Connection, user_id: str) -> int:
    """The number of the newest change of this user's tasks; 0: there is none."""
    row = db.execute(
        "SELECT changed FROM tasks INDEXED BY tasks_by_own_change WHERE user_id = ? AND changed IS NOT NULL"
        " ORDER BY changed DESC LIMIT 1",
        (user_id,),
    ).fetchone()
    return 0 if row is None else int(row["changed"])


def since(db: sqlite3.Connection, user_id: str | None, after: int, limit: int) -> Sequence[tuple[int, Task]]:
    """Changed tasks with their numbers, in the order of these. `user_id` None: of all users."""
    query = _OF_ALL if user_id is None else _OF_USER
    rows = db.execute(query, {"user_id": user_id, "after": after, "limit": limit}).fetchall()
    return list(zip((row["changed"] for row in rows), with_attempts(db, rows), strict=True))


def counts(db: sqlite3.Connection, user_ids: Iterable[str]) -> dict[str, dict[TaskState, int]]:
    """Of these users, by state; states without a task are left out."""
    found: dict[str, dict[TaskState, int]] = {user_id: {} for user_id in user_ids}
    states = json.dumps([state.value for state in TaskState])
    for row in db.execute(_COUNTS, {"users": json.dumps(sorted(found)), "states": states}):
        found[row["user_id"]][TaskState(row["state"])] = row["n"]
    return found
