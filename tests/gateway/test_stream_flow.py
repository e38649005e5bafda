"""A client that is far behind, that does not read, or that is gone: what it costs, and what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.errors import Unavailable
from argus_ray.core.lifecycle import Admit
from argus_ray.core.model import Attempt
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.disk import logs
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.gateway.logs.stream import Follower, StreamTiming
from tests.support.gateway import QUICK, Api, Headers, attempt, log_of, make_api
from tests.support.stream import DEADLINE_S, Stream, run

#: Bytes. A stream skips when more than twice as much waits, and then goes on with a quarter of it.
TAIL = 4096
LINE = b"%06d " + b"." * 56 + b"\n"
FROM_THE_START = {"Last-Event-ID": "1:0"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Api]:
    """Whose log limits are small."""
    made = make_api(tmp_path, settings={"limits": {"log_tail_bytes": TAIL}})
    with made.client:
        yield made
    made.world.close()


async def running(api: Api) -> tuple[Headers, Admit, str]:
    """(headers, admission, the stream's path) of a task that runs and whose log is empty."""
    alice = await asyncio.to_thread(api.user, "alice")
    task_id = await asyncio.to_thread(api.submit, alice)
    change = api.run(task_id)
    log_of(change).touch()
    return alice, change, f"/api/v2/tasks/{task_id}/logs/stream"


def write(change: Admit, first: int, count: int) -> None:
    """Numbered lines of 64 bytes."""
    with log_of(change).open("ab") as log:
        log.write(b"".join(LINE % number for number in range(first, first + count)))


def numbers(data: str) -> list[int]:
    return [int(line.split()[0]) for line in data.split("\n")]


async def until(condition: Any, what: str) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    try:
        await asyncio.wait_for(poll(), DEADLINE_S)
    except asyncio.TimeoutError:
        pytest.fail(f"never seen: {what}")


def test_a_client_far_behind_is_told_what_was_left_out_and_goes_on_near_the_end(small: Api) -> None:
    async def scenario() -> None:
        alice, change, path = await running(small)
        write(change, 0, 1000)
        async with Stream(small.app, path, {**alice, **FROM_THE_START}) as stream:
            assert (await stream.event())["event"] == "attempt"
            gap = await stream.event()
            assert gap["event"] == "gap"
            left_out = json.loads(gap["data"])
            # Whole lines, of which the last ones stay.
            assert left_out["to"] == 64_000 - TAIL // 4 + 64
            assert left_out == {"attempt": 1, "from": 0, "to": left_out["to"], "bytes": left_out["to"]}
            assert gap["id"] == f"1:{left_out['to']}"
            first = left_out["to"] // 64
            event = await stream.event()
            assert numbers(event["data"]) == list(range(first, 1000))
            assert event["id"] == "1:64000"
        # A client that broke off at the gap goes on behind it, and one that broke off after it sees nothing twice.
        write(change, 1000, 1)
        for place, expected in ((gap["id"], list(range(first, 1001))), (event["id"], [1000])):
            async with Stream(small.app, path, {**alice, "Last-Event-ID": place}) as resumed:
                assert (await resumed.event())["event"] == "attempt"
                assert numbers((await resumed.event())["data"]) == expected

    run(scenario)


def test_a_client_that_is_a_little_behind_misses_nothing(small: Api) -> None:
    async def scenario() -> None:
        alice, change, path = await running(small)
        write(change, 0, 2 * TAIL // 64)
        async with Stream(small.app, path, {**alice, **FROM_THE_START}) as stream:
            assert (await stream.event())["event"] == "attempt"
            assert numbers((await stream.event())["data"]) == list(range(2 * TAIL // 64))

    run(scenario)


def test_the_largest_tail_begins_without_a_gap(small: Api) -> None:
    async def scenario() -> None:
        alice, change, path = await running(small)
        write(change, 0, 1000)
        async with Stream(small.app, path + "?tail=100000", alice) as stream:
            assert (await stream.event())["event"] == "attempt"
            write(change, 1000, TAIL // 64 - 1)
            seen: list[int] = []
            while not seen or seen[-1] < 1000 + TAIL // 64 - 2:
                event = await stream.event()
                assert event["event"] == "message"
                seen += numbers(event["data"])
            assert seen == list(range(1000 - TAIL // 64 + 1, 1000 + TAIL // 64 - 1))

    run(scenario)


def test_the_gap_of_an_attempt_that_has_ended_is_followed_by_its_end(small: Api) -> None:
    async def scenario() -> None:
        alice, change, path = await running(small)
        write(change, 0, 1000)
        small.end(change)
        async with Stream(small.app, path, {**alice, **FROM_THE_START}) as stream:
            names = []
            while event := await stream.event():
                names.append(event["event"])
            assert names == ["attempt", "gap", "message", "end"]
            assert event == {}

    run(scenario)


def test_a_client_that_does_not_read_makes_the_server_read_no_more(small: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    real = logs.read_lines_from

    def counted(root: str, path: str, offset: int, **options: Any) -> logs.Span:
        span = real(root, path, offset, **options)
        reads.append(len(span.data))
        return span

    monkeypatch.setattr(logs, "read_lines_from", counted)

    async def scenario() -> None:
        alice, change, path = await running(small)
        takes = asyncio.Event()
        takes.set()
        app = small.make_app(timing=replace(QUICK, heartbeat_s=1000.0))  # what waits to be sent is the line
        async with Stream(app, path, alice, takes=takes) as stream:
            assert (await stream.event())["event"] == "attempt"
            takes.clear()
            write(change, 0, 1)
            await until(lambda: sum(reads) == 64, "the line that waits to be sent")
            await asyncio.to_thread(write, change, 1, 10_000)
            before = len(reads)
            # Another client has followed to the end meanwhile, so there was time enough to read on.
            async with Stream(app, path + "?tail=1", alice) as other:
                await other.event()
                assert numbers((await other.event())["data"]) == [10_000]
                write(change, 10_001, 1)
                assert numbers((await other.event())["data"]) == [10_001]
            of_other = [size for size in reads[before:] if size]
            assert of_other == [64, 64]
            takes.set()
            assert numbers((await stream.event())["data"]) == [0]
            gap = await stream.event()
            assert (gap["event"], json.loads(gap["data"])["from"]) == ("gap", 64)
            assert numbers((await stream.event())["data"])[-1] == 10_001

    run(scenario)


def test_a_client_whose_connection_takes_nothing_is_given_up(small: Api) -> None:
    async def scenario() -> None:
        app = small.make_app(flow=FlowLimits(stall_s=0.05))
        alice, change, path = await running(small)
        takes = asyncio.Event()
        async with Stream(app, path, alice, takes=takes) as stream:
            write(change, 0, 1)
            await stream.over()
            assert small.streams.open == 0
            # The answer has no end, so that the server breaks the connection.
            assert not stream.is_over

    run(scenario)


class FakeQueues:
    """The kernel's queues, as the test says."""

    def __init__(self, queued: int | None) -> None:
        self.queued = queued
        self.looks = 0

    async def bytes_queued(self, connection: Any) -> int | None:
        assert (connection.host, connection.port, connection.own_port) == ("10.0.0.9", 40_000, 8000)
        self.looks += 1
        return self.queued


@asynccontextmanager
async def streaming(
    api: Api, queues: FakeQueues, limits: FlowLimits, lines: int
) -> AsyncIterator[tuple[Stream, Admit, str, Headers]]:
    """A stream behind a server whose `send` never waits."""
    app = api.make_app(flow=limits)
    app.fastapi.state.gateway = replace(app.fastapi.state.gateway, send_queues=queues)
    alice, change, path = await running(api)
    write(change, 0, lines)
    scope = {"client": ("10.0.0.9", 40_000), "server": ("10.0.0.2", 8000)}
    async with Stream(app, path, {**alice, **FROM_THE_START}, scope=scope) as stream:
        yield stream, change, path, alice


def test_a_stream_waits_while_the_kernel_holds_too_much_for_its_client(api: Api) -> None:
    async def scenario() -> None:
        limits = FlowLimits(look_bytes=64 * 1024, queued=100_000, wait_s=0.001)
        queues = FakeQueues(queued=1_000_000)
        async with streaming(api, queues, limits, 10_000) as (stream, _change, _path, _alice):
            await until(lambda: queues.looks > 20, "the stream waits")
            held = stream.sent_bytes
            # What went out before the first look; never the 640 kB that the log has.
            assert 0 < held < 2 * 80_000
            looks = queues.looks
            await until(lambda: queues.looks > looks + 20, "it waits on")
            assert stream.sent_bytes == held
            queues.queued = 50_000
            seen: list[int] = []
            while not seen or seen[-1] < 9_999:
                event = await stream.event()
                seen += numbers(event["data"]) if event["event"] == "message" else []
            assert seen == list(range(10_000))

    run(scenario)


def test_a_client_whose_queue_never_falls_is_given_up(api: Api) -> None:
    async def scenario() -> None:
        limits = FlowLimits(look_bytes=64 * 1024, queued=100_000, wait_s=0.001, stall_s=0.05)
        async with streaming(api, FakeQueues(1_000_000), limits, 10_000) as (stream, _change, _path, _alice):
            await stream.over()
            assert api.streams.open == 0
            assert stream.sent_bytes < 2 * 80_000

    run(scenario)


def test_a_client_that_is_gone_is_noticed_by_its_heartbeats(api: Api) -> None:
    async def scenario() -> None:
        # The few bytes of a heartbeat lie in the queue and nobody takes them; it is never full.
        limits = FlowLimits(look_s=0.0, stall_s=0.2)
        async with streaming(api, FakeQueues(14), limits, 1) as (stream, _change, _path, _alice):
            await stream.over()
            assert api.streams.open == 0

    run(scenario)


def test_a_stream_whose_client_cannot_be_seen_ends_after_so_much_and_resumes(api: Api) -> None:
    async def scenario() -> None:
        limits = FlowLimits(look_bytes=1, unseen=100_000, wait_s=0.001)
        async with streaming(api, FakeQueues(None), limits, 5_000) as (stream, _change, path, alice):
            seen: list[int] = []
            place = ""
            while event := await stream.event():
                assert event["event"] in ("attempt", "message")
                seen += numbers(event["data"]) if event["event"] == "message" else []
                place = event["id"]
            # Complete, but without an `end`.
            assert stream.is_over
            assert seen == list(range(len(seen)))
            assert len(seen) < 5_000
            assert stream.sent_bytes < 100_000 + 2 * 80_000
        async with Stream(api.app, path, {**alice, "Last-Event-ID": place}) as resumed:
            while seen[-1] < 4_999:
                event = await resumed.event()
                seen += numbers(event["data"]) if event["event"] == "message" else []
        assert seen == list(range(5_000))

    run(scenario)


@pytest.mark.parametrize(("drawn", "seconds_between"), [(0.0, 3.0), (0.5, 4.0), (1.0, 5.0)])
def test_streams_that_began_together_do_not_ask_together(
    monkeypatch: pytest.MonkeyPatch, drawn: float, seconds_between: float
) -> None:
    now = 0.0
    asked_at: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def find(number: int | None) -> tuple[TaskState, Attempt | None]:
        asked_at.append(now)
        if len(asked_at) == 3:
            raise Enough()
        return TaskState.QUEUED, None

    async def read(root: str, after: int, final: bool) -> logs.Span:
        raise AssertionError("there is no log")

    async def scenario() -> None:
        timing = StreamTiming(poll_s=0.5, check_s=4.0, heartbeat_s=1000.0)
        follower = Follower(
            find, read, timing, state=TaskState.QUEUED, attempt=None, offset=0, pinned=False,
            monotonic=lambda: now, draw=lambda: drawn,
        )  # fmt: skip
        with pytest.raises(Enough):
            async for _ in follower.events():
                pass

    monkeypatch.setattr("argus_ray.gateway.logs.stream.asyncio.sleep", sleep)
    asyncio.run(scenario())
    assert asked_at == [seconds_between, 2 * seconds_between, 3 * seconds_between]


def test_a_disk_that_does_not_answer_ends_no_log_and_loses_nothing_of_it(tmp_path: Path) -> None:
    """The attempt has ended: what the disk does not tell must not count as the end of its log."""
    ended = replace(attempt(tmp_path), state=AttemptState.ENDED)
    answers: list[logs.Span | Exception] = [
        logs.Span(b"one\n", 0, 4), Unavailable("it hangs"), Unavailable("it hangs"), logs.Span(b"two\n", 4, 8)
    ]  # fmt: skip

    async def find(number: int | None) -> tuple[TaskState, Attempt | None]:
        return TaskState.SUCCEEDED, ended

    async def read(root: str, after: int, final: bool) -> logs.Span:
        answer = answers.pop(0) if answers else logs.Span(b"", after, after)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follower(**timing: float) -> Follower:
        return Follower(
            find,
            read,
            StreamTiming(poll_s=0.001, **timing),
            state=TaskState.SUCCEEDED,
            attempt=ended,
            offset=0,
            pinned=True,
        )

    async def texts() -> list[tuple[str, str]]:
        return [(step.kind, step.text) async for step in follower().steps() if step is not None]

    assert asyncio.run(texts()) == [("attempt", ""), ("lines", "one\n"), ("lines", "two\n"), ("end", "")]

    answers[:] = [Unavailable("it hangs")] * 1000

    async def to_its_end() -> None:
        async for _ in follower(grace_s=0.05).steps():
            pass

    with pytest.raises(Unavailable):
        asyncio.run(to_its_end())
