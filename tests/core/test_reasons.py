"""Reasons as data: what is news, and the words."""

from __future__ import annotations

import itertools

import pytest

from argus_ray.core.reasons import MOMENTARY, Code, Fact, Reason, because, is_news, words

SHARE: dict[str, Fact] = {"nodes": 2, "gpus": 4, "cpus": 12.0}
EVERY_FACT: dict[str, Fact] = {
    **SHARE, "now": 1, "able": 1, "cordoned": 2, "largest": 4.0, "total": 8.0,
    "reserve": 2 * 1024**3, "until": 5 * 1024**2,
    "what": "train_file is empty", "error": "OSError: EIO", "limit": 8, "running": 6,
}  # fmt: skip


@pytest.mark.parametrize("code", Code)
def test_each_code_has_words_for_people(code: Code) -> None:
    told = words(because(code, **EVERY_FACT))
    assert len(told) > 10 and code.value not in told and "{" not in told


def test_the_words_that_clients_know() -> None:
    told = {
        because(Code.POOL_BUSY, **SHARE): "needs 2 nodes with 4 GPUs and 12 CPUs free each",
        because(Code.NODES_BUSY, **SHARE, now=0): "needs 2 nodes with 4 GPUs and 12 CPUs free each; none has now",
        because(
            Code.NODES_BUSY, nodes=1, gpus=1, cpus=2.5, now=3
        ): "needs 1 node with 1 GPU and 2.5 CPUs free; 3 have now",
        because(Code.NODE_TOO_SMALL, gpus=8, largest=4.0): "no node has 8 GPUs: the largest has 4",
        because(
            Code.POOL_TOO_SMALL, **SHARE, able=1
        ): "needs 2 nodes with 4 GPUs and 12 CPUs; the pool has 1, even when it is empty",
        because(
            Code.NODES_CORDONED, **SHARE, able=1, cordoned=1
        ): "needs 2 nodes with 4 GPUs and 12 CPUs; 1 node that could take it is cordoned by an operator, and the pool"
        " has 1 without",
    }
    assert {reason: words(reason) for reason in told} == told
    assert words("node died") == "node died"


def test_facts_are_equal_in_any_order() -> None:
    one, other = because(Code.TOO_FEW_CPUS, cpus=1.0, total=2.0), because(Code.TOO_FEW_CPUS, total=2.0, cpus=1.0)
    assert one == other and hash(one) == hash(other) and one["total"] == 2.0


def test_text_is_bounded_and_clean() -> None:
    reason = because(Code.NO_COMMAND, error="\ud800" + "x" * 5000)
    words(reason).encode()
    assert len(words(reason)) < 1100


def test_what_is_news() -> None:
    busy, behind = because(Code.POOL_BUSY), because(Code.BEHIND_OLDER)
    for old, new in itertools.product([busy, behind], repeat=2):
        assert not is_news(old, new)
    assert not is_news(because(Code.NO_COMMAND, error="a"), because(Code.NO_COMMAND, error="b"))
    assert is_news(busy, because(Code.NO_WORKER)) and is_news(because(Code.NO_WORKER), busy)
    assert is_news("node died", busy) and is_news(None, busy)
    assert not is_news("node died", "node died") and is_news("node died", "disk died")


def test_what_tells_a_moment_is_not_what_is_stored() -> None:
    assert Code.POOL_BUSY not in MOMENTARY and Reason(Code.NODES_BUSY).code in MOMENTARY
