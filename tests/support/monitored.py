"""Facts for /metrics of which each says something: what a whole service tells."""

from __future__ import annotations

from argus_ray.core.model import NodeView
from argus_ray.core.monitoring import TICK_BOUNDS, ActorFacts, Observed, PoolFacts, PublisherFacts, SchedulerFacts
from argus_ray.core.reserve import Space


def node(name: str, free: float, *, barred: str | None = None, cordoned: bool = False) -> NodeView:
    return NodeView(
        f"id-of-{name}",
        f"10.0.0.{sum(name.encode()) % 200}",
        False,
        8.0,
        32.0,
        free,
        32.0,
        8.0,
        8.0,
        name,
        barred=barred,
        is_cordoned=cordoned,
    )


def pool() -> PoolFacts:
    nodes = [node("w1", 4.0), node("w2", 8.0), node("w3", 2.0, barred="it hangs")]
    return PoolFacts.of([*nodes, node("w4", 1.0, barred="cordoned", cordoned=True)])


def actors(*, tick_age_s: float = 0.5, file_age_s: float = 2.0) -> ActorFacts:
    ticks = Observed(TICK_BOUNDS)
    for seconds in (0.02, 0.02, 3.0, 100.0):
        ticks.add(seconds)
    space = Space(300 * 10**9, "/private", 10**12)
    return ActorFacts(
        SchedulerFacts(ticks.histogram(), tick_age_s, True, pool(), 1, space), PublisherFacts(file_age_s, 7, 15.0)
    )
