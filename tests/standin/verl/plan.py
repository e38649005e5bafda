"""What a stand-in run does, and the traces that it leaves: the parts that all workloads share."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

POLL_S = 0.02


class OutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError reads in a log."""

    __module__ = "torch"


class KillDriver(Exception):
    """Told to end the driver by SIGKILL."""


@dataclass
class Plan:
    """The JSON object in the training file. Every key is optional."""

    steps: int = 3
    step_s: float = 0.05
    #: exit1: an exception. insufficient: verl's own fit check. oom: out of GPU memory. hang: for ever, deaf
    #: to SIGTERM in nothing but its progress. kill_self: SIGKILL of the training process. kill_driver: of
    #: the entrypoint's. kill_raylet: of the raylet above it.
    fail: str | None = None
    fail_at_step: int = 1
    #: Before step `wait_at_step`, with the gang claimed, wait until this file is there.
    wait_for_file: str | None = None
    wait_at_step: int = 1
    #: Both the driver and the training process start programs that leave their session or their parent and stay.
    leave_behind: bool = False
    #: Create TransferQueue's named controller, or attach to one that is there, as verl's RL trainer does.
    transfer_queue: bool = False

    @classmethod
    def of(cls, path: str) -> "Plan":
        content = json.loads(Path(path).read_text())
        return cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content})


def overrides(arguments: list[str]) -> dict[str, str]:
    """Hydra's command line, as far as ours uses it."""
    pairs = (argument.lstrip("+").split("=", 1) for argument in arguments)
    return {key: value.strip("'") for key, value in pairs}


class Run:
    """One run's files: the same names and formats as verl's."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        self.plan = Plan.of(settings["data.train_files"])
        self.checkpoints = Path(settings["trainer.default_local_dir"])
        resumed = settings.get("trainer.resume_from_path", "")
        self.first_step = int(resumed.rsplit("global_step_", 1)[1]) + 1 if resumed else 1
        self.world = int(settings["trainer.nnodes"]) * int(settings["trainer.n_gpus_per_node"])
        self.last_step = int(settings.get("trainer.total_training_steps", self.plan.steps))
        self.save_freq = int(settings.get("trainer.save_freq", "-1"))

    def record_execution(self) -> None:
        """One line a run, for tests that count them."""
        with (self.checkpoints.parent / "executions.log").open("a") as log:
            log.write(f"{json.dumps({'pid': os.getpid(), 'first_step': self.first_step, 'at': time.time()})}\n")

    def train(self, *, save_always: bool, parts: tuple[str, ...], metric: str) -> None:
        """All steps. `save_always`: also after the last one when save_freq is -1, as verl's sft trainer
        does."""
        if self.first_step > 1:
            folder = self.settings["trainer.resume_from_path"]
            print(f"Resuming from {folder}", flush=True)
            for name in self._files(parts):
                zipfile.ZipFile(Path(folder) / name).close()
        # Truncates, as verl's file logger does in a run that resumes.
        with open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0) as metrics:
            for step in range(self.first_step, self.last_step + 1):
                self._misbehave(step)
                time.sleep(self.plan.step_s)
                data = {metric: 1.0 / step, "training/global_step": step, "timing_s/step": self.plan.step_s}
                metrics.write(json.dumps({"step": step, "data": data}).encode() + b"\n")
                print(f"step:{step} - {metric}:{1.0 / step}", flush=True)
                is_last = step == self.last_step
                due = self.save_freq > 0 and (is_last or step % self.save_freq == 0)
                if due or (is_last and save_always):
                    self._save(step, parts)

    def _misbehave(self, step: int) -> None:
        plan = self.plan
        if step == plan.wait_at_step and plan.wait_for_file:
            while not Path(plan.wait_for_file).exists():
                time.sleep(POLL_S)
        if step != plan.fail_at_step:
            return
        if plan.fail == "exit1":
            raise RuntimeError("stand-in: told to fail")
        if plan.fail == "oom":
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if plan.fail == "kill_driver":
            raise KillDriver
        if plan.fail == "kill_self":
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.fail == "kill_raylet":
            os.kill(_raylet(), signal.SIGKILL)
            time.sleep(600)  # until its node has ended
        while plan.fail == "hang":
            time.sleep(POLL_S)

    def _save(self, step: int, parts: tuple[str, ...]) -> None:
        folder = self.checkpoints / f"global_step_{step}"
        for name in self._files(parts):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(folder / name, "w") as archive:  # as torch.save writes
                archive.writestr("archive/data.pkl", str(step))
        (self.checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))

    def _files(self, parts: tuple[str, ...]) -> list[str]:
        """What verl loads of a checkpoint. `parts`: folders with a model's shards; the folder itself for sft."""
        ranks = range(self.world)
        kinds = ("model", "optim", "extra_state")
        shards = [f"{kind}_world_size_{self.world}_rank_{rank}.pt" for kind in kinds for rank in ranks]
        loaders = [f"data_{rank}.pt" for rank in ranks] if parts == (".",) else ["data.pt"]
        return [*(f"{part}/{name}" for part in parts for name in shards), *loaders]


def leave_behind() -> None:
    """In the same session, in one of its own, and without its parent."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for command, apart in (("sleep 3600", False), ("sleep 3600", True), ("setsid sleep 3600 & exit 0", True)):
        subprocess.Popen(["sh", "-c", command], start_new_session=apart, **streams)


def insufficient(available: int, desired: int) -> ValueError:
    """verl's words (single_controller/ray/base.py)."""
    return ValueError(f"Total available GPUs {available} is less than total desired GPUs {desired}")


def _raylet() -> int:
    """The nearest one above this process."""
    pid = os.getppid()
    while Path(f"/proc/{pid}/comm").read_text().strip() != "raylet":
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid
