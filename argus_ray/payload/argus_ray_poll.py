"""A driver that does not burn its cores while the head is away.

Two threads of each driver ask Ray's GCS for messages, for lines of its actors and for errors. While the GCS does not
answer, a poll returns nothing at once, and they ask again at once (ray 2.60: `print_logs` and `listen_error_messages`
of _private/worker.py). So a head that is away for a night would cost each run two threads that spin for as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

#: Seconds between two polls that brought nothing. What the GCS publishes when it is back waits as long at most.
PAUSE_S = 0.5
SUBSCRIBERS = ("GcsErrorSubscriber", "GcsLogSubscriber")


def install(raylet: ModuleType, sleep: Callable[[float], None] = time.sleep) -> None:
    """In `ray._raylet`, before a driver attaches. RuntimeError for a Ray that has none of these."""
    for name in SUBSCRIBERS:
        found = getattr(raylet, name, None)
        if found is None:
            raise RuntimeError(f"argus: ray._raylet has no {name}: this Ray is not the one that Argus knows")
        setattr(raylet, name, paced(found, sleep))


def paced(subscriber: type[Any], sleep: Callable[[float], None]) -> type[Any]:
    """The same, whose `poll` takes a moment where it brings nothing."""

    class Paced(subscriber):
        def poll(self, timeout: float | None = None) -> Any:
            found = super().poll(timeout)
            if _is_nothing(found):
                sleep(PAUSE_S)
            return found

    return Paced


def _is_nothing(found: Any) -> bool:
    """Of errors it is `None, None`, of lines a batch without any."""
    if isinstance(found, tuple):
        return found[-1] is None
    return not (found and found.get("lines"))
