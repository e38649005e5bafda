"""Which tasks a list, a count or a bulk call is about; and what the beginning of a task id says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from argus_ray.core.exports import WORKLOAD as EXPORT
from argus_ray.core.states import TaskState

#: Of tasks as they are shown: an export is one, whatever the task whose checkpoint it is.
KINDS = ("sft", "ppo", "grpo", EXPORT)
#: The end of a task id by which it is found: its random part.
TAIL = 4
#: That one call may name.
MAX_IDS = 100
#: That one call cancels.
MAX_CANCELED = 500

#: What may follow `argus-<user>-<kind>-`, and be cut off anywhere.
_STAMP = re.compile(r"(\d{0,8}|\d{8}-\d{0,6})")
_STAMP_AND_TAIL = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{0,4}")
_FIRST_YEAR, _LAST_YEAR = 1970, 9990


@dataclass(frozen=True)
class TaskFilter:
    """All that is given must hold; what is empty or None narrows nothing."""

    states: tuple[TaskState, ...] = ()
    #: Of KINDS.
    workloads: tuple[str, ...] = ()
    #: By the time of acceptance, in Unix seconds: from `since` on, and before `until`.
    since: float | None = None
    until: float | None = None
    id_prefix: str = ""
    #: At least TAIL characters.
    id_suffix: str = ""
    #: MAX_IDS at most; those that do not exist are left out.
    ids: tuple[str, ...] = ()
    #: Another user's tasks: admin only.
    user_id: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.workloads)) or KINDS

    @property
    def is_by_state_alone(self) -> bool:
        return not (self.workloads or self.has_times or self.id_prefix or self.id_suffix or self.ids)

    @property
    def has_times(self) -> bool:
        return self.since is not None or self.until is not None


EVERYTHING = TaskFilter()


@dataclass(frozen=True)
class Span:
    """Tasks of one owner (None: of all) and one kind, accepted from `since` on and before `until`."""

    user_id: str | None
    kind: str
    since: float = float("-inf")
    until: float = float("inf")

    def within(self, since: float | None, until: float | None) -> Span:
        first = self.since if since is None else max(since, self.since)
        last = self.until if until is None else min(until, self.until)
        return Span(self.user_id, self.kind, first, last)

    @property
    def is_empty(self) -> bool:
        return self.since >= self.until

    @property
    def is_unbounded(self) -> bool:
        return self.since == float("-inf") and self.until == float("inf")


def spans_of_prefix(prefix: str, user_id: str) -> tuple[Span, ...]:
    """Of this user's tasks those whose id begins so, by what an id is made of (ids.task_id): its owner, its kind, and
    the second of its acceptance in UTC. Of one that goes on behind that second the end is still to be compared."""
    owner = f"argus-{user_id}-"
    if owner.startswith(prefix):
        return tuple(Span(user_id, kind) for kind in KINDS)
    if not prefix.startswith(owner):
        return ()
    rest = prefix[len(owner) :]
    found = []
    for kind in KINDS:
        if f"{kind}-".startswith(rest):
            found.append(Span(user_id, kind))
        elif rest.startswith(f"{kind}-"):
            found += _of_stamp(user_id, kind, rest[len(kind) + 1 :])
    return tuple(found)


def names_an_end(prefix: str) -> bool:
    """Whether the prefix goes on behind the second."""
    return bool(re.search(r"-\d{8}-\d{6}-[0-9a-f]+$", prefix))


def possible_owner(prefix: str) -> str | None:
    """All that a prefix can say of the owner: the user ids that begin so, or with which it begins; None: nothing, and
    "" for what no task id begins with."""
    if "argus-".startswith(prefix):
        return None
    return prefix.removeprefix("argus-") if prefix.startswith("argus-") else ""


def _of_stamp(user_id: str, kind: str, text: str) -> list[Span]:
    match = _STAMP.fullmatch(text) or _STAMP_AND_TAIL.fullmatch(text)
    if match is None:
        return []
    digits = match[1].replace("-", "")
    span = Span(user_id, kind, _first_from(digits.ljust(14, "0")), _first_after(digits.ljust(14, "9")))
    return [] if span.is_empty else [span]


def _first_after(digits: str) -> float:
    return _first_from(f"{int(digits) + 1:014d}")


def _first_from(digits: str) -> float:
    """Unix time of the first second whose YYYYMMDDHHMMSS is not before these digits, which may be no time at all."""
    year, month, day, hour, minute, second = (
        int(digits[:-10]),
        *(int(digits[at : at + 2]) for at in range(-10, -2, 2)),
        int(digits[-2:]),
    )
    if year > _LAST_YEAR:
        return float("inf")
    if year < _FIRST_YEAR:
        return float("-inf") if year + 1 < _FIRST_YEAR else 0.0
    if month == 0:
        return _unix(datetime(year, 1, 1))
    if month > 12:
        return _unix(datetime(year + 1, 1, 1))
    first = datetime(year, month, 1)
    following = datetime(year + month // 12, month % 12 + 1, 1)
    if day == 0:
        return _unix(first)
    at = first + timedelta(days=day - 1)
    if at >= following:
        return _unix(following)
    for value, most, unit in (
        (hour, 23, timedelta(hours=1)),
        (minute, 59, timedelta(minutes=1)),
        (second, 59, timedelta(seconds=1)),
    ):
        if value > most:
            # The first of what comes after this day, this hour, this minute.
            return _unix(at + unit * (most + 1))
        at += unit * value
    return _unix(at)


def _unix(at: datetime) -> float:
    """The first time that is told as this second: what an id tells is rounded to microseconds before it is cut off."""
    second = at.replace(tzinfo=timezone.utc).timestamp()
    before, first = second - 1e-6, second
    while before < (middle := (before + first) / 2) < first:
        if datetime.fromtimestamp(middle, timezone.utc).timestamp() >= second:
            first = middle
        else:
            before = middle
    return first
