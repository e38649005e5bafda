"""What Prometheus is answered: made of one look at all parts, which is good for some seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics

from argus_ray.core.errors import ArgusError
from argus_ray.core.monitoring import ActorFacts, ReadMonitoring, StateFacts
from argus_ray.core.watching import GATEWAY
from argus_ray.gateway import apart
from argus_ray.gateway.control import ControlPlane
from argus_ray.gateway.monitoring.families import Snapshot
from argus_ray.gateway.monitoring.tally import Tally

_log = logging.getLogger("argus.gateway")

#: Seconds that a look is good for, and that a part may take to answer.
FRESH_S = 5.0
_ANSWER_S = 5.0
OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain"
#: Never raises; of an actor that does not answer nothing is known.
AskActors = Callable[[], Awaitable[ActorFacts]]
Readiness = Callable[[], Awaitable[Mapping[str, str]]]


async def nobody() -> ActorFacts:
    return ActorFacts()


class Scraper:
    """One look at a time, whoever asks. Belongs to one event loop."""

    def __init__(
        self,
        control: ControlPlane,
        readiness: Readiness,
        ask_actors: AskActors,
        tally: Tally,
        *,
        per_user: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control, self._readiness, self._ask_actors, self._tally = control, readiness, ask_actors, tally
        self._per_user, self._monotonic = per_user, monotonic
        self._looking: asyncio.Task[Snapshot] | None = None
        self._looked_at = 0.0
        self._written: dict[bool, bytes] = {}

    async def answer(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics where it is asked for, else Prometheus' own text."""
        looking = self._look_of_now()
        snapshot = await asyncio.shield(looking)
        is_open = takes_openmetrics(accept)
        if looking is not self._looking:  # another one has begun meanwhile
            return _write(snapshot, is_open), _type(is_open)
        if is_open not in self._written:
            self._written[is_open] = _write(snapshot, is_open)
        return self._written[is_open], _type(is_open)

    async def snapshot(self) -> Snapshot:
        """What is told, as data."""
        return await asyncio.shield(self._look_of_now())

    def _look_of_now(self) -> asyncio.Task[Snapshot]:
        looking = self._looking
        if looking is None or (looking.done() and self._monotonic() - self._looked_at >= FRESH_S):
            self._written = {}
            looking = self._looking = apart.begin(self._look, "argus-monitoring")
        return looking

    async def _look(self) -> Snapshot:
        try:
            state, parts, actors = await asyncio.gather(self._ask_state(), self._readiness(), self._actors())
            return Snapshot(parts, state, actors, self._per_user)
        finally:
            self._looked_at = self._monotonic()

    async def _ask_state(self) -> StateFacts | None:
        asking = self._control.call(GATEWAY, ReadMonitoring(self._tally.take()))
        try:
            return await asyncio.wait_for(asking, _ANSWER_S)
        except (ArgusError, asyncio.TimeoutError) as error:
            _log.info("the state actor tells nothing for /metrics: %s", type(error).__name__)
            return None

    async def _actors(self) -> ActorFacts:
        try:
            return await asyncio.wait_for(self._ask_actors(), _ANSWER_S)
        except asyncio.TimeoutError:
            return ActorFacts()


def takes_openmetrics(accept: str) -> bool:
    """Not a look at every weight: Prometheus and its like name first what they want, and others name it not at all."""
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind == OPENMETRICS and "q=0" not in parameters:
            return True
        if kind == TEXT:
            return False
    return False


def _write(snapshot: Snapshot, is_open: bool) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(snapshot)
    written: bytes = openmetrics.generate_latest(registry) if is_open else exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return written


def _type(is_open: bool) -> str:
    return openmetrics.CONTENT_TYPE_LATEST if is_open else exposition.CONTENT_TYPE_PLAIN_0_0_4
