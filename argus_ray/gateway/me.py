"""The wire of `GET /api/v2/me`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema

from argus_ray.core.actions import Role
from argus_ray.core.usage import Me
from argus_ray.gateway.http.schemas import Time, time_or_none
from argus_ray.gateway.usage import UsageSums


class OwnTokenOut(BaseModel):
    token_id: str | None = Field(description="Of an admin's token the variable that holds it")
    expires_at: Time | None


class OwnUsageOut(BaseModel):
    last_30_days: UsageSums = Field(description="Today (UTC) and the 30 days before")
    total: UsageSums


class OwnLimitsOut(BaseModel):
    waiting_tasks: int
    waiting_tasks_limit: int
    gpus_held: int
    gpus_quota: int | None = Field(description="null: any number")


#: Of those who have a token.
_ROLES = {"type": "string", "enum": [Role.ADMIN.value, Role.INTERNAL.value, Role.USER.value]}


class MeOut(BaseModel):
    role: Annotated[Role, WithJsonSchema(_ROLES)]
    user_id: str | None
    scopes: list[str]
    token: OwnTokenOut
    usage: OwnUsageOut | None = Field(description="null for an admin who is no user, as are the limits")
    limits: OwnLimitsOut | None

    @classmethod
    def of(cls, me: Me) -> MeOut:
        who = me.principal
        usage = limits = None
        if me.lately is not None and me.total is not None:
            usage = OwnUsageOut(last_30_days=UsageSums.of_usage(me.lately), total=UsageSums.of_usage(me.total))
        if me.limits is not None:
            limits = OwnLimitsOut(
                waiting_tasks=me.limits.waiting_tasks,
                waiting_tasks_limit=me.limits.waiting_tasks_limit,
                gpus_held=me.limits.gpus_held,
                gpus_quota=me.limits.gpus_quota,
            )
        return cls(
            role=who.role,
            user_id=who.user_id,
            scopes=(["admin"] if who.is_admin else []) + (["tasks"] if who.user_id else []),
            token=OwnTokenOut(token_id=who.token_id, expires_at=time_or_none(who.expires_at)),
            usage=usage,
            limits=limits,
        )
