"""The only place that turns a plain class into a Ray actor."""

from __future__ import annotations

from typing import Any

import ray

from argus_ray.cluster.view import HEAD_RESOURCE

#: All actors of Argus live in this Ray namespace, one set a cluster.
NAMESPACE = "argus"
STATE = "argus-state"
SCHEDULER = "argus-scheduler"
PUBLISHER = "argus-publisher"


def detached(cls: type, name: str, **options: Any) -> Any:
    """`cls` as a detached, named actor on the head that Ray restarts for ever.

    The head offers no CPUs, so the actor asks for none; a sliver of the head's own resource pins it there, as Ray
    Serve does for its controller. No method is retried by Ray: not all are idempotent, and the callers know better.
    """
    return ray.remote(cls).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        resources={HEAD_RESOURCE: 0.001},
        max_restarts=-1,
        max_task_retries=0,
        **options,
    )
