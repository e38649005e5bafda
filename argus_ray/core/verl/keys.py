"""The keys that verl's configuration has, and the one spelling in which they may be set: plain dotted names of leaves.

Nothing of Hydra's grammar is let through in a key: no sign in front, no config group, no list index, no interpolation,
and no name that begins with an underscore, such as `_target_`. Dictionaries are taken apart into their leaves, so that
a key has one name, by which it is known, checked and compared (`leaves`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from argus_ray.core.errors import FieldError
from argus_ray.core.verl import reserved
from argus_ray.core.verl.values import Value, broken_rule

#: Of the version by which keys.tsv was made.
VERSION = "0.9.1"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
#: A number for everybody but YAML 1.1.
_POINTLESS = re.compile(r"[+-]?[0-9]+[eE][+-]?[0-9]+")
_MAX_LENGTH = 200
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
_WORDS |= {"list": "a list", "dict": "a mapping", "null": "null"}


@dataclass(frozen=True)
class Key:
    name: str
    #: "rl", "sft": the configurations that have it.
    trainers: frozenset[str]
    #: Of "null", "bool", "int", "float", "str", "list", "dict"; "any": nothing of verl says it.
    kinds: frozenset[str]
    #: In verl's configuration, and not only in the class that this is read into.
    listed: bool
    #: A mapping with any keys; what lies in it is set one by one.
    open: bool

    @property
    def whole(self) -> bool:
        """A mapping that is set as one value."""
        return "dict" in self.kinds and not self.open


@cache
def known() -> Mapping[str, Key]:
    text = resources.files(__package__).joinpath("keys.tsv").read_text()
    found: dict[str, Key] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            trainers, name, kinds, where, default = line.split("\t")
            known_kinds = frozenset(kinds.split("|"))
            is_open = known_kinds == {"dict"} and default == "{}"
            key = Key(name, frozenset(trainers.split(",")), known_kinds, where == "config", is_open)
            found[name] = key if name not in found else _both(found[name], key)
    return found


def _both(one: Key, other: Key) -> Key:
    return Key(one.name, one.trainers | other.trainers, one.kinds | other.kinds, one.listed or other.listed, one.open)


@cache
def _groups() -> frozenset[str]:
    return frozenset(name[:at] for name in known() for at, char in enumerate(name) if char == ".")


@cache
def _settable() -> tuple[str, ...]:
    return tuple(name for name in known() if reserved.never(name) is None)


def find(name: str) -> Key | None:
    """The key itself, or the open mapping that it lies in."""
    if name in known():
        return known()[name]
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        key = known().get(".".join(parts[:count]))
        if key is not None:
            return key if key.open else None
    return None


def is_of(name: str, workload: str) -> bool:
    """Whether the trainer of this workload has the key."""
    key = find(name)
    return key is None or ("sft" if workload == "sft" else "rl") in key.trainers


def prefix(name: str) -> str:
    """Hydra's sign for a key that verl's own configuration does not have."""
    key = known().get(name)
    return "" if key is not None and key.listed else "+"


def leaves(tree: Mapping[str, Value], where: str) -> tuple[dict[str, Value], list[FieldError]]:
    """Every leaf of this layer by its dotted name, and what is wrong with the others. `where` is the path of the layer
    in the settings."""
    found: dict[str, Value] = {}
    broken: list[FieldError] = []
    for name, value in _flat(tree, ""):
        rule = "is set twice here" if name in found else _broken(name, value)
        if rule is None:
            found[name] = value
        else:
            broken.append(FieldError(f"{where}.{_shown(name)}", rule))
    return found, broken


def _flat(tree: Mapping[str, Value], above: str) -> Iterator[tuple[str, Value]]:
    for part, value in tree.items():
        name = f"{above}{part}"
        key = known().get(name)
        if isinstance(value, dict) and value and not (key is not None and key.whole):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _broken(name: str, value: Value) -> str | None:
    if len(name) > _MAX_LENGTH or not all(_NAME.fullmatch(part) for part in name.split(".")):
        return "is not a plain key: names of letters, digits and '_' with dots between them, without Hydra's signs"
    if why := reserved.never(name):
        return why
    key = find(name)
    if key is None:
        return _unknown(name)
    if value == {} and (key.open or key.whole):
        return "is an empty mapping, which sets nothing"
    if rule := broken_rule(value):
        return rule
    return _wrong_kind(key, value) if key.name == name else None


def _unknown(name: str) -> str:
    if name in _groups():
        return "is a group of keys, which are set one by one"
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        key = known().get(".".join(parts[:count]))
        if key is not None:
            return (
                f"lies in {key.name}, which is set as a whole" if key.whole else f"lies in {key.name}, a single value"
            )
    near = nearest(name)
    return f"is not a key of verl {VERSION}" + (f"; did you mean {near}?" if near else "")


def nearest(name: str) -> str | None:
    last = name.rpartition(".")[2]
    namesakes = [each for each in _settable() if each.rpartition(".")[2] == last]
    found = difflib.get_close_matches(name, namesakes or _settable(), n=1, cutoff=0.0 if namesakes else 0.6)
    return found[0] if found else None


def _wrong_kind(key: Key, value: Value) -> str | None:
    kind = "null" if value is None else type(value).__name__
    if "any" in key.kinds or kind in key.kinds or (kind == "int" and "float" in key.kinds):
        return None
    words = " or ".join(_WORDS[each] for each in _WORDS if each in key.kinds)
    rule = f"must be {words}, not {_WORDS[kind]}"
    if "float" in key.kinds and _POINTLESS.fullmatch(str(value)):
        rule += f"; YAML takes {value} for a text: write it with a point, as 1.0e-6"
    return rule


def _shown(name: str) -> str:
    text = name if len(name) <= _MAX_LENGTH else f"{name[:_MAX_LENGTH]}..."
    return text if text.isprintable() else json.dumps(text)
