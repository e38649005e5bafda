"""The commands that a page of the documentation tells a person to type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
#: Within a sentence: what begins so is a command, and no file, field or option.
_INLINE = re.compile(r"`((?:scripts/|argus |curl |export |python3 |[A-Z_]+=\S+ )[^`]*)`")
#: Behind a command, for who reads it.
_NOTE = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Documented:
    """`text`: as on the page, without its note; of Python the whole block."""

    page: str
    text: str
    is_python: bool = False


def commands(page: Path) -> list[Documented]:
    """In the page's order, each once: what stands in blocks of `sh`, `console` and `python`, and in sentences. A block
    of another kind (a TaskSpec, a picture) is no command. ValueError for a kind that nobody knows."""
    text = page.read_text()
    found: list[tuple[int, Documented]] = []
    for fence in _FENCE.finditer(text):
        kind, lines = fence[2], fence[3].splitlines()
        if kind == "python":
            found.append((fence.start(), Documented(page.name, fence[3], is_python=True)))
        elif kind in ("sh", "console"):
            typed = _joined(line.strip() for line in lines) if kind == "sh" else _after_prompts(lines)
            found += [(fence.start() + i, Documented(page.name, _NOTE.sub("", line))) for i, line in enumerate(typed)]
        elif kind not in ("", "yaml"):
            raise ValueError(f"{page}: a block of {kind!r}")
    prose = _FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    found += [
        (inline.start(), Documented(page.name, " ".join(inline[1].split()))) for inline in _INLINE.finditer(prose)
    ]
    return list(dict.fromkeys(each for _, each in sorted(found, key=lambda pair: pair[0])))


def block(page: Path, before: str) -> list[str]:
    """The commands of the first block of `sh` after this text."""
    found = _FENCE.search(page.read_text(), page.read_text().index(before))
    assert found is not None and found[2] == "sh", before
    return [_NOTE.sub("", line) for line in _joined(line.strip() for line in found[3].splitlines())]


def _after_prompts(lines: list[str]) -> list[str]:
    return [line.removeprefix("$ ") for line in map(str.strip, lines) if line.startswith("$ ")]


def _joined(lines: Iterable[str]) -> list[str]:
    """A line that ends in a backslash goes on in the next one."""
    whole = "\n".join(lines).replace("\\\n", "")
    return [line for line in whole.splitlines() if line and not line.startswith("#")]
