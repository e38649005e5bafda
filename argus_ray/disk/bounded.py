"""Calls into a filesystem that may hang: bounded, so that a loop goes on and hears its signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class BoundedCall(Generic[_T]):
    """Runs one call at a time in a thread of its own. A thread that hangs in the kernel cannot be ended; so while one
    does, no second one is started."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], _T]) -> _T:
        """What the function returns or raises. Raises TimeoutError after `timeout_s` seconds, and at once while an
        earlier call still hangs."""
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError("an earlier call has not come back")
        box: list[_T | BaseException] = []

        def work() -> None:
            try:
                box.append(function())
            except BaseException as error:
                box.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._thread = thread  # once it may be waited for
        thread.join(self.timeout_s)
        if not box:
            raise TimeoutError(f"no answer within {self.timeout_s:g} s")
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]

    def is_over(self, timeout_s: float) -> bool:
        """Whether no call is under way, after so many seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()
