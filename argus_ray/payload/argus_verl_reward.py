"""The reward function of ppo and grpo runs: verl's own scorer where verl has one for the data source, else
a plain comparison with the ground truth. Given to verl as reward.custom_reward_function."""

from __future__ import annotations

from typing import Any

#: For an answer of the right kind: without it a model that never hits exactly has nothing to climb.
PARTIAL = 0.1


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **settings: Any
) -> Any:
    from verl.utils.reward_score import default_compute_score

    try:
        return default_compute_score(data_source, solution_str, ground_truth, extra_info, **settings)
    except NotImplementedError:
        return plain_score(solution_str, str(ground_truth))


def plain_score(solution: str, truth: str) -> float:
    """1 for the ground truth, 0.1 for a number where it is one (or for text that holds it), else 0."""
    answer = solution.split("<|im_end|>")[0].strip()
    truth = truth.strip()
    if answer == truth:
        return 1.0
    is_near = answer[:1].isdigit() if truth[:1].isdigit() else bool(truth) and truth in answer
    return PARTIAL if is_near else 0.0
