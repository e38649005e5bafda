"""What this replica of the gateway counts alone: refused requests and open streams. A scrape reaches one replica, so
each reports to the state actor, which adds up."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable

from starlette.types import Scope

from argus_ray.core.errors import ArgusError
from argus_ray.core.monitoring import GatewayReport, ReportGateway
from argus_ray.core.watching import GATEWAY
from argus_ray.gateway.control import ControlPlane

_log = logging.getLogger("argus.gateway")

#: Between two reports of a replica that has something to say; seconds.
EVERY_S = 10.0
#: Addresses whose bad tokens are told apart in one report.
_MAX_ADDRESSES = 50
_REASONS = {"user_disabled": "disabled", "forbidden": "forbidden"}


def _nobody(scope: Scope) -> None:
    return None


class Tally:
    def __init__(self, open_streams: Callable[[], int], address_of: Callable[[Scope], str | None] = _nobody) -> None:
        """`address_of`: of the client; None: not known."""
        self._replica = secrets.token_hex(8)
        self._open_streams = open_streams
        self._refused: Counter[str] = Counter()
        self._address_of = address_of
        self._bad_tokens: Counter[str] = Counter()
        self._told_streams = 0

    def count(self, scope: Scope, code: str) -> None:
        """A request was answered with this code of a problem."""
        if code == "unauthenticated":
            shown = _shows_a_token(scope)
            self._refused["invalid" if shown else "missing"] += 1
            if shown:
                address = self._address_of(scope) or ""
                is_known = address in self._bad_tokens or len(self._bad_tokens) < _MAX_ADDRESSES
                self._bad_tokens[address if is_known else ""] += 1
        elif code in _REASONS:
            self._refused[_REASONS[code]] += 1

    @property
    def has_news(self) -> bool:
        """Open streams are told again and again: a replica that is silent counts as gone."""
        return bool(self._refused) or self._open_streams() > 0 or self._told_streams > 0

    def take(self) -> GatewayReport:
        """What was not reported yet. It is told once: where the call fails, less is counted, and never more."""
        refused, self._refused = self._refused, Counter()
        bad_tokens, self._bad_tokens = self._bad_tokens, Counter()
        self._told_streams = self._open_streams()
        return GatewayReport(self._replica, self._told_streams, dict(refused), dict(bad_tokens))

    async def report_on(self, control: ControlPlane, every_s: float = EVERY_S) -> None:
        """For as long as the application lives."""
        while True:
            await asyncio.sleep(every_s)
            if not self.has_news:
                continue
            try:
                await control.call(GATEWAY, ReportGateway(self.take()))
            except ArgusError as error:
                _log.info("a report for /metrics was lost: %s", error.code)


def _shows_a_token(scope: Scope) -> bool:
    return any(name == b"authorization" and value.strip()[:6].lower() == b"bearer" for name, value in scope["headers"])
