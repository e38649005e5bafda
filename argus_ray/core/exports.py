"""Exports: a Hugging Face folder that is made of a checkpoint, by a small task of its own kind.

A task in all but what it runs: queue, gang, attempts, losses, cancel, logs, events and retention are those of any
task. What it is made from is chosen when it is accepted, and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from argus_ray.core import paths
from argus_ray.core.states import TaskState
from argus_ray.core.verl import files

#: In task ids, and as the `workload` of a task.
WORKLOAD = "export"
#: That one user may have waiting and running. They hold no GPU, so no quota bounds them.
MAX_AT_A_TIME = 4


class Part(str, Enum):
    """Of a ppo checkpoint; the others have an actor only."""

    ACTOR = "actor"
    CRITIC = "critic"


@dataclass(frozen=True)
class Export:
    """What one is made from."""

    #: The task whose checkpoint it is.
    of: str
    #: That task's workload, and on how many processes it runs: they tell what lies where in a checkpoint.
    workload: str
    processes: int
    step: int
    part: Part
    #: Of the attempt that has left the checkpoint.
    job_root: str
    #: No step was asked for.
    is_newest: bool = False
    #: That attempt ran code that came with its model (`trust_remote_code`), so the export may.
    trusts_code: bool = False

    @property
    def checkpoint(self) -> str:
        """The `.../global_step_N` folder."""
        return f"{paths.checkpoints_dir(self.job_root)}/{files.checkpoint_name(self.step)}"

    def words(self) -> str:
        part = f" ({self.part.value})" if self.workload == "ppo" else ""
        return f"step {self.step}{part} of {self.of}"

    def document(self) -> str:
        """What stands in the place of a TaskSpec."""
        return f"export_of: {self.of}\nstep: {self.step}\npart: {self.part.value}\n"


@dataclass(frozen=True)
class ExportSeen:
    """What is shown of one."""

    task_id: str
    of: str
    step: int
    part: Part
    state: TaskState
    #: The Hugging Face folder; None until it is made, and when its files have left their place.
    path: str | None


def has_part(workload: str, part: Part) -> bool:
    return part is Part.ACTOR or workload == "ppo"
