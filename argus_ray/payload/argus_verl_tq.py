"""One TransferQueue per attempt. Loaded by verl in each of its processes through VERL_USE_EXTERNAL_MODULES.

TransferQueue 0.1 names its controller "TransferQueueController" in the fixed Ray namespace "transfer_queue"
(transfer_queue/interface.py), and attaches to one that is there: two RL runs of one cluster put their
samples through one queue, and the second hangs when the first ends. Here that namespace becomes one per
attempt, wherever an actor is created or looked up in it.

Nothing else is shared, as read in verl 0.9.1 and TransferQueue 0.1.11 (every `.options(name=` and
`get_actor(`): the storage units, agent loop and reward loop workers, rollout servers and worker groups have
names too, but no namespace of their own, and a Ray job without one gets a random one. The object store
backend (RayObjectRefStorage) uses "transfer_queue" and is covered. The vLLM weight socket in /tmp carries
the Ray job id. TrajectoryTracker is detached, but in the job's own namespace, and off."""

from __future__ import annotations

import functools
import os
from typing import Any

import ray
from ray.actor import ActorClass

SHARED_NAMESPACE = "transfer_queue"
_OWN_NAMESPACE = f"{SHARED_NAMESPACE}-{os.environ['ARGUS_SUBMISSION_ID']}"


def own_namespace(name: str | None, namespace: str | None) -> str | None:
    """Where the actor is to be. Raises if the controller's name stands where we did not expect it: a
    version that this module does not know would share one queue among all tasks, and must not run."""
    if namespace == SHARED_NAMESPACE:
        return _OWN_NAMESPACE
    if name == "TransferQueueController" and namespace != _OWN_NAMESPACE:
        raise RuntimeError(
            f"TransferQueueController in the Ray namespace {namespace!r}, not {SHARED_NAMESPACE!r}: "
            "this version is unknown to argus_verl_tq, and its queue might be shared with other tasks"
        )
    return namespace


def _isolate() -> None:
    get_actor = ray.get_actor
    create = ActorClass._remote

    @functools.wraps(get_actor)
    def isolated_get_actor(name: str, namespace: str | None = None) -> Any:
        return get_actor(name, own_namespace(name, namespace))

    @functools.wraps(create)
    def isolated_create(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if options.get("name") is not None:
            options["namespace"] = own_namespace(options["name"], options.get("namespace"))
        return create(self, args, kwargs, **options)

    ray.get_actor = isolated_get_actor
    ActorClass._remote = isolated_create


_isolate()
