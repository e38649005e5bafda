"""Streams of changes under random work: whoever applies the events has what a fresh list gives, wherever the stream
broke; and a thousand listeners cost what one costs."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from argus_ray.core.actions import CancelTask, Credential
from argus_ray.core.lifecycle import Advance, Change, End, Hold, Reject, Stall
from argus_ray.core.model import Attempt, FilesAt
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.core.watching import CheckCallers, ReadChanges, WatchTasks
from argus_ray.gateway.changes.hub import HubPace
from argus_ray.gateway.changes.streams import ChangeLimit
from argus_ray.store import disk
from tests.gateway.test_changes_api import PATH, Plane, begin, serving
from tests.support.builders import ADMIN as ADMIN_CREDENTIAL
from tests.support.builders import World
from tests.support.gateway import ADMIN, QUICK, Api, Headers, bearer_header
from tests.support.stream import Stream, is_heartbeat, parsed, run

#: Seconds; no test waits this long when all is well.
DEADLINE_S = 200.0


def run_long(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


class Work:
    """Random legal changes of the tasks of some users."""

    def __init__(self, world: World, users: dict[str, Credential], seed: int) -> None:
        self._world, self._users, self._random = world, users, random.Random(seed)

    def do(self) -> None:
        pick, world = self._random, self._world
        tasks = list(world.all_tasks())
        if len(tasks) < 4 or pick.random() < 0.15:
            world.submit(self._users[pick.choice(sorted(self._users))])
            return
        task = pick.choice(tasks)
        live = task.live_attempt
        if pick.random() < 0.08:
            world.service.handle(ADMIN_CREDENTIAL, CancelTask(task.task_id))
        elif task.state.is_waiting:
            reason = because(Code.POOL_BUSY, nodes=1, gpus=pick.randint(1, 9), cpus=1.0)
            changes: list[Change] = [Hold(task.task_id, reason), world.admission(task), Reject(task.task_id, "no")]
            world.service.apply([pick.choice(changes)])
        elif live is not None:
            self._move(live)
        elif task.state.is_final:
            with world.store.transaction() as db:
                db.execute("UPDATE tasks SET files_at = 'LEAVING' WHERE files_at = 'JOB_ROOT' AND task_id = ?",
                           (task.task_id,))  # fmt: skip
                disk.moved(db, task.task_id, FilesAt.LEAVING, FilesAt.TRASH, world.clock())

    def _move(self, live: Attempt) -> None:
        pick, name = self._random, live.submission_id
        outcome = pick.choice([Outcome.SUCCEEDED, Outcome.APPLICATION, Outcome.INFRASTRUCTURE])
        moves: list[Any] = [Advance(name, running=pick.random() < 0.7, session="s"), End(name, outcome, "so", 1)]
        if live.state is AttemptState.RUNNING:
            moves += [Stall(name, self._world.clock(), f"it sleeps {pick.randint(1, 9)}"), Stall(name, None)]
        self._world.service.apply([pick.choice(moves)])


class Client:
    """Applies what it is told, and reads the list when it must: at first, and when it is told to."""

    def __init__(self, app: Any, api: Api, path: str, who: Headers, lists: str) -> None:
        self._app, self._api, self._path, self._who, self._lists = app, api, path, who, lists
        self.tasks: dict[str, Any] = {}
        self.counts: Any = None
        self.lists, self.ids = 0, list[str]()
        self._last: str | None = None

    async def follow(self, blocks: int) -> None:
        """For so many events or heartbeats; then the connection breaks."""
        headers = self._who | ({} if self._last is None else {"Last-Event-ID": self._last})
        async with Stream(self._app, self._path, headers) as stream:
            for _ in range(blocks):
                block = await stream.block()
                if not is_heartbeat(block):
                    await self._apply(parsed(block))

    async def follow_until_equal(self) -> None:
        headers = self._who | ({} if self._last is None else {"Last-Event-ID": self._last})
        async with Stream(self._app, self._path, headers) as stream:
            while not await self._is_whole():
                await self._apply(await stream.event())

    async def _apply(self, event: dict[str, str]) -> None:
        name = event["event"]
        if name == "resync" or (name == "hello" and self._last is None):
            self.tasks, self.lists = await self.fresh(), self.lists + 1
        if name == "task":
            task = json.loads(event["data"])
            assert event["id"] not in self.ids, "nothing comes twice"
            self.ids.append(event["id"])
            self.tasks[task["task_id"]] = task
        if name == "counts":
            self.counts = json.loads(event["data"])["counts"]
        self._last = event.get("id", self._last)

    async def _is_whole(self) -> bool:
        fresh = await self.fresh()
        by_state: dict[str, int] = {}
        for task in fresh.values():
            by_state[task["state"]] = by_state.get(task["state"], 0) + 1
        counts = {state: n for state, n in (self.counts or {}).items() if n}
        return fresh == self.tasks and counts == by_state

    async def fresh(self) -> dict[str, Any]:
        found = await asyncio.to_thread(self._api.get, self._lists, self._who)
        assert found["next_cursor"] is None
        return {task["task_id"]: task for task in found["tasks"]}


@pytest.mark.parametrize("seed", range(2))
def test_whoever_applies_the_events_has_what_a_fresh_list_gives(api: Api, seed: int) -> None:
    async def scenario() -> None:
        pick = random.Random(seed)
        users = {name: api.world.user(name) for name in ("ada", "bob", "eve")}
        tokens = {name: bearer_header(api.world.issue(name)[1].token) for name in users}
        work = Work(api.world, users, seed)
        async with serving(api) as (app, plane):
            limit = "limit=500"
            clients = [
                *(Client(app, api, PATH, tokens[name], f"/api/v2/tasks?{limit}") for name in users),
                Client(app, api, f"{PATH}?everyone=true", ADMIN, f"/api/v2/tasks?{limit}"),
            ]
            at_work = True

            async def change() -> None:
                nonlocal at_work
                for _ in range(120):
                    await asyncio.to_thread(work.do)
                    if pick.random() < 0.7:
                        await looked()
                at_work = False

            async def looked() -> None:
                """Somebody was told, or nobody listens for the moment: then the next change goes with this one."""
                before = plane.count(ReadChanges)
                for _ in range(100):
                    if plane.count(ReadChanges) > before + 1:
                        return
                    await asyncio.sleep(0.002)

            async def follow(client: Client) -> None:
                while at_work:
                    await client.follow(pick.choice([2, 3, 3, 4, 6, 9]))
                await client.follow_until_equal()

            await asyncio.gather(change(), *map(follow, clients))
            for client, name in zip(clients, [*users, None], strict=True):
                assert client.lists == 1, "the list is read once, whatever breaks"
                assert {task["user_id"] for task in client.tasks.values()} <= ({name} if name else set(users))
            assert len(clients[-1].ids) > 15

    run_long(scenario)


def test_a_thousand_listeners_cost_one_poll(api: Api) -> None:
    """200 users with five listeners each. What memory and time they take is printed, and bounds nothing."""
    users, each, rounds = 200, 5, 20
    tokens = [bearer_header(api.world.issue(_made(api.world, f"u{n}"))[1].token) for n in range(users)]
    credentials = {n: api.world.issue(f"u{n}")[0] for n in (0, 1)}
    pace = HubPace(poll_s=0.05, check_s=3600.0, heartbeat_s=3600.0)

    async def scenario() -> None:
        plane = Plane(api)
        app = api.make_app(control=plane, changes_pace=pace, timing=QUICK, changes_limit=ChangeLimit(1000, 32))
        hub = app.fastapi.state.changes.hub
        streams = [Stream(app, PATH, tokens[n // each]) for n in range(users * each)]
        for n, stream in enumerate(streams):
            if n == 900:
                tracemalloc.start()
            await stream.__aenter__()
            await begin(stream)
        taken = tracemalloc.get_traced_memory()[0] / 100
        tracemalloc.stop()
        assert hub.listeners == 1000 and plane.count(WatchTasks) == 1000
        plane.asked.clear()
        cpu = time.process_time()
        while plane.count(ReadChanges) < rounds:
            await asyncio.sleep(0.01)
        idle = (time.process_time() - cpu) / rounds
        asked = set(map(type, plane.asked))
        assert asked == {ReadChanges}, "nothing is asked for a single listener"
        # A change of one user wakes this user's listeners and nobody else.
        quiet = [stream.sent_bytes for stream in streams[each:]]
        plane.asked.clear()
        api.world.submit(credentials[0])
        for stream in streams[:each]:
            while (await stream.event())["event"] != "task":
                pass
        assert set(map(type, plane.asked)) <= {ReadChanges}
        assert [stream.sent_bytes for stream in streams[each:]] == quiet
        # Tokens are looked at together.
        plane.asked.clear()
        await hub._check()
        checks = [action for action in plane.asked if isinstance(action, CheckCallers)]
        assert len(checks) == 1 and len(checks[0].digests) == users
        for stream in streams:
            await stream.leave()
        assert hub.listeners == 0
        await app.fastapi.state.changes.close()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"a listener takes {taken / 1024:.1f} KiB with its client; a round with nothing new"
            f" {idle * 1000:.1f} ms of CPU; at most {peak} MiB in all"
        )

    run_long(scenario)


def _made(world: World, name: str) -> str:
    world.user(name)
    return name


def test_a_listener_that_does_not_read_holds_nothing_and_loses_nothing(api: Api) -> None:
    async def scenario() -> None:
        who = api.world.user("ada")
        ada = bearer_header(api.world.issue("ada")[1].token)
        takes = asyncio.Event()
        takes.set()
        async with (
            serving(api) as (app, plane),
            Stream(app, PATH, ada, takes=takes) as slow,
            Stream(app, PATH, ada) as b,
        ):
            hub = app.fastapi.state.changes.hub
            hub.pace = replace(hub.pace, kept=4)  # the default is everybody's
            await begin(slow), await begin(b)
            takes.clear()
            ids = []
            for _ in range(12):
                ids.append((await asyncio.to_thread(api.world.submit, who)).task_id)
                while (event := await b.event())["event"] != "task" or json.loads(event["data"])["task_id"] != ids[-1]:
                    pass
            [scope] = hub._scopes.values()
            assert len(scope.entries) <= 4
            asked = plane.count(WatchTasks)
            takes.set()
            seen: list[str] = []
            while len(seen) < 12:
                event = await slow.event()
                assert event["event"] in ("task", "counts")
                seen += [json.loads(event["data"])["task_id"]] if event["event"] == "task" else []
            assert seen == ids
            assert plane.count(WatchTasks) == asked + 1, "it has asked from its own place, once"

    run(scenario)
