"""Which waiting tasks may start now, on which nodes, and for each other one why not. A pure function of what is known.

Argus chooses the nodes of a gang, and what it is given holds each part of it there. So what is free is known exactly
(ledger.py), and a gang that is admitted never waits inside verl, which would wait for ever.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, repeat

from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.reasons import Code, Fact, Reason, because
from argus_ray.core.shares import (
    NO_QUOTAS,
    NO_SHARES,
    OF_QUOTAS,
    Bookings,
    Quotas,
    Shares,
    by_use,
    overtaken_since,
    with_clock_stopped,
)
from argus_ray.core.states import TaskState

#: Ray counts resources in units of 0.0001.
_RESOLUTION = 1e-4


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


class Clock(Enum):
    """What the overtaking clock of a held task does. It never goes back."""

    #: It starts when something younger starts (with fair share: something whose turn is later), and runs on.
    RUNS = "runs"
    #: Nobody overtakes the task: it is not ready itself, or could not run on the empty pool. What has passed, has
    #: passed.
    STANDS = "stands"


@dataclass(frozen=True)
class Verdict:
    """Why a task is held; many tasks share one."""

    #: What is stored; None: as it was.
    reason: Reason | None
    clock: Clock
    #: The same at this moment, with numbers that change.
    seen: Reason | None = None


@dataclass(frozen=True)
class Decision:
    #: In the order of the queue, or of fair share.
    admitted: tuple[SlimTask, ...]
    #: Node ids of each of these, by task id: the driver's node first.
    nodes_of: dict[str, tuple[str, ...]]
    #: Of each of these, how many of the others came before it, by task id.
    turn_of: dict[str, int]
    #: All others, in the same order.
    waits: Sequence[SlimTask]
    #: One for each of these.
    verdicts: Sequence[Verdict]
    now: float
    #: When the next reservation begins or grows, if nothing else happens; None: not within sight.
    reserves_at: float | None
    #: What is taken of each user's quota after it, by user.
    taken: Mapping[str, int]
    #: After it.
    pool: _Pool = field(compare=False)

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
        last = max((self.turn_of[task.task_id] for task in started), default=0)
        now, runs, pending = self.now, Clock.RUNS, TaskState.PENDING_RESOURCES
        #: Pairs of reasons that are equal, by identity: tens of thousands of tasks share a few.
        equal: dict[tuple[int, int], bool] = {}
        overtaken = chain(repeat(True, last), repeat(False, len(self.waits) - last))
        for task, verdict, is_overtaken in zip(self.waits, self.verdicts, overtaken, strict=True):
            before = since = task.overtaken_since
            if since is None and is_overtaken and verdict.clock is runs:
                since = now
            not_before = task.not_before
            if not_before is not None and not_before <= now:
                not_before = None
            if task.state is pending and since == before and not_before == task.not_before:
                new, old = verdict.reason, task.reason
                if new is None or new is old:
                    continue
                pair = id(new), id(old)
                if pair not in equal:
                    equal[pair] = new == old
                if equal[pair]:
                    continue
            yield Hold(task.task_id, verdict.reason, not_before, since, verdict.seen)

    def due(self) -> float | None:
        """When the next task's own time comes; until then nothing follows from the same facts."""
        times = (task.not_before for task in self.waits if task.not_before is not None)
        return min((at for at in times if at > self.now), default=None)


def decide(
    queue: Iterable[SlimTask],
    nodes: Sequence[NodeView],
    now: float,
    policy: AdmissionPolicy,
    *,
    reserved: Sequence[NodeView] = (),
    shares: Shares = NO_SHARES,
) -> Decision:
    """One pass over tasks that wait, oldest first, or by fair share where `shares` tells use. `nodes`: with what is
    free of each for a new gang. `reserved`: nodes that are withheld for tasks which are older than all of these."""
    pool = _Pool(nodes, reserved)
    bookings = Bookings(policy.quotas, shares, pool.is_possible) if policy.quotas.are_on else None
    admitted: list[SlimTask] = []
    nodes_of: dict[str, tuple[str, ...]] = {}
    turn_of: dict[str, int] = {}
    waits: list[SlimTask] = []
    verdicts: list[Verdict] = []
    bound = policy.max_overtake_s
    reserves_at = math.inf
    #: What did not fit once does not fit later in the same pass. By the identity of the gang, too, which many tasks
    #: share: to hash one takes longer than all else here.
    known: dict[Gang, Verdict] = {}
    by_identity: dict[int, Verdict] = {}
    refused: dict[tuple[str, int], Verdict] = {}
    of_refusal: dict[int, Verdict] = {}
    kinds: dict[int, frozenset[Code]] = {}
    runs = Clock.RUNS
    line = sorted(queue, key=_seq)
    if shares.use is not None:
        line = by_use(line, shares.use, now, bound)
    for task in line:
        not_before = task.not_before
        if not_before is not None and not_before > now:
            # Something is wrong with this one, and some time shall pass before the next try. Nothing is held back for
            # it meanwhile.
            waits.append(task)
            verdicts.append(_TROUBLED if _has_own_trouble(task) else _EARLY)
            continue
        gang = task.gang
        if bookings is not None:
            whose = task.user_id, id(gang)
            verdict = refused.get(whose)
            if verdict is None and (refusal := bookings.book(task)) is not None:
                # Its clock stands, and nothing of the pool is held back for it.
                verdict = of_refusal.get(id(refusal)) or Verdict(refusal.reason, Clock.STANDS, refusal.seen)
                refused[whose] = of_refusal[id(refusal)] = verdict
            if verdict is not None:
                reason = task.reason
                if reason is not None and id(reason) not in kinds:
                    kinds[id(reason)] = _kind_of(reason)
                if reason is not None and kinds[id(reason)] is OWN_TROUBLES:
                    verdict = _TROUBLED
                elif task.overtaken_since is not None and verdict.reason is not None:
                    verdict = replace(verdict, reason=with_clock_stopped(task, verdict.reason, now))
                waits.append(task)
                verdicts.append(verdict)
                continue
        verdict = by_identity.get(id(gang))
        if verdict is None:
            verdict = known.get(gang)
            if verdict is None:
                chosen = pool.take(gang)
                if chosen is not None:
                    admitted.append(task)
                    nodes_of[task.task_id] = chosen
                    turn_of[task.task_id] = len(waits)
                    continue
                verdict = known[gang] = pool.verdict(gang)
            by_identity[id(gang)] = verdict
        if verdict.clock is runs:
            since = task.overtaken_since
            reason = task.reason
            if reason is not None:
                kind = kinds.get(id(reason))
                if kind is None:
                    kind = kinds[id(reason)] = _kind_of(reason)
                if not kind:
                    pass
                elif kind is OWN_TROUBLES:
                    # Whether its own trouble is over is not known before it may start and is looked at.
                    verdict = replace(verdict, reason=None)
                elif since is not None:
                    since = overtaken_since(task, now, since)
                    task = replace(task, overtaken_since=since)
            if since is None or now - since < bound:
                at = (now if since is None else since) + bound
                if at < reserves_at:
                    reserves_at = at
            else:
                # Each further period reserves as many nodes again: one that never comes wholly free, because somebody
                # runs on it for a month, must not be waited for alone.
                times = 1 + int((now - since - bound) // bound) if bound > 0 else pool.size
                if pool.reserve(gang, gang.nnodes * times):
                    known.clear()
                    by_identity.clear()
                if bound > 0:
                    reserves_at = min(reserves_at, since + bound * (times + 1))
        waits.append(task)
        verdicts.append(verdict)
    return Decision(
        admitted=tuple(admitted),
        nodes_of=nodes_of,
        turn_of=turn_of,
        waits=waits,
        verdicts=verdicts,
        now=now,
        reserves_at=None if reserves_at == math.inf else reserves_at,
        taken={} if bookings is None else bookings.taken,
        pool=pool,
    )


_BEHIND_OLDER = because(Code.BEHIND_OLDER)
_TROUBLED = Verdict(None, Clock.STANDS)
_EARLY = Verdict(None, Clock.RUNS)


def _seq(task: SlimTask) -> int:
    return task.seq


#: Of one task, which is looked at again after `retry_interval_s` at the latest.
OWN_TROUBLES = frozenset({Code.BAD_INPUTS, Code.INPUTS_UNKNOWN, Code.CHECKPOINT_UNKNOWN, Code.NO_COMMAND})


def _kind_of(reason: Reason) -> frozenset[Code]:
    """Those that the stored reason is one of, if they make a difference."""
    return next((kind for kind in (OWN_TROUBLES, OF_QUOTAS) if reason.code in kind), frozenset())


def _has_own_trouble(task: SlimTask) -> bool:
    return task.reason is not None and task.reason.code in OWN_TROUBLES


def without_trouble(task: SlimTask) -> SlimTask:
    """It was looked at, and is sound."""
    return replace(task, reason=None) if _has_own_trouble(task) else task


@dataclass(frozen=True)
class NodeShortfall:
    """What one worker lacks now for its share of a gang; zeros: it could take it."""

    gpus_free: float
    cpus_free: float
    gpus_missing: float
    cpus_missing: float
    #: Why it takes no gang though it may have room.
    barred: str | None = None


def shortfall_per_node(gang: Gang, nodes: Sequence[NodeView]) -> tuple[NodeShortfall, ...]:
    """One entry a worker, the one that lacks least first, without names: other users' business stays theirs."""
    found = []
    for node in workers(nodes):
        gpus, cpus = (node.gpus_free, node.cpus_free) if node.barred is None else (0.0, 0.0)
        missing = max(0.0, gang.gpus_per_node - gpus), max(0.0, gang.cpus_per_node - cpus)
        found.append(NodeShortfall(gpus, cpus, *missing, node.barred))
    return tuple(sorted(found, key=lambda each: (each.gpus_missing, each.cpus_missing)))


def workers(nodes: Iterable[NodeView]) -> list[NodeView]:
    """Those that take gangs."""
    return [node for node in nodes if not node.is_head and node.worker_slots_total >= 1]


#: GPUs and CPUs that are free, and those that the node has. The nodes of one class are as good as one another.
_Class = tuple[float, float, float, float]


class _Pool:
    """The workers by class. Cost grows with the number of classes, and not with that of nodes."""

    def __init__(self, nodes: Sequence[NodeView], reserved: Sequence[NodeView]) -> None:
        able = workers(nodes)
        #: No room, and none that will come: told, and nothing more.
        self._cordoned = tuple(node for node in able if node.is_cordoned)
        if self._cordoned:
            able = [node for node in able if not node.is_cordoned]
        self._nodes = sorted(able, key=lambda node: (node.troubles, node.node_id))
        self._slots = [node.worker_slots_free for node in self._nodes]
        #: Of each class its nodes, as places in `_nodes`: a heap, so that the choice does not depend on history.
        self._by_class: dict[_Class, list[int]] = {}
        for place, node in enumerate(self._nodes):
            self._by_class.setdefault(_class_of(node), []).append(place)
        self._reserved_before = tuple(reserved)
        self._withheld: Counter[_Class] = Counter(_class_of(node) for node in workers(reserved))
        self._reserved_here: list[tuple[_Class, int]] = []
        self._totals = Counter((each[2], each[3]) for each in self._by_class for _ in self._by_class[each])
        self._totals.update((each[2], each[3]) for each in self._withheld.elements())

    @property
    def size(self) -> int:
        return len(self._nodes)

    def take(self, gang: Gang) -> tuple[str, ...] | None:
        """The nodes of the gang, which are its own from here on; None: it does not fit. Those that it fills best, so
        that whole nodes stay whole; the driver's node comes first."""
        fitting = sorted(each for each, places in self._by_class.items() if places and _fits(gang, each))
        if sum(len(self._by_class[each]) for each in fitting) < gang.nnodes:
            return None
        chosen: list[tuple[_Class, int]] = []
        for each in fitting:
            places = self._by_class[each]
            while places and len(chosen) < gang.nnodes:
                chosen.append((each, heapq.heappop(places)))
        driver = next((k for k, (_, place) in enumerate(chosen) if self._slots[place] >= 1), None)
        if driver is None and (other := self._with_slot(fitting)) is not None:
            # Every driver takes one unit of `worker_node` for its whole life.
            self._put_back(chosen.pop())
            driver = len(chosen)
            chosen.append(other)
        if driver is None:
            for one in chosen:
                self._put_back(one)
            return None
        chosen.insert(0, chosen.pop(driver))
        self._slots[chosen[0][1]] -= 1
        for (gpus, cpus, *totals), place in chosen:
            left = (gpus - gang.gpus_per_node, cpus - gang.cpus_per_node, *totals)
            heapq.heappush(self._by_class.setdefault(left, []), place)  # type: ignore[arg-type]
        return tuple(self._nodes[place].node_id for _, place in chosen)

    def _with_slot(self, fitting: Iterable[_Class]) -> tuple[_Class, int] | None:
        for each in fitting:
            places = self._by_class[each]
            place = min((place for place in places if self._slots[place] >= 1), default=None)
            if place is not None:
                places.remove(place)
                heapq.heapify(places)
                return each, place
        return None

    def _put_back(self, one: tuple[_Class, int]) -> None:
        heapq.heappush(self._by_class[one[0]], one[1])

    def reserve(self, gang: Gang, count: int) -> bool:
        """Withhold so many nodes that the gang could use, those first that are nearest to it. False: there is none."""
        could = [each for each, places in self._by_class.items() if places and _could_fit(gang, each)]
        before = len(self._reserved_here)
        for each in sorted(could, reverse=True):
            places = self._by_class[each]
            while places and len(self._reserved_here) - before < count:
                self._reserved_here.append((each, heapq.heappop(places)))
                self._withheld[each] += 1
        return len(self._reserved_here) > before

    def verdict(self, gang: Gang) -> Verdict:
        """Why it does not fit now."""
        never = self._why_never(gang)
        if never is not None:
            return Verdict(never, Clock.STANDS, never)
        fitting = sum(len(places) for each, places in self._by_class.items() if _fits(gang, each))
        if fitting >= gang.nnodes:
            return Verdict(because(Code.POOL_BUSY, **_share(gang)), Clock.RUNS, because(Code.DRIVERS_FULL))
        withheld = sum(count for each, count in self._withheld.items() if _fits(gang, each))
        if fitting + withheld >= gang.nnodes:
            return Verdict(_BEHIND_OLDER, Clock.RUNS)
        seen = because(Code.NODES_BUSY, **_share(gang), now=fitting + withheld)
        return Verdict(because(Code.POOL_BUSY, **_share(gang)), Clock.RUNS, seen)

    def is_possible(self, gang: Gang) -> bool:
        """Whether it would fit into the empty pool."""
        return self._why_never(gang) is None

    def _why_never(self, gang: Gang) -> Reason | None:
        totals = self._totals
        if self._cordoned:
            totals = totals + Counter((node.gpus_total, node.cpus_total) for node in self._cordoned)
        if not totals:
            return because(Code.NO_WORKER)
        largest = max(gpus for gpus, _ in totals)
        if largest + _RESOLUTION < gang.gpus_per_node:
            return because(Code.NODE_TOO_SMALL, gpus=gang.gpus_per_node, largest=largest)
        able = _count(gang, totals)
        if able < gang.nnodes:
            return because(Code.POOL_TOO_SMALL, **_share(gang), able=able)
        if self._cordoned and (able_now := _count(gang, self._totals)) < gang.nnodes:
            return because(Code.NODES_CORDONED, **_share(gang), able=able_now, cordoned=able - able_now)
        return None

    def left(self) -> tuple[NodeView, ...]:
        left = tuple(
            self._now(each, place) for each, places in sorted(self._by_class.items()) for place in sorted(places)
        )
        return left + self._cordoned

    def reserved(self) -> tuple[NodeView, ...]:
        return (*self._reserved_before, *(self._now(each, place) for each, place in self._reserved_here))

    def _now(self, each: _Class, place: int) -> NodeView:
        return self._nodes[place].with_free(each[0], each[1], self._slots[place])


def _class_of(node: NodeView) -> _Class:
    return node.gpus_free, node.cpus_free, node.gpus_total, node.cpus_total


def _fits(gang: Gang, free: Sequence[float]) -> bool:
    """`free`: GPUs and CPUs first."""
    return free[0] + _RESOLUTION >= gang.gpus_per_node and free[1] + _RESOLUTION >= gang.cpus_per_node


def _could_fit(gang: Gang, each: _Class) -> bool:
    return _fits(gang, each[2:])


def _count(gang: Gang, totals: Mapping[tuple[float, float], int]) -> int:
    """Nodes that could take its part when they are empty."""
    return sum(count for total, count in totals.items() if _fits(gang, total))


def _share(gang: Gang) -> dict[str, Fact]:
    return {"nodes": gang.nnodes, "gpus": gang.gpus_per_node, "cpus": gang.cpus_per_node}
