"""template."""

from __future__ import annotations

import os

import click

from argus_ray.cli import templates
from argus_ray.cli.app import Command
from argus_ray.cli.exits import USAGE, CliError
from argus_ray.cli.session import Session, pass_session


@click.command(cls=Command)
@click.argument("workload", type=click.Choice(["sft", "grpo", "ppo"]))
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write it to this new file.")
@click.option("--root", default="/private", show_default=True, metavar="DIR", help="The shared root of the service.")
@pass_session
def template(session: Session, workload: str, output: str | None, root: str) -> None:
    """Print a commented TaskSpec to start from."""
    text = templates.text_of(workload, root)
    if output is None or output == "-":
        session.out.write(text)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise CliError(f"{output} is there already", USAGE, hint="name another file with -o") from None
    except OSError as error:
        raise CliError(f"{output}: {error.strerror}", USAGE) from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    session.out.note(f"{output} is written; argus validate {output}")
