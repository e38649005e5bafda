"""The pool of one decision: which nodes a gang gets, which are withheld for an old one, and why one does not fit."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from argus_ray.core.model import Gang, NodeView
from argus_ray.core.reasons import Code, Fact, Reason, because

#: Ray counts resources in units of 0.0001.
_RESOLUTION = 1e-4


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


_BEHIND_OLDER = because(Code.BEHIND_OLDER)


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


class Pool:
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


def has_room(gang: Gang, node: NodeView) -> bool:
    """For its share of the gang, drivers aside."""
    return _fits(gang, (node.gpus_free, node.cpus_free))


def could_fit(gang: Gang, node: NodeView) -> bool:
    """Its share of the gang, if it were empty."""
    return _fits(gang, (node.gpus_total, node.cpus_total))


def _could_fit(gang: Gang, each: _Class) -> bool:
    return _fits(gang, each[2:])


def _count(gang: Gang, totals: Mapping[tuple[float, float], int]) -> int:
    """Nodes that could take its part when they are empty."""
    return sum(count for total, count in totals.items() if _fits(gang, total))


def _share(gang: Gang) -> dict[str, Fact]:
    return {"nodes": gang.nnodes, "gpus": gang.gpus_per_node, "cpus": gang.cpus_per_node}
