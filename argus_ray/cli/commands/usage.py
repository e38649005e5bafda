"""usage."""

from __future__ import annotations

import re

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Command
from argus_ray.cli.commands.tasks import point
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_KEYS = {"user": "user_id", "workload": "workload", "day": "day"}


@click.command(cls=Command)
@click.option("--by", multiple=True, type=click.Choice(list(_KEYS)), help="A row for each; repeat it.  [default: user]")
@click.option("--since", metavar="30d", help="Since then.  [default: 30d]")
@click.option("--until", metavar="T", help="Before then.")
@click.option(
    "-n", "number", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="At most so many."
)
@pass_session
def usage(session: Session, by: tuple[str, ...], since: str | None, until: str | None, number: int) -> None:
    """Show GPU hours by user, workload or day."""
    chosen = by or ("user",)
    query = {"by": list(chosen), "since": _day(since, "--since"), "until": _day(until, "--until")}
    out = session.out
    rows = []
    total = 0.0
    for page in session.server.pages(paths.USAGE, "rows", number, None, **query):
        if out.flags.json:
            out.event(page)
        for each in page["rows"]:
            total += each["gpu_seconds"]
            counts = (each["tasks"], each["succeeded"], each["failed"], each["canceled"])
            keys = [safe.cell(str(each[_KEYS[name]])) for name in chosen]
            rows.append([*keys, f"{each['gpu_seconds'] / 3600:.1f}", *map(str, counts)])
    if out.flags.json:
        return
    if out.flags.quiet:
        for row in rows:
            out.line(row[0])
        return
    numbers = [Column(name, right=True) for name in ("GPU HOURS", "TASKS", "SUCCEEDED", "FAILED", "CANCELED")]
    if rows:
        out.table([*(Column(name.upper()) for name in chosen), *numbers], rows)
    out.note(f"{total / 3600:.1f} GPU hours in all")


def _day(text: str | None, option: str) -> str | None:
    """Days are the service's, in UTC. Raises BadParameter."""
    return text if text is not None and _DAY.fullmatch(text) else point(text, option)
