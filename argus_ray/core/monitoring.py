"""What operators' monitoring is told, as data: the facts of each part, and histograms that are kept in memory."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from argus_ray.core.actions import Action
from argus_ray.core.model import NodeView
from argus_ray.core.orders import machines_of
from argus_ray.core.reasons import Code
from argus_ray.core.reserve import Space

#: Upper bounds of buckets, in seconds; the last bucket has none.
TICK_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COMMIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: Of calls in one transaction.
BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

#: Why a task waits, where its reason has no code: nobody has looked at it yet; it was tried, and waits for another try.
NEW = "new"
RETRY = "retry_wait"
WAITING_REASONS = (NEW, RETRY, *(code.value for code in Code))

#: Why a request was refused: no token, none that is good, a disabled user's, one that may not do this.
REFUSALS = ("missing", "invalid", "disabled", "forbidden")


@dataclass(frozen=True)
class Histogram:
    #: Upper bounds, rising; `counts` has one more, of what is above all.
    bounds: tuple[float, ...]
    #: Each bucket's own.
    counts: tuple[int, ...]
    sum: float


class Observed:
    """Values that are counted in the memory of one process. Bounded, and safe to use from several threads."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._turn = threading.Lock()

    def add(self, value: float) -> None:
        at = bisect_left(self._bounds, value)
        with self._turn:
            self._counts[at] += 1
            self._sum += value

    def histogram(self) -> Histogram:
        with self._turn:
            return Histogram(self._bounds, tuple(self._counts), self._sum)


@dataclass(frozen=True)
class GatewayReport:
    """What one replica of the gateway knows alone. A scrape reaches one of them, so each reports to the state actor."""

    replica: str
    #: Log streams that are open now.
    streams: int = 0
    #: Requests that were refused since the report before, by reason.
    refused: Mapping[str, int] = field(default_factory=dict)
    #: Those with a token that is not good, by the client's address; "": not known, or one of too many.
    bad_tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StateFacts:
    """What the database and its writer know. None of it takes longer when more tasks have ended."""

    epoch: int
    maintenance: bool
    #: Since the database was made: metric -> label -> value.
    totals: Mapping[str, Mapping[str, float]]
    #: Verdict -> starts.
    start_estimates: Mapping[str, int]
    #: From acceptance to the first admission, in seconds.
    queue_waits: Histogram
    #: (workload, state) -> tasks, those that have ended included: none is ever removed.
    tasks: Mapping[tuple[str, str], int]
    #: Reason -> tasks that wait.
    waiting: Mapping[str, int]
    #: Of the task that has waited for the longest, in seconds; 0: none waits.
    oldest_wait_s: float
    #: Reason -> GPUs of tasks that wait.
    gpus_wanted: Mapping[str, int]
    #: By attempts that are not over.
    gpus_claimed: int
    stalled: int
    #: By user.
    user_gpus: Mapping[str, int]
    #: With what runs now. It never falls while this process lives.
    user_gpu_seconds: Mapping[str, float]
    #: (user, state) -> tasks that wait or live.
    user_tasks: Mapping[tuple[str, str], int]
    commits: Histogram
    batches: Histogram
    #: Of the database, in bytes.
    size: int
    #: Of all replicas of the gateway.
    streams: int
    #: Since the newest backup of the database was made; None: there is none, or nobody has looked yet.
    backup_age_s: float | None = None


@dataclass(frozen=True)
class ReadMonitoring(Action[StateFacts]):
    """What monitoring asks of the state actor. It carries a report, so that a scrape needs one crossing."""

    writes = True

    report: GatewayReport | None = None


@dataclass(frozen=True)
class ReportGateway(Action[None]):
    """A report alone, of a replica that no scrape has reached of late."""

    writes = True

    report: GatewayReport


@dataclass(frozen=True)
class MachineFacts:
    gpus_total: float
    #: Nobody holds them.
    gpus_free: float
    nodes: int = 1


@dataclass(frozen=True)
class PoolFacts:
    """Of one look at the cluster, with what is assigned taken away."""

    #: By the machine's name.
    machines: Mapping[str, MachineFacts]
    #: "ready", "barred" (it takes no gang for now) or "cordoned" -> nodes.
    nodes: Mapping[str, int]
    gpus_total: float
    #: On nodes that take gangs.
    gpus_free: float
    #: On nodes that take none.
    gpus_barred: float

    @classmethod
    def of(cls, nodes: Sequence[NodeView]) -> PoolFacts:
        """Of nodes as the ledger and the cordons left them."""
        names = machines_of(nodes)
        found: defaultdict[str, MachineFacts] = defaultdict(lambda: MachineFacts(0.0, 0.0, 0))
        for node in nodes:
            before = found[names[node.node_id]]
            found[names[node.node_id]] = MachineFacts(
                before.gpus_total + node.gpus_total, before.gpus_free + node.gpus_free, before.nodes + 1
            )
        states = Counter({"ready": 0, "barred": 0, "cordoned": 0})
        # The head takes no gang and is none that anybody waits for.
        states.update(_state(node) for node in nodes if not node.is_head)
        return cls(
            machines=dict(found),
            nodes=dict(states),
            gpus_total=math.fsum(node.gpus_total for node in nodes),
            gpus_free=_free(node for node in nodes if _state(node) == "ready"),
            gpus_barred=_free(node for node in nodes if _state(node) != "ready"),
        )


def _free(nodes: Iterable[NodeView]) -> float:
    return math.fsum(node.gpus_free for node in nodes)


def _state(node: NodeView) -> str:
    if node.is_cordoned:
        return "cordoned"
    return "ready" if node.barred is None else "barred"


@dataclass(frozen=True)
class SchedulerFacts:
    #: Since the scheduler began.
    ticks: Histogram
    #: Since the end of the last one that went well, in seconds; None: there was none.
    tick_age_s: float | None
    jobs_reachable: bool | None
    #: None: not seen yet.
    pool: PoolFacts | None
    #: Nodes that are kept for tasks which have been overtaken for too long; None: nothing is decided.
    barrier: int | None
    #: On the shared filesystem, where the least is free; None: the disk did not say.
    space: Space | None


@dataclass(frozen=True)
class PublisherFacts:
    #: Since head.json was written, in seconds; None: it was not.
    age_s: float | None
    #: 0: none.
    epoch: int
    #: For how long head.json is good, in seconds; None: an earlier version does not say.
    ttl_s: float | None = None


@dataclass(frozen=True)
class ActorFacts:
    """None: the actor does not answer."""

    scheduler: SchedulerFacts | None = None
    publisher: PublisherFacts | None = None
