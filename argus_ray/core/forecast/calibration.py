"""How much wider a range is told than the futures say, by what came of earlier ones. Pure.

As in conformal prediction: the part of the time by which nearly all that have started missed the futures is what the
next range is widened by. Tasks that wait for one jam start with it, so they are fewer than they look: what is learned
makes a range wider than its margin, and never narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Starts that must have been seen; those of one workload that count alone; and those of late that count.
MIN_HITS, MAX_HITS = 20, 200
#: Starts that may miss a range, on each side.
MISSES = 0.04
#: A range is widened no further: it would tell nothing.
LEAST, MOST = 0.3, 3.0
#: A start that was foretold sooner than this tells of ticks, and not of futures. Seconds.
SOON_S = 60.0


@dataclass(frozen=True)
class Hit:
    """What came of the first range of a task, as parts of the time that the futures said."""

    #: Of the earliest; less than 1: it came sooner than all of them said.
    early: float
    #: Of the latest.
    late: float


@dataclass(frozen=True)
class Widths:
    """What both ends of a range, counted from now, are multiplied by."""

    low: float = 1.0
    high: float = 1.0


#: While nothing has been seen.
UNSEEN = Widths(0.85, 1.2)


def hit(told_at: float, low: float, high: float, started_at: float) -> Hit:
    """`low`, `high`: the ends that the futures said, before they were widened."""
    took = max(0.0, started_at - told_at)
    early = took / (low - told_at) if low - told_at >= SOON_S else 1.0
    return Hit(early, took / max(SOON_S, high - told_at))


def widths(of_workload: Sequence[Hit], of_all: Sequence[Hit]) -> Widths:
    """The newest stand last."""
    hits = of_workload if len(of_workload) >= MIN_HITS else of_all
    if len(hits) < MIN_HITS:
        return UNSEEN
    hits = hits[-MAX_HITS:]
    beyond = int(MISSES * (len(hits) + 1))
    early, late = sorted(each.early for each in hits), sorted((each.late for each in hits), reverse=True)
    # The least of few is not as little as the least of many.
    first, nearest = max(0, beyond - 1), 0.98 if beyond == 0 else 1.0
    return Widths(max(LEAST, min(1.0, nearest * early[first])), min(MOST, max(1.0, late[first] / nearest)))
