"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from argus_ray.disk import log_search, rollouts
from argus_ray.disk.job_files import JobFile
from argus_ray.gateway.logs.searches import Searches
from tests.support.gateway import PATIENCE_S, Api, Headers, make_api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path)
    # Entered, the client keeps one event loop for all its requests.
    with made.client:
        yield made
    made.world.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time with files; tests of these bounds set their own."""
    for name in ("context._PROGRESS_TIMEOUT_S", "context._PROGRESS_READ_S", "app._PREFLIGHT_S"):
        monkeypatch.setattr(f"argus_ray.gateway.{name}", PATIENCE_S)
    monkeypatch.setattr(Searches, "budget", lambda _: log_search.Budget(max_s=PATIENCE_S, window_s=PATIENCE_S))
    for module in ("reader", "routes"):
        monkeypatch.setattr(f"argus_ray.gateway.rollouts.{module}.Budget", partial(rollouts.Budget, seconds=PATIENCE_S))


@pytest.fixture
def alice(api: Api) -> Headers:
    return api.user("alice")


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what downloads read from now on, in bytes."""
    read: list[int] = []
    real = JobFile.read

    def counted(self: JobFile, offset: int, length: int) -> bytes:
        read.append(length)
        return real(self, offset, length)

    monkeypatch.setattr(JobFile, "read", counted)
    return read
