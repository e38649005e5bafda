"""Who tries tokens is in the audit, by address and number, and cannot fill it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.audit import AuditEntry, AuditFilter, ListAudit
from argus_ray.core.monitoring import GatewayReport, ReadMonitoring, ReportGateway
from argus_ray.core.watching import GATEWAY
from argus_ray.service.bad_tokens import BadTokens
from tests.support.builders import ADMIN, World, make_service

HOUR = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def report(world: World, replica: str = "one", **by_address: int) -> None:
    counts = {name.replace("_", "."): n for name, n in by_address.items()}
    world.service.handle(GATEWAY, ReportGateway(GatewayReport(replica, bad_tokens=counts)))


def entries(world: World) -> list[AuditEntry]:
    """The oldest first."""
    return list(reversed(world.service.handle(ADMIN, ListAudit(AuditFilter(action="token.refused"))).entries))


def told(world: World) -> list[tuple[str | None, int]]:
    return [(each.address, (each.detail or {})["count"]) for each in entries(world)]


def test_an_address_has_an_entry_at_once_and_then_one_an_hour_with_their_number(world: World) -> None:
    report(world, a_1=3)
    assert told(world) == [("a.1", 3)]
    [entry] = entries(world)
    assert (entry.actor, entry.role, entry.token_id, entry.target, entry.result) == (
        None, "user", None, None, "unauthenticated",
    )  # fmt: skip
    for replica in ("one", "two"):
        world.clock.advance(60)
        report(world, replica, a_1=5, b_2=1)
    assert told(world) == [("a.1", 3), ("b.2", 1)]
    world.clock.advance(HOUR)
    world.service.handle(GATEWAY, ReadMonitoring(GatewayReport("one")))
    assert told(world)[2:] == [("a.1", 10), ("b.2", 1)], "also where nobody has tried since"
    world.clock.advance(2 * HOUR)
    report(world)
    assert len(entries(world)) == 4, "nothing is told of who has stopped"


def test_one_whose_address_is_not_known_and_numbers_that_are_none(world: World) -> None:
    world.service.handle(GATEWAY, ReportGateway(GatewayReport("one", bad_tokens={"": 2, "a": 0, "b": -1})))
    assert told(world) == [(None, 2)]


@pytest.mark.parametrize("seed", range(3))
def test_entries_and_memory_are_bounded_and_no_request_is_missing(seed: int) -> None:
    draw = random.Random(seed)
    kept = BadTokens(every_s=100.0, most=8)
    now, sent, said = 0.0, 0, 0
    times: list[float] = []
    by_address: Counter[str] = Counter()
    for _ in range(400):
        now += draw.choice([0.0, 1.0, 7.0, 60.0])
        found = Counter(draw.choice([str(draw.randrange(1000)), str(draw.randrange(3))]) for _ in range(20))
        sent += found.total()
        for address, count in kept.due(found, now):
            times.append(now)
            said += count
            by_address[address] += 1
        assert len(kept._waiting) <= kept.most + 1 and len(kept._told) <= kept.most
        assert said + kept._waiting.total() == sent
        assert sum(at > now - kept.every_s for at in times) <= kept.most
    assert len(times) > kept.most and by_address
