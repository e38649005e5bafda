"""How long a call is tried again: a budget in seconds, and waits that grow, with jitter."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_S = 0.25
_MOST_S = 10.0
#: What is left of a budget when its last wait was cut to it: not always 0, as floats are rounded.
_NOTHING_S = 0.001


class Patience:
    """The tries of one call, or of one stream since it last said something."""

    def __init__(
        self, budget_s: Callable[[], float], monotonic: Callable[[], float], draw: Callable[[], float]
    ) -> None:
        """`budget_s`: seconds since the first failure. `draw`: from 0 to 1."""
        self._budget_s, self._monotonic, self._draw = budget_s, monotonic, draw
        self._since: float | None = None
        self._next_s = _FIRST_S

    def wait_s(self, asked_s: float | None = None) -> float | None:
        """Seconds to wait before the next try, after one has failed; None if the budget does not reach that far.

        `asked_s`: what the server's Retry-After says, which is the least.
        """
        now = self._monotonic()
        if self._since is None:
            self._since = now
        left = self._budget_s() - (now - self._since)
        least = asked_s or 0.0
        if left < _NOTHING_S or least > left:
            return None
        # Spread over half of it: those that a restart has cut off must not come back together.
        wait = least + self._next_s * (0.5 + self._draw() / 2)
        self._next_s = min(_MOST_S, self._next_s * 2)
        return min(wait, left)

    @property
    def waited_s(self) -> float:
        """Seconds since the first failure."""
        return 0.0 if self._since is None else self._monotonic() - self._since

    def renew(self) -> None:
        """It has gone well."""
        self._since, self._next_s = None, _FIRST_S
