"""Thousands of things at a time, and still a turn for everybody else on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

#: Calls that begin, or things that are looked at, before others get their turn: some milliseconds.
_AT_ONCE = 500


async def gather(calls: Iterable[Coroutine[Any, Any, _T]]) -> list[_T | BaseException]:
    """As `asyncio.gather` with `return_exceptions`: all of them run together, and none is waited for to begin one."""
    tasks: list[asyncio.Task[_T]] = []
    try:
        for call in calls:
            tasks.append(asyncio.create_task(call))
            if len(tasks) % _AT_ONCE == 0:
                await others_first()
        if tasks:
            await asyncio.wait(tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    found: list[_T | BaseException] = []
    for task in tasks:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        found.append(task.result() if error is None else error)
    return found


async def over(items: Iterable[_T]) -> AsyncIterator[_T]:
    """Them all, with a turn for others now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _AT_ONCE == 0:
            await others_first()


async def others_first() -> None:
    """Between two steps of some milliseconds each."""
    await asyncio.sleep(0)
