"""The list of verl's keys is that of the installed verl; and what is said of a key or a value that is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.verl import keys

ROOT = Path(__file__).resolve().parents[3]
#: What public recipes of verl change in most runs, with values of theirs.
USUAL: dict[str, Any] = {
    "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.fsdp_config.param_offload": True,
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 10,
    "actor_rollout_ref.actor.policy_loss.loss_mode": "gspo",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 24000,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 4,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.model.lora_rank": 32,
    "actor_rollout_ref.model.target_modules": ["q_proj", "v_proj"],
    "actor_rollout_ref.ref.fsdp_config.param_offload": True,
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu": 24000,
    "actor_rollout_ref.rollout.enforce_eager": False,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.8,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 16384,
    "actor_rollout_ref.rollout.n": 16,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 4,
    "actor_rollout_ref.rollout.temperature": 1,
    "actor_rollout_ref.rollout.top_p": 0.7,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0.6,
    "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    "algorithm.filter_groups.enable": True,
    "algorithm.kl_ctrl.kl_coef": 0.001,
    "algorithm.rollout_correction.rollout_is": "token",
    "algorithm.use_kl_in_reward": False,
    "data.filter_overlong_prompts": True,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 8192,
    "data.train_batch_size": 1024,
    "critic.optim.lr": 1e-5,
    "data.max_length": 4096,
    "engine.ulysses_sequence_parallel_size": 2,
    "optim.lr": 1e-5,
    "optim.weight_decay": 0.01,
    "reward.reward_kwargs": {"overlong_buffer_cfg": {"enable": True, "len": 4096, "penalty_factor": 1.0}},
    "trainer.critic_warmup": 0,
    "trainer.max_actor_ckpt_to_keep": 5,
    "trainer.val_before_train": False,
}


def test_the_list_is_that_of_the_installed_verl() -> None:
    pytest.importorskip("hydra")
    installed = importlib.util.find_spec("verl")
    if installed is None or not installed.origin or "standin" in installed.origin:
        pytest.skip("verl is not installed")
    assert importlib.metadata.version("verl") == keys.VERSION
    command = [sys.executable, str(ROOT / "scripts" / "make_verl_keys.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")


def test_usual_settings_are_taken() -> None:
    found, broken = keys.leaves(USUAL, "x")
    assert broken == []
    assert found.keys() - USUAL.keys() == {
        f"reward.reward_kwargs.overlong_buffer_cfg.{name}" for name in ("enable", "len", "penalty_factor")
    }


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("data.max_respnse_length", "data.max_response_length"),
        ("max_response_length", "data.max_response_length"),
        ("actor_rollout_ref.rollout.lr", "actor_rollout_ref.actor.optim.lr"),
        ("actor_rolout_ref.rollout.n", "actor_rollout_ref.rollout.n"),
        ("trainer.max_ckpt_to_kep", "trainer.max_ckpt_to_keep"),
        ("algorithm.kl_ctrl.coef", "algorithm.kl_ctrl.kl_coef"),
    ],
)
def test_the_nearest_key_is_named(key: str, near: str) -> None:
    [broken] = keys.leaves({key: 1}, "verl.presets.a")[1]
    assert (broken.field, broken.rule) == (
        f"verl.presets.a.{key}",
        f"is not a key of verl 0.9.1; did you mean {near}?",
    )


def test_a_reserved_key_is_never_the_nearest() -> None:
    assert "did you mean trainer.nnodes" not in keys.leaves({"trainer.nnode": 2}, "x")[1][0].rule


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("data.train_batch_size", "64", "must be a whole number, not a text"),
        ("data.train_batch_size", 64.0, "must be a whole number, not a number"),
        ("data.train_batch_size", True, "must be a whole number, not true or false"),
        ("data.train_batch_size", None, "must be a whole number, not null"),
        ("data.train_batch_size", [64], "must be a whole number, not a list"),
        ("actor_rollout_ref.actor.optim.lr", "5e-7", "a number, not a text; YAML takes 5e-7 for a text: write it with"),
        ("actor_rollout_ref.actor.optim.lr", False, "must be a number, not true or false"),
        ("actor_rollout_ref.actor.use_kl_loss", "true", "must be true or false, not a text"),
        ("actor_rollout_ref.actor.optim.betas", 0.9, "must be a list, not a number"),
        ("actor_rollout_ref.actor.optim.lr", float("inf"), "must be a finite number"),
        ("actor_rollout_ref.actor", {}, "is a group of keys, which are set one by one"),
        ("actor_rollout_ref.actor", 1, "is a group of keys, which are set one by one"),
        ("data.seed.x", 1, "lies in data.seed, a single value"),
        ("engine.mixed_precision.param_dtype", "fp32", "lies in engine.mixed_precision, which is set as a whole"),
        ("model.override_config", None, "must be a mapping, not null"),
        ("model.override_config", {}, "is an empty mapping, which sets nothing"),
        ("engine.mixed_precision", {"_target_": "os.system"}, "must have keys of letters, digits and '_'"),
        ("engine.mixed_precision", {"null": 1}, "must have keys of letters, digits and '_' that are no words"),
        ("engine.mixed_precision", {"a": {"True": 1}}, "must have keys of letters, digits and '_' that are no words"),
        ("data.truncation", "???", "means to verl that the value is missing"),
        ("model.override_config.a", ["???"], "means to verl that the value is missing"),
        ("data.truncation", "x" * 4097, "at most 4096 characters"),
        ("model.override_config", {"_target_": "os.system"}, "is not a plain key"),
        ("data.seed", {1: 2}, "is not a plain key"),
    ],
)
def test_a_value_of_another_kind(key: str, value: Any, rule: str) -> None:
    found, broken = keys.leaves({key: value}, "x")
    assert found == {} and len(broken) == 1
    assert rule in broken[0].rule


def test_one_key_in_two_spellings() -> None:
    found, [broken] = keys.leaves({"data": {"seed": 1}, "data.seed": 2}, "x")
    assert found == {"data.seed": 1} and (broken.field, broken.rule) == ("x.data.seed", "is set twice here")
