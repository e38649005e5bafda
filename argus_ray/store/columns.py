"""Columns that hold JSON, as values. None of these functions raises: a row that another version of Argus wrote, or
somebody by hand, is shown as far as it can be understood, and hides no other row."""

from __future__ import annotations

import json
from typing import Any

from argus_ray.core.errors import FieldError
from argus_ray.core.model import PlacedNode
from argus_ray.core.text import clean
from argus_ray.core.verl.failures import UNKNOWN, Failure

#: Of a text that is shown as it stands in the database.
_MAX_SHOWN_CHARS = 500
_ODD = "What is stored of this cannot be read by this version of Argus."


def failure(stored: str) -> Failure:
    """Keys that are not known are left out."""
    raw = _parsed(stored)
    if not isinstance(raw, dict) or not isinstance(raw.get("code"), str):
        return Failure(UNKNOWN, stored[:_MAX_SHOWN_CHARS], _ODD)
    return Failure(raw["code"], _shown(raw.get("line", "")), _shown(raw.get("hint", "")))


def warnings(stored: str) -> tuple[FieldError, ...]:
    raw = _parsed(stored)
    if not isinstance(raw, list):
        return (FieldError("(document)", clean(stored[:_MAX_SHOWN_CHARS])),)
    return tuple(map(_warning, raw))


def texts(stored: str) -> tuple[str, ...]:
    """A list of texts; empty if it is anything else."""
    raw = _parsed(stored)
    if not isinstance(raw, list) or not all(map(_is_text, raw)):
        return ()
    return tuple(raw)


def pairs(stored: str) -> tuple[tuple[str, str], ...] | None:
    """A list of pairs of texts; None if it is anything else."""
    raw = _parsed(stored)
    if not isinstance(raw, list):
        return None
    if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in raw):
        return None
    return tuple((name, value) for name, value in raw)


def placement(stored: str) -> tuple[PlacedNode, ...] | None:
    """None for what is no list of nodes."""
    raw = _parsed(stored)
    try:
        found = tuple(PlacedNode(each["node_id"], each["hostname"], each["ip"], each["gpus"]) for each in raw)
    except (TypeError, KeyError):
        return None
    is_whole = all(
        _is_text(each.node_id) and _is_text(each.hostname) and _is_text(each.ip) and type(each.gpus) is int
        for each in found
    )
    return found if is_whole else None


def _warning(raw: object) -> FieldError:
    if isinstance(raw, dict) and isinstance(raw.get("field"), str):
        return FieldError(clean(raw["field"]), clean(_shown(raw.get("rule", ""))))
    return FieldError("(document)", clean(_shown(raw)))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)[:_MAX_SHOWN_CHARS]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and clean(value) == value


def _parsed(stored: str) -> Any:
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        return None
