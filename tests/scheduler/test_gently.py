"""Many calls at a time leave a turn to others, and each is answered for."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from argus_ray.scheduler import gently


def test_all_run_together_and_are_answered_in_their_order() -> None:
    async def run() -> None:
        count, begun, may_end = 2_000, 0, asyncio.Event()

        async def call(number: int) -> int:
            nonlocal begun
            begun += 1
            if begun == count:
                may_end.set()
            await may_end.wait()  # for ever, if each waited for those before it
            if number % 100 == 7:
                raise ValueError(number)
            return number

        found = await asyncio.wait_for(gently.gather(call(number) for number in range(count)), 60)
        for number, each in enumerate(found):
            assert isinstance(each, ValueError) if number % 100 == 7 else each == number

    asyncio.run(run())
    assert asyncio.run(gently.gather([])) == []


def test_others_get_their_turn_while_they_begin() -> None:
    async def run() -> None:
        turns: list[str] = []

        async def call() -> None:
            turns.append("call")

        other = asyncio.create_task(_note(turns, 4))
        await gently.gather(call() for _ in range(2_000))
        await other
        places = [place for place, name in enumerate(turns) if name == "other"]
        assert places[-1] < 2_000 and max(b - a for a, b in itertools.pairwise(places)) <= 501

    asyncio.run(run())


def test_others_get_their_turn_while_all_are_gone_over() -> None:
    async def run() -> None:
        turns: list[str] = []
        other = asyncio.create_task(_note(turns, 3))
        seen = []
        async for number in gently.over(range(2_000)):
            seen.append(number)
            turns.append("one")
        await other
        places = [place for place, name in enumerate(turns) if name == "other"]
        assert seen == list(range(2_000)) and places[-1] < 2_000

    asyncio.run(run())


async def _note(turns: list[str], times: int) -> None:
    for _ in range(times):
        turns.append("other")
        await asyncio.sleep(0)


def test_who_is_canceled_cancels_all() -> None:
    async def run() -> None:
        ended = 0

        async def call() -> None:
            nonlocal ended
            try:
                await asyncio.Event().wait()
            finally:
                ended += 1

        whole = asyncio.ensure_future(gently.gather(call() for _ in range(10)))  # noqa: RUF006
        while len(asyncio.all_tasks()) < 12:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        assert ended == 10

    asyncio.run(run())
