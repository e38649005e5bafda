"""Calls that take a thread for long: those of one caller go some at a time, so that they never take all threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from argus_ray.core.errors import Unavailable
from argus_ray.gateway import apart

_T = TypeVar("_T")


class _Caller:
    def __init__(self, at_once: int) -> None:
        self.places = asyncio.Semaphore(at_once)
        self.calls = 0


@dataclass
class Turns:
    """It belongs to one event loop."""

    #: Of one caller (a user, or a role) at work.
    at_once: int
    #: Of one caller at work or waiting.
    most: int = 16
    #: Seconds that a call waits for its turn.
    timeout_s: float = 15.0
    _callers: dict[str, _Caller] = field(default_factory=dict)

    async def run(self, caller: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What the work comes to, which must end by itself. Raises what it raises, and Unavailable if too many of this
        caller wait, or for too long.

        A caller that leaves gives no turn back before the work has ended: nobody can end a thread, so whoever asks and
        leaves, again and again, would have them all.
        """
        mine = self._callers.setdefault(caller, _Caller(self.at_once))
        if mine.calls >= self.most:
            raise Unavailable(f"You have {self.most} calls of this kind under way. Wait for one to end.")
        mine.calls += 1
        try:
            await asyncio.wait_for(mine.places.acquire(), self.timeout_s)
        except asyncio.TimeoutError:
            self._leave(caller, mine)
            raise Unavailable("Your calls before this one did not end in time. Try again.") from None
        except BaseException:
            self._leave(caller, mine)
            raise
        task = apart.begin(work, "argus-turn")

        def end(_: object) -> None:
            mine.places.release()
            self._leave(caller, mine)
            if not task.cancelled():
                task.exception()  # where nobody waits for it any more

        task.add_done_callback(end)
        return await asyncio.shield(task)

    def _leave(self, caller: str, mine: _Caller) -> None:
        mine.calls -= 1
        if not mine.calls:
            del self._callers[caller]
