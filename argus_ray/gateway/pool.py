"""The queue, the caller, and the health pages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response

from argus_ray.core.actions import CountQueue, QueueEntry, ShowQueue
from argus_ray.core.errors import Unavailable
from argus_ray.core.usage import ShowMe
from argus_ray.gateway import apart
from argus_ray.gateway.caller import SECURITY, Caller, TheCaller, TheGateway, caller_of, gateway_of
from argus_ray.gateway.context import TOLD, Readiness
from argus_ray.gateway.http import problems
from argus_ray.gateway.http.document import PROBLEM
from argus_ray.gateway.http.params import NoQuery, refuse_query
from argus_ray.gateway.http.schemas import HealthOut, NotReady, ReadyOut, json_response
from argus_ray.gateway.me import MeOut
from argus_ray.gateway.tasks.schemas import QueueCountsOut, QueueOut

_log = logging.getLogger("argus.gateway")

router = APIRouter()

#: Seconds; bounds of what is asked of parts outside the gateway.
_READY_TIMEOUT_S = 5.0


@router.get("/api/v2/me", tags=["tasks"], response_model=MeOut, operation_id="getMe", openapi_extra=SECURITY)
async def who_am_i(request: Request) -> Response:
    """The role, the user and the scopes of this token; what its user has used, and may use."""
    caller = caller_of(request)
    refuse_query(request)
    return json_response(MeOut.of(await caller.do(ShowMe())))


@router.get("/api/v2/queue", tags=["tasks"], operation_id="getQueue", dependencies=[NoQuery])
async def own_queue(caller: TheCaller) -> QueueOut:
    """Own tasks that wait, in the order of the queue, and own tasks that run."""
    return await _queue(caller, everyone=False)


@router.get("/api/v2/admin/queue", tags=["cluster (admin)"], operation_id="getWholeQueue", dependencies=[NoQuery])
async def whole_queue(caller: TheCaller) -> QueueOut:
    """The same, of everyone."""
    return await _queue(caller, everyone=True)


async def _queue(caller: Caller, *, everyone: bool) -> QueueOut:
    entries: tuple[QueueEntry, ...] = await caller.do(ShowQueue(everyone))
    active = [entry.task for entry in entries if entry.task.state.is_active]
    return QueueOut.of(entries, await caller.gateway.progress_of(active))


@router.get("/api/v2/queue:counts", tags=["tasks"], dependencies=[NoQuery])
async def count_queue(caller: TheCaller) -> QueueCountsOut:
    """The queue in numbers: own tasks, and those of others, who are not named."""
    return QueueCountsOut.of(await caller.do(CountQueue()))


@router.get(
    "/healthz",
    tags=["health"],
    response_model=HealthOut,
    operation_id="getHealth",
    responses={
        200: {
            "headers": {"X-Argus-Head": {"schema": {"type": "string"}, "description": "Which head, where it is known"}}
        }
    },
)
async def healthz(request: Request) -> Response:
    """This process answers. It asks nothing of anything else."""
    answer = json_response(HealthOut(status="ok"))
    if head_id := (await gateway_of(request)).head_id:
        answer.headers["X-Argus-Head"] = head_id
    return answer


@router.get(
    "/readyz",
    tags=["health"],
    operation_id="getReadiness",
    responses={503: {"model": NotReady, "description": PROBLEM}},
)
async def readyz(request: Request, gateway: TheGateway) -> Response:
    """The parts that a submission needs, and what is wrong with each; at most a second old."""
    parts = dict(await gateway.readiness())
    missing = ", ".join(sorted(part for part, why in parts.items() if why != "ok" and part not in TOLD))
    if not missing:
        return Response(ReadyOut(status="ready", parts=parts).model_dump_json(), media_type="application/json")
    return problems.response(request, Unavailable(f"Not ready: {missing}."), parts=parts)


class RecentReadiness:
    """What the parts say, asked at most once at a time and kept for a moment. The page is open to everybody, and must
    not carry each request on to all actors. Never raises.
    """

    def __init__(self, ask: Readiness, fresh_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._fresh_s, self._monotonic = ask, fresh_s, monotonic
        self._asking: asyncio.Task[Mapping[str, str]] | None = None
        self._answered_at = 0.0

    async def __call__(self) -> Mapping[str, str]:
        asking = self._asking
        if asking is None or (asking.done() and self._monotonic() - self._answered_at >= self._fresh_s):
            asking = self._asking = apart.begin(self._answer, "argus-readiness")
        return await asyncio.shield(asking)

    async def _answer(self) -> Mapping[str, str]:
        try:
            return await asyncio.wait_for(self._ask(), _READY_TIMEOUT_S)
        except asyncio.TimeoutError:
            return {"readiness": "no answer in time"}
        except Exception:
            # An open page: the exception is for the log alone.
            _log.exception("the readiness check failed")
            return {"readiness": "the check itself failed"}
        finally:
            self._answered_at = self._monotonic()
