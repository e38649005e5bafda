"""context ls, use, rm."""

from __future__ import annotations

from dataclasses import replace

import click

from argus_ray.cli import config
from argus_ray.cli.app import Group
from argus_ray.cli.complete import context_names
from argus_ray.cli.exits import NOT_FOUND, CliError
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column


@click.group(cls=Group)
def context() -> None:
    """Show, choose or remove servers."""


@context.command("ls")
@pass_session
def list_contexts(session: Session) -> None:
    """List the contexts; the one in use has a star."""
    found = config.load(session.config_path)
    out = session.out
    if out.flags.json:
        contexts = [
            {
                "name": each.name,
                "url": each.url,
                "current": each.name == found.current,
                "has_token": each.token is not None,
            }
            for each in found.contexts.values()
        ]
        out.document({"contexts": contexts})
    elif out.flags.quiet:
        for name in found.contexts:
            out.line(name)
    elif not found.contexts:
        out.note("no context yet; argus login URL")
    else:
        rows = [
            ["*" if each.name == found.current else "-", each.name, each.url, "yes" if each.token else "no"]
            for each in found.contexts.values()
        ]
        out.table([Column("IN USE"), Column("NAME"), Column("URL"), Column("TOKEN")], rows)


@context.command("use")
@click.argument("name", shell_complete=context_names)
@pass_session
def use(session: Session, name: str) -> None:
    """Ask this server from now on."""
    with config.edited(session.config_path) as box:
        _check(box[0], name)
        box[0] = replace(box[0], current=name)
    session.out.note(f"{name}: {config.load(session.config_path).contexts[name].url}")


@context.command("rm")
@click.argument("name", shell_complete=context_names)
@pass_session
def remove(session: Session, name: str) -> None:
    """Forget a server and its token."""
    with config.edited(session.config_path) as box:
        _check(box[0], name)
        box[0] = box[0].without(name)
    session.out.note(f"{name} is forgotten")


def _check(found: config.Config, name: str) -> None:
    if name not in found.contexts:
        raise CliError(f"there is no context {name}", NOT_FOUND, hint="argus context ls")
