"""The peer of a recovery: an application of Ray Serve that does nothing."""

from __future__ import annotations

from typing import Any

from ray import serve


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
class _Empty:
    async def __call__(self, request: Any) -> str:
        return "ok"


app: Any = _Empty.bind()  # type: ignore[attr-defined]
