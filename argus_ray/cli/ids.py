"""From what a person types to a whole task id."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from argus_ray.cli import safe
from argus_ray.cli.exits import NOT_FOUND, USAGE, CliError
from argus_ray.client import paths

if TYPE_CHECKING:
    from argus_ray.cli.session import Session

WHOLE = re.compile(r"argus-[a-z0-9]+(?:-[a-z0-9]+)*-[a-z]+-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
_SUFFIX = re.compile(r"[0-9a-fA-F]{4}")
_PREFIX = re.compile(r"[a-z0-9-]{1,80}")
_SHOWN = 10
_MOST_FROM_STDIN = 10_000


def short(task_id: str) -> str:
    """The four hex digits at its end."""
    return task_id.rpartition("-")[2]


def shorts(task_ids: Sequence[str]) -> dict[str, str]:
    """For a list: the ends, but whole ids where two tasks share one."""
    ends = [short(each) for each in task_ids]
    return {each: end if ends.count(end) == 1 else each for each, end in zip(task_ids, ends, strict=True)}


def one(session: Session, typed: str) -> str:
    """One whole id. Raises CliError."""
    found = many(session, [typed])
    if len(found) != 1:
        raise CliError(f"{len(found)} ids came from stdin, where one is wanted", USAGE)
    return found[0]


def many(session: Session, typed: Iterable[str]) -> list[str]:
    """Whole ids in their order, each once. Raises CliError."""
    words: list[str] = []
    for each in typed:
        words += _from_stdin() if each == "-" else [each]
    return list(dict.fromkeys(_whole(session, word) for word in words))


def _from_stdin() -> list[str]:
    words = sys.stdin.read().split()
    if not words:
        raise CliError("no ids came from stdin", USAGE)
    if len(words) > _MOST_FROM_STDIN:
        raise CliError(f"more than {_MOST_FROM_STDIN} ids came from stdin", USAGE)
    return words


def _whole(session: Session, word: str) -> str:
    if WHOLE.fullmatch(word):
        # Whether there is such a task, the call that it is for will tell.
        return word
    if word == "last":
        # A list of an admin's has everybody's tasks; the newest of them is hardly the one that is meant.
        me = session.server.get(paths.ME)
        if me["role"] != "user" and me["user_id"] is None:
            words = "`last` is the newest task of your own, and an admin's token owns none"
            raise CliError(words, NOT_FOUND, code="task_not_found", hint="name it by its id: argus tasks")
        whose = None if me["role"] == "user" else me["user_id"]
        found = session.server.get(paths.TASKS, limit=1, user_id=whose)["tasks"]
        if not found:
            raise CliError("there is no task yet", NOT_FOUND, code="task_not_found", hint="argus submit FILE")
        return str(found[0]["task_id"])
    if _SUFFIX.fullmatch(word):
        return _only(session, word, "ends with", id_suffix=word.lower())
    if not _PREFIX.fullmatch(word):
        raise CliError(f"{safe.cell(word)!r} is no id of a task", NOT_FOUND, hint="argus tasks")
    return _only(session, word, "begins with", id_prefix=word)


def _only(session: Session, word: str, how: str, **where: str | None) -> str:
    page = session.server.get(paths.TASKS, None, limit=_SHOWN + 1, **where)
    found = page["tasks"]
    if len(found) == 1 and page["next_cursor"] is None:
        return str(found[0]["task_id"])
    if not found:
        raise CliError(f"no task of yours {how} {word}", NOT_FOUND, code="task_not_found", hint="argus tasks --all")
    lines = [f"{each['task_id']}  {each['state']}" for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append("...")
    raise CliError(
        f"more than one task {how} {word}",
        NOT_FOUND,
        code="ambiguous_id",
        candidates=[safe.cell(each).replace(" ", "  ") for each in lines],
        hint="give more of the id",
    )
