"""A rollout for verl without vLLM: `actor_rollout_ref.rollout.name=hf_cpu`, one Ray actor a replica that
calls the Hugging Face model token by token. Loaded through VERL_USE_EXTERNAL_MODULES with trainer_device
cpu.

Limits: float32, one sequence at a time, no top-k or top-p, no tensor parallelism, no multi-modal input;
weights travel whole, through Ray. For models that generate in seconds on one core.

A run on one GPU can be repeated: what is sampled follows from the seed of the configuration, the training step and the
prompt, not from the order in which requests come. With more, it depends on which replica verl asks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import ray
import torch
from verl.workers.rollout import base
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "hf_cpu"


def server_name(replica_rank: int) -> str:
    """Unique within the job, which has a Ray namespace of its own."""
    return f"{NAME}_server_{replica_rank}_0"


class Server:
    """The actor: the model with the newest weights, and its sampling loop."""

    def __init__(self, path: str, response_length: int, seed: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa", dtype=torch.float32)
        self._model = model.eval()
        self._end = AutoTokenizer.from_pretrained(path).eos_token_id
        self._response_length = response_length
        self._seed = seed
        self._step: int | None = None
        #: How often each prompt was asked for since the weights came.
        self._asked: Counter[tuple[int, ...]] = Counter()

    async def load_weights(self, named: list[tuple[str, Any]], global_steps: int | None) -> None:
        state = {name: torch.from_numpy(array) for name, array in named}
        missing, unexpected = self._model.load_state_dict(state, strict=False)
        # A tied output layer is not sent; anything else would leave old weights in place, silently.
        if unexpected or any("lm_head" not in name for name in missing):
            raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
        self._step = global_steps
        self._asked.clear()

    def _generator(self, prompt: tuple[int, ...]) -> torch.Generator:
        """A stream of its own for each request, so that requests do not disturb each other."""
        self._asked[prompt] += 1
        origin = repr((self._seed, self._step, prompt, self._asked[prompt])).encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(origin, digest_size=7).digest(), "big"))

    async def generate(
        self, prompt_ids: Iterable[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        limit = sampling_params.get("max_tokens") or sampling_params.get("max_new_tokens")
        temperature = sampling_params.get("temperature", 1.0)
        prompt = tuple(int(token) for token in prompt_ids)
        generator = self._generator(prompt)
        ids = torch.tensor([prompt])
        tokens: list[int] = []
        log_probs: list[float] = []
        cache = None
        reason = "length"
        for _index in range(limit or self._response_length):
            with torch.no_grad():
                output = self._model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            distribution = torch.log_softmax(output.logits[0, -1] / (temperature or 1.0), -1)
            token = int(
                torch.multinomial(distribution.exp(), 1, generator=generator) if temperature else distribution.argmax()
            )
            tokens.append(token)
            log_probs.append(float(distribution[token]))
            if token == self._end:
                reason = "completed"
                break
            ids = torch.tensor([[token]])
            await asyncio.sleep(0)  # let the other requests have their turn
        return TokenOutput(
            token_ids=tokens,
            log_probs=log_probs if sampling_params.get("logprobs") else None,
            stop_reason=reason,
            extra_fields={"global_steps": self._step},
        )

    async def _nothing(self, *_: Any, **__: Any) -> None:
        """There is no device memory to give back, and no cache that outlives a request."""

    abort_all_requests = clear_kv_cache = release_kv_cache = resume_generation = resume_kv_cache = _nothing
    set_global_steps = sleep = start_profile = stop_profile = wake_up = _nothing


class Replica(RolloutReplica):
    """verl's side of one server."""

    async def launch_servers(self) -> None:
        name = server_name(self.replica_rank)
        actor = ray.remote(Server).options(name=name, num_cpus=0, max_concurrency=256)
        # As in verl's own rollouts, each replica has a seed of its own.
        seed = self.config.seed + self.replica_rank
        server = actor.remote(self.model_config.path, self.config.response_length, seed)
        self.servers = [server]
        self._server_handle = server
        self._server_address = name


class ServerAdapter(BaseRollout):
    """In the training process of the same rank: sends the new weights."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1, **_: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        # One process a replica; -1 leaves it to the process, as in verl's own adapters.
        self._replica_rank = replica_rank if replica_rank >= 0 else int(os.environ["RANK"])
        self._server: Any = None

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        if wire_format != "named_tensors":
            raise ValueError(f"{NAME} takes whole weights, not {wire_format}")
        named = [(name, tensor.detach().float().cpu().numpy()) for name, tensor in weights]
        if self._server is None:
            self._server = ray.get_actor(server_name(self._replica_rank))
        await self._server.load_weights.remote(named, global_steps)


def _register() -> None:
    # The replica has a registry; the adapter only this table (workers/rollout/base.py of verl 0.9.1).
    table = getattr(base, "_ROLLOUT_REGISTRY", None)
    if not isinstance(table, dict) or ("vllm", "async") not in table:
        raise ImportError("argus_verl_hf_rollout does not know how this version of verl registers rollouts")
    table[NAME, "async"] = f"{__name__}.ServerAdapter"
    RolloutReplicaRegistry.register(NAME, lambda: Replica)


_register()
