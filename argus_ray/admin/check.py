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
    """How many job roots have no task, and attempts no job root. Costs one look at each folder there is."""
    strays = _counted(say, "job roots without a task", _strays(db, shared_root))
    missing = _counted(say, "attempts that ran and have no job root", _missing(db, shared_root))
    return strays + missing


def _strays(db: Database, shared_root: str) -> Iterator[str]:
    for user_id, jobs in _job_folders(Path(paths.users_dir(shared_root))):
        with os.scandir(jobs) as entries:
            names = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            while batch := list(islice(names, roots.PAGE)):
                yield from (f"{jobs}/{name}" for name in roots.unknown(db, user_id, batch))


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
        if not any(os.path.lexists(each) for each in (root, paths.trash(shared_root, user_id, submission_id))):
            yield f"{submission_id} of {ids.task_of(root)}"


def _counted(say: Say, what: str, found: Iterator[str]) -> int:
    """Streamed: the first are named, and none is kept."""
    count = 0
    for each in found:
        count += 1
        if count <= _NAMED:
            say(f"{what}: {each}")
    say(f"{what}: {count or 'none'}")
    return count


def _tell(say: Say, what: str, found: list[str]) -> None:
    for each in found:
        say(f"{what}: {each}")
    if not found:
        say(f"{what}: ok")
