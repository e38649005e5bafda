"""Users, tokens, and who may do what."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Action, Credential, Principal, Role
from argus_ray.core.errors import (
    Forbidden,
    InvalidRequest,
    TokenNotFound,
    Unauthenticated,
    UserDisabled,
    UserExists,
    UserNotFound,
)
from argus_ray.core.model import IssuedToken, TokenInfo, User, UserState
from argus_ray.core.task_filter import TaskFilter
from tests.support.builders import ADMIN, INTERNAL, World, bearer
from tests.support.sanity import checked_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


def tokens(world: World, user_id: str) -> tuple[TokenInfo, ...]:
    found = world.service.handle(ADMIN, actions.ListTokens(user_id))
    assert isinstance(found, tuple)
    return tuple(info for info in found if isinstance(info, TokenInfo))


def test_user_db_create_disable(world: World) -> None:
    handle = world.service.handle
    created = handle(ADMIN, actions.CreateUser("alice", "Alice A."))
    assert created == User("alice", "Alice A.", UserState.ACTIVE, world.clock.now)
    with pytest.raises(UserExists):
        handle(ADMIN, actions.CreateUser("alice", "Another"))
    for _ in range(2):
        disabled = handle(ADMIN, actions.SetUserEnabled("alice", enabled=False))
        assert isinstance(disabled, User)
        assert disabled.state is UserState.DISABLED
    assert handle(ADMIN, actions.GetUser("alice")) == disabled
    with pytest.raises(UserExists):
        handle(ADMIN, actions.CreateUser("alice", "Alice A."))
    for _ in range(2):
        assert handle(ADMIN, actions.SetUserEnabled("alice", enabled=True)) == created
    world.reopen()
    assert world.service.handle(ADMIN, actions.ListUsers()) == (created,)


def test_token_hashing(world: World) -> None:
    """The database holds the digest and never the token: not in any table, nor in the file's bytes."""
    world.user("alice")
    who, issued = world.issue("alice", label="laptop")
    assert world.service.handle(who, actions.WhoAmI()) == Principal(Role.USER, "alice")
    with world.store.transaction() as db:
        stored = [row["digest"] for row in db.execute("SELECT digest FROM tokens")]
        dump = "\n".join(db.iterdump())
    assert hashlib.sha256(issued.token.encode()).hexdigest() in stored
    secret = issued.token.removeprefix("argus_u_")
    assert secret not in dump
    files = [path.read_bytes() for path in world.database.parent.iterdir()]
    assert not [data for data in files if secret.encode() in data or bytes.fromhex(secret) in data]


def test_a_token_is_shown_once_and_in_no_repr_or_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.user("alice")
    who, issued = world.issue("alice")
    second, _ = world.issue("alice")
    assert who != second
    digest = who.digest or ""
    task = world.submit(who)
    shown = [repr(world.service.handle(ADMIN, action)) for action in (
        actions.ListTokens("alice"), actions.GetUser("alice"), actions.TaskEvents(task.task_id),
        actions.GetTask(task.task_id), actions.ListUsers(),
    )]  # fmt: skip
    shown += [repr(issued), str(issued), repr(who), caplog.text]
    for secret in (issued.token, issued.token[8:], digest):
        assert not [text for text in shown if secret in text]


@pytest.mark.parametrize(
    "who",
    [Credential(Role.USER), Credential(Role.USER, ""), Credential(Role.USER, "0" * 64), bearer("argus_u_x")],
)
def test_unknown_bearers(world: World, who: Credential) -> None:
    world.user("alice")
    with pytest.raises(Unauthenticated):
        world.service.handle(who, actions.WhoAmI())


def test_a_digest_with_other_letters_is_another_digest(world: World) -> None:
    who = world.user("alice")
    assert who.digest
    for wrong in (who.digest.upper(), who.digest + " ", who.digest[:-1], who.digest + "\0"):
        with pytest.raises(Unauthenticated):
            world.service.handle(Credential(Role.USER, wrong), actions.WhoAmI())


def test_revoked_and_expired_tokens_say_the_same_as_unknown_ones(world: World) -> None:
    world.user("alice")
    who, issued = world.issue("alice", ttl_s=60.0)
    other, revoked = world.issue("alice")
    assert issued.info.expires_at == world.clock.now + 60
    for _ in range(2):
        answer = world.service.handle(ADMIN, actions.RevokeToken("alice", revoked.info.token_id))
        assert isinstance(answer, TokenInfo)
        assert answer.revoked_at == 1_800_000_000.0
    world.clock.advance(59.9)
    world.service.handle(who, actions.WhoAmI())
    world.clock.advance(0.1)
    said = set()
    for bad in (who, other, bearer("unknown")):
        with pytest.raises(Unauthenticated) as caught:
            world.service.handle(bad, actions.WhoAmI())
        said.add(str(caught.value))
    assert len(said) == 1


def test_a_disabled_user_is_refused_at_once_and_comes_back(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    task = world.submit(alice)
    calls: list[tuple[Credential, Action[Any]]] = [
        (ADMIN, actions.SetUserEnabled("alice", enabled=False)),
        (alice, world.submission(world.spec())),
        (alice, actions.WhoAmI()),
        (bob, actions.WhoAmI()),
        (ADMIN, actions.SetUserEnabled("alice", enabled=True)),
        (alice, actions.CancelTask(task.task_id)),
    ]
    codes = [getattr(answer, "code", None) for answer in world.service.handle_many(calls)]
    assert codes == [None, "user_disabled", "user_disabled", None, None, None], "also within one batch"
    world.service.handle(ADMIN, actions.SetUserEnabled("alice", enabled=False))
    with pytest.raises(UserDisabled):
        world.service.handle(alice, actions.WhoAmI())


ADMIN_ACTIONS: list[Action[Any]] = [
    actions.RequireAdmin(),
    actions.CreateUser("carol", ""),
    actions.GetUser("alice"),
    actions.GetUser("nobody"),
    actions.ListUsers(),
    actions.SetUserEnabled("alice", enabled=False),
    actions.IssueToken("alice"),
    actions.ListTokens("alice"),
    actions.RevokeToken("alice", "x"),
    actions.ShowQueue(everyone=True),
    actions.ListTasks(TaskFilter(user_id="bob")),
    actions.ListTasks(TaskFilter(user_id="nobody")),
]


@pytest.mark.parametrize("action", ADMIN_ACTIONS, ids=lambda action: repr(action))
def test_admin_actions_are_forbidden_to_users(world: World, action: Action[Any]) -> None:
    alice = world.user("alice")
    world.user("bob")
    with pytest.raises(Forbidden):
        world.service.handle(alice, action)
    assert len(world.service.handle(ADMIN, actions.ListUsers())) == 2


def test_the_roles(world: World) -> None:
    handle = world.service.handle
    assert handle(ADMIN, actions.WhoAmI()) == Principal(Role.ADMIN, None)
    assert handle(INTERNAL, actions.WhoAmI()) == Principal(Role.INTERNAL, "internal")
    for who in (ADMIN, INTERNAL):
        assert handle(who, actions.RequireAdmin()) == handle(who, actions.WhoAmI())


def test_the_reserved_user_is_nobody_s_to_administer(world: World) -> None:
    handle = world.service.handle
    with pytest.raises(UserExists):
        handle(ADMIN, actions.CreateUser("internal", ""))
    assert handle(ADMIN, actions.ListUsers()) == ()
    for action in (
        actions.SetUserEnabled("internal", enabled=False), actions.IssueToken("internal"),
        actions.ListTokens("internal"), actions.RevokeToken("internal", "x"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match="user_id"):
            handle(ADMIN, action)
    user = handle(ADMIN, actions.GetUser("internal"))
    assert isinstance(user, User)
    assert user.state is UserState.ACTIVE


def test_users_and_tokens_that_do_not_exist(world: World) -> None:
    world.user("alice")
    for action in (
        actions.GetUser("bob"), actions.SetUserEnabled("bob", enabled=True), actions.IssueToken("bob"),
        actions.ListTokens("bob"), actions.RevokeToken("bob", "x"), actions.ListTasks(TaskFilter(user_id="bob")),
    ):  # fmt: skip
        with pytest.raises(UserNotFound):
            world.service.handle(ADMIN, action)
    world.user("carol")
    theirs = tokens(world, "carol")[0].token_id
    with pytest.raises(TokenNotFound):
        world.service.handle(ADMIN, actions.RevokeToken("alice", theirs))


@pytest.mark.parametrize("user_id", ["", "A", "a b", "../x", "a--b", "x" * 33, "a\0", "\udcff"])
def test_bad_user_ids_are_named(world: World, user_id: str) -> None:
    with pytest.raises(InvalidRequest):
        world.service.handle(ADMIN, actions.CreateUser(user_id, ""))


@pytest.mark.parametrize("text", ["x" * 129, "a\nb", "\0", "\x1b[31m", "\u202e", "\udcff"])
def test_names_and_labels_are_plain_text(world: World, text: str) -> None:
    world.user("alice")
    with pytest.raises(InvalidRequest):
        world.service.handle(ADMIN, actions.CreateUser("bob", text))
    with pytest.raises(InvalidRequest):
        world.service.handle(ADMIN, actions.IssueToken("alice", label=text))
    named = world.service.handle(ADMIN, actions.CreateUser("carol", "Ça va 李"))
    assert isinstance(named, User)


@pytest.mark.parametrize("ttl_s", [0, -1, math.nan, math.inf, 1e300])
def test_bad_expiries(world: World, ttl_s: float) -> None:
    world.user("alice")
    with pytest.raises(InvalidRequest, match="ttl_s"):
        world.service.handle(ADMIN, actions.IssueToken("alice", ttl_s=ttl_s))


def test_the_number_of_valid_tokens_is_limited(tmp_path: Path) -> None:
    for world in checked_service(tmp_path, settings={"limits": {"tokens_per_user": 2}}):
        world.user("alice")
        _, second = world.issue("alice", ttl_s=10.0)
        with pytest.raises(InvalidRequest, match="limit"):
            world.issue("alice")
        world.service.handle(ADMIN, actions.RevokeToken("alice", second.info.token_id))
        _, third = world.issue("alice", ttl_s=10.0)
        with pytest.raises(InvalidRequest, match="limit"):
            world.issue("alice")
        world.clock.advance(10)
        world.issue("alice")
        assert third.info.token_id in {info.token_id for info in tokens(world, "alice")}


def test_the_last_use_is_written_once_a_minute(world: World) -> None:
    who = world.user("alice")

    def used() -> float | None:
        return tokens(world, "alice")[0].last_used_at

    assert used() is None
    start = world.clock.now
    for seconds, expected in ((0, start), (30, start), (29.9, start), (0.1, start + 60), (1, start + 60)):
        world.clock.advance(seconds)
        world.service.handle(who, actions.WhoAmI())
        assert used() == expected
    with pytest.raises(Unauthenticated):
        world.service.handle(bearer("unknown"), actions.WhoAmI())


def test_issue_gives_different_tokens(world: World) -> None:
    world.user("alice")
    issued = [world.issue("alice")[1] for _ in range(5)]
    assert len({one.token for one in issued}) == len({one.info.token_id for one in issued}) == 5
    assert all(isinstance(one, IssuedToken) for one in issued)
