"""completion."""

from __future__ import annotations

import click

from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session

_USES = {
    "bash": 'eval "$(argus completion bash)"        in ~/.bashrc',
    "zsh": 'eval "$(argus completion zsh)"         in ~/.zshrc, after compinit',
    "fish": "argus completion fish > ~/.config/fish/completions/argus.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(_USES)))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print the completion script of a shell.

    Completion asks no server, ever.
    """
    from click.shell_completion import get_completion_class

    from argus_ray.cli.app import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices are click's own
    made = kind(cli, {}, "argus", "_ARGUS_COMPLETE")
    # Not source(), which for bash starts one and writes warnings about it.
    session.out.line((made.source_template % made.source_vars()).rstrip("\n"))
    if session.out.is_tty:
        session.out.note(f"use it: {_USES[shell]}")
