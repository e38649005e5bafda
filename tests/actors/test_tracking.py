"""Which attempt is handed the key, and that a trouble with it holds up nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors.adapters import prepare
from argus_ray.actors.tracking import TrackingKeys
from argus_ray.core import paths
from argus_ray.core.model import Attempt, Task
from argus_ray.core.verl import command
from argus_ray.core.verl.tracking import Tracking
from argus_ray.discovery import tracking_keys
from argus_ray.disk import secrets
from argus_ray.disk.threads import BoundedThreads

KEY = "0123456789abcdef0123456789abcdef01234567"
NAME = "argus-ada-sft-20260101-000000-abcd"
ONLINE = Tracking("{user}", "online", "https://wandb.example")


def keys_of(tmp_path: Path, tracking: Tracking | None = ONLINE, **more: Any) -> TrackingKeys:
    tracking_keys.write(tmp_path / "keys", {"OUR_KEY": KEY})
    arguments: dict[str, Any] = {"umask": 0o022, "prove_root": lambda: None}
    environ = {tracking_keys.VARIABLE: str(tmp_path / "keys")}
    return TrackingKeys(
        tracking, "OUR_KEY", BoundedThreads("tracking", 1), 30.0, environ=environ, **arguments | more
    )
