"""What monitoring is told of the database: totals that never fall, and what waits and lives now."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.lifecycle import Admit, Advance, End, Hold, Reject, Stall
from argus_ray.core.monitoring import REFUSALS, GatewayReport, ReadMonitoring, ReportGateway, StateFacts
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome
from argus_ray.core.verl import failures
from argus_ray.core.verl.failures import Failure
from argus_ray.core.watching import GATEWAY
from tests.support.builders import ADMIN, World, make_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def told(world: World, report: GatewayReport | None = None) -> StateFacts:
    return world.service.handle(GATEWAY, ReadMonitoring(report))


def begin(world: World, task_id: str) -> Admit:
    """Until a driver of it runs."""
    change = world.admission(world.task(task_id))
    assert all(world.service.apply([change, Advance(change.submission_id, running=True, session="s")]))
    return change


def end(world: World, change: Admit, outcome: Outcome, failure: Failure | None = None) -> None:
    assert world.service.apply([End(change.submission_id, outcome, "so", 1, failure)]) == [True]


def test_an_empty_service_tells_zeros_for_all_fixed_words(world: World) -> None:
    facts = told(world)
    assert facts.tasks == {}
    assert set(facts.totals["refused"]) == set(REFUSALS)
    assert set(facts.totals["attempts_ended"]) == {outcome.value for outcome in Outcome}
    assert facts.oldest_wait_s == 0 and facts.gpus_wanted == {} and not facts.maintenance
    assert facts.epoch == world.store.epoch and facts.size > 0


def test_a_life_is_counted_from_its_acceptance_to_its_end(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice)
    world.clock.advance(90)
    facts = told(world)
    assert facts.tasks["sft", "QUEUED"] == 1 and facts.waiting == {"new": 1}
    assert (facts.oldest_wait_s, facts.gpus_wanted, facts.gpus_claimed) == (90, {"new": 4}, 0)
    assert facts.user_tasks == {("alice", "QUEUED"): 1}

    change = begin(world, task.task_id)
    world.clock.advance(100)
    facts = told(world)
    assert facts.tasks["sft", "RUNNING"] == 1 and facts.tasks["sft", "QUEUED"] == 0
    assert (facts.gpus_wanted, facts.gpus_claimed, facts.user_gpus) == ({}, 4, {"alice": 4})
    assert facts.user_gpu_seconds == {"alice": 400}, "with what runs now"
    assert facts.totals["admissions"] == {"": 1}
    waits = facts.queue_waits
    assert dict(zip((*waits.bounds, None), waits.counts, strict=True)) == {
        **dict.fromkeys((*waits.bounds, None), 0),
        300.0: 1,
    }
    assert waits.sum == 90

    world.clock.advance(50)
    end(world, change, Outcome.SUCCEEDED)
    facts = told(world)
    assert facts.tasks["sft", "SUCCEEDED"] == 1
    assert facts.totals["attempts_ended"]["SUCCEEDED"] == 1
    assert facts.user_gpu_seconds == {"alice": 600} and facts.user_gpus == {} and facts.user_tasks == {}


def test_totals_survive_a_restart_and_their_database_refuses_that_they_fall(world: World) -> None:
    alice = world.user("alice")
    end(world, begin(world, world.submit(alice).task_id), Outcome.SUCCEEDED)
    before = told(world).totals
    world.reopen()
    assert told(world).totals == before
    for statement in ("UPDATE totals SET n = n - 1 WHERE n > 0", "DELETE FROM totals"):
        with world.store.transaction() as db, pytest.raises(sqlite3.IntegrityError, match="never falls"):
            db.execute(statement)


def test_a_call_that_fails_counts_nothing(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice, "key")
    answers = world.service.handle_many([(alice, world.submission(world.spec(nnodes=2), "key"))])
    assert answers[0].code == "idempotency_conflict"
    assert told(world).tasks["sft", "QUEUED"] == 1
    stale = world.admission(task)
    assert world.service.apply([stale, stale]) == [True, False]
    assert told(world).totals["admissions"] == {"": 1}


def test_why_tasks_failed_is_counted_by_code(world: World) -> None:
    alice = world.user("alice")
    codes = (failures.CODES[0], failures.STALLED, None)
    for code in codes:
        failure = None if code is None else Failure(code, "the line /private/secret", "hint")
        end(world, begin(world, world.submit(alice).task_id), Outcome.APPLICATION, failure)
    assert world.service.apply([Reject(world.submit(alice).task_id, "gone")]) == [True]
    canceled = world.submit(alice)
    world.service.handle(alice, actions.CancelTask(canceled.task_id))
    facts = told(world)
    expected = {codes[0]: 1, "stalled": 1, "unknown": 1, "invalid_inputs": 1}
    assert facts.totals["failures"] == expected
    assert facts.tasks["sft", "FAILED"] == 4 and facts.tasks["sft", "CANCELED"] == 1


def test_reasons_overtaking_and_stalls(world: World) -> None:
    alice = world.user("alice")
    first, second, third = (world.submit(alice) for _ in range(3))
    now = world.clock.now
    busy = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=4)
    assert all(world.service.apply([Hold(first.task_id, busy, None, now), Hold(second.task_id, busy)]))
    assert all(world.service.apply([Hold(first.task_id, busy, None, now)])), "the same again is no new overtaking"
    lost = begin(world, third.task_id)
    assert world.service.apply([Stall(lost.submission_id, now, "no steps")]) == [True]
    facts = told(world)
    assert facts.waiting == {"pool_busy": 2} and facts.totals["overtakes"] == {"": 1} and facts.stalled == 1
    end(world, lost, Outcome.INFRASTRUCTURE)
    facts = told(world)
    assert facts.waiting == {"pool_busy": 2, "retry_wait": 1} and facts.stalled == 0
    begin(world, third.task_id)
    facts = told(world)
    assert sum(facts.queue_waits.counts) == 1, "the first admission alone is a wait in the queue"
    assert facts.totals["admissions"] == {"": 2}


def test_a_clock_that_was_set_on_makes_no_gpu_time(world: World) -> None:
    alice = world.user("alice")
    change = begin(world, world.submit(alice).task_id)
    world.clock.advance(100)
    world.clock.jump(86_400)
    world.service.queue_changes("", 0)
    assert told(world).user_gpu_seconds == {"alice": 400}
    world.clock.advance(50)
    end(world, change, Outcome.SUCCEEDED)
    assert told(world).user_gpu_seconds == {"alice": 600}


def test_a_clock_that_was_set_back_lets_nothing_fall(world: World) -> None:
    alice = world.user("alice")
    change = begin(world, world.submit(alice).task_id)
    world.clock.advance(100)
    before = told(world).user_gpu_seconds["alice"]
    world.clock.jump(-1000)
    assert told(world).user_gpu_seconds["alice"] == before
    end(world, change, Outcome.SUCCEEDED)
    assert told(world).user_gpu_seconds["alice"] == before
    later = world.submit(alice)
    world.clock.jump(-1000)
    begin(world, later.task_id)
    waits = told(world).queue_waits
    assert sum(waits.counts) == 2 and waits.sum >= 0


def test_exports_are_a_workload_of_their_own(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice)
    change = begin(world, task.task_id)
    end(world, change, Outcome.SUCCEEDED)
    call = actions.ExportTask(task.task_id, step=10, job_root=change.job_root)
    world.service.handle(alice, call)
    facts = told(world)
    assert facts.tasks["export", "QUEUED"] == 1


def test_replicas_report_what_they_know_alone(world: World) -> None:
    world.service.handle(GATEWAY, ReportGateway(GatewayReport("one", 3, {"invalid": 2})))
    facts = told(world, GatewayReport("two", 4, {"invalid": 1, "missing": 5, "no such reason": 7}))
    assert facts.streams == 7
    assert facts.totals["refused"] == {"missing": 5, "invalid": 3, "disabled": 0, "forbidden": 0}
    assert told(world, GatewayReport("two", 1)).streams == 4, "the newest report of each"
    world.clock.advance(61)
    assert told(world).streams == 0, "a replica that is gone has none"


def test_the_gateway_alone_is_told(world: World) -> None:
    for who in (world.user("alice"), ADMIN):
        answers = world.service.handle_many([(who, ReadMonitoring()), (who, ReportGateway(GatewayReport("x")))])
        assert [answer.code for answer in answers] == ["forbidden", "forbidden"]


def test_what_a_gateway_reports_is_nobodys_doing(world: World) -> None:
    told(world, GatewayReport("one", 1, {"invalid": 1}))
    with world.store.transaction() as db:
        assert db.execute("SELECT count(*) FROM audit").fetchone()[0] == 0


def test_commits_and_batches_are_measured_in_memory(world: World) -> None:
    alice = world.user("alice")
    world.submit(alice)  # whose token's use is written now, and not again within the minute
    before = told(world)
    world.service.handle_many([(alice, world.submission(world.spec())) for _ in range(3)])
    after = told(world)
    assert sum(after.commits.counts) == sum(before.commits.counts) + 1 and after.commits.sum > before.commits.sum
    assert after.batches.sum - before.batches.sum == 3 + 1, "three calls, and the scrape itself"
