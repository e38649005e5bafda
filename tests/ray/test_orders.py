"""What operators order, on real Ray: a cordoned machine gets no gang, and in maintenance nothing starts."""

from __future__ import annotations

import json
from typing import Any

import yaml

from argus_ray.node import processes
from tests.support.raycluster import PATIENCE_S, Cluster


def workers(cluster: Cluster) -> list[dict[str, Any]]:
    return [node for node in cluster.admin.get("/api/v2/nodes")["nodes"] if not node["is_head"]]


def test_a_cordoned_node_gets_nothing_until_it_is_uncordoned(cluster: Cluster) -> None:
    user, admin = cluster.user(), cluster.admin
    first, *_ = workers(cluster)
    name = first["node_id"]
    assert admin.patiently("POST", f"/api/v2/nodes/{name}:cordon", json={"reason": "a fan"}).status_code == 200
    try:
        views = [user.wait_final(user.submit(n_gpus_per_node=4)) for _ in range(3)]
        assert {view["state"] for view in views} == {"SUCCEEDED"}
        assert name not in {node for view in views for attempt in view["attempts"] for node in attempt["nodes"]}
        (shown,) = [node for node in workers(cluster) if node["node_id"] == name]
        assert "a fan" in shown["barred"] and shown["cordon"]["state"] == "cordoned"
    finally:
        assert admin.patiently("POST", f"/api/v2/nodes/{name}:uncordon").status_code == 200
    both = user.wait_final(user.submit(n_gpus_per_node=4, nnodes=2))
    assert both["state"] == "SUCCEEDED" and name in both["attempts"][0]["nodes"]


def test_in_maintenance_what_comes_is_accepted_and_starts_when_it_is_over(cluster: Cluster) -> None:
    user, admin = cluster.user(), cluster.admin
    assert admin.patiently("PUT", "/api/v2/maintenance", json={"on": True, "reason": "a switch"}).status_code == 200
    try:
        task = user.submit(n_gpus_per_node=1)
        explained = user.get(f"/api/v2/tasks/{task}/explain")
        assert "a switch" in explained["summary"] and user.task(task)["attempts"] == []
    finally:
        assert admin.patiently("PUT", "/api/v2/maintenance", json={"on": False}).status_code == 200
    assert user.wait_final(task)["state"] == "SUCCEEDED"


def test_what_runs_on_a_drained_node_goes_on_elsewhere_once_the_time_is_over(cluster: Cluster) -> None:
    user, admin = cluster.user(), cluster.admin
    gate = user.gate()
    plan = {"wait_for_file": str(gate), "wait_at_step": 4}
    task = user.submit(plan, n_gpus_per_node=4, total_training_steps=6)
    view = user.wait(task, lambda v: bool(v["attempts"]) and cluster.saved(v) == 3, "running, with three steps saved")
    (name,) = view["attempts"][0]["nodes"]
    order = {"reason": "a new disk", "deadline_s": 1}
    assert admin.patiently("POST", f"/api/v2/nodes/{name}:drain", json=order).status_code == 200
    try:
        view = user.wait(task, lambda v: len(v["attempts"]) == 2 and v["state"] == "RUNNING", "in its second attempt")
        gate.touch()
        view = user.wait_final(task)
        (shown,) = [node for node in workers(cluster) if node["node_id"] == name]
        assert shown["cordon"]["state"] == "drained" and shown["cordon"]["tasks"] == []
    finally:
        gate.touch()
        assert admin.patiently("POST", f"/api/v2/nodes/{name}:uncordon").status_code == 200
    assert view["state"] == "SUCCEEDED" and cluster.executions(view) == [1, 1]
    first, second = view["attempts"]
    assert name not in second["nodes"] and first["outcome"] != "SUCCEEDED"
    log = json.loads((cluster.job_root(view) / "executions.log").read_text())
    assert log["first_step"] == 4, "from its last checkpoint"


def test_settings_with_a_mistake_are_refused_and_what_runs_goes_on_with_the_old_ones(cluster: Cluster) -> None:
    machine, user = cluster.machine, cluster.user()
    good = machine.root / "serve_config.yaml"
    settings = yaml.safe_load(good.read_text())
    args = settings["applications"][0]["args"]
    args["limits"]["tokens_per_user"] = 1
    args["verl"] = {"presets": {"long": {"data.max_respnse_length": 1}}, "selectable": ["lng"]}
    bad = machine.root / "mistake.yaml"
    bad.write_text(yaml.safe_dump(settings))

    def application() -> dict[str, Any]:
        token = (machine.root / "ray-token").read_text()
        answer = cluster.http.get(
            f"{machine.dashboard}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
        )
        found: dict[str, Any] = answer.json()["applications"]["argus"]
        return found

    def replicas() -> set[str]:
        return {each["replica_id"] for each in application()["deployments"]["gateway"]["replicas"]}

    assert processes.wait_until(lambda: application()["status"] == "RUNNING", PATIENCE_S, 0.3)
    before = replicas()
    machine.deploy(bad)
    try:
        assert processes.wait_until(lambda: application()["status"] == "DEPLOY_FAILED", PATIENCE_S, 0.3)
        said = application()["message"]
        assert "data.max_respnse_length: is not a key of verl 0.9.1; did you mean data.max_response_length?" in said
        assert "verl.selectable.0: lng is not one of verl.presets" in said
        assert user.wait_final(user.submit(n_gpus_per_node=1))["state"] == "SUCCEEDED"
        token = cluster.admin.request("POST", f"/api/v2/users/user-{cluster.users}/tokens")
        assert token.status_code == 201, "a second one: the limit is still the old one"
        assert replicas() == before
    finally:
        machine.deploy(good)
    assert processes.wait_until(lambda: application()["status"] == "RUNNING", PATIENCE_S, 0.3)
    machine.wait_for_service()
