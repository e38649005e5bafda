"""resubmit, and export, which also makes a task from another."""

from __future__ import annotations

from collections.abc import Mapping

import click

from argus_ray.cli import ids
from argus_ray.cli.app import Command
from argus_ray.cli.commands.submit import duration, follow, keyed, told
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.option("--resume", is_flag=True, help="Go on from its newest complete checkpoint.")
@click.option("--watch", is_flag=True, help="Follow its progress until it ends; Ctrl-C leaves it alone.")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", metavar="2h", help="Wait no longer than this.")
@click.option("--key", metavar="K", help="The Idempotency-Key: the same key never makes a second task.")
@pass_session
def resubmit(
    session: Session, typed: str, resume: bool, watch: bool, wait: bool, timeout: str | None, key: str | None
) -> None:
    """Make a new task from one that has ended."""
    limit_s = _checked(watch, wait, timeout)
    _made(session, typed, paths.RESUBMIT, {"resume": resume}, key, watch=watch, wait=wait, timeout_s=limit_s)


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.option("--step", type=click.IntRange(0), help="The checkpoint of this step; by default the newest.")
@click.option("--part", type=click.Choice(["actor", "critic"]), help="Of ppo.  [default: actor]")
@click.option("--watch", is_flag=True, help="Follow it until it ends; Ctrl-C leaves it alone.")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", metavar="2h", help="Wait no longer than this.")
@click.option("--key", metavar="K", help="The Idempotency-Key: the same key never makes a second task.")
@pass_session
def export(
    session: Session,
    typed: str,
    step: int | None,
    part: str | None,
    watch: bool,
    wait: bool,
    timeout: str | None,
    key: str | None,
) -> None:
    """Make a Hugging Face folder of a checkpoint.

    It is a task of its own, also while the other one runs. `argus show ID` tells the folder.
    """
    limit_s = _checked(watch, wait, timeout)
    body = {name: value for name, value in (("step", step), ("part", part)) if value is not None}
    _made(session, typed, paths.EXPORT, body, key, watch=watch, wait=wait, timeout_s=limit_s)


def _checked(watch: bool, wait: bool, timeout: str | None) -> float | None:
    if watch and wait:
        raise click.UsageError("--watch and --wait exclude each other.")
    if timeout is not None and not (watch or wait):
        raise click.UsageError("--timeout needs --watch or --wait.")
    return duration(timeout)


def _made(
    session: Session,
    typed: str,
    path: str,
    body: Mapping[str, object],
    key: str | None,
    *,
    watch: bool,
    wait: bool,
    timeout_s: float | None,
) -> None:
    old = ids.one(session, typed)
    parts = {"task_id": old}
    made = keyed(key, lambda used: session.server.post(path, parts, body, key=used))
    told(session, made, followed=watch or wait)
    if watch or wait:
        follow(session, str(made["task_id"]), watch=watch, timeout_s=timeout_s)
