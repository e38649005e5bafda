"""The gateway as a Ray Serve application: `argus_ray.gateway.deployment:build` in serve_config.yaml."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from ray import serve
from ray.serve._private import constants

from argus_ray import config
from argus_ray.actors import handover
from argus_ray.config import Settings
from argus_ray.discovery import head_json, head_secrets
from argus_ray.gateway.actors import ActorHandles
from argus_ray.gateway.app import create_app
from argus_ray.gateway.control import BatchingControlPlane
from argus_ray.gateway.files.download import Downloads
from argus_ray.gateway.http.auth import Tokens
from argus_ray.gateway.http.express import Express
from argus_ray.gateway.http.prefix import LOOPBACK, VARIABLE, TrustedProxies


def build(args: dict[str, Any]) -> serve.Application:
    """Check the settings, bring the detached actors to this version, and return the application.

    Runs once a deployment, on the head (Serve's controller prefers its own node). Raises ConfigError.
    """
    settings = config.load(args)
    handover.ensure(settings, replace=True)
    return Gateway.bind(settings.model_dump(mode="json"), config.fingerprint(settings))  # type: ignore[attr-defined]


@serve.deployment(name="gateway")
@serve.ingress()
class Gateway:
    """One replica. `version` also makes Serve replace the replicas when the code has changed."""

    def __init__(self, settings: dict[str, Any], version: str) -> None:
        # Serve configures its own loggers only; without this the access log would go nowhere. To the process's own
        # standard error: the one that Serve puts in its place reads the whole stack for each line, which was a third of
        # what the gateway itself did for a request (ray 2.60, serve/_private/logging_utils.py).
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.__stderr__
        )
        self._settings = Settings.model_validate(settings)
        self._actors = ActorHandles(self._settings, version, head_secrets.read_key(os.environ))

    def __serve_build_asgi_app__(self) -> Express:
        actors = self._actors
        return create_app(
            control=BatchingControlPlane(actors.send),
            settings=self._settings,
            tokens=Tokens.from_environment(self._settings.tokens, os.environ),
            nodes=actors.nodes,
            pool_now=actors.pool_now,
            start_of=actors.start_of,
            readiness=actors.readiness,
            actor_facts=actors.monitoring,
            wake=actors.wake,
            clock=time.time,
            head_id=os.environ.get(head_json.HEAD_ID_VARIABLE, ""),
            downloads=Downloads.of_server(send_waits=_send_waits()),
            trusted=TrustedProxies(os.environ.get(VARIABLE, LOOPBACK)),
            behind_haproxy=bool(constants.RAY_SERVE_ENABLE_HA_PROXY),
            sets_request_id=False,  # Serve sets X-Request-ID itself
        )


def _send_waits() -> bool:
    """HAProxy asks uvicorn in the replica itself, whose flow control is that of the connection; Serve's Python proxy,
    and a thread of its own for our code, put a queue without a bound between them."""
    return bool(constants.RAY_SERVE_ENABLE_HA_PROXY and not constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD)
