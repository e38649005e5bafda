"""Blocking calls with a bound, in threads: for what has no timeout of its own (a hung filesystem, Ray's SDK)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

log = logging.getLogger(__name__)
#: Pools of threads that may hang before no new one is made: a disk that is away for hours must not cost ever more.
_MAX_LOST = 8
_T = TypeVar("_T")


class BoundedThreads:
    """At most `size` calls at a time. A call that outlives its bound leaves its thread to itself; when all threads are
    stuck that way, they are abandoned for new ones, so that a hang in the past does not stop the future."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._stuck = 0
        #: Threads of abandoned pools that still hang.
        self._lost = 0
        self._slots = asyncio.Semaphore(size)

    async def run(self, call: Callable[[], _T], timeout_s: float) -> _T:
        """The call's result. Raises what it raises, and TimeoutError after the bound, which begins with the call."""
        if self._lost >= _MAX_LOST * self._size:
            raise asyncio.TimeoutError(f"{self._lost} calls of {self._name} hang")
        async with self._slots:
            pool = self._pool
            future = asyncio.get_running_loop().run_in_executor(pool, call)
            try:
                return await asyncio.wait_for(asyncio.shield(future), timeout_s)
            except (asyncio.TimeoutError, asyncio.CancelledError):
                self._abandon(future, pool)
                raise

    def _abandon(self, future: asyncio.Future[Any], pool: ThreadPoolExecutor) -> None:
        if future.done() or pool is not self._pool:
            return
        self._stuck += 1

        def freed(done: asyncio.Future[Any]) -> None:
            # Its outcome is of no use any more, but must be fetched, or asyncio logs it as lost.
            if not done.cancelled():
                done.exception()
            if pool is self._pool:
                self._stuck -= 1
            else:
                self._lost -= 1

        future.add_done_callback(freed)
        if self._stuck >= self._size:
            log.warning("all %d threads for %s are stuck; starting new ones", self._size, self._name)
            self._pool.shutdown(wait=False)
            self._lost += self._stuck
            self._pool, self._stuck = ThreadPoolExecutor(self._size, thread_name_prefix=self._name), 0
