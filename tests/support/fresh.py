"""A database of today's schema for the start of a test.

All the migrations, each a transaction that waits for the disk, cost more than most tests that begin with them: they run
once a process, and its tests get copies. What a migration does is for tests/store/test_store_open.py, which opens a
store where there is no file.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from argus_ray.store import migrations, store


@cache
def _migrated() -> bytes:
    """What `Store.open` makes of no file, before there is a writer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "argus.db"
        db = store._connect(file, 5.0, may_create=True)
        migrations.migrate(db, migrations.known())
        db.close()
        return file.read_bytes()


def put_database(path: str | os.PathLike[str]) -> None:
    """Where there is none. As the store makes it: for its owner alone, and its folders with it."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(made, "wb") as out:
        out.write(_migrated())
