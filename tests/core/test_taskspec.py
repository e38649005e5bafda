from __future__ import annotations

import time
from typing import Any

import pytest

from argus_ray.core.errors import BodyTooLarge, InvalidSpec
from argus_ray.core.taskspec import MAX_SPEC_BYTES, TaskSpec, parse
from tests.support.builders import spec_yaml

ROOT = "/private"


def read(text: str | bytes) -> TaskSpec:
    return parse(text, shared_root=ROOT, resolve=lambda path: path)


def rules(text: str | bytes) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        read(text)
    return {error.field: error.rule for error in caught.value.fields}


def test_the_documented_example() -> None:
    spec = read("""
workload: ppo            # ppo | grpo | sft
code_path: /private/common/code/verl/verl_repo      # put on PYTHONPATH
model_id: Qwen/Qwen2.5-0.5B-Instruct
train_file: /private/common/datasets/gsm8k/train.parquet
val_file: /private/common/datasets/gsm8k/test.parquet
nnodes: 2
n_gpus_per_node: 4
total_epochs: 1
total_training_steps: 10     # optional
save_freq: 10
test_freq: -1
trainer_device: cuda         # optional; cpu runs on machines without a GPU
submission_id: ""            # accepted for old clients, ignored
""")
    assert (spec.workload, spec.nnodes, spec.n_gpus_per_node, spec.total_training_steps) == ("ppo", 2, 4, 10)
    assert "submission_id" not in spec.model_dump()


def test_defaults() -> None:
    spec = read(spec_yaml(ROOT))
    assert (spec.total_training_steps, spec.trainer_device) == (None, "cuda")


def test_a_model_is_a_hub_id_or_a_common_path() -> None:
    assert read(spec_yaml(ROOT, model_id="gpt2")).model_id == "gpt2"
    assert read(spec_yaml(ROOT, model_id="/private/common/models/m/")).model_id == "/private/common/models/m"
    for bad in ("a/b/c", "../x", "a..b", "a b", "-a", "/etc", "a/-b", "a\n", "https://x/y", ""):
        assert set(rules(spec_yaml(ROOT, model_id=bad))) == {"model_id"}, bad


REQUIRED = [
    "workload", "code_path", "model_id", "train_file", "val_file", "nnodes", "n_gpus_per_node",
    "total_epochs", "save_freq", "test_freq",
]  # fmt: skip


@pytest.mark.parametrize("field", REQUIRED)
def test_required_fields(field: str) -> None:
    assert rules(spec_yaml(ROOT, **{field: None})) == {field: "is required"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output_dir", "/private/users/bob"),
        ("reward_function", "x.py"),
        ("env", {"A": "b"}),
        ("user_id", "bob"),
        ("Workload", "sft"),
        ("__class__", "x"),
    ],
)
def test_a_field_that_is_not_documented_is_refused(field: str, value: Any) -> None:
    assert rules(spec_yaml(ROOT, **{field: value})) == {field: "is not a known field"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workload", "dpo"),
        ("workload", "PPO"),
        ("workload", ["ppo"]),
        ("nnodes", 0),
        ("nnodes", -1),
        ("nnodes", "2"),
        ("nnodes", 1.0),
        ("nnodes", True),
        ("nnodes", 10**30),
        ("n_gpus_per_node", 0),
        ("n_gpus_per_node", 65),
        ("total_epochs", 0),
        ("total_training_steps", 0),
        ("save_freq", 0),
        ("save_freq", -2),
        ("test_freq", "never"),
        ("trainer_device", "tpu"),
        ("code_path", 7),
        ("code_path", {"a": "b"}),
        ("submission_id", "x" * 257),
    ],
)
def test_values_that_break_a_rule(field: str, value: Any) -> None:
    assert set(rules(spec_yaml(ROOT, **{field: value}))) == {field}


def test_all_broken_rules_at_once() -> None:
    found = rules(spec_yaml(ROOT, nnodes=0, workload="x", val_file="/etc/passwd", color="red", save_freq=None))
    assert set(found) == {"nnodes", "workload", "val_file", "color", "save_freq"}
    assert "under /private/common/" in found["val_file"]


def test_what_was_sent_is_not_repeated() -> None:
    with pytest.raises(InvalidSpec) as caught:
        read(spec_yaml(ROOT, workload="secret-value", train_file="/secret-value"))
    assert "secret-value" not in repr(caught.value.fields) + str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping"),
        ("- a\n- b\n", "mapping"),
        ("just text", "mapping"),
        ("nnodes: 1\nnnodes: 2\n", "twice"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("a: &x [1]\n", "anchors"),
        ("<<: {a: 1}\n", "keys"),
        ("1: a\n", "keys"),
        ("[a, b]: c\n", "keys"),
        ("a: !!python/object/apply:os.system [id]\n", "tag"),
        ("a: [\n", "YAML"),
        ("a: \x00\n", "YAML"),
        ("a: 1\n---\na: 2\n", "YAML"),
        (b"\xff\xfe\xff", "UTF-8"),
        ("{" * 30_000, "far more|nested"),
        ("- " * 30_000, "nested"),
    ],
)
def test_what_is_no_flat_mapping(text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        read(text)


def test_an_alias_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    start = time.perf_counter()
    with pytest.raises(InvalidSpec, match="anchors"):
        read("\n".join(lines))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "{" * 65_000,
        "a: [" + "x," * 32_000 + "]",
        "a: [" + "[[[[]]]]," * 7_000 + "]",
        "".join(f"a{i}: b\n" for i in range(7_000)),
    ],
    ids=["braces", "list", "lists", "keys"],
)
def test_a_large_body_that_is_no_taskspec_costs_little(text: str) -> None:
    """The parser runs in the one process that serves everybody."""
    start = time.process_time()
    with pytest.raises(InvalidSpec):
        read(text)
    assert time.process_time() - start < 1


def test_size_is_counted_in_bytes() -> None:
    text = spec_yaml(ROOT)
    padding = MAX_SPEC_BYTES - len(text) - 2
    read(text + "#" + "x" * padding + "\n")
    with pytest.raises(BodyTooLarge):
        read(text + "#" + "x" * (padding + 1) + "\n")
    with pytest.raises(BodyTooLarge):
        read(text + "#" + "é" * (padding // 2 + 1) + "\n")
