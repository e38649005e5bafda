"""What the scheduler writes down of the nodes that it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simlab import Lab, checked_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def test_an_admission_tells_the_nodes_as_they_are(lab: Lab) -> None:
    names = [lab.world.submit(lab.ada), lab.world.submit(lab.ada)]
    lab.tick()
    view = lab.dispatcher.view
    assert view is not None
    known = {node.node_id: node for node in view.nodes}
    placed = []
    for name in names:
        [attempt] = lab.task(name).attempts
        assert attempt.placement is not None and len(attempt.placement) == 1
        assert tuple(node.node_id for node in attempt.placement) == attempt.nodes
        for node in attempt.placement:
            seen = known[node.node_id]
            assert (node.hostname, node.ip, node.gpus) == (seen.hostname, seen.ip, 4)
            placed.append(node.node_id)
    assert len(set(placed)) == 2
