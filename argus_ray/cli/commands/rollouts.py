"""rollouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import draw, ids, safe
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.option("--step", type=click.IntRange(0), metavar="N", help="The samples of this step.")
@click.option("--kind", type=click.Choice(["train", "validation"]), help="[default: train]")
@click.option("--attempt", metavar="N", help="Of this attempt alone.")
@click.option("-n", "number", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@click.option("--max-chars", type=click.IntRange(1, 65_536), default=2000, show_default=True, help="Of a text.")
@pass_session
def rollouts(
    session: Session, typed: str, step: int | None, kind: str | None, attempt: str | None, number: int, max_chars: int
) -> None:
    """Show what a ppo or grpo task has generated.

    Without --step: which steps there are samples of.
    """
    task_id = ids.one(session, typed)
    field = "steps" if step is None else "samples"
    query = {"step": step, "kind": kind, "attempt": attempt, "max_chars": None if step is None else max_chars}
    parts = {"task_id": task_id}
    pages = session.server.pages(paths.ROLLOUTS, field, number, parts, **query)
    out = session.out
    if out.flags.json:
        for page in pages:
            out.event(page)
        return
    shown = 0
    rows = []
    for page in pages:
        if not page["complete"]:
            out.warn("there was more to look at than one call may: some steps are missing")
        for each in page[field]:
            shown += 1
            if step is None:
                rows.append(_row(session, each))
            else:
                _sample(session, each)
    if rows:
        right = [Column(name, right=True) for name in ("STEP", "ATTEMPT", "SAMPLES", "SCORE", "SIZE")]
        out.table([*right, Column("WRITTEN")], rows)
    if not shown:
        out.note("no samples yet")


def _row(session: Session, each: Mapping[str, Any]) -> list[str]:
    samples = "-" if each["samples"] is None else str(each["samples"])
    size = draw.size(each["size"])
    score = draw.number(each["mean_score"])
    return [str(each["step"]), str(each["attempt"]), samples, score, size, session.out.age(each["modified_at"])]


def _sample(session: Session, each: Mapping[str, Any]) -> None:
    out = session.out
    truth = each["ground_truth"]
    words = truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False)
    out.line(out.paint(f"#{each['index']}  score {draw.number(each['score'])}", "bold"))
    out.pairs(
        [
            ("prompt", _text(each["prompt"])),
            ("answer", _text(each["answer"])),
            ("truth", None if truth is None else safe.block(words)),
            ("", "(something is left out)" if each["truncated"] else None),
        ]
    )
    out.line()


def _text(text: str | None) -> str:
    return "-" if text is None else safe.block(text)
