"""A narrow reader of YAML: one flat mapping of names to text or to whole numbers, and nothing else.

It reads the events of libyaml's parser and builds no tree. So anchors, tags, nesting and YAML 1.1's readings of plain
words (`010` is 8, `1:30` is 90, `no` is false) have no way in: each is an error that says what to write instead. The
cost of a body is linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

import yaml
from yaml.resolver import Resolver

from argus_ray.core.errors import FieldError, InvalidSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
#: Enough for every field, and far from where making an integer of the digits costs anything.
_MAX_DIGITS = 18
#: A TaskSpec has 13 fields. The rest of a longer document is not read.
_MAX_KEYS = 64
#: Of a plain document; libyaml takes less time for more.
_MAX_LINES = 256
#: Of the events in one value that is a list or a mapping: enough to find the end of a small one.
_MAX_SKIPPED = 256
_MAX_BRACKETS = 200

_NUMBER_RULE = (
    "must be a whole number in decimal digits, without leading zeros, signs, dots, underscores or colons: write 8, "
    "not 010, +8, 8.0, 1_000, 0x8 or 0:08; text that looks like a number goes in quotes"
)
_WORD_RULE = {
    "tag:yaml.org,2002:bool": "is read by YAML as yes or no: no field takes that; text goes in quotes",
    "tag:yaml.org,2002:timestamp": "is read by YAML as a date: no field takes one; text goes in quotes",
    "tag:yaml.org,2002:merge": "must be text or a whole number; text goes in quotes",
    "tag:yaml.org,2002:value": "must be text or a whole number; text goes in quotes",
}
_NULL = "tag:yaml.org,2002:null"


def read(raw: bytes, known: Container[str]) -> tuple[dict[str, str | int | None], dict[str, str]]:
    """The values by name, and for each name with a value that is none of ours the rule that it breaks.

    A value that is left out, or `null`, is None. `known`: names that may have a value; another one is told as unknown
    before what its value is. Raises InvalidSpec for what is no flat mapping.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_flat("must be UTF-8") from None
    if (plain := _plain_lines(text)) is not None:
        return _values(plain, known)
    if raw.count(b"[") + raw.count(b"{") > _MAX_BRACKETS:
        # libyaml's time for open brackets grows with their square: 1,000 would take 3 ms.
        raise _not_flat("holds far more brackets than a TaskSpec can have")
    try:
        return _mapping(yaml.parse(text, Loader=yaml.CSafeLoader), known)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise _not_flat(f"is not valid YAML: {what}{where}") from None


#: A document of nothing but `name: word` lines and comments, as most are. Reading libyaml's events of it takes longer,
#: and says the same (tests/core/test_flat_yaml.py).
_PLAIN_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,127}): +(-?[A-Za-z0-9_/][A-Za-z0-9_/.-]*) *(?: #[ -~]*)?|#[ -~]*|")


def _plain_lines(text: str) -> dict[str, str] | None:
    """The words by name; None for a document that needs a parser of YAML, or that is to be refused."""
    found: dict[str, str] = {}
    lines = text.split("\n", _MAX_LINES)
    if len(lines) > _MAX_LINES:
        return None
    for line in lines:
        match = _PLAIN_LINE.fullmatch(line)
        if match is None or (name := match[1]) in found:
            return None
        if name is not None:
            found[name] = match[2]
    return found if 0 < len(found) <= _MAX_KEYS else None


def _values(plain: Mapping[str, str], known: Container[str]) -> tuple[dict[str, str | int | None], dict[str, str]]:
    values: dict[str, str | int | None] = {}
    bad: dict[str, str] = {}
    for name, text in plain.items():
        try:
            values[name] = _plain(text)
        except _BadValue as error:
            bad[name] = str(error) if name in known else "is not a known field"
    return values, bad


def _mapping(events: Iterator[yaml.Event], known: Container[str]) -> tuple[dict[str, str | int | None], dict[str, str]]:
    values: dict[str, str | int | None] = {}
    bad: dict[str, str] = {}
    next(events)  # the beginning of the stream
    if not isinstance(next(events), yaml.DocumentStartEvent):
        raise _not_flat(_MAPPING)
    start = next(events)
    _check_plain(start)
    if not isinstance(start, yaml.MappingStartEvent):
        raise _not_flat(_MAPPING)
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        name = _name(event)
        if name in values or name in bad:
            raise _not_flat(f"has the key {name!r} twice")
        if len(values) + len(bad) >= _MAX_KEYS:
            raise _not_flat(f"has far more keys than a TaskSpec can have (more than {_MAX_KEYS})")
        try:
            values[name] = _value(event := next(events), events)
        except _BadValue as error:
            bad[name] = str(error) if name in known else "is not a known field"
    next(events)  # the end of the document
    if not isinstance(next(events), yaml.StreamEndEvent):
        raise _not_flat("is not valid YAML for a TaskSpec: there must be one document")
    return values, bad


def _name(event: Any) -> str:
    _check_plain(event)
    if not isinstance(event, yaml.ScalarEvent) or not _NAME.fullmatch(event.value):
        raise _not_flat(f"has keys that are no names: keys must be plain names (line {event.start_mark.line + 1})")
    return str(event.value)


class _BadValue(Exception):
    """Its text is the rule."""


def _value(event: Any, events: Iterator[yaml.Event]) -> str | int | None:
    _check_plain(event)
    if not isinstance(event, yaml.ScalarEvent):
        _skip(events)
        raise _BadValue("must be text or a whole number, not a list or a mapping")
    text: str = event.value
    if event.style:  # quoted, or a block: text, whatever it looks like
        return text
    return _plain(text)


def _plain(text: str) -> str | int | None:
    """What a plain word says."""
    if _WHOLE.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise _BadValue(f"must be a whole number of at most {_MAX_DIGITS} digits")
        return int(text)
    if len(text) > _LONGEST_PLAIN:
        # No date, truth value or null is so long, and the resolver's patterns take their time on long numbers.
        if _LONG_NUMBER.match(text):
            raise _BadValue(_NUMBER_RULE)
        return text
    for tag, pattern in Resolver.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            if tag == _NULL:
                return None
            raise _BadValue(_WORD_RULE.get(tag, _NUMBER_RULE))
    if _NUMBERLIKE.match(text):
        raise _BadValue(_NUMBER_RULE)
    return text


def _skip(events: Iterator[yaml.Event]) -> None:
    """Read to the end of a list or a mapping whose beginning was read."""
    depth = 1
    for _ in range(_MAX_SKIPPED):
        event = next(events)
        _check_plain(event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if not depth:
                return
    raise _not_flat("holds lists or mappings with far more in them than a TaskSpec can have")


#: What YAML 1.2 or a person takes for a number, and YAML 1.1 for text.
_NUMBERLIKE = re.compile(r"[-+]?(?:0[xob][0-9A-Fa-f]+|[0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\Z")


_LONGEST_PLAIN = 64
_LONG_NUMBER = re.compile(r"[-+.0-9][-+.,:_0-9A-Fa-fxob]*\Z")


def _check_plain(event: Any) -> None:
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _not_flat(f"holds anchors or aliases, which are not allowed (line {line})")
    if getattr(event, "tag", None) is not None:
        raise _not_flat(f"holds a tag, which is not allowed (line {line}); text goes in quotes")


_MAPPING = "must be one YAML mapping of field names to values"


def _not_flat(rule: str) -> InvalidSpec:
    return InvalidSpec(f"the TaskSpec {rule}", [FieldError("(document)", rule)])
