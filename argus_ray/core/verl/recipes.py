"""`verl:` of the operator's settings: presets, rules, and which presets users may choose."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from argus_ray.core.verl import layers


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]
Patterns = Annotated[tuple[str, ...], Field(max_length=100)]


class RangeSettings(_Strict):
    """Both ends belong to it."""

    min: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)


class MatchSettings(_Strict):
    """All that is named must hold. Of patterns, one; `*` stands for any characters, slashes too."""

    workload: tuple[Literal["ppo", "grpo", "sft"], ...] = ()
    trainer_device: tuple[Literal["cuda", "cpu"], ...] = ()
    user: Patterns = ()
    model_id: Patterns = ()
    train_file: Patterns = ()
    val_file: Patterns = ()
    code_path: Patterns = ()
    nnodes: RangeSettings = RangeSettings()
    n_gpus_per_node: RangeSettings = RangeSettings()


class RuleSettings(_Strict):
    match: MatchSettings = MatchSettings()
    use: tuple[Name, ...] = ()
    set: dict[str, JsonValue] = Field(default_factory=dict)


class VerlSettings(_Strict):
    presets: dict[Name, dict[str, JsonValue]] = Field(default_factory=dict)
    #: All that match apply; a later one wins.
    rules: tuple[RuleSettings, ...] = ()
    #: Presets that users may choose.
    selectable: tuple[Name, ...] = ()

    def recipes(self) -> layers.Recipes:
        return layers.Recipes(
            presets=dict(self.presets),
            rules=tuple(
                layers.Rule(layers.Match(**_match(rule.match)), rule.use, dict(rule.set)) for rule in self.rules
            ),
            selectable=frozenset(self.selectable),
        )


def _match(match: MatchSettings) -> dict[str, Any]:
    found = {name: getattr(match, name) for name in MatchSettings.model_fields}
    for name in ("nnodes", "n_gpus_per_node"):
        found[name] = layers.Range(found[name].min, found[name].max)
    return found
