"""Ray's view of the pool: its nodes, what is free on each, and which job holds which placement group.

It reads the GCS directly. Ray 2.60 has no public call for the free resources per node (verl uses the same private
one) nor for the creator of a placement group without the dashboard's process in between, so these two are private;
the version of Ray is pinned for them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import ray

from argus_ray.core.model import ClusterView, NodeView, Share
from argus_ray.core.verl.command import WORKER_RESOURCE

#: Ray marks the head with this resource (ray/_private/resource_spec.py, HEAD_NODE_RESOURCE_NAME).
HEAD_RESOURCE = "node:__internal_head__"


def look() -> ClusterView:
    """Read it all now. Blocks for some milliseconds, or as long as the GCS is away: call it in a thread with a bound.

    The free resources are the lesser of what the raylets report and what the placement groups leave: the report
    trails a placement group's creation by up to a heartbeat.
    """
    groups = _created_groups()
    held_gpus: defaultdict[str, float] = defaultdict(float)
    held_cpus: defaultdict[str, float] = defaultdict(float)
    held: defaultdict[str, defaultdict[str, Share]] = defaultdict(lambda: defaultdict(Share))
    for job, node, resources in groups:
        share = Share(resources.get("GPU", 0.0), resources.get("CPU", 0.0))
        held_gpus[node] += share.gpus
        held_cpus[node] += share.cpus
        held[job][node] += share
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
                gpus_free=max(0.0, min(free.get("GPU", 0.0), total.get("GPU", 0.0) - held_gpus[node_id])),
                cpus_free=max(0.0, min(free.get("CPU", 0.0), total.get("CPU", 0.0) - held_cpus[node_id])),
                worker_slots_free=free.get(WORKER_RESOURCE, 0.0),
                worker_slots_total=total.get(WORKER_RESOURCE, 0.0),
            )
        )
    return ClusterView(
        session=session_name(),
        nodes=tuple(sorted(nodes, key=lambda node: node.node_id)),
        held={job: dict(nodes) for job, nodes in held.items()},
    )


def session_name() -> str:
    """Ray's session name; it survives a head restart when the GCS is durable."""
    return str(ray._private.worker.global_worker.node.session_name)


def _created_groups() -> list[tuple[str, str, dict[str, float]]]:
    """(creator's job id, node id, resources) of each bundle of each placement group that holds its resources."""
    from ray._private import state
    from ray.core.generated import gcs_pb2

    accessor: Any = state.state._connect_and_get_accessor()
    held = []
    for raw in accessor.get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(raw)
        if group.state != gcs_pb2.PlacementGroupTableData.CREATED:
            continue
        for bundle in group.bundles:
            held.append((group.creator_job_id.hex(), bundle.node_id.hex(), dict(bundle.unit_resources)))
    return held
