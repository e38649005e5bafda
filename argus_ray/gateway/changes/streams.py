"""What all streams of changes of one gateway share. It belongs to one event loop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from argus_ray.core.model import Task
from argus_ray.core.watching import GATEWAY
from argus_ray.gateway.changes.hub import Hub, HubPace
from argus_ray.gateway.changes.progress import ProgressRounds
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.logs.event_stream import EventStream
from argus_ray.gateway.logs.stream import StreamLimit, StreamTiming
from argus_ray.gateway.tasks.schemas import TaskSummary


class ChangeLimit(StreamLimit):
    """How many streams of changes may be open in this process."""

    refusal = "Too many streams of changes are open. Close one: one stream tells all your tasks."


class ChangeStream(EventStream):
    what = "a stream of changes"


class ChangeStreams:
    def __init__(self, gateway: GatewayParts, *, pace: HubPace | None = None, limit: StreamLimit | None = None) -> None:
        self._gateway = gateway
        self.limit = limit or ChangeLimit(total=1000, per_caller=32)
        self.hub = Hub(lambda action: gateway.control.call(GATEWAY, action), self.render, pace)
        self.rounds = ProgressRounds(gateway.progress_of, self.hub.pace.progress_s)

    @property
    def log_timing(self) -> StreamTiming:
        """Of a log within such a stream, which lives on while the control plane is away: the hub knows that."""
        return dataclasses.replace(self._gateway.timing, grace_s=math.inf)

    async def render(self, tasks: Sequence[Task]) -> list[bytes]:
        progress = await self._gateway.progress_of([task for task in tasks if task.state.is_active])
        shown = (TaskSummary.of(task, None, progress.get(task.task_id)) for task in tasks)
        return [each.model_dump_json().encode() for each in shown]

    async def close(self) -> None:
        await self.hub.close()
        await self.rounds.close()
