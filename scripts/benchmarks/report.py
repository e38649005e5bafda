"""What a benchmark says: figures with their units, ratios beside a floor or a peer, a table, and a JSON document.

The document is one file for many runs: each run is appended, with the machine, the date and the commit.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Figure:
    """One thing measured, a value a round."""

    name: str
    unit: str
    values: tuple[float, ...]
    goal: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        spread = {"median": self.median, "min": min(self.values), "max": max(self.values)}
        return {"name": self.name, "unit": self.unit, "goal": self.goal, **spread, "values": list(self.values)}


@dataclass
class Report:
    """Of one benchmark."""

    name: str
    options: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str, unit: str, values: Sequence[float] | float, goal: str = "") -> None:
        self.figures.append(Figure(name, unit, _values(values), goal))

    def ratio(self, name: str, ours: Sequence[float], beside: Sequence[float], goal: str = "") -> None:
        """Of the same rounds, so that both sides have met the same neighbours."""
        pairs = [(mine, other) for mine, other in zip(ours, beside, strict=True) if other]
        if pairs:
            self.ratios.append(Figure(name, "ratio", tuple(mine / other for mine, other in pairs), goal))
        else:
            self.note(f"{name}: no ratio, since what stands beside it was never measured above 0")

    def note(self, words: str) -> None:
        self.notes.append(words)

    def table(self) -> str:
        rows: list[tuple[str, ...]] = [("figure", "median", "min", "max", "unit", "goal")]
        for each in [*self.figures, *self.ratios]:
            numbers = (each.median, min(each.values), max(each.values))
            rows.append((each.name, *(_number(number) for number in numbers), each.unit, each.goal))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [
            "  ".join(word.rjust(width) if 0 < i < 4 else word.ljust(width) for i, (word, width) in enumerate(cells))
            for cells in ([*zip(row, widths, strict=True)] for row in rows)
        ]
        return "\n".join([*(line.rstrip() for line in lines), *(f"note: {note}" for note in self.notes)])


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="append what was measured to this document")
    made.add_argument("--rounds", type=int, default=5, help="how often each side is measured, in turn")
    return made


@contextlib.contextmanager
def recorded(name: str, options: argparse.Namespace) -> Iterator[Report]:
    """A report that is printed, and appended to `--json`, once the block has filled it."""
    chosen = {key: value for key, value in vars(options).items() if key != "json"}
    report = Report(name, chosen)
    load, date, begun = os.getloadavg()[0], datetime.now(timezone.utc), time.monotonic()
    print(f"\n=== {name}", flush=True)
    yield report
    seconds = time.monotonic() - begun
    print(f"{report.table()}\n--- {name}: {seconds:.0f} s", flush=True)
    if options.json is not None:
        _append(
            options.json,
            {
                "benchmark": name,
                "date": date.isoformat(timespec="seconds"),
                "commit": _commit(),
                "machine": {**machine(), "load_before": round(load, 2)},
                "options": {key: str(value) if isinstance(value, Path) else value for key, value in chosen.items()},
                "seconds": round(seconds, 1),
                "figures": [each.to_json() for each in report.figures],
                "ratios": [each.to_json() for each in report.ratios],
                "notes": report.notes,
            },
        )


def machine() -> dict[str, Any]:
    memory_kb = int(_proc_line("/proc/meminfo", "MemTotal").split()[0])
    return {
        "cpu": _proc_line("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ray": importlib.metadata.version("ray"),
    }


def _values(values: Sequence[float] | float) -> tuple[float, ...]:
    return (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)


def _number(value: float) -> str:
    if value and abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _proc_line(path: str, key: str) -> str:
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "0 unknown")


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout

    commit = git("rev-parse", "--short=12", "HEAD").strip() or "unknown"
    return f"{commit}, with changes" if git("status", "--porcelain", "--untracked-files=no") else commit


def _append(path: Path, run: dict[str, Any]) -> None:
    """Whole or not at all: a run that is broken off must not cost the earlier ones."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps({"runs": [*runs, run]}, indent=1) + "\n")
    unfinished.replace(path)
