"""Scores by comparison: what counts as the same answer, and what an answer of any kind costs."""

from __future__ import annotations

import time

import pytest

from argus_ray.payload.argus_answers import (
    MAX_ANSWER,
    PARTIAL,
    code_score,
    final_answer,
    geometry_score,
    is_same,
    maths_score,
    plain_score,
)


@pytest.mark.parametrize(
    ("solution", "truth", "score"),
    [
        ("12", "12", 1.0),
        (" 12<|im_end|>", "12", 1.0),
        ("12<|im_end|>\n12", "12", 1.0),
        ("13", "12", PARTIAL),
        ("twelve", "12", 0.0),
        ("", "12", 0.0),
        ("The answer is Paris.", "Paris", PARTIAL),
        ("London", "Paris", 0.0),
        ("anything", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_plain_score(solution: str, truth: str, score: float) -> None:
    assert plain_score(solution, truth) == score


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So \boxed{\frac{1}{2}} it is.", r"\frac{1}{2}"),
        (r"First \boxed{1}, then \boxed{2}", "2"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$ apples", "7"),
        ("It is 4.\nThe answer is: 5.\nBye", "5"),
        ("Answer: 5", "5"),
        ("The answer is 5", "5"),
        ("2 + 3 = 5\n#### 5", "5"),
        ("Let me see.\n12\n", "12"),
        ("12<|im_end|>13", "12"),
        (r"\boxed{1", r"\boxed{1"),
        (r"\boxed", r"\boxed"),
        ("", ""),
    ],
)
def test_final_answer(solution: str, answer: str) -> None:
    assert final_answer(solution) == answer


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("12", "12"),
        ("$12$", "12"),
        ("12.0", "12"),
        (".5", r"\frac{1}{2}"),
        ("1/2", r"\dfrac12"),
        (r"\frac{2}{4}", "0.5"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"1\frac12", "3/2"),
        ("1,234,567", "1234567"),
        ("1{,}234", "1234"),
        (r"10\,000", "10000"),
        (r"3 \times 10^{4}", "30000"),
        (r"50\%", "50"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        (r"5\text{ cm}", "5"),
        (r"12 \mathrm{cm}^2", "12"),
        ("x = 5", "5"),
        ("f(x)=2x", "2x"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"(\frac12, 0.25)", r"(0.5,\frac14)"),
        (r"\{1, 2\}", r"\{1,2\}"),
        ("1 and 2", "1,2"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"2\pi", "2π"),
        (r"\text{Even}", "even"),
        (r"\textbf{(A)}", "A"),
        (r"x \leq 3", "x ≤ 3"),
        (r"x \geqslant 3", r"x\ge 3"),
        ("-1", "\N{MINUS SIGN}1"),
        ("5.", "5"),
    ],
)
def test_the_same_answer_in_other_words(answer: str, truth: str) -> None:
    assert is_same(answer, truth) and is_same(truth, answer)
    assert maths_score(rf"Thus \boxed{{{answer}}}.", truth) == 1.0


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("13", "12"),
        ("", ""),
        ("", "12"),
        ("1/0", "2/0"),
        (r"\frac{1}{0}", "1"),
        ("(1,2)", "[1,2]"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "(1,2,3)"),
        ("1", "1,2"),
        ("0.333", "1/3"),
        ("9**9**9**9", "1"),
        ("10^{99}", "1"),
        ("3*10^{99}", "3"),
        ("x", "y"),
        ("4*3", "12"),
    ],
)
def test_another_answer(answer: str, truth: str) -> None:
    assert not is_same(answer, truth) and not is_same(truth, answer)


@pytest.mark.parametrize(
    ("solution", "score"),
    [
        (r"<think>so</think> \boxed{5}", 1.0),
        (r"\boxed{5.0}", 0.9),
        (r"<think>so</think> \boxed{6}", 0.1),
        ("5", 0.0),
    ],
)
def test_geometry_keeps_the_scale_of_verl(solution: str, score: float) -> None:
    assert geometry_score(solution, "5") == pytest.approx(score)


def test_code_is_compared_line_by_line() -> None:
    truth = "a = 1\nprint(a)\n"
    assert code_score("Here it is:\n```python\na = 1  \n\nprint(a)\n```\nDone.", truth) == 1.0
    assert code_score("```python\na = 2\nprint(a)\n```", truth) == 0.0
    assert code_score("", "") == code_score("``````", "``````") == 0.0


HUGE = {
    "boxes": r"\boxed{" * 150_000,
    "braces": r"\boxed{" + "{" * 1_000_000,
    "closed": r"\boxed{" + "{" * 500_000 + "}" * 500_001,
    "fractions": r"\boxed{" + r"\frac" * 3_000 + "}",
    "commas": r"\boxed{(" + "1," * 7_000 + "1)}",
    "nested": r"\boxed{" + "(1," * 300 + "1" + ")" * 300 + "}",
    "digits": r"\boxed{" + "9" * 1_000_000 + "}",
    "power": r"\boxed{9**9**9**9}",
    "tower": r"\boxed{10^{10^{10^{10}}}}",
    "units": r"\boxed{1" + " " * 900 + r"\text}",
    "answers": "answer is " * 100_000,
    "blanks": "answer" + " " * 1_000_000,
    "fences": "```" * 300_000,
    "thoughts": "<think>" * 70_000 + "</think>" * 70_000 + r"\boxed{",
    "dollars": "$" * 1_000_000,
    "lines": "\n" * 1_000_000,
    "surrogate": "\ud800" * 1_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_answer_costs_little(name: str) -> None:
    answer = HUGE[name]
    for truth in ("2", answer[:MAX_ANSWER] + "1"):
        begin = time.thread_time()
        scores = [score(answer, truth) for score in (plain_score, maths_score, geometry_score, code_score)]
        assert time.thread_time() - begin < 0.5
        assert truth != "2" or max(scores) < 1
