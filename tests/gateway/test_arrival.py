"""Bodies that come late or never: a stranger hears of the bad token first, and a good one costs one crossing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from argus_ray.core.actions import Action, Credential, WhoAmI
from argus_ray.core.ids import make_token
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.http.arrival import Arrival
from tests.support.gateway import YAML, Api, Headers, bearer_header

DEADLINE_S = 30.0
#: Well-formed, and nobody's.
STRANGER = bearer_header(make_token(b"s" * 32))


class Counting:
    """A control plane that keeps what was asked."""

    def __init__(self, api: Api) -> None:
        self._local = LocalControlPlane(api.world.service)
        self.asked: list[Action[Any]] = []

    async def call(self, who: Credential, action: Action[Any]) -> Any:
        self.asked.append(action)
        return await self._local.call(who, action)


class Client:
    """Sends a body piece by piece, as the test says; speaks ASGI itself."""

    def __init__(self, app: Any, headers: Headers, path: str = "/api/v2/tasks") -> None:
        self._app, self._path = app, path
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages: list[dict[str, Any]] = []
        self.waits = 0

    def send(self, body: bytes, *, more: bool) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})

    async def _receive(self) -> dict[str, Any]:
        if self._pieces.empty():
            self.waits += 1
        return await self._pieces.get()

    async def _take(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    async def answer(self, meanwhile: Callable[[], Any] | None = None) -> tuple[int, dict[str, Any]]:
        """(status, body); `meanwhile` runs each moment until then."""
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
            "method": "POST", "scheme": "http", "path": self._path, "raw_path": self._path.encode(),
            "root_path": "", "query_string": b"", "headers": self._headers,
        }  # fmt: skip
        running = asyncio.ensure_future(self._app(scope, self._receive, self._take))

        async def until_done() -> None:
            while not running.done():
                if meanwhile is not None:
                    meanwhile()
                await asyncio.wait({running}, timeout=0.005)
            await running

        await asyncio.wait_for(until_done(), DEADLINE_S)
        body = b"".join(message.get("body", b"") for message in self._messages[1:])
        return self._messages[0]["status"], json.loads(body)


def test_a_stranger_is_refused_before_a_body_that_does_not_come(api: Api) -> None:
    async def scenario() -> None:
        control = Counting(api)
        app = api.make_app(control=control)
        # No body at all, and one that begins and does not go on.
        for begun in (False, True):
            client = Client(app, {**STRANGER, **YAML})
            if begun:
                client.send(b"workload: grpo\n", more=True)
            status, problem = await client.answer()
            assert (status, problem["code"]) == (401, "unauthenticated")
        assert [type(action) for action in control.asked] == [WhoAmI, WhoAmI]

    asyncio.run(scenario())


@pytest.mark.parametrize("headers", [{}, bearer_header("argus_u_nonsense"), {"Authorization": "Bearer a b"}])
def test_a_missing_or_malformed_token_is_refused_without_a_look_at_the_body(api: Api, headers: Headers) -> None:
    async def scenario() -> None:
        control = Counting(api)
        client = Client(api.make_app(control=control), {**headers, **YAML})
        client.send(b"workload: grpo\n", more=True)
        status, problem = await client.answer()
        assert (status, problem["code"], client.waits, control.asked) == (401, "unauthenticated", 0, [])

    asyncio.run(scenario())


def test_a_small_body_costs_one_crossing(api: Api, alice: Headers) -> None:
    async def scenario() -> None:
        control = Counting(api)
        app = api.make_app(control=control)
        for _ in range(2):  # the first one of a token is asked for before files are looked at
            control.asked.clear()
            client = Client(app, {**alice, **YAML})
            client.send(api.world.spec().encode(), more=False)
            status, _ = await client.answer()
            assert status == 201
        assert len(control.asked) == 1
        assert WhoAmI() not in control.asked

    asyncio.run(scenario())


def test_a_body_that_comes_late_is_read_after_its_sender_is_known(api: Api, alice: Headers) -> None:
    async def scenario() -> None:
        control = Counting(api)
        client = Client(api.make_app(control=control), {**alice, **YAML})
        text = api.world.spec().encode()
        client.send(text[:40], more=True)
        rest = [text[40:60], text[60:]]

        def meanwhile() -> None:
            if rest and WhoAmI() in control.asked:
                piece = rest.pop(0)
                client.send(piece, more=bool(rest))

        status, body = await client.answer(meanwhile)
        assert status == 201, body
        # Once, however many pieces there are.
        assert control.asked.count(WhoAmI()) == 1
        spec = await asyncio.to_thread(api.client.get, f"/api/v2/tasks/{body['task_id']}/spec", headers=alice)
        assert spec.content == text

    asyncio.run(scenario())


def test_nothing_is_lost_when_the_patience_ends_as_a_piece_comes() -> None:
    async def scenario() -> None:
        for number in range(300):
            pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            arrival = Arrival(pieces.get, patience_s=0.001)
            asked: list[int] = []

            async def authenticate(asked: list[int] = asked, number: int = number) -> None:
                asked.append(number)

            arrival.require(authenticate)
            # Around the very moment.
            delay = 0.0009 + 0.0000008 * number
            asyncio.get_running_loop().call_later(delay, pieces.put_nowait, {"number": number})
            assert await asyncio.wait_for(arrival(), DEADLINE_S) == {"number": number}
            assert asked in ([], [number])

    asyncio.run(scenario())


def test_a_cancellation_from_outside_stays_one() -> None:
    async def scenario() -> None:
        async def never() -> Any:
            await asyncio.Event().wait()

        async def authenticate() -> None:
            raise AssertionError("not asked")

        arrival = Arrival(never, patience_s=DEADLINE_S)
        arrival.require(authenticate)
        waiting = asyncio.ensure_future(arrival())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
