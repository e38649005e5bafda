"""The HeadPublisher: writes head.json, by which machines find this head, again and again for as long as it lives."""

from __future__ import annotations

import logging
import os
import platform
import random
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private import services

from argus_ray.actors import leaving
from argus_ray.cluster import view
from argus_ray.config import Settings
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import EpochUnknown, HeadClaim, Superseded
from argus_ray.discovery.head_json import HeadRecord
from argus_ray.disk import atomic
from argus_ray.disk.bounded import BoundedCall
from argus_ray.disk.lock import KernelLock, LockBusy

log = logging.getLogger(__name__)

#: Serve's own default; the launcher says better.
_HTTP_PORT = 8000


class HeadPublisher:
    """Its methods answer at once; a thread of its own writes. It never gives up: the disk may be free again soon.

    Under the launcher it has the launcher's epoch. On a head that was started by hand it takes the head's lock and an
    epoch itself, and so never writes beside a launcher.
    """

    def __init__(self, settings: dict[str, Any], fingerprint: str, end: leaving.End = leaving.end_process) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = Settings.model_validate(settings)
        self._fingerprint = fingerprint
        self._end = end
        self._ttl_s = float(os.environ.get(head_json.TTL_VARIABLE) or head_json.DEFAULT_TTL_S)
        self._folder = head_json.folder(self._settings.shared_root, self._settings.cluster_name)
        self._path = head_json.head_file(self._settings.shared_root, self._settings.cluster_name)
        self._epoch = int(os.environ.get(epoch.VARIABLE) or 0)
        self._lock: KernelLock | None = None
        self._status = "it has not written head.json yet"
        self._written_at: float | None = None
        self._patience: BoundedCall[None] = BoundedCall(2 * self._ttl_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="argus-publisher", daemon=True)
        self._thread.start()

    def fingerprint(self) -> str:
        return self._fingerprint

    def pid(self) -> int:
        return os.getpid()

    def status(self) -> dict[str, Any]:
        """`status`: "ok" or why head.json is not being written; `age_s`: seconds since it was; `epoch`: 0 if none;
        `ttl_s`: for how long head.json is good."""
        age_s = None if self._written_at is None else time.monotonic() - self._written_at
        is_stuck = self._status == "ok" and age_s is not None and age_s > self._ttl_s
        words = f"the write of {self._path} has hung for {age_s:.0f} s" if is_stuck and age_s else self._status
        return {"status": words, "age_s": age_s, "epoch": self._epoch, "ttl_s": self._ttl_s}

    def stop(self, timeout_s: float) -> bool:
        """Write no more; True if no write is under way after this time. Whoever asks kills this actor next; if nobody
        does, it ends itself within a minute, and writes again when Ray has started it anew."""
        self._stopping.set()
        leaving.end_unless_killed("the publisher", self._end)
        deadline = time.monotonic() + timeout_s
        self._thread.join(timeout_s)
        # The loop does not wait for one that hangs.
        is_over = self._patience.is_over(max(0.0, deadline - time.monotonic()))
        if not is_over or self._thread.is_alive():
            return False
        if self._lock is not None:
            self._lock.release()
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._patience.call(self._write)
                self._say("ok")
            except Superseded as error:
                self._say(f"superseded: {error}")
            except (OSError, EpochUnknown) as error:
                self._say(f"{self._path} cannot be written: {error}")
            except Exception as error:
                # Ray's own (it is starting, or just going): the next write asks again.
                self._say(f"Ray does not say where the head is: {type(error).__name__}: {error}"[:500])
            self._stopping.wait(self._ttl_s / 3 * random.uniform(0.8, 1.0))  # noqa: S311 - jitter

    def _write(self) -> None:
        record = self._record()
        self._own_epoch(record)
        with epoch.writing(self._folder):
            epoch.check(self._folder, self._epoch)
            now = time.time()
            stamped = HeadRecord(
                **{**vars(record), "epoch": self._epoch, "updated_at": now, "expires_at": now + self._ttl_s}
            )
            atomic.write_atomically(self._path, stamped.to_json(), mode=0o644)
        self._written_at = time.monotonic()

    def _own_epoch(self, record: HeadRecord) -> None:
        """On a head that was started by hand: the lock and an epoch, once. Raises Superseded if a launcher holds it."""
        if self._epoch:
            return
        sentinel.read(self._folder)
        lock = self._lock or KernelLock(self._folder / "head.lock")
        try:
            lock.acquire(timeout_s=0)
        except LockBusy:
            raise Superseded("another head holds the lock, and this one was not started by its launcher") from None
        self._lock = lock
        self._epoch = epoch.take(
            self._folder, HeadClaim(0, socket.gethostname(), record.head_ip, record.gcs_port)
        ).epoch

    def _record(self) -> HeadRecord:
        """All but the epoch and the times, which are set when it is written."""
        context = ray.get_runtime_context()
        ip, _, port = context.gcs_address.rpartition(":")
        ip = ip.strip("[]")
        dashboard = urlsplit("//" + str(services.get_webui_url_from_internal_kv())).port
        host = f"[{ip}]" if ":" in ip else ip
        return HeadRecord(
            cluster_name=self._settings.cluster_name,
            head_ip=ip,
            gcs_port=int(port),
            dashboard_port=dashboard or 8265,
            api_url=os.environ.get(head_json.API_URL_VARIABLE) or f"http://{host}:{_HTTP_PORT}",
            epoch=0,
            session=view.session_name(),
            ray_version=ray.__version__,
            python_version=platform.python_version(),
            updated_at=0.0,
            expires_at=0.0,
        )

    def _say(self, status: str) -> None:
        if status != self._status:
            log.log(logging.INFO if status == "ok" else logging.WARNING, "head.json: %s", status)
        self._status = status
