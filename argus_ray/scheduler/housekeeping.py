"""One slow pass over the tasks' files: moves them to the trash, deletes them, takes away old checkpoints, measures the
rest.

The state actor decides what may be done, and marks it before anything is touched. Each task's result is stored before
the next task is begun. Whatever ends a pass, the next one goes on. Plain code without Ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from argus_ray.core import paths
from argus_ray.core.lifecycle import Change, Deleted, FilesMeasured, Trashed
from argus_ray.core.model import Attempt, Task
from argus_ray.core.retention import Chores, RetentionPolicy
from argus_ray.disk import trash
from argus_ray.disk.trash import Budget, Exhausted

log = logging.getLogger(__name__)

#: Of one pass: entries of folders, and seconds.
MAX_ENTRIES = 500_000
MAX_PASS_S = 900.0
#: Entries of one job root that are counted; verl leaves some hundreds.
MAX_COUNTED = 100_000
#: Seconds of rest after each hundred entries.
REST_S = 0.002


class State(Protocol):
    """The state actor, as the pass uses it."""

    async def chores(self) -> Chores: ...
    async def apply(self, changes: Sequence[Change]) -> list[bool]: ...


@dataclass
class Housekeeper:
    state: State
    #: Runs a blocking call in a thread, with a bound. TimeoutError: the disk hangs.
    in_thread: Callable[[Callable[[], Change]], Awaitable[Change]]
    shared_root: str
    policy: RetentionPolicy
    max_entries: int = MAX_ENTRIES
    rest_s: float = REST_S
    _budget: Budget | None = None

    def stop(self) -> None:
        """End the present pass, in its thread too."""
        if self._budget is not None:
            self._budget.stop()

    async def once(self) -> None:
        chores = await self.state.chores()
        budget = self._budget = Budget(self.max_entries, time.monotonic() + MAX_PASS_S, self.rest_s)
        try:
            # What makes room comes first; what only measures has no end.
            for task in chores.trash:
                await self._do(task, partial(self._to_trash, task))
            for task in chores.delete:
                await self._do(task, partial(self._delete, task, budget))
            for index, task in enumerate(chores.look):
                may_prune = task.task_id in chores.prunable
                await self._do(task, partial(self._look, task, budget, may_prune, first=index == 0))
        except Exhausted:
            log.info("a pass over the disk has had its share; the next one goes on")
        finally:
            budget.stop()  # a thread that hangs must do nothing when it wakes

    async def _do(self, task: Task, do: Callable[[], Change]) -> None:
        try:
            change = await self.in_thread(do)
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            # One folder that cannot be handled must not stop the others, nor come first the next time.
            log.warning("the files of %s: %s: %s", task.task_id, type(error).__name__, error)
            change = FilesMeasured(task.task_id)
        await self.state.apply([change])

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _to_trash(self, task: Task) -> Change:
        moved = [name for name in self._names(task) if trash.to_trash(self.shared_root, task.user_id, name)]
        if not moved:
            return Trashed(task.task_id, message=None)
        log.info("moved to the trash: %s", ", ".join(moved))
        where = paths.trash(self.shared_root, task.user_id, moved[0]).rsplit("/", 1)[0]
        message = f"moved to the trash, {where}/: {', '.join(moved)}"
        if self.policy.delete_after_days:
            message += f"; deleted after {self.policy.delete_after_days:g} days"
        return Trashed(task.task_id, message=message[:4000])

    def _delete(self, task: Task, budget: Budget) -> Change:
        names = self._names(task)
        for name in names:
            trash.delete_from_trash(self.shared_root, task.user_id, name, budget)
        if not names:
            return Deleted(task.task_id, message=None)
        log.info("deleted: %s", ", ".join(names))
        return Deleted(task.task_id, message=f"deleted from the trash: {', '.join(names)}"[:4000])

    def _look(self, task: Task, budget: Budget, may_prune: bool, first: bool) -> Change:
        message, sizes = None, []
        try:
            if may_prune and self.policy.keep_checkpoints and task.attempts:
                message = self._prune(task, budget)
            for attempt in task.attempts:
                size = trash.disk_bytes(self._root(task, attempt), budget, MAX_COUNTED)
                if size is not None:
                    sizes.append((attempt.submission_id, size))
        except Exhausted:
            # It will be the first one of the next pass. If that was not enough either, the others get their turn.
            if not first and message is None:
                raise
        return FilesMeasured(task.task_id, tuple(sizes), message)

    def _prune(self, task: Task, budget: Budget) -> str | None:
        roots = [self._root(task, attempt) for attempt in task.attempts]
        keep = self.policy.keep_checkpoints
        labels = {root: attempt.label for root, attempt in zip(roots, task.attempts, strict=True)}
        gone = trash.prune(roots, task.workload, task.gang.gpus, keep, budget)
        try:
            trash.sweep_pruned(roots, budget)
        except Exhausted:
            log.info("the rest of the old checkpoints of %s goes later", task.task_id)
        if not gone:
            return None
        steps = ", ".join(f"step {each.step} of {labels[each.job_root]}" for each in gone)
        log.info("%s: removed old checkpoints: %s", task.task_id, steps)
        kept = "the newest one is" if keep == 1 else f"the newest {keep} are"
        return f"removed checkpoints ({kept} kept): {steps}"[:4000]

    def _names(self, task: Task) -> list[str]:
        for attempt in task.attempts:
            self._root(task, attempt)
        return [attempt.submission_id for attempt in task.attempts]

    def _root(self, task: Task, attempt: Attempt) -> str:
        """Its job root, if it is where this deployment would put it: a shared root that has moved is none of ours."""
        root = paths.job_root(self.shared_root, task.user_id, attempt.submission_id)
        if attempt.job_root != root:
            raise FileNotFoundError(f"{attempt.job_root} is not below {self.shared_root}")
        return root
