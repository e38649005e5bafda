"""Which waiting tasks may start now, and for each other one why not. A pure function of what is known.

Free resources are what Ray reports, minus what was admitted and has not shown up in Ray's view yet. Ray, not Argus,
picks the nodes of a gang, so a part of a gang that is still unseen may land on any node where it fits: a task is
admitted only if it fits wherever those parts land. (With it, a gang never waits inside verl, which waits for ever.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.reasons import Code, Fact, Reason, because
from argus_ray.core.states import TaskState

#: Ray counts resources in units of 0.0001.
_RESOLUTION = 1e-4


@dataclass(frozen=True)
class Claim:
    """The gang of a live attempt. `unseen_nodes`: on how many nodes it does not hold its share in Ray's view yet."""

    gang: Gang
    unseen_nodes: int


@dataclass(frozen=True)
class AdmissionPolicy:
    """Seconds."""

    #: How long a waiting task may be overtaken, from the first time, before nothing younger starts before it.
    max_overtake_s: float
    #: Until a task whose own trouble keeps it from starting is looked at again.
    retry_interval_s: float


class Clock(Enum):
    """What the overtaking clock of a held task does."""

    #: It starts when something younger starts, and runs on.
    RUNS = "runs"
    #: The task itself is not ready, so that nobody overtakes it; what has passed, has passed.
    STANDS = "stands"
    #: The task could not run on the empty pool: no wait would help it.
    STOPS = "stops"


@dataclass(frozen=True)
class Held:
    task: SlimTask
    #: What is stored; None: as it was.
    reason: Reason | None
    clock: Clock
    #: The same at this moment, with numbers that change.
    seen: Reason | None = None


@dataclass(frozen=True)
class Decision:
    #: In the order of the queue.
    admitted: tuple[SlimTask, ...]
    held: tuple[Held, ...]
    now: float
    #: From when on nothing younger than some held task starts; None: not within sight. In the past: so it is.
    barred_at: float | None

    def holds(self, started: Collection[SlimTask]) -> Iterator[Hold]:
        """What is new of those that wait on: in their state, reason, own time or clock. `started`: those of the
        admitted that do start."""
        youngest = max((task.seq for task in started), default=-1)
        for held in self.held:
            since = None if held.clock is Clock.STOPS else held.task.overtaken_since
            if since is None and held.clock is Clock.RUNS and held.task.seq < youngest:
                since = self.now
            if (hold := _hold(held, since, self.now)) is not None:
                yield hold

    def due(self) -> float | None:
        """When the next task's own time comes; until then nothing follows from the same facts."""
        times = (held.task.not_before for held in self.held)
        return min((at for at in times if at is not None and at > self.now), default=None)


def decide(
    queue: Iterable[SlimTask],
    nodes: Sequence[NodeView],
    claims: Iterable[Claim],
    now: float,
    policy: AdmissionPolicy,
    *,
    barred: bool = False,
) -> Decision:
    """One pass over tasks that wait, oldest first. `claims`: of every live attempt. `barred`: a task that is older than
    all of these lets nothing start before it."""
    pool = _Pool(nodes, claims)
    admitted: list[SlimTask] = []
    held: list[Held] = []
    barred_at: list[float] = [now] if barred else []
    for task in sorted(queue, key=lambda t: t.seq):
        if task.is_early(now):
            # Something is wrong with this one, and some time shall pass before the next try. Nothing is held back for
            # it meanwhile.
            held.append(Held(task, None, Clock.STANDS if _has_own_trouble(task) else Clock.RUNS))
            continue
        shortfall = pool.shortfall(task.gang)
        if barred and (shortfall is None or shortfall.possible):
            held.append(Held(task, None if _has_own_trouble(task) else _BEHIND_OLDER, Clock.RUNS))
            continue
        if shortfall is None:
            pool.take(task.gang)
            admitted.append(task)
            continue
        # Whether its own trouble is over is not known before it may start and is looked at: so that stays the reason.
        reason = None if shortfall.possible and _has_own_trouble(task) else shortfall.reason
        held.append(Held(task, reason, Clock.RUNS if shortfall.possible else Clock.STOPS, shortfall.seen))
        # No wait would make an impossible one fit, so holding the others back for it would help nobody.
        if shortfall.possible:
            since = now if task.overtaken_since is None else task.overtaken_since
            barred_at.append(since + policy.max_overtake_s)
            barred = task.overtaken_since is not None and now - since >= policy.max_overtake_s
    return Decision(tuple(admitted), tuple(held), now, min(barred_at, default=None))


_BEHIND_OLDER = because(Code.BEHIND_OLDER)
_OWN_TROUBLE = (Code.BAD_INPUTS, Code.INPUTS_UNKNOWN, Code.CHECKPOINT_UNKNOWN, Code.NO_COMMAND)


def _has_own_trouble(task: SlimTask) -> bool:
    return task.reason is not None and task.reason.code in _OWN_TROUBLE


def without_trouble(task: SlimTask) -> SlimTask:
    """It was looked at, and is sound."""
    return replace(task, reason=None) if _has_own_trouble(task) else task


def _hold(held: Held, overtaken_since: float | None, now: float) -> Hold | None:
    task, reason = held.task, held.reason or held.task.reason
    not_before = task.not_before if task.is_early(now) else None
    as_before = (task.state, task.reason, task.not_before, task.overtaken_since)
    if as_before == (TaskState.PENDING_RESOURCES, reason, not_before, overtaken_since):
        return None
    return Hold(task.task_id, held.reason, not_before, overtaken_since, held.seen)


@dataclass(frozen=True)
class Shortfall:
    """Why a gang does not fit."""

    #: It would, if the pool were empty.
    possible: bool
    #: The same for as long as the pool has these nodes.
    reason: Reason
    #: Now.
    seen: Reason


@dataclass(frozen=True)
class NodeShortfall:
    """What one worker lacks now for its share of a gang; zeros: it could take it."""

    gpus_free: float
    cpus_free: float
    gpus_missing: float
    cpus_missing: float


def shortfall_per_node(gang: Gang, nodes: Sequence[NodeView]) -> tuple[NodeShortfall, ...]:
    """One entry a worker, the one that lacks least first, without names: other users' business stays theirs."""
    found = [
        NodeShortfall(
            node.gpus_free,
            node.cpus_free,
            max(0.0, gang.gpus_per_node - node.gpus_free),
            max(0.0, gang.cpus_per_node - node.cpus_free),
        )
        for node in _workers(nodes)
    ]
    return tuple(sorted(found, key=lambda each: (each.gpus_missing, each.cpus_missing)))


def _workers(nodes: Iterable[NodeView]) -> list[NodeView]:
    return [node for node in nodes if not node.is_head and node.worker_slots_total >= 1]


class _Pool:
    """The workers, and the parts of gangs that may still land on any of them."""

    def __init__(self, nodes: Sequence[NodeView], claims: Iterable[Claim]) -> None:
        self._workers = _workers(nodes)
        self._empty = [replace(n, gpus_free=n.gpus_total, cpus_free=n.cpus_total) for n in self._workers]
        self._cpus_unclaimed = sum(node.cpus_total for node in self._workers)
        #: Each driver takes one unit of `worker_node` for its whole life.
        self._slots_free = sum(node.worker_slots_free for node in self._workers)
        #: Gangs that Ray's view does not show in full yet.
        self._unseen: Counter[Claim] = Counter()
        self._answers: dict[Gang, Shortfall | None] = {}
        for claim in claims:
            self._claim(claim)

    def take(self, gang: Gang) -> None:
        self._claim(Claim(gang, gang.nnodes))
        self._answers.clear()

    def _claim(self, claim: Claim) -> None:
        if self._workers and self._why_never(claim.gang) is None:
            # Else its nodes have left, and what it holds is not among these.
            self._cpus_unclaimed -= claim.gang.cpus
        if claim.unseen_nodes:
            self._slots_free -= 1
            self._unseen[claim] += 1

    def shortfall(self, gang: Gang) -> Shortfall | None:
        """None if the gang may start. Memorised by shape: a long queue holds few shapes."""
        if gang not in self._answers:
            self._answers[gang] = self._judge(gang)
        return self._answers[gang]

    def _judge(self, gang: Gang) -> Shortfall | None:
        never = because(Code.NO_WORKER) if not self._workers else self._why_never(gang)
        if never is not None:
            return Shortfall(False, never, never)
        seen = self._why_not_now(gang)
        return None if seen is None else Shortfall(True, because(Code.POOL_BUSY, **_share(gang)), seen)

    def _why_not_now(self, gang: Gang) -> Reason | None:
        fitting = sum(_has(node, gang) for node in self._workers)
        if fitting < gang.nnodes:
            return because(Code.NODES_BUSY, **_share(gang), now=fitting)
        if self._cpus_unclaimed + _RESOLUTION < gang.cpus:
            return because(Code.CPUS_CLAIMED, cpus=gang.cpus, now=max(self._cpus_unclaimed, 0.0))
        if self._slots_free < 1:
            return because(Code.DRIVERS_FULL)
        if not self._all_fit_wherever_they_land(gang):
            return because(Code.JUST_STARTED, **_share(gang))
        return None

    def _why_never(self, gang: Gang) -> Reason | None:
        largest = max(node.gpus_total for node in self._workers)
        if largest < gang.gpus_per_node:
            return because(Code.NODE_TOO_SMALL, gpus=gang.gpus_per_node, largest=largest)
        able = sum(_has(node, gang) for node in self._empty)
        if able < gang.nnodes:
            return because(Code.POOL_TOO_SMALL, **_share(gang), able=able)
        total = sum(node.cpus_total for node in self._workers)
        if total + _RESOLUTION < gang.cpus:
            return because(Code.TOO_FEW_CPUS, cpus=gang.cpus, total=total)
        return None

    def _all_fit_wherever_they_land(self, gang: Gang) -> bool:
        """Whether the gang, and each gang that is still unseen, finds its nodes in every order and place in which
        Ray may put them. The newcomer counts against the others too: it may be the faster one."""
        newcomer = Claim(gang, gang.nnodes)
        unseen = self._unseen + Counter([newcomer])
        for claim in unseen:
            if claim != newcomer and self._why_never(claim.gang) is not None:
                continue  # its nodes have left; holding everybody back would not bring them back
            others = unseen - Counter([claim])
            fitting = [node for node in self._workers if _has(node, claim.gang)]
            if len(fitting) - _max_blocked_nodes(fitting, claim.gang, others) < claim.unseen_nodes:
                return False
        return True


def _max_blocked_nodes(fitting: Sequence[NodeView], gang: Gang, others: Counter[Claim]) -> int:
    """An upper bound of how many of these nodes the parts of the others can make unfit for the gang.

    A node is blocked when the parts on it reach its spare GPUs or spare CPUs. A part lands on one node and does
    there at most its largest share of either, and never more than one whole node's damage.
    """

    def share(gpus: float, cpus: float) -> float:
        return max(
            (
                min(
                    1.0,
                    max(
                        gpus / (node.gpus_free - gang.gpus_per_node + 1),
                        cpus / (node.cpus_free - gang.cpus_per_node + _RESOLUTION),
                    ),
                )
                for node in fitting
                # A part can only land where it would fit if the node were empty.
                if node.gpus_total + _RESOLUTION >= gpus and node.cpus_total + _RESOLUTION >= cpus
            ),
            default=0.0,
        )

    damage = 0.0
    if fitting:
        for claim, count in others.items():
            damage += count * claim.unseen_nodes * share(claim.gang.gpus_per_node, claim.gang.cpus_per_node)
            # verl starts its small actors before it claims its GPUs, so these are seen when those are.
            damage += count * math.ceil(claim.gang.extra_cpus) * share(0.0, 1.0)
    return math.floor(damage + 1e-9)


def _has(node: NodeView, gang: Gang) -> bool:
    enough_gpus = node.gpus_free + _RESOLUTION >= gang.gpus_per_node
    return enough_gpus and node.cpus_free + _RESOLUTION >= gang.cpus_per_node


def _share(gang: Gang) -> dict[str, Fact]:
    return {"nodes": gang.nnodes, "gpus": gang.gpus_per_node, "cpus": gang.cpus_per_node}
