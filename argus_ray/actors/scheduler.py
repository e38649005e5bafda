"""The scheduler actor: a loop around Dispatcher.tick, in a thread of its own, with Ray behind the four ports."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray

from argus_ray.actors import detached
from argus_ray.cluster import view as cluster_view
from argus_ray.cluster.jobs import JobRequest, RayJobs, RayRefused
from argus_ray.config import Settings
from argus_ray.core import admission, taskspec
from argus_ray.core.errors import ArgusError
from argus_ray.core.lifecycle import Change
from argus_ray.core.model import Attempt, ClusterView, Task
from argus_ray.core.observation import FilesSeen, JobSeen
from argus_ray.core.retention import Chores
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.verl import command
from argus_ray.disk import attempt_files, checkpoints, payload
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from argus_ray.scheduler.housekeeping import MAX_PASS_S, Housekeeper
from argus_ray.scheduler.tick import Dispatcher, Prepared, SubmissionRefused

log = logging.getLogger(__name__)

#: Bound of one call to the state actor, which may just be restarting; seconds.
_STATE_TIMEOUT_S = 60.0
_PUBLISH_TIMEOUT_S = 120.0
#: Of the looks at all metrics files, which are not worth a longer wait.
_METRICS_TIMEOUT_S = 5.0
#: The first pass over the disk is not at once, since what restarts often should not make one each time.
_FIRST_PASS_S = 300.0
#: Bound of the look at the inputs of all tasks that are to start: without an answer they start, since the worker may
#: have a better one.
_PREFLIGHT_S = 5.0
#: The longest pause after failed ticks; seconds.
_MAX_BACKOFF_S = 15.0


class SchedulerActor:
    """Its methods answer at once; the work is done by the thread."""

    def __init__(self, settings: dict[str, Any], fingerprint: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = Settings.model_validate(settings)
        self._fingerprint = fingerprint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._dispatcher: Dispatcher | None = None
        self._jobs: RayJobs | None = None
        self._jobs_checked = float("-inf")
        self._last_tick: float | None = None
        self._last_error: str | None = None
        self._jobs_reachable: bool | None = None
        self._thread = threading.Thread(target=self._run, name="argus-scheduler", daemon=True)
        self._thread.start()

    def fingerprint(self) -> str:
        return self._fingerprint

    def pid(self) -> int:
        return os.getpid()

    def wake(self) -> None:
        """Something happened that may let a task start."""
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self, timeout_s: float) -> bool:
        """End the loop after the present tick; True if it has ended within the time."""
        self._stopping = True
        self.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> dict[str, Any]:
        """For readiness and the nodes page: the view that the last tick had, and how old that tick is (seconds)."""
        dispatcher = self._dispatcher
        return {
            "tick_age_s": None if self._last_tick is None else time.monotonic() - self._last_tick,
            "error": self._last_error,
            "jobs_reachable": self._jobs_reachable,
            "view": dispatcher.view if dispatcher else None,
        }

    def _run(self) -> None:
        asyncio.run(self._guarded())

    async def _guarded(self) -> None:
        try:
            await self._main()
        except BaseException:
            # From here, since leaving the loop would wait for threads that may hang. Ray starts the actor again.
            log.exception("the scheduler's loop ended")
            os._exit(1)

    async def _main(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        dispatcher = self._dispatcher = await self._make_dispatcher()
        # Beside the ticks, which must not wait for it; it ends with this loop.
        housekeeping = asyncio.create_task(self._keep_house(), name="argus-housekeeping")
        try:
            await self._tick_on(dispatcher)
        finally:
            housekeeping.cancel()

    async def _keep_house(self) -> None:
        threads = BoundedThreads("housekeeping", 1)
        keeper = Housekeeper(
            state=_StateHandle(BoundedThreads("housekeeping-ray", 1)),
            in_thread=lambda call: threads.run(call, 2 * MAX_PASS_S),
            shared_root=self._settings.shared_root,
            policy=self._settings.retention.policy(),
        )
        pause_s = self._settings.retention.pass_every_s
        await asyncio.sleep(min(_FIRST_PASS_S, pause_s))
        while True:
            try:
                await keeper.once()
            except Exception as error:
                log.warning("a pass over the disk ended: %s: %s", type(error).__name__, error)
            finally:
                keeper.stop()
            await asyncio.sleep(pause_s)

    async def _tick_on(self, dispatcher: Dispatcher) -> None:
        assert self._wake is not None  # noqa: S101 - made by `_main`
        scheduling = self._settings.scheduling
        woken, failures = True, 0
        while not self._stopping:
            try:
                busy = await dispatcher.tick(woken=woken)
            except Exception as error:
                failures += 1
                self._last_error = f"{type(error).__name__}: {error}"[:500]
                log.warning("tick failed (%d in a row): %s", failures, self._last_error)
                woken = True
                backoff = min(_MAX_BACKOFF_S, 0.5 * 2 ** min(failures, 8))
                await asyncio.sleep(backoff * (0.5 + random.random() / 2))  # noqa: S311 - jitter
                continue
            failures, self._last_error, self._last_tick = 0, None, time.monotonic()
            await self._check_jobs()
            try:
                await asyncio.wait_for(self._wake.wait(), scheduling.poll_s if busy else scheduling.tick_s)
                woken = True
                self._wake.clear()
            except asyncio.TimeoutError:
                woken = False

    async def _check_jobs(self) -> None:
        now = time.monotonic()
        if self._jobs is not None and now - self._jobs_checked >= self._settings.scheduling.tick_s:
            self._jobs_checked = now
            self._jobs_reachable = await self._jobs.reachable()

    async def _make_dispatcher(self) -> Dispatcher:
        settings, scheduling = self._settings, self._settings.scheduling
        disk, ray_calls = BoundedThreads("disk", 8), BoundedThreads("ray", 4)
        payload_dir = await disk.run(lambda: payload.publish(settings.shared_root), _PUBLISH_TIMEOUT_S)
        site = command.Site(
            shared_root=settings.shared_root,
            payload_dir=payload_dir,
            worker_python=settings.worker_python,
            stop_grace_s=scheduling.stop_grace_s,
        )
        inputs = Preflight(BoundedThreads("inputs", 4), _PREFLIGHT_S, settings.shared_root)
        self._jobs = RayJobs(timeout_s=scheduling.ray_timeout_s, concurrency=scheduling.ray_concurrency)
        return Dispatcher(
            state=_StateHandle(ray_calls),
            jobs=_Jobs(self._jobs, site),
            files=_Files(disk, scheduling.ray_timeout_s),
            look_at_cluster=lambda: _look_at_cluster(ray_calls, scheduling.ray_timeout_s),
            prepare=lambda task, *where: _prepare(task, site, *where),
            check_inputs=lambda task: _check_inputs(inputs, task),
            find_checkpoint=lambda task: _find_checkpoint(disk, scheduling.ray_timeout_s, task),
            shared_root=settings.shared_root,
            policy=admission.AdmissionPolicy(scheduling.max_overtake_s, scheduling.retry_interval_s),
            clock=time.time,
            tick_s=scheduling.tick_s,
            stall_policy=scheduling.stall_policy(),
        )


def _prepare(task: Task, site: command.Site, submission_id: str, job_root: str, resume_from: str | None) -> Prepared:
    spec = taskspec.parse(task.spec_yaml, shared_root=site.shared_root, limit=taskspec.MAX_STORED_BYTES)
    launch = command.launch(spec, site, submission_id=submission_id, job_root=job_root, resume_from=resume_from)
    return Prepared(launch.command, tuple(sorted(launch.env.items())))


async def _check_inputs(preflight: Preflight, task: Task) -> Findings:
    try:
        spec = taskspec.parse(task.spec_yaml, shared_root=preflight.shared_root, limit=taskspec.MAX_STORED_BYTES)
    except ArgusError:
        return Findings()  # its command cannot be made either, and that says why
    return await preflight.look(spec)


async def _find_checkpoint(disk: BoundedThreads, timeout_s: float, task: Task) -> checkpoints.Checkpoint | None:
    job_roots = [*(task.resume_roots or ()), *(attempt.job_root for attempt in task.attempts)]

    def find() -> checkpoints.Checkpoint | None:
        return checkpoints.newest_complete(job_roots, task.workload, task.gang.gpus)

    # The outer bound: many tasks are looked at together, and a thread for each may take its time to get.
    return await asyncio.wait_for(disk.run(find, timeout_s), timeout_s)


class _StateHandle:
    """The state actor by name; looked up anew after a failure, since it may have been replaced."""

    def __init__(self, threads: BoundedThreads) -> None:
        self._threads = threads
        self._actor: Any = None

    async def active(self) -> tuple[Task, ...]:
        return await self._call("active")

    async def waiting(self) -> tuple[Task, ...]:
        return await self._call("waiting")

    async def chores(self) -> Chores:
        return await self._call("chores")

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return await self._call("apply", list(changes)) if changes else []

    async def _call(self, method: str, *args: Any) -> Any:
        if self._actor is None:
            self._actor = await self._threads.run(
                lambda: ray.get_actor(detached.STATE, namespace=detached.NAMESPACE), _STATE_TIMEOUT_S
            )
        try:
            return await asyncio.wait_for(getattr(self._actor, method).remote(*args), _STATE_TIMEOUT_S)
        except BaseException:
            self._actor = None
            raise


class _Jobs:
    def __init__(self, jobs: RayJobs, site: command.Site) -> None:
        self._jobs = jobs
        self._site = site

    async def submit(self, task: Task, attempt: Attempt) -> None:
        entrypoint = command.entrypoint(self._site, attempt.job_root, attempt.command)
        metadata = {"argus_user": task.user_id, "argus_task": task.task_id, "argus_workload": task.workload}
        try:
            await self._jobs.submit(JobRequest(attempt.submission_id, entrypoint, dict(attempt.env), metadata))
        except RayRefused as error:
            raise SubmissionRefused(str(error)) from error

    async def look(self, submission_id: str) -> JobSeen:
        return await self._jobs.look(submission_id)

    async def stop(self, submission_id: str) -> None:
        await self._jobs.stop(submission_id)

    async def forget(self, submission_id: str) -> None:
        await self._jobs.forget(submission_id)


class _Files:
    def __init__(self, threads: BoundedThreads, timeout_s: float) -> None:
        self._threads = threads
        self._watchers = BoundedThreads("metrics", 4)
        self._timeout_s = timeout_s

    async def look(self, job_root: str) -> FilesSeen:
        return await self._threads.run(lambda: attempt_files.look(job_root), self._timeout_s)

    async def metrics(self, job_root: str) -> MetricsSeen:
        bound = min(_METRICS_TIMEOUT_S, self._timeout_s)
        # The outer bound: all running attempts are looked at together, and wait for a thread.
        return await asyncio.wait_for(self._watchers.run(lambda: attempt_files.metrics(job_root), bound), bound)

    async def forbid_start(self, job_root: str) -> None:
        await self._threads.run(lambda: attempt_files.forbid_start(job_root), self._timeout_s)


async def _look_at_cluster(threads: BoundedThreads, timeout_s: float) -> ClusterView | None:
    try:
        return await threads.run(cluster_view.look, timeout_s)
    except Exception as error:
        log.warning("Ray did not show the cluster: %s: %s", type(error).__name__, error)
        return None
