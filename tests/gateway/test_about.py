"""What the service tells of itself: on every answer, and on two open pages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

import argus_ray
from argus_ray.core.taskspec import TaskSpec
from argus_ray.gateway import about
from argus_ray.store import migrations
from tests.support.gateway import ADMIN, YAML, Api, Headers, TestClient

VERSION = argus_ray.__version__


def test_the_version_is_told_without_a_token(api: Api) -> None:
    answer = api.client.get("/api/v2/version")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["version"], told["api"], told["schema"]) == (VERSION, "v2", len(migrations.known()))
    assert set(told) == {"version", "api", "schema", "build"}
    assert api.client.get("/api/v2/version?x=1").json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/api/v2/me", 200),
        ("GET", "/api/v2/queue", 200),
        ("OPTIONS", "/api/v2/me", 204),
        ("HEAD", "/api/v2/me", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("GET", "/api/v2/nodes", 403),
        ("GET", "/docs", 200),
    ],
)
def test_each_answer_has_the_version(api: Api, alice: Headers, method: str, path: str, status: int) -> None:
    answer = api.client.request(method, path, headers=alice)
    assert (answer.status_code, answer.headers["x-argus-version"]) == (status, VERSION)


def test_answers_before_any_route_and_of_our_own_faults_have_it_too(api: Api) -> None:
    twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    assert api.client.get("/api/v2/me", headers=twice).headers["x-argus-version"] == VERSION
    assert api.client.get("/api/v2/me").headers["x-argus-version"] == VERSION, "a 401"

    async def broken() -> None:
        raise RuntimeError("a bug")

    answer = TestClient(api.make_app(nodes=broken)).get("/api/v2/nodes", headers=ADMIN)
    assert (answer.status_code, answer.headers["x-argus-version"]) == (500, VERSION)


def test_the_schema_of_a_taskspec_judges_as_the_service_does(api: Api, alice: Headers) -> None:
    answer = api.client.get("/api/v2/schema/taskspec")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/schema+json")
    schema = answer.json()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert set(schema["properties"]) == set(TaskSpec.model_fields)
    good = yaml.safe_load(api.world.spec())
    assert not list(validator.iter_errors(good))
    for change in ({"nnodes": 0}, {"workload": "dpo"}, {"reward": "x"}, {"save_freq": "often"}):
        assert list(validator.iter_errors(good | change)), change
        text = yaml.safe_dump(good | change)
        refused = api.client.post("/api/v2/tasks", content=text, headers={**alice, **YAML})
        assert refused.json()["code"] == "invalid_spec", change


def git(folder: Path, *words: str) -> str:
    line = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def test_the_build_is_the_commit_of_the_checkout(tmp_path: Path) -> None:
    assert about._of_checkout(tmp_path) is None
    main, tree = tmp_path / "main", tmp_path / "tree"
    main.mkdir()
    git(main, "init", "-q", "-b", "trunk")
    git(main, "commit", "-q", "--allow-empty", "-m", "first")
    first = git(main, "rev-parse", "HEAD")
    assert about.build_of(main) == first
    git(main, "worktree", "add", "-q", "-b", "side", str(tree))
    git(tree, "commit", "-q", "--allow-empty", "-m", "second")
    assert about.build_of(tree) == git(tree, "rev-parse", "HEAD") != first
    git(main, "pack-refs", "--all")
    assert (about.build_of(main), about.build_of(tree)) == (first, git(tree, "rev-parse", "HEAD"))
    git(main, "checkout", "-q", "--detach")
    assert about.build_of(main) == first
    (main / ".git" / "HEAD").write_text("ref: refs/heads/none")
    assert about._of_checkout(main) is None
