"""Tracks a task as one run of Weights & Biases. Loaded through VERL_USE_EXTERNAL_MODULES where tracking is on.

verl hands `wandb.init` its own project and experiment, which are Argus's and one an attempt, and W&B takes arguments
before its environment. So `wandb.init` is replaced once that module is imported, which verl does in the one process
that logs (wandb takes seconds to import, so this module never does):
- the run goes by what the environment says, and by the key that the attempt was handed;
- a server that does not answer costs INIT_TIMEOUT at the start; the run is then kept on the disk, for `wandb sync`.
  Nothing that W&B does, or does not, fails the training;
- W&B drops what is logged for a smaller step than it has seen, and an attempt after a loss goes back to its
  checkpoint. So its steps follow on those that are there, and the curves are drawn over AXIS, the step of the training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import argus_imports  # type: ignore[import-not-found]  # neighbours on the workers' PYTHONPATH
import argus_secrets  # type: ignore[import-not-found]

AXIS = "trainer/global_step"


class Tracked:
    """`wandb`, with what it does put under a guard."""

    def __init__(self, wandb: Any, environ: Mapping[str, str] = os.environ) -> None:
        self._wandb, self._environ = wandb, environ
        self._init: Callable[..., Any] = wandb.init
        self._log: Callable[..., Any] | None = None
        self._finish: Callable[..., Any] = wandb.finish
        self._key = ""
        #: The place in W&B's history after those that an earlier attempt has filled.
        self._first_place = 0
        #: From a step of the training to its place; None until the first one.
        self._offset: int | None = None
        self._has_failed = False

    def install(self) -> None:
        self._wandb.init, self._wandb.finish = self.init, self.finish

    def init(self, **given: Any) -> Any:
        """For `wandb.init`. None if not even a file can be written."""
        environ = self._environ
        given |= {"project": environ["WANDB_PROJECT"], "name": environ["WANDB_NAME"]}
        run = None
        if environ.get("WANDB_MODE") == "online":
            run = self._try("the server cannot be used", self._online, given)
        if run is None:
            run = self._try("cannot keep a run on the disk", self._init, **given, mode="offline")
        if run is not None:
            self._first_place = int(getattr(run, "starting_step", 0) or 0)
            self._try("cannot set the axis", run.define_metric, AXIS)
            self._try("cannot set the axis", run.define_metric, "*", step_metric=AXIS)
            self._log = run.log
        self._wandb.log = self.log
        return run

    def log(self, data: Mapping[str, Any], step: int | None = None, **more: Any) -> None:
        """For `wandb.log`."""
        if self._log is None:
            return
        if step is not None:
            if self._offset is None:
                self._offset = max(0, self._first_place - step)
            data, step = {**data, AXIS: step}, step + self._offset
        self._try("cannot log", self._log, data, step=step, **more)

    def finish(self, *given: Any, **more: Any) -> None:
        """For `wandb.finish`; bounded by WANDB_FINISH_TIMEOUT."""
        self._try("cannot end the run", self._finish, *given, **more)

    def _online(self, given: dict[str, Any]) -> Any:
        try:
            self._key = argus_secrets.take(self._environ["ARGUS_JOB_ROOT"], argus_secrets.WANDB) or ""
        except OSError as error:
            self._say(f"the key cannot be read: {error}")
        if not self._key:
            self._say("no key was handed to this run; it is kept on the disk, for `wandb sync`")
            return None
        settings = (given.get("settings") or self._wandb.Settings()).model_copy()
        settings.api_key = self._key
        run = self._try("the server cannot be used", self._init, **{**given, "settings": settings})
        if run is None:
            # What began the run holds its id.
            self._try("cannot begin anew", self._wandb.teardown)
            self._say("the run is kept on the disk, for `wandb sync`")
        return run

    def _try(self, what: str, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        try:
            return call(*given, **more)
        except Exception as error:
            if not self._has_failed or call != self._log:  # each step would say the same
                self._say(f"{what}: {type(error).__name__}: {str(error)[:500]}")
            self._has_failed = True
            return None

    def _say(self, words: str) -> None:
        words = words.replace(self._key, "***") if self._key else words
        print(f"argus: W&B: {words}; the training goes on", flush=True)


def _install() -> None:
    if os.environ.get("WANDB_MODE") not in ("online", "offline"):
        return
    if "wandb" in sys.modules:
        Tracked(sys.modules["wandb"]).install()
    else:
        argus_imports.when_imported(("wandb",), lambda module: Tracked(module).install())


_install()
