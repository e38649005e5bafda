"""Real verl on the CPU through the whole of Argus: HTTP, queue, Ray Jobs, checkpoints. Minutes on two cores."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from argus_ray.core import paths, taskspec
from argus_ray.core.verl import command as verl
from argus_ray.core.verl.tracking import Tracking
from argus_ray.disk.checkpoints import newest_complete
from argus_ray.node import processes
from tests.support import shadows
from tests.support.raycluster import FINAL, ROOT, Api, Cluster, view_of_ray
from tests.support.realverl import (
    attacks_in,
    curves,
    differences,
    make_attacks,
    make_inputs,
    metric,
    needs_verl,
    own_inputs,
    wait_long,
)
from tests.support.wandbfile import runs_in

pytestmark = [pytest.mark.verl, pytest.mark.timeout(1500), needs_verl]


#: Of each workload, what its example came to when nothing ran beside it.
Alone = dict[str, dict[str, dict[int, float]]]


long = pytest.mark.skipif(os.environ.get("ARGUS_LONG") != "1", reason="takes minutes: ARGUS_LONG=1")


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Alone:
    make_inputs(cluster.shared)
    # The code of all runs here: verl, torchrun and Ray start beside them, and train as if they were not there.
    shadows.put(cluster.shared / "common" / "code" / "verl")
    return {}


@pytest.fixture(scope="module")
def attacks(cluster: Cluster, alone: Alone) -> dict[str, str]:
    """Of grpo and ppo, as the fields of a TaskSpec: their model writes answers that make files where they are run."""
    return make_attacks(cluster.shared)


def test_a_real_sft_run_learns_and_leaves_its_checkpoint(cluster: Cluster, alone: Alone) -> None:
    user = cluster.user()
    own = own_inputs(cluster.shared, f"user-{cluster.users}")
    view = wait_long(user, user.submit_example("cpu-sft", **own))
    assert all(path in " ".join(view["attempts"][0]["command"]) for path in own.values()), "it trained from its own"
    root = cluster.job_root(view)
    losses = metric(root, "train/loss")
    print(f"\nsft: train/loss {losses[0]:.3f} at step 1, {losses[-1]:.3f} at step 50")
    assert len(losses) == 50
    assert losses[-1] < losses[0] / 2, "on this task the loss falls by half"
    assert (root / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "50"
    assert list((root / "checkpoints" / "global_step_50").iterdir())
    assert list((root / "tensorboard").glob("events.out.tfevents.*"))
    assert root == cluster.shared / "users" / view["user_id"] / "jobs" / f"{view['task_id']}--a01"
    assert "train/loss" in user.request("GET", f"/api/v2/tasks/{view['task_id']}/logs").text
    assert view["progress"]["step"] == 50
    alone["sft"] = curves(user, view["task_id"])
    assert list(alone["sft"]["train/loss"].values()) == losses
    assert max(alone["sft"]["val/loss"]) == 50
    _export(cluster, user, view)
    # The end of an epoch (800 rows, 16 a step), from which stock verl would train nothing.
    assert _steps_when_resumed(cluster, user, view, "more", total=53) == [51, 52, 53]
    # It has all that it shall have; stock verl would train one step more.
    assert _steps_when_resumed(cluster, user, view, "none", total=50) == []


def _export(cluster: Cluster, user: Api, view: dict[str, Any]) -> None:
    """Of its newest checkpoint, by a job of Ray's on a worker: whole, and of the trained model."""
    import torch
    from safetensors.torch import load_file

    answer = user.request("POST", f"/api/v2/tasks/{view['task_id']}:export")
    assert (answer.status_code, answer.json()["step"]) == (201, 50), answer.text
    made = wait_long(user, answer.json()["task_id"])
    (shown,) = user.get(f"/api/v2/tasks/{view['task_id']}")["exports"]
    assert shown == made["export"] and shown["path"] == f"{made['attempts'][0]['job_root']}/export"
    assert made["attempts"][0]["nodes"] == [made["attempts"][0]["node_id"]], "it ran where it was assigned to"
    weights = load_file(f"{shown['path']}/model.safetensors")
    shard = cluster.job_root(view) / "checkpoints" / "global_step_50" / "model_world_size_1_rank_0.pt"
    trained = torch.load(shard, weights_only=False)
    assert trained.keys() - weights.keys() <= {"lm_head.weight"}, "which is tied"
    for name, weight in weights.items():
        wanted = getattr(trained[name], "_local_tensor", trained[name])
        assert torch.equal(weight, wanted.bfloat16()), name


def _steps_when_resumed(cluster: Cluster, user: Api, view: dict[str, Any], name: str, total: int) -> list[int]:
    """Those of the same run from its own checkpoint of step 50. By torchrun, since what is asked is verl's side of
    it."""
    found = newest_complete([str(cluster.job_root(view))], "sft", 1)
    assert found is not None and found.step == 50, "what real verl writes is complete"
    text = user.request("GET", f"/api/v2/tasks/{view['task_id']}/spec").text
    spec = taskspec.parse(text, shared_root=str(cluster.shared), own_user=view["user_id"])
    # More epochs than it had: what is left is a question of steps.
    changes = {"total_training_steps": total, "total_epochs": spec.total_epochs + 1, "save_freq": total}
    spec = spec.model_copy(update=changes)
    site = verl.Site(
        str(cluster.shared),
        str(ROOT / "argus_ray" / "payload"),
        sys.executable,
        stop_grace_s=30,
        log_bytes=1 << 30,
        tracking=Tracking("{user}-{workload}", "offline", "https://api.wandb.ai"),
    )
    attempt = f"{view['task_id']}-{name}--a02"
    root = Path(paths.job_root(str(cluster.machine.root / "resumed"), view["user_id"], attempt))
    root.mkdir(parents=True)
    launch = verl.launch(spec, site, submission_id=attempt, job_root=str(root), resume_from=found.path)
    overrides = launch.command[launch.command.index("--") + 1 :]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command = [*torchrun, "-m", "verl.trainer.sft_trainer", *overrides]
    subprocess.run(command, env={**os.environ, **launch.env}, cwd=root, check=True, timeout=300)
    file = root / "metrics.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    steps = [entry["step"] for entry in entries if "train/loss" in entry["data"]]
    (kept,) = runs_in(root)
    assert (kept.project, kept.run_id) == (f"{view['user_id']}-sft", attempt.removesuffix("--a02"))
    tracked = [(entry["step"], entry["data"]["train/loss"]) for entry in entries if "train/loss" in entry["data"]]
    assert kept.of("trainer/global_step", "train/loss") == tracked, "W&B has what verl's own file has"
    newest = newest_complete([found.job_root, str(root)], "sft", 1)
    assert newest is not None and (newest.step, newest.job_root) == (total, str(root) if steps else found.job_root)
    return steps


#: What a researcher changes first, and what comes to lie behind the same name while the run is under way.
_SHORT = {
    "actor_rollout_ref.rollout.n": 2,
    "data.max_response_length": 6,
    "actor_rollout_ref.actor.optim.lr": 0.0005,
}
_CHANGED = {
    "actor_rollout_ref.rollout.n": 3,
    "data.max_response_length": 4,
    "actor_rollout_ref.actor.optim.lr": 0.25,
    "data.train_batch_size": 16,
}


def test_a_preset_is_what_is_trained_whatever_the_configuration_says_later_and_whatever_dies(
    cluster: Cluster, alone: Alone, attacks: dict[str, str]
) -> None:
    _deploy(cluster, {"presets": {"short": _SHORT}, "selectable": ["short"]})
    user = cluster.user()
    task = user.submit_example("cpu-grpo", presets=["short"], **attacks)
    accepted = user.task(task)
    assert {each["key"]: each["value"] for each in accepted["settings"] if each["source"] == "preset short"} == _SHORT

    def has_begun(view: dict[str, Any]) -> bool:
        if view["state"] != "RUNNING" or view["attempts"][0]["node_ip"] is None:
            return False
        # Hydra writes it after the file that is read below.
        return _resolved(cluster, view, 0).with_name("overrides.yaml").exists()

    first = user.wait(task, has_begun, "at verl's own configuration")["attempts"][0]
    # So that it is still under way when the other configuration is in force.
    for pid in processes.with_variable("ARGUS_SUBMISSION_ID", first["submission_id"]):
        with contextlib.suppress(ProcessLookupError):  # one that has ended since
            os.kill(pid, signal.SIGSTOP)
    # From here on "again" says what "short" said. It stays so, for the tests below.
    _deploy(cluster, {"presets": {"short": _CHANGED, "again": _SHORT}, "selectable": ["short", "again"]})
    view = user.task(task)
    assert (view["state"], view["settings"]) == ("RUNNING", accepted["settings"])
    victim = cluster.machine.worker_at(first["node_ip"])
    cluster.machine.end_worker(victim)
    try:
        view = wait_long(user, task)
    finally:
        cluster.machine.start_worker(victim)
        cluster.machine.wait_for_worker(victim)
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["INFRASTRUCTURE", "SUCCEEDED"]
    for number in (0, 1):
        assert _of_hydra(cluster, view, number, _CHANGED) == {**_SHORT, "data.train_batch_size": 8}, number
    root = cluster.job_root(view)
    assert metric(root, "actor/lr") == pytest.approx([0.0005, 0.0005])
    assert max(metric(root, "response_length/max")) <= 6
    for step in (1, 2):
        answers = (root / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        assert len(answers) == 8 * 2, "two answers to each of the eight prompts"
    alone["grpo"] = curves(user, task)


def _deploy(cluster: Cluster, verl: dict[str, Any]) -> None:
    """`serve deploy` of the same file with these settings of verl."""
    config = cluster.machine.root / "serve_config.yaml"
    content = yaml.safe_load(config.read_text())
    content["applications"][0]["args"]["verl"] = verl
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    cluster.machine.deploy(config)

    def is_in_force() -> bool:
        # By a replica of the new version, which comes up after the actors were replaced.
        found = cluster.admin.get("/api/v2/presets")["presets"]
        return bool({each["name"]: each["set"] for each in found} == verl["presets"])

    assert processes.wait_until(is_in_force, 180, 0.5)
    cluster.machine.wait_for_service()


def _resolved(cluster: Cluster, view: dict[str, Any], number: int) -> Path:
    """What Hydra has made of an attempt's command line, as verl reads it."""
    return cluster.job_root(view, number) / "hydra" / ".hydra" / "config.yaml"


def _of_hydra(cluster: Cluster, view: dict[str, Any], number: int, keys: Iterable[str]) -> dict[str, Any]:
    whole = yaml.safe_load(_resolved(cluster, view, number).read_text())
    return {key: functools.reduce(lambda part, name: part[name], key.split("."), whole) for key in keys}


def test_four_tasks_of_two_users_at_once_train_as_each_does_alone(
    cluster: Cluster, alone: Alone, attacks: dict[str, str], ray_view: Any
) -> None:
    """In stock verl 0.9 the second ppo or grpo attaches to the first one's TransferQueue: its samples mix with those of
    another user, and it hangs when the first one ends."""
    from ray.util.state import list_actors

    # Alone, too, grpo ran with them, if it did in the test before.
    presets = ["again"] if "grpo" in alone else []
    changes = {"grpo": attacks, "ppo": attacks, "sft": {}}
    # ppo shares all of its ways to meet others with grpo, and an alone run of it would take another minute and a half.
    for workload in ("grpo", "sft"):
        if workload not in alone:  # sft comes from the test before, unless this one was asked for by itself
            user = cluster.user()
            alone[workload] = curves(
                user, wait_long(user, user.submit_example(f"cpu-{workload}", **changes[workload]))["task_id"]
            )

    assert max(alone["grpo"]["critic/score/max"].values()) > 0, "without a reward there is nothing to differ in"
    ada, bob = cluster.user(), cluster.user()
    workloads = ("grpo", "ppo", "sft", "grpo")
    callers = (ada, bob, ada, bob)
    tasks = [
        caller.submit_example(f"cpu-{workload}", presets=presets if workload == "grpo" else (), **changes[workload])
        for caller, workload in zip(callers, workloads, strict=True)
    ]
    owners: dict[str, set[str]] = {}
    #: Where Ray's placement groups of each job were seen.
    places: dict[str, set[str]] = {}

    def all_ended() -> bool:
        for actor in list_actors(cluster.machine.dashboard, detail=True, limit=10_000, timeout=60):
            if actor.class_name == "TransferQueueController" and actor.ray_namespace:
                owners.setdefault(actor.ray_namespace, set()).add(actor.job_id)
        for job, held in view_of_ray(ray_view).held.items():
            places.setdefault(job, set()).update(held)
        return all(caller.task(task)["state"] in FINAL for caller, task in zip(callers, tasks, strict=True))

    assert processes.wait_until(all_ended, 900, 2.0)
    views = [wait_long(caller, task) for caller, task in zip(callers, tasks, strict=True)]
    begins, ends = [view["started_at"] for view in views], [view["ended_at"] for view in views]
    assert max(begins) < min(ends), "all four ran at the same time"
    for view in views:
        (attempt,) = view["attempts"]
        assert places[attempt["ray_job_id"]] == set(attempt["nodes"]), "each gang is where it was assigned to"
    # Each queue was made by the task of its name, and no queue is shared or nameless.
    rl = [view for view in views if view["workload"] != "sft"]
    assert {name: jobs for name, jobs in owners.items() if any(view["task_id"] in name for view in views)} == {
        f"transfer_queue-{view['task_id']}--a01": {view["attempts"][0]["ray_job_id"]} for view in rl
    }
    assert "transfer_queue" not in owners, "nobody uses verl's shared namespace"
    assert len({view["attempts"][0]["job_root"] for view in views}) == 4
    found = {
        f"{task}: {difference}"
        for caller, task, workload in zip(callers, tasks, workloads, strict=True)
        if workload in alone
        for difference in differences(alone[workload], curves(caller, task))
    }
    assert found == set(), "what runs beside it changes a task's training"
    for view in rl:
        parts = ("actor", "critic") if view["workload"] == "ppo" else ("actor",)
        assert all((cluster.job_root(view) / "checkpoints" / "global_step_2" / part).is_dir() for part in parts)
        assert newest_complete([str(cluster.job_root(view))], view["workload"], 1) is not None
        attacked = attacks_in(cluster.job_root(view))
        print(f"{view['workload']}: {attacked} answers that make files where they are run")
        assert attacked >= 4
        log = (cluster.job_root(view) / "logs" / "driver.log").read_text(errors="replace")
        assert "code that answers 'apps' is not run" in log, "the reward function saw them"
    assert list((cluster.shared / "marks").iterdir()) == [], "what a model writes was run"
    for caller, view in zip(callers, views, strict=True):
        _check_samples(cluster, caller, view)
    head = next(node for node in cluster.admin.get("/api/v2/nodes")["nodes"] if node["is_head"])
    assert (head["gpus_total"], head["cpus_total"]) == (0, 0)
    assert head["node_id"] not in {view["attempts"][0]["node_id"] for view in views}, "no driver ran on the head"


def _check_samples(cluster: Cluster, user: Api, view: dict[str, Any]) -> None:
    """What the API tells of the samples of a run is what verl has written, and what its metrics say of them."""
    base, root = f"/api/v2/tasks/{view['task_id']}", cluster.job_root(view)
    for kind, folder in (("train", "rollouts"), ("validation", "validation")):
        written = {int(path.stem): path for path in (root / folder).glob("*.jsonl")}
        told = user.get(f"{base}/rollouts?kind={kind}")
        assert [step["step"] for step in told["steps"]] == sorted(written, reverse=True) and told["complete"]
        assert bool(written) == (view["workload"] != "sft") or kind == "validation"
        for step in told["steps"]:
            lines = [json.loads(line) for line in written[step["step"]].read_text().splitlines()]
            found = user.get(f"{base}/rollouts?kind={kind}&step={step['step']}&limit=500")["samples"]
            assert step["samples"] == len(found) == len(lines) > 0
            for sample, line in zip(found, lines, strict=True):
                known = (sample["prompt"], sample["answer"], sample["ground_truth"], sample["score"])
                assert known == (line["input"], line["output"], line["gts"], line["score"])
                assert sample["prompt"] and not sample["truncated"]
                assert sample["extra"].keys() == line.keys() - {"input", "output", "gts", "score", "step"}
            file = user.request("GET", f"{base}/files/{folder}/{step['step']}.jsonl")
            assert file.content == written[step["step"]].read_bytes()
    if view["workload"] != "sft":
        curve = user.get(f"{base}/metrics?names=critic/score/mean")["curves"]["critic/score/mean"]
        means = {step["step"]: step["mean_score"] for step in user.get(f"{base}/rollouts")["steps"]}
        assert dict(zip(curve["steps"], curve["values"], strict=True)) == pytest.approx(means, rel=1e-3, abs=1e-6)


@long
@pytest.mark.parametrize("workload", ["grpo", "ppo", "sft"])
def test_a_real_gang_of_two_nodes_sits_on_its_assignment(
    cluster: Cluster, alone: Alone, ray_view: Any, workload: str
) -> None:
    user = cluster.user()
    places: dict[str, set[str]] = {}
    task = user.submit_example(f"cpu-{workload}", nnodes=2)

    def has_ended() -> bool:
        for job, held in view_of_ray(ray_view).held.items():
            places.setdefault(job, set()).update(held)
        return user.task(task)["state"] in FINAL

    assert processes.wait_until(has_ended, 900, 0.5)
    view = user.wait_final(task)  # the driver, too
    assert view["state"] == "SUCCEEDED", view["reason"]
    (attempt,) = view["attempts"]
    assert places[attempt["ray_job_id"]] == set(attempt["nodes"]) and len(attempt["nodes"]) == 2
