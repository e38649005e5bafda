"""submit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from argus_ray.cli import ids, safe, spec_file, when
from argus_ray.cli.app import Command
from argus_ray.cli.exits import UNREACHABLE, CliError, Detached, Ended, of_problem
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths


def spec_options(function: click.decorators.FC) -> click.decorators.FC:
    """Those of a TaskSpec and its presets."""
    for option in reversed(
        [
            click.argument("file", metavar="FILE|-", type=click.Path(allow_dash=True, dir_okay=False)),
            click.option(
                "--set", "changes", metavar="K=V", multiple=True, help="Set a field of the TaskSpec; repeat it."
            ),
            click.option("--preset", "presets", metavar="P", multiple=True, help="Choose a preset; repeat it."),
        ]
    ):
        function = option(function)
    return function


@click.command(cls=Command)
@spec_options
@click.option("--watch", is_flag=True, help="Follow its progress until it ends; Ctrl-C leaves it alone.")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", metavar="2h", help="Wait no longer than this.")
@click.option("--key", metavar="K", help="The Idempotency-Key: the same key never makes a second task.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; nothing is submitted.")
@pass_session
def submit(
    session: Session,
    file: str,
    changes: tuple[str, ...],
    presets: tuple[str, ...],
    watch: bool,
    wait: bool,
    timeout: str | None,
    key: str | None,
    dry_run: bool,
) -> None:
    """Submit a TaskSpec.

    Prints the id of the task. A submission is repeated safely when the connection breaks: it has a key of its own.
    """
    if watch and wait:
        raise click.UsageError("--watch and --wait exclude each other.")
    if timeout is not None and not (watch or wait):
        raise click.UsageError("--timeout needs --watch or --wait.")
    limit_s = duration(timeout)
    text = spec_file.read(file, changes)
    if dry_run:
        from argus_ray.cli.commands.validate import show_validation

        show_validation(session, session.server.post_spec(paths.VALIDATE, text, presets=presets))
        return
    made = keyed(key, lambda used: session.server.post_spec(paths.TASKS, text, presets=presets, key=used))
    told(session, made, followed=watch or wait)
    if watch or wait:
        follow(session, str(made["task_id"]), watch=watch, timeout_s=limit_s)


def keyed(key: str | None, send: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What makes a task. Where it is not known whether it has, the key is told: with it nobody makes a second one."""
    from argus_ray.cli.server import new_key
    from argus_ray.client.errors import ServerUnreachable, TryLater

    used = key or new_key()
    words = f"it may have been accepted: the same command with --key {safe.cell(used)} makes no second task"
    try:
        return send(used)
    except KeyboardInterrupt:
        raise Detached(f"interrupted; {words}") from None
    except ServerUnreachable as error:
        if not error.may_be_done:
            raise
        raise CliError(error.detail, UNREACHABLE, code="unreachable", hint=words) from None
    except TryLater as error:
        if error.status not in (502, 503, 504):
            raise
        raise CliError(
            error.detail,
            of_problem(error.code, error.status),
            code=error.code,
            hint=words,
            request_id=error.request_id or "",
        ) from None


def told(session: Session, made: dict[str, Any], *, followed: bool) -> None:
    """What was accepted. `followed`: more documents follow."""
    out = session.out
    task_id = str(made["task_id"])
    warnings = made["warnings"]
    for each in warnings if isinstance(warnings, list) else []:
        out.warn(f"{safe.cell(each['field'])}: {safe.cell(each['rule'])}")
    if out.flags.json:
        (out.event if followed else out.document)(made)
    else:
        out.line(task_id)
        out.note(f"{made['state']}; argus watch {ids.short(task_id)}, argus explain {ids.short(task_id)}")


def follow(session: Session, task_id: str, *, watch: bool, timeout_s: float | None) -> None:
    """Until the task has ended. Raises Ended with the exit code that tells how."""
    from argus_ray.cli import following

    if watch:
        raise Ended(following.watch(session, [task_id], timeout_s=timeout_s))
    raise Ended(following.wait(session, [task_id], any_of_them=False, timeout_s=timeout_s))


def duration(text: str | None) -> float | None:
    """Seconds. Raises UsageError."""
    if text is None:
        return None
    try:
        return when.seconds(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
