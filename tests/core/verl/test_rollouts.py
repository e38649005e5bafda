"""What verl's samples say, whatever is in their lines; and how the attempts of a task are joined."""

from __future__ import annotations

import json
from typing import Any

import pytest

from argus_ray.core.verl import rollouts
from argus_ray.core.verl.rollouts import MAX_EXTRAS, MAX_LINE_BYTES, Kind, Sample, Steps, join, read_line, step_of

LINE = {"input": "2+3=", "output": "5", "gts": "5", "score": 1.0, "step": 7, "uid": "a_0_0", "acc": True}


def line(**changes: Any) -> bytes:
    return json.dumps({**LINE, **changes}).encode()


def test_a_line_of_verl() -> None:
    sample = read_line(3, line())
    assert (sample.index, sample.prompt, sample.answer, sample.ground_truth) == (3, "2+3=", "5", "5")
    assert (sample.score, sample.extra, sample.truncated) == (1.0, {"uid": "a_0_0", "acc": True}, False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (["4", "four"], ["4", "four"]), ({"a": {"b": [1, None]}}, {"a": {"b": [1, None]}}), (3, 3),
        (True, True), (float("nan"), None), (float("-inf"), None), ([float("nan"), 1], [None, 1]),
        (2**53, 2**53), (2**53 + 1, str(2**53 + 1)), (10**4000, str(10**4000)),
    ],
)  # fmt: skip
def test_values_that_json_can_carry(value: Any, shown: Any) -> None:
    sample = read_line(0, line(gts=value, reward=value))
    assert (sample.ground_truth, sample.extra["reward"], sample.truncated) == (shown, shown, False)


@pytest.mark.parametrize("score", [None, "1", True, float("nan"), float("inf"), [1], 10**400])
def test_what_is_no_score(score: Any) -> None:
    assert read_line(0, line(score=score)).score is None
    assert rollouts.score_of(line(score=score)) is None


def test_a_number_that_overflows_is_none() -> None:
    sample = read_line(0, b'{"input": "x", "score": 1e999, "a": 1e999, "b": [1e999]}')
    assert (sample.score, sample.extra) == (None, {"a": None, "b": [None]})


def test_prompts_that_are_no_text_are_shown_as_json() -> None:
    sample = read_line(0, line(input=[{"role": "user", "content": "ä"}], output=5))
    assert (sample.prompt, sample.answer) == ('[{"role":"user","content":"ä"}]', "5")


def test_fields_are_cut_and_say_so() -> None:
    sample = read_line(0, line(input="a" * 100, output="b" * 11, gts=["c" * 20], x={"d": "e" * 20}, y="f" * 10), 10)
    assert (sample.prompt, sample.answer, sample.ground_truth) == ("a" * 10, "b" * 10, '["cccccccc')
    assert (sample.extra["x"], sample.extra["y"], sample.truncated) == ('{"d":"eeee', "f" * 10, True)
    assert not read_line(0, line(output="b" * 10), 10).truncated


def test_many_fields_are_cut_and_say_so() -> None:
    sample = read_line(0, line(**{f"x{number}": number for number in range(500)}))
    assert len(sample.extra) == MAX_EXTRAS and sample.truncated
    sample = read_line(0, line(**{"n" * 300: 1}))
    assert sample.extra.keys() == {"uid", "acc"} and sample.truncated


def test_text_that_is_no_unicode_is_replaced() -> None:
    sample = read_line(0, b'{"input": "a\xff\xc3", "output": "\\ud800b\\u0000", "gts": ["\\udfff"], "\\ud800": "x"}')
    assert (sample.prompt, sample.answer) == ("a\ufffd\ufffd", "?b?")
    assert (sample.ground_truth, sample.extra) == (["?"], {"?": "x"})
    json.dumps([sample.prompt, sample.answer, sample.ground_truth, sample.extra], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b'{"input": "x"', b"[]", b"5", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 50_000,
        b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"input": 1' + b"0" * 5000 + b"}", b" " * (MAX_LINE_BYTES + 1), None,
    ],
)  # fmt: skip
def test_what_is_no_sample_is_told_and_not_shown(raw: bytes | None) -> None:
    assert read_line(4, raw) == Sample(4, truncated=True)
    if raw is not None and len(raw) <= MAX_LINE_BYTES and not raw.startswith(b'{"input": 1'):
        with pytest.raises(ValueError):
            rollouts.score_of(raw)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("0.jsonl", 0), ("12.jsonl", 12), ("01.jsonl", None), ("-1.jsonl", None), ("1.json", None), ("1.jsonl~", None),
        ("x1.jsonl", None), ("1.jsonl\n", None), ("\u0661.jsonl", None), (f"{2**53 - 1}.jsonl", 2**53 - 1),
        (f"{2**53}.jsonl", None), ("9" * 300 + ".jsonl", None), (".jsonl", None), ("1_0.jsonl", None),
    ],
)  # fmt: skip
def test_which_files_are_steps(name: str, step: int | None) -> None:
    assert step_of(name) == step
    if step is not None:
        assert rollouts.file_of(step) == name


def joined(kind: Kind, *parts: Steps) -> list[tuple[int, int]]:
    return list(zip(*join(parts, kind), strict=True))


def test_a_later_attempt_replaces_the_steps_that_it_makes_again() -> None:
    first = Steps(1, range(1, 31), [0, 10, 20, 30])
    second = Steps(2, range(21, 24), [])
    assert joined(Kind.TRAIN, first, second) == [(n, 1) for n in range(1, 21)] + [(21, 2), (22, 2), (23, 2)]
    # What was validated after the step where it went back is not of the model that exists now.
    assert joined(Kind.VALIDATION, first, second) == [(0, 1), (10, 1), (20, 1)]


def test_a_validation_at_the_step_of_the_checkpoint_is_made_once_more() -> None:
    first = Steps(1, range(1, 31), [10, 20, 30])
    second = Steps(2, range(21, 26), [20, 25])
    assert joined(Kind.VALIDATION, first, second) == [(10, 1), (20, 2), (25, 2)]
    assert joined(Kind.TRAIN, first, second) == [(n, 1) for n in range(1, 21)] + [(n, 2) for n in range(21, 26)]


def test_an_attempt_without_samples_changes_nothing() -> None:
    first, nothing = Steps(1, [1, 2], []), Steps(2, [], [])
    assert joined(Kind.TRAIN, first, nothing) == joined(Kind.TRAIN, nothing, first) == [(1, 1), (2, 1)]
    assert joined(Kind.VALIDATION, first, nothing) == [] == joined(Kind.TRAIN)


def test_an_attempt_from_the_beginning_replaces_all() -> None:
    assert joined(Kind.TRAIN, Steps(1, range(1, 50), []), Steps(2, [1], [0])) == [(1, 2)]
