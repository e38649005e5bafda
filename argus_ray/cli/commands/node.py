"""node cordon, drain, uncordon."""

from __future__ import annotations

import math
from typing import Any

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Group
from argus_ray.cli.commands.nodes import tasks_left
from argus_ray.cli.commands.submit import duration
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.group(cls=Group)
def node() -> None:
    """Cordon, drain or uncordon a node.

    NODE is a hostname, an address or Ray's node id. The order is for the machine, and holds whatever restarts.
    """


@node.command("cordon")
@click.argument("name", metavar="NODE")
@click.option("--reason", default="", metavar="TEXT", help="For other operators, and for whoever waits.")
@pass_session
def cordon(session: Session, name: str, reason: str) -> None:
    """Start nothing new there; what runs goes on."""
    _order(session, name, "cordon", {"reason": reason})


@node.command("drain")
@click.argument("name", metavar="NODE")
@click.option("--reason", default="", metavar="TEXT", help="For other operators, and for whoever waits.")
@click.option("--deadline", metavar="1h", help="Then what still runs is stopped, and goes back to the queue.")
@pass_session
def drain(session: Session, name: str, reason: str, deadline: str | None) -> None:
    """Start nothing new there, and tell when it is empty."""
    seconds = duration(deadline)
    body: dict[str, Any] = {"reason": reason}
    if seconds is not None:
        body["deadline_s"] = math.ceil(seconds)
    _order(session, name, "drain", body)


@node.command("uncordon")
@click.argument("name", metavar="NODE")
@click.option("--reason", default="", metavar="TEXT", help="For other operators.")
@pass_session
def uncordon(session: Session, name: str, reason: str) -> None:
    """Let it take tasks again."""
    _order(session, name, "uncordon", {"reason": reason})


def _order(session: Session, name: str, verb: str, body: dict[str, Any]) -> None:
    found = session.server.post(paths.ORDERS[verb], {"node": name}, body)
    out = session.out
    if out.flags.json:
        out.document(found)
        return
    if out.flags.quiet:
        out.line(safe.cell(found["machine"]))
        return
    out.pairs(
        [
            ("node", safe.cell(found["machine"])),
            ("state", safe.cell(found["state"])),
            ("by", safe.cell(found["by"])),
            ("reason", safe.cell(found["reason"]) or None),
            ("deadline", out.moment(found["deadline"])),
            ("runs there", tasks_left(found)),
        ]
    )
