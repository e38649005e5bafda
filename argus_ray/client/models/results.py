"""What a run leaves: curves, rollouts, files and its log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from argus_ray.client.models.base import Model


class AttemptSteps(Model):
    SCHEMAS = ("AttemptStepsOut",)

    attempt: int
    first_step: int | None
    last_step: int | None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Curve(Model):
    """Each point has its step, its value and the attempt that it is of."""

    SCHEMAS = ("CurveOut",)

    steps: tuple[int, ...]
    values: tuple[float, ...]
    attempt: tuple[int, ...]


class Curves(Model):
    """A task's curves, through all its attempts."""

    SCHEMAS = ("MetricsOut",)

    task_id: str
    attempts: tuple[AttemptSteps, ...]
    last_step: int | None
    total_steps: int | None
    steps_per_s: float | None
    seconds_left: float | None
    complete: bool
    curves: Mapping[str, Curve]
    available: tuple[str, ...]

    def to_pandas(self) -> Any:
        """A pandas DataFrame: a row for each step, a column for each curve. Raises ImportError without pandas."""
        import pandas

        columns = {
            name: pandas.Series(curve.values, index=pandas.Index(curve.steps, name="step"), dtype="float64", name=name)
            for name, curve in self.curves.items()
        }
        frame = pandas.DataFrame(columns)
        frame.index.name = "step"
        return frame.sort_index()


class TaskCurves(Model):
    """One of several tasks; `problem`: the problem document, where there are no curves."""

    SCHEMAS = ("TaskCurvesOut",)

    task_id: str
    state: str | None
    metrics: Curves | None
    problem: Mapping[str, Any] | None


class ManyCurves(Model):
    SCHEMAS = ("CurvesOut",)

    tasks: tuple[TaskCurves, ...]


class Sparkline(Model):
    """A task's headline as a small curve; `name` is None while it has none."""

    SCHEMAS = ("SparklineOut",)

    task_id: str
    name: str | None
    steps: tuple[int, ...]
    values: tuple[float, ...]
    complete: bool


class Sparklines(Model):
    SCHEMAS = ("SparklinesOut",)

    tasks: tuple[Sparkline, ...]


class RolloutStep(Model):
    SCHEMAS = ("StepOut",)

    step: int
    attempt: int
    size: int
    modified_at: datetime
    samples: int | None
    mean_score: float | None


class Sample(Model):
    """A prompt and its answer."""

    SCHEMAS = ("SampleOut",)

    index: int
    prompt: str | None
    answer: str | None
    ground_truth: Any
    score: float | None
    extra: Mapping[str, Any]
    truncated: bool


class Rollouts(Model):
    SCHEMAS = ("RolloutsOut",)

    task_id: str
    kind: str
    steps: tuple[RolloutStep, ...]
    samples: tuple[Sample, ...]
    next_cursor: str | None
    complete: bool


class FileEntry(Model):
    """`path` is percent-encoded, as `files` and `download` take it; `kind`: file, folder, link or other."""

    SCHEMAS = ("EntryOut",)

    name: str
    path: str
    kind: str
    size: int | None
    modified_at: datetime


class FilePage(Model):
    SCHEMAS = ("FilesOut",)

    task_id: str
    attempt: int | None
    entries: tuple[FileEntry, ...]
    next_cursor: str | None
    complete: bool


class Gap(Model):
    """Bytes of a log that are gone."""

    SCHEMAS = ("GapOut",)

    from_: int
    to: int


class Match(Model):
    """A place in a log, in bytes: where it is, where its line begins, and `start` to `end` of the text around it."""

    SCHEMAS = ("MatchOut",)

    offset: int
    length: int
    line_start: int | None
    text: str
    start: int
    end: int
    truncated: bool


class Matches(Model):
    """`next`: where to go on if that was not all."""

    SCHEMAS = ("SearchOut",)

    task_id: str
    attempt: int | None
    matches: tuple[Match, ...]
    complete: bool
    next: int | None
    size: int
    gap: Gap | None


class LogPart(NamedTuple):
    """The bytes `start` to `end` of a log that has `size`; `gap`: bytes that are gone and were passed over."""

    content: bytes
    start: int
    end: int
    size: int
    gap: tuple[int, int] | None


class Line(NamedTuple):
    """A line of a log, without its end.

    `offset`: where it begins, in bytes of all that the attempt has logged; where the log has CR LF or is no UTF-8 it
    may be some bytes off. `ends`: False if the log has no line end here; a line of more than 64 KiB comes in parts.
    """

    attempt: int
    offset: int
    text: str
    ends: bool = True


class LogAttempt(NamedTuple):
    """The log of this attempt follows."""

    submission_id: str
    number: int


class LogGap(NamedTuple):
    """The bytes `start` to `end` of an attempt's log are left out, and cannot be had."""

    attempt: int
    start: int
    end: int


class LogEnd(NamedTuple):
    """Nothing follows. `attempt` is None for a task that never began."""

    task_state: str
    attempt: int | None
    outcome: str | None


class Change(NamedTuple):
    """An event of the stream of changes; docs/api.md tells what `data` has for each `event`. `id`: its place."""

    event: str
    data: Mapping[str, Any]
    id: str


class LogText(NamedTuple):
    """The end of a log as text. `position`: a place to follow it from; `attempt` is None before there is one."""

    text: str
    task_state: str
    attempt: int | None
    position: str | None
