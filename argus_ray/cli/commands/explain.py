"""explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import following, ids, looks, safe, task_words
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.task_words import count
from argus_ray.client import paths

_WATCH_S = 5.0
#: Rows of what the workers lack.
_WORKERS = 12


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.option("--watch", is_flag=True, help="Again each five seconds, until it does not wait any more.")
@pass_session
def explain(session: Session, typed: str, watch: bool) -> None:
    """Say why a task waits, and when it will start."""
    task_id = ids.one(session, typed)
    if not watch:
        found = _asked(session, task_id)
        if session.out.flags.json:
            session.out.document(found)
        else:
            for line in _lines(session, found):
                session.out.line(line)
        return
    with following.detachable([task_id], "explain --watch"):
        _watch(session, task_id)


def _asked(session: Session, task_id: str) -> dict[str, Any]:
    return session.server.get(paths.EXPLAIN, {"task_id": task_id})


def _watch(session: Session, task_id: str) -> None:
    import contextlib
    import sys

    from argus_ray.cli import draw

    out = session.out
    before: Any = None
    with contextlib.ExitStack() as stack:
        frame = stack.enter_context(draw.frame(sys.stdout)) if out.redraws else None
        away = looks.noted(session) if frame is None else looks.below(session, frame)
        for found in looks.looks(session, lambda: _asked(session, task_id), _WATCH_S, away):
            if frame is not None:
                frame.draw(_lines(session, found))
            elif found != before:
                if out.flags.json:
                    out.event(found)
                else:
                    out.line(_sentence(found, out.now()))
            before = found
            if found["state"] not in task_words.WAITING:
                return


def _sentence(found: Mapping[str, Any], now: float) -> str:
    start = task_words.starts(found.get("start"), now)
    return safe.cell(found.get("sentence") or found["summary"]) + (f" {start}." if start else "")


def _lines(session: Session, found: Mapping[str, Any]) -> list[str]:
    out = session.out
    if out.flags.quiet:
        return [safe.cell(found.get("code") or found["reason_code"] or found["state"])]
    now, gang = found.get("would_start_now"), found["gang"]
    quota = found["gpus_quota"]
    own = ", ".join(ids.short(each) for each in found["own_ahead"][:10])
    more = len(found["own_ahead"]) - 10
    ahead = [f"yours: {own}{f' and {more} more' if more > 0 else ''}"] if own else []
    ahead += [f"{found['others_ahead']} of others"] if found["others_ahead"] else []
    pairs: list[tuple[str, str | None]] = [
        ("code", safe.cell(found["code"]) if found.get("code") else None),
        ("start", task_words.start_sentence(found.get("start"), out.now())),
        ("position", str(found["position"]) if found["position"] else None),
        ("ahead", "; ".join(ahead) or None),
        ("gang", task_words.gpus(found)),
        ("fits now", f"{now} of {gang['nnodes']} nodes" if now is not None and now < gang["nnodes"] else None),
        ("you hold", count(found["gpus_held"], "GPU") + (f" of {quota}" if quota is not None else "")),
        ("next try", out.moment(found["next_retry_at"])),
    ]
    lines = [safe.cell(found.get("sentence") or found["summary"]), *out.pair_lines(pairs)]
    if found["maintenance"]["on"]:
        lines.append(f"maintenance is on: {safe.cell(found['maintenance']['reason'] or 'no reason is given')}")
    return lines + _shortfall(session, found["shortfall"] or [])


def _shortfall(session: Session, workers: list[Mapping[str, Any]]) -> list[str]:
    from argus_ray.cli.table import Column

    if not workers:
        return []
    rows = [
        [
            f"{each['gpus_free']:g}",
            f"{each['cpus_free']:g}",
            f"{each['gpus_missing']:g}",
            f"{each['cpus_missing']:g}",
            each["barred"] or "-",
        ]
        for each in workers[:_WORKERS]
    ]
    columns = [Column(name, right=True) for name in ("GPUS FREE", "CPUS FREE", "GPUS SHORT", "CPUS SHORT")]
    lines = ["", *session.out.table_lines([*columns, Column("BARRED", gives_way=True)], rows)]
    if len(workers) > _WORKERS:
        lines.append(f"and {len(workers) - _WORKERS} more workers")
    return lines
