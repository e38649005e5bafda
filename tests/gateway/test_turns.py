"""One caller's calls wait for one another, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from argus_ray.core.errors import Unavailable
from argus_ray.gateway.http.turns import Turns


def test_calls_of_one_caller_go_one_after_another_and_others_do_not_wait() -> None:
    async def run() -> None:
        turns, begun, may_end = Turns(at_once=1), [], asyncio.Event()

        async def call(caller: str, number: int) -> None:
            async def work() -> None:
                begun.append((caller, number))
                await may_end.wait()

            await turns.run(caller, work)

        calls = [asyncio.create_task(call("ada", number)) for number in range(3)]
        calls.append(asyncio.create_task(call("bob", 0)))
        await until(lambda: len(begun) >= 2)
        assert begun == [("ada", 0), ("bob", 0)]
        may_end.set()
        await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert begun[2:] == [("ada", 1), ("ada", 2)]
        await until(lambda: not turns._callers)  # who has none is forgotten

    asyncio.run(run())


def test_too_many_are_refused_and_too_long_waits_end() -> None:
    async def run() -> None:
        turns, may_end = Turns(at_once=1, most=2, timeout_s=0.05), asyncio.Event()
        first = asyncio.create_task(turns.run("ada", may_end.wait))
        await until(lambda: "ada" in turns._callers)
        with pytest.raises(Unavailable, match="did not end in time"):
            await turns.run("ada", nothing)
        waiting = asyncio.create_task(turns.run("ada", nothing))
        await until(lambda: turns._callers["ada"].calls == 2)
        with pytest.raises(Unavailable, match="2 calls"):
            await turns.run("ada", nothing)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        may_end.set()
        await first
        await turns.run("ada", nothing)
        await until(lambda: not turns._callers)

    asyncio.run(run())


def test_a_caller_that_leaves_has_its_turn_until_the_work_has_ended() -> None:
    """Else who asks and leaves, again and again, has all threads: nobody can end one."""

    async def run() -> None:
        turns, begun, may_end = Turns(at_once=1, timeout_s=0.05), [], asyncio.Event()

        async def work() -> None:
            begun.append(1)
            await may_end.wait()
            raise ValueError("for nobody")

        left = asyncio.create_task(turns.run("ada", work))
        await until(lambda: begun == [1])
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        with pytest.raises(Unavailable, match="did not end in time"):
            await turns.run("ada", work)
        assert begun == [1]
        may_end.set()
        await until(lambda: not turns._callers)

    asyncio.run(run())


def test_what_the_work_raises_is_told_and_the_next_one_goes_on() -> None:
    async def run() -> None:
        turns = Turns(at_once=1)

        async def work() -> None:
            raise ValueError("told")

        for _ in range(3):
            with pytest.raises(ValueError, match="told"):
                await turns.run("ada", work)
        await turns.run("ada", nothing)

    asyncio.run(run())


async def nothing() -> None:
    pass


async def until(condition: Callable[[], bool]) -> None:
    """Some turns of the loop."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")
