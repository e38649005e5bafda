"""verl with its vLLM rollout on the CPU: Argus's command line for GPUs, and what has to be changed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command as verl
from argus_ray.node import processes
from argus_ray.node.shared_memory import SharedMemory
from tests.support.raycluster import ROOT

#: Of scripts/setup-vllm.
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SHIMS = ROOT / "tests" / "vllm" / "shims"
PAYLOAD = ROOT / "argus_ray" / "payload"
SHM = Path("/dev/shm")
#: Of one run; seconds.
TIMEOUT_S = 900.0

#: Every change, and why. What stands here is what the tier does not show of a GPU.
WORKER = "argus_vllm_worker.WorkerExtension"
ROLLOUT: dict[str, Any] = {
    # A whole layer's weights stay beside the packed ones: see shims/argus_vllm_worker.py.
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls": WORKER,
    # On the CPU gpu_memory_utilization means main memory.
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes": 64 << 20,
    # vLLM's sleep gives back memory of CUDA.
    "+actor_rollout_ref.rollout.enable_sleep_mode": False,
    # With bfloat16 on one side only, probabilities differ by rounding, and say nothing of the weights.
    "actor_rollout_ref.rollout.dtype": "float32",
}
SIZES: dict[str, Any] = {
    "data.train_batch_size": 64,
    "data.max_prompt_length": 32,
    "data.max_response_length": 8,
    # Else nothing would change, and an update that is lost could not be seen.
    "actor_rollout_ref.actor.optim.lr": 1e-3,
}
_MP = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
DEVICE: dict[str, Any] = {
    "trainer.device": "cpu",
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    **{f"actor_rollout_ref.{part}.strategy": "fsdp2" for part in ("actor", "ref")},
    **{f"+actor_rollout_ref.{part}.fsdp_config.mixed_precision": _MP for part in ("actor", "ref")},
    **{f"actor_rollout_ref.{part}.fsdp_config.use_torch_compile": False for part in ("actor", "ref")},
}
CRITIC: dict[str, Any] = {
    "critic.strategy": "fsdp2",
    "+critic.fsdp.mixed_precision": _MP,
    "critic.fsdp.use_torch_compile": False,
    "+critic.model.override_config.attn_implementation": "sdpa",
}
#: verl's own Ray on this machine, whose GPU is made up.
RAY: dict[str, Any] = {
    "ray_kwargs.ray_init.num_cpus": 32,
    "+ray_kwargs.ray_init.num_gpus": 1,
    "+ray_kwargs.ray_init.resources": "{worker_node:100}",
    "+ray_kwargs.ray_init.include_dashboard": False,
}


class PlainRun:
    """`verl.trainer.main_ppo` with Argus's command line for GPUs, without Argus."""

    def __init__(
        self, root: Path, spec: TaskSpec, resume_from: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> None:
        """`root`: a job root that is its own. `changes`: beyond those above."""
        self.root = root
        root.mkdir(parents=True)
        site = verl.Site(str(root.parent), str(PAYLOAD), str(PYTHON), stop_grace_s=30, log_bytes=1 << 30)
        launch = verl.launch(spec, site, submission_id=root.name, job_root=str(root), resume_from=resume_from)
        wanted = {**DEVICE, **SIZES, **ROLLOUT, **(CRITIC if spec.workload == "ppo" else {}), **RAY, **(changes or {})}
        self.command = [*launch.command, *(f"{key}={value}" for key, value in wanted.items())]
        modules = ["argus_verl_cpu", *(["argus_verl_critic"] if spec.workload == "ppo" else [])]
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))},
            **launch.env,
            "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{PAYLOAD}{os.pathsep}{SHIMS}",
            "VERL_USE_EXTERNAL_MODULES": ",".join(modules),
            "VERL_ENGINE_DEVICE": "cuda",
            "VERL_PLATFORM": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": "local",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # else it would make a token in the home folder
        }

    def run(self) -> int:
        """Its exit code, once all that it has started has ended as well. AssertionError if something does not."""
        memory = SharedMemory(self.root.parents[2], self._processes)
        with (self.root / "log").open("wb") as log:
            begun = time.monotonic()
            process = subprocess.Popen(self.command, env=self.environ, cwd=self.root, stdout=log, stderr=log)

            def ended() -> bool:
                memory.note()  # as a watchdog does
                return process.poll() is not None

            try:
                assert processes.wait_until(ended, TIMEOUT_S, 1.0), f"it still runs after {TIMEOUT_S} s"
            finally:
                process.kill()
                code = process.wait()
                left = self._left(60.0)
                # verl ends vLLM's processes by SIGKILL, so they leave some, which only Argus removes.
                print(*memory.remove(), sep="\n", file=sys.stderr)
        print(f"{self.root.name}: exit code {code} after {time.monotonic() - begun:.0f} s", file=sys.stderr)
        assert left == [], f"still running: {left}"
        return code

    def _left(self, patience_s: float) -> list[int]:
        """What it has started and still runs after so many seconds; killed."""
        processes.wait_until(lambda: not self._processes(), patience_s)
        found = self._processes()
        processes.end(self._processes, grace_s=0)
        return found

    def _processes(self) -> list[int]:
        return processes.with_variable("ARGUS_JOB_ROOT", str(self.root))

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def metric(self, name: str) -> dict[int, float]:
        """By step."""
        return metric(self.root / "metrics.jsonl", name)


def metric(file: Path, name: str) -> dict[int, float]:
    entries = map(json.loads, file.read_text().splitlines())
    return {entry["step"]: entry["data"][name] for entry in entries if name in entry["data"]}


def shared_memory() -> set[str]:
    """What libraries have made in /dev/shm."""
    return {path.name for path in SHM.iterdir() if path.is_file()}
