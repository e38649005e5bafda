"""Nobody without a token has files looked at, and who has one pays no crossing for being asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.actions import Action, Credential, WhoAmI
from argus_ray.disk import inputs
from argus_ray.gateway.context import KnownTokens
from argus_ray.gateway.control import LocalControlPlane
from tests.support.gateway import YAML, Api, Headers, TestClient, bearer_header, make_api


class Counting(LocalControlPlane):
    def __init__(self, api: Api) -> None:
        super().__init__(api.world.service)
        self.crossings: list[str] = []

    async def call(self, who: Credential, action: Action[Any]) -> Any:
        self.crossings.append(type(action).__name__)
        return await super().call(who, action)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Api, Counting]]:
    api = make_api(tmp_path)
    control = Counting(api)
    api.client = TestClient(api.make_app(control=control))
    with api.client:
        yield api, control
    api.world.close()


def post(api: Api, who: Headers) -> int:
    return int(api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**who, **YAML}).status_code)


def test_a_submission_is_one_crossing(counted: tuple[Api, Counting]) -> None:
    api, control = counted
    alice = api.user("alice")
    assert post(api, alice) == 201  # the first one of a token is asked for, too
    control.crossings.clear()
    assert [post(api, alice) for _ in range(3)] == [201] * 3
    assert control.crossings == ["SubmitTask"] * 3


def test_a_stranger_has_no_files_looked_at(counted: tuple[Api, Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    api, control = counted
    looks: list[object] = []
    monkeypatch.setattr(inputs, "inspect", lambda *args: looks.append(args))
    assert post(api, bearer_header("argus_u_" + "0" * 64)) == 401
    assert looks == []
    assert set(control.crossings) <= {WhoAmI.__name__, "FindSubmission"}


@pytest.mark.parametrize(
    ("body", "headers"), [(b"x" * 9_000, YAML), (b"\xff", YAML), (b"a: 1", {"Content-Type": "image/png"})]
)
def test_a_stranger_hears_of_the_token_before_the_body(
    counted: tuple[Api, Counting], body: bytes, headers: Headers
) -> None:
    api, _ = counted
    stranger = bearer_header("argus_u_" + "0" * 64)
    assert api.client.post("/api/v2/tasks", content=body, headers={**stranger, **headers}).status_code == 401
    assert api.client.post("/api/v2/tasks", content=body, headers={**api.user("a"), **headers}).status_code != 401


def test_a_revoked_token_is_refused_though_it_was_known(counted: tuple[Api, Counting]) -> None:
    api, _ = counted
    alice = api.user("alice")
    assert post(api, alice) == 201
    with api.world.store.transaction() as db:
        db.execute("UPDATE tokens SET revoked_at = created_at")
    assert post(api, alice) == 401


def test_what_is_known_is_bounded_and_grows_old() -> None:
    now = [0.0]
    known = KnownTokens(lambda: now[0], size=2)
    for digest in ("a", "b", "a", "c"):
        known.add(digest)
    assert [digest in known for digest in "abc"] == [True, False, True]
    now[0] = 60.0
    assert "c" not in known


def test_whose_a_token_is_is_known_as_long_as_the_token_and_is_not_forgotten_by_what_does_not_tell() -> None:
    now = [0.0]
    known = KnownTokens(lambda: now[0], size=2)
    known.add("a", "alice")
    now[0] = 40.0
    known.add("a")
    now[0] = 80.0
    assert (known.user_of("a"), known.user_of("b")) == ("alice", None)
    now[0] = 100.0
    assert known.user_of("a") is None


def test_a_submission_after_another_asks_who_it_is_no_more(counted: tuple[Api, Counting]) -> None:
    api, control = counted
    alice = api.user("alice")
    api.get("/api/v2/tasks", alice)  # which does not tell whose the token is
    control.crossings.clear()
    assert [post(api, alice) for _ in range(3)] == [201] * 3
    assert control.crossings == ["WhoAmI", *["SubmitTask"] * 3]
