"""Argus's look at the cluster against Ray's own: what groups hold, by job and node, whatever history there is."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

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


def test_prometheus_and_the_page_of_the_cluster_are_told_the_same_through_serve(cluster: Cluster) -> None:
    """Through HAProxy and a replica, from the real actors: what each tells, and what Ray shows of the pool."""
    seen: list[dict[tuple[str, ...], float]] = []

    def is_whole() -> bool:
        answer = cluster.admin.patiently("GET", "/metrics")
        assert answer.status_code == 200, answer.text
        families = text_string_to_metric_families(answer.text)
        samples = (sample for family in families for sample in family.samples)
        seen.append({(sample.name, *sample.labels.values()): sample.value for sample in samples})
        parts = [value for key, value in seen[-1].items() if key[0] == "argus_part_ready"]
        return len(parts) == 4 and all(parts) and ("argus_gpus", "total") in seen[-1]

    # What the modules before have killed may be on its way back; and a look is kept for five seconds.
    assert processes.wait_until(is_whole, 60, 1), seen[-1]
    told = seen[-1]
    assert told["argus_gpus", "total"] == 8 and told["argus_nodes", "ready"] == 2
    assert told[("argus_epoch",)] >= 1 and told[("argus_store_bytes",)] > 0
    assert 0 <= told[("argus_scheduler_last_tick_age_seconds",)] < 60
    assert 0 <= told[("argus_head_file_age_seconds",)] <= told[("argus_head_file_ttl_seconds",)]
    assert sum(value for key, value in told.items() if key[0] == "argus_scheduler_tick_seconds_count") > 0
    page = cluster.admin.get("/api/v2/cluster")
    assert page["gpus"]["total"] == 8 and page["nodes"]["ready"] == 2
    assert page["head_file"]["epoch"] == told[("argus_epoch",)] and page["last_tick_age_s"] < 60
    user = cluster.admin.new_user("scraper")
    assert user.request("GET", "/metrics").status_code == user.request("GET", "/api/v2/cluster").status_code == 403
    assert cluster.http.get("/metrics").status_code == 401
