"""The newest checkpoint that verl can resume a task from, among those that its earlier attempts have left.

`core/verl/files.py` knows what verl writes and loads. The tracker file plays no part: a run that died can have left it
torn, or naming a torn checkpoint. "Not there" is an answer. A disk that does not answer, or not to us, raises OSError:
to start from zero would throw away what may be days of training. No symbolic link is followed: what ran in a job root
could have put one there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.verl import files
from argus_ray.disk import beneath
from argus_ray.disk.beneath import NOT_THERE

#: Names that are looked at in one folder of checkpoints. An ppo or grpo run leaves one with next to nothing in it for
#: each checkpoint that it has deleted.
_MAX_NAMES = 100_000
#: Folders that are looked into, the newest first: verl keeps two whole ones, and the others are as good as empty.
_MAX_FOLDERS = 200


@dataclass(frozen=True)
class Checkpoint:
    #: The `global_step_N` folder, as verl wants it: absolute, without a slash at its end.
    path: str
    step: int
    #: Of the attempt that has left it.
    job_root: str


def newest_complete(job_roots: Sequence[str], workload: str, world_size: int) -> Checkpoint | None:
    """The complete checkpoint of the highest step; among equals that of the last job root. `job_roots`: oldest first.

    Complete: all that verl loads for this workload on `world_size` processes is there and whole. Raises OSError.
    """
    return next(each_complete(job_roots, workload, world_size), None)


def complete(job_roots: Sequence[str], workload: str, world_size: int) -> list[Checkpoint]:
    """All of them, in the order in which `newest_complete` would take them. Raises OSError."""
    return list(each_complete(job_roots, workload, world_size))


def each_complete(
    job_roots: Sequence[str], workload: str, world_size: int, only: int | None = None
) -> Iterator[Checkpoint]:
    """The same, each looked at when it is asked for: one may have hundreds of files. `only`: of this step."""
    if world_size < 1:  # an export: of no process everything would be there
        return
    found = [(step, age) for age, job_root in enumerate(job_roots) for step in _steps(job_root) if only in (None, step)]
    for step, age in sorted(found, reverse=True)[:_MAX_FOLDERS]:
        job_root, name = job_roots[age], files.checkpoint_name(step)
        parts = files.checkpoint_parts(workload, world_size)
        if all(_all_whole(job_root, (name, *way), wanted) for way, wanted in parts):
            yield Checkpoint(f"{paths.checkpoints_dir(job_root)}/{name}", step, job_root)


def _steps(job_root: str) -> list[int]:
    with beneath.suppress(*NOT_THERE), _folder(job_root) as checkpoints, os.scandir(checkpoints) as entries:
        steps = [files.step_of(entry.name) for entry in islice(entries, _MAX_NAMES)]
        return [step for step in steps if step is not None]
    return []


def _all_whole(job_root: str, way: Sequence[str], names: Sequence[str]) -> bool:
    with beneath.suppress(*NOT_THERE), _folder(job_root, *way) as folder:
        return all(_is_whole(folder, name) for name in names)
    return False


def _is_whole(folder: int, name: str) -> bool:
    with beneath.plain_file(folder, name) as fd:
        size = os.fstat(fd).st_size
        if size < files.END_BYTES:
            return False
        end = os.pread(fd, files.END_BYTES, size - files.END_BYTES)
        return files.is_whole_archive(os.pread(fd, files.HEAD_BYTES, 0), end)


def _folder(job_root: str, *way: str) -> contextlib.AbstractContextManager[int]:
    """The folder that lies this way below the checkpoints of a job root, open."""
    return beneath.folder(job_root, Path(paths.checkpoints_dir(job_root)).name, *way)
