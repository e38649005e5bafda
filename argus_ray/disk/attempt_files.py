"""The files by which the scheduler and a job's runner talk, in the job root on the shared filesystem.

The runner writes the start marker, the exit record and the log; the scheduler writes the cancel marker. No symbolic
link is followed: what runs in the job root could have put one there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import PurePosixPath

from argus_ray.core import paths
from argus_ray.core.observation import ExitRecord, FilesSeen
from argus_ray.core.stall import MetricsSeen
from argus_ray.disk import beneath, logs
from argus_ray.disk.beneath import Meaning
from argus_ray.payload import argus_folders

#: Bytes of the log's end that are looked at for the reason of a failure.
TAIL_BYTES = 128 * 1024
_MAX_RECORD_BYTES = 64 * 1024
#: Nothing of the runner's is there: it writes plain files that we may read.
_NOT_WRITTEN = (Meaning.ABSENT, Meaning.FOREIGN, Meaning.CLOSED)


def look(job_root: str) -> FilesSeen:
    """What the runner has written so far. A file that is missing, torn, foreign or closed to us counts as not written.

    Raises OSError when the shared filesystem does not answer: that is no observation.
    """
    with beneath.suppress(*_NOT_WRITTEN), beneath.folder(job_root) as root:

        def end_of(path: str, size: int) -> bytes | None:
            return _read_end(root, _names(job_root, path), size)

        return FilesSeen(
            started=end_of(paths.start_marker(job_root), 1) is not None,
            exit=_exit_record(end_of(paths.exit_record(job_root), _MAX_RECORD_BYTES)),
            log_tail=_log_end(job_root).decode("utf-8", "replace"),
            has_metrics=_metrics(root, _names(job_root, paths.metrics_file(job_root))).size > 0,
        )
    return FilesSeen()


def metrics(job_root: str) -> MetricsSeen:
    """The size of the metrics file, and when it was written last. Raises OSError as `look` does."""
    return _metrics(job_root, _names(job_root, paths.metrics_file(job_root)))


def _metrics(root: str | int, names: tuple[str, ...]) -> MetricsSeen:
    with beneath.suppress(*_NOT_WRITTEN):
        found = beneath.status(root, *names)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return MetricsSeen(found.st_size, found.st_mtime)
    return MetricsSeen()


def forbid_start(job_root: str, umask: int = argus_folders.DEFAULT_UMASK) -> None:
    """Write the cancel marker, durably: the runner will not start, and one that runs will stop. Idempotent.

    Whatever stands there by that name forbids the start, so it counts. `umask`: of what has to be made for it. Raises
    OSError.
    """
    (name,) = _names(job_root, paths.cancel_marker(job_root))
    try:
        root = argus_folders.job_root(job_root, umask)
    except OSError as error:
        if beneath.meaning(error) is not Meaning.FOREIGN:
            raise
        raise NotADirectoryError(errno.ENOTDIR, "the job root is no folder", job_root) from None
    try:
        mode = argus_folders.file_mode(umask)
        marker = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=root)
        try:
            os.fchmod(marker, mode)  # whatever the umask of this process says
        finally:
            os.close(marker)
        os.fsync(root)
    except FileExistsError:
        pass
    finally:
        os.close(root)


def _names(job_root: str, path: str) -> tuple[str, ...]:
    return PurePosixPath(path).relative_to(job_root).parts


def _read_end(root: int, names: tuple[str, ...], size: int) -> bytes | None:
    with beneath.suppress(*_NOT_WRITTEN), beneath.plain_file(root, *names, own=True) as fd:
        return logs.read_at(fd, max(0, os.fstat(fd).st_size - size), size)
    return None


def _log_end(job_root: str) -> bytes:
    try:
        return logs.read_end(job_root, paths.driver_log(job_root), TAIL_BYTES).data
    except (FileNotFoundError, logs.NotReadable):
        return b""


def _exit_record(raw: bytes | None) -> ExitRecord | None:
    try:
        record = json.loads(raw or b"")
        code, signal = record["exit_code"], record.get("signal")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    # What runs in the job root could have written anything.
    if not isinstance(code, int) or not 0 <= code <= 255 or not (signal is None or isinstance(signal, int)):
        return None
    return ExitRecord(int(code), signal)
