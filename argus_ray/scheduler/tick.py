"""One tick of the scheduler, in seven steps. Plain code without Ray.

It fetches facts through its ports, asks the core, and sends the answer to the state actor. It remembers nothing that
matters: after a crash the first tick sees the same rows and the same jobs, so starting is recovering.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice

from argus_ray.core import admission, ledger, reserve
from argus_ray.core.clock_steps import ClockSteps
from argus_ray.core.decision import Decision
from argus_ray.core.explaining import PoolNow
from argus_ray.core.lifecycle import Admit, Advance, Change, End, Hold, Reject
from argus_ray.core.model import Attempt, ClusterView, NodeView, SlimTask, Task
from argus_ray.core.reserve import LowDisk
from argus_ray.core.shares import Shares, shares_of
from argus_ray.core.stall import StallPolicy
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.core.waiting import WaitingTasks
from argus_ray.scheduler import gently
from argus_ray.scheduler.admit import Examined, Examiner
from argus_ray.scheduler.cordons import Cordons
from argus_ray.scheduler.follow import Followed, Follower, placement
from argus_ray.scheduler.ports import Cluster, Files, Inputs, Jobs, Prepare, State
from argus_ray.scheduler.queue import QueueView
from argus_ray.scheduler.stalls import StallWatch
from argus_ray.scheduler.standing import Standing
from argus_ray.scheduler.submissions import Submitter

log = logging.getLogger(__name__)

#: Tasks whose inputs are looked at in one tick, and so also the most that one tick starts. The next tick comes at once.
MAX_LOOKS = 64
#: Tasks that one tick writes down as held: a storm of submissions must not wait for what is told of each of them.
MAX_HOLDS = 50


class Next(Enum):
    """When the next tick should come."""

    AT_ONCE = "at once"
    #: More is to be written down, which is in no hurry. Whoever submits meanwhile should not wait for it.
    IN_A_MOMENT = "in a moment"
    #: Something is alive or waits. A wake comes first.
    SOON = "soon"
    LATER = "later"


@dataclass
class _Decided:
    """What the last pass over the queue came to. While its facts are the same, nothing new would follow."""

    free: tuple[NodeView, ...]
    at: float
    #: When some task's own time comes, or nodes are to be reserved.
    due: float | None
    #: What is still to be written down, in parts.
    holds: deque[Iterator[Hold]]
    #: Its newest part: it knows what is left for tasks that come.
    decision: Decision

    def some_holds(self) -> list[Hold]:
        found: list[Hold] = []
        while self.holds and len(found) < MAX_HOLDS:
            found += islice(self.holds[0], MAX_HOLDS - len(found))
            if len(found) < MAX_HOLDS:
                self.holds.popleft()
        return found

    def stands(self, free: tuple[NodeView, ...], now: float) -> bool:
        # A clock that was set back moves every time that was waited for.
        return self.free == free and self.at <= now and (self.due is None or now < self.due)


@dataclass
class _Pass:
    """What steps 3 to 5 came to in this tick."""

    #: What stands after it; None: not all that could be done was done.
    decided: _Decided | None
    admits: list[Admit] = field(default_factory=list)
    #: The tasks of the admits, as they were before.
    tasks: dict[str, Task] = field(default_factory=dict)
    #: Of those that were looked at and cannot start.
    stuck: list[Hold | Reject] = field(default_factory=list)
    #: While nothing starts: what is new of those that wait.
    held: list[Hold] = field(default_factory=list)


class Dispatcher:
    """The parts of a tick, and what they keep between two."""

    def __init__(
        self,
        *,
        state: State,
        cluster: Cluster,
        jobs: Jobs,
        files: Files,
        inputs: Inputs,
        prepare: Prepare,
        shared_root: str,
        policy: admission.AdmissionPolicy,
        stall_policy: StallPolicy,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        tick_s: float,
        low_disk: Callable[[], LowDisk | None] = lambda: None,
    ) -> None:
        """`clock`: seconds since the Unix epoch, as in what is stored. `monotonic`: seconds of a clock that nobody
        sets, for what is measured here. `tick_s`: until what the disk did not say is asked again. `low_disk`: whether
        the reserve of the shared filesystem is touched, as the last look said; it answers at once."""
        self.state = state
        self.cluster = cluster
        self.policy = policy
        self.clock = clock
        self.low_disk = low_disk
        self.monotonic = monotonic
        self._steps = ClockSteps.begin(clock(), monotonic())
        self.queue = QueueView(state, policy.no_tasks())
        self.stalls = StallWatch(files, clock, monotonic, stall_policy)
        self.follower = Follower(jobs, files, clock, self.stalls.stepped_s)
        self.standing = Standing(cluster, monotonic)
        self.cordons = Cordons()
        self.submitter = Submitter(jobs, files, monotonic)
        self.examiner = Examiner(inputs, prepare, shared_root, policy, clock, monotonic, soon_s=tick_s)
        #: The last look at the cluster.
        self.view: ClusterView | None = None
        #: What it had free for a gang, by the ledger, at the last tick that came so far.
        self.free: tuple[NodeView, ...] = ()
        self._decided: _Decided | None = None
        #: Tasks at the end of the queue that nothing was decided about yet.
        self._came: list[SlimTask] = []
        #: Attempts whose end was found by the last tick and could not be stored: nobody waits for these.
        self._unstored: set[str] = set()
        #: Found after the last `apply`, and stored with the next one.
        self._carried: list[Change] = []

    async def tick(self) -> Next:
        # 1. Snapshot. The queue first, the cluster after it: a view that is older than the list of live attempts could
        #    show as free what one of them was just claiming.
        came = await self.queue.refresh()
        if came is None:
            self._decided, self._came = None, []
        else:
            self._came += came
        self._mind_the_clock()
        live = list(self.queue.live.values())
        self._forget_all_but(live)
        view = self.view = await self.cluster.look()
        if view is None:
            return Next.SOON

        # 2. Follow what is alive.
        followed, _ = await asyncio.gather(self.follower.follow(live, view), self.standing.ask(view))
        live = _where_they_are(live, followed.changes)
        await gently.others_first()
        stalls = await self.stalls.watch(live, view)
        await gently.others_first()

        # An attempt that was just found to have ended keeps its nodes until the next tick, which comes at once: this
        # view may be older than its end.
        # 3. Decide, 4. look at what the chosen start from, 5. decide at most once more.
        now = self.clock()
        orders = self.queue.orders
        ledgered = ledger.free_nodes(view, live)
        await gently.others_first()
        cordoned = self.cordons.apply(ledgered, live, orders)
        self.standing.forgive(cordoned.cleared)
        free = (*self.standing.judge(cordoned.others, live), *cordoned.nodes)
        halts = self.cordons.overdue(cordoned, live, now)
        await gently.others_first()
        self.view, self.free = _told(view, free), free
        returning = _first_to_return([end for end in followed.ended if end.submission_id not in self._unstored], live)
        low = self.low_disk()
        if orders.maintenance is not None:
            passed = _Pass(None)
        elif low is not None:
            # Decided anew when there is room again.
            passed = _Pass(None, held=list(islice(reserve.holds(self.queue.waiting.values(), low, now), MAX_HOLDS)))
        elif returning is None:
            passed = await self._pass(free, now)
        else:
            passed = await self._admit(free, now, before=returning)

        await gently.others_first()

        # 6. Store it all at once. Ends come before the admissions, which have not used the room of these.
        carried, self._carried = self._carried, []
        holds = passed.decided.some_holds() if passed.decided else passed.held
        changes: list[Change] = [*carried, *followed.changes, *stalls, *halts, *passed.admits, *passed.stuck, *holds]
        try:
            applied = dict(zip(map(id, changes), await self.state.apply(changes), strict=True))
        except BaseException:
            self._carried, self._decided = carried, None
            raise
        self._decided, self._came = passed.decided, []
        ended = [end for end in followed.ended if applied[id(end)]]
        self.standing.learn(live, [change for change in changes if applied[id(change)]])
        self._unstored = {end.submission_id for end in followed.ended if not applied[id(end)]}
        for end in ended:
            log.info("%s ended: %s %s", end.submission_id, end.outcome.value, end.reason[:200])

        # 7. Submit. Only what is stored as an attempt is given to Ray, and only what is stored as ended is forgotten.
        started = [admit for admit in passed.admits if applied[id(admit)]]
        wanted = await self._unsubmitted(followed)
        wanted += [(passed.tasks[admit.task_id], _new_attempt(admit, now)) for admit in started]
        if started:
            log.info("admitted %d of %d waiting tasks", len(started), len(self.queue.waiting))
        self._carried = await self.submitter.submit(wanted, view.session)
        await self.follower.forget(end.submission_id for end in ended if end.submission_id in followed.recorded)

        is_undecided = self.queue.waiting and self._decided is None and orders.maintenance is None and low is None
        if ended or self._carried or is_undecided:
            return Next.AT_ONCE
        if len(holds) == MAX_HOLDS:
            return Next.IN_A_MOMENT
        return Next.SOON if live or self.queue.waiting else Next.LATER

    def pool_now(self) -> PoolNow | None:
        """May be asked from another thread. None: the cluster was not seen yet."""
        view, free, decided = self.view, self.free, self._decided
        if view is None:
            return None
        left = free if decided is None or decided.free != free else decided.decision.left
        return PoolNow(view.nodes, free, left, self.low_disk() is not None)

    def _mind_the_clock(self) -> None:
        """Where it was set, the times of the rows have followed before they were read. What was decided has not."""
        step_s = self._steps.unsettled(self.clock(), self.monotonic())
        if step_s:
            log.warning("the clock was set by %+d s", step_s)
            self._steps.settle(step_s, self.monotonic())
            self._decided = None

    @property
    def barrier(self) -> int | None:
        """Nodes that are kept for tasks which have been overtaken for too long; None: nothing is decided."""
        return None if self._decided is None else len(self._decided.decision.reserved)

    async def _pass(self, free: tuple[NodeView, ...], now: float) -> _Pass:
        old = self._decided
        if old is not None and old.stands(free, now):
            if not self._came:
                return _Pass(old)
            # A task that is younger than all others changes nothing for them, unless it starts.
            left, reserved = old.decision.left, old.decision.reserved
            shares = Shares(self._running(), old.decision.taken)
            decision = admission.decide(self._came, left, now, self.policy, reserved=reserved, shares=shares)
            if not decision.admitted:
                due = _first(old.due, decision.due, decision.reserves_at)
                holds = deque([*old.holds, decision.holds([])])
                return _Pass(replace(old, due=due, holds=holds, decision=decision))
        return await self._admit(free, now)

    async def _admit(self, free: tuple[NodeView, ...], now: float, *, before: int | None = None) -> _Pass:
        """`before`: only those with an older place in the queue; the next tick decides over the others."""
        queue: WaitingTasks | Sequence[SlimTask] = self.queue.tasks
        if before is not None and self.policy.half_life_s is not None:
            queue = []  # whose turn comes before that of the one which returns is not its place in the queue
        shares = await self._shares(now)
        decision = admission.decide(queue, free, now, self.policy, shares=shares, before=before)

        found = _Pass(None)
        examined = await self._examine(decision.admitted[:MAX_LOOKS], found)
        room_left = False
        if examined.stuck:
            # Those take no room from the others. Who is chosen now and is stuck, too, leaves its room to the next tick.
            looked_at = decision.admitted[:MAX_LOOKS]
            stuck = [task.seq for task in looked_at if task.task_id in examined.stuck]
            sound = [admission.without_trouble(task) for task in looked_at if task.task_id in examined.admits]
            # Who was found sound has no trouble of its own any more, whether or not it starts now.
            with self.queue.tasks.as_if(stuck, sound):
                decision = admission.decide(queue, free, now, self.policy, shares=shares, before=before)
            fresh = [task for task in decision.admitted if task.task_id not in examined.admits]
            more = await self._examine(fresh[: MAX_LOOKS - len(examined.admits) - len(examined.stuck)], found)
            room_left = bool(more.stuck)
            examined = Examined(examined.admits | more.admits, examined.stuck | more.stuck)

        started = [task for task in decision.admitted if task.task_id in examined.admits]
        by_id = {node.node_id: node for node in free} if started else {}
        found.admits = [
            replace(
                examined.admits[task.task_id],
                nodes=decision.nodes_of[task.task_id],
                placement=placement(task.gang, decision.nodes_of[task.task_id], by_id),
                orders=self.queue.orders.version,
            )
            for task in started
        ]
        found.stuck = list(examined.stuck.values())
        left = {task.task_id for task in decision.admitted} - examined.admits.keys() - examined.stuck.keys()
        due = _first(decision.due, decision.reserves_at)
        for change in found.stuck:
            if isinstance(change, Hold):
                due = _first(due, change.not_before)
        decided = _Decided(free, now, due, deque([decision.holds(started)]), decision)
        if not left and not room_left and before is None:
            found.decided = decided
        else:
            # The next tick decides anew; what is known of those that wait on is worth writing down all the same.
            found.stuck += decided.some_holds()
        return found

    async def _shares(self, now: float) -> Shares:
        """Of the users, as far as the policy asks for it."""
        half_life_s = self.policy.half_life_s
        if half_life_s is None:
            return Shares(self._running())
        return shares_of(self.queue.live.values(), now, await self.state.gpu_use(), half_life_s)

    def _running(self) -> Mapping[str, int]:
        return shares_of(self.queue.live.values(), 0.0).running if self.policy.quotas.are_on else {}

    async def _examine(self, chosen: Sequence[SlimTask], found: _Pass) -> Examined:
        """With their specs, which no other tasks are asked for."""
        if not chosen:
            return Examined()
        tasks = [task for task in await self.state.tasks([task.task_id for task in chosen]) if task.state.is_waiting]
        found.tasks |= {task.task_id: task for task in tasks}
        return await self.examiner.examine(tasks)

    async def _unsubmitted(self, followed: Followed) -> list[tuple[Task, Attempt]]:
        """Attempts that Ray does not know, with their commands: a submission was lost, or failed."""
        names = {
            task.live.submission_id: task.task_id
            for task in followed.unsubmitted
            if task.live and self.submitter.may_try(task.live.submission_id)
        }
        if not names:
            return []
        tasks = await self.state.tasks(list(names.values()))
        return [
            (task, attempt)
            for task in tasks
            for attempt in task.attempts
            if attempt.submission_id in names and attempt.state is AttemptState.SUBMITTING
        ]

    def _forget_all_but(self, live: Sequence[SlimTask]) -> None:
        names = {task.live.submission_id for task in live if task.live}
        self.submitter.keep_only(names)
        self.stalls.keep_only(names)


def _where_they_are(live: list[SlimTask], found: Sequence[Change]) -> list[SlimTask]:
    """With the nodes on which attempts were just found to be."""
    nodes = {change.submission_id: change.nodes for change in found if isinstance(change, Advance) and change.nodes}
    if not nodes:
        return live
    return [
        replace(task, live=replace(task.live, nodes=nodes[task.live.submission_id]))
        if task.live is not None and task.live.submission_id in nodes
        else task
        for task in live
    ]


def _first_to_return(ended: Sequence[End], live: Sequence[SlimTask]) -> int | None:
    """The oldest place in the queue to which a task comes back that is not there yet: nobody younger takes its turn."""
    lost = {end.submission_id for end in ended if end.outcome is Outcome.INFRASTRUCTURE and not end.never_began}
    return min((task.seq for task in live if task.live and task.live.submission_id in lost), default=None)


def _told(view: ClusterView, free: Sequence[NodeView]) -> ClusterView:
    """The view with what bars its nodes."""
    barred = {node.node_id: node for node in free if node.barred is not None}
    if not barred:
        return view
    told = (
        replace(node, barred=by.barred, is_cordoned=by.is_cordoned) if (by := barred.get(node.node_id)) else node
        for node in view.nodes
    )
    return replace(view, nodes=tuple(told))


def _first(*times: float | None) -> float | None:
    return min((at for at in times if at is not None), default=None)


def _new_attempt(admit: Admit, now: float) -> Attempt:
    return Attempt(
        submission_id=admit.submission_id,
        task_id=admit.task_id,
        number=admit.number,
        state=AttemptState.SUBMITTING,
        created_at=now,
        job_root=admit.job_root,
        command=admit.command,
        env=admit.env,
        nodes=admit.nodes,
    )
