"""Threads for a disk that may hang: a hang in the past does not stop the future, and no hang costs threads for ever."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from argus_ray.disk import threads
from argus_ray.disk.threads import BoundedThreads

#: Of the calls that hang in these tests; seconds.
BOUND_S = 0.02
_numbers = itertools.count()


class Disk:
    """It hangs until told; and counts the threads of the calls on it."""

    def __init__(self, size: int) -> None:
        self.name = f"disk-{next(_numbers)}"
        self.pool = BoundedThreads(self.name, size)
        self.back = threading.Event()
        self.begun = 0

    def hang(self) -> None:
        self.begun += 1
        self.back.wait(60)

    def threads(self) -> int:
        return sum(thread.name.startswith(f"{self.name}_") for thread in threading.enumerate())

    async def answers(self, calls: int = 1) -> list[BaseException | None]:
        asked = (self.pool.run(self.hang, BOUND_S) for _ in range(calls))
        return await asyncio.gather(*asked, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def scenario(size: int) -> Callable[[Callable[[Disk], Awaitable[None]]], None]:
    """Runs it on a new disk; whatever hangs is let go in the end."""

    def run(body: Callable[[Disk], Awaitable[None]]) -> None:
        async def whole() -> None:
            disk = Disk(size)
            try:
                await body(disk)
            finally:
                disk.back.set()
                await disk.until(lambda: disk.threads() <= size)

        asyncio.run(whole())

    return run


@pytest.mark.parametrize("at_once", [8, 320], ids=["one round after the other", "all asked for at once"])
def test_40_rounds_of_8_calls_cost_a_bounded_number_of_threads(at_once: int) -> None:
    @scenario(8)
    async def body(disk: Disk) -> None:
        answers = []
        for _ in range(320 // at_once):
            answers += await disk.answers(at_once)
        assert len(answers) == 320 and all(isinstance(answer, asyncio.TimeoutError) for answer in answers)
        # A thread may have been made for a call whose time was over before it ran.
        assert disk.begun <= disk.threads() <= (8 + 1) * 8
        for answer in answers[-8:]:
            assert re.fullmatch(rf"\d+ calls of {disk.name} hang, the oldest for \d+ s: none is .*", str(answer))


def test_beyond_the_bound_a_call_fails_at_once_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    @scenario(2)
    async def body(disk: Disk) -> None:
        for _ in range(8):
            await disk.answers(2)
        await disk.until(lambda: disk.begun == 16)
        before = time.monotonic()
        for _ in range(100):
            with pytest.raises(asyncio.TimeoutError, match="none is begun meanwhile"):
                await disk.pool.run(disk.hang, 60)
        assert time.monotonic() - before < 30 and disk.begun == 16
        assert (
            sum(record.name == threads.__name__ and record.levelno == logging.ERROR for record in caplog.records) == 1
        )


def test_when_the_disk_is_back_calls_go_on_and_the_threads_of_the_hang_end() -> None:
    @scenario(2)
    async def body(disk: Disk) -> None:
        for _ in range(8):
            await disk.answers(2)
        assert disk.threads() == 16
        disk.back.set()
        await disk.until(lambda: disk.threads() <= 2 and not disk.pool._hung)
        assert await disk.pool.run(lambda: 7, 60) == 7
        # And a second hang has the same room again.
        disk.back.clear()
        await disk.answers(16)
        assert disk.threads() >= 16


def test_one_that_comes_back_lets_the_next_one_in() -> None:
    @scenario(1)
    async def body(disk: Disk) -> None:
        first = threading.Event()
        with pytest.raises(asyncio.TimeoutError):
            await disk.pool.run(lambda: first.wait(60), BOUND_S)
        for _ in range(7):
            await disk.answers()
        with pytest.raises(asyncio.TimeoutError, match="hang, the oldest"):
            await disk.pool.run(lambda: 7, 60)
        first.set()
        await disk.until(lambda: disk.threads() < 8 and len(disk.pool._hung) < 8)
        assert await disk.pool.run(lambda: 7, 60) == 7


def test_calls_that_hang_take_no_thread_from_others() -> None:
    @scenario(4)
    async def body(disk: Disk) -> None:
        # Three of four hang: four others still run together, each within its own bound.
        await disk.answers(3)
        together = threading.Barrier(4)
        asked = (disk.pool.run(lambda: together.wait(60), 60) for _ in range(4))
        assert sorted(await asyncio.gather(*asked)) == [0, 1, 2, 3]


def test_a_thread_without_a_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE_S", 0.05)

    @scenario(4)
    async def body(disk: Disk) -> None:
        for _ in range(3):
            assert await asyncio.gather(*(disk.pool.run(lambda: 7, 60) for _ in range(20))) == [7] * 20
            assert disk.pool._threads <= 4
            await disk.until(lambda: disk.threads() == 0)


def test_no_thread_is_left_that_missed_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # About the gap between calls: a thread wakes for a call that another one has taken, just as its time is over.
    monkeypatch.setattr(threads, "_IDLE_S", 1e-4)

    @scenario(4)
    async def body(disk: Disk) -> None:
        for _ in range(20):
            for _ in range(50):
                await asyncio.gather(*(disk.pool.run(lambda: 7, 60) for _ in range(4)))
            await disk.until(lambda: disk.threads() == 0)


def test_at_most_size_calls_are_at_work() -> None:
    @scenario(2)
    async def body(disk: Disk) -> None:
        at_work, most, lock = 0, 0, threading.Lock()

        def work() -> None:
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.001)
            with lock:
                at_work -= 1

        await asyncio.gather(*(disk.pool.run(work, 60) for _ in range(50)))
        assert most <= 2 and disk.threads() <= 2


def test_a_call_that_is_given_up_keeps_its_thread_until_it_is_back_and_its_error_is_nobodys() -> None:
    @scenario(1)
    async def body(disk: Disk) -> None:
        def fail() -> None:
            disk.hang()
            raise OSError("too late")

        asked = asyncio.ensure_future(disk.pool.run(fail, 60))
        await disk.until(lambda: disk.begun == 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await disk.pool.run(lambda: 7, 60) == 7
        assert disk.threads() == 2
        disk.back.set()
        await disk.until(lambda: disk.threads() == 1)
        with pytest.raises(OSError, match="now"):
            await disk.pool.run(lambda: (_ for _ in ()).throw(OSError("now")), 60)


def test_a_wait_for_a_place_has_a_bound_of_its_own() -> None:
    async def body(disk: Disk) -> None:
        first = asyncio.ensure_future(disk.pool.run(disk.hang, 60))
        await disk.until(lambda: disk.begun == 1)
        with pytest.raises(threads.Busy):
            await disk.pool.run(disk.hang, 60, wait_s=0.02)
        assert disk.begun == 1
        disk.back.set()
        await first
        await disk.pool.run(disk.hang, 60, wait_s=0.02)

    scenario(1)(body)
