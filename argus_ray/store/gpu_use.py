"""Rows of `gpu_use`, and what users hold now. Each function works in the caller's transaction."""

from __future__ import annotations

import sqlite3

from argus_ray.core.shares import Use


def of_all(db: sqlite3.Connection) -> dict[str, Use]:
    """By user, of attempts that are over. Who has used nothing is left out."""
    return {row["user_id"]: Use(row["gpu_s"], row["at"]) for row in db.execute("SELECT * FROM gpu_use")}


def of_user(db: sqlite3.Connection, user_id: str) -> Use:
    row = db.execute("SELECT gpu_s, at FROM gpu_use WHERE user_id = ?", (user_id,)).fetchone()
    return Use() if row is None else Use(row["gpu_s"], row["at"])


def put(db: sqlite3.Connection, user_id: str, use: Use) -> None:
    db.execute(
        "INSERT INTO gpu_use (user_id, gpu_s, at) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET gpu_s = excluded.gpu_s, at = excluded.at",
        (user_id, use.gpu_s, use.at),
    )


def held_by(db: sqlite3.Connection, user_id: str) -> list[tuple[int, float | None]]:
    """GPUs, and from when they count, of each attempt of the user that is not over."""
    # CROSS JOIN: from the few attempts that live, by their index.
    rows = db.execute(
        "SELECT nnodes * gpus_per_node AS gpus, coalesce(counts_from, attempts.started_at) AS since"
        " FROM attempts CROSS JOIN tasks USING (task_id)"
        " WHERE attempts.state <> 'ENDED' AND user_id = ?",
        (user_id,),
    )
    return [(row["gpus"], row["since"]) for row in rows]
