"""Submit over HTTP, run on Ray, see it end: with the stand-in verl, on a real cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from argus_ray.core.verl.command import assigned
from tests.support.raycluster import Api, Cluster


@dataclass(frozen=True)
class Sent:
    user: Api
    task: str

    def wait(self) -> dict[str, Any]:
        return self.user.wait_final(self.task)


@pytest.fixture(scope="module")
def sent(cluster: Cluster) -> dict[str, Sent]:
    """One task for each test that only looks at what becomes of it. They run side by side: the most of such a short
    run is a wait for processes that start."""

    def send(user: Api, plan: dict[str, Any], **fields: Any) -> Sent:
        return Sent(user, user.submit(plan, n_gpus_per_node=1, **fields))

    # One process: the stand-in then needs no torch for sft.
    whole = {
        workload: send(cluster.user(), {"steps": 3}, workload=workload, total_training_steps=3)
        for workload in ("ppo", "grpo", "sft")
    }
    return {
        **whole,
        "legacy": send(cluster.internal, {}),
        "fails": send(cluster.user(), {"fail": "exit1"}),
        "has no memory": send(cluster.user(), {"fail": "oom", "fail_at_step": 3}, total_training_steps=4),
    }


def test_the_service_is_ready_and_says_what_it_sees(cluster: Cluster) -> None:
    ready = cluster.http.get("/readyz")
    assert ready.status_code == 200 and set(ready.json()["parts"].values()) == {"ok"}
    nodes = cluster.admin.get("/api/v2/nodes")["nodes"]
    assert sorted((node["is_head"], node["gpus_total"]) for node in nodes) == [(False, 4), (False, 4), (True, 0)]


@pytest.mark.parametrize("workload", ["ppo", "grpo", "sft"])
def test_each_workload_runs_to_its_end(cluster: Cluster, sent: dict[str, Sent], workload: str) -> None:
    user, task = sent[workload].user, sent[workload].task
    view = sent[workload].wait()
    assert view["state"] == "SUCCEEDED", view["reason"]
    root = cluster.job_root(view)
    assert cluster.executions(view) == [1]
    assert (root / "metrics.jsonl").read_text().count('"step"') == 3
    assert (root / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert "step:3" in user.request("GET", f"/api/v2/tasks/{task}/logs").text
    assert view["progress"]["step"] == 3


def test_job_dir_written_under_user_jobs(cluster: Cluster, sent: dict[str, Sent]) -> None:
    view = sent["grpo"].wait()
    user_id = sent["grpo"].user.get("/api/v2/me")["user_id"]
    submission_id = view["attempts"][0]["submission_id"]
    expected = cluster.shared / "users" / user_id / "jobs" / submission_id
    assert cluster.job_root(view) == expected
    assert (expected / "logs" / "driver.log").exists()


def test_another_user_sees_nothing_of_it(cluster: Cluster, sent: dict[str, Sent]) -> None:
    stranger, task = cluster.user(), sent["ppo"].task
    sent["ppo"].wait()
    for path in ("", "/logs", "/logs/stream", "/spec", "/explain", "/events"):
        mine = stranger.request("GET", f"/api/v2/tasks/{task}{path}")
        nobodys = stranger.request("GET", f"/api/v2/tasks/{task[:-4]}ffff{path}")
        assert mine.status_code == nobodys.status_code == 404
        assert {**mine.json(), "instance": ""} == {**nobodys.json(), "instance": ""}
    assert stranger.request("POST", f"/api/v2/tasks/{task}:cancel").status_code == 404
    assert stranger.get("/api/v2/tasks")["tasks"] == []


def test_the_legacy_token_submits_and_sees_the_queue(cluster: Cluster, sent: dict[str, Sent]) -> None:
    assert sent["legacy"].task.startswith("argus-internal-grpo-")
    assert sent["legacy"].wait()["state"] == "SUCCEEDED"
    assert cluster.internal.request("GET", "/api/v2/queue").status_code == 200


def test_a_failing_program_is_failed_with_the_end_of_its_log(sent: dict[str, Sent]) -> None:
    view = sent["fails"].wait()
    assert view["state"] == "FAILED"
    assert "exit code 1" in view["reason"] and "stand-in: told to fail" in view["reason"]
    assert len(view["attempts"]) == 1 and view["attempts"][0]["exit_code"] == 1
    assert view["attempts"][0]["failure"]["code"] == "unknown", "a stand-in's own words are in no rule"


def test_a_failed_task_is_resubmitted_and_goes_on_where_it_was(cluster: Cluster, sent: dict[str, Sent]) -> None:
    user, task = sent["has no memory"].user, sent["has no memory"].task
    old = user.wait_final(task)
    assert old["state"] == "FAILED"
    assert old["attempts"][0]["failure"]["code"] == "gpu_out_of_memory"
    # Its user has made room.
    spec = yaml.safe_load(user.request("GET", f"/api/v2/tasks/{task}/spec").text)
    Path(spec["train_file"]).write_text(json.dumps({"steps": 4}))
    answer = user.request("POST", f"/api/v2/tasks/{task}:resubmit", json={"resume": True})
    assert answer.status_code == 201, answer.text
    view = user.wait_final(answer.json()["task_id"])
    assert view["state"] == "SUCCEEDED", view["reason"]
    assert view["resubmitted_from"] == task
    checkpoint = cluster.job_root(old) / "checkpoints" / "global_step_2"
    assert f"trainer.resume_from_path={checkpoint}" in view["attempts"][0]["command"]
    assert json.loads((cluster.job_root(view) / "executions.log").read_text())["first_step"] == 3


def test_verls_own_fit_check_sends_a_task_back_to_wait(cluster: Cluster) -> None:
    user = cluster.user()
    task = user.submit({"fail": "insufficient"}, n_gpus_per_node=1)
    view = user.wait(task, lambda v: v["attempts"] and v["attempts"][0]["outcome"] is not None, "refused")
    assert view["state"] == "PENDING_RESOURCES"
    assert "Total available GPUs 0 is less than total desired GPUs 1" in view["reason"]
    assert view["next_retry_at"] is not None
    assert view["attempts"][0]["outcome"] == "INSUFFICIENT_RESOURCES"
    user.cancel(task)
    assert user.task(task)["state"] == "CANCELED"


def test_the_live_log_is_followed_to_its_end(cluster: Cluster) -> None:
    user = cluster.user()
    task = user.submit({"steps": 4, "step_s": 0.3}, n_gpus_per_node=1)
    lines: list[str] = []
    with cluster.http.stream(
        "GET", f"/api/v2/tasks/{task}/logs/stream", headers={"Authorization": f"Bearer {user.token}"}, timeout=180
    ) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            lines.append(line)
            if line == "event: end":
                break
    view = user.task(task)
    assert view["state"] == "SUCCEEDED"
    log = (cluster.job_root(view) / "logs" / "driver.log").read_text()
    assert "step:4" in log
    streamed = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert [line for line in streamed if "step:" in line] == [line for line in log.splitlines() if "step:" in line]


def test_no_driver_and_nothing_of_a_task_runs_on_the_head(cluster: Cluster, ray_view: Any) -> None:
    from ray.util.state import list_actors, list_jobs, list_nodes

    user = cluster.user()
    gate = user.gate()
    task = user.submit({"wait_for_file": str(gate)}, nnodes=2, n_gpus_per_node=2)
    user.wait(task, lambda v: (_log_of(cluster, v)).exists(), "running")
    # Named, since the search for "the" cluster of this machine finds every GCS that runs on it.
    address = cluster.machine.dashboard
    (head,) = [node.node_id for node in list_nodes(address) if node.is_head_node]
    job = user.wait(task, lambda v: v["attempts"][0]["ray_job_id"] is not None, "attached to Ray")["attempts"][0]
    (entry,) = [j for j in list_jobs(address, detail=True) if j.submission_id == job["submission_id"]]
    assert entry.driver_node_id != head
    assert assigned(entry.runtime_env["env_vars"]) == tuple(job["nodes"]), "Ray tells where it was given to"
    on_head = [actor for actor in list_actors(address, detail=True, limit=1000) if actor.node_id == head]
    assert not [actor.class_name for actor in on_head if actor.job_id == job["ray_job_id"]]
    supervisors = [actor for actor in on_head if "JobSupervisor" in actor.class_name]
    assert supervisors == []
    gate.touch()
    assert user.wait_final(task)["state"] == "SUCCEEDED"


def _log_of(cluster: Cluster, view: dict[str, Any]) -> Path:
    if not view["attempts"]:
        return Path("/nonexistent")
    return cluster.job_root(view) / "executions.log"
