"""version."""

from __future__ import annotations

import click

import argus_ray
from argus_ray.cli import safe
from argus_ray.cli.app import Command
from argus_ray.cli.exits import CliError
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@pass_session
def version(session: Session) -> None:
    """Show the version of this command and of the server."""
    out = session.out
    try:
        session.target  # noqa: B018 - raises where no server is known
    except CliError:
        server = None
    else:
        server = session.open_server.get(paths.VERSION)
    if out.flags.json:
        out.document({"client": argus_ray.__version__, "server": server})
        return
    out.line(f"argus {argus_ray.__version__}")
    if server is not None:
        # As much of a commit as tells one from another; --json has it whole.
        build = f" ({safe.cell(server['build'])[:12]})" if server.get("build") else ""
        out.line(safe.line(f"server {server['version']}{build} at {session.target.url}"))
