"""Files that lie in a user's code under the names of modules that all else needs."""

from __future__ import annotations

from pathlib import Path

#: Of the standard library, and Ray itself.
NAMES = ("secrets", "selectors", "queue", "json", "ray")


def put(folder: Path, *names: str) -> None:
    """Whoever imports one fails."""
    for name in names or NAMES:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name}.py of the user was imported')\n")
