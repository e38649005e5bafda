"""Work that belongs to nobody's request, though one has begun it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin(work: Callable[[], Coroutine[Any, Any, T]], name: str) -> asyncio.Task[T]:
    """A task in a context of its own. In the first caller's context Ray would take it for a child of that caller's
    request, and cancel it for everybody when that one client leaves."""
    return contextvars.Context().run(lambda: asyncio.create_task(work(), name=name))
