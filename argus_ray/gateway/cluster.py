"""How the service and its pool are, in one answer for an operator's page: what /metrics tells, as far as people look at
it. The wire, then the route."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from argus_ray.core.actions import RequireAdmin
from argus_ray.gateway.caller import TheCaller, TheGateway
from argus_ray.gateway.http.params import NoQuery
from argus_ray.gateway.http.schemas import Time, rfc3339
from argus_ray.gateway.monitoring.families import Snapshot


class PoolGpusOut(BaseModel):
    total: float | None = Field(description="null, as the next two: the scheduler has not told")
    free: float | None = Field(description="On nodes that take gangs")
    barred: float | None = Field(description="Free on nodes that take none for now")
    claimed: int | None = Field(description="By attempts that are not over")


class PoolNodesOut(BaseModel):
    ready: int
    barred: int
    cordoned: int


class WaitingOut(BaseModel):
    tasks: int
    gpus: int
    oldest_s: float = Field(description="Since the oldest one was accepted")


class HeadFileOut(BaseModel):
    age_s: float | None = Field(description="Since head.json was written; null: it was not")
    ttl_s: float | None = Field(description="For how long it is good")
    epoch: int | None


class SharedDiskOut(BaseModel):
    free: int = Field(description="Bytes")
    size: int


class ClusterOut(BaseModel):
    """A part that does not answer leaves null where it would tell."""

    at: Time = Field(description="The clock of the service")
    parts: dict[str, str] = Field(description="As `/readyz` has them")
    maintenance: bool | None
    last_tick_age_s: float | None = Field(description="Since the scheduler's last tick that went well")
    head_file: HeadFileOut | None
    gpus: PoolGpusOut
    nodes: PoolNodesOut | None
    waiting: WaitingOut | None
    shared_disk: SharedDiskOut | None = Field(description="Where the shared filesystem has least free")
    store_bytes: int | None = Field(description="Of the database")
    backup_age_s: float | None = Field(description="Since the newest backup of the database")

    @classmethod
    def of(cls, at: float, found: Snapshot) -> ClusterOut:
        state, scheduler, publisher = found.state, found.actors.scheduler, found.actors.publisher
        pool, space = (None, None) if scheduler is None else (scheduler.pool, scheduler.space)
        nodes = {} if pool is None else pool.nodes
        return cls(
            at=rfc3339(at),
            parts=dict(found.parts),
            maintenance=None if state is None else state.maintenance,
            last_tick_age_s=None if scheduler is None else scheduler.tick_age_s,
            head_file=None
            if publisher is None
            else HeadFileOut(age_s=publisher.age_s, ttl_s=publisher.ttl_s, epoch=publisher.epoch or None),
            gpus=PoolGpusOut(
                total=None if pool is None else pool.gpus_total,
                free=None if pool is None else pool.gpus_free,
                barred=None if pool is None else pool.gpus_barred,
                claimed=None if state is None else state.gpus_claimed,
            ),
            nodes=None
            if pool is None
            else PoolNodesOut(**{name: nodes.get(name, 0) for name in ("ready", "barred", "cordoned")}),
            waiting=None
            if state is None
            else WaitingOut(
                tasks=sum(state.waiting.values()),
                gpus=sum(state.gpus_wanted.values()),
                oldest_s=state.oldest_wait_s,
            ),
            shared_disk=None if space is None else SharedDiskOut(free=space.free, size=space.size),
            store_bytes=None if state is None else state.size,
            backup_age_s=None if state is None else state.backup_age_s,
        )


router = APIRouter(prefix="/api/v2", tags=["cluster (admin)"], dependencies=[NoQuery])


@router.get("/cluster", operation_id="getCluster")
async def show_cluster(caller: TheCaller, gateway: TheGateway) -> ClusterOut:
    """How the service and its pool are: parts, the scheduler's last tick, head.json, GPUs, who waits, the disk. At most
    five seconds old."""
    await caller.do(RequireAdmin())
    return ClusterOut.of(gateway.clock(), await gateway.scraper.snapshot())
