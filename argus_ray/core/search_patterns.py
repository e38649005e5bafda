"""What a user searches a log for: a text or a regular expression, in bytes that need not be UTF-8.

Expressions are matched by RE2, which takes a time that grows with the text alone, has a bound of its memory, and leaves
other threads their turn. What it multiplies the text by is the size of the expression, so that is bounded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import re2

#: Characters.
MAX_LENGTH = 256
#: RE2's instructions: `.{0,200}` has 1,800. A search of 256 KiB with so many takes a second at most.
_MAX_PROGRAM = 2_000
#: Bytes.
_MAX_MEMORY = 2 * 1024 * 1024


class BrokenPattern(ValueError):
    """It breaks a rule, which is the only argument."""


class TooSlow(Exception):
    """The pattern takes too long on this text."""


class Pattern:
    """Belongs to one thread."""

    def __init__(self, text: str, *, is_expression: bool, is_case_sensitive: bool) -> None:
        """Raises BrokenPattern."""
        if not 0 < len(text) <= MAX_LENGTH:
            raise BrokenPattern(f"must have 1 to {MAX_LENGTH} characters")
        if "\n" in text or "\r" in text:
            raise BrokenPattern("may hold no line end: a match lies within a line")
        options = _options(is_literal=not is_expression, is_case_sensitive=is_case_sensitive)
        try:
            self._compiled = re2.compile(text, options)
            if is_expression:
                # Only now: in parentheses, one too many would be none.
                self._compiled = re2.compile(f"(?m:{text})", options)
        except re2.error as error:
            # What stands behind the colon is the user's own.
            why = error.args[0].decode("utf-8", "replace").partition(":")[0]
            raise BrokenPattern(f"is no regular expression of RE2: {why}") from None
        finally:
            re2.purge()  # it would keep what it has compiled, each with all its memory
        if self._compiled.programsize > _MAX_PROGRAM:
            raise BrokenPattern("is too large an expression: make its repetitions and its classes smaller")
        if self._compiled.search(b"") is not None:
            raise BrokenPattern("may not match an empty line")

    def spans(
        self,
        text: bytes,
        start: int,
        end: int,
        *,
        at_most_s: float,
        monotonic: Callable[[], float],
    ) -> Iterator[tuple[int, int]]:
        """Where the matches in `text` between `start` and `end` begin and end, in order; what stands around them
        decides about word and line boundaries. No match spans a newline, and none is empty. Raises TooSlow."""
        deadline = monotonic() + at_most_s
        for match in self._compiled.finditer(text, start, end):
            begin, behind = match.span()
            if begin < behind:
                yield begin, behind
            if monotonic() > deadline:
                raise TooSlow


def _options(*, is_literal: bool, is_case_sensitive: bool) -> re2.Options:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.never_nl = True
    options.never_capture = True
    options.literal = is_literal
    options.case_sensitive = is_case_sensitive
    return options
