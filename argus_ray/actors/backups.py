"""When backups of the database are made: in the state actor, which alone can open it, by a thread of its own.

The actor's calls wait for the thread only while SQLite copies one step; all that may take long, or hang, is the
thread's: checking, syncing, another filesystem, deleting old ones.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argus_ray.config import Settings
from argus_ray.core import paths
from argus_ray.core.errors import ArgusError, DatabaseDamaged, StaleWriter
from argus_ray.disk.bounded import BoundedCall
from argus_ray.store import Store, backup
from argus_ray.store.backup import Backup

log = logging.getLogger(__name__)

#: The wall clock may be set, so nobody sleeps for longer; seconds.
_LOOK_EVERY_S = 60.0
_TRY_AGAIN_S = 600.0
#: How long a call waits to hear which backup is good. What is found later is told later.
_NAME_WITHIN_S = 2.0


@dataclass
class _Round:
    """Of one opened store."""

    store: Store
    ended: threading.Event
    thread: threading.Thread


class BackupKeeper:
    """Its methods answer at once, but `end` and `advice`, which are bounded."""

    def __init__(
        self, settings: Settings, check_root: Callable[[], object], clock: Callable[[], float] = time.time
    ) -> None:
        """`check_root` raises where this is not the root of the cluster."""
        self._settings = settings.backup
        self._spare_bytes = settings.limits.reserve_bytes
        self._folder = Path(paths.backup_dir(settings.shared_root, settings.cluster_name))
        self._check_root = check_root
        self._clock = clock
        self._round: _Round | None = None
        self._newest: Backup | None = None
        self._trouble = ""
        self._naming: BoundedCall[None] = BoundedCall(_NAME_WITHIN_S)
        self._good: Backup | None = None
        self._looked_for_good = False

    def begin(self, store: Store) -> None:
        """From now on back this one up."""
        if not self._settings.every_s:
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(store, ended), name="argus-backup", daemon=True)
        self._round = _Round(store, ended, thread)
        thread.start()

    def end(self) -> None:
        """One that is being made is given up; the store can be closed."""
        if self._round is not None:
            self._round.ended.set()
            self._round = None

    def status(self) -> dict[str, Any]:
        """`newest_at`: seconds since the Unix epoch; None: there is none, or nobody has looked yet. `trouble`: why the
        next one is not made, or is late; empty if all is well or backups are off."""
        newest, now = self._newest, self._clock()
        trouble = self._trouble
        late_s = 0.0 if newest is None else now - newest.at - 2 * self._settings.every_s - _TRY_AGAIN_S
        if self._settings.every_s and not trouble and late_s > 0:
            trouble = "the next one is late"
        if trouble:
            trouble = f"{trouble} (the newest backup is {f'of {newest.when}' if newest else 'not known'})"
        return {"newest_at": None if newest is None else newest.at, "trouble": trouble}

    def advice(self) -> str:
        """What to do about a damaged database, in words."""
        if not self._looked_for_good:
            try:
                self._naming.call(self._look_for_good)
            except (OSError, ArgusError) as error:  # TimeoutError among them
                log.warning("the newest good backup is not known yet: %s", error)
        if self._good is not None:
            return (
                f"the newest good backup is {self._good.path.name} of {self._good.when}: stop the head and all "
                f"standbys, and run `argus-admin restore {self._good.path.name}`"
            )
        if self._looked_for_good:
            return f"there is no good backup in {self._folder}"
        names = "`argus-admin backup-list` names the backups, and `argus-admin restore` takes one"
        return f"stop the head and all standbys; {names}"

    def _look_for_good(self) -> None:
        self._good = backup.newest_good(self._folder)
        self._looked_for_good = True

    def _run(self, store: Store, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                left_s = self._due_in(store)
                if left_s > 0:
                    self._trouble = ""  # of a look that failed; the newest one is young enough
                    ended.wait(min(left_s, _LOOK_EVERY_S))
                    continue
                self._make(store, ended)
            except StaleWriter:
                return  # the actor finds out by itself
            except Exception as error:
                if ended.is_set():
                    return
                is_ours = isinstance(error, ArgusError | OSError)
                log.log(logging.ERROR, "no backup was made: %s", error, exc_info=not is_ours)
                self._trouble = f"no backup was made: {error}" if is_ours else "no backup was made: see the log"
                if isinstance(error, DatabaseDamaged):
                    self._looked_for_good = False
                    log.error("%s", self.advice())
                pause_s = min(_TRY_AGAIN_S, self._settings.every_s)
                ended.wait(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    def _due_in(self, store: Store) -> float:
        if self._newest is None:
            self._check_root()
            newest = backup.list_in(self._folder)[:1]
            if not newest:
                return 0.0
            self._newest = newest[0]
        store.backup_at = self._newest.at
        age_s = self._clock() - self._newest.at
        # One of the future: the clock was set back since.
        return 0.0 if age_s < -_LOOK_EVERY_S else self._settings.every_s - age_s

    def _make(self, store: Store, ended: threading.Event) -> None:
        begun = time.monotonic()
        made = backup.make(
            store,
            self._folder,
            check_root=self._check_root,
            stop=ended.wait,
            spare_bytes=self._spare_bytes,
            clock=self._clock,
        )
        self._newest, store.backup_at, self._trouble, self._looked_for_good = made, made.at, "", False
        log.info("backup %s in %.1f s", made.path.name, time.monotonic() - begun)
        backup.thin(self._folder, self._settings.keep, self._settings.keep_days, self._clock())
