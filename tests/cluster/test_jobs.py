"""The Ray Jobs adapter against a server that misbehaves: it translates, and it never waits without a bound."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from argus_ray.cluster.jobs import JobRequest, RayJobs, RayRefused, RayUnreachable, ask_directly
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.verl.command import assignment
from tests.support.recorder import recorder

Answer = tuple[int, Any]
REQUEST = JobRequest("argus-u-sft-20260101-000000-abcd--a01", "true", {"A": "b"}, {})
VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"}


class FakeDashboard:
    """Answers by a table of (method, path end) -> answer; a missing row is a 404."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | Callable[[], Answer]] = {("GET", "/api/version"): (200, VERSION)}
        self.seen: list[tuple[str, str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.hold = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.seen.append((self.command, self.path, body))
                fake.authorizations.add(self.headers.get("Authorization"))
                answer = fake.answers.get((self.command, self.path), (404, "Job does not exist"))
                status, content = answer() if callable(answer) else answer
                raw = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = _serve

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stuck(self) -> Answer:
        self.hold.wait(30)
        return 200, {}


@pytest.fixture
def dashboard() -> Iterator[FakeDashboard]:
    fake = FakeDashboard()
    yield fake
    fake.hold.set()
    fake.server.shutdown()
    fake.server.server_close()


def use(dashboard: FakeDashboard, call: Callable[[RayJobs], Any], timeout_s: float = 20) -> Any:
    async def main() -> Any:
        jobs = RayJobs(timeout_s=timeout_s, concurrency=2, address=lambda: dashboard.url, agent=lambda: dashboard.url)
        return await call(jobs)

    return asyncio.run(main())


#: Asked of the agent on the head, about a job that nobody has.
WAKE = ("POST", "/api/job_agent/jobs/argus-nobody/stop")


def details(**fields: Any) -> dict[str, Any]:
    return {"type": "SUBMISSION", "status": "RUNNING", "entrypoint": "true", **fields}


JOB = f"/api/jobs/{REQUEST.submission_id}"


def test_a_submission_asks_for_a_worker_and_nothing_else(dashboard: FakeDashboard) -> None:
    dashboard.answers["POST", "/api/jobs/"] = (200, {"submission_id": "x", "job_id": "x"})
    use(dashboard, lambda jobs: jobs.submit(REQUEST))
    body = next(body for method, path, body in dashboard.seen if method == "POST")
    assert body["entrypoint_resources"] == {"worker_node": 1}
    assert body["runtime_env"] == {"env_vars": {"A": "b"}}
    assert not body.get("entrypoint_num_gpus") and not body.get("entrypoint_num_cpus")


def test_a_second_submission_of_the_same_id_is_fine(dashboard: FakeDashboard) -> None:
    dashboard.answers["POST", "/api/jobs/"] = (500, "ValueError: Job with submission_id x already exists.")
    use(dashboard, lambda jobs: jobs.submit(REQUEST))


def test_a_refusal_and_a_failure_of_ray_are_told_apart(dashboard: FakeDashboard) -> None:
    dashboard.answers["POST", "/api/jobs/"] = (400, "bad runtime_env")
    with pytest.raises(RayRefused, match="bad runtime_env"):
        use(dashboard, lambda jobs: jobs.submit(REQUEST))
    dashboard.answers["POST", "/api/jobs/"] = (500, "No available agent to submit job, please try again later.")
    with pytest.raises(RayUnreachable):
        use(dashboard, lambda jobs: jobs.submit(REQUEST))


def test_what_ray_says_of_a_job(dashboard: FakeDashboard) -> None:
    dashboard.answers["GET", JOB] = (
        200,
        details(
            status="FAILED",
            error_type="JOB_ENTRYPOINT_COMMAND_ERROR",
            driver_exit_code=3,
            job_id="02000000",
            message="last lines",
            driver_node_id="n1",
            driver_info={"id": "02000000", "node_ip_address": "10.0.0.2", "pid": "1"},
            runtime_env={"env_vars": assignment(("n1", "n2"))},
        ),
    )
    seen = use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id))
    assert (seen.status, seen.failure, seen.exit_code) == (JobStatus.FAILED, FailureKind.DRIVER, 3)
    assert (seen.ray_job_id, seen.node_id, seen.node_ip) == ("02000000", "n1", "10.0.0.2")
    assert seen.nodes == ("n1", "n2")


@pytest.mark.parametrize("told", [{}, {"runtime_env": None}, {"runtime_env": {}}, {"runtime_env": {"env_vars": {}}}])
def test_a_job_that_was_given_to_no_nodes_tells_none(dashboard: FakeDashboard, told: dict[str, Any]) -> None:
    dashboard.answers["GET", JOB] = (200, details(**told))
    seen = use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id))
    assert (seen.status, seen.nodes) == (JobStatus.RUNNING, ())


def test_absent_is_said_only_when_ray_says_it(dashboard: FakeDashboard) -> None:
    assert use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id)).status is JobStatus.ABSENT
    for status, text in ((500, "GCS is away"), (503, "later"), (404, "page not found")):
        dashboard.answers["GET", JOB] = (status, text)
        assert use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id)).status is JobStatus.UNKNOWN


def test_reachable_wakes_the_agent_that_watches_the_jobs(dashboard: FakeDashboard) -> None:
    """Ray 2.60's agent begins to watch jobs at the first request that it gets. Seen after a restart of the head: a job
    without a supervisor stayed PENDING for as long as nothing was submitted, and so everything waited for it."""
    assert use(dashboard, lambda jobs: jobs.reachable()) is True
    assert WAKE in [seen[:2] for seen in dashboard.seen]


@pytest.mark.parametrize("status", [401, 500])
def test_an_agent_that_does_not_do_its_work_is_not_reachable(dashboard: FakeDashboard, status: int) -> None:
    dashboard.answers[WAKE] = (status, "no")
    assert use(dashboard, lambda jobs: jobs.reachable()) is False


def test_a_dashboard_that_is_away_is_unknown(dashboard: FakeDashboard) -> None:
    dashboard.server.shutdown()
    dashboard.server.server_close()
    assert use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id)).status is JobStatus.UNKNOWN
    assert use(dashboard, lambda jobs: jobs.reachable()) is False


def test_a_dashboard_that_hangs_is_bounded_and_recovered_from(dashboard: FakeDashboard) -> None:
    dashboard.answers["GET", JOB] = dashboard.stuck

    async def main() -> None:
        jobs = RayJobs(timeout_s=0.3, concurrency=2, address=lambda: dashboard.url)
        seen = await asyncio.gather(*(jobs.look(REQUEST.submission_id) for _ in range(2)))
        assert [each.status for each in seen] == [JobStatus.UNKNOWN] * 2
        dashboard.answers["GET", JOB] = (200, details())
        jobs._timeout_s = 20.0
        assert (await jobs.look(REQUEST.submission_id)).status is JobStatus.RUNNING, "both old threads are still stuck"
        dashboard.hold.set()

    asyncio.run(main())


def test_no_proxy_and_no_netrc_come_between(
    dashboard: FakeDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a head that was started by hand the scheduler has the environment of a person."""
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", "put back afterwards")
    monkeypatch.delenv("NETRC")
    dashboard.answers["GET", JOB] = (200, details())
    with recorder("proxy", tmp_path / "proxy.log") as proxy:
        for name, value in proxy.variables().items():
            monkeypatch.setenv(name, value)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        ask_directly()
        assert use(dashboard, lambda jobs: jobs.look(REQUEST.submission_id)).status is JobStatus.RUNNING
        assert proxy.requests == []
    assert dashboard.authorizations == {None}
