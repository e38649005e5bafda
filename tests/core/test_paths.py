from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core import paths, taskspec
from argus_ray.core.errors import InvalidSpec
from tests.support.builders import spec_yaml

ROOT = "/private"


def rule(value: str, *, is_dir: bool = False) -> str | None:
    return paths.broken_rule(value, ROOT, is_dir=is_dir)


def test_job_root_derivation_per_user() -> None:
    submission_id = "argus-alice-sft-20270115-080000-ab01--a02"
    assert paths.job_root(ROOT, "alice", submission_id) == f"/private/users/alice/jobs/{submission_id}"
    assert paths.job_root(ROOT, "bob", submission_id) != paths.job_root(ROOT, "alice", submission_id)


@pytest.mark.parametrize("name", ["", ".", "..", "../bob", "a/b", "-a", "a-", "a\0", "a\n", "A", "a.b", "a b", "é"])
def test_job_root_takes_safe_names_only(name: str) -> None:
    with pytest.raises(ValueError, match="not a safe folder name"):
        paths.job_root(ROOT, name, "argus-a--a01")
    with pytest.raises(ValueError, match="not a safe folder name"):
        paths.job_root(ROOT, "alice", name)


GOOD = [
    "/private/common/a",
    "/private/common/datasets/gsm8k/train.parquet",
    "/private/common/a.b/c_d/e+f/g@h/i=1",
    "/private/common/...",
    "/private/common/.hidden",
]

TRICKS = {
    "empty": "",
    "relative": "private/common/a",
    "dot relative": "./common/a",
    "home": "~/a",
    "the folder itself": "/private/common",
    "the folder with a slash": "/private/common/",
    "a sibling with the same beginning": "/private/commons/a",
    "another root": "/etc/passwd",
    "a user's folder": "/private/users/bob/jobs/x",
    "parent": "/private/common/../users/bob",
    "parent at the end": "/private/common/a/..",
    "parent before": "/private/../private/common/a",
    "dot": "/private/common/./a",
    "double slash": "/private/common//a",
    "double slash at the front": "//private/common/a",
    "trailing slash of a file": "/private/common/a/",
    "trailing space": "/private/common/a ",
    "leading space": " /private/common/a",
    "inner space": "/private/common/a b",
    "trailing dot component": "/private/common/a/.",
    "nul": "/private/common/a\0",
    "nul before a suffix": "/private/common/a\0.parquet",
    "newline": "/private/common/a\n",
    "newline inside": "/private/common/a\nb",
    "carriage return": "/private/common/a\r",
    "tab": "/private/common/a\tb",
    "escape": "/private/common/a\x1b[0m",
    "delete": "/private/common/a\x7f",
    "leading hyphen": "-/private/common/a",
    "hyphen component": "/private/common/-rf",
    "hyphen folder": "/private/common/--flag/a",
    "fraction slash": "/private/common\u2044..\u2044users",
    "division slash": "/private/common/a\u2215b",
    "fullwidth solidus": "/private/common/a\uff0fb",
    "fullwidth full stop": "/private/common/\uff0e\uff0e/users",
    "one dot leader": "/private/common/\u2024\u2024/users",
    "big solidus": "/private/common/a\u29f8b",
    "backslash": "/private/common/a\\b",
    "right-to-left mark": "/private/common/a\u202eb",
    "zero width space": "/private/common/a\u200bb",
    "letter outside of ascii": "/private/common/\u0430",
    "lone surrogate": "/private/common/a\udcff",
    "colon": "/private/common/a:/etc",
    "comma": "/private/common/a,b",
    "dollar": "/private/common/$HOME",
    "command": "/private/common/$(id)",
    "backtick": "/private/common/`id`",
    "semicolon": "/private/common/a;id",
    "pipe": "/private/common/a|id",
    "and": "/private/common/a&",
    "redirect": "/private/common/a>b",
    "glob": "/private/common/*",
    "question mark": "/private/common/?",
    "brackets": "/private/common/[a]",
    "braces": "/private/common/{a,b}",
    "interpolation": "/private/common/${a}",
    "quote": "/private/common/a'b",
    "double quote": '/private/common/a"b',
    "hash": "/private/common/a#b",
    "percent": "/private/common/%2e%2e/a",
    "tilde": "/private/common/~bob",
    "bang": "/private/common/!a",
    "url": "file:///private/common/a",
    "too long": "/private/common/" + "a" * 1024,
}


@pytest.mark.parametrize("value", GOOD)
def test_paths_under_common_are_allowed(value: str) -> None:
    assert rule(value) is None


def test_a_folder_may_end_with_one_slash() -> None:
    assert rule("/private/common/code/", is_dir=True) is None
    assert rule("/private/common/code//", is_dir=True) is not None
    assert rule("/private/common//", is_dir=True) is not None


@pytest.mark.parametrize("trick", [name for name in TRICKS if name != "lone surrogate"])
def test_reject_non_common_inputs(trick: str) -> None:
    """Every trick in every field that holds a path: refused, all at once, naming the fields."""
    # Folders may end with a slash.
    of_files = trick == "trailing slash of a file"
    fields = ["train_file", "val_file"] if of_files else ["code_path", "model_id", "train_file", "val_file"]
    with pytest.raises(InvalidSpec) as caught:
        taskspec.parse(spec_yaml(ROOT, **dict.fromkeys(fields, TRICKS[trick])), shared_root=ROOT)
    assert [error.field for error in caught.value.fields] == fields


@pytest.mark.parametrize("value", TRICKS.values(), ids=TRICKS)
def test_each_trick_breaks_a_rule_that_is_put_in_words(value: str) -> None:
    broken = rule(value)
    assert broken


def test_a_symbolic_link_must_not_lead_out(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    common = root / "common"
    common.mkdir()
    (root / "users").mkdir()
    (common / "real").mkdir()
    (common / "inside").symlink_to(common / "real")
    (common / "out").symlink_to(root / "users")
    (common / "relative").symlink_to("../users")
    (common / "chain").symlink_to(common / "out")
    (common / "loop").symlink_to(common / "loop")
    (common / "self").symlink_to(common)

    def check(name: str) -> str | None:
        path = f"{common}/{name}"
        assert paths.broken_rule(path, str(root), is_dir=False) is None, "its text is all right"
        return paths.leads_out(path, str(root), os.path.realpath)

    assert check("real/x") is None
    assert check("inside/x") is None
    assert check("not/there/yet") is None
    for name in ("out", "out/bob", "relative/bob", "chain/bob"):
        assert "symbolic link" in (check(name) or ""), name
    assert check("self") is not None, "the folder itself, by a link"
    assert check("self/real") is None


def test_common_may_itself_be_a_link(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "private"
    elsewhere = tmp_path.resolve() / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    (root / "common").symlink_to(elsewhere)
    assert paths.leads_out(f"{root}/common/a", str(root), os.path.realpath) is None


@given(st.text(max_size=40))
def test_whatever_follows_the_prefix_is_refused_or_stays_below(tail: str) -> None:
    value = f"/private/common/{tail}"
    if rule(value) is None:
        assert ".." not in value.split("/")
        assert value.isascii()
        assert value.isprintable()
        assert PurePosixPath("/private/common") in PurePosixPath(value).parents
