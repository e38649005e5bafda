"""verl with its own vLLM rollout, on the CPU and without Argus, by Argus's command line for GPUs: see
docs/development.md for what it shows and what it does not. `scripts/test --vllm` runs it; minutes on two cores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from argus_ray.core import taskspec
from argus_ray.core.taskspec import TaskSpec
from tests.support import vllm
from tests.support.raycluster import ROOT

pytestmark = [
    pytest.mark.skipif(os.environ.get("ARGUS_VLLM") != "1", reason="needs 3.9 GB of its own: scripts/test --vllm"),
    pytest.mark.timeout(1800),
]

#: Of probabilities that the rollout and the trainer give to the same tokens. After an update that was lost it is 0.1
#: and more.
SAME = 1e-4
DIFFERENCE = "training/rollout_probs_diff_max"


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, with a model whose heads are as large as vLLM's kernels want them."""
    folder = tmp_path_factory.mktemp("vllm") / "common"
    subprocess.run([vllm.PYTHON, ROOT / "scripts" / "make_tiny.py", folder, "small"], check=True, timeout=300)
    return folder


def spec(common: Path, workload: Literal["grpo", "ppo"], steps: int) -> TaskSpec:
    data = common / "datasets" / "add"
    fields = {
        "workload": workload,
        "code_path": common / "code" / "verl",
        "model_id": common / "models" / "small",
        "train_file": data / "rl_train.parquet",
        "val_file": data / "rl_val.parquet",
        "nnodes": 1,
        "n_gpus_per_node": 1,
        "total_epochs": 4,
        "total_training_steps": steps,
        "save_freq": 2,
        "test_freq": -1,
        "trainer_device": "cuda",
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return taskspec.parse(text, shared_root=str(common.parent))


def job_root(common: Path, name: str) -> Path:
    return common.parent / "users" / "ada" / "jobs" / name


def check(run: vllm.PlainRun, steps: list[int], shared_memory_before: set[str]) -> None:
    assert "actor_rollout_ref.rollout.name=vllm" in run.command
    code = run.run()
    assert code == 0, run.log[-4000:]
    found = run.metric(DIFFERENCE)
    print(f"{run.root.name}: {DIFFERENCE} {found}")
    assert list(found) == steps
    assert max(found.values()) < SAME, "what generates has the weights that are trained"
    assert vllm.shared_memory() <= shared_memory_before


def test_grpo_and_its_resume(common: Path) -> None:
    before = vllm.shared_memory()
    first = vllm.PlainRun(job_root(common, "grpo"), spec(common, "grpo", 4))
    check(first, [1, 2, 3, 4], before)
    moved = first.metric("actor/grad_norm")
    assert all(value > 0 for value in moved.values()), "else no update could be lost"
    saved = first.root / "checkpoints" / "global_step_2"
    assert saved.is_dir()
    resumed = vllm.PlainRun(job_root(common, "resumed"), spec(common, "grpo", 4), resume_from=str(saved))
    check(resumed, [3, 4], before)


def test_ppo(common: Path) -> None:
    run = vllm.PlainRun(job_root(common, "ppo"), spec(common, "ppo", 2))
    check(run, [1, 2], vllm.shared_memory())
    assert list(run.metric("critic/vf_loss")) == [1, 2]


def test_an_update_that_is_lost_is_seen(common: Path) -> None:
    """The control: without it, weights that never change would pass for weights that arrive."""
    extension = {key: "argus_vllm_worker.DeafExtension" for key in vllm.ROLLOUT if key.endswith("worker_extension_cls")}
    run = vllm.PlainRun(job_root(common, "deaf"), spec(common, "grpo", 3), changes=extension)
    assert run.run() == 0, run.log[-4000:]
    assert max(run.metric(DIFFERENCE).values()) > 100 * SAME
