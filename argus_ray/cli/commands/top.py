"""top."""

from __future__ import annotations

import click

from argus_ray.cli import looks
from argus_ray.cli.app import Command
from argus_ray.cli.commands.nodes import node_table, pool_line
from argus_ray.cli.commands.tasks import task_table
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths

_WATCH_S = 2.0
_WAITING = 20


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Once; so it is in a pipe, too.")
@pass_session
def top(session: Session, once: bool) -> None:
    """Show the pool and its tasks, again and again.

    Nodes, what runs where, and the head of the queue, of everyone.
    """
    out = session.out
    if out.flags.json:
        out.document({"nodes": session.server.get(paths.NODES), "queue": session.server.get(paths.WHOLE_QUEUE)})
    elif out.redraws and not once:
        looks.redraw(session, lambda: _lines(session), _WATCH_S)
    else:
        for line in _lines(session):
            out.line(line)


def _lines(session: Session) -> list[str]:
    nodes, queue = session.server.get(paths.NODES), session.server.get(paths.WHOLE_QUEUE)
    running, waiting = queue["running"], queue["pending"]
    counts = f"{len(running)} running, {len(waiting)} waiting"
    lines = [f"{pool_line(nodes)}; {counts}", "", *node_table(session, nodes)]
    shown = [*running, *waiting[:_WAITING]]
    if shown:
        names = ("id", "user", "kind", "state", "gpus", "age", "step", "left", "reason")
        lines += ["", *task_table(session, shown, names)]
    if len(waiting) > _WAITING:
        lines.append(f"and {len(waiting) - _WAITING} more that wait")
    return lines
