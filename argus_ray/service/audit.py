"""What is written into the audit: one entry for each thing that was done, in its own transaction; and refusals of what
only admins may. No token and no TaskSpec is ever in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from argus_ray.core import actions, ids
from argus_ray.core.actions import Action, Credential, Principal, Role
from argus_ray.core.audit import DONE, AuditEntry, AuditNews, AuditPage, FollowAudit, ListAudit
from argus_ray.core.errors import ArgusError, FieldError, Forbidden, InvalidRequest, Unauthenticated, UserDisabled
from argus_ray.core.monitoring import ReadMonitoring, ReportGateway
from argus_ray.core.orders import NodeOrder
from argus_ray.core.retention import DAY_S
from argus_ray.core.text import clean
from argus_ray.core.usage import ShowUsage, milliseconds
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import audit, tokens

_MAX_PAGE = 500
_MAX_INTEGER = 2**63 - 1
#: Of a text that a stranger may have chosen.
_MAX_TARGET = 128
#: Of the name of a variable, which operators choose.
_MAX_TOKEN_ID = 64
#: Entries that go in one transaction: some hundredths of a second.
_REMOVED_AT_ONCE = 5_000


@dataclass(frozen=True)
class Act:
    name: str
    target: str | None
    user_id: str | None
    detail: Mapping[str, Any] | None = None


Acts = Callable[[Any, Any], Iterable[Act]]


def _issued(action: actions.IssueToken, answer: Any) -> list[Act]:
    expires_ms = None if answer.info.expires_at is None else milliseconds(answer.info.expires_at)
    return [Act("token.issue", answer.info.token_id, action.user_id, {"label": action.label, "expires_ms": expires_ms})]


def _ordered(action: actions.OrderNode, answer: Any) -> list[Act]:
    detail = {"reason": action.reason}
    if action.order is NodeOrder.DRAIN:
        detail |= {"deadline_s": action.deadline_s}  # type: ignore[dict-item]
    return [Act(f"node.{action.order.value}", action.machine.name, None, detail)]


def _resubmitted(action: actions.ResubmitTask, answer: Any) -> list[Act]:
    detail = {"from": action.task_id, "resume": action.resume}
    return [Act("task.resubmit", answer.task_id, answer.user_id, detail)]


def _exported(action: actions.ExportTask, answer: Any) -> list[Act]:
    made = answer.submitted
    return [Act("task.export", made.task_id, made.user_id, {"of": action.task_id, "step": action.step})]


def _canceled(action: actions.CancelTasks, answer: actions.ManyCanceled) -> list[Act]:
    done = (one.task_id for one in answer.results if one.result is actions.CancelResult.CANCELED)
    return [Act("task.cancel", task_id, ids.user_of(task_id), {"by_one_call": True}) for task_id in done]


#: Of each action that writes: what was done, by the action and its answer. It is asked only if something has changed.
ACTS: Mapping[type[Action[Any]], Acts] = {
    actions.SubmitTask: lambda action, answer: [Act("task.submit", answer.task_id, answer.user_id)],
    actions.ResubmitTask: _resubmitted,
    actions.ExportTask: _exported,
    actions.CancelTask: lambda action, answer: [Act("task.cancel", answer.task.task_id, answer.task.user_id)],
    actions.CancelTasks: _canceled,
    actions.CreateUser: lambda action, answer: [Act("user.create", answer.user_id, answer.user_id)],
    actions.SetUserEnabled: lambda action, answer: [
        Act("user.enable" if action.enabled else "user.disable", action.user_id, action.user_id)
    ],
    actions.IssueToken: _issued,
    actions.RevokeToken: lambda action, answer: [Act("token.revoke", action.token_id, action.user_id)],
    actions.OrderNode: _ordered,
    actions.SetMaintenance: lambda action, answer: [
        Act("maintenance.on" if action.on else "maintenance.off", None, None, {"reason": action.reason})
    ],
    # Of a gateway for itself: what it counts is nobody's doing.
    ReadMonitoring: lambda action, answer: [],
    ReportGateway: lambda action, answer: [],
}
#: What anybody may, of what is their own.
_ANYBODYS = (actions.ListTasks, actions.CountTasks, actions.CancelTasks, actions.ShowQueue)
#: What only admins may: how it is called where it is refused.
REFUSED: Mapping[type[Action[Any]], str] = {
    actions.RequireAdmin: "admin.check",
    actions.CreateUser: "user.create",
    actions.GetUser: "user.show",
    actions.ListUsers: "user.list",
    actions.SetUserEnabled: "user.enable",
    actions.IssueToken: "token.issue",
    actions.ListTokens: "token.list",
    actions.RevokeToken: "token.revoke",
    actions.ShowOrders: "node.list",
    actions.ShowNodes: "node.list",
    actions.OrderNode: "node.cordon",
    actions.SetMaintenance: "maintenance.on",
    actions.ListTasks: "task.list",
    actions.CountTasks: "task.list",
    actions.CancelTasks: "task.cancel",
    actions.ShowQueue: "queue.list",
    ListAudit: "audit.list",
    FollowAudit: "audit.follow",
    ShowUsage: "usage.show",
}


def record(unit: UnitOfWork, who: Credential, principal: Principal, action: Action[Any], answer: Any) -> None:
    """What this call has changed; in the same transaction, so it is told if and only if it was done."""
    for act in ACTS[type(action)](action, answer):
        audit.add(unit.db, _entry(unit, who, principal, act, DONE))


def _entry(unit: UnitOfWork, who: Credential, principal: Principal | None, act: Act, result: str) -> AuditEntry:
    actor = principal.user_id if principal is not None else None
    return AuditEntry(
        audit_id=0,
        at_ms=milliseconds(unit.now),
        actor=Role.ADMIN.value if who.role is Role.ADMIN else actor,
        role=who.role.value,
        token_id=principal.token_id[:_MAX_TOKEN_ID] if principal is not None and principal.token_id else None,
        address=who.address,
        action=act.name,
        target=act.target,
        user_id=act.user_id,
        result=result,
        detail=act.detail,
    )


@dataclass
class Refusals:
    """Refused calls are told, and cannot fill the disk: of one caller and kind one entry a minute, and some of all
    together. What is left out is counted, and told by the next entry."""

    every_s: float = 60.0
    #: Entries within `every_s`.
    most: int = 60
    #: By caller and kind, the oldest first: when it was told by the monotonic clock.
    _told: dict[tuple[str, str], float] = field(default_factory=dict)
    _left_out: int = 0

    def note(self, unit: UnitOfWork, who: Credential, action: Action[Any], error: ArgusError, monotonic: float) -> None:
        if type(action) not in REFUSED or not isinstance(error, (Forbidden, Unauthenticated, UserDisabled)):
            return
        if who.role is Role.GATEWAY:
            return  # a fault of ours, and nobody's act
        if isinstance(action, _ANYBODYS) and not isinstance(error, Forbidden):
            return  # what was refused is the token
        for key, told_at in list(self._told.items()):
            if monotonic - told_at < self.every_s:
                break
            del self._told[key]
        name = _refused_name(action)
        # Of tokens that nobody knows there are more than can be counted.
        caller = f"?{who.address}" if isinstance(error, Unauthenticated) else who.digest or who.role.value
        if (caller, name) in self._told or len(self._told) >= self.most:
            self._left_out += 1
            return
        self._told[caller, name] = monotonic
        left_out, self._left_out = self._left_out, 0
        unit.refused.append(_refused(unit, who, action, name, error, left_out))


def _refused_name(action: Action[Any]) -> str:
    if isinstance(action, actions.SetUserEnabled) and not action.enabled:
        return "user.disable"
    if isinstance(action, actions.OrderNode):
        return f"node.{action.order.value}"
    if isinstance(action, actions.SetMaintenance):
        return "maintenance.on" if action.on else "maintenance.off"
    return REFUSED[type(action)]


def _refused(
    unit: UnitOfWork, who: Credential, action: Action[Any], name: str, error: ArgusError, left_out: int
) -> AuditEntry:
    bearer = None if who.digest is None else tokens.by_digest(unit.db, who.digest)
    principal = None if bearer is None else Principal(Role.USER, bearer.info.user_id, bearer.info.token_id)
    asked = getattr(getattr(action, "where", action), "user_id", None)
    target = getattr(action, "token_id", None) or asked
    if isinstance(action, actions.OrderNode):
        target = action.machine.name
    act = Act(
        name,
        None if target is None else clean(target[:_MAX_TARGET]),
        None if asked is None else clean(asked[:_MAX_TARGET]),
        {"left_out": left_out} if left_out else None,
    )
    return _entry(unit, who, principal, act, error.code)


def write_refused(unit: UnitOfWork, entries: Iterable[AuditEntry]) -> None:
    for entry in entries:
        audit.add(unit.db, entry)


def tell_bad_tokens(unit: UnitOfWork, address: str, count: int) -> None:
    """So many requests from this address had a token that is not good."""
    act = Act("token.refused", None, None, {"count": count})
    audit.add(unit.db, _entry(unit, Credential(Role.USER, address=address or None), None, act, Unauthenticated.code))


def list_page(unit: UnitOfWork, action: ListAudit) -> AuditPage:
    _check_range("limit", action.limit, 1, _MAX_PAGE)
    found = audit.page(unit.db, action.wanted, action.before, action.limit + 1)
    shown = found[: action.limit]
    more = len(found) > action.limit
    return AuditPage(shown, (shown[-1].at_ms, shown[-1].audit_id) if more else None)


def follow(unit: UnitOfWork, action: FollowAudit) -> AuditNews:
    _check_range("limit", action.limit, 1, _MAX_PAGE)
    newest = audit.newest(unit.db)
    if action.after is None:
        return AuditNews((), newest)
    _check_range("after", action.after, 0, _MAX_INTEGER)
    return AuditNews(audit.after(unit.db, action.after, action.limit), newest)


def trim(unit: UnitOfWork, certain: float) -> int:
    """Entries that are older than the settings keep them; a part of them. `certain`: Unix time that is never too late,
    since what has gone does not come back."""
    days = unit.ports.settings.retention.audit_days
    if not days:
        return 0
    return audit.remove_before(unit.db, milliseconds(certain - days * DAY_S), _REMOVED_AT_ONCE)


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is not valid", [FieldError(field, f"must be from {low} to {high}")])
