"""Attempts and their job roots, page by page, for whoever compares them with the disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator

#: Rows at a time.
PAGE = 500


def unknown(db: sqlite3.Connection, user_id: str, submission_ids: Collection[str]) -> list[str]:
    """Of these folders of a user, those that belong to no attempt of that user."""
    rows = db.execute(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM attempts JOIN tasks USING (task_id)"
        " WHERE attempts.submission_id = value AND tasks.user_id = ?) ORDER BY value",
        (json.dumps(sorted(submission_ids)), user_id),
    )
    return [str(row[0]) for row in rows]


def known_tasks(db: sqlite3.Connection, user_id: str, task_ids: Collection[str]) -> set[str]:
    """Those of them that are tasks of this user."""
    rows = db.execute(
        "SELECT task_id FROM tasks WHERE user_id = ? AND task_id IN (SELECT value FROM json_each(?))",
        (user_id, json.dumps(sorted(task_ids))),
    )
    return {str(row[0]) for row in rows}


def expected(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """User and submission id of each attempt that has run and whose files were not deleted. A transaction a page."""
    after = ""
    while True:
        rows = db.execute(
            "SELECT attempts.submission_id, tasks.user_id, tasks.files_at, attempts.started_at FROM attempts"
            " JOIN tasks USING (task_id) WHERE attempts.submission_id > ? ORDER BY attempts.submission_id LIMIT ?",
            (after, PAGE),
        ).fetchall()
        for row in rows:
            if row["started_at"] is not None and row["files_at"] != "DELETED":
                yield str(row["user_id"]), str(row["submission_id"])
        if len(rows) < PAGE:
            return
        after = str(rows[-1]["submission_id"])
