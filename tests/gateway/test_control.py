"""Batching: order, bounds, time limits, and what a caller is told when the outcome is not known."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from typing import Any

import pytest

from argus_ray.core.actions import Action, Credential, GetTask, Role
from argus_ray.core.errors import TaskNotFound, Unavailable
from argus_ray.gateway.control import Asked, BatchingControlPlane

WHO = Credential(Role.ADMIN)


class Gate:
    """A `send` that waits for the test, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.arrived = asyncio.Event()

    async def __call__(self, batch: list[Asked]) -> Sequence[Any]:
        names = [action.task_id for _, action in batch if isinstance(action, GetTask)]
        self.batches.append(names)
        self.arrived.set()
        await self.open.wait()
        return [TaskNotFound() if name == "missing" else name.upper() for name in names]


def named(name: str) -> Action[Any]:
    return GetTask(name)


def ask(control: BatchingControlPlane, name: str) -> asyncio.Task[Any]:
    return asyncio.ensure_future(control.call(WHO, named(name)))


async def turns() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_queue_up_behind_a_batch_and_go_together_in_order() -> None:
    async def scenario() -> None:
        gate = Gate()
        control = BatchingControlPlane(gate, max_batch=3)
        first = ask(control, "a")
        await gate.arrived.wait()
        others = [ask(control, name) for name in "bcdef"]
        await turns()
        assert gate.batches == [["a"]]
        gate.open.set()
        assert await asyncio.gather(first, *others) == list("ABCDEF")
        assert gate.batches == [["a"], ["b", "c", "d"], ["e", "f"]]

    asyncio.run(scenario())


def test_a_busy_plane_collects_and_an_idle_one_does_not_wait() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        control = BatchingControlPlane(gate, linger_s=3600.0)
        for name in "abc":
            assert await control.call(WHO, named(name)) == name.upper()
        assert gate.batches == [["a"], ["b"], ["c"]], "one at a time: nobody else is there to wait for"
        assert list(await asyncio.gather(ask(control, "d"), ask(control, "e"))) == ["D", "E"]
        late = [ask(control, name) for name in "fg"]
        await turns()
        assert gate.batches[3:] == [["d", "e"]]
        for task in late:
            task.cancel()

    asyncio.run(scenario())


def test_a_failed_item_spoils_no_other() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        control = BatchingControlPlane(gate)
        answers = await asyncio.gather(
            *(control.call(WHO, named(name)) for name in ("a", "missing", "b")), return_exceptions=True
        )
        assert (answers[0], answers[2]) == ("A", "B")
        assert isinstance(answers[1], TaskNotFound)

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario() -> None:
        gate = Gate()
        control = BatchingControlPlane(gate, max_queued=2)
        flying = ask(control, "a")
        await gate.arrived.wait()
        waiting = [ask(control, "b"), ask(control, "c")]
        await turns()
        with pytest.raises(Unavailable, match="nothing was done"):
            await control.call(WHO, named("d"))
        gate.open.set()
        assert await asyncio.gather(flying, *waiting) == ["A", "B", "C"]
        assert await control.call(WHO, named("e")) == "E"

    asyncio.run(scenario())


def test_a_silent_service_is_bounded_and_never_asked_twice() -> None:
    async def scenario() -> None:
        gate = Gate()
        control = BatchingControlPlane(gate, timeout_s=0.05)
        sent = ask(control, "a")
        await gate.arrived.wait()
        queued = ask(control, "b")
        with pytest.raises(Unavailable, match="same Idempotency-Key is safe"):
            await sent
        with pytest.raises(Unavailable):
            await queued
        gate.open.set()
        control._timeout_s = 60.0
        assert await control.call(WHO, named("c")) == "C"
        assert [name for batch in gate.batches for name in batch].count("a") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", [RuntimeError("actor died"), "short"])
def test_a_broken_batch_is_not_sent_again(broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    sent: list[int] = []

    async def send(batch: list[Asked]) -> Sequence[Any]:
        sent.append(len(batch))
        if isinstance(broken, Exception):
            raise broken
        return []

    async def scenario() -> None:
        control = BatchingControlPlane(send)
        answers = await asyncio.gather(*(ask(control, name) for name in "abc"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 3
        assert all("may have been carried out or not" in str(answer) for answer in answers)

    asyncio.run(scenario())
    assert sum(sent) == 3


def test_a_client_that_leaves_breaks_nothing() -> None:
    async def scenario() -> None:
        gate = Gate()
        control = BatchingControlPlane(gate)
        flying, stays = ask(control, "a"), ask(control, "b")
        await gate.arrived.wait()
        leaves = ask(control, "c")
        last = ask(control, "d")
        await turns()
        flying.cancel()
        leaves.cancel()
        await turns()
        gate.open.set()
        assert (await stays, await last) == ("B", "D")
        # What was not sent when its client left is not done at all.
        assert gate.batches == [["a", "b"], ["d"]]

    asyncio.run(scenario())


def test_a_batch_does_not_belong_to_the_request_that_began_it() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    async def send(batch: list[Asked]) -> Sequence[Any]:
        seen.append(request.get())
        return ["answer"] * len(batch)

    async def scenario() -> None:
        request.set("the first one")
        assert await BatchingControlPlane(send).call(WHO, named("a")) == "answer"

    asyncio.run(scenario())
    assert seen == ["none"]


def test_the_end_of_the_loop_answers_everybody() -> None:
    async def scenario() -> None:
        gate = Gate()
        control = BatchingControlPlane(gate)
        flying = ask(control, "a")
        await gate.arrived.wait()
        waiting = ask(control, "b")
        await turns()
        [pump] = [task for task in asyncio.all_tasks() if task.get_name() == "argus-control-batches"]
        pump.cancel()
        answers = await asyncio.gather(flying, waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]

    asyncio.run(scenario())
