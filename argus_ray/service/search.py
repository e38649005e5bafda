"""Lists and counts of tasks by a filter. The caller has authenticated; whose tasks they may be is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argus_ray.core.actions import CountTasks, ListTasks, Principal, TaskPage
from argus_ray.core.errors import FieldError, Forbidden, InvalidRequest, UserNotFound
from argus_ray.core.states import TaskState
from argus_ray.core.task_filter import (
    KINDS,
    MAX_IDS,
    TAIL,
    Span,
    TaskFilter,
    names_an_end,
    possible_owner,
    spans_of_prefix,
)
from argus_ray.service.forecasts import with_estimates
from argus_ray.service.tasks import MAX_INTEGER, check_range, for_list
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import queue, users
from argus_ray.store import search as rows
from argus_ray.store.search import Found, Place

_MAX_PAGE = 500
#: Users that the beginning of an id may be of.
_MAX_OWNERS = 16


def list_page(unit: UnitOfWork, principal: Principal, action: ListTasks) -> TaskPage:
    """A user sees their own; ADMIN sees all, and INTERNAL, whose clients know of no other users, its own.
    Both may name a user. A user who names another one is Forbidden, whether or not that one exists."""
    check_range("limit", action.limit, 1, _MAX_PAGE)
    below = MAX_INTEGER if action.cursor is None else action.cursor
    check_range("cursor", below, 0, MAX_INTEGER)
    where, owner = checked(action.where), owner_of(unit, principal, action.where)
    if where.is_by_state_alone:
        found = queue.page(unit.db, owner, states_of(where), below, action.limit + 1)
    else:
        after = None if action.cursor is None else _after(unit, owner, action.cursor)
        found = rows.at(unit.db, find(unit, owner, where, action.limit + 1, after=after))
    shown = tuple(for_list(unit, task) for task in with_estimates(unit, found[: action.limit]))
    return TaskPage(shown, shown[-1].seq if len(found) > action.limit else None)


def count(unit: UnitOfWork, principal: Principal, action: CountTasks) -> Mapping[TaskState, int]:
    """Of the tasks that the list of this filter would show, by state."""
    return count_of(unit, owner_of(unit, principal, action.where), checked(action.where))


def count_of(unit: UnitOfWork, owner: str | None, where: TaskFilter) -> Mapping[TaskState, int]:
    """The same, of this owner (None: of all)."""
    known = dict.fromkeys(TaskState, 0)
    if where.ids or where.id_suffix:
        for each in _by_id(unit, owner, where):
            known[each.state] += 1
        return known
    spans, prefix = _spans(unit, owner, where)
    return known | rows.count(unit.db, spans, states_of(where), prefix=prefix)


def find(
    unit: UnitOfWork, owner: str | None, where: TaskFilter, limit: int, *, after: Place | None = None
) -> list[Place]:
    """The newest of them after this place."""
    if where.ids or where.id_suffix:
        places = sorted((each.place for each in _by_id(unit, owner, where)), reverse=True)
        return [place for place in places if after is None or place < after][:limit]
    spans, prefix = _spans(unit, owner, where)
    return rows.walk(unit.db, spans, states_of(where), limit, after=after, prefix=prefix)


def owner_of(unit: UnitOfWork, principal: Principal, where: TaskFilter) -> str | None:
    """Whose tasks are meant; None: everybody's."""
    if where.user_id is None or where.user_id == principal.user_id:
        return principal.user_id
    if not principal.is_admin:
        raise Forbidden("another user's tasks are for the admin")
    if users.find(unit.db, where.user_id) is None:
        raise UserNotFound
    return where.user_id


def states_of(where: TaskFilter) -> tuple[TaskState, ...]:
    return tuple(dict.fromkeys(where.states)) or tuple(TaskState)


def checked(where: TaskFilter) -> TaskFilter:
    if not set(where.workloads) <= set(KINDS):
        raise _invalid("workload", f"must be of {', '.join(KINDS)}")
    if len(where.ids) > MAX_IDS:
        raise _invalid("ids", f"{MAX_IDS} at most")
    if where.id_suffix and len(where.id_suffix) < TAIL:
        raise _invalid("id_suffix", f"at least {TAIL} characters")
    return where


def _after(unit: UnitOfWork, owner: str | None, cursor: int) -> Place:
    place = rows.place(unit.db, owner, cursor)
    if place is None:
        raise InvalidRequest(
            "The cursor is not one of this list.", [FieldError("cursor", "must come from a page before")]
        )
    return place


def _by_id(unit: UnitOfWork, owner: str | None, where: TaskFilter) -> list[Found]:
    """Few rows, of which each is looked at."""
    found = rows.by_ids(unit.db, owner, where.ids) if where.ids else rows.by_suffix(unit.db, owner, where.id_suffix)
    states, kinds = states_of(where), where.kinds
    return [
        each
        for each in found
        if each.state in states
        and each.kind in kinds
        and each.task_id.startswith(where.id_prefix)
        and each.task_id.endswith(where.id_suffix)
        and (where.since is None or each.place[0] >= where.since)
        and (where.until is None or each.place[0] < where.until)
    ]


def _spans(unit: UnitOfWork, owner: str | None, where: TaskFilter) -> tuple[Sequence[Span], str]:
    """Where to walk, and what of the prefix is still to be compared on the way."""
    prefix = where.id_prefix
    if not prefix:
        spans: Sequence[Span] = [Span(owner, kind) for kind in KINDS]
    else:
        spans = [span for each in _owners(unit, owner, prefix) for span in _of_prefix(prefix, each)]
    wanted = (span.within(where.since, where.until) for span in spans if span.kind in where.kinds)
    return [span for span in wanted if not span.is_empty], prefix if names_an_end(prefix) else ""


def _of_prefix(prefix: str, owner: str | None) -> Sequence[Span]:
    return [Span(None, kind) for kind in KINDS] if owner is None else spans_of_prefix(prefix, owner)


def _owners(unit: UnitOfWork, owner: str | None, prefix: str) -> Sequence[str | None]:
    if owner is not None:
        return [owner]
    named = possible_owner(prefix)
    if named is None:
        return [None]
    found = users.by_beginning(unit.db, named, _MAX_OWNERS + 1) if named else ()
    if len(found) > _MAX_OWNERS:
        raise _invalid("id_prefix", f"may be of the tasks of {_MAX_OWNERS} users at most: give more of it, or user_id")
    return found


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
