"""Rows of `tokens`: digests and metadata. Each function works in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from argus_ray.core.model import TokenInfo, UserState


@dataclass(frozen=True)
class Bearer:
    """A stored token with the state of its user: what authentication needs, in one row."""

    info: TokenInfo
    digest: str = field(repr=False)
    user_state: UserState = UserState.ACTIVE


def add(db: sqlite3.Connection, info: TokenInfo, digest: str) -> None:
    db.execute(
        "INSERT INTO tokens (token_id, user_id, digest, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (info.token_id, info.user_id, digest, info.label, info.created_at, info.expires_at),
    )


def by_digest(db: sqlite3.Connection, digest: str) -> Bearer | None:
    row = db.execute(
        "SELECT tokens.*, users.state AS user_state FROM tokens JOIN users USING (user_id) WHERE digest = ?",
        (digest,),
    ).fetchone()
    return None if row is None else Bearer(_info(row), row["digest"], UserState(row["user_state"]))


def find(db: sqlite3.Connection, user_id: str, token_id: str) -> TokenInfo | None:
    row = db.execute("SELECT * FROM tokens WHERE token_id = ? AND user_id = ?", (token_id, user_id)).fetchone()
    return None if row is None else _info(row)


def of_user(db: sqlite3.Connection, user_id: str) -> tuple[TokenInfo, ...]:
    """Oldest first."""
    rows = db.execute("SELECT * FROM tokens WHERE user_id = ? ORDER BY created_at, token_id", (user_id,))
    return tuple(_info(row) for row in rows)


def count_live(db: sqlite3.Connection, user_id: str, now: float) -> int:
    """Tokens of this user that are neither revoked nor expired."""
    row = db.execute(
        "SELECT count(*) FROM tokens WHERE user_id = ? AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (user_id, now),
    ).fetchone()
    return int(row[0])


def revoke(db: sqlite3.Connection, token_id: str, now: float) -> None:
    """The first revocation keeps its time."""
    db.execute("UPDATE tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL", (now, token_id))


def touch(db: sqlite3.Connection, used_at: Mapping[str, float]) -> None:
    """`used_at`: token id -> Unix seconds."""
    values = [(at, token_id) for token_id, at in sorted(used_at.items())]
    db.executemany("UPDATE tokens SET last_used_at = ? WHERE token_id = ?", values)


def _info(row: sqlite3.Row) -> TokenInfo:
    return TokenInfo(
        token_id=row["token_id"],
        user_id=row["user_id"],
        label=row["label"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )
