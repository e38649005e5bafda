"""The epoch: a counter on the shared filesystem that rises by one each time a head takes over. The fence.

`epoch.json` names the present head. Whoever acts for a head checks it: the publisher before it writes head.json, the
state actor in each transaction, the launcher all the time. So a head that was paused while another one took over
finds a higher epoch and stops.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from argus_ray.discovery import sentinel
from argus_ray.disk import atomic
from argus_ray.disk.lock import KernelLock, LockBusy

#: The environment variable by which the launcher tells its Ray processes, and so the actors, their epoch.
VARIABLE = "ARGUS_EPOCH"
#: Seconds; the lock is only ever held for one read and one small write.
_LOCK_TIMEOUT_S = 10.0


class EpochUnknown(Exception):
    """epoch.json cannot be read or holds no epoch. Not the same as "there is none"."""


class Superseded(Exception):
    """A head with a higher epoch has taken over."""


@dataclass(frozen=True)
class HeadClaim:
    """Who is the head. `gcs_dir`: where its GCS keeps its store; empty if in memory."""

    epoch: int
    host: str
    head_ip: str
    gcs_port: int
    gcs_dir: str = ""


def path_in(folder: Path) -> Path:
    return folder / "epoch.json"


def current(folder: Path) -> HeadClaim | None:
    """The last claim, or None if there was never one on this root. Raises EpochUnknown, also where there was one."""
    path = path_in(folder)
    try:
        raw = json.loads(atomic.read_small(path))
        claim = HeadClaim(
            epoch=int(raw["epoch"]),
            host=str(raw["host"]),
            head_ip=str(raw["head_ip"]),
            gcs_port=int(raw["gcs_port"]),
            gcs_dir=str(raw.get("gcs_dir", "")),
        )
    except FileNotFoundError:
        if _was_there(folder):
            raise EpochUnknown(f"{path} is gone, and there was one: restore it") from None
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EpochUnknown(f"{path} cannot be used: {error}") from error
    if claim.epoch < 1:
        raise EpochUnknown(f"{path} holds the epoch {claim.epoch}")
    return claim


def take(folder: Path, claim: HeadClaim) -> HeadClaim:
    """Become the head: store the claim with an epoch one above the last, durably, and return it.

    The caller holds the head's lock. Raises EpochUnknown, OSError, and TimeoutError when the short lock is not free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        last = current(folder)
        taken = replace(claim, epoch=1 + (last.epoch if last else 0))
        atomic.write_atomically(path_in(folder), json.dumps(asdict(taken)).encode() + b"\n", mode=0o644)
        if sentinel.path_in(folder).exists():
            sentinel.note(folder, sentinel.EPOCH)
    return taken


def _was_there(folder: Path) -> bool:
    try:
        return sentinel.has_held(folder, sentinel.EPOCH)
    except sentinel.RootUnknown as error:
        raise EpochUnknown(str(error)) from error


def check(folder: Path, mine: int) -> None:
    """Raises Superseded if the present epoch is higher, EpochUnknown if nobody can say. A file that is missing says
    nothing: an epoch was taken, so it was there."""
    last = current(folder)
    if last is None:
        raise EpochUnknown(f"{path_in(folder)} is not there: the shared root is not mounted, or the file was lost")
    if last.epoch > mine:
        raise Superseded(f"epoch {mine} is over: {last.host} ({last.head_ip}) is the head with epoch {last.epoch}")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """While it lasts nobody else raises the epoch or writes head.json. Raises TimeoutError and OSError, also where the
    folder is not there: it would be made on a bare mount point."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "is not there", str(folder))
    lock = KernelLock(folder / "head.json.lock")
    try:
        lock.acquire(_LOCK_TIMEOUT_S)
    except LockBusy:
        raise TimeoutError(f"{lock.path} is held by another process for more than {_LOCK_TIMEOUT_S:g} s") from None
    try:
        yield
    finally:
        lock.release()
