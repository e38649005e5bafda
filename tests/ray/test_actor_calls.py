"""A run that attaches to Ray and calls the detached actors by itself, on real Ray.

It holds Ray's token, so it can do much (docs/security.md). What an ordinary call must meet is stated here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

from argus_ray.actors import detached
from argus_ray.core.actions import CreateUser, Credential, Role
from argus_ray.core.errors import ArgusError
from tests.support.raycluster import Cluster

TIMEOUT_S = 60


def test_actor_calls_without_the_key_are_refused(cluster: Cluster, ray_view: Any) -> None:
    """An admin's action in an ordinary call of the state actor, of the version that it expects."""
    state = ray_view.get_actor(detached.STATE, namespace=detached.NAMESPACE)
    version = ray_view.get(state.fingerprint.remote(), timeout=TIMEOUT_S)
    calls = pickle.dumps([(Credential(Role.ADMIN), CreateUser("forged", "Forged"))])
    try:
        answers = pickle.loads(ray_view.get(state.batch.remote(calls, version), timeout=TIMEOUT_S))
    except Exception as error:
        answers = [error]
    assert all(isinstance(answer, Exception) for answer in answers), answers
    assert isinstance(answers[0], ArgusError) or "key" in str(answers[0])
    users = cluster.admin.get("/api/v2/users")["users"]
    assert "forged" not in [user["user_id"] for user in users]


def test_ray_without_the_cluster_token_is_refused(cluster: Cluster) -> None:
    """Whoever can only reach the ports of Ray is not let in."""
    program = f"import ray; ray.init(address={cluster.machine.address!r}, logging_level='ERROR'); print('attached')"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode != 0 and "attached" not in ended.stdout
