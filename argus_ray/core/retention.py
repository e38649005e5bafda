"""What may go from the disk, and when. Pure; the store has the whereabouts, `argus_ray.disk.trash` the hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from argus_ray.core.model import Task

_T = TypeVar("_T")
DAY_S = 86_400.0


@dataclass(frozen=True)
class RetentionPolicy:
    """0: off."""

    #: From the end of a task until its job roots move to the trash; then until they are deleted.
    trash_after_days: float = 0.0
    delete_after_days: float = 0.0
    #: Newest complete checkpoints of each task that stay.
    keep_checkpoints: int = 0


@dataclass(frozen=True)
class Chores:
    """What one pass over the disk may do. The store has decided it in one transaction."""

    #: To be measured.
    look: tuple[Task, ...] = ()
    #: Of those, by id: nothing of them is alive, and nothing that is alive or waits may resume from them.
    prunable: frozenset[str] = frozenset()
    trash: tuple[Task, ...] = ()
    delete: tuple[Task, ...] = ()


def checkpoints_to_delete(newest_first: Sequence[_T], keep: int) -> Sequence[_T]:
    """Of the complete checkpoints of one task those that may go: never the newest one."""
    return newest_first[max(1, keep) :] if keep else ()
