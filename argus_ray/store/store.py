"""The one writer of the one SQLite database: opening, the fence, transactions. The verbs are in the modules
beside.

It knows rows and transactions, not rules. Called by the service only. Safe to call from several threads:
transactions take turns.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from argus_ray.core.errors import ArgusError, DatabaseDamaged, StaleWriter, Unavailable
from argus_ray.core.monitoring import COMMIT_BOUNDS, Observed
from argus_ray.store import feed, health, migrations
from argus_ray.store.fence import Fence

#: STRICT tables.
_OLDEST_SQLITE = (3, 37, 0)


class Store:
    """An open database. Made by `Store.open` only."""

    def __init__(self, path: Path, db: sqlite3.Connection, fence: Fence, epoch: int, writer_id: str) -> None:
        self.path = path
        self.epoch = epoch
        self._db = db
        self._fence = fence
        self.writer_id = writer_id
        #: Seconds of each commit that wrote something.
        self.commits = Observed(COMMIT_BOUNDS)
        self._turn = threading.RLock()
        #: Held for a whole backup. Taken before `_turn`.
        self._copying = threading.Lock()
        self._closing = self._closed = False
        #: When the newest backup was made, as far as whoever makes them has said; seconds since the Unix epoch.
        self.backup_at: float | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        epoch: int | None = None,
        lock_timeout_s: float = 30.0,
        busy_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.time,
        guard: Callable[[], None] | None = None,
        may_create: bool = True,
    ) -> Store:
        """Take the lock, bring the schema up to date, and become the writer.

        `epoch` None: one more than the stored one. `guard`: see Fence. Raises Unavailable when another writer holds the
        database for longer than `lock_timeout_s` seconds, or when there is none and none may be made; StaleWriter for
        an epoch that is lower than the stored one, and SchemaError for a database that is not ours or newer than this
        code.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ArgusError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
        file = Path(path).absolute()
        writer_id = os.urandom(16).hex()
        with _as_unavailable(file, OSError):
            if may_create:
                file.parent.mkdir(parents=True, exist_ok=True)
            else:
                file.stat()  # before the lock, whose file would be made without it
            fence = Fence.take(file, writer_id, clock(), lock_timeout_s, guard)
        db: sqlite3.Connection | None = None
        try:
            with _as_unavailable(file, OSError):
                db = _connect(file, busy_timeout_s, may_create=may_create)
                migrations.migrate(db, migrations.known())
                feed.follow(db)
                taken = _become_writer(db, epoch, writer_id, clock())
            return cls(file, db, fence, taken, writer_id)
        except BaseException:
            if db is not None:
                db.close()
            fence.release()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One atomic and durable write: all of it is on disk when the block has ended, or nothing after an
        exception.

        Raises StaleWriter when another writer has taken over, and Unavailable when the disk is full or fails:
        then nothing was written, and the store can be used again. A block that only read costs no disk
        access.
        """
        with self._turn, _as_unavailable(self.path):
            if self._closed:
                raise Unavailable("the database is closed")
            self._fence.check()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._check_epoch()
                before = self._db.total_changes
                yield self._db
                has_changed = self._db.total_changes != before
                if has_changed:
                    # Again, as late as can be: the block may have paused for long.
                    self._fence.check()
                begun = time.perf_counter()
                self._db.execute("COMMIT")
                if has_changed:
                    self.commits.add(time.perf_counter() - begun)
            except BaseException:
                # SQLite has rolled back by itself after some errors (disk full, I/O).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _check_epoch(self) -> None:
        row = self._db.execute("SELECT epoch, writer_id FROM writer").fetchone()
        if row is None or (row["epoch"], row["writer_id"]) != (self.epoch, self.writer_id):
            stored = "none" if row is None else row["epoch"]
            raise StaleWriter(f"this writer has epoch {self.epoch}, and the database was taken over (epoch {stored})")

    def copy_to(self, target: Path, pages_at_once: int, pause: Callable[[float], None]) -> None:
        """Into this file, as the database is when the copy ends, step by step, with transactions of others between the
        steps. SQLite carries what these change over into what was copied before; after a rollback it begins anew.

        `pause` gets the seconds that a step has held the writer, and may raise to give up. Raises StaleWriter,
        Unavailable, DatabaseDamaged; then the file is of no use. One copy at a time.
        """
        with self._copying, _as_unavailable(self.path):
            copy = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
            try:
                copy.execute("PRAGMA journal_mode = OFF")
                copy.execute("PRAGMA synchronous = OFF")
                with self._turn:
                    begun = self._copy_may_go_on()

                    def between(_status: int, _remaining: int, _total: int) -> None:
                        nonlocal begun
                        held_s = time.monotonic() - begun
                        self._turn.release()
                        try:
                            pause(held_s)
                        finally:
                            self._turn.acquire()
                        begun = self._copy_may_go_on()

                    self._db.backup(copy, pages=pages_at_once, progress=between, sleep=0.01)
                    # A writer that has come meanwhile has said so before it changed a page.
                    self._fence.check()
            finally:
                copy.close()

    def _copy_may_go_on(self) -> float:
        if self._closing or self._closed:
            raise Unavailable("the database is closed")
        return time.monotonic()

    def close(self) -> None:
        """Idempotent. Everything that was answered is on disk already. A backup that is being made is given up."""
        self._closing = True
        with self._copying, self._turn:
            if self._closed:
                return
            self._closed = True
            try:
                self._fence.check()
            except ArgusError:
                # SQLite copies its log into the database when it closes, and ours may be older than the
                # database by now. So it must never close, not even when Python drops the last reference.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
            else:
                self._db.close()
            finally:
                self._fence.release()


@contextmanager
def savepoint(db: sqlite3.Connection) -> Iterator[None]:
    """A part of a transaction that can fail alone. If SQLite has rolled back the whole transaction, so says
    the exception that comes through: sqlite3.OperationalError."""
    db.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK TO part")
            db.execute("RELEASE part")
        raise
    db.execute("RELEASE part")


@contextmanager
def _as_unavailable(path: Path, more: type[Exception] = sqlite3.Error) -> Iterator[None]:
    """What the disk does to us (full, read-only, broken, locked by a stranger) is no error of the
    caller's."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except (sqlite3.Error, more) as error:
        if _is_full(error):
            why = f"the filesystem of the database {path} is full ({error})"
            raise Unavailable(f"{why}: nothing was changed. Try again when there is room") from error
        if health.is_damage(error):
            raise DatabaseDamaged(f"the database {path} is damaged: {error}") from error
        raise Unavailable(f"the database {path} cannot be used now: {error}") from error


def _is_full(error: Exception) -> bool:
    """Of space, or of the quota of our user."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, sqlite3.OperationalError) and "is full" in str(error)  # its code only since Python 3.11


def _connect(file: Path, busy_timeout_s: float, *, may_create: bool) -> sqlite3.Connection:
    # Made here and not by SQLite, for the mode: no one else may read it. SQLite gives its WAL the same mode.
    os.close(os.open(file, os.O_RDWR | (os.O_CREAT if may_create else 0), 0o600))
    db = sqlite3.connect(file, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        # The order matters: in WAL mode SQLite makes its shared-memory file at the first access, unless the
        # locking mode is exclusive by then. Network filesystems cannot share memory.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Unavailable(f"the database {file} cannot use a write-ahead log (it is in mode {mode!r})")
        # Each commit is on disk before it is answered.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        return db
    except BaseException:
        db.close()
        raise


def _become_writer(db: sqlite3.Connection, epoch: int | None, writer_id: str, now: float) -> int:
    db.execute("BEGIN IMMEDIATE")
    try:
        row = db.execute("SELECT epoch FROM writer").fetchone()
        stored = 0 if row is None else int(row["epoch"])
        taken = stored + 1 if epoch is None else epoch
        if taken < stored:
            raise StaleWriter(f"epoch {taken} is over: the database has epoch {stored}")
        db.execute(
            "INSERT OR REPLACE INTO writer (id, epoch, writer_id, opened_at) VALUES (1, ?, ?, ?)",
            (taken, writer_id, now),
        )
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return taken
