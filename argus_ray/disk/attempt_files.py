"""The files by which the scheduler and a job's runner talk, in the job root on the shared filesystem.

The runner writes the start marker, the exit record and the log; the scheduler writes the cancel marker. Nothing here
follows a symbolic link: what runs in the job root could have put one there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.observation import ExitRecord, FilesSeen
from argus_ray.core.stall import MetricsSeen

#: Bytes of the log's end that are looked at for the reason of a failure.
TAIL_BYTES = 128 * 1024
_MAX_RECORD_BYTES = 64 * 1024
#: Final answers about a path: nothing of the runner's is there. Any other error may pass.
_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
)


def look(job_root: str) -> FilesSeen:
    """What the runner has written so far. A file that is missing, torn, foreign or closed to us counts as not written.

    Raises OSError when the shared filesystem does not answer: that is no observation.
    """
    with _folder(job_root) as root:
        return FilesSeen(
            started=_read_end(root, _name(paths.start_marker(job_root)), 1) is not None,
            exit=_exit_record(_read_end(root, _name(paths.exit_record(job_root)), _MAX_RECORD_BYTES)),
            log_tail=_log_tail(root, job_root),
        )


def metrics(job_root: str) -> MetricsSeen:
    """The size of the metrics file, and when it was written last. Raises OSError as `look` does."""
    with _folder(job_root) as root:
        if root is None:
            return MetricsSeen()
        try:
            found = os.stat(_name(paths.metrics_file(job_root)), dir_fd=root, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return MetricsSeen()
            raise
    return MetricsSeen(found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else MetricsSeen()


def forbid_start(job_root: str) -> None:
    """Write the cancel marker, durably: the runner will not start, and one that runs will stop. Idempotent.

    Whatever stands there by that name forbids the start, so it counts. Raises OSError.
    """
    Path(job_root).mkdir(parents=True, exist_ok=True)
    name = _name(paths.cancel_marker(job_root))
    with _folder(job_root) as root:
        if root is None:
            raise NotADirectoryError(errno.ENOTDIR, "the job root is no folder", job_root)
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root))
        except FileExistsError:
            return
        os.fsync(root)


def _name(path: str) -> str:
    return Path(path).name


@contextlib.contextmanager
def _folder(path: str, dir_fd: int | None = None) -> Iterator[int | None]:
    """An open folder, or None if there is none that may be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _log_tail(root: int | None, job_root: str) -> str:
    log = Path(paths.driver_log(job_root))
    if root is None:
        return ""
    with _folder(log.parent.name, root) as logs:
        return (_read_end(logs, log.name, TAIL_BYTES) or b"").decode("utf-8", "replace")


def _read_end(folder: int | None, name: str, size: int) -> bytes | None:
    if folder is None:
        return None
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - size))
        return file.read(size)


def _exit_record(raw: bytes | None) -> ExitRecord | None:
    try:
        record = json.loads(raw or b"")
        code, signal = record["exit_code"], record.get("signal")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # What runs in the job root could have written anything.
    if not isinstance(code, int) or not 0 <= code <= 255 or not (signal is None or isinstance(signal, int)):
        return None
    return ExitRecord(int(code), signal)
