"""Rows of `users`. Each function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3

from argus_ray.core.model import User, UserState


def add(db: sqlite3.Connection, user: User) -> bool:
    """False: a user with this id exists already, and nothing was changed."""
    cursor = db.execute(
        "INSERT INTO users (user_id, display_name, state, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (user.user_id, user.display_name, user.state.value, user.created_at),
    )
    return cursor.rowcount == 1


def find(db: sqlite3.Connection, user_id: str) -> User | None:
    row = db.execute("SELECT * FROM users WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else _user(row)


def all_but(db: sqlite3.Connection, hidden: str) -> tuple[User, ...]:
    """By id, without the user `hidden`."""
    rows = db.execute("SELECT * FROM users WHERE user_id <> ? ORDER BY user_id", (hidden,))
    return tuple(_user(row) for row in rows)


def set_state(db: sqlite3.Connection, user_id: str, state: UserState) -> None:
    db.execute("UPDATE users SET state = ? WHERE user_id = ? AND state <> ?", (state.value, user_id, state.value))


def _user(row: sqlite3.Row) -> User:
    return User(
        user_id=row["user_id"],
        display_name=row["display_name"],
        state=UserState(row["state"]),
        created_at=row["created_at"],
    )


def by_beginning(db: sqlite3.Connection, text: str, limit: int) -> tuple[str, ...]:
    """The ids of users that begin with this text, and of those with which, and a hyphen, it begins; so many at most."""
    shorter = [text[:at] for at, char in enumerate(text) if char == "-"]
    rows = db.execute(
        "SELECT user_id FROM users WHERE user_id >= :text AND user_id < :text || '~' UNION"
        " SELECT user_id FROM json_each(:shorter) AS wanted CROSS JOIN users ON user_id = wanted.value LIMIT :limit",
        {"text": text, "shorter": json.dumps(shorter), "limit": limit},
    )
    return tuple(row["user_id"] for row in rows)
