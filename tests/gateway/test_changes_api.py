"""`GET /api/v2/stream`: own changes, once, in order, from where the client was; one poller for all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from argus_ray.core.actions import Action, Credential
from argus_ray.core.errors import Unavailable
from argus_ray.core.lifecycle import Hold, Stall
from argus_ray.core.model import FilesAt
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.watching import CheckCallers, ReadChanges, WatchTasks
from argus_ray.gateway.changes.hub import HubPace
from argus_ray.gateway.changes.streams import ChangeLimit
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.logs import following
from argus_ray.service import watching
from argus_ray.store import disk
from tests.support.gateway import ADMIN, INTERNAL, QUICK, Api, Headers, lines, log_of, metrics_of
from tests.support.stream import Stream, run

PATH = "/api/v2/stream"
PACE = HubPace(poll_s=0.005, slow_s=0.02, check_s=0.02, grace_s=30.0, heartbeat_s=0.1, progress_s=0.02)
BUSY = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)


class Plane(LocalControlPlane):
    """Counts what is asked, and can be away."""

    def __init__(self, api: Api) -> None:
        super().__init__(api.world.service)
        self.asked: list[Action[Any]] = []
        self.is_away = False

    async def call(self, who: Credential, action: Action[Any]) -> Any:
        self.asked.append(action)
        if self.is_away:
            raise Unavailable("away")
        return await super().call(who, action)

    def count(self, kind: type[Action[Any]]) -> int:
        return sum(isinstance(action, kind) for action in self.asked)


@contextlib.asynccontextmanager
async def serving(api: Api, **changes: Any) -> AsyncIterator[tuple[Any, Plane]]:
    """An application of its own loop, and its way to the service."""
    plane = Plane(api)
    app = api.make_app(control=plane, changes_pace=PACE, timing=QUICK, **changes)
    try:
        yield app, plane
    finally:
        await app.fastapi.state.changes.close()


async def begin(stream: Stream) -> list[dict[str, str]]:
    """What comes until the counts, which end the beginning."""
    assert stream.status == 200, stream.status
    seen: list[dict[str, str]] = []
    while not seen or seen[-1]["event"] != "counts":
        seen.append(await stream.event())
    return seen


async def until(stream: Stream, name: str) -> dict[str, str]:
    while (event := await stream.event())["event"] != name:
        pass
    return event


def data(event: dict[str, str]) -> Any:
    return json.loads(event["data"])


def after(who: Headers, event: dict[str, str]) -> Headers:
    return who | {"Last-Event-ID": event["id"]}


async def user(api: Api, name: str) -> Headers:
    return await asyncio.to_thread(api.user, name)


async def submit(api: Api, who: Headers, **spec: Any) -> str:
    return await asyncio.to_thread(api.submit, who, **spec)


def test_it_begins_with_hello_and_counts_and_tells_each_change(api: Api) -> None:
    async def scenario() -> None:
        ada = await user(api, "ada")
        old = await submit(api, ada)
        async with serving(api, head_id="h1") as (app, _), Stream(app, PATH, ada) as stream:
            hello, counts = await begin(stream)
            assert hello["event"] == "hello" and set(data(hello)) == {"version", "head_id", "now"}
            assert data(hello)["head_id"] == "h1" and len(hello["id"]) == 16
            assert data(counts)["total"] == 1 and data(counts)["counts"]["QUEUED"] == 1
            assert set(data(counts)["counts"]) == {state.value for state in TaskState}
            assert data(counts) == await asyncio.to_thread(api.get, "/api/v2/tasks:counts", ada)
            new = await submit(api, ada)
            event = await stream.event()
            assert (event["event"], data(event)["task_id"]) == ("task", new)
            assert data(await stream.event())["total"] == 2
            change = api.run(old)
            event = await until(stream, "task")
            while data(event)["state"] != "RUNNING":
                event = await until(stream, "task")
            api.world.service.apply([Stall(change.submission_id, api.world.clock(), "it sleeps")])
            assert data(await until(stream, "task"))["stalled_why"] == "it sleeps"
            api.end(change)
            event = await until(stream, "task")
            listed = (await asyncio.to_thread(api.get, "/api/v2/tasks", ada))["tasks"]
            assert data(event) == next(task for task in listed if task["task_id"] == old)
            with api.world.store.transaction() as db:
                db.execute("UPDATE tasks SET files_at = 'LEAVING' WHERE task_id = ?", (old,))
                assert disk.moved(db, old, FilesAt.LEAVING, FilesAt.TRASH, 1.0)
            assert data(await until(stream, "task"))["files_at"] == "TRASH", "which has no event"

    run(scenario)


def test_nobody_hears_of_anothers_tasks_nor_of_their_number(api: Api) -> None:
    async def scenario() -> None:
        ada, bob = await user(api, "ada"), await user(api, "bob")
        async with serving(api) as (app, _), Stream(app, PATH, ada) as hers, Stream(app, PATH, ADMIN) as nobodys:
            first, counts = await begin(hers)
            assert data(counts)["total"] == 0
            await begin(nobodys)
            async with (
                Stream(app, f"{PATH}?everyone=true", ADMIN) as all_of_them,
                Stream(app, f"{PATH}?user_id=bob", ADMIN) as his,
            ):
                await begin(all_of_them), await begin(his)
                ids = [await submit(api, who) for who in (bob, bob, ada, bob, INTERNAL)]
                for stream, wanted in ((hers, [ids[2]]), (his, [ids[0], ids[1], ids[3]]), (all_of_them, ids)):
                    seen: list[str] = []
                    total = 0
                    while len(seen) < len(wanted) or total < len(wanted):
                        event = await stream.event()
                        seen += [data(event)["task_id"]] if event["event"] == "task" else []
                        total = data(event)["total"] if event["event"] == "counts" else total
                    assert (seen, total) == (wanted, len(wanted))
            assert await nobodys.block() == ": keep-alive"
        async with serving(api) as (app, _), Stream(app, PATH, after(ada, first)) as again:
            hello, *events, _ = await begin(again)
            assert hello["id"] == first["id"], "the place itself, whatever others have done"
            assert [data(event)["task_id"] for event in events] == [ids[2]]
            log = log_of(await asyncio.to_thread(api.run, ids[2]))
            log.write_text("zero\n")
            begun: list[tuple[str, str]] = []
            for _ in range(2):
                async with Stream(app, f"{PATH}?log={ids[2]}", ada) as stream:
                    hello, line = await stream.event(), await until(stream, "log")
                    begun.append((hello["id"], line["id"]))
                await submit(api, bob)
            assert begun[0] == begun[1], "who begins anew cannot tell whether others have done anything"

    run(scenario)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?user_id=bob", 403), ("?everyone=true", 403), ("?log=argus-x", 404), ("?progress=argus-x", 404),
        ("?log={theirs}", 404), ("?progress={mine},{theirs}", 404), ("?what=1", 400), ("?log_tail=-1", 400),
        ("?progress=" + ",".join(f"a{n}" for n in range(51)), 400), ("?everyone=perhaps", 400),
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_at_once(api: Api, query: str, code: int) -> None:
    ada, bob = api.user("ada"), api.user("bob")
    query = query.format(mine=api.submit(ada), theirs=api.submit(bob))
    assert api.client.get(PATH + query, headers=ada).status_code == code
    assert api.client.get(PATH).status_code == 401


def test_what_is_gone_is_named_so_that_the_rest_may_be_followed_without_it(api: Api) -> None:
    ada, bob = api.user("ada"), api.user("bob")
    mine, theirs = api.submit(ada), api.submit(bob)
    answer = api.client.get(f"{PATH}?progress={mine},{theirs}&log=argus-x", headers=ada)
    assert answer.status_code == 404
    rules = [(each["field"], each["rule"]) for each in answer.json()["errors"]]
    assert rules == [(f"tasks.{theirs}", "No such task."), ("tasks.argus-x", "No such task.")]


def test_what_could_not_be_told_to_all_is_asked_for_by_each(api: Api) -> None:
    async def scenario() -> None:
        ada, bob = await user(api, "ada"), await user(api, "bob")
        async with serving(api) as (app, _):
            hub = app.fastapi.state.changes.hub
            render = hub._render

            async def fails_once(tasks: Any) -> Any:
                hub._render = render
                raise RuntimeError("as nobody thought of")

            async with Stream(app, PATH, ada) as one, Stream(app, PATH, bob) as other:
                await begin(one)
                await begin(other)
                hub._render = fails_once
                task_id = await submit(api, ada)
                assert data(await until(one, "task"))["task_id"] == task_id
                task_id = await submit(api, bob)
                assert data(await until(other, "task"))["task_id"] == task_id

    run(scenario)


def test_an_admin_names_one_user_or_everyone(api: Api) -> None:
    api.user("ada")
    assert api.client.get(f"{PATH}?everyone=true&user_id=ada", headers=ADMIN).status_code == 400
    assert api.client.get(f"{PATH}?user_id=nobody", headers=ADMIN).status_code == 404


def test_last_event_id_goes_on_after_it_over_any_time(api: Api) -> None:
    async def scenario() -> None:
        ada, bob = await user(api, "ada"), await user(api, "bob")
        async with serving(api) as (app, _), Stream(app, PATH, ada) as stream:
            await begin(stream)
            one = await submit(api, ada)
            event = await until(stream, "task")
        for _ in range(5):
            await submit(api, bob)
        two = await submit(api, ada)
        api.world.service.apply([Hold(one, BUSY)])
        async with serving(api) as (app, _), Stream(app, PATH, after(ada, event)) as stream:
            hello, *events, counts = await begin(stream)
            assert [(data(each)["task_id"], data(each)["state"]) for each in events] == [
                (two, "QUEUED"), (one, "PENDING_RESOURCES"),
            ]  # fmt: skip
            assert hello["id"] == event["id"] and data(counts)["total"] == 2
        async with serving(api) as (app, _), Stream(app, PATH, after(ada, events[0])) as stream:
            _, *rest, _ = await begin(stream)
            assert rest == events[1:], "what was not taken, with the same id"
        async with serving(api) as (app, _), Stream(app, PATH, after(ada, events[1])) as stream:
            assert [each["event"] for each in await begin(stream)] == ["hello", "counts"]

    run(scenario)


def test_a_place_of_no_use_is_told_and_cannot_be_missed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_CHANGES", 2)

    async def scenario() -> None:
        ada = await user(api, "ada")
        async with serving(api) as (app, _), Stream(app, PATH, ada) as stream:
            old, _ = await begin(stream)
        for _ in range(3):
            await submit(api, ada)
        tasks = 3
        for place in (old["id"], "0" * 16, "nonsense", "1:500", old["id"] + "~"):
            async with serving(api) as (app, _), Stream(app, PATH, ada | {"Last-Event-ID": place}) as stream:
                hello, resync, counts = await begin(stream)
                assert "id" not in hello, "a client that hears no more must hear of it again"
                assert (resync["event"], data(counts)["total"]) == ("resync", tasks)
                last = await submit(api, ada)
                tasks += 1
                assert data(await until(stream, "task"))["task_id"] == last
            await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{last}:cancel", headers=ada)
            async with serving(api) as (app, _), Stream(app, PATH, after(ada, resync)) as stream:
                assert [each["event"] for each in await begin(stream)] == ["hello", "task", "counts"]

    run(scenario)


def test_progress_of_the_tasks_that_were_asked_for(api: Api) -> None:
    async def scenario() -> None:
        ada = await user(api, "ada")
        ids = [await submit(api, ada) for _ in range(3)]
        first, second = api.run(ids[0]), api.run(ids[1])
        metrics_of(first).write_text(lines(1, 2))
        async with serving(api) as (app, _), Stream(app, f"{PATH}?progress={ids[0]},{ids[1]}", ada) as stream:
            event = await until(stream, "progress")
            assert (data(event)["task_id"], data(event)["progress"]["step"]) == (ids[0], 2)
            assert "id" not in event
            assert await stream.block() == ": keep-alive", "what has not changed is not told again"
            metrics_of(second).write_text(lines(7))
            assert data(await until(stream, "progress"))["progress"]["step"] == 7
            async with Stream(app, f"{PATH}?progress={ids[0]}", ada) as other:
                assert data(await until(other, "progress"))["progress"]["step"] == 2
                with metrics_of(first).open("a") as file:
                    file.write(lines(3))
                for each in (stream, other):
                    assert data(await until(each, "progress"))["progress"]["step"] == 3
            api.end(first)
            await until(stream, "task")
            with metrics_of(first).open("a") as file:
                file.write(lines(4))
            with api.world.store.transaction() as db:
                db.execute("UPDATE tasks SET updated_at = updated_at + 1 WHERE task_id = ?", (ids[0],))
            assert data(await until(stream, "progress"))["progress"]["step"] == 4

    run(scenario)


def test_one_log_goes_along_and_goes_on_after_a_break(api: Api) -> None:
    async def scenario() -> None:
        ada = await user(api, "ada")
        task_id, other = await submit(api, ada), await submit(api, ada)
        change = api.run(task_id)
        log_of(change).write_text("zero\none\n")
        path = f"{PATH}?log={task_id}&log_tail=1"
        async with serving(api) as (app, plane), Stream(app, path, ada) as stream:
            began = await until(stream, "log_attempt")
            assert data(began) == {"task_id": task_id, "submission_id": f"{task_id}--a01", "number": 1}
            event = await until(stream, "log")
            wanted = {"task_id": task_id, "attempt": 1, "offset": 5, "end": 9, "text": "one\n"}
            assert data(event) == wanted
            asked = len([action for action in plane.asked if not isinstance(action, (ReadChanges, CheckCallers))])
            for _ in range(3):
                while await stream.block() != ": keep-alive":
                    pass
            now = len([action for action in plane.asked if not isinstance(action, (ReadChanges, CheckCallers))])
            assert now <= asked + 1, "a log that is quiet costs no calls: it is asked once, and looks each 0.01 s"
        with log_of(change).open("a") as log:
            log.write("two\n")
        await submit(api, ada)
        async with serving(api) as (app, _), Stream(app, path, after(ada, event)) as stream:
            task, line = await until(stream, "task"), await until(stream, "log")
            assert data(line)["text"] == "two\n" and data(line)["offset"] == 9
            assert task["id"].partition("~")[2] == event["id"].partition("~")[2]
            api.end(change, Outcome.INFRASTRUCTURE, None)
            again = api.run(task_id)
            log_of(again).write_text("more\n")
            line = await until(stream, "log")
            assert (data(line)["attempt"], data(line)["text"]) == (2, "more\n")
            api.end(again)
            end = await until(stream, "log_end")
            assert data(end) == {"task_id": task_id, "task_state": "SUCCEEDED", "attempt": 2, "outcome": "SUCCEEDED"}
            last = await submit(api, ada)
            while data(event := await until(stream, "task"))["task_id"] != last:
                pass
        # The place in one log is none in another.
        log_of(api.run(other)).write_text("a longer line than that\n")
        async with serving(api) as (app, _), Stream(app, f"{PATH}?log={other}", after(ada, event)) as stream:
            line = await until(stream, "log")
            assert data(line)["offset"] == 0

    run(scenario)


def test_what_happens_while_a_stream_begins_is_not_missed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others were told of it already, and the poller tells it once."""
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    begin_log = following.begin

    async def slow(*args: Any, **more: Any) -> Any:
        found = await begin_log(*args, **more)
        begun.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr(following, "begin", slow)

    async def scenario() -> None:
        ada = await user(api, "ada")
        task_id, waiting = await submit(api, ada), await submit(api, ada)
        change = api.run(task_id)
        log_of(change).write_text("zero\n")
        path = f"{PATH}?log={task_id}&progress={waiting}"
        async with serving(api) as (app, _), Stream(app, PATH, ada) as first:
            await begin(first)
            entering = asyncio.create_task(_entered(stream := Stream(app, path, ada)))
            await begun.wait()
            api.end(change)
            metrics_of(api.run(waiting)).write_text(lines(1, 2))
            wanted = {(task_id, "SUCCEEDED"), (waiting, "RUNNING")}
            while wanted:
                event = await until(first, "task")
                wanted.discard((data(event)["task_id"], data(event)["state"]))
            may_go_on.set()
            await entering
            try:
                missing = {"task", "log_end", "progress"}
                while missing:
                    missing.discard((await stream.event())["event"])
            finally:
                await stream.__aexit__(None, None, None)

    run(scenario)


async def _entered(stream: Stream) -> None:
    await stream.__aenter__()


def test_a_log_that_cannot_be_read_ends_alone(api: Api) -> None:
    async def scenario() -> None:
        ada = await user(api, "ada")
        task_id = await submit(api, ada)
        file = log_of(api.run(task_id))
        file.write_text("zero\n")
        async with serving(api) as (app, _), Stream(app, f"{PATH}?log={task_id}", ada) as stream:
            await until(stream, "log")
            file.unlink()
            file.symlink_to("/etc/hostname")
            error = await until(stream, "log_error")
            assert data(error)["code"] == "log_not_found"
            new = await submit(api, ada)
            assert data(await until(stream, "task"))["task_id"] == new

    run(scenario)


@pytest.mark.parametrize("how", ["revoked", "disabled"])
def test_who_is_welcome_no_more_hears_it_and_nothing_else(api: Api, how: str) -> None:
    async def scenario() -> None:
        ada, bob = await user(api, "ada"), await user(api, "bob")
        async with serving(api) as (app, plane), Stream(app, PATH, ada) as stream, Stream(app, PATH, bob) as other:
            await begin(stream), await begin(other)
            if how == "disabled":
                path = "/api/v2/users/ada:disable"
                await asyncio.to_thread(api.client.post, path, headers=ADMIN)
            else:
                [token] = (await asyncio.to_thread(api.get, "/api/v2/users/ada/tokens", ADMIN))["tokens"]
                path = f"/api/v2/users/ada/tokens/{token['token_id']}"
                await asyncio.to_thread(api.client.delete, path, headers=ADMIN)
            error = await until(stream, "error")
            assert data(error)["code"] == {"revoked": "unauthenticated", "disabled": "user_disabled"}[how]
            assert await stream.event() == {} and stream.is_over
            assert plane.count(WatchTasks) == 2
            await submit(api, bob)
            await until(other, "task")

    run(scenario)


def test_the_log_of_a_canceled_task_goes_on_until_its_attempt_has_ended(api: Api) -> None:
    """Which the stream tells of, too, though it changes nothing of the task itself."""

    async def scenario() -> None:
        ada = await user(api, "ada")
        task_id = await submit(api, ada)
        change = api.run(task_id)
        log_of(change).write_text("zero\n")
        async with serving(api) as (app, _), Stream(app, f"{PATH}?log={task_id}", ada) as stream:
            await until(stream, "log")
            await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{task_id}:cancel", headers=ada)
            assert data(await until(stream, "task"))["state"] == "CANCELED"
            for number in range(20):
                with log_of(change).open("a") as log:
                    log.write(f"{number}\n")
                assert data(await until(stream, "log"))["text"] == f"{number}\n"
            api.end(change, Outcome.CANCELED, None)
            told = [(await stream.event())["event"], (await stream.event())["event"]]
            assert sorted(told) == ["log_end", "task"]

    run(scenario)


def test_a_control_plane_that_is_away_loses_nothing(api: Api) -> None:
    async def scenario() -> None:
        ada = await user(api, "ada")
        task_id = await submit(api, ada)
        log = log_of(api.run(task_id))
        log.write_text("zero\n")
        async with serving(api) as (app, plane), Stream(app, f"{PATH}?log={task_id}", ada) as stream:
            await until(stream, "log")
            plane.is_away = True
            assert data(await until(stream, "status")) == {"state": "reconnecting"}
            new = await submit(api, ada)
            plane.is_away = False
            assert data(await until(stream, "status")) == {"state": "live"}
            assert data(await until(stream, "task"))["task_id"] == new
            plane.is_away = True
            assert data(await until(stream, "status")) == {"state": "reconnecting"}
            app.fastapi.state.changes.hub._checked_at -= 1000
            with log.open("a") as file:
                file.write("one\n")
            for _ in range(3):
                assert await stream.block() == ": keep-alive", "nobody knows whether she may still read it"
            plane.is_away = False
            news: dict[str, Any] = {}
            while news.keys() != {"status", "log"}:  # in either order
                event = await stream.event()
                news[event["event"]] = data(event)
            assert news["status"] == {"state": "live"} and news["log"]["text"] == "one\n"

    run(scenario)


def test_another_database_is_another_time(api: Api) -> None:
    """As after a restore, which gives it another key."""

    async def scenario() -> None:
        ada = await user(api, "ada")
        async with serving(api) as (app, _), Stream(app, PATH, ada) as stream:
            await begin(stream)
            await submit(api, ada)
            event = await until(stream, "task")
            with api.world.store.transaction() as db:
                db.execute("UPDATE change_clock SET key = randomblob(32), newest = newest + 3")
            resync = await until(stream, "resync")
            assert resync["id"] != event["id"]
            new = await submit(api, ada)
            assert data(await until(stream, "task"))["task_id"] == new

    run(scenario)


def test_streams_are_counted_by_user_and_given_back(api: Api) -> None:
    async def scenario() -> None:
        ada, bob = await user(api, "ada"), await user(api, "bob")
        spare = await asyncio.to_thread(api.token, "ada")
        task_id = await submit(api, ada)
        limit = ChangeLimit(total=3, per_caller=2)
        async with serving(api, changes_limit=limit) as (app, _):
            async with contextlib.AsyncExitStack() as stack:
                for who in (ada, spare):
                    await stack.enter_async_context(Stream(app, PATH, who))
                assert (await stack.enter_async_context(Stream(app, PATH, ada))).status == 503
                assert (await stack.enter_async_context(Stream(app, f"{PATH}?log={task_id}", bob))).status == 404
                assert (await stack.enter_async_context(Stream(app, PATH, bob))).status == 200
                assert (await stack.enter_async_context(Stream(app, PATH, ADMIN))).status == 503
                assert limit.open == 3
            assert limit.open == 0
            async with Stream(app, f"{PATH}?log={task_id}", ada) as stream:
                await begin(stream)
                assert (limit.open, api.streams.open) == (1, 1)
            assert (limit.open, api.streams.open) == (0, 0)
            hub = app.fastapi.state.changes.hub
            assert (hub.listeners, hub._by_task, hub._scopes) == (0, {}, {})

    run(scenario)
