"""A client of the real gateway behind a real server, over a real service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.client import Client
from tests.gateway.test_stream_server import served
from tests.support.gateway import ADMIN_TOKEN, Api, make_api

MakeClient = Callable[..., Client]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path)
    with made.client:
        yield made
    made.world.close()


@pytest.fixture
def port(api: Api) -> Iterator[int]:
    # An application of its own: each belongs to one event loop, and that of `api` has another.
    with served(api.make_app()) as found:
        yield found


@pytest.fixture
def connect(port: int) -> Iterator[MakeClient]:
    """Makes clients of the server: with this token, and these options."""
    made: list[Client] = []

    def connected(token: str | None, **options: Any) -> Client:
        client = Client(f"http://127.0.0.1:{port}", token, **{"retry_s": 2.0, "follow_s": 5.0, **options})
        made.append(client)
        return client

    yield connected
    for client in made:
        client.close()


@pytest.fixture
def admin(connect: MakeClient) -> Client:
    return connect(ADMIN_TOKEN)


@pytest.fixture
def alice(admin: Client, connect: MakeClient) -> Client:
    admin.create_user("alice", "Alice")
    return connect(admin.issue_token("alice").token)
