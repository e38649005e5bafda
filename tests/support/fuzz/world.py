"""What the calls meet: two users, an admin, the internal user, and tasks in each state that move on meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from argus_ray.core.actions import Credential, ListTokens, SetUserEnabled
from argus_ray.core.lifecycle import Admit
from argus_ray.core.states import Outcome
from argus_ray.discovery import head_json, sentinel
from tests.support.builders import ADMIN, FakeClock, bearer, make_inputs, make_service
from tests.support.checkpoints import save
from tests.support.gateway import ADMIN_TOKEN, INTERNAL_TOKEN, Api, lines, log_of, metrics_of

#: Names that no generator makes by chance.
USERS = ("ada-fuzzed", "bob-fuzzed")
#: How often each sends a call; `nobody` has no token, `stranger` one that nobody issued.
SENDERS = {"ada-fuzzed": 8, "bob-fuzzed": 4, "admin": 6, "internal": 1, "nobody": 1, "stranger": 1}
#: The rule is one user's own affair: nothing of it may be in an answer to the other.
VERL = {
    "presets": {
        "fuzzed-preset": {"optim.lr": 1e-6},
        "fuzzed-other": {"data.max_length": 512},
        "of-the-operator": {"optim.weight_decay": 0.5},
    },
    "rules": [{"match": {"user": [USERS[0]]}, "use": ["of-the-operator"]}],
    "selectable": ["fuzzed-preset", "fuzzed-other"],
}
#: Of an attempt that runs, most often.
FILES = ["metrics.jsonl", "logs/driver.log", "rollouts/1.jsonl", "logs", "secrets/key", "../x"]
_WAITING = 40
_ACTIVE = 6


class FuzzWorld:
    def __init__(self, folder: Path, seed: int) -> None:
        make_inputs(folder)
        limits = {"waiting_tasks_per_user": _WAITING, "log_tail_bytes": 4096, "tokens_per_user": 10_000}
        self.api = Api(make_service(folder, clock=FakeClock(), settings={"limits": limits, "verl": VERL}))
        self._random = Random(seed)
        self._active: list[Admit] = []
        self.tokens: dict[str, str] = {"admin": ADMIN_TOKEN, "internal": INTERNAL_TOKEN, "nobody": ""}
        settings = self.api.world.settings
        sentinel.begin(head_json.folder(settings.shared_root, settings.cluster_name))
        self.tokens["stranger"] = "argus_u_" + "0" * 64
        self._who: dict[str, Credential] = {}
        for user in USERS:
            self.api.world.user(user)
            self._issue(user)
            for _ in range(4):
                self.api.world.submit(self._who[user])
        for _ in range(6):
            self.move_on()

    def close(self) -> None:
        self.api.world.close()

    def _issue(self, user: str) -> None:
        _, issued = self.api.world.issue(user)
        self.tokens[user], self._who[user] = issued.token, bearer(issued.token)

    def heal(self, user: str) -> None:
        """An admin's call has taken its rights from this user; the others go on with new ones."""
        self.api.world.service.handle(ADMIN, SetUserEnabled(user, enabled=True))
        self._issue(user)

    def token_ids(self, user: str) -> list[str]:
        return [token.token_id for token in self.api.world.service.handle(ADMIN, ListTokens(user))]

    def task_ids(self) -> list[str]:
        """Of the newest tasks."""
        with self.api.world.store.transaction() as db:
            rows = db.execute("SELECT task_id FROM tasks ORDER BY seq DESC LIMIT 60").fetchall()
        return [row[0] for row in rows]

    def move_on(self) -> None:
        """As the scheduler would: one task starts, and one ends if many run. Time passes."""
        world = self.api.world
        world.clock.advance(self._random.uniform(0.1, 30))
        if len(self._active) >= _ACTIVE:
            change = self._active.pop(self._random.randrange(len(self._active)))
            outcome = self._random.choice([Outcome.SUCCEEDED, Outcome.APPLICATION, Outcome.INFRASTRUCTURE])
            self.api.end(change, outcome, {Outcome.SUCCEEDED: 0, Outcome.APPLICATION: 1}.get(outcome))
        waiting = world.waiting(limit=_ACTIVE)
        if waiting:
            task = self._random.choice(waiting)
            change = self.api.run(task.task_id)
            log_of(change).write_text(f"the log of {task.user_id}\n" * self._random.randrange(200))
            if self._random.random() < 0.7:
                metrics_of(change).write_text(lines(*range(1, self._random.randrange(2, 50))))
            if self._random.random() < 0.7:
                self._add_rollouts(Path(change.job_root))
            if task.export is None and self._random.random() < 0.3:
                save(change.job_root, [1, 2], task.workload, task.gang.gpus)
            self._active.append(change)
        # What was canceled meanwhile is over as well.
        live = {attempt.submission_id for task in world.active() for attempt in task.attempts}
        self._active = [change for change in self._active if change.submission_id in live]

    def _add_rollouts(self, root: Path) -> None:
        for folder in ("rollouts", "validation"):
            (root / folder).mkdir()
            for step in range(1, self._random.randrange(2, 6)):
                sample = {"input": "1+1=", "output": "2", "gts": "2", "score": self._random.random(), "step": step}
                (root / folder / f"{step}.jsonl").write_text(f"{json.dumps(sample)}\n" * self._random.randrange(4))
