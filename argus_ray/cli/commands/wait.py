"""wait."""

from __future__ import annotations

import click

from argus_ray.cli import following, ids
from argus_ray.cli.app import Command
from argus_ray.cli.commands.submit import duration
from argus_ray.cli.exits import Ended
from argus_ray.cli.session import Session, pass_session


@click.command(cls=Command)
@click.argument("typed", metavar="ID...", nargs=-1, required=True)
@click.option("--any/--all", "any_of_them", default=False, help="Until one of them has ended, or all (the default).")
@click.option("--timeout", metavar="2h", help="No longer than this; then the exit code is 8.")
@pass_session
def wait(session: Session, typed: tuple[str, ...], any_of_them: bool, timeout: str | None) -> None:
    """Wait until tasks have ended; the exit code tells how.

    0: all have SUCCEEDED. 10: one has FAILED. 11: one was CANCELED, and none has FAILED.
    """
    limit_s = duration(timeout)
    found = ids.many(session, typed)
    raise Ended(following.wait(session, found, any_of_them=any_of_them, timeout_s=limit_s))
