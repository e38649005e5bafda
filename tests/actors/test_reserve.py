"""The reserve in the actors: the scheduler looks beside its ticks, and /readyz tells what it has seen."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from argus_ray.actors.scheduler import SchedulerActor
from argus_ray.config import Settings
from argus_ray.discovery import head_json, sentinel
from argus_ray.gateway.actors import ActorHandles


def scheduler_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> SchedulerActor:
    """Without Ray: its ticks fail, and it looks at the disk all the same."""

    def nobody(*_: object, **__: object) -> None:
        raise ValueError("there is no Ray here")

    monkeypatch.setattr(ray, "get_actor", nobody)
    settings = Settings.model_validate({"shared_root": str(tmp_path), "limits": limits})
    sentinel.begin(head_json.folder(settings.shared_root, settings.cluster_name))
    return SchedulerActor(settings.model_dump(mode="json"), "f", lambda: None)


def until_it_ticks(actor: SchedulerActor) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while not (status := actor.status())["error"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return status


@pytest.mark.parametrize(("reserve", "is_low"), [(2**50, True), (1, False), (0, False)])
def test_the_scheduler_knows_before_its_first_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve: int, is_low: bool
) -> None:
    actor = scheduler_on(tmp_path, monkeypatch, reserve_bytes=reserve)
    try:
        low = until_it_ticks(actor)["low_disk"]
        assert (low is not None) is is_low
        if is_low:
            assert f"free at {tmp_path}" in low and "the reserve is 1024.0 TiB" in low
        dispatcher = actor._dispatcher
        assert dispatcher is not None and (dispatcher.low_disk() is not None) is is_low
    finally:
        assert actor.stop(30)


@pytest.mark.parametrize("low", ["1.0 GiB free at /private", None, "missing"])
def test_readiness_tells_what_the_scheduler_has_seen(low: str | None) -> None:
    handles = ActorHandles(Settings(), "v")
    says: dict[str, dict[str, Any]] = {
        "ping": {"maintenance_since": None},
        "status": {"tick_age_s": 0.1, "error": None, "jobs_reachable": True, "view": object(), "status": "ok"},
    }
    if low != "missing":  # as one of an earlier version
        says["status"]["low_disk"] = low

    async def call(name: str, method: str, *_: object) -> Any:
        return says[method]

    handles._call = call  # type: ignore[method-assign]
    parts = asyncio.run(handles.readiness())
    assert {name: parts[name] for name in ("state", "scheduler", "ray_jobs", "publisher")} == dict.fromkeys(
        ("state", "scheduler", "ray_jobs", "publisher"), "ok"
    )
    assert parts.get("disk") == (low if low != "missing" else None)
