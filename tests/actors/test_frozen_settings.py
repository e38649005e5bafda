"""What a task was accepted with is what each of its attempts trains with, whatever the configuration says by then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors.adapters import prepare
from argus_ray.core import actions, taskspec
from argus_ray.core.model import Attempt, Task
from argus_ray.core.reasons import words
from argus_ray.core.states import TaskState
from argus_ray.core.verl import command, layers
from argus_ray.core.verl.recipes import VerlSettings
from tests.support.simlab import Lab, checked_lab
from tests.support.simray import make_dispatcher

VERL: dict[str, Any] = {"presets": {"slow": {"optim.lr": 3e-6, "data.max_length": 512}}, "selectable": ["slow"]}
OTHER: dict[str, Any] = {"rules": [{"set": {"optim.lr": 1.0, "optim.weight_decay": 0.5}}]}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    for made in checked_lab(tmp_path):
        with_real_commands(made)
        yield made


def with_real_commands(lab: Lab) -> None:
    site = lab.world.settings.site("/payload")
    lab.dispatcher.examiner.prepare = lambda task, *where: prepare(task, site, *where)


def submit(lab: Lab, *presets: str) -> Task:
    """As the gateway of this configuration does."""
    text = lab.world.spec()
    spec = taskspec.parse(text, shared_root=lab.world.shared_root)
    found = layers.resolve(spec, user_id="ada", recipes=VerlSettings.model_validate(VERL).recipes(), chosen=presets)
    frozen = layers.encode(found)
    action = actions.SubmitTask(text, "sft", command.gang_of(spec), presets=presets, settings=frozen)
    return lab.world.task(lab.world.service.handle(lab.ada, action).task_id)


def values(attempt: Attempt) -> dict[str, str]:
    """Of the command's overrides, without those that name the attempt."""
    pairs = [word.partition("=")[::2] for word in attempt.command if "=" in word]
    return {key: value for key, value in pairs if attempt.submission_id not in value}


def test_a_second_attempt_uses_them_after_the_configuration_is_another_one(lab: Lab) -> None:
    task = submit(lab, "slow")
    lab.tick()
    first = lab.begin()
    lab.world.reopen(settings={"verl": OTHER})  # all actors begin again with it
    lab.dispatcher = make_dispatcher(lab.world, lab.ray, random.Random(0))
    with_real_commands(lab)
    lab.lose(*first)
    lab.tick()
    lab.tick(61)
    one, two = lab.task(task).attempts
    assert (values(one)["optim.lr"], values(one)["data.max_length"]) == ("3e-06", "512")
    assert values(two) == values(one)
    assert "optim.weight_decay" not in values(two)
    assert lab.task(task).settings == task.settings


def test_a_task_of_an_earlier_version_uses_the_defaults(lab: Lab) -> None:
    task = lab.world.submit(lab.ada)
    lab.tick()
    (attempt,) = lab.task(task).attempts
    assert task.settings is None and values(attempt)["optim.lr"] == "1e-05"


@pytest.mark.parametrize("text", ["[1]", '[["optim.lr"]]', "[null]"])
def test_what_cannot_be_read_holds_its_task_and_trains_nothing_else(lab: Lab, text: str) -> None:
    broken, sound = submit(lab, "slow"), submit(lab)
    with lab.world.store.transaction() as db:
        db.execute("DROP TRIGGER settings_are_not_changed")
        db.execute("PRAGMA ignore_check_constraints = ON")
        assert db.execute("UPDATE settings SET text = ? WHERE text = ?", (text, broken.settings)).rowcount == 1
        db.execute("PRAGMA ignore_check_constraints = OFF")
    lab.tick()
    held = lab.task(broken)
    assert (held.state, held.attempts) == (TaskState.PENDING_RESOURCES, ())
    assert "command cannot be made" in words(held.reason or "")
    assert len(lab.task(sound).attempts) == 1
