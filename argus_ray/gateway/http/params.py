"""Query strings and ids: bounded, strict (an unknown parameter is a 400, so that a typo cannot widen an
answer), and opaque cursors.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.search_patterns import MAX_LENGTH
from argus_ray.core.verl.metrics import MAX_NAME_LENGTH, MAX_POINTS, MAX_STEP, is_name
from argus_ray.core.verl.rollouts import FIELD_CHARS, Kind
from argus_ray.gateway.caller import TheCaller

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: No row can have it.
_IMPOSSIBLE_ID = "-"
#: Metrics that one call may ask for.
_MAX_NAMES = 16


def possible_id(value: str) -> str:
    """An id that cannot exist is asked for under one that does not, so that the caller is authenticated all
    the same and the answer is that of any unknown id.
    """
    return value if _ID.fullmatch(value) else _IMPOSSIBLE_ID


async def _task_id(task_id: Annotated[str, Path()]) -> str:
    return possible_id(task_id)


async def _user_id(user_id: Annotated[str, Path()]) -> str:
    return possible_id(user_id)


async def _token_id(token_id: Annotated[str, Path()]) -> str:
    return possible_id(token_id)


TaskId = Annotated[str, Depends(_task_id)]
UserId = Annotated[str, Depends(_user_id)]
TokenId = Annotated[str, Depends(_token_id)]


async def _no_query(request: Request, _: TheCaller) -> None:
    """After the caller, so that a stranger hears of the missing token first."""
    refuse_query(request)


def refuse_query(request: Request) -> None:
    """Raises InvalidRequest if the request has query parameters."""
    if request.scope["query_string"] and request.query_params:
        raise InvalidRequest(
            "This call takes no query parameters.",
            [FieldError(name[:64], "is not known here") for name in request.query_params],
        )


NoQuery = Depends(_no_query)

PRESET = "preset"
MAX_PRESETS = 16
#: The OpenAPI entry of `chosen_presets`.
PRESET_PARAMETER: dict[str, Any] = {
    "name": PRESET,
    "in": "query",
    "required": False,
    "description": "A preset of the configuration, as `GET /api/v2/presets` names it; repeated, a later one wins",
    "schema": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_PRESETS},
    "explode": True,
}


def chosen_presets(request: Request) -> tuple[str, ...]:
    """Their names in order, as they stand in the query; an empty one is none. Raises InvalidRequest for too many, for
    one that stands twice, and for any other query parameter."""
    if not request.scope["query_string"]:
        return ()
    query = request.query_params.multi_items()
    broken = [FieldError(name[:64], "is not known here") for name, _ in query if name != PRESET]
    names = [value for name, value in query if name == PRESET and value]
    if len(names) > MAX_PRESETS:
        broken.append(FieldError(PRESET, f"may stand {MAX_PRESETS} times at most"))
    elif len(set(names)) != len(names):
        broken.append(FieldError(PRESET, "names one that stands there already"))
    if broken:
        raise InvalidRequest("The query breaks a rule.", broken)
    return tuple(names)


def header_parameters(described: Mapping[str, str], **rules: int) -> dict[str, Any]:
    """The OpenAPI entry of headers that a route reads by itself. `described`: by name; `rules`: of their text."""
    schema = {"type": "string", **rules}
    return {
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": words}
            for name, words in described.items()
        ]
    }


class StrictQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        """`?state=&cursor=` is the same as leaving them out."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value not in ("", [], [""])}


class PageQuery(StrictQuery):
    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the page before")


class EventsQuery(PageQuery):
    limit: int = Field(default=500, ge=1, le=500)


class AttemptQuery(StrictQuery):
    attempt: str = Field(default="latest", pattern=r"^(latest|[1-9][0-9]{0,5})$", description="`latest`, or its number")

    @property
    def number(self) -> int | None:
        return None if self.attempt == "latest" else int(self.attempt)


class FilesQuery(AttemptQuery):
    path: str = Field(default="", description="The folder, from the job root on; empty: the job root itself")
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=512, description="From the page before")


class RolloutsQuery(PageQuery):
    step: int | None = Field(
        default=None, ge=0, lt=MAX_STEP, description="Its samples; without it: which steps there are"
    )
    kind: Kind = Field(default=Kind.TRAIN, description="Of the training, or of its validations")
    attempt: str | None = Field(
        default=None, pattern=r"^(latest|[1-9][0-9]{0,5})$", description="One alone; without it: all, joined"
    )
    max_chars: int = Field(default=FIELD_CHARS, ge=1, le=FIELD_CHARS, description="Characters of one field")

    @property
    def number(self) -> int | None:
        return None if self.attempt is None or self.attempt == "latest" else int(self.attempt)


class LogQuery(AttemptQuery):
    tail: int = Field(default=2000, ge=1, le=1_000_000, description="Lines from the end")


class Direction(str, Enum):
    FORWARD = "forward"
    BACKWARD = "backward"


class SearchQuery(AttemptQuery):
    q: str = Field(min_length=1, max_length=MAX_LENGTH, description="What to look for")
    regex: bool = Field(default=False, description="`q` is a regular expression of RE2")
    case: bool = Field(default=True, description="Whether capital letters are others")
    direction: Direction = Field(default=Direction.FORWARD, description="Forward, or from the end backward")
    start: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        alias="from",
        description="A byte of the log: matches that begin there or behind it; backward: before it",
    )
    limit: int = Field(default=100, ge=1, le=500, description="Matches of one answer")


class StreamQuery(LogQuery):
    tail: int = Field(
        default=2000, ge=0, le=1_000_000, description="Lines from the end to begin with; 0: only new ones"
    )


class MetricsQuery(StrictQuery):
    since_step: int = Field(default=0, ge=0, lt=MAX_STEP, description="Only points of this step and later ones")
    max_points: int = Field(default=500, ge=2, le=MAX_POINTS, description="Points of one curve")
    names: list[str] = Field(
        default=[], max_length=_MAX_NAMES, description="Curves to show instead of the main ones; repeated, or by commas"
    )

    def asked(self) -> list[str]:
        names = dict.fromkeys(name.strip() for value in self.names for name in value.split(",") if name.strip())
        if len(names) > _MAX_NAMES or not all(is_name(name) for name in names):
            rule = f"at most {_MAX_NAMES} names, each of 1 to {MAX_NAME_LENGTH} printable characters"
            raise InvalidRequest("These cannot be names of metrics.", [FieldError("names", rule)])
        return list(names)


EventsParams = Annotated[EventsQuery, Query()]
LogParams = Annotated[LogQuery, Query()]
SearchParams = Annotated[SearchQuery, Query()]
StreamParams = Annotated[StreamQuery, Query()]
MetricsParams = Annotated[MetricsQuery, Query()]
AttemptParams = Annotated[AttemptQuery, Query()]
FilesParams = Annotated[FilesQuery, Query()]
RolloutsParams = Annotated[RolloutsQuery, Query()]


def encode_cursor(kind: str, position: int) -> str:
    """An opaque place in a list. `kind` keeps a cursor of one list out of another."""
    return base64.urlsafe_b64encode(f"{kind}{position}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str | None) -> int | None:
    """The inverse of `encode_cursor`; InvalidRequest for anything that it did not make."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = int(text.removeprefix(kind))
    except ValueError:
        position = -1
    if not 0 <= position < 2**63 or encode_cursor(kind, position) != cursor:
        raise InvalidRequest(
            "The cursor is not one of this list.", [FieldError("cursor", "must come from a page before")]
        )
    return position


def encode_numbers(kind: str, *numbers: int) -> str:
    """The same, of a place that takes several numbers."""
    text = kind + ".".join(map(str, numbers))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_numbers(kind: str, cursor: str | None, count: int) -> tuple[int, ...] | None:
    """The inverse of `encode_numbers`; InvalidRequest for anything that it did not make."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        numbers = tuple(map(int, text.removeprefix(kind).split(".")))
    except ValueError:
        numbers = ()
    is_possible = len(numbers) == count and all(0 <= number < 2**63 for number in numbers)
    if not is_possible or encode_numbers(kind, *numbers) != cursor:
        raise InvalidRequest(
            "The cursor is not one of this list.", [FieldError("cursor", "must come from a page before")]
        )
    return numbers


def encode_words(kind: str, *words: str) -> str:
    """The same, of a place that takes words without a dot."""
    return base64.urlsafe_b64encode(".".join((kind, *words)).encode()).decode().rstrip("=")


def decode_words(kind: str, cursor: str | None, count: int) -> tuple[str, ...] | None:
    """The inverse of `encode_words`; InvalidRequest for anything that it did not make."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        text = ""
    first, *words = text.split(".")
    if (first, len(words)) != (kind, count) or encode_words(kind, *words) != cursor:
        raise InvalidRequest(
            "The cursor is not one of this list.", [FieldError("cursor", "must come from a page before")]
        )
    return tuple(words)
