"""Whether a gang that runs was given what it was assigned. Pure.

verl waits for ever for a placement group that finds no room: somebody uses Ray beside Argus, say. Such a run goes back
to its place, and the node that has no room for it is named.
"""

from __future__ import annotations

from argus_ray.core.lifecycle import Halt
from argus_ray.core.model import ClusterView, Gang, Share, SlimAttempt
from argus_ray.core.states import AttemptState, Outcome


def check_claim(attempt: SlimAttempt, gang: Gang, view: ClusterView, ran_s: float, after_s: float) -> Halt | None:
    """What to do about an attempt that has made no step. None also while its nodes have room for it: then it has other
    things to do before it asks. `ran_s`: for how long the caller itself has seen it run. `after_s`: seconds of that; 0:
    nobody looks."""
    if after_s <= 0 or attempt.state is not AttemptState.RUNNING or attempt.stop_reason is not None:
        return None
    if ran_s < after_s:
        return None
    held = view.held.get(attempt.ray_job_id or "", {})
    nodes = {node.node_id: node for node in view.nodes}
    for name in attempt.nodes:
        node, share = nodes.get(name), held.get(name, Share())
        if node is None:
            continue  # told elsewhere
        gpus, cpus = gang.gpus_per_node - share.gpus, gang.cpus_per_node - share.cpus
        if node.gpus_free < gpus or node.cpus_free < cpus:
            where = f"the node {name} ({node.ip}) has {node.gpus_free:g} GPUs and {node.cpus_free:g} CPUs free"
            why = f"its gang was not placed in {ran_s:.0f} s: {where}, and it needs"
            return Halt(attempt.submission_id, f"{why} {gpus:g} and {cpus:g} there", Outcome.INSUFFICIENT_RESOURCES)
    return None
