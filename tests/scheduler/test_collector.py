"""What the garbage collector walks through, by count."""

from __future__ import annotations

import gc

from argus_ray.core.model import Gang
from argus_ray.scheduler.collector import Collector


def test_a_long_queue_is_not_walked_through_again_and_a_short_one_is_left_alone() -> None:
    collector, kept = Collector(), [[Gang(1, 1, 3.0)] for _ in range(6_000)]
    gc.collect()
    try:
        before = gc.get_freeze_count()
        collector.after_tick(100)
        assert gc.get_freeze_count() == before
        collector.after_tick(len(kept))
        frozen = gc.get_freeze_count()
        assert frozen >= before + len(kept)
        collector.after_tick(len(kept) + 100)
        assert gc.get_freeze_count() == frozen
        collector.after_tick(0)
        collector.after_tick(5_500)
        more = [[] for _ in range(100)]  # type: ignore[var-annotated]
        collector.after_tick(11_000)
        assert gc.get_freeze_count() > frozen and more, "they went, and others came"
        del kept
        assert gc.get_freeze_count() < frozen, "and is freed when it goes"
    finally:
        gc.unfreeze()
