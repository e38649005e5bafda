"""The command of an export, and what it may run."""

from __future__ import annotations

import pytest

from argus_ray.core.exports import Export, Part
from argus_ray.core.verl import merge
from argus_ray.core.verl.command import Site

SITE = Site("/private", "/private/ray/payload/1", "/opt/python", stop_grace_s=30, log_bytes=1000)
OLD = "/private/users/ada/jobs/argus-ada-ppo-20260101-000000-abcd--a02"
ROOT = "/private/users/ada/jobs/argus-ada-export-20260101-000000-abcd--a01"


def export(workload: str = "ppo", part: Part = Part.ACTOR, *, trusts_code: bool = False) -> Export:
    return Export("argus-ada-ppo-20260101-000000-abcd", workload, 8, 20, part, OLD, trusts_code=trusts_code)


@pytest.mark.parametrize(
    ("wanted", "folder", "options"),
    [
        (export("sft"), "global_step_20", ()),
        (export("grpo"), "global_step_20/actor", ()),
        (export("ppo", Part.CRITIC), "global_step_20/critic", ("--value-model",)),
        (export(trusts_code=True), "global_step_20/actor", ("--trust-remote-code",)),
    ],
)
def test_it_reads_the_folder_of_the_part_and_writes_below_its_own_job_root(
    wanted: Export, folder: str, options: tuple[str, ...]
) -> None:
    made = merge.launch(wanted, SITE, submission_id="the-id--a01", job_root=ROOT)
    script = ("/opt/python", "-u", "/private/ray/payload/1/argus_export.py")
    where = ("--checkpoint", f"{OLD}/checkpoints/{folder}", "--target", f"{ROOT}/export")
    assert made.command == (*script, *where, *options)
    assert "argus_runner.py" in made.entrypoint and made.entrypoint.endswith(" ".join(made.command))
    assert (made.gang.nnodes, made.gang.gpus, made.gang.cpus) == (1, 0, 2.0)


def test_its_environment_is_offline_and_holds_no_code_of_a_user() -> None:
    env = merge.launch(export(), SITE, submission_id="the-id--a01", job_root=ROOT).env
    assert env["PYTHONPATH"] == SITE.payload_dir
    assert (env["HF_HUB_OFFLINE"], env["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert env["ARGUS_JOB_ROOT"] == ROOT and env["ARGUS_SUBMISSION_ID"] == "the-id--a01"
    assert "VERL_USE_EXTERNAL_MODULES" not in env


@pytest.mark.parametrize(
    ("word", "part", "trusts"),
    [
        ("model.trust_remote_code=True", Part.ACTOR, True),
        ("++actor_rollout_ref.model.trust_remote_code=true", Part.ACTOR, True),
        ("actor_rollout_ref.model.trust_remote_code=False", Part.ACTOR, False),
        ("critic.model.trust_remote_code=True", Part.ACTOR, False),
        ("critic.model.trust_remote_code=True", Part.CRITIC, True),
        ("data.trust_remote_code=True", Part.ACTOR, False),
    ],
)
def test_it_trusts_what_the_run_was_told_to_trust(word: str, part: Part, trusts: bool) -> None:
    assert merge.trusts_code(("python", "-m", "verl.trainer.main_ppo", word), part) is trusts
