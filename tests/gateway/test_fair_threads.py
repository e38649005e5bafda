"""One user's calls that take threads leave some to others; and who finds none is told when to come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from argus_ray.disk import log_search, logs
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.http.turns import Turns
from argus_ray.gateway.logs.searches import Searches
from argus_ray.gateway.metrics.curves import CurveReader
from tests.support.gateway import Api, Headers, log_of
from tests.support.stream import Stream, run


class Held:
    """Calls into the disk that last until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self._counts = threading.Lock()
        self.may_end = threading.Event()

    def of(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **options: Any) -> Any:
            with self._counts:
                self.begun += 1
            assert self.may_end.wait(30)
            return real(*args, **options)

        return held


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.may_end.set()


def changed(api: Api, **parts: Any) -> Any:
    app = api.make_app()
    app.fastapi.state.gateway = replace(app.fastapi.state.gateway, **parts)
    return app


def logged(api: Api, who: Headers, text: str = "a line\n") -> str:
    task_id = api.submit(who)
    log_of(api.run(task_id)).write_text(text)
    return f"/api/v2/tasks/{task_id}"


async def answer(app: Any, path: str, who: Headers) -> tuple[int, bytes, dict[str, str]]:
    async with Stream(app, path, who) as stream:
        await stream.over()
        message = await stream._next_message()
        return stream.status, message["body"], stream.headers


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within 30 s")


def test_a_search_that_finds_no_thread_is_a_503_in_time(
    api: Api, alice: Headers, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = api.user("bob")
    searches = Searches(threads=BoundedThreads("test-searches", 1), timeout_s=0.1)
    searches.turns.timeout_s = 0.1
    app = changed(api, searches=searches)
    ours, theirs = logged(api, alice), logged(api, bob)
    monkeypatch.setattr(log_search, "search", held.of(log_search.search))

    async def scenario() -> None:
        # Longer than the wait of the next one: a call of 0.1 s that hangs gives its place back then.
        searches.timeout_s = 20
        first = asyncio.ensure_future(answer(app, f"{ours}/logs/search?q=line", alice))
        await until(lambda: held.begun == 1)
        searches.timeout_s = 0.1
        status, body, headers = await answer(app, f"{theirs}/logs/search?q=line", bob)
        assert (status, headers["retry-after"]) == (503, "2") and b"Others' calls" in body
        held.may_end.set()
        assert (await first)[0] == 200
        searches.timeout_s = 20
        assert (await answer(app, f"{theirs}/logs/search?q=line", bob))[0] == 200

    run(scenario)


@pytest.mark.parametrize("leaves", [False, True], ids=["that wait", "whose client leaves"])
@pytest.mark.parametrize(
    ("path", "module", "name", "threads", "turns"),
    [
        ("/logs/search?q=line", log_search, "search", 2, 1),
        ("/metrics", CurveReader, "read", 2, 1),
        ("/logs?tail=1", logs, "read_tail", 8, 4),
    ],
)
def test_one_users_calls_leave_threads_to_others(
    api: Api,
    alice: Headers,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    module: Any,
    name: str,
    threads: int,
    turns: int,
    leaves: bool,
) -> None:
    bob = api.user("bob")
    ours, theirs = logged(api, alice), logged(api, bob)
    short = {"file_turns": Turns(4, timeout_s=0.3), "curve_turns": Turns(1, timeout_s=0.3)}
    app = changed(api, searches=Searches(turns=Turns(1, timeout_s=0.3)), **short)
    real = getattr(module, name)
    monkeypatch.setattr(module, name, held.of(real))

    async def scenario() -> None:
        calls = [asyncio.ensure_future(answer(app, ours + path, alice)) for _ in range(2 * threads)]
        await until(lambda: held.begun == turns)
        if leaves:
            for call in calls:
                call.cancel()  # as Serve does with the request of a client that has left
        at_work = 0 if leaves else turns
        await until(lambda: sum(call.done() for call in calls) == len(calls) - at_work)
        calls += [asyncio.ensure_future(answer(app, ours + path, alice)) for _ in range(2)]
        await until(lambda: sum(call.done() for call in calls) == len(calls) - at_work)
        assert held.begun == turns
        monkeypatch.setattr(module, name, real)
        assert (await answer(app, theirs + path, bob))[0] == 200
        held.may_end.set()
        await asyncio.wait(calls, timeout=10)

    run(scenario)
