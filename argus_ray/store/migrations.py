"""The schema's versions: one SQL file each, `NNNN_<name>.sql` beside this module, applied in order and never
changed.

A database records its version in `PRAGMA user_version`. Version 0 is an empty file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

from argus_ray.core.errors import ArgusError

#: "Argu" in ASCII, in the header of each of our databases: a foreign one is refused instead of being
#: migrated.
APPLICATION_ID = 0x41726775

#: Of the page cache while a schema is brought up to date. A version goes over whole tables again and again: with
#: SQLite's 2 MB it reads a database of any size four times, and much of that row by row.
_CACHE_KIB = 256 * 1024


class SchemaError(ArgusError):
    """The database has a schema that this version of Argus does not know."""


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str

    def statements(self) -> Iterator[str]:
        """`executescript` would commit by itself; a migration is one transaction, so it goes statement by
        statement."""
        pending = ""
        for line in self.sql.splitlines(keepends=True):
            pending += line
            if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
                yield pending
                pending = ""
        if pending.strip():
            raise SchemaError(f"migration {self.name} ends within a statement")


def known() -> tuple[Migration, ...]:
    """All migrations that ship with this code, version 1 first."""
    found = []
    for entry in resources.files("argus_ray.store").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", entry.name)
        if match:
            found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaError(f"the migrations are not numbered 1, 2, 3, ...: {[m.name for m in found]}")
    return tuple(found)


def migrate(db: sqlite3.Connection, migrations: Sequence[Migration]) -> int:
    """Bring the schema to the newest version, one transaction a step, and return that version.

    Raises SchemaError, having changed nothing, for a newer or a foreign database.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application_id = int(db.execute("PRAGMA application_id").fetchone()[0])
    has_tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 0
    newest = migrations[-1].version
    if application_id != APPLICATION_ID and (has_tables or version):
        raise SchemaError("this SQLite file is not a database of Argus")
    if version > newest:
        raise SchemaError(
            f"the database has schema version {version}, and this version of Argus knows {newest} at most: "
            "start the newer version of Argus again"
        )
    if version < newest:
        with _large_cache(db):
            for migration in migrations[version:]:
                _apply(db, migration)
    return newest


@contextmanager
def _large_cache(db: sqlite3.Connection) -> Iterator[None]:
    before = int(db.execute("PRAGMA cache_size").fetchone()[0])
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    try:
        yield
    finally:
        db.execute(f"PRAGMA cache_size = {before}")
        db.execute("PRAGMA shrink_memory")


def _apply(db: sqlite3.Connection, migration: Migration) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in migration.statements():
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {migration.version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
