"""show."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import draw, ids, safe, task_words, when
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.task_words import count
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("typed", metavar="ID...", nargs=-1, required=True)
@click.option("--yaml", "what", flag_value="yaml", help="Print the TaskSpec as it was submitted.")
@click.option("--command", "what", flag_value="command", help="Print the command of the newest attempt.")
@click.option("--events", "what", flag_value="events", help="Print every change with its cause.")
@pass_session
def show(session: Session, typed: tuple[str, ...], what: str | None) -> None:
    """Show everything about tasks."""
    found = ids.many(session, typed)
    for number, task_id in enumerate(found):
        if number and what is None and not (session.out.flags.json or session.out.flags.quiet):
            session.out.line()
        _SHOWN[what](session, task_id, many=len(found) > 1)


def _everything(session: Session, task_id: str, *, many: bool) -> None:
    task = session.server.get(paths.TASK, {"task_id": task_id})
    out = session.out
    if out.flags.json:
        (out.event if many else out.document)(task)
    elif out.flags.quiet:
        out.line(task["task_id"])
    else:
        out.pairs(_pairs(session, task))


def _pairs(session: Session, task: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    out = session.out
    gang, progress = task["gang"], task["progress"]
    failed = task["state"] == "FAILED"
    settings = [each for each in task["settings"] or [] if each["source"] != "default"]
    shown: list[tuple[str, str | None]] = [
        ("id", task["task_id"]),
        ("user", safe.cell(task["user_id"])),
        ("kind", safe.cell(task["workload"])),
        ("state", out.state(task["state"]) + (f" (position {task['position']})" if task["position"] else "")),
        ("reason", None if failed else safe.block(task["reason"]) if task["reason"] else None),
        ("why", "\n".join(task_words.failure_lines(task)) if failed else None),
        ("start", task_words.start_sentence(task.get("start"), out.now())),
        (
            "stalled",
            safe.cell(f"since {task['stalled_since']}: {task['stalled_why']}") if task["stalled_since"] else None,
        ),
        (
            "gang",
            f"{task_words.gpus(task)}: {count(gang['gpus'], 'GPU')}, {count(gang['cpus'], 'CPU')}",
        ),
        ("created", out.moment(task["created_at"])),
        ("started", out.moment(task["started_at"])),
        ("ended", out.moment(task["ended_at"])),
        ("next try", out.moment(task["next_retry_at"])),
    ]
    if progress:
        left = progress["seconds_left"]
        parts = [task_words.steps(task), task_words.pace(task), None if left is None else f"{when.span(left)} left"]
        shown.append(("steps", ", ".join(part for part in parts if part)))
        if progress["headline"]:
            headline = progress["headline"]
            words = f"{headline['name']} {draw.number(headline['value'])} at step {headline['step']}"
            shown.append(("score", safe.cell(words)))
    shown += [
        ("presets", safe.cell(", ".join(task["presets"])) if task["presets"] else None),
        (
            "settings",
            "\n".join(safe.line(f"{each['key']}={each['value']}  ({each['source']})") for each in settings)
            if settings
            else None,
        ),
        (
            "warnings",
            "\n".join(safe.line(f"{each['field']}: {each['rule']}") for each in task["warnings"])
            if task["warnings"]
            else None,
        ),
        ("from", task["resubmitted_from"]),
        ("files", None if task["files_at"] == "JOB_ROOT" else safe.cell(task["files_at"])),
    ]
    for each in task["exports"]:
        shown.append(("export", safe.line(f"step {each['step']} {each['state']} {each['path'] or each['task_id']}")))
    for attempt in task["attempts"]:
        shown.append((f"a{attempt['number']:02d}", _attempt(session, attempt)))
    return shown


def _attempt(session: Session, attempt: Mapping[str, Any]) -> str:
    first = [attempt["outcome"] or attempt["state"]]
    if attempt["started_at"] and attempt["ended_at"]:
        first.append(f"after {when.span(when.unix(attempt['ended_at']) - when.unix(attempt['started_at']))}")
    if attempt["exit_code"] is not None:
        first.append(f"exit code {attempt['exit_code']}")
    if attempt["disk_bytes"] is not None:
        first.append(draw.size(attempt["disk_bytes"]))
    lines = [safe.cell(", ".join(map(str, first)))]
    placement = attempt.get("placement")
    if placement:
        lines.append(
            safe.cell(
                "on "
                + ", ".join(f"{each['hostname'] or each['ip']} ({count(each['gpus'], 'GPU')})" for each in placement)
            )
        )
    elif attempt["node_ip"]:
        lines.append(safe.cell(f"on {attempt['node_ip']}"))
    lines.append(safe.line(attempt["job_root"]))
    if attempt["failure"]:
        lines.append(safe.line(f"{attempt['failure']['code']}: {attempt['failure']['line']}"))
    return "\n".join(lines)


def _yaml(session: Session, task_id: str, *, many: bool) -> None:
    text, _ = session.server.text(paths.SPEC, {"task_id": task_id})
    if many:
        session.out.line("---")
    # Byte for byte in a pipe, so that it can be submitted again.
    session.out.write(text if not session.out.is_tty else safe.block(text))


def _command(session: Session, task_id: str, *, many: bool) -> None:
    task = session.server.get(paths.TASK, {"task_id": task_id})
    if not task["attempts"]:
        session.out.note(f"{ids.short(task_id)} has no attempt yet; argus validate FILE --command shows the command")
        return
    session.out.line(safe.line(shlex.join(task["attempts"][-1]["command"])))


def _events(session: Session, task_id: str, *, many: bool) -> None:
    out = session.out
    for page in session.server.pages(paths.EVENTS, "events", None, {"task_id": task_id}):
        if out.flags.json:
            out.event(page)
            continue
        for each in page["events"]:
            moved = f"{each['old_state'] or ''} -> {each['new_state']}  " if each["new_state"] else ""
            out.line(safe.line(f"{out.time(each['at'])}  {moved}{safe.cell(each['message'] or each['kind'])}"))


_SHOWN: dict[str | None, Any] = {None: _everything, "yaml": _yaml, "command": _command, "events": _events}
