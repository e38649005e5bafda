"""The door of the service: every action has its use case, and what a batch costs does not grow with its callers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Action
from argus_ray.core.errors import Unauthenticated
from argus_ray.service import service
from argus_ray.store import tokens
from argus_ray.store.fence import Fence
from tests.support.builders import ADMIN, World, make_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def test_every_action_has_one_use_case() -> None:
    kinds = set(Action.__subclasses__())
    assert {kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, Action)} < {
        *kinds,
        Action,
    }
    doors = (service._USE_CASES, service._ADMIN_CASES, service._GATEWAY_CASES)
    assert set().union(*doors) == kinds
    assert sum(map(len, doors)) == len(kinds)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    calls: list[object] = []
    real = getattr(owner, name)

    def count(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_a_batch_is_one_transaction_two_looks_at_the_fence_and_one_authentication_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    world.service.handle_many([(alice, actions.WhoAmI()), (bob, actions.WhoAmI())])  # their last use is written
    calls = [(who, world.submission(world.spec())) for who in (alice, bob) * 20]
    begun: list[str] = []
    world.store._db.set_trace_callback(lambda statement: begun.append(statement.split()[0]))
    fence, looked_up = counted(monkeypatch, Fence, "check"), counted(monkeypatch, tokens, "by_digest")
    answers = world.service.handle_many(calls)
    assert all(isinstance(answer, actions.Submitted) and answer.created for answer in answers)
    assert (begun.count("BEGIN"), begun.count("COMMIT"), len(fence), len(looked_up)) == (1, 1, 2, 2)
    begun.clear()
    fence.clear()
    world.service.handle_many([(alice, actions.WhoAmI())] * 20)
    assert (begun.count("BEGIN"), begun.count("SAVEPOINT"), len(fence)) == (1, 0, 1)


def test_a_token_that_is_revoked_in_a_batch_is_good_before_and_not_after(world: World) -> None:
    world.user("alice")
    alice, issued = world.issue("alice")
    answers = world.service.handle_many(
        [
            (alice, actions.WhoAmI()),
            (ADMIN, actions.RevokeToken("alice", issued.info.token_id)),
            (alice, actions.WhoAmI()),
        ]
    )
    assert isinstance(answers[0], actions.Principal)
    assert isinstance(answers[2], Unauthenticated)


def test_the_last_use_is_written_seldom_and_in_the_end(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")

    def last_use(user_id: str) -> float | None:
        with world.store.transaction() as db:
            [info] = tokens.of_user(db, user_id)
        return info.last_used_at

    begun = world.clock.now
    world.service.handle(alice, actions.WhoAmI())
    assert last_use("alice") == begun
    world.clock.advance(service._LAST_USE_EVERY_S - 0.1)
    world.service.handle(bob, actions.WhoAmI())
    assert last_use("bob") is None
    used_at = world.clock.now
    world.clock.advance(0.1)
    world.service.handle(ADMIN, actions.WhoAmI())
    assert last_use("bob") == used_at, "written by whoever comes next, with the time of the use"
    world.clock.advance(3600)
    world.service.handle(alice, actions.WhoAmI())
    world.clock.advance(1)
    world.service.handle(bob, actions.WhoAmI())
    world.reopen()
    assert last_use("bob") == world.clock.now, "and when the service closes"
