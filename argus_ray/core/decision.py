"""What a decision came to, for all who were admitted and all who wait on. Those are told of one by one only where
something is new of them."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter

from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import NodeView, SlimTask
from argus_ray.core.pool import Clock, Pool, Verdict
from argus_ray.core.quotas import CLOCK_STANDS, overtaken_since, with_clock_stopped
from argus_ray.core.reasons import Code
from argus_ray.core.states import TaskState
from argus_ray.core.waiting import Overtaking, Place, Section

_PLACE = itemgetter(0)

#: Of one task, which is looked at again after `retry_interval_s` at the latest.
OWN_TROUBLES = frozenset({Code.BAD_INPUTS, Code.INPUTS_UNKNOWN, Code.CHECKPOINT_UNKNOWN, Code.NO_COMMAND})


class Part:
    """Tasks of one group that wait, for one reason."""

    __slots__ = ("begin", "end", "of_quota", "section", "verdict")

    def __init__(self, section: Section, begin: int, end: int, verdict: Verdict, *, of_quota: bool = False) -> None:
        self.section = section
        self.begin, self.end = begin, end
        self.verdict = verdict
        #: A quota refuses them.
        self.of_quota = of_quota

    def items(self, end: int) -> Iterator[tuple[Place, SlimTask, Part]]:
        rank, seqs, tasks = self.section.rank, self.section.seqs, self.section.tasks
        for at in range(self.begin, end):
            yield (rank, seqs[at]), tasks[at], self

    def told(self, task: SlimTask, now: float) -> tuple[SlimTask, Verdict]:
        """With what is its own."""
        verdict, reason = self.verdict, task.reason
        if self.section.traits.is_early:
            return task, verdict
        has_own_trouble = reason is not None and reason.code in OWN_TROUBLES
        if self.of_quota:
            if has_own_trouble:
                return task, _TROUBLED
            if task.overtaken_since is not None and verdict.reason is not None:
                verdict = replace(verdict, reason=with_clock_stopped(task, verdict.reason, now))
        elif verdict.clock is Clock.RUNS:
            if has_own_trouble:
                # Whether its own trouble is over is not known before it may start and is looked at.
                verdict = replace(verdict, reason=None)
            elif task.overtaken_since is not None and reason is not None and reason.code in CLOCK_STANDS:
                task = replace(task, overtaken_since=overtaken_since(task, now, task.overtaken_since))
        return task, verdict

    def overtaken(self, last: Place | None) -> int:
        """Those before this one come before the last place that starts."""
        return self.begin if last is None else max(self.begin, min(self.end, self.section.index(last)))

    def end_of_news(self, last: Place | None) -> int:
        """Of those before this one something may be new; of none from there on. `last`: as above."""
        traits, verdict = self.section.traits, self.verdict
        if not traits.is_pending or traits.was_early:
            return self.end
        if not traits.is_early and self._has_news():
            return self.end
        begins = traits.overtaking is Overtaking.NEVER and verdict.clock is Clock.RUNS
        return self.overtaken(last) if begins else self.begin

    def _has_news(self) -> bool:
        """Of their reason, or of a clock that stops or runs on."""
        traits, verdict = self.section.traits, self.verdict
        has_own_trouble = traits.reason is not None and traits.reason.code in OWN_TROUBLES
        if has_own_trouble and (self.of_quota or verdict.clock is Clock.RUNS):
            return False
        changes_clock = Overtaking.SINCE if self.of_quota else Overtaking.STOPPED
        return traits.overtaking is changes_clock or verdict.reason != traits.reason


_TROUBLED = Verdict(None, Clock.STANDS)


@dataclass(frozen=True)
class Decision:
    #: In the order of the queue, or of fair share.
    admitted: tuple[SlimTask, ...]
    #: Node ids of each of these, by task id: the driver's node first.
    nodes_of: Mapping[str, tuple[str, ...]]
    #: All others.
    parts: tuple[Part, ...]
    #: Of the admitted, by task id.
    places: Mapping[str, Place]
    now: float
    #: When the next reservation begins or grows, if nothing else happens; None: not within sight.
    reserves_at: float | None
    #: When the next task's own time comes; until then nothing follows from the same facts. None: no task has one.
    due: float | None
    #: What is taken of each user's quota after it, by user; more than the quota: nothing is left of it.
    taken: Mapping[str, int]
    #: Tasks that it has looked at one by one.
    looks: int
    #: After it.
    pool: Pool

    @property
    def left(self) -> tuple[NodeView, ...]:
        """What is left for younger tasks: without what was admitted and what is reserved."""
        return self.pool.left()

    @property
    def reserved(self) -> tuple[NodeView, ...]:
        """The nodes that are withheld from them."""
        return self.pool.reserved()

    def holds(self, started: Collection[SlimTask]) -> Iterator[Hold]:
        """What is new of those that wait on: in their state, reason, own time or clock. `started`: those of the
        admitted that do start."""
        last = max((self.places[task.task_id] for task in started), default=None)
        news = [(part, end) for part in self.parts if (end := part.end_of_news(last)) > part.begin]
        return self._holds(heapq.merge(*(part.items(end) for part, end in news), key=_PLACE), last)

    def _holds(self, news: Iterable[tuple[Place, SlimTask, Part]], last: Place | None) -> Iterator[Hold]:
        now = self.now
        for place, stored, part in news:
            task, verdict = part.told(stored, now)
            since = task.overtaken_since
            if since is None and last is not None and place < last and verdict.clock is Clock.RUNS:
                since = now
            not_before = task.not_before
            if not_before is not None and not_before <= now:
                not_before = None
            is_same = (
                task.state is TaskState.PENDING_RESOURCES
                and since == task.overtaken_since
                and not_before == task.not_before
                and (verdict.reason is None or verdict.reason == task.reason)
            )
            if not is_same:
                yield Hold(task.task_id, verdict.reason, not_before, since, verdict.seen)

    @cached_property
    def _waits(self) -> list[tuple[Place, SlimTask, Verdict]]:
        """One by one, which takes as long as there are many."""
        items = (item for part in self.parts for item in part.items(part.end))
        return sorted(((place, *part.told(task, self.now)) for place, task, part in items), key=_PLACE)

    @property
    def waits(self) -> Sequence[SlimTask]:
        """All that were not admitted, in the same order."""
        return [task for _, task, _ in self._waits]

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """One for each of these."""
        return [verdict for _, _, verdict in self._waits]

    @property
    def turn_of(self) -> dict[str, int]:
        """Of each of the admitted, how many of the others came before it, by task id."""
        before = [place for place, _, _ in self._waits]
        return {name: bisect_left(before, place) for name, place in self.places.items()}
