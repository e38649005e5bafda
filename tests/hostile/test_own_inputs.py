"""A user's own inputs, where the operator lets users have them: no way leads from there to what is another one's.

Each attack comes over HTTP, on a real disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.disk import inputs
from argus_ray.disk.inputs import Findings
from tests.core.test_paths import TRICKS
from tests.support.gateway import ADMIN, YAML, Api
from tests.support.odd_inputs import make_model
from tests.support.own_inputs import api_with_own_folders, check, common, own_of, post, refused, users


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    yield from api_with_own_folders(tmp_path)


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


def test_a_look_that_does_not_end_lets_no_own_input_through(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of inputs in `common` a disk that does not answer is a warning. Here whoever makes the look take long, by large
    files or by many submissions, would have a link to another user's data accepted unseen."""
    ada = api.user("ada")
    link = users(api) / "ada" / "datasets" / "of-bob.parquet"
    link.symlink_to(users(api) / "bob" / "datasets" / "train.parquet")

    def too_long(*_: object) -> Findings:
        raise TimeoutError

    monkeypatch.setattr(inputs, "inspect", too_long)
    for fields in ({"train_file": str(link)}, own_of(api, "ada")):
        answer = post(api, ada, **fields)
        assert answer.status_code == 503 and "inputs cannot be looked at" in answer.json()["detail"], answer.text
    assert post(api, ada).status_code == 201
    monkeypatch.setattr(inputs, "inspect", lambda *_: 1 / 0)
    assert post(api, ada, train_file=str(link)).status_code == 503


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
