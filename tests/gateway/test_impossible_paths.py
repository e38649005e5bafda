"""Impossible paths and ids through the API: 400s that name the field and the rule, 404s for ids, never a 5xx."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.builders import spec_yaml
from tests.support.gateway import ADMIN, YAML, Api

FIELDS = ("code_path", "model_id", "train_file", "val_file")
JSON = {"Content-Type": "application/json"}


def impossible(root: str) -> dict[str, str]:
    common = Path(root, "common")
    (common / "loop").symlink_to("loop")
    (common / "file").write_text("x")
    return {
        "a component of 300 characters": f"{common}/{'a' * 300}",
        "one above it": f"{common}/{'a' * 300}/b",
        "a path of 5000 characters": f"{common}/" + "/".join(["a"] * 2500),
        "a link to itself": f"{common}/loop",
        "below it": f"{common}/loop/b",
        "below a file": f"{common}/file/b",
        "a NUL": f"{common}/a\0b",
        "a NUL at the end": f"{common}/file\0",
        "a lone surrogate": f"{common}/\udcff",
        "empty": "",
        "a slash": "/",
    }


def test_each_impossible_path_in_each_field_is_a_400_with_the_rule(api: Api) -> None:
    alice = api.user("alice")
    good = api.world.spec()
    assert api.client.post("/api/v2/tasks", content=good, headers={**alice, **YAML}).status_code == 201
    for what, path in impossible(api.world.shared_root).items():
        for field in FIELDS:
            for body in (spec_yaml(api.world.shared_root, **{field: path}), None):
                if body is None:
                    body = json.dumps({**yaml.safe_load(good), field: path})
                raw = body.encode("utf-8", "surrogatepass")
                answer = api.client.post("/api/v2/tasks", content=raw, headers={**alice, **YAML})
                said = answer.json()
                assert (answer.status_code, said["code"]) == (400, "invalid_spec"), (what, field, said)
                assert [error["field"] for error in said["errors"]] in ([field], ["(document)"]), (what, field, said)
                assert all(error["rule"] and "does not exist" not in error["rule"] for error in said["errors"]), said
    assert len(api.world.all_tasks()) == 1


@pytest.mark.parametrize("name", ["x" * 300, "x" * 3000, "%00", "a%00b", "%2e%2e", "a%0ab", "%ff", "..%2f..%2fetc"])
def test_an_impossible_id_in_a_path_is_as_one_that_is_not_there(api: Api, name: str) -> None:
    alice = api.user("alice")
    for path in ("", "/spec", "/events", "/explain", "/logs", "/metrics"):
        answer = api.client.get(f"/api/v2/tasks/{name}{path}", headers=alice)
        assert answer.status_code == 404 and answer.json()["code"] in ("task_not_found", "not_found"), (path, answer)
    for path in (f"/api/v2/users/{name}", f"/api/v2/users/{name}/tokens"):
        answer = api.client.get(path, headers=ADMIN)
        assert answer.status_code == 404 and answer.json()["code"] in ("user_not_found", "not_found"), (path, answer)
    answer = api.client.get(f"/api/v2/tasks?user_id={name}", headers=ADMIN)
    assert answer.status_code in (400, 404) and answer.json()["code"] in ("user_not_found", "invalid_request")
    answer = api.client.post(f"/api/v2/nodes/{name}:cordon", content=b"{}", headers={**ADMIN, **JSON})
    assert answer.status_code in (400, 404), answer.text


@pytest.mark.parametrize("name", ["x" * 33, "x" * 300, "a\0b", "..", ".", "a/b", "-a", "a--b", "A", "ä", "", " "])
def test_a_user_id_that_is_no_folder_name_is_a_400(api: Api, name: str) -> None:
    answer = api.client.post("/api/v2/users", json={"user_id": name}, headers=ADMIN)
    assert answer.status_code == 400, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["user_id"]


@pytest.mark.parametrize("attempt", ["0", "-1", "9999999", "a\0b", "1" * 300, "latest/.."])
def test_an_impossible_attempt_is_a_400(api: Api, attempt: str) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    for path in ("logs", "logs/stream", "logs/download", "logs/search"):
        query = {"attempt": attempt} | ({"q": "x"} if path == "logs/search" else {})
        answer = api.client.get(f"/api/v2/tasks/{task_id}/{path}", params=query, headers=alice)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "attempt")


def test_a_log_whose_path_is_impossible_is_no_503(api: Api) -> None:
    """What runs in a job root can put anything there."""
    alice = api.user("alice")
    task_id = api.submit(alice)
    root = Path(api.run(task_id).job_root)
    root.mkdir(parents=True)
    for make in (
        lambda logs: logs.symlink_to(logs),
        lambda logs: logs.write_text("a file"),
        lambda logs: os.mkfifo(logs),
        lambda logs: (logs.mkdir(), (logs / "driver.log").symlink_to("driver.log")),
        lambda logs: (logs.mkdir(), (logs / "driver.log").symlink_to("x" * 300)),
    ):
        logs = root / "logs"
        make(logs)
        for path in ("logs", "logs/download", "logs/search?q=x"):
            answer = api.client.get(f"/api/v2/tasks/{task_id}/{path}", headers=alice)
            assert (answer.status_code, answer.json()["code"]) == (404, "log_not_found")
        if logs.is_dir() and not logs.is_symlink():
            shutil.rmtree(logs)
        else:
            logs.unlink()
