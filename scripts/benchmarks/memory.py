"""What processes take: proportional set sizes (PSS), so that memory that several share counts once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.cluster import command_of


def by_program(pids: Iterable[int]) -> dict[str, float]:
    """MB, by a short name of the program."""
    found: dict[str, float] = {}
    for pid in pids:
        name = _name(pid)
        found[name] = found.get(name, 0.0) + pss_mb(pid)
    return found


def pss_mb(pid: int) -> float:
    """0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def bytes_in(folder: Path, pattern: str) -> int:
    """Of the files below the folders of this pattern."""
    total = 0
    for found in folder.glob(pattern):
        for path in found.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


class Peaks(threading.Thread):
    """The highest values seen, a look a second, until `stop`."""

    def __init__(self, look: Callable[[], dict[str, float]]) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._over = threading.Event()
        self.total = 0.0
        self.each: dict[str, float] = {}

    def run(self) -> None:
        while not self._over.wait(1):
            seen = self._look()
            self.total = max(self.total, sum(seen.values()))
            self.each = {name: max(self.each.get(name, 0.0), value) for name, value in seen.items()}

    def stop(self) -> None:
        self._over.set()
        self.join()


def _name(pid: int) -> str:
    """As `ray::StateActor`, `gcs_server`, `haproxy`; Python programs by their module or script."""
    words = command_of(pid).split()
    if not words:
        return "(ended)"
    if "python" in Path(words[0]).name and len(words) > 1:
        words = words[2:] if words[1] == "-m" and len(words) > 2 else [w for w in words[1:] if not w.startswith("-")]
    name = words[0] if words else "python"
    return name.split(".")[0] if name.startswith("ray::") else Path(name).name
