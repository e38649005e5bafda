"""Where the files of a cluster are, and that no head is at work there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from argus_ray.core import paths
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import EpochUnknown
from argus_ray.discovery.head_json import ReadOutcome
from argus_ray.disk.lock import KernelLock, LockBusy


class Refused(Exception):
    """Nothing was done; the message says why."""


@dataclass(frozen=True)
class Place:
    shared_root: str
    cluster: str

    @property
    def discovery(self) -> Path:
        return head_json.folder(self.shared_root, self.cluster)

    @property
    def database(self) -> Path:
        return Path(paths.database_path(self.shared_root, self.cluster))

    @property
    def backups(self) -> Path:
        return Path(paths.backup_dir(self.shared_root, self.cluster))

    def check_root(self) -> None:
        """Raises RootUnknown on a bare mount point."""
        sentinel.adopt(self.discovery)

    @contextmanager
    def without_head(self) -> Iterator[None]:
        """While it lasts no head begins. Raises Refused while one runs, RootUnknown and OSError."""
        self.check_root()
        lock = KernelLock(self.discovery / "head.lock")
        try:
            lock.acquire(timeout_s=0)
        except LockBusy:
            raise Refused(f"a head runs: {lock.path} is held. Stop the head and all standbys first") from None
        try:
            self._check_head_file()
            # A head that was started by hand takes the lock late, but its writer has the database.
            writer = KernelLock(f"{self.database}.lock")
            if self.database.parent.is_dir():
                try:
                    writer.acquire(timeout_s=0)
                except LockBusy:
                    raise Refused(f"a writer has the database: {writer.path} is held. Stop the head first") from None
                writer.release()
            yield
        finally:
            lock.release()

    def _check_head_file(self) -> None:
        """A head whose lock was lost, by a filesystem that gave it away, still renews its file."""
        path = head_json.head_file(self.shared_root, self.cluster)
        found = head_json.Reader(path, self.cluster).read(time.time(), time.monotonic())
        if found.outcome in (ReadOutcome.VALID, ReadOutcome.CLOCK_SKEW) and found.record is not None:
            raise Refused(
                f"a head may run: {path} of {found.record.head_ip} has not expired. Once that head was stopped, it "
                f"takes {found.record.ttl_s:.0f} s; or delete the file, if you know that no head runs on any machine"
            )

    def raise_epoch(self) -> str:
        """So that a head from before, which was paused, finds that it is over. In words. The lock is held."""
        try:
            last = epoch.current(self.discovery)
            if last is None:
                return "there was no head yet"
            taken = epoch.take(self.discovery, replace(last, host=socket.gethostname()))
        except (EpochUnknown, OSError) as error:
            return f"WARNING: the epoch of heads was not raised ({error}); see docs/operations.md, After a total loss"
        return f"the epoch of heads is {taken.epoch}"

    def note_database(self) -> None:
        """From now on this root has a database. Raises OSError."""
        sentinel.note(self.discovery, sentinel.DATABASE)
