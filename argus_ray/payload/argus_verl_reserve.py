"""Rollouts and validation samples stop growing while the shared filesystem is low. Loaded through
VERL_USE_EXTERNAL_MODULES for ppo and grpo.

verl dumps them, a file a step, in a thread of the driver, and a file that cannot be written ends the run
(`_write_generations` of its trainers, verl 0.9). They are for people to read, so a step whose dump is left out loses
nothing of the training. verl's trainers are imported much later than this module, which so waits for their import."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import argus_imports  # type: ignore[import-not-found]  # neighbours on the workers' PYTHONPATH
import argus_reserve  # type: ignore[import-not-found]

TRAINERS = ("verl.trainer.ppo.v1.trainer_base", "verl.trainer.ppo.ray_trainer")
_WRITE = "_write_generations"


def bounded(write: Callable[..., Any], is_low: Callable[[], bool]) -> Callable[..., Any]:
    """`write`, or a word in the log in its place."""

    @functools.wraps(write)
    def write_if_there_is_room(*args: Any, **kwargs: Any) -> Any:
        if is_low():
            print("argus: the samples of a step are left out, since the shared filesystem is low", flush=True)
            return None
        return write(*args, **kwargs)

    return write_if_there_is_room


def bound_all(module: ModuleType, is_low: Callable[[], bool]) -> int:
    """Every trainer of this module; how many there are."""
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    found = [each for each in own if _WRITE in vars(each)]
    for trainer in found:
        write = vars(trainer)[_WRITE]
        is_static = isinstance(write, staticmethod)
        new = bounded(write.__func__ if is_static else write, is_low)
        setattr(trainer, _WRITE, staticmethod(new) if is_static else new)
    return len(found)


def _install() -> None:
    reserve = argus_reserve.Reserve.of_job(os.environ.get("ARGUS_JOB_ROOT", "."))
    if not reserve.reserve:
        return

    def bound(module: ModuleType) -> None:
        if not bound_all(module, reserve.is_low):
            words = "dumps samples in a way that is not known; no reserve holds them"
            print(f"argus: {module.__name__} {words}", flush=True)

    argus_imports.when_imported(TRAINERS, bound)


_install()
