"""What the scheduler may change about a task.

The scheduler sends `Change` values to the state actor, which applies each one only if the task and the attempt are
still where the scheduler saw them (a guarded update): a change that came too late is dropped, not forced. Their text
is clean (core/text.py): what the disk or Ray said cannot keep a change from being stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from argus_ray.core.model import PlacedNode
from argus_ray.core.reasons import Reason
from argus_ray.core.retention import Seen
from argus_ray.core.states import Outcome
from argus_ray.core.text import CleanText
from argus_ray.core.verl.failures import DRAINED, NOT_STARTED, Failure


@dataclass(frozen=True)
class Hold:
    """The task is not admitted now. Moves QUEUED to PENDING_RESOURCES; refreshes what is known of one that is there.
    An event row is written only for the move, or for a reason that is news (`reasons.is_news`)."""

    task_id: str
    #: None: as it was.
    reason: Reason | None
    #: It is not looked at again before this time.
    not_before: float | None = None
    overtaken_since: float | None = None
    #: What was seen at this moment, for the text of the move's event; None: no more than the reason says.
    seen: Reason | None = None


@dataclass(frozen=True)
class Admit(CleanText):
    """The gang may start: moves a waiting task to SUBMITTING and creates its attempt `number`, before Ray is called."""

    task_id: str
    number: int
    submission_id: str
    job_root: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    #: Worth telling the task's user, if it is admitted.
    note: str | None = None
    #: Ray ids of the nodes that it is assigned, the driver's first.
    nodes: tuple[str, ...] = ()
    #: The same nodes as they are now; None: not told.
    placement: tuple[PlacedNode, ...] | None = None
    #: Version of the operators' orders that it follows: it comes too late if there are newer ones. None: of any.
    orders: int | None = None


@dataclass(frozen=True)
class Advance(CleanText):
    """Ray was seen to hold the attempt: SUBMITTED, or RUNNING when `running`. Facts that are None stay as they were.
    On an attempt that is STOPPING only the facts are stored."""

    submission_id: str
    running: bool
    session: str | None = None
    ray_job_id: str | None = None
    node_id: str | None = None
    node_ip: str | None = None
    #: Those that its job was given to Ray with, where they are not the attempt's; and the same nodes as they are now,
    #: None where one of them is not in the pool.
    nodes: tuple[str, ...] | None = None
    placement: tuple[PlacedNode, ...] | None = None


@dataclass(frozen=True)
class Achieved:
    """What a lost attempt has left behind."""

    #: Of its newest complete checkpoint.
    saved_step: int | None = None
    #: Seconds from its start to its last step.
    stepped_s: float = 0.0


@dataclass(frozen=True)
class End(CleanText):
    """The attempt is over. The task moves as `attempts.after_end` says. An attempt that was STOPPING ends as CANCELED,
    and its task stays CANCELED."""

    submission_id: str
    outcome: Outcome
    reason: str
    exit_code: int | None = None
    #: What the program's log says of it, if the program failed.
    failure: Failure | None = None
    #: Asked of the disk for a lost attempt only; None: the disk did not say.
    achieved: Achieved | None = Achieved()
    #: The driver's node could not even start it. Not stored: it is the scheduler's own knowledge of nodes.
    is_fault_of_node: bool = False

    @property
    def never_began(self) -> bool:
        """The program: its task waits a while, and has lost nothing."""
        return self.failure is not None and self.failure.code == NOT_STARTED

    @property
    def was_drained(self) -> bool:
        """Stopped by an operator's order: its task has lost an attempt and nothing of its budget."""
        return self.failure is not None and self.failure.code == DRAINED


@dataclass(frozen=True)
class Reject(CleanText):
    """The task cannot run as it is (an input is gone): a waiting task is FAILED without another attempt."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Note(CleanText):
    """Something worth telling the task's user, without a move."""

    task_id: str
    message: str
    submission_id: str | None = None


@dataclass(frozen=True)
class Stall(CleanText):
    """The attempt runs and has made no step since then; without a time: it makes steps again. Its state stays. With
    `stop_reason` it is to be stopped, and that is why its task will be FAILED."""

    submission_id: str
    since: float | None = None
    why: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True)
class Halt(CleanText):
    """Argus has the attempt stopped, and that is why. Its task moves when it has ended, by this outcome."""

    submission_id: str
    reason: str
    outcome: Outcome


@dataclass(frozen=True)
class FilesMeasured(CleanText):
    """Housekeeping has looked at this task's files. `sizes`: submission ids with bytes, where known."""

    task_id: str
    sizes: tuple[tuple[str, int], ...] = ()
    #: Worth telling, such as what was removed.
    message: str | None = None
    seen: Seen = Seen.PARTLY


@dataclass(frozen=True)
class Trashed(CleanText):
    """The job roots of the task are in the trash."""

    task_id: str
    #: Worth telling; None: there was nothing to move.
    message: str | None


@dataclass(frozen=True)
class Deleted(CleanText):
    """The job roots of the task are deleted from the trash."""

    task_id: str
    #: Worth telling; None: there was nothing to delete.
    message: str | None


Change = Hold | Admit | Advance | End | Reject | Note | Stall | Halt | FilesMeasured | Trashed | Deleted
