"""Python's garbage collector and the queue. A full collection walks through all that lives, and nothing runs meanwhile:
a tenth of a second with 100,000 tasks. What has come to stay is taken out of it, and still freed when it goes."""

from __future__ import annotations

import gc

#: Rows that have come since; fewer are walked through within a few milliseconds.
_MANY = 5_000


def have_come(rows: int) -> None:
    """So many at once, as when a scheduler begins: taken out before anything is made of them. What is garbage by then,
    and in a cycle, stays."""
    if rows >= _MANY:
        gc.freeze()


class Collector:
    def __init__(self) -> None:
        self._known = 0

    def after_tick(self, rows: int) -> None:
        """`rows`: tasks that the scheduler keeps."""
        self._known = min(self._known, rows)
        if rows - self._known >= _MANY:
            gc.collect(1)
            gc.freeze()
            self._known = rows
