"""Which waiting tasks may start now, and for each other one why not. A pure function of what is known.

Free resources are what Ray reports, minus what was admitted and has not shown up in Ray's view yet. Ray, not Argus,
picks the nodes of a gang, so a part of a gang that is still unseen may land on any node where it fits: a task is
admitted only if it fits wherever those parts land. (With it, a gang never waits inside verl, which waits for ever.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, Task
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
    #: When a held task is promised its next look, at the latest.
    retry_interval_s: float


@dataclass(frozen=True)
class Decision:
    #: In the order of the line.
    admitted: tuple[Task, ...]
    #: Only what is new: tasks whose state, reason, clock or promised time changes.
    holds: tuple[Hold, ...]


@dataclass(frozen=True)
class Shortfall:
    """Why a gang does not fit. `possible`: it would, if the pool were empty."""

    possible: bool
    words: str


def decide(
    queue: Sequence[Task], nodes: Sequence[NodeView], claims: Sequence[Claim], now: float, policy: AdmissionPolicy
) -> Decision:
    """One pass over the line, oldest first. `queue` holds waiting tasks; `claims` every live attempt."""
    pool = _Pool(nodes, claims)
    admitted: list[Task] = []
    #: With the reason, and whether the task could run on the empty pool: if not, its overtaking clock stands still.
    held: list[tuple[Task, str, bool]] = []
    barrier = False
    for task in sorted(queue, key=lambda t: t.seq):
        if task.not_before is not None and task.not_before > now:
            # verl refused this one a moment ago: Ray's view was not the whole truth, so let some time pass.
            # Nothing is held back for it: its own time has not come.
            held.append((task, task.reason or "waits before the next try", True))
            continue
        if barrier:
            held.append((task, _BEHIND_BARRIER, True))
            continue
        shortfall = pool.shortfall(task.gang)
        if shortfall is None:
            pool.take(task.gang)
            admitted.append(task)
            continue
        held.append((task, shortfall.words, shortfall.possible))
        # No wait would make an impossible one fit, so holding the others back for it would help nobody.
        if shortfall.possible and task.overtaken_since is not None:
            barrier = now - task.overtaken_since >= policy.max_overtake_s
    youngest = max((task.seq for task in admitted), default=-1)
    holds = []
    for task, reason, possible in held:
        since = task.overtaken_since if possible else None
        if since is None and possible and task.seq < youngest:
            since = now
        if (hold := _hold(task, reason, since, now, policy)) is not None:
            holds.append(hold)
    return Decision(tuple(admitted), tuple(holds))


_BEHIND_BARRIER = "an older task has been overtaken for as long as is allowed; nothing younger starts before it"


def _hold(task: Task, reason: str, overtaken_since: float | None, now: float, policy: AdmissionPolicy) -> Hold | None:
    promised = task.next_retry_at is not None and task.next_retry_at > now
    as_before = (task.state, task.reason, task.overtaken_since)
    if promised and as_before == (TaskState.PENDING_RESOURCES, reason, overtaken_since):
        return None
    next_retry_at = max(task.not_before or 0.0, now + policy.retry_interval_s)
    return Hold(task.task_id, reason, next_retry_at, overtaken_since)


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
        """None if the gang may start. Memorised by shape: a long line holds few shapes."""
        if gang not in self._answers:
            self._answers[gang] = self._judge(gang)
        return self._answers[gang]

    def _judge(self, gang: Gang) -> Shortfall | None:
        if not self._workers:
            return Shortfall(False, "no worker has joined the pool")
        never = self._why_never(gang)
        if never is not None:
            return Shortfall(False, never)
        fitting = sum(_has(node, gang) for node in self._workers)
        wanted = f"{_nodes(gang.nnodes)} with {_per_node(gang)} free" + (" each" if gang.nnodes > 1 else "")
        if fitting < gang.nnodes:
            return Shortfall(True, f"needs {wanted}; {_have(fitting)} now")
        if self._cpus_unclaimed + _RESOLUTION < gang.cpus:
            return Shortfall(
                True,
                f"needs {gang.cpus:g} CPUs in all, with those of verl's own actors; "
                f"{max(self._cpus_unclaimed, 0):g} are not claimed now",
            )
        if self._slots_free < 1:
            return Shortfall(True, "every worker has its full number of drivers")
        if not self._all_fit_wherever_they_land(gang):
            return Shortfall(True, f"needs {wanted}; waits for tasks that have just started to take theirs")
        return None

    def _why_never(self, gang: Gang) -> str | None:
        most_gpus = max(node.gpus_total for node in self._workers)
        if most_gpus < gang.gpus_per_node:
            return (
                f"no node has {gang.gpus_per_node} GPUs: the largest of {_nodes(len(self._workers))} has {most_gpus:g}"
            )
        able = sum(_has(node, gang) for node in self._empty)
        if able < gang.nnodes:
            return f"needs {_nodes(gang.nnodes)} with {_per_node(gang)}; the pool has {able}, even when it is empty"
        total = sum(node.cpus_total for node in self._workers)
        if total + _RESOLUTION < gang.cpus:
            return f"needs {gang.cpus:g} CPUs in all, with those of verl's own actors; the pool has {total:g}"
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
            if len(fitting) - _most_spoiled(fitting, claim.gang, others) < claim.unseen_nodes:
                return False
        return True


def _most_spoiled(fitting: Sequence[NodeView], gang: Gang, others: Counter[Claim]) -> int:
    """An upper bound of how many of these nodes the parts of the others can make unfit for the gang.

    A node is spoiled when the parts on it reach its spare GPUs or spare CPUs. A part lands on one node and does
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


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _have(count: int) -> str:
    return "none has" if count == 0 else f"{count} has" if count == 1 else f"{count} have"


def _per_node(gang: Gang) -> str:
    gpus = "1 GPU" if gang.gpus_per_node == 1 else f"{gang.gpus_per_node} GPUs"
    return f"{gpus} and {gang.cpus_per_node:g} CPUs"
