"""What is drawn, and one of a thing."""

from __future__ import annotations

import pytest

from argus_ray.cli import plot, table, task_words, templates
from argus_ray.cli.task_words import count
from argus_ray.core.estimates import Unknown


def labels(low: float, high: float) -> list[str]:
    lines = plot.drawn("loss", [("a", [1, 2], [low, high])], 60, 14, colour=False)
    found = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
    return [label for label in found if label]


@pytest.mark.parametrize("value", [0.0, 0.5, -3.25, 1e9, 1e-9])
def test_a_constant_curve_has_one_label_beside_it(value: float) -> None:
    lines = plot.drawn("loss", [("a", [1, 2, 3], [value] * 3)], 60, 14, colour=False)
    (row,) = [line for line in lines if "┤" in line and line.partition("┤")[2].strip()]
    assert labels(value, value) == [row.partition("┤")[0].strip()]


@pytest.mark.parametrize(("low", "high"), [(0.123451, 0.123452), (1e6, 1e6 + 1e-3), (5.0, 5.000001), (0.0, 1.0)])
def test_no_two_labels_of_an_axis_are_alike(low: float, high: float) -> None:
    found = labels(low, high)
    assert len(found) == len(set(found)) >= 3


def test_one_is_not_many() -> None:
    assert [count(number, "GPU") for number in (0, 1, 2, 0.5)] == ["0 GPUs", "1 GPU", "2 GPUs", "0.5 GPUs"]


def test_why_no_start_can_be_told_is_always_in_words() -> None:
    for each in Unknown:
        words = task_words.start_sentence({"unknown": each.value}, 0.0) or ""
        assert " " in words.removeprefix("cannot be told: "), each


@pytest.mark.parametrize("workload", ["sft", "grpo", "ppo"])
def test_a_template_fits_a_terminal(workload: str) -> None:
    assert [line for line in templates.text_of(workload, "/private").splitlines() if len(line) > 79] == []


def test_the_last_column_gives_way_first() -> None:
    columns = [table.Column("A", gives_way=True), table.Column("B", gives_way=True)]
    row = ["a" * 20, "b" * 20]
    assert table.lines(columns, [row], headers=False, limit=38) == ["a" * 20 + "  " + "b" * 15 + "…"]
    assert table.lines(columns, [row], headers=False, limit=22) == ["a" * 14 + "…  " + "b" * 4 + "…"]
    assert table.room(columns, [row], 50) == 6
