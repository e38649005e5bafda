"""Who may write: a lock held for the writer's whole life, and a note beside the database that names its
holder.

The lock keeps a second writer out. The note is for the day on which the lock fails: a host that was paused so
long that the filesystem gave its lock away. In exclusive mode SQLite reads its own cache, so a row in the
database that a new writer has changed is never seen by the old one; a file read anew is. So each write checks
the note.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from argus_ray.core.errors import StaleWriter, Unavailable
from argus_ray.disk import atomic
from argus_ray.disk.lock import KernelLock, LockBusy


class Fence:
    """The claim of one writer on one database. Made by `Fence.take` only."""

    def __init__(self, lock: KernelLock, note: Path, text: bytes, guard: Callable[[], None] | None) -> None:
        self._lock = lock
        self._guard = guard
        self._note = note
        self._text = text

    @classmethod
    def take(
        cls,
        database: Path,
        writer_id: str,
        now: float,
        timeout_s: float,
        guard: Callable[[], None] | None = None,
    ) -> Fence:
        """Wait at most `timeout_s` for the lock; Unavailable, naming the holder, when it is not free by
        then. `guard` raises StaleWriter once its owner may write no more, for reasons of its own (another head)."""
        if guard is not None:
            guard()  # else an old head could take the database from a new one
        note = Path(f"{database}.owner")
        lock = KernelLock(f"{database}.lock")
        try:
            lock.acquire(timeout_s, poll_s=min(0.05, max(timeout_s / 4, 0.001)))
        except LockBusy:
            raise Unavailable(f"the database {database} is in use by {_holder(note)}") from None
        claim = {
            "writer_id": writer_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds"),
        }
        text = json.dumps(claim).encode() + b"\n"
        try:
            # Before the database is touched: from here on an older writer refuses to write.
            atomic.write_atomically(note, text, mode=0o600)
        except BaseException:
            lock.release()
            raise
        return cls(lock, note, text, guard)

    def check(self) -> None:
        """StaleWriter if another writer has claimed the database since, or the guard says so."""
        if self._guard is not None:
            self._guard()
        try:
            fd = os.open(self._note, os.O_RDONLY)
            try:
                text = os.read(fd, 4096)
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise StaleWriter(f"the claim {self._note} is gone, so nothing may be written") from None
        except OSError as error:
            raise Unavailable(f"the claim {self._note} cannot be read: {error.strerror}") from error
        if text != self._text:
            raise StaleWriter(f"the database was taken over by {_holder(self._note)}")

    def release(self) -> None:
        self._lock.release()


def _holder(note: Path) -> str:
    try:
        claim = json.loads(atomic.read_small(note))
        return f"process {claim['pid']} of host {claim['host']} since {claim['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another writer, which has left no readable note"
