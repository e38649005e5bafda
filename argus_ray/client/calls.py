"""A call of the API as a value, and what is common to all: how its URL is written, and how its answer is read.

Nothing here does I/O; `transport` does, and one for asyncio would use the same calls.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from argus_ray.client.errors import ApiError, BadAnswer, BadArgument, FieldError, kind_of

T = TypeVar("T")
_REQUEST = "urn:argus:request:"
#: What may stand in the path and in the query as it is; `%` in what is encoded already.
_ENCODED = "/%-._~!$'()*+,;=:@"


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """`headers`: by names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Raises BadAnswer."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise BadAnswer("the server's answer is no JSON", self.status) from None

    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class Encoded(str):
    """A value that is percent-encoded already."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Call(Generic[T]):
    """`path` is as the OpenAPI document has it. `repeats`: it may be sent again after a broken connection."""

    method: str
    path: str
    decode: Callable[[Answer], T]
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    query: Iterable[tuple[str, Any]] = ()
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: bytes | None = None
    repeats: bool = True

    @property
    def target(self) -> str:
        """The path and the query, as they travel. Raises BadArgument."""
        path = self.path
        for name, value in self.parts.items():
            path = path.replace(f"{{{name}}}", _part(name, value))
        written = [f"{name}={_encoded(value)}" for name, given in self.query for value in _values(given)]
        return path + ("?" + "&".join(written) if written else "")

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.path}>"


def _part(name: str, value: str) -> str:
    if not isinstance(value, str) or value in ("", ".", "..") or any(each in (".", "..") for each in value.split("/")):
        raise BadArgument(f"{name}: {value!r} is none")
    return _encoded(value)


def _encoded(value: str) -> str:
    try:
        return quote(value, safe=_ENCODED) if isinstance(value, Encoded) else quote(value, safe="")
    except UnicodeEncodeError:
        raise BadArgument("a value is no text") from None


def _values(given: Any) -> Sequence[str]:
    """Of one query parameter; nothing for None."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    if isinstance(given, bool):
        return ("true" if given else "false",)
    if isinstance(given, datetime):
        return (rfc3339(given),)
    if isinstance(given, timedelta):
        return (ago(given),)
    if isinstance(given, Iterable):
        return [each for item in given for each in _values(item)]
    return (str(given),)


def rfc3339(at: datetime) -> str:
    """Raises BadArgument for a time without a time zone, which could be meant in any."""
    if at.tzinfo is None:
        raise BadArgument(f"{at.isoformat()} has no time zone")
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(span: timedelta) -> str:
    """So long ago, in whole minutes, as the API takes it."""
    return f"{max(1, round(span.total_seconds() / 60))}m"


def moment(at: datetime | timedelta | str | None) -> str | None:
    """A time, or how long ago, as a body has it. Raises BadArgument."""
    (written,) = _values(at) or (None,)
    return written


def as_json(**members: Any) -> bytes:
    """A body of those members that are not None."""
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


JSON_BODY = {"Content-Type": "application/json"}


def error_of(answer: Answer) -> ApiError | BadAnswer:
    """What an answer that is no success says."""
    try:
        document = json.loads(answer.content)
        code, detail = document["code"], document["detail"]
        rules = [FieldError(str(each["field"]), str(each["rule"])) for each in document.get("errors", ())]
    except (ValueError, TypeError, KeyError):
        return BadAnswer(_not_ours(answer), answer.status)
    return kind_of(code, answer.status)(
        str(code),
        answer.status,
        str(detail),
        title=str(document.get("title", "")),
        errors=rules,
        request_id=_request_id(document, answer),
        hint=document.get("hint"),
        retry_after=retry_after(answer.headers),
        size=_size(answer.headers),
        document=document,
    )


def _not_ours(answer: Answer) -> str:
    where = answer.headers.get("location", "")
    if 300 <= answer.status < 400 and where:
        return f"the server answers {answer.status} and sends to {where.partition('?')[0]}: use that URL"
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    return f"the answer {answer.status} ({kind}) is none of Argus: is the URL right, is a proxy in between?"


def _request_id(document: Mapping[str, Any], answer: Answer) -> str | None:
    instance = str(document.get("instance", ""))
    return answer.headers.get("x-request-id") or (instance.removeprefix(_REQUEST) or None)


def _size(headers: Mapping[str, str]) -> int | None:
    """`bytes */200` -> 200."""
    size = headers.get("content-range", "").rpartition("/")[2]
    return int(size) if size.isdecimal() else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; None without, and for a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
