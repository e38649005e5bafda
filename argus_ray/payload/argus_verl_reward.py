"""The reward function of ppo and grpo runs, given to verl as reward.custom_reward_function: verl's own scorer for the
data sources in `_READ`, a comparison with the ground truth for all others.

What a model has written is never run. verl 0.9.1's default scorer would: it calls eval() on answers to the `numina_*`
sources, has sympy parse those to geometry3k (which is eval() too), and runs code that answers the four code sources. So
verl is asked only for the scorers that somebody has read, each by its own name and never through verl's table, which
may lead elsewhere in another version."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import argus_answers  # type: ignore[import-not-found]  # a neighbour on the workers' PYTHONPATH

#: Modules of verl.utils.reward_score that compare texts by replacing, splitting and short patterns, as of verl 0.9.1.
#: tests/payload/test_reward_sources.py holds this against verl's source.
_READ = {
    "openai/gsm8k": "gsm8k",
    **dict.fromkeys(("lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500"), "math_reward"),
    **dict.fromkeys(("math_dapo", "math", "math_dapo_reasoning"), "math_dapo"),
    **dict.fromkeys(
        (
            *("searchR1_nq", "searchR1_triviaqa", "searchR1_popqa", "searchR1_hotpotqa"),
            *("searchR1_2wikimultihopqa", "searchR1_musique", "searchR1_bamboogle"),
        ),
        "search_r1_like_qa_em",
    ),
}
_READ_PREFIXES = {"aime": "math_dapo"}
#: Their ground truth is {"target": text or texts}; that of the others is text.
_OF_TARGETS = ("search_r1_like_qa_em",)

_MATHS = frozenset(
    f"numina_{name}" for name in ("aops_forum", "synthetic_math", "amc_aime", "synthetic_amc", "cn_k12", "olympiads")
)
_GEOMETRY = frozenset({"hiyouga/geometry3k"})
_CODE = frozenset({"codecontests", "apps", "codeforces", "taco"})

#: Characters of a ground truth that verl's scorers are given; some of their patterns grow with its square.
_MAX_TRUTH = 4_096
#: Of the answers that a ground truth allows.
_MAX_TRUTHS = 64

_told: set[str] = set()


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **settings: Any
) -> Any:
    """A number, or what verl's scorer of that source returns: a dictionary with `score`."""
    source = str(data_source) if isinstance(data_source, str) else ""  # of numpy, in a batch of verl
    # Text that no log could take (lone surrogates) would end the run when verl prints it.
    solution = str(solution_str).encode("utf-8", "replace").decode()
    scorer = scorer_of(source)
    truths = _texts(ground_truth)
    if scorer is not None and truths and max(map(len, truths)) <= _MAX_TRUTH:
        return _ask_verl(scorer, solution[-argus_answers.MAX_ANSWER :], truths)
    compare = argus_answers.plain_score
    if source in _MATHS:
        compare = argus_answers.maths_score
    elif source in _GEOMETRY:
        compare = argus_answers.geometry_score
    elif source in _CODE:
        compare = argus_answers.code_score
        _tell(source)
    return max((compare(solution, truth) for truth in truths), default=0.0)


def scorer_of(source: str) -> str | None:
    """The module of verl that scores answers to this data source; None: they are compared here."""
    for prefix, module in _READ_PREFIXES.items():
        if source.startswith(prefix):
            return module
    return _READ.get(source)


def _ask_verl(scorer: str, solution: str, truths: list[str]) -> Any:
    module = importlib.import_module(f"verl.utils.reward_score.{scorer}")
    result = module.compute_score(solution, {"target": truths} if scorer in _OF_TARGETS else truths[0])
    return result if isinstance(result, dict) else float(result)


def _texts(truth: Any) -> list[str]:
    """The answers that a ground truth allows: several where it is a list of them, none where it is None."""
    if isinstance(truth, Mapping) and "target" in truth:
        truth = truth["target"]
    if hasattr(truth, "tolist"):  # an array, or a number, of numpy's
        truth = truth.tolist()
    if isinstance(truth, bytes):
        truth = truth.decode(errors="replace")
    if isinstance(truth, list | tuple):
        return [str(one) for one in truth[:_MAX_TRUTHS] if one is not None]
    return [] if truth is None else [str(truth)]


def _tell(source: str) -> None:
    """Once in a process, into the run's log."""
    if source not in _told:
        _told.add(source)
        print(
            f"argus-reward: code that answers {source!r} is not run: it is compared with the ground truth, and scores 0"
            " where that is a list of test cases",
            flush=True,
        )
