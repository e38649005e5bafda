"""Values in Hydra's grammar: what is written is read by verl as exactly this value, of this type."""

from __future__ import annotations

import math
import re
from typing import TypeAlias, Union

#: As JSON has it.
Value: TypeAlias = Union[bool, int, float, str, "list[Value]", "dict[str, Value]", None]

#: Words that Hydra's grammar reads as the text that they are: an absolute path, or a name with a letter in
#: front that is none of its literals.
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]+|(?!(?:null|true|false|inf|nan)$)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)
#: Inside quotes these would still mean something to Hydra (escape) or OmegaConf (interpolation).
_NEVER = re.compile(r"['\"\\$]|[^ -~]")
#: Of a dictionary within a value.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def broken_rule(value: object) -> str | None:
    """Why this cannot stand in a command line, or None."""
    if isinstance(value, str):
        if _NEVER.search(value):
            return "must be printable ASCII without quotes, backslashes and '$'"
        return None
    if isinstance(value, list):
        return next((rule for each in value if (rule := broken_rule(each))), None)
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                return "must have keys of letters, digits and '_'"
            if rule := broken_rule(each):
                return rule
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if value is None or isinstance(value, bool | int | float):
        return None
    return "must be a value that JSON has too"


def written(value: Value) -> str:
    """Raises ValueError for what cannot be written so that Hydra reads the same."""
    if rule := broken_rule(value):
        raise ValueError(f"cannot stand in a verl command line: {value!r:.200}: {rule}")
    return _written(value)


def _written(value: Value) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else f"'{value}'"
    if isinstance(value, list):
        return "[" + ",".join(f'"{each}"' if isinstance(each, str) else _written(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_written(each)}" for name, each in value.items()) + "}"
    if value is None:
        return "null"
    return f"{value}"
