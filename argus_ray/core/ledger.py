"""What is free of each node for a new gang: what it has, less what is assigned, less what others use.

Argus assigns the nodes of each attempt, so what it has given away is known before Ray shows it. Ray's view is the
check: what runs there beside Argus is taken, too, and a node that has left is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from argus_ray.core.model import ClusterView, Gang, NodeView, Share, SlimTask


def free_nodes(view: ClusterView, live: Iterable[SlimTask]) -> tuple[NodeView, ...]:
    """The nodes of the view, with what is free of each. `live`: every task that has an attempt which is not over."""
    assigned: defaultdict[str, Share] = defaultdict(Share)
    #: What Ray shows of exactly that.
    seen: defaultdict[str, Share] = defaultdict(Share)
    drivers: defaultdict[str, int] = defaultdict(int)
    anywhere: list[Gang] = []
    for task in live:
        attempt = task.live
        if attempt is None:
            continue
        held = view.held.get(attempt.ray_job_id or "", {})
        if not attempt.nodes:
            # One of a version that left the choice to Ray: what Ray does not show of it yet may come to any node.
            if len(held) < task.gang.nnodes:
                anywhere.append(task.gang)
            continue
        share = Share(task.gang.gpus_per_node, task.gang.cpus_per_node)
        drivers[attempt.nodes[0]] += 1
        for node_id in attempt.nodes:
            assigned[node_id] += share
            seen[node_id] += held.get(node_id, Share()).at_most(share)
    return tuple(
        _free(node, assigned[node.node_id], seen[node.node_id], drivers[node.node_id], anywhere) for node in view.nodes
    )


def _free(node: NodeView, assigned: Share, seen: Share, drivers: int, anywhere: Iterable[Gang]) -> NodeView:
    gpus = node.gpus_free - (assigned.gpus - seen.gpus)
    cpus = node.cpus_free - (assigned.cpus - seen.cpus)
    for gang in anywhere:
        gpus, cpus = gpus - gang.gpus_per_node, cpus - gang.cpus_per_node
    slots = min(node.worker_slots_free, node.worker_slots_total - drivers)
    return node.with_free(max(0.0, gpus), max(0.0, cpus), max(0.0, slots))
