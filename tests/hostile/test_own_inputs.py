"""Inputs in a user's own folders: off unless the operator lets users have them, and never another one's.

Each attack comes over HTTP, on a real disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from argus_ray.actors.adapters import InputsOfTasks
from argus_ray.core.states import Outcome
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from tests.core.test_paths import TRICKS
from tests.support.builders import parquet_file
from tests.support.gateway import ADMIN, INTERNAL, YAML, Api, Headers, make_api
from tests.support.odd_inputs import make_model

ON = {"inputs": {"own_folders": True}}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path, settings=ON)
    for user in ("ada", "ada2", "bob", "internal"):
        make_own(users(made) / user)
    yield made
    made.world.close()


def make_own(folder: Path) -> None:
    for name in ("datasets", "models", "jobs/argus-x--a01", "trash"):
        (folder / name).mkdir(parents=True)
        (folder / name / "train.parquet").write_bytes(parquet_file("messages"))
        make_model(folder / name / "tiny")


def users(api: Api) -> Path:
    return Path(api.world.shared_root) / "users"


def common(api: Api) -> Path:
    return Path(api.world.shared_root) / "common"


def post(api: Api, who: Headers, **fields: Any) -> httpx.Response:
    api.a_moment_later()
    return api.client.post("/api/v2/tasks", content=api.world.spec(**fields), headers={**who, **YAML})


def refused(api: Api, who: Headers, **fields: Any) -> dict[str, str]:
    answer = post(api, who, **fields)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec"), (fields, answer.text)
    return {error["field"]: error["rule"] for error in answer.json()["errors"]}


def own_of(api: Api, user: str) -> dict[str, str]:
    folder = users(api) / user
    data = f"{folder}/datasets/train.parquet"
    return {"train_file": data, "val_file": data, "model_id": f"{folder}/models/tiny"}


@pytest.mark.parametrize("who", ["ada", "internal"])
def test_own_data_and_an_own_model_are_accepted_without_a_word(api: Api, who: str) -> None:
    headers = INTERNAL if who == "internal" else api.user(who)
    for _ in range(2):  # the second time the token is known
        answer = post(api, headers, **own_of(api, who))
        assert answer.status_code == 201, answer.text
        assert answer.json()["warnings"] == [] and api.task(answer.json()["task_id"]).user_id == who


def test_off_they_are_refused_and_only_common_is_named(tmp_path: Path) -> None:
    api = make_api(tmp_path)
    make_own(users(api) / "ada")
    ada = api.user("ada")
    rule = f"must lie under {common(api)}/"
    assert refused(api, ada, **own_of(api, "ada")) == dict.fromkeys(("model_id", "train_file", "val_file"), rule)
    (common(api) / "own").symlink_to(users(api) / "ada" / "datasets")
    assert "leads out of" in refused(api, ada, train_file=f"{common(api)}/own/train.parquet")["train_file"]
    api.world.close()


def test_the_words_name_both_places(api: Api) -> None:
    ada = api.user("ada")
    rules = refused(api, ada, **dict.fromkeys(("code_path", "train_file", "model_id"), "/etc/x"))
    assert rules == {
        "code_path": f"must lie under {common(api)}/",
        "train_file": f"must lie under {common(api)}/ or {users(api)}/ada/datasets/",
        "model_id": f"must lie under {common(api)}/ or {users(api)}/ada/models/",
    }


def test_code_is_never_a_users_own(api: Api) -> None:
    ada = api.user("ada")
    for kind in ("datasets", "models", "code"):
        assert list(refused(api, ada, code_path=f"{users(api)}/ada/{kind}/x")) == ["code_path"]
    (common(api) / "mine").symlink_to(users(api) / "ada" / "models")
    assert "leads out of" in refused(api, ada, code_path=f"{common(api)}/mine/tiny")["code_path"]


def other_places(folder: Path) -> Iterator[str]:
    """Of the user ada."""
    for user in (
        "bob",
        "ada2",
        "ad",
        "internal",
        "ADA",
        "Ada",
        "ada.",
        "ada-",
        "ad\u0430",
        "ada\u0301",
        "*",
        "..",
        ".",
    ):
        for kind in ("datasets", "models"):
            yield f"{folder}/{user}/{kind}/train.parquet"
    for kind in ("jobs/argus-x--a01", "trash", "Datasets", "MODELS", "datasets2", "models.", "."):
        yield f"{folder}/ada/{kind}/train.parquet"
    for way in (
        "datasets/../jobs/argus-x--a01",
        "datasets/../../bob/datasets",
        "datasets//x",
        "datasets/./x",
        "datasets/-x",
    ):
        yield f"{folder}/ada/{way}/train.parquet"
    yield f"{folder}/ada/datasets"
    yield f"{folder}/ada"
    yield f"{folder}/ada/train.parquet"
    for name, value in TRICKS.items():
        if name not in ("lone surrogate", "trailing slash of a file"):
            yield value.replace("/private/common", f"{folder}/ada/datasets")


@pytest.mark.parametrize("field", ["train_file", "val_file", "model_id"])
def test_no_other_place_is_ones_own(api: Api, field: str) -> None:
    ada = api.user("ada")
    sent = 0
    for value in other_places(users(api)):
        assert list(refused(api, ada, **{field: value})) == [field], value
        sent += 1
    assert sent > 90
    # Nor does a data set lie among models, or a model among data sets.
    swapped = {"model_id": f"{users(api)}/ada/datasets/tiny"}.get(field, f"{users(api)}/ada/models/train.parquet")
    assert list(refused(api, ada, **{field: swapped})) == [field]
    assert api.get("/api/v2/tasks", ada)["tasks"] == []


def links_out(api: Api) -> dict[str, Path | str]:
    return {
        "another user": users(api) / "bob" / "datasets",
        "a name with the same beginning": users(api) / "ada2" / "datasets",
        "relative": "../../bob/datasets",
        "own jobs": users(api) / "ada" / "jobs" / "argus-x--a01",
        "own trash": users(api) / "ada" / "trash",
        "own folder": users(api) / "ada",
        "all users": users(api),
        "the database": Path(api.world.shared_root) / "ray",
        "etc": "/etc",
        "proc": "/proc/self/root",
    }


def test_a_link_in_an_own_folder_must_stay_inside(api: Api) -> None:
    ada = api.user("ada")
    datasets, models = users(api) / "ada" / "datasets", users(api) / "ada" / "models"
    for name, target in links_out(api).items():
        link = name.replace(" ", "-")
        (datasets / link).symlink_to(target)
        (datasets / f"{link}-file.parquet").symlink_to(f"{target}/train.parquet")
        (models / link).symlink_to(Path(target))
        # A whole model, of which one file is another one's.
        folder = make_model(models / f"{link}-in-it")
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(f"{target}/tiny/model.safetensors")
        for fields in (
            {"train_file": f"{datasets}/{link}/train.parquet"},
            {"val_file": f"{datasets}/{link}-file.parquet"},
            {"model_id": f"{models}/{link}/tiny"},
            {"model_id": f"{models}/{link}-in-it"},
        ):
            rules = refused(api, ada, **fields)
            assert list(rules) == list(fields) and "leads out of" in rules.popitem()[1], (name, fields)


def test_an_own_folder_that_is_a_link_is_nobodys_own(api: Api) -> None:
    """It would make all that it leads to one's own."""
    ada = api.user("ada")
    for name in ("datasets", "models"):
        shutil.rmtree(users(api) / "ada" / name)
        (users(api) / "ada" / name).symlink_to(users(api) / "bob" / name)
    rules = refused(api, ada, **own_of(api, "ada"))
    assert len(rules) == 3 and all("leads out of" in rule for rule in rules.values())
    shutil.rmtree(users(api) / "ada")
    (users(api) / "ada").symlink_to(users(api) / "bob")
    rules = refused(api, ada, **own_of(api, "ada"))
    assert len(rules) == 3 and all("leads out of" in rule for rule in rules.values())


def test_a_link_may_lead_to_common_and_to_another_own_folder(api: Api) -> None:
    ada = api.user("ada")
    datasets, models = users(api) / "ada" / "datasets", users(api) / "ada" / "models"
    (datasets / "shared").symlink_to(common(api) / "datasets" / "gsm8k")
    (datasets / "other").symlink_to("../models")
    (models / "whole").symlink_to(models / "tiny")
    fields = {
        "train_file": f"{datasets}/shared/train.parquet",
        "val_file": f"{datasets}/other/train.parquet",
        "model_id": f"{models}/whole",
    }
    assert post(api, ada, **fields).status_code == 201


def test_a_verdict_for_one_user_is_none_for_another(api: Api) -> None:
    """Both name the same path, within the two seconds that a verdict is good for."""
    (common(api) / "adas").symlink_to(users(api) / "ada" / "datasets")
    path = f"{common(api)}/adas/train.parquet"
    ada, bob = api.user("ada"), api.user("bob")
    assert post(api, ada, train_file=path).status_code == 201
    body = api.world.spec(train_file=path)
    answer = api.client.post("/api/v2/tasks", content=body, headers={**bob, **YAML})
    assert answer.status_code == 400 and "leads out of" in answer.text


def test_nobody_without_a_token_learns_of_any_folder(api: Api) -> None:
    stranger = {"Authorization": f"Bearer argus_u_{'0' * 64}"}
    for fields in (own_of(api, "ada"), own_of(api, "nobody"), {"train_file": "/etc/x"}, {"nnodes": 0}):
        answer = post(api, stranger, **fields)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    # An admin owns no tasks, and no folders.
    assert post(api, ADMIN, **own_of(api, "ada")).status_code == 400


def test_a_key_that_was_used_is_answered_whatever_became_of_the_folder(api: Api) -> None:
    ada = api.user("ada")
    task_id = api.submit(ada, "key", **own_of(api, "ada"))
    shutil.rmtree(users(api) / "ada" / "datasets")
    api.a_moment_later()
    assert api.submit(ada, "key", **own_of(api, "ada")) == task_id


def check(api: Api, task_id: str, *, own_folders: bool = True) -> Findings:
    """As the scheduler does before it starts a task."""
    threads = BoundedThreads("own-inputs-test", 1)
    preflight = Preflight(threads, 10, api.world.shared_root)
    looks = InputsOfTasks(preflight, threads, 10, own_folders=own_folders)
    return asyncio.run(looks.check(api.task(task_id)))


def test_a_link_that_is_swapped_between_submission_and_start_is_found(api: Api) -> None:
    ada = api.user("ada")
    task_id = api.submit(ada, **own_of(api, "ada"))
    assert check(api, task_id) == Findings()
    train = users(api) / "ada" / "datasets" / "train.parquet"
    train.unlink()
    train.symlink_to(users(api) / "bob" / "datasets" / "train.parquet")
    found = check(api, task_id)
    assert {item.field for item in found.errors} == {"train_file", "val_file"}
    assert all("leads out of" in item.rule for item in found.errors)


def test_an_accepted_task_keeps_its_inputs_when_the_setting_goes_off(api: Api) -> None:
    ada = api.user("ada")
    task_id, plain = api.submit(ada, **own_of(api, "ada")), api.submit(ada)
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    waiting = api.submit(ada, **own_of(api, "ada"))
    api.world.reopen(settings={})
    off = Api(api.world)
    assert check(off, waiting, own_folders=False) == Findings()
    off.admit(waiting)
    # A new task, also one that is made again from an old one, is a new acceptance.
    answer = off.client.post(f"/api/v2/tasks/{task_id}:resubmit", headers=ada)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec")
    # One that names none of its own gains nothing by having an owner.
    datasets = common(api) / "datasets" / "gsm8k"
    shutil.move(datasets / "train.parquet", users(api) / "ada" / "datasets" / "moved.parquet")
    (datasets / "train.parquet").symlink_to(users(api) / "ada" / "datasets" / "moved.parquet")
    assert "leads out of" in str(check(off, plain, own_folders=False).errors)


def test_an_admin_resubmits_with_the_owners_inputs(api: Api) -> None:
    ada = api.user("ada")
    task_id = api.submit(ada, **own_of(api, "ada"))
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    for who in (ADMIN, INTERNAL, ada):
        answer = api.client.post(f"/api/v2/tasks/{task_id}:resubmit", headers=who)
        assert answer.status_code == 201, answer.text
        assert api.task(answer.json()["task_id"]).user_id == "ada"


def test_what_is_missing_of_ones_own_is_an_error_while_the_folders_are_there(api: Api) -> None:
    ada = api.user("ada")
    path = f"{users(api)}/ada/datasets/gone.parquet"
    assert refused(api, ada, train_file=path) == {"train_file": "does not exist"}
    shutil.rmtree(users(api) / "ada" / "datasets")
    assert refused(api, ada, train_file=path) == {"train_file": "does not exist"}
    shutil.rmtree(users(api) / "ada")
    assert refused(api, ada, train_file=path) == {"train_file": "does not exist"}


@pytest.mark.parametrize("what", ["users", "users/ada", "common"])
def test_what_is_missing_below_a_mount_point_that_is_bare_is_unknown(api: Api, what: str) -> None:
    ada = api.user("ada")
    task_id = api.submit(ada, **own_of(api, "ada"))
    place = Path(api.world.shared_root) / what
    place.rename(place.with_name("away"))
    place.mkdir()
    answer = post(api, ada, **own_of(api, "ada"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert f"{place} is empty" in answer.json()["detail"]
    assert check(api, task_id).unknown and not check(api, task_id).errors
    if what != "common":
        # Whose inputs are all shared has nothing to do with it.
        assert post(api, ada).status_code == 201
    place.rmdir()
    place.with_name("away").rename(place)
    assert post(api, ada, **own_of(api, "ada")).status_code == 201


@pytest.mark.parametrize("thing", ["pipe", "socket", "link to zeros"])
def test_what_is_no_file_in_an_own_folder_holds_no_thread(api: Api, thing: str) -> None:
    ada = api.user("ada")
    for path in (users(api) / "ada/datasets/x.parquet", users(api) / "ada/models/tiny/config.json"):
        path.unlink(missing_ok=True)
        if thing == "pipe":
            os.mkfifo(path)
        elif thing == "socket":
            os.mknod(path, 0o140600)
        else:
            path.symlink_to("/dev/zero")
    models = f"{users(api)}/ada/models/tiny"
    rules = refused(api, ada, train_file=f"{users(api)}/ada/datasets/x.parquet", model_id=models)
    words = "leads out of" if thing == "link to zeros" else "is no plain file"
    assert len(rules) == 2 and all(words in rule for rule in rules.values()), rules
