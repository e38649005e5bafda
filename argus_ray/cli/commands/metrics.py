"""metrics."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from argus_ray.cli import draw, following, ids, looks, safe, task_words
from argus_ray.cli.app import Command
from argus_ray.cli.exits import Ended, of_problem, of_states
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths

#: Columns that a small picture needs.
_LEAST_CURVE = 6
_WATCH_S = 2.0
_TASKS = 8
#: Reads of one command, should a run have logged far more than one read takes.
_READS = 200
#: Seconds for which a canceled task is followed while what runs for it has not ended: as long as `logs -f` does it.
_STOPS_S = 90.0

Row = tuple[str, str, int, int, float]


@click.command(cls=Command)
@click.argument("typed", metavar="ID...", nargs=-1, required=True)
@click.option("--names", metavar="A,B", multiple=True, help="These curves; without it the main ones.")
@click.option("--plot", is_flag=True, help="Draw them.")
@click.option("--csv", "as_csv", is_flag=True, help="One point a line: task_id,name,step,attempt,value.")
@click.option("--since-step", type=click.IntRange(0), metavar="N", help="From this step on.")
@click.option(
    "--max-points",
    type=click.IntRange(2, 2048),
    help="Points of a curve; the least and the most of each part are kept.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on with the points that come, until the tasks, and what runs for them, have ended.",
)
@pass_session
def metrics(
    session: Session,
    typed: tuple[str, ...],
    names: tuple[str, ...],
    plot: bool,
    as_csv: bool,
    since_step: int | None,
    max_points: int | None,
    follow: bool,
) -> None:
    """Show the curves of tasks.

    Up to eight tasks, side by side. Without --plot or --csv: each curve in a line.
    """
    if plot and (as_csv or follow or session.out.flags.json):
        raise click.UsageError("--plot stands alone: without --csv, --json and -f.")
    task_ids = ids.many(session, typed)
    if len(task_ids) > _TASKS:
        raise click.UsageError(f"at most {_TASKS} tasks at a time.")
    query = {"names": list(names) or None, "max_points": max_points, "since_step": since_step}
    if follow:
        with following.detachable(task_ids, "metrics -f"):
            raise Ended(_follow(session, task_ids, query, as_csv=as_csv))
    found = _read(session, task_ids, query)
    listed = _each(session, found)
    if session.out.flags.json:
        session.out.document(found)
    elif as_csv:
        _write_csv(_rows(listed), header=True)
    elif plot:
        _plot(session, listed)
    else:
        _table(session, listed)
    # What is there was shown; that a part of it is missing is no success.
    for problem in _problems(found):
        raise Ended(of_problem(problem["code"], problem["status"]))


def _problems(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each["problem"] for each in found.get("tasks", ()) if each["problem"] is not None]


def _read(session: Session, task_ids: list[str], query: Mapping[str, Any]) -> dict[str, Any]:
    """The API's document of one task, or of several; as often as it takes to read all."""
    for _ in range(_READS):
        if len(task_ids) == 1:
            found = session.server.get(paths.CURVES, {"task_id": task_ids[0]}, **query)
            parts = [found]
        else:
            found = session.server.get(paths.MANY_CURVES, task=task_ids, **query)
            parts = [each["metrics"] for each in found["tasks"] if each["metrics"] is not None]
        if all(each["complete"] for each in parts):
            break
    return found


def _each(session: Session, found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "tasks" not in found:
        return [found]
    listed = []
    for each in found["tasks"]:
        if each["metrics"] is not None:
            listed.append(each["metrics"])
        elif each["problem"] is not None:
            session.out.warn(f"{ids.short(each['task_id'])}: {safe.cell(each['problem']['detail'])}")
    return listed


def _rows(listed: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        (found["task_id"], name, step, attempt, value)
        for found in listed
        for name, curve in found["curves"].items()
        for step, value, attempt in zip(curve["steps"], curve["values"], curve["attempt"], strict=True)
    ]


def _write_csv(rows: Iterable[Row], *, header: bool) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if header:
        writer.writerow(["task_id", "name", "step", "attempt", "value"])
    for task_id, name, step, attempt, value in rows:
        writer.writerow([task_id, safe.cell(name), step, attempt, repr(value)])
    sys.stdout.flush()


def _table(session: Session, listed: list[Mapping[str, Any]]) -> None:
    out = session.out
    several = len(listed) > 1
    ends = ids.shorts([found["task_id"] for found in listed])
    rows: list[list[str]] = []
    curves = []
    for found in listed:
        for name, curve in found["curves"].items():
            values = curve["values"]
            if not values:
                continue
            shown = [name, str(curve["steps"][-1]), *map(draw.number, (values[-1], min(values), max(values)))]
            rows.append([*([ends[found["task_id"]]] if several else []), *shown])
            curves.append(values)
    first = [Column("ID")] if several else []
    columns = [*first, Column("NAME"), *(Column(name, right=True) for name in ("STEP", "LAST", "MIN", "MAX"))]
    if rows and not out.flags.quiet:
        wide = out.room(columns, rows, 30)
        if wide >= _LEAST_CURVE:
            columns.append(Column("CURVE"))
            rows = [[*row, draw.sparkline(values, wide)] for row, values in zip(rows, curves, strict=True)]
        out.table(columns, rows)
    for found in listed:
        if not found["curves"]:
            out.note(f"{ends[found['task_id']]} has no curves yet")
        elif found["available"]:
            out.note(f"{len(found['available'])} more by --names: {safe.cell(', '.join(found['available'][:6]))}, ...")


def _plot(session: Session, listed: list[Mapping[str, Any]]) -> None:
    from argus_ray.cli import plot

    ends = ids.shorts([found["task_id"] for found in listed])
    names = list(dict.fromkeys(name for found in listed for name in found["curves"]))
    for name in names:
        lines = [
            (ends[found["task_id"]], found["curves"][name]["steps"], found["curves"][name]["values"])
            for found in listed
            if found["curves"].get(name, {}).get("steps")
        ]
        if lines:
            for line in plot.chart(safe.cell(name), lines, colour=session.out.has_colour):
                session.out.line(line)
    if not names:
        session.out.note("no curves yet")


def _follow(session: Session, task_ids: list[str], query: Mapping[str, Any], *, as_csv: bool) -> int:
    from argus_ray.client.caller import FOLLOW_S

    out = session.out
    #: By task and curve, the last point: a further attempt makes steps again, which count as later ones.
    shown: dict[tuple[str, str], tuple[int, int]] = {}
    #: By task: its newest step, and of how many attempts.
    read: dict[str, tuple[int, int]] = {}
    if as_csv and not out.flags.json:
        _write_csv([], header=True)
    ended: dict[str, str] = {}
    #: When a task was first seen to be canceled; seconds.
    canceled: dict[str, float] = {}
    with session.server.tried_for(FOLLOW_S):
        for at in looks.beats(_WATCH_S):
            left = [task_id for task_id in task_ids if task_id not in ended]
            # First the states: what was logged before the end is then read after it.
            now = following.look(session, left)
            for task_id in left:
                is_over = _is_over(session, now[task_id], at, canceled)
                before = read.get(task_id)
                found = _read(session, [task_id], query if before is None else {**query, "since_step": before[0]})
                now_read = found["last_step"] or 0, len(found["attempts"])
                if before is not None and (now_read[0] < before[0] or now_read[1] != before[1]):
                    # It went back to a checkpoint: steps before the newest one are new.
                    found = _read(session, [task_id], query)
                read[task_id] = now_read
                rows = sorted(_rows([found]), key=_mark)
                rows = [row for row in rows if _mark(row) > shown.get((task_id, row[1]), (0, -1))]
                shown |= {(task_id, row[1]): _mark(row) for row in rows}
                _show_new(session, found, rows, as_csv=as_csv)
                if is_over:
                    ended[task_id] = now[task_id]["state"]
            if len(ended) == len(task_ids):
                break
    return of_states(list(ended.values()))


def _is_over(session: Session, task: Mapping[str, Any], at: float, canceled: dict[str, float]) -> bool:
    """It has ended, and so has what runs for it: a canceled one has a grace to end in, and may log until then."""
    if task["state"] != "CANCELED":
        return task_words.has_ended(task)
    if at - canceled.setdefault(task["task_id"], at) >= _STOPS_S:
        return True
    if "attempts" not in task:
        task = session.server.get(paths.TASK, {"task_id": task["task_id"]})
    return all(attempt["state"] == "ENDED" for attempt in task["attempts"])


def _mark(row: Row) -> tuple[int, int]:
    """Attempt and step."""
    return row[3], row[2]


def _show_new(session: Session, found: Mapping[str, Any], rows: list[Row], *, as_csv: bool) -> None:
    if not rows:
        return
    if session.out.flags.json:
        session.out.event(found)
    elif as_csv:
        _write_csv(rows, header=False)
    else:
        for task_id, name, step, _, value in rows:
            session.out.line(safe.cell(f"{ids.short(task_id)} {step} {name} {draw.number(value)}"))
