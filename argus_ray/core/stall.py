"""Whether a running attempt makes steps: what follows from the growth of its metrics file. Pure.

verl waits for ever where others would fail: for a placement group that finds no room, for a peer that is gone. Such a
run holds its gang and ends never, so it is told, and if an operator wants it, stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from argus_ray.core.lifecycle import Stall
from argus_ray.core.model import Gang, SlimAttempt
from argus_ray.core.states import AttemptState

#: Two clocks that are told from one another by two readings. Seconds.
_NOISE_S = 2.0


@dataclass(frozen=True)
class StallPolicy:
    #: Seconds without a step; 0: nobody looks.
    after_s: float = 0.0
    #: Whether a stalled attempt is stopped, and its task FAILED.
    stop: bool = False
    #: Seconds after which a gang that was never placed goes back to wait; 0: nobody looks.
    claim_after_s: float = 0.0


@dataclass(frozen=True)
class MetricsSeen:
    """The metrics file of an attempt: verl writes a line a step. Size 0: there is none yet."""

    size: int = 0
    modified_at: float = 0.0


@dataclass(frozen=True)
class Growth:
    """How large the metrics file was when it was last looked at, and when it grew last."""

    size: int
    at: float


def follow(known: Growth | None, seen: MetricsSeen, started_at: float, now: float) -> Growth:
    """`known`: from the look before. Without one only the file's own time tells, which its program could have set."""
    if known is None:
        grown_at = max(started_at, seen.modified_at) if seen.size else started_at
        return Growth(seen.size, min(grown_at, now))
    return Growth(seen.size, now if seen.size > known.size else known.at)


def check_stall(
    attempt: SlimAttempt,
    gang: Gang,
    growth: Growth,
    held_gpus: float,
    now: float,
    policy: StallPolicy,
    *,
    watched_s: float = math.inf,
) -> Stall | None:
    """What to store of this attempt now, if anything is new. `held_gpus`: of its placement groups, in Ray's view.
    `watched_s`: for how long the caller itself has seen it run and not grow. Only that may stop it, since whatever else
    tells a time may be wrong."""
    if attempt.state is not AttemptState.RUNNING or attempt.stop_reason is not None:
        return None
    if policy.after_s <= 0 or now - growth.at < policy.after_s:
        return Stall(attempt.submission_id) if attempt.stalled_since is not None else None
    # A new scheduler knows the last step by the file's time only; that must not make the stall look older.
    since = attempt.stalled_since
    if since is None or growth.at > since + _NOISE_S:
        since = growth.at
    why = _why(gang, growth, held_gpus)
    stop_reason = f"no new step for {now - since:.0f} s: {why}" if policy.stop and watched_s >= policy.after_s else None
    if (since, why, stop_reason) == (attempt.stalled_since, attempt.stalled_why, None):
        return None
    return Stall(attempt.submission_id, since, why, stop_reason)


def _why(gang: Gang, growth: Growth, held_gpus: float) -> str:
    if held_gpus < gang.gpus:
        return f"waits for its placement group: holds {held_gpus:g} of {gang.gpus} GPUs"
    return "its metrics file has not grown" if growth.size else "it has made no step at all"
