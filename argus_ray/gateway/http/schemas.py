"""The wire, as far as several features share it. Models have explicit field lists, so that nothing leaks by accident.

Times are RFC 3339 in UTC with milliseconds and `Z`. The core's values are mapped here, and only here.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, Field

from argus_ray.core.model import Maintenance

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


#: Of the calendar that HTTP and RFC 3339 can tell.
_LAST_TIME = 253_402_300_799.0


def tellable(at: float) -> float:
    """The time of a file: a program can set it to anything."""
    return min(max(0.0, at), _LAST_TIME)


def rfc3339(at: float) -> str:
    """Unix seconds as `2026-01-31T12:00:00.000Z`."""
    stamp = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def time_or_none(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def json_response(model: BaseModel, status: int = 200) -> Response:
    """The answer as it stands. FastAPI would check a model that it is given once more before it writes it."""
    return Response(model.model_dump_json(), status, media_type="application/json")


class MaintenanceOut(BaseModel):
    on: bool
    by: str | None = Field(description="Who has turned it on")
    since: Time | None
    reason: str

    @classmethod
    def of(cls, found: Maintenance | None) -> MaintenanceOut:
        if found is None:
            return cls(on=False, by=None, since=None, reason="")
        return cls(on=True, by=found.by, since=rfc3339(found.since), reason=found.reason)


class HealthOut(BaseModel):
    status: str


class ReadyOut(BaseModel):
    status: str
    parts: dict[str, str] = Field(
        description="Part -> `ok`, or why it is not; `maintenance`, while it is on; `disk`, while its reserve is used"
    )


class FieldRule(BaseModel):
    field: str
    rule: str


class Problem(BaseModel):
    """RFC 9457. A member that is not here may be added."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldRule] = []


class NotReady(Problem):
    parts: dict[str, str] = Field(description="As of a 200")
