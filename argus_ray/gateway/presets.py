"""Presets of verl's settings: what may be chosen, and for an admin all that there is. The wire, then the route."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue

from argus_ray.config import Settings
from argus_ray.core.actions import WhoAmI
from argus_ray.gateway.caller import TheCaller, TheGateway
from argus_ray.gateway.http.params import NoQuery


class PresetOut(BaseModel):
    name: str
    selectable: bool = Field(description="Users may choose it")
    set: dict[str, JsonValue] = Field(description="verl's settings by key")


class RuleOut(BaseModel):
    number: int = Field(description="As the sources of settings name it")
    match: dict[str, JsonValue] = Field(description="All of these must hold; empty: each task")
    use: list[str] = Field(description="Presets, in their order")
    set: dict[str, JsonValue]


class PresetsOut(BaseModel):
    presets: list[PresetOut] = Field(description="Those that may be chosen; for an admin all of them")
    rules: list[RuleOut] | None = Field(description="For an admin; null for others, whom most of them do not concern")

    @classmethod
    def of(cls, settings: Settings, *, is_admin: bool) -> PresetsOut:
        verl, selectable = settings.verl, frozenset(settings.verl.selectable)
        presets = [
            PresetOut(name=name, selectable=name in selectable, set=dict(found))
            for name, found in verl.presets.items()
            if is_admin or name in selectable
        ]
        if not is_admin:
            return cls(presets=presets, rules=None)
        rules = []
        for number, rule in enumerate(verl.rules, start=1):
            match: dict[str, Any] = rule.match.model_dump(mode="json", exclude_defaults=True)
            rules.append(RuleOut(number=number, match=match, use=list(rule.use), set=dict(rule.set)))
        return cls(presets=presets, rules=rules)


router = APIRouter(prefix="/api/v2", tags=["tasks"], dependencies=[NoQuery])


@router.get("/presets")
async def list_presets(caller: TheCaller, gateway: TheGateway) -> PresetsOut:
    """What a submission may choose by `preset`, and what each sets."""
    principal = await caller.do(WhoAmI())
    return PresetsOut.of(gateway.settings, is_admin=principal.is_admin)
