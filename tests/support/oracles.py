"""What must hold after each tick of a random history, told from the database, the simulated Ray and the view of that
tick, and never from what the scheduler keeps to itself. Each rule is written down once more, in other words than its
code: a rule that is broken in the code must not be broken here in the same way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from argus_ray.core.model import Attempt, NodeView, Task
from argus_ray.core.reasons import Reason
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.scheduler.admit import Examined
from argus_ray.scheduler.standing import FIRST_PAUSE_S, MAX_FAILED_STARTS, SLOW_START_S
from argus_ray.store import orders
from tests.support.builders import World
from tests.support.histories import Actor, Operator
from tests.support.sanity import sanity_check
from tests.support.simray import AGAIN, SimRay, machine_of

#: Between two looks at what makes no steps, at most; and what a comparison of times may be off by. Seconds.
_LOOK_EVERY_S = 60.0
_A_MOMENT_S = 1.0


@dataclass
class _Starts:
    """On one node, since a start on it has gone well or somebody has vouched for it."""

    failed: list[str] = field(default_factory=list)
    #: When so many had failed that it takes no driver for a while.
    barred_at: float | None = None


class Oracles:
    def __init__(self, world: World, ray: SimRay, actor: Actor, operator: Operator) -> None:
        self.world, self.ray, self.actor, self.operator = world, ray, actor, operator
        self.accepted: set[str] = set()
        self._states: dict[str, TaskState] = {}
        self._written = -1
        self._generation = 0
        self._known: dict[str, Attempt] = {}
        self._starts: defaultdict[str, _Starts] = defaultdict(_Starts)
        #: Of attempts, by the clock that nobody sets: since when the present scheduler has seen them on their way, and
        #: since when a node of theirs has had no room.
        self._coming: dict[str, float] = {}
        self._blocked: dict[str, float] = {}

    def after_step(self) -> None:
        """Whatever has happened."""
        assert self.ray.violations == []
        with self.world.store.transaction() as db:
            written = db.total_changes
        if written == self._written:
            return
        self._written = written
        sanity_check(self.world.store, whole=False)
        self.operator.check()
        tasks = self.world.all_tasks()
        self._no_task_is_lost(tasks)
        self._quotas_are_kept(tasks)
        for task in tasks:
            self._budgets_are_kept(task)
            self._losses_are_counted(task)

    def after_tick(self) -> None:
        """Of the actor. Before anything else happens."""
        tasks = self.world.all_tasks()
        attempts = {attempt.submission_id: attempt for task in tasks for attempt in task.attempts}
        if self._generation != self.actor.generation:
            self._generation = self.actor.generation
            self.forget()
        view = self.actor.dispatcher.view
        if self.actor.upcoming is not None and view is not None:
            live = [task for task in tasks if _live(task) is not None]
            new = [attempt for name, attempt in attempts.items() if name not in self._known]
            self._nothing_is_given_twice(live, new)
            self._bad_nodes_get_no_driver(new, view.nodes, attempts)
            self._what_finds_no_room_is_stopped(live)
            self._drains_end(live)
            if self.actor.upcoming not in AGAIN:
                self._who_can_start_has_started(tasks, view.nodes)
        self._learn(attempts)

    def forget(self) -> None:
        """A new scheduler trusts everybody; so does an operator who takes a cordon back."""
        self._starts.clear()
        self._coming.clear()
        self._blocked.clear()

    def watch_looks(self) -> None:
        """Of a new scheduler: where most of those that are looked at together are spoiled, none of them fails."""
        examiner = self.actor.dispatcher.examiner
        examine = examiner.examine

        async def watched(tasks: Sequence[Task]) -> Examined:
            bad = [task.task_id for task in tasks if self.ray.findings.get(task.task_id, _SOUND).errors]
            found = await examine(tasks)
            rejected = [name for name, change in found.stuck.items() if type(change).__name__ == "Reject"]
            assert not (self.ray.is_root_away and rejected), "nobody could say anything of their inputs"
            assert not (len(bad) > 1 and 2 * len(bad) > len(tasks) and rejected), "most of them were spoiled"
            return found

        examiner.examine = watched  # type: ignore[method-assign]

    # --- whatever has happened ------------------------------------------------------------------------------------

    def _no_task_is_lost(self, tasks: Sequence[Task]) -> None:
        states = {task.task_id: task.state for task in tasks}
        assert self.accepted <= states.keys(), "an accepted task is lost"
        for name, before in self._states.items():
            assert not before.is_final or states[name] is before, f"{name} was {before.value}, which is final"
        self._states = states
        alive = Counter(job.task.task_id for job in self.ray.jobs.values() if job.held)
        assert all(count == 1 for count in alive.values()), "two attempts of one task hold a gang"
        with self.world.store.transaction() as db:
            odd = db.execute("SELECT message FROM events WHERE message LIKE '%cannot be stored%'").fetchall()
        assert [row["message"] for row in odd] == []

    def _quotas_are_kept(self, tasks: Sequence[Task]) -> None:
        quotas, held = self.world.settings.limits.quotas(), _held_by_users(tasks)
        for user_id, gpus in held.items():
            limit = quotas.limit_of(user_id)
            assert limit is None or gpus <= limit, f"{user_id} holds {gpus} GPUs of {limit}"

    def _budgets_are_kept(self, task: Task) -> None:
        policy = self.world.settings.scheduling
        outcomes = [attempt.outcome for attempt in reversed(task.attempts) if attempt.outcome is not None]
        refused = len(list(takewhile(lambda each: each is Outcome.INSUFFICIENT_RESOURCES, outcomes)))
        assert refused <= policy.max_refusals + 1, f"{task.task_id} was refused {refused} times in a row"
        if task.state is TaskState.FAILED and task.attempts:
            if "too few resources" in str(task.reason):
                assert refused == policy.max_refusals + 1, f"{task.task_id} failed at refusal {refused}"
            elif "without progress" in str(task.reason):
                assert task.losses == policy.max_losses + 1, f"{task.task_id} failed at loss {task.losses}"

    def _losses_are_counted(self, task: Task) -> None:
        """An attempt that has saved more than it began with has made progress, and the count begins anew."""
        told = self._farewells(task)
        losses = 0
        for attempt in task.attempts:
            if attempt.outcome is not Outcome.INFRASTRUCTURE:
                continue
            if attempt.failure is not None and attempt.failure.code in ("not_started", "drained"):
                continue
            began = [int(word.rsplit("_", 1)[1]) for word in attempt.command[2:]]
            saved = self.ray.saved.get(attempt.job_root, -1)
            message = told[attempt.submission_id]
            if "made progress is not known" in message:
                losses = min(losses + 1, max(losses, self.world.settings.scheduling.max_losses))
            else:
                losses = 1 if saved > max(began, default=-1) else losses + 1
            assert f"(loss {losses}" in message, f"{losses}: {message}"

    def _farewells(self, task: Task) -> dict[str, str]:
        with self.world.store.transaction() as db:
            rows = db.execute(
                "SELECT submission_id, message FROM events WHERE task_id = ? AND message LIKE '%has ended%'",
                (task.task_id,),
            ).fetchall()
        return {row["submission_id"]: row["message"] for row in rows}

    # --- after a tick ---------------------------------------------------------------------------------------------

    def _nothing_is_given_twice(self, live: Sequence[Task], new: Sequence[Attempt]) -> None:
        given = _given(live)
        for node in {node for attempt in new for node in attempt.nodes}:
            has = self.ray.full_nodes[machine_of(node)]
            taken = self.ray.taken[node]
            assert given[node] + taken <= has + 1e-6, (
                f"{node} has {has} GPUs, of which {given[node]} + {taken} are taken"
            )

    def _bad_nodes_get_no_driver(
        self, new: Sequence[Attempt], nodes: Sequence[NodeView], attempts: dict[str, Attempt]
    ) -> None:
        now = self.actor.world.clock.since_boot
        slow = {
            attempts[name].nodes[0]
            for name, since in self._coming.items()
            if now - since > SLOW_START_S and attempts[name].state is AttemptState.SUBMITTED
        }
        barred = {
            node for node, starts in self._starts.items() if starts.barred_at and now - starts.barred_at < FIRST_PAUSE_S
        }
        count = sum(not node.is_cordoned for node in nodes)
        failed = {node for node, starts in self._starts.items() if starts.failed}
        # Also those that the scheduler takes for bad: that a start began there may have been hidden from it.
        told = {node.node_id for node in nodes if node.barred}
        if 2 * len(slow | failed | told) > count:
            return  # it is not the nodes
        for attempt in new:
            assert attempt.nodes[0] not in barred, f"{attempt.submission_id}: starts on {attempt.nodes[0]} have failed"
            assert attempt.nodes[0] not in slow, f"{attempt.submission_id}: a start on {attempt.nodes[0]} hangs"

    def _what_finds_no_room_is_stopped(self, live: Sequence[Task]) -> None:
        """A gang whose node was taken by somebody else goes back to wait in its time."""
        now, bound = self.world.clock.since_boot, self.world.settings.scheduling.claim_after_s
        held: Counter[str] = Counter()
        for holder in self.ray.jobs.values():
            held.update(holder.held)
        blocked = {}
        for task in live:
            attempt = _live(task)
            job = None if attempt is None else self.ray.jobs.get(attempt.submission_id)
            if attempt is None or job is None or job.held or attempt.state is not AttemptState.RUNNING:
                continue
            left = [self.ray.nodes.get(node, 0) - held[node] - self.ray.taken[node] for node in attempt.nodes]
            if attempt.stop_reason is None and min(left) < task.gang.gpus_per_node and self._all_is_calm():
                since = blocked[attempt.submission_id] = self._blocked.get(attempt.submission_id, now)
                late = now - since - bound - _LOOK_EVERY_S - _A_MOMENT_S
                assert late < 0, f"{attempt.submission_id} has waited for its gang for {now - since:.0f} s"
        self._blocked = blocked

    def _drains_end(self, live: Sequence[Task]) -> None:
        now = self.world.clock.since_boot
        over = {name for name, at in self.operator.due.items() if at + _A_MOMENT_S < now}
        for task in live:
            attempt = _live(task)
            if attempt is None or attempt.state is AttemptState.STOPPING or attempt.stop_reason is not None:
                continue
            # What ran on a node that has left is no drain's, though its machine has joined again.
            here = {node for node in attempt.nodes if node in self.ray.nodes and machine_of(node) in over}
            assert not here, f"{attempt.submission_id} goes on on {here}, whose drain is over"

    def _who_can_start_has_started(self, tasks: Sequence[Task], nodes: Sequence[NodeView]) -> None:
        """Nothing waits that fits, unless somebody has a right to hold what it needs: another task that has waited for
        longer than the bound, an operator, a quota, a node that is not trusted now."""
        with self.world.store.transaction() as db:
            if orders.read(db).maintenance is not None:
                return
        if not self._all_is_calm():
            return
        now, settings = self.world.clock.now, self.world.settings
        bound, quotas, held = settings.scheduling.max_overtake_s, settings.limits.quotas(), _held_by_users(tasks)
        waiting = [task for task in tasks if task.state.is_waiting]
        given = _given([task for task in tasks if _live(task) is not None])
        for holder in self.ray.jobs.values():
            if holder.held and _live(self.world.task(holder.task.task_id)) is None:
                given.update(holder.held)
        # What Ray shows of a driver counts once its job id is stored, which this tick may have done last.
        unsure = {node for each in tasks for node in self._nodes_of_new_drivers(each)}
        free = {
            node.node_id: node.gpus_total - given[node.node_id] - self.ray.taken[node.node_id]
            for node in nodes
            if node.barred is None and node.node_id not in unsure and not self._starts[node.node_id].failed
        }
        total = {node.node_id: node.gpus_total for node in nodes}
        for task in waiting:
            if task.not_before is not None and task.not_before > now:
                continue
            limit = quotas.limit_of(task.user_id)
            asked = sum(each.gang.gpus for each in waiting if each.user_id == task.user_id)
            if limit is not None and held[task.user_id] + asked > limit:
                continue
            overdue = [
                (each, now - each.overtaken_since - bound)
                for each in waiting
                if each is not task and each.overtaken_since is not None and now - each.overtaken_since >= bound
                if each.seq < task.seq or settings.scheduling.fair_share
            ]
            may_hold = sum(each.gang.nnodes * (1 + int(late // max(bound, 1.0))) for each, late in overdue)
            fitting = [node for node, gpus in free.items() if gpus + 1e-6 >= task.gang.gpus_per_node]
            wanted = [node for node in fitting if any(each.gang.gpus_per_node <= total[node] for each, _ in overdue)]
            able = len(fitting) - len(wanted) + max(0, len(wanted) - may_hold)
            why = task.reason.code.value if isinstance(task.reason, Reason) else task.reason
            assert able < task.gang.nnodes, f"{task.task_id} waits ({why}), and {able} nodes could take {task.gang}"

    def _nodes_of_new_drivers(self, task: Task) -> tuple[str, ...]:
        attempt = _live(task)
        if attempt is None or attempt.ray_job_id is None:
            return ()
        before = self._known.get(attempt.submission_id)
        return attempt.nodes if before is None or before.ray_job_id is None else ()

    def _all_is_calm(self) -> bool:
        """Nothing keeps the scheduler from seeing and doing what it should."""
        return not (self.ray.flakiness or self.ray.is_root_away or self.ray.dead)

    def _learn(self, attempts: dict[str, Attempt]) -> None:
        now, came_to_its_end = self.world.clock.since_boot, self.actor.upcoming is not None
        well: set[str] = set()
        for name, attempt in attempts.items():
            before, node = self._known.get(name), attempt.nodes[0]
            if before is None:
                continue
            if attempt.ray_job_id is not None and before.ray_job_id is None:
                well.add(node)
            if attempt.outcome is None or before.outcome is not None:
                continue
            if attempt.outcome in (Outcome.SUCCEEDED, Outcome.APPLICATION):
                well.add(node)
            elif (attempt.reason or "").startswith("the worker could not start it") and came_to_its_end:
                starts = self._starts[node]
                starts.failed.append(attempt.task_id)
                if len(starts.failed) >= MAX_FAILED_STARTS and len(set(starts.failed)) > 1:
                    starts.barred_at = starts.barred_at or now
        for node in well:
            self._starts.pop(node, None)
        submitted = {n for n, each in attempts.items() if each.state is AttemptState.SUBMITTED and n in self._known}
        if came_to_its_end:
            self._coming = {name: self._coming.get(name, now) for name in submitted}
        self._known = attempts


class _Sound:
    errors: tuple[object, ...] = ()


_SOUND = _Sound()


def _live(task: Task) -> Attempt | None:
    return next((attempt for attempt in task.attempts if attempt.outcome is None), None)


def _given(live: Sequence[Task]) -> Counter[str]:
    given: Counter[str] = Counter()
    for task in live:
        attempt = _live(task)
        if attempt is not None:
            given.update(dict.fromkeys(attempt.nodes, task.gang.gpus_per_node))
    return given


def _held_by_users(tasks: Sequence[Task]) -> Counter[str]:
    held: Counter[str] = Counter()
    for task in tasks:
        if _live(task) is not None:
            held[task.user_id] += task.gang.gpus
    return held
