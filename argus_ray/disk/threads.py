"""Blocking calls with a bound, in threads: for what has no timeout of its own (a hung filesystem, Ray's SDK)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any, TypeVar

log = logging.getLogger(__name__)
#: Times `size` calls may hang before none is begun: a disk that is away for hours must not cost ever more threads.
_GENERATIONS = 8
#: After which a thread without a call ends; seconds.
_IDLE_S = 30.0
_T = TypeVar("_T")


class Busy(asyncio.TimeoutError):
    """No place was free within the time: all are at work, and none may hang."""


@dataclass
class _Call:
    function: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    #: It has outlived its bound: its thread ends when it comes back.
    is_left: bool = False

    def answer(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.function()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class BoundedThreads:
    """At most `size` calls at a time. A call that outlives its bound keeps its thread, since nobody can end it, and the
    next call gets another one, so that a hang in the past does not stop the future. So there are never more threads
    than `size` for each generation and `size` for those at work; beyond that, calls fail at once and say why, until a
    thread comes back. No thread keeps its process from ending."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._most_hung = _GENERATIONS * size
        self._slots = asyncio.Semaphore(size)
        #: The calls that have outlived their bound and are not back yet, with when each began; monotonic seconds.
        self._hung: dict[asyncio.Future[Any], float] = {}
        self._refuses = False
        # No SimpleQueue: a `get` that is woken for what another thread has taken, and whose time is over by then, waits
        # for ever (CPython's Modules/_queuemodule.c gives the lock a negative rest, which means no bound).
        self._calls: Queue[_Call] = Queue()
        #: Guards `is_left` of the calls, and the number of threads without those that hang.
        self._lock = threading.Lock()
        self._threads = 0
        self._at_work = 0
        self._made = 0

    async def run(self, function: Callable[[], _T], timeout_s: float, wait_s: float | None = None) -> _T:
        """The call's result. Raises what it raises, and TimeoutError after the bound, which begins with the call, or at
        once while too many calls hang; Busy after `wait_s` seconds without a place (None: it waits for one)."""
        self._refuse_beyond_bound()
        await self._take_slot(wait_s)
        try:
            # Once more: whoever waited for a slot came before those at work were seen to hang.
            self._refuse_beyond_bound()
            begun, call = time.monotonic(), _Call(function)
            future = asyncio.wrap_future(call.future)
            self._at_work += 1
            try:
                self._begin(call)
                return await asyncio.wait_for(asyncio.shield(future), timeout_s)
            except (asyncio.TimeoutError, asyncio.CancelledError):
                self._leave(call, future, begun)
                raise
            finally:
                self._at_work -= 1
        finally:
            self._slots.release()

    async def _take_slot(self, wait_s: float | None) -> None:
        # `wait_for` would make a task of its own for each call.
        if wait_s is None or not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            await asyncio.wait_for(self._slots.acquire(), wait_s)
        except asyncio.TimeoutError:
            raise Busy(f"all threads of {self._name} are at work") from None

    def _refuse_beyond_bound(self) -> None:
        if len(self._hung) < self._most_hung:
            self._refuses = False
            return
        oldest_s = time.monotonic() - min(self._hung.values())
        why = f"{len(self._hung)} calls of {self._name} hang, the oldest for {oldest_s:.0f} s: none is begun meanwhile"
        if not self._refuses:
            log.error("%s", why)
        self._refuses = True
        raise asyncio.TimeoutError(why)

    def _begin(self, call: _Call) -> None:
        # A thread for each call at work, so that none waits for a thread within its bound.
        with self._lock:
            is_short = self._threads < self._at_work
            if is_short:
                self._made += 1
                name = f"{self._name}_{self._made}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._threads += 1
            self._calls.put(call)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=_IDLE_S)
            except Empty:
                with self._lock:
                    if self._calls.empty():
                        self._threads -= 1
                        return
                continue
            call.answer()
            with self._lock:
                if call.is_left:
                    return
            del call  # and what it holds, while this thread waits for the next one

    def _leave(self, call: _Call, future: asyncio.Future[Any], begun: float) -> None:
        with self._lock:
            if call.future.done():
                return
            call.is_left = True
            self._threads -= 1
        self._hung[future] = begun
        if len(self._hung) % self._size == 0:
            log.warning("%d calls of %s hang; others go on in new threads", len(self._hung), self._name)
        future.add_done_callback(self._came_back)

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        # Its outcome is of no use any more, but must be fetched, or asyncio logs it as lost.
        if not future.cancelled():
            future.exception()
        del self._hung[future]
