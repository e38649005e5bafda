"""The lock of one file among processes and machines, kept by the kernel: it is there for as long as its holder lives.

It never becomes anything weaker. Where a filesystem has no flock, filelock would go on with a file that merely exists,
which outlives a holder that was killed, and one that another process may judge stale: two heads, or two writers. So we
refuse, and say what is missing. Knows the standard library and filelock only: what runs outside Ray uses it, too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

#: What a filesystem says that has no flock (FUSE, a Lustre without its option) or no lock service (NFS).
_MISSING = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})


class LockBusy(TimeoutError):
    """Another process holds it."""


class NoLocks(OSError):
    """The filesystem has no working flock. Its words say which file, and what to do."""


class KernelLock:
    """Its holder may take it again, and one `release` gives it back, by any thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = FileLock(self.path, mode=0o600, thread_local=False, fallback_to_soft=False)

    def acquire(self, timeout_s: float, poll_s: float = 0.05) -> None:
        """Raises LockBusy after `timeout_s` (0: at once), NoLocks, and OSError for all else that the disk says."""
        try:
            self._lock.acquire(timeout=timeout_s, poll_interval=poll_s)
        except Timeout:
            raise LockBusy(f"{self.path} is held by another process") from None
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            raise NoLocks(
                error.errno,
                f"its filesystem lacks flock ({os.strerror(error.errno)}), and without it two heads or two writers"
                " could run at once: mount it with locks that hold between machines (Lustre: -o flock; NFS: with its"
                " lock service)",
                self.path,
            ) from error

    def release(self) -> None:
        """Idempotent."""
        self._lock.release(force=True)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Raises as `acquire` does."""
        self.acquire(timeout_s)
        try:
            yield
        finally:
            self.release()
