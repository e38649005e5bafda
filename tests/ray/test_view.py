"""Argus's look at the cluster against Ray's own: what groups hold, by job and node, whatever history there is."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from argus_ray.core.model import Share
from argus_ray.node import processes
from tests.support.raycluster import Cluster, view_of_ray

#: Groups that were made and are gone again.
COUNT = 10_000 if os.environ.get("ARGUS_LONG") == "1" else 1_000


def test_what_groups_hold_is_seen_by_node_and_job_and_costs_nothing_once_they_are_gone(
    cluster: Cluster, ray_view: Any
) -> None:
    """Ray keeps each group that was ever made in a table; a thousand of them made a look take fifteen times as long."""
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    job = ray_view.get_runtime_context().get_job_id()

    def look_s() -> float:
        begun = time.perf_counter()
        view_of_ray(ray_view)
        return time.perf_counter() - begun

    before = statistics.median(look_s() for _ in range(20))
    pack = placement_group([{"GPU": 1, "CPU": 3}] * 2, strategy="STRICT_PACK")
    spread = placement_group([{"GPU": 1, "CPU": 1}] * 2, strategy="STRICT_SPREAD")
    assert pack.wait(60) and spread.wait(60)
    table = placement_group_table(pack)["bundles_to_node_id"]
    others = set(placement_group_table(spread)["bundles_to_node_id"].values())
    expected = {node: Share(1, 1) + (Share(2, 6) if node == table[0] else Share()) for node in others}
    assert processes.wait_until(lambda: view_of_ray(ray_view).held.get(job) == expected, 30), view_of_ray(ray_view)
    shown = {node.node_id: (node.gpus_total - node.gpus_free) for node in view_of_ray(ray_view).nodes}
    assert {node: shown[node] for node in others} == {node: share.gpus for node, share in expected.items()}

    for group in (pack, spread):
        remove_placement_group(group)
    for _ in range(COUNT // 50):
        groups = [placement_group([{"CPU": 0.01}]) for _ in range(50)]
        for group in groups:
            remove_placement_group(group)
    assert processes.wait_until(lambda: job not in view_of_ray(ray_view).held, 60)
    after = statistics.median(look_s() for _ in range(20))
    print(f"\na look takes {before * 1e3:.1f} ms, and {after * 1e3:.1f} ms after {COUNT} groups")
    assert len(placement_group_table()) > COUNT, "Ray itself remembers them"
