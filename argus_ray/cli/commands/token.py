"""token ls, new, revoke."""

from __future__ import annotations

import math

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Group
from argus_ray.cli.commands.submit import duration
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths


@click.group(cls=Group)
def token() -> None:
    """List, issue or revoke tokens."""


@token.command("ls")
@click.argument("user_id", metavar="USER")
@pass_session
def list_tokens(session: Session, user_id: str) -> None:
    """List the tokens of a user; never the tokens themselves."""
    found = session.server.get(paths.TOKENS, {"user_id": user_id})
    out = session.out
    if out.flags.json:
        out.document(found)
    elif out.flags.quiet:
        for each in found["tokens"]:
            out.line(safe.cell(each["token_id"]))
    else:
        rows = [
            [
                each["token_id"],
                each["label"],
                out.age(each["created_at"]),
                out.age(each["last_used_at"]),
                out.time(each["expires_at"]) if each["expires_at"] else "never",
                out.time(each["revoked_at"]),
            ]
            for each in found["tokens"]
        ]
        names = ("TOKEN", "LABEL", "CREATED", "USED", "EXPIRES", "REVOKED")
        out.table([Column(name) for name in names], rows)


@token.command("new")
@click.argument("user_id", metavar="USER")
@click.option("--expires", metavar="30d", help="It is refused after so long; by default never.")
@click.option("--label", default="", metavar="TEXT", help="What it is for.")
@pass_session
def new(session: Session, user_id: str, expires: str | None, label: str) -> None:
    """Issue a token and print it, this once.

    It alone goes to stdout: argus token new ann | ssh laptop argus login URL --token-stdin
    """
    seconds = duration(expires)
    body = {"label": label} | ({} if seconds is None else {"expires_in_s": math.ceil(seconds)})
    # Not twice: the first one would be good, and nobody would know it.
    found = session.server.post(paths.TOKENS, {"user_id": user_id}, body, repeats=False)
    out = session.out
    if out.flags.json:
        out.document(found)
        return
    out.line(str(found["token"]))
    until = out.moment(found["expires_at"]) or "never"
    out.note(f"token {safe.cell(found['token_id'])} of {safe.cell(found['user_id'])}; expires {until}; not shown again")


@token.command("revoke")
@click.argument("user_id", metavar="USER")
@click.argument("token_id", metavar="TOKEN")
@pass_session
def revoke(session: Session, user_id: str, token_id: str) -> None:
    """Refuse a token from now on; TOKEN is its id, of `argus token ls`."""
    parts = {"user_id": user_id, "token_id": token_id}
    found = session.server.delete(paths.TOKEN, parts)
    if session.out.flags.json:
        session.out.document(found)
    else:
        session.out.note(f"{safe.cell(found['token_id'])} is revoked")
