"""The ranges: many futures, and what most of them say of each task that waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from argus_ray.core.admission import nodes_reserved
from argus_ray.core.decision import OWN_TROUBLES
from argus_ray.core.estimates import Basis, Range, Unknown
from argus_ray.core.forecast.calibration import Widths
from argus_ray.core.forecast.draw import NEVER, Chance, Future, length, longest
from argus_ray.core.forecast.model import Odds, Question, Run, Told
from argus_ray.core.pool import Pool, could_fit, workers
from argus_ray.core.reasons import Code

#: Futures to which a range may be wrong, on each side.
OUTSIDE = 0.02
#: A range is wider than what the futures say, by this part of the time from now and these seconds; by as much again
#: where so few futures were played, since the least of few is not as little as the least of many.
MARGIN, MARGIN_S, FEW = 0.05, 30.0, 12
#: Likewise each end is moved away from the middle by so many parts of its distance, divided by the number of futures:
#: of 20, every tenth truth lies beyond the least and the most.
FEW_SPREAD = 5.0
#: Futures without which there is no range.
MIN_DRAWS = 20
#: Part of the futures in which what is not known ends soon; in the others it never does.
SOON = 0.3


def foretell(question: Question, chance: Chance, may_go_on: Callable[[int], bool] = lambda played: True) -> list[Told]:
    """For each that waits and is asked for. `may_go_on`: asked before each future, with how many were played. Without
    enough of them nothing is told."""
    told: dict[str, Told] = {}
    asked: list[Run] = []
    stands: list[Run] = []
    for run in question.waiting:
        is_asked = question.only is None or run.task.task_id == question.only
        why = _cannot_be_told(run, question)
        if why is None:
            stands.append(run)
            asked += [run] * is_asked
        elif is_asked:
            told[run.task.task_id] = Told(run.task.task_id, why)
    firm = [run for run in asked if _is_firm(run, question)]
    # Who has trouble of its own takes no room of those behind it until that is over, which nobody knows.
    question = replace(question, waiting=tuple(stands))
    starts: dict[str, list[float]] = {run.task.task_id: [] for run in asked}
    worst: dict[str, float] = {}
    if asked:
        for run in firm:
            worst[run.task.task_id] = _worst(run, question)
        for number in range(question.draws):
            if not may_go_on(number):
                break
            found = _draw(question, chance, number)
            for name, times in starts.items():
                times.append(found.get(name, NEVER))
    for run in asked:
        told[run.task.task_id] = _told(run, question, starts[run.task.task_id], worst.get(run.task.task_id))
    return list(told.values())


def _cannot_be_told(run: Run, question: Question) -> Unknown | None:
    reason = run.task.reason
    if reason is not None and reason.code in OWN_TROUBLES:
        return Unknown.OWN_TROUBLE
    pool = Pool(question.nodes, ())
    if not pool.is_possible(run.task.gang):
        return Unknown.NEVER_FITS
    limit = question.policy.quotas.limit_of(run.task.user_id)
    if limit is not None and run.task.gang.gpus > limit:
        return Unknown.OVER_QUOTA
    return None


def _draw(question: Question, chance: Chance, number: int) -> dict[str, float]:
    now, odds = question.now, question.odds
    # Interleaved, so that a forecast that was cut short has both.
    is_soon = number % 10 < SOON * 10
    ends = {}
    for run in question.running:
        lasts = length(run, odds.get(run.workload, _NO_ODDS), chance)
        ends[run.task.seq] = now + (lasts if lasts < NEVER or not is_soon else chance() * 60.0)
    lengths = {}
    for run in question.waiting:
        lasts = length(run, odds.get(run.workload, _NO_ODDS), chance)
        lengths[run.task.seq] = lasts if lasts < NEVER or not is_soon else chance() * 60.0
        if question.leaves and chance() < question.leaves:
            lengths[run.task.seq] = 0.0
    return Future(question, ends, lengths).play()


def _worst(run: Run, question: Question) -> float:
    """Where all that runs takes as long as any may, and nothing else starts."""
    now, odds = question.now, question.odds
    ends = {other.task.seq: now + longest(other, odds.get(other.workload, _NO_ODDS)) for other in question.running}
    alone = replace(question, waiting=(run,))
    return Future(alone, ends, {run.task.seq: NEVER}).play().get(run.task.task_id, NEVER)


def _told(run: Run, question: Question, times: Sequence[float], worst: float | None) -> Told:
    """`worst`: when it starts at the latest, where that is certain; None: it is not."""
    now, ordered = question.now, sorted(times)
    count = len(ordered)
    if count < min(MIN_DRAWS, question.draws):
        return Told(run.task.task_id, Unknown.NOT_YET)
    low, high = ordered[int(OUTSIDE * count)], ordered[min(count - 1, int((1 - OUTSIDE) * count))]
    if high < NEVER:
        middle = ordered[count // 2]
        low, high = low - FEW_SPREAD / count * (middle - low), high + FEW_SPREAD / count * (high - middle)
    margin = MARGIN * (1 + FEW / count)
    widths = question.widths.get(run.workload, Widths())
    earliest = max(now, now + (low - now) * min(1 - margin, widths.low) - MARGIN_S)
    latest = now + (high - now) * max(1 + margin, widths.high) + MARGIN_S
    if worst is not None:
        latest = max(latest, ordered[-1], now + (worst - now) * (1 + margin) + MARGIN_S)
    if latest == NEVER:
        return Told(run.task.task_id, _why_unknown(run, question))
    basis = Basis.ASSUMES_NO_OVERTAKING if worst is None else Basis.FIRM
    return Told(run.task.task_id, Range(earliest, latest, basis), (low, high))


def _is_firm(run: Run, question: Question) -> bool:
    """Every node that it could use is kept for it, and nobody stands before it: what runs there now is all that it
    waits for, and whatever of that ends sooner makes it no later.

    A reservation of fewer nodes is no such promise. It is of those that are nearest, and moves when another one comes
    nearer; what it has left is open to anybody, for as long as that one runs."""
    task, now, bound_s = run.task, question.now, question.policy.max_overtake_s
    since = task.overtaken_since
    if since is None or now - since < bound_s or (task.not_before is not None and task.not_before > now):
        return False
    if task.reason is not None and task.reason.code in (Code.OVER_QUOTA, Code.LOW_DISK):
        return False
    if any(node.barred is not None and not node.is_cordoned for node in question.nodes):
        return False
    if any(other.task.seq < task.seq for other in question.waiting):
        return False
    if any(other.task.seq < task.seq and other.deadline is not None for other in question.running):
        return False  # a drain stops it, and it comes back to its place
    usable = sum(could_fit(task.gang, node) for node in workers(question.nodes))
    return nodes_reserved(task.gang, now - since, bound_s, usable) >= usable


def _why_unknown(run: Run, question: Question) -> Unknown:
    """Of what is in its way the first thing that is not known."""
    for other in question.running:
        if other.why is not None:
            return other.why
    for other in question.waiting:
        if other.task.seq < run.task.seq and other.why is not None:
            return other.why
    if any(node.barred is not None for node in question.nodes):
        return Unknown.NODES_AWAY
    return Unknown.TOO_LATE


_NO_ODDS = Odds()
