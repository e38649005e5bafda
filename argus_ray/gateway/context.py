"""What the routes share: the injected parts of the gateway, and the caller of a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Scope

from argus_ray.config import Settings
from argus_ray.core.errors import Unavailable
from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.explaining import PoolNow
from argus_ray.core.forecast.model import Newcomer
from argus_ray.core.model import NodeView, Task
from argus_ray.gateway.audit_feed import AuditFeed
from argus_ray.gateway.command.built import BuiltCommand
from argus_ray.gateway.control import ControlPlane, Wake
from argus_ray.gateway.files.download import Downloads
from argus_ray.gateway.files.open_bytes import OpenAnswers
from argus_ray.gateway.http.address import client_address
from argus_ray.gateway.http.auth import Authenticator
from argus_ray.gateway.http.prefix import TrustedProxies
from argus_ray.gateway.http.turns import Turns
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.gateway.logs.searches import Searches
from argus_ray.gateway.logs.sockets import SendQueues
from argus_ray.gateway.logs.stream import StreamLimit, StreamTiming
from argus_ray.gateway.metrics.curves import CurveReader
from argus_ray.gateway.metrics.progress import Progress
from argus_ray.gateway.metrics.shared import Comparisons, Sparklines
from argus_ray.gateway.monitoring.scrape import Scraper
from argus_ray.gateway.rollouts.shared import Rollouts
from argus_ray.gateway.tasks.inputs import InputChecks
from argus_ray.gateway.tasks.recipes import RecipeBook

_log = logging.getLogger("argus.gateway")

#: Raises Unavailable while the cluster was not seen yet.
Nodes = Callable[[], Awaitable[Sequence[NodeView]]]
#: The same.
PoolLook = Callable[[], Awaitable[PoolNow]]
#: When a task might start that nobody has submitted yet. Raises Unavailable.
StartLook = Callable[[Newcomer], Awaitable[Range | Unknown]]
#: Of readiness, while it is on: nothing starts, and all is well.
MAINTENANCE = "maintenance"
#: Of readiness, while the shared filesystem has less than the reserve free: nothing starts, and the API serves.
DISK = "disk"
#: Of readiness, while no backup of the database can be made.
BACKUP = "backup"
#: Parts that tell something, and make nothing unready.
TOLD = frozenset({MAINTENANCE, DISK, BACKUP})
#: Part -> "ok", or why it is not.
Readiness = Callable[[], Awaitable[Mapping[str, str]]]
ReadProgress = Callable[[Task], Progress | None]
T = TypeVar("T")
R = TypeVar("R")

#: A shared filesystem that hangs must not hang the gateway: seconds.
_PROGRESS_TIMEOUT_S = 2.0
#: Less than that: what was read by then is shown, and the rest is left out.
_PROGRESS_READ_S = 1.5
_FILE_TIMEOUT_S = 15.0
_NODES_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 6.0
#: Seconds that a token counts as one of somebody's.
_KNOWN_S = 60.0


class KnownTokens:
    """Digests of tokens that were good within the last minute, at most so many, and whose each is, which never changes.
    Not a right to anything."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, *, size: int = 4096) -> None:
        self._monotonic = monotonic
        self._size = size
        self._seen: dict[str, tuple[float, str | None]] = {}

    def add(self, digest: str, user_id: str | None = None) -> None:
        """`user_id`: None if this answer did not tell."""
        before = self._seen.pop(digest, None)
        self._seen[digest] = self._monotonic(), user_id or (before[1] if before else None)
        if len(self._seen) > self._size:
            del self._seen[next(iter(self._seen))]

    def __contains__(self, digest: str) -> bool:
        seen = self._seen.get(digest)
        return seen is not None and self._monotonic() - seen[0] < _KNOWN_S

    def user_of(self, digest: str) -> str | None:
        return self._seen[digest][1] if digest in self else None


@dataclass(frozen=True)
class GatewayParts:
    control: ControlPlane
    settings: Settings
    authenticator: Authenticator
    nodes: Nodes
    readiness: Readiness
    wake: Wake
    read_progress: ReadProgress
    #: Threads for files alone: when the filesystem hangs, only what needs files waits.
    files: Executor
    inputs: InputChecks
    known_tokens: KnownTokens
    recipes: RecipeBook
    scraper: Scraper
    #: Threads for curves alone: these compute as well, and no log should wait for them.
    curve_threads: Executor
    curves: CurveReader = field(default_factory=CurveReader)
    streams: StreamLimit = field(default_factory=StreamLimit)
    timing: StreamTiming = field(default_factory=StreamTiming)
    flow: FlowLimits = field(default_factory=FlowLimits)
    send_queues: SendQueues = field(default_factory=SendQueues)
    downloads: Downloads = field(default_factory=Downloads)
    rollouts: Rollouts = field(default_factory=Rollouts)
    searches: Searches = field(default_factory=Searches)
    comparisons: Comparisons = field(default_factory=Comparisons)
    sparklines: Sparklines = field(default_factory=Sparklines)
    #: Of one caller in the threads of `files` and of `curve_threads`: never all of them.
    file_turns: Turns = field(default_factory=lambda: Turns(at_once=4))
    curve_turns: Turns = field(default_factory=lambda: Turns(at_once=1))
    #: Unix time.
    clock: Callable[[], float] = time.time
    head_id: str = ""
    #: None: what Ray shows is all that is known.
    pool_now: PoolLook | None = None
    #: None: nobody foretells.
    start_of: StartLook | None = None
    trusted: TrustedProxies = field(default_factory=TrustedProxies)
    #: All requests come through HAProxy of Serve.
    behind_haproxy: bool = False
    #: What anybody may have.
    open_answers: OpenAnswers = field(default_factory=OpenAnswers)
    command: BuiltCommand = field(default_factory=BuiltCommand)
    audit_feed: AuditFeed = field(default_factory=AuditFeed)

    def address_of(self, scope: Scope) -> str | None:
        """Of the client, as far as those before us can be believed; None where nobody tells."""
        return client_address(scope, self.trusted, haproxy=self.behind_haproxy)

    async def look_at_nodes(self) -> Sequence[NodeView]:
        """Raises Unavailable if the scheduler does not tell."""
        try:
            return await asyncio.wait_for(self.nodes(), _NODES_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise Unavailable("Ray's node view did not answer in time. Try again.") from None

    async def look_at_pool(self) -> PoolNow:
        """The same, with what is free by the scheduler's own account."""
        if self.pool_now is None:
            return PoolNow.as_shown(await self.look_at_nodes())
        try:
            return await asyncio.wait_for(self.pool_now(), _NODES_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise Unavailable("The scheduler did not answer in time. Try again.") from None

    async def look_at_start(self, newcomer: Newcomer) -> Range | Unknown:
        """Never raises: the rest of an answer is worth having without it."""
        if self.start_of is None:
            return Unknown.NOT_YET
        try:
            return await asyncio.wait_for(self.start_of(newcomer), _START_TIMEOUT_S)
        except (Unavailable, asyncio.TimeoutError):
            return Unknown.NOT_YET

    def notify_scheduler(self) -> None:
        """After a commit. It has a slow tick of its own, so a failure here costs time and nothing else."""
        try:
            self.wake()
        except Exception:
            _log.warning("waking the scheduler failed", exc_info=True)

    async def in_file_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Raises what the function raises; Unavailable if the disk does not answer, FileNotFoundError if it says so."""
        return await self._in_thread(self.files, function, *args)

    async def in_file_turn(self, holder: str, function: Callable[..., T], *args: Any) -> T:
        """The same, of one call of this holder, who has some of the threads at most."""
        return await self.file_turns.run(holder, lambda: self.in_file_thread(function, *args))

    async def in_curve_turn(self, holder: str, function: Callable[..., T], *args: Any) -> T:
        """The same."""
        return await self.curve_turns.run(holder, lambda: self._in_thread(self.curve_threads, function, *args))

    async def _in_thread(self, threads: Executor, function: Callable[..., T], *args: Any) -> T:
        running = asyncio.get_running_loop().run_in_executor(threads, function, *args)
        try:
            return await asyncio.wait_for(running, _FILE_TIMEOUT_S)
        except FileNotFoundError:
            raise
        except (asyncio.TimeoutError, OSError):
            raise Unavailable("The shared filesystem does not answer. Try again.") from None

    async def progress_of(self, tasks: Sequence[Task]) -> dict[str, Progress]:
        """Of those tasks that have some, by task id; of fewer or none when the disk is slow. Never raises."""
        started = [task for task in tasks if task.attempts]
        if not started:
            return {}

        def read() -> list[tuple[str, Progress | None]]:
            deadline = time.monotonic() + _PROGRESS_READ_S
            found: list[tuple[str, Progress | None]] = []
            for task in started:
                if time.monotonic() >= deadline:
                    _log.warning("reading progress takes long: %d tasks have none", len(started) - len(found))
                    break
                found.append((task.task_id, self.read_progress(task)))
            return found

        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.run_in_executor(self.files, read), _PROGRESS_TIMEOUT_S)
        except Exception as error:
            _log.warning("no progress could be read: %s", type(error).__name__)
            return {}
        return {task_id: progress for task_id, progress in found if progress is not None}
