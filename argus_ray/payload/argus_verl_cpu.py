"""verl on the CPU, for trial runs of small models. Loaded through VERL_USE_EXTERNAL_MODULES, with
VERL_PLATFORM=cpu and VERL_ENGINE_DEVICE=cuda (verl registers its FSDP engine for cuda and npu only; the
tensors stay on the CPU).

verl 0.9 has a registry of platforms and ships nvidia, npu and rocm; this adds `cpu`. Limits: fsdp2 only
(fsdp1 wants its modules on a GPU), float32, no streams, no memory accounting, no profiling. The GPUs that
Ray counts are logical."""

from __future__ import annotations

import contextlib
import functools
import os
import types
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

_CPU = torch.device("cpu")


class _Properties:
    name = "CPU"
    multi_processor_count = os.cpu_count() or 1
    total_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _device_module() -> types.ModuleType:
    """What verl asks of torch.cuda, for a device that has no memory of its own and nothing to wait for."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def zero(*_: Any, **__: Any) -> int:
        return 0

    module = types.ModuleType("argus_verl_cpu.device")
    for name in ("empty_cache", "init", "ipc_collect", "manual_seed", "manual_seed_all", "set_device"):
        setattr(module, name, nothing)
    for name in ("reset_peak_memory_stats", "set_per_process_memory_fraction", "synchronize"):
        setattr(module, name, nothing)
    for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"):
        setattr(module, name, zero)
    module.__dict__.update(
        Stream=torch.cpu.Stream,
        current_device=lambda: _CPU,
        current_stream=torch.cpu.current_stream,
        device=contextlib.nullcontext,
        device_count=lambda: 1,
        get_device_name=lambda *_: "CPU",
        get_device_properties=lambda *_: _Properties(),
        get_rng_state=lambda *_: torch.get_rng_state(),
        is_available=lambda: True,
        is_initialized=lambda: True,
        mem_get_info=lambda *_: (_Properties.total_memory, _Properties.total_memory),
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
        stream=torch.cpu.stream,
    )
    return module


_DEVICE_MODULE = _device_module()


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """The methods are those of verl's PlatformBase; an abstract one that is missing here fails at the first
    use."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return _CPU

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _accept_one_backend() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>" (utils/distributed.py); with the CPU as the device torch
    refuses the device that stands twice."""
    init = torch.distributed.init_process_group

    @functools.wraps(init)
    def init_process_group(backend: str | None = None, *args: Any, **settings: Any) -> None:
        init("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **settings)

    torch.distributed.init_process_group = init_process_group


def _pin_nothing() -> None:
    """verl keeps the weights of the reference model, which the KL loss needs, in pinned memory
    (workers/engine/fsdp/transformer_impl.py); torch has that only beside an accelerator."""
    init = CPUOffloadPolicy.__init__

    @functools.wraps(init)
    def without_pins(self: Any, pin_memory: bool = False) -> None:
        init(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = without_pins


_accept_one_backend()
_pin_nothing()
