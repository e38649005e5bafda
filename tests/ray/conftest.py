"""One real Ray cluster a session: a head that offers nothing, two workers with four logical GPUs, the service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from argus_ray.local.cluster import OneMachine
from tests.support import shadows
from tests.support.raycluster import ADMIN_TOKEN, FOLDERS, IN_USE, INTERNAL_TOKEN, ROOT, Cluster, end_orphans, mark_of

# Short: Ray's Unix sockets lie below it.
_FOLDER = FOLDERS / f"argus-t-{os.getpid()}"
# Ray reads these when it is imported, which the test modules do.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(_FOLDER / "ray-token"), RAY_USAGE_STATS_ENABLED="0")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    end_orphans()
    root = _FOLDER
    root.mkdir(mode=0o700)
    IN_USE.add(root)
    environ = {"ARGUS_ADMIN_TOKEN": ADMIN_TOKEN, "MVP_INTERNAL_TOKEN": INTERNAL_TOKEN}
    machine = OneMachine(root, mark_of(root), environ=environ)
    (machine.shared_root / "common" / "plans").mkdir(parents=True)
    shutil.copytree(ROOT / "tests" / "standin", machine.shared_root / "common" / "standin")
    # Beside the code of nearly each task here; no process of Ray's or of a run may import them.
    shadows.put(machine.shared_root / "common" / "standin")
    try:
        machine.start_head()
        machine.wait_for_head()
        for name in ("worker-1", "worker-2"):
            machine.start_worker(name)
        # The file as it stands in the repository, and users may have inputs of their own.
        text = (ROOT / "serve_config.yaml").read_text()
        assert text.count("own_folders: false") == 1
        (root / "own_folders.yaml").write_text(text.replace("own_folders: false", "own_folders: true"))
        machine.serve(root / "own_folders.yaml")
        for name in ("worker-1", "worker-2"):
            machine.wait_for_worker(name)
        machine.wait_for_service()
        with httpx2.Client(base_url=machine.url, timeout=60, trust_env=False) as http:  # no proxy
            yield Cluster(machine, http)
    finally:
        _disconnect()
        machine.stop()
        if not os.environ.get("ARGUS_TEST_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


def _disconnect() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()


@pytest.fixture
def ray_view(cluster: Cluster) -> Any:
    """This process attached to the cluster, for looking at Ray's own state."""
    import ray

    if not ray.is_initialized():
        ray.init(address=cluster.machine.address, log_to_driver=False, logging_level="ERROR", namespace="argus")
    return ray
