"""cancel."""

from __future__ import annotations

import sys
from typing import Any

import click

from argus_ray.cli import complete, ids, safe
from argus_ray.cli.app import Command
from argus_ray.cli.commands.tasks import point, states, workload_list
from argus_ray.cli.exits import NOT_FOUND, USAGE, CliError, Ended
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.task_words import count
from argus_ray.client import paths

#: Of one call.
_IDS = 500
#: Calls of one command: a bound, should the server always say that there is more.
_MOST_CALLS = 2000
_WORDS = {
    "canceled": "CANCELED",
    "would_cancel": "would be canceled",
    "already_ended": "has ended already",
    "not_found": "not found",
}


@click.command(cls=Command)
@click.argument("typed", metavar="[ID...]", nargs=-1)
@click.option("--state", metavar="S,..", multiple=True, shell_complete=complete.states, help="All in these states.")
@click.option(
    "--workload", metavar="W", multiple=True, shell_complete=complete.workloads, help="All of these workloads."
)
@click.option("--since", metavar="2h", help="All that were submitted since.")
@click.option("--until", metavar="T", help="All that were submitted before.")
@click.option("--all", "everything", is_flag=True, help="All that wait or run.")
@click.option("--user", metavar="U", help="Of this user (admin).")
@click.option("--dry-run", is_flag=True, help="Say which; cancel none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def cancel(
    session: Session,
    typed: tuple[str, ...],
    state: tuple[str, ...],
    workload: tuple[str, ...],
    since: str | None,
    until: str | None,
    everything: bool,
    user: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Cancel tasks.

    It is final at once. A task that has ended stays as it is.
    """
    filters: dict[str, Any] = {
        "state": states(state),
        "workload": workload_list(workload),
        "since": point(since, "--since"),
        "until": point(until, "--until"),
        "user_id": user,
    }
    given = {name: value for name, value in filters.items() if value}
    if typed and (given or everything):
        raise click.UsageError("IDs, and --all or filters, exclude each other.")
    if not (typed or given or everything):
        raise click.UsageError("Name the tasks: IDs, --all, or --state, --workload, --since, --until.")
    if typed:
        _by_id(session, ids.many(session, typed), dry_run=dry_run)
        return
    if not (dry_run or yes):
        _ask(session, given)
    _by_filter(session, given, dry_run=dry_run)


def _ask(session: Session, given: dict[str, Any]) -> None:
    total = session.server.post(paths.CANCEL_MANY, None, {"filter": given, "dry_run": True})["matched"]
    if not sys.stdin.isatty():
        raise CliError(
            f"{count(total, 'task')} would be canceled, and stdin is no terminal to ask",
            USAGE,
            hint="add -y",
        )
    if not total:
        return
    click.confirm(f"Cancel {total} {'task' if total == 1 else 'tasks'}?", abort=True, err=True)


def _by_id(session: Session, task_ids: list[str], *, dry_run: bool) -> None:
    results: list[dict[str, Any]] = []
    for first in range(0, len(task_ids), _IDS):
        part = task_ids[first : first + _IDS]
        found = session.server.post(paths.CANCEL_MANY, None, {"ids": part, "dry_run": dry_run})
        results += _shown(session, found)
    if any(each["result"] == "not_found" for each in results):
        raise Ended(NOT_FOUND)


def _by_filter(session: Session, given: dict[str, Any], *, dry_run: bool) -> None:
    count = 0
    for _ in range(_MOST_CALLS):
        found = session.server.post(paths.CANCEL_MANY, None, {"filter": given, "dry_run": dry_run})
        results = _shown(session, found)
        count += len(results)
        # What would be canceled stays, so a second look would find the same.
        if not found["more"] or dry_run or not results:
            break
    if dry_run and found["more"]:
        session.out.note(f"and more: {found['matched']} in all")
    elif not count:
        session.out.note("no task waits or runs that fits")


def _shown(session: Session, found: dict[str, Any]) -> list[dict[str, Any]]:
    out = session.out
    results: list[dict[str, Any]] = found["results"]
    if out.flags.json:
        out.event(found)
        return results
    for each in results:
        if out.flags.quiet:
            if each["result"] in ("canceled", "would_cancel"):
                out.line(each["task_id"])
            continue
        word = _WORDS.get(each["result"], each["result"])
        ended = f": {each['state']}" if each["result"] == "already_ended" else ""
        out.line(safe.cell(f"{each['task_id']} {word}{ended}"))
    return results
