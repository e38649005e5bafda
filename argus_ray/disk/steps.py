"""How far a run is, from the end of its metrics file: for who foretells when it ends. Blocks on the disk."""

from __future__ import annotations

import os

from argus_ray.core import paths
from argus_ray.core.forecast.pace import StepsSeen
from argus_ray.core.verl import files
from argus_ray.core.verl.metrics import Digest
from argus_ray.disk import logs

#: Some ten to three hundred lines of verl.
_WINDOW = 64 * 1024


def look(job_root: str, *, wants_total: bool) -> StepsSeen:
    """`wants_total`: of verl's progress bar as well. A file that is missing or cannot be read has no steps; raises
    OSError where the shared filesystem does not answer."""
    try:
        with logs.opened(job_root, paths.metrics_file(job_root)) as fd:
            status = os.fstat(fd)
            start = max(0, status.st_size - _WINDOW)
            data = logs.read_at(fd, start, status.st_size - start)
    except (FileNotFoundError, ValueError, logs.NotReadable):
        return StepsSeen()
    digest = Digest(())
    digest.feed(data[0 if start == 0 else data.find(b"\n") + 1 : data.rfind(b"\n") + 1])
    total = _total(job_root) if wants_total else None
    return StepsSeen(digest.last_step, status.st_mtime, digest.steps_per_s(), total)


def _total(job_root: str) -> int | None:
    try:
        return files.total_in_log(logs.read_end(job_root, paths.driver_log(job_root), _WINDOW).data)
    except (OSError, ValueError, logs.NotReadable):
        return None
