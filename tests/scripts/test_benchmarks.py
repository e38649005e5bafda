"""What the benchmarks count and print; that they measure is for whoever runs them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

from benchmarks import report, rounds, wrk  # noqa: E402
from benchmarks.crafted import crafted  # noqa: E402
from benchmarks.ettr import Run  # noqa: E402

_SAID = """Running 1s test @ http://127.0.0.1:1
BENCH seconds=2.000000 p50_ms=1.5 p99_ms=9.25 max_ms=12.0 connect=0 read=1 write=0 timeout=0 statuses=201=400,503=2
BENCH-ODD {"status": 503}
"""


def test_only_the_wanted_answers_are_a_rate_and_the_others_are_told() -> None:
    counted = wrk.parse(_SAID)
    assert counted.rate(201) == 200
    assert counted.p99_ms == 9.25
    assert wrk.others([counted, counted], (201,)) == '4 x 503, 2 x read; the first said: {"status": 503}'


def test_an_output_without_the_line_is_no_measurement() -> None:
    with pytest.raises(OSError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1")


def test_sides_take_turns() -> None:
    order: list[str] = []
    rounds.alternate(2, {"a": lambda: order.append("a"), "b": lambda: order.append("b")})
    assert order == ["a", "b", "a", "b"]


def test_runs_are_appended_to_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(json=tmp_path / "bench.json", rounds=2)
    for _ in range(2):
        with report.recorded("example", options) as found:
            found.figure("ours", "/s", [90, 110])
            found.ratio("ours / theirs", [90, 110], [100, 100], ">= 0.5")
    runs = json.loads(options.json.read_text())["runs"]
    assert [run["benchmark"] for run in runs] == ["example", "example"]
    assert runs[0]["figures"][0] == {
        "name": "ours", "unit": "/s", "goal": "", "median": 100, "min": 90, "max": 110, "values": [90, 110],
    }  # fmt: skip
    assert runs[0]["ratios"][0]["values"] == [0.9, 1.1]
    assert {"cpu", "cores", "memory_gib", "kernel", "python", "ray"} <= set(runs[0]["machine"])
    assert "ours / theirs" in capsys.readouterr().out


def test_crafted_bodies_are_within_the_limit() -> None:
    sizes = {kind: len(body.encode()) for kind, body in crafted(8000).items()}
    assert {kind: size for kind, size in sizes.items() if not 6000 < size <= 8000} == {}


def test_what_of_a_run_counts_as_training(tmp_path: Path) -> None:
    """Six steps of a second each, of which two were made twice, in a run of 20 seconds with one loss."""
    run = Run(6, begun=100.0, losses=[106.0], ended=120.0)
    run.seen = {
        tmp_path / "a01": [(102.0 + i, 1 + i) for i in range(4)],
        tmp_path / "a02": [(112.0 + i, 3 + i) for i in range(4)],
    }
    assert (run.step_s, run.repeated, run.back_s()) == (1.0, 2, [6.0])
    assert run.ettr == 6 / 20


def test_a_line_that_is_being_written_is_no_step_yet(tmp_path: Path) -> None:
    run, file = Run(9, begun=0.0), tmp_path / "metrics.jsonl"
    run.look([file])
    for text, steps in (
        ('{"step": 1, "data": {"train/loss": 5}}\n{"step": 2, ', [1]),
        ('"data": {"train/loss": 4}}\n', [1, 2]),
    ):
        with file.open("a") as out:
            out.write(text)
        run.look([file])
        assert [step for _, step in run.seen[file]] == steps
