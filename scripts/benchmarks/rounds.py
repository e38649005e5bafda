"""Measuring things in turn, and how much one thread can put on the disk."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def alternate(rounds: int, sides: Mapping[str, Callable[[], _T]]) -> dict[str, list[_T]]:
    """A B A B ...: a machine that slows down, or a neighbour, then meets all sides alike."""
    found: dict[str, list[_T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def fsyncs_a_second(folder: Path, seconds: float) -> float:
    """The floor under "accepted means on disk": 4 KiB appended to one file and an fsync, one at a time."""
    path = folder / f"fsync-{secrets.token_hex(4)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            count += 1
        return count / (time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(len(ordered) * share)))]
