"""Ray Jobs through its public SDK: each call in a thread and bounded, each answer translated into core types.

The SDK blocks and has no timeout of its own (ray 2.60, dashboard_sdk.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from ray._common.network_utils import build_address
from ray._private import ray_constants
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX
from ray.experimental import internal_kv
from ray.job_submission import JobSubmissionClient

from argus_ray.core.observation import FailureKind, JobSeen, JobStatus
from argus_ray.core.verl.command import WORKER_RESOURCE, assigned
from argus_ray.disk.threads import BoundedThreads

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Ray gives each node this label, with its id.
NODE_LABEL = "ray.io/node-id"

#: No task is called so: a task's name has a time in it.
_NOBODYS_JOB = "argus-nobody"

_STATUS_CODE = re.compile(r"status code (\d+)")

#: JobErrorType of ray 2.60 (dashboard/modules/job/common.py) -> whose failure it was.
_FAILURES = {
    "JOB_ENTRYPOINT_COMMAND_ERROR": FailureKind.DRIVER,
    "JOB_ENTRYPOINT_COMMAND_START_ERROR": FailureKind.DRIVER,
    "RUNTIME_ENV_SETUP_FAILURE": FailureKind.SUPERVISOR,
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": FailureKind.SUPERVISOR,
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": FailureKind.SUPERVISOR,
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": FailureKind.SUPERVISOR,
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE": FailureKind.SUPERVISOR,
    "JOB_SUPERVISOR_ACTOR_DIED": FailureKind.SUPERVISOR,
}


def ask_directly(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep this process's calls to Ray from a proxy, and from a login of ~/.netrc in the place of the cluster's token:
    the SDK takes both from the environment. The launcher has done so already; a head that was started by hand has
    not."""
    for name in [name for name in environ if name.lower().endswith("_proxy")]:
        del environ[name]
    environ["NETRC"] = os.devnull


class RayUnreachable(Exception):
    """Ray did not answer, or answered with an error of its own. It says nothing about the job."""


class RayRefused(Exception):
    """Ray looked at the request and refused it."""


@dataclass(frozen=True)
class JobRequest:
    """What Ray is given. The driver asks for nothing but a worker; its gang is claimed by what it starts."""

    submission_id: str
    entrypoint: str
    env: dict[str, str]
    metadata: dict[str, str]
    #: Where the driver runs, by Ray's node id; None: Ray chooses.
    node_id: str | None = None


class RayJobs:
    """Bounded, asynchronous access to the Jobs API of the cluster that this process is attached to."""

    def __init__(
        self,
        *,
        timeout_s: float,
        concurrency: int,
        address: Callable[[], str] | None = None,
        agent: Callable[[], str] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._threads = BoundedThreads("ray-jobs", concurrency)
        self._address = address or _dashboard_address
        self._agent = agent or _agent_address
        self._client: JobSubmissionClient | None = None

    async def submit(self, request: JobRequest) -> None:
        """Give the job to Ray. Returns if Ray has it, also if it had it before: a submission id runs at most once.

        Raises RayRefused or RayUnreachable; after the latter only a look at the id tells whether Ray has it.
        """

        def call(client: JobSubmissionClient) -> None:
            try:
                client.submit_job(
                    entrypoint=request.entrypoint,
                    submission_id=request.submission_id,
                    runtime_env={"env_vars": request.env},
                    metadata=request.metadata,
                    entrypoint_num_cpus=0,
                    entrypoint_num_gpus=0,
                    entrypoint_resources={WORKER_RESOURCE: 1},
                    entrypoint_label_selector=None if request.node_id is None else {NODE_LABEL: request.node_id},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise

        await self._bounded(call)

    async def look(self, submission_id: str) -> JobSeen:
        """What Ray knows of this id; status UNKNOWN when it did not answer. Asks by id: listing reads every job."""
        try:
            return await self._bounded(lambda client: _seen(client.get_job_info(submission_id)))
        except RayRefused as error:
            if "does not exist" in str(error):
                return JobSeen(JobStatus.ABSENT)
            return JobSeen(JobStatus.UNKNOWN, message=str(error)[:500])
        except RayUnreachable as error:
            return JobSeen(JobStatus.UNKNOWN, message=str(error)[:500])

    async def stop(self, submission_id: str) -> None:
        """Ask Ray to stop the job; it answers before the job has stopped."""
        await self._bounded(lambda client: client.stop_job(submission_id))

    async def forget(self, submission_id: str) -> None:
        """Delete Ray's record of a job that has ended, whose result is stored."""
        await self._bounded(lambda client: client.delete_job(submission_id))

    async def reachable(self) -> bool:
        """Whether the Jobs API answers, and the agent on the head that does its work.

        To be asked again and again, for the question also sets the agent to work. In Ray 2.60 it watches jobs from the
        first request on that it gets (job_agent.py, get_job_manager), not from its start: after a restart of the head,
        a job that was lost would stay PENDING or RUNNING until somebody submits another one.
        """

        def call(client: JobSubmissionClient) -> None:
            client.get_version()
            url = f"{self._agent()}/api/job_agent/jobs/{_NOBODYS_JOB}/stop"
            with requests.Session() as session:
                session.trust_env = False  # no proxy
                answer = session.post(url, headers=get_auth_headers_if_auth_enabled({}), timeout=self._timeout_s)
            if answer.status_code != requests.codes.not_found:
                raise RayUnreachable(f"the agent on the head answers {answer.status_code}: {answer.text[:500]}")

        try:
            await self._bounded(call)
        except (RayUnreachable, RayRefused) as error:
            log.warning("the Jobs API cannot be used: %s", error)
            return False
        return True

    async def _bounded(self, call: Callable[[JobSubmissionClient], _T]) -> _T:
        try:
            return await self._threads.run(lambda: self._call(call), self._timeout_s)
        except asyncio.TimeoutError:
            raise RayUnreachable(f"Ray Jobs did not answer within {self._timeout_s:g} s") from None

    def _call(self, call: Callable[[JobSubmissionClient], _T]) -> _T:
        try:
            if self._client is None:
                self._client = JobSubmissionClient(self._address())
            return call(self._client)
        except requests.RequestException as error:
            self._client = None
            raise RayUnreachable(f"Ray Jobs is not reachable: {type(error).__name__}") from error
        except RuntimeError as error:
            status = _STATUS_CODE.search(str(error))
            if status and status[1] in ("400", "404"):
                raise RayRefused(str(error)[:2000]) from error
            raise RayUnreachable(str(error)[:2000]) from error
        except RayUnreachable:
            raise
        except (TypeError, ValueError) as error:
            # The SDK itself would not send it; another try would be no other.
            raise RayRefused(f"{type(error).__name__}: {error}"[:2000]) from error
        except Exception as error:
            self._client = None
            raise RayUnreachable(f"{type(error).__name__}: {error}"[:2000]) from error


def _agent_address() -> str:
    """Of the head's agent, as the dashboard finds it (ray 2.60, job_head.py, _get_head_node_agent_once)."""
    node = internal_kv._internal_kv_get(ray_constants.KV_HEAD_NODE_ID_KEY, namespace=ray_constants.KV_NAMESPACE_JOB)
    key = f"{DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX}{(node or b'').decode()}"
    found = internal_kv._internal_kv_get(key, namespace=ray_constants.KV_NAMESPACE_DASHBOARD)
    if not node or not found:
        raise RayUnreachable("the head's agent has not registered")
    ip, http_port, _ = json.loads(found)
    return f"http://{build_address(ip, http_port)}"


def _dashboard_address() -> str:
    """Where the dashboard registered itself in the GCS (as ray/dashboard/utils.py, ray_address_to_api_server_url,
    which cannot be used here since it replaces this process's GCS client)."""
    key, namespace = ray_constants.DASHBOARD_ADDRESS, ray_constants.KV_NAMESPACE_DASHBOARD
    address = internal_kv._internal_kv_get(key, namespace=namespace)
    if not address:
        raise RayUnreachable("the cluster has no dashboard address")
    host = address.decode()
    # The SDK takes a proxy from the environment; this address is our own cluster's.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        {host.rsplit(":", 1)[0], *filter(None, os.environ.get("NO_PROXY", "").split(","))}
    )
    return f"http://{host}"


def _seen(details: Any) -> JobSeen:
    driver = details.driver_info
    return JobSeen(
        status=JobStatus(details.status.value),
        message=(details.message or "")[:20_000],
        failure=_FAILURES.get(str(getattr(details.error_type, "value", details.error_type)), FailureKind.UNSAID),
        exit_code=details.driver_exit_code,
        ray_job_id=details.job_id,
        node_id=details.driver_node_id,
        node_ip=driver.node_ip_address if driver else None,
        nodes=assigned((details.runtime_env or {}).get("env_vars") or {}),
    )
