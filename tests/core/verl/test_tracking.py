"""The settings of tracking, and what an attempt is started with for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from argus_ray import config
from argus_ray.core import job_files
from argus_ray.core.verl import command, tracking
from argus_ray.core.verl.tracking import Tracking
from argus_ray.payload import argus_secrets
from tests.core.verl.test_command import ROOT, SUBMISSION, spec

TASK = "argus-ada-x-20260101-000000-abcd"
ONLINE = Tracking("{user}-{workload}", "online", "https://wandb.example", "team")


def loaded(**wandb: Any) -> tracking.TrackingSettings:
    return config.load({"verl": {"tracking": {"wandb": wandb}}}, {}).verl.tracking


def launched(own: Tracking | None, workload: str = "sft", device: str = "cuda") -> command.Launch:
    site = command.Site("/private", "/private/ray/payload/abc", "/venv/bin/python", 20, 5 << 20, tracking=own)
    return command.launch(spec(workload, device), site, submission_id=SUBMISSION, job_root=ROOT)


class TestSettings:
    def test_it_is_off_by_default_and_then_no_run_knows_of_it(self) -> None:
        own = config.load({}, {}).verl.tracking
        assert (own.for_runs(), own.variable) == (None, "")
        made = launched(None)
        assert made.env["WANDB_MODE"] == "disabled"
        assert not any("wandb" in word for word in made.command)

    def test_what_is_not_named_has_a_default(self) -> None:
        own = loaded()
        assert own.for_runs() == Tracking("{user}_project", "online", "https://api.wandb.ai", None)
        assert own.variable == "WANDB_API_KEY"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("project", "{user}-{workload}-runs"),
            ("project", "p" * 128),
            ("base_url", "http://10.0.0.1:8080"),
            ("base_url", "https://wandb.example/prefix"),
            ("api_key_env", "OUR_KEY"),
            ("entity", "our-team"),
            ("mode", "offline"),
        ],
    )
    def test_what_is_good_is_taken(self, key: str, value: str) -> None:
        assert loaded(**{key: value}).wandb == tracking.WandbSettings.model_validate({key: value})

    @pytest.mark.parametrize(
        ("key", "value", "word"),
        [
            ("project", "{usr}_project", "{usr} is unknown: there are {user} and {workload}"),
            ("project", "{}", "is unknown"),
            ("project", "{user.__class__}", "is unknown"),
            ("project", "{user", "may not hold"),
            ("project", "{{user}}", "may not hold"),
            ("project", "a/b", "may not hold"),
            ("project", "a%b", "may not hold"),
            ("project", "a\nb", "may not hold"),
            ("project", " a", "may not hold"),
            ("project", "", "1 to 128"),
            ("project", "p" * 129, "1 to 128"),
            ("project", "{user}" + "p" * 97, "1 to 128"),
            ("base_url", "wandb.ai", "URL"),
            ("base_url", "ftp://wandb.ai", "URL"),
            ("base_url", "https://", "URL"),
            ("base_url", "https://a b", "URL"),
            ("base_url", "https://h:x", "URL"),
            ("base_url", "https://api:KEY@wandb.ai", "no user, password"),
            ("base_url", "https://wandb.ai?key=KEY", "no user, password"),
            ("api_key_env", "0123456789abcdef0123456789abcdef01234567", "name of an environment variable"),
            ("entity", "a/b", "match"),
            ("mode", "disabled", "online"),
            ("key", "KEY", "not a known field"),
        ],
    )
    def test_what_is_wrong_is_refused_at_deploy(self, key: str, value: str, word: str) -> None:
        with pytest.raises(config.ConfigError, match=re.escape(f"verl.tracking.wandb.{key}: ")) as raised:
            loaded(**{key: value})
        assert word.lower() in str(raised.value).lower()
        assert "KEY" not in str(raised.value) and "0123456789abcdef" not in str(raised.value)

    def test_a_project_that_is_taken_is_one_that_wandb_takes(self) -> None:
        wandb = pytest.importorskip("wandb")
        for template in ("{user}-{workload}", "p" * 128, "a b", "Ünï", "{user}" + "p" * 96):
            own = loaded(project=template).for_runs()
            assert own is not None
            name = tracking.project_of(own.project, user_id="u" * 32, workload="grpo")
            assert wandb.Settings(project=name).project == name


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("workload", ["sft", "grpo", "ppo"])
class TestAttempt:
    def test_wandb_comes_to_the_other_loggers(self, workload: str, device: str) -> None:
        plain, made = launched(None, workload, device), launched(ONLINE, workload, device)
        (logger,) = [word for word in made.command if word.startswith("trainer.logger=")]
        assert logger == 'trainer.logger=["console","file","tensorboard","wandb"]'
        changed = [(old, new) for old, new in zip(plain.command, made.command, strict=True) if old != new]
        assert [new for _, new in changed] == [logger]
        modules = plain.env.get("VERL_USE_EXTERNAL_MODULES")
        assert made.env["VERL_USE_EXTERNAL_MODULES"] == ",".join(filter(None, [modules, "argus_verl_wandb"]))

    def test_the_task_is_the_run_and_its_project_follows_the_template(self, workload: str, device: str) -> None:
        env = launched(ONLINE, workload, device).env
        assert env["WANDB_RUN_ID"] == env["WANDB_NAME"] == TASK
        assert (env["WANDB_RESUME"], env["WANDB_MODE"]) == ("allow", "online")
        assert (env["WANDB_PROJECT"], env["WANDB_ENTITY"]) == (f"ada-{workload}", "team")
        assert env["WANDB_BASE_URL"] == "https://wandb.example"

    def test_everything_is_written_below_the_job_root_and_nothing_is_secret(self, workload: str, device: str) -> None:
        env = launched(ONLINE, workload, device).env
        folders = [value for name, value in env.items() if name.startswith("WANDB_") and name.endswith("_DIR")]
        assert len(folders) == 5
        assert all(folder == ROOT or folder.startswith(f"{ROOT}/") for folder in folders)
        assert not any("KEY" in name for name in env)


def test_the_module_is_in_the_payload_and_knows_the_place_of_the_key() -> None:
    assert (Path(command.__file__).parents[2] / "payload" / f"{tracking.MODULE}.py").is_file()
    assert (argus_secrets.FOLDER,) == job_files.HIDDEN, "and nobody is given it"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trainer.logger=[console]", 'trainer.logger=[console,"wandb"]'),
        ("++trainer.logger=['file','console']", "++trainer.logger=['file','console',\"wandb\"]"),
        ("trainer.logger=[]", 'trainer.logger=["wandb"]'),
        ("trainer.logger=[wandb,file]", "trainer.logger=[wandb,file]"),
    ],
)
def test_loggers_are_added_to_however_they_are_written(word: str, expected: str) -> None:
    assert tracking.with_logger(["a=b", word, "c=d"]) == ("a=b", expected, "c=d")
    assert tracking.with_logger(["a=b"])[-1] == 'trainer.logger=["console","file","tensorboard","wandb"]'


def test_a_new_template_moves_no_task_that_has_begun() -> None:
    first = launched(ONLINE).env
    later = Tracking("other", "offline", "https://elsewhere.example")
    assert later.as_begun([{"WANDB_MODE": "disabled"}, first]) == Tracking(
        "ada-sft", "offline", "https://elsewhere.example", "team"
    )
    assert later.as_begun([{"WANDB_MODE": "disabled"}]) == later


def test_a_key_goes_to_its_own_server_alone() -> None:
    env = launched(ONLINE).env
    assert tracking.wants_key(env, ONLINE)
    assert not tracking.wants_key(env, None)
    assert not tracking.wants_key(env, Tracking("p", "online", "https://elsewhere.example"))
    assert not tracking.wants_key(launched(Tracking("p", "offline", "https://wandb.example")).env, ONLINE)
    assert not tracking.wants_key(launched(None).env, ONLINE)
