"""What a task's own words say of how long it runs, and how long it will by runs like it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from argus_ray.core import flat_yaml
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.forecast.model import Kind, Nature, RunSeen
from argus_ray.core.model import Task
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl.command import given_steps

#: Fields that say how many steps there are, and what is done in one.
_RECIPE = ("code_path", "train_file", "total_epochs", "test_freq", "save_freq")
#: An export reads and writes a model, which takes minutes. Seconds.
EXPORT_S = (60.0, 120.0, 300.0, 600.0, 1200.0)


def nature_of(task: Task) -> Nature:
    gang = task.gang
    if task.export is not None:
        return Nature(Kind(task.user_id, task.workload, "", gang.nnodes, gang.gpus_per_node), "", None)
    try:
        values = flat_yaml.read(task.spec_yaml.encode(), TaskSpec.model_fields)[0]
    except InvalidSpec:  # of an earlier version, with other rules
        values = {}
    steps = given_steps(task.attempts[-1].command) if task.attempts else None
    if steps is None and isinstance(said := values.get("total_training_steps"), int):
        steps = said
    recipe = json.dumps([values.get(name) for name in _RECIPE])
    kind = Kind(task.user_id, task.workload, str(values.get("model_id", "")), gang.nnodes, gang.gpus_per_node)
    return Nature(kind, hashlib.sha256(recipe.encode()).hexdigest()[:16], steps)


def seconds_by_history(nature: Nature, runs: Sequence[RunSeen]) -> tuple[float, ...]:
    """Of its whole run, one for each run of its kind that tells; empty: none does."""
    if nature.kind.workload == "export":
        return tuple(run.seconds for run in runs) or EXPORT_S
    if nature.steps is not None:
        return tuple(run.seconds / run.steps * nature.steps for run in runs if run.steps)
    return tuple(run.seconds for run in runs if run.nature.recipe == nature.recipe)
