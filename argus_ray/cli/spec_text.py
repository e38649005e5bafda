"""The text of a TaskSpec: single fields changed without a word of the rest, and a first check without a server.

The rules are a copy of those of the service, which decides; a test holds the copy against its model. What this cannot
read it says so, and never guesses: YAML has more forms than a TaskSpec needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from argus_ray.cli.exits import REFUSED, USAGE, CliError

MAX_BYTES = 8 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_FIELD_LINE = re.compile(r"(?P<head>(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*:)(?P<rest>(?:[ \t].*)?)")
#: What follows the value: blanks, a comment.
_TAIL = re.compile(r"(?:[ \t]+#.*|[ \t]*)")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.@+=-]*")
_READ_OTHERWISE = re.compile(r"(?i:true|false|yes|no|on|off|null|y|n)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")


def with_fields(text: str, changes: Sequence[tuple[str, str]]) -> str:
    """The TaskSpec with these fields; comments, order and blank lines stay. A value may come in quotes, which make text
    of a number; an empty one leaves the field out. Raises CliError."""
    for name, _ in changes:
        if not _NAME.fullmatch(name):
            raise CliError(f"--set {name}: this is no name of a field", USAGE)
    if not changes:
        return text
    if text.lstrip().startswith("{"):
        return _json_with(text, changes)
    lines = text.split("\n")
    for name, value in changes:
        lines = _lines_with(lines, name, value)
    return "\n".join(lines)


def _lines_with(lines: list[str], name: str, value: str) -> list[str]:
    shown = _yaml_word(value)
    for place, line in enumerate(lines):
        match = _FIELD_LINE.fullmatch(line.rstrip("\r"))
        if match is None or match["name"] != name:
            continue
        _check_one_line(lines, place, match["rest"], name)
        comment = _comment_of(match["rest"])
        end = "\r" if line.endswith("\r") else ""
        lines[place] = f"{match['head']} {shown}".rstrip() + comment + end
        return lines
    if not shown:
        return lines
    # At the end, before a last empty line.
    last = len(lines)
    while last and not lines[last - 1].strip():
        last -= 1
    if last and lines[last - 1].strip() == "...":
        raise CliError(f"--set {name}: the document ends with `...`; write the field above it", USAGE)
    return [*lines[:last], f"{name}: {shown}", *(lines[last:] or [""])]


def _check_one_line(lines: list[str], place: int, rest: str, name: str) -> None:
    value = rest.strip()
    goes_on = place + 1 < len(lines) and lines[place + 1][:1] in (" ", "\t") and lines[place + 1].strip()
    if goes_on or value[:1] in ("|", ">", "[", "{", "&", "*", "!"):
        raise CliError(f"--set {name}: its value in the file is not on one line; change it there", USAGE)


def _comment_of(rest: str) -> str:
    text = rest.lstrip(" \t")
    lead = len(rest) - len(text)
    if quoted := _QUOTED.match(text):
        tail = text[quoted.end() :]
    elif text.startswith("#"):
        return rest[:lead] + text if lead else ""
    else:
        found = re.search(r"[ \t]+#", text)
        tail = text[found.start() :] if found else ""
    return tail.rstrip() if _TAIL.fullmatch(tail) and "#" in tail else ""


def _yaml_word(value: str) -> str:
    if _QUOTED.fullmatch(value) or _WHOLE.fullmatch(value) or not value:
        return value
    return (
        value
        if _PLAIN.fullmatch(value) and not _READ_OTHERWISE.fullmatch(value)
        else json.dumps(value, ensure_ascii=False)
    )


def _json_with(text: str, changes: Sequence[tuple[str, str]]) -> str:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise CliError(f"--set: the file begins like JSON and is none: {error}", REFUSED) from None
    if not isinstance(fields, dict):
        raise CliError("--set: the file is no mapping of fields to values", REFUSED)
    for name, value in changes:
        if not value:
            fields.pop(name, None)
        elif _QUOTED.fullmatch(value):
            fields[name] = value[1:-1]
        else:
            fields[name] = int(value) if _WHOLE.fullmatch(value) else value
    return json.dumps(fields, indent=2) + "\n"


@dataclass(frozen=True)
class Rule:
    """Of one field. A number has bounds, a text may have choices."""

    is_number: bool = False
    required: bool = True
    least: int = 1
    most: int = 10**9
    #: -1 stands for never.
    or_never: bool = False
    choices: tuple[str, ...] = ()
    is_path: bool = False


RULES: Mapping[str, Rule] = {
    "workload": Rule(choices=("ppo", "grpo", "sft")),
    "code_path": Rule(is_path=True),
    "model_id": Rule(),
    "train_file": Rule(is_path=True),
    "val_file": Rule(is_path=True),
    "nnodes": Rule(is_number=True, most=1024),
    "n_gpus_per_node": Rule(is_number=True, most=64),
    "total_epochs": Rule(is_number=True, most=10**6),
    "total_training_steps": Rule(is_number=True, required=False),
    "save_freq": Rule(is_number=True, or_never=True),
    "test_freq": Rule(is_number=True, or_never=True),
    "trainer_device": Rule(required=False, choices=("cuda", "cpu")),
    "submission_id": Rule(required=False),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_PATH = re.compile(r"/[A-Za-z0-9._+@=/-]{1,1023}")


def broken_rules(text: str) -> list[tuple[str, str]]:
    """(field, rule) for each rule that this text breaks, as far as one can tell without the server: whether the inputs
    are there, and where they may lie, it alone knows."""
    if len(text.encode()) > MAX_BYTES:
        return [("(document)", f"may be at most {MAX_BYTES} bytes long")]
    try:
        values = _values(text)
    except ValueError as error:
        return [("(document)", str(error))]
    found = [(name, "is not a known field") for name in values if name not in RULES]
    for name, rule in RULES.items():
        value = values.get(name)
        words = _broken(name, rule, value) if value is not None else "is required" if rule.required else None
        if words is not None:
            found.append((name, words))
    return found


def _broken(name: str, rule: Rule, value: str | int) -> str | None:
    if rule.is_number:
        if not isinstance(value, int):
            return "must be a whole number in decimal digits"
        if rule.or_never and value == -1:
            return None
        if rule.or_never and value < 1:
            return "must be -1 (never) or at least 1"
        return None if rule.least <= value <= rule.most else f"must be {rule.least} to {rule.most}"
    if not isinstance(value, str):
        return "must be text: put it in quotes"
    if rule.choices and value not in rule.choices:
        return f"must be one of {', '.join(rule.choices)}"
    if rule.is_path or (name == "model_id" and value.startswith("/")):
        parts = value.rstrip("/").split("/")[1:]
        if not _PATH.fullmatch(value) or any(part in ("", ".", "..") or part.startswith("-") for part in parts):
            return "must be an absolute path of A-Z a-z 0-9 . _ + @ = - / without empty, `.` or `..` parts"
    elif name == "model_id" and (not _HUB_ID.fullmatch(value) or ".." in value):
        return "must be a hub id (name or organisation/name) or an absolute path"
    return None


def _values(text: str) -> dict[str, str | int | None]:
    """The fields of a flat mapping. Raises ValueError for another form."""
    if text.lstrip().startswith("{"):
        read = json.loads(text)
        if not isinstance(read, dict):
            raise ValueError("must be one mapping of field names to values")
        return {str(name): value if isinstance(value, (str, int)) else None for name, value in read.items()}
    found: dict[str, str | int | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#") or line.strip() == "---":
            continue
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"line {number}: cannot be checked without the server: it is not `name: value` on one line"
            )
        if match["name"] in found:
            raise ValueError(f"has the key {match['name']!r} twice (line {number})")
        found[match["name"]] = _value(match["rest"], number)
    return found


def _value(rest: str, number: int) -> str | int | None:
    text = rest.strip()
    if quoted := _QUOTED.match(text):
        word = quoted[0]
        return word[1:-1].replace("''", "'") if word[0] == "'" else str(json.loads(word))
    text = re.sub(r"(?:^|[ \t]+)#.*", "", text)
    if text[:1] and text[0] in "|>[{&*!%@`\"'":
        raise ValueError(f"line {number}: cannot be checked without the server: the value is not plain text")
    if text in ("", "null", "~", "Null", "NULL"):
        return None
    return int(text) if _WHOLE.fullmatch(text) else text
