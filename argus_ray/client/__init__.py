"""The Python client of the HTTP API, for people: standard library and httpx2 only, so it runs without the server.

    from argus_ray.client import Client

    with Client("http://head:8000", token) as argus:
        task = argus.submit(open("task.yaml").read())
        (ended,) = argus.wait([task.task_id])

Nothing is loaded before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argus_ray.client.client import Client as Client
    from argus_ray.client.errors import ApiError as ApiError
    from argus_ray.client.errors import ArgusError as ArgusError
    from argus_ray.client.errors import ServerUnreachable as ServerUnreachable
    from argus_ray.client.errors import WaitTimeout as WaitTimeout

_WHERE = {
    "Client": "client",
    "ApiError": "errors",
    "ArgusError": "errors",
    "ServerUnreachable": "errors",
    "WaitTimeout": "errors",
}
__all__ = ["ApiError", "ArgusError", "Client", "ServerUnreachable", "WaitTimeout"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
