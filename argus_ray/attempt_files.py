"""The files by which the scheduler and a job's runner talk, in the job root on the shared filesystem.

The runner writes the start marker, the exit record and the log; the scheduler writes the cancel marker. Nothing here
follows a symbolic link: what runs in the job root could have put one there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.observation import ExitRecord, FilesSeen

#: Bytes of the log's end that are looked at for the reason of a failure.
TAIL_BYTES = 128 * 1024
_MAX_RECORD_BYTES = 64 * 1024


def look(job_root: str) -> FilesSeen:
    """What the runner has written so far. A file that is missing, torn or foreign counts as not written.

    Raises OSError when the shared filesystem does not answer: that is no observation.
    """
    return FilesSeen(
        started=_read_end(paths.start_marker(job_root), 1) is not None,
        exit=_exit_record(_read_end(paths.exit_record(job_root), _MAX_RECORD_BYTES)),
        log_tail=(_read_end(paths.driver_log(job_root), TAIL_BYTES) or b"").decode("utf-8", "replace"),
    )


def forbid_start(job_root: str) -> None:
    """Write the cancel marker, durably: the runner will not start, and one that runs will stop. Idempotent."""
    marker = Path(paths.cancel_marker(job_root))
    marker.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    directory = os.open(marker.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_end(path: str, size: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symbolic link stands there; the runner never makes one
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
    if not isinstance(code, int) or not (signal is None or isinstance(signal, int)):
        return None
    return ExitRecord(code, signal)
