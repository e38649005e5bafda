"""Random walks over all that can be asked and reported: never an illegal state, an end is final, the line
keeps its order, and a restart in between changes nothing."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argus_ray.core import actions, ids, paths
from argus_ray.core.actions import Action, Credential, Submitted
from argus_ray.core.errors import ArgusError
from argus_ray.core.lifecycle import (
    Admit,
    Advance,
    Change,
    Deleted,
    End,
    FilesMeasured,
    Halt,
    Hold,
    Note,
    Stall,
    Trashed,
)
from argus_ray.core.reasons import Code, because
from argus_ray.core.retention import Chore, Seen, is_over
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.waiting import WaitingTasks
from argus_ray.scheduler.queue import QueueView
from tests.support.builders import ADMIN, World, make_service, memory_folder
from tests.support.sanity import sanity_check
from tests.support.simray import SimState, check_view

INDEX = st.integers(0, 7)
NUMBER = st.integers(1, 4)


class Walk(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(dir=memory_folder())).resolve()
        options = {
            "scheduling": {"max_losses": 1},
            "limits": {"waiting_tasks": 6, "waiting_tasks_per_user": 4},
            "retention": {"trash_after_days": 0.005, "delete_after_days": 0.005},
        }
        self.world: World = make_service(self.place, settings=options)
        self.users = [self.world.user("alice"), self.world.user("bob")]
        self.view = QueueView(SimState(self.world, random.Random(0)), WaitingTasks(600.0, by_user=True))
        self.tasks: list[str] = []
        self.final: dict[str, object] = {}

    def name(self, index: int) -> str:
        return self.tasks[index % len(self.tasks)] if self.tasks else "argus-none"

    def call(self, who: Credential, *asked: Action[Any]) -> None:
        for answer in self.world.service.handle_many([(who, action) for action in asked]):
            if isinstance(answer, Submitted) and answer.created:
                self.tasks.append(answer.task_id)
            if isinstance(answer, ArgusError):
                assert answer.code in (
                    "queue_full", "task_not_found", "idempotency_conflict", "task_not_ended", "nothing_to_resume",
                )  # fmt: skip

    @rule(user=st.integers(0, 1), keys=st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=3))
    def submit(self, user: int, keys: list[str | None]) -> None:
        self.call(self.users[user], *[self.world.submission(self.world.spec(), key) for key in keys])

    @rule(user=st.integers(0, 2), index=INDEX)
    def cancel(self, user: int, index: int) -> None:
        self.call([*self.users, ADMIN][user], actions.CancelTask(self.name(index)))

    @rule(user=st.integers(0, 2), index=INDEX, resume=st.booleans(), key=st.sampled_from([None, "a", "b"]))
    def resubmit(self, user: int, index: int, resume: bool, key: str | None) -> None:
        who = [*self.users, ADMIN][user]
        self.call(who, *[actions.ResubmitTask(self.name(index), resume, key)] * 2)

    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        changes = [self.change(data) for _ in range(data.draw(st.integers(1, 5)))]
        self.world.service.apply(changes)

    def change(self, data: st.DataObject) -> Change:
        name = self.name(data.draw(INDEX))
        number = data.draw(NUMBER)
        attempt = ids.submission_id(name, number)
        kind = data.draw(
            st.sampled_from(["hold", "admit", "admit", "advance", "end", "note", "stall", "looked", "removed"])
        )
        if kind == "hold":
            reason = data.draw(st.sampled_from([None, because(Code.NO_WORKER), because(Code.BAD_INPUTS, what="x")]))
            time = st.sampled_from([None, 1.0])
            return Hold(name, reason, data.draw(time), data.draw(time))
        if kind == "admit":
            task = self.world.service.task(name)
            owner = task.user_id if task else "alice"
            if task and data.draw(st.booleans()):
                number = len(task.attempts) + 1
                attempt = ids.submission_id(name, number)
            return Admit(name, number, attempt, paths.job_root(self.world.shared_root, owner, attempt), ("x",), ())
        if kind == "advance":
            return Advance(attempt, data.draw(st.booleans()), session=data.draw(st.sampled_from([None, "s"])))
        if kind == "end":
            return End(attempt, data.draw(st.sampled_from(list(Outcome))), data.draw(st.sampled_from(["", "why"])), 1)
        if kind == "stall":
            since = data.draw(st.sampled_from([None, 1.0]))
            stop_reason = data.draw(st.sampled_from([None, "stopped"]))
            if data.draw(st.booleans()):
                return Halt(
                    attempt,
                    "halted",
                    data.draw(st.sampled_from([Outcome.INSUFFICIENT_RESOURCES, Outcome.INFRASTRUCTURE])),
                )
            return Stall(attempt, since, None if since is None else "why", stop_reason)
        if kind == "looked":
            sizes = ((attempt, data.draw(st.integers(0, 9))),)
            return FilesMeasured(
                name, sizes, data.draw(st.sampled_from([None, "gone"])), data.draw(st.sampled_from(Seen))
            )
        if kind == "removed":
            message = data.draw(st.sampled_from([None, "gone"]))
            return Deleted(name, message) if data.draw(st.booleans()) else Trashed(name, message)
        return Note(name, "a note")

    @rule()
    def keep_house(self) -> None:
        found = {chore: self.world.service.chores(chore).tasks for chore in Chore}
        leaves = found[Chore.TRASH]
        assert all(
            is_over(self.world.task(task.task_id)) and task.is_over
            for task in (*leaves, *found[Chore.DELETE], *found[Chore.ENDED])
        )
        assert not any(is_over(self.world.task(task.task_id)) or task.is_over for task in found[Chore.LIVE])
        needed = {root for task in self.world.waiting() for root in task.resume_roots or ()}
        assert not needed & {root.path for task in leaves for root in task.roots}

    @rule(seconds=st.integers(-10, 1000))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.world.reopen()

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def everything_is_in_order(self) -> None:
        sanity_check(self.world.store)
        check_view(self.world, self.view)
        queue = self.world.waiting()
        assert [task.task_id for task in queue] == [name for name in self.tasks if name in {t.task_id for t in queue}]
        # The limit is one of acceptance: a task that comes back after a loss or a refusal is not turned away.
        assert len([task for task in queue if not task.attempts]) <= 6
        found = {name: self.world.task(name) for name in self.tasks}
        for name, before in self.final.items():
            assert found[name].state is before, "an end is final"
        self.final = {name: task.state for name, task in found.items() if task.state.is_final}
        for task in found.values():
            if task.state in (TaskState.SUCCEEDED, TaskState.FAILED):
                assert task.attempts

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            shutil.rmtree(self.place)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
