"""The same rollout as a task of Argus, chosen by an operator's rule: HTTP, queue, Ray Jobs, a worker with a Python of
its own, and a second attempt after a loss. `scripts/test --vllm` runs it; minutes on two cores."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from argus_ray.local.cluster import OneMachine
from argus_ray.node import processes
from tests.support import vllm
from tests.support.raycluster import ROOT, Api
from tests.support.realverl import wait_long
from tests.vllm.test_plain_verl import DIFFERENCE, SAME, pytestmark

__all__ = ["pytestmark"]

WORKER = "worker-1"


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[OneMachine, Api]]:
    """A head by this Python, and a worker by that of scripts/setup-vllm."""
    root = Path(f"/tmp/argus-v-{os.getpid()}")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    admin = secrets.token_hex(24)
    made = OneMachine(root, f"vllm-{root.name}", environ={"ARGUS_ADMIN_TOKEN": admin})
    try:
        common = made.shared_root / "common"
        subprocess.run([vllm.PYTHON, ROOT / "scripts" / "make_tiny.py", common, "small"], check=True, timeout=300)
        for shim in vllm.SHIMS.glob("*.py"):
            shutil.copy(shim, common / "code" / "verl")
        made.launch_head(_config(root))
        made.launch_worker(WORKER, gpus=1, cpus=8, python=str(vllm.PYTHON))
        made.wait_for_launch([WORKER])
        with httpx2.Client(base_url=made.url, timeout=60, trust_env=False) as http:
            yield made, Api(http, made.shared_root, admin).new_user("ada")
    finally:
        made.stop()
        if not os.environ.get("ARGUS_TEST_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


def _config(root: Path) -> Path:
    """Argus's layer for the CPU, and over it what the command line for GPUs has in its place."""
    wanted = {
        **{key.lstrip("+"): value for key, value in {**vllm.SIZES, **vllm.ROLLOUT}.items()},
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.agent.num_workers": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
        "reward.num_workers": 4,
    }
    rules = [
        {"match": {"workload": ["grpo", "ppo"], "trainer_device": ["cpu"]}, "set": wanted},
        {
            "match": {"workload": ["grpo"], "trainer_device": ["cpu"]},
            "set": {"actor_rollout_ref.rollout.n": 5, "actor_rollout_ref.actor.use_kl_loss": True},
        },
    ]
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    arguments = document["applications"][0]["args"]
    arguments["worker_python"] = str(vllm.PYTHON)
    arguments["verl"] = {"rules": rules}
    path = root / "vllm_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def submit(user: Api, workload: str, steps: int) -> str:
    fields: dict[str, Any] = {
        "model_id": str(user.shared / "common" / "models" / "small"),
        "total_epochs": 4,
        "total_training_steps": steps,
        "save_freq": 2,
    }
    return user.submit_example(f"cpu-{workload}", **fields)


def differences(view: dict[str, Any], attempt: int) -> dict[int, float]:
    return vllm.metric(Path(view["attempts"][attempt]["job_root"]) / "metrics.jsonl", DIFFERENCE)


def command(view: dict[str, Any]) -> str:
    return " ".join(view["attempts"][-1]["command"])


def nothing_is_left(before: set[str]) -> bool:
    return processes.wait_until(lambda: vllm.shared_memory() <= before, 120, 1.0)


def test_grpo_goes_on_after_a_loss(machine: tuple[OneMachine, Api]) -> None:
    made, user = machine
    before = vllm.shared_memory()
    task = submit(user, "grpo", 6)
    user.wait(task, lambda view: int((view["progress"] or {}).get("step") or 0) >= 3, "past its checkpoint", 900)
    (raylet,) = (
        pid
        for pid in processes.descendants(made.children[WORKER].pid)
        if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"
    )
    os.kill(raylet, 9)
    view = wait_long(user, task)
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["INFRASTRUCTURE", "SUCCEEDED"]
    assert "rollout.name=vllm" in command(view) and str(vllm.PYTHON) in command(view)
    first, second = differences(view, 0), differences(view, 1)
    print(f"\na01 {first}, a02 {second}")
    assert min(second) - 1 in (2, 4) and max(second) == 6, "from a checkpoint to the end"
    assert max([*first.values(), *second.values()]) < SAME
    assert nothing_is_left(before), vllm.shared_memory() - before


def test_ppo(machine: tuple[OneMachine, Api]) -> None:
    _, user = machine
    before = vllm.shared_memory()
    view = wait_long(user, submit(user, "ppo", 2))
    found = differences(view, 0)
    print(f"\nppo {found}")
    assert list(found) == [1, 2] and max(found.values()) < SAME
    assert "rollout.name=vllm" in command(view)
    assert view["attempts"][0]["exit_code"] == 0
    assert nothing_is_left(before), vllm.shared_memory() - before
