"""files."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import click

from argus_ray.cli import draw, ids, safe
from argus_ray.cli.app import Command
from argus_ray.cli.exits import USAGE, CliError
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.argument("folder", metavar="[FOLDER]", required=False)
@click.option("--download", metavar="PATH", help="Download this file; it goes on where it was broken off.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Where to; by default its name, here.")
@click.option("--attempt", metavar="N", help="Of this attempt; by default the newest.")
@click.option("-n", "number", type=click.IntRange(1, 200_000), default=1000, show_default=True, help="At most so many.")
@pass_session
def files(
    session: Session,
    typed: str,
    folder: str | None,
    download: str | None,
    output: str | None,
    attempt: str | None,
    number: int,
) -> None:
    """List the files of a task, or download one.

    A path is as the list shows it: from the job root on.
    """
    if download is not None and folder is not None:
        raise click.UsageError("FOLDER is for a list, and --download for one file.")
    if output is not None and download is None:
        raise click.UsageError("-o goes with --download.")
    task_id = ids.one(session, typed)
    if download is not None:
        _download(session, task_id, download, output, attempt)
        return
    from argus_ray.cli.server import Encoded

    out = session.out
    path = Encoded(_encoded(folder)) if folder else None
    parts = {"task_id": task_id}
    pages = session.server.pages(paths.FILES, "entries", number, parts, path=path, attempt=attempt)
    rows = []
    for page in pages:
        if out.flags.json:
            out.event(page)
            continue
        if not page["complete"]:
            out.warn("the folder has more entries than are looked at")
        for each in page["entries"]:
            name = each["path"] + ("/" if each["kind"] == "folder" else "")
            if out.flags.quiet:
                out.line(safe.line(each["path"]))
            rows.append([each["kind"], draw.size(each["size"]), out.age(each["modified_at"]), name])
    if out.flags.json or out.flags.quiet:
        return
    if rows:
        out.table([Column("KIND"), Column("SIZE", right=True), Column("WRITTEN"), Column("PATH")], rows)
    else:
        out.note("no files")


def _encoded(path: str) -> str:
    """As the list shows it, or as a person types it."""
    path = path.strip("/") if path.strip("/") else path
    if "%" in path and re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", path):
        return quote(path, safe="/%")
    return quote(path, safe="/")


def _download(session: Session, task_id: str, path: str, output: str | None, attempt: str | None) -> None:
    encoded = _encoded(path)
    name = unquote(encoded.rpartition("/")[2])
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise CliError(f"no file can be named like {path}", USAGE, hint="argus files ID lists them")
    to = Path(output) if output is not None else Path(name)
    if to.is_dir():
        to = to / name
    if to.exists():
        raise CliError(f"{to} is there already", USAGE, hint="name another file with -o")
    shows = sys.stderr.isatty() and session.out.tells

    def on_progress(done: int, total: int) -> None:
        sys.stderr.write(f"\r{draw.bar(done, total)}  {draw.size(done)} of {draw.size(total)} ")
        sys.stderr.flush()

    made = session.server.client.download(
        task_id, encoded, to, attempt=attempt, on_progress=on_progress if shows else None
    )
    if shows:
        sys.stderr.write("\n")
    if not session.out.flags.json:
        session.out.line(safe.line(str(made)) if session.out.is_tty else str(made))
