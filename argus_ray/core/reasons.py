"""Why a task waits, as data: a code of a closed set and its facts. Words are made at the edge, by `words`.

A reason that is stored must not change with each GPU that becomes free, else every task that waits would be rewritten
each time. So the codes come in two kinds: those that are stored, whose facts stay as long as the pool has the same
nodes, and those that tell a moment (`MOMENTARY`), which are for an event's text and for who asks now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from typing_extensions import assert_never

from argus_ray.core.text import clean, size_words

#: Of one fact in words, in characters.
_MAX_TEXT = 1000

Fact = int | float | str


class Code(str, Enum):
    """The API shows these; one that is known to clients keeps its meaning."""

    #: The pool has no worker.
    NO_WORKER = "no_worker"
    #: `gpus`, `largest`: no node is large enough, even when it is empty.
    NODE_TOO_SMALL = "node_too_small"
    #: `nodes`, `gpus`, `cpus`, `able`: too few nodes are large enough, even when the pool is empty.
    POOL_TOO_SMALL = "pool_too_small"
    #: `nodes`, `gpus`, `cpus`, `able`, `cordoned`: too few nodes are large enough and take gangs, even when the pool is
    #: empty; with those that operators have cordoned there would be enough.
    NODES_CORDONED = "nodes_cordoned"
    #: `cpus`, `total`: the pool has too few CPUs, even when it is empty. Not given any more; older rows may hold it.
    TOO_FEW_CPUS = "too_few_cpus"
    #: `nodes`, `gpus`, `cpus`: it would fit into the pool, and others hold what it needs.
    POOL_BUSY = "pool_busy"
    #: The nodes that it would need are reserved for an older task.
    BEHIND_OLDER = "behind_older"
    #: `limit`, and `passed`, the seconds of its overtaking clock, which stands: its user may hold so many GPUs at a
    #: time, and what runs and waits before it takes them.
    OVER_QUOTA = "over_quota"
    #: `limit`, `gpus`, and `passed` as above: it needs more GPUs than its user may hold at all.
    QUOTA_TOO_SMALL = "quota_too_small"
    #: `reserve`, `until`, in bytes, and `passed` as above: the shared filesystem has less than the reserve free, and
    #: nothing starts until so much is.
    LOW_DISK = "low_disk"
    #: Its own time has not come, and nobody has said why.
    NOT_YET = "not_yet"
    #: `what`: the run could not use its inputs.
    BAD_INPUTS = "bad_inputs"
    #: `error`: what its inputs are cannot be told now.
    INPUTS_UNKNOWN = "inputs_unknown"
    #: `error`: whether there is a checkpoint to resume from is not known.
    CHECKPOINT_UNKNOWN = "checkpoint_unknown"
    #: `error`: the command of its attempt cannot be made.
    NO_COMMAND = "no_command"

    #: `nodes`, `gpus`, `cpus`, `now`: too few nodes have its share free at this moment.
    NODES_BUSY = "nodes_busy"
    #: Every worker has all the drivers that it takes.
    DRIVERS_FULL = "drivers_full"
    #: `limit`, `running`: its user holds so many GPUs at this moment.
    QUOTA_USED = "quota_used"


#: Never stored as the reason of a task.
MOMENTARY = frozenset({Code.NODES_BUSY, Code.DRIVERS_FULL, Code.QUOTA_USED})
#: It waits for its turn or for room, as tasks do: going from one to the other is no news to its user.
_ORDINARY = frozenset({Code.POOL_BUSY, Code.BEHIND_OLDER})


@dataclass(frozen=True)
class Reason:
    """Made by `because`. Two with the same code and the same facts are equal."""

    code: Code
    #: In the order of their names.
    facts: tuple[tuple[str, Fact], ...] = ()

    def __getitem__(self, name: str) -> Fact:
        return dict(self.facts)[name]


def because(code: Code, **facts: Fact) -> Reason:
    """Text is cut, and cleaned of what is no Unicode: it may come from a file's name or from an error's words."""
    return Reason(code, tuple(sorted((name, _clean(fact)) for name, fact in facts.items())))


def _clean(fact: Fact) -> Fact:
    return clean(fact[:_MAX_TEXT]) if isinstance(fact, str) else fact


def is_news(old: Reason | str | None, new: Reason | str | None) -> bool:
    """Whether it is worth an event that a task waits for the new reason now."""
    if isinstance(old, Reason) and isinstance(new, Reason):
        return old.code is not new.code and not {old.code, new.code} <= _ORDINARY
    return old != new


def words(reason: Reason | str) -> str:
    """For people. Text is what was said outside of Argus, and stays as it is."""
    if isinstance(reason, str):
        return reason
    try:
        return _words(reason)
    except (KeyError, ValueError, TypeError):
        # Of another version of Argus, with other facts: it is shown as it is, and stops no list.
        return f"{reason.code.value} {json.dumps(dict(reason.facts))}"


def _words(reason: Reason) -> str:
    match reason.code:
        case Code.NO_WORKER:
            return "no worker has joined the pool"
        case Code.NODE_TOO_SMALL:
            return f"no node has {reason['gpus']} GPUs: the largest has {reason['largest']:g}"
        case Code.POOL_TOO_SMALL:
            wanted = f"{nodes(reason['nodes'])} with {_share(reason)}"
            return f"needs {wanted}; the pool has {reason['able']}, even when it is empty"
        case Code.NODES_CORDONED:
            wanted, count = f"{nodes(reason['nodes'])} with {_share(reason)}", reason["cordoned"]
            barred = f"{nodes(count)} that could take it {'is' if count == 1 else 'are'} cordoned by an operator"
            return f"needs {wanted}; {barred}, and the pool has {reason['able']} without"
        case Code.TOO_FEW_CPUS:
            return f"{_all_cpus(reason)}; the pool has {reason['total']:g}"
        case Code.POOL_BUSY:
            return f"needs {_free(reason)}"
        case Code.BEHIND_OLDER:
            return "an older task has been overtaken for as long as is allowed; the nodes are reserved for it"
        case Code.OVER_QUOTA:
            return f"{_quota(reason)}; what runs and waits before it takes them"
        case Code.QUOTA_TOO_SMALL:
            needs = f"it needs {_gpus(reason['gpus'])}"
            return f"{_quota(reason)}, and {needs}: it waits until an operator raises the quota"
        case Code.LOW_DISK:
            reserve, until = size_words(int(reason["reserve"])), size_words(int(reason["until"]))
            return f"the shared filesystem has less than {reserve} free: nothing starts until {until} are free"
        case Code.NOT_YET:
            return "waits before the next try"
        case Code.BAD_INPUTS:
            return f"its inputs cannot be used, and it fails unless that changes soon: {reason['what']}"
        case Code.INPUTS_UNKNOWN:
            return f"waits until its inputs can be looked at: {reason['error']}"
        case Code.CHECKPOINT_UNKNOWN:
            # To start from zero in doubt would throw away what may be days of training.
            return f"waits to learn whether an earlier attempt has left a checkpoint: {reason['error']}"
        case Code.NO_COMMAND:
            return f"its command cannot be made any more: {reason['error']}"
        case Code.NODES_BUSY:
            return f"needs {_free(reason)}; {have_now(reason['now'])}"
        case Code.DRIVERS_FULL:
            return "every worker has its full number of drivers"
        case Code.QUOTA_USED:
            return f"{_quota(reason)}, and holds {reason['running']} now; what runs and waits before it takes them"
        case _:
            assert_never(reason.code)


def have_now(count: Fact) -> str:
    return "none has now" if count == 0 else f"{count} has now" if count == 1 else f"{count} have now"


def nodes(count: Fact) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _free(reason: Reason) -> str:
    each = " each" if reason["nodes"] != 1 else ""
    return f"{nodes(reason['nodes'])} with {_share(reason)} free{each}"


def _share(reason: Reason) -> str:
    cpus = f"{reason['cpus']:g} CPUs"
    return f"{_gpus(reason['gpus'])} and {cpus}" if reason["gpus"] else cpus


def _gpus(count: Fact) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _quota(reason: Reason) -> str:
    return f"its user may hold {_gpus(reason['limit'])} at a time"


def _all_cpus(reason: Reason) -> str:
    return f"needs {reason['cpus']:g} CPUs in all, with those of verl's own actors"
