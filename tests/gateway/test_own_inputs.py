"""Inputs in a user's own folders: off unless the operator lets users have them; what is accepted and what is said.

The attacks are in tests/hostile/test_own_inputs.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.states import Outcome
from argus_ray.disk.inputs import Findings
from tests.support.gateway import ADMIN, INTERNAL, YAML, Api, make_api
from tests.support.own_inputs import api_with_own_folders, check, common, make_own, own_of, post, refused, users


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    yield from api_with_own_folders(tmp_path)


@pytest.mark.parametrize("who", ["ada", "internal"])
def test_own_data_and_an_own_model_are_accepted_without_a_word(api: Api, who: str) -> None:
    headers = INTERNAL if who == "internal" else api.user(who)
    for _ in range(2):  # the second time the token is known
        answer = post(api, headers, **own_of(api, who))
        assert answer.status_code == 201, answer.text
        assert answer.json()["warnings"] == [] and api.task(answer.json()["task_id"]).user_id == who


def test_a_validation_says_what_the_submission_would(api: Api) -> None:
    ada, bob = api.user("ada"), api.user("bob")
    for who, is_valid in ((ada, True), (bob, False), (ada, True)):
        body = api.world.spec(**own_of(api, "ada"))
        answer = api.client.post("/api/v2/tasks:validate", content=body, headers={**who, **YAML})
        assert (answer.status_code, answer.json()["valid"]) == (200, is_valid), answer.text
        assert is_valid or "/bob/datasets/" in answer.text
    assert post(api, ada, **own_of(api, "ada")).status_code == 201


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


def test_a_key_that_was_used_is_answered_whatever_became_of_the_folder(api: Api) -> None:
    ada = api.user("ada")
    task_id = api.submit(ada, "key", **own_of(api, "ada"))
    shutil.rmtree(users(api) / "ada" / "datasets")
    api.a_moment_later()
    assert api.submit(ada, "key", **own_of(api, "ada")) == task_id


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
