"""Checkpoints that verl's model merger can read. As for a resume: "not there" is an answer, a disk that does not answer
raises OSError, and no symbolic link is followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.exports import Export, Part
from argus_ray.core.verl import files
from argus_ray.disk import beneath, checkpoints
from argus_ray.disk.beneath import NOT_THERE
from argus_ray.disk.checkpoints import Checkpoint


def exportable(
    job_roots: Sequence[str], workload: str, world_size: int, part: Part, only: int | None = None
) -> Iterator[Checkpoint]:
    """The complete checkpoints, of the highest step first, that the merger can read; each is looked at when it is asked
    for. `only`: of this step. Raises OSError."""
    found = checkpoints.each_complete(job_roots, workload, world_size, only)
    return (checkpoint for checkpoint in found if _has_merger_files(checkpoint, workload, part))


def surely_exportable(
    job_roots: Sequence[str],
    workload: str,
    world_size: int,
    part: Part,
    prove_root: Callable[[], object],
    *,
    most: int,
    only: int | None = None,
) -> list[Checkpoint]:
    """The first `most` of the same. "None is there" is seen between two proofs that the shared root is. Raises what
    these raise."""

    def look() -> list[Checkpoint]:
        return list(islice(exportable(job_roots, workload, world_size, part, only), most))

    found = look()
    if not found:
        prove_root()
        found = look()
        if not found:
            prove_root()
    return found


def is_there(export: Export, prove_root: Callable[[], object]) -> bool:
    """Whether what was chosen can still be read. Raises OSError, also where the whole job root is missing: housekeeping
    spares it, so its filesystem may be away."""
    where, what = [export.job_root], (export.workload, export.processes, export.part)
    if surely_exportable(where, *what, prove_root, most=1, only=export.step):
        return True
    with beneath.suppress(*NOT_THERE), beneath.folder(export.job_root):
        return False
    raise OSError(f"{export.job_root} is not there: is its filesystem mounted?")


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
