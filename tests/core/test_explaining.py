"""Which code a task is answered with, and how much of its shape would start now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.explaining import PoolNow, Why, largest_that_fits, sentence, why
from argus_ray.core.model import Attempt, Gang, Maintenance, NodeView, Task
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.states import AttemptState, TaskState

NOW = 1000.0
GANG = Gang(2, 4, 12.0)
BUSY = because(Code.POOL_BUSY, nodes=2, gpus=4, cpus=12.0)


def waiting(reason: Reason | str | None = BUSY, gang: Gang = GANG, **more: object) -> Task:
    task = Task("t", "ada", 1, "sft", TaskState.PENDING_RESOURCES, gang, "", NOW, NOW, reason)
    return replace(task, **more)  # type: ignore[arg-type]


def node(name: str, gpus: float = 4.0, cpus: float = 64.0, slots: float = 10.0, **more: object) -> NodeView:
    return replace(NodeView(name, name, False, 4.0, 64.0, gpus, cpus, slots, 10.0), **more)  # type: ignore[arg-type]


def pool(
    *free: NodeView, shown: tuple[NodeView, ...] | None = None, left: tuple[NodeView, ...] | None = None
) -> PoolNow:
    return PoolNow(free if shown is None else shown, free, free if left is None else left)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (pool(node("a"), node("b", gpus=3)), Why.GPUS_SHORT),
        (pool(node("a"), node("b", cpus=11)), Why.CPUS_SHORT),
        (pool(node("a", slots=0), node("b", slots=0)), Why.NO_DRIVER_SLOT),
        (pool(node("a"), node("b")), Why.QUEUED),
        (pool(node("a"), node("b"), left=(node("b"),)), Why.BEHIND_OVERTAKEN_TASK),
        (pool(node("a"), node("b", gpus=0), shown=(node("a"), node("b"))), Why.JUST_STARTED_TASKS),
        (pool(node("a"), node("b", gpus=0), shown=(node("a"), node("b", barred="it hangs"))), Why.NODES_BARRED),
        (
            pool(node("a"), node("b", gpus=0), shown=(node("a"), node("b", barred="cordoned", is_cordoned=True))),
            Why.GPUS_SHORT,
        ),
        (pool(node("h", is_head=True)), Why.NO_WORKERS),
        (None, Why.GPUS_SHORT),
    ],
)
def test_a_task_that_waits_for_room_is_told_what_is_short(free: PoolNow | None, expected: Why) -> None:
    assert why(waiting(), None, free, NOW) is expected


def test_what_needs_no_gpu_is_short_of_cpus() -> None:
    export = waiting(because(Code.POOL_BUSY, nodes=1, gpus=0, cpus=2.0), Gang(1, 0, 2.0))
    assert why(export, None, pool(node("a", cpus=1.0)), NOW) is Why.CPUS_SHORT
    assert why(export, None, None, NOW) is Why.CPUS_SHORT


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (because(Code.NO_WORKER), Why.NO_WORKERS),
        (because(Code.NODE_TOO_SMALL, gpus=8, largest=4.0), Why.NEVER_FITS),
        (because(Code.POOL_TOO_SMALL, nodes=2, gpus=4, cpus=12.0, able=1), Why.NEVER_FITS),
        (because(Code.NODES_CORDONED, nodes=2, gpus=4, cpus=12.0, able=1, cordoned=1), Why.CORDONED),
        (because(Code.OVER_QUOTA, limit=4), Why.OVER_QUOTA),
        (because(Code.QUOTA_TOO_SMALL, limit=4, gpus=8), Why.OVER_QUOTA),
        (because(Code.LOW_DISK, reserve=1, until=2), Why.LOW_DISK),
        (because(Code.BAD_INPUTS, what="gone"), Why.INPUTS_MISSING),
        (because(Code.INPUTS_UNKNOWN, error="hangs"), Why.DISK_SILENT),
        (because(Code.CHECKPOINT_UNKNOWN, error="hangs"), Why.DISK_SILENT),
        (because(Code.NO_COMMAND, error="moved"), Why.COMMAND_BROKEN),
    ],
)
def test_what_is_stored_is_told_whatever_is_free(reason: Reason, expected: Why) -> None:
    task = waiting(reason)
    assert why(task, None, pool(node("a"), node("b")), NOW) is expected is why(task, None, None, NOW)
    assert why(task, Maintenance("admin", 1.0), None, NOW) is Why.MAINTENANCE


def test_a_task_waits_out_its_own_time() -> None:
    free = pool(node("a"), node("b"))
    refused = waiting("verl found too few resources", not_before=NOW + 1)
    assert why(refused, None, free, NOW) is Why.RETRY_WAIT
    assert why(refused, None, free, NOW + 1) is Why.QUEUED
    gone = waiting(because(Code.BAD_INPUTS, what="gone"), not_before=NOW + 1)
    assert why(gone, None, free, NOW) is Why.INPUTS_MISSING, "which says more"


def test_a_reservation_that_is_over_is_not_told_any_more() -> None:
    behind = waiting(because(Code.BEHIND_OLDER))
    assert why(behind, None, None, NOW) is Why.BEHIND_OVERTAKEN_TASK
    assert why(behind, None, pool(node("a"), node("b", gpus=0)), NOW) is Why.GPUS_SHORT


def test_nothing_starts_while_the_disk_is_nearly_full() -> None:
    assert why(waiting(), None, replace(pool(node("a"), node("b")), is_low_disk=True), NOW) is Why.LOW_DISK


def test_tasks_that_do_not_wait() -> None:
    run = Attempt("t--a01", "t", 1, AttemptState.RUNNING, NOW, "/jobs/t")
    assert why(waiting(None, state=TaskState.SUBMITTED), None, None, NOW) is Why.STARTING
    assert why(waiting(None, state=TaskState.RUNNING, attempts=(run,)), None, None, NOW) is Why.RUNNING
    stalled = replace(run, stalled_since=NOW)
    assert why(waiting(None, state=TaskState.RUNNING, attempts=(stalled,)), None, None, NOW) is Why.STALLED
    assert why(waiting("canceled", state=TaskState.CANCELED), None, None, NOW) is Why.ENDED


def test_the_largest_gang_that_would_start_now() -> None:
    free = [node("a"), node("b"), node("c", gpus=3), node("d", cpus=1)]
    assert largest_that_fits(GANG, free) == 2
    assert largest_that_fits(GANG, free, gpus_to_spare=7) == 1
    assert largest_that_fits(GANG, free, gpus_to_spare=-8) == 0, "a quota that was made smaller"
    assert largest_that_fits(Gang(1, 0, 1.0), free, gpus_to_spare=0) == 4, "what needs no GPU is never too much"
    assert largest_that_fits(GANG, [node("a", slots=0), node("b", slots=0)]) == 0
    assert largest_that_fits(GANG, [node("a", slots=0), node("b")]) == 2, "one driver is enough"


def test_each_code_has_a_sentence() -> None:
    for code in Why:
        for task in (waiting(), waiting(None)):
            told = sentence(code, task, maintenance=None, pool=pool(node("a")), gpus_held=3)
            assert told[0].isupper() and told.endswith(".") and ".." not in told, (code, told)
    told = sentence(Why.GPUS_SHORT, waiting(), maintenance=None, pool=pool(node("a"), node("b", gpus=0)), gpus_held=0)
    assert told == "Too few GPUs are free: it needs 2 nodes with 4 GPUs and 12 CPUs free each; 1 has now."
