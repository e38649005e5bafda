"""Fixtures of the gateway's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# With import-mode=importlib a test module cannot import its neighbour unless its folder is on the path.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from gateway_world import Api, Headers


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    from gateway_world import make_api

    made = make_api(tmp_path)
    # Entered, the client keeps one event loop for all its requests.
    with made.client:
        yield made
    made.world.close()


@pytest.fixture
def alice(api: Api) -> Headers:
    return api.user("alice")
