"""validate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import safe, spec_file, spec_text, task_words
from argus_ray.cli.app import Command
from argus_ray.cli.commands.submit import spec_options
from argus_ray.cli.exits import REFUSED, CliError, Ended, of_problem
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.task_words import count
from argus_ray.client import paths

_FITS = {
    "NOW": "now",
    "WOULD_WAIT": "not now",
    "NEVER_ON_THIS_POOL": "never on this pool",
    "UNKNOWN": "not known: the pool has not been seen",
}


@click.command(cls=Command)
@spec_options
@click.option("--offline", is_flag=True, help="Check the fields alone, without a server.")
@click.option("--command", "show_command", is_flag=True, help="Print the command of its first attempt.")
@pass_session
def validate(
    session: Session,
    file: str,
    changes: tuple[str, ...],
    presets: tuple[str, ...],
    offline: bool,
    show_command: bool,
) -> None:
    """Check a TaskSpec; nothing is submitted.

    Says whether it would be accepted now, whether it fits, and what it would run.
    """
    text = spec_file.read(file, changes)
    if offline:
        _offline(session, text, file)
        return
    found = session.server.post_spec(paths.VALIDATE, text, presets=presets)
    if show_command and not session.out.flags.json and found["command"] is not None:
        session.out.line(safe.line(shlex.join(found["command"])))
        return
    show_validation(session, found)


def _offline(session: Session, text: str, file: str) -> None:
    broken = spec_text.broken_rules(text)
    if broken:
        raise CliError("the TaskSpec is not valid", REFUSED, code="invalid_spec", fields=broken, hint=f"edit {file}")
    session.out.note("the fields are valid; whether the inputs are there, the server alone can tell")


def show_validation(session: Session, found: Mapping[str, Any]) -> None:
    """Raises Ended if a submission would be refused."""
    out = session.out
    refusals = found["refusals"]
    if out.flags.json:
        out.document(found)
    else:
        for each in refusals:
            fields = [(item["field"], item["rule"]) for item in each["errors"]]
            out.error(CliError(each["detail"], REFUSED, code=each["code"], fields=fields))
        for each in found["warnings"]:
            out.warn(f"{safe.cell(each['field'])}: {safe.cell(each['rule'])}")
        if not out.flags.quiet:
            _show(session, found)
    if not found["valid"]:
        raise Ended(of_problem(refusals[0]["code"], refusals[0]["status"]) if refusals else REFUSED)


def _show(session: Session, found: Mapping[str, Any]) -> None:
    gang, fit, limits = found["gang"], found["fit"], found["limits"]
    quota = limits["gpus_quota"]
    chosen = [each for each in found["settings"] or [] if each["source"] != "default"]
    session.out.pairs(
        [
            ("valid", "yes: it would be accepted now" if found["valid"] else "no: it would be refused"),
            (
                "gang",
                f"{task_words.gpus({'gang': gang})}, {count(gang['gpus'], 'GPU')} in all" if gang else None,
            ),
            ("fits", f"{_FITS.get(fit['fit'], safe.cell(fit['fit']))}. {safe.cell(fit['summary'])}" if fit else None),
            ("start", task_words.start_sentence(found.get("start"), session.out.now())),
            (
                "queue",
                f"{limits['waiting_tasks']} of {limits['waiting_tasks_limit']} of yours wait, "
                f"{limits['others_waiting']} of others",
            ),
            ("gpus", f"you hold {limits['gpus_held']}" + (f" of {quota}" if quota is not None else "")),
            (
                "settings",
                "\n".join(safe.line(f"{each['key']}={each['value']}  ({each['source']})") for each in chosen)
                if chosen
                else None,
            ),
        ]
    )
