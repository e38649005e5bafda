"""What is told of when a task may start, and whether it was right. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: Tasks of the line that are told a range.
MAX_TOLD = 200
#: An estimate that is older is worth nothing any more: it is made anew each half minute. Seconds.
GOOD_FOR_S = 300.0


class Basis(str, Enum):
    """What a range rests on. The API shows these."""

    #: Every node that the task could use is kept for it, and nobody stands before it.
    FIRM = "firm"
    #: Others may start before it, for some times `max_overtake_s` from the first one on.
    ASSUMES_NO_OVERTAKING = "assumes_no_overtaking"


class Unknown(str, Enum):
    """Why there is no range. The API shows these."""

    #: How many steps a run in the way has in all is not known.
    NO_TOTAL_STEPS = "no_total_steps"
    #: It has made too few steps to tell how long one takes.
    NO_PACE_YET = "no_pace_yet"
    #: It makes no steps.
    STALLED = "stalled"
    #: How long a task before it will run is not known: its user has run nothing like it.
    NO_HISTORY_AHEAD = "no_history_ahead"
    NEVER_FITS = "never_fits"
    TOO_FAR_BACK = "too_far_back"
    #: Nothing starts, for how long is not known.
    MAINTENANCE = "maintenance"
    LOW_DISK = "low_disk"
    #: Nodes that it needs take no gang now.
    NODES_AWAY = "nodes_away"
    OVER_QUOTA = "over_quota"
    #: Its inputs are gone or not known, or its command cannot be made.
    OWN_TROUBLE = "own_trouble"
    #: Not within the time that was looked at.
    TOO_LATE = "too_late"
    #: Nobody has worked it out yet.
    NOT_YET = "not_yet"


@dataclass(frozen=True)
class Range:
    earliest: float
    latest: float
    basis: Basis


@dataclass(frozen=True)
class Estimate:
    """Of one task that waits, or did."""

    #: As of `at`.
    start: Range | Unknown
    at: float
    #: The first range that was told for this wait, and when; None: none was yet.
    first: Range | None = None
    first_at: float | None = None


class Verdict(str, Enum):
    """Of the first range that was told, once the task has started. The API and its metrics show these."""

    INSIDE = "inside"
    EARLY = "early"
    LATE = "late"
    #: It had to wait, and was told no range.
    NONE = "none"


def judge(first: Range | None, started_at: float) -> Verdict:
    if first is None:
        return Verdict.NONE
    if started_at < first.earliest:
        return Verdict.EARLY
    return Verdict.LATE if started_at > first.latest else Verdict.INSIDE
