"""Which waiting tasks may start now, on which nodes, and for each other one why not. A pure function of what is known.

Argus chooses the nodes of a gang, and what it is given holds each part of it there. So what is free is known exactly
(ledger.py), and a gang that is admitted never waits inside verl, which would wait for ever.

In two passes: quotas (bookings.py), and then the pool, in the order of the queue or of fair share. What does not fit
once does not fit later in the same pass, so the second one goes on without the whole shape. Neither looks at each task
(waiting.py); `tests/core/reference.py` does, and says the same.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from argus_ray.core.bookings import Bookings, book
from argus_ray.core.decision import OWN_TROUBLES, Decision, Part
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.pool import Clock, Pool, Verdict
from argus_ray.core.quotas import NO_QUOTAS, Quotas
from argus_ray.core.shares import NO_SHARES, Shares
from argus_ray.core.waiting import Overtaking, Place, Section, WaitingTasks, began, sections


@dataclass(frozen=True)
class AdmissionPolicy:
    """Seconds."""

    #: How long a waiting task may be overtaken, from the first time, before nodes are reserved for it.
    max_overtake_s: float
    #: Until a task whose own trouble keeps it from starting is looked at again.
    retry_interval_s: float
    #: GPUs that each user may hold at a time.
    quotas: Quotas = NO_QUOTAS
    #: Of what users have had, for fair share; None: it is off.
    half_life_s: float | None = None

    def no_tasks(self) -> WaitingTasks:
        """For those over which it will decide."""
        return WaitingTasks(self.max_overtake_s, by_user=self.quotas.are_on or self.half_life_s is not None)


def decide(
    queue: Iterable[SlimTask] | WaitingTasks,
    nodes: Sequence[NodeView],
    now: float,
    policy: AdmissionPolicy,
    *,
    reserved: Sequence[NodeView] = (),
    shares: Shares = NO_SHARES,
    before: int | None = None,
) -> Decision:
    """One pass over tasks that wait, oldest first, or by fair share where `shares` tells use. `nodes`: with what is
    free of each for a new gang. `reserved`: nodes that are withheld for tasks which are older than all of these.
    `before`: only over those with an older place in the queue."""
    if isinstance(queue, WaitingTasks):
        waiting = queue
    else:
        waiting = WaitingTasks(policy.max_overtake_s, by_user=policy.quotas.are_on or shares.use is not None)
        waiting.add_all(queue)
    waiting.bring_to(now)
    pool = Pool(nodes, reserved)
    found = sections(waiting, shares.use, before)
    ready = [section for section in found if not section.traits.is_early]
    bookings = book(ready, policy.quotas, shares, pool.is_possible) if policy.quotas.are_on else Bookings()
    walk = _Walk(ready, pool, now, policy.max_overtake_s)
    walk.to_the_end()
    return Decision(
        admitted=tuple(task for _, task in walk.admitted),
        nodes_of=walk.nodes_of,
        parts=tuple(_parts(found, walk.shapes)),
        places={task.task_id: place for place, task in walk.admitted},
        now=now,
        reserves_at=walk.reserves_at(),
        due=waiting.next_time(),
        taken=bookings.taken,
        looks=bookings.looks + walk.looks,
        pool=pool,
    )


def nodes_reserved(gang: Gang, overtaken_s: float, bound_s: float, size: int) -> int:
    """How many are to be reserved for a task that has been overtaken for at least `bound_s`, of a pool of `size`
    nodes. Each further period reserves as many again: one that never comes wholly free, because somebody runs on it for
    a month, must not be waited for alone."""
    return gang.nnodes * (_periods(overtaken_s, bound_s) if bound_s > 0 else size)


def _periods(overtaken_s: float, bound_s: float) -> int:
    return 1 + int(max(0.0, overtaken_s - bound_s) // bound_s)


def without_trouble(task: SlimTask) -> SlimTask:
    """It was looked at, and is sound."""
    return replace(task, reason=None) if task.reason is not None and task.reason.code in OWN_TROUBLES else task


class _Shape:
    """A gang, and who waits for it."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        #: Heaps by the place of the next one of each section. Those of tasks which are overdue, and of all others.
        self.overdue: list[tuple[Place, int, Section]] = []
        self.others: list[tuple[Place, int, Section]] = []
        #: Why it does not fit, as of the last reservation; None: that is not known yet.
        self.verdict: Verdict | None = None
        #: These verdicts, and from which place on each is that of a task.
        self.verdicts: list[Verdict] = []
        self.begins: list[Place] = []
        self.has_failed = False
        #: There is no node left to be reserved.
        self.is_exhausted = False

    def heap(self) -> list[tuple[Place, int, Section]] | None:
        """The one that is to be looked at next; None: nothing is left to be said of this shape."""
        if self.verdict is None:
            both = [heap for heap in (self.overdue, self.others) if heap]
            return min(both, default=None)
        return self.overdue if self.overdue and not self.is_exhausted and self.verdict.clock is Clock.RUNS else None

    def skip_to(self, place: Place) -> None:
        """Past all that comes before it."""
        for heap in (self.overdue, self.others):
            while heap and heap[0][0] < place:
                _, number, section = heap[0]
                section.head = section.index(place)
                _next(heap, number, section)


def _next(heap: list[tuple[Place, int, Section]], number: int, section: Section) -> None:
    """The first of the heap goes on to the section's head."""
    if section.head < section.opened:
        heapq.heapreplace(heap, (section.place(section.head), number, section))
    else:
        heapq.heappop(heap)


class _Walk:
    """Through the tasks that their users' quotas allow, in their order, past those of which all is known."""

    def __init__(self, ready: Iterable[Section], pool: Pool, now: float, bound_s: float) -> None:
        self.shapes: dict[Gang, _Shape] = {}
        self.admitted: list[tuple[Place, SlimTask]] = []
        self.nodes_of: dict[str, tuple[str, ...]] = {}
        self.looks = 0
        self._pool, self._now, self._bound_s = pool, now, bound_s
        self._ready = [section for section in ready if section.opened]
        self._reserves_at = math.inf
        for number, section in enumerate(self._ready):
            gang = section.traits.gang
            shape = self.shapes.get(gang)
            if shape is None:
                shape = self.shapes[gang] = _Shape(gang)
            heap = shape.overdue if section.traits.is_overdue else shape.others
            heap.append((section.place(0), number, section))
        self._agenda: list[tuple[Place, int, _Shape]] = []
        for number, shape in enumerate(self.shapes.values()):
            heapq.heapify(shape.overdue)
            heapq.heapify(shape.others)
            self._plan(number, shape)

    def to_the_end(self) -> None:
        while self._agenda:
            place, number, shape = heapq.heappop(self._agenda)
            heap = shape.heap()
            if heap is not None and heap[0][0] == place:
                self._look(shape, heap)
                self._plan(number, shape)

    def _plan(self, number: int, shape: _Shape) -> None:
        heap = shape.heap()
        if heap is not None:
            heapq.heappush(self._agenda, (heap[0][0], number, shape))

    def _look(self, shape: _Shape, heap: list[tuple[Place, int, Section]]) -> None:
        self.looks += 1
        place, number, section = heap[0]
        if shape.verdict is None:
            if not shape.has_failed:
                chosen = self._pool.take(shape.gang)
                if chosen is not None:
                    task = section.tasks[section.head]
                    self.admitted.append((place, task))
                    self.nodes_of[task.task_id] = chosen
                    section.head += 1
                    section.started = section.head
                    _next(heap, number, section)
                    return
                shape.has_failed = True
            shape.verdict = self._pool.verdict(shape.gang)
            shape.verdicts.append(shape.verdict)
            shape.begins.append(place)
        if section.traits.is_overdue and shape.verdict.clock is Clock.RUNS:
            section.head += 1
            _next(heap, number, section)
            self._reserve(shape, section, place)

    def _reserve(self, shape: _Shape, section: Section, place: Place) -> None:
        task, now, bound = section.tasks[section.head - 1], self._now, self._bound_s
        since = began(task)
        if section.traits.overtaking is Overtaking.STOPPED:
            since += now
        if not self._pool.reserve(shape.gang, nodes_reserved(shape.gang, now - since, bound, self._pool.size)):
            shape.is_exhausted = True
            return
        if bound > 0:
            self._reserves_at = min(self._reserves_at, since + bound * (_periods(now - since, bound) + 1))
        # Whoever comes now may wait for what is reserved.
        for number, other in enumerate(self.shapes.values()):
            if other.verdict is not None and other.verdict.clock is Clock.RUNS:
                other.verdict = None
                other.skip_to((place[0], place[1] + 1))
                self._plan(number, other)

    def reserves_at(self) -> float | None:
        """When the next reservation begins or grows. One for which nothing was left to be reserved does not."""
        soonest, now, bound = self._reserves_at, self._now, self._bound_s
        for section in self._ready:
            traits, shape = section.traits, self.shapes[section.traits.gang]
            if traits.is_overdue or section.started == section.opened or shape.verdicts[0].clock is not Clock.RUNS:
                continue
            if traits.overtaking is Overtaking.NEVER:
                since = now
            else:
                since = section.group.soonest(section.started, section.opened)
                if traits.overtaking is Overtaking.STOPPED:
                    since += now
            soonest = min(soonest, since + bound)
        return None if soonest == math.inf else soonest


def _parts(found: Iterable[Section], shapes: Mapping[Gang, _Shape]) -> Iterator[Part]:
    """All that wait on."""
    for section in found:
        traits = section.traits
        if traits.is_early:
            is_troubled = traits.reason is not None and traits.reason.code in OWN_TROUBLES
            yield Part(section, 0, section.end, _TROUBLED if is_troubled else _EARLY)
            continue
        at = section.started
        while at < section.opened:
            shape = shapes[traits.gang]
            number = bisect_right(shape.begins, section.place(at))
            end = section.opened
            if number < len(shape.begins):
                end = min(end, section.index(shape.begins[number]))
            yield Part(section, at, end, shape.verdicts[number - 1])
            at = end
        if section.refusal is not None and section.opened < section.end:
            yield Part(section, section.opened, section.end, section.refusal, of_quota=True)


_TROUBLED = Verdict(None, Clock.STANDS)
_EARLY = Verdict(None, Clock.RUNS)
