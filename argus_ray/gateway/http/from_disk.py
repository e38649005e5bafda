"""What a look at the shared filesystem is for a client that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from argus_ray.core.errors import Unavailable
from argus_ray.disk.threads import BoundedThreads, Busy

_T = TypeVar("_T")


async def from_disk(threads: BoundedThreads, function: Callable[[], _T], timeout_s: float) -> _T:
    """Raises what the function raises; Unavailable if the disk does not answer within this time, or no thread is free
    within it."""
    try:
        return await threads.run(function, timeout_s, wait_s=timeout_s)
    except Busy:
        raise Unavailable("Others' calls take all that there is room for. Try again.") from None
    except (asyncio.TimeoutError, OSError):
        raise Unavailable("The shared filesystem does not answer. Try again.") from None
