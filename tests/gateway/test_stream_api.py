"""Following a log: growth, ends, further attempts, resumption, revocation, limits, clients that leave."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from argus_ray.core.actions import Action, Credential
from argus_ray.core.errors import Unavailable
from argus_ray.core.states import Outcome
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.logs.stream import Place, StreamLimit, StreamTiming
from tests.support.gateway import ADMIN, INTERNAL, QUICK, Api, log_of
from tests.support.stream import Stream, run, running_task


def test_a_stream_follows_the_log_to_the_end(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api) as (_, task_id, change, stream):
            assert stream.status == 200
            began = await stream.event()
            assert began["event"] == "attempt"
            assert json.loads(began["data"]) == {"submission_id": f"{task_id}--a01", "number": 1}
            assert await stream.event() == {"event": "message", "data": "zero", "id": "1:5"}
            with log_of(change).open("ab") as log:
                log.write(b"one\r\n10%\r20%\rtwo\nhal")
                log.flush()
                seen: list[str] = []
                while "two" not in seen:
                    event = await stream.event()
                    seen += event["data"].split("\n")
                assert seen == ["one", "10%", "20%", "two"]
                log.write(b"f \xff")
            api.end(change)
            rest, end = await stream.until("end")
            assert rest == ["half \ufffd"]
            assert json.loads(end["data"]) == {
                "task_state": "SUCCEEDED",
                "attempt": 1,
                "outcome": "SUCCEEDED",
            }
            assert await stream.event() == {}
            assert stream.is_over
        assert api.streams.open == 0

    run(scenario)


def test_a_stream_goes_on_with_the_next_attempt(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api) as (_, task_id, first, stream):
            await stream.until("message")
            api.end(first, Outcome.INFRASTRUCTURE, None)
            second = api.run(task_id)
            log_of(second).write_text("again\n")
            _, began = await stream.until("attempt")
            assert (json.loads(began["data"])["number"], began["id"]) == (2, "2:0")
            assert (await stream.event())["data"] == "again"
            api.end(second)
            _, end = await stream.until("end")
            assert json.loads(end["data"])["attempt"] == 2

    run(scenario)


def test_a_stream_of_one_attempt_ends_with_it(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api, "?attempt=1") as (_, _task_id, change, stream):
            api.end(change, Outcome.INFRASTRUCTURE, None)
            await stream.event()
            seen, end = await stream.until("end")
            assert seen == ["zero"]
            assert json.loads(end["data"])["task_state"] == "QUEUED"

    run(scenario)


def test_a_stream_that_begins_before_the_first_attempt(api: Api) -> None:
    async def scenario() -> None:
        alice = await asyncio.to_thread(api.user, "alice")
        task_id = await asyncio.to_thread(api.submit, alice)
        async with Stream(api.app, f"/api/v2/tasks/{task_id}/logs/stream", alice) as stream:
            while ": keep-alive" not in await stream.block():
                pass
            change = api.run(task_id)
            assert (await stream.event())["event"] == "attempt"
            log_of(change).write_text("hello\n")
            assert (await stream.event())["data"] == "hello"
            await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{task_id}:cancel", headers=alice)
            api.end(change, Outcome.CANCELED, None)
            _, end = await stream.until("end")
            assert json.loads(end["data"])["task_state"] == "CANCELED"

    run(scenario)


def test_a_canceled_task_is_followed_until_its_attempt_has_ended(api: Api) -> None:
    """The task is final at once, and what runs still has the grace to write."""

    async def scenario() -> None:
        async with running_task(api) as (alice, task_id, change, stream):
            await stream.until("message")
            await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{task_id}:cancel", headers=alice)
            async with Stream(api.app, f"/api/v2/tasks/{task_id}/logs/stream", alice) as knows:
                await knows.until("message")
            for _ in range(20):  # each after some looks
                assert await stream.block() == ": keep-alive"
            with log_of(change).open("a") as log:
                log.write("saved\n")
            assert (await stream.event())["data"] == "saved"
            api.end(change, Outcome.CANCELED, None)
            seen, end = await stream.until("end")
            assert seen == [] and json.loads(end["data"])["outcome"] == "CANCELED"

    run(scenario)


def test_an_attempt_that_does_not_end_holds_the_stream_of_a_canceled_task_for_a_while_only(api: Api) -> None:
    async def scenario() -> None:
        api.app = api.make_app(timing=replace(QUICK, ends_s=0.3))
        async with running_task(api) as (alice, task_id, change, stream):
            await stream.until("message")
            with log_of(change).open("a") as log:
                log.write("half a li")
            await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{task_id}:cancel", headers=alice)
            seen, end = await stream.until("end")
            assert seen == ["half a li"]
            assert json.loads(end["data"]) == {"task_state": "CANCELED", "attempt": 1, "outcome": None}

    run(scenario)


def test_that_while_is_longer_than_the_grace_of_a_run(api: Api) -> None:
    settings = api.world.settings
    scheduling = settings.scheduling.model_copy(update={"stop_grace_s": 600})
    app = api.make_app(timing=None, settings=settings.model_copy(update={"scheduling": scheduling}))
    assert app.fastapi.state.gateway.timing.ends_s >= 660


def test_a_task_that_never_ran_has_an_empty_stream(api: Api) -> None:
    async def scenario() -> None:
        alice = await asyncio.to_thread(api.user, "alice")
        task_id = await asyncio.to_thread(api.submit, alice)
        await asyncio.to_thread(api.client.post, f"/api/v2/tasks/{task_id}:cancel", headers=alice)
        async with Stream(api.app, f"/api/v2/tasks/{task_id}/logs/stream", alice) as stream:
            seen, end = await stream.until("end")
            assert (seen, json.loads(end["data"])["attempt"]) == ([], None)

    run(scenario)


def test_last_event_id_resumes_without_loss_or_repetition(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api) as (alice, task_id, first, stream):
            _, event = await stream.until("message")
            place = event["id"]
        with log_of(first).open("a") as log:
            log.write("missed\n")
        api.end(first, Outcome.INFRASTRUCTURE, None)
        second = api.run(task_id)
        log_of(second).write_text("again\n")
        path = f"/api/v2/tasks/{task_id}/logs/stream"
        async with Stream(api.app, path, {**alice, "Last-Event-ID": place}) as resumed:
            assert (await resumed.event())["event"] == "attempt"
            seen, _ = await resumed.until("attempt")
            assert seen == ["missed"]
            assert (await resumed.event())["data"] == "again"
        # A bare offset means the attempt that is asked for.
        async with Stream(api.app, path + "?attempt=1", {**alice, "Last-Event-ID": "5"}) as bare:
            await bare.event()
            assert (await bare.until("end"))[0] == ["missed"]

    run(scenario)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1:5", Place(1, 5)), ("7", Place(None, 7)), ("", None), ("x", None), ("1:-5", None), ("1:2:3", None),
        ("9" * 30, None),
    ],
)  # fmt: skip
def test_a_strange_last_event_id_is_ignored(text: str, place: Place | None) -> None:
    assert Place.parse(text) == place


def test_the_tail_of_a_stream(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api, "?tail=0") as (_, _task_id, change, stream):
            assert (await stream.event())["id"] == "1:5"
            with log_of(change).open("a") as log:
                log.write("new\n")
            assert (await stream.event())["data"] == "new"

    run(scenario)


@pytest.mark.parametrize(("what", "code"), [("disable", "user_disabled"), ("revoke", "unauthenticated")])
def test_a_stream_ends_when_the_right_to_read_does(api: Api, what: str, code: str) -> None:
    async def scenario() -> None:
        async with running_task(api) as (_, _task_id, _change, stream):
            await stream.until("message")
            if what == "disable":
                await asyncio.to_thread(api.client.post, "/api/v2/users/alice:disable", headers=ADMIN)
            else:
                tokens = (await asyncio.to_thread(api.get, "/api/v2/users/alice/tokens", ADMIN))["tokens"]
                path = f"/api/v2/users/alice/tokens/{tokens[0]['token_id']}"
                await asyncio.to_thread(api.client.delete, path, headers=ADMIN)
            _, error = await stream.until("error")
            assert json.loads(error["data"])["code"] == code
            assert await stream.event() == {}
        assert api.streams.open == 0

    run(scenario)


def test_a_stream_outlives_a_short_silence_of_the_control_plane_and_no_long_one(api: Api) -> None:
    silent = asyncio.Event()
    local = LocalControlPlane(api.world.service)

    class Sometimes:
        async def call(self, who: Credential, action: Action[Any]) -> Any:
            if silent.is_set():
                raise Unavailable()
            return await local.call(who, action)

    async def scenario() -> None:
        def app(grace_s: float) -> Any:
            timing = StreamTiming(poll_s=0.005, check_s=0.01, grace_s=grace_s, heartbeat_s=0.02)
            return api.make_app(control=Sometimes(), timing=timing)

        api.app = app(grace_s=600)
        async with running_task(api) as (alice, task_id, change, stream):
            await stream.until("message")
            silent.set()
            with log_of(change).open("a") as log:
                log.write("still here\n")
            assert (await stream.event())["data"] == "still here"
            silent.clear()
            async with Stream(app(grace_s=0.05), f"/api/v2/tasks/{task_id}/logs/stream", alice) as other:
                await other.until("message")
                silent.set()
                _, error = await other.until("error")
                assert json.loads(error["data"])["code"] == "unavailable"

    run(scenario)


def test_a_client_that_leaves_gives_its_place_back(api: Api) -> None:
    async def scenario() -> None:
        async with running_task(api) as (_, _task_id, _change, stream):
            await stream.until("message")
            assert api.streams.open == 1
            await stream.leave()
            assert api.streams.open == 0

    run(scenario)


def test_streams_are_bounded(tmp_path: Any) -> None:
    from tests.support.gateway import make_api

    api = make_api(tmp_path)
    api.streams = StreamLimit(total=2, per_caller=1)
    api.app = api.make_app()

    async def scenario() -> None:
        async with running_task(api) as (alice, task_id, _change, _stream):
            path = f"/api/v2/tasks/{task_id}/logs/stream"
            async with Stream(api.app, path, alice) as second:
                assert second.status == 503
            async with Stream(api.app, path, ADMIN) as of_admin:
                assert of_admin.status == 200
                token = await asyncio.to_thread(api.token, "alice")
                async with Stream(api.app, path, token) as third:
                    assert third.status == 503
        assert api.streams.open == 0

    run(scenario)
    api.world.close()


def test_streams_are_counted_by_user_and_not_by_token(tmp_path: Any) -> None:
    from tests.support.gateway import make_api

    api = make_api(tmp_path)
    api.streams = StreamLimit(total=9, per_caller=2)
    api.app = api.make_app()

    async def scenario() -> None:
        async with running_task(api) as (_alice, task_id, _change, _stream):
            path = f"/api/v2/tasks/{task_id}/logs/stream"
            second, third = [await asyncio.to_thread(api.token, "alice") for _ in range(2)]
            async with Stream(api.app, path, second) as of_alice, Stream(api.app, path, third) as too_many:
                assert (of_alice.status, too_many.status) == (200, 503)
                # Admin tokens are nobody's: their role counts, and takes nothing from the user.
                async with AsyncExitStack() as stack:
                    open_one = [Stream(api.app, path, who) for who in (ADMIN, ADMIN, ADMIN, INTERNAL)]
                    opened = [await stack.enter_async_context(one) for one in open_one]
                    assert [one.status for one in opened] == [200, 200, 503, 200]
        assert api.streams.open == 0

    run(scenario)
    api.world.close()


def test_a_place_is_given_back_once() -> None:
    limit = StreamLimit(total=1)
    release = limit.acquire("a")
    with pytest.raises(Unavailable):
        limit.acquire("b")
    release()
    release()
    assert limit.open == 0
    limit.acquire("b")
