"""The wire: request and response models, with explicit field lists so that nothing leaks by accident.

Times are RFC 3339 in UTC with milliseconds and `Z`. The core's values are mapped here, and only here.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.core.actions import Principal, Role
from argus_ray.core.model import IssuedToken, NodeView, TokenInfo, User

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def rfc3339(at: float) -> str:
    """Unix seconds as `2026-01-31T12:00:00.000Z`."""
    stamp = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def time_or_none(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def json_response(model: BaseModel, status: int = 200) -> Response:
    """The answer as it stands. FastAPI would check a model that it is given once more before it writes it."""
    return Response(model.model_dump_json(), status, media_type="application/json")


# --- requests ---


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class NewUser(_Request):
    user_id: str = Field(max_length=64, description="1 to 32 of a-z, 0-9 and single hyphens")
    display_name: str = Field(default="", max_length=128)


class NewToken(_Request):
    label: str = Field(default="", max_length=128)
    #: At most ten years.
    expires_in_s: int | None = Field(default=None, ge=1, le=315_360_000)


# --- users and tokens ---


class UserOut(BaseModel):
    user_id: str
    display_name: str
    state: str
    created_at: Time

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(
            user_id=user.user_id,
            display_name=user.display_name,
            state=user.state.value,
            created_at=rfc3339(user.created_at),
        )


class UsersOut(BaseModel):
    users: list[UserOut]


class TokenOut(BaseModel):
    """What may be shown of a token: never the token."""

    token_id: str
    user_id: str
    label: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None

    @classmethod
    def of(cls, info: TokenInfo) -> TokenOut:
        return cls(
            token_id=info.token_id,
            user_id=info.user_id,
            label=info.label,
            created_at=rfc3339(info.created_at),
            expires_at=time_or_none(info.expires_at),
            last_used_at=time_or_none(info.last_used_at),
            revoked_at=time_or_none(info.revoked_at),
        )


class TokensOut(BaseModel):
    tokens: list[TokenOut]


class IssuedTokenOut(BaseModel):
    """The one answer that carries the plain text of a token."""

    token_id: str
    user_id: str
    label: str
    created_at: Time
    expires_at: Time | None
    token: str = Field(repr=False, description="Shown once, and never again")

    @classmethod
    def of(cls, issued: IssuedToken) -> IssuedTokenOut:
        info = issued.info
        return cls(
            token_id=info.token_id,
            user_id=info.user_id,
            label=info.label,
            created_at=rfc3339(info.created_at),
            expires_at=time_or_none(info.expires_at),
            token=issued.token,
        )


class MeOut(BaseModel):
    role: Role
    user_id: str | None
    scopes: list[str]

    @classmethod
    def of(cls, principal: Principal) -> MeOut:
        scopes = (["admin"] if principal.is_admin else []) + (["tasks"] if principal.user_id else [])
        return cls(role=principal.role, user_id=principal.user_id, scopes=scopes)


# --- the cluster ---


class NodeOut(BaseModel):
    node_id: str
    ip: str
    hostname: str
    is_head: bool
    gpus_total: float
    gpus_free: float
    cpus_total: float
    cpus_free: float
    worker_slots_total: float
    worker_slots_free: float

    @classmethod
    def of(cls, node: NodeView) -> NodeOut:
        return cls(
            node_id=node.node_id,
            ip=node.ip,
            hostname=node.hostname,
            is_head=node.is_head,
            gpus_total=node.gpus_total,
            gpus_free=node.gpus_free,
            cpus_total=node.cpus_total,
            cpus_free=node.cpus_free,
            worker_slots_total=node.worker_slots_total,
            worker_slots_free=node.worker_slots_free,
        )


class NodesOut(BaseModel):
    nodes: list[NodeOut]


class HealthOut(BaseModel):
    status: str


class ReadyOut(BaseModel):
    status: str
    parts: dict[str, str] = Field(description="Part -> `ok`, or why it is not")


class FieldRule(BaseModel):
    field: str
    rule: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldRule] = []
