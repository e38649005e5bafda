"""The pass of quotas over the tasks that wait, before anything is placed: whether a user may have what a task needs
depends on what the user holds and on the tasks before it, and not on what is free.

Each user's tasks take the quota in their order, after what runs. One that waits for room keeps its part, and one for
which nothing is left closes the quota: else small ones would keep a large one of the same user waiting for ever.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from argus_ray.core.model import Gang
from argus_ray.core.pool import Clock, Verdict
from argus_ray.core.quotas import Quotas
from argus_ray.core.reasons import Code, because
from argus_ray.core.shares import Shares
from argus_ray.core.waiting import Section


@dataclass
class Bookings:
    """What came of it."""

    #: What is taken of each user's quota, by user; more than the quota: it is closed.
    taken: dict[str, int] = field(default_factory=dict)
    #: Tasks that were looked at one by one.
    looks: int = 0


def book(sections: Sequence[Section], quotas: Quotas, shares: Shares, is_possible: Callable[[Gang], bool]) -> Bookings:
    """Says of each section how far it is open, and why not from there on. `sections`: of tasks whose own time has come.
    `is_possible`: whether a gang would fit into the empty pool; for one that would not nothing is kept."""
    found = Bookings(dict(shares.running if shares.taken is None else shares.taken))
    gpus_of: dict[Gang, int] = {}
    too_large: dict[tuple[int, int], Verdict] = {}
    of_user: dict[tuple[str, int], list[tuple[int, Section]]] = {}
    for section in sections:
        user_id, gang = section.traits.user_id, section.traits.gang
        limit = quotas.limit_of(user_id)
        if limit is None:
            continue
        gpus = gpus_of.get(gang)
        if gpus is None:
            gpus = gpus_of[gang] = gang.gpus if is_possible(gang) else 0
        if gpus > limit:
            verdict = too_large.get((gpus, limit))
            if verdict is None:
                verdict = Verdict(because(Code.QUOTA_TOO_SMALL, gpus=gpus, limit=limit), Clock.STANDS)
                too_large[gpus, limit] = verdict
            section.opened, section.refusal = 0, verdict
        elif gpus:
            of_user.setdefault((user_id, limit), []).append((gpus, section))
    for (user_id, limit), theirs in of_user.items():
        _take(user_id, limit, theirs, shares.running.get(user_id, 0), found)
    return found


def _take(user_id: str, limit: int, theirs: Sequence[tuple[int, Section]], running: int, found: Bookings) -> None:
    """Of one user: at once where the quota is enough for all, else one by one until it is closed."""
    taken = found.taken.get(user_id, 0)
    wanted = sum(gpus * section.end for gpus, section in theirs)
    if taken + wanted <= limit:
        found.taken[user_id] = taken + wanted
        return
    heads = [(section.place(0), number) for number, (_, section) in enumerate(theirs)]
    heapq.heapify(heads)
    at = [0] * len(theirs)
    while True:
        closed, number = heads[0]
        gpus, section = theirs[number]
        found.looks += 1
        if taken <= limit:
            taken += gpus
        if taken > limit:
            break
        at[number] += 1
        if at[number] < section.end:
            heapq.heapreplace(heads, (section.place(at[number]), number))
        else:
            heapq.heappop(heads)
    found.taken[user_id] = taken
    refusal = Verdict(
        because(Code.OVER_QUOTA, limit=limit), Clock.STANDS, because(Code.QUOTA_USED, limit=limit, running=running)
    )
    for _, section in theirs:
        section.opened, section.refusal = section.index(closed), refusal
