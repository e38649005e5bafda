"""What verl is told beyond a TaskSpec: Argus's defaults, the operator's rules, and the presets that a user chose.

A later layer wins, key by key: defaults < rules < chosen presets. What the TaskSpec says and the reserved keys come
after all of these, in `command`. The result is stored with the task when it is accepted, and never made again: a change
of the operator's settings changes no task that there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from argus_ray.core.errors import FieldError, InvalidSpec
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import arithmetic, defaults, keys, reserved
from argus_ray.core.verl.values import Value

DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    #: Dotted, as verl's own configuration has it.
    key: str
    value: Value
    #: "default", "rule 2" (the first is 1), "preset long".
    source: str


@dataclass(frozen=True)
class Range:
    """Both ends belong to it; None: no end."""

    min: int | None = None
    max: int | None = None

    def holds(self, number: int) -> bool:
        return (self.min is None or self.min <= number) and (self.max is None or number <= self.max)


@dataclass(frozen=True)
class Match:
    """Which tasks a rule is for: all of these must hold; an empty one holds always. A `*` of a pattern also stands for
    slashes."""

    workload: tuple[str, ...] = ()
    trainer_device: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    model_id: tuple[str, ...] = ()
    train_file: tuple[str, ...] = ()
    val_file: tuple[str, ...] = ()
    code_path: tuple[str, ...] = ()
    nnodes: Range = Range()
    n_gpus_per_node: Range = Range()

    def holds(self, spec: TaskSpec, user_id: str) -> bool:
        return (
            _among(spec.workload, self.workload)
            and _among(spec.trainer_device, self.trainer_device)
            and _among(user_id, self.user)
            and _like(spec.model_id, self.model_id)
            and _like(spec.train_file, self.train_file)
            and _like(spec.val_file, self.val_file)
            and _like(spec.code_path, self.code_path)
            and self.nnodes.holds(spec.nnodes)
            and self.n_gpus_per_node.holds(spec.n_gpus_per_node)
        )


@dataclass(frozen=True)
class Rule:
    match: Match = Match()
    #: Names of presets, in their order; what `set` says comes after them.
    use: tuple[str, ...] = ()
    set: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipes:
    """What the operator says of verl, checked (`recipes.broken`)."""

    #: Name -> key -> value; the keys are leaves (`keys.leaves`).
    presets: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    #: Presets that a user may choose.
    selectable: frozenset[str] = frozenset()


def resolve(spec: TaskSpec, *, user_id: str, recipes: Recipes, chosen: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of this task. Raises InvalidSpec with every broken rule: of the field `preset` for one that is not
    to be chosen, of `verl.<key>` for a value that does not fit the others or the gang."""
    unknown = [name for name in dict.fromkeys(chosen) if name not in recipes.selectable]
    if unknown:
        offered = ", ".join(sorted(recipes.selectable)) or "none"
        raise InvalidSpec(
            "the presets are not valid",
            [FieldError("preset", f"{name!r:.80} is not offered here; offered: {offered}") for name in unknown],
        )
    unfit = [
        FieldError("preset", f"{name} sets nothing that a task of {spec.workload} has")
        for name in dict.fromkeys(chosen)
        if not any(keys.is_of(key, spec.workload) for key in recipes.presets[name])
    ]
    found: dict[str, Setting] = {}
    _lay(found, defaults.of(spec), DEFAULT)
    for number, rule in enumerate(recipes.rules, start=1):
        if rule.match.holds(spec, user_id):
            for name in rule.use:
                _lay(found, _own(recipes.presets[name], spec), f"rule {number}")
            _lay(found, _own(rule.set, spec), f"rule {number}")
    for name in dict.fromkeys(chosen):
        _lay(found, _own(recipes.presets[name], spec), f"preset {name}")
    settings = tuple(found.values())
    if broken := [*unfit, *_misfits(settings, spec)]:
        raise InvalidSpec("the settings of verl do not fit this task", broken)
    return settings


def _own(layer: Mapping[str, Value], spec: TaskSpec) -> dict[str, Value]:
    """What the trainer of this workload has: one rule may be for all of them."""
    return {key: value for key, value in layer.items() if keys.is_of(key, spec.workload)}


def _misfits(settings: tuple[Setting, ...], spec: TaskSpec) -> list[FieldError]:
    values = {each.key: each.value for each in settings}
    sources = {each.key: each.source for each in settings}
    world = arithmetic.World(spec.nnodes, spec.n_gpus_per_node)
    broken = arithmetic.of_task(values, sources, spec.workload, world)
    for key, value in values.items():
        if rule := reserved.device_rule(key, value, spec.trainer_device):
            broken.append(FieldError(f"verl.{key}", f"is {value} ({sources[key]}): {rule}"))
    return broken


def encode(settings: Iterable[Setting]) -> str:
    """Canonical JSON: equal settings are equal texts."""
    rows = [[each.key, each.value, each.source] for each in settings]
    return json.dumps(rows, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(text: str) -> tuple[Setting, ...]:
    """Raises ValueError for what `encode` did not write."""
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("settings are a list")
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], str) or not isinstance(row[2], str):
            raise ValueError("a setting is a key, a value and a source")
        found.append(Setting(*row))
    return tuple(found)


def _lay(found: dict[str, Setting], layer: Mapping[str, Value], source: str) -> None:
    """A key keeps its place, so that command lines stay comparable; what it had under or over it goes."""
    for key, value in layer.items():
        for other in [each for each in found if each.startswith(f"{key}.") or key.startswith(f"{each}.")]:
            del found[other]
        found[key] = Setting(key, value, source)


def _among(value: str, allowed: tuple[str, ...]) -> bool:
    return not allowed or value in allowed


def _like(value: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
