"""Numbers of verl's settings that must fit each other, and the gang.

As verl 0.9.1 itself asks for it, but before a task waits for its GPUs: utils/config.py, workers/config,
workers/engine/utils.py, workers/engine_workers.py and workers/rollout/replica.py of verl.

What is not known is not asked about: of a preset alone only what it says itself, of a task everything.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from argus_ray.core.errors import FieldError
from argus_ray.core.verl.values import Value

_ACTOR, _REF, _ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "ref", "rollout"))
BATCH = "data.train_batch_size"
_ANSWERS = f"{_ROLLOUT}.n"
_MINI = f"{_ACTOR}.ppo_mini_batch_size"
_DYNAMIC = f"{_ACTOR}.use_dynamic_bsz"


@dataclass(frozen=True)
class World:
    """The gang, as far as the arithmetic goes."""

    nnodes: int
    gpus_per_node: int

    @property
    def size(self) -> int:
        return self.nnodes * self.gpus_per_node


class Numbers:
    """The values that are known, and how they are told."""

    def __init__(self, values: Mapping[str, Value], sources: Mapping[str, str], defaults: Mapping[str, Value]) -> None:
        self._values, self._sources, self._defaults = values, sources, defaults

    def get(self, *names: str) -> int | None:
        """Of the first of these that is set, as verl's own interpolations go; None if that is no whole number."""
        for name in names:
            value = self._values.get(name, self._defaults.get(name))
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def is_true(self, *names: str) -> bool | None:
        for name in names:
            value = self._values.get(name, self._defaults.get(name))
            if isinstance(value, bool):
                return value
        return None

    def told(self, *names: str) -> str:
        """`data.train_batch_size 100 (preset long)`"""
        name = self._first(names)
        return f"{name} {self.get(*names)} ({self._sources.get(name, 'verl')})"

    def broken(self, names: tuple[str, ...], rule: str) -> FieldError:
        name = self._first(names)
        return FieldError(f"verl.{name}", f"is {self.get(*names)} ({self._sources.get(name, 'verl')}): {rule}")

    def _first(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if name in self._values), names[-1])


#: verl's own values of what matters here and Argus says nothing of.
VERL: Mapping[str, Value] = {
    f"{_ACTOR}.ulysses_sequence_parallel_size": 1,
    f"{_ACTOR}.use_dynamic_bsz": False,
    f"{_ACTOR}.ppo_max_token_len_per_gpu": 16384,
    f"{_ACTOR}.use_kl_loss": False,
    "algorithm.use_kl_in_reward": False,
    f"{_ROLLOUT}.data_parallel_size": 1,
    f"{_ROLLOUT}.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.model.use_remove_padding": True,
    "critic.ulysses_sequence_parallel_size": 1,
    "critic.ppo_max_token_len_per_gpu": 32768,
    "engine.ulysses_sequence_parallel_size": 1,
    "data.use_dynamic_bsz": True,
}


def of_preset(values: Mapping[str, Value], source: str) -> list[FieldError]:
    """What is wrong within it, whatever the gang."""
    numbers = Numbers(values, dict.fromkeys(values, source), {})
    return [*_mini_batches(numbers, (_MINI,)), *_mini_batches(numbers, ("critic.ppo_mini_batch_size",))]


def of_task(values: Mapping[str, Value], sources: Mapping[str, str], workload: str, world: World) -> list[FieldError]:
    """One error a key: the first."""
    numbers = Numbers(values, sources, VERL)
    found = _sft(numbers, world) if workload == "sft" else _rl(numbers, world, critic=workload == "ppo")
    return list({each.field: each for each in reversed(list(found))}.values())[::-1]


def _sft(numbers: Numbers, world: World) -> Iterator[FieldError]:
    parallel = ("engine.ulysses_sequence_parallel_size",)
    copies = yield from _copies(numbers, parallel, world)
    batch, micro = numbers.get(BATCH), ("data.micro_batch_size_per_gpu",)
    if batch is None or copies is None:
        return
    if batch % copies:
        yield numbers.broken((BATCH,), f"must be a multiple of {copies}, the processes that it is divided among")
        return
    share = batch // copies
    if numbers.is_true("data.use_dynamic_bsz"):
        yield from _tokens(numbers, ("data.max_token_len_per_gpu",), parallel, ("data.max_length",))
    elif (size := numbers.get(*micro)) and share % size:
        yield numbers.broken(micro, f"must divide {share}, the part of {numbers.told(BATCH)} that a process takes")


def _rl(numbers: Numbers, world: World, *, critic: bool) -> Iterator[FieldError]:
    parallel = (f"{_ACTOR}.fsdp_config.ulysses_sequence_parallel_size", f"{_ACTOR}.ulysses_sequence_parallel_size")
    lengths = ("data.max_prompt_length", "data.max_response_length")
    dynamic = numbers.is_true(_DYNAMIC)
    yield from _mini_batches(numbers, (_MINI,))
    copies = yield from _copies(numbers, parallel, world)
    if copies is not None:
        # Of one update, in the micro batches of its backward pass.
        yield from _shares(numbers, (_MINI,), (f"{_ACTOR}.ppo_micro_batch_size_per_gpu",), copies, dynamic=dynamic)
        # Of one step, in those of the passes that only look.
        looks = [_ROLLOUT]
        if numbers.is_true(f"{_ACTOR}.use_kl_loss") or numbers.is_true("algorithm.use_kl_in_reward"):
            looks.append(_REF)
        for part in looks:
            micro = (f"{part}.log_prob_micro_batch_size_per_gpu",)
            own = numbers.is_true(f"{part}.log_prob_use_dynamic_bsz", _DYNAMIC)
            yield from _shares(numbers, (BATCH,), micro, copies, dynamic=own)
    if dynamic:
        yield from _tokens(numbers, (f"{_ACTOR}.ppo_max_token_len_per_gpu",), parallel, lengths)
    if (numbers.get(*parallel) or 1) > 1 and numbers.is_true("actor_rollout_ref.model.use_remove_padding") is False:
        yield numbers.broken(parallel, "needs actor_rollout_ref.model.use_remove_padding: true")
    yield from _rollout(numbers, world, lengths)
    if critic:
        yield from _critic(numbers, world, lengths)


def _critic(numbers: Numbers, world: World, lengths: tuple[str, ...]) -> Iterator[FieldError]:
    mini, micro = ("critic.ppo_mini_batch_size", _MINI), ("critic.ppo_micro_batch_size_per_gpu",)
    parallel = ("critic.fsdp.ulysses_sequence_parallel_size", "critic.ulysses_sequence_parallel_size")
    dynamic = numbers.is_true("critic.use_dynamic_bsz", _DYNAMIC)
    copies = yield from _copies(numbers, parallel, world)
    yield from _mini_batches(numbers, ("critic.ppo_mini_batch_size",))
    if copies is not None:
        yield from _shares(numbers, mini, micro, copies, dynamic=dynamic)
        looks = ("critic.forward_micro_batch_size_per_gpu", *micro)
        yield from _shares(numbers, (BATCH,), looks, copies, dynamic=dynamic)
    if dynamic:
        yield from _tokens(numbers, ("critic.ppo_max_token_len_per_gpu",), parallel, lengths)


def _rollout(numbers: Numbers, world: World, lengths: tuple[str, ...]) -> Iterator[FieldError]:
    tensor = (f"{_ROLLOUT}.tensor_model_parallel_size",)
    data = (f"{_ROLLOUT}.data_parallel_size",)
    if (numbers.get(f"{_ROLLOUT}.pipeline_model_parallel_size") or 1) > 1:
        yield numbers.broken((f"{_ROLLOUT}.pipeline_model_parallel_size",), "no rollout of verl does more than 1")
    size = (numbers.get(*tensor) or 1) * (numbers.get(*data) or 1)
    told = "" if numbers.get(*data) == 1 else f" with {numbers.told(*data)}"
    if size <= world.gpus_per_node:
        if world.gpus_per_node % size:
            yield numbers.broken(tensor, f"must{told} divide the {world.gpus_per_node} GPUs of a node")
    elif size % world.gpus_per_node or world.size % size:
        gang = f"{world.nnodes} x {world.gpus_per_node} GPUs of this gang"
        yield numbers.broken(tensor, f"must{told} divide the GPUs of a node, or be whole nodes that divide the {gang}")
    longest = numbers.get(f"{_ROLLOUT}.max_model_len")
    total = sum(numbers.get(name) or 0 for name in lengths)
    if longest is not None and longest < total:
        rule = f"must be at least {total}: {' and '.join(numbers.told(name) for name in lengths)}"
        yield numbers.broken((f"{_ROLLOUT}.max_model_len",), rule)


def _mini_batches(numbers: Numbers, mini: tuple[str, ...]) -> Iterator[FieldError]:
    batch, size = numbers.get(BATCH), numbers.get(*mini)
    if batch and size and batch % size:
        yield numbers.broken((BATCH,), f"must be whole mini batches: a multiple of {numbers.told(*mini)}")


def _copies(numbers: Numbers, parallel: tuple[str, ...], world: World) -> Generator[FieldError, None, int | None]:
    """Processes that data is divided among; None, after the error, if that is no whole number."""
    size = numbers.get(*parallel) or 1
    if world.size % size:
        yield numbers.broken(parallel, f"must divide the {world.size} GPUs of this gang")
        return None
    return world.size // size


def _shares(
    numbers: Numbers, of: tuple[str, ...], micro: tuple[str, ...], copies: int, *, dynamic: bool | None
) -> Iterator[FieldError]:
    """Prompts, with all their answers, among the processes, in whole micro batches."""
    prompts, answers = numbers.get(*of), numbers.get(_ANSWERS)
    if not prompts or not answers:
        return
    told = f"{numbers.told(*of)} x {numbers.told(_ANSWERS)}"
    if prompts * answers % copies:
        rule = f"times {numbers.told(_ANSWERS)} it must be a multiple of {copies}, the processes it is divided among"
        yield numbers.broken(of, rule)
        return
    share, size = prompts * answers // copies, numbers.get(*micro)
    if not dynamic and size and share % size:
        yield numbers.broken(micro, f"must divide {share}, the part of {told} that each of {copies} processes takes")


def _tokens(
    numbers: Numbers, limit: tuple[str, ...], parallel: tuple[str, ...], lengths: tuple[str, ...]
) -> Iterator[FieldError]:
    most, total = numbers.get(*limit), sum(numbers.get(name) or 0 for name in lengths)
    if most is not None and most * (numbers.get(*parallel) or 1) < total:
        rule = f"one sequence does not fit: {' and '.join(numbers.told(name) for name in lengths)}"
        yield numbers.broken(limit, rule)
