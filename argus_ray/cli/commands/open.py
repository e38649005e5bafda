"""open."""

from __future__ import annotations

import click

from argus_ray.cli import ids
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session


@click.command("open", cls=Command)
@click.argument("typed", metavar="ID")
@pass_session
def open_(session: Session, typed: str) -> None:
    """Open the page of a task in the browser.

    In a pipe it prints the address alone. The page asks for a token: none is in the address.
    """
    task_id = ids.one(session, typed)
    url = f"{session.target.url}/#/tasks/{task_id}"
    session.out.line(url)
    if session.out.is_tty:
        import webbrowser

        if not webbrowser.open(url):
            session.out.note("no browser was found")
