"""user ls, add, show, disable, enable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Group
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths


@click.group(cls=Group)
def user() -> None:
    """List, add, disable or enable users."""


@user.command("ls")
@pass_session
def list_users(session: Session) -> None:
    """List all users."""
    found = session.server.get(paths.USERS)
    out = session.out
    if out.flags.json:
        out.document(found)
    elif out.flags.quiet:
        for each in found["users"]:
            out.line(safe.cell(each["user_id"]))
    else:
        rows = [
            [each["user_id"], each["state"], out.age(each["created_at"]), each["display_name"]]
            for each in found["users"]
        ]
        out.table([Column("USER"), Column("STATE"), Column("CREATED"), Column("NAME", gives_way=True)], rows)


@user.command("add")
@click.argument("user_id", metavar="USER")
@click.option("--name", "display_name", default="", metavar="TEXT", help="The name in full.")
@pass_session
def add(session: Session, user_id: str, display_name: str) -> None:
    """Add a user; `argus token new` gives the token."""
    body = {"user_id": user_id, "display_name": display_name}
    # A second one would be told that the user exists, and not that it was made by the first.
    _show(session, session.server.post(paths.USERS, None, body, repeats=False))
    session.out.note(f"argus token new {safe.cell(user_id)}")


@user.command("show")
@click.argument("user_id", metavar="USER")
@pass_session
def show(session: Session, user_id: str) -> None:
    """Show a user."""
    _show(session, session.server.get(paths.USER, {"user_id": user_id}))


@user.command("disable")
@click.argument("user_id", metavar="USER")
@pass_session
def disable(session: Session, user_id: str) -> None:
    """Refuse all tokens of a user from now on; its tasks go on."""
    _show(session, session.server.post(paths.DISABLE_USER, {"user_id": user_id}))


@user.command("enable")
@click.argument("user_id", metavar="USER")
@pass_session
def enable(session: Session, user_id: str) -> None:
    """Undo a disable."""
    _show(session, session.server.post(paths.ENABLE_USER, {"user_id": user_id}))


def _show(session: Session, found: Mapping[str, Any]) -> None:
    out = session.out
    if out.flags.json:
        out.document(found)
    elif out.flags.quiet:
        out.line(safe.cell(found["user_id"]))
    else:
        out.pairs(
            [
                ("user", safe.cell(found["user_id"])),
                ("name", safe.cell(found["display_name"]) or None),
                ("state", safe.cell(found["state"])),
                ("created", out.moment(found["created_at"])),
            ]
        )
