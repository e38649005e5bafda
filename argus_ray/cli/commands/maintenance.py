"""maintenance."""

from __future__ import annotations

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("order", metavar="[on|off]", required=False, type=click.Choice(["on", "off"]))
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever waits.")
@pass_session
def maintenance(session: Session, order: str | None, reason: str) -> None:
    """Show maintenance, or turn it on or off.

    While it is on, submissions are accepted and nothing starts; what runs goes on.
    """
    if order is None:
        found = session.server.get(paths.MAINTENANCE)
    else:
        found = session.server.put(paths.MAINTENANCE, {"on": order == "on", "reason": reason})
    out = session.out
    if out.flags.json:
        out.document(found)
        return
    since = f", since {out.moment(found['since'])}, by {safe.cell(found['by'])}" if found["on"] else ""
    why = f": {safe.cell(found['reason'])}" if found["on"] and found["reason"] else ""
    out.line(f"{'on' if found['on'] else 'off'}{since}{why}")
