"""The way from the gateway to the detached actors: found by name, found again, and made again if they are gone."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Sequence
from typing import Any

import ray

from argus_ray.actors import detached, handover, proof
from argus_ray.config import Settings
from argus_ray.core import orders
from argus_ray.core.errors import DatabaseDamaged, Unavailable
from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.explaining import PoolNow
from argus_ray.core.forecast.model import Newcomer
from argus_ray.core.model import NodeView
from argus_ray.core.monitoring import ActorFacts, PublisherFacts, SchedulerFacts
from argus_ray.gateway.context import BACKUP, DISK, MAINTENANCE
from argus_ray.gateway.control import Asked

#: Seconds within which a part must answer to count as ready.
_READY_S = 5.0
#: For how long a first answer about a start is waited for, and how often it is asked for meanwhile. Seconds.
_FORESEE_S, _FORESEE_EVERY_S = 3.0, 0.2
#: As long as a scheduler that is gone may take to be made again.
_WAKE_S = 180.0
#: Seconds between two wakes of the scheduler: a pass for each submission of a burst would be of no use to anybody.
_WAKE_EVERY_S = 0.1
_NAMES = (detached.STATE, detached.SCHEDULER, detached.PUBLISHER)

log = logging.getLogger(__name__)


class ActorHandles:
    """The detached actors, found by name, found again after a failure, and made again if they are gone."""

    def __init__(self, settings: Settings, version: str, key: bytes | None = None) -> None:
        """`version`: the fingerprint of the gateway's code and settings. `key`: of this head's calls, if any."""
        self._settings = settings
        self._version = version
        self._key = key
        self._actors: dict[str, Any] = {}
        self._finding: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._wake_again = False

    async def send(self, batch: list[Asked]) -> Sequence[Any]:
        sent = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        proven = proof.make(self._key, "batch", sent)
        answered = await self._call(detached.STATE, "batch", sent, self._version, proven)
        answers = pickle.loads(answered)  # noqa: S301 - of our own
        return answers * len(batch) if len(answers) == 1 else answers

    def wake(self) -> None:
        """Tell the scheduler that there is work. One call is under way at a time; all that comes meanwhile shares the
        next one."""
        if self._waking is not None and not self._waking.done():
            self._wake_again = True
            return
        self._waking = asyncio.get_running_loop().create_task(self._wake(), name="argus-wake")

    async def _wake(self) -> None:
        while True:
            self._wake_again = False
            # The answer is awaited only to notice a scheduler that is gone for good, and to make it again.
            try:
                await asyncio.wait_for(self._call(detached.SCHEDULER, "wake"), _WAKE_S)
            except Exception as error:
                log.warning("the scheduler could not be woken: %s", type(error).__name__)
            await asyncio.sleep(_WAKE_EVERY_S)
            if not self._wake_again:
                return

    async def nodes(self) -> tuple[NodeView, ...]:
        """As the scheduler's last tick saw them. Raises Unavailable before the first one."""
        try:
            view = (await asyncio.wait_for(self._call(detached.SCHEDULER, "status"), _READY_S))["view"]
        except (ray.exceptions.RayError, asyncio.TimeoutError, TimeoutError, OSError):
            raise Unavailable("The scheduler does not answer. Try again.") from None
        if view is None:
            raise Unavailable("Ray has not shown its nodes yet. Try again.")
        nodes: tuple[NodeView, ...] = view.nodes
        return nodes

    async def pool_now(self) -> PoolNow:
        """The same, with what is free by the scheduler's own account."""
        try:
            found = await asyncio.wait_for(self._call(detached.SCHEDULER, "pool_now"), _READY_S)
        except (ray.exceptions.RayError, AttributeError, asyncio.TimeoutError, TimeoutError, OSError):
            # AttributeError: one of an earlier version, while this one is being deployed.
            raise Unavailable("The scheduler does not answer. Try again.") from None
        if found is None:
            raise Unavailable("Ray has not shown its nodes yet. Try again.")
        pool: PoolNow = found
        return pool

    async def start_of(self, newcomer: Newcomer) -> Range | Unknown:
        """When a task might start that nobody has submitted yet: waits some seconds for a first answer. Raises
        Unavailable."""
        begun = time.monotonic()
        while True:
            try:
                found = await asyncio.wait_for(self._call(detached.SCHEDULER, "start_of", newcomer), _READY_S)
            except (ray.exceptions.RayError, AttributeError, asyncio.TimeoutError, TimeoutError, OSError):
                # AttributeError: one of an earlier version, while this one is being deployed.
                raise Unavailable("The scheduler does not answer. Try again.") from None
            start: Range | Unknown = found
            if start is not Unknown.NOT_YET or time.monotonic() - begun > _FORESEE_S:
                return start
            await asyncio.sleep(_FORESEE_EVERY_S)

    async def readiness(self) -> dict[str, str]:
        """Each part -> "ok", or why it is not; and those that only tell something, while there is something."""
        state, scheduler, publisher = await asyncio.gather(
            self._state_readiness(), self._scheduler_readiness(), self._publisher_readiness()
        )
        return {**state, **scheduler, "publisher": publisher}

    async def monitoring(self) -> ActorFacts:
        """Never raises: of an actor that does not answer nothing is known."""
        scheduler, publisher = await asyncio.gather(self._scheduler_facts(), self._publisher_facts())
        return ActorFacts(scheduler, publisher)

    async def _scheduler_facts(self) -> SchedulerFacts | None:
        try:
            found = await asyncio.wait_for(self._call(detached.SCHEDULER, "monitoring"), _READY_S)
        except Exception:  # also one of an earlier version, which does not know the call
            return None
        return found if isinstance(found, SchedulerFacts) else None

    async def _publisher_facts(self) -> PublisherFacts | None:
        try:
            status = await asyncio.wait_for(self._call(detached.PUBLISHER, "status"), _READY_S)
        except Exception:
            return None
        return PublisherFacts(status["age_s"], status["epoch"], status.get("ttl_s"))

    async def _state_readiness(self) -> dict[str, str]:
        try:
            said = await asyncio.wait_for(self._call(detached.STATE, "ping"), _READY_S)
        except Exception as error:
            return {"state": _why(error)}
        # One of an earlier version does not know of them.
        since, trouble = said.get("maintenance_since"), said.get("backup", {}).get("trouble")
        maintenance = {} if since is None else {MAINTENANCE: f"on since {orders.time_words(since)}"}
        return {"state": "ok"} | maintenance | ({BACKUP: trouble} if trouble else {})

    async def _scheduler_readiness(self) -> dict[str, str]:
        try:
            status = await asyncio.wait_for(self._call(detached.SCHEDULER, "status"), _READY_S)
        except Exception as error:
            return {"scheduler": _why(error), "ray_jobs": "not known: the scheduler does not answer"}
        age, jobs = status["tick_age_s"], status["jobs_reachable"]
        bound = self._settings.scheduling.tick_s + self._settings.scheduling.ray_timeout_s
        if status["error"]:
            scheduler = "its last tick failed"
        elif age is None or status["view"] is None:
            scheduler = "it has not seen the cluster yet"
        else:
            scheduler = "ok" if age < bound else f"its last tick was {age:.0f} s ago"
        parts = {
            "scheduler": scheduler,
            "ray_jobs": {True: "ok", False: "it does not answer", None: "not asked yet"}[jobs],
        }
        low = status.get("low_disk")  # one of an earlier version does not know of it
        return parts if low is None else {**parts, DISK: low}

    async def _publisher_readiness(self) -> str:
        try:
            status = await asyncio.wait_for(self._call(detached.PUBLISHER, "status"), _READY_S)
        except Exception as error:
            return _why(error)
        return str(status["status"])

    async def _call(self, name: str, method: str, *args: Any) -> Any:
        if name not in self._actors:
            # One search for all that wait; it goes on when one of them gives up.
            if self._finding is None or self._finding.done():
                self._finding = asyncio.get_running_loop().create_task(asyncio.to_thread(self._find))
            await asyncio.shield(self._finding)
        try:
            return await getattr(self._actors[name], method).remote(*args)
        except ray.exceptions.ActorUnavailableError:
            raise  # it is restarting, and the handle stays good
        except ray.exceptions.RayActorError:
            self._actors.pop(name, None)
            raise

    def _find(self) -> None:
        try:
            found = {name: ray.get_actor(name, namespace=detached.NAMESPACE) for name in _NAMES}
        except ValueError:
            # Somebody ended one for good; the state on disk is all that it was.
            actors = handover.ensure(self._settings, replace=False)
            found = dict(zip(_NAMES, (actors.state, actors.scheduler, actors.publisher), strict=True))
        self._actors = found


def _why(error: Exception) -> str:
    cause = getattr(error, "cause", error)  # Ray wraps what an actor raises
    if isinstance(cause, DatabaseDamaged):
        return cause.detail  # it says what to do
    return "it does not answer in time" if isinstance(error, asyncio.TimeoutError) else type(error).__name__
