"""What the beginning of a task id says of it, held against the ids themselves."""

from __future__ import annotations

import random

import pytest

from argus_ray.core import ids
from argus_ray.core.task_filter import KINDS, TaskFilter, names_an_end, possible_owner, spans_of_prefix

OWNERS = ("alice", "ali", "alice-sft", "a", "sft")
#: 1970 to 2100.
LATEST = 4_102_444_800


def edge(dice: random.Random) -> float:
    """Beside the end of a second, where an id tells the next one already."""
    return dice.randint(0, LATEST) - dice.choice([2.4e-7, 4.9e-7, 5e-7, 5.1e-7, 9e-7, 2e-6])


def is_said(task: str, at: float, kind: str, owner: str, prefix: str) -> bool:
    """Whether the spans of the prefix hold this task, its end compared where it has to be."""
    held = any(span.kind == kind and span.since <= at < span.until for span in spans_of_prefix(prefix, owner))
    return held and (not names_an_end(prefix) or task.startswith(prefix))


def test_each_beginning_of_an_id_finds_it_and_no_other_of_its_owner() -> None:
    dice = random.Random(14)
    tasks = []
    for _ in range(60):
        owner, kind = dice.choice(OWNERS), dice.choice(KINDS)
        at = dice.choice(
            [dice.uniform(0, LATEST), dice.uniform(1.7e9, 1.7001e9), dice.uniform(1.7e9, 1.7e9 + 90), edge(dice)]
        )
        tasks.append((ids.task_id(owner, kind, at, dice.randbytes(2)), at, kind, owner))
    checked = 0
    for task, _, _, owner in tasks:
        for length in range(len(task) + 1):
            prefix = task[:length]
            mine = [each for each in tasks if each[3] == owner]
            found = {name for name, at, kind, _ in mine if is_said(name, at, kind, owner, prefix)}
            assert found == {name for name, *_ in mine if name.startswith(prefix)}, (prefix, owner)
            checked += len(mine)
    assert checked > 10_000


@pytest.mark.parametrize(
    "prefix",
    [
        "argus-bob-", "x", "argus-alice-dpo", "argus-alice-sft-2026-", "argus-alice-sft-20261", "argus-alice-sft-20269",
        "argus-alice-sft-20260001", "argus-alice-sft-20260230", "argus-alice-sft-20260102-25", "argus-alice-sft-x",
        "argus-alice-sft-20260102-0061", "argus-alice-sft-20260102-030405-zz", "argus-alice-sft-9", "argus-alice-sft-0",
        "argus-alice-sft-20260102-030405-abcde", "argus-alice-sft-00000000", "ARGUS-",
        "argus-alice-sft-99999999-999999",
    ],
)  # fmt: skip
def test_what_no_id_begins_with_finds_none(prefix: str) -> None:
    for at in (0.0, 1.0e9, 1767323045.0, 1767323045.9):
        task = ids.task_id("alice", "sft", at, b"\xab\xcd")
        assert is_said(task, at, "sft", "alice", prefix) == task.startswith(prefix)


def test_who_a_prefix_may_be_of() -> None:
    assert possible_owner("") is possible_owner("arg") is possible_owner("argus-") is None
    assert possible_owner("argus-al") == "al"
    assert possible_owner("x") == ""


def test_an_empty_filter_narrows_nothing() -> None:
    assert TaskFilter().is_by_state_alone and TaskFilter(user_id="a").is_by_state_alone
    assert TaskFilter().kinds == KINDS
    for narrow in (
        TaskFilter(workloads=("sft",)),
        TaskFilter(since=1.0),
        TaskFilter(until=0.0),
        TaskFilter(id_prefix="a"),
        TaskFilter(id_suffix="abcd"),
        TaskFilter(ids=("a",)),
    ):
        assert not narrow.is_by_state_alone
