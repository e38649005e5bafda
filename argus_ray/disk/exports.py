"""Checkpoints that verl's model merger can read. As for a resume: "not there" is an answer, a disk that does not answer
raises OSError, and no symbolic link is followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.exports import Export, Part
from argus_ray.core.verl import files
from argus_ray.disk import beneath, checkpoints
from argus_ray.disk.beneath import NOT_THERE
from argus_ray.disk.checkpoints import Checkpoint


def exportable(job_roots: Sequence[str], workload: str, world_size: int, part: Part) -> list[Checkpoint]:
    """The complete checkpoints, of the highest step first, that the merger can read. Raises OSError."""
    found = checkpoints.complete(job_roots, workload, world_size)
    return [checkpoint for checkpoint in found if _has_merger_files(checkpoint, workload, part)]


def surely_exportable(
    job_roots: Sequence[str], workload: str, world_size: int, part: Part, prove_root: Callable[[], object]
) -> list[Checkpoint]:
    """The same. "None is there" is seen between two proofs that the shared root is. Raises what these raise."""
    found = exportable(job_roots, workload, world_size, part)
    if not found:
        prove_root()
        found = exportable(job_roots, workload, world_size, part)
        if not found:
            prove_root()
    return found


def is_there(export: Export, prove_root: Callable[[], object]) -> bool:
    """Whether what was chosen can still be read. Raises OSError."""
    found = surely_exportable([export.job_root], export.workload, export.processes, export.part, prove_root)
    if any(checkpoint.step == export.step for checkpoint in found):
        return True
    prove_root()
    return False


def _has_merger_files(checkpoint: Checkpoint, workload: str, part: Part) -> bool:
    base = (Path(paths.checkpoints_dir(checkpoint.job_root)).name, files.checkpoint_name(checkpoint.step))
    for way, name in files.merger_files():
        is_there = False
        with (
            beneath.suppress(*NOT_THERE),
            beneath.folder(checkpoint.job_root, *base, *files.model_folder(workload, part.value), *way) as folder,
            beneath.plain_file(folder, name),
        ):
            is_there = True
        if not is_there:
            return False
    return True
