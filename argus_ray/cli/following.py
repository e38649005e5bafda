"""Looking again and again: at tasks until they end, or at a view that is drawn over. Ctrl-C leaves the tasks alone."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from argus_ray.cli import draw, ids, safe, task_words, when
from argus_ray.cli.exits import NOT_FOUND, TIMEOUT, CliError, Detached, of_states
from argus_ray.cli.looks import beats
from argus_ray.client import paths

if TYPE_CHECKING:
    from argus_ray.cli.session import Session

Document = dict[str, Any]
#: Seconds between two looks of `watch`, and the least and the most of `wait`.
_WATCH_S = 2.0
_FIRST_S, _MOST_S = 0.5, 5.0
#: Between two reads of the curves that the small pictures are drawn from.
_CURVES_S = 6.0
#: Of one call.
_IDS = 100


def look(session: Session, task_ids: Sequence[str], until: float | None = None) -> dict[str, Document]:
    """Each task by its id, in this order, through a restart of the service, but no longer than `until`. Raises CliError
    if one is not there, and at `until`."""
    from argus_ray.client.errors import ServerUnreachable, TryLater

    try:
        return _look(session, task_ids, until)
    except (ServerUnreachable, TryLater) as error:
        if until is None or time.monotonic() < until:
            raise
        words = f"the service was away when the time was over: {error.detail}"
        raise CliError(words, TIMEOUT, code="timeout") from None


def _look(session: Session, task_ids: Sequence[str], until: float | None) -> dict[str, Document]:
    def left_s() -> float | None:
        return None if until is None else max(0.0, until - time.monotonic())

    server = session.server
    if len(task_ids) == 1:
        task_id = task_ids[0]
        return {task_id: server.get_within(left_s(), paths.TASK, {"task_id": task_id})}
    found: dict[str, Document] = {}
    for first in range(0, len(task_ids), _IDS):
        part = list(task_ids[first : first + _IDS])
        page = server.get_within(left_s(), paths.TASKS, None, ids=part, limit=_IDS)
        found.update({each["task_id"]: each for each in page["tasks"]})
    missing = [task_id for task_id in task_ids if task_id not in found]
    if missing:
        raise CliError("no such task, or not yours", NOT_FOUND, code="task_not_found", candidates=missing[:10])
    return {task_id: found[task_id] for task_id in task_ids}


@contextlib.contextmanager
def detachable(task_ids: Sequence[str], again: str) -> Iterator[None]:
    """Ctrl-C within says that the tasks go on. `again`: the command that goes on where this one was."""
    try:
        yield
    except KeyboardInterrupt:
        name = ids.short(task_ids[0]) if len(task_ids) == 1 else "ID..."
        goes_on = "the task goes on" if len(task_ids) == 1 else "the tasks go on"
        raise Detached(f"detached; {goes_on}: argus {again} {name}, argus cancel {name}") from None


def wait(session: Session, task_ids: Sequence[str], *, any_of_them: bool, timeout_s: float | None) -> int:
    """Until all have ended, or one of them. The exit code. Prints each as it ends."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    ended: dict[str, Document] = {}
    pause_s = _FIRST_S
    with detachable(task_ids, "wait"):
        while True:
            left = [task_id for task_id in task_ids if task_id not in ended]
            for task_id, task in look(session, left, until).items():
                if task_words.has_ended(task):
                    ended[task_id] = task
                    _tell_end(session, task)
            if len(ended) == len(task_ids) or (any_of_them and ended):
                return of_states([task["state"] for task in ended.values()])
            wait_s = pause_s * (0.75 + random.random() / 2)  # noqa: S311 - to spread calls
            if until is not None:
                if (rest := until - time.monotonic()) <= 0:
                    raise _timeout(len(task_ids) - len(ended), timeout_s)
                wait_s = min(wait_s, rest)
            time.sleep(wait_s)
            pause_s = min(_MOST_S, pause_s * 1.5)


def _timeout(count: int, timeout_s: float | None) -> CliError:
    tasks = "the task has" if count == 1 else f"{count} tasks have"
    goes_on = "it goes on" if count == 1 else "they go on"
    return CliError(f"{tasks} not ended in {when.span(timeout_s or 0)}; {goes_on}", TIMEOUT, code="timeout")


def _tell_end(session: Session, task: Document) -> None:
    out = session.out
    if out.flags.json:
        out.event(task)
    elif out.flags.quiet:
        out.line(task["task_id"])
    else:
        out.line(task_words.ended_line(task))
        _tell_why(session, task)


def _tell_why(session: Session, task: Document) -> None:
    from argus_ray.client.errors import ArgusError

    if task["state"] == "FAILED" and session.out.tells:
        # Words alone: that it FAILED is known, and is the exit code whether or not they can be had.
        with contextlib.suppress(ArgusError):
            if "attempts" not in task:
                task = session.server.get(paths.TASK, {"task_id": task["task_id"]})
            for line in task_words.failure_lines(task):
                session.out.note(f"  {line}")
        session.out.note(f"  argus logs {ids.short(task['task_id'])}")


def watch(session: Session, task_ids: Sequence[str], *, timeout_s: float | None) -> int:
    """Their progress until all have ended. The exit code."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    with detachable(task_ids, "watch"):
        found = _drawn(session, task_ids, until) if session.out.redraws else _told(session, task_ids, until)
    running = [task for task in found.values() if not task_words.has_ended(task)]
    for task in found.values():
        if task_words.has_ended(task) and session.out.redraws:
            _tell_why(session, task)
    if running:
        raise _timeout(len(running), timeout_s)
    return of_states([task["state"] for task in found.values()])


def _drawn(session: Session, task_ids: Sequence[str], until: float | None) -> dict[str, Document]:
    import sys

    found: dict[str, Document] = {}
    pictures = Pictures(session)
    as_of = ""
    with draw.frame(sys.stdout) as frame:
        if not session.out.flags.quiet:
            words = session.out.paint
            session.server.on_retry = lambda why: frame.draw_with(words(f"reconnecting{as_of}", "yellow"))
        for _ in beats(_WATCH_S, until):
            left = [task_id for task_id in task_ids if task_id not in found or not task_words.has_ended(found[task_id])]
            found.update(look(session, left, until))
            as_of = f", as of {when.clock(session.out.now(), utc=session.out.flags.utc)}"
            ordered = [found[task_id] for task_id in task_ids]
            lines = pictures.of(ordered)
            frame.draw([line for task in ordered for line in _picture(session, task, lines.get(task["task_id"], ""))])
            if all(map(task_words.has_ended, ordered)):
                break
    return {task_id: found[task_id] for task_id in task_ids}


def _picture(session: Session, task: Mapping[str, Any], line: str) -> list[str]:
    """A task in some lines."""
    out = session.out
    word = task_words.state(task)
    age = when.short_span(out.now() - when.unix(task["created_at"]))
    first = f"{out.paint(ids.short(task['task_id']), 'bold')}  {safe.cell(task['workload'])}  {out.state(word)}"
    shown = [f"{first}  {task_words.gpus(task)}  {age}"]
    if task["state"] in task_words.WAITING:
        place = f"position {task['position']}: " if task["position"] else ""
        shown.append(f"  {place}{task_words.reason(task)}")
        if (start := task_words.start_sentence(task.get("start"), out.now())) is not None:
            shown.append(f"  {start}")
    progress = task["progress"]
    if progress is not None:
        parts = [task_words.steps(task), task_words.pace(task)]
        if progress["seconds_left"] is not None and not task_words.has_ended(task):
            parts.append(f"{when.span(progress['seconds_left'])} left")
        bar = f"{draw.bar(progress['step'], progress['total_steps'])}  " if progress["total_steps"] else ""
        shown.append(f"  {bar}{'  '.join(part for part in parts if part)}")
        if (headline := progress["headline"]) is not None:
            shown.append(f"  {safe.cell(headline['name'])} {draw.number(headline['value'])}  {line}".rstrip())
    return shown


def _told(session: Session, task_ids: Sequence[str], until: float | None) -> dict[str, Document]:
    """For a pipe: a line for each change of a state or a step."""
    found: dict[str, Document] = {}
    shown: dict[str, Any] = {}
    for _ in beats(_WATCH_S, until):
        left = [task_id for task_id in task_ids if task_id not in found or not task_words.has_ended(found[task_id])]
        for task_id, task in look(session, left, until).items():
            found[task_id] = task
            progress = task["progress"] or {}
            now = (task["state"], task["position"], progress.get("step"), task["stalled_since"])
            if shown.get(task_id) == now:
                continue
            shown[task_id] = now
            if session.out.flags.json:
                session.out.event(task)
            elif not session.out.flags.quiet:
                session.out.line(plain_line(task))
            if task_words.has_ended(task):
                if session.out.flags.quiet:
                    session.out.line(task_id)
                _tell_why(session, task)
        if all(map(task_words.has_ended, found.values())):
            break
    return found


def plain_line(task: Mapping[str, Any]) -> str:
    """A task at this moment, for a program that reads lines."""
    parts = [task["updated_at"], task["task_id"], task["state"]]
    if task["state"] in task_words.WAITING:
        parts.append(f"position={task['position']}")
        if (start := task.get("start")) and start.get("earliest"):
            parts.append(f"start={start['earliest']}/{start['latest']}")
        parts.append(task_words.reason(task))
    progress = task["progress"]
    if progress is not None:
        parts.append(f"step={task_words.steps(task)}")
        if progress["seconds_left"] is not None:
            parts.append(f"left={progress['seconds_left']:.0f}s")
        if progress["headline"] is not None:
            parts.append(f"{progress['headline']['name']}={progress['headline']['value']:g}")
    return safe.line(" ".join(map(str, parts)))


class Pictures:
    """The small curves of tasks, read again each few seconds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._read_at = -_CURVES_S
        self._lines: dict[str, str] = {}

    def of(self, tasks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        listed = list(tasks)
        has_ended = any(map(task_words.has_ended, listed))
        if has_ended or time.monotonic() - self._read_at >= _CURVES_S:
            self._lines.update(sparklines(self._session, listed, ended=True))
            self._read_at = time.monotonic()
        return self._lines


def sparklines(
    session: Session, tasks: Iterable[Mapping[str, Any]], *, ended: bool = False, columns: int = 20
) -> dict[str, str]:
    """The curve of each task's headline as a line of blocks, of the first hundred that run (`ended`: or have run).
    Nothing where the server cannot tell now: it is an ornament."""
    from argus_ray.client.errors import ArgusError

    wanted = [
        task["task_id"]
        for task in tasks
        if task["progress"] and task["progress"]["headline"] and (ended or not task_words.has_ended(task))
    ]
    if not wanted:
        return {}
    try:
        found = session.server.get(paths.SPARKLINES, task=wanted[:_IDS], max_points=40)["tasks"]
    except ArgusError:
        return {}
    return {each["task_id"]: draw.sparkline(each["values"], columns) for each in found if each["values"]}
