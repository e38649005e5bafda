"""Which addresses send tokens that are not good: told in the audit, so that who tries tokens is seen.

Most of these requests never reach the database, so each gateway counts them and reports. An address has an entry at
once, and then one an hour with their number. So nobody fills the disk by asking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Of the addresses that there was no room for, or that are not known.
OTHERS = ""


@dataclass
class BadTokens:
    every_s: float = 3600.0
    #: Addresses that have an entry within `every_s`, and that are remembered until they have one.
    most: int = 60
    #: When each had its last entry by the monotonic clock, the oldest first.
    _told: dict[str, float] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)

    def due(self, found: Mapping[str, int], monotonic: float) -> list[tuple[str, int]]:
        """What is to be told now of these and of those before: address and number of requests. Each is told once."""
        for address, count in found.items():
            if count > 0:
                is_known = address in self._waiting or len(self._waiting) < self.most
                self._waiting[address if is_known else OTHERS] += count
        for address, told_at in list(self._told.items()):
            if monotonic - told_at < self.every_s:
                break
            del self._told[address]
        due = [address for address in self._waiting if address not in self._told][: self.most - len(self._told)]
        self._told |= dict.fromkeys(due, monotonic)
        return [(address, self._waiting.pop(address)) for address in due]
