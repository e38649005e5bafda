"""Many tasks canceled at once. The caller has authenticated; whose tasks they may be is decided here."""

from __future__ import annotations

from dataclasses import replace

from argus_ray.core.actions import CanceledOne, CancelResult, CancelTasks, ManyCanceled, Principal
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.states import ACTIVE, WAITING, TaskState
from argus_ray.core.task_filter import MAX_CANCELED, TaskFilter
from argus_ray.service import search, tasks
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import search as rows
from argus_ray.store.search import Place

#: In the order of their words, so that a call does the same each time.
_WAITING = tuple(sorted(WAITING))
_ACTIVE = tuple(sorted(ACTIVE))


def cancel(unit: UnitOfWork, principal: Principal, action: CancelTasks) -> ManyCanceled:
    """All of them in this transaction, so at one moment. Each as `tasks.cancel` would."""
    if action.where is None:
        return _named(unit, principal, action)
    where, owner = _checked(action.where), search.owner_of(unit, principal, action.where)
    if owner is None:
        raise _invalid("filter.user_id", "is required: the admin token owns no tasks")
    matched = sum(search.count_of(unit, owner, where).values())
    places = _find(unit, owner, where)
    # In the order in which they were found.
    before = _canceled(unit, principal, places, action)
    results = tuple(_told(name, state, action) for name, state in before.items())
    return ManyCanceled(results, matched=matched, more=matched > len(results))


def _find(unit: UnitOfWork, owner: str, where: TaskFilter) -> list[Place]:
    """Those that wait before those that run: else one that waits could start in the place of one that was canceled."""
    found: list[Place] = []
    for group in (_WAITING, _ACTIVE):
        states = tuple(state for state in group if state in where.states)
        if states and len(found) < MAX_CANCELED:
            found += search.find(unit, owner, replace(where, states=states), MAX_CANCELED - len(found))
    return found


def _named(unit: UnitOfWork, principal: Principal, action: CancelTasks) -> ManyCanceled:
    names = tuple(dict.fromkeys(action.ids))
    if len(names) > MAX_CANCELED:
        raise _invalid("ids", f"at most {MAX_CANCELED}")
    # The owner is part of the query: another user's task is not even read.
    owner = None if principal.is_admin else principal.user_id
    found = {each.task_id: each for each in rows.by_ids(unit.db, owner, names)}
    states = {name: each.state for name, each in found.items()}
    lively = [each.place for each in found.values() if not each.state.is_final]
    before = _canceled(unit, principal, sorted(lively), action)
    results = []
    for name in names:
        if name in before:
            results.append(_told(name, before[name], action))
        elif name in states:
            results.append(CanceledOne(name, CancelResult.ALREADY_ENDED, states[name]))
        else:
            results.append(CanceledOne(name, CancelResult.NOT_FOUND, None))
    return ManyCanceled(tuple(results), matched=len(found), more=False)


def _canceled(unit: UnitOfWork, principal: Principal, places: list[Place], action: CancelTasks) -> dict[str, TaskState]:
    """What each task was before."""
    found = rows.at(unit.db, places)
    for task in () if action.dry_run else found:
        tasks.cancel_one(unit, principal, task)
    return {task.task_id: task.state for task in found}


def _told(name: str, before: TaskState, action: CancelTasks) -> CanceledOne:
    if action.dry_run:
        return CanceledOne(name, CancelResult.WOULD_CANCEL, before)
    return CanceledOne(name, CancelResult.CANCELED, TaskState.CANCELED)


def _checked(where: TaskFilter) -> TaskFilter:
    search.checked(where)
    if any(state.is_final for state in where.states):
        raise _invalid("filter.state", "must be of states that have not ended")
    return replace(where, states=where.states or (*_WAITING, *_ACTIVE))


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
