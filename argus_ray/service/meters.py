"""What the state actor counts for monitoring in the memory of its process, and keeps nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from argus_ray.core.monitoring import BATCH_BOUNDS, GatewayReport, Observed
from argus_ray.service.bad_tokens import BadTokens
from argus_ray.store import Store

#: A replica that has said nothing for so long has no open streams; seconds.
_SILENT_S = 60.0
#: Replicas that are remembered.
_MAX_REPLICAS = 64


class Meters:
    """Called within transactions, so by one thread at a time."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        #: Calls of one transaction.
        self.batches = Observed(BATCH_BOUNDS)
        self._monotonic = monotonic
        #: Replica -> when it has reported, and its open streams.
        self._streams: dict[str, tuple[float, int]] = {}
        self._gpu_seconds: dict[str, float] = {}
        self._bad_tokens = BadTokens()

    def note_streams(self, report: GatewayReport) -> None:
        self._streams.pop(report.replica, None)
        self._streams[report.replica] = self._monotonic(), report.streams
        while len(self._streams) > _MAX_REPLICAS:
            del self._streams[next(iter(self._streams))]

    def bad_tokens_due(self, report: GatewayReport) -> list[tuple[str, int]]:
        """What the audit is to tell: addresses, and how many of their requests had a token that is not good."""
        return self._bad_tokens.due(report.bad_tokens, self._monotonic())

    def streams(self) -> int:
        recent = self._monotonic() - _SILENT_S
        self._streams = {name: seen for name, seen in self._streams.items() if seen[0] >= recent}
        return sum(count for _, count in self._streams.values())

    def rising(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """As told, and never less than before: the end of a run may be counted by a clock that was set back."""
        for user_id, value in seconds.items():
            self._gpu_seconds[user_id] = max(value, self._gpu_seconds.get(user_id, 0.0))
        return dict(self._gpu_seconds)
