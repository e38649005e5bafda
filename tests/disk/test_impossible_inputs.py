"""Paths that no machine can open: an error that names field and rule, not a warning and not "does not exist"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import taskspec
from argus_ray.core.errors import InvalidSpec
from argus_ray.disk import inputs
from argus_ray.disk.inputs import Findings
from tests.support.builders import MODEL_FILES, make_inputs, spec_yaml

FIELDS = ("code_path", "model_id", "train_file", "val_file")
CIRCLE = "leads in a circle of symbolic links"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_inputs(tmp_path)
    return tmp_path


def look(root: Path, **fields: Any) -> Findings:
    spec = taskspec.parse(spec_yaml(root, **fields), shared_root=str(root))
    return inputs.inspect_surely(spec, str(root))


def link_to_itself(common: Path) -> str:
    (common / "loop").symlink_to("loop")
    return f"{common}/loop"


def two_links_to_each_other(common: Path) -> str:
    (common / "there").symlink_to("back")
    (common / "back").symlink_to(common / "there")
    return f"{common}/there"


def below_a_loop(common: Path) -> str:
    return f"{link_to_itself(common)}/a/b"


def link_into_a_loop(common: Path) -> str:
    link_to_itself(common)
    (common / "in").symlink_to("./datasets/../loop")
    return f"{common}/in"


def more_links_than_linux_follows(common: Path) -> str:
    for number in range(45):
        (common / f"l{number}").symlink_to(f"l{number + 1}")
    (common / "l45").symlink_to("datasets")
    return f"{common}/l0"


def below_a_file(common: Path) -> str:
    return f"{common}/datasets/gsm8k/train.parquet/deeper"


def too_long_behind_a_link(common: Path) -> str:
    (common / "long").symlink_to(f"{common}/{'x' * 300}")
    return f"{common}/long"


IMPOSSIBLE: dict[Callable[[Path], str], str] = {
    link_to_itself: CIRCLE,
    two_links_to_each_other: CIRCLE,
    below_a_loop: CIRCLE,
    link_into_a_loop: CIRCLE,
    more_links_than_linux_follows: CIRCLE,
    below_a_file: "leads through something that is no folder",
    too_long_behind_a_link: "is too long for the shared filesystem",
}


@pytest.mark.parametrize("make", IMPOSSIBLE, ids=lambda make: make.__name__)
def test_an_impossible_path_is_an_error_of_each_field_by_its_rule(root: Path, make: Callable[[Path], str]) -> None:
    path = make(root / "common")
    found = look(root, **dict.fromkeys(FIELDS, path))
    assert {item.field: item.rule for item in found.errors} == dict.fromkeys(FIELDS, IMPOSSIBLE[make])
    assert found.warnings == () and found.unknown == ""


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", ["a" * 256, "a" * 300, f"{'b' * 300}/c", f"c/{'d' * 300}/e"])
def test_a_name_that_no_filesystem_takes_breaks_a_rule_of_the_text(field: str, name: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        taskspec.parse(spec_yaml("/private", **{field: f"/private/common/{name}"}), shared_root="/private")
    [error] = refused.value.fields
    assert error.field == field and "at most 255 characters" in error.rule
    assert name not in error.rule


@pytest.mark.parametrize("field", FIELDS)
def test_the_longest_name_is_looked_for(root: Path, field: str) -> None:
    found = look(root, **{field: f"{root}/common/{'a' * 255}"})
    assert [(item.field, item.rule) for item in found.errors] == [(field, "does not exist")]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_circle_within_a_model_is_an_error(root: Path, name: str) -> None:
    model = root / "common" / "model"
    model.mkdir()
    (model / "config.json").write_bytes(MODEL_FILES["config.json"])
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(name)
    [error] = look(root, model_id=str(model)).errors
    assert (error.field, error.rule) == ("model_id", f"has a {name} that {CIRCLE}")


@pytest.mark.parametrize("target", ["verl", "nowhere"])
def test_a_verl_that_is_a_bad_link_is_as_good_as_none(root: Path, target: str) -> None:
    code = root / "common" / "code" / "mine"
    code.mkdir()
    (code / "verl").symlink_to(target)
    found = look(root, code_path=str(code))
    assert found.errors == ()
    assert ["holds no folder verl" in item.rule for item in found.warnings] == [True]


@pytest.mark.parametrize("commit", ["\0", "a\0b", "..", ".", "", "x" * 300, "a/b", "a b"])
def test_a_shared_cache_that_names_an_impossible_snapshot_is_a_doubt(root: Path, commit: str) -> None:
    """What is in the cache is the operator's: the worker's may be whole."""
    (root / "common/hf/hub/models--Qwen--Qwen2.5-0.5B-Instruct/refs/main").write_text(commit)
    found = look(root)
    assert found.errors == () and [item.field for item in found.warnings] == ["model_id"], found


def test_a_circle_in_the_shared_cache_is_a_doubt(root: Path) -> None:
    hub = root / "common/hf/hub/models--org--loop"
    hub.symlink_to(hub)
    found = look(root, model_id="org/loop")
    assert found.errors == () and "is not in the shared cache" in found.warnings[0].rule
