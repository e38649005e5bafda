"""/readyz: many callers at once ask the parts once, and an answer is kept for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from argus_ray.gateway.pool import RecentReadiness
from tests.support.gateway import Api, TestClient


class Parts:
    """What the parts say, when the test lets them."""

    def __init__(self) -> None:
        self.asked = 0
        self.says: dict[str, str] = {"state": "ok"}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.now = 100.0

    async def ask(self) -> Mapping[str, str]:
        self.asked += 1
        await self.may_answer.wait()
        return dict(self.says)

    def monotonic(self) -> float:
        return self.now


def test_many_callers_at_once_ask_once() -> None:
    async def scenario() -> None:
        parts = Parts()
        parts.may_answer.clear()
        recent = RecentReadiness(parts.ask, 1.0, parts.monotonic)
        callers = [asyncio.ensure_future(recent()) for _ in range(100)]
        while not parts.asked:
            await asyncio.sleep(0)
        # It goes on for the others when the one that began it leaves, however long it takes.
        callers.pop(0).cancel()
        parts.now += 4.0
        callers.append(asyncio.ensure_future(recent()))
        await asyncio.sleep(0)
        parts.may_answer.set()
        assert await asyncio.gather(*callers) == [{"state": "ok"}] * 100
        assert parts.asked == 1

    asyncio.run(scenario())


def test_an_answer_is_kept_for_a_second_and_no_longer() -> None:
    async def scenario() -> None:
        parts = Parts()
        recent = RecentReadiness(parts.ask, 1.0, parts.monotonic)
        assert await recent() == {"state": "ok"}
        parts.says = {"state": "it does not answer"}
        parts.now += 0.9
        assert await recent() == {"state": "ok"}
        parts.now += 0.2
        assert await recent() == {"state": "it does not answer"}
        assert parts.asked == 2

    asyncio.run(scenario())


def test_a_check_that_fails_is_not_repeated_by_each_caller(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        asked = 0

        async def broken() -> Mapping[str, str]:
            nonlocal asked
            asked += 1
            raise RuntimeError("the inside")

        recent = RecentReadiness(broken, 1.0, lambda: 100.0)
        for _ in range(10):
            assert await recent() == {"readiness": "the check itself failed"}
        assert asked == 1

    asyncio.run(scenario())
    assert "the inside" in caplog.text


def test_the_page_of_a_service_keeps_its_answer_and_the_other_page_asks_nothing(api: Api) -> None:
    asked: list[str] = []

    async def readiness() -> Mapping[str, str]:
        asked.append("readiness")
        return {"state": "ok"}

    with TestClient(api.make_app(readiness=readiness, ready_fresh_s=60.0)) as client:
        assert [client.get("/healthz").status_code for _ in range(3)] == [200] * 3
        assert asked == []
        assert [client.get("/readyz").status_code for _ in range(3)] == [200] * 3
    assert asked == ["readiness"]
