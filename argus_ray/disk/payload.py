"""Publish what a job needs from Argus on its worker: a copy of `argus_ray/payload` on the shared filesystem, named by
its content. Workers hold nothing of ours; a running job keeps the version that it started with."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import py_compile
import shutil
import tempfile
from pathlib import Path

from argus_ray.core import paths

SOURCE = Path(__file__).resolve().parents[1] / "payload"


def publish(shared_root: str, source: Path = SOURCE) -> str:
    """The folder of this version, complete and readable by all; made if it is not there. Raises OSError.

    Two publishers may race: each fills a folder of its own, and the first rename wins.
    """
    target = folder(shared_root, source)
    if target.is_dir():
        return str(target)
    files, root = _files(source), target.parent
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=root))
    try:
        for path in files:
            copy = building / path.name
            shutil.copyfile(path, copy)
            copy.chmod(0o644)
            _sync(copy)
            _compile(copy, target / path.name)
        building.chmod(0o755)
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return str(target)


def folder(shared_root: str, source: Path = SOURCE) -> Path:
    """Where `publish` puts this version. Reads the source alone."""
    digest = hashlib.sha256()
    for path in _files(source):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Path(paths.payload_root(shared_root)) / digest.hexdigest()[:16]


def _files(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.suffix == ".py" and path.name != "__init__.py")


def _compile(copy: Path, final: Path) -> None:
    """For workers with this version of Python, which may not write here: each start of a run would compile it anew. It
    cannot be out of date, since the folder is named by its content."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    made = Path(importlib.util.cache_from_source(str(copy)))
    py_compile.compile(str(copy), str(made), str(final), doraise=True, invalidation_mode=mode)
    made.chmod(0o644)
    made.parent.chmod(0o755)
    _sync(made)


def _sync(path: Path) -> None:
    """A half of it, after a crash of the file server, would be this version for ever."""
    with path.open("rb") as written:
        os.fsync(written.fileno())
