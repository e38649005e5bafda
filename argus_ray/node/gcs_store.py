"""Where the head's Ray keeps its state: a folder on the shared filesystem for each head, used again where that is good.

Ray 2.60 can use a store again only at the address that it was made at, and with the same Ray and Python.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from argus_ray.discovery.epoch import HeadClaim
from argus_ray.node.decision import Versions


@dataclass(frozen=True)
class Store:
    path: str
    is_the_last: bool
    #: In words, where the last head was at this address and its store is not used; empty else.
    why_not_the_last: str = ""


def choose(root: Path, here: HeadClaim, last: HeadClaim | None, mine: Versions, *, may_reuse: bool) -> Store:
    """The last head's store, or an empty one. `may_reuse`: the last one has not failed to open too often."""
    versions = f"ray{mine.ray}-py{mine.python}"
    why = ""
    if last is not None and last.gcs_dir and (last.head_ip, last.gcs_port) == (here.head_ip, here.gcs_port):
        if f"-{versions}-" in Path(last.gcs_dir).name and may_reuse:
            return Store(last.gcs_dir, is_the_last=True)
        why = f"{versions} is new here"
    fresh = root / f"e{1 + (last.epoch if last else 0)}-{versions}-{secrets.token_hex(3)}"
    return Store(str(fresh), is_the_last=False, why_not_the_last=why)


def delete_old(root: Path, kept: str) -> None:
    """Delete the stores of heads before this one."""
    with contextlib.suppress(OSError):
        for old in root.iterdir():
            if (
                str(old) != kept
                and re.fullmatch(r"e\d+-.*[0-9a-f]{6}", old.name)
                and old.is_dir()
                and not old.is_symlink()
            ):
                shutil.rmtree(old, ignore_errors=True)
