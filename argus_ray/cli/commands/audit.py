"""audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import ids, safe
from argus_ray.cli.app import Command
from argus_ray.cli.commands.tasks import point
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths


@click.command(cls=Command)
@click.option("--user", metavar="U", help="What concerns this user.")
@click.option("--actor", metavar="U", help="What this user, `admin` or `internal` has done.")
@click.option("--action", metavar="A", help="As task.submit, token.issue, node.drain.")
@click.option("--since", metavar="2h", help="Since then.")
@click.option("--until", metavar="T", help="Before then.")
@click.option("-n", "number", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes; Ctrl-C ends it.")
@pass_session
def audit(
    session: Session,
    user: str | None,
    actor: str | None,
    action: str | None,
    since: str | None,
    until: str | None,
    number: int,
    follow: bool,
) -> None:
    """Show who did what.

    The newest first; with -f what comes from now on.
    """
    query = {"user": user, "actor": actor, "action": action}
    if follow:
        if since or until:
            raise click.UsageError("-f shows what comes from now on: without --since and --until.")
        _follow(session, query)
        return
    query |= {"since": point(since, "--since"), "until": point(until, "--until")}
    out = session.out
    rows = []
    for page in session.server.pages(paths.AUDIT, "entries", number, None, **query):
        if out.flags.json:
            out.event(page)
            continue
        for each in page["entries"]:
            if out.flags.quiet:
                out.line(str(each["audit_id"]))
            rows.append(_row(session, each))
    if out.flags.json or out.flags.quiet:
        return
    if rows:
        names = ("AT", "ACTOR", "ACTION", "TARGET", "RESULT", "ADDRESS", "DETAIL")
        out.table([Column(name, gives_way=name in ("TARGET", "DETAIL")) for name in names], rows)
    else:
        out.note("nothing")


def _row(session: Session, each: Mapping[str, Any]) -> list[str]:
    detail = "" if each["detail"] is None else json.dumps(each["detail"], ensure_ascii=False)
    actor = each["actor"] or each["role"] or "-"
    target = each["target"]
    if session.out.is_tty and target and ids.WHOLE.fullmatch(target):
        # As every list has it; a command takes it so, too.
        target = ids.short(target)
    return [
        session.out.time(each["at"]),
        *(str(part or "-") for part in (actor, each["action"], target, each["result"], each["address"], detail)),
    ]


def _follow(session: Session, query: Mapping[str, Any]) -> None:
    out = session.out
    for event, data in session.server.events(paths.AUDIT_STREAM, **query):
        if event == "gap":
            out.warn(f"entries are left out: {safe.cell(data)}")
        elif event == "entry":
            entry = json.loads(data)
            if out.flags.json:
                out.event(entry)
            elif out.flags.quiet:
                out.line(str(entry["audit_id"]))
            else:
                out.line("  ".join(safe.cell(part) for part in _row(session, entry)))
