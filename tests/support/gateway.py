"""The gateway over a real service on a real database, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient as TestClient

from argus_ray.core.errors import Unavailable
from argus_ray.core.lifecycle import Admit, Advance, Change, End
from argus_ray.core.model import Attempt, NodeView, Task
from argus_ray.core.monitoring import ActorFacts
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.gateway.app import create_app
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.http.auth import Tokens
from argus_ray.gateway.http.express import Express
from argus_ray.gateway.logs.stream import StreamLimit, StreamTiming
from argus_ray.gateway.metrics.curves import CurveReader, Limits
from argus_ray.gateway.tasks.inputs import GOOD_FOR_S
from tests.support import shared_routes
from tests.support.builders import FakeClock, World, make_inputs, make_service

ADMIN_TOKEN = "admin-token-of-the-tests"
INTERNAL_TOKEN = "internal-token-of-the-tests"
METRICS_TOKEN = "metrics-token-of-the-tests"
YAML = {"Content-Type": "application/yaml"}
Headers = dict[str, str]
#: In place of the seconds that the gateway gives a file.
PATIENCE_S = 60.0
QUICK = StreamTiming(poll_s=0.005, check_s=0.01, grace_s=0.2, heartbeat_s=0.05)

NODE = NodeView("n1", "10.0.0.2", False, 8.0, 32.0, 4.0, 16.0, 99.0, 100.0, "worker-1")


def bearer_header(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


ADMIN = bearer_header(ADMIN_TOKEN)
INTERNAL = bearer_header(INTERNAL_TOKEN)
SCRAPER = bearer_header(METRICS_TOKEN)


@dataclass
class Api:
    world: World
    wakes: list[str] = field(default_factory=list)
    ready: dict[str, str] = field(default_factory=lambda: {"state": "ok", "scheduler": "ok"})
    nodes: tuple[NodeView, ...] = (NODE,)
    #: What the scheduler and the publisher tell for /metrics.
    actors: ActorFacts = field(default_factory=ActorFacts)
    streams: StreamLimit = field(default_factory=StreamLimit)
    timing: StreamTiming = QUICK

    def __post_init__(self) -> None:
        self.app = self.make_app()
        self.client = TestClient(self.app)

    def make_app(self, **changes: Any) -> Express:
        parts: dict[str, Any] = {
            "control": LocalControlPlane(self.world.service),
            "settings": self.world.settings,
            "tokens": Tokens.of((ADMIN_TOKEN,), INTERNAL_TOKEN, METRICS_TOKEN),
            "nodes": self._nodes,
            "readiness": self._readiness,
            "actor_facts": self._actor_facts,
            "wake": lambda: self.wakes.append("wake"),
            "clock": self.world.clock,
            "monotonic": self.world.clock,
            "streams": self.streams,
            "timing": self.timing,
            # Each look is a new one, as the tests change what there is to see.
            "ready_fresh_s": 0.0,
        }
        parts["curves"] = CurveReader(Limits(request_s=PATIENCE_S))
        made = create_app(**{**parts, **changes})
        sparklines = made.fastapi.state.gateway.sparklines
        sparklines.reader = CurveReader(replace(sparklines.reader._limits, request_s=PATIENCE_S))
        shared_routes.share(made.fastapi)
        return made

    def a_moment_later(self) -> None:
        """The verdict on the inputs is not good any more."""
        self.world.clock.advance(GOOD_FOR_S)

    async def _nodes(self) -> tuple[NodeView, ...]:
        if not self.nodes:
            raise Unavailable("not seen yet")
        return self.nodes

    async def _readiness(self) -> Mapping[str, str]:
        return self.ready

    async def _actor_facts(self) -> ActorFacts:
        return self.actors

    def restart(self) -> Api:
        """The same files, a new service and a new gateway."""
        self.world.reopen()
        return Api(self.world)

    def user(self, user_id: str, **token: Any) -> Headers:
        """A new user through the API, and the header of its token."""
        created = self.client.post("/api/v2/users", json={"user_id": user_id}, headers=ADMIN)
        assert created.status_code == 201, created.text
        return self.token(user_id, **token)

    def token(self, user_id: str, **body: Any) -> Headers:
        issued = self.client.post(f"/api/v2/users/{user_id}/tokens", json=body, headers=ADMIN)
        assert issued.status_code == 201, issued.text
        return bearer_header(issued.json()["token"])

    def submit(self, who: Headers, key: str | None = None, **overrides: Any) -> str:
        headers = {**who, **YAML} | ({"Idempotency-Key": key} if key else {})
        answer = self.client.post("/api/v2/tasks", content=self.world.spec(**overrides), headers=headers)
        assert answer.status_code in (200, 201), answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    def get(self, path: str, who: Headers) -> Any:
        answer = self.client.get(path, headers=who)
        assert answer.status_code == 200, answer.text
        return answer.json()

    # What the scheduler does.

    def apply(self, *changes: Change) -> None:
        assert all(self.world.service.apply(changes)), changes

    def admit(self, task_id: str) -> Admit:
        change = self.world.admission(self.world.task(task_id))
        self.apply(change)
        return change

    def run(self, task_id: str) -> Admit:
        """Until the driver of a new attempt runs."""
        change = self.admit(task_id)
        self.apply(Advance(change.submission_id, running=True, session="s", node_ip="10.0.0.2"))
        return change

    def end(self, change: Admit, outcome: Outcome = Outcome.SUCCEEDED, exit_code: int | None = 0) -> None:
        self.apply(End(change.submission_id, outcome, "the reason", exit_code))

    def task(self, task_id: str) -> Task:
        return self.world.task(task_id)


def log_of(change: Admit) -> Path:
    """The attempt's log file; its folder exists after this."""
    path = Path(change.job_root) / "logs" / "driver.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def metrics_of(change: Admit) -> Path:
    """The same of its metrics file."""
    log_of(change)
    return Path(change.job_root) / "metrics.jsonl"


def lines(*steps: int, **data: float) -> str:
    """Of a metrics file, each step with the same data; `a__b` stands for `a/b`."""
    named = {name.replace("__", "/"): value for name, value in data.items()} or {"train/loss": 1.0}
    return "".join(json.dumps({"step": step, "data": named}) + "\n" for step in steps)


def attempt(root: Path, number: int = 1) -> Attempt:
    root.mkdir(parents=True, exist_ok=True)
    return Attempt(f"t--a{number:02}", "t", number, AttemptState.RUNNING, 0.0, str(root))


def make_api(tmp_path: Path, **options: Any) -> Api:
    make_inputs(tmp_path)
    return Api(make_service(tmp_path, clock=FakeClock(), **options))
