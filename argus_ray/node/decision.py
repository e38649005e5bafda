"""What the watchdog does next: a pure function of what it read, what it joined, and whether its raylet lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from argus_ray.discovery.head_json import HeadRecord, Reading, ReadOutcome
from argus_ray.node.fitness import Trouble


class Verb(str, Enum):
    #: Not in a cluster, and nothing to do yet.
    WAIT = "wait"
    JOIN = "join"
    STAY = "stay"
    #: End the raylet; the next decision may join again.
    LEAVE = "leave"


@dataclass(frozen=True)
class WatchdogDecision:
    verb: Verb
    reason: str


@dataclass(frozen=True)
class Joined:
    """The cluster that this machine is in, or is just joining."""

    address: str
    session: str
    epoch: int


@dataclass(frozen=True)
class Versions:
    """Of this machine. Ray refuses a node of another Ray or Python, down to the patch level (ray 2.60,
    _private/utils.py, check_version_info)."""

    ray: str
    python: str


#: Seconds of trouble after which an idle machine leaves: a mount that is back sooner costs nothing.
LEAVE_AFTER_S = 60.0


def decide(
    reading: Reading,
    joined: Joined | None,
    raylet_alive: bool,
    retry_at: float,
    now: float,
    mine: Versions,
    trouble: Trouble | None = None,
    is_busy: Callable[[], bool] = lambda: True,
) -> WatchdogDecision:
    """One row of the table in docs/architecture.md. `retry_at` and `now` are seconds of the same monotonic clock.
    `trouble`: why programs cannot start here; `is_busy`: whether some run, all the same."""
    if joined is not None and not raylet_alive:
        return WatchdogDecision(Verb.LEAVE, f"the raylet that joined {joined.address} has died")
    record = reading.record
    if joined is not None:
        if trouble is not None and trouble.lasts_s >= LEAVE_AFTER_S and not is_busy():
            return WatchdogDecision(Verb.LEAVE, f"programs cannot start here, and none runs: {trouble.reason}")
        if not reading.is_valid or record is None:
            # A stale or broken file is no reason to kill training.
            return WatchdogDecision(Verb.STAY, f"{reading.outcome.value}, but the raylet lives: {reading.message}")
        found = _compare(record, joined)
        if trouble is not None and found.verb is Verb.STAY:
            return WatchdogDecision(Verb.STAY, f"programs cannot start here: {trouble.reason}")
        return found
    if not reading.is_valid or record is None:
        return WatchdogDecision(Verb.WAIT, f"{reading.outcome.value}: {reading.message}")
    if other := _other_version(record, mine):
        return WatchdogDecision(Verb.WAIT, other)
    if trouble is not None:
        return WatchdogDecision(Verb.WAIT, f"programs cannot start here: {trouble.reason}")
    if now < retry_at:
        return WatchdogDecision(Verb.WAIT, f"the last try failed; the next one comes in {retry_at - now:.0f} s")
    return WatchdogDecision(Verb.JOIN, f"{record.address}, epoch {record.epoch}")


def _compare(record: HeadRecord, joined: Joined) -> WatchdogDecision:
    if record.epoch < joined.epoch:
        # An old head that has not noticed yet that it is one.
        return WatchdogDecision(
            Verb.STAY, f"head.json has epoch {record.epoch}, older than {joined.epoch}, which we joined"
        )
    if record.address != joined.address:
        return WatchdogDecision(Verb.LEAVE, f"the head has moved from {joined.address} to {record.address}")
    if record.session != joined.session:
        return WatchdogDecision(Verb.LEAVE, f"{record.address} has a new Ray session, {record.session}")
    return WatchdogDecision(Verb.STAY, f"in the cluster of {joined.address}")


def _other_version(record: HeadRecord, mine: Versions) -> str | None:
    if record.ray_version != mine.ray:
        return f"other Ray version: the head has {record.ray_version}, this machine {mine.ray}; install the same"
    if record.python_version != mine.python:
        return f"other Python version: the head has {record.python_version}, this machine {mine.python}; use the same"
    return None


def may_take_over(reading: Reading, quiet_s: float, ttl_s: float) -> WatchdogDecision:
    """Whether a head launcher that has the lock may begin: JOIN or WAIT. The lock alone decides who is the head; this
    is for the day on which a filesystem gives the lock of a living head away.

    `quiet_s`: since the content of head.json was last seen to change, or first seen; `ttl_s`: what the file promises,
    or the usual value where it cannot be read.
    """
    if reading.outcome in (ReadOutcome.MISSING, ReadOutcome.EXPIRED):
        return WatchdogDecision(Verb.JOIN, reading.message)
    if quiet_s >= ttl_s:
        return WatchdogDecision(Verb.JOIN, f"head.json has not changed for {quiet_s:.0f} s")
    return WatchdogDecision(Verb.WAIT, f"the head before us may still live: {reading.message}")


def backoff_s(failures: int, entropy: float, *, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Seconds until the next try after so many failures in a row; `entropy` in [0, 1) spreads a thousand machines."""
    return min(most_s, first_s * 2.0 ** min(failures - 1, 16)) * (0.5 + entropy)
