"""tasks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import complete, following, ids, looks, safe, task_words, when
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths

_WATCH_S = 2.0
#: Columns of the picture of a curve: the most, and what it needs.
_PICTURE, _LEAST_PICTURE = 20, 6
#: name -> column
COLUMNS = {
    "id": Column("ID"),
    "user": Column("USER"),
    "kind": Column("KIND"),
    "state": Column("STATE"),
    "gpus": Column("GPUS"),
    "age": Column("AGE"),
    "created": Column("CREATED"),
    "started": Column("STARTED"),
    "ended": Column("ENDED"),
    "step": Column("STEP"),
    "left": Column("LEFT"),
    "score": Column("SCORE"),
    "reason": Column("REASON", gives_way=True),
}
_USUAL = ("id", "kind", "state", "gpus", "age", "step", "left", "score")


def _columns(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'none'}: there are {', '.join(COLUMNS)}")
    return names


def states(value: tuple[str, ...]) -> list[str]:
    """Of `--state`: names of states and of groups of them, with commas or repeated. Raises BadParameter."""
    found: list[str] = []
    for word in itertools.chain.from_iterable(each.split(",") for each in value):
        if word.strip().lower() in complete.GROUPS:
            found += complete.GROUPS[word.strip().lower()]
        elif word.strip().upper() in complete.STATES:
            found.append(word.strip().upper())
        else:
            known = ", ".join((*complete.STATES, *complete.GROUPS))
            raise click.BadParameter(f"{word!r} is no state: {known}", param_hint="--state")
    return list(dict.fromkeys(found))


def point(text: str | None, option: str) -> str | None:
    """A time for the API. Raises BadParameter."""
    if text is None:
        return None
    try:
        return when.point(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def workload_list(value: tuple[str, ...]) -> list[str]:
    """Raises BadParameter."""
    words = [word.strip().lower() for each in value for word in each.split(",") if word.strip()]
    for word in words:
        if word not in complete.WORKLOADS:
            raise click.BadParameter(f"{word!r}: there are {', '.join(complete.WORKLOADS)}", param_hint="--workload")
    return words


@click.command(cls=Command)
@click.option(
    "--state",
    "state",
    metavar="S,..",
    multiple=True,
    shell_complete=complete.states,
    help="States, or waiting, starting, active, ended.",
)
@click.option("--since", metavar="2h", help="Submitted since: 2h ago, a day, or a time.")
@click.option("--until", metavar="T", help="Submitted before.")
@click.option(
    "--workload", metavar="W", multiple=True, shell_complete=complete.workloads, help="sft, grpo, ppo or export."
)
@click.option("--user", metavar="U", help="Of this user (admin).")
@click.option("-n", "number", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="All of them, page by page.")
@click.option("--columns", metavar="C,..", callback=_columns, help=f"Of {', '.join(COLUMNS)}.")
@click.option("--no-headers", is_flag=True, help="Without the first line.")
@click.option("--watch", is_flag=True, help="Look again each two seconds.")
@pass_session
def tasks(
    session: Session,
    state: tuple[str, ...],
    since: str | None,
    until: str | None,
    workload: tuple[str, ...],
    user: str | None,
    number: int,
    everything: bool,
    columns: tuple[str, ...] | None,
    no_headers: bool,
    watch: bool,
) -> None:
    """List tasks, the newest first.

    An admin's list has everybody's tasks. The last line, on stderr, counts what there is of the same filters.
    """
    filters: dict[str, Any] = {
        "state": states(state) or None,
        "since": point(since, "--since"),
        "until": point(until, "--until"),
        "workload": workload_list(workload) or None,
        "user_id": user,
    }
    limit = None if everything else number
    if watch:
        if session.out.redraws:
            looks.redraw(session, lambda: _lines(session, filters, limit, columns, no_headers), _WATCH_S)
        _watch_plainly(session, filters, limit)
    elif session.out.flags.json:
        from argus_ray.cli.server import PAGE

        # One page is printed to be read; several are one document a line.
        show = session.out.event if everything or number > PAGE else session.out.document
        for page in session.server.pages(paths.TASKS, "tasks", limit, None, **filters):
            show(page)
    elif session.out.flags.quiet:
        for task in _found(session, filters, limit):
            session.out.line(task["task_id"])
    else:
        listed, summary = _listed(session, filters, limit, columns, no_headers)
        for line in listed:
            session.out.line(line)
        session.out.note(summary)


def _found(session: Session, filters: Mapping[str, Any], limit: int | None) -> Any:
    for page in session.server.pages(paths.TASKS, "tasks", limit, None, **filters):
        yield from page["tasks"]


def _watch_plainly(session: Session, filters: Mapping[str, Any], limit: int | None) -> None:
    """A line, or a document, for each task that has changed."""
    seen: dict[str, Any] = {}
    for found in looks.looks(session, lambda: list(_found(session, filters, limit)), _WATCH_S, looks.noted(session)):
        for task in found:
            if seen.get(task["task_id"]) == task:
                continue
            seen[task["task_id"]] = task
            if session.out.flags.json:
                session.out.event(task)
            else:
                session.out.line(following.plain_line(task))


def _lines(
    session: Session, filters: Mapping[str, Any], limit: int | None, columns: tuple[str, ...] | None, no_headers: bool
) -> list[str]:
    listed, summary = _listed(session, filters, limit, columns, no_headers)
    return [*listed, "", session.out.paint(summary, "dim")]


def _listed(
    session: Session, filters: Mapping[str, Any], limit: int | None, columns: tuple[str, ...] | None, no_headers: bool
) -> tuple[list[str], str]:
    found = list(_found(session, filters, limit))
    return task_table(session, found, columns, headers=not no_headers), _summary(_counts(session, filters), len(found))


def _counts(session: Session, filters: Mapping[str, Any]) -> Mapping[str, int] | None:
    """None where an older server does not count."""
    from argus_ray.client.errors import NotFound

    try:
        counts: Mapping[str, int] = session.server.get(paths.COUNTS, **filters)["counts"]
    except NotFound:
        return None
    return counts


def _summary(counts: Mapping[str, int] | None, shown: int) -> str:
    if counts is None:
        return f"{shown} shown"
    groups = {
        "running": ("RUNNING",),
        "starting": complete.GROUPS["starting"],
        "waiting": complete.GROUPS["waiting"],
        "ended": complete.GROUPS["ended"],
    }
    sums = {name: sum(counts.get(state, 0) for state in members) for name, members in groups.items()}
    total = sum(sums.values())
    words = ", ".join(f"{count} {name}" for name, count in sums.items() if count) or "no tasks"
    return words if shown >= total else f"{words}; {shown} shown"


def task_table(
    session: Session, found: list[Any], columns: tuple[str, ...] | None = None, *, headers: bool = True
) -> list[str]:
    out = session.out
    is_others = len({task["user_id"] for task in found}) > 1
    names = columns or (("id", "user", *_USUAL[1:]) if is_others else _USUAL)
    ends = ids.shorts([task["task_id"] for task in found])

    def cell(name: str, task: Mapping[str, Any]) -> str:
        match name:
            case "id":
                return ends[task["task_id"]] if out.is_tty else str(task["task_id"])
            case "user":
                return str(task["user_id"])
            case "kind":
                return str(task["workload"])
            case "state":
                return task_words.state(task)
            case "gpus":
                return task_words.gpus(task)
            case "age":
                return out.age(task["created_at"])
            case "created" | "started" | "ended":
                return out.time(task[f"{name}_at"])
            case "step":
                return task_words.steps(task)
            case "left":
                return task_words.left(task, out.now())
            case "score":
                return task_words.score(task)
            case _:
                return task_words.reason(task)

    rows = [[safe.cell(cell(name, task)) for name in names] for task in found]
    shown = [COLUMNS[name] for name in names]
    if out.is_tty and "score" in names:
        # Behind the number, as long as there is room for it.
        wide = out.room(shown, rows, _PICTURE) + 1
        lines = following.sparklines(session, found, columns=wide) if wide >= _LEAST_PICTURE else {}
        place = names.index("score")
        for row, task in zip(rows, found, strict=True):
            row[place] = f"{row[place]} {lines.get(task['task_id'], '')}".strip()
    return out.table_lines(shown, rows, headers=headers)
