"""The gateway as one ASGI application, free of Ray: everything that touches the cluster is injected."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.middleware import Middleware

import argus_ray
from argus_ray.config import Settings
from argus_ray.disk.inputs import Preflight
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway import about, audit, cluster, pool, presets, usage, users
from argus_ray.gateway import nodes as node_routes
from argus_ray.gateway.changes import routes as changes
from argus_ray.gateway.changes.hub import HubPace
from argus_ray.gateway.changes.streams import ChangeStreams
from argus_ray.gateway.command import routes as command
from argus_ray.gateway.console import routes as console
from argus_ray.gateway.context import GatewayParts, KnownTokens, Nodes, PoolLook, Readiness, ReadProgress, StartLook
from argus_ray.gateway.control import ControlPlane, Wake
from argus_ray.gateway.files import routes as files_of_tasks
from argus_ray.gateway.files.download import Downloads
from argus_ray.gateway.http import document, early, pages, problems
from argus_ray.gateway.http.access import Edge
from argus_ray.gateway.http.address import client_address
from argus_ray.gateway.http.auth import Authenticator, Tokens
from argus_ray.gateway.http.express import Express
from argus_ray.gateway.http.prefix import TrustedProxies
from argus_ray.gateway.http.schemas import Problem
from argus_ray.gateway.logs import routes as logs
from argus_ray.gateway.logs import search
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.gateway.logs.stream import StreamLimit, StreamTiming
from argus_ray.gateway.metrics import many as many_curves
from argus_ray.gateway.metrics import routes as metrics
from argus_ray.gateway.metrics import sparklines
from argus_ray.gateway.metrics.curves import CurveReader
from argus_ray.gateway.metrics.progress import ProgressReader
from argus_ray.gateway.metrics.shared import Comparisons
from argus_ray.gateway.monitoring import routes as monitoring
from argus_ray.gateway.monitoring.scrape import AskActors, Scraper, nobody
from argus_ray.gateway.monitoring.tally import Tally
from argus_ray.gateway.rollouts import routes as rollouts
from argus_ray.gateway.rollouts.shared import Rollouts
from argus_ray.gateway.tasks import bulk as bulk_tasks
from argus_ray.gateway.tasks import estimates, exports
from argus_ray.gateway.tasks import many as many_tasks
from argus_ray.gateway.tasks import routes as tasks
from argus_ray.gateway.tasks.inputs import InputChecks
from argus_ray.gateway.tasks.recipes import RecipeBook

#: BoundedThreads that read logs and the ends of metrics. They wait for a disk, not for a CPU.
_FILE_THREADS = 8
#: BoundedThreads that digest metrics, which takes the CPU from everything else in this process.
_CURVE_THREADS = 2
#: Those of the look at inputs are apart: when it hangs it is abandoned, and logs go on.
_PREFLIGHT_THREADS = 8
#: Seconds that a submission waits for the look at its inputs; without an answer it is accepted with a warning.
_PREFLIGHT_S = 5.0


def create_app(
    *,
    control: ControlPlane,
    settings: Settings,
    tokens: Tokens,
    nodes: Nodes,
    readiness: Readiness,
    wake: Wake,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    progress: ReadProgress | None = None,
    curves: CurveReader | None = None,
    streams: StreamLimit | None = None,
    changes_pace: HubPace | None = None,
    changes_limit: StreamLimit | None = None,
    timing: StreamTiming | None = None,
    flow: FlowLimits | None = None,
    downloads: Downloads | None = None,
    comparisons: Comparisons | None = None,
    ready_fresh_s: float = 1.0,
    sets_request_id: bool = True,
    head_id: str = "",
    trusted: TrustedProxies | None = None,
    pool_now: PoolLook | None = None,
    start_of: StartLook | None = None,
    behind_haproxy: bool = False,
    actor_facts: AskActors = nobody,
) -> Express:
    """The application. It belongs to one event loop, and keeps nothing that a restart would lose for good.

    `ready_fresh_s`: how long an answer of /readyz may be told again, in seconds.
    `sets_request_id`: False behind Serve, whose proxy gives each request an id and answers with it itself.
    `head_id`: what `/healthz` answers with, for the launcher of this head.
    `pool_now`: what is free by the scheduler's own account; what `nodes` shows without it.
    `start_of`: when what nobody has submitted yet might start; not known without it.
    `trusted`: the proxies that may say which prefix they have stripped, and for whom they ask; those of this machine
    without it. `behind_haproxy`: all requests come through HAProxy of Serve.
    `actor_facts`: what the scheduler and the publisher tell for /metrics.
    """
    files = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="argus-files")
    curve_threads = ThreadPoolExecutor(_CURVE_THREADS, thread_name_prefix="argus-curves")

    streams = streams or StreamLimit()
    trusted = trusted or TrustedProxies()
    tally = Tally(lambda: streams.open, functools.partial(client_address, trusted=trusted, haproxy=behind_haproxy))
    methods = early.Methods()
    edge = functools.partial(
        Edge,
        answer_early=functools.partial(early.answer, methods=methods),
        internal_error=problems.internal_error,
        count_problem=tally.count,
        clock=clock,
        sets_request_id=sets_request_id,
    )
    preflight = BoundedThreads("argus-preflight", _PREFLIGHT_THREADS)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reporting = asyncio.create_task(tally.report_on(control), name="argus-reports")
        yield
        reporting.cancel()
        await app.state.changes.close()
        for threads in (files, curve_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="Argus",
        version=argus_ray.__version__,
        description="Training tasks on a Ray cluster. Errors are RFC 9457 problems with a stable `code`.",
        middleware=[Middleware(edge)],
        lifespan=lifespan,
        # Pages of our own, which know the prefix of a proxy.
        openapi_url=None,
        # A slash too many is a 404, not a redirect that a client follows without its body or its token.
        redirect_slashes=False,
        responses={status: {"model": Problem, "description": document.PROBLEM} for status in ("4XX", "5XX")},
        generate_unique_id_function=document.operation_id,
    )
    recent = pool.RecentReadiness(readiness, ready_fresh_s)
    app.state.gateway = GatewayParts(
        control=control,
        settings=settings,
        clock=clock,
        authenticator=Authenticator(tokens),
        nodes=nodes,
        readiness=recent,
        wake=wake,
        read_progress=progress or ProgressReader(),
        files=files,
        curve_threads=curve_threads,
        curves=curves or CurveReader(),
        known_tokens=KnownTokens(monotonic),
        recipes=RecipeBook(settings.verl.recipes()),
        scraper=Scraper(
            control, recent, actor_facts, tally, per_user=settings.monitoring.per_user, monotonic=monotonic
        ),
        inputs=InputChecks(Preflight(preflight, _PREFLIGHT_S, settings.shared_root).look, monotonic=monotonic),
        streams=streams,
        timing=timing or StreamTiming(ends_s=settings.scheduling.stop_grace_s + 60.0),
        flow=flow or FlowLimits(),
        downloads=downloads or Downloads(),
        rollouts=Rollouts(),
        comparisons=comparisons or Comparisons(),
        head_id=head_id,
        trusted=trusted,
        pool_now=pool_now,
        start_of=start_of,
        behind_haproxy=behind_haproxy,
    )
    app.state.openapi = {}
    app.state.changes = ChangeStreams(app.state.gateway, pace=changes_pace, limit=changes_limit)
    features = (
        users,
        many_tasks,
        bulk_tasks,
        tasks,
        estimates,
        exports,
        logs,
        search,
        metrics,
        many_curves,
        sparklines,
        rollouts,
        changes,
        files_of_tasks,
        presets,
        pool,
        node_routes,
        cluster,
        pages,
        console,
        about,
        audit,
        usage,
    )
    routers = [module.router for module in features]
    routers += [tasks.verbs, monitoring.router, command.router]
    for router in routers:
        app.include_router(router)
    document.describe(app)
    routes = [*app.routes, *(route for router in routers for route in router.routes)]
    methods.learn(routes)
    problems.install(app, methods.allow)
    return Express(app, routes, edge=edge, on_error=problems.response)
