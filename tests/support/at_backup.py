"""Tasks on a service of which a backup is made and later restored: each kind of task that the backup is behind of."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.raycluster import ROOT, Api


@dataclass
class AtBackup:
    """A user's tasks, by what becomes of them after a backup. They run when it is made, but for `waits` and `starts`,
    which have no room yet."""

    user: Api
    gates: dict[str, Path]
    ids: dict[str, str]

    @classmethod
    def submitted(cls, user: Api) -> AtBackup:
        shared = user.shared
        (shared / "common" / "plans").mkdir(parents=True)
        shutil.copytree(ROOT / "tests" / "standin", shared / "common" / "standin")
        gates = {name: user.gate() for name in ("goes on", "ends", "is canceled", "starts", "runs on unknown")}
        ids = {}
        for name, gpus in (("goes on", 4), ("ends", 3), ("is canceled", 1)):
            ids[name] = user.submit({"wait_for_file": str(gates[name])}, n_gpus_per_node=gpus)
            user.wait(ids[name], lambda view: executions(view) == [1], "running")
        ids["waits"] = user.submit(n_gpus_per_node=3)
        ids["starts"] = user.submit({"wait_for_file": str(gates["starts"])}, n_gpus_per_node=3)
        user.wait_state(ids["starts"], "PENDING_RESOURCES")
        return cls(user, gates, ids)

    def go_on_after_it(self) -> dict[str, str]:
        """What the backup does not know. The two tasks that are new since, by what becomes of them."""
        user = self.user
        self.gates["ends"].touch()
        assert user.wait_final(self.ids["ends"])["state"] == "SUCCEEDED"
        assert user.wait_final(self.ids["waits"])["state"] == "SUCCEEDED"
        user.wait(self.ids["starts"], lambda view: executions(view) == [1], "running")
        user.cancel(self.ids["is canceled"])
        assert user.wait_final(self.ids["is canceled"])["state"] == "CANCELED"
        new = {"ended unknown": user.submit(n_gpus_per_node=1)}
        user.wait_final(new["ended unknown"])
        new["runs on unknown"] = user.submit({"wait_for_file": str(self.gates["runs on unknown"])}, n_gpus_per_node=1)
        user.wait(new["runs on unknown"], lambda view: executions(view) == [1], "running")
        return new


def executions(view: dict[str, Any]) -> list[int]:
    """How often each attempt's program was started."""
    logs = [Path(attempt["job_root"]) / "executions.log" for attempt in view["attempts"]]
    return [len(log.read_text().splitlines()) if log.exists() else 0 for log in logs]
