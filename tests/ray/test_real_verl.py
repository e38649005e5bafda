"""Real verl on the CPU through the whole of Argus: HTTP, queue, Ray Jobs, checkpoints. Minutes on two cores."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from raycluster import ROOT, Api, Cluster

from argus_ray.checkpoints import newest_complete
from argus_ray.core import taskspec, verl
from argus_ray.node import processes

pytestmark = [
    pytest.mark.verl,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("torch", "verl")),
        reason="torch and verl are not installed (pip install 'argus-ray[verl]')",
    ),
]


@pytest.fixture(scope="module")
def common(cluster: Cluster) -> Path:
    """A tiny model and a data set of one-digit additions; no `code_path` of a user's own."""
    folder = cluster.shared / "common"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_tiny.py", folder], check=True, timeout=300)
    (folder / "code" / "none").mkdir(parents=True, exist_ok=True)
    return folder


def submit(user: Api, common: Path, workload: str, steps: int, **fields: Any) -> str:
    data = common / "datasets" / "add"
    kind = "sft" if workload == "sft" else "rl"
    return user.submit(
        workload=workload,
        code_path=str(common / "code" / "none"),
        model_id=str(common / "models" / "tiny"),
        train_file=str(data / f"{kind}_train.parquet"),
        val_file=str(data / f"{kind}_val.parquet"),
        n_gpus_per_node=1,
        total_epochs=2,
        total_training_steps=steps,
        save_freq=steps,
        **fields,
    )


def metric(root: Path, key: str) -> list[float]:
    lines = (root / "metrics.jsonl").read_text().splitlines()
    return [entry["data"][key] for entry in map(json.loads, lines) if key in entry["data"]]


def wait_long(user: Api, task: str, minutes: float = 15) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def ended() -> bool:
        seen.append(user.task(task))
        return seen[-1]["state"] in ("SUCCEEDED", "FAILED", "CANCELED")

    assert processes.wait_until(ended, minutes * 60, 1.0), seen[-1]
    assert seen[-1]["state"] == "SUCCEEDED", seen[-1]["reason"]
    return seen[-1]


def test_a_real_sft_run_learns_and_leaves_its_checkpoint(cluster: Cluster, common: Path) -> None:
    user = cluster.user()
    view = wait_long(user, submit(user, common, "sft", 50))
    root = cluster.job_root(view)
    losses = metric(root, "train/loss")
    assert len(losses) == 50
    assert losses[-1] < losses[0] / 2, "on this task the loss falls by half within 50 steps"
    assert (root / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "50"
    assert list((root / "checkpoints" / "global_step_50").iterdir())
    assert root == cluster.shared / "users" / view["user_id"] / "jobs" / f"{view['task_id']}--a01"
    assert "train/loss" in user.request("GET", f"/api/v2/tasks/{view['task_id']}/logs").text
    assert view["progress"]["step"] == 50
    curves = user.request("GET", f"/api/v2/tasks/{view['task_id']}/metrics").json()["curves"]
    assert curves["train/loss"]["values"] == losses and curves["val/loss"]["steps"][-1] == 50
    _resume(cluster, user, view, steps=53)


def _resume(cluster: Cluster, user: Api, view: dict[str, Any], steps: int) -> None:
    """The same run with more steps, from its own checkpoint: the one at the end of an epoch (800 rows, 16 a step), from
    which stock verl would train nothing. By torchrun, since what is asked is verl's side of it."""
    found = newest_complete([str(cluster.job_root(view))], "sft", 1)
    assert found is not None and found.step == 50, "what real verl writes is complete"
    text = user.request("GET", f"/api/v2/tasks/{view['task_id']}/spec").text
    spec = taskspec.parse(text, shared_root=str(cluster.shared), resolve=str)
    spec = spec.model_copy(update={"total_training_steps": steps, "save_freq": steps})
    site = verl.Site(str(cluster.shared), str(ROOT / "argus_ray" / "payload"), sys.executable, stop_grace_s=30)
    root = cluster.machine.root / "resumed"
    root.mkdir()
    launch = verl.launch(spec, site, submission_id="resumed", job_root=str(root), resume_from=found.path)
    overrides = launch.command[launch.command.index("--") + 1 :]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command = [*torchrun, "-m", "verl.trainer.sft_trainer", *overrides]
    subprocess.run(command, env={**os.environ, **launch.env}, cwd=root, check=True, timeout=300)
    assert [json.loads(line)["step"] for line in (root / "metrics.jsonl").read_text().splitlines()][:3] == [51, 52, 53]
    again = newest_complete([str(cluster.job_root(view)), str(root)], "sft", 1)
    assert again is not None and (again.step, again.job_root) == (steps, str(root))


def test_two_real_grpo_tasks_at_once_have_a_queue_each(cluster: Cluster, common: Path, ray_view: Any) -> None:
    """In stock verl the second attaches to the first one's TransferQueue and hangs when that one ends."""
    from ray.util.state import list_actors

    filler = cluster.user()
    gate = filler.gate()
    # One GPU is left on each worker, so the two tasks run on different ones.
    fillers = [filler.submit({"wait_for_file": str(gate)}, n_gpus_per_node=3) for _ in range(2)]
    for task in fillers:
        filler.wait(task, lambda v: bool(v["attempts"]) and cluster.executions(v) == [1], "running")
    users = [cluster.user(), cluster.user()]
    tasks = [submit(user, common, "grpo", 2) for user in users]
    namespaces = {f"transfer_queue-{task}--a01": task for task in tasks}
    owners: dict[str, set[str]] = {}
    gpu_nodes: dict[str, set[str]] = {}
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        for actor in list_actors(cluster.machine.dashboard, detail=True, limit=10_000, timeout=60):
            if actor.class_name == "TransferQueueController" and actor.ray_namespace:
                owners.setdefault(actor.ray_namespace, set()).add(actor.job_id)
            if actor.placement_group_id and actor.node_id:
                gpu_nodes.setdefault(actor.job_id, set()).add(actor.node_id)
        views = [user.task(task) for user, task in zip(users, tasks, strict=True)]
        if all(view["state"] in ("SUCCEEDED", "FAILED") for view in views):
            break
        time.sleep(2)
    gate.touch()
    assert [view["state"] for view in views] == ["SUCCEEDED", "SUCCEEDED"], [view["reason"] for view in views]
    # Each queue was made by the task of its name, and no queue is shared or nameless.
    jobs = {view["task_id"]: {view["attempts"][0]["ray_job_id"]} for view in views}
    assert {namespace: owners.get(namespace) for namespace in namespaces} == {
        namespace: jobs[task] for namespace, task in namespaces.items()
    }
    assert "transfer_queue" not in owners, "nobody uses verl's shared namespace"
    first, second = (gpu_nodes[view["attempts"][0]["ray_job_id"]] for view in views)
    assert len(first) == len(second) == 1 and first != second, "each on a worker of its own"
    for view in views:
        root = cluster.job_root(view)
        assert len(metric(root, "actor/loss")) == 2 or len(metric(root, "actor/pg_loss")) == 2
        assert (root / "checkpoints" / "global_step_2" / "actor").is_dir()
    for task in fillers:
        assert filler.wait_final(task)["state"] == "SUCCEEDED"
