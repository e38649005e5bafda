"""Ray's view of the pool: its nodes, what is free on each, and what placement groups of which job hold there.

It reads the GCS directly. Ray 2.60 has no public call for the resources per node (verl uses the same private ones), so
these are private; the version of Ray is pinned for them. The table of placement groups is not read: it keeps each group
that was ever made, and a look at it would cost more from day to day.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import ray

from argus_ray.core.model import ClusterView, NodeView, Share
from argus_ray.core.verl.command import WORKER_RESOURCE

#: Ray marks the head with this resource (ray/_private/resource_spec.py, HEAD_NODE_RESOURCE_NAME).
HEAD_RESOURCE = "node:__internal_head__"


def look() -> ClusterView:
    """Read it all now. Blocks for some milliseconds, or while the GCS is away: call it in a thread with a bound."""
    # What groups hold comes first: of one that is made in between the GPUs then count as somebody else's, too, and are
    # not given away.
    held: defaultdict[str, dict[str, Share]] = defaultdict(dict)
    for node_id, total in ray._private.state.total_resources_per_node().items():
        for job, share in _held_by_groups(total).items():
            held[job][node_id] = share
    free_of = ray._private.state.available_resources_per_node()
    nodes = []
    for entry in ray.nodes():
        if not entry["Alive"]:
            continue
        node_id, total = entry["NodeID"], entry["Resources"]
        # A node that has just joined may not have reported what is free: then nothing is, for now.
        free = free_of.get(node_id, {})
        nodes.append(
            NodeView(
                node_id=node_id,
                ip=entry["NodeManagerAddress"],
                hostname=entry["NodeManagerHostname"],
                is_head=HEAD_RESOURCE in total,
                gpus_total=total.get("GPU", 0.0),
                cpus_total=total.get("CPU", 0.0),
                gpus_free=free.get("GPU", 0.0),
                cpus_free=free.get("CPU", 0.0),
                worker_slots_free=free.get(WORKER_RESOURCE, 0.0),
                worker_slots_total=total.get(WORKER_RESOURCE, 0.0),
                port=entry["NodeManagerPort"],
            )
        )
    return ClusterView(
        session=session_name(),
        nodes=tuple(sorted(nodes, key=lambda node: node.node_id)),
        held=dict(held),
    )


def session_name() -> str:
    """Ray's session name; it survives a head restart when the GCS is durable."""
    return str(ray._private.worker.global_worker.node.session_name)


#: What all bundles of one group hold of a node, which the node has as a resource of its own. The group's id ends with
#: that of the job that has made it (ray 2.60, src/ray/common/id.h and bundle_spec.h).
_OF_GROUP = re.compile(r"(GPU|CPU)_group_[0-9a-f]{28}([0-9a-f]{8})")


def _held_by_groups(total: Mapping[str, float]) -> dict[str, Share]:
    """By job id (hex), from the names of a node's resources."""
    found: defaultdict[str, Share] = defaultdict(Share)
    for name, amount in total.items():
        if match := _OF_GROUP.fullmatch(name):
            kind, job = match.groups()
            found[job] += Share(gpus=amount) if kind == "GPU" else Share(cpus=amount)
    return dict(found)
