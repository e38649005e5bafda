"""One slow pass over the tasks' files: measures what is alive, moves to the trash, deletes, measures what has ended and
takes away its old checkpoints.

The state actor decides what may be done, and marks it before anything is touched. What has gone is stored before the
next task is begun; what was only measured, some at a time. Whatever ends a pass, the next one goes on. Time alone
bounds it: of the pass, of each kind of work in it, and of each task; whoever has taken least of it comes next. Plain
code without Ray.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from argus_ray.core import paths
from argus_ray.core.lifecycle import Change, Deleted, FilesMeasured, Trashed
from argus_ray.core.retention import Chore, Chores, JobRoot, RetentionPolicy, Seen, TaskFiles
from argus_ray.disk import secrets, trash
from argus_ray.disk.trash import Budget, Exhausted

log = logging.getLogger(__name__)

#: Seconds of one pass. A task that was begun may take its own time beyond it.
MAX_PASS_S = 900.0
#: Of one task at a time. One whose deletion takes longer goes on after the others.
MAX_TASK_S = 60.0
#: Users whose files hang in one pass before it ends: then it is the whole disk.
_MAX_HUNG = 3
#: Measured tasks that are stored at once: each transaction is a wait for the disk, and nothing is lost but a look.
_STORED_AT_ONCE = 50
#: Entries of one job root that are counted; verl leaves some hundreds.
MAX_COUNTED = 100_000
#: Seconds of rest after each hundred entries.
REST_S = 0.002


class RootAway(Exception):
    """The shared root does not prove to be there, so what is missing is not gone."""


class State(Protocol):
    """The state actor, as the pass uses it."""

    async def chores(self, chore: Chore, begun: float | None = None) -> Chores: ...
    async def apply(self, changes: Sequence[Change]) -> list[bool]: ...


def pause_s(every_s: float, took_s: float, is_left: bool) -> float:
    """After a pass that took so long: to the next one's time, but at least as long as it took. That is also all if
    there is more to do."""
    return took_s if is_left else max(took_s, every_s - took_s)


class Turns:
    """Some tasks in the order in which they are done: next is that of the user for whom least time was spent."""

    def __init__(self, tasks: Iterable[TaskFiles]) -> None:
        self._of: defaultdict[str, deque[TaskFiles]] = defaultdict(deque)
        for task in tasks:
            self._of[task.user_id].append(task)
        self._given = {user_id: len(tasks) for user_id, tasks in self._of.items()}

    def next(self, spent: defaultdict[str, float]) -> TaskFiles | None:
        users = [user_id for user_id, tasks in self._of.items() if tasks]
        return self._of[min(users, key=spent.__getitem__)].popleft() if users else None

    def put_back(self, task: TaskFiles) -> None:
        self._of[task.user_id].append(task)

    def drop(self, user_id: str) -> None:
        self._of[user_id].clear()

    def may_lack(self, user_id: str, per_user: int) -> bool:
        """All that was given of this user is done, and it was as many as are given at once."""
        return not self._of[user_id] and self._given[user_id] >= per_user


@dataclass
class _Pass:
    end: float
    #: By the clock of the state actor.
    begun: float | None = None
    #: Seconds, by user.
    spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    #: Users whose files did not answer.
    hung: set[str] = field(default_factory=set)
    #: What was measured and is not stored yet.
    measured: list[Change] = field(default_factory=list)
    is_left: bool = False


@dataclass
class Housekeeper:
    state: State
    #: Runs a blocking call in a thread, with a bound above `task_s`. TimeoutError: the disk hangs.
    in_thread: Callable[[Callable[[], Change | None]], Awaitable[Change | None]]
    #: Blocking; raises OSError if the shared root does not prove to be there.
    prove_root: Callable[[], object]
    shared_root: str
    policy: RetentionPolicy
    pass_s: float = MAX_PASS_S
    task_s: float = MAX_TASK_S
    rest_s: float = REST_S
    clock: Callable[[], float] = time.monotonic
    _budget: Budget | None = None

    def stop(self) -> None:
        """End the present pass, in its thread too."""
        if self._budget is not None:
            self._budget.stop()

    async def once(self) -> bool:
        """Whether there is more to do than there was time for. Raises TimeoutError, when all is done that could be, if
        the disk did not answer for somebody, and RootAway."""
        here = _Pass(self.clock() + self.pass_s)
        try:
            for place, chore in enumerate(Chore):
                # Each kind has its share, so that none starves the others; what one leaves, those after it have.
                share = (here.end - self.clock()) / (len(Chore) - place)
                await self._do_all(here, chore, self.clock() + share)
        finally:
            self.stop()  # a thread that hangs must do nothing when it wakes
        if here.hung:
            raise asyncio.TimeoutError(f"the files of {', '.join(sorted(here.hung))} did not answer")
        return here.is_left

    async def _do_all(self, here: _Pass, chore: Chore, until: float) -> None:
        done: set[str] = set()
        while True:
            await self._store(here)
            chores = await self.state.chores(chore, here.begun)
            here.begun = chores.begun
            tasks = [task for task in chores.tasks if task.task_id not in done and task.user_id not in here.hung]
            if not tasks:
                return
            bare = [task for task in tasks if not task.roots]
            await self._store(here, *(_of_no_files(chore, task) for task in bare))
            done.update(task.task_id for task in bare)
            turns = Turns(task for task in tasks if task.roots)
            while (task := turns.next(here.spent)) is not None:
                if self.clock() >= until:
                    here.is_left = True
                    await self._store(here)
                    return
                begun = self.clock()
                if await self._do(here, chore, task, task.task_id in chores.prunable):
                    done.add(task.task_id)
                else:
                    turns.put_back(task)
                here.spent[task.user_id] += self.clock() - begun
                if task.user_id in here.hung:
                    turns.drop(task.user_id)
                elif turns.may_lack(task.user_id, chores.per_user):
                    break

    async def _do(self, here: _Pass, chore: Chore, task: TaskFiles, may_prune: bool) -> bool:
        """False: it is to go on with this task."""
        budget = self._budget = Budget(sys.maxsize, self.clock() + self.task_s, self.rest_s, self.clock)
        call = partial(self._proved, partial(self._act, chore, task, budget, may_prune))
        try:
            change = await self.in_thread(call)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            # One folder that cannot be handled must not stop the others, nor come first the next time.
            log.warning("the files of %s: %s: %s", task.task_id, type(error).__name__, error)
            change = FilesMeasured(task.task_id)
            if isinstance(error, asyncio.TimeoutError):
                here.hung.add(task.user_id)
        finally:
            budget.stop()
        if isinstance(change, FilesMeasured) and change.message is None and change.seen is not Seen.PARTLY:
            here.measured.append(change)
            if len(here.measured) >= _STORED_AT_ONCE:
                await self._store(here)
        elif change is not None:
            await self._store(here, change)
        if len(here.hung) >= _MAX_HUNG:
            raise asyncio.TimeoutError(f"the disk hangs: the files of {', '.join(sorted(here.hung))} did not answer")
        return change is not None

    async def _store(self, here: _Pass, *more: Change) -> None:
        changes, here.measured = [*here.measured, *more], []
        if changes:
            await self.state.apply(changes)

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _proved(self, act: Callable[[], Change | None]) -> Change | None:
        """What is missing between two proofs is gone; else its filesystem may just be away."""
        self._prove()
        change = act()
        self._prove()
        return change

    def _prove(self) -> None:
        try:
            self.prove_root()
        except OSError as error:
            raise RootAway(str(error)) from error

    def _act(self, chore: Chore, task: TaskFiles, budget: Budget, may_prune: bool) -> Change | None:
        """None: there was not time enough, and it is to go on."""
        if chore is Chore.TRASH:
            return self._to_trash(task)
        if chore is Chore.DELETE:
            return self._delete(task, budget)
        return self._look(task, budget, may_prune)

    def _to_trash(self, task: TaskFiles) -> Change:
        for root in task.roots:
            secrets.clear(self._checked(task, root))
        moved = [name for name in self._names(task) if trash.to_trash(self.shared_root, task.user_id, name)]
        if not moved:
            return Trashed(task.task_id, message=None)
        log.info("moved to the trash: %s", ", ".join(moved))
        where = paths.trash(self.shared_root, task.user_id, moved[0]).rsplit("/", 1)[0]
        message = f"moved to the trash, {where}/: {', '.join(moved)}"
        if self.policy.delete_after_days:
            message += f"; deleted after {self.policy.delete_after_days:g} days"
        return Trashed(task.task_id, message=message[:4000])

    def _delete(self, task: TaskFiles, budget: Budget) -> Change | None:
        names = self._names(task)
        try:
            for name in names:
                trash.delete_from_trash(self.shared_root, task.user_id, name, budget)
        except Exhausted:
            return None
        log.info("deleted: %s", ", ".join(names))
        return Deleted(task.task_id, message=f"deleted from the trash: {', '.join(names)}"[:4000])

    def _look(self, task: TaskFiles, budget: Budget, may_prune: bool) -> Change:
        message, sizes, seen = None, [], Seen.OVER if task.is_over else Seen.ALIVE
        # Of runs whose runner has died with its machine.
        over = [self._checked(task, root) for root in (task.roots if task.is_over else task.roots[:-1])]
        for path in over:
            secrets.clear(path)
        if task.is_over and self.policy.keep_checkpoints:
            if may_prune:
                message, is_whole = self._prune(task, budget)
                seen = Seen.OVER if is_whole else Seen.PARTLY
            else:
                seen = Seen.NEEDED
        try:
            if not task.gpus:  # an export
                trash.sweep_exports(over, budget)
            for root in reversed(task.roots):  # those before the last one change no more
                size = trash.disk_bytes(self._checked(task, root), budget, MAX_COUNTED)
                if size is not None:
                    sizes.append((root.submission_id, size))
        except Exhausted:
            log.info("the files of %s are too many to be measured in %.0f s", task.task_id, self.task_s)
        return FilesMeasured(task.task_id, tuple(sizes), message, seen)

    def _prune(self, task: TaskFiles, budget: Budget) -> tuple[str | None, bool]:
        """What to tell, and whether there was time for all of it."""
        roots = [self._checked(task, root) for root in task.roots]
        keep, is_whole = self.policy.keep_checkpoints, True
        labels = {root.path: root.label for root in task.roots}
        gone = trash.prune(roots, task.workload, task.gpus, keep, budget)
        try:
            trash.sweep_pruned(roots, budget)
            budget.take()
        except Exhausted:
            is_whole = False
            log.info("the rest of the old checkpoints of %s goes later", task.task_id)
        if not gone:
            return None, is_whole
        steps = ", ".join(f"step {each.step} of {labels[each.job_root]}" for each in gone)
        log.info("%s: removed old checkpoints: %s", task.task_id, steps)
        kept = "the newest one is" if keep == 1 else f"the newest {keep} are"
        return f"removed checkpoints ({kept} kept): {steps}"[:4000], is_whole

    def _names(self, task: TaskFiles) -> list[str]:
        for root in task.roots:
            self._checked(task, root)
        return [root.submission_id for root in task.roots]

    def _checked(self, task: TaskFiles, root: JobRoot) -> str:
        """Its path, if it is where this deployment would put it: a shared root that has moved is none of ours."""
        if root.path != paths.job_root(self.shared_root, task.user_id, root.submission_id):
            raise FileNotFoundError(f"{root.path} is not below {self.shared_root}")
        return root.path


def _of_no_files(chore: Chore, task: TaskFiles) -> Change:
    """For a task that has never been started."""
    if chore is Chore.TRASH:
        return Trashed(task.task_id, message=None)
    if chore is Chore.DELETE:
        return Deleted(task.task_id, message=None)
    return FilesMeasured(task.task_id, seen=Seen.OVER)
