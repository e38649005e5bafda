"""What this process holds open."""

from __future__ import annotations

import contextlib
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """The files and folders there that have a descriptor, itself included. Not how many descriptors there are: whatever
    other tests have left is closed at any time."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            found.append(descriptor.readlink())
    return [str(path) for path in found if path.is_relative_to(folder)]
