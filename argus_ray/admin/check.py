"""`argus-admin check`: everything that can be found wrong with a database, and where it and the disk do not agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from argus_ray.core import ids, paths
from argus_ray.store import health, roots
from argus_ray.store.health import Database

Say = Callable[[str], None]
#: Findings of one kind that are named; all are counted.
_NAMED = 20


def soundness(db: Database, say: Say) -> int:
    """How much is wrong in the file. Raises SchemaError."""
    say(f"schema: version {health.version(db)}")
    broken = health.damage(db, quick=False)
    _tell(say, "integrity", broken)
    references = [] if broken else health.broken_references(db)
    if not broken:
        _tell(say, "references", references)
    return len(broken) + len(references)


def orphans(db: Database, shared_root: str, say: Say) -> int:
    """How many job roots have no attempt, and attempts no job root. Costs one look at each folder there is."""
    strays = _Findings(say, "job roots without a task")
    newer = _Findings(say, "job roots of attempts that the database does not know, of tasks that it knows")
    for root, has_task in _strays(db, shared_root):
        (newer if has_task else strays).add(root)
    missing = _Findings(say, "attempts that ran and have no job root")
    for attempt in _missing(db, shared_root):
        missing.add(attempt)
    return strays.told() + newer.told() + missing.told()


def _strays(db: Database, shared_root: str) -> Iterator[tuple[str, bool]]:
    """Job roots without an attempt, and whether their task is there."""
    for user_id, jobs in _job_folders(Path(paths.users_dir(shared_root))):
        with os.scandir(jobs) as entries:
            names = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            while batch := list(islice(names, roots.PAGE)):
                unknown = {name: _task_of(f"{jobs}/{name}") for name in roots.unknown(db, user_id, batch)}
                known = roots.known_tasks(db, user_id, set(unknown.values()))
                yield from ((f"{jobs}/{name}", task in known) for name, task in unknown.items())


def _task_of(job_root: str) -> str:
    """Empty for a folder that is no job root."""
    try:
        return ids.task_of(job_root)
    except ValueError:
        return ""


def _job_folders(users: Path) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(users) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    for name in names:
        jobs = users / name / "jobs"
        if jobs.is_dir() and not jobs.is_symlink():
            yield name, jobs


def _missing(db: Database, shared_root: str) -> Iterator[str]:
    for user_id, submission_id in roots.expected(db):
        root = paths.job_root(shared_root, user_id, submission_id)
        if not any(_is_there(each) for each in (root, paths.trash(shared_root, user_id, submission_id))):
            yield f"{submission_id} of {ids.task_of(root)}"


def _is_there(path: str) -> bool:
    """Raises OSError where it cannot be looked at, which is not that it is missing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class _Findings:
    """Of one kind. Streamed: the first are named, and none is kept."""

    def __init__(self, say: Say, what: str) -> None:
        self._say, self._what, self._count = say, what, 0

    def add(self, name: str) -> None:
        self._count += 1
        if self._count <= _NAMED:
            self._say(f"{self._what}: {name}")

    def told(self) -> int:
        """How many; the number is said, too."""
        self._say(f"{self._what}: {self._count or 'none'}")
        return self._count


def _tell(say: Say, what: str, found: list[str]) -> None:
    for each in found:
        say(f"{what}: {each}")
    if not found:
        say(f"{what}: ok")
