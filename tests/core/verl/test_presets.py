"""Layers: which value wins, from where it comes, and which settings are refused before a task waits for its GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray import config
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command, layers
from argus_ray.core.verl.recipes import VerlSettings

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
#: That of the operators' manual.
EXAMPLE: dict[str, Any] = {
    "presets": {
        "long": {"data.max_response_length": 8192, f"{ROLLOUT}.tensor_model_parallel_size": 2},
        "lora": {"actor_rollout_ref.model.lora_rank": 32},
    },
    "rules": [
        {"match": {"workload": ["grpo", "ppo"], "model_id": "*8B*", "n_gpus_per_node": {"min": 8}}, "use": ["long"]},
        {
            "match": {"user": ["alice"], "train_file": "/private/common/datasets/hard/*"},
            "set": {f"{ACTOR}.optim.lr": 5.0e-7},
        },
    ],
    "selectable": ["long", "lora"],
}


def spec(workload: str = "grpo", **fields: Any) -> TaskSpec:
    common = "/private/common"
    values: dict[str, Any] = {
        "workload": workload,
        "code_path": f"{common}/code/verl",
        "model_id": "Qwen/Qwen3-8B",
        "train_file": f"{common}/datasets/gsm8k/train.parquet",
        "val_file": f"{common}/datasets/gsm8k/test.parquet",
        "nnodes": 2,
        "n_gpus_per_node": 8,
        "total_epochs": 1,
        "save_freq": 10,
        "test_freq": -1,
        "trainer_device": "cuda",
    }
    return TaskSpec.model_validate(values | fields, context={"shared_root": "/private"})


def recipes(**verl: Any) -> layers.Recipes:
    made = VerlSettings.model_validate(verl)
    assert made.broken("/private") == []
    return made.recipes()


def resolve(task: TaskSpec, *chosen: str, user: str = "bob", **verl: Any) -> dict[str, layers.Setting]:
    found = layers.resolve(task, user_id=user, recipes=recipes(**verl), chosen=chosen)
    assert len({each.key for each in found}) == len(found)
    return {each.key: each for each in found}


def refused(task: TaskSpec, *chosen: str, **verl: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        resolve(task, *chosen, **verl)
    return {each.field: each.rule for each in caught.value.fields}


def broken(**verl: Any) -> dict[str, str]:
    """What a deploy says."""
    with pytest.raises(config.ConfigError) as caught:
        config.load({"verl": verl}, {})
    lines = str(caught.value).splitlines()[1:]
    found = dict(line.strip().split(": ", 1) for line in lines)
    assert len(found) == len(lines)
    return found


class TestOrder:
    def test_without_recipes_all_are_defaults(self) -> None:
        assert {each.source for each in resolve(spec()).values()} == {"default"}

    def test_rules_come_over_defaults_and_presets_over_rules(self) -> None:
        key = "data.max_response_length"
        verl: Any = {"presets": {"a": {key: 3000}, "b": {key: 4000}}, "selectable": ["a", "b"]}
        rules = [{"set": {key: 1000}}, {"set": {key: 2000}}]
        assert resolve(spec())[key].value == 1024
        assert resolve(spec(), **verl, rules=rules)[key] == layers.Setting(key, 2000, "rule 2")
        assert resolve(spec(), "a", **verl, rules=rules)[key] == layers.Setting(key, 3000, "preset a")
        assert resolve(spec(), "b", "a", **verl)[key].value == 3000
        assert resolve(spec(), "a", "b", "a", **verl)[key].value == 4000

    def test_what_a_rule_sets_comes_over_what_it_uses(self) -> None:
        key = "data.max_response_length"
        found = resolve(spec(), presets={"a": {key: 1, f"{ROLLOUT}.n": 8}}, rules=[{"use": ["a"], "set": {key: 2}}])
        assert found[key] == layers.Setting(key, 2, "rule 1")
        assert found[f"{ROLLOUT}.n"] == layers.Setting(f"{ROLLOUT}.n", 8, "rule 1")

    def test_the_example(self) -> None:
        hard: Any = {"train_file": "/private/common/datasets/hard/x.parquet"}
        assert resolve(spec(), **EXAMPLE)["data.max_response_length"].source == "rule 1"
        assert resolve(spec(n_gpus_per_node=4), **EXAMPLE)["data.max_response_length"].source == "default"
        assert resolve(spec(model_id="Qwen/Qwen3-4B"), **EXAMPLE)["data.max_response_length"].source == "default"
        assert resolve(spec(**hard), user="alice", **EXAMPLE)[f"{ACTOR}.optim.lr"].value == 5e-7
        assert resolve(spec(**hard), user="bob", **EXAMPLE)[f"{ACTOR}.optim.lr"].source == "default"
        assert resolve(spec(), user="alice", **EXAMPLE)[f"{ACTOR}.optim.lr"].source == "default"
        assert resolve(spec(), "lora", **EXAMPLE)["actor_rollout_ref.model.lora_rank"].source == "preset lora"

    def test_a_rule_sets_only_what_the_trainer_has(self) -> None:
        rule = {"set": {f"{ACTOR}.optim.lr": 1e-7, "optim.lr": 1e-4, "data.truncation": "error"}}
        rl, sft = resolve(spec(), rules=[rule]), resolve(spec("sft"), rules=[rule])
        assert {key for key, each in rl.items() if each.source == "rule 1"} == {f"{ACTOR}.optim.lr", "data.truncation"}
        assert {key for key, each in sft.items() if each.source == "rule 1"} == {"optim.lr", "data.truncation"}

    def test_an_open_mapping_is_set_leaf_by_leaf(self) -> None:
        tree = {"actor_rollout_ref": {"model": {"override_config": {"attn_implementation": "eager", "rope": {"a": 1}}}}}
        found = resolve(spec(trainer_device="cpu"), rules=[{"set": tree}])
        part = "actor_rollout_ref.model.override_config"
        assert found[f"{part}.attn_implementation"].value == "eager"
        assert found[f"{part}.rope.a"] == layers.Setting(f"{part}.rope.a", 1, "rule 1")

    @pytest.mark.parametrize(
        ("match", "fields"),
        [
            ({"workload": ["ppo"]}, {"workload": "ppo"}),
            ({"trainer_device": ["cpu"]}, {"trainer_device": "cpu"}),
            ({"model_id": ["*/Qwen3-*"]}, {"model_id": "Qwen/Qwen3-8B"}),
            ({"train_file": ["*/math/*"]}, {"train_file": "/private/common/datasets/a/math/b/c.parquet"}),
            ({"val_file": ["*.jsonl"]}, {"val_file": "/private/common/datasets/a.jsonl"}),
            ({"code_path": ["*/fork"]}, {"code_path": "/private/common/code/fork"}),
            ({"nnodes": {"min": 3, "max": 3}}, {"nnodes": 3}),
            ({"n_gpus_per_node": {"max": 4}}, {"n_gpus_per_node": 4}),
        ],
    )
    def test_every_part_of_a_match(self, match: dict[str, Any], fields: dict[str, Any]) -> None:
        # None of them matches this one.
        other: dict[str, Any] = {
            "model_id": "llama",
            "train_file": "/private/common/x.parquet",
            "n_gpus_per_node": 8,
            "nnodes": 2,
        }
        rules = [{"match": match, "set": {"data.truncation": "middle"}}]
        assert resolve(spec(**(other | fields)), rules=rules)["data.truncation"].source == "rule 1"
        assert resolve(spec(**other), rules=rules)["data.truncation"].source == "default"


class TestChoice:
    def test_only_what_is_selectable(self) -> None:
        assert refused(spec(), "long", **(EXAMPLE | {"selectable": ["lora"]})) == {
            "preset": "'long' is not offered here; offered: lora"
        }
        assert refused(spec(), "nope") == {"preset": "'nope' is not offered here; offered: none"}

    def test_a_preset_that_sets_nothing_for_this_workload(self) -> None:
        assert refused(spec("sft"), "lora", **EXAMPLE) == {"preset": "lora sets nothing that a task of sft has"}


class TestArithmetic:
    @pytest.mark.parametrize(
        ("task", "key", "values", "rule"),
        [
            (spec(), "data.train_batch_size", {"data.train_batch_size": 100}, "must be whole mini batches"),
            (spec(), f"{ACTOR}.ppo_micro_batch_size_per_gpu", {f"{ACTOR}.ppo_micro_batch_size_per_gpu": 7}, "divide"),
            (spec(), f"{ACTOR}.ppo_mini_batch_size", {f"{ACTOR}.ppo_mini_batch_size": 4}, "multiple of 16"),
            (
                spec(),
                f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
                {f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 3},
                "must divide 80",
            ),
            (spec(), f"{ROLLOUT}.tensor_model_parallel_size", {f"{ROLLOUT}.tensor_model_parallel_size": 3}, "8 GPUs"),
            (spec(), f"{ROLLOUT}.tensor_model_parallel_size", {f"{ROLLOUT}.tensor_model_parallel_size": 32}, "2 x 8"),
            (
                spec(),
                f"{ROLLOUT}.tensor_model_parallel_size",
                {f"{ROLLOUT}.tensor_model_parallel_size": 4, f"{ROLLOUT}.data_parallel_size": 3},
                "with actor_rollout_ref.rollout.data_parallel_size 3 (rule 1)",
            ),
            (spec(), f"{ROLLOUT}.max_model_len", {f"{ROLLOUT}.max_model_len": 1000}, "at least 1536"),
            (
                spec(),
                f"{ACTOR}.ppo_max_token_len_per_gpu",
                {f"{ACTOR}.use_dynamic_bsz": True, f"{ACTOR}.ppo_max_token_len_per_gpu": 1024},
                "one sequence does not fit",
            ),
            (
                spec(),
                f"{ACTOR}.ulysses_sequence_parallel_size",
                {f"{ACTOR}.ulysses_sequence_parallel_size": 3},
                "divide the 16 GPUs",
            ),
            (
                spec("ppo"),
                "critic.ppo_micro_batch_size_per_gpu",
                {"critic.ppo_micro_batch_size_per_gpu": 3},
                "must divide 4",
            ),
            (spec("sft"), "data.train_batch_size", {"data.train_batch_size": 100}, "multiple of 16"),
            (spec("sft"), "data.max_token_len_per_gpu", {"data.max_length": 9000}, "data.max_length 9000 (rule 1)"),
            (
                spec("sft"),
                "data.micro_batch_size_per_gpu",
                {"data.use_dynamic_bsz": False, "data.micro_batch_size_per_gpu": 3},
                "must divide 16",
            ),
            (spec(trainer_device="cpu"), f"{ACTOR}.strategy", {f"{ACTOR}.strategy": "fsdp"}, "fsdp2 only"),
            (spec(), f"{ROLLOUT}.name", {f"{ROLLOUT}.name": "hf_cpu"}, "rollout of Argus for the CPU"),
        ],
    )
    def test_what_does_not_fit(self, task: TaskSpec, key: str, values: dict[str, Any], rule: str) -> None:
        found = refused(task, rules=[{"set": values}])
        assert f"verl.{key}" in found
        told = found[f"verl.{key}"]
        assert rule in told and ("(rule 1)" in told or "(default)" in told)

    def test_a_dynamic_batch_needs_no_whole_micro_batches(self) -> None:
        values = {f"{ACTOR}.use_dynamic_bsz": True, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 7}
        assert resolve(spec(), rules=[{"set": values}])[f"{ACTOR}.use_dynamic_bsz"].value is True

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(["ppo", "grpo", "sft"]),
        st.integers(1, 64),
        st.integers(1, 16),
        st.sampled_from(["cuda", "cpu"]),
    )
    def test_the_defaults_fit_every_gang(self, workload: str, nnodes: int, gpus: int, device: str) -> None:
        resolve(spec(workload, nnodes=nnodes, n_gpus_per_node=gpus, trainer_device=device))


class TestDeploy:
    def test_the_example_is_taken(self) -> None:
        assert config.load({"verl": EXAMPLE}, {}).verl.selectable == ("long", "lora")

    def test_all_errors_at_once_each_with_its_path(self) -> None:
        found = broken(
            presets={
                "long": {"data.max_respnse_length": 1, "data.max_prompt_length": "512"},
                "gang": {"trainer": {"nnodes": 2, "logger": ["console"]}, f"{ROLLOUT}.engine_kwargs.vllm.seed": 1},
                "odd": {"data.train_batch_size": 100, f"{ACTOR}.ppo_mini_batch_size": 64, f"{ACTOR}.optim.lr": "5e-7"},
            },
            rules=[{"use": ["lng"]}, {}, {"match": {"workload": ["sft"]}, "set": {f"{ACTOR}.optim.lr": 1}}],
            selectable=["gang", "none"],
        )
        assert found["verl.presets.long.data.max_respnse_length"] == (
            "is not a key of verl 0.9.1; did you mean data.max_response_length?"
        )
        assert found["verl.presets.long.data.max_prompt_length"] == "must be a whole number, not a text"
        assert "TaskSpec (nnodes)" in found["verl.presets.gang.trainer.nnodes"]
        assert "holds file" in found["verl.presets.gang.trainer.logger"]
        assert "whole mini batches" in found["verl.presets.odd.data.train_batch_size"]
        assert "write it with a point" in found[f"verl.presets.odd.{ACTOR}.optim.lr"]
        assert found["verl.rules.0.use"] == "lng is not one of verl.presets"
        assert found["verl.rules.1"] == "uses no preset and sets nothing"
        assert found["verl.rules.2"] == "sets nothing that a task of sft has"
        assert "sets actor_rollout_ref.rollout.engine_kwargs.vllm.seed, which only" in found["verl.selectable.0"]
        assert found["verl.selectable.1"] == "none is not one of verl.presets"
        assert len(found) == 11

    def test_code_is_for_rules_only_and_lies_under_common(self) -> None:
        mine = {"reward.custom_reward_function.path": "/private/common/rewards/mine.py"}
        recipes(presets={"mine": mine}, rules=[{"use": ["mine"]}])
        assert "which only rules may" in broken(presets={"mine": mine}, selectable=["mine"])["verl.selectable.0"]
        outside = {"reward.custom_reward_function.path": "/private/users/ada/x.py"}
        assert "under /private/common" in "".join(broken(presets={"mine": outside}).values())

    def test_other_errors_are_told_with_them(self) -> None:
        with pytest.raises(config.ConfigError) as caught:
            config.load({"cluster_name": "A b", "verl": {"presets": {"a": {"data.nope": 1}}}}, {})
        assert "cluster_name" in str(caught.value) and "verl.presets.a.data.nope" in str(caught.value)

    @pytest.mark.parametrize(
        "verl",
        [
            {"preset": {}},
            {"presets": {"Long": {}}},
            {"rules": [{"match": {"nnodes": {"min": 0}}}]},
            {"rules": [{"match": {"gpus": 1}}]},
            {"rules": [{"match": {"workload": ["dpo"]}}]},
        ],
    )
    def test_what_is_no_verl_section(self, verl: dict[str, Any]) -> None:
        assert broken(**verl)


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
SETTINGS = st.lists(st.builds(layers.Setting, st.text(), VALUES, st.text())).map(tuple)


@given(SETTINGS)
def test_what_is_stored_is_read_again(given_: tuple[layers.Setting, ...]) -> None:
    text = layers.encode(given_)
    assert layers.decode(text) == given_
    assert layers.encode(layers.decode(text)) == text


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[["a", 1]]', '[[1, 2, "x"]]', '[["a", 1, null]]'])
def test_what_is_no_stored_settings(text: str) -> None:
    with pytest.raises(ValueError):
        layers.decode(text)


def test_a_stored_key_that_is_reserved_today_stays_out() -> None:
    site = command.Site("/private", "/p", "python3", 20, 5 << 20)
    stored = (layers.Setting("trainer.nnodes", 64, "preset x"), layers.Setting("hydra.run.dir", "/x", "preset x"))
    made = command.launch(spec(), site, submission_id="a", job_root="/j", chosen=stored)
    assert [word for word in made.command if "nnodes=" in word or "hydra.run.dir" in word] == [
        "trainer.nnodes=2",
        "hydra.run.dir=/j/hydra",
    ]
