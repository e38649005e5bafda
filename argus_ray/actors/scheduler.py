"""The scheduler actor: a loop around Dispatcher.tick, in a thread of its own, with Ray behind its ports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from argus_ray.actors import leaving
from argus_ray.actors.adapters import ClusterLook, FilesOfAttempts, InputsOfTasks, JobsOfRay, StateHandle, prepare
from argus_ray.actors.tracking import TrackingKeys
from argus_ray.actors.webhook_sender import Sender
from argus_ray.cluster.jobs import RayJobs, ask_directly
from argus_ray.config import Settings
from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.explaining import PoolNow
from argus_ray.core.forecast.model import Newcomer
from argus_ray.core.monitoring import TICK_BOUNDS, Observed, PoolFacts, SchedulerFacts
from argus_ray.core.reserve import Space
from argus_ray.discovery import head_json, sentinel
from argus_ray.disk import payload, space
from argus_ray.disk.inputs import Preflight
from argus_ray.disk.threads import BoundedThreads
from argus_ray.scheduler import futures, reserve
from argus_ray.scheduler.collector import Collector
from argus_ray.scheduler.forecaster import PAUSE_S, Forecaster
from argus_ray.scheduler.housekeeping import MAX_TASK_S, Housekeeper, pause_s
from argus_ray.scheduler.newcomers import Newcomers
from argus_ray.scheduler.pace import Pace
from argus_ray.scheduler.reserve import ReserveWatch
from argus_ray.scheduler.runs import Runs
from argus_ray.scheduler.tick import Dispatcher, Next
from argus_ray.scheduler.webhooks import Messenger

log = logging.getLogger(__name__)

_PUBLISH_TIMEOUT_S = 120.0
#: The first pass over the disk is not at once, since what restarts often should not make one each time.
_FIRST_PASS_S = 300.0
#: Bound of the look at the inputs of all tasks that are to start: without an answer they start, since the worker may
#: have a better one.
_PREFLIGHT_S = 5.0
#: The longest pause after failed ticks; seconds.
_MAX_BACKOFF_S = 15.0


class SchedulerActor:
    """Its methods answer at once; the work is done by the thread."""

    def __init__(self, settings: dict[str, Any], fingerprint: str, end: leaving.End = leaving.end_process) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = Settings.model_validate(settings)
        self._fingerprint = fingerprint
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pace: Pace | None = None
        self._stopping = False
        self._dispatcher: Dispatcher | None = None
        self._jobs: RayJobs | None = None
        self._jobs_checked = float("-inf")
        self._last_tick: float | None = None
        self._last_error: str | None = None
        self._jobs_reachable: bool | None = None
        self._told: list[Messenger] = []
        self._newcomers: Newcomers | None = None
        self._ticks = Observed(TICK_BOUNDS)
        self._reserve = self._make_reserve()
        self._thread = threading.Thread(target=self._run, name="argus-scheduler", daemon=True)
        self._thread.start()

    def fingerprint(self) -> str:
        return self._fingerprint

    def pid(self) -> int:
        return os.getpid()

    def wake(self) -> None:
        """Something happened that may let a task start."""
        if self._loop is not None and self._pace is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, of itself or just now
                self._loop.call_soon_threadsafe(self._pace.wake)

    def stop(self, timeout_s: float) -> bool:
        """End the loop after the present tick; True if it has ended within the time. Whoever asks kills this actor
        next; if nobody does, it ends itself within a minute, and ticks again when Ray has started it anew."""
        self._stopping = True
        leaving.end_unless_killed("the scheduler", self._end)
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
            #: Words; None: there is room, as far as is known.
            "low_disk": low.words() if (low := self._reserve.low) else None,
            #: By name: why it hears nothing (None: it does), and how many messages were left out.
            "webhooks": {each.webhook.name: (each.trouble, each.left_out) for each in self._told},
        }

    def pool_now(self) -> PoolNow | None:
        """What is free, and what of it a task would find that came now. None before the first look at the cluster."""
        dispatcher = self._dispatcher
        return dispatcher.pool_now() if dispatcher else None

    def start_of(self, newcomer: Newcomer) -> Range | Unknown:
        """When a task might start that nobody has submitted yet. NOT_YET: ask again in a moment."""
        newcomers = self._newcomers
        return newcomers.start_of(newcomer) if newcomers else Unknown.NOT_YET

    def monitoring(self) -> SchedulerFacts:
        dispatcher, last = self._dispatcher, self._last_tick
        free = dispatcher.free if dispatcher and last is not None else None
        return SchedulerFacts(
            ticks=self._ticks.histogram(),
            tick_age_s=None if last is None else time.monotonic() - last,
            jobs_reachable=self._jobs_reachable,
            pool=None if free is None else PoolFacts.of(free),
            barrier=dispatcher.barrier if dispatcher else None,
            space=self._reserve.seen,
        )

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
        scheduling = self._settings.scheduling
        pace = self._pace = Pace(scheduling.poll_s, scheduling.tick_s)
        self._loop = asyncio.get_running_loop()
        try:
            dispatcher = self._dispatcher = await self._make_dispatcher(pace)
        except sentinel.RootUnknown:
            if self._stopping:
                return  # whoever has told it to stop gets its answer
            raise
        await self._reserve.once()  # what was low before this scheduler began may be so still
        # Beside the ticks, which must not wait for them; they end with this loop.
        beside = [
            asyncio.create_task(self._keep_house(), name="argus-housekeeping"),
            asyncio.create_task(self._watch_reserve(pace), name="argus-reserve"),
            *(
                asyncio.create_task(each.run(), name=f"argus-webhook-{each.webhook.name}")
                for each in self._messengers()
            ),
            asyncio.create_task(self._foretell(dispatcher), name="argus-forecast"),
        ]
        try:
            await self._tick_on(dispatcher, pace)
        finally:
            for task in beside:
                task.cancel()

    def _make_reserve(self) -> ReserveWatch:
        settings = self._settings
        folders = space.folders(settings.shared_root, settings.cluster_name)
        threads = BoundedThreads("space", 1)

        async def look() -> Space | None:
            return await threads.run(lambda: space.least(folders), reserve.EVERY_S)

        return ReserveWatch(look, settings.limits.reserve_bytes, time.time)

    async def _watch_reserve(self, pace: Pace) -> None:
        while True:
            await asyncio.sleep(reserve.EVERY_S)
            try:
                if await self._reserve.once():
                    pace.wake()
            except Exception:
                log.exception("the reserve of the shared filesystem was not looked at")

    def _messengers(self) -> list[Messenger]:
        if not self._settings.webhooks:
            return []
        send, cluster = Sender(), self._settings.cluster_name
        hooks = [each.webhook() for each in self._settings.webhooks]
        # Apart from the ticks' calls: what waits for a receiver must not hold these up.
        self._told = [Messenger(hook, StateHandle(BoundedThreads("webhook-ray", 1)), send, cluster) for hook in hooks]
        return self._told

    async def _foretell(self, dispatcher: Dispatcher) -> None:
        timeout_s = self._settings.scheduling.ray_timeout_s
        files = FilesOfAttempts(BoundedThreads("steps", 4), timeout_s, watchers=BoundedThreads("steps", 4))
        state = StateHandle(BoundedThreads("forecast-ray", 1))
        forecaster = Forecaster(dispatcher, state, Runs(state, files.steps), futures.ask, time.time)
        newcomers = self._newcomers = Newcomers(forecaster.foresee, time.monotonic)
        answering = asyncio.create_task(newcomers.run(), name="argus-newcomers")
        try:
            while True:
                await asyncio.sleep(PAUSE_S)
                try:
                    await forecaster.once_if_due(time.monotonic)
                except Exception as error:
                    log.warning("nothing was foretold: %s: %s", type(error).__name__, error)
        finally:
            answering.cancel()

    async def _keep_house(self) -> None:
        settings = self._settings
        threads = BoundedThreads("housekeeping", 1)
        folder = head_json.folder(settings.shared_root, settings.cluster_name)
        keeper = Housekeeper(
            state=StateHandle(BoundedThreads("housekeeping-ray", 1)),
            in_thread=lambda call: threads.run(call, 2 * MAX_TASK_S),
            prove_root=lambda: sentinel.read(folder),
            shared_root=settings.shared_root,
            policy=settings.retention.policy(),
        )
        every_s = settings.retention.pass_every_s
        await asyncio.sleep(min(_FIRST_PASS_S, every_s))
        while True:
            begun, is_left = time.monotonic(), False
            try:
                is_left = await keeper.once()
            except Exception as error:
                log.warning("a pass over the disk ended: %s: %s", type(error).__name__, error)
            finally:
                keeper.stop()
            await asyncio.sleep(pause_s(every_s, time.monotonic() - begun, is_left))

    async def _tick_on(self, dispatcher: Dispatcher, pace: Pace) -> None:
        failures, collector = 0, Collector()
        while not self._stopping:
            pace.begin()
            begun = time.monotonic()
            try:
                upcoming = await dispatcher.tick()
            except Exception as error:
                failures += 1
                self._last_error = f"{type(error).__name__}: {error}"[:500]
                log.warning("tick failed (%d in a row): %s", failures, self._last_error)
                backoff = min(_MAX_BACKOFF_S, 0.5 * 2 ** min(failures, 8))
                await asyncio.sleep(backoff * (0.5 + random.random() / 2))  # noqa: S311 - jitter
                continue
            failures, self._last_error, self._last_tick = 0, None, time.monotonic()
            self._ticks.add(self._last_tick - begun)
            collector.after_tick(len(dispatcher.queue.waiting) + len(dispatcher.queue.live))
            await self._check_jobs()
            await pace.rest(upcoming)

    async def _check_jobs(self) -> None:
        now = time.monotonic()
        if self._jobs is not None and now - self._jobs_checked >= self._settings.scheduling.tick_s:
            self._jobs_checked = now
            self._jobs_reachable = await self._jobs.reachable()

    async def _publish(self, pace: Pace, disk: BoundedThreads, folder: Path) -> str:
        """The payload's folder. On a bare mount point nothing is made: the root is waited for."""

        def publish() -> str:
            sentinel.read(folder)
            return payload.publish(self._settings.shared_root)

        while True:
            pace.begin()
            try:
                return await disk.run(publish, _PUBLISH_TIMEOUT_S)
            except sentinel.RootUnknown as error:
                if self._stopping:
                    raise
                if self._last_error != str(error):
                    log.warning("%s", error)
                self._last_error = str(error)
            await pace.rest(Next.LATER)

    async def _make_dispatcher(self, pace: Pace) -> Dispatcher:
        settings, scheduling = self._settings, self._settings.scheduling
        disk, ray_calls = BoundedThreads("disk", 8), BoundedThreads("ray", 4)
        folder = head_json.folder(settings.shared_root, settings.cluster_name)

        site = settings.site(await self._publish(pace, disk, folder))
        keys = TrackingKeys(
            site.tracking,
            settings.verl.tracking.variable,
            BoundedThreads("tracking", 4),
            scheduling.ray_timeout_s,
            site.umask,
            lambda: sentinel.read(folder),
        )
        inputs = Preflight(BoundedThreads("inputs", 4), _PREFLIGHT_S, settings.shared_root)
        ask_directly()
        self._jobs = RayJobs(timeout_s=scheduling.ray_timeout_s, concurrency=scheduling.ray_concurrency)
        return Dispatcher(
            state=StateHandle(ray_calls),
            cluster=ClusterLook(ray_calls, scheduling.ray_timeout_s),
            jobs=JobsOfRay(self._jobs, site, keys),
            files=FilesOfAttempts(disk, scheduling.ray_timeout_s, settings.files.umask_bits),
            inputs=InputsOfTasks(
                inputs, disk, scheduling.ray_timeout_s, lambda: sentinel.read(folder), settings.inputs.own_folders
            ),
            prepare=lambda task, *where: prepare(task, site, *where),
            shared_root=settings.shared_root,
            policy=settings.admission_policy(),
            stall_policy=scheduling.stall_policy(),
            clock=time.time,
            monotonic=time.monotonic,
            tick_s=scheduling.tick_s,
            low_disk=lambda: self._reserve.low,
        )
