"""The scheduler's ports on the real things: the state actor, Ray, the shared filesystem. Each call has a bound."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from argus_ray.actors import detached, proof
from argus_ray.actors.tracking import TrackingKeys
from argus_ray.cluster import view as cluster_view
from argus_ray.cluster.jobs import JobRequest, RayJobs, RayRefused
from argus_ray.core import ids, taskspec
from argus_ray.core.errors import ArgusError, FieldError
from argus_ray.core.exports import Export
from argus_ray.core.forecast.model import History, Kind, RunSeen, Told
from argus_ray.core.forecast.pace import StepsSeen
from argus_ray.core.lifecycle import Change
from argus_ray.core.model import Attempt, ClusterView, NodeView, QueueChanges, SlimTask, Task
from argus_ray.core.observation import FilesSeen, JobSeen
from argus_ray.core.retention import Chore, Chores
from argus_ray.core.shares import Use
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.verl import command, layers, merge
from argus_ray.core.webhooks import Moves
from argus_ray.discovery import head_secrets
from argus_ray.disk import attempt_files, checkpoints, exports, steps
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from argus_ray.scheduler.ports import Prepared, SubmissionRefused

log = logging.getLogger(__name__)

#: Bound of one call to the state actor, which may just be restarting; seconds.
_STATE_TIMEOUT_S = 60.0
#: Of a connection to a raylet, in one network; seconds.
_ANSWER_TIMEOUT_S = 1.0
#: Of the looks at all metrics files, which are not worth a longer wait.
_METRICS_TIMEOUT_S = 5.0


class StateHandle:
    """The state actor by name; looked up anew after a failure, since it may have been replaced."""

    def __init__(self, threads: BoundedThreads) -> None:
        self._threads = threads
        self._actor: Any = None
        self._key: bytes | None = None

    async def queue_changes(self, writer: str, version: int) -> QueueChanges:
        return await self._call("queue_changes", writer, version)

    async def gpu_use(self) -> Mapping[str, Use]:
        return await self._call("gpu_use")

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]:
        return await self._call("tasks", list(task_ids))

    async def chores(self, chore: Chore, begun: float | None = None) -> Chores:
        return await self._call("chores", chore, begun)

    async def run_history(self, kinds: Sequence[Kind], workloads: Sequence[str]) -> History:
        return await self._call("run_history", list(kinds), list(workloads))

    async def foretell(self, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None:
        await self._call("foretell", list(told), list(runs))

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return await self._call("apply", list(changes)) if changes else []

    async def webhook_place(self, name: str, told_to: int | None = None) -> int:
        return await self._call("webhook_place", name, told_to)

    async def moves(self, place: int) -> Moves:
        return await self._call("moves", place)

    async def _call(self, method: str, *args: Any) -> Any:
        if self._actor is None:
            self._key = head_secrets.read_key(os.environ)
            self._actor = await self._threads.run(
                lambda: ray.get_actor(detached.STATE, namespace=detached.NAMESPACE), _STATE_TIMEOUT_S
            )
        try:
            arguments = pickle.dumps(args, pickle.HIGHEST_PROTOCOL)
            proven = proof.make(self._key, method, arguments)
            return await asyncio.wait_for(self._actor.scheduled.remote(method, arguments, proven), _STATE_TIMEOUT_S)
        except BaseException:
            self._actor = None
            raise


@dataclass
class ClusterLook:
    threads: BoundedThreads
    timeout_s: float

    async def look(self) -> ClusterView | None:
        try:
            return await self.threads.run(cluster_view.look, self.timeout_s)
        except Exception as error:
            log.warning("Ray did not show the cluster: %s: %s", type(error).__name__, error)
            return None

    async def answers(self, node: NodeView) -> bool:
        """By a connection to its raylet, which the node's kernel takes while the raylet lives."""
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(node.ip, node.port), _ANSWER_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        return True


@dataclass
class JobsOfRay:
    ray_jobs: RayJobs
    site: command.Site
    keys: TrackingKeys

    async def submit(self, task: Task, attempt: Attempt) -> None:
        await self.keys.hand_over(task, attempt)
        entrypoint = command.entrypoint(self.site, attempt.job_root, attempt.command)
        metadata = {"argus_user": task.user_id, "argus_task": task.task_id, "argus_workload": task.workload}
        try:
            await self.ray_jobs.submit(
                JobRequest(
                    attempt.submission_id,
                    entrypoint,
                    {**dict(attempt.env), **command.assignment(attempt.nodes), **command.of_site(self.site)},
                    metadata,
                    node_id=attempt.nodes[0] if attempt.nodes else None,
                )
            )
        except RayRefused as error:
            raise SubmissionRefused(str(error)) from error

    async def look(self, submission_id: str) -> JobSeen:
        return await self.ray_jobs.look(submission_id)

    async def stop(self, submission_id: str) -> None:
        await self.ray_jobs.stop(submission_id)

    async def forget(self, submission_id: str) -> None:
        await self.ray_jobs.forget(submission_id)


@dataclass
class FilesOfAttempts:
    threads: BoundedThreads
    timeout_s: float
    #: Of what is made in a job root.
    umask: int = 0o022
    watchers: BoundedThreads = field(default_factory=lambda: BoundedThreads("metrics", 4))

    async def look(self, job_root: str) -> FilesSeen:
        return await self.threads.run(lambda: attempt_files.look(job_root), self.timeout_s)

    async def metrics(self, job_root: str) -> MetricsSeen:
        bound = min(_METRICS_TIMEOUT_S, self.timeout_s)
        # The outer bound: all running attempts are looked at together, and wait for a thread.
        return await asyncio.wait_for(self.watchers.run(lambda: attempt_files.metrics(job_root), bound), bound)

    async def steps(self, job_root: str, wants_total: bool) -> StepsSeen:
        bound = min(_METRICS_TIMEOUT_S, self.timeout_s)
        look = functools.partial(steps.look, job_root, wants_total=wants_total)
        return await asyncio.wait_for(self.watchers.run(look, bound), bound)

    async def forbid_start(self, job_root: str) -> None:
        await self.threads.run(lambda: attempt_files.forbid_start(job_root, self.umask), self.timeout_s)

    async def saved_step(self, task: SlimTask) -> int | None:
        if task.live is None:
            return None
        roots, workload = [task.live.job_root], ids.workload_of(task.task_id)

        def find() -> checkpoints.Checkpoint | None:
            return checkpoints.newest_complete(roots, workload, task.gang.gpus)

        # The outer bound: all that were lost with one machine are looked at together, and wait for a thread.
        found = await asyncio.wait_for(self.threads.run(find, self.timeout_s), self.timeout_s)
        return None if found is None else found.step


@dataclass
class InputsOfTasks:
    preflight: Preflight
    threads: BoundedThreads
    timeout_s: float
    #: Raises OSError unless the shared root proves to be the cluster's.
    prove_root: Callable[[], object] = lambda: None
    #: `inputs.own_folders` of the settings.
    own_folders: bool = False

    async def check(self, task: Task) -> Findings:
        if task.export is not None:
            return await self._check_export(task.export)
        try:
            spec = taskspec.parse(
                task.spec_yaml,
                shared_root=self.preflight.shared_root,
                own_user=task.user_id,
                limit=taskspec.MAX_STORED_BYTES,
            )
        except ArgusError:
            return Findings()  # its command cannot be made either, and that says why
        # Whatever the settings say by now: its inputs were right when it was accepted.
        has_own = taskspec.names_own(spec, self.preflight.shared_root, task.user_id)
        return await self.preflight.look(spec, task.user_id if self.own_folders or has_own else None)

    async def _check_export(self, export: Export) -> Findings:
        def look() -> bool:
            return exports.is_there(export, self.prove_root)

        try:
            is_there = await asyncio.wait_for(self.threads.run(look, self.timeout_s), self.timeout_s)
        except (OSError, asyncio.TimeoutError) as error:
            return Findings(unknown=f"{type(error).__name__}: {error}".removesuffix(": "))
        if is_there:
            return Findings()
        rule = f"of step {export.step} is gone: a run that goes on keeps its newest ones, and operators may keep fewer"
        return Findings(errors=(FieldError("checkpoint", rule),))

    async def find_checkpoint(self, task: Task) -> checkpoints.Checkpoint | None:
        job_roots = [*(task.resume_roots or ()), *(attempt.job_root for attempt in task.attempts)]

        def look() -> checkpoints.Checkpoint | None:
            return checkpoints.newest_complete(job_roots, task.workload, task.gang.gpus)

        def find() -> checkpoints.Checkpoint | None:
            if (found := look()) is None:
                # "None is there" would throw the training away, so it must be seen while the root is there.
                self.prove_root()
                if (found := look()) is None:
                    self.prove_root()
            return found

        # The outer bound: many tasks are looked at together, and a thread for each may take its time to get.
        return await asyncio.wait_for(self.threads.run(find, self.timeout_s), self.timeout_s)


def prepare(task: Task, site: command.Site, submission_id: str, job_root: str, resume_from: str | None) -> Prepared:
    if task.export is not None:
        made = merge.launch(task.export, site, submission_id=submission_id, job_root=job_root)
        return Prepared(made.command, tuple(sorted(made.env.items())))
    spec = taskspec.parse_stored(task.spec_yaml, shared_root=site.shared_root, own_user=task.user_id)
    if site.tracking is not None:
        site = replace(site, tracking=site.tracking.as_begun(dict(attempt.env) for attempt in task.attempts))
    # As it was accepted, whatever the configuration says by now. What cannot be read raises: the task is held.
    chosen = None if task.settings is None else layers.decode(task.settings)
    launch = command.launch(
        spec, site, submission_id=submission_id, job_root=job_root, resume_from=resume_from, chosen=chosen
    )
    return Prepared(launch.command, tuple(sorted(launch.env.items())))
