"""The state actor as the plain class that it is, without Ray."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors.state import StateActor
from argus_ray.config import Settings
from argus_ray.core import actions
from argus_ray.core.errors import Unavailable
from argus_ray.discovery import head_json, sentinel
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
