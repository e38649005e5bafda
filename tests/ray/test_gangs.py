"""Gang admission against Ray's own view: what runs holds exactly its gang, and nothing is given twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from argus_ray.node import processes
from tests.support.raycluster import Api, Cluster, view_of_ray


def wait_for_gang(user: Api, task: str, gpus: int, ray_view: Any) -> dict[str, Any]:
    """Until the task holds so many GPUs in Ray's view; fails if it ever holds more, or any but on its own nodes."""

    def holds(view: dict[str, Any]) -> bool:
        if not view["attempts"]:
            return False
        attempt = view["attempts"][-1]
        cluster_view = view_of_ray(ray_view)
        held = cluster_view.gpus_of_job(attempt["ray_job_id"])
        assert held <= gpus
        assert cluster_view.held.get(attempt["ray_job_id"], {}).keys() <= set(attempt["nodes"])
        return held == gpus

    return user.wait(task, holds, f"holding {gpus} GPUs")


def test_a_gang_of_two_nodes_holds_both_and_nothing_else_starts(cluster: Cluster, ray_view: Any) -> None:
    user = cluster.user()
    gate = user.gate()
    big = user.submit({"wait_for_file": str(gate)}, nnodes=2, n_gpus_per_node=4)
    try:
        wait_for_gang(user, big, 8, ray_view)
        small = user.submit(n_gpus_per_node=1)
        view = user.wait_state(small, "PENDING_RESOURCES")
        assert "needs 1 node with 1 GPU" in view["reason"] and view["position"] == 1
        # What changes with each free GPU is told when somebody asks, and stored nowhere.
        assert "none has now" in user.get(f"/api/v2/tasks/{small}/explain")["summary"]
    finally:
        gate.touch()  # else it would hold the pool against every other test
    assert user.wait_final(big)["state"] == "SUCCEEDED"
    assert user.wait_final(small)["state"] == "SUCCEEDED"


def test_a_gang_that_no_node_can_hold_waits_and_holds_nobody_up(cluster: Cluster) -> None:
    user = cluster.user()
    wide = user.submit(n_gpus_per_node=8)
    view = user.wait_state(wide, "PENDING_RESOURCES")
    assert "no node has 8 GPUs" in view["reason"]
    explained = user.get(f"/api/v2/tasks/{wide}/explain")
    assert explained["position"] == 1 and "no node has 8 GPUs" in explained["reason"]
    later = user.submit(n_gpus_per_node=4)
    assert user.wait_final(later)["state"] == "SUCCEEDED"
    assert user.task(wide)["state"] == "PENDING_RESOURCES"
    user.cancel(wide)


def test_two_gangs_submitted_at_the_same_instant_never_share(cluster: Cluster, ray_view: Any) -> None:
    users = [cluster.user() for _ in range(3)]
    gates = [user.gate() for user in users]
    assert processes.wait_until(lambda: held_on_nodes(ray_view) == [], 60), "Ray takes back what was held before"
    with ThreadPoolExecutor(3) as pool:
        tasks = list(pool.map(lambda u, g: u.submit({"wait_for_file": str(g)}), users, gates))
    running: list[tuple[Api, str]] = []
    waiting: list[tuple[Api, str]] = []
    for user, task in zip(users, tasks, strict=True):
        view = user.wait_state(task, "SUBMITTED", "RUNNING", "PENDING_RESOURCES")
        (waiting if view["state"] == "PENDING_RESOURCES" else running).append((user, task))
    assert (len(running), len(waiting)) == (2, 1), "eight GPUs hold two gangs of four"
    for user, task in running:
        wait_for_gang(user, task, 4, ray_view)
    for node in view_of_ray(ray_view).nodes:
        assert node.gpus_free == 0
        assert node.cpus_free == node.cpus_total - (0 if node.is_head else 12), "exactly three CPUs a GPU"
    for gate in gates:
        gate.touch()
    for user, task in zip(users, tasks, strict=True):
        assert user.wait_final(task)["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("workload", "nnodes"), [("ppo", 1), ("sft", 2)])
def test_every_workload_holds_exactly_its_gang(cluster: Cluster, ray_view: Any, workload: str, nnodes: int) -> None:
    user = cluster.user()
    gate = user.gate()
    task = user.submit({"wait_for_file": str(gate)}, workload=workload, nnodes=nnodes, n_gpus_per_node=1)
    wait_for_gang(user, task, nnodes, ray_view)
    user.wait(task, lambda v: cluster.executions(v) == [1], "running")
    # Until then Ray may still be taking back what an earlier test held.
    expected = [(1, 3)] * nnodes
    assert processes.wait_until(lambda: held_on_nodes(ray_view) == expected, 60), held_on_nodes(ray_view)
    gate.touch()
    assert user.wait_final(task)["state"] == "SUCCEEDED"


def held_on_nodes(ray_view: Any) -> list[tuple[float, float]]:
    """GPUs and CPUs in use on each node that has some in use."""
    held = [(n.gpus_total - n.gpus_free, n.cpus_total - n.cpus_free) for n in view_of_ray(ray_view).nodes]
    return sorted(each for each in held if each != (0, 0))


def test_two_rl_tasks_have_a_transfer_queue_each(cluster: Cluster, ray_view: Any) -> None:
    """As stock verl does, the stand-in attaches to the queue that it finds by name: it must find only its own."""
    from ray.util.state import list_actors

    users = [cluster.user(), cluster.user()]
    gates = [user.gate() for user in users]
    tasks = [
        user.submit({"wait_for_file": str(gate), "transfer_queue": True}, n_gpus_per_node=1)
        for user, gate in zip(users, gates, strict=True)
    ]
    for user, task in zip(users, tasks, strict=True):
        wait_for_gang(user, task, 1, ray_view)
    alive = list_actors(
        cluster.machine.dashboard,
        filters=[("class_name", "=", "TransferQueueController"), ("state", "=", "ALIVE")],
        detail=True,
    )
    assert sorted(a.ray_namespace for a in alive) == sorted(f"transfer_queue-{task}--a01" for task in tasks)
    for gate in gates:
        gate.touch()
    for user, task in zip(users, tasks, strict=True):
        view = user.wait_final(task)
        assert view["state"] == "SUCCEEDED"
        log = Path(cluster.job_root(view) / "logs" / "driver.log").read_text()
        assert f"stand-in transfer queue of {task}--a01" in log


def test_a_burst_of_one_gpu_tasks_fills_each_node_and_no_gpu_twice(cluster: Cluster, ray_view: Any) -> None:
    """Eight tasks of one GPU on eight GPUs: all run at once, each on the node that it was assigned."""
    user = cluster.user()
    gate = user.gate()
    tasks = [user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=1) for _ in range(8)]
    try:
        for task in tasks:
            wait_for_gang(user, task, 1, ray_view)
        assert all(node.gpus_free == 0 for node in view_of_ray(ray_view).nodes)
        places = [user.task(task)["attempts"][0]["nodes"] for task in tasks]
        workers = [node.node_id for node in view_of_ray(ray_view).nodes if not node.is_head]
        assert sorted(places) == sorted([[node] for node in workers] * 4)
        explained = user.get(f"/api/v2/tasks/{tasks[0]}/explain")
        assert explained["nodes"] == places[0]
    finally:
        gate.touch()
    assert [user.wait_final(task)["state"] for task in tasks] == ["SUCCEEDED"] * 8


def test_what_somebody_runs_in_ray_beside_argus_is_seen_as_taken(cluster: Cluster, ray_view: Any) -> None:
    """And given away when it is free again."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"GPU": 3}], strategy="STRICT_PACK")
    assert group.wait(60)
    user = cluster.user()
    gate = user.gate()
    try:
        wide = user.submit({"wait_for_file": str(gate)}, nnodes=2, n_gpus_per_node=4)
        view = user.wait_state(wide, "PENDING_RESOURCES")
        assert "needs 2 nodes with 4 GPUs" in view["reason"]
        small = user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=4)
        wait_for_gang(user, small, 4, ray_view)
    finally:
        remove_placement_group(group)
        gate.touch()
    assert [user.wait_final(task)["state"] for task in (small, wide)] == ["SUCCEEDED"] * 2
