"""In vLLM's worker process, named by `engine_kwargs.vllm.worker_extension_cls`: what updates of weights need on a CPU.
There vLLM packs the weights of a linear layer and drops the originals, into which verl loads its updates. Here they
stay, and verl has vLLM pack them anew after each update."""

from __future__ import annotations

from typing import Any

import vllm.model_executor.layers.utils as layers
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

_dispatch = layers.dispatch_cpu_unquantized_gemm


def _keep_weights(layer: Any, remove_weight: bool) -> None:
    _dispatch(layer, remove_weight=False)


layers.dispatch_cpu_unquantized_gemm = _keep_weights


class WorkerExtension(vLLMColocateWorkerExtension):
    """verl's own."""


class DeafExtension(vLLMColocateWorkerExtension):
    """One that ignores each update after the first: the control, which the tests must tell from the real one."""

    _seen = 0

    def _update_weights(self, *arguments: Any, **settings: Any) -> None:
        self._seen += 1
        if self._seen <= 1:
            super()._update_weights(*arguments, **settings)
