"""Where verl makes its placement groups, one a node, by the name that it has imported."""

from typing import Any

from ray.util.placement_group import placement_group


def make_groups(nnodes: int, n_gpus: int) -> list[Any]:
    bundles = [{"CPU": 3, "GPU": 1}] * n_gpus
    prefix = f"global_poolverl_group_{'_'.join([str(n_gpus)] * nnodes)}:"
    return [
        placement_group(bundles=bundles, strategy="STRICT_PACK", name=f"{prefix}{i}", lifetime=None)
        for i in range(nnodes)
    ]
