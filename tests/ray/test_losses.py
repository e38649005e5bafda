"""Kills: of a worker, of the state actor, of the scheduler. Real SIGKILL, real Ray."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from typing import Any

import pytest

from argus_ray.actors import detached
from argus_ray.node import processes
from tests.support.raycluster import PATIENCE_S, Cluster


def test_a_killed_worker_gives_the_task_a_second_attempt_that_resumes(cluster: Cluster) -> None:
    """The worker of the driver loses power; the task goes back to its place and runs elsewhere, from the newest
    checkpoint that is whole: the last one was torn by the loss."""
    user = cluster.user()
    gate = user.gate()
    plan = {"steps": 4, "wait_for_file": str(gate), "wait_at_step": 4}
    task = user.submit(plan, n_gpus_per_node=1, total_training_steps=4)
    view = user.wait(
        task,
        lambda v: bool(v["attempts"]) and cluster.saved(v) == 3 and v["attempts"][0]["node_ip"] is not None,
        "running, with three steps saved",
    )
    checkpoints = cluster.job_root(view) / "checkpoints"
    (torn,) = (checkpoints / "global_step_3").rglob("optim_world_size_1_rank_0.pt")
    os.truncate(torn, torn.stat().st_size - 1)
    victim = cluster.machine.worker_at(view["attempts"][0]["node_ip"])
    cluster.machine.end_worker(victim)
    try:
        view = user.wait(task, lambda v: v["attempts"][0]["outcome"] is not None, "lost")
        assert view["attempts"][0]["outcome"] == "INFRASTRUCTURE", view
        gate.touch()
        view = user.wait_final(task)
    finally:
        cluster.machine.start_worker(victim)
        cluster.machine.wait_for_worker(victim)
    assert view["state"] == "SUCCEEDED"
    assert [attempt["submission_id"][-3:] for attempt in view["attempts"]] == ["a01", "a02"]
    assert cluster.executions(view) == [1, 1]
    assert f"trainer.resume_from_path={checkpoints}/global_step_2" in view["attempts"][1]["command"]
    log = json.loads((cluster.job_root(view) / "executions.log").read_text())
    assert log["first_step"] == 3, "verl's side of it"
    assert sorted(path.name for path in (cluster.job_root(view) / "checkpoints").glob("global_step_*")) == [
        "global_step_3",
        "global_step_4",
    ], "what is new lies in its own job root"
    assert not (checkpoints / "global_step_4").exists()
    events = user.get(f"/api/v2/tasks/{task}/events")["events"]
    assert "a02 resumes from step 2 of a01" in [event["message"] for event in events]


@pytest.mark.timeout(900)
def test_kill_the_scheduler_and_the_state_actor_twenty_times_each(cluster: Cluster, ray_view: Any) -> None:
    """While 30 tasks go through: each runs exactly once, none is lost, none is stuck. Now one is away, now both are."""
    kills = {detached.STATE: 20, detached.SCHEDULER: 20}
    finished = threading.Event()

    def kill_at_random(name: str) -> None:
        rng = random.Random(name)
        while kills[name] and not finished.is_set():
            if _kill(ray_view, name):
                kills[name] -= 1
            finished.wait(rng.uniform(0.0, 0.5))

    killers = [threading.Thread(target=kill_at_random, args=(name,)) for name in kills]
    for killer in killers:
        killer.start()
    user = cluster.user()
    tasks = []
    try:
        for i in range(30):
            tasks.append(user.submit({"steps": 1}, key=f"kill-{i}", n_gpus_per_node=1))
        for killer in killers:
            killer.join(600)
        assert kills == {detached.STATE: 0, detached.SCHEDULER: 0}
        views = [user.wait_final(task) for task in tasks]
    finally:
        finished.set()
        for killer in killers:
            killer.join(30)
    assert [view["state"] for view in views] == ["SUCCEEDED"] * 30
    assert [cluster.executions(view) for view in views] == [[1]] * 30
    assert len(set(tasks)) == 30
    (head,) = [node["node_id"] for node in cluster.admin.get("/api/v2/nodes")["nodes"] if node["is_head"]]
    assert head not in {view["attempts"][0]["node_id"] for view in views}, "no driver ever runs on the head"
    assert user.submit({"steps": 1}, key="kill-0", n_gpus_per_node=1) == tasks[0], "the key is known after all restarts"


def _kill(ray_view: Any, name: str) -> bool:
    """SIGKILL of the actor's process, once it is up; False if it was not."""
    try:
        actor = ray_view.get_actor(name, namespace=detached.NAMESPACE)
        os.kill(ray_view.get(actor.pid.remote(), timeout=PATIENCE_S), signal.SIGKILL)
    except (ray_view.exceptions.RayError, ValueError, ProcessLookupError):
        return False
    return True


#: What serve_config.yaml says, and what it says after the redeploy.
_OTHER_SETTINGS = {
    "stall_after_s: 1800": "stall_after_s: 2",
    "pass_every_s: 3600": "pass_every_s: 1",
    "trash_after_days: 0 ": "trash_after_days: 0.00001 ",
    "running_gpus_per_user: 0 ": "running_gpus_per_user: 4 ",
    "fair_share: false ": "fair_share: true ",
}


def test_accepted_tasks_survive_a_redeploy_with_other_settings(cluster: Cluster, ray_view: Any) -> None:
    """`serve deploy` with a changed file: the detached actors are replaced, and what runs goes on. The new settings
    hold: what makes no step is said to stall, and the files of what has ended go to the trash."""
    user = cluster.user()
    gate = user.gate()
    ended = user.wait_final(user.submit(n_gpus_per_node=1))
    running = user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=1)
    user.wait(running, lambda v: bool(v["attempts"]) and cluster.executions(v) == [1], "running")
    waiting = user.submit(n_gpus_per_node=8)
    user.wait_state(waiting, "PENDING_RESOURCES")
    before = _versions(ray_view)
    config = cluster.machine.root / "serve_config.yaml"
    text = config.read_text()
    other = text
    for old, new in _OTHER_SETTINGS.items():
        assert old in other
        other = other.replace(old, new)
    try:
        config.write_text(other)
        cluster.machine.deploy(config)
        assert processes.wait_until(lambda: _versions(ray_view) not in (before, {}), PATIENCE_S)
        after = _versions(ray_view)
        assert len(set(after.values())) == 1, "both actors carry the new version"
        assert user.task(waiting)["state"] == "PENDING_RESOURCES"
        view = user.wait(running, lambda v: v["stalled_since"] is not None, "stalled")
        assert view["state"] == "RUNNING" and view["stalled_why"]
        view = user.wait(ended["task_id"], lambda v: v["files_at"] == "TRASH", "in the trash")
        name = cluster.job_root(ended).name
        assert not cluster.job_root(ended).exists()
        assert list((cluster.shared / "users" / ended["user_id"] / "trash").rglob(name))
        held = user.submit(n_gpus_per_node=4)
        explained = user.wait_explained(held, "may hold 4 GPUs at a time")
        assert (explained["gpus_held"], explained["gpus_quota"]) == (1, 4) and explained["recent_gpu_hours"] > 0
        somebody = cluster.user()
        assert somebody.wait_final(somebody.submit(n_gpus_per_node=4))["state"] == "SUCCEEDED", "nobody else's quota"
        assert cluster.executions(user.task(running)) == [1]
        gate.touch()
        view = user.wait_final(running)
        # Its files have perhaps gone to the trash by now.
        assert view["state"] == "SUCCEEDED" and len(view["attempts"]) == 1
        assert user.wait_final(held)["state"] == "SUCCEEDED"
        user.cancel(waiting)
    finally:
        gate.touch()
        config.write_text(text)
        cluster.machine.deploy(config)
        processes.wait_until(lambda: _versions(ray_view) == before, PATIENCE_S)
        cluster.machine.wait_for_service()  # its replicas are replaced, too


def _versions(ray_view: Any) -> dict[str, str]:
    found = {}
    for name in (detached.STATE, detached.SCHEDULER):
        try:
            actor = ray_view.get_actor(name, namespace=detached.NAMESPACE)
            found[name] = ray_view.get(actor.fingerprint.remote(), timeout=30)
        except (ray_view.exceptions.RayError, ValueError):
            return {}
    return found
