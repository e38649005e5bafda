"""A backup in the place of the database, while nobody writes to it. The old one is kept aside with its log."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from argus_ray.core.errors import DatabaseDamaged
from argus_ray.disk import atomic
from argus_ray.store import health
from argus_ray.store.backup import Backup, copy_file, verify
from argus_ray.store.fence import Fence

#: What SQLite keeps beside a database. A log beside another database would be copied into it.
_BESIDE = ("-wal", "-shm", "-journal")
#: Others keep the numbers of these rows as the place where they were.
_NUMBERED = ("events", "audit")
#: So many numbers a second nobody gives. So what is given from the time of a restore on lies above all that was given
#: before it, whatever was lost; and until the year 2242 below 2^53, as all JSON readers need.
_NUMBERS_A_SECOND = 2**20


@dataclass(frozen=True)
class Restored:
    #: Of the writers; above that of the old database, as far as it could be read.
    epoch: int
    tasks: int
    #: Where the old database is now; None if there was none.
    aside: Path | None


def restore(database: Path, backup: Backup, *, now: float, others: Iterable[Backup] = ()) -> Restored:
    """Durably. `now`: seconds since the Unix epoch. `others`: backups of the same pool, also of later writers. What is
    backed up from now on counts as newer than they. The folder of the database is made if it is not there.

    A process that is killed within leaves the old database, or none and no log beside its place, or the new one: so
    nobody opens what is not whole. Raises DatabaseDamaged and SchemaError for a backup that is not good, Unavailable
    while a writer has the database, and OSError.
    """
    verify(backup)
    database.parent.mkdir(parents=True, exist_ok=True)
    writer_id = os.urandom(16).hex()
    # Its note keeps out a writer that was paused before, and lost its lock.
    fence = Fence.take(database, writer_id, now, 0.0)
    staged = database.with_name(f".{database.name}.restoring")
    try:
        for name in (staged, *(Path(f"{staged}{end}") for end in _BESIDE)):
            name.unlink(missing_ok=True)
        if copy_file(backup.path, staged) != backup.digest:
            raise DatabaseDamaged(f"{backup.path} has changed while it was copied")
        old_epoch, old_numbers = _known_of(database)
        epoch = 1 + max(backup.epoch, old_epoch, *(each.epoch for each in others))
        floor = max(int(max(now, backup.at)), 0) * _NUMBERS_A_SECOND
        tasks = _take_over(
            staged, backup, epoch, writer_id, now, {name: max(floor, number) for name, number in old_numbers.items()}
        )
        aside = _set_aside(database, now)
        staged.rename(database)
        atomic.sync_folder(database.parent)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        fence.release()
    return Restored(epoch, tasks, aside)


def _take_over(staged: Path, backup: Backup, epoch: int, writer_id: str, now: float, above: dict[str, int]) -> int:
    """How many tasks there are. `above`: what the numbers of each kind begin above."""
    db = sqlite3.connect(staged, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = DELETE")  # so that there is no log to be moved with it
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        stored = int(db.execute("SELECT epoch FROM writer").fetchone()[0])
        db.execute(
            "UPDATE writer SET epoch = ?, writer_id = ?, opened_at = ?", (max(epoch, stored + 1), writer_id, now)
        )
        if _has(db, "change_clock"):
            # Numbers of changes since the backup will be given again: places that users hold must not fit.
            db.execute("UPDATE change_clock SET key = randomblob(32)")
        _skip_numbers(db, above)
        _tell(db, backup, now)
        tasks = int(db.execute("SELECT count(*) FROM tasks").fetchone()[0])
        db.execute("COMMIT")
    finally:
        db.close()
    return tasks


def _skip_numbers(db: sqlite3.Connection, above: dict[str, int]) -> None:
    """So that a place from before the restore is one, and what has been lost behind it is a gap and not another row."""
    for name, number in above.items():
        if _has(db, name):
            number = max(number, _newest(db, name) + _NUMBERS_A_SECOND)
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))


def _tell(db: sqlite3.Connection, backup: Backup, now: float) -> None:
    """Who follows the audit sees at once that entries are gone."""
    if _has(db, "audit"):
        db.execute(
            "INSERT INTO audit (at, actor, role, action, target, result, detail)"
            " VALUES (?, 'admin', 'admin', 'database.restore', ?, 'done', ?)",
            (round(now * 1000), backup.path.name, json.dumps({"of": backup.when})),
        )


def _has(db: sqlite3.Connection, name: str) -> bool:
    """A backup may be of an earlier version."""
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone() is not None


def _newest(db: sqlite3.Connection, name: str) -> int:
    """The highest number that was ever given."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _known_of(database: Path) -> tuple[int, dict[str, int]]:
    """The epoch, and numbers above all that were given. Without its log, which may know of one more writer and of some
    more numbers; the note keeps that writer out. 0 where it cannot be read."""
    try:
        with health.reading(database) as db:
            numbers = {name: _newest(db, name) + _NUMBERS_A_SECOND for name in _NUMBERED}
            return int(db.execute("SELECT epoch FROM writer").fetchone()[0]), numbers
    except (FileNotFoundError, DatabaseDamaged, TypeError, ValueError):
        return 0, dict.fromkeys(_NUMBERED, 0)


def _set_aside(database: Path, now: float) -> Path | None:
    """The database first: without it nobody opens the log."""
    when = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    aside, number = database.with_name(f"{database.name}.replaced-{when}"), 1
    while any(Path(f"{aside}{end}").exists() for end in ("", *_BESIDE)):
        number += 1
        aside = database.with_name(f"{database.name}.replaced-{when}-{number}")
    found = False
    for end in ("", *_BESIDE):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{end}").rename(f"{aside}{end}")
            found = True
    atomic.sync_folder(database.parent)
    return aside if found else None
