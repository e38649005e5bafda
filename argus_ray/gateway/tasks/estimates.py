"""When a task may start, and how often that was right: the wire, and the call."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from argus_ray.core.actions import EstimatesView, ShowEstimates
from argus_ray.core.estimates import MAX_TOLD, Basis, Estimate, Range, Unknown, Verdict
from argus_ray.core.model import Task
from argus_ray.gateway.caller import TheCaller
from argus_ray.gateway.http.params import NoQuery
from argus_ray.gateway.http.schemas import Time, rfc3339, tellable

router = APIRouter(prefix="/api/v2/estimates", tags=["tasks"])


class StartRangeOut(BaseModel):
    earliest: Time
    latest: Time
    basis: Basis = Field(
        description="firm: nodes are reserved for it, and nothing that comes later starts before it; "
        "assumes_no_overtaking: something that comes later may"
    )

    @classmethod
    def of(cls, told: Range) -> StartRangeOut:
        return cls(earliest=rfc3339(tellable(told.earliest)), latest=rfc3339(tellable(told.latest)), basis=told.basis)


class NoStartRangeOut(BaseModel):
    unknown: Unknown = Field(description="Why there is no range")


class FirstRangeOut(StartRangeOut):
    at: Time = Field(description="When it was told")


StartOut = StartRangeOut | NoStartRangeOut


def start_of(task: Task, position: int | None = None) -> StartOut | None:
    """None: it does not wait."""
    if not task.state.is_waiting:
        return None
    start = Unknown.NOT_YET if task.estimate is None else task.estimate.start
    if start is Unknown.NOT_YET and position is not None and position > MAX_TOLD:
        start = Unknown.TOO_FAR_BACK
    return start_out(start)


def start_out(start: Range | Unknown) -> StartOut:
    return NoStartRangeOut(unknown=start) if isinstance(start, Unknown) else StartRangeOut.of(start)


def first_of(estimate: Estimate | None) -> FirstRangeOut | None:
    if estimate is None or estimate.first is None or estimate.first_at is None:
        return None
    return FirstRangeOut(at=rfc3339(estimate.first_at), **StartRangeOut.of(estimate.first).model_dump())


class LastOut(BaseModel):
    right: int
    of: int = Field(description="50 at most")


class EstimatesOut(BaseModel):
    """Of the first range that was told of each wait, once the task has started."""

    inside: int
    early: int = Field(description="They started before it")
    late: int = Field(description="They started after it")
    none: int = Field(description="They had to wait for a minute or more, and were told no range")
    last: LastOut = Field(description="Of the newest ones that were told a range")

    @classmethod
    def of_view(cls, view: EstimatesView) -> EstimatesOut:
        counts = {verdict.value: view.counts.get(verdict, 0) for verdict in Verdict}
        return cls(**counts, last=LastOut(right=view.right, of=view.of))


@router.get("", dependencies=[NoQuery])
async def show_estimates(caller: TheCaller) -> EstimatesOut:
    """How often the first range was right: of own tasks; of all tasks for an admin."""
    return EstimatesOut.of_view(await caller.do(ShowEstimates()))
