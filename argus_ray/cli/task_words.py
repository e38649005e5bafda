"""A task's document of the API in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from argus_ray.cli import draw, safe, when

Document = Mapping[str, Any]
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED"})
WAITING = frozenset({"QUEUED", "PENDING_RESOURCES"})
_WORDS = {"QUEUED": "WAITING", "PENDING_RESOURCES": "WAITING", "SUBMITTING": "STARTING", "SUBMITTED": "STARTING"}
_UNKNOWN = {
    "no_total_steps": "a task before it does not say how many steps it makes",
    "no_pace_yet": "a task before it has not made steps enough to tell its pace",
    "stalled": "a task before it makes no steps",
    "no_history_ahead": "nothing like a task before it has run yet",
    "never_fits": "it does not fit into the pool",
    "too_far_back": "too many tasks are before it",
    "maintenance": "maintenance is on, and nobody can say for how long",
    "low_disk": "the shared disk is nearly full, and nothing starts until there is room",
    "nodes_away": "nodes that it needs take no task now",
    "over_quota": "its user may not hold so many GPUs",
    "own_trouble": "something is wrong with the task itself: its inputs, or its command",
    "too_late": "it is further away than the service looks ahead",
    "not_yet": "it is not worked out yet; ask again in a moment",
}


def has_ended(task: Document) -> bool:
    return task["state"] in FINAL


def state(task: Document) -> str:
    """In one word for a list: whether it is QUEUED or PENDING_RESOURCES, its reason tells better."""
    word = str(task["state"])
    return "STALLED" if word == "RUNNING" and task.get("stalled_since") else _WORDS.get(word, word)


def gpus(task: Document) -> str:
    gang = task["gang"]
    if not gang["gpus"]:
        return f"{gang['cpus']:g} cpu"
    return f"{gang['nnodes']}x{gang['gpus_per_node']}"


def count(number: float, what: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def steps(task: Document) -> str:
    progress = task.get("progress")
    if progress is None:
        return "-"
    total = progress["total_steps"]
    return f"{progress['step']}/{total}" if total is not None else f"{progress['step']}"


def left(task: Document, now: float) -> str:
    """The time that is left of a task that runs, and the time until one that waits starts."""
    if task["state"] in WAITING:
        return starts(task.get("start"), now) or (f"#{task['position']} in line" if task["position"] else "-")
    progress = task.get("progress")
    seconds = progress and progress["seconds_left"]
    return "-" if seconds is None or has_ended(task) else when.span(seconds)


def starts(start: Document | None, now: float) -> str | None:
    """`starts in 35m-1h50m`; None where no range is told. `now`: by the clock of the server, whose times these are."""
    if not start or "earliest" not in start or start["earliest"] is None:
        return None
    early = max(0.0, when.unix(start["earliest"]) - now)
    late = max(0.0, when.unix(start["latest"]) - now)
    if late < 60:
        return "starts within a minute"
    first, last = when.span(early), when.span(late)
    return f"starts in {first}" if first == last else f"starts in {first}-{last}"


def start_sentence(start: Document | None, now: float) -> str | None:
    """The range with what it rests on, or why there is none."""
    if not start:
        return None
    if (found := starts(start, now)) is not None:
        basis = {
            "firm": "nothing younger can start first",
            "assumes_no_overtaking": "unless a younger task that fits goes first",
        }.get(str(start.get("basis")), "")
        return f"{found} ({basis}; sooner if a task ends early)" if basis else found
    why = str(start.get("unknown", ""))
    return f"cannot be told: {_UNKNOWN.get(why, why)}" if why else None


def score(task: Document) -> str:
    progress = task.get("progress")
    headline = progress and progress["headline"]
    return "-" if not headline else draw.number(headline["value"])


def pace(task: Document) -> str | None:
    rate = (task.get("progress") or {}).get("steps_per_s")
    if not rate:
        return None
    return f"{rate:.2g} steps/s" if rate >= 0.1 else f"{1 / rate:.3g} s/step"


def reason(task: Document) -> str:
    return safe.cell(task["stalled_why"] or task["reason"] or "-")


def failure_lines(task: Document) -> list[str]:
    """Why it has FAILED, with the line of the log and what to do next. Of a list's document the reason alone."""
    attempts = task.get("attempts") or []
    failure = attempts[-1]["failure"] if attempts else None
    if not failure:
        first = safe.lines(task["reason"] or "")[0]
        return [first] if first else []
    found = [f"{safe.cell(failure['code'])}: {safe.line(failure['line'])}" if failure["line"] else failure["code"]]
    if failure["hint"]:
        found.append(f"next: {safe.cell(failure['hint'])}")
    return found


def ended_line(task: Document) -> str:
    word = str(task["state"])
    took = ""
    if task["started_at"] and task["ended_at"]:
        took = f" after {when.span(when.unix(task['ended_at']) - when.unix(task['started_at']))}"
    return f"{task['task_id']} {word}{took}"
