"""When a task might start that nobody has submitted yet: worked out beside the ticks, one at a time, and kept for as
long as what is told of those that wait."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.forecast.model import Newcomer

log = logging.getLogger(__name__)

#: An answer is given again for so long. Seconds.
GOOD_FOR_S = 30.0
#: Nobody waits any more for what was asked so long ago. Seconds.
_GIVEN_UP_S = 10.0
#: Answers that are kept, and questions that wait: of more the oldest are left out.
_MAX_KEPT, _MAX_WAITING = 512, 32


@dataclass
class Newcomers:
    foresee: Callable[[Newcomer], Awaitable[Range | Unknown]]
    monotonic: Callable[[], float]
    #: By question: when it was answered, and the answer; when it was asked last.
    _known: dict[Newcomer, tuple[float, Range | Unknown]] = field(default_factory=dict)
    _asked: dict[Newcomer, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loop: asyncio.AbstractEventLoop | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def start_of(self, newcomer: Newcomer) -> Range | Unknown:
        """At once, from any thread. NOT_YET: ask again in a moment."""
        now = self.monotonic()
        with self._lock:
            known = self._known.get(newcomer)
            if known is not None and now - known[0] < GOOD_FOR_S:
                return known[1]
            self._asked.pop(newcomer, None)
            self._asked[newcomer] = now
            if len(self._asked) > _MAX_WAITING:
                del self._asked[next(iter(self._asked))]
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)
        return Unknown.NOT_YET

    async def run(self) -> None:
        """Answers what is asked, and rests after each answer for as long as it took."""
        self._loop = asyncio.get_running_loop()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (took_s := await self.answer_one()) is not None:
                await asyncio.sleep(took_s)

    async def answer_one(self) -> float | None:
        """The newest one, for whom somebody waits for certain: how many seconds that took. None: nobody asks."""
        begun = self.monotonic()
        with self._lock:
            self._asked = {each: at for each, at in self._asked.items() if begun - at < _GIVEN_UP_S}
            if not self._asked:
                return None
            newcomer, _ = self._asked.popitem()
        try:
            told = await self.foresee(newcomer)
        except Exception as error:
            log.warning("no start was foreseen: %s: %s", type(error).__name__, error)
            told = Unknown.NOT_YET
        now = self.monotonic()
        with self._lock:
            self._asked.pop(newcomer, None)
            self._known.pop(newcomer, None)
            self._known[newcomer] = now, told
            if len(self._known) > _MAX_KEPT:
                del self._known[next(iter(self._known))]
        return now - begun
