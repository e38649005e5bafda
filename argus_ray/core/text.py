"""Text that was said outside of Argus, made fit to be kept.

A file's name or an error's words may hold lone surrogates, which no UTF-8 can carry, so neither the database nor an
answer can; and SQLite takes a NUL for the end of a text. Changes are cleaned where they are made, rows where they are
read.
"""

from __future__ import annotations


def clean(text: str) -> str:
    """The same text, with a question mark for each character that cannot be kept."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def size_words(size: int) -> str:
    """Of bytes, for people."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


class CleanText:
    """A frozen dataclass whose own text is clean, whatever it is made of."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and (kept := clean(value)) != value:
                # Nobody has seen the object yet, so it may still change.
                object.__setattr__(self, name, kept)
