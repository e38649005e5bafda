"""The state actor: the one owner of the database. A shell around Service that no failed call can end."""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from argus_ray.actors import proof
from argus_ray.actors.backups import BackupKeeper
from argus_ray.config import Settings
from argus_ray.core import paths
from argus_ray.core.actions import Action, Credential
from argus_ray.core.errors import ArgusError, DatabaseDamaged, StaleWriter, Unavailable
from argus_ray.discovery import epoch, head_json, head_secrets, sentinel
from argus_ray.discovery.epoch import EpochUnknown, Superseded
from argus_ray.discovery.sentinel import Sentinel
from argus_ray.service import Service
from argus_ray.store import Store

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: What the scheduler asks for.
_FOR_SCHEDULER: dict[str, Callable[..., Any]] = {
    "queue_changes": Service.queue_changes,
    "gpu_use": Service.gpu_use,
    "tasks": Service.tasks,
    "apply": Service.apply,
    "chores": Service.chores,
    "webhook_place": Service.webhook_place,
    "moves": Service.moves,
    "run_history": Service.run_history,
    "foretell": Service.foretell,
}

#: How long an opening waits for the writer before it to end, in seconds.
_LOCK_WAIT_S = 10.0


def head_guard(settings: Settings, environ: Mapping[str, str]) -> Callable[[], None] | None:
    """Raises StaleWriter once a head with a higher epoch has taken over; None on a head that was started by hand,
    which has no epoch."""
    mine = int(environ.get(epoch.VARIABLE) or 0)
    if not mine:
        return None
    folder = head_json.folder(settings.shared_root, settings.cluster_name)

    def check() -> None:
        try:
            epoch.check(folder, mine)
        except Superseded as error:
            raise StaleWriter(str(error)) from error
        except EpochUnknown as error:
            raise Unavailable(str(error)) from error

    return check


class StateActor:
    """Synchronous and single-threaded: calls run one after the other, so a batch is a transaction.

    A constructor that raises would end the actor for good in Ray, so the database is opened by the first call that
    needs it, and again after a failure. Errors are returned as values: Ray would wrap raised ones beyond recognition.
    """

    def __init__(self, settings: dict[str, Any], fingerprint: str) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = Settings.model_validate(settings)
        self._fingerprint = fingerprint
        self._folder = head_json.folder(self._settings.shared_root, self._settings.cluster_name)
        self._service: Service | None = None
        self._backups = BackupKeeper(self._settings, self._check_root)
        self._said = ""
        self._key: bytes | None = None

    def fingerprint(self) -> str:
        """The version of code and settings that this actor was started with."""
        return self._fingerprint

    def pid(self) -> int:
        return os.getpid()

    def batch(self, calls: bytes, version: str, proof_of_calls: bytes = b"") -> bytes:
        """One transaction for all; a result or an ArgusError each, in order. Both ways a pickled list: Ray's own
        serializer takes three times as long for small values.

        `version`: fingerprint of the gateway, which has judged what these calls carry by its own rules and settings.
        """
        return pickle.dumps(self._answers(calls, version, proof_of_calls), pickle.HIGHEST_PROTOCOL)

    def _answers(self, calls: bytes, version: str, proof_of_calls: bytes) -> list[Any]:
        if version != self._fingerprint:
            # Its calls are not even read: they may be of another form. One answer stands for all.
            return [Unavailable("another version of the service is being deployed: try again")]
        try:
            self._check_proof("batch", calls, proof_of_calls)
        except Unavailable as error:
            return [error]
        asked: list[tuple[Credential, Action[Any]]] = pickle.loads(calls)  # noqa: S301 - of our own gateway
        try:
            answers = self._use(lambda service: service.handle_many(asked))
            return [self._damaged(each) if isinstance(each, DatabaseDamaged) else each for each in answers]
        except ArgusError as error:
            return [error for _ in asked]

    def scheduled(self, method: str, arguments: bytes, proof_of_arguments: bytes = b"") -> Any:
        """A call of the scheduler, by its name and its pickled arguments."""
        self._check_proof(method, arguments, proof_of_arguments)
        call = _FOR_SCHEDULER[method]
        return self._use(lambda service: call(service, *pickle.loads(arguments)))  # noqa: S301 - of our own scheduler

    def ping(self) -> dict[str, Any]:
        """Raises Unavailable while the database is. `backup`: how that of the database goes."""
        return {**self._use(lambda service: service.ping()), "backup": self._backups.status()}

    def close(self) -> None:
        """Give the database up; the next call would open it again."""
        self._backups.end()
        if self._service is not None:
            self._service.close()
            self._service = None

    def _check_proof(self, method: str, content: bytes, given: bytes) -> None:
        """Raises Unavailable, also where the key cannot be read."""
        try:
            self._key = self._key or head_secrets.read_key(os.environ)
            proof.check(self._key, method, content, given)
        except OSError as error:
            raise Unavailable(f"the key of this head cannot be read: {error}") from error
        except Unavailable:
            log.warning("a call of %s without the key of this head was refused", method)
            raise

    def _use(self, call: Callable[[Service], _T]) -> _T:
        try:
            return call(self._opened())
        except StaleWriter as error:
            self._check_root()  # the writer's claim may be gone with its whole filesystem
            # Another writer has taken over. This process holds nothing worth keeping: end it, after the answer is
            # out, and let Ray start it anew behind the other's lock.
            log.error("fenced off: %s", error)
            threading.Timer(0.5, os._exit, args=(1,)).start()
            raise
        except DatabaseDamaged as error:
            raise self._damaged(error) from error

    def _damaged(self, error: DatabaseDamaged) -> DatabaseDamaged:
        """The same, and what to do about it."""
        words = f"{error}. Nothing repairs itself here: {self._backups.advice()}"
        if words != self._said:
            log.error("%s", words)
            self._said = words
        return DatabaseDamaged(words)

    def _opened(self) -> Service:
        if self._service is None:
            settings = self._settings
            path = Path(paths.database_path(settings.shared_root, settings.cluster_name))
            may_create = sentinel.DATABASE not in self._check_root().holds
            guard = head_guard(settings, os.environ)
            store = Store.open(path, lock_timeout_s=_LOCK_WAIT_S, guard=guard, may_create=may_create)
            try:
                sentinel.note(self._folder, sentinel.DATABASE)
                self._service = Service(
                    store, settings, clock=time.time, monotonic=time.monotonic, entropy=secrets.token_bytes
                )
            except OSError as error:
                store.close()
                raise Unavailable(f"the shared root cannot be used: {error}") from error
            except BaseException:
                store.close()  # a damaged database, say: the next call must find its lock free
                raise
            self._backups.begin(store)
            log.info("opened %s", path)
        return self._service

    def _check_root(self) -> Sentinel:
        """Raises Unavailable unless this is the root that the cluster was started on. A database is made only where
        somebody has said that it is the first start, never on a bare mount point."""
        try:
            return sentinel.adopt(self._folder)
        except OSError as error:
            raise Unavailable(f"the shared root cannot be used: {error}") from error
