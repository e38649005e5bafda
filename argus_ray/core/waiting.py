"""The tasks that wait, in groups of such as are alike in all that a decision asks of them.

A decision refuses a group at once, so it costs what there are of groups and of tasks that start, and not what waits.
Kept by each change, in the order of the queue within each group. What an older decision was given stays as it was.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from argus_ray.core.model import Gang, SlimTask
from argus_ray.core.pool import Verdict
from argus_ray.core.quotas import seconds_when_stopped, without_clock
from argus_ray.core.reasons import Reason
from argus_ray.core.states import TaskState

#: Place in the order of one decision: what comes first has the least. The second is the place in the queue.
Place = tuple[float, int]


class Overtaking(Enum):
    """The overtaking clock of a task, as it is stored."""

    NEVER = "never"
    SINCE = "since"
    #: It stands for a quota.
    STOPPED = "stopped"


class Traits(NamedTuple):
    """What is the same of all tasks of a group."""

    #: Empty where decisions ask nothing of users.
    user_id: str
    gang: Gang
    #: It was told why it waits.
    is_pending: bool
    #: Without how far its clock had run.
    reason: Reason | None
    overtaking: Overtaking
    #: It was overtaken for as long as is allowed.
    is_overdue: bool
    #: Its own time has not come.
    is_early: bool
    #: Its own time is over, and is stored all the same.
    was_early: bool


class Group:
    """In the order of the queue."""

    __slots__ = ("_is_lent", "_soonest", "seqs", "tasks", "traits")

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.seqs: list[int] = []
        self.tasks: list[SlimTask] = []
        self._is_lent = False
        self._soonest: float | None = None

    def lend(self) -> Group:
        """What is in it now is not touched by later changes."""
        self._is_lent = True
        return self

    def add(self, task: SlimTask) -> None:
        self._own()
        seq = task.seq
        if not self.seqs or self.seqs[-1] < seq:
            self.seqs.append(seq)
            self.tasks.append(task)
        else:
            at = bisect_left(self.seqs, seq)
            self.seqs.insert(at, seq)
            self.tasks.insert(at, task)
        if self._soonest is not None:
            self._soonest = min(self._soonest, began(task))

    def remove(self, seq: int) -> None:
        self._own()
        at = bisect_left(self.seqs, seq)
        if self._soonest is not None and began(self.tasks[at]) <= self._soonest:
            self._soonest = None
        del self.seqs[at], self.tasks[at]

    def soonest(self, begin: int, end: int) -> float:
        """The least `began` of these, which are not none."""
        if self._soonest is None:
            self._soonest = min(map(began, self.tasks))
        is_whole = begin == 0 and end == len(self.tasks)
        return self._soonest if is_whole else min(map(began, self.tasks[begin:end]))

    def _own(self) -> None:
        if self._is_lent:
            self.seqs, self.tasks, self._is_lent = self.seqs.copy(), self.tasks.copy(), False


def began(task: SlimTask) -> float:
    """When its overtaking clock began; of one that stands, counted from the moment of the decision."""
    passed = seconds_when_stopped(task)
    if passed is not None:
        return -passed
    return math.inf if task.overtaken_since is None else task.overtaken_since


class WaitingTasks(Collection[SlimTask]):
    """By place in the queue. As of a moment: that of the last `bring_to`."""

    def __init__(self, max_overtake_s: float, *, by_user: bool) -> None:
        """`by_user`: decisions ask who a task's user is, for quotas or fair share."""
        self.max_overtake_s = max_overtake_s
        self.by_user = by_user
        self.by_seq: dict[int, SlimTask] = {}
        self.groups: dict[Traits, Group] = {}
        self._group_of: dict[int, Group] = {}
        self._now = -math.inf
        #: Heaps of when a group changes by itself, and the place in the queue. Some of them may be over.
        self._clocks: list[tuple[float, int]] = []
        self._times: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self.by_seq)

    def __iter__(self) -> Iterator[SlimTask]:
        return iter(self.by_seq.values())

    def __contains__(self, task: object) -> bool:
        return isinstance(task, SlimTask) and self.by_seq.get(task.seq) == task

    def clear(self) -> None:
        for each in (self.by_seq, self.groups, self._group_of):
            each.clear()
        self._clocks, self._times = [], []

    def add_all(self, tasks: Iterable[SlimTask]) -> None:
        """Tasks that are not there. What many of them share costs once."""
        known: dict[tuple[object, ...], Group] = {}
        kept = list(tasks)  # by the identities of what they hold
        for task in kept:
            overtaking, is_overdue, is_early = self._at_present(task)
            key = (task.user_id, id(task.gang), task.state, id(task.reason), overtaking, is_overdue, is_early,
                   task.not_before is None)  # fmt: skip
            group = known.get(key)
            if group is None:
                group = known[key] = self._group(self._traits(task, overtaking, is_overdue, is_early))
            self._put(task, group)

    def put(self, task: SlimTask) -> None:
        """In the place of what was there, if anything was."""
        self.remove(task.seq)
        self._put(task, self._group(self._traits(task, *self._at_present(task))))

    def remove(self, seq: int) -> SlimTask | None:
        task = self.by_seq.pop(seq, None)
        if task is not None:
            group = self._group_of.pop(seq)
            group.remove(seq)
            if not group.tasks:
                del self.groups[group.traits]
        return task

    def bring_to(self, now: float) -> None:
        """Costs what has come due since."""
        if now < self._now:  # the clock was set
            tasks = list(self.by_seq.values())
            self.clear()
            self._now = now
            self.add_all(tasks)
            return
        self._now = now
        for heap, is_due in ((self._clocks, self._is_over), (self._times, self._has_come)):
            if len(heap) > 2 * len(self.by_seq) + 1000:
                heap[:] = {item for item in heap if item[1] in self.by_seq}
                heapq.heapify(heap)
            while heap and is_due(heap[0][0]):
                _, seq = heapq.heappop(heap)
                task = self.by_seq.get(seq)
                if task is not None and self._has_changed(task):
                    self.put(task)

    def next_time(self) -> float | None:
        """When some task's own time comes."""
        while self._times:
            at, seq = self._times[0]
            task = self.by_seq.get(seq)
            if task is not None and task.not_before == at:
                return at
            heapq.heappop(self._times)
        return None

    @contextmanager
    def as_if(self, gone: Iterable[int], changed: Iterable[SlimTask]) -> Iterator[None]:
        """Meanwhile those are not there, and these are as they are given."""
        before = [task for seq in gone if (task := self.remove(seq)) is not None]
        for task in changed:
            if (old := self.by_seq.get(task.seq)) is not None and old is not task:
                before.append(old)
                self.put(task)
        try:
            yield
        finally:
            for task in before:
                self.put(task)

    def _put(self, task: SlimTask, group: Group) -> None:
        seq = task.seq
        self.by_seq[seq] = task
        self._group_of[seq] = group
        group.add(task)
        traits = group.traits
        if traits.is_early and task.not_before is not None:
            heapq.heappush(self._times, (task.not_before, seq))
        if traits.overtaking is Overtaking.SINCE and not traits.is_overdue and task.overtaken_since is not None:
            heapq.heappush(self._clocks, (task.overtaken_since, seq))

    def _group(self, traits: Traits) -> Group:
        group = self.groups.get(traits)
        if group is None:
            group = self.groups[traits] = Group(traits)
        return group

    def _has_changed(self, task: SlimTask) -> bool:
        traits = self._group_of[task.seq].traits
        return (traits.overtaking, traits.is_overdue, traits.is_early) != self._at_present(task)

    def _traits(self, task: SlimTask, overtaking: Overtaking, is_overdue: bool, is_early: bool) -> Traits:
        reason = task.reason
        if overtaking is Overtaking.STOPPED and reason is not None:
            reason = without_clock(reason)
        return Traits(
            task.user_id if self.by_user else "",
            task.gang,
            task.state is TaskState.PENDING_RESOURCES,
            reason,
            overtaking,
            is_overdue,
            is_early,
            task.not_before is not None and not is_early,
        )

    def _at_present(self, task: SlimTask) -> tuple[Overtaking, bool, bool]:
        since, not_before = task.overtaken_since, task.not_before
        is_early = not_before is not None and self._has_yet_to_come(not_before)
        if since is None:
            return Overtaking.NEVER, False, is_early
        passed = seconds_when_stopped(task)
        if passed is None:
            return Overtaking.SINCE, self._is_over(since), is_early
        return Overtaking.STOPPED, passed >= self.max_overtake_s, is_early

    def _is_over(self, since: float) -> bool:
        return self._now - since >= self.max_overtake_s

    def _has_yet_to_come(self, at: float) -> bool:
        return at > self._now

    def _has_come(self, at: float) -> bool:
        return at <= self._now


class Section:
    """A group in one decision: those of it that are older than what the decision is bounded by, in parts."""

    __slots__ = ("end", "group", "head", "opened", "rank", "refusal", "seqs", "started", "tasks", "traits")

    def __init__(self, group: Group, rank: float, before: int | None) -> None:
        self.group = group.lend()
        self.traits, self.seqs, self.tasks = group.traits, group.seqs, group.tasks
        self.rank = rank
        #: Tasks that are looked at all: the first so many.
        self.end = len(self.seqs) if before is None else bisect_left(self.seqs, before)
        #: Of these its user's quota allows the first so many, of which so many start; and why it ends there.
        self.opened = self.end
        self.refusal: Verdict | None = None
        self.started = 0
        #: The one to be looked at next.
        self.head = 0

    def place(self, at: int) -> Place:
        return self.rank, self.seqs[at]

    def index(self, place: Place) -> int:
        """Of the first one that does not come before this place."""
        rank, seq = place
        if rank != self.rank:
            return 0 if rank < self.rank else self.end
        return min(self.end, bisect_left(self.seqs, seq))


def sections(waiting: WaitingTasks, use: Mapping[str, float] | None, before: int | None) -> list[Section]:
    """In the order of the queue, or of fair share where `use` says what each user has had of late: the users with the
    least use first, and users with the same use as one. Before all others come those that were overtaken for as long as
    is allowed, the oldest first: each gets its turn, whatever its user has used."""
    found = []
    for traits, group in waiting.groups.items():
        rank = 0.0
        if use is not None:
            rank = _FIRST if traits.is_overdue else use.get(traits.user_id, 0.0)
        section = Section(group, rank, before)
        if section.end:
            found.append(section)
    return found


_FIRST = -math.inf
