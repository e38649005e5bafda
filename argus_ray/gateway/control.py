"""The way to the control plane: one action in, its result or an ArgusError out.

Routes know only `ControlPlane`. In production it is a `BatchingControlPlane` over one Ray actor call a batch;
tests use a `LocalControlPlane` over a service in the same process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from argus_ray.core.actions import Action, Credential
from argus_ray.core.errors import ArgusError, Unavailable
from argus_ray.gateway import apart

_log = logging.getLogger("argus.gateway")

R = TypeVar("R")
#: One request of a batch.
Asked = tuple[Credential, Action[Any]]
#: Sends one batch; answers one result or ArgusError for each item, in the same order.
Send = Callable[[list[Asked]], Awaitable[Sequence[Any]]]

NOT_DONE = "The service is busy; nothing was done. Try again."
UNKNOWN_OUTCOME = (
    "The service did not answer in time, and the request may have been carried out or not. "
    "A retry of a submission with the same Idempotency-Key is safe; so is a retry of any other call."
)


class ControlPlane(Protocol):
    async def call(self, who: Credential, action: Action[R]) -> R:
        """The action's result; raises ArgusError."""


class Wake(Protocol):
    def __call__(self) -> None:
        """Tell the scheduler that there is work. Fire and forget: must not block, and what it raises is only
        logged.
        """


class Handler(Protocol):
    """The part of the service that the gateway needs."""

    def handle_many(self, asked: Sequence[Asked], /) -> Sequence[Any]: ...


class LocalControlPlane:
    """A service in this process, one call at a time, off the event loop."""

    def __init__(self, service: Handler) -> None:
        self._service = service
        self._lock = threading.Lock()

    async def call(self, who: Credential, action: Action[R]) -> R:
        result: R = _result_or_raise(await asyncio.to_thread(self._run, who, action))
        return result

    def _run(self, who: Credential, action: Action[Any]) -> Any:
        with self._lock:
            [result] = self._service.handle_many([(who, action)])
            return result


@dataclass
class _Waiting:
    asked: Asked
    answer: asyncio.Future[Any]
    sent: bool = False


class BatchingControlPlane:
    """Natural micro-batching: while one batch is in flight the next requests queue up, and then go together.

    An idle control plane adds no delay, and a busy one shares its actor call and its fsync. A batch that
    broke or timed out is never sent again from here: it may have been committed. The caller is told so (503),
    and only the caller knows whether a repetition is safe. Belongs to one event loop.
    """

    def __init__(
        self,
        send: Send,
        *,
        max_batch: int = 64,
        max_queued: int = 1024,
        timeout_s: float = 10.0,
        linger_s: float = 0.003,
    ) -> None:
        """`timeout_s` bounds each call, its wait in the queue included, and each batch. `linger_s`: how long a busy
        plane collects the next batch. Each one costs a crossing, a transaction and two looks at the fence."""
        self._send = send
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._queue: deque[_Waiting] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def call(self, who: Credential, action: Action[R]) -> R:
        if len(self._queue) >= self._max_queued:
            raise Unavailable(NOT_DONE)
        loop = asyncio.get_running_loop()
        item = _Waiting((who, action), loop.create_future())
        self._queue.append(item)
        if self._pump is None or self._pump.done():
            self._pump = apart.begin(self._run, "argus-control-batches")
        # `wait_for` would cost a task's worth of work for each call.
        timer = loop.call_later(self._timeout_s, _expire, item)
        try:
            result: R = _result_or_raise(await item.answer)
            return result
        finally:
            timer.cancel()
            # A caller that left before its turn leaves no trace: what nobody waits for is not done.
            if not item.sent and item in self._queue:
                self._queue.remove(item)

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue:
                batch = self._next_batch()
                if batch:
                    await self._deliver(batch)
                if len(batch) > 1 and len(self._queue) < self._max_batch:
                    await asyncio.sleep(self._linger_s)
        finally:
            # Only a cancellation (the loop ends) leaves something here.
            for item in [*batch, *self._queue]:
                if not item.answer.done():
                    item.answer.set_exception(Unavailable(UNKNOWN_OUTCOME if item.sent else NOT_DONE))
            self._queue.clear()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_batch:
            item = self._queue.popleft()
            if not item.answer.done():
                item.sent = True
                batch.append(item)
        return batch

    async def _deliver(self, batch: list[_Waiting]) -> None:
        try:
            results = await asyncio.wait_for(self._send([item.asked for item in batch]), self._timeout_s)
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} answers to {len(batch)} requests")
        except Exception as error:
            _log.warning("a batch of %d requests has no answer: %s", len(batch), type(error).__name__, exc_info=error)
            results = [Unavailable(UNKNOWN_OUTCOME) for _ in batch]
        for item, result in zip(batch, results, strict=True):
            # Done already: its caller has timed out or left, which is no concern of the others.
            if not item.answer.done():
                item.answer.set_result(result)


def _expire(item: _Waiting) -> None:
    if not item.answer.done():
        item.answer.set_result(Unavailable(UNKNOWN_OUTCOME if item.sent else NOT_DONE))


def _result_or_raise(result: Any) -> Any:
    if isinstance(result, ArgusError):
        raise result
    return result
