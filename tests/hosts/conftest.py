"""One lab with a pool for all tests of a session: hosts take a second, but Ray takes half a minute."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, require_root
from pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    require_root()
    # Short: Ray's Unix sockets lie below the hosts' own /tmp, but paths end up in command lines, too.
    root = Path(f"/var/tmp/al-{os.getpid()}")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    try:
        with Lab(root) as lab:
            yield Pool(lab)
    finally:
        if not os.environ.get("ARGUS_TEST_KEEP"):
            shutil.rmtree(root, ignore_errors=True)
