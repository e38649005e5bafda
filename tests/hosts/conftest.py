"""One lab with a pool for all tests of a session: hosts take a second, but Ray takes half a minute."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Host, require_root, wait_for
from tests.support.pool import PATIENCE_S, Pool, RayLab


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    require_root()
    # Short: Ray's Unix sockets lie below the hosts' own /tmp, but paths end up in command lines, too.
    root = Path(f"/var/tmp/al-{os.getpid()}")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    try:
        with RayLab(root) as lab:
            yield Pool(lab)
    finally:
        if not os.environ.get("ARGUS_TEST_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def hosts(pool: Pool) -> dict[str, Host]:
    """All four, with nothing on them."""
    lasts = {"ha": 11, "hb": 12, "wa": 21, "wb": 22}
    return {name: pool.lab.host(name, last) for name, last in lasts.items()}


@pytest.fixture(scope="session")
def story(pool: Pool, hosts: dict[str, Host]) -> None:
    """The pool came up: a head on `ha`, two workers that were started before it and told no address."""
    begun = time.monotonic()
    for name in ("wa", "wb"):
        pool.start_worker(hosts[name])
    for name in ("wa", "wb"):
        say = f"{name} waits for head.json"
        wait_for(say, lambda host=hosts[name]: pool.status(host).get("state") == "waiting", 30, lab=pool.lab)  # type: ignore[misc]
    pool.start_head(hosts["ha"])
    pool.wait_ready(hosts["ha"])
    ready_s = time.monotonic() - begun
    for name in ("wa", "wb"):
        pool.wait_joined(hosts[name])
    wait_for("1 + 2 nodes and 8 GPUs", lambda: len(pool.nodes()) == 3 and pool.gpus() == 8, PATIENCE_S, lab=pool.lab)
    print(f"\nAPI ready after {ready_s:.1f} s, all workers in after {time.monotonic() - begun:.1f} s")
