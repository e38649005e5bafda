"""What operators order, on real Ray: a cordoned machine gets no gang, and in maintenance nothing starts."""

from __future__ import annotations

from typing import Any

from tests.support.raycluster import Cluster


def workers(cluster: Cluster) -> list[dict[str, Any]]:
    return [node for node in cluster.admin.get("/api/v2/nodes")["nodes"] if not node["is_head"]]


def test_a_cordoned_node_gets_nothing_until_it_is_uncordoned(cluster: Cluster) -> None:
    user, admin = cluster.user(), cluster.admin
    first, *_ = workers(cluster)
    name = first["node_id"]
    assert admin.request("POST", f"/api/v2/nodes/{name}:cordon", json={"reason": "a fan"}).status_code == 200
    try:
        views = [user.wait_final(user.submit(n_gpus_per_node=4)) for _ in range(3)]
        assert {view["state"] for view in views} == {"SUCCEEDED"}
        assert name not in {node for view in views for attempt in view["attempts"] for node in attempt["nodes"]}
        (shown,) = [node for node in workers(cluster) if node["node_id"] == name]
        assert "a fan" in shown["barred"] and shown["cordon"]["state"] == "cordoned"
    finally:
        assert admin.request("POST", f"/api/v2/nodes/{name}:uncordon").status_code == 200
    both = user.wait_final(user.submit(n_gpus_per_node=4, nnodes=2))
    assert both["state"] == "SUCCEEDED" and name in both["attempts"][0]["nodes"]


def test_in_maintenance_what_comes_is_accepted_and_starts_when_it_is_over(cluster: Cluster) -> None:
    user, admin = cluster.user(), cluster.admin
    assert admin.request("PUT", "/api/v2/maintenance", json={"on": True, "reason": "a switch"}).status_code == 200
    try:
        task = user.submit(n_gpus_per_node=1)
        explained = user.get(f"/api/v2/tasks/{task}/explain")
        assert "a switch" in explained["summary"] and user.task(task)["attempts"] == []
    finally:
        assert admin.request("PUT", "/api/v2/maintenance", json={"on": False}).status_code == 200
    assert user.wait_final(task)["state"] == "SUCCEEDED"
