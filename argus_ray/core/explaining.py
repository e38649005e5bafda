"""The answer to "why is it there, and what would start now": a stable code and one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from argus_ray.core.model import Gang, Maintenance, NodeView, Task
from argus_ray.core.orders import maintenance_words, time_words
from argus_ray.core.pool import has_room, workers
from argus_ray.core.reasons import Code, Reason, have_now, nodes, words
from argus_ray.core.states import AttemptState, TaskState


class Why(str, Enum):
    """The API shows these; one that is known to clients keeps its meaning. `Reason` says what is stored, which stays
    the same from moment to moment; this one says how it is now."""

    #: Too few nodes have its GPUs free; the GPUs are there, and the CPUs beside them are not.
    GPUS_SHORT = "gpus_short"
    CPUS_SHORT = "cpus_short"
    #: Each node that has the room runs all the drivers that it takes.
    NO_DRIVER_SLOT = "no_driver_slot"
    #: Ray shows the room as free, and it is assigned: those who have it have not claimed it yet.
    JUST_STARTED_TASKS = "just_started_tasks"
    #: Nodes have the room, and take no gang for now: starts on them failed or hang, or they do not answer.
    NODES_BARRED = "nodes_barred"
    #: The room is reserved for an older task, which was overtaken for as long as is allowed.
    BEHIND_OVERTAKEN_TASK = "behind_overtaken_task"
    #: Not even on the empty pool, as it is now.
    NEVER_FITS = "never_fits"
    NO_WORKERS = "no_workers"
    #: With the nodes that operators have cordoned it would fit into the empty pool.
    CORDONED = "cordoned"
    OVER_QUOTA = "over_quota"
    MAINTENANCE = "maintenance"
    LOW_DISK = "low_disk"
    #: Its last try was refused or never began: it is not looked at before `next_retry_at`.
    RETRY_WAIT = "retry_wait"
    INPUTS_MISSING = "inputs_missing"
    #: The disk does not say what its inputs are, or whether there is a checkpoint.
    DISK_SILENT = "disk_silent"
    #: The command of its attempt cannot be made any more.
    COMMAND_BROKEN = "command_broken"
    #: Nobody has looked at it yet, or there is room: the scheduler's next look decides.
    QUEUED = "queued"
    #: It has its nodes, and its driver is on the way.
    STARTING = "starting"
    RUNNING = "running"
    #: It runs, and makes no steps.
    STALLED = "stalled"
    ENDED = "ended"


@dataclass(frozen=True)
class PoolNow:
    """The pool as the scheduler last saw it, each time the same nodes."""

    #: With what Ray reports as free; `barred` where they take no gang.
    shown: tuple[NodeView, ...]
    #: With what is free by the ledger: less what is assigned, and nothing where they take no gang.
    free: tuple[NodeView, ...]
    #: What of it a task would find that came now, last of all: less what is reserved for older ones.
    left: tuple[NodeView, ...]
    #: Nothing starts, since the shared filesystem has less than its reserve free.
    is_low_disk: bool = False

    @classmethod
    def as_shown(cls, shown: Sequence[NodeView]) -> PoolNow:
        """Where nothing but Ray's view is known."""
        usable = tuple(node.with_free(0.0, 0.0, 0.0) if node.barred is not None else node for node in shown)
        return cls(tuple(shown), usable, usable)


_BY_REASON = {
    Code.NO_WORKER: Why.NO_WORKERS,
    Code.NODE_TOO_SMALL: Why.NEVER_FITS,
    Code.POOL_TOO_SMALL: Why.NEVER_FITS,
    Code.TOO_FEW_CPUS: Why.NEVER_FITS,
    Code.NODES_CORDONED: Why.CORDONED,
    Code.OVER_QUOTA: Why.OVER_QUOTA,
    Code.QUOTA_TOO_SMALL: Why.OVER_QUOTA,
    Code.LOW_DISK: Why.LOW_DISK,
    Code.BAD_INPUTS: Why.INPUTS_MISSING,
    Code.INPUTS_UNKNOWN: Why.DISK_SILENT,
    Code.CHECKPOINT_UNKNOWN: Why.DISK_SILENT,
    Code.NO_COMMAND: Why.COMMAND_BROKEN,
    Code.BEHIND_OLDER: Why.BEHIND_OVERTAKEN_TASK,
}
#: They hold while the task's own time has not come, and say more than that.
_OWN = frozenset({Why.INPUTS_MISSING, Why.DISK_SILENT, Why.COMMAND_BROKEN})
#: They follow from the pool, and are looked up there where it is known: what is stored may be older.
_OF_THE_POOL = frozenset({Why.BEHIND_OVERTAKEN_TASK})


def why(task: Task, maintenance: Maintenance | None, pool: PoolNow | None, now: float) -> Why:
    """`pool`: None where it is not known."""
    if not task.state.is_waiting:
        return _of_started(task)
    stored = _BY_REASON.get(task.reason.code) if isinstance(task.reason, Reason) else None
    if maintenance is not None:
        return Why.MAINTENANCE
    if stored in _OWN:
        return stored
    if task.not_before is not None and task.not_before > now:
        return Why.RETRY_WAIT
    if stored is not None and not (stored in _OF_THE_POOL and pool is not None):
        return stored
    if pool is None:
        is_busy = isinstance(task.reason, Reason) and task.reason.code is Code.POOL_BUSY
        return _shortage(task.gang, ()) if is_busy else Why.QUEUED
    if pool.is_low_disk:
        return Why.LOW_DISK
    return _of_pool(task.gang, pool)


def _of_started(task: Task) -> Why:
    if task.state.is_final:
        return Why.ENDED
    if task.state is not TaskState.RUNNING:
        return Why.STARTING
    running = (each for each in task.attempts if each.state is AttemptState.RUNNING)
    return Why.STALLED if any(each.stalled_since is not None for each in running) else Why.RUNNING


def _of_pool(gang: Gang, pool: PoolNow) -> Why:
    if not workers(pool.shown):
        return Why.NO_WORKERS
    if count_fitting(gang, pool.free) >= gang.nnodes:
        return Why.QUEUED if largest_that_fits(gang, pool.left) >= gang.nnodes else Why.BEHIND_OVERTAKEN_TASK
    if _count_with_room(gang, pool.free) >= gang.nnodes:
        return Why.NO_DRIVER_SLOT
    open_nodes = {node.node_id for node in pool.shown if node.barred is None}
    if _count_with_room(gang, [node for node in pool.shown if node.node_id in open_nodes]) >= gang.nnodes:
        return Why.JUST_STARTED_TASKS
    if _count_with_room(gang, [node for node in pool.shown if not node.is_cordoned]) >= gang.nnodes:
        return Why.NODES_BARRED
    return _shortage(gang, pool.free)


def _shortage(gang: Gang, free: Sequence[NodeView]) -> Why:
    with_gpus = _count_with_room(replace(gang, cpus_per_node=0.0), free)
    return Why.CPUS_SHORT if not gang.gpus or with_gpus >= gang.nnodes else Why.GPUS_SHORT


def largest_that_fits(gang: Gang, left: Sequence[NodeView], *, gpus_to_spare: int | None = None) -> int:
    """The most nodes that a gang of this shape could have at once. `gpus_to_spare`: of its user's quota; None: any
    number."""
    count = count_fitting(gang, left)
    if gpus_to_spare is not None and gang.gpus_per_node:
        count = min(count, max(0, gpus_to_spare) // gang.gpus_per_node)
    return count


def count_fitting(gang: Gang, free: Sequence[NodeView]) -> int:
    """Nodes that have its share free; none where none of them takes one more driver."""
    fitting = _with_room(gang, free)
    return len(fitting) if any(node.worker_slots_free >= 1 for node in fitting) else 0


def _count_with_room(gang: Gang, free: Sequence[NodeView]) -> int:
    return len(_with_room(gang, free))


def _with_room(gang: Gang, free: Sequence[NodeView]) -> list[NodeView]:
    return [node for node in workers(free) if has_room(gang, node)]


def sentence(code: Why, task: Task, *, maintenance: Maintenance | None, pool: PoolNow | None, gpus_held: int) -> str:
    """The code in one sentence, with its numbers of this moment."""
    gang, now = task.gang, ""
    if pool is not None:
        now = f"; {have_now(_count_with_room(gang, pool.free))}"
    reason = words(task.reason) if task.reason is not None else "nobody has said why"
    match code:
        case Why.GPUS_SHORT | Why.CPUS_SHORT:
            what = "GPUs" if code is Why.GPUS_SHORT else "CPUs"
            return f"Too few {what} are free: it needs {_share(gang)} free{_each(gang)}{now}."
        case Why.NO_DRIVER_SLOT:
            return "There is room, but each node that has it runs all the drivers that it takes."
        case Why.JUST_STARTED_TASKS:
            return "The room that seems free is assigned to tasks that have just started."
        case Why.NODES_BARRED:
            return f"It needs {_share(gang)} free{_each(gang)}; nodes that have it take no gang for now."
        case Why.BEHIND_OVERTAKEN_TASK:
            return "The nodes are reserved for an older task, which was overtaken for as long as is allowed."
        case Why.NO_WORKERS:
            return "No worker has joined the pool."
        case Why.NEVER_FITS | Why.CORDONED | Why.LOW_DISK | Why.INPUTS_MISSING | Why.DISK_SILENT | Why.COMMAND_BROKEN:
            return _as_sentence(reason) if task.reason is not None else "Nothing starts while the disk is nearly full."
        case Why.OVER_QUOTA:
            return f"{_as_sentence(reason).removesuffix('.')}; it holds {gpus_held} now."
        case Why.MAINTENANCE:
            return _as_sentence(maintenance_words(maintenance) if maintenance is not None else "maintenance is on")
        case Why.RETRY_WAIT:
            until = "" if task.not_before is None else f" before {time_words(task.not_before)}"
            return f"It is not tried again{until}: {reason.removesuffix('.')}."
        case Why.QUEUED:
            return "The scheduler's next look decides; as far as is known there is room."
        case Why.STARTING:
            return "It has its nodes, and its program is on the way."
        case Why.RUNNING:
            return "It runs."
        case Why.STALLED:
            return "It runs, and has made no step for long."
        case Why.ENDED:
            return f"It has ended, and is {task.state.value}."


def _share(gang: Gang) -> str:
    gpus = f"{gang.gpus_per_node} GPU{'' if gang.gpus_per_node == 1 else 's'} and " if gang.gpus_per_node else ""
    return f"{nodes(gang.nnodes)} with {gpus}{gang.cpus_per_node:g} CPUs"


def _each(gang: Gang) -> str:
    return " each" if gang.nnodes != 1 else ""


def _as_sentence(text: str) -> str:
    text = text.removesuffix(".")
    return f"{text[:1].upper()}{text[1:]}."
