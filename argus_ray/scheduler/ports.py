"""What the scheduler needs of the world, as shapes. The actor gives it Ray, the disk and the state actor; tests give it
a simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from argus_ray.core.lifecycle import Change
from argus_ray.core.model import Attempt, ClusterView, NodeView, QueueChanges, SlimTask, Task
from argus_ray.core.observation import FilesSeen, JobSeen
from argus_ray.core.shares import Use
from argus_ray.core.stall import MetricsSeen
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.disk.inputs import Findings


class State(Protocol):
    """The state actor."""

    async def queue_changes(self, writer: str, version: int) -> QueueChanges: ...

    #: What the ended attempts of each user have used; asked only with fair share.
    async def gpu_use(self) -> Mapping[str, Use]: ...

    #: Those that exist, in any order, with their specs and their attempts' commands.
    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]: ...

    #: For each change whether it was made.
    async def apply(self, changes: Sequence[Change]) -> Sequence[bool]: ...


class Cluster(Protocol):
    """Ray's view of the pool."""

    #: None: Ray did not answer.
    async def look(self) -> ClusterView | None: ...

    #: Whether the node's raylet can be reached now. Never raises; takes a second at most.
    async def answers(self, node: NodeView) -> bool: ...


class Jobs(Protocol):
    """Ray Jobs. `submit` and `stop` raise on failure; `look` answers UNKNOWN instead."""

    async def submit(self, task: Task, attempt: Attempt) -> None: ...
    async def look(self, submission_id: str) -> JobSeen: ...
    async def stop(self, submission_id: str) -> None: ...
    async def forget(self, submission_id: str) -> None: ...


class SubmissionRefused(Exception):
    """Ray looked at the submission and refused it."""


class Files(Protocol):
    """The attempt's files on the shared filesystem. OSError or TimeoutError: no observation."""

    async def look(self, job_root: str) -> FilesSeen: ...
    async def metrics(self, job_root: str) -> MetricsSeen: ...
    async def forbid_start(self, job_root: str) -> None: ...

    #: The step of the newest complete checkpoint that the task's live attempt has left itself.
    async def saved_step(self, task: SlimTask) -> int | None: ...


class Inputs(Protocol):
    """What a task starts from, on the shared filesystem."""

    #: What is wrong with the inputs now. Never raises.
    async def check(self, task: Task) -> Findings: ...

    #: The newest complete checkpoint of the task's attempts, and of those that it was to resume from. OSError or
    #: TimeoutError: no observation.
    async def find_checkpoint(self, task: Task) -> Checkpoint | None: ...


@dataclass(frozen=True)
class Prepared:
    """The resolved command of an attempt, stored with it before Ray is called."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


#: (task, submission id, job root, folder of the checkpoint to resume from)
Prepare = Callable[[Task, str, str, str | None], Prepared]
