"""The epoch: a counter on the shared filesystem that rises by one each time a head takes over. The fence.

`epoch.json` names the present head. Whoever acts for a head checks it: the publisher before it writes head.json, the
state actor in each transaction, the launcher all the time. So a head that was paused while another one took over
finds a higher epoch and stops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
    """The last claim, or None if there was never one. Raises EpochUnknown."""
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
    with writing(folder):
        last = current(folder)
        taken = replace(claim, epoch=1 + (last.epoch if last else 0))
        atomic.write_atomically(path_in(folder), json.dumps(asdict(taken)).encode() + b"\n", mode=0o644)
    return taken


def check(folder: Path, mine: int) -> None:
    """Raises Superseded if the present epoch is higher, EpochUnknown if nobody can say."""
    last = current(folder)
    if last is not None and last.epoch > mine:
        raise Superseded(f"epoch {mine} is over: {last.host} ({last.head_ip}) is the head with epoch {last.epoch}")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """While it lasts nobody else raises the epoch or writes head.json. Raises TimeoutError and OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = KernelLock(folder / "head.json.lock")
    try:
        lock.acquire(_LOCK_TIMEOUT_S)
    except LockBusy:
        raise TimeoutError(f"{lock.path} is held by another process for more than {_LOCK_TIMEOUT_S:g} s") from None
    try:
        yield
    finally:
        lock.release()
