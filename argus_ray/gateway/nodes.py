"""The nodes of the pool, and what operators order about them: cordons, drains, maintenance. Admin only, which the
service decides. The wire, then the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.core.actions import OrderNode, SetMaintenance, ShowNodes, ShowOrders
from argus_ray.core.errors import NodeNotFound, Unavailable
from argus_ray.core.model import Cordon, NodeView, OnNodes
from argus_ray.core.orders import CordonState, NodeOrder, cordon_of, cordon_words, find_machine, state_of, that_hold
from argus_ray.gateway.caller import Caller, TheCaller, TheGateway
from argus_ray.gateway.http.body import read_json, schema_of
from argus_ray.gateway.http.params import NoQuery
from argus_ray.gateway.http.schemas import MaintenanceOut, Time, rfc3339, time_or_none

#: A hostname, an address (with its zone), or Ray's node id.
_NAME = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")
_MAX_REASON = 500
#: A year, in seconds.
_MAX_DEADLINE_S = 31_622_400


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    reason: str = Field(default="", max_length=_MAX_REASON, description="For other operators, and for whoever waits")


class CordonRequest(_Request):
    pass


class DrainRequest(_Request):
    deadline_s: int | None = Field(
        default=None,
        ge=0,
        le=_MAX_DEADLINE_S,
        description="Seconds from now, until what still runs there is stopped and goes back to the queue; null: never",
    )


class MaintenanceRequest(_Request):
    on: bool


class CordonOut(BaseModel):
    machine: str = Field(description="Its hostname, or its address where the hostname is not its own")
    state: CordonState
    by: str = Field(description="Who has ordered it")
    since: Time
    reason: str
    deadline: Time | None = Field(description="Of a drain: when what still runs there is stopped")
    tasks: list[str] = Field(description="What still runs there")

    @classmethod
    def of(cls, cordon: Cordon, tasks: Sequence[str]) -> CordonOut:
        return cls(
            machine=cordon.machine,
            state=state_of(cordon, is_busy=bool(tasks)),
            by=cordon.by,
            since=rfc3339(cordon.since),
            reason=cordon.reason,
            deadline=time_or_none(cordon.deadline),
            tasks=list(tasks),
        )


class OrderedOut(CordonOut):
    nodes: list[str] = Field(description="Ray's ids of its nodes that are in the pool now")


class NodeTaskOut(BaseModel):
    task_id: str
    user_id: str
    gpus: int = Field(description="On this node")


class NodeOut(BaseModel):
    node_id: str
    ip: str
    hostname: str
    is_head: bool
    gpus_total: float
    gpus_free: float
    cpus_total: float
    cpus_free: float
    worker_slots_total: float
    worker_slots_free: float
    barred: str | None = Field(description="Why it takes no gang now, whatever it has free")

    cordon: CordonOut | None
    tasks: list[NodeTaskOut] = Field(description="What is on it now; a canceled one until it has left")

    @classmethod
    def of(cls, node: NodeView, cordon: CordonOut | None, barred: str | None, tasks: Sequence[OnNodes]) -> NodeOut:
        return cls(
            node_id=node.node_id,
            ip=node.ip,
            hostname=node.hostname,
            is_head=node.is_head,
            gpus_total=node.gpus_total,
            gpus_free=node.gpus_free,
            cpus_total=node.cpus_total,
            cpus_free=node.cpus_free,
            worker_slots_total=node.worker_slots_total,
            worker_slots_free=node.worker_slots_free,
            barred=barred,
            cordon=cordon,
            tasks=[NodeTaskOut(task_id=each.task_id, user_id=each.user_id, gpus=each.gpus) for each in tasks],
        )


class NodesOut(BaseModel):
    nodes: list[NodeOut]
    away: list[CordonOut] = Field(description="Cordons of machines that are not in the pool now")


router = APIRouter(prefix="/api/v2", tags=["cluster (admin)"], dependencies=[NoQuery])


async def _node_name(node: Annotated[str, Path(description="Its hostname, its address, or Ray's node id")]) -> str:
    return node if _NAME.fullmatch(node) else ""


NodeName = Annotated[str, Depends(_node_name)]


@router.get("/nodes")
async def list_nodes(caller: TheCaller, gateway: TheGateway) -> NodesOut:
    """The live nodes as Ray reports them, with what is on each, and what operators have ordered about it."""
    view = await caller.do(ShowNodes())
    nodes = await gateway.look_at_nodes()
    holding = that_hold(view.orders)
    cordons = [cordon_of(node, holding) for node in nodes]
    covered: dict[str, list[str]] = {}
    for node, cordon in zip(nodes, cordons, strict=True):
        if cordon is not None:
            covered.setdefault(cordon.machine, []).append(node.node_id)
    running = {each.task_id: each.nodes for each in view.tasks}
    told = {machine: CordonOut.of(holding[machine], _tasks_on(running, ids)) for machine, ids in covered.items()}
    on: dict[str, list[OnNodes]] = {}
    for each in view.tasks:
        for node_id in each.nodes:
            on.setdefault(node_id, []).append(each)
    found = []
    for node, cordon in zip(nodes, cordons, strict=True):
        tasks = on.get(node.node_id, ())
        if cordon is None:
            # What the scheduler told last may be older than an order.
            found.append(NodeOut.of(node, None, None if node.is_cordoned else node.barred, tasks))
        else:
            out = told[cordon.machine]
            found.append(NodeOut.of(node, out, cordon_words(cordon, out.state), tasks))
    away = [CordonOut.of(cordon, []) for machine, cordon in holding.items() if machine not in covered]
    return NodesOut(nodes=found, away=away)


@router.post("/nodes/{node}:cordon", openapi_extra=schema_of(CordonRequest, required=False))
async def cordon_node(request: Request, caller: TheCaller, gateway: TheGateway, node: NodeName) -> OrderedOut:
    """No new gang starts on this machine; what runs there goes on. It holds until `:uncordon`, whatever restarts."""
    body = await read_json(request, CordonRequest, optional=True)
    return await _order(caller, gateway, node, NodeOrder.CORDON, body.reason)


@router.post("/nodes/{node}:drain", openapi_extra=schema_of(DrainRequest, required=False))
async def drain_node(request: Request, caller: TheCaller, gateway: TheGateway, node: NodeName) -> OrderedOut:
    """The same, and it is `drained` once what runs there has ended. At the deadline, if there is one, that is stopped,
    and goes back to its place in the queue without a loss."""
    body = await read_json(request, DrainRequest, optional=True)
    return await _order(caller, gateway, node, NodeOrder.DRAIN, body.reason, body.deadline_s)


@router.post("/nodes/{node}:uncordon", openapi_extra=schema_of(CordonRequest, required=False))
async def uncordon_node(request: Request, caller: TheCaller, gateway: TheGateway, node: NodeName) -> OrderedOut:
    """The machine takes gangs again, whatever an operator or the scheduler held against it."""
    body = await read_json(request, CordonRequest, optional=True)
    return await _order(caller, gateway, node, NodeOrder.UNCORDON, body.reason)


async def _order(
    caller: Caller, gateway: TheGateway, name: str, order: NodeOrder, reason: str, deadline_s: float | None = None
) -> OrderedOut:
    # Who may not order may not ask which nodes there are, either.
    known = {cordon.machine for cordon in (await caller.do(ShowOrders())).orders.cordons}
    if not name:
        raise NodeNotFound
    try:
        nodes = await gateway.look_at_nodes()
    except Unavailable:
        # What was named before can be found without the scheduler; whether it is empty cannot be told.
        if order is not NodeOrder.UNCORDON or name not in known:
            raise
        nodes = ()
    machine = find_machine(name, nodes, known)
    view = await caller.do(OrderNode(machine, order, reason, deadline_s))
    gateway.notify_scheduler()
    cordon = next(each for each in view.orders.cordons if each.machine == machine.name)
    out = CordonOut.of(cordon, _tasks_on(view.running, machine.node_ids))
    return OrderedOut(**out.model_dump(), nodes=list(machine.node_ids))


def _tasks_on(running: Mapping[str, Sequence[str]], node_ids: Sequence[str]) -> list[str]:
    wanted = set(node_ids)
    return [task_id for task_id, nodes in running.items() if wanted.intersection(nodes)]


@router.get("/maintenance", operation_id="getMaintenance")
async def show_maintenance(caller: TheCaller) -> MaintenanceOut:
    """Whether it is on."""
    return MaintenanceOut.of((await caller.do(ShowOrders())).orders.maintenance)


@router.put("/maintenance", openapi_extra=schema_of(MaintenanceRequest))
async def set_maintenance(request: Request, caller: TheCaller, gateway: TheGateway) -> MaintenanceOut:
    """On: submissions are accepted and nothing starts; what runs goes on. Off: all goes on in order, at once. It holds
    whatever restarts."""
    body = await read_json(request, MaintenanceRequest)
    after = await caller.do(SetMaintenance(body.on, body.reason))
    gateway.notify_scheduler()
    return MaintenanceOut.of(after)
