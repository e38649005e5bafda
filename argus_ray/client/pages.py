"""Lists that come page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Page(Protocol):
    @property
    def next_cursor(self) -> str | None: ...


P = TypeVar("P", bound=Page)


def pages(
    ask: Callable[[str | None, int], P], items: Callable[[P], Sequence[T]], limit: int | None, size: int
) -> Iterator[T]:
    """All items, at most `limit`. `ask`: the page of so many items at a cursor. Pages are asked for as needed."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        page = ask(cursor, size if left is None else min(left, size))
        found = items(page)
        yield from found if left is None else found[:left]
        if left is not None:
            left -= len(found)
        # A server that told the same place again would hold us for ever.
        if page.next_cursor is None or page.next_cursor == cursor:
            return
        cursor = page.next_cursor
