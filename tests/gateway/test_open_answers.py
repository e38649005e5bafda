"""What anybody may have without a token: so many at a time, no thread of others, a piece in memory for each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from argus_ray.gateway.command import routes
from argus_ray.gateway.files.open_bytes import PIECE, OpenAnswers, OpenLimit
from tests.support.gateway import Api
from tests.support.stream import Stream, run

CONTENT = bytes(range(256)) * 3000


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "made.pyz"
    made.write_bytes(CONTENT)
    monkeypatch.setattr(routes, "FILE", made)
    return made


def asked_by(address: str) -> dict[str, Any]:
    return {"client": (address, 12345), "server": ("127.0.0.1", 8000)}


def with_answers(api: Api, answers: OpenAnswers) -> Any:
    app = api.make_app()
    app.fastapi.state.gateway = replace(app.fastapi.state.gateway, open_answers=answers)
    return app


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not within 5 s")


@pytest.mark.parametrize("path", ["/argus.pyz", "/openapi.json"])
def test_a_flood_of_clients_that_do_not_read_costs_a_piece_each_and_others_nothing(
    api: Api, file: Path, path: str
) -> None:
    answers = OpenAnswers(OpenLimit(total=6, per_caller=4))
    app = with_answers(api, answers)
    size = len(api.client.get(path).content)
    assert size > 3 * PIECE

    async def scenario() -> None:
        takes = asyncio.Event()
        unread = [Stream(app, path, {}, takes=takes, scope=asked_by("192.0.2.1")) for _ in range(4)]
        for each in unread:
            await each.__aenter__()
            assert each.status == 200
        assert answers.limit.open == 4
        async with Stream(app, path, {}, scope=asked_by("192.0.2.1")) as refused:
            assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        # One that has it, and one that asks for its size, take no place.
        tag = unread[0].headers["etag"]
        async with Stream(app, path, {"If-None-Match": tag}, scope=asked_by("192.0.2.1")) as known:
            assert known.status == 304
        async with Stream(app, path, {}, scope=asked_by("192.0.2.2")) as other:
            await other.over()
            assert (other.status, other.sent_bytes) == (200, size)
        assert all(each.sent_bytes <= PIECE for each in unread)
        takes.set()
        for each in unread:
            await each.over()
            assert each.sent_bytes == size
        await until(lambda: answers.limit.open == 0)

    run(scenario)


def test_no_thread_is_asked_for_once_it_is_in_memory(api: Api, file: Path) -> None:
    async def scenario() -> None:
        async with Stream(api.app, "/argus.pyz", {}) as first:
            await first.over()
        limiter = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.available_tokens)):
            limiter.acquire_on_behalf_of_nowait(object())
        file.unlink()
        for path in ("/argus.pyz", "/openapi.json"):
            async with Stream(api.app, path, {}) as later:
                await later.over()
                assert later.status == 200

    run(scenario)


def test_all_who_ask_at_once_wait_for_one_look(api: Api, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    real = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", counted)

    async def scenario() -> None:
        streams = [Stream(api.app, "/argus.pyz", {}) for _ in range(20)]
        await asyncio.gather(*(each.__aenter__() for each in streams))
        await asyncio.gather(*(each.over() for each in streams))
        assert [each.sent_bytes for each in streams] == [len(CONTENT)] * 20

    run(scenario)
    assert reads == [file]


def test_who_takes_a_byte_now_and_then_keeps_no_place_for_ever(api: Api, file: Path) -> None:
    now = [0.0]
    answers = OpenAnswers(longest_s=60.0, monotonic=lambda: now[0])
    app = with_answers(api, answers)

    async def scenario() -> None:
        takes = asyncio.Event()
        async with Stream(app, "/argus.pyz", {}, takes=takes) as slow:
            now[0] = 61.0
            takes.set()
            await slow.over()
            assert PIECE <= slow.sent_bytes < len(CONTENT), "fewer bytes than it was told: the server breaks it off"
        assert answers.limit.open == 0

    run(scenario)


def test_a_part_of_it(api: Api, file: Path) -> None:
    whole = api.client.get("/argus.pyz")
    assert (whole.content, whole.headers["accept-ranges"]) == (CONTENT, "bytes")
    tag = whole.headers["etag"]
    part = api.client.get("/argus.pyz", headers={"Range": "bytes=100000-199999", "If-Range": tag})
    assert (part.status_code, part.content) == (206, CONTENT[100_000:200_000])
    assert part.headers["content-range"] == f"bytes 100000-199999/{len(CONTENT)}"
    other = api.client.get("/argus.pyz", headers={"Range": "bytes=1-2", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, CONTENT)
    behind = api.client.get("/argus.pyz", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "range_not_satisfiable")
    assert behind.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_the_document_is_written_once_for_each_prefix_and_no_more_than_some(api: Api) -> None:
    assert json.loads(api.client.get("/openapi.json").content) == api.app.fastapi.openapi()
    tags = {api.client.get("/openapi.json").headers["etag"] for _ in range(2)}
    assert len(tags) == 1
    app = api.make_app()

    async def scenario() -> None:
        for number in range(40):
            headers = {"X-Forwarded-Prefix": f"/p{number}"}
            async with Stream(app, "/openapi.json", headers, scope=asked_by("127.0.0.1")) as stream:
                await stream.over()
                assert stream.status == 200
        assert 1 <= len(app.fastapi.state.openapi) <= 8

    run(scenario)
