"""A pool with a past: some users, their tasks in every state, with logs, curves, rollouts and files, and tasks that
run on now. Everything is made by the service itself; only Ray, and the runs, are played.

    .venv/bin/python -m tests.support.showroom [FOLDER]

serves it until Ctrl-C, for whoever works on the console.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argus_ray.core.lifecycle import Admit, Advance, End, Hold
from argus_ray.core.model import NodeView, PlacedNode
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome
from argus_ray.discovery import head_json, sentinel
from tests.gateway.test_stream_server import served
from tests.support.builders import FakeClock, make_inputs, make_service
from tests.support.gateway import ADMIN_TOKEN, Api, Headers, bearer_header, log_of, metrics_of

USERS = ("alice", "bob", "chen")
NODES = tuple(
    NodeView(f"{n:056x}", f"10.0.0.{n}", False, 8.0, 96.0, float(free), float(24 + 8 * free), 8.0, 8.0, f"gpu-{n:02}")
    for n, free in enumerate((0, 0, 4, 8), 1)
)
#: Of verl's settings: two that users may choose, and that have one key in common.
VERL: dict[str, Any] = {
    "presets": {
        "long-answers": {"data.max_response_length": 4096, "actor_rollout_ref.rollout.gpu_memory_utilization": 0.7},
        "careful": {"actor_rollout_ref.actor.optim.lr": 2e-7, "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4},
    },
    "rules": [{"match": {"workload": ["sft"]}, "set": {"optim.lr_warmup_steps": 7}}],
    "selectable": ["long-answers", "careful"],
}
_DAY = 86_400.0
STEPS = 200


class LiveClock(FakeClock):
    """Stands still until `go_live`; then it is the machine's."""

    _began: float | None = None

    def go_live(self) -> None:
        self.advance(time.time() - self.now)
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.time() if self._began is not None else self.now

    def monotonic(self) -> float:
        return self.since_boot + (time.monotonic() - self._began if self._began is not None else 0.0)


@dataclass
class Showroom:
    api: Api
    tokens: dict[str, str]
    #: Of tasks that run: what the worker of each goes on with.
    running: dict[str, Run] = field(default_factory=dict)
    port: int = 0
    _server: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _held: socket.socket = field(default_factory=socket.socket)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def come_back(self) -> None:
        """The service answers, at the address that it has had."""
        # What a deployment has, not the pace of the tests of streams.
        app = self.api.app = self.api.make_app(timing=None)
        if not self.port:
            # Bound and never listening, so nobody else has the port while the service is away.
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("127.0.0.1", 0))
            self.port = self._held.getsockname()[1]
        self.port = self._server.enter_context(served(app, at=self.port))

    def go_away(self) -> None:
        """As when the head dies: connections break, and nobody is at its address."""
        self._server.close()

    def token(self, user: str) -> str:
        return ADMIN_TOKEN if user == "admin" else self.tokens[user]

    def headers(self, user: str) -> Headers:
        return bearer_header(self.token(user))

    def submit(self, user: str, kind: str, **fields: object) -> str:
        data = f"{self.api.world.shared_root}/common/datasets/gsm8k"
        files = {} if kind == "sft" else {"train_file": f"{data}/rl.parquet", "val_file": f"{data}/rl.parquet"}
        given: dict[str, Any] = {"total_training_steps": STEPS, "test_freq": 10, "save_freq": 20, **files, **fields}
        return self.api.submit(self.headers(user), workload=kind, **given)

    def start(self, task_id: str, nodes: tuple[NodeView, ...] = NODES[:1]) -> Run:
        """Admit it, and have it run."""
        task = self.api.task(task_id)
        change = self.api.world.admission(task)
        placed = tuple(PlacedNode(each.node_id, each.hostname, each.ip, task.gang.gpus_per_node) for each in nodes)
        names = tuple(each.node_id for each in nodes)
        admit = Admit(
            task_id,
            change.number,
            change.submission_id,
            change.job_root,
            change.command,
            change.env,
            None,
            names,
            placed,
        )
        self.api.apply(admit)
        self.api.apply(Advance(admit.submission_id, running=True, session="s", node_id=names[0], node_ip=nodes[0].ip))
        run = self.running[task_id] = Run(admit, task.workload, hash(task_id) % 997)
        return run

    def end(self, task_id: str, outcome: Outcome = Outcome.SUCCEEDED, code: int | None = 0, reason: str = "") -> None:
        run = self.running.pop(task_id)
        self.api.apply(End(run.admit.submission_id, outcome, reason or "it has made all its steps", code))


@dataclass
class Run:
    """Writes what a run writes."""

    admit: Admit
    workload: str
    seed: int
    step: int = 0

    def go_on(self, steps: int = 1) -> None:
        noise = random.Random(self.seed * 100_003 + self.step)
        log, metrics = [], []
        for _ in range(steps):
            self.step += 1
            data = self._data(noise)
            metrics.append(json.dumps({"step": self.step, "data": data}) + "\n")
            shown = " - ".join(f"{name}:{value:.4f}" for name, value in list(data.items())[:4])
            log.append(f"\x1b[36m(TaskRunner pid=4711)\x1b[0m step:{self.step} - {shown}\n")
            if self.step % 20 == 0:
                log.append(f"\x1b[32mINFO\x1b[0m saved checkpoint global_step_{self.step}\n")
                self._checkpoint()
        with metrics_of(self.admit).open("a") as file:
            file.writelines(metrics)
        self.say("".join(log))

    def say(self, text: str) -> None:
        with log_of(self.admit).open("a") as file:
            file.write(text)

    def _data(self, noise: random.Random) -> dict[str, float]:
        part = self.step / STEPS
        if self.workload == "sft":
            loss = 0.4 + 2.2 * math.exp(-4 * part) + noise.gauss(0, 0.04)
            data = {"train/loss": loss, "train/lr": 1e-5 * (1 - part), "train/grad_norm": 1 + noise.random() / 2}
            return data | ({"val/loss": loss + 0.08} if self.step % 10 == 0 else {})
        score = 0.72 / (1 + math.exp(6 - 11 * part)) + noise.gauss(0, 0.02)
        return {
            "critic/score/mean": score,
            "actor/pg_loss": noise.gauss(0, 0.02),
            "actor/entropy": 0.2 + 0.8 * math.exp(-3 * part),
            "actor/grad_norm": 0.2 + noise.random() / 5,
            "response_length/mean": 180 + 260 * part + noise.gauss(0, 9),
            "timing_s/step": 30 + noise.gauss(0, 2),
            "perf/throughput": 1450 + noise.gauss(0, 40),
        }

    def _checkpoint(self) -> None:
        folder = Path(self.admit.job_root) / "checkpoints" / f"global_step_{self.step}"
        folder.mkdir(parents=True)
        (folder / "data.pt").write_bytes(bytes(14_201))
        if self.workload == "sft":
            return
        rollouts = Path(self.admit.job_root) / "rollouts"
        rollouts.mkdir(exist_ok=True)
        samples = (
            {
                "input": f"user\nAlice has {n} apples and buys {n + 2}. How many has she?\nassistant\n",
                "output": f"She has {n} + {n + 2} = {2 * n + 2} apples.\n#### {2 * n + 2 + n % 3 % 2}",
                "gts": str(2 * n + 2),
                "score": float(n % 3 != 1),
                "step": self.step,
            }
            for n in range(1, 17)
        )
        (rollouts / f"{self.step}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))


@contextlib.contextmanager
def showroom(folder: Path, *, tasks: int = 24, settings: dict[str, Any] | None = None) -> Iterator[Showroom]:
    """`tasks`: how many have ended before today, beside those of every state that are always there. `settings`:
    overrides, as in serve_config.yaml."""
    make_inputs(folder)
    clock = LiveClock(now=time.time() - 5 * _DAY)
    api = Api(make_service(folder, clock=clock, settings={"verl": VERL} | (settings or {})), nodes=NODES)
    # As the head does: without it nobody tells a root that is away from one without checkpoints.
    sentinel.begin(head_json.folder(api.world.settings.shared_root, api.world.settings.cluster_name))
    tokens = {user: api.user(user)["Authorization"].removeprefix("Bearer ") for user in USERS}
    room = Showroom(api, tokens)
    _fill(room, clock, tasks)
    clock.go_live()
    room.come_back()
    yield room
    room.go_away()
    room.api.world.close()


def _fill(room: Showroom, clock: LiveClock, tasks: int) -> None:
    kinds = itertools.cycle(("sft", "grpo", "sft", "ppo", "grpo"))
    users = itertools.cycle(USERS)
    pause = 4.5 * _DAY / max(1, tasks)
    for number in range(tasks):
        user, kind = next(users), next(kinds)
        task_id = room.submit(user, kind, n_gpus_per_node=(1, 4, 8)[number % 3])
        clock.advance(pause * 0.2)
        run = room.start(task_id, NODES[number % 3 : number % 3 + 1])
        clock.advance(pause * 0.7)
        if number % 7 == 3:
            run.go_on(40)
            run.say("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB.\n")
            room.end(
                task_id,
                Outcome.APPLICATION,
                1,
                "a GPU's memory was used up: CUDA out of memory. Tried to allocate 2.50 GiB.",
            )
        elif number % 9 == 5:
            run.go_on(12)
            room.api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=room.headers(user))
            room.end(task_id, Outcome.CANCELED, None, "canceled")
        else:
            run.go_on(STEPS if number >= tasks - 6 else 20)
            room.end(task_id)
        clock.advance(pause * 0.1)
    clock.advance(time.time() - 3 * 3600 - clock.now)
    long = room.submit("alice", "grpo", n_gpus_per_node=8, nnodes=2)
    room.start(long, NODES[:2]).go_on(88)
    lost = room.submit("bob", "sft", n_gpus_per_node=4)
    room.start(lost, NODES[2:3]).go_on(63)
    before = room.running[lost]
    room.api.apply(End(before.admit.submission_id, Outcome.INFRASTRUCTURE, "node gpu-02 was lost", None))
    clock.advance(600)
    again = room.start(lost, NODES[2:3])
    again.step = 60
    again.go_on(50)
    clock.advance(3600)
    for user, gpus, nodes in (("alice", 8, 2), ("chen", 8, 4), ("bob", 4, 1), ("alice", 8, 1)):
        waiting = room.submit(user, "grpo", n_gpus_per_node=gpus, nnodes=nodes)
        room.api.apply(Hold(waiting, because(Code.POOL_BUSY, nodes=nodes, gpus=gpus, cpus=16.0)))
        clock.advance(300)


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(sys.argv[1]) if sys.argv[1:] else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        room = stack.enter_context(showroom(folder))
        print(f"{room.url}\nadmin  {ADMIN_TOKEN}")
        for user, token in room.tokens.items():
            print(f"{user}  {token}")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            while not threading.Event().wait(2.0):
                for run in room.running.values():
                    run.go_on()


if __name__ == "__main__":
    main()
