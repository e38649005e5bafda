"""watch."""

from __future__ import annotations

import click

from argus_ray.cli import following, ids
from argus_ray.cli.app import Command
from argus_ray.cli.commands.submit import duration
from argus_ray.cli.exits import Ended
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("typed", metavar="[ID...]", nargs=-1)
@click.option("--timeout", metavar="2h", help="No longer than this; then the exit code is 8.")
@pass_session
def watch(session: Session, typed: tuple[str, ...], timeout: str | None) -> None:
    """Follow the progress of tasks until they end.

    Without an ID it follows those of yours that wait or run now. Ctrl-C leaves the tasks alone.
    """
    limit_s = duration(timeout)
    found = ids.many(session, typed) if typed else _active(session)
    if not found:
        session.out.note("none of your tasks waits or runs")
        return
    raise Ended(following.watch(session, found, timeout_s=limit_s))


def _active(session: Session) -> list[str]:
    queue = session.server.get(paths.QUEUE)
    return [task["task_id"] for task in (*queue["running"], *queue["pending"])]
