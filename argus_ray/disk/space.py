"""How much is free on the shared filesystem. Blocking: for a bounded thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.reserve import Space
from argus_ray.disk import beneath
from argus_ray.disk.beneath import NOT_THERE


def folders(shared_root: str, cluster_name: str) -> tuple[str, ...]:
    """What grows and what must be able to: an operator may have made each a filesystem of its own."""
    database = str(Path(paths.database_path(shared_root, cluster_name)).parent)
    return shared_root, f"{shared_root}/users", database


def least(folders: Sequence[str]) -> Space | None:
    """Where the least is free for us. A folder that is not there says nothing, nor does a filesystem that does not
    count; None: none of them says anything. Raises OSError."""
    found: list[Space] = []
    for folder in folders:
        with beneath.suppress(*NOT_THERE):
            seen = os.statvfs(folder)
            if seen.f_blocks:
                found.append(Space(seen.f_bavail * seen.f_frsize, folder, seen.f_blocks * seen.f_frsize))
    return min(found, key=lambda each: each.free, default=None)
