"""When the next tick begins: at once when something happens to an idle scheduler, and never more often than so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from argus_ray.scheduler.tick import Next

#: Between the beginnings of two ticks: hundreds of submissions a second need no tick each. Seconds.
APART_S = 0.1
#: The same while what is known of thousands of tasks is written down in parts: each keeps those who submit waiting.
MOMENT_S = 0.3


@dataclass
class Pace:
    """Of one event loop, which calls all of it. Times in seconds."""

    #: While something is alive or waits, and else.
    poll_s: float
    tick_s: float
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _began_at: float = float("-inf")

    def wake(self) -> None:
        """Something happened. Any number of calls before a tick begins are one."""
        self._woken.set()

    def begin(self) -> None:
        """A tick begins now: it will see what happened before."""
        self._began_at = asyncio.get_running_loop().time()
        self._woken.clear()

    async def rest(self, upcoming: Next) -> None:
        """Until the next tick should begin."""
        apart_s = MOMENT_S if upcoming is Next.IN_A_MOMENT else APART_S
        if upcoming in (Next.SOON, Next.LATER):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self.poll_s if upcoming is Next.SOON else self.tick_s)
        await asyncio.sleep(max(0.0, self._began_at + apart_s - asyncio.get_running_loop().time()))
