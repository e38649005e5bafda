"""No layer reaches what is reserved, in no spelling of Hydra's grammar: verl's own configuration is composed with the
arguments, and its values are looked at, not the text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command, keys, layers, reserved
from argus_ray.core.verl.recipes import VerlSettings
from tests.core.verl.test_presets import spec

SITE = command.Site("/private", "/private/ray/payload/abc", "python3", 20, 5 << 20)


def words(text: str) -> list[str]:
    return text.split()


RESERVED = words("""
    data.train_files data.val_files data.prompt_key data.messages_key model.path actor_rollout_ref.model.path
    critic.model.path trainer.nnodes trainer.n_gpus_per_node trainer.device trainer.total_epochs
    trainer.total_training_steps trainer.save_freq trainer.test_freq algorithm.adv_estimator critic.enable
    actor_rollout_ref.rollout.nnodes actor_rollout_ref.rollout.n_gpus_per_node reward.reward_model.nnodes
    reward.reward_model.enable_resource_pool reward.reward_model.n_gpus_per_node reward_model.enable_resource_pool
    reward_model.nnodes reward_model.model.path distillation.enabled distillation.nnodes distillation.n_gpus_per_node
    trainer.project_name trainer.experiment_name trainer.default_local_dir trainer.default_hdfs_dir
    trainer.resume_mode trainer.resume_from_path trainer.rollout_data_dir trainer.validation_data_dir
    trainer.checkpoint_callback_class trainer.del_local_ckpt_after_load trainer.use_v1 trainer.v1.trainer_mode
    trainer.v1.sampler.custom_sampler.path trainer.val_only actor_rollout_ref.actor.checkpoint.async_save
    critic.checkpoint.async_save checkpoint.async_save actor_rollout_ref.actor.checkpoint.load_contents
    hydra.run.dir hydra.output_subdir hydra.searchpath hydra.job.chdir hydra.launcher ray_kwargs.ray_init.num_cpus
    ray_kwargs.ray_init.address ray_kwargs.ray_init.runtime_env.py_executable transfer_queue.enable
    transfer_queue.backend.storage_backend transfer_queue.backend.SimpleStorage.required_node_resource
    skip.rollout.enable skip.rollout.dump_dir global_profiler.save_path global_profiler.tool
    global_profiler.finish_hook_cmd profiler.save_path actor_rollout_ref.actor.profiler.finish_hook_cmd
    actor_rollout_ref.rollout.prometheus.port actor_rollout_ref.rollout.prometheus.enable model_engine defaults
    custom_reward_function.path sandbox_fusion.url data.use_shm actor_rollout_ref.model.use_shm
    actor_rollout_ref.actor.optim.total_training_steps actor_rollout_ref.actor.ppo_micro_batch_size
    actor_rollout_ref.hybrid_engine
""")
RULES_ONLY = words("""
    actor_rollout_ref.model.trust_remote_code data.trust_remote_code actor_rollout_ref.model.external_lib
    data.custom_cls.path data.custom_cls.name reward.custom_reward_function.path reward.custom_reward_function.name
    reward.custom_reward_function.reward_kwargs.a reward.reward_manager.name reward.reward_manager.source
    reward.reward_manager.module.path actor_rollout_ref.rollout.agent.agent_loop_config_path
    actor_rollout_ref.rollout.agent.agent_loop_manager_class actor_rollout_ref.rollout.agent.custom_async_server.path
    actor_rollout_ref.rollout.multi_turn.tool_config_path actor_rollout_ref.rollout.multi_turn.function_tool_path
    data.tool_config_path data.function_tool_path actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module
    actor_rollout_ref.rollout.checkpoint_manager_class reward.sandbox_fusion.url actor_rollout_ref.model.tokenizer_path
    data.tokenizer actor_rollout_ref.model.hf_config_path actor_rollout_ref.model.lora_adapter_path
    actor_rollout_ref.model.lora.adapter_path actor_rollout_ref.rollout.quantization_config_file
    actor_rollout_ref.rollout.router_config_path actor_rollout_ref.rollout.engine_kwargs.vllm.seed
    actor_rollout_ref.actor.optim.optimizer_impl actor_rollout_ref.actor.optim.override_optimizer_config
    reward.reward_model.enable reward.reward_model.model_path model.trust_remote_code model.external_lib
""")


def spellings(key: str, value: Any) -> Iterator[dict[str, Any]]:
    """Of Hydra's grammar, of OmegaConf's, and of YAML."""
    head, _, last = key.rpartition(".")
    names = key.split(".")
    for sign in ("", "+", "++", "~", " ", "\t", "+ ", "'", '"', "/", "@", ".", "$", "\\"):
        yield {f"{sign}{key}": value}
        yield {f"{key}{sign}": value} if sign else {key: value}
    for text in (
        *(key.replace(".", "/"), key.replace(".", "@"), f"{head}[{last}]", f"{key}[0]", f"{key}@_global_", key.upper()),
        *(f"{key}={value}", f"{head}.{last}=1,x", f"${{{key}}}", f"data.seed=1 {key}", f"{key}._target_", f"_{key}"),
        *(f"x={value}\n{key}", f"{head}._global_.{last}", f"hydra.{key}", f"{key}:x", key.replace(".", "..")),
    ):
        yield {text: value}
    nested: Any = value
    for name in reversed(names):
        nested = {name: nested}
    yield nested
    for count in range(1, len(names)):
        inner: Any = value
        for name in reversed(names[count:]):
            inner = {name: inner}
        outer = ".".join(names[:count])
        yield {outer: inner}
        yield {f"++{outer}": inner}
        yield {outer: {".".join(names[count:]): value}}
        yield {outer: f"{{{'.'.join(names[count:])}:{value}}}"}
        yield {outer: [inner]}
        yield {outer: None}


def taken(tree: dict[str, Any]) -> bool:
    return VerlSettings.model_validate({"presets": {"a": tree}, "selectable": ["a"]}).broken("/private") == []


def test_what_is_not_reserved_is_taken() -> None:
    for tree in ({"data.seed": 3}, {"data": {"seed": None}}, {"trainer": {"logger": ["file"], "critic_warmup": 2}}):
        assert taken(tree), tree


@pytest.mark.parametrize("key", RESERVED)
def test_a_reserved_key_is_refused_in_every_spelling(key: str) -> None:
    for value in (None, 3, {"x": 1}):
        for tree in spellings(key, value):
            assert not taken(tree), tree


@pytest.mark.parametrize("key", RULES_ONLY)
def test_code_and_files_are_never_selectable_in_any_spelling(key: str) -> None:
    assert keys.find(key) is not None and reserved.rules_only(key)
    for value in (None, True, "/private/common/x"):
        for tree in spellings(key, value):
            assert not taken(tree), tree


def test_what_is_reserved_says_so() -> None:
    assert [key for key in RESERVED if reserved.never(key) is None] == []


def config_folder() -> str:
    pytest.importorskip("hydra")
    installed = importlib.util.find_spec("verl")
    if installed is None or not installed.origin or "standin" in installed.origin:
        pytest.skip("verl is not installed")
    return str(Path(installed.origin).parent / "trainer" / "config")


def compose(workload: str, overrides: list[str]) -> dict[str, Any]:
    """The leaves of verl's configuration, and Hydra's own as verl's program would see it."""
    import hydra
    from omegaconf import OmegaConf

    name = "sft_trainer_engine" if workload == "sft" else "ppo_trainer"
    with hydra.initialize_config_dir(config_folder(), version_base=None):
        made = hydra.compose(name, overrides, return_hydra_config=True)
    return dict(flat(OmegaConf.to_container(made, resolve=False)))


def flat(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from flat(value, f"{above}{name}.")
    else:
        yield above[:-1], tree


def overrides(task: TaskSpec, chosen: tuple[layers.Setting, ...] | None) -> list[str]:
    made = command.launch(task, SITE, submission_id="s--a01", job_root="/private/users/a/jobs/s--a01", chosen=chosen)
    words = list(made.command)
    return words[words.index("--") + 1 :] if "--" in words else words[4:]


@cache
def plain(workload: str) -> dict[str, Any]:
    return compose(workload, overrides(spec(workload), None))


def check(workload: str, tree: dict[str, Any]) -> None:
    """What differs from a run without settings are the leaves of this layer, with exactly these values."""
    verl = VerlSettings.model_validate({"rules": [{"set": tree}]})
    assert verl.broken("/private") == []
    layer = {key: value for key, value in keys.leaves(tree, "")[0].items() if keys.is_of(key, workload)}
    chosen = layers.resolve(spec(workload), user_id="a", recipes=verl.recipes(), chosen=())
    made, before = compose(workload, overrides(spec(workload), chosen)), plain(workload)
    expected = dict(flat_layer(layer))
    changed = {key for key in made.keys() | before.keys() if made.get(key) != before.get(key)}
    # Hydra's own record of the arguments.
    changed = {key for key in changed if not key.startswith("hydra.overrides.") and key != "hydra.job.override_dirname"}
    assert {key for key in changed if key not in expected and not emptied(key, expected)} == set()
    for key, value in expected.items():
        assert made[key] == value and type(made[key]) is type(value), key


def emptied(key: str, expected: dict[str, Any]) -> bool:
    """An empty mapping of verl's that now holds something."""
    return any(each.startswith(f"{key}.") for each in expected)


def flat_layer(layer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in layer.items():
        yield from flat(value, f"{key}.")


#: Texts that mean something to Hydra, OmegaConf, YAML or a shell.
TEXTS = st.sampled_from(
    [
        *("null", "true", "1", "1e3", "0x10", "nan", "inf", "-inf", "", " ", "a b", " a", "a,b", "[a]", "{a:1}", "a=b"),
        *("trainer.nnodes=9", "x trainer.nnodes=9", "a,trainer.nnodes=9", "choice(1,2)", "glob(*)", "range(1,3)"),
        *("extend_list(1)", "sort(1)", "~trainer", "++trainer.nnodes=9", "@", "a:b", "a@b", "#x", "---", "???", "*"),
        *("%(x)s", "{a}", "(", ")", "[", "]", "{", "}", ";", "|", "&&", "!x", "`x`", "^", "?", "a/b", "./a", "~/a"),
        *("_target_", "shuffle(1)", "int(3)", "str(3)", "json_str(3)", "tag(a,1)", "interval(0,1)", "True", "None"),
    ]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'\"\\$"), max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS: Any = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS | FLOATS
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}", fullmatch=True)
WHOLE = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3), min_size=1, max_size=3)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "data.custom_cls.name": st.just("A"),
        "data.truncation": TEXTS,
        "data.apply_chat_template_kwargs": WHOLE,
        "actor_rollout_ref.model.override_config": WHOLE,
        "actor_rollout_ref.model.custom_chat_template": TEXTS,
        "actor_rollout_ref.model.target_modules": TEXTS | st.lists(TEXTS, max_size=3),
        "actor_rollout_ref.actor.fsdp_config.mixed_precision": WHOLE,
        "actor_rollout_ref.actor.optim.betas": st.lists(st.floats(0, 1), min_size=2, max_size=2),
        "actor_rollout_ref.actor.optim.lr": st.floats(0, 1) | st.integers(0, 3),
        "actor_rollout_ref.rollout.engine_kwargs.vllm": WHOLE,
        "model.custom_chat_template": TEXTS,
        "optim.lr_scheduler_type": TEXTS,
        "trainer.logger": st.just(["file", "wandb"]),
    },
).filter(bool)


@pytest.mark.parametrize("workload", ["grpo", "sft"])
def test_values_are_read_as_they_were_given_and_change_nothing_else(workload: str) -> None:
    config_folder()

    @settings(max_examples=25, deadline=None)
    @given(TREES)
    def holds(tree: dict[str, Any]) -> None:
        check(workload, tree)

    holds()


#: Keys that are made of the parts of real ones, with what Hydra's grammar has around them.
PIECES = st.sampled_from(
    [
        *("trainer", "nnodes", "data", "train_files", "hydra", "run", "dir", "model", "path", "override_config"),
        *(".", ".", ".", "+", "++", "~", "@", "/", "[0]", "=", ":", "${", "}", " ", ",", "_target_", "_global_"),
        *("actor_rollout_ref", "actor", "rollout", "truncation", "logger", "seed"),
    ]
)
KEYS = st.lists(PIECES, min_size=1, max_size=7).map("".join) | st.sampled_from(sorted(keys.known()))


@settings(max_examples=400, deadline=None)
@given(st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=2), max_leaves=4), KEYS)
def test_what_is_taken_has_plain_keys_that_are_not_reserved(value: Any, key: str) -> None:
    found, _ = keys.leaves({key: value}, "x")
    for each in found:
        assert all(part.isidentifier() and not part.startswith("_") for part in each.split("."))
        assert reserved.never(each) is None and keys.find(each) is not None


@pytest.mark.parametrize(
    "value",
    ["${trainer.nnodes}", "a${oc.env:HOME}", "it's", 'a"b', "a\\", "a\nb", "\u00e9", ["${x}"], {"a": "${x}"}],
)
def test_interpolation_and_escapes_are_refused(value: Any) -> None:
    key = "actor_rollout_ref.model.override_config.a" if isinstance(value, dict) else "data.truncation"
    _, broken = keys.leaves({key: value}, "x")
    assert len(broken) == 1 and ("ASCII" in broken[0].rule or "must be a text" in broken[0].rule)
