"""The look at a submission's inputs: one for all that name the same inputs at the same time, and good for a moment.

A sweep submits the same inputs again and again; each look would cost some twenty calls to the shared filesystem. The
scheduler looks again before it starts a task, so a verdict that is a moment old does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from argus_ray.core.errors import FieldError, InvalidSpec, Unavailable
from argus_ray.core.taskspec import TaskSpec
from argus_ray.disk.inputs import Findings

#: Seconds. Who mends a path and submits again should not be told of the old one.
GOOD_FOR_S = 2.0
_MAX_ENTRIES = 1024

Look = Callable[[TaskSpec, str | None], Awaitable[Findings]]
_Key = tuple[str | None, str, str, str, str, str]


@dataclass
class _Entry:
    found: asyncio.Future[Findings]
    #: Monotonic seconds; None while the look is under way.
    at: float | None = None


class InputChecks:
    """Belongs to one event loop."""

    def __init__(self, look: Look, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`look` bounds itself, and never raises."""
        self._look = look
        self._monotonic = monotonic
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._looks: set[asyncio.Task[None]] = set()

    async def warnings_of(self, spec: TaskSpec, own_user: str | None = None) -> tuple[FieldError, ...]:
        """What the inputs leave in doubt. `own_user`: whose own folders count as inputs; what is right for one user may
        lead another one out of theirs, so a verdict is one user's then.

        Raises InvalidSpec for what would fail the run for certain, and Unavailable while what is missing proves
        nothing."""
        key = (own_user, spec.workload, spec.code_path, spec.model_id, spec.train_file, spec.val_file)
        entry = self._entries.get(key)
        if entry is None or (entry.at is not None and self._monotonic() - entry.at >= GOOD_FOR_S):
            entry = self._begin(key, spec, own_user)
        found = entry.found.result() if entry.found.done() else await asyncio.shield(entry.found)
        if found.unknown:
            raise Unavailable(f"the inputs cannot be looked at now, and nothing was submitted: {found.unknown}")
        if found.errors:
            raise InvalidSpec("the TaskSpec names inputs that the run could not use", found.errors)
        return found.warnings

    def _begin(self, key: _Key, spec: TaskSpec, own_user: str | None) -> _Entry:
        entry = self._entries[key] = _Entry(asyncio.get_running_loop().create_future())
        self._entries.move_to_end(key)
        while len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)

        async def run() -> None:
            # In a task of its own: the caller that began it may leave, and others wait for it.
            try:
                found = await self._look(spec, own_user)
            except BaseException:
                self._entries.pop(key, None)
                entry.found.cancel()
                raise
            entry.at = self._monotonic()
            entry.found.set_result(found)

        task = asyncio.create_task(run(), name="argus-input-check")
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return entry
