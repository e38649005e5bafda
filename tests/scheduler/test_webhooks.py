"""Telling webhooks, over a real database: at least once, of each task in order, through restarts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import Unavailable
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.verl.failures import Failure
from argus_ray.core.webhooks import MAX_AGE_S, MAX_REFUSALS, Moves, Reply, Verdict, Webhook
from argus_ray.scheduler import webhooks
from argus_ray.scheduler.webhooks import Messenger
from argus_ray.service import Service
from tests.support.builders import World, make_service

DELIVERED, LATER = Reply(Verdict.DELIVERED, "status 200"), Reply(Verdict.LATER, "status 503")
REFUSED = Reply(Verdict.REFUSED, "status 400")
HOOK = Webhook("chat", "http://receiver/", "SECRET")


@dataclass
class Receiver:
    """What it was sent and took. `answer` says what it makes of a message."""

    answer: Callable[[str, dict[str, Any]], Reply] = lambda message, document: DELIVERED
    taken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tries: int = 0

    async def __call__(self, webhook: Webhook, message: str, content: bytes) -> Reply:
        self.tries += 1
        await asyncio.sleep(0)
        document = json.loads(content)["data"]
        reply = self.answer(message, document)
        if reply.verdict is Verdict.DELIVERED:
            self.taken.append((message, document))
        return reply

    def states(self, task_id: str) -> list[str]:
        """Of one task, each message once, in the order of their first arrival."""
        found = {message: document for message, document in reversed(self.taken) if document["task_id"] == task_id}
        return [document["new_state"] for document in reversed(found.values())]


class StateOf:
    """The state actor, which is away if `is_away`."""

    def __init__(self, world: World) -> None:
        self.world, self.is_away, self.asked = world, False, 0

    async def webhook_place(self, name: str, told_to: int | None = None) -> int:
        return self._service().webhook_place(name, told_to)

    async def moves(self, place: int) -> Moves:
        self.asked += 1
        return self._service().moves(place)

    def _service(self) -> Service:
        if self.is_away:
            raise Unavailable("away")
        return self.world.service


@dataclass
class Told:
    """A world with a receiver. Waits of the messenger are steps of the world's clock."""

    world: World
    receiver: Receiver
    state: StateOf
    #: Called at each wait, with its seconds.
    at_wait: Callable[[float], None] = lambda seconds: None

    def messenger(self, hook: Webhook = HOOK) -> Messenger:
        async def sleep(seconds: float) -> None:
            self.world.clock.advance(seconds)
            self.at_wait(seconds)
            await asyncio.sleep(0)

        return Messenger(hook, self.state, self.receiver, "pool", self.world.clock, sleep, lambda: 0.5)

    def run(self, until: Callable[[], bool], hook: Webhook = HOOK, turns: int = 20_000) -> Messenger:
        """A process that lives until that holds."""
        made = self.messenger(hook)

        async def live() -> None:
            task = asyncio.create_task(made.run())
            for _ in range(turns):
                if until():
                    break
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert until(), "it came to nothing"

        asyncio.run(live())
        return made

    def idle(self, hook: Webhook = HOOK) -> Messenger:
        """Runs until it has nothing to tell."""
        begun = self.state.asked
        waits: list[float] = []
        self.at_wait = waits.append
        made = self.run(lambda: len(waits) >= 2 and self.state.asked > begun, hook)
        self.at_wait = lambda seconds: None
        return made


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    world = make_service(tmp_path)
    yield Told(world, Receiver(), StateOf(world))
    world.close()


def test_each_move_is_told_once_and_in_order(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    task = told.world.submit(ada)
    told.world.service.apply([told.world.admission(task)])
    told.world.service.handle(ada, actions.CancelTask(task.task_id))
    told.idle()
    assert [document["new_state"] for _, document in told.receiver.taken] == ["QUEUED", "SUBMITTING", "CANCELED"]
    assert told.receiver.taken[1][1]["submission_id"] == f"{task.task_id}--a01"
    assert told.receiver.taken[2][1]["old_state"] == "SUBMITTING"
    told.idle()
    assert told.receiver.tries == 3, "what was told is not told again, and a restart tells nothing twice"


def test_a_failure_is_told_with_the_move_to_failed_alone(told: Told) -> None:
    """Also if all is told only when the attempt has failed."""
    told.idle()
    task = told.world.submit(told.world.user("ada"))
    admission = told.world.admission(task)
    told.world.service.apply((admission,))
    told.world.service.apply((Advance(admission.submission_id, running=True, session="s", node_ip="10.0.0.2"),))
    failed = End(admission.submission_id, Outcome.APPLICATION, "killed", 137, failure=Failure("killed", "", "x"))
    told.world.service.apply((failed,))
    told.idle()
    codes = [(document["new_state"], document["failure_code"]) for _, document in told.receiver.taken]
    assert codes[-1] == ("FAILED", "killed")
    assert {code for state, code in codes if state != "FAILED"} == {None} and len(codes) >= 3


def test_a_new_one_begins_with_what_comes(told: Told) -> None:
    ada = told.world.user("ada")
    told.world.submit(ada)
    told.idle()
    later = told.world.submit(ada)
    told.idle()
    assert [document["task_id"] for _, document in told.receiver.taken] == [later.task_id]


def test_only_of_whom_and_what_was_asked_for(told: Told) -> None:
    ada, bob = told.world.user("ada"), told.world.user("bob")
    hook = Webhook("finals", "http://receiver/", "SECRET", ("ada",), (TaskState.CANCELED,))
    told.idle(hook)
    for who in (ada, bob):
        told.world.service.handle(who, actions.CancelTask(told.world.submit(who).task_id))
    told.idle(hook)
    assert [(each["user_id"], each["new_state"]) for _, each in told.receiver.taken] == [("ada", "CANCELED")]


def test_the_place_is_stored_though_nothing_is_of_interest(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_PLACE_EVERY", 10)
    hook = Webhook("other", "http://receiver/", "SECRET", ("nobody",))
    told.idle(hook)
    begun = told.world.service.webhook_place("other")
    ada = told.world.user("ada")
    for _ in range(6):
        told.world.submit(ada)
        told.idle(hook)
    assert told.world.service.webhook_place("other") == begun, "not for each, which would be a write each time"
    for _ in range(6):
        told.world.submit(ada)
    told.idle(hook)
    assert told.world.service.webhook_place("other") == begun + 12, "a restart looks at few of them again"


def test_while_it_is_away_nothing_is_lost_and_one_task_stays_in_order(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    tasks = [told.world.submit(ada) for _ in range(5)]
    for task in tasks:
        told.world.service.handle(ada, actions.CancelTask(task.task_id))
    away_until = told.world.clock() + 3600
    told.receiver.answer = lambda message, document: DELIVERED if told.world.clock() > away_until else LATER
    waits: list[float] = []
    told.at_wait = waits.append
    made = told.run(lambda: len(told.receiver.taken) == 10)
    assert made.trouble is None
    assert max(waits) <= 300 and told.receiver.tries < 200, "an hour costs few tries"
    for task in tasks:
        assert told.receiver.states(task.task_id) == ["QUEUED", "CANCELED"]


def test_an_outage_of_seconds_costs_seconds_however_many_wait(told: Told) -> None:
    """The messages of one window have one receiver: what one of them hears is heard for all."""
    ada = told.world.user("ada")
    told.idle()
    for _ in range(100):
        told.world.submit(ada)
    clock = told.world.clock
    begun = clock()
    told.receiver.answer = lambda message, document: DELIVERED if clock() > begun + 10 else LATER
    made = told.messenger()

    async def sleep(seconds: float) -> None:
        until = clock() + seconds
        while clock() < until:
            await asyncio.sleep(0)

    async def live() -> None:
        made.sleep = sleep
        task = asyncio.create_task(made.run())
        while len(told.receiver.taken) < 100 and clock() < begun + 900:
            clock.advance(0.01)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    assert clock() < begun + 30 and made.trouble is None
    assert told.receiver.tries < 100 + 4 + 8, "four at once find out, and then one asks for all"


def test_what_is_left_out_is_said_once_for_many(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """As for a receiver that is in the settings again after a year."""
    ada = told.world.user("ada")
    told.idle()
    for _ in range(100):
        told.world.submit(ada)
    told.world.clock.advance(MAX_AGE_S + 1)
    caplog.clear()
    made = told.idle()
    assert made.left_out == 100 and made.trouble is None
    said = [record.getMessage() for record in caplog.records if record.name == webhooks.__name__]
    assert said == ["webhook chat: 100 messages are left out: they are older than a day"]


def test_it_says_so_while_it_is_away(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    told.world.submit(ada)
    told.receiver.answer = lambda message, document: LATER
    made = told.run(lambda: told.receiver.tries >= 3)
    assert made.trouble == "status 503"


def test_a_message_that_is_refused_does_not_hold_up_the_others(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    bad, good = told.world.submit(ada), told.world.submit(ada)
    told.receiver.answer = lambda message, document: REFUSED if document["task_id"] == bad.task_id else DELIVERED
    made = told.run(lambda: told.receiver.tries == MAX_REFUSALS + 1 and told.world.service.webhook_place("chat") > 1)
    assert [document["task_id"] for _, document in told.receiver.taken] == [good.task_id]
    assert made.left_out == 1


def test_what_is_older_than_a_day_is_left_out(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    told.world.submit(ada)
    told.world.clock.advance(MAX_AGE_S + 1)
    young = told.world.submit(ada)
    made = told.idle()
    assert [document["task_id"] for _, document in told.receiver.taken] == [young.task_id]
    assert made.left_out == 1


def test_a_state_actor_that_is_away_is_waited_for(told: Told) -> None:
    ada = told.world.user("ada")
    told.idle()
    told.world.submit(ada)
    told.state.is_away = True
    waits: list[float] = []

    def at_wait(seconds: float) -> None:
        waits.append(seconds)
        told.state.is_away = len(waits) < 6

    told.at_wait = at_wait
    told.run(lambda: len(told.receiver.taken) == 1)
    assert waits[:5] == sorted(waits[:5]) and waits[4] > waits[0], "ever more seldom"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_each_message_comes_and_in_order(told: Told, seed: int) -> None:
    """Its process dies again and again at any point; the receiver is away now and then."""
    chance = random.Random(seed)
    users = [told.world.user(name) for name in ("ada", "bob")]
    told.idle()
    told.receiver.answer = lambda message, document: LATER if chance.random() < 0.2 else DELIVERED
    expected: dict[str, list[str]] = {}
    alive: list[tuple[Any, str]] = []
    for _ in range(25):
        for _ in range(chance.randrange(4)):
            who = chance.choice(users)
            task = told.world.submit(who)
            expected[task.task_id] = ["QUEUED"]
            alive.append((who, task.task_id))
        if alive and chance.random() < 0.6:
            who, name = alive.pop(chance.randrange(len(alive)))
            told.world.service.handle(who, actions.CancelTask(name))
            expected[name].append("CANCELED")
        left = chance.randrange(60)
        asked = told.state.asked
        told.run(lambda: told.receiver.tries + told.state.asked - asked >= left or told.state.asked > asked + 5)  # noqa: B023
    told.receiver.answer = lambda message, document: DELIVERED
    told.idle()
    assert {name: told.receiver.states(name) for name in expected} == expected
    again = len(told.receiver.taken) - len({message for message, _ in told.receiver.taken})
    assert again > 0 or seed, "a death within a window tells a part of it again, else this shows nothing"
