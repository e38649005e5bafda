"""`verl:` of the operator's settings: presets, rules, and which presets users may choose."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from argus_ray.core.errors import FieldError
from argus_ray.core.verl import arithmetic, keys, layers, reserved
from argus_ray.core.verl.values import Value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


#: One may stand without a list.
Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(max_length=100)]
Workloads = Annotated[tuple[Literal["ppo", "grpo", "sft"], ...], BeforeValidator(_listed)]
Devices = Annotated[tuple[Literal["cuda", "cpu"], ...], BeforeValidator(_listed)]


class RangeSettings(_Strict):
    """Both ends belong to it."""

    min: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)


class MatchSettings(_Strict):
    """All that is named must hold. Of patterns, one; `*` stands for any characters, slashes too."""

    workload: Workloads = ()
    trainer_device: Devices = ()
    user: Patterns = ()
    model_id: Patterns = ()
    train_file: Patterns = ()
    val_file: Patterns = ()
    code_path: Patterns = ()
    nnodes: RangeSettings = RangeSettings()
    n_gpus_per_node: RangeSettings = RangeSettings()

    def broken(self, where: str) -> list[FieldError]:
        return [
            FieldError(f"{where}.{name}", "has a min above its max: it would match nothing")
            for name, own in (("nnodes", self.nnodes), ("n_gpus_per_node", self.n_gpus_per_node))
            if own.min is not None and own.max is not None and own.min > own.max
        ]


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

    def broken(self, shared_root: str) -> list[FieldError]:
        """Every broken rule, each with its path from `verl` on."""
        found: list[FieldError] = []
        presets: dict[str, dict[str, Value]] = {}
        for name, tree in self.presets.items():
            where = f"verl.presets.{name}"
            presets[name], broken = _checked(tree, where, shared_root)
            found += [*broken, *_within(presets[name], where, f"preset {name}")]
            if not tree:
                found.append(FieldError(where, "sets nothing"))
        for number, rule in enumerate(self.rules):
            where = f"verl.rules.{number}"
            own, broken = _checked(rule.set, f"{where}.set", shared_root)
            found += [*broken, *rule.match.broken(f"{where}.match")]
            found += [_no_preset(f"{where}.use", name) for name in rule.use if name not in presets]
            layer = {key: value for name in rule.use for key, value in presets.get(name, {}).items()} | own
            if rule.use and rule.set:
                found += _within(layer, where, f"rule {number + 1}")
            if not rule.use and not rule.set:
                found.append(FieldError(where, "uses no preset and sets nothing"))
            for workload in rule.match.workload:
                if layer and not any(keys.is_of(key, workload) for key in layer):
                    found.append(FieldError(where, f"sets nothing that a task of {workload} has"))
        for number, name in enumerate(self.selectable):
            if name not in presets:
                found.append(_no_preset(f"verl.selectable.{number}", name))
            elif guarded := list(filter(reserved.rules_only, presets[name])):
                rule_text = (
                    f"{name} sets {', '.join(guarded)}, which only rules may: users do not choose code and files"
                )
                found.append(FieldError(f"verl.selectable.{number}", rule_text))
        return found

    def recipes(self) -> layers.Recipes:
        """What is `broken` is left out."""
        return layers.Recipes(
            presets={name: keys.leaves(tree, "")[0] for name, tree in self.presets.items()},
            rules=tuple(
                layers.Rule(layers.Match(**_match(rule.match)), rule.use, keys.leaves(rule.set, "")[0])
                for rule in self.rules
            ),
            selectable=frozenset(self.selectable),
        )


def _checked(tree: dict[str, Any], where: str, shared_root: str) -> tuple[dict[str, Value], list[FieldError]]:
    layer, broken = keys.leaves(tree, where)
    for key, value in layer.items():
        if rule := reserved.value_rule(key, value, shared_root):
            broken.append(FieldError(f"{where}.{key}", rule))
    if "reward.custom_reward_function.name" in layer and "reward.custom_reward_function.path" not in layer:
        rule = "needs reward.custom_reward_function.path beside it"
        broken.append(FieldError(f"{where}.reward.custom_reward_function.name", rule))
    return layer, broken


def _within(layer: dict[str, Value], where: str, source: str) -> list[FieldError]:
    return [
        FieldError(f"{where}.{each.field.removeprefix('verl.')}", each.rule)
        for each in arithmetic.of_preset(layer, source)
    ]


def _no_preset(where: str, name: str) -> FieldError:
    return FieldError(where, f"{name} is not one of verl.presets")


def _match(match: MatchSettings) -> dict[str, Any]:
    found = {name: getattr(match, name) for name in MatchSettings.model_fields}
    for name in ("nnodes", "n_gpus_per_node"):
        found[name] = layers.Range(found[name].min, found[name].max)
    return found
