"""What verl writes of its samples: a file a step, `<step>.jsonl`, one JSON object a line (`_write_generations` of its
trainers, verl 0.9): `input`, `output`, `gts`, `score`, `step`, and whatever the reward told beside it. Pure, and
bounded whatever the lines hold.

A step of a later attempt replaces that of an earlier one, and what came after it: the list is the history of the model
that exists now, as the curves are (`metrics.py`).
"""

from __future__ import annotations

import json
import math
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from argus_ray.core.text import clean
from argus_ray.core.verl.metrics import MAX_STEP

#: Bytes. A line of a prompt and an answer of 100,000 tokens has less; a longer one is told of and not shown.
MAX_LINE_BYTES = 2 * 1024 * 1024
#: Characters of one field that are shown, unless more or less are asked for.
FIELD_CHARS = 64 * 1024
#: Other fields of a sample that are shown, and the longest name of one.
MAX_EXTRAS = 64
_MAX_NAME = 200
#: JavaScript's, beyond which a number is told as text.
_MAX_INTEGER = 2**53
_FILE = re.compile(r"(0|[1-9][0-9]{0,15})\.jsonl")
#: The step is the file's.
_KNOWN = ("input", "output", "gts", "score", "step")


class Kind(str, Enum):
    """Of samples, by where verl writes them."""

    TRAIN = "train"
    VALIDATION = "validation"

    @property
    def folder(self) -> str:
        """Of the job root; as `core/verl/command.py` sets it."""
        return "rollouts" if self is Kind.TRAIN else "validation"


def step_of(name: str) -> int | None:
    """Of a file in such a folder; None for any other file."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    step = int(match[1])
    return step if step < MAX_STEP else None


def file_of(step: int) -> str:
    return f"{step}.jsonl"


@dataclass(frozen=True)
class Steps:
    """The steps of which one attempt has left samples, in their order."""

    attempt: int
    train: Sequence[int]
    validation: Sequence[int]

    def of(self, kind: Kind) -> Sequence[int]:
        return self.train if kind is Kind.TRAIN else self.validation

    @property
    def first(self) -> int | None:
        return min((steps[0] for steps in (self.train, self.validation) if len(steps)), default=None)


def join(parts: Iterable[Steps], kind: Kind) -> tuple[Sequence[int], Sequence[int]]:
    """(steps, the attempt that each is of), in the order of steps, through all attempts, which come in their order."""
    steps, attempts = array("q"), array("q")
    for part in parts:
        if part.first is None:
            continue
        # At its first step the earlier attempt's samples stand, unless this one has its own: a run that resumes may
        # validate once more at the step of its checkpoint.
        keep = bisect_right(steps, part.first)
        own = part.of(kind)
        if len(own) and keep and steps[keep - 1] == own[0]:
            keep -= 1
        del steps[keep:], attempts[keep:]
        steps.extend(own)
        attempts.extend([part.attempt] * len(own))
    return steps, attempts


@dataclass(frozen=True)
class Sample:
    """One line. All None, and truncated, for one that is no object of JSON or too long."""

    #: Its number in the file, from 0.
    index: int
    prompt: str | None = None
    answer: str | None = None
    ground_truth: Any = None
    #: None: not told, or no finite number.
    score: float | None = None
    #: Values of JSON.
    extra: dict[str, Any] = field(default_factory=dict)
    #: Something of it is left out, or cannot be read.
    truncated: bool = False
    #: Characters that it takes in an answer, about.
    size: int = 0


def read_line(index: int, line: bytes | None, field_chars: int = FIELD_CHARS) -> Sample:
    """The sample of a whole line (None: of one that is too long), each field of which is cut to `field_chars`
    characters."""
    if line is None or len(line) > MAX_LINE_BYTES:
        return Sample(index, truncated=True)
    try:
        record = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
        if not isinstance(record, dict):
            return Sample(index, truncated=True)
        return _sample(index, record, _Cut(field_chars))
    except (ValueError, RecursionError):
        return Sample(index, truncated=True)


def score_of(line: bytes) -> float | None:
    """The score alone; None if there is none. Raises ValueError for what is no sample."""
    try:
        record = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(record, dict):
        raise ValueError("no object")
    return _number(record.get("score"))


class _Cut:
    """Makes values fit, and remembers whether it had to cut, and how much is left."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.has_cut = False
        self.size = 0

    def text(self, text: str) -> str:
        if len(text) > self._most:
            self.has_cut, text = True, text[: self._most]
        self.size += len(text)
        return clean(text)

    def text_or_none(self, value: Any) -> str | None:
        if value is None:
            return None
        return self.text(value if isinstance(value, str) else _as_json(value))

    def value(self, value: Any) -> Any:
        """A value of JSON; a structure that is too large becomes the beginning of its text."""
        match value:
            case str():
                return self.text(value)
            case None | bool():
                return value
            case int():
                return value if abs(value) <= _MAX_INTEGER else self.text(str(value))
            case float():
                return _number(value)
        text = _as_json(value)
        if len(text) > self._most:
            return self.text(text)
        self.size += len(text)
        return json.loads(clean(text), parse_constant=lambda _: None)


def _sample(index: int, record: dict[str, Any], cut: _Cut) -> Sample:
    extra: dict[str, Any] = {}
    for name, value in record.items():
        if name in _KNOWN:
            continue
        if len(extra) >= MAX_EXTRAS or len(name) > _MAX_NAME:
            cut.has_cut = True
            continue
        extra[clean(name)] = cut.value(value)
    prompt, answer = cut.text_or_none(record.get("input")), cut.text_or_none(record.get("output"))
    ground_truth = cut.value(record.get("gts"))
    score = _number(record.get("score"))
    return Sample(index, prompt, answer, ground_truth, score, extra, cut.has_cut, cut.size)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
