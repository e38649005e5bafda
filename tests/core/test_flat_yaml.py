"""The two ways through the reader of flat YAML say the same: plain lines, and libyaml's events."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from argus_ray.core import flat_yaml
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.taskspec import TaskSpec

Result = tuple[dict[str, str | int | None], dict[str, str]] | str
EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.yaml"))

NAMES = st.sampled_from([*TaskSpec.model_fields, "no", "null", "_x", "a-b", "1a", "x" * 127, "x" * 128, "x" * 129])
_ODD = """8 0 010 -1 +1 1_000 0x10 1:30 8.0 1e3 .5 2026-01-31 yes No null ~ true .inf .nan - -a -0 -01 --- ... << =
a#b a:b a/b.c_d-e /private/x 123456789012345678 1234567890123456789 -a: -#x 'q' "q" [a] {a: b} & * ! | > % @ ` a,b"""
WORDS = st.one_of(
    st.sampled_from(_ODD.split()),
    st.text("aZ09/_.-:#'\" +\t\r\x00\xa0\u2028é", max_size=12),
    st.integers().map(str),
    st.text("0123456789abcxo_.+-", max_size=80),
)
LINES = st.one_of(
    st.tuples(
        NAMES, st.sampled_from([": ", ":", ":  ", " : ", ":\t"]), WORDS, st.sampled_from(["", " ", " # c", "#c", " #é"])
    ).map("".join),
    st.sampled_from(
        [
            "",
            " ",
            "  ",
            "# comment",
            " # comment",
            "#\x07",
            "\t",
            "---",
            "...",
            "%YAML 1.1",
            "- a",
            "a",
            "\ufeff",
            "? a",
        ]
    ),
)
DOCUMENTS = st.tuples(st.lists(LINES, max_size=5), st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), st.booleans()).map(
    lambda made: made[1].join(made[0]) + (made[1] if made[2] else "")
)


def result(raw: bytes) -> Result:
    try:
        return flat_yaml.read(raw, TaskSpec.model_fields)
    except InvalidSpec as error:
        return f"{error.detail} {error.fields}"


def by_libyaml(raw: bytes) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat_yaml, "_plain_lines", lambda text: None)
        return result(raw)


@given(DOCUMENTS)
@example("nnodes: 1\nnnodes: 2\n")
@example("nnodes: 1 \n  # indented\nworkload: sft # one\n")
@example("nnodes: 1\n  2\n")
@example("nnodes: 010\nother: 010\nworkload: yes\n")
@example("\n" * 300 + "nnodes: 1\n")
@example("".join(f"x{number}: 1\n" for number in range(65)))
def test_both_ways_say_the_same(text: str) -> None:
    raw = text.encode()
    assert result(raw) == by_libyaml(raw)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_need_no_parser(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = path.read_bytes()
    wanted = by_libyaml(raw)
    monkeypatch.setattr(flat_yaml, "_mapping", None)
    assert result(raw) == wanted
