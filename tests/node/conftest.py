"""The machine on which launcher and watchdog run, with a `ray` that is ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeray import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """With the cluster token; a module in which the launcher is to make it has a fixture of its own."""
    made = Machine(tmp_path)
    made.make_token()
    yield made
    made.close()
