"""Bring the detached actors to the version that is being deployed, without losing or doubling a task.

Detached actors outlive `serve run`, with the code and the settings that they were started with. All state is on disk,
and the store admits one writer, so replacing them is: end the scheduler, close the database, start both anew.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from argus_ray import config
from argus_ray.actors import detached
from argus_ray.actors.publisher import HeadPublisher
from argus_ray.actors.scheduler import SchedulerActor
from argus_ray.actors.state import StateActor
from argus_ray.config import Settings
from argus_ray.core import paths
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.sentinel import RootUnknown
from argus_ray.disk.lock import KernelLock

log = logging.getLogger(__name__)

#: Seconds. An actor may be restarting; only after this long is silence taken as "replace it" (the store's lock and
#: writer check keep a silent one that lives from doing harm).
_ANSWER_WAIT_S = 60.0
_GOODBYE_WAIT_S = 30.0
_READY_WAIT_S = 120.0
#: As long as another hand-over may take with all its waits.
_LOCK_WAIT_S = 600.0


@dataclass(frozen=True)
class Actors:
    state: Any
    scheduler: Any
    publisher: Any


def ensure(settings: Settings, *, replace: bool) -> Actors:
    """The three actors, running. A deployment replaces those of another version; a replica, which may be one of an old
    deployment that is just going, only makes what is missing.

    Raises OSError if the shared root cannot be written, has no locks or does not prove to be this cluster's, and
    TimeoutError if the actors do not come up or another hand-over does not end.
    """
    version = config.fingerprint(settings)
    check_root(settings, os.environ, is_start=replace)
    lock_path = Path(paths.database_path(settings.shared_root, settings.cluster_name)).parent / "handover.lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with KernelLock(lock_path).held(_LOCK_WAIT_S):
        # The scheduler first: it must not act on a state actor that is being replaced.
        goodbyes = ((detached.SCHEDULER, _stop), (detached.STATE, _close_state), (detached.PUBLISHER, _stop))
        for name, goodbye in goodbyes:
            actor = _find(name)
            if replace and actor is not None and _version_of(actor) != version:
                log.info("replacing %s", name)
                goodbye(actor)
                _kill(name, actor)
        arguments = (settings.model_dump(mode="json"), version)
        state = detached.detached(StateActor, detached.STATE).remote(*arguments)
        ray.get(state.pid.remote(), timeout=_READY_WAIT_S)
        scheduler = detached.detached(SchedulerActor, detached.SCHEDULER).remote(*arguments)
        publisher = detached.detached(HeadPublisher, detached.PUBLISHER).remote(*arguments)
        ray.get([scheduler.pid.remote(), publisher.pid.remote()], timeout=_READY_WAIT_S)
    return Actors(state, scheduler, publisher)


def check_root(settings: Settings, environ: Mapping[str, str], *, is_start: bool) -> None:
    """Raises RootUnknown for a shared root that this cluster was never started on.

    A start by hand, without a launcher, is the first start of a new root, if there are inputs in it: those a bare mount
    point does not have.
    """
    folder = head_json.folder(settings.shared_root, settings.cluster_name)
    is_by_hand = not int(environ.get(epoch.VARIABLE) or 0)
    try:
        sentinel.adopt(folder)
    except RootUnknown:
        if not (is_start and is_by_hand and not sentinel.path_in(folder).exists() and _has_inputs(settings)):
            raise
        sentinel.begin(folder)


def _has_inputs(settings: Settings) -> bool:
    try:
        return any(Path(paths.common_dir(settings.shared_root)).iterdir())
    except OSError:
        return False


def _find(name: str) -> Any | None:
    try:
        return ray.get_actor(name, namespace=detached.NAMESPACE)
    except ValueError:
        return None


def _version_of(actor: Any) -> str | None:
    deadline = time.monotonic() + _ANSWER_WAIT_S
    while time.monotonic() < deadline:
        try:
            return str(ray.get(actor.fingerprint.remote(), timeout=max(0.1, deadline - time.monotonic())))
        except ray.exceptions.ActorUnavailableError:
            time.sleep(0.2)
        except (RayActorError, ray.exceptions.GetTimeoutError):
            return None
    return None


def _stop(actor: Any) -> None:
    _try(actor.stop.remote(_GOODBYE_WAIT_S))


def _close_state(actor: Any) -> None:
    _try(actor.close.remote())


def _try(answer: Any) -> None:
    try:
        ray.get(answer, timeout=_GOODBYE_WAIT_S + 5)
    except Exception as error:
        log.warning("the old actor did not say goodbye: %s", error)


def _kill(name: str, actor: Any) -> None:
    ray.kill(actor, no_restart=True)
    deadline = time.monotonic() + _GOODBYE_WAIT_S
    while _find(name) is not None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the old {name} does not go away")
        time.sleep(0.05)
