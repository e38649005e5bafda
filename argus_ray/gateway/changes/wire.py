"""The events of the stream of changes, and the ids by which a client goes on.

An id is `<place>`, or `<place>~<log>:<attempt>:<offset>` in a stream that follows a log: one id stands for both.
Clients give it back as it is. `<log>` says of which task, so that the place in one log is not taken for one in another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from argus_ray.core.states import TaskState
from argus_ray.core.watching import Counts
from argus_ray.gateway.logs.stream import Place, encoded

_ID = re.compile(r"([0-9a-f]{16})(?:~([0-9a-f]{8}):(\d{1,6}:\d{1,18}))?")


@dataclass(frozen=True)
class LastId:
    """A Last-Event-ID, taken apart. What is no id of ours has a place that nobody can read."""

    place: str
    log: str | None = None
    in_log: Place | None = None

    @classmethod
    def parse(cls, last_event_id: str) -> LastId | None:
        """None: the client begins."""
        given = last_event_id.strip()
        if not given:
            return None
        match = _ID.fullmatch(given)
        if match is None:
            return cls("")
        return cls(match[1], match[2], None if match[3] is None else Place.parse(match[3]))

    def in_log_of(self, task_id: str) -> Place | None:
        return self.in_log if self.log == log_of(task_id) else None


def log_of(task_id: str) -> str:
    return hashlib.blake2b(task_id.encode(), digest_size=4).hexdigest()


def event(name: str, data: Mapping[str, Any], id: str | None = None) -> bytes:
    return encoded(event=name, data=json.dumps(data), id=id)


def task_event(data: bytes, id: str) -> bytes:
    """`data`: JSON in one line."""
    return b"event: task\ndata: " + data + f"\nid: {id}\n\n".encode()


def counts_event(counts: Counts) -> bytes:
    """All states, as `GET /api/v2/tasks:counts` has them."""
    every = {state.value: counts.get(state, 0) for state in TaskState}
    return event("counts", {"counts": every, "total": sum(every.values())})
