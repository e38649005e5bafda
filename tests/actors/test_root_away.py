"""The shared root is a bare mount point for a moment: nothing is made there, and everybody is told to come again."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors import handover
from argus_ray.actors.state import StateActor
from argus_ray.config import Settings
from argus_ray.core import actions, paths
from argus_ray.core.errors import Unavailable
from argus_ray.core.retention import Chore
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import HeadClaim
from argus_ray.discovery.sentinel import RootUnknown
from argus_ray.gateway.control import Asked, LocalControlPlane
from tests.support.builders import ADMIN
from tests.support.gateway import ADMIN as ADMIN_HEADER
from tests.support.gateway import YAML, TestClient, bearer_header, make_api

BY_HAND, LAUNCHED = "by hand", "by a launcher"


class Root:
    """A shared root that can be unmounted, and the state actors on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = Settings(shared_root=str(path))
        self.folder = head_json.folder(str(path), "argus")
        self.database = Path(paths.database_path(str(path), "argus"))
        self.actors: list[StateActor] = []
        path.mkdir()

    def actor(self) -> StateActor:
        self.actors.append(StateActor(self.settings.model_dump(mode="json"), "f"))
        return self.actors[-1]

    def unmount(self) -> None:
        self.path.rename(self.path.with_name("elsewhere"))
        self.path.mkdir()

    def is_bare(self) -> bool:
        return not any(self.path.iterdir())

    def mount(self) -> None:
        shutil.rmtree(self.path)
        self.path.with_name("elsewhere").rename(self.path)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path / "private")
    yield made
    for actor in made.actors:
        actor.close()


@pytest.fixture(params=[BY_HAND, LAUNCHED])
def started(root: Root, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Root:
    """The same with a user, alice. A fenced actor would end this process."""
    monkeypatch.delenv(epoch.VARIABLE, raising=False)
    sentinel.begin(root.folder)
    if request.param == LAUNCHED:
        claim = epoch.take(root.folder, HeadClaim(0, "here", "10.0.0.1", 6379))
        monkeypatch.setenv(epoch.VARIABLE, str(claim.epoch))
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"it ended with {code}"))
    [made] = ask(root.actor(), actions.CreateUser("alice", ""))
    assert made.user_id == "alice"
    return root


def ask(actor: StateActor, *asked: actions.Action[Any]) -> list[Any]:
    answers: list[Any] = pickle.loads(actor.batch(pickle.dumps([(ADMIN, action) for action in asked]), "f"))
    return answers


def users(actor: StateActor) -> list[str]:
    [found] = ask(actor, actions.ListUsers())
    return [user.user_id for user in found]


def each_call(actor: StateActor) -> list[Callable[[], object]]:
    return [
        actor.ping,
        lambda: actor.scheduled("chores", pickle.dumps((Chore.LIVE,))),
        lambda: actor.scheduled("queue_changes", pickle.dumps(("", 0))),
        lambda: actor.scheduled("tasks", pickle.dumps((["x"],))),
    ]


def refuses_all(actor: StateActor) -> None:
    answers = ask(actor, actions.CreateUser("ghost", ""), actions.ListUsers(), actions.WhoAmI())
    assert {type(answer) for answer in answers} == {Unavailable}
    for call in each_call(actor):
        with pytest.raises(Unavailable):
            call()


def test_one_that_is_open_refuses_and_goes_on_when_the_root_is_back(started: Root) -> None:
    [actor] = started.actors
    started.unmount()
    refuses_all(actor)
    assert started.is_bare(), "nothing was made there"
    started.mount()
    assert users(actor) == ["alice"]


def test_one_that_starts_meanwhile_makes_no_database_and_opens_the_old_one_later(started: Root) -> None:
    started.actors[0].close()
    started.unmount()
    actor = started.actor()
    refuses_all(actor)
    assert started.is_bare(), "nothing was made there"
    started.mount()
    assert users(actor) == ["alice"]


def test_a_database_that_is_lost_is_not_made_anew(started: Root) -> None:
    [actor] = started.actors
    actor.close()
    aside = started.database.parent.rename(started.database.parent.with_name("aside"))
    refuses_all(actor)
    assert not started.database.parent.exists()
    aside.rename(started.database.parent)
    assert users(actor) == ["alice"]


def test_without_an_explicit_first_start_there_is_no_database(root: Root) -> None:
    actor = root.actor()
    refuses_all(actor)
    [answer] = ask(actor, actions.ListUsers())
    assert isinstance(answer, Unavailable) and "--init" in answer.detail and str(root.path) in answer.detail
    assert root.is_bare()
    sentinel.begin(root.folder)
    assert users(actor) == []
    assert sentinel.read(root.folder).holds == {sentinel.DATABASE}


def test_a_root_of_an_earlier_version_keeps_its_users(started: Root) -> None:
    """It has a database, and no sentinel."""
    [actor] = started.actors
    actor.close()
    sentinel.path_in(started.folder).unlink()
    assert users(started.actor()) == ["alice"]
    assert sentinel.DATABASE in sentinel.read(started.folder).holds


def test_over_http_it_is_a_503_and_neither_a_401_nor_an_empty_list(started: Root, tmp_path: Path) -> None:
    actor = started.actors[0]
    [token] = ask(actor, actions.IssueToken("alice"))
    alice = bearer_header(token.token)

    class Behind:
        """The state actor as the gateway's control plane."""

        def handle_many(self, asked: Sequence[Asked], /) -> Sequence[Any]:
            answers: list[Any] = pickle.loads(actor.batch(pickle.dumps(list(asked)), "f"))
            return answers

    (tmp_path / "other").mkdir()
    api = make_api(tmp_path / "other")
    client = TestClient(api.make_app(control=LocalControlPlane(Behind()), settings=started.settings))
    with client:
        before = client.get("/api/v2/me", headers=alice)
        assert before.status_code == 200, before.text
        started.unmount()
        for method, path, options in (
            ("GET", "/api/v2/tasks", {"headers": alice}),
            ("GET", "/api/v2/tasks/argus-alice-1", {"headers": alice}),
            ("GET", "/api/v2/users", {"headers": ADMIN_HEADER}),
            ("POST", "/api/v2/tasks", {"headers": {**alice, **YAML}, "content": api.world.spec()}),
        ):
            answer = client.request(method, path, **options)
            assert (path, answer.status_code) == (path, 503), answer.text
            assert int(answer.headers["retry-after"]) > 0
        assert started.is_bare()
        started.mount()
        assert client.get("/api/v2/tasks", headers=alice).json()["tasks"] == []
        assert client.get("/api/v2/me", headers=alice).json() == before.json()
    api.world.close()


# --- who may start for the first time ------------------------------------------------------------------------------


def may_start(root: Root, environ: dict[str, str], *, is_start: bool = True) -> bool:
    try:
        handover.check_root(root.settings, environ, is_start=is_start)
    except RootUnknown:
        assert not sentinel.path_in(root.folder).exists()
        return False
    return True


@pytest.mark.parametrize("environ", [{}, {epoch.VARIABLE: ""}, {epoch.VARIABLE: "0"}])
def test_serve_run_by_hand_begins_on_a_root_with_inputs_and_not_on_a_bare_one(
    root: Root, environ: dict[str, str]
) -> None:
    assert not may_start(root, environ) and root.is_bare()
    (root.path / "common").mkdir()
    assert not may_start(root, environ), "as if its filesystem were not mounted"
    (root.path / "common" / "code").mkdir()
    assert not may_start(root, environ, is_start=False), "a replica only makes anew what was there"
    assert may_start(root, environ) and may_start(root, environ, is_start=False)


def test_a_launcher_was_told_explicitly_or_never(root: Root) -> None:
    (root.path / "common" / "code").mkdir(parents=True)
    assert not may_start(root, {epoch.VARIABLE: "1"})
    sentinel.begin(root.folder)
    assert may_start(root, {epoch.VARIABLE: "1"})


def test_a_damaged_sentinel_is_no_new_root(root: Root) -> None:
    (root.path / "common" / "code").mkdir(parents=True)
    sentinel.begin(root.folder)
    sentinel.path_in(root.folder).write_bytes(b"{")
    with pytest.raises(RootUnknown):
        handover.check_root(root.settings, {}, is_start=True)
    assert sentinel.path_in(root.folder).read_bytes() == b"{"
