"""What operators order about the pool, as rules: which machine a name means, which nodes a cordon covers, how far a
drain is. Pure.

A cordon names a machine and not a node of Ray, whose id is another one after each rejoin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

from argus_ray.core.errors import AmbiguousNode, FieldError, NodeNotFound
from argus_ray.core.model import Cordon, Maintenance, NodeView, PoolOrders

#: Of the nodes that an error lists.
_MAX_CANDIDATES = 100


class NodeOrder(str, Enum):
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"


class CordonState(str, Enum):
    """The API shows these."""

    CORDONED = "cordoned"
    #: Something still runs there.
    DRAINING = "draining"
    #: Nothing runs there any more.
    DRAINED = "drained"
    #: It takes gangs again.
    CLEARED = "cleared"


@dataclass(frozen=True)
class Machine:
    name: str
    #: All that it goes by, `name` among them.
    names: tuple[str, ...]
    #: Its nodes that are in the pool now, as Ray's ids.
    node_ids: tuple[str, ...] = ()


def find_machine(name: str, nodes: Sequence[NodeView], known: Collection[str]) -> Machine:
    """The one that goes by this hostname, address or Ray node id. `known`: machines that were named before, which may
    be away now. Raises NodeNotFound or AmbiguousNode."""
    names_of = machines_of(nodes)
    found: dict[str, list[NodeView]] = defaultdict(list)
    for node in nodes:
        if name and name in (node.node_id, node.hostname, node.ip):
            found[names_of[node.node_id]].append(node)
    if not found and name in known:
        return Machine(name, (name,))
    if not found:
        raise NodeNotFound
    if len(found) > 1:
        candidates = [node for group in found.values() for node in group][:_MAX_CANDIDATES]
        raise AmbiguousNode(
            "More than one machine goes by this name: use the address, or Ray's node id.",
            [FieldError(node.node_id, f"{node.hostname or 'no hostname'} at {node.ip}") for node in candidates],
        )
    machine = next(iter(found))
    all_of_it = [node for node in nodes if machine in (node.hostname, node.ip)]
    names = dict.fromkeys([machine, *(each for node in all_of_it for each in (node.hostname, node.ip) if each)])
    return Machine(machine, tuple(names), tuple(node.node_id for node in all_of_it))


def machines_of(nodes: Iterable[NodeView]) -> dict[str, str]:
    """Node id -> its machine's name. A hostname stays when the address changes; but containers, and machines that
    nobody gave a name, share one."""
    nodes = tuple(nodes)
    addresses: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        addresses[node.hostname].add(node.ip)
    return {node.node_id: node.hostname if _is_own(node.hostname, addresses) else node.ip for node in nodes}


def _is_own(host: str, addresses: Mapping[str, set[str]]) -> bool:
    return bool(host) and not host.startswith("localhost") and len(addresses[host]) == 1


def that_hold(orders: PoolOrders) -> dict[str, Cordon]:
    """By machine."""
    return {cordon.machine: cordon for cordon in orders.cordons if cordon.cleared_at is None}


def cordon_of(node: NodeView, by_machine: Mapping[str, Cordon]) -> Cordon | None:
    return by_machine.get(node.hostname) or by_machine.get(node.ip)


def state_of(cordon: Cordon, *, is_busy: bool) -> CordonState:
    """`is_busy`: an attempt that is not over has a part there."""
    if cordon.cleared_at is not None:
        return CordonState.CLEARED
    if not cordon.drain:
        return CordonState.CORDONED
    return CordonState.DRAINING if is_busy else CordonState.DRAINED


def cordon_words(cordon: Cordon, state: CordonState) -> str:
    """For people. Without its end, `cordoned by admin since 2026-01-31T12:00:00Z: why`."""
    words = f"{state.value} by {cordon.by} since {time_words(cordon.since)}"
    if state is CordonState.DRAINING and cordon.deadline is not None:
        words += f", and what runs there is stopped at {time_words(cordon.deadline)}"
    return words + (f": {cordon.reason}" if cordon.reason else "")


def maintenance_words(maintenance: Maintenance) -> str:
    """The same."""
    words = f"maintenance is on by {maintenance.by} since {time_words(maintenance.since)}, and nothing starts"
    return words + (f": {maintenance.reason}" if maintenance.reason else "")


def time_words(at: float) -> str:
    stamp = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    return stamp.replace("+00:00", "Z")
