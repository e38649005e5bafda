"""Where a stream begins, what is new, and who is still welcome: whose, how much, and for whom alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions, places
from argus_ray.core.actions import Action, Credential, Role
from argus_ray.core.errors import Forbidden, InvalidRequest, TaskNotFound, Unauthenticated, UserDisabled, UserNotFound
from argus_ray.core.lifecycle import Advance, Hold
from argus_ray.core.monitoring import ReadMonitoring, ReportGateway
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import TaskState
from argus_ray.core.watching import GATEWAY, MAX_CHANGES, Changes, CheckCallers, ReadChanges, Watch, WatchTasks
from argus_ray.service import service
from tests.support.builders import ADMIN, INTERNAL, World
from tests.support.sanity import checked_service

BUSY = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


def watch(world: World, who: Credential, after: Watch | str | None = None, **action: object) -> Watch:
    if after is not None:
        action["after"] = after if isinstance(after, str) else places.seal(after.key, after.newest)
    return world.service.handle(who, WatchTasks(**action))  # type: ignore[arg-type]


def told(watch: Watch | Changes) -> list[str]:
    return [each.task.task_id for each in watch.changed]


def test_a_watch_begins_now_and_goes_on_from_a_place(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    old = world.submit(ada)
    first = watch(world, ada)
    assert (first.owner, first.changed, first.is_lost, first.place) == ("ada", (), False, first.newest)
    assert first.counts == {TaskState.QUEUED: 1}
    world.submit(bob)
    assert told(watch(world, ada, first)) == []
    new = world.submit(ada)
    world.service.apply([Hold(old.task_id, BUSY)])
    second = watch(world, ada, first)
    assert told(second) == [new.task_id, old.task_id]
    assert second.changed[1].task.state is TaskState.PENDING_RESOURCES
    assert second.changed[1].task.spec_yaml == ""
    assert (second.place, second.is_lost) == (first.newest, False)
    assert told(watch(world, ada, second)) == []
    world.reopen()
    assert told(watch(world, ada, first)) == [new.task_id, old.task_id]


def test_where_one_begins_tells_nothing_of_what_others_do(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    assert watch(world, bob).place == 0
    world.submit(ada)
    first = watch(world, ada)
    for _ in range(3):
        world.submit(bob)
        assert watch(world, ada).place == first.place
        assert watch(world, ada, "0" * 16).place == first.place
    assert watch(world, ADMIN, user_id="ada").place == first.place
    new = world.submit(ada)
    assert told(watch(world, ada, places.seal(first.key, first.place))) == [new.task_id]


def test_each_sees_their_own_and_an_admin_whom_it_names(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    mine, other, internal = world.submit(ada), world.submit(bob), world.submit(INTERNAL)
    begins = {who: watch(world, who) for who in (ada, bob, INTERNAL)}
    everyone = watch(world, ADMIN, everyone=True)
    named = watch(world, ADMIN, user_id="ada")
    nobody = watch(world, ADMIN)
    for task in (mine, other, internal):
        world.service.apply([Hold(task.task_id, BUSY)])
    for who, task in ((ada, mine), (bob, other), (INTERNAL, internal)):
        assert told(watch(world, who, begins[who])) == [task.task_id]
        assert watch(world, who).counts == {TaskState.PENDING_RESOURCES: 1}
    assert told(watch(world, ADMIN, everyone, everyone=True)) == [mine.task_id, other.task_id, internal.task_id]
    assert watch(world, ADMIN, everyone=True).counts == {TaskState.PENDING_RESOURCES: 3}
    assert told(watch(world, ADMIN, named, user_id="ada")) == [mine.task_id]
    assert (nobody.owner, told(watch(world, ADMIN, nobody)), nobody.counts) == ("", [], {})
    assert told(watch(world, ada, begins[ada], user_id="ada")) == [mine.task_id]


def test_who_may_not_is_refused(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    theirs = world.submit(bob).task_id
    for who, action, error in (
        (ada, {"user_id": "bob"}, Forbidden), (ada, {"user_id": "nobody"}, Forbidden),
        (ada, {"everyone": True}, Forbidden), (ADMIN, {"user_id": "nobody"}, UserNotFound),
        (ADMIN, {"user_id": "ada", "everyone": True}, InvalidRequest),
        (ada, {"task_ids": (theirs,)}, TaskNotFound), (ada, {"task_ids": ("-",)}, TaskNotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            watch(world, who, **action)
    own = world.submit(ada).task_id
    assert [task.task_id for task in watch(world, ada, task_ids=(own,)).tasks] == [own]
    assert [task.task_id for task in watch(world, ADMIN, task_ids=(theirs, own)).tasks] == [theirs, own]


def test_a_place_of_another_scope_of_the_future_or_of_nobody_is_lost(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    world.submit(bob)
    of_bob, everyone = watch(world, bob), watch(world, ADMIN, everyone=True)
    mine = watch(world, ada)
    for place in (
        places.seal(of_bob.key, 1), places.seal(everyone.key, 1), places.seal(mine.key, mine.newest + 1), "", "12", "é",
    ):  # fmt: skip
        found = watch(world, ada, after=place)
        assert (found.is_lost, found.changed, found.place) == (True, (), 0), "she has none"
    with world.store.transaction() as db:
        db.execute("UPDATE change_clock SET key = randomblob(32)")
    found = watch(world, ada, mine)
    assert found.is_lost and found.era != mine.era


def test_too_much_since_a_place_is_lost(world: World) -> None:
    ada = world.user("ada")
    first = watch(world, ada)
    for _ in range(MAX_CHANGES):
        world.submit(ada)
    assert len(watch(world, ada, first).changed) == MAX_CHANGES
    world.submit(ada)
    found = watch(world, ada, first)
    assert (found.is_lost, found.changed, found.place) == (True, (), found.newest)


def test_the_gateway_reads_what_is_new_of_all_in_pages(world: World) -> None:
    ada, bob = world.user("ada"), world.user("bob")
    begin = world.service.handle(GATEWAY, ReadChanges(0)).newest
    assert world.service.handle(GATEWAY, ReadChanges(begin)) == Changes(watch(world, ada).era, begin)
    made = [world.submit(who).task_id for who in (ada, bob, ada, bob, ada)]
    seen: list[str] = []
    at, pages = begin, 0
    while True:
        page = world.service.handle(GATEWAY, ReadChanges(at, with_total=True, limit=2))
        seen, at, pages = seen + told(page), page.newest, pages + 1
        assert set(page.counts) == {each.task.user_id for each in page.changed}
        assert page.total == {TaskState.QUEUED: 5}
        assert page.counts["ada"] == {TaskState.QUEUED: 3}
        if not page.more:
            break
    assert (seen, pages) == (made, 3)
    admitted = world.admission(world.task(made[0]))
    world.service.apply([admitted, Advance(admitted.submission_id, running=True, session="s")])
    [only] = world.service.handle(GATEWAY, ReadChanges(at)).changed
    assert (only.task.task_id, only.task.state, only.task.spec_yaml) == (made[0], TaskState.RUNNING, "")


def test_the_gateway_learns_who_is_welcome_no_more(world: World) -> None:
    ada, bob, eve = world.user("ada"), world.user("bob"), world.user("eve")
    spare, issued = world.issue("ada")
    short, _ = world.issue("ada", ttl_s=60.0)
    world.service.handle(ADMIN, actions.RevokeToken("ada", issued.info.token_id))
    world.service.handle(ADMIN, actions.SetUserEnabled("eve", False))
    world.clock.advance(61)
    asked = [who.digest or "" for who in (ada, bob, eve, spare, short)] + ["f" * 64]
    refused = world.service.handle(GATEWAY, CheckCallers(tuple(asked)))
    assert {asked.index(digest): type(error) for digest, error in refused.items()} == {
        2: UserDisabled, 3: Unauthenticated, 4: Unauthenticated, 5: Unauthenticated,
    }  # fmt: skip


@pytest.mark.parametrize("action", [ReadChanges(0), CheckCallers(("f" * 64,))])
def test_these_are_for_the_gateway_alone(world: World, action: Action[object]) -> None:
    for who in (world.user("ada"), ADMIN, INTERNAL):
        with pytest.raises(Forbidden):
            world.service.handle(who, action)
    with pytest.raises(Unauthenticated):
        world.service.handle(Credential(Role.USER, "f" * 64), action)


def test_the_gateway_may_ask_nothing_else(world: World) -> None:
    world.user("ada")
    for action in (
        actions.WhoAmI(), actions.ListTasks(), actions.CountTasks(), actions.ShowQueue(everyone=True),
        actions.ListUsers(), actions.CreateUser("eve", ""), WatchTasks(everyone=True),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            world.service.handle(GATEWAY, action)


def test_no_case_is_both_the_gateways_and_anybodys() -> None:
    kinds = [set(service._GATEWAY_CASES), set(service._USE_CASES) | set(service._ADMIN_CASES)]
    assert not kinds[0] & kinds[1]
    assert {kind for kind in kinds[0] if kind.writes} == {ReadMonitoring, ReportGateway}
