"""What was done is in the audit, exactly if it was done; and who was refused what only admins may."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Action, Credential, Role
from argus_ray.core.audit import AuditEntry, AuditFilter, FollowAudit, ListAudit
from argus_ray.core.errors import ArgusError, Forbidden, Unavailable
from argus_ray.core.lifecycle import Admit, Advance, End
from argus_ray.core.model import IssuedToken
from argus_ray.core.orders import Machine, NodeOrder
from argus_ray.core.retention import DAY_S, Chore
from argus_ray.core.states import Outcome
from argus_ray.core.task_filter import TaskFilter
from argus_ray.service import audit as audit_service
from argus_ray.service import service
from argus_ray.store import audit
from tests.support.builders import ADMIN, INTERNAL, World, make_service

MACHINE = Machine("worker-1", ("worker-1", "10.0.0.2"), ("n1",))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def entries(world: World, **wanted: Any) -> list[AuditEntry]:
    """Oldest first."""
    page = world.service.handle(ADMIN, ListAudit(AuditFilter(**wanted), 500))
    return list(reversed(page.entries))


def told(world: World, after: int = 0) -> list[tuple[str | None, str, str | None, str | None, str]]:
    news = world.service.handle(ADMIN, FollowAudit(after))
    return [(each.actor, each.action, each.target, each.user_id, each.result) for each in news.entries]


def newest(world: World) -> int:
    return world.service.handle(ADMIN, FollowAudit()).newest


def run_to_the_end(world: World, task_id: str) -> None:
    change = world.admission(world.task(task_id))
    end = End(change.submission_id, Outcome.SUCCEEDED, "it is over", 0)
    assert all(world.service.apply([change, Advance(change.submission_id, running=True), end]))


def test_all_that_writes_says_what_it_has_done() -> None:
    writing = {kind for kind in Action.__subclasses__() if kind.writes}
    assert set(audit_service.ACTS) == writing
    for kind in service._ADMIN_CASES:
        assert kind in audit_service.REFUSED, kind


def test_each_write_is_one_entry(world: World) -> None:
    admin = Credential(Role.ADMIN, None, "10.0.0.9", "ARGUS_ADMIN_TOKEN")
    world.service.handle(admin, actions.CreateUser("alice", "Alice"))
    issued = world.service.handle(admin, actions.IssueToken("alice", "laptop", 3600.0))
    assert isinstance(issued, IssuedToken)
    token_id = issued.info.token_id
    alice = replace(world.issue("alice")[0], address="192.0.2.7")
    other_token = told(world)[-1][2]
    first = world.service.handle(alice, world.submission(world.spec(), "key"))
    world.service.handle(alice, actions.CancelTask(first.task_id))
    again = world.service.handle(alice, actions.ResubmitTask(first.task_id))
    run_to_the_end(world, again.task_id)
    source = world.task(again.task_id).attempts[0].job_root
    made = world.service.handle(admin, actions.ExportTask(again.task_id, step=5, job_root=source))
    for enabled in (False, True):
        world.service.handle(admin, actions.SetUserEnabled("alice", enabled))
    world.service.handle(admin, actions.RevokeToken("alice", token_id))
    for order in (NodeOrder.CORDON, NodeOrder.DRAIN, NodeOrder.UNCORDON):
        world.service.handle(admin, actions.OrderNode(MACHINE, order, "a fan"))
    for on in (True, False):
        world.service.handle(INTERNAL, actions.SetMaintenance(on, "new switches"))
    assert told(world) == [
        ("admin", "user.create", "alice", "alice", "done"),
        ("admin", "token.issue", token_id, "alice", "done"),
        ("admin", "token.issue", other_token, "alice", "done"),
        ("alice", "task.submit", first.task_id, "alice", "done"),
        ("alice", "task.cancel", first.task_id, "alice", "done"),
        ("alice", "task.resubmit", again.task_id, "alice", "done"),
        ("admin", "task.export", made.submitted.task_id, "alice", "done"),
        ("admin", "user.disable", "alice", "alice", "done"),
        ("admin", "user.enable", "alice", "alice", "done"),
        ("admin", "token.revoke", token_id, "alice", "done"),
        ("admin", "node.cordon", "worker-1", None, "done"),
        ("admin", "node.drain", "worker-1", None, "done"),
        ("admin", "node.uncordon", "worker-1", None, "done"),
        ("internal", "maintenance.on", None, None, "done"),
        ("internal", "maintenance.off", None, None, "done"),
    ]
    [submitted] = entries(world, action="task.submit")
    assert (submitted.role, submitted.token_id, submitted.address) == ("user", other_token, "192.0.2.7")
    assert submitted.at_ms == round(world.clock.now * 1000)
    created = entries(world, actor="admin")[0]
    assert (created.role, created.token_id, created.address) == ("admin", "ARGUS_ADMIN_TOKEN", "10.0.0.9")
    assert entries(world, action="task.resubmit")[0].detail == {"from": first.task_id, "resume": False}
    assert entries(world, action="token.issue")[0].detail == {
        "label": "laptop",
        "expires_ms": round(world.clock.now * 1000) + 3_600_000,
    }


def test_many_that_one_call_cancels_are_one_entry_each(world: World) -> None:
    alice = world.user("alice-b-2")
    tasks = [world.submit(alice).task_id for _ in range(3)]
    world.service.handle(alice, actions.CancelTask(tasks[0]))
    before = newest(world)
    world.service.handle(alice, actions.CancelTasks(tuple(tasks), dry_run=True))
    assert newest(world) == before
    world.service.handle(ADMIN, actions.CancelTasks((*tasks, "argus-x")))
    assert told(world, before) == [("admin", "task.cancel", name, "alice-b-2", "done") for name in tasks[1:]]


def test_what_failed_or_changed_nothing_is_not_told(world: World) -> None:
    alice = world.user("alice")
    world.submit(alice, "key")
    ended = world.submit(alice)
    world.service.handle(alice, actions.CancelTask(ended.task_id))
    before = newest(world)
    replay = world.service.handle(alice, world.submission(world.spec(), "key"))
    assert not replay.created
    idle: list[tuple[Credential, Action[Any]]] = [
        (alice, actions.CancelTask(ended.task_id)),
        (ADMIN, actions.SetUserEnabled("alice", enabled=True)),
        (ADMIN, actions.SetMaintenance(on=False)),
    ]
    for who, call in idle:
        world.service.handle(who, call)
    failing: list[tuple[Credential, Action[Any]]] = [
        (alice, world.submission(world.spec(total_epochs=2), "key")),
        (alice, actions.CancelTask("argus-bob-1")),
        (alice, actions.ResubmitTask(replay.task_id)),
        (ADMIN, actions.CreateUser("alice", "again")),
        (ADMIN, actions.RevokeToken("alice", "tok-none")),
        (ADMIN, actions.OrderNode(MACHINE, NodeOrder.DRAIN, "x" * 1000)),
    ]
    for who, call in failing:
        with pytest.raises(ArgusError):
            world.service.handle(who, call)
    assert newest(world) == before


def test_an_entry_that_cannot_be_written_undoes_the_act(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And spoils no other call of its batch."""
    alice, bob = world.user("alice"), world.user("bob")
    real = audit.add

    def add(db: sqlite3.Connection, entry: AuditEntry) -> None:
        if entry.actor == "alice":
            raise sqlite3.IntegrityError("no")
        real(db, entry)

    monkeypatch.setattr(audit, "add", add)
    refused, accepted = world.service.handle_many(
        [(alice, world.submission(world.spec())), (bob, world.submission(world.spec()))]
    )
    assert isinstance(refused, ArgusError)
    assert [task.user_id for task in world.all_tasks()] == ["bob"]
    assert told(world)[-1][:3] == ("bob", "task.submit", accepted.task_id)


def test_no_token_and_no_spec_is_in_it(world: World) -> None:
    world.user("alice")
    who, issued = world.issue("alice")
    text = world.spec(model_id="org/the-secret-model")
    task = world.service.handle(who, world.submission(text))
    world.service.handle(who, actions.CancelTask(task.task_id))
    with pytest.raises(Forbidden):
        world.service.handle(who, actions.ListUsers())
    with world.store.transaction() as db:
        stored = repr([tuple(row) for row in db.execute("SELECT * FROM audit")])
    assert "tok-" in stored
    assert who.digest is not None
    for secret in (issued.token, issued.token[8:], who.digest, "the-secret-model"):
        assert secret not in stored


ADMIN_CALLS: list[tuple[Action[Any], tuple[str, str | None, str | None]]] = [
    (actions.ListUsers(), ("user.list", None, None)),
    (actions.GetUser("bob"), ("user.show", "bob", "bob")),
    (actions.CreateUser("carol", ""), ("user.create", "carol", "carol")),
    (actions.SetUserEnabled("bob", enabled=False), ("user.disable", "bob", "bob")),
    (actions.IssueToken("bob"), ("token.issue", "bob", "bob")),
    (actions.RevokeToken("bob", "tok-1"), ("token.revoke", "tok-1", "bob")),
    (actions.OrderNode(MACHINE, NodeOrder.DRAIN), ("node.drain", "worker-1", None)),
    (actions.SetMaintenance(on=True), ("maintenance.on", None, None)),
    (actions.ShowQueue(everyone=True), ("queue.list", None, None)),
    (actions.ListTasks(TaskFilter(user_id="bob")), ("task.list", "bob", "bob")),
    (actions.CancelTasks(where=TaskFilter(user_id="bob")), ("task.cancel", "bob", "bob")),
    (ListAudit(), ("audit.list", None, None)),
]


def test_a_user_who_asks_for_what_is_an_admins_is_told(world: World) -> None:
    alice = replace(world.user("alice"), address="192.0.2.7")
    before = newest(world)
    for call, _ in ADMIN_CALLS:
        with pytest.raises(Forbidden):
            world.service.handle(alice, call)
    expected = [("alice", name, target, user, "forbidden") for _, (name, target, user) in ADMIN_CALLS]
    assert told(world, before) == expected
    assert {(each.token_id or "")[:4] for each in entries(world, actor="alice")} == {"tok-"}
    assert {each.address for each in entries(world, actor="alice")} == {"192.0.2.7"}


def test_what_a_lost_token_tries_is_told(world: World) -> None:
    alice, issued = (world.user("alice"), world.issue("alice"))[1]
    world.service.handle(ADMIN, actions.RevokeToken("alice", issued.info.token_id))
    stranger = Credential(Role.USER, "0" * 64, "198.51.100.3")
    bob = world.user("bob")
    world.service.handle(ADMIN, actions.SetUserEnabled("bob", enabled=False))
    before = newest(world)
    for who in (alice, stranger, bob):
        with pytest.raises(ArgusError):
            world.service.handle(who, actions.ListUsers())
        with pytest.raises(ArgusError):
            world.service.handle(who, actions.ListTasks())  # which is anybody's
    assert told(world, before) == [
        ("alice", "user.list", None, None, "unauthenticated"),
        (None, "user.list", None, None, "unauthenticated"),
        ("bob", "user.list", None, None, "user_disabled"),
    ]


def test_refusals_cannot_fill_the_disk(world: World) -> None:
    alice = world.user("alice")
    before = newest(world)
    answers = world.service.handle_many([(alice, actions.ListUsers())] * 100)
    assert all(isinstance(answer, Forbidden) for answer in answers)
    assert len(told(world, before)) == 1
    world.clock.advance(61)
    with pytest.raises(Forbidden):
        world.service.handle(alice, actions.ListUsers())
    assert entries(world, actor="alice")[-1].detail == {"left_out": 99}
    world.clock.advance(61)
    # Of tokens that nobody knows there are as many as somebody likes, and of addresses almost.
    strangers = [Credential(Role.USER, f"{n:064x}", f"10.0.{n // 250}.{n % 250}") for n in range(500)]
    before = newest(world)
    world.service.handle_many([(who, actions.ListUsers()) for who in strangers])
    assert len(told(world, before)) == audit_service.Refusals().most
    assert len(world.service._refusals._told) == audit_service.Refusals().most


def test_a_disk_that_is_full_changes_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.user("alice")

    def full(*_: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(audit_service, "write_refused", full)
    with pytest.raises(Forbidden):
        world.service.handle(alice, actions.ListUsers())


def test_old_entries_go_when_the_settings_say_so_and_a_step_of_the_clock_is_not_believed(tmp_path: Path) -> None:
    world = make_service(tmp_path, settings={"retention": {"audit_days": 30}})
    world.user("alice")
    world.clock.advance(29 * DAY_S)
    world.user("bob")
    world.service.chores(Chore.LIVE)
    assert len(told(world)) == 4
    world.clock.jump(20 * DAY_S)
    world.service.chores(Chore.LIVE)
    assert len(told(world)) == 4, "somebody may set it right"
    world.clock.advance(2 * DAY_S)
    world.service.chores(Chore.LIVE)
    assert [each[2] for each in told(world) if each[1] == "user.create"] == ["bob"]
    world.reopen(settings={"retention": {"audit_days": 0}})
    world.clock.advance(10_000 * DAY_S)
    world.service.chores(Chore.LIVE)
    assert len(told(world)) == 2, "0: never"
    world.close()


def test_an_admission_by_the_scheduler_is_nobodys_act(world: World) -> None:
    task = world.submit(world.user("alice"))
    before = newest(world)
    change: Admit = world.admission(task)
    assert all(world.service.apply([change]))
    assert newest(world) == before


def test_what_may_be_said_can_be_written_down(world: World) -> None:
    admin = Credential(Role.ADMIN, None, None, "A_VARIABLE_" + 64 * "X")
    reason = "\N{GRINNING FACE}" * 500
    world.service.handle(admin, actions.SetMaintenance(True, reason))
    world.service.handle(admin, actions.OrderNode(MACHINE, NodeOrder.DRAIN, reason, 60.0))
    found = entries(world)[-2:]
    assert [(each.action, each.detail["reason"]) for each in found if each.detail] == [
        ("maintenance.on", reason),
        ("node.drain", reason),
    ]
    assert {each.token_id for each in found} == {"A_VARIABLE_" + 53 * "X"}


def test_a_refusal_that_cannot_be_written_down_takes_no_answer_from_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    calls = [(alice, actions.GetUser("\ud800")), (ADMIN, actions.CreateUser("carl", "Carl"))]
    refused, made = world.service.handle_many(calls)
    assert isinstance(refused, Forbidden) and made.user_id == "carl"
    assert [each.result for each in entries(world, action="user.show")] == ["forbidden"]

    def broken(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(audit_service, "write_refused", broken)
    refused, made = world.service.handle_many([(alice, actions.ListUsers()), (ADMIN, actions.CreateUser("dora", "D"))])
    assert isinstance(refused, Forbidden) and made.user_id == "dora"
