"""What is free of each node for a new gang: what it has, less what is assigned, less what others use.

Argus assigns the nodes of each attempt, so what it has given away is known before Ray shows it. Ray's view is the
check: what runs there beside Argus is taken, too, and a node that has left is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from argus_ray.core.model import ClusterView, Gang, NodeView, Share, SlimTask


def free_nodes(view: ClusterView, live: Iterable[SlimTask]) -> tuple[NodeView, ...]:
    """The nodes of the view, with what is free of each. `live`: every task that has an attempt which is not over."""
    # What is assigned and not shown by Ray yet, by node. Plain numbers: thousands of tasks are alive.
    gpus: defaultdict[str, float] = defaultdict(float)
    cpus: defaultdict[str, float] = defaultdict(float)
    drivers: defaultdict[str, int] = defaultdict(int)
    anywhere: list[Gang] = []
    for task in live:
        attempt, gang = task.live, task.gang
        if attempt is None:
            continue
        held = view.held.get(attempt.ray_job_id or "", _NOTHING)
        if not attempt.nodes:
            # One of a version that left the choice to Ray: what Ray does not show of it yet may come to any node.
            if len(held) < gang.nnodes:
                anywhere.append(gang)
            continue
        drivers[attempt.nodes[0]] += 1
        for node_id in attempt.nodes:
            shown = held.get(node_id)
            if shown is None:
                gpus[node_id] += gang.gpus_per_node
                cpus[node_id] += gang.cpus_per_node
            else:
                gpus[node_id] += max(0.0, gang.gpus_per_node - shown.gpus)
                cpus[node_id] += max(0.0, gang.cpus_per_node - shown.cpus)
    gpus_anywhere = sum(gang.gpus_per_node for gang in anywhere)
    cpus_anywhere = sum(gang.cpus_per_node for gang in anywhere)
    return tuple(
        node.with_free(
            max(0.0, node.gpus_free - gpus[node.node_id] - gpus_anywhere),
            max(0.0, node.cpus_free - cpus[node.node_id] - cpus_anywhere),
            max(0.0, min(node.worker_slots_free, node.worker_slots_total - drivers[node.node_id])),
        )
        for node in view.nodes
    )


_NOTHING: Mapping[str, Share] = {}
