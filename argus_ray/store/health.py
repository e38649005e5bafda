"""What is wrong with a database file: damage that SQLite finds, a version that this code does not know, and
rows that belong to nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from argus_ray.core.errors import DatabaseDamaged, Unavailable
from argus_ray.disk.lock import KernelLock
from argus_ray.store import migrations
from argus_ray.store.migrations import SchemaError

__all__ = ["Database", "SchemaError", "broken_references", "check_sound", "damage", "is_damage", "owned", "reading"]

#: For those who pass one on and know no SQLite.
Database = sqlite3.Connection

#: SQLITE_CORRUPT and SQLITE_NOTADB, and how they read, since Python has had the codes only since 3.11.
_DAMAGE_CODES = frozenset({11, 26})
#: SQLITE_NOMEM, SQLITE_IOERR, SQLITE_FULL and SQLITE_CANTOPEN: of the machine, and not of the file.
_NO_ACCESS_CODES = frozenset({7, 10, 13, 14})
_DAMAGE_WORDS = ("malformed", "not a database")
#: Findings of one kind that are told.
_MOST = 20


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is not what it has written."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF in _DAMAGE_CODES
    return any(word in str(error) for word in _DAMAGE_WORDS)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A file that nobody writes to, without its log, and without making a file beside it. Raises DatabaseDamaged for
    what comes up within, Unavailable and FileNotFoundError where the file cannot be read."""
    path.stat()
    with _told(path):
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA temp_store = MEMORY")
            yield db
        finally:
            db.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a text that is none, where bytes were changed
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ACCESS_CODES:
            raise Unavailable(f"the database {path} cannot be read: {error}") from error
        raise DatabaseDamaged(f"the database {path} cannot be read: {error}") from error


def check_sound(db: sqlite3.Connection, path: Path) -> None:
    """By the quick check, which reads every page. Raises DatabaseDamaged, SchemaError."""
    version(db)
    if found := damage(db, quick=True):
        raise DatabaseDamaged(f"the database {path} is damaged: {'; '.join(found[:3])}")
    if db.execute("SELECT count(*) FROM writer").fetchone()[0] != 1:
        raise DatabaseDamaged(f"the database {path} does not say who wrote it")


def version(db: sqlite3.Connection) -> int:
    """Of its schema. Raises SchemaError for one that is not ours, or newer than this code."""
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    application_id = int(db.execute("PRAGMA application_id").fetchone()[0])
    if application_id != migrations.APPLICATION_ID or not found:
        raise SchemaError("this SQLite file is not a database of Argus")
    newest = migrations.known()[-1].version
    if found > newest:
        raise SchemaError(f"it has schema version {found}, and this version of Argus knows {newest} at most")
    return found


def damage(db: sqlite3.Connection, *, quick: bool) -> list[str]:
    """What SQLite finds, the first of it; empty if it is sound. `quick`: without looking into indexes."""
    check = "quick_check" if quick else "integrity_check"
    try:
        rows = [str(row[0]) for row in db.execute(f"PRAGMA {check}({_MOST})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if rows == ["ok"] else rows or ["the check said nothing"]


def broken_references(db: sqlite3.Connection) -> list[str]:
    """Rows that name one that is not there, the first of them."""
    found = list[str]()
    for row in db.execute("PRAGMA foreign_key_check"):
        found.append(f"row {row[1]} of {row[0]} names one of {row[2]} that is not there")
        if len(found) == _MOST:
            break
    return found


@contextmanager
def owned(path: Path) -> Iterator[sqlite3.Connection]:
    """The database itself with its log, as its writer opens it: while it lasts nobody else can. SQLite copies the log
    into it at the end. Raises LockBusy, FileNotFoundError, DatabaseDamaged, Unavailable."""
    path.stat()
    with KernelLock(f"{path}.lock").held(0):
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
        try:
            with _told(path):
                db.row_factory = sqlite3.Row
                # Before the first access: else SQLite makes its shared memory.
                db.execute("PRAGMA locking_mode = EXCLUSIVE")
                db.execute("PRAGMA temp_store = MEMORY")
                yield db
        finally:
            with _told(path):
                db.close()
