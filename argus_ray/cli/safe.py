"""Text of others, made fit for a terminal. A log line, an error or a file's name may hold escape sequences that move
the cursor, set the title or write into the clipboard; none of these leaves `argus` unless `--raw` asks for it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

#: CSI; OSC, DCS, SOS, PM, APC that have an end; and the two-character ones. As such a one the beginning of an OSC that
#: has no end goes, too: what follows it is shown, as it may be the rest of the line. None begins within another, so
#: that each character is looked at once.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\x90\x98\x9d-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
#: C0 but tab, DEL and C1; what turns the direction of writing; line and paragraph separators; what is no Unicode.
_UNFIT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def line(text: str) -> str:
    """One line of text without escape sequences; another control character becomes a replacement mark."""
    if text.isascii() and text.isprintable():
        return text
    return _UNFIT.sub(_REPLACEMENT, _ESCAPES.sub("", text))


def lines(text: str) -> list[str]:
    """The lines of a text of several, each made fit. `\\r\\n` and `\\r` end a line, too."""
    return [line(each) for each in re.split(r"\r\n|\n|\r", text)]


def block(text: str) -> str:
    return "\n".join(lines(text))


def cell(text: str) -> str:
    """For a table: one line, with single blanks only, so that two blanks always part columns."""
    return " ".join(line(re.sub(r"[\r\n\t]+", " ", text)).split())


def document(value: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """JSON of this value, equal to it, with each character that is unfit for a terminal escaped."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    # Newlines of the layout are kept; within strings json has escaped them.
    return re.sub(
        "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]",
        lambda found: f"\\u{ord(found[0]):04x}",
        text,
    )


def width(text: str) -> int:
    """Columns that this text takes on a terminal."""
    if text.isascii():
        return len(text)
    columns = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def cut(text: str, columns: int) -> str:
    """At most so many columns; what is cut ends with an ellipsis."""
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    kept, used = [], 0
    for character in text:
        used += width(character)
        if used > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"
