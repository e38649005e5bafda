"""Quotas and fair share in the decision: tables, and what must hold of every pass and of every stream of tasks."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.admission import AdmissionPolicy, decide
from argus_ray.core.decision import Decision
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimAttempt, SlimTask
from argus_ray.core.quotas import Quotas
from argus_ray.core.reasons import Code, Reason, because, words
from argus_ray.core.shares import Shares, Use, shares_of, use_of_run
from argus_ray.core.states import AttemptState, TaskState
from tests.core.reference import all_of

DAY = 86_400.0
FIFO = AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)
EIGHT_EACH = replace(FIFO, quotas=Quotas(8))


def rl(nnodes: int, gpus: int) -> Gang:
    return Gang(nnodes, gpus, 3.0 * gpus)


def task(seq: int, user: str, gang: Gang) -> SlimTask:
    return SlimTask(f"argus-{user}-grpo-20260101-000000-{seq:04x}", user, seq, TaskState.QUEUED, gang)


def worker(name: str, gpus: int = 8, *, free: int | None = None) -> NodeView:
    left = gpus if free is None else free
    return NodeView(name, f"10.0.0.{name}", False, gpus, 64, left, 64 - 3 * (gpus - left), 100, 100)


FOUR_WORKERS = [worker(str(i)) for i in range(4)]


def admitted(decision: Decision) -> list[int]:
    return [each.seq for each in decision.admitted]


def told(decision: Decision) -> dict[int, Reason | None]:
    return {each.seq: verdict.reason for each, verdict in zip(decision.waits, decision.verdicts, strict=True)}


def holds(decision: Decision) -> dict[str, Hold]:
    return {hold.task_id: hold for hold in decision.holds(decision.admitted)}


# --- quotas -------------------------------------------------------------------------------------------------------


def test_a_user_at_the_quota_waits_and_the_others_go_on() -> None:
    queue = [task(1, "ada", rl(1, 4)), task(2, "ada", rl(1, 4)), task(3, "bob", rl(1, 4))]
    decision = decide(queue, FOUR_WORKERS, 0.0, EIGHT_EACH, shares=Shares({"ada": 4}))
    assert admitted(decision) == [1, 3]
    (hold,) = holds(decision).values()
    assert hold.reason == because(Code.OVER_QUOTA, limit=8)
    assert hold.seen == because(Code.QUOTA_USED, limit=8, running=4)
    assert words(hold.seen) == (
        "its user may hold 8 GPUs at a time, and holds 4 now; what runs and waits before it takes them"
    )
    assert hold.overtaken_since is None, "a younger task has started, and its clock stands"


def test_nothing_is_held_back_for_a_task_over_the_quota() -> None:
    old = replace(task(1, "ada", rl(4, 8)), overtaken_since=0.0)
    of_bob = [task(2 + i, "bob", rl(1, 8)) for i in range(4)]
    policy = replace(FIFO, quotas=Quotas(of_user={"ada": 32}))
    decision = decide([old, *of_bob], FOUR_WORKERS, 1e6, policy, shares=Shares({"ada": 1}))
    assert admitted(decision) == [2, 3, 4, 5] and decision.reserved == () and decision.reserves_at is None


def test_quotas_of_one_user_go_before_that_of_all() -> None:
    quotas = Quotas(4, {"bob": 8, "eve": None})
    queue = [task(i, user, rl(1, 4)) for i, user in enumerate(["ada", "ada", "bob", "bob", "bob", "eve", "eve", "eve"])]
    assert admitted(decide(queue, FOUR_WORKERS, 0.0, replace(FIFO, quotas=quotas))) == [0, 2, 3, 5, 6, 7]
    assert not Quotas(None, {"bob": None}).are_on and Quotas(None, {"bob": 1}).are_on


def test_a_quota_is_taken_in_the_order_of_the_queue() -> None:
    """A small task does not pass a large one of the same user, which would never get the whole quota."""
    queue = [task(1, "ada", rl(1, 8)), task(2, "ada", rl(1, 1))]
    decision = decide(queue, FOUR_WORKERS, 0.0, EIGHT_EACH, shares=Shares({"ada": 4}))
    assert admitted(decision) == [] and {reason and reason.code for reason in told(decision).values()} == {
        Code.OVER_QUOTA
    }


def test_a_task_that_waits_for_room_keeps_its_part_of_the_quota() -> None:
    queue = [task(1, "ada", rl(1, 6)), task(2, "ada", rl(1, 2)), task(3, "ada", rl(1, 1))]
    decision = decide(queue, [worker("1", free=5)], 0.0, EIGHT_EACH)
    assert admitted(decision) == [2], "it fits into what is left of the quota"
    assert told(decision)[3] == because(Code.OVER_QUOTA, limit=8)


def test_a_task_that_is_not_ready_or_could_never_start_keeps_nothing() -> None:
    early = replace(task(1, "ada", rl(1, 8)), not_before=9.0)
    impossible = task(2, "ada", rl(5, 1))
    decision = decide([early, impossible, task(3, "ada", rl(1, 8))], FOUR_WORKERS, 0.0, EIGHT_EACH)
    assert admitted(decision) == [3]
    reason = told(decision)[2]
    assert reason is not None and reason.code is Code.POOL_TOO_SMALL


def test_a_task_larger_than_the_quota_says_so_and_keeps_nothing() -> None:
    queue = [task(1, "ada", rl(2, 8)), task(2, "ada", rl(1, 8))]
    decision = decide(queue, FOUR_WORKERS, 0.0, EIGHT_EACH)
    assert admitted(decision) == [2]
    reason = told(decision)[1]
    assert reason == because(Code.QUOTA_TOO_SMALL, gpus=16, limit=8)
    assert words(reason) == (
        "its user may hold 8 GPUs at a time, and it needs 16 GPUs: it waits until an operator raises the quota"
    )


def test_a_clock_stands_for_a_quota_and_runs_on_from_there() -> None:
    """However long: what stood for a day must not hold back the whole pool at once."""
    once = replace(task(1, "ada", rl(1, 8)), overtaken_since=100.0)
    full = [worker(str(i), free=7) for i in range(4)]
    over = Shares({"ada": 1})
    (hold,) = holds(decide([once], full, 400.0, EIGHT_EACH, shares=over)).values()
    assert hold.reason == because(Code.OVER_QUOTA, limit=8, passed=300.0) and hold.overtaken_since == 100
    held = replace(once, state=TaskState.PENDING_RESOURCES, reason=hold.reason)
    for now in (400.0, 401.3, 400.0 + DAY):
        assert holds(decide([held], full, now, EIGHT_EACH, shares=over)) == {}, "nothing new, so nothing is written"
    later = decide([held], full, 400.0 + DAY, EIGHT_EACH)
    (again,) = holds(later).values()
    assert again.overtaken_since == 100 + DAY
    assert later.reserved == () and later.reserves_at == 400 + DAY + 300
    assert again.reason is not None and again.reason.code is Code.POOL_BUSY
    off = decide([held], full, 400.0 + DAY, FIFO)
    assert off.reserved == () and off.reserves_at == 400 + DAY + 300, "also when quotas were switched off meanwhile"


def test_what_is_stored_does_not_change_with_what_its_user_holds() -> None:
    queue = [task(1, "ada", rl(1, 8))]
    stored = {told(decide(queue, FOUR_WORKERS, 0.0, EIGHT_EACH, shares=Shares({"ada": n})))[1] for n in range(1, 9)}
    assert len(stored) == 1


def test_a_trouble_of_its_own_stays_known_while_it_waits_for_the_quota() -> None:
    reason = because(Code.BAD_INPUTS, what="train_file does not exist")
    troubled = replace(task(1, "ada", rl(1, 8)), state=TaskState.PENDING_RESOURCES, reason=reason)
    assert holds(decide([troubled], FOUR_WORKERS, 0.0, EIGHT_EACH, shares=Shares({"ada": 1}))) == {}


# --- fair share ---------------------------------------------------------------------------------------------------


def test_use_decays_by_half_with_each_half_life() -> None:
    use = Use(100.0, at=0.0)
    assert use.decayed(DAY, DAY) == 50 and use.decayed(3 * DAY, DAY) == 12.5 and use.decayed(-5.0, DAY) == 100
    assert use.plus(10.0, DAY, DAY) == Use(60.0, DAY)
    assert use_of_run(4, None, 1e9, DAY) == 0 and use_of_run(4, 100.0, 50.0, DAY) == 0
    assert use_of_run(4, 0.0, 10.0, 1e9) == pytest.approx(40)
    assert use_of_run(1, 0.0, 1e9, DAY) == pytest.approx(DAY / math.log(2)), "and no more, however long it runs"


@given(st.integers(1, 64), st.floats(1, 1e6), st.floats(1, 1e6), st.floats(60, 1e6))
def test_a_run_counts_the_same_whether_it_lives_or_has_ended_on_the_way(
    gpus: int, first: float, second: float, half_life_s: float
) -> None:
    whole = use_of_run(gpus, 0.0, first + second, half_life_s)
    ended = Use().plus(use_of_run(gpus, 0.0, first, half_life_s), first, half_life_s)
    rest = use_of_run(gpus, first, first + second, half_life_s)
    assert ended.decayed(first + second, half_life_s) + rest == pytest.approx(whole)


def live(user: str, gang: Gang, started_at: float | None) -> SlimTask:
    attempt = SlimAttempt("s", "t", 1, AttemptState.RUNNING, 0.0, "/root", started_at=started_at)
    return replace(task(99, user, gang), live=attempt)


def test_what_is_alive_counts_too() -> None:
    alive = [live("ada", rl(2, 4), 0.0), live("ada", rl(1, 1), None), live("bob", rl(1, 4), 0.0)]
    shares = shares_of(alive, 10.0, {"bob": Use(7.0, 10.0), "eve": Use(1.0, 10.0)}, 1e9)
    assert shares.running == {"ada": 9, "bob": 4}
    assert shares.use == {"ada": pytest.approx(80), "bob": pytest.approx(47), "eve": 1.0}
    assert shares_of(alive, 10.0).use is None


def test_the_least_use_goes_first_and_within_a_user_the_place() -> None:
    queue = [task(i, user, rl(1, 8)) for i, user in enumerate(["ada", "ada", "bob", "eve", "bob", "eve"])]
    use = {"ada": 100.0, "bob": 1.0, "eve": 1.0}
    decision = decide(queue, FOUR_WORKERS, 0.0, FIFO, shares=Shares(use=use))
    assert admitted(decision) == [2, 3, 4, 5], "the same use is no difference"
    assert [each.seq for each in decision.waits] == [0, 1]
    assert admitted(decide(queue, FOUR_WORKERS, 0.0, FIFO)) == [0, 1, 2, 3], "off: the order of the queue"


def test_whose_turn_comes_first_overtakes_nobody() -> None:
    """Else every task would be overdue within minutes, and the order that of the queue again."""
    of_ada, of_bob, of_eve = task(1, "ada", rl(1, 8)), task(2, "bob", rl(1, 8)), task(3, "eve", rl(2, 8))
    use = {"ada": 9.0, "bob": 5.0}
    decision = decide([of_ada, of_bob, of_eve], [worker("1"), worker("2", free=0)], 7.0, FIFO, shares=Shares(use=use))
    assert admitted(decision) == [2]
    found = holds(decision)
    assert found[of_ada.task_id].overtaken_since is None
    assert found[of_eve.task_id].overtaken_since == 7, "it comes first, and does not fit"


def test_who_was_overtaken_for_as_long_as_is_allowed_comes_before_all() -> None:
    old = replace(task(1, "ada", rl(2, 8)), overtaken_since=0.0)
    nodes = [worker("1"), worker("2", free=0)]
    shares = Shares(use={"ada": 1e9})
    before = decide([old, task(2, "bob", rl(1, 8))], nodes, 599.0, FIFO, shares=shares)
    assert admitted(before) == [2] and before.reserves_at == 600
    late = decide([old, task(2, "bob", rl(1, 8))], nodes, 600.0, FIFO, shares=shares)
    assert admitted(late) == [] and len(late.reserved) == 2
    assert admitted(decide([old, task(2, "bob", rl(1, 8))], FOUR_WORKERS[:2], 600.0, FIFO, shares=shares)) == [1]


# --- what holds of every pass -------------------------------------------------------------------------------------

users = st.sampled_from(["ada", "bob", "eve"])
gangs = st.builds(rl, st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))
clocks = st.sampled_from([None, None, 0.0, 650.0])
reasons = st.sampled_from(
    [None, because(Code.OVER_QUOTA, limit=8), because(Code.OVER_QUOTA, limit=8, passed=30.0),
     because(Code.QUOTA_TOO_SMALL, limit=8, gpus=16, passed=700.0), because(Code.BAD_INPUTS, what="x"),
     because(Code.POOL_BUSY, nodes=1, gpus=1, cpus=1.0)]
)  # fmt: skip
waiting = st.lists(st.tuples(users, gangs, clocks, reasons, st.sampled_from([None, None, None, 9999.0])), max_size=10)
pools = st.lists(st.integers(0, 8), min_size=1, max_size=5)
limits = st.sampled_from([None, 1, 4, 8, 12])
quotas = st.builds(Quotas, limits, st.dictionaries(users, limits, max_size=2))
running = st.dictionaries(users, st.integers(0, 12), max_size=3)
use = st.none() | st.dictionaries(users, st.sampled_from([0.0, 1.0, 1.0, 500.0]), max_size=3)

Row = tuple[str, Gang, float | None, Reason | None, float | None]


def queue_of(rows: list[Row], begin: int = 0) -> list[SlimTask]:
    return [
        replace(task(begin + i, user, gang), overtaken_since=since, reason=reason, not_before=not_before)
        for i, (user, gang, since, reason, not_before) in enumerate(rows)
    ]


def workers_of(free: list[int]) -> list[NodeView]:
    return [worker(str(i), free=each) for i, each in enumerate(free)]


@settings(max_examples=400, deadline=None)
@given(waiting, pools, quotas, running, use)
def test_nobody_is_ever_above_the_quota_and_nothing_waits_that_may_start(
    rows: list[Row], free: list[int], quotas: Quotas, running: dict[str, int], use: dict[str, float] | None
) -> None:
    queue = queue_of(rows)
    policy = replace(FIFO, quotas=quotas)
    decision = decide(queue, workers_of(free), 700.0, policy, shares=Shares(running, use=use))
    holding = Counter(running)
    for each in decision.admitted:
        holding[each.user_id] += each.gang.gpus
        limit = quotas.limit_of(each.user_id)
        assert limit is None or holding[each.user_id] <= limit
    assert sorted([*admitted(decision), *(each.seq for each in decision.waits)]) == list(range(len(queue)))
    # Work conserving: who finds room in what is left waits for its own time, or has no quota left after what runs and
    # what of its user comes before it.
    place = {each.task_id: i for i, each in enumerate(decision.waits)}
    for each, verdict in zip(decision.waits, decision.verdicts, strict=True):
        fitting = [n for n in decision.left if n.gpus_free >= each.gang.gpus_per_node]
        if len(fitting) < each.gang.nnodes or each.not_before is not None:
            continue
        limit = quotas.limit_of(each.user_id)
        assert limit is not None
        ahead = [
            other.gang.gpus
            for other in decision.waits
            if other.user_id == each.user_id
            and place[other.task_id] < place[each.task_id]
            and other.not_before is None
            and other.gang.gpus <= limit
            and other.gang.nnodes <= len(free)
        ]
        started = [
            other.gang.gpus
            for other in decision.admitted
            if other.user_id == each.user_id and decision.turn_of[other.task_id] <= place[each.task_id]
        ]
        assert each.gang.gpus > limit or running.get(each.user_id, 0) + sum(ahead + started) + each.gang.gpus > limit
        assert verdict.reason is None or verdict.reason.code in (Code.OVER_QUOTA, Code.QUOTA_TOO_SMALL)


@settings(max_examples=300, deadline=None)
@given(waiting, pools, running)
def test_off_or_without_effect_it_is_the_queue_untouched(
    rows: list[Row], free: list[int], running: dict[str, int]
) -> None:
    """Off, with quotas that nobody reaches, and with fair share among users of the same use: the same decision, and the
    same holds."""
    queue, nodes = queue_of(rows), workers_of(free)
    plain = decide(queue, nodes, 700.0, FIFO)
    assert [each.seq for each in plain.waits] == sorted(each.seq for each in plain.waits)
    youngest = max(admitted(plain), default=-1)
    assert plain.turn_of == {
        each.task_id: sum(other.seq < each.seq for other in plain.waits) for each in plain.admitted
    }
    for hold in plain.holds(plain.admitted):
        old = next(each for each in queue if each.task_id == hold.task_id)
        if old.overtaken_since is None and hold.overtaken_since is not None:
            assert old.seq < youngest, "the rule of the clock without fair share"
    shares = Shares(running)
    equal = decide(queue, nodes, 700.0, replace(FIFO, half_life_s=DAY), shares=shares)
    wide = decide(queue, nodes, 700.0, replace(FIFO, quotas=Quotas(10_000)), shares=shares)
    assert all_of(equal) == all_of(plain) and equal.taken == {} == plain.taken
    assert replace(all_of(wide), taken={}) == all_of(plain)
    assert list(wide.holds(wide.admitted)) == list(plain.holds(plain.admitted))


@settings(max_examples=300, deadline=None)
@given(waiting, st.lists(st.tuples(users, gangs), min_size=1, max_size=4), pools, quotas, running, use)
def test_who_comes_last_is_decided_over_alone_as_within_the_whole(
    old: list[Row],
    new: list[tuple[str, Gang]],
    free: list[int],
    quotas: Quotas,
    running: dict[str, int],
    use: dict[str, float] | None,
) -> None:
    """When none of the older ones starts. With fair share, too, though the new ones' turn may be earlier: what they
    could take is what is left."""
    older, policy, nodes = queue_of(old), replace(FIFO, quotas=quotas), workers_of(free)
    came = [task(100 + i, *row) for i, row in enumerate(new)]
    before = decide(older, nodes, 700.0, policy, shares=Shares(running, use=use))
    if before.admitted:
        return
    alone = decide(
        came, before.left, 700.0, policy, reserved=before.reserved, shares=Shares(running, before.taken or None)
    )
    whole = decide([*older, *came], nodes, 700.0, policy, shares=Shares(running, use=use))
    assert bool(alone.admitted) == bool(whole.admitted)
    if use is None:
        assert alone.admitted == whole.admitted
    if not alone.admitted:
        assert told(alone) == {seq: reason for seq, reason in told(whole).items() if seq >= 100}


# --- what holds of every stream -----------------------------------------------------------------------------------


@dataclass
class Stream:
    """A pool on which users' tasks come, start, run and end, decided over at each of these moments."""

    nodes: dict[str, int]
    policy: AdmissionPolicy
    #: Of each task: how long it runs.
    lasts: Callable[[SlimTask], float]
    now: float = 0.0
    seq: int = 0
    waiting: dict[str, SlimTask] = field(default_factory=dict)
    live: dict[str, tuple[SlimTask, tuple[str, ...]]] = field(default_factory=dict)
    ends: list[tuple[float, str]] = field(default_factory=list)
    use: dict[str, Use] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def submit(self, user: str, gang: Gang) -> SlimTask:
        self.seq += 1
        new = task(self.seq, user, gang)
        self.waiting[new.task_id] = new
        return new

    def step(self) -> None:
        """To the next end, or to the next time that the decision itself names."""
        due = self.decide()
        ahead = [at for at in (due, self.ends[0][0] if self.ends else None) if at is not None and at > self.now]
        self.now = min(ahead, default=self.now + 60.0)
        while self.ends and self.ends[0][0] <= self.now:
            name = heapq.heappop(self.ends)[1]
            ended, _ = self.live.pop(name)
            half_life_s = self.policy.half_life_s
            if half_life_s is not None and ended.live is not None:
                used = use_of_run(ended.gang.gpus, ended.live.started_at, self.now, half_life_s)
                self.use[ended.user_id] = self.use.get(ended.user_id, Use()).plus(used, self.now, half_life_s)

    def decide(self) -> float | None:
        held: Counter[str] = Counter()
        for each, nodes in self.live.values():
            held.update(dict.fromkeys(nodes, each.gang.gpus_per_node))
        views = [worker(name, gpus, free=gpus - held[name]) for name, gpus in self.nodes.items()]
        half_life_s = self.policy.half_life_s
        alive = [each for each, _ in self.live.values()]
        shares = shares_of(alive, self.now, self.use, half_life_s) if half_life_s else shares_of(alive, self.now)
        decision = decide(self.waiting.values(), views, self.now, self.policy, shares=shares)
        for each in decision.admitted:
            attempt = SlimAttempt("s", each.task_id, 1, AttemptState.RUNNING, self.now, "/r", started_at=self.now)
            self.live[each.task_id] = (replace(each, live=attempt), decision.nodes_of[each.task_id])
            self.started[each.task_id] = self.now
            del self.waiting[each.task_id]
            heapq.heappush(self.ends, (self.now + self.lasts(each), each.task_id))
        for hold in decision.holds(decision.admitted):
            old = self.waiting[hold.task_id]
            self.waiting[hold.task_id] = replace(
                old,
                state=TaskState.PENDING_RESOURCES,
                reason=hold.reason or old.reason,
                overtaken_since=hold.overtaken_since,
            )
        holding = Counter[str]()
        for each, _ in self.live.values():
            holding[each.user_id] += each.gang.gpus
        for user, gpus in holding.items():
            limit = self.policy.quotas.limit_of(user)
            assert limit is None or gpus <= limit, "above the quota"
        return decision.reserves_at


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(users, gangs), min_size=1, max_size=8),
    st.sampled_from([None, 8, 16]),
    st.booleans(),
)
def test_nobody_starves(rng: random.Random, first: list[tuple[str, Gang]], limit: int | None, heavy: bool) -> None:
    """Three users fill a pool without end, and each goes on to submit. Whatever was there first starts within a bound,
    also for a user who has had a great deal."""
    half_life_s = 1800.0
    policy = replace(FIFO, half_life_s=half_life_s, quotas=Quotas(limit))
    stream = Stream({"1": 8, "2": 8, "3": 4}, policy, lambda each: rng.choice([60.0, 300.0, 900.0]))
    if heavy:
        stream.use["ada"] = Use(1e7, 0.0)
    small = [rl(1, 1), rl(1, 2), rl(1, 4), rl(2, 2)]
    ours = []
    for user, gang in first:
        if (limit is None or gang.gpus <= limit) and gang.nnodes <= (2 if gang.gpus_per_node > 4 else 3):
            ours.append(stream.submit(user, gang))
    for _ in range(6_000):
        for user in ("ada", "bob", "eve"):
            # Each always has more than the pool can take.
            while sum(each.user_id == user for each in stream.waiting.values()) < 12:
                stream.submit(user, rng.choice(small))
        stream.step()
        if all(each.task_id in stream.started for each in ours):
            break
    late = [each for each in ours if each.task_id not in stream.started]
    assert not late and stream.now < 40 * half_life_s, (late, stream.now)


def test_fair_share_gives_each_user_the_same() -> None:
    """One has always ten times as many waiting; by the order of the queue alone the other gets a tenth."""
    had: dict[bool, float] = {}
    for is_fair in (True, False):
        rng = random.Random(1)
        policy = replace(FIFO, half_life_s=DAY if is_fair else None)
        stream = Stream({"1": 8}, policy, lambda each, rng=rng: rng.choice([200.0, 300.0, 500.0]))  # type: ignore[misc]
        for _ in range(400):
            for user, count in (("ada", 80), ("bob", 8)):
                while sum(each.user_id == user for each in stream.waiting.values()) < count:
                    stream.submit(user, rl(1, 1))
            stream.step()
        had[is_fair] = sum("-bob-" in name for name in stream.started) / len(stream.started)
    assert had[True] == pytest.approx(0.5, abs=0.05) and had[False] < 0.15


def test_a_long_line_costs_little_more_with_quotas_and_fair_share() -> None:
    """By what is looked at, not by a clock: each gang is placed once, each refusal is made once."""
    names = [f"u{i}" for i in range(50)]
    line = [task(i, user, rl(1 + i % 2, 8)) for i, user in zip(range(20_000), itertools.cycle(names))]
    policy = replace(FIFO, quotas=Quotas(16))
    shares = Shares({user: i for i, user in enumerate(names)}, use={user: float(i) for i, user in enumerate(names)})
    decision = decide(line, [worker("1", free=1), worker("2", free=1)], 0.0, policy, shares=shares)
    assert len(decision.waits) == 20_000 and len({id(verdict) for verdict in decision.verdicts}) <= 52
