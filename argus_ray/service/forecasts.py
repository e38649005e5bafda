"""What is told of starts: stored while a task waits, judged when it starts, shown to its owner and to admins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from argus_ray.core.actions import EstimatesView, Principal, Role, ShowEstimates
from argus_ray.core.estimates import GOOD_FOR_S, Basis, Estimate, Range, Unknown, Verdict, judge
from argus_ray.core.forecast.model import RunSeen, Told
from argus_ray.core.model import Task
from argus_ray.core.orders import time_words
from argus_ray.core.states import TaskState
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import events, forecasts, tasks

#: A task that waited for less need not have been told anything. Seconds.
SHORT_WAIT_S = 60.0
_FIRM = "nothing that comes later starts before it"
_OPEN = "if nothing that comes later starts before it"


def foretell(unit: UnitOfWork, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None:
    """`runs`: those that are over, each with its submission id."""
    for submission_id, run in runs:
        forecasts.add_run(unit.db, submission_id, run)
    if not told:
        return
    waiting = tasks.waiting_among(unit.db, [each.task_id for each in told])
    for each in told:
        if each.task_id not in waiting:
            continue  # it has started or ended meanwhile
        first = forecasts.put(unit.db, each.task_id, each.start, unit.now)
        if first is not None:
            events.add_remark(unit.db, each.task_id, unit.now, "note", _first_words(first))


def _first_words(told: Range) -> str:
    rests_on = _FIRM if told.basis is Basis.FIRM else _OPEN
    return f"starts {range_words(told)}, {rests_on}; sooner if a task ends early, later if one is lost"


def range_words(told: Range) -> str:
    return f"between {time_words(told.earliest)} and {time_words(told.latest)}"


def judged(unit: UnitOfWork, task: Task) -> str:
    """Of a task that starts now: counts what it was told, and says so for its event."""
    if task.state is not TaskState.PENDING_RESOURCES:
        return ""
    found = forecasts.of_tasks(unit.db, [task.task_id]).get(task.task_id)
    if found is None and unit.now - task.updated_at < SHORT_WAIT_S:
        return ""
    if found is not None and forecasts.is_judged(unit.db, task.task_id):
        found = None  # of an earlier wait
        if unit.now - task.updated_at < SHORT_WAIT_S:
            return ""
    first = None if found is None else found.first
    verdict = judge(first, unit.now)
    forecasts.count(unit.db, task.task_id, task.user_id, verdict)
    if first is None:
        return ""
    how = {Verdict.INSIDE: "as was told", Verdict.EARLY: "sooner than was told", Verdict.LATE: "later than was told"}
    return f", {how[verdict]} ({range_words(first)})"


def with_estimates(unit: UnitOfWork, found: Sequence[Task]) -> list[Task]:
    """Of those that wait: the newest one; of those that run: what was told before."""
    estimates = forecasts.of_tasks(unit.db, [task.task_id for task in found])
    return [_with_estimate(unit, task, estimates.get(task.task_id)) for task in found]


def _with_estimate(unit: UnitOfWork, task: Task, estimate: Estimate | None) -> Task:
    if not task.state.is_waiting:
        return task if estimate is None else replace(task, estimate=estimate)
    if estimate is None:
        estimate = Estimate(Unknown.NOT_YET, unit.now)
    elif unit.now - estimate.at > GOOD_FOR_S:
        estimate = replace(estimate, start=Unknown.NOT_YET)
    return replace(task, estimate=estimate)


def show(unit: UnitOfWork, principal: Principal, action: ShowEstimates) -> EstimatesView:
    """Of the caller's own tasks; an admin sees those of all."""
    owner = None if principal.role is Role.ADMIN else principal.user_id
    right, of = forecasts.last(unit.db, owner)
    return EstimatesView(forecasts.counts(unit.db, owner), right, of)
