"""Where verl's GPUs and its small actors are, in a cluster that others use too. Loaded through
VERL_USE_EXTERNAL_MODULES.

Argus has assigned the nodes (ARGUS_NODES, in order). verl makes one placement group a node, by
ray.util.placement_group's function (verl 0.9, single_controller/ray/base.py); each is told its node here. A verl that
makes them otherwise, or more of them, is refused with a clear word: it would take GPUs that are another gang's.

verl's agent loop and reward workers need a free CPU for a moment when they start, and TransferQueue's
controller and storage hold one each, the storage on the first nodes of the cluster, whether or not these
belong to the run. In a cluster whose CPUs are all in use, or on a first node whose CPUs are, the run would
wait for ever, holding its GPUs; and the death of a node that it has no GPU on would end it. So they ask for
no CPU (the run's bundles have three a GPU, which covers them), and stay on the node of their creator: the
driver's, which is a worker. An actor that must be on a certain node, as a rollout server beside its GPUs,
stays there."""

from __future__ import annotations

import atexit
import functools
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import argus_own_raylet  # type: ignore[import-not-found]  # a neighbour on the workers' PYTHONPATH
import argus_ray_poll  # type: ignore[import-not-found]
import ray
from ray.actor import ActorClass
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

#: What verl's task runner prints reaches the driver's log through Ray's log monitor, which polls: seen to lose the last
#: lines of a run whose driver ends at once. Seconds.
DRAIN_S = 2.0
#: Explicitly one CPU each in TransferQueue (controller.py, storage/simple_storage.py).
_TRANSFER_QUEUE = ("TransferQueueController", "SimpleStorageUnit")
#: Ray gives each node this label, with its id.
_NODE_LABEL = "ray.io/node-id"
_VERLS_GROUPS = "verl.single_controller.ray.base"
_DEMANDS = ("num_cpus", "num_gpus", "resources", "memory")


@functools.cache
def own_node() -> str | None:
    """The node of this process, if that is one for work. With several nodes on one host Ray attaches a
    driver to any of them, the head included; then what the driver creates goes where Ray finds a free
    CPU."""
    node_id = ray.get_runtime_context().get_node_id()
    works = any(node["NodeID"] == node_id and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    return str(node_id) if works else None


def relaxed(class_name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an actor that is about to be created, without a demand that could leave it waiting."""
    asks = any(options.get(demand) for demand in _DEMANDS)
    if asks and class_name not in _TRANSFER_QUEUE:
        return options
    strategy = options.get("scheduling_strategy")
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        return options
    if options.get("placement_group") not in (None, "default"):
        return options
    must_be_there = isinstance(strategy, NodeAffinitySchedulingStrategy) and not strategy.soft
    if class_name in _TRANSFER_QUEUE or not must_be_there:
        node = own_node()
        if node is None:
            return options
        # Not a soft wish: Ray 2.60 was seen to put actors without demands on the head in spite of one.
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return {**options, "num_cpus": 0, "scheduling_strategy": strategy}


def assigned(nodes: Sequence[str], make: Callable[..., Any]) -> Callable[..., Any]:
    """`make` (ray.util.placement_group.placement_group), with one of these nodes for each group of verl's, in their
    order. What others ask for stays as it is."""
    left = list(nodes)

    @functools.wraps(make)
    def placement_group(*args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__") != _VERLS_GROUPS:
            return make(*args, **kwargs)
        asked = inspect.signature(make).bind(*args, **kwargs)
        bundles, strategy = asked.arguments["bundles"], asked.arguments.get("strategy")
        if strategy != "STRICT_PACK" or not left or asked.arguments.get("bundle_label_selector"):
            raise RuntimeError(
                f"argus: verl asks for a placement group ({strategy}, {len(bundles)} bundles, {len(left)} of "
                f"{len(nodes)} nodes left) that is none of one whole node: this verl is not the one that Argus knows"
            )
        asked.arguments["bundle_label_selector"] = [{_NODE_LABEL: left.pop(0)}] * len(bundles)
        return make(*asked.args, **asked.kwargs)

    return placement_group


def _install() -> None:
    nodes = [node for node in os.environ.get("ARGUS_NODES", "").split(",") if node]
    if nodes:
        # The module: `ray.util` has the function under the same name.
        groups = importlib.import_module("ray.util.placement_group")
        groups.placement_group = assigned(nodes, groups.placement_group)  # type: ignore[attr-defined]

    create = ActorClass._remote

    @functools.wraps(create)
    def placed_create(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return create(self, args, kwargs, **relaxed(self.__ray_metadata__.class_name, options))

    ActorClass._remote = placed_create

    argus_ray_poll.install(ray._raylet)
    init = ray.init

    @functools.wraps(init)
    def init_at_own_raylet(*args: Any, **kwargs: Any) -> Any:
        context = init(*args, **{**argus_own_raylet.options(), **kwargs})
        # Runs before Ray's own exit handler, which waits for half a second only.
        atexit.register(time.sleep, DRAIN_S)
        return context

    ray.init = init_at_own_raylet


_install()
