"""Holding to what operators have ordered about machines: no new gang there, and an end for what runs there too long.

Costs nothing while nobody has ordered anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from argus_ray.core.lifecycle import Halt
from argus_ray.core.model import Cordon, NodeView, PoolOrders, SlimAttempt, SlimTask
from argus_ray.core.orders import CordonState, cordon_of, cordon_words, state_of, that_hold
from argus_ray.core.states import AttemptState, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cordoned:
    """The nodes of a view."""

    #: Those that no cordon covers.
    others: tuple[NodeView, ...]
    #: Those that one does: nothing is free there, and `barred` says so.
    nodes: tuple[NodeView, ...] = ()
    #: By node that it covers.
    by_node: Mapping[str, Cordon] = field(default_factory=dict)
    #: By node, when the last cordon of its machine was cleared.
    cleared: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Cordons:
    #: The drains that were seen to be over, and were told of: machine and since when.
    _told: set[tuple[str, float]] = field(default_factory=set)

    def apply(self, free: Sequence[NodeView], live: Iterable[SlimTask], orders: PoolOrders) -> Cordoned:
        if not orders.cordons:
            return Cordoned(tuple(free))
        holding = that_hold(orders)
        cleared_at = {each.machine: each.cleared_at for each in orders.cordons if each.cleared_at is not None}
        busy = {name for task in live if task.live is not None for name in _nodes_of(task.live)} if holding else set()
        others, barred, by_node, cleared = [], [], {}, {}
        busy_machines = {
            cordon.machine for node in free if node.node_id in busy and (cordon := cordon_of(node, holding)) is not None
        }
        for node in free:
            at = max(cleared_at.get(node.hostname, 0.0), cleared_at.get(node.ip, 0.0))
            if at:
                cleared[node.node_id] = at
            cordon = cordon_of(node, holding)
            if cordon is None:
                others.append(node)
                continue
            by_node[node.node_id] = cordon
            state = state_of(cordon, is_busy=cordon.machine in busy_machines)
            self._tell(cordon, state)
            node = node.with_free(0.0, 0.0, 0.0)
            barred.append(replace(node, barred=cordon_words(cordon, state), is_cordoned=True))
        return Cordoned(tuple(others), tuple(barred), by_node, cleared)

    def overdue(self, cordoned: Cordoned, live: Iterable[SlimTask], now: float) -> list[Halt]:
        """What still runs on a node whose drain has reached its deadline."""
        due = {
            name: cordon
            for name, cordon in cordoned.by_node.items()
            if cordon.drain and cordon.deadline is not None and cordon.deadline <= now
        }
        if not due:
            return []
        found = []
        for task in live:
            attempt = task.live
            if attempt is None or attempt.stop_reason is not None or attempt.state is AttemptState.STOPPING:
                continue
            cordon = next((due[name] for name in _nodes_of(attempt) if name in due), None)
            if cordon is not None:
                why = f"its node {cordon.machine} is drained by {cordon.by}, and the time that was given is over"
                why += f": {cordon.reason}" if cordon.reason else ""
                found.append(Halt(attempt.submission_id, why, Outcome.INFRASTRUCTURE))
        return found

    def _tell(self, cordon: Cordon, state: CordonState) -> None:
        name = cordon.machine, cordon.since
        if state is CordonState.DRAINED and name not in self._told:
            self._told = {told for told in self._told if told[0] != cordon.machine} | {name}
            log.info("%s is %s", cordon.machine, cordon_words(cordon, state))


def _nodes_of(attempt: SlimAttempt) -> tuple[str, ...]:
    """The driver's node of one of a version that left the choice to Ray."""
    return attempt.nodes or ((attempt.node_id,) if attempt.node_id is not None else ())
