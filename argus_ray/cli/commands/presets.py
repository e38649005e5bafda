"""presets."""

from __future__ import annotations

import json

import click

from argus_ray.cli import safe
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


@click.command(cls=Command)
@pass_session
def presets(session: Session) -> None:
    """List the presets that a submission may choose.

    An admin sees all presets, and the rules.
    """
    found = session.server.get(paths.PRESETS)
    out = session.out
    if out.flags.json:
        out.document(found)
        return
    for each in found["presets"]:
        if out.flags.quiet:
            out.line(safe.cell(each["name"]))
            continue
        out.line(out.paint(safe.cell(each["name"]), "bold") + ("" if each["selectable"] else "  (not for users)"))
        for key, value in each["set"].items():
            out.line(f"  {safe.line(key)}={safe.line(json.dumps(value, ensure_ascii=False))}")
    for rule in (found["rules"] or []) if not out.flags.quiet else []:
        match = ", ".join(f"{key}={value}" for key, value in rule["match"].items()) or "every task"
        out.line(f"rule {rule['number']}  {safe.cell(match)}")
        for key, value in [*(("use", name) for name in rule["use"]), *rule["set"].items()]:
            out.line(f"  {safe.line(key)}={safe.line(json.dumps(value, ensure_ascii=False))}")
    if not found["presets"]:
        out.note("no preset is offered")
