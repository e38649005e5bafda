"""Ways out of the inputs and out of the job roots, by every field and every id that a user can send.

Texts that no rule allows are in tests/core/test_paths.py (TRICKS), which sends each by each field; here they come over
HTTP, with links and devices on a real disk.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from argus_ray.core.taskspec import TaskSpec
from tests.core.test_paths import TRICKS
from tests.support.builders import MODEL_FILES
from tests.support.gateway import ADMIN, YAML, Api, Headers

PATH_FIELDS = ("code_path", "model_id", "train_file", "val_file")
OTHER_FIELDS = tuple(name for name in TaskSpec.model_fields if name not in (*PATH_FIELDS, "submission_id"))

#: Absolute ones elsewhere, which the kernel would follow.
ELSEWHERE = (
    "/etc/passwd",
    "/proc/self/environ",
    "/proc/self/root/etc/passwd",
    "/proc/1/root",
    "/proc/thread-self/cwd",
    "/dev/fd/3",
    "/dev/stdin",
    "/dev/shm",
    "/sys/kernel",
    "/run",
)


def refused(api: Api, who: Headers, **fields: object) -> list[str]:
    """The fields of the answer to a submission with these values, which must be a 400."""
    answer = api.client.post("/api/v2/tasks", content=api.world.spec(**fields), headers={**who, **YAML})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec"), (fields, answer.text)
    return [error["field"] for error in answer.json()["errors"]]


def ways_out(common: str) -> Iterator[str]:
    yield from ELSEWHERE
    yield from (value.replace("/private/common", common) for name, value in TRICKS.items() if name != "lone surrogate")
    yield common.upper() + "/a"
    yield common.replace("common", "Common") + "/a"
    yield common.replace("common", "co\u006d\u006don\u0301") + "/a"
    for letter in "/.":
        # Every character that some normal form makes this one of.
        for code in range(0x80, 0x11000):
            if letter in unicodedata.normalize("NFKC", chr(code)) and not 0xD800 <= code < 0xE000:
                yield f"{common}/{chr(code) * 2}/users"


@pytest.mark.parametrize("field", PATH_FIELDS)
def test_path_escape_by_a_field_of_the_task_spec(api: Api, alice: Headers, field: str) -> None:
    sent = 0
    for value in ways_out(f"{api.world.shared_root}/common"):
        if value.endswith("/a/") and field not in ("train_file", "val_file"):
            continue  # a folder may end with a slash
        assert refused(api, alice, **{field: value}) == [field], value
        sent += 1
    assert sent > 80
    assert api.get("/api/v2/tasks", alice)["tasks"] == []


@pytest.mark.parametrize("field", OTHER_FIELDS)
def test_path_escape_by_a_field_that_holds_no_path(api: Api, alice: Headers, field: str) -> None:
    for value in ("../../bob", "/etc/passwd", "x/../../y", "..", "a\0b"):
        assert refused(api, alice, **{field: value}) == [field], value


def test_path_escape_by_the_ignored_submission_id(api: Api, alice: Headers) -> None:
    """It is accepted for old clients, and names nothing."""
    task_id = api.submit(alice, submission_id="../../../bob/jobs/argus-bob-sft-20260101-000000-abcd--a01")
    change = api.run(task_id)
    assert change.job_root == f"{api.world.shared_root}/users/alice/jobs/{task_id}--a01"
    assert "bob" not in str(change)


@pytest.mark.parametrize("field", PATH_FIELDS)
def test_path_escape_by_a_link_in_common(api: Api, alice: Headers, tmp_path: Path, field: str) -> None:
    common = Path(api.world.shared_root) / "common"
    users = Path(api.world.shared_root) / "users"
    (users / "bob").mkdir(parents=True, exist_ok=True)
    targets = {
        "absolute": "/etc",
        "relative": "../users/bob",
        "proc": "/proc/self/root/etc",
        "environ": "/proc/self/environ",
        "zeros": "/dev/zero",
        "terminal": "/dev/tty",
        "root": "/",
        "above": "..",
    }
    for name, target in targets.items():
        (common / name).symlink_to(target)
        (common / f"{name}-by-another").symlink_to(common / name)
    for name in targets:
        for way in (name, f"{name}-by-another", f"{name}/below"):
            assert refused(api, alice, **{field: f"{common}/{way}"}) == [field], way
            api.a_moment_later()


@pytest.mark.parametrize("thing", ["pipe", "link to zeros", "link to a pipe", "link to itself"])
@pytest.mark.parametrize("place", ["train_file", "config.json", "index", "refs/main", "snapshot"])
def test_pipes_and_devices_in_common_hold_no_thread(
    api: Api, alice: Headers, tmp_path: Path, place: str, thing: str
) -> None:
    """A look that waits would take one of the few threads for ever, and one that reads zeros all memory."""
    common = Path(api.world.shared_root) / "common"
    hub = common / "hf" / "hub" / "models--evil--model"
    (hub / "refs").mkdir(parents=True)
    model = common / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes(MODEL_FILES[name])
    path, fields = {
        "train_file": (common / "x.parquet", {"train_file": f"{common}/x.parquet"}),
        "config.json": (model / "config.json", {"model_id": str(model)}),
        "index": (model / "a.safetensors.index.json", {"model_id": str(model)}),
        "refs/main": (hub / "refs" / "main", {"model_id": "evil/model"}),
        "snapshot": (hub / "snapshots", {"model_id": "evil/model"}),
    }[place]
    path.unlink(missing_ok=True)
    match thing:
        case "pipe":
            os.mkfifo(path)
        case "link to zeros":
            path.symlink_to("/dev/zero")
        case "link to a pipe":
            os.mkfifo(common / "pipe")
            path.symlink_to(common / "pipe")
        case "link to itself":
            path.symlink_to(path)
    answer = api.client.post("/api/v2/tasks", content=api.world.spec(**fields), headers={**alice, **YAML})
    assert answer.status_code in (201, 400), answer.text
    assert "does not answer" not in answer.text, "the look was not given up"


IDS = ("../bob", "..", "/etc", "a/../b", "a\0b", "\uff0e\uff0e", "%2e%2e", "a\\b", "x" * 4000)


def test_path_escape_by_an_id_in_the_url(api: Api, alice: Headers) -> None:
    for value in IDS:
        name = quote(value, safe="")
        for path in ("", "/logs", "/logs/stream", "/logs/search?q=a", "/logs/download", "/metrics", "/spec", "/events"):
            answer = api.client.get(f"/api/v2/tasks/{name}{path}", headers=alice)
            assert (answer.status_code, answer.json()["code"]) in ((404, "task_not_found"), (404, "not_found")), value
        answer = api.client.get(f"/api/v2/users/{name}", headers=ADMIN)
        assert answer.status_code == 404, value


def test_path_escape_by_a_users_name(api: Api) -> None:
    """A user's id is a folder's name."""
    for value in IDS:
        answer = api.client.post("/api/v2/users", json={"user_id": value}, headers=ADMIN)
        assert answer.status_code == 400, value


def test_path_escape_by_an_attempts_number(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    api.end(api.run(task_id))  # so that a stream ends
    for value in ("..", "1/../../x", "0", "-1", "1e3", "\u0661", "999999"):
        answer = api.client.get(f"/api/v2/tasks/{task_id}/logs", params={"attempt": value}, headers=alice)
        assert answer.status_code in (400, 404), value
    odd = api.client.get(
        f"/api/v2/tasks/{task_id}/logs/stream?attempt=1", headers={**alice, "Last-Event-ID": "1:" + "9" * 400}
    )
    assert odd.status_code in (200, 404)
