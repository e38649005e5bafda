"""submit, validate, template, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from argus_ray.cli import exits, spec_text, task_words, templates
from argus_ray.core.errors import ArgusError
from argus_ray.core.estimates import Unknown
from argus_ray.core.taskspec import TaskSpec, parse
from tests.cli.conftest import Person
from tests.cli.schema import check
from tests.support.gateway import Api


def stored(api: Api, person: Person, task_id: str) -> str:
    return api.client.get(f"/api/v2/tasks/{task_id}/spec", headers=person.headers).text


# submit


def test_a_submission_prints_the_id_alone(alice: Person) -> None:
    ran = alice("submit", alice.spec())
    (task_id,) = ran.lines
    assert ran.err == f"QUEUED; argus watch {task_id[-4:]}, argus explain {task_id[-4:]}\n"
    assert alice.api.task(task_id).user_id == alice.home.name
    assert alice("submit", alice.spec(), "-q").err == ""
    document = alice("submit", alice.spec(), "--json").json
    check(alice.api, "/tasks", document, "post", "201")


def test_from_stdin(alice: Person) -> None:
    (task_id,) = alice("submit", "-", stdin=alice.api.world.spec()).lines
    assert stored(alice.api, alice, task_id) == alice.api.world.spec()


def test_every_broken_rule_is_told_and_what_to_do(alice: Person) -> None:
    ran = alice("submit", alice.spec(nnodes=0, train_file="/etc/passwd"), code=exits.REFUSED)
    assert ran.out == ""
    first, *fields, last = ran.err.splitlines()
    assert first == "error: the TaskSpec is not valid (invalid_spec)"
    assert {line.split(":")[0].strip() for line in fields} == {"nnodes", "train_file"}
    assert "request " in last


def test_fields_are_set_and_the_comments_stay(alice: Person) -> None:
    path = Path(alice.spec())
    text = "# mine\n" + path.read_text().replace("nnodes: 1", "nnodes: 1   # machines") + "\n# the end\n"
    path.write_text(text)
    (task_id,) = alice("submit", str(path), "--set", "nnodes=2", "--set", "total_training_steps=7").lines
    assert stored(alice.api, alice, task_id) == text.replace("nnodes: 1 ", "nnodes: 2 ").rstrip("\n") + (
        "\ntotal_training_steps: 7\n"
    )
    assert path.read_text() == text


def test_the_same_key_makes_one_task(alice: Person) -> None:
    spec = alice.spec()
    assert alice("submit", spec, "--key", "k1").out == alice("submit", spec, "--key", "k1").out
    assert alice("submit", spec).out != alice("submit", spec).out
    ran = alice("submit", alice.spec(nnodes=2), "--key", "k1", code=exits.CONFLICT)
    assert "(idempotency_conflict)" in ran.err and "next: use another --key" in ran.err


def test_a_dry_run_submits_nothing(alice: Person) -> None:
    before = alice.api.get("/api/v2/queue", alice.headers)
    ran = alice("submit", alice.spec(), "--dry-run")
    assert ran.lines[0].split()[:2] == ["valid", "yes:"]
    check(alice.api, "/tasks:validate", alice("submit", alice.spec(), "--dry-run", "--json").json, "post")
    assert alice("submit", alice.spec(nnodes=0), "--dry-run", code=exits.REFUSED).err.startswith("error: ")
    assert alice.api.get("/api/v2/queue", alice.headers) == before


def test_a_preset_that_is_not_offered(alice: Person) -> None:
    ran = alice("submit", alice.spec(), "--preset", "huge", code=exits.REFUSED)
    assert "huge" in ran.err
    check(alice.api, "/presets", alice("presets", "--json").json)
    assert alice("presets").err == "no preset is offered\n"


def test_files_that_are_none(alice: Person, tmp_path: Path) -> None:
    assert "No such file" in alice("submit", str(tmp_path / "none.yaml"), code=exits.USAGE).err
    (tmp_path / "latin").write_bytes(b"workload: sft # \xe9\n")
    assert "must be UTF-8" in alice("submit", str(tmp_path / "latin"), code=exits.REFUSED).err
    (tmp_path / "long").write_bytes(b"#" * 70_000)
    assert "far longer than a TaskSpec" in alice("submit", str(tmp_path / "long"), code=exits.REFUSED).err
    for words in (("--set", "nnodes"), ("--set", "=1"), ("--set", "a-b=1")):
        assert "--set" in alice("submit", alice.spec(), *words, code=exits.USAGE).err
    assert alice("submit", alice.spec(), "--watch", "--wait", code=exits.USAGE).err
    assert alice("submit", alice.spec(), "--timeout", "2h", code=exits.USAGE).err


def test_an_input_in_doubt_is_a_warning(alice: Person) -> None:
    ran = alice("submit", alice.spec(model_id="nobody/has-this"))
    assert ran.err.startswith("warning: model_id: ")
    assert len(ran.lines) == 1


# validate


def test_a_validation(alice: Person) -> None:
    alice("submit", alice.spec())
    ran = alice("validate", alice.spec())
    assert [line.split()[0] for line in ran.lines] == ["valid", "gang", "fits", "start", "queue", "gpus"]
    check(alice.api, "/tasks:validate", alice("validate", alice.spec(), "--json").json, "post")
    assert alice("validate", alice.spec(), "--command").out.startswith("python3 ")
    bad = alice("validate", alice.spec(nnodes=0), code=exits.REFUSED)
    assert "nnodes: " in bad.err and bad.lines[0].split()[:2] == ["valid", "no:"]
    assert alice("validate", alice.spec(nnodes=0), "--json", code=exits.REFUSED).json["valid"] is False


def test_a_validation_tells_when_it_may_start_if_it_cannot_now(alice: Person) -> None:
    spec = alice.spec(n_gpus_per_node=64)
    for words in (("validate", spec), ("submit", spec, "--dry-run")):
        [start] = [line for line in alice(*words).lines if line.startswith("start")]
        assert start.split(maxsplit=1)[1] == "cannot be told: it does not fit into the pool"


@pytest.mark.parametrize("why", list(Unknown))
def test_each_reason_without_a_range_has_words(why: Unknown) -> None:
    said = task_words.start_sentence({"unknown": why.value}, now=0.0)
    assert said is not None and said.startswith("cannot be told: ") and said != f"cannot be told: {why.value}"


def test_a_validation_without_a_server(nobody: Person, alice: Person) -> None:
    assert nobody("validate", alice.spec(), "--offline").err.startswith("the fields are valid")
    ran = nobody("validate", alice.spec(nnodes=0, workload="dpo"), "--offline", code=exits.REFUSED)
    assert [line.split(":")[0].strip() for line in ran.err.splitlines()[1:-1]] == ["workload", "nnodes"]


def test_the_copy_of_the_rules_has_the_fields_of_the_model() -> None:
    assert list(spec_text.RULES) == list(TaskSpec.model_fields)
    for name, rule in spec_text.RULES.items():
        assert rule.required == TaskSpec.model_fields[name].is_required(), name
    for name, described in TaskSpec.model_json_schema()["properties"].items():
        rule, kinds = spec_text.RULES[name], described.get("anyOf", [described])
        assert list(rule.choices) == list(described.get("enum", [])), name
        assert rule.is_number == any(kind.get("type") == "integer" for kind in kinds), name
        for kind in kinds:
            assert kind.get("maximum", rule.most) == rule.most, name
            least = -1 if rule.or_never else rule.least
            assert kind.get("minimum", least) == least, name


CHANGES: list[dict[str, Any]] = [
    {},
    {"nnodes": 1024},
    {"nnodes": 1025},
    {"nnodes": "2"},
    {"nnodes": -1},
    {"save_freq": -1},
    {"save_freq": 0},
    {"save_freq": -2},
    {"n_gpus_per_node": 65},
    {"total_training_steps": 0},
    {"total_training_steps": 10**9},
    {"workload": "dpo"},
    {"trainer_device": "tpu"},
    {"trainer_device": "cpu"},
    {"model_id": "a/b/c"},
    {"model_id": "a..b"},
    {"model_id": 7},
    {"code_path": "relative/path"},
    {"code_path": "/private/common/../x"},
    {"code_path": "/private/common/x y"},
    {"val_file": "/private/common/-x"},
    {"val_file": None},
    {"unknown": 1},
    {"submission_id": "old"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_is_refused_offline_is_refused_by_the_service_for_the_same_fields(change: dict[str, Any]) -> None:
    fields = yaml.safe_load(templates.text_of("sft", "/private")) | change
    text = yaml.safe_dump({name: value for name, value in fields.items() if value is not None})
    try:
        parse(text, shared_root="/private")
        by_service: set[str] = set()
    except ArgusError as error:
        by_service = {each.field for each in error.fields}
    assert {name for name, _ in spec_text.broken_rules(text)} == by_service


def test_a_text_that_cannot_be_checked_offline_is_told() -> None:
    for text in ("a: |\n  b\n", "a: [1]\n", "- a\n", "a: *b\n", '{"a": 1', "a: 1\na: 2\n"):
        ((name, _),) = spec_text.broken_rules(text)
        assert name == "(document)", text


# --set


@pytest.mark.parametrize(
    ("line", "value", "changed"),
    [
        ("nnodes: 1", "2", "nnodes: 2"),
        ("nnodes: 1  # one", "2", "nnodes: 2  # one"),
        ("nnodes:   1", "2", "nnodes: 2"),
        ("nnodes:", "2", "nnodes: 2"),
        ("nnodes: # none yet", "2", "nnodes: 2 # none yet"),
        ('nnodes: "a # b"  # c', "x y", 'nnodes: "x y"  # c'),
        ("nnodes: 'it''s' # c", '"2"', 'nnodes: "2" # c'),
        ("nnodes: a#b", "yes", 'nnodes: "yes"'),
        ("nnodes: 1", "Qwen/Qwen2.5-0.5B", "nnodes: Qwen/Qwen2.5-0.5B"),
        ("nnodes: 1", "", "nnodes:"),
        ("nnodes: 1", "日本 𔐀", 'nnodes: "日本 𔐀"'),
        ("nnodes: 1", "010", 'nnodes: "010"'),
    ],
)
def test_one_field_changes_and_no_other_byte(line: str, value: str, changed: str) -> None:
    for end in ("\n", "\r\n"):
        text = end.join(["# a", "workload: sft", line, "", "val_file: x # y", ""])
        assert spec_text.with_fields(text, [("nnodes", value)]) == text.replace(line, changed)


@pytest.mark.parametrize("text", ["nnodes: |\n  1\n", "nnodes:\n  1\n", "nnodes: [1,\n 2]\n", "nnodes: &a 1\n"])
def test_what_is_not_on_one_line_is_left_alone(text: str) -> None:
    with pytest.raises(exits.CliError, match="not on one line"):
        spec_text.with_fields(text, [("nnodes", "2")])


def test_json_stays_json() -> None:
    text = spec_text.with_fields('{"nnodes": 1, "a": "b"}', [("nnodes", "2"), ("a", ""), ("c", '"3"')])
    assert json.loads(text) == {"nnodes": 2, "c": "3"}


# template


@pytest.mark.parametrize("workload", ["sft", "grpo", "ppo"])
def test_a_template_is_valid_and_explains_itself(nobody: Person, alice: Person, workload: str) -> None:
    text = nobody("template", workload).out
    assert parse(text, shared_root="/private").workload == workload
    assert spec_text.broken_rules(text) == []
    assert sum(line.startswith("#") for line in text.splitlines()) >= 8
    out = alice.home / "task.yaml"
    alice("template", workload, "-o", str(out), "--root", alice.api.world.shared_root)
    common = f"{alice.api.world.shared_root}/common"
    found = alice(
        *("submit", str(out), "--set", f"code_path={common}/code/verl/verl_repo"),
        *("--set", f"train_file={common}/datasets/gsm8k/train.parquet"),
        *("--set", f"val_file={common}/datasets/gsm8k/test.parquet"),
    )
    assert f"-{workload}-" in found.out


def test_a_template_never_writes_over_a_file(nobody: Person) -> None:
    out = nobody.home / "task.yaml"
    out.write_text("mine")
    assert "is there already" in nobody("template", "sft", "-o", str(out), code=exits.USAGE).err
    assert out.read_text() == "mine"
