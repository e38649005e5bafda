"""When the scheduler ticks, in a time of the test's own: it passes at once whenever nobody has anything to do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

from argus_ray.scheduler.pace import APART_S, MOMENT_S, Pace
from argus_ray.scheduler.tick import Next


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(story: Coroutine[Any, Any, list[float]]) -> list[float]:
    loop = VirtualTime()
    try:
        return [round(at, 6) for at in loop.run_until_complete(story)]
    finally:
        loop.close()


async def beginnings(
    wakes: list[float], upcoming: Next = Next.SOON, until: float = 30.0, takes: float = 0.0
) -> list[float]:
    """When ticks begin that take so long and then say when the next one should come. `wakes`: times."""
    loop = asyncio.get_running_loop()
    pace = Pace(poll_s=1.0, tick_s=5.0)
    for at in wakes:
        loop.call_at(at, pace.wake)
    found: list[float] = []
    while loop.time() < until:
        pace.begin()
        found.append(loop.time())
        await asyncio.sleep(takes)
        await pace.rest(upcoming)
    return found


def test_without_news_it_polls() -> None:
    assert in_virtual_time(beginnings([], Next.SOON, 3.5)) == [0, 1, 2, 3]
    assert in_virtual_time(beginnings([], Next.LATER, 14)) == [0, 5, 10]


def test_a_wake_of_an_idle_scheduler_is_followed_at_once() -> None:
    assert in_virtual_time(beginnings([2.0], Next.LATER, 9)) == [0, 2, 7]


def test_a_storm_of_wakes_is_few_ticks() -> None:
    storm = [2.0 + i / 1000 for i in range(1000)]
    found = in_virtual_time(beginnings(storm, Next.LATER, 5))
    assert found[:3] == [0, 2, 2.1]
    pauses = [later - earlier for earlier, later in pairwise(found)]
    assert min(pauses) >= APART_S - 1e-6 and len(found) <= 13
    assert found[-1] >= storm[-1], "the last one is not lost"


def test_a_wake_during_a_tick_is_followed_by_another_tick() -> None:
    assert in_virtual_time(beginnings([0.05], Next.LATER, 4, takes=0.3)) == [0, 0.3]


def test_what_is_in_no_hurry_comes_in_a_moment_and_no_wake_hastens_it() -> None:
    found = in_virtual_time(beginnings([i / 10 for i in range(30)], Next.IN_A_MOMENT, 2.0))
    pauses = [later - earlier for earlier, later in pairwise(found)]
    assert len(pauses) >= 5 and all(abs(pause - MOMENT_S) < 1e-6 for pause in pauses)


def test_at_once_is_no_faster_than_the_pace() -> None:
    found = in_virtual_time(beginnings([], Next.AT_ONCE, 1.0))
    pauses = [later - earlier for earlier, later in pairwise(found)]
    assert len(pauses) >= 9 and min(pauses) >= APART_S - 1e-6
