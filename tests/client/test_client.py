"""The client's methods against the real gateway."""

from __future__ import annotations

import re
import ssl
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from argus_ray.client import Client, WaitTimeout, errors
from argus_ray.client.errors import BadArgument
from argus_ray.client.models.results import Line, LogAttempt, LogEnd
from argus_ray.core.states import Outcome
from argus_ray.discovery import head_json, sentinel
from tests.client.conftest import MakeClient
from tests.support.checkpoints import save
from tests.support.gateway import ADMIN, Api, lines, log_of, metrics_of


def test_a_task_is_submitted_seen_listed_and_canceled(api: Api, alice: Client) -> None:
    made = alice.submit(api.world.spec())
    assert (made.state, made.warnings) == ("QUEUED", ())
    task = alice.task(made.task_id)
    assert task.user_id == "alice" and task.gang.nnodes >= 1 and not task.has_ended
    assert [each.task_id for each in alice.tasks(state="QUEUED")] == [made.task_id]
    assert alice.spec(made.task_id) == api.world.spec()
    assert alice.explain(made.task_id).position == 1
    assert [each.task_id for each in alice.queue().pending] == [made.task_id]
    assert [each.new_state for each in alice.events(made.task_id)] == ["QUEUED"]
    ended = alice.cancel(made.task_id)
    assert (ended.state, ended.has_ended) == ("CANCELED", True)
    assert alice.cancel(made.task_id).state == "CANCELED"


def test_a_list_is_taken_page_by_page(api: Api, alice: Client) -> None:
    made = [alice.submit(api.world.spec()).task_id for _ in range(5)]
    assert [each.task_id for each in alice.tasks(page_size=2)] == made[::-1]
    assert [each.task_id for each in alice.tasks(page_size=2, limit=3)] == made[:1:-1]
    assert list(alice.tasks(limit=0)) == []
    assert [each.kind for each in alice.events(made[0], page_size=1)] != []


def test_tasks_are_found_counted_and_canceled_together(api: Api, alice: Client) -> None:
    made = [alice.submit(api.world.spec()).task_id for _ in range(3)]
    assert [each.task_id for each in alice.tasks(id_suffix=made[1][-4:], since=timedelta(hours=1))] == [made[1]]
    assert list(alice.tasks(workload="ppo")) == [] and list(alice.tasks(until="1h")) == []
    counts = alice.counts(ids=made[:2])
    assert (counts.total, counts.counts["QUEUED"]) == (2, 2)
    tried = alice.cancel_many(state="QUEUED", dry_run=True)
    assert {each.result for each in tried.results} == {"would_cancel"} and tried.matched == 3
    done = alice.cancel_many([made[0], "nobody's"])
    assert [each.result for each in done.results] == ["canceled", "not_found"]
    assert [each.result for each in alice.cancel_many(workload="sft").results] == ["canceled"] * 2
    assert alice.cancel_many([]).results == () and alice.counts(state="CANCELED").total == 3
    assert alice.version().api == "v2" and alice.server_version == alice.version().version
    assert alice.schema()["title"]


def test_the_same_key_gives_the_same_task(api: Api, alice: Client) -> None:
    first = alice.submit(api.world.spec(), key="k-1")
    assert alice.submit(api.world.spec(), key="k-1").task_id == first.task_id
    assert alice.submit(api.world.spec()).task_id != first.task_id
    with pytest.raises(errors.IdempotencyConflict):
        alice.submit(api.world.spec(epochs=7), key="k-1")


def test_a_refusal_tells_its_fields_and_the_request(api: Api, alice: Client) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        alice.submit(api.world.spec(train_file="/etc/passwd"))
    error = caught.value
    assert isinstance(error, errors.Refused) and (error.code, error.status) == ("invalid_spec", 400)
    assert [field for field, _ in error.errors] == ["train_file"]
    assert re.fullmatch(r"[0-9a-f-]{8,64}", error.request_id or "")
    assert "train_file" in str(error)
    found = alice.validate(api.world.spec(train_file="/etc/passwd"))
    assert not found.valid and found.refusals[0].code == "invalid_spec"
    assert alice.validate(api.world.spec()).valid


def test_errors_are_told_by_their_kind(api: Api, alice: Client, admin: Client, connect: object) -> None:
    with pytest.raises(errors.TaskNotFound):
        alice.task("nobody's")
    with pytest.raises(errors.Forbidden) as forbidden:
        alice.users()
    assert isinstance(forbidden.value, errors.NotAllowed) and forbidden.value.hint
    with pytest.raises(errors.UserExists):
        admin.create_user("alice")
    with pytest.raises(errors.TaskNotEnded):
        alice.resubmit(alice.submit(api.world.spec()).task_id)
    admin.disable_user("alice")
    with pytest.raises(errors.UserDisabled):
        alice.me()
    admin.enable_user("alice")
    assert alice.me().user_id == "alice" and not alice.me().is_admin


def test_a_task_is_made_again(api: Api, alice: Client) -> None:
    old = alice.submit(api.world.spec())
    change = api.run(old.task_id)
    log_of(change).touch()
    api.end(change, Outcome.APPLICATION, 1)
    made = alice.resubmit(old.task_id, resume=True)
    assert made.resubmitted_from == old.task_id and made.settings_from == "task"


def test_a_checkpoint_is_exported(api: Api, alice: Client) -> None:
    settings = api.world.settings
    sentinel.begin(head_json.folder(settings.shared_root, settings.cluster_name))
    old = alice.submit(api.world.spec()).task_id
    with pytest.raises(errors.NothingToExport):
        alice.export(old)
    change = api.run(old)
    save(change.job_root, (10, 20), "sft")
    made = alice.export(old, step=10, key="k")
    assert (made.exported_from, made.step, made.part) == (old, 10, "actor")
    assert alice.export(old, step=10, key="k") == made
    assert alice.task(made.task_id).export is not None


def test_waiting_ends_with_the_tasks(api: Api, alice: Client) -> None:
    one, two = (alice.submit(api.world.spec()).task_id for _ in range(2))
    with pytest.raises(WaitTimeout) as caught:
        alice.wait([one, two], timeout=0)
    assert [task.task_id for task in caught.value.tasks] == [one, two]
    api.end(api.run(two))
    assert [task.task_id for task in alice.wait([one, two], any=True, timeout=60)] == [two]
    alice.cancel(one)
    assert [task.state for task in alice.wait([one, two], timeout=60)] == ["CANCELED", "SUCCEEDED"]
    assert alice.wait([]) == ()
    with pytest.raises(errors.TaskNotFound):
        alice.wait("nobody's", timeout=5)


def test_the_time_of_a_wait_ends_while_the_service_starts_again(api: Api, alice: Client) -> None:
    """Its gateway answers that it is away."""
    task_id = alice.submit(api.world.spec()).task_id
    document = api.client.get(f"/api/v2/tasks/{task_id}", headers=ADMIN).content
    problem = {"code": "unavailable", "title": "x", "detail": "it starts", "instance": "urn:argus:request:1"}
    answers = [httpx2.Response(200, content=document, headers={"content-type": "application/json"})]
    now = [0.0]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return answers.pop() if answers else httpx2.Response(503, json=problem)

    client = Client(
        "http://argus", "secret-token", http=httpx2.MockTransport(answer),
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    with pytest.raises(WaitTimeout) as caught:
        client.wait(task_id, timeout=5)
    assert [task.task_id for task in caught.value.tasks] == [task_id] and now[0] == pytest.approx(5.0, abs=0.1)


def test_a_log_is_followed_to_its_end(api: Api, alice: Client) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    assert list(alice.logs(task_id)) == []
    change = api.run(task_id)
    log_of(change).write_bytes(b"zero\none\rtwo \xe2\x82\xac\nthree\n")
    assert list(alice.logs(task_id, tail=1)) == [Line(1, 17, "three")]
    items = alice.log_events(task_id)
    assert next(items) == LogAttempt(change.submission_id, 1)
    assert [next(items) for _ in range(4)] == [
        *(Line(1, 0, "zero"), Line(1, 5, "one"), Line(1, 9, "two €"), Line(1, 17, "three"))
    ]
    with log_of(change).open("ab") as log:
        log.write(b"the last has no end")
    api.end(change)
    assert list(items) == [Line(1, 23, "the last has no end", ends=False), LogEnd("SUCCEEDED", 1, "SUCCEEDED")]
    assert [line.text for line in alice.logs(task_id, follow=True, grep="t[hw]")] == [
        *("two €", "three", "the last has no end")
    ]


def test_the_logs_of_all_attempts_come_one_after_the_other(api: Api, alice: Client) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    assert list(alice.logs(task_id, attempt="all")) == []
    first = api.run(task_id)
    log_of(first).write_text("a\nb\n")
    api.end(first, Outcome.INFRASTRUCTURE)
    api.world.clock.advance(3600)
    log_of(api.run(task_id)).write_text("c\nd\n")
    assert [(line.attempt, line.text) for line in alice.logs(task_id, attempt="all")] == [
        *((1, "a"), (1, "b"), (2, "c"), (2, "d"))
    ]
    assert [line.text for line in alice.logs(task_id, attempt="all", tail=1)] == ["b", "d"]
    assert [line.text for line in alice.logs(task_id, attempt="all", grep="[bc]")] == ["b", "c"]
    with pytest.raises(BadArgument, match="exclude each other"):
        alice.logs(task_id, attempt="all", follow=True)


def test_what_a_run_leaves_is_read(api: Api, alice: Client, tmp_path: Path) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    change = api.run(task_id)
    metrics_of(change).write_text(lines(1, 2, 3))
    (Path(change.job_root) / "a b").mkdir()
    (Path(change.job_root) / "a b" / "c%d.bin").write_bytes(b"x" * 100_000)
    curves = alice.curves(task_id)
    assert curves.curves["train/loss"].steps == (1, 2, 3)
    assert [entry.name for entry in alice.files(task_id)] == ["a b", "logs", "metrics.jsonl"]
    (entry,) = alice.files(task_id, next(alice.files(task_id)).path)
    assert entry.size == 100_000
    told: list[tuple[int, int]] = []
    saved = alice.download(task_id, entry.path, tmp_path, on_progress=lambda *seen: told.append(seen))
    assert saved == tmp_path / "c%d.bin" and saved.read_bytes() == b"x" * 100_000
    assert told[-1] == (100_000, 100_000) and list(tmp_path.glob(".*.part")) == []
    with pytest.raises(errors.FileNotFound):
        alice.download(task_id, "nothing", tmp_path / "n")
    assert list(alice.rollout_steps(task_id)) == []
    with pytest.raises(errors.FileNotFound):
        list(alice.rollouts(task_id, 1))


def test_changes_of_own_tasks_come_by_themselves(api: Api, alice: Client) -> None:
    with closing(alice.stream()) as changes:
        assert next(changes).event == "hello"
        task_id = alice.submit(api.world.spec()).task_id
        seen = next(each for each in changes if each.event == "task")
    assert (seen.data["task_id"], seen.data["state"], bool(seen.id)) == (task_id, "QUEUED", True)


def test_what_was_done_and_used_is_told(admin: Client, alice: Client) -> None:
    entries = list(admin.audit(action="user.create", limit=1))
    assert [(each.target, each.result) for each in entries] == [("alice", "done")]
    with closing(admin.audit_events(after=entries[0].audit_id - 1)) as done:
        assert next(done).audit_id == entries[0].audit_id
    assert list(admin.usage(by="user")) == [] and alice.me().usage is not None
    with pytest.raises(errors.Forbidden):
        list(alice.audit())


def test_a_log_is_searched_and_read_in_parts(api: Api, alice: Client, tmp_path: Path) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    with pytest.raises(errors.RangeNotSatisfiable):
        alice.log_range(task_id, 0)
    log_of(api.run(task_id)).write_bytes(b"zero\none\ntwo\n")
    part = alice.log_range(task_id, 5, 8)
    assert (part.content, part.start, part.end, part.size, part.gap) == (b"one", 5, 8, 13, None)
    assert alice.log_range(task_id, -4).content == b"two\n"
    (match,) = alice.log_search(task_id, "o.e", regex=True).matches
    assert (match.offset, match.length, match.line_start) == (5, 3, 5)
    assert alice.download_log(task_id, tmp_path / "log").read_bytes() == b"zero\none\ntwo\n"


def test_an_admin_sees_to_users_and_the_pool(admin: Client) -> None:
    assert admin.me().is_admin and admin.health().status == "ok"
    admin.create_user("bob", "Bob")
    issued = admin.issue_token("bob", label="laptop", expires_in_s=60)
    assert [each.user_id for each in admin.users()] == ["bob"] and admin.user("bob").display_name == "Bob"
    assert [each.label for each in admin.tokens("bob")] == ["laptop"]
    assert admin.revoke_token("bob", issued.token_id).revoked_at is not None
    (node,) = admin.nodes().nodes
    assert admin.cordon(node.hostname, reason="a fan").state == "cordoned"
    assert admin.drain(node.hostname, deadline_s=60).state in ("draining", "drained")
    assert admin.uncordon(node.hostname).state == "cleared"
    assert admin.set_maintenance(True, reason="switches").on and admin.maintenance().reason == "switches"
    assert not admin.set_maintenance(False).on
    assert admin.presets().rules is not None
    assert admin.queue(everyone=True).running == ()


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_the_certificate_counts_however_the_url_is_written(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both ways; test_ways.py has the servers whose certificates are not good."""
    asked: list[Any] = []

    def made(**options: Any) -> httpx2.Client:
        asked.append(options["verify"])
        raise ValueError

    monkeypatch.setattr(httpx2, "Client", made)
    with Client(f"{scheme}://argus.example", "token") as client, pytest.raises(BadArgument):
        _ = client._transport._http
    plain = client._transport._plain
    assert plain is not None and plain._is_tls
    for context in (*asked, plain._tls()):
        assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert len(asked) == 1


def test_what_no_header_can_carry_is_refused_at_once(connect: MakeClient) -> None:
    client = connect("token")
    with pytest.raises(BadArgument, match="header"):
        client.submit("x", key="a\nb")
