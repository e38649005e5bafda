"""The text of the configuration file: the small part of YAML that it needs, two levels of `name: value`.

PyYAML is not used. It would cost 35 ms at each start, a fifth of what `argus --help` may take, and a dependency more in
the one file that runs anywhere, where its compiled half cannot travel. What this does not read, it refuses with the
line's number; what it writes, every reader of YAML reads.
"""

from __future__ import annotations

import json
import re

Section = dict[str, str]

_LINE = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z0-9_][A-Za-z0-9_.@-]*|\"[^\"\\]+\")\s*:(?:\s+(?P<value>.*))?")
#: No truth value, null, number or date of YAML, and nothing that begins like something else than text.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.:@+-]*")
_READ_OTHERWISE = re.compile(r"(?i:true|false|yes|no|on|off|null|y|n)|~")


class BadText(ValueError):
    """The text is none of ours. Its words name the line."""


def read(text: str) -> dict[str, str | dict[str, Section]]:
    """`{"current": name, "contexts": {name: {field: value}}}`, of what is there. Raises BadText."""
    found: dict[str, str | dict[str, Section]] = {}
    contexts: dict[str, Section] | None = None
    section: Section | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        if not raw.strip() or raw.lstrip().startswith("#") or raw.rstrip() == "---":
            continue
        match = _LINE.fullmatch(raw.rstrip())
        if match is None:
            raise BadText(f"line {number}: must be `name: value`")
        depth, name = len(match["indent"]), match["name"].strip('"')
        value = _value(match["value"] or "", number)
        if depth == 0:
            if name in found:
                raise BadText(f"line {number}: {name} stands there twice")
            section = None
            if name == "contexts":
                if value not in (None, "{}"):
                    raise BadText(f"line {number}: contexts must be a mapping, each context on lines of its own")
                contexts = found["contexts"] = {}
            else:
                contexts = None
                if value is not None:
                    found[name] = value
        elif depth == 2 and contexts is not None:
            if value is not None:
                raise BadText(f"line {number}: a context must be a mapping")
            if name in contexts:
                raise BadText(f"line {number}: the context {name} stands there twice")
            section = contexts[name] = {}
        elif depth == 4 and section is not None:
            if name in section:
                raise BadText(f"line {number}: {name} stands there twice")
            if value is not None:
                section[name] = value
        else:
            raise BadText(f"line {number}: is indented by {depth} blanks; 0, 2 or 4 are right there")
    return found


def write(current: str | None, contexts: dict[str, Section]) -> str:
    lines = ["# Servers and tokens of the command `argus`. Nobody but you may read it (mode 0600)."]
    if current is not None:
        lines.append(f"current: {_word(current)}")
    lines.append("contexts:" if contexts else "contexts: {}")
    for name, fields in contexts.items():
        lines.append(f"  {_word(name)}:")
        lines += [f"    {field}: {_word(value)}" for field, value in fields.items()]
    return "\n".join(lines) + "\n"


def _word(value: str) -> str:
    # A string of JSON is one of YAML.
    plain = _PLAIN.fullmatch(value) and not _READ_OTHERWISE.fullmatch(value) and not value.endswith(":")
    return value if plain else json.dumps(value, ensure_ascii=False)


def _value(text: str, number: int) -> str | None:
    text = text.strip()
    if text.startswith('"'):
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            raise BadText(f"line {number}: the quotes do not end, or hold an escape that is not known") from None
        _check_rest(text[end:], number)
        return str(value)
    if text.startswith("'"):
        match = re.fullmatch(r"'((?:[^']|'')*)'(.*)", text)
        if match is None:
            raise BadText(f"line {number}: the quotes do not end")
        _check_rest(match[2], number)
        return match[1].replace("''", "'")
    text = re.sub(r"(?:^|\s+)#.*", "", text)
    if text == "{}":
        return text
    if text[:1] and text[0] in "[{&*!|>%@`,?-":
        raise BadText(f"line {number}: the value must be text on this line; put it in double quotes")
    return text or None


def _check_rest(text: str, number: int) -> None:
    if text.strip() and not re.match(r"\s+#", text):
        raise BadText(f"line {number}: something follows the closing quote")
