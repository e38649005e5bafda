"""How far the wall clock has been stepped, told by a clock that nobody sets. Pure: both times come in as arguments.

NTP, an operator or a machine that wakes up sets the wall clock by minutes or hours at once. What is measured within a
process goes by the monotonic clock and does not see it. What is stored is Unix time, and has to follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Smaller differences are the noise of two readings. Seconds.
TOLERANCE_S = 2.0
#: So long a step forward is not believed where files would leave for good: somebody may set the clock right. Seconds.
DOUBT_S = 86_400.0


@dataclass
class ClockSteps:
    """The steps of one wall clock since this was made. Times are seconds; `wall` is Unix time."""

    #: Of the wall clock before the monotonic one, with all steps that were settled.
    _ahead: float
    #: Settled steps forward, and when by the monotonic clock.
    _forward: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def begin(cls, wall: float, monotonic: float) -> ClockSteps:
        return cls(wall - monotonic)

    def unsettled(self, wall: float, monotonic: float) -> int:
        """By how many seconds the wall clock was set forward (or back: negative) since the last step that was settled;
        0: it was not. Whole seconds, so that times that are moved by them stay exact."""
        step = wall - monotonic - self._ahead
        return round(step) if abs(step) >= TOLERANCE_S else 0

    def settle(self, step_s: int, monotonic: float) -> None:
        """What had to follow this step has followed it."""
        self._ahead += step_s
        self._forward = [(at, each) for at, each in self._forward if monotonic - at < DOUBT_S]
        if step_s > 0:
            self._forward.append((monotonic, step_s))

    def certain(self, wall: float, monotonic: float) -> float:
        """Unix time without the steps forward of the last day. It may be too early, and is never too late."""
        doubtful = sum(step_s for at, step_s in self._forward if monotonic - at < DOUBT_S)
        return wall - doubtful - max(0, self.unsettled(wall, monotonic))
