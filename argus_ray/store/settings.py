"""Rows of `settings`: what tasks were accepted with, once for each content. Their text is not looked at here."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable

#: Most tasks have settings that are there: these are not looked into, as the checks of the columns would do first.
_KEEP = "INSERT INTO settings (digest, text) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM settings WHERE digest = ?1)"


def keep(db: sqlite3.Connection, text: str) -> str:
    """The digest of this text, which is stored now. The caller refers to it in the same transaction."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    db.execute(_KEEP, (digest, text))
    return digest


def texts(db: sqlite3.Connection, digests: Iterable[str | None]) -> dict[str, str]:
    """By digest: one statement for all."""
    wanted = sorted({digest for digest in digests if digest is not None})
    if not wanted:
        return {}
    rows = db.execute(
        "SELECT digest, text FROM json_each(?) AS wanted CROSS JOIN settings ON settings.digest = wanted.value",
        (json.dumps(wanted),),
    )
    return {row["digest"]: row["text"] for row in rows}
