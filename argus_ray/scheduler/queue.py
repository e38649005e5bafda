"""The scheduler's own copy of the tasks that wait or live, kept by what has changed since the last look."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from argus_ray.core.model import PoolOrders, QueueChanges, SlimTask
from argus_ray.core.waiting import WaitingTasks
from argus_ray.scheduler import collector
from argus_ray.scheduler.ports import State

#: Rows that are taken in at a time. All come when a scheduler or a writer begins; others get their turn meanwhile.
_AT_ONCE = 1_000


@dataclass
class QueueView:
    """A cache: empty at first, so that the first answer is the whole. Equal to the database after each `refresh`."""

    state: State
    #: Empty.
    tasks: WaitingTasks
    #: By place in the queue.
    live: dict[int, SlimTask] = field(default_factory=dict)
    #: What operators have ordered.
    orders: PoolOrders = field(default_factory=PoolOrders)
    _writer: str = ""
    _version: int = 0
    #: The highest place that was ever seen.
    _last: int = 0

    async def refresh(self) -> list[SlimTask] | None:
        """The tasks that have come to the end of the queue; None: more has changed than that. What the scheduler
        itself writes down about a task that waits on or lives on is no change."""
        changes = await self.state.queue_changes(self._writer, self._version)
        came = None if changes.is_whole or changes.orders is not None else self._came(changes)
        if changes.orders is not None:
            self.orders = changes.orders
        if changes.is_whole:
            self.tasks.clear()
            self.live.clear()
        for seq in changes.gone:
            self._remove(seq)
        collector.have_come(len(changes.rows))
        rows = iter(changes.rows)
        while some := list(islice(rows, _AT_ONCE)):
            self._take_in(some)
            if len(some) == _AT_ONCE:
                await asyncio.sleep(0)
        self._writer, self._version = changes.writer, changes.version
        return came

    @property
    def waiting(self) -> Mapping[int, SlimTask]:
        """By place in the queue."""
        return self.tasks.by_seq

    def _take_in(self, rows: Sequence[SlimTask]) -> None:
        waiting = []
        for row in rows:
            self._remove(row.seq)
            if row.live is None:
                waiting.append(row)
            else:
                self.live[row.seq] = row
        self.tasks.add_all(waiting)
        self._last = max(self._last, *(row.seq for row in rows))

    def _came(self, changes: QueueChanges) -> list[SlimTask] | None:
        if any(seq in self.waiting or seq in self.live for seq in changes.gone):
            return None
        new = [row for row in changes.rows if not self._is_known(row)]
        return new if all(row.live is None and row.seq > self._last for row in new) else None

    def _is_known(self, row: SlimTask) -> bool:
        if row.live is None:
            return row.seq in self.waiting
        old = self.live.get(row.seq)
        return old is not None and old.live is not None and old.live.submission_id == row.live.submission_id

    def _remove(self, seq: int) -> None:
        self.tasks.remove(seq)
        self.live.pop(seq, None)
