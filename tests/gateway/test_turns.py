"""One caller's calls wait for one another, and nobody waits for them."""

from __future__ import annotations

import asyncio

import pytest

from argus_ray.core.errors import Unavailable
from argus_ray.gateway.http.turns import Turns


def test_calls_of_one_caller_go_one_after_another_and_others_do_not_wait() -> None:
    async def run() -> None:
        turns, begun, may_end = Turns(at_once=1), [], asyncio.Event()

        async def call(caller: str, number: int) -> None:
            async with turns.turn(caller):
                begun.append((caller, number))
                await may_end.wait()

        calls = [asyncio.create_task(call("ada", number)) for number in range(3)]
        calls.append(asyncio.create_task(call("bob", 0)))
        while len(begun) < 2:
            await asyncio.sleep(0)
        assert begun == [("ada", 0), ("bob", 0)]
        may_end.set()
        await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert begun[2:] == [("ada", 1), ("ada", 2)]
        assert not turns._callers, "who has none is forgotten"

    asyncio.run(run())


def test_too_many_are_refused_and_too_long_waits_end() -> None:
    async def run() -> None:
        turns = Turns(at_once=1, most=2, timeout_s=0.05)
        async with turns.turn("ada"):
            with pytest.raises(Unavailable, match="did not end in time"):
                async with turns.turn("ada"):
                    pass
            waiting = asyncio.create_task(turns.turn("ada").__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="2 calls"):
                async with turns.turn("ada"):
                    pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with turns.turn("ada"):
            pass
        assert not turns._callers

    asyncio.run(run())
