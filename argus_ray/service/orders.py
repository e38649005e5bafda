"""What operators order about the pool: cordons, drains, maintenance. For admins only; the caller has checked that.

Each order is a line of the log that names who gave it.
"""

from __future__ import annotations

import logging
import math
import unicodedata

from argus_ray.core.actions import NodesView, OrderNode, OrdersView, Principal, SetMaintenance
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.model import Cordon, Maintenance
from argus_ray.core.orders import NodeOrder, that_hold
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import attempts, orders

_log = logging.getLogger(__name__)

_MAX_REASON = 500
#: A year, in seconds.
_MAX_DEADLINE_S = 366 * 86_400.0


def show(unit: UnitOfWork) -> OrdersView:
    found = orders.read(unit.db)
    return OrdersView(found, attempts.nodes_in_use(unit.db) if that_hold(found) else {})


def show_nodes(unit: UnitOfWork) -> NodesView:
    return NodesView(orders.read(unit.db), attempts.on_nodes(unit.db))


def order_node(unit: UnitOfWork, admin: Principal, action: OrderNode) -> OrdersView:
    """An order about a machine under one of its names ends those under the others."""
    reason = _checked(action.reason)
    if action.deadline_s is not None and not (
        action.order is NodeOrder.DRAIN
        and math.isfinite(action.deadline_s)
        and 0 <= action.deadline_s <= _MAX_DEADLINE_S
    ):
        raise _invalid("deadline_s", "must be seconds from 0 to a year, of a drain")
    is_cleared = action.order is NodeOrder.UNCORDON
    others = [name for name in action.machine.names if name != action.machine.name]
    orders.clear(unit.db, others, unit.now)
    orders.put(
        unit.db,
        Cordon(
            machine=action.machine.name,
            by=admin.role.value,
            since=unit.now,
            reason=reason,
            drain=action.order is NodeOrder.DRAIN,
            deadline=None if action.deadline_s is None else unit.now + action.deadline_s,
            cleared_at=unit.now if is_cleared else None,
        ),
    )
    within = "" if action.deadline_s is None else f" within {action.deadline_s:g} s"
    who, what = admin.role.value, action.order.value
    _log.info("%s orders: %s %s%s (%s)", who, what, action.machine.name, within, reason or "no reason given")
    return show(unit)


def set_maintenance(unit: UnitOfWork, admin: Principal, action: SetMaintenance) -> Maintenance | None:
    """While it is on nobody overtakes anybody, so the clocks of that stand still."""
    reason, who = _checked(action.reason), admin.role.value
    before = orders.read(unit.db).maintenance
    if before is None and not action.on:
        return None
    since = unit.now if before is None else before.since
    after = Maintenance(who, since, reason) if action.on else None
    if after is None:
        orders.stand_still(unit.db, since, max(since, unit.now))
    orders.set_maintenance(unit.db, after)
    _log.info("%s orders: maintenance %s (%s)", who, "on" if action.on else "off", reason or "no reason given")
    return after


def _checked(reason: str) -> str:
    if len(reason) > _MAX_REASON or any(unicodedata.category(char).startswith("C") for char in reason):
        raise _invalid("reason", f"at most {_MAX_REASON} characters, without control characters")
    return reason


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
