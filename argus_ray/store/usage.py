"""Rows of `usage` and `usage_totals`. Each function works in the caller's transaction. Triggers count tasks."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from argus_ray.core.exports import WORKLOAD
from argus_ray.core.states import TaskState
from argus_ray.core.usage import Usage

_ADD = (
    "INSERT INTO usage (user_id, day, workload, gpu_ms) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (user_id, day, workload) DO UPDATE SET gpu_ms = gpu_ms + excluded.gpu_ms"
)
_SUMS = (
    "coalesce(sum(gpu_ms), 0) AS gpu_ms, coalesce(sum(tasks), 0) AS tasks, coalesce(sum(succeeded), 0) AS succeeded,"
    " coalesce(sum(failed), 0) AS failed, coalesce(sum(canceled), 0) AS canceled"
)
# ruff: noqa: S608 - statements of constants
_PART_OF_USER = (
    f"SELECT {{workload}} AS workload, {{day}} AS day, count(*) AS n, {_SUMS} FROM usage"
    " WHERE user_id = ? AND day BETWEEN ? AND ? GROUP BY 1, 2 ORDER BY 1, 2"
)
_USERS = "SELECT user_id FROM users WHERE user_id >= ? ORDER BY user_id LIMIT ?"
_OF_USER = f"SELECT {_SUMS} FROM usage WHERE user_id = ? AND day BETWEEN ? AND ?"
_STATES = ", ".join(f"'{state.value}'" for state in TaskState)
_COUNTS = f"SELECT state, n FROM task_counts WHERE state IN ({_STATES}) AND user_id = ?"
_TOTAL = "SELECT coalesce(sum(gpu_ms), 0) FROM usage_totals WHERE user_id = ?"
_LIVE = (
    "SELECT user_id, CASE WHEN export_of IS NULL THEN workload ELSE ? END AS workload, nnodes * gpus_per_node AS gpus,"
    " counts_from FROM attempts CROSS JOIN tasks USING (task_id)"
    " WHERE attempts.state <> 'ENDED' AND counts_from IS NOT NULL"
)


@dataclass(frozen=True)
class Running:
    """An attempt that is not over."""

    user_id: str
    workload: str
    gpus: int
    #: Unix time.
    counts_from: float


def add(db: sqlite3.Connection, user_id: str, workload: str, gpu_ms_by_day: Mapping[int, int]) -> None:
    db.executemany(_ADD, [(user_id, day, workload, gpu_ms) for day, gpu_ms in gpu_ms_by_day.items()])


def live(db: sqlite3.Connection, user_id: str | None = None) -> list[Running]:
    """Of one user, or of all."""
    more = "" if user_id is None else " AND user_id = ?"
    values = (WORKLOAD,) if user_id is None else (WORKLOAD, user_id)
    return [Running(*row) for row in db.execute(_LIVE + more, values)]


def users_from(db: sqlite3.Connection, user_id: str, limit: int) -> list[str]:
    """This one and those after it, by id."""
    return [row[0] for row in db.execute(_USERS, (user_id, limit))]


def part_of_user(
    db: sqlite3.Connection, user_id: str, by: tuple[str, ...], first_day: int, last_day: int
) -> tuple[dict[tuple[str | None, int | None], Usage], int]:
    """(workload, day) -> what was used by what is over, in order; None for what is not in `by`. And how many rows were
    read for it."""
    columns = {name: name if name in by else "NULL" for name in ("workload", "day")}
    rows = db.execute(_PART_OF_USER.format(**columns), (user_id, first_day, last_day)).fetchall()
    found = {(row["workload"], row["day"]): _usage(row) for row in rows}
    return {key: usage for key, usage in found.items() if usage != Usage()}, sum(row["n"] for row in rows)


def of_user(db: sqlite3.Connection, user_id: str, first_day: int, last_day: int) -> Usage:
    return _usage(db.execute(_OF_USER, (user_id, first_day, last_day)).fetchone())


def total_of(db: sqlite3.Connection, user_id: str) -> Usage:
    """Of all days."""
    states = {row["state"]: row["n"] for row in db.execute(_COUNTS, (user_id,))}
    gpu_ms = int(db.execute(_TOTAL, (user_id,)).fetchone()[0])
    ended = (states.get(name, 0) for name in ("SUCCEEDED", "FAILED", "CANCELED"))
    return Usage(gpu_ms, sum(states.values()), *ended)


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(row["gpu_ms"], row["tasks"], row["succeeded"], row["failed"], row["canceled"])
