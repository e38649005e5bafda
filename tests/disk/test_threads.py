"""Threads for a disk that may hang: a hang in the past does not stop the future, and no hang costs threads for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from argus_ray.disk import threads
from argus_ray.disk.threads import BoundedThreads


def test_a_disk_that_hangs_costs_a_bounded_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_MAX_LOST", 2)

    async def scenario() -> None:
        gate, begun = threading.Event(), []
        pool = BoundedThreads("test", 2)

        def hang() -> None:
            begun.append(1)
            gate.wait(60)

        for _ in range(10):
            with pytest.raises(asyncio.TimeoutError):
                await pool.run(hang, 0.02)
        # Two pools were given up with two threads each, and no third one has been made.
        assert len(begun) <= 6
        gate.set()  # the disk is back
        deadline = asyncio.get_running_loop().time() + 20
        while True:
            try:
                assert await pool.run(lambda: 7, 5) == 7
                return
            except asyncio.TimeoutError:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
