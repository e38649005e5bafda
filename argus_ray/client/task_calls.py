"""The calls about tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from argus_ray.client import paths
from argus_ray.client.calls import JSON_BODY, Answer, Call, Encoded, as_json, moment
from argus_ray.client.errors import BadAnswer
from argus_ray.client.models import tasks as models
from argus_ray.client.models.base import Model
from argus_ray.client.models.results import (
    Curves,
    FilePage,
    LogPart,
    LogText,
    ManyCurves,
    Matches,
    Rollouts,
    Sparklines,
)

M = TypeVar("M", bound=Model)
_YAML = {"Content-Type": "application/yaml"}
EVENTS = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
#: Bytes of the file, so that places in it are what they say.
_PLAIN = {"Accept-Encoding": "identity"}
Names = str | Iterable[str] | None
When = datetime | timedelta | str | None


def of(model: type[M]) -> Callable[[Answer], M]:
    def decode(answer: Answer) -> M:
        made: M = model.of(answer.json())
        return made

    return decode


def accepted(model: type[M]) -> Callable[[Answer], tuple[M, bool]]:
    """With whether it was accepted before, by the same key."""

    def decode(answer: Answer) -> tuple[M, bool]:
        return model.of(answer.json()), answer.headers.get("idempotency-replayed") == "true"

    return decode


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def submit(spec: str | bytes, key: str, presets: Names = None) -> Call[tuple[models.Submitted, bool]]:
    return Call(
        *("POST", paths.TASKS, accepted(models.Submitted)),
        query=(("preset", presets),),
        headers=_YAML | _key(key),
        content=spec.encode() if isinstance(spec, str) else spec,
    )


def validate(spec: str | bytes, presets: Names = None) -> Call[models.Validation]:
    content = spec.encode() if isinstance(spec, str) else spec
    query = (("preset", presets),)
    return Call("POST", paths.VALIDATE, of(models.Validation), query=query, headers=_YAML, content=content)


def resubmit(task_id: str, key: str, *, resume: bool = False) -> Call[tuple[models.Resubmitted, bool]]:
    return Call(
        *("POST", paths.RESUBMIT, accepted(models.Resubmitted), {"task_id": task_id}),
        headers=JSON_BODY | _key(key),
        content=as_json(resume=resume),
    )


def export(
    task_id: str, key: str, *, step: int | None = None, part: str | None = None
) -> Call[tuple[models.Exported, bool]]:
    return Call(
        *("POST", paths.EXPORT, accepted(models.Exported), {"task_id": task_id}),
        headers=JSON_BODY | _key(key),
        content=as_json(step=step, part=part),
    )


def cancel(task_id: str) -> Call[models.Task]:
    return Call("POST", paths.CANCEL, of(models.Task), {"task_id": task_id})


def task(task_id: str) -> Call[models.Task]:
    return Call("GET", paths.TASK, of(models.Task), {"task_id": task_id})


def spec(task_id: str) -> Call[str]:
    return Call("GET", paths.SPEC, Answer.text, {"task_id": task_id})


class Filter(NamedTuple):
    """Which tasks. `since` and `until`: a time, how long ago, or either as the API writes it (`2h`)."""

    state: Names = None
    workload: Names = None
    since: When = None
    until: When = None
    user_id: str | None = None
    id_prefix: str | None = None
    id_suffix: str | None = None
    ids: Names = None


def tasks(which: Filter, *, limit: int | None = None, cursor: str | None = None) -> Call[models.TaskPage]:
    query = (*which._asdict().items(), ("limit", limit), ("cursor", cursor))
    return Call("GET", paths.TASKS, of(models.TaskPage), query=query)


def counts(which: Filter) -> Call[models.Counts]:
    return Call("GET", paths.COUNTS, of(models.Counts), query=tuple(which._asdict().items()))


def cancel_many(ids: Sequence[str] | None, which: Filter | None, *, dry_run: bool) -> Call[models.ManyCanceled]:
    """Of these ids, or of those that the filter finds."""
    wanted: dict[str, Any] | None = None
    if which is not None:
        lists = {name: _list(value) for name, value in (("state", which.state), ("workload", which.workload))}
        times = {"since": moment(which.since), "until": moment(which.until)}
        wanted = {name: value for name, value in (lists | times | {"user_id": which.user_id}).items() if value}
    content = as_json(ids=None if ids is None else list(ids), filter=wanted, dry_run=dry_run)
    return Call("POST", paths.CANCEL_MANY, of(models.ManyCanceled), headers=JSON_BODY, content=content)


def _list(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def queue(*, everyone: bool = False) -> Call[models.Queue]:
    return Call("GET", paths.WHOLE_QUEUE if everyone else paths.QUEUE, of(models.Queue))


def queue_counts() -> Call[models.QueueCounts]:
    return Call("GET", paths.QUEUE_COUNTS, of(models.QueueCounts))


def explain(task_id: str) -> Call[models.Explanation]:
    return Call("GET", paths.EXPLAIN, of(models.Explanation), {"task_id": task_id})


def events(task_id: str, *, limit: int | None = None, cursor: str | None = None) -> Call[models.EventPage]:
    query = (("limit", limit), ("cursor", cursor))
    return Call("GET", paths.EVENTS, of(models.EventPage), {"task_id": task_id}, query)


def curves(
    task_id: str, *, names: Names = None, max_points: int | None = None, since_step: int | None = None
) -> Call[Curves]:
    query = (("names", names), ("max_points", max_points), ("since_step", since_step))
    return Call("GET", paths.CURVES, of(Curves), {"task_id": task_id}, query)


def many_curves(
    task_ids: Names, *, names: Names = None, max_points: int | None = None, since_step: int | None = None
) -> Call[ManyCurves]:
    query = (("task", task_ids), ("names", names), ("max_points", max_points), ("since_step", since_step))
    return Call("GET", paths.MANY_CURVES, of(ManyCurves), query=query)


def sparklines(task_ids: Names, *, max_points: int | None = None) -> Call[Sparklines]:
    query = (("task", task_ids), ("max_points", max_points))
    return Call("GET", paths.SPARKLINES, of(Sparklines), query=query)


def estimates() -> Call[models.Estimates]:
    return Call("GET", paths.ESTIMATES, of(models.Estimates))


def stream(
    *,
    progress: Names = None,
    log: str | None = None,
    log_tail: int | None = None,
    user_id: str | None = None,
    everyone: bool | None = None,
    after: str | None = None,
) -> Call[Answer]:
    headers = EVENTS if after is None else EVENTS | {"Last-Event-ID": after}
    logs = (("log", log), ("log_tail", log_tail))
    query = (("progress", progress), *logs, ("user_id", user_id), ("everyone", everyone))
    return Call("GET", paths.STREAM, lambda a: a, query=query, headers=headers)


def rollouts(
    task_id: str,
    *,
    step: int | None = None,
    kind: str | None = None,
    attempt: int | str | None = None,
    max_chars: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Rollouts]:
    query = (("step", step), ("kind", kind), ("attempt", attempt), ("max_chars", max_chars))
    page = (("limit", limit), ("cursor", cursor))
    return Call("GET", paths.ROLLOUTS, of(Rollouts), {"task_id": task_id}, (*query, *page))


def files(
    task_id: str,
    path: str = "",
    *,
    attempt: int | str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[FilePage]:
    query = (("path", Encoded(path) if path else None), ("attempt", attempt), ("limit", limit), ("cursor", cursor))
    return Call("GET", paths.FILES, of(FilePage), {"task_id": task_id}, query)


def download(task_id: str, path: str, *, attempt: int | str | None = None) -> Call[Answer]:
    parts = {"task_id": task_id, "path": Encoded(path)}
    return Call("GET", paths.FILE, lambda a: a, parts, (("attempt", attempt),), _PLAIN)


def download_log(task_id: str, *, attempt: int | str | None = None) -> Call[Answer]:
    query = (("attempt", attempt),)
    return Call("GET", paths.LOG_DOWNLOAD, lambda a: a, {"task_id": task_id}, query, _PLAIN)


def log_range(task_id: str, start: int, end: int | None = None, *, attempt: int | str | None = None) -> Call[LogPart]:
    """`end`: the place behind the last byte. A negative `start`: so many bytes from the end."""
    wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{'' if end is None else end - 1}"
    headers = _PLAIN | {"Range": wanted}
    return Call("GET", paths.LOGS, _log_part, {"task_id": task_id}, (("attempt", attempt),), headers)


def _log_part(answer: Answer) -> LogPart:
    told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", ""))
    if told is None:
        raise BadAnswer("the answer does not tell which part of the log it is", answer.status)
    gap = re.fullmatch(r"(\d+)-(\d+)", answer.headers.get("x-argus-log-gap", ""))
    passed_over = None if gap is None else (int(gap[1]), int(gap[2]))
    return LogPart(answer.content, int(told[1]), int(told[2]) + 1, int(told[3]), passed_over)


def log_search(
    task_id: str,
    text: str,
    *,
    regex: bool | None = None,
    case: bool | None = None,
    direction: str | None = None,
    start: int | None = None,
    limit: int | None = None,
    attempt: int | str | None = None,
) -> Call[Matches]:
    how = (("q", text), ("regex", regex), ("case", case), ("direction", direction))
    where = (("from", start), ("limit", limit), ("attempt", attempt))
    return Call("GET", paths.LOG_SEARCH, of(Matches), {"task_id": task_id}, (*how, *where))


def log(task_id: str, *, tail: int | None = None, attempt: int | str | None = None) -> Call[LogText]:
    query = (("tail", tail), ("attempt", attempt))
    return Call("GET", paths.LOGS, _log_text, {"task_id": task_id}, query)


def _log_text(answer: Answer) -> LogText:
    number = answer.headers.get("x-argus-attempt", "")
    state = answer.headers.get("x-argus-task-state", "")
    position = answer.headers.get("x-argus-log-position")
    return LogText(answer.text(), state, int(number) if number.isdecimal() else None, position)


def log_stream(
    task_id: str, *, tail: int | None = None, attempt: int | str | None = None, after: str | None = None
) -> Call[Answer]:
    """`after`: the id of the last event that was seen."""
    headers = EVENTS if after is None else EVENTS | {"Last-Event-ID": after}
    query = (("tail", tail), ("attempt", attempt))
    return Call("GET", paths.LOG_STREAM, lambda a: a, {"task_id": task_id}, query, headers)
