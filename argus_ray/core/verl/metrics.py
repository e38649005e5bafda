"""What verl's metrics lines say: curves, and how fast a run is. Pure, and bounded whatever the lines hold.

A line is `{"step": N, "data": {name: value}}`. verl logs a step twice when it validates (training, then validation),
so values are kept by name and step, and the later one wins. **A step that goes back throws away what came after it**:
the run has restarted there, and the curve is the history of the model that exists now. The same rule joins attempts.

Curves are reduced by buckets of steps, each keeping its lowest and its highest point, and the curve its first and its
last. Unlike LTTB this can be done again and again while lines arrive, without choosing differently than all at once,
and it never loses a spike, for which people look at a loss.
"""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: The curves that are kept without being asked for, by verl 0.9's names (sft_trainer.py, ppo/metric_utils.py,
#: workers/utils/losses.py).
MAIN = (
    "train/loss", "val/loss", "train/lr", "train/grad_norm",
    "critic/score/mean", "critic/rewards/mean", "actor/pg_loss", "actor/kl_loss", "actor/ppo_kl", "actor/entropy",
    "actor/grad_norm", "critic/vf_loss", "response_length/mean", "timing_s/step", "perf/throughput",
)  # fmt: skip
#: verl's headline scores of a validation, one or more a data source. The many val-aux/... are there for the asking.
VALIDATION = "val-core/"
#: One number to show beside a task: the first of these that it has.
HEADLINES = ("train/loss", "critic/score/mean", "critic/rewards/mean")

MAX_STEP = 2**53
#: verl's lines have 1 to 10 KiB; a longer one is skipped before it becomes many times its size as Python objects.
MAX_LINE_BYTES = 256 * 1024
#: Points of one curve that are kept; then it is reduced to half of that or less.
MAX_POINTS = 2048
MAX_VALIDATION_CURVES = 24
#: Names of other metrics that are remembered, and their longest.
MAX_NAMES = 512
MAX_NAME_LENGTH = 200
#: Steps that the pace is taken from.
PACE_STEPS = 20


class Curve:
    """Points in the order of steps, at most MAX_POINTS; later steps are appended."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self._width = 1

    def put(self, step: int, value: float) -> None:
        """`step` is the last one or a later one."""
        if self.steps and self.steps[-1] == step:
            self.values[-1] = value
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > MAX_POINTS:
            self._reduce()

    def cut(self, step: int) -> None:
        """Forget what came after `step`."""
        keep = bisect_right(self.steps, step)
        del self.steps[keep:], self.values[keep:]

    def _reduce(self) -> None:
        # Bucket borders are multiples of the width, and widths double: buckets of later reductions are unions of
        # earlier ones, so that nothing depends on when it happened.
        while True:
            kept = extremes(self.values, [step // self._width for step in self.steps])
            self.steps = array("q", (self.steps[index] for index in kept))
            self.values = array("d", (self.values[index] for index in kept))
            if len(kept) <= MAX_POINTS // 2:
                return
            self._width *= 2


def extremes(values: Sequence[float], buckets: Sequence[int]) -> list[int]:
    """The indices to keep, in order: the first and the last, and of each bucket the lowest and the highest.

    `buckets` tells each value's bucket, and does not fall.
    """
    kept = {0, len(values) - 1}
    current, low, high = None, 0, 0
    for index, bucket in enumerate(buckets):
        if bucket != current:
            kept |= {low, high}
            current, low, high = bucket, index, index
        elif values[index] < values[low]:
            low = index
        elif values[index] > values[high]:
            high = index
    return sorted(kept | {low, high})


class Digest:
    """What is kept of the lines of one file."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        """Keeps the curves of these names, or else the main ones and the names of all others."""
        self.curves: dict[str, Curve] = {}
        self.first_step: int | None = None
        self.last_step: int | None = None
        self._collects = names is None
        self._wanted = set(MAIN if names is None else names)
        self._validations = 0
        self._names: set[str] = set()
        #: (step, seconds) of the last steps that told them.
        self._durations: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS)

    @property
    def other_names(self) -> set[str]:
        """Names that occurred and have no curve here."""
        return self._names - self.curves.keys()

    @property
    def size(self) -> int:
        """Bytes that this takes, about."""
        points = sum(len(curve.steps) for curve in self.curves.values())
        return 2048 + 512 * len(self.curves) + 24 * points + sum(120 + len(name) for name in self._names)

    def feed(self, data: bytes) -> None:
        """Complete lines. One that is not a metrics line is passed over."""
        for line in data.split(b"\n"):
            if line and len(line) <= MAX_LINE_BYTES:
                self._feed_line(line)

    def _feed_line(self, line: bytes) -> None:
        try:
            record = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return
        if not isinstance(record, dict):
            return
        step, data = record.get("step"), record.get("data")
        if type(step) is not int or not 0 <= step < MAX_STEP:
            return
        if self.last_step is not None and step < self.last_step:
            self._go_back(step)
        self.last_step = step
        if self.first_step is None or step < self.first_step:
            self.first_step = step
        if not isinstance(data, dict):
            return
        if self._collects and not self._names.issuperset(data):
            self._remember(data)
        for name in data.keys() & self._wanted:
            value = _finite(data[name])
            if value is None:
                continue
            curve = self.curves.get(name)
            if curve is None:
                curve = self.curves[name] = Curve()
            curve.put(step, value)
        self._time(step, data)

    def _go_back(self, step: int) -> None:
        for curve in self.curves.values():
            curve.cut(step)
        while self._durations and self._durations[-1][0] > step:
            self._durations.pop()

    def _remember(self, data: dict[str, object]) -> None:
        for name in data:
            if name in self._names or not is_name(name) or len(self._names) >= MAX_NAMES:
                continue
            self._names.add(name)
            if name.startswith(VALIDATION) and self._validations < MAX_VALIDATION_CURVES:
                self._validations += 1
                self._wanted.add(name)

    def _time(self, step: int, data: dict[str, object]) -> None:
        seconds = _finite(data.get("timing_s/step"))
        if seconds is None or seconds <= 0:
            return
        # verl 0.9 does not count a validation as part of its step.
        seconds += max(0.0, _finite(data.get("timing_s/testing")) or 0.0)
        if self._durations and self._durations[-1][0] == step:
            self._durations.pop()
        self._durations.append((step, seconds))

    def steps_per_s(self) -> float | None:
        """By what verl says of its last steps; None if it does not (sft)."""
        total = sum(seconds for _, seconds in self._durations)
        return usable_rate(len(self._durations), total)

    def headline(self) -> Headline | None:
        for name in HEADLINES:
            curve = self.curves.get(name)
            if curve is not None and curve.steps:
                return Headline(name, curve.values[-1], curve.steps[-1])
        return None


@dataclass(frozen=True)
class Headline:
    """The newest value of a task's most telling metric."""

    name: str
    value: float
    step: int


def is_name(name: str) -> bool:
    """Whether this may be asked for and shown: no control characters, no halves of characters."""
    return 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable()


def _finite(value: object) -> float | None:
    """verl writes null for NaN and infinity."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def usable_rate(steps: float, seconds: float) -> float | None:
    """Steps a second, or None where that is no number to tell anybody."""
    if steps <= 0 or seconds <= 0:
        return None
    rate = steps / seconds
    return rate if math.isfinite(rate) and rate > 0 else None


def seconds_left(step: int, total_steps: int | None, steps_per_s: float | None) -> float | None:
    if total_steps is None or steps_per_s is None:
        return None
    seconds = max(0, total_steps - step) / steps_per_s
    return seconds if math.isfinite(seconds) else None


# --- several attempts, one answer ---


@dataclass(frozen=True)
class Part:
    """One attempt's curves, as they were at one moment."""

    attempt: int
    first_step: int | None
    last_step: int | None
    #: name -> steps, values
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]

    @classmethod
    def of(cls, attempt: int, digest: Digest) -> Part:
        curves = {name: (curve.steps[:], curve.values[:]) for name, curve in digest.curves.items()}
        return cls(attempt, digest.first_step, digest.last_step, curves)


@dataclass
class Points:
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    #: The number of the attempt that each point is of.
    attempts: list[int] = field(default_factory=list)

    def _keep(self, count: int) -> None:
        del self.steps[count:], self.values[count:], self.attempts[count:]


def merge(parts: Iterable[Part], name: str) -> Points:
    """One curve through all attempts, which come in their order."""
    points = Points()
    for part in parts:
        if part.first_step is None:
            continue
        steps, values = part.curves.get(name, ((), ()))
        # At its first step the earlier attempt's point stands, unless this one has its own: a run that resumes may
        # validate once more at the step of its checkpoint.
        points._keep(bisect_right(points.steps, part.first_step))
        if steps:
            points._keep(bisect_left(points.steps, steps[0]))
        points.steps.extend(steps)
        points.values.extend(values)
        points.attempts.extend([part.attempt] * len(steps))
    return points


def thin(points: Points, *, since_step: int, max_points: int) -> Points:
    """The points from `since_step` on, at most `max_points` (two or more) of them."""
    start = bisect_left(points.steps, since_step)
    steps, values, attempts = points.steps[start:], points.values[start:], points.attempts[start:]
    if len(steps) > max_points:
        buckets = (max_points - 2) // 2
        if buckets:
            first, span = steps[0], steps[-1] - steps[0] + 1
            kept = extremes(values, [(step - first) * buckets // span for step in steps])
        else:
            kept = [0, len(steps) - 1]
        return Points([steps[i] for i in kept], [values[i] for i in kept], [attempts[i] for i in kept])
    return Points(steps, values, attempts)
