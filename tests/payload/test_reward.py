from __future__ import annotations

import pytest

from argus_ray.payload.argus_verl_reward import PARTIAL, plain_score


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
    ],
)
def test_plain_score(solution: str, truth: str, score: float) -> None:
    assert plain_score(solution, truth) == score
