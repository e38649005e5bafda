"""The command lines (golden/verl/*.txt, an argument a line) and environments, word for word; and that nothing
in a TaskSpec can leave its argument."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core import paths
from argus_ray.core.model import Gang
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command as verl
from argus_ray.core.verl import values
from argus_ray.payload import argus_folders, argus_reserve

SITE = verl.Site("/private", "/private/ray/payload/abc", "/venv/bin/python", 20, 5 << 20)
SUBMISSION = "argus-ada-x-20260101-000000-abcd--a01"
ROOT = paths.job_root("/private", "ada", SUBMISSION)
WORKLOADS = ("ppo", "grpo", "sft")
DEVICES = ("cuda", "cpu")


def spec(workload: str = "sft", device: str = "cuda", **fields: Any) -> TaskSpec:
    common = "/private/common"
    values: dict[str, Any] = {
        "workload": workload,
        "code_path": f"{common}/code/verl",
        "model_id": "Qwen/Qwen2.5-0.5B-Instruct",
        "train_file": f"{common}/datasets/gsm8k/train.parquet",
        "val_file": f"{common}/datasets/gsm8k/test.parquet",
        "nnodes": 2,
        "n_gpus_per_node": 4,
        "total_epochs": 1,
        "save_freq": 10,
        "test_freq": -1,
        "trainer_device": device,
    }
    return TaskSpec.model_validate(values | fields, context={"shared_root": "/private", "resolve": str})


def launch(task: TaskSpec, **arguments: Any) -> verl.Launch:
    return verl.launch(task, SITE, submission_id=SUBMISSION, job_root=ROOT, **arguments)


ENVIRONMENT = """
    ARGUS_CODE_PATH=/private/common/code/verl
    ARGUS_JOB_ROOT=/private/users/ada/jobs/argus-ada-x-20260101-000000-abcd--a01
    ARGUS_STOP_GRACE_S=20
    ARGUS_SUBMISSION_ID=argus-ada-x-20260101-000000-abcd--a01
    HF_DATASETS_CACHE=/private/users/ada/jobs/argus-ada-x-20260101-000000-abcd--a01/cache/datasets
    HF_DATASETS_OFFLINE=1
    HF_HOME=/private/common/hf
    HF_HUB_OFFLINE=1
    HF_MODULES_CACHE=/private/users/ada/jobs/argus-ada-x-20260101-000000-abcd--a01/cache/modules
    HYDRA_FULL_ERROR=1
    PYTHONPATH=/private/ray/payload/abc
    PYTHONUNBUFFERED=1
    RAY_JOB_STOP_WAIT_TIME_S=40
    TENSORBOARD_DIR=/private/users/ada/jobs/argus-ada-x-20260101-000000-abcd--a01/tensorboard
    TOKENIZERS_PARALLELISM=true
    TRANSFORMERS_OFFLINE=1
    VERL_FILE_LOGGER_PATH=/private/users/ada/jobs/argus-ada-x-20260101-000000-abcd--a01/metrics.jsonl
    WANDB_MODE=disabled
"""

MODULES = {
    ("ppo", "cuda"): "argus_verl_tq,argus_verl_placement,argus_verl_reserve",
    (
        "ppo",
        "cpu",
    ): "argus_verl_tq,argus_verl_placement,argus_verl_reserve,argus_verl_cpu,argus_verl_hf_rollout,argus_verl_critic",
    ("grpo", "cuda"): "argus_verl_tq,argus_verl_placement,argus_verl_reserve",
    ("grpo", "cpu"): "argus_verl_tq,argus_verl_placement,argus_verl_reserve,argus_verl_cpu,argus_verl_hf_rollout",
    ("sft", "cuda"): "",
    ("sft", "cpu"): "argus_verl_cpu",
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("workload", WORKLOADS)
class TestGolden:
    def test_command(self, workload: str, device: str) -> None:
        golden = Path(__file__).parent / "golden" / f"{workload}_{device}.txt"
        assert launch(spec(workload, device)).command == tuple(golden.read_text().splitlines())

    def test_environment(self, workload: str, device: str) -> None:
        expected = dict(line.split("=", 1) for line in ENVIRONMENT.split())
        if modules := MODULES[workload, device]:
            expected["VERL_USE_EXTERNAL_MODULES"] = modules
        if device == "cpu":
            expected |= {"OMP_NUM_THREADS": "1", "VERL_ENGINE_DEVICE": "cuda", "VERL_PLATFORM": "cpu"}
        assert launch(spec(workload, device)).env == expected

    def test_entrypoint_is_the_command_under_the_runner(self, workload: str, device: str) -> None:
        made = launch(spec(workload, device))
        runner = [SITE.worker_python, "-I", "-S", "-u", f"{SITE.payload_dir}/argus_runner.py"]
        options = ["--job-root", ROOT, "--log-bytes", "5242880"]
        assert shlex.split(made.entrypoint) == [*runner, *options, "--", *made.command]

    def test_gang(self, workload: str, device: str) -> None:
        assert verl.gang_of(spec(workload, device)) == Gang(2, 4, 12.0)

    def test_modules_are_in_the_payload(self, workload: str, device: str) -> None:
        payload = Path(verl.__file__).parents[2] / "payload"
        made = launch(spec(workload, device), resume_from=f"{ROOT}/checkpoints/global_step_2")
        modules = made.env.get("VERL_USE_EXTERNAL_MODULES", "").split(",")
        for module in (*filter(None, modules), "argus_runner", "argus_sft_launcher", "argus_verl_reward"):
            assert (payload / f"{module}.py").is_file()

    def test_verl_knows_every_key(self, workload: str, device: str) -> None:
        hydra = pytest.importorskip("hydra")
        installed = importlib.util.find_spec("verl")
        if installed is None or not installed.origin or "standin" in installed.origin:
            pytest.skip("verl is not installed")
        command = launch(spec(workload, device), resume_from=f"{ROOT}/checkpoints/global_step_2").command
        overrides = [word for word in command[4:] if "=" in word]
        name = "sft_trainer_engine" if workload == "sft" else "ppo_trainer"
        folder = Path(installed.origin).parent / "trainer" / "config"
        with hydra.initialize_config_dir(str(folder), version_base=None):
            config = hydra.compose(name, overrides)
        assert config.trainer.default_local_dir == f"{ROOT}/checkpoints"
        assert list(config.trainer.logger) == ["console", "file", "tensorboard"]
        assert config.trainer.resume_from_path == f"{ROOT}/checkpoints/global_step_2"


@pytest.mark.parametrize("workload", WORKLOADS)
class TestOptions:
    def test_resume_is_by_path(self, workload: str) -> None:
        folder = "/private/users/ada/jobs/old/checkpoints/global_step_70"
        command = launch(spec(workload), resume_from=folder).command
        assert "trainer.resume_mode=resume_path" in command
        assert f"trainer.resume_from_path={folder}" in command
        assert f"trainer.default_local_dir={ROOT}/checkpoints" in command, "what is new goes into its own job root"

    def test_only_an_sft_run_that_resumes_needs_help_at_the_end_of_an_epoch(self, workload: str) -> None:
        resumed = launch(spec(workload), resume_from="/private/users/ada/jobs/old/checkpoints/global_step_70").env
        fresh = launch(spec(workload)).env
        modules = "VERL_USE_EXTERNAL_MODULES"
        assert {**resumed, modules: ""} == {**fresh, modules: ""}
        added = set(resumed.get(modules, "").split(",")) - set(fresh.get(modules, "").split(","))
        assert added == ({"argus_verl_resume"} if workload == "sft" else set())

    @pytest.mark.parametrize(("total", "made", "left"), [(70, 70, 0), (71, 70, 3), (None, 70, 3), (7, 70, 0)])
    def test_sft_with_all_its_steps_makes_none(self, workload: str, total: int | None, made: int, left: int) -> None:
        """It died after its last checkpoint. verl's sft would train one more step; ppo and grpo look first."""
        asked = spec(workload, total_epochs=3, total_training_steps=total)
        command = launch(asked, resume_from=f"{ROOT}/checkpoints/global_step_{made}").command
        assert f"trainer.total_epochs={left if workload == 'sft' else 3}" in command

    def test_fresh_runs_never_resume(self, workload: str) -> None:
        assert "trainer.resume_mode=disable" in launch(spec(workload)).command

    def test_total_training_steps_only_if_given(self, workload: str) -> None:
        key = "trainer.total_training_steps"
        assert not [word for word in launch(spec(workload)).command if word.startswith(key)]
        assert f"{key}=7" in launch(spec(workload, total_training_steps=7)).command

    @settings(max_examples=30, deadline=None)
    @given(nnodes=st.integers(1, 64), gpus=st.integers(1, 16), device=st.sampled_from(DEVICES))
    def test_batches_divide_among_any_number_of_gpus(self, workload: str, nnodes: int, gpus: int, device: str) -> None:
        task = spec(workload, device, nnodes=nnodes, n_gpus_per_node=gpus)
        given_ = dict(word.split("=", 1) for word in launch(task).command if "=" in word)
        batch = int(given_["data.train_batch_size"])
        if workload == "sft":
            assert batch % (nnodes * gpus) == 0
            return
        mini = int(given_["actor_rollout_ref.actor.ppo_mini_batch_size"])
        micro = int(given_["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"])
        assert batch % mini == 0
        assert mini % (micro * nnodes * gpus) == 0


def test_validation_before_training_only_if_there_is_any() -> None:
    assert "trainer.val_before_train=False" in launch(spec("grpo", test_freq=-1)).command
    assert "trainer.val_before_train=True" in launch(spec("grpo", test_freq=5)).command


#: All that paths.broken_rule lets through.
NAMES = st.text("ABCXYZabcxyz0189._+@=-", min_size=1, max_size=20)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: "/private/common/" + "/".join(parts))
HUB_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}(/[A-Za-z0-9][A-Za-z0-9._-]{0,20})?", fullmatch=True)
TASKS = st.builds(
    lambda code, model, train, val, workload, device: spec(workload, device).model_copy(
        update={"code_path": code, "model_id": model, "train_file": train, "val_file": val}
    ),
    *(PATHS, HUB_IDS | PATHS, PATHS, PATHS, st.sampled_from(WORKLOADS), st.sampled_from(DEVICES)),
)


@settings(deadline=None)
@given(TASKS)
def test_no_value_leaves_its_argument_in_the_shell(task: TaskSpec) -> None:
    made = launch(task)
    assert shlex.split(made.entrypoint)[-len(made.command) :] == list(made.command)


@settings(deadline=None, max_examples=30)
@given(TASKS)
def test_hydra_reads_every_value_as_it_was_given(task: TaskSpec) -> None:
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    overrides = [word for word in launch(task).command[4:] if "=" in word]
    read = {item.key_or_group: item.value() for item in parser.parse_overrides(overrides)}
    assert read["data.train_files"] == task.train_file
    assert read["data.val_files"] == task.val_file
    assert read["model.path" if task.workload == "sft" else "actor_rollout_ref.model.path"] == task.model_id
    assert read["trainer.experiment_name"] == SUBMISSION


@pytest.mark.parametrize("bad", ["it's", 'a"b', "a\\b", "${oc.env:HOME}", "a\nb", "\u00e9"])
def test_what_cannot_be_quoted_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a verl command line"):
        launch(spec().model_copy(update={"train_file": bad}))


@pytest.mark.parametrize("word", ["null", "true", "False", "nan", "inf", "7", "1e3", "a:b", "a,b", "a b", "[a]"])
def test_words_with_a_meaning_of_their_own_stay_text(word: str) -> None:
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    [override] = parser.parse_overrides([f"key={values.written(word)}"])
    value = override.value()
    assert value == word and isinstance(value, str)


def test_what_a_job_is_told_beside_its_command_follows_the_settings_of_the_moment() -> None:
    """Not of the command that is stored: an attempt that is submitted later has the newer setting."""
    assert verl.of_site(SITE) == {"ARGUS_UMASK": "022"}
    site = dataclasses.replace(SITE, reserve_bytes=5000, umask=0o077)
    assert verl.of_site(site) == {"ARGUS_RESERVE_BYTES": "5000", "ARGUS_UMASK": "077"}
    assert argus_folders.umask_of(verl.of_site(site)) == 0o077
    assert argus_reserve.Reserve.of_job("/", verl.of_site(site)).reserve == 5000
