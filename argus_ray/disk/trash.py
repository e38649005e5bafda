"""Work on the tasks' files: measure them, move them to the trash, delete them, take away old checkpoints. Blocking.

What ran in a job root could have put anything there, and could still run on a node that nobody sees. So everything is
opened by `beneath`. What is deleted was renamed first: nothing that is half gone has its old name. All of it can be
repeated, and raises OSError where the disk does not do it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.retention import checkpoints_to_delete
from argus_ray.disk import beneath, checkpoints
from argus_ray.disk.beneath import NOT_THERE
from argus_ray.disk.checkpoints import Checkpoint

#: A deeper tree is taken to pieces, since each level takes an open file; its size is not known.
_MAX_DEPTH = 50
_AT_A_TIME = 1000
_PRUNED = "argus_pruned_"
#: The pass lets the disk rest after so many entries.
_REST_EVERY = 100


class Exhausted(Exception):
    """The pass has had its share of entries or time: the next one goes on."""


@dataclass
class Budget:
    """Of one pass. `stop` ends it from another thread, within an entry."""

    entries: int
    deadline: float
    rest_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        self._stopped = True

    def take(self) -> None:
        if self._stopped or self.entries <= 0 or self.clock() >= self.deadline:
            raise Exhausted
        self.entries -= 1
        if self.rest_s and self.entries % _REST_EVERY == 0:
            time.sleep(self.rest_s)


def disk_bytes(job_root: str, budget: Budget, bound: int) -> int | None:
    """What the job root takes, as the filesystem counts it; None for one of more than `bound` entries, or a very deep
    one. A job root that is not there takes nothing."""
    with beneath.suppress(*NOT_THERE), beneath.folder(job_root) as folder:
        try:
            return _measure(folder, budget, [bound], 0)
        except _Unknown:
            return None
    return 0


class _Unknown(Exception):
    pass


def _measure(folder: int, budget: Budget, left: list[int], depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise _Unknown
    total = os.fstat(folder).st_blocks * 512
    with os.scandir(folder) as entries:
        for entry in entries:
            budget.take()
            left[0] -= 1
            if left[0] < 0:
                raise _Unknown
            with beneath.suppress(*NOT_THERE):  # it has gone meanwhile
                if not entry.is_dir(follow_symlinks=False):
                    total += os.stat(entry.name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
                    continue
                with beneath.folder(folder, entry.name) as child:
                    total += _measure(child, budget, left, depth + 1)
    return total


def to_trash(shared_root: str, user_id: str, submission_id: str) -> bool:
    """Rename the job root into the user's trash, durably. False: it is not there (any more)."""
    paths.trash(shared_root, user_id, submission_id)  # refuses a name that is none
    with _user_folder(shared_root, user_id) as user, beneath.folder(user, "jobs") as jobs:
        if not _exists(submission_id, jobs):
            return False
        with contextlib.suppress(FileExistsError):
            os.mkdir("trash", 0o755, dir_fd=user)
        with beneath.folder(user, "trash") as trash:
            # Whatever it is: a rename follows no link, and takes the place of nothing but an empty folder.
            os.rename(submission_id, submission_id, src_dir_fd=jobs, dst_dir_fd=trash)
            os.fsync(trash)
            os.fsync(jobs)
    return True


def delete_from_trash(shared_root: str, user_id: str, submission_id: str, budget: Budget) -> None:
    """Returns when it is gone, also if it was before; raises Exhausted when it is half gone."""
    paths.trash(shared_root, user_id, submission_id)  # refuses a name that is none
    with contextlib.ExitStack() as opened:
        try:
            user = opened.enter_context(_user_folder(shared_root, user_id))
            trash = opened.enter_context(beneath.folder(user, "trash"))
        except FileNotFoundError:
            return
        _delete(submission_id, trash, budget)
        os.fsync(trash)


def prune(job_roots: Sequence[str], workload: str, world_size: int, keep: int, budget: Budget) -> list[Checkpoint]:
    """Delete all but the newest `keep` complete checkpoints of a task; those that went. `job_roots`: oldest first.

    What is not complete stays, and so does each one for which the budget ended before it was renamed.
    """
    gone: list[Checkpoint] = []
    for checkpoint in checkpoints_to_delete(checkpoints.complete(job_roots, workload, world_size), keep):
        name = Path(checkpoint.path).name
        with _checkpoints_of(checkpoint.job_root) as folder:
            if folder is None:
                continue
            try:
                _delete(_PRUNED + name, folder, budget)  # of a pass that did not come to its end
                budget.take()
                os.rename(name, _PRUNED + name, src_dir_fd=folder, dst_dir_fd=folder)
            except Exhausted:
                break
            except OSError:
                if not gone:
                    raise
                break  # what went must be told
            gone.append(checkpoint)
    return gone


def sweep_pruned(job_roots: Sequence[str], budget: Budget) -> None:
    """Delete what `prune` has renamed."""
    for job_root in job_roots:
        with _checkpoints_of(job_root) as folder:
            if folder is None:
                continue
            with os.scandir(folder) as entries:
                names = [entry.name for entry in islice(entries, 100_000) if entry.name.startswith(_PRUNED)]
            for name in names:
                _delete(name, folder, budget)


def sweep_exports(job_roots: Sequence[str], budget: Budget) -> None:
    """Delete what exports have left that were killed at work. Their links would hold the bytes of a checkpoint that is
    deleted, and keep one that is not from being given to its user, since its files have more than one name."""
    for job_root in job_roots:
        with beneath.suppress(*NOT_THERE), beneath.folder(job_root) as folder:
            for path in paths.unmade_exports(job_root):
                _delete(Path(path).name, folder, budget)


def _delete(name: str, folder: int, budget: Budget) -> None:
    """Whatever has this name in this folder; nothing may have it."""
    try:
        is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    budget.take()
    if not is_folder:
        os.unlink(name, dir_fd=folder)
        return
    with beneath.folder(folder, name) as inside:
        _empty(inside, inside, budget, 0)
    os.rmdir(name, dir_fd=folder)


def _empty(folder: int, top: int, budget: Budget, depth: int) -> None:
    with contextlib.suppress(PermissionError):
        os.fchmod(folder, 0o700)
    while True:
        # By pieces and again, since some filesystems skip entries when others are deleted under the reader.
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _AT_A_TIME)]
        if not found:
            return
        for name, is_folder in found:
            budget.take()
            if not is_folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            elif depth >= _MAX_DEPTH:
                os.rename(name, f"deep-{budget.entries}-{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
            else:
                with beneath.folder(folder, name) as child:
                    _empty(child, top, budget, depth + 1)
                os.rmdir(name, dir_fd=folder)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _user_folder(shared_root: str, user_id: str) -> contextlib.AbstractContextManager[int]:
    # The shared root is the operator's and may be a link; nothing below it may.
    return beneath.folder(shared_root, "users", user_id, root_may_be_link=True)


@contextlib.contextmanager
def _checkpoints_of(job_root: str) -> Iterator[int | None]:
    with contextlib.ExitStack() as opened:
        folder: int | None = None
        with beneath.suppress(*NOT_THERE):
            folder = opened.enter_context(beneath.folder(job_root, Path(paths.checkpoints_dir(job_root)).name))
        yield folder
