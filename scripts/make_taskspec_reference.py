"""Writes the table of fields in docs/taskspec.md from the model, between its two marks. `--check` only compares."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from argus_ray.core.taskspec import TaskSpec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "taskspec.md"
BEGIN = "<!-- fields: made by scripts/make_taskspec_reference.py -->\n\n"
END = "\n<!-- end of fields -->\n"
#: Of JSON schema's `format`, as people say it.
FORMATS = {
    "input-path": "an input path",
    "input-folder": "an input path, of a folder",
    "model": "a Hub id (`name` or `organisation/name`) or an input path, of a folder",
}


def table() -> str:
    schema = TaskSpec.model_json_schema()
    lines = ["| field | rule | verl gets |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        is_required = name in schema["required"]
        lines.append(f"| `{name}` | {_rule(field, is_required)} | {field['description']} |")
    return "\n".join(lines) + "\n"


def _rule(field: Mapping[str, Any], is_required: bool) -> str:
    kind = next((choice for choice in field.get("anyOf", ()) if choice["type"] != "null"), field)
    if "enum" in kind:
        *others, last = (f"`{value}`" + " (default)" * (value == field.get("default")) for value in kind["enum"])
        return f"{', '.join(others)} or {last}"
    if kind["type"] == "integer":
        least, most = kind["minimum"], f"{kind['maximum']:,}"
        rule = f"-1 (never) or 1 to {most}" if least == -1 else f"{least:,} to {most}"
    elif "format" in kind:
        rule = FORMATS[kind["format"]]
    else:
        rule = f"at most {kind['maxLength']} characters"
    return rule if is_required else f"optional; {rule}"


def page(text: str) -> str:
    """The page with the table of today. ValueError if it lacks a mark."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}{table()}{END}{tail}"


def main() -> int:
    old = PAGE.read_text()
    new = page(old)
    if sys.argv[1:] == ["--check"]:
        return int(old != new)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
