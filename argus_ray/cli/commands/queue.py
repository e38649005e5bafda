"""queue."""

from __future__ import annotations

import click

from argus_ray.cli.app import Command
from argus_ray.cli.commands.tasks import task_table
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@click.option("--all", "everyone", is_flag=True, help="Of everyone (admin).")
@pass_session
def queue(session: Session, everyone: bool) -> None:
    """Show what waits, in the order of the queue, and what runs."""
    found = session.server.get(paths.WHOLE_QUEUE if everyone else paths.QUEUE)
    out = session.out
    if out.flags.json:
        out.document(found)
    elif out.flags.quiet:
        for task in (*found["running"], *found["pending"]):
            out.line(task["task_id"])
    else:
        listed = [*found["running"], *found["pending"]]
        if listed:
            names = (*(("user",) if everyone else ()), "kind", "state", "gpus", "age", "step", "left", "reason")
            for line in task_table(session, listed, ("id", *names)):
                out.line(line)
        out.note(f"{len(found['running'])} running, {len(found['pending'])} waiting")
