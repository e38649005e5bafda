"""The scheduler's ports on real things, as far as they need no Ray."""

from __future__ import annotations

import asyncio
import socket

from argus_ray.actors.adapters import ClusterLook
from argus_ray.core.model import NodeView
from argus_ray.disk.threads import BoundedThreads


def test_a_node_answers_while_something_listens_at_its_port() -> None:
    look = ClusterLook(BoundedThreads("ray", 1), 5.0)

    def answers(port: int) -> bool:
        return asyncio.run(look.answers(NodeView("n1", "127.0.0.1", False, 1, 1, 1, 1, 1, 1, port=port)))

    with socket.create_server(("127.0.0.1", 0)) as raylet:
        port = raylet.getsockname()[1]
        assert answers(port)
    assert not answers(port)
