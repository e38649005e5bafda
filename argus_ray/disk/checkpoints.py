"""The newest checkpoint that verl can resume a task from, among those that its earlier attempts have left.

It knows verl 0.9 by the files that it writes and reads (utils/checkpoint, trainer/sft_trainer.py, trainer/ppo/v1),
without torch. The tracker file plays no part: a run that died can have left it torn, or naming a torn checkpoint.
"Not there" is an answer; a disk that does not answer is none, and raises OSError. No symbolic link is followed: what
ran in a job root could have put one there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from argus_ray.core import paths
from argus_ray.disk import beneath
from argus_ray.disk.beneath import NOT_THERE

#: verl takes the step out of the folder's name, and saves nothing before the first step.
_FOLDER = re.compile(r"global_step_([1-9][0-9]{0,9})")
#: Names that are looked at in one folder of checkpoints. An ppo or grpo run leaves one with next to nothing in it for
#: each checkpoint that it has deleted.
_MAX_NAMES = 100_000
#: Folders that are looked into, the newest first: verl keeps two whole ones, and the others are as good as empty.
_MAX_FOLDERS = 200

#: The first bytes of a zip; the first ones of its end, and the last ones.
_LOCAL_HEADER, _END_OF_DIRECTORY, _NO_COMMENT = b"PK\3\4", b"PK\5\6", b"\0\0"
_END_LENGTH = 22

#: What each process of verl's FSDP saves of a model.
_SHARD = ("model", "optim", "extra_state")


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
    return next(_complete(job_roots, workload, world_size), None)


def complete(job_roots: Sequence[str], workload: str, world_size: int) -> list[Checkpoint]:
    """All of them, in the order in which `newest_complete` would take them. Raises OSError."""
    return list(_complete(job_roots, workload, world_size))


def _complete(job_roots: Sequence[str], workload: str, world_size: int) -> Iterator[Checkpoint]:
    found = [(step, age) for age, job_root in enumerate(job_roots) for step in _steps(job_root)]
    for step, age in sorted(found, reverse=True)[:_MAX_FOLDERS]:
        job_root, name = job_roots[age], f"global_step_{step}"
        if all(_all_whole(job_root, (name, *part), files) for part, files in _parts(workload, world_size)):
            yield Checkpoint(f"{paths.checkpoints_dir(job_root)}/{name}", step, job_root)


def _steps(job_root: str) -> list[int]:
    with beneath.suppress(*NOT_THERE), _folder(job_root) as checkpoints, os.scandir(checkpoints) as entries:
        names = [_FOLDER.fullmatch(entry.name) for entry in islice(entries, _MAX_NAMES)]
        return [int(name[1]) for name in names if name]
    return []


def _parts(workload: str, world_size: int) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The folders of one checkpoint, and what verl loads from each. Where a data loader's state is missing it only
    warns, and would train again on what it has seen; but then the save was cut short."""
    ranks = range(world_size)
    shards = [f"{what}_world_size_{world_size}_rank_{rank}.pt" for rank in ranks for what in _SHARD]
    if workload == "sft":
        yield (), [*shards, *(f"data_{rank}.pt" for rank in ranks)]
        return
    yield (), ["data.pt"]
    yield ("actor",), shards
    if workload == "ppo":
        yield ("critic",), shards


def _all_whole(job_root: str, way: Sequence[str], files: Sequence[str]) -> bool:
    with beneath.suppress(*NOT_THERE), _folder(job_root, *way) as folder:
        return all(_is_whole(folder, file) for file in files)
    return False


def _is_whole(folder: int, name: str) -> bool:
    """Whether it is a zip with both its ends: torch writes the archive's directory last, and no comment after it."""
    with beneath.plain_file(folder, name) as fd:
        size = os.fstat(fd).st_size
        if size < _END_LENGTH:
            return False
        head, end = os.pread(fd, 4, 0), os.pread(fd, _END_LENGTH, size - _END_LENGTH)
        return head == _LOCAL_HEADER and end.startswith(_END_OF_DIRECTORY) and end.endswith(_NO_COMMENT)


def _folder(job_root: str, *way: str) -> contextlib.AbstractContextManager[int]:
    """The folder that lies this way below the checkpoints of a job root, open."""
    return beneath.folder(job_root, Path(paths.checkpoints_dir(job_root)).name, *way)
