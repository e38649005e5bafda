"""The state actor as the plain class that it is, without Ray."""

from __future__ import annotations

import asyncio
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors import adapters, proof
from argus_ray.actors.state import StateActor
from argus_ray.config import Settings
from argus_ray.core import actions
from argus_ray.core.errors import Unavailable
from argus_ray.discovery import head_json, head_secrets, sentinel
from argus_ray.disk.threads import BoundedThreads
from tests.support.builders import ADMIN


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateActor]:
    sentinel.begin(head_json.folder(str(tmp_path), "argus"))
    made = StateActor(Settings(shared_root=str(tmp_path)).model_dump(mode="json"), "present")
    yield made
    made.close()


def ask(state: StateActor, version: str, *asked: actions.Action[Any]) -> list[Any]:
    calls = pickle.dumps([(ADMIN, action) for action in asked])
    answers: list[Any] = pickle.loads(state.batch(calls, version))
    return answers


def test_a_gateway_of_another_version_is_told_to_come_again(state: StateActor) -> None:
    """It has judged the bodies by its own rules; during a redeploy the old one still serves."""
    create = actions.CreateUser("alice", "")
    refused = ask(state, "old", create, actions.WhoAmI())
    assert [type(answer) for answer in refused] == [Unavailable]
    assert pickle.loads(state.batch(b"of a form that nobody knows any more", "old"))
    assert ask(state, "present", actions.ListUsers()) == [()]
    [made] = ask(state, "present", create)
    assert made.user_id == "alice"


# The key of a head.


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    path = tmp_path / "calls.key"
    head_secrets.make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setenv(head_secrets.KEY_VARIABLE, str(path))
    found = head_secrets.read_key(os.environ)
    assert found is not None
    return found


class Bomb:
    """Does something when it is read, as any pickled thing may."""

    went_off = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (Bomb, "went_off", True)


def test_a_call_without_the_heads_key_is_refused_before_it_is_read(state: StateActor, key: bytes) -> None:
    calls = pickle.dumps([(ADMIN, actions.ListUsers()), Bomb()])
    for wrong in (b"", b"x" * 32, proof.make(b"y" * 32, "batch", calls), proof.make(key, "another", calls)):
        answers = pickle.loads(state.batch(calls, "present", wrong))
        assert [type(answer) for answer in answers] == [Unavailable]
        for method in ("queue_changes", "gpu_use", "tasks", "apply", "chores"):
            with pytest.raises(Unavailable):
                state.scheduled(method, calls, wrong)
    assert not Bomb.went_off
    good = pickle.dumps([(ADMIN, actions.ListUsers())])
    assert pickle.loads(state.batch(good, "present", proof.make(key, "batch", good))) == [()]


def test_the_schedulers_calls_carry_it(state: StateActor, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        """As Ray calls it."""

        @staticmethod
        async def remote(*args: Any) -> Any:
            return state.scheduled(*args)

    class Actor:
        scheduled = Remote

    monkeypatch.setattr(adapters.ray, "get_actor", lambda *_, **__: Actor)  # type: ignore[attr-defined]
    handle = adapters.StateHandle(BoundedThreads("test", 1))
    assert asyncio.run(handle.queue_changes("", 0)).rows == ()
    assert asyncio.run(handle.tasks([])) == ()
    handle._key = b"z" * 32
    with pytest.raises(Unavailable):
        asyncio.run(handle.gpu_use())


def test_a_key_that_cannot_be_read_refuses_all(
    state: StateActor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(head_secrets.KEY_VARIABLE, str(tmp_path / "missing"))
    [answer] = ask(state, "present", actions.ListUsers())
    assert isinstance(answer, Unavailable) and "cannot be read" in str(answer)
