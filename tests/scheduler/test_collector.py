"""What the garbage collector walks through, by count."""

from __future__ import annotations

import asyncio
import gc

from argus_ray.core.model import Gang, QueueChanges, SlimTask
from argus_ray.core.states import TaskState
from argus_ray.core.waiting import WaitingTasks
from argus_ray.scheduler.collector import Collector
from argus_ray.scheduler.queue import QueueView


def test_a_long_queue_is_not_walked_through_again_and_a_short_one_is_left_alone() -> None:
    collector, kept = Collector(), [[Gang(1, 1, 3.0)] for _ in range(6_000)]
    gc.collect()
    try:
        before = gc.get_freeze_count()
        collector.after_tick(100)
        assert gc.get_freeze_count() < before + len(kept)
        collector.after_tick(len(kept))
        frozen = gc.get_freeze_count()
        assert frozen >= before + len(kept)
        late = [[] for _ in range(1_000)]  # type: ignore[var-annotated]
        collector.after_tick(len(kept) + 100)
        # What others of this process have freed meanwhile is gone from the count.
        assert gc.get_freeze_count() < frozen + len(late)
        frozen = gc.get_freeze_count()
        collector.after_tick(0)
        collector.after_tick(5_500)
        more = [[] for _ in range(100)]  # type: ignore[var-annotated]
        collector.after_tick(11_000)
        assert gc.get_freeze_count() > frozen and more, "they went, and others came"
        del kept
        assert gc.get_freeze_count() < frozen, "and is freed when it goes"
    finally:
        gc.unfreeze()


def test_a_whole_queue_is_taken_out_before_its_rows_are_taken_in() -> None:
    rows = tuple(SlimTask(f"t{n}", "ada", n, TaskState.QUEUED, Gang(1, 1, 3.0)) for n in range(6_000))

    class State:
        async def queue_changes(self, writer: str, version: int) -> QueueChanges:
            return QueueChanges("w", 1, True, rows)

    before = gc.get_freeze_count()
    try:
        asyncio.run(QueueView(State(), WaitingTasks(60.0, by_user=False)).refresh())  # type: ignore[arg-type]
        assert gc.get_freeze_count() >= before + len(rows)
    finally:
        gc.unfreeze()
