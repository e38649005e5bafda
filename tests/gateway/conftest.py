"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.disk.job_files import JobFile
from tests.support.gateway import Api, Headers, make_api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path)
    # Entered, the client keeps one event loop for all its requests.
    with made.client:
        yield made
    made.world.close()


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
