"""What a use case works with: the open transaction, one `now`, and the ports of the service."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from argus_ray.config import Settings
from argus_ray.core import taskspec
from argus_ray.core.errors import ArgusError
from argus_ray.core.model import Gang
from argus_ray.core.taskspec import TaskSpec


@dataclass(frozen=True)
class Ports:
    """What the service is given by whoever made it. `clock`: seconds since the Unix epoch. `entropy(n)`: n
    random bytes. `resolve` follows symbolic links."""

    settings: Settings
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    gang_of: Callable[[TaskSpec], Gang]
    resolve: Callable[[str], str] = os.path.realpath


class Specs:
    """TaskSpecs of one batch, parsed at most once each. The parser asks the shared filesystem about links, so
    the service has it read the specs of callers that are allowed to submit before the transaction begins."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._found: dict[str, TaskSpec | ArgusError] = {}

    def read(self, text: str) -> TaskSpec | ArgusError:
        if text not in self._found:
            try:
                self._found[text] = taskspec.parse(
                    text, shared_root=self._ports.settings.shared_root, resolve=self._ports.resolve
                )
            except ArgusError as error:
                self._found[text] = error
        return self._found[text]


@dataclass(frozen=True)
class UnitOfWork:
    """One transaction. All that happens in it happens at the same `now`."""

    db: sqlite3.Connection
    now: float
    ports: Ports
    specs: Specs
    #: Tokens whose last use should be written down, after this transaction and never by it.
    used: set[str] = field(default_factory=set)
