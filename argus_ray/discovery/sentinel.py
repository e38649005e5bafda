"""The sentinel: `root.json` on the shared filesystem, by which a root of this cluster is told from a bare mount point.

An explicit first start writes it. Who finds none makes no database and takes no epoch: to begin anew on a filesystem
that is just not mounted would answer every user with an empty cluster. It also names what this root has held since, so
that a file of these that is missing is lost, and not new.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from argus_ray.disk import atomic
from argus_ray.disk.lock import KernelLock

#: What a root may be noted to hold.
DATABASE = "argus.db"
EPOCH = "epoch.json"
#: Seconds; the lock is only ever held for one read and one small write.
_LOCK_TIMEOUT_S = 10.0


class RootUnknown(OSError):
    """The shared root does not prove to be this cluster's: not mounted, damaged, or never started on."""


@dataclass(frozen=True)
class Sentinel:
    #: Random: two roots of one cluster's name are told apart by it.
    id: str
    #: Of `DATABASE` and `EPOCH`, those that this root has held.
    holds: frozenset[str]


def path_in(folder: Path) -> Path:
    """`folder`: of the cluster's discovery files, on the shared root."""
    return folder / "root.json"


def read(folder: Path) -> Sentinel:
    """Raises RootUnknown."""
    found = _load(folder)
    if found is None:
        raise RootUnknown(
            f"{path_in(folder)} is not there: {_root_of(folder)} is not mounted, or Argus was never started on it "
            "(before its first start: `argus-head --init`)"
        )
    return found


def adopt(folder: Path) -> Sentinel:
    """`read`; a root that an earlier version of Argus was started on gets its sentinel. Raises RootUnknown, OSError."""
    if _load(folder) is None and _holds(folder):
        return begin(folder)
    return read(folder)


def begin(folder: Path) -> Sentinel:
    """The explicit first start: write the sentinel, durably, unless there is one. Raises RootUnknown for one that is
    damaged and for a root that is no folder, and OSError."""
    if not _root_of(folder).is_dir():
        raise RootUnknown(f"{_root_of(folder)} is no folder: is it mounted?")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        return _load(folder) or _write(folder, Sentinel(secrets.token_hex(8), _holds(folder)))


def note(folder: Path, name: str) -> None:
    """From now on this root has held it. Raises RootUnknown and OSError."""
    if name in read(folder).holds:
        return
    with _locked(folder):
        found = read(folder)
        _write(folder, Sentinel(found.id, found.holds | {name}))


def has_held(folder: Path, name: str) -> bool:
    """False also where there is no sentinel. Raises RootUnknown if it cannot be told."""
    found = _load(folder)
    return found is not None and name in found.holds


def _load(folder: Path) -> Sentinel | None:
    path = path_in(folder)
    try:
        raw = json.loads(atomic.read_small(path))
        found = Sentinel(str(raw["id"]), frozenset(str(name) for name in raw["holds"]))
        if raw["cluster"] != folder.name:
            raise ValueError(f"it is of the cluster {raw['cluster']!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RootUnknown(f"{path} cannot be used: {error}") from error
    return found


def _write(folder: Path, sentinel: Sentinel) -> Sentinel:
    content = {"cluster": folder.name, "id": sentinel.id, "holds": sorted(sentinel.holds)}
    atomic.write_atomically(path_in(folder), json.dumps(content).encode() + b"\n", mode=0o644)
    return sentinel


def _holds(folder: Path) -> frozenset[str]:
    """What is there now."""
    there = {DATABASE: database_of(folder), EPOCH: folder / EPOCH}
    return frozenset(name for name, path in there.items() if path.exists())


def database_of(folder: Path) -> Path:
    """As `paths.database_path` has it, which the launcher does not import."""
    return _root_of(folder) / "ray" / "state" / folder.name / DATABASE


def _root_of(folder: Path) -> Path:
    return folder.parents[2]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """In a folder that is there: the lock's file would else be made on a bare mount point."""
    with KernelLock(folder / "root.json.lock").held(_LOCK_TIMEOUT_S):
        yield
