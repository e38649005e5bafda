"""Keeping watch over the reserve of the shared filesystem, beside the ticks: they read what the last look said, and
never wait for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from argus_ray.core.reserve import LowDisk, Space, judge

log = logging.getLogger(__name__)

#: From one look to the next, in seconds.
EVERY_S = 5.0


@dataclass
class ReserveWatch:
    #: Bounded. Raises OSError or TimeoutError where the disk does not say.
    look: Callable[[], Awaitable[Space | None]]
    #: In bytes; 0: there is none.
    reserve: int
    #: Unix time.
    clock: Callable[[], float]
    #: Since it was last seen so; None: there is enough, as far as is known.
    low: LowDisk | None = None
    #: By the last look; None: the disk did not say.
    seen: Space | None = None
    _is_unknown: bool = False

    async def once(self) -> bool:
        """One look. Whether something is other than before it."""
        if not self.reserve:
            return False
        try:
            seen = await self.look()
            why = "it does not count what is free"
        except (OSError, asyncio.TimeoutError) as error:
            seen, why = None, f"{type(error).__name__}: {error}".removesuffix(": ")
        self.seen = seen
        before, self.low = self.low, judge(self.low, seen, self.reserve, self.clock())
        if (seen is None) is not self._is_unknown:
            self._is_unknown = seen is None
            if self._is_unknown:
                log.warning("what is free on the shared filesystem is not known: %s", why)
        if self.low is not None and before is None:
            log.warning("the shared filesystem is low: %s", self.low.words())
        elif self.low is None and before is not None:
            log.info("the shared filesystem has room again: tasks start")
        return (self.low is None) is not (before is None)
