"""A gateway whose users may have inputs of their own, with such inputs on a real disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from argus_ray.actors.adapters import InputsOfTasks
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from tests.support.builders import parquet_file
from tests.support.gateway import YAML, Api, Headers, make_api
from tests.support.odd_inputs import make_model


def api_with_own_folders(tmp_path: Path) -> Iterator[Api]:
    """It ends with the test."""
    made = make_api(tmp_path, settings={"inputs": {"own_folders": True}})
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


def post(api: Api, who: Headers, **fields: Any) -> httpx2.Response:
    api.a_moment_later()
    answer: httpx2.Response = api.client.post(
        "/api/v2/tasks", content=api.world.spec(**fields), headers={**who, **YAML}
    )
    return answer


def refused(api: Api, who: Headers, **fields: Any) -> dict[str, str]:
    answer = post(api, who, **fields)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec"), (fields, answer.text)
    return {error["field"]: error["rule"] for error in answer.json()["errors"]}


def own_of(api: Api, user: str) -> dict[str, str]:
    folder = users(api) / user
    data = f"{folder}/datasets/train.parquet"
    return {"train_file": data, "val_file": data, "model_id": f"{folder}/models/tiny"}


def check(api: Api, task_id: str, *, own_folders: bool = True) -> Findings:
    """As the scheduler does before it starts a task."""
    threads = BoundedThreads("own-inputs-test", 1)
    preflight = Preflight(threads, 10, api.world.shared_root)
    looks = InputsOfTasks(preflight, threads, 10, own_folders=own_folders)
    return asyncio.run(looks.check(api.task(task_id)))
