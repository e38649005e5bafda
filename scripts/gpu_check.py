"""Run sft, grpo and ppo with a small model on one real GPU of this machine, through the whole of Argus, and print what
was seen: states, steps, losses, the GPU memory in use, and for a run that failed why.

  scripts/gpu-check                     all three; grpo and ppo need vLLM, and are left out, by name, without it
  scripts/gpu-check --workloads sft     only these, with commas between them
  scripts/gpu-check --device cpu        the same way without a GPU (logical GPUs), to try this script itself

The model has random weights and the data are one-digit sums, both made here: nothing is downloaded. Everything lies in
one folder (default /tmp/argus-gpu-check-<user id>), emptied by each run. Exit codes: 0 all is well, 1 something failed,
2 there is no GPU, nothing that could run, or something that must not.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import yaml

from argus_ray.local import folder, session
from argus_ray.local.client import FINAL, Api, in_one_line
from argus_ray.local.cluster import OneMachine
from argus_ray.local.folder import Refused
from argus_ray.local.session import say

HERE = Path(__file__).resolve().parent.parent
WORKLOADS = ("sft", "grpo", "ppo")
#: What each is to reach. An epoch of the 800 rows has three steps of 256.
STEPS = {"sft": 12, "grpo": 2, "ppo": 2}
#: Seconds for one task: vLLM compiles its kernels at the first start.
TASK_TIMEOUT_S = 1800
CURVES = {
    "sft": ("train/loss", "train/grad_norm"),
    "grpo": ("critic/score/mean", "actor/pg_loss", "actor/entropy", "response_length/mean"),
    "ppo": ("critic/score/mean", "actor/pg_loss", "critic/vf_loss", "response_length/mean"),
}
#: vLLM before these, and why not: the first is about safety, the second is what verl 0.9.1 knows (third_party/vllm).
_VLLM_FROM = (
    (
        (0, 14, 1),
        "has CVE-2026-22778 and CVE-2026-22807: a crafted picture, or code in a model's folder, runs on the worker",
    ),
    ((0, 18, 0), "is older than what verl 0.9.1 can use"),
)
#: What Triton looks for; the headers of Python and of C belong to it.
_COMPILERS = ("cc", "gcc", "clang")
_QUERY = ("--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits")


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)

    def run() -> int:
        gpus = _gpus() if arguments.device == "cuda" else []
        workloads = _possible(arguments.workloads, arguments.device)
        root = folder.usable_root(arguments.dir)
        with folder.held(root):
            return _run(root, workloads, arguments.device, max(1, len(gpus)))

    return session.exit_code("gpu-check", run)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in WORKLOADS]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(WORKLOADS)}")
        return chosen

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=names, default=list(WORKLOADS), help="with commas between them")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dir", default=f"/tmp/argus-gpu-check-{os.getuid()}", help="where everything lies")  # noqa: S108
    return parser.parse_args(argv)


def _gpus() -> list[str]:
    """What nvidia-smi lists. Raises Refused if there is nothing that torch could use."""
    if shutil.which("nvidia-smi") is None:
        raise Refused("there is no GPU here (no nvidia-smi); --device cpu runs the same without one")
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    gpus = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    if done.returncode != 0 or not gpus:
        raise Refused(f"nvidia-smi shows no GPU: {(done.stderr or done.stdout).strip()[:500]}")
    asked = "import torch; print(torch.__version__, torch.cuda.is_available())"
    seen = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=300, check=False)
    if not seen.stdout.strip().endswith("True"):
        words = (seen.stdout or seen.stderr).strip()[-300:]
        raise Refused(f"torch of {sys.executable} cannot use the GPU ({words}); name another Python by ARGUS_PYTHON")
    for line in gpus:
        say(line)
    return gpus


def _possible(workloads: list[str], device: str) -> list[str]:
    """Those that what is installed can run. Raises Refused if there is none."""
    parts = ("ray", "verl", "torch", "vllm", "flash_attn", "transformers")
    say(", ".join(f"{part} {_version(part) or 'is not installed'}" for part in parts))
    if missing := [part for part in ("ray", "verl", "torch") if _version(part) is None]:
        raise Refused(f"{', '.join(missing)} not installed in {sys.executable}; name another Python by ARGUS_PYTHON")
    if device == "cpu":
        return workloads
    _refuse_old_vllm(_version("vllm"))
    if not os.environ.get("CC") and not any(map(shutil.which, _COMPILERS)):
        raise Refused(
            "there is no C compiler (CC, cc, gcc or clang): Triton builds with it what torch.compile and vLLM run on"
            " the GPU (on Debian and Ubuntu: apt install gcc libc6-dev, and python3-dev for a Python of the system)"
        )
    if _version("flash_attn") is None:
        say("without flash_attn, verl's default attention, runs will fail that do not choose another one")
    if _version("vllm") is None and (left_out := [name for name in workloads if name != "sft"]):
        say(f"left out: {' and '.join(left_out)}, since vLLM is not installed, and verl has no other rollout here")
        workloads = [name for name in workloads if name == "sft"]
    if not workloads:
        raise Refused("nothing is left to run")
    return workloads


def _refuse_old_vllm(version: str | None) -> None:
    """Raises Refused for one that must not or cannot run. So is one of which the version is not known, or that came
    before a release."""
    if version is None:
        return
    release = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?!\.?(?:\d|a|b|rc|dev))", version)
    numbers = tuple(int(part or 0) for part in release.groups()) if release else ()
    for first, why in _VLLM_FROM:
        if numbers < first:
            wanted = ".".join(map(str, first))
            raise Refused(f"vLLM {version} {why}; install {wanted} or newer (the extra gpu pins one that fits)")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version" if importlib.util.find_spec(name) else None


def _run(root: Path, workloads: list[str], device: str, gpus: int) -> int:
    def story(machine: OneMachine, admin: str) -> int:
        say(f"starting a head and one worker with {gpus} GPU(s); making a small model and data")
        machine.launch_head(HERE / "serve_config.yaml")
        machine.launch_worker("worker-1", gpus=gpus)
        make = [sys.executable, str(HERE / "scripts" / "make_tiny.py"), str(machine.shared_root / "common"), "small"]
        subprocess.run(make, check=True, timeout=300, stdout=subprocess.DEVNULL)
        machine.wait_for_launch(("worker-1",))
        user = Api(machine.url, Api(machine.url, admin).new_user("ada", "Ada", "gpu-check"))
        tasks = {name: _submit(user, machine, name, device) for name in workloads}
        good = [_follow(user, name, task, device) for name, task in tasks.items()]
        return session.OK if all(good) else session.FAILED

    return session.on_machine("gpu-check", root, story, home=HERE)


def _submit(user: Api, machine: OneMachine, workload: str, device: str) -> str:
    """The example for the CPU, on this device."""
    model = machine.shared_root / "common" / "models" / "small"
    steps = STEPS[workload]
    example = (HERE / "examples" / f"cpu-{workload}.yaml").read_text()
    spec = {
        **yaml.safe_load(example.replace("/private/", f"{machine.shared_root}/")),
        "model_id": str(model),
        "trainer_device": device,
        "total_epochs": 4,
    }
    spec |= {"total_training_steps": steps, "save_freq": steps, "test_freq": -1}
    task = str(user.post("/api/v2/tasks", yaml.safe_dump(spec))["task_id"])
    say(f"submitted {task}")
    return task


def _follow(user: Api, workload: str, task: str, device: str) -> bool:
    """Until it has ended; prints what was seen. True if all is as it should be."""
    shown = ""
    meter = Meter() if device == "cuda" else None
    deadline = time.monotonic() + TASK_TIMEOUT_S
    while (view := user.get(f"/api/v2/tasks/{task}"))["state"] not in FINAL:
        if (line := in_one_line(view)) != shown:
            shown = line
            say(f"{workload:5} {line}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{task} has not ended within {TASK_TIMEOUT_S} s: {view['state']}, {view['reason']}")
        time.sleep(1)
    say(f"{workload:5} {view['state']}")
    if meter is not None:
        print(f"  GPU         {meter.stop()}")
    if view["state"] != "SUCCEEDED":
        print(f"  reason      {view['reason']}")
        print("".join(f"    | {line}\n" for line in user.text(f"/api/v2/tasks/{task}/logs?tail=30").splitlines()))
        return False
    curves = user.get(f"/api/v2/tasks/{task}/metrics?names={','.join(CURVES[workload])}")["curves"]
    for name in CURVES[workload]:
        values = curves.get(name, {}).get("values", [])
        print(f"  {name:20} {', '.join(f'{value:.4g}' for value in values) or 'is missing'}")
    root = Path(view["attempts"][-1]["job_root"])
    saved = root / "checkpoints" / f"global_step_{STEPS[workload]}"
    print(f"  checkpoint  {saved}{'' if saved.is_dir() else ' is missing'}")
    return saved.is_dir() and all(len(curves.get(name, {}).get("steps", [])) > 0 for name in CURVES[workload])


@dataclass
class Meter:
    """Looks at the GPUs until it is stopped."""

    most: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def _look_on(self) -> None:
        while not self._stop.wait(1.0):
            try:
                seen = subprocess.run(["nvidia-smi", *_QUERY], capture_output=True, text=True, timeout=30, check=True)
                for i, line in enumerate(seen.stdout.splitlines()):
                    used, busy = (int(word) for word in line.split(","))
                    before = self.most.get(i, (0, 0))
                    self.most[i] = (max(before[0], used), max(before[1], busy))
            except (OSError, ValueError, subprocess.SubprocessError):
                continue  # the next look may work

    def stop(self) -> str:
        self._stop.set()
        self._thread.join(30)
        most = (f"{i}: at most {used} MiB in use, {busy} % busy" for i, (used, busy) in sorted(self.most.items()))
        return "; ".join(most) or "nvidia-smi did not say"


if __name__ == "__main__":
    session.end_on_signals()
    sys.exit(main())
