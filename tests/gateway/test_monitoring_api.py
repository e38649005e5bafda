"""GET /metrics: who may read it, what it says, and what it says while parts are away."""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from argus_ray.core.actions import Credential
from argus_ray.core.errors import Unavailable
from argus_ray.core.model import NodeView
from argus_ray.core.monitoring import ActorFacts, PoolFacts, ReadMonitoring
from argus_ray.core.states import Outcome
from argus_ray.core.watching import GATEWAY
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.http.auth import Authenticator, Tokens
from argus_ray.gateway.http.prefix import TrustedProxies
from argus_ray.gateway.monitoring import families, scrape
from argus_ray.gateway.monitoring.tally import Tally
from tests.support import monitored
from tests.support.builders import make_service
from tests.support.gateway import ADMIN, INTERNAL, METRICS_TOKEN, SCRAPER, Api, Headers, TestClient, make_api

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(api: Api, who: Headers = SCRAPER, **headers: str) -> Samples:
    """All of them, of a new look."""
    api.world.clock.advance(scrape.FRESH_S)
    answer = api.client.get("/metrics", headers={**who, **headers})
    assert answer.status_code == 200, answer.text
    return read(answer.text, answer.headers["content-type"])


def read(text: str, kind: str) -> Samples:
    parse = parse_openmetrics if "openmetrics" in kind else parse_text
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, "each once"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"argus_{name}", tuple(sorted(labels.items()))))


def test_the_metrics_token_reads_metrics_and_nothing_else(api: Api, alice: Headers) -> None:
    assert api.client.get("/metrics", headers=SCRAPER).status_code == 200
    document = api.app.fastapi.openapi()
    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path != "/metrics" and operation.get("security"):
                answer = api.client.request(method.upper(), re.sub(r"\{\w+\}", "x", path), headers=SCRAPER)
                assert answer.status_code == 401, (method, path)
                tried += 1
    assert tried > 30


def test_an_admin_reads_metrics_and_a_user_does_not(api: Api, alice: Headers) -> None:
    for who, status, code in (
        (ADMIN, 200, None),
        (INTERNAL, 200, None),
        (alice, 403, "forbidden"),
        ({}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {METRICS_TOKEN}x"}, 401, "unauthenticated"),
        ({"Authorization": "Bearer argus_u_" + "0" * 64}, 401, "unauthenticated"),
    ):
        answer = api.client.get("/metrics", headers=who)
        assert answer.status_code == status
        assert code is None or answer.json()["code"] == code
    assert api.client.get("/metrics?name=x", headers=SCRAPER).json()["code"] == "invalid_request"
    assert api.client.get("/metrics?name=x").status_code == 401


def test_without_a_metrics_token_no_token_is_one(api: Api) -> None:
    authenticator = Authenticator(Tokens.of(("a" * 20,)))
    assert not authenticator.may_scrape([]) and not authenticator.may_scrape(["Bearer " + "b" * 20])
    assert Authenticator(Tokens.of((), "", "b" * 20)).may_scrape(["Bearer " + "b" * 20])


def test_text_or_openmetrics_as_prometheus_asks(api: Api) -> None:
    prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    prometheus += "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    for accept, kind in (
        (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain, application/openmetrics-text", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=nonsense", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
    ):
        answer = api.client.get("/metrics", headers={**SCRAPER, "Accept": accept})
        assert answer.headers["content-type"] == kind, accept
        assert answer.text.endswith("# EOF\n") == ("openmetrics" in kind)
    api.actors = monitored.actors()
    text, other = samples(api, Accept="text/plain"), samples(api, Accept=prometheus)
    assert set(text) == set(other)
    assert api.client.head("/metrics", headers=SCRAPER).text == ""


def test_it_tells_the_work_of_a_service(api: Api, alice: Headers) -> None:
    api.actors = monitored.actors()
    first = api.submit(alice)
    api.submit(alice, workload="sft", nnodes=2)
    change = api.run(first)
    api.world.clock.advance(100)
    found = samples(api)
    assert value(found, "part_ready", part="state") == 1
    assert value(found, "tasks", workload="sft", state="RUNNING") == 1
    assert value(found, "tasks", workload="grpo", state="QUEUED") == 0
    assert value(found, "tasks_accepted_total", workload="sft") == 2
    assert value(found, "tasks_waiting", reason="new") == 1 and value(found, "gpus_wanted", reason="new") == 8
    assert value(found, "gpus", kind="claimed") == 4 and value(found, "gpus", kind="total") == 32
    assert value(found, "gpus", kind="free") == 12 and value(found, "gpus", kind="barred") == 3
    assert [value(found, "nodes", state=state) for state in ("ready", "barred", "cordoned")] == [2, 1, 1]
    assert value(found, "node_gpus_free", node="w3") == 2
    assert value(found, "user_gpus", user="alice") == 4
    assert value(found, "user_tasks", user="alice", state="QUEUED") == 1
    assert value(found, "queue_wait_seconds_bucket", le="1.0") == value(found, "queue_wait_seconds_count") == 1
    assert value(found, "scheduler_tick_seconds_bucket", le="0.025") == 2
    assert value(found, "scheduler_tick_seconds_bucket", le="+Inf") == 4
    assert value(found, "scheduler_tick_seconds_sum") == pytest.approx(103.04)
    assert value(found, "head_file_age_seconds") == 2 and value(found, "epoch") == 7
    assert value(found, "shared_free_bytes") == 3e11 and value(found, "overtake_barrier") == 1
    assert value(found, "maintenance") == 0 and value(found, "ray_jobs_reachable") == 1
    api.end(change, Outcome.APPLICATION, 1)
    found = samples(api)
    assert value(found, "tasks_ended_total", workload="sft", outcome="FAILED") == 1
    assert value(found, "attempts_ended_total", outcome="APPLICATION") == 1
    assert value(found, "task_failures_total", code="unknown") == 1
    assert value(found, "user_gpu_seconds_total", user="alice") == pytest.approx(4 * 105)
    assert value(found, "store_bytes") or 0 > 0
    assert value(found, "backup_age_seconds") is None, "nobody has made one here"


def test_no_label_names_a_task_a_path_or_a_message(api: Api, alice: Headers) -> None:
    api.actors = monitored.actors()
    task_id = api.submit(alice)
    api.end(api.run(task_id), Outcome.APPLICATION, 1)
    api.submit(alice)
    api.client.get("/api/v2/tasks/argus-nobody-sft-20270101-000000-0000", headers=alice)
    bounded = {"workload", "state", "outcome", "reason", "result", "code", "kind", "part", "le", "version", "python"}
    for (name, labels), _ in samples(api).items():
        for label, found in labels:
            assert label in bounded | {"user", "node"}, (name, label)
            assert task_id not in found and "/" not in found and "the reason" not in found and len(found) <= 32


def test_a_code_of_another_version_counts_with_others(api: Api, alice: Headers) -> None:
    change = api.run(api.submit(alice))
    api.end(change, Outcome.APPLICATION, 1)
    with api.world.store.transaction() as db:
        db.execute("INSERT INTO totals (metric, label, n) VALUES ('failures', 'argus-x /a path', 3)")
    found = samples(api)
    assert value(found, "task_failures_total", code="other") == 3
    assert value(found, "task_failures_total", code="unknown") == 1


def test_users_are_named_unless_the_operator_says_no(tmp_path: Path) -> None:
    api = make_api(tmp_path, settings={"monitoring": {"per_user": False}})
    with api.client:
        api.run(api.submit(api.user("alice")))
        found = samples(api)
    assert value(found, "gpus", kind="claimed") == 4
    assert not [name for name, labels in found if name.startswith("argus_user") or "alice" in str(labels)]
    api.world.close()


class Away(LocalControlPlane):
    """Of a state actor that does not answer."""

    def _run(self, who: Credential, action: Any) -> Any:
        raise Unavailable("not here")


def test_while_the_state_actor_is_away_it_tells_what_else_is_known(api: Api) -> None:
    api.actors = monitored.actors()
    with TestClient(api.make_app(control=Away(api.world.service))) as client:
        answer = client.get("/metrics", headers=SCRAPER)
    assert answer.status_code == 200
    found = read(answer.text, answer.headers["content-type"])
    assert value(found, "part_ready", part="state") == 0 and value(found, "part_ready", part="scheduler") == 1
    assert value(found, "gpus", kind="free") == 12 and value(found, "gpus", kind="claimed") is None
    assert not [name for name, _ in found if name.startswith(("argus_tasks", "argus_store", "argus_gpus_wanted"))]


def test_while_the_scheduler_is_away_it_tells_what_the_database_knows(api: Api, alice: Headers) -> None:
    api.submit(alice)
    api.ready = {"state": "ok", "scheduler": "TimeoutError", "publisher": "TimeoutError", "ray_jobs": "not known"}
    found = samples(api)
    assert [value(found, "part_ready", part=part) for part in families.PARTS] == [1, 0, 0, 0]
    assert value(found, "tasks_waiting", reason="new") == 1 and value(found, "gpus", kind="claimed") == 0
    for name in ("gpus", "scheduler_last_tick_age_seconds", "ray_jobs_reachable", "head_file_age_seconds", "epoch"):
        assert value(found, name) is None and value(found, name, kind="free") is None, "unknown, never 0"


def test_parts_that_hang_cost_five_seconds_and_no_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_ANSWER_S", 0.05)

    async def hang() -> ActorFacts:
        await asyncio.Event().wait()
        raise AssertionError

    class Hangs:
        async def call(self, who: Credential, action: Any) -> Any:
            await asyncio.Event().wait()

    with TestClient(api.make_app(control=Hangs(), actor_facts=hang)) as client:
        found = read(client.get("/metrics", headers=SCRAPER).text, "text/plain")
    assert value(found, "part_ready", part="state") == 0


def test_a_look_is_shared_for_five_seconds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[ReadMonitoring] = []
    real = LocalControlPlane._run

    def counted(self: LocalControlPlane, who: Credential, action: Any) -> Any:
        if isinstance(action, ReadMonitoring):
            looks.append(action)
        return real(self, who, action)

    monkeypatch.setattr(LocalControlPlane, "_run", counted)
    for _ in range(3):
        for accept in ("text/plain", "application/openmetrics-text"):
            api.client.get("/metrics", headers={**SCRAPER, "Accept": accept})
    assert len(looks) == 1
    api.world.clock.advance(scrape.FRESH_S)
    api.client.get("/metrics", headers=SCRAPER)
    assert len(looks) == 2


def test_refused_requests_are_counted_by_reason(api: Api, alice: Headers) -> None:
    api.client.get("/api/v2/tasks")
    api.client.get("/api/v2/tasks", headers={"Authorization": "Basic eDp5"})
    api.client.get("/api/v2/tasks", headers={"Authorization": "Bearer nobody's"})
    api.client.get("/api/v2/tasks", headers={"Authorization": "Bearer argus_u_" + "0" * 64})
    api.client.get("/api/v2/users", headers=alice)
    assert api.client.post("/api/v2/users/alice:disable", headers=ADMIN).status_code == 200
    api.client.get("/api/v2/tasks", headers=alice)
    api.client.get("/no/such/path")
    found = samples(api)
    counts = {reason: value(found, "auth_failures_total", reason=reason) for reason in ("missing", "invalid")}
    assert counts == {"missing": 2, "invalid": 2}
    assert value(found, "auth_failures_total", reason="disabled") == 1
    assert value(found, "auth_failures_total", reason="forbidden") == 1
    again = samples(api.restart())
    assert value(again, "auth_failures_total", reason="missing") == 2, "no restart loses what was told"


def test_open_streams_of_all_replicas_are_told(api: Api) -> None:
    release = api.streams.acquire("someone")
    assert value(samples(api), "log_streams") == 1
    other = Tally(lambda: 5)
    assert other.has_news

    async def report() -> None:
        loop = asyncio.create_task(other.report_on(LocalControlPlane(api.world.service), 0.001))
        async with asyncio.timeout(30):
            while value_of_streams() != 6:
                await asyncio.sleep(0.001)
        loop.cancel()

    def value_of_streams() -> int:
        return api.world.service.handle(GATEWAY, ReadMonitoring()).streams

    asyncio.run(report())
    release()
    assert value(samples(api), "log_streams") == 5


def test_a_quiet_replica_reports_nothing() -> None:
    open_now = [0]
    tally = Tally(lambda: open_now[0])
    assert not tally.has_news
    open_now[0] = 1
    assert tally.has_news and tally.take().streams == 1 and tally.has_news
    open_now[0] = 0
    assert tally.has_news, "that they are closed is news, too"
    assert tally.take().streams == 0 and not tally.has_news


def test_a_hostname_that_machines_share_names_none_of_them() -> None:
    def at(ip: str, hostname: str) -> NodeView:
        return NodeView(f"n-{ip}", ip, False, 8.0, 8.0, 1.0, 8.0, 1.0, 1.0, hostname)

    pool = PoolFacts.of([at("10.0.0.1", "box"), at("10.0.0.2", "box"), at("10.0.0.3", "w3"), at("10.0.0.4", "")])
    assert set(pool.machines) == {"10.0.0.1", "10.0.0.2", "w3", "10.0.0.4"}


def test_a_scrape_reads_no_task_that_has_ended(tmp_path: Path) -> None:
    """Whatever the past, the statements walk the tasks that wait, those that live, and the totals."""
    from argus_ray.store import totals

    world = make_service(tmp_path)
    seen: list[str] = []
    with world.store.transaction() as db:
        db.set_trace_callback(seen.append)
    world.service.handle(GATEWAY, ReadMonitoring())
    with world.store.transaction() as db:
        db.set_trace_callback(None)
        statements = [text for text in seen if re.search(r"\b(FROM|JOIN) (tasks|attempts|events)\b", text)]
        assert len(statements) == 2
        for statement in statements:
            plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for step in plan:
                allowed = "tasks_in_line|one_live_attempt|sqlite_autoindex|TEMP B-TREE|rowid"
                assert re.search(allowed, step), (statement, step)
        assert totals.read(db)
    world.close()


def test_who_shows_a_bad_token_is_in_the_audit_by_address_and_who_shows_none_is_not(api: Api, alice: Headers) -> None:
    """Also where the gateway refuses it without a look at the database; never a row for each request."""
    app = api.make_app(trusted=TrustedProxies("10.0.0.9"))
    proxied = TestClient(app, client=("10.0.0.9", 5000))
    for token in ("nobody's", "argus_u_" + "0" * 64, "argus_u_" + "1" * 64):
        for _ in range(5):
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "198.51.100.7, 192.0.2.1"}
            assert proxied.get("/api/v2/tasks", headers=headers).status_code == 401
    proxied.get("/api/v2/tasks", headers={"X-Forwarded-For": "192.0.2.2"})
    proxied.get("/api/v2/tasks", headers=alice | {"X-Forwarded-For": "192.0.2.3"})
    assert proxied.get("/metrics", headers=SCRAPER).status_code == 200
    found = proxied.get("/api/v2/audit?action=token.refused", headers=ADMIN).json()["entries"]
    assert [(each["address"], each["actor"], each["result"], each["detail"]) for each in found] == [
        ("192.0.2.1", None, "unauthenticated", {"count": 15})
    ]


def test_addresses_of_one_report_are_bounded() -> None:
    names = itertools.count()
    tally = Tally(lambda: 0, lambda scope: str(next(names)))
    for _ in range(500):
        tally.count({"headers": [(b"authorization", b"Bearer x")]}, "unauthenticated")
    report = tally.take()
    assert len(report.bad_tokens) <= 51 and sum(report.bad_tokens.values()) == 500 == report.refused["invalid"]
    assert not tally.has_news
