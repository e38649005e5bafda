"""The headers of a download (RFC 9110, 13 and 14): which bytes are asked for, and what a file is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote

from argus_ray.gateway.http.problems import RangeNotSatisfiable
from argus_ray.gateway.http.schemas import tellable

_RANGE = re.compile(r"\s*([0-9]*)\s*-\s*([0-9]*)\s*")
#: No file is as long: a longer number is no other one.
_MOST_DIGITS = 19


@dataclass(frozen=True)
class Span:
    """Bytes from `start` to before `end`."""

    start: int
    end: int


def etag(version: tuple[int, ...]) -> str:
    digest = hashlib.blake2b(repr(version).encode(), digest_size=12).hexdigest()
    return f'"{digest}"'


@dataclass(frozen=True)
class Asked:
    """One range of bytes, of a file whose size is not known yet."""

    first: int | None
    #: With `first` None: how many of the last bytes. None: to the end.
    last: int | None

    def of(self, size: int) -> Span:
        """Raises RangeNotSatisfiable."""
        if self.first is None:
            length = min(self.last or 0, size)
            if length == 0:
                raise RangeNotSatisfiable
            return Span(size - length, size)
        if self.first >= size:
            raise RangeNotSatisfiable
        return Span(self.first, size if self.last is None else min(self.last + 1, size))


def parse(ranges: Sequence[str], if_ranges: Sequence[str], tag: str | None) -> Asked | None:
    """By the values of all Range and If-Range headers; None: the whole file.

    What is no single range of bytes is passed over, as the RFC allows, and so is a range of a file that is not the one
    of If-Range any more. A date there is never believed: a file may change twice in a second.
    """
    if len(ranges) != 1 or len(if_ranges) > 1 or (if_ranges and if_ranges[0].strip() != tag):
        return None
    unit, _, text = ranges[0].partition("=")
    match = _RANGE.fullmatch(text)
    if unit.strip().lower() != "bytes" or match is None or not (match[1] or match[2]):
        return None
    first = _number(match[1]) if match[1] else None
    last = _number(match[2]) if match[2] else None
    if first is not None and last is not None and last < first:
        return None
    return Asked(first, last)


def asked_for(ranges: Sequence[str], if_ranges: Sequence[str], tag: str, size: int) -> Span | None:
    """The same, of a file of this size. Raises RangeNotSatisfiable."""
    asked = parse(ranges, if_ranges, tag)
    return None if asked is None else asked.of(size)


def _number(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def disposition(name: bytes) -> str:
    """A file to be saved, and never one to be shown (RFC 6266)."""
    plain = "".join(chr(c) if 0x20 <= c < 0x7F and c not in b'"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.decode('utf-8', 'replace'), safe='')}"


def headers(*, name: bytes, tag: str, modified_at: float, size: int, span: Span | None) -> dict[str, str]:
    """Of the answer that carries these bytes (None: all)."""
    found = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": disposition(name),
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Last-Modified": formatdate(tellable(modified_at), usegmt=True),
        "Content-Length": str(size if span is None else span.end - span.start),
    }
    if span is not None:
        found["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return found
