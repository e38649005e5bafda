"""An actor that was told to stop is killed next. If whoever told it died before, it does not live on for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from argus_ray.actors import handover, leaving
from argus_ray.actors.scheduler import SchedulerActor
from argus_ray.config import Settings

#: Starts the actor, tells it to stop and dies as a caller: nothing is called any more, and the process would go on.
TOLD_TO_STOP = """
import json, sys, threading, time
from argus_ray.actors import leaving
from argus_ray.actors.publisher import HeadPublisher
from argus_ray.actors.scheduler import SchedulerActor
settings, name, after_s, hangs, wait_s = json.loads(sys.argv[1])
leaving.END_AFTER_S = after_s
cls = {"scheduler": SchedulerActor, "publisher": HeadPublisher}[name]
if hangs:
    # A loop that neither ends nor lets its process end in order.
    cls._run = lambda self: time.sleep(600)
    threading.Thread(target=time.sleep, args=(600,)).start()
actor = cls(settings, "f")
print("stopped", actor.stop(wait_s), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("hangs", [False, True], ids=["its loop ended", "its loop hangs"])
@pytest.mark.parametrize("name", ["scheduler", "publisher"])
def test_one_that_nobody_kills_ends_itself_so_that_ray_starts_it_anew(tmp_path: Path, name: str, hangs: bool) -> None:
    settings = Settings(shared_root=str(tmp_path), cluster_name="argus").model_dump(mode="json")
    begun = time.monotonic()
    command = [sys.executable, "-c", TOLD_TO_STOP, json.dumps([settings, name, 12.0, hangs, 2.0 if hangs else 10.0])]
    # Without Ray, which a call of its API would start.
    environ = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as actor:
        try:
            out, err = actor.communicate(timeout=180)
        finally:
            actor.kill()
    # Not 0: Ray starts an actor again that has failed, and not one that has exited.
    assert actor.returncode == 1, err
    assert out == f"stopped {not hangs}\n"
    assert f"the {name} was told to stop 12 s ago and still lives" in err
    assert time.monotonic() - begun >= 12.0


def test_one_whose_loop_has_ended_is_told_to_wake_and_to_stop_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(shared_root=str(tmp_path), cluster_name="argus").model_dump(mode="json")
    actor = SchedulerActor(settings, "f", end=lambda: None)
    monkeypatch.setattr(leaving, "END_AFTER_S", 3600.0)  # or it speaks up in a later test
    assert actor.stop(60)
    actor.wake()
    assert actor.stop(0)


def test_a_scheduler_that_was_told_to_stop_is_going_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "END_AFTER_S", 0.2)
    settings, ended = Settings(shared_root=str(tmp_path), cluster_name="argus").model_dump(mode="json"), Event()
    assert SchedulerActor(settings, "f", end=ended.set).stop(60)
    assert ended.wait(60)


def test_it_ends_within_a_minute_and_not_before_the_goodbye_is_over() -> None:
    assert handover._GOODBYE_WAIT_S + 5 < leaving.END_AFTER_S <= 60


def test_until_then_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []
    monkeypatch.setattr(leaving, "END_AFTER_S", 0.2)
    begun = time.monotonic()
    timer = leaving.end_unless_killed("it", lambda: ended.append(time.monotonic()))
    assert timer.daemon
    timer.join(60)
    assert len(ended) == 1 and ended[0] - begun >= 0.2
