"""Backups of the database: made while it is written to, whole or not at all, and checked before they get their name.

A name says when, by which epoch, and what the content's SHA-256 begins with:
`argus-20261127T034512Z-e12-0f1e2d3c4b5a6978.db`. Nobody changes a file under such a name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from argus_ray.core.errors import DatabaseDamaged, Unavailable
from argus_ray.disk import atomic
from argus_ray.store import health
from argus_ray.store.store import Store

#: Of 4 KiB: a step takes about 2 ms where the pages are in memory.
_PAGES_AT_ONCE = 128
#: Between two steps the writer has so many times as long as a step took, so a backup takes a sixth of its time.
_PAUSE_TIMES = 5.0
_LONGEST_PAUSE_S = 0.25
#: A rollback has SQLite begin the copy again, so there is a bound on the whole.
_LONGEST_COPY_S = 1800.0
_AT_ONCE = 1 << 20
_NAME = re.compile(r"argus-(\d{8}T\d{6}Z)-e(\d{1,18})-([0-9a-f]{16})\.db")
_TIME = "%Y%m%dT%H%M%SZ"
_DAY_S = 86_400


@dataclass(frozen=True)
class Backup:
    path: Path
    #: What was accepted until then is in it; seconds since the Unix epoch.
    at: float
    #: Of the writer that made it.
    epoch: int
    #: How the SHA-256 of its content begins, by its name.
    digest: str

    @property
    def when(self) -> str:
        return datetime.fromtimestamp(self.at, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def named(path: Path) -> Backup | None:
    """None if this is no name of a backup."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        at = datetime.strptime(match[1], _TIME).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
    return Backup(path, at, int(match[2]), match[3])


def list_in(folder: Path) -> tuple[Backup, ...]:
    """The newest first, by their names: by their writers, of which each has a higher epoch than all before it, whatever
    its clock says; then by time. None where there is no folder; raises OSError."""
    try:
        with os.scandir(folder) as entries:
            found = [backup for entry in entries if (backup := named(Path(entry.path)))]
    except FileNotFoundError:
        return ()
    return tuple(sorted(found, key=_order, reverse=True))


def _order(backup: Backup) -> tuple[int, float, str]:
    return backup.epoch, backup.at, backup.digest


def verify(backup: Backup) -> None:
    """That it is what was written, and a sound database of a version that this code knows. Reads all of it. Raises
    DatabaseDamaged, SchemaError and OSError."""
    found = _digest(backup.path)
    if found != backup.digest:
        raise DatabaseDamaged(f"{backup.path} is damaged: its SHA-256 begins with {found}, not as its name says")
    with health.reading(backup.path) as db:
        health.check_sound(db, backup.path)


def newest_good(folder: Path, looked_at: int = 8) -> Backup | None:
    """Of the newest few. Reads them until one is good. Raises OSError."""
    for backup in list_in(folder)[:looked_at]:
        with contextlib.suppress(DatabaseDamaged, health.SchemaError):
            verify(backup)
            return backup
    return None


def make(
    store: Store,
    folder: Path,
    *,
    check_root: Callable[[], object],
    stop: Callable[[float], bool],
    spare_bytes: int = 0,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Backup:
    """A new one in this folder, durable. `check_root` raises if nothing may be made there now; `stop` waits so many
    seconds, and says whether to give up. `spare_bytes` of the filesystem stay free.

    Raises Unavailable, StaleWriter, OSError; DatabaseDamaged if the copy is not sound: then the database is not either.
    """
    check_root()
    # Beside the database: a step holds the writer while it writes, so it may wait for no disk but the writer's own.
    staged = store.path.with_name(f".{store.path.name}.backup-{store.writer_id[:8]}")
    for left in store.path.parent.glob(f".{store.path.name}.backup-*"):
        left.unlink(missing_ok=True)
    _check_room(store.path, store.path.parent, spare_bytes)
    os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    begun = monotonic()

    def pause(held_s: float) -> None:
        if stop(min(held_s * _PAUSE_TIMES, _LONGEST_PAUSE_S)):
            raise Unavailable("the backup was given up: its writer is to end")
        if monotonic() - begun > _LONGEST_COPY_S:
            raise Unavailable(f"the backup was given up: it took longer than {_LONGEST_COPY_S:.0f} s")

    try:
        store.copy_to(staged, _PAGES_AT_ONCE, pause)
        at = clock()
        with health.reading(staged) as db:
            health.check_sound(db, staged)
        digest = _digest(staged)
        when = datetime.fromtimestamp(at, timezone.utc).strftime(_TIME)
        target = folder / f"argus-{when}-e{store.epoch}-{digest}.db"
        check_root()
        _publish(staged, target, digest, spare_bytes)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
    made = named(target)
    if made is None:
        raise AssertionError(f"{target.name} is no name of a backup")
    return made


def superfluous(backups: Sequence[Backup], keep: int, keep_days: int, now: float) -> tuple[Backup, ...]:
    """Those that may go: neither of the `keep` newest, nor the newest of one of the last `keep_days` days (UTC). Never
    the newest of all."""
    newest_first = sorted(backups, key=_order, reverse=True)
    kept = set(newest_first[: max(keep, 1)])
    days = set[int]()
    for backup in newest_first:
        day = int(backup.at // _DAY_S)
        if day not in days and day > now // _DAY_S - keep_days:
            kept.add(backup)
        days.add(day)
    return tuple(backup for backup in newest_first if backup not in kept)


def thin(folder: Path, keep: int, keep_days: int, now: float) -> int:
    """Delete what is superfluous, and what a process that was killed has left. How many backups. Raises OSError."""
    for left in folder.glob(".argus-*.db.*"):
        left.unlink(missing_ok=True)
    going = superfluous(list_in(folder), keep, keep_days, now)
    for backup in going:
        backup.path.unlink(missing_ok=True)
    return len(going)


def copy_file(source: Path, target: Path) -> str:
    """To a new file, mode 0600 and on the disk, and how its SHA-256 begins. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as content:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            while part := content.read(_AT_ONCE):
                digest.update(part)
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest()[:16]


def _publish(staged: Path, target: Path, digest: str, spare_bytes: int) -> None:
    """The folder is made only now, since `check_root` has just said that it may be."""
    target.parent.parent.mkdir(exist_ok=True)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with _opened(staged) as fd:
        os.fsync(fd)
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The operator has put the backups on a filesystem of their own.
        _check_room(staged, target.parent, spare_bytes)
        there = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            if copy_file(staged, there) != digest or _digest(there) != digest:
                raise DatabaseDamaged(f"the copy {there} is not what was written") from None
            there.rename(target)
        finally:
            there.unlink(missing_ok=True)
    atomic.sync_folder(target.parent)


def _check_room(source: Path, folder: Path, spare_bytes: int) -> None:
    size, free = source.stat().st_size, shutil.disk_usage(folder).free
    if free < size + spare_bytes:
        raise Unavailable(f"there is no room for a backup in {folder}: {free} bytes are free, and it takes {size}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while part := content.read(_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
