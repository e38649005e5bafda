"""How long a run still takes, by its steps. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from argus_ray.core.estimates import Unknown

#: Steps that must have been seen before a pace is one.
MIN_STEPS = 3
#: Looks that are kept: of a long run the newest ones, in which validations and checkpoints come as often as later.
MAX_LOOKS = 120
#: After the last step: the last validation, the last checkpoint, the end of all processes. Seconds.
END_S = 30.0
#: The slowest step is taken to be as slow as so many while no two looks tell more.
UNSEEN_STEPS = 10


@dataclass(frozen=True)
class StepsSeen:
    """The end of an attempt's metrics file."""

    #: None: it has made none.
    step: int | None = None
    #: When the file was written last; and when it was looked at, by the same clock.
    at: float = 0.0
    #: By what verl says of its last steps; None: it does not.
    steps_per_s: float | None = None
    #: By verl's own progress bar, where the command does not tell; None: neither.
    total: int | None = None


@dataclass
class Pace:
    """Of one attempt."""

    #: When its program began.
    began: float
    #: Steps of the whole run, if the command tells.
    total: int | None = None
    #: (when, step), rising.
    looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MAX_LOOKS))
    said: float | None = None
    #: Of `looks` as they are; None: not worked out yet.
    _slowest_s: float | None = None

    def look(self, seen: StepsSeen) -> None:
        self.total = self.total or seen.total
        self.said = seen.steps_per_s
        self._slowest_s = None
        if seen.step is None:
            return
        if self.looks and seen.step < self.looks[-1][1]:
            self.looks.clear()  # it has begun again
        if not self.looks or (seen.step > self.looks[-1][1] and seen.at > self.looks[-1][0]):
            self.looks.append((seen.at, seen.step))

    @property
    def step(self) -> int | None:
        return self.looks[-1][1] if self.looks else None

    @property
    def done(self) -> float:
        if self.step is None or not self.total:
            return 0.0
        return min(1.0, self.step / self.total)

    def steps_per_s(self) -> float | None:
        """With its validations and its checkpoints, as far as it has been seen."""
        if not self.looks:
            return None
        (first_at, first), (last_at, last) = self.looks[0], self.looks[-1]
        if last - first >= 10 and last_at > first_at:
            return (last - first) / (last_at - first_at)
        if self.said is not None:
            return self.said
        if last - first >= MIN_STEPS and last_at > first_at:
            return (last - first) / (last_at - first_at)
        return None

    def slack(self, now: float) -> float:
        """How many seconds more than `left` says the step that is being made may take: with a validation or a
        checkpoint it is the slowest one, and of the last step that is all there is to know."""
        rate = self.steps_per_s()
        if rate is None or rate <= 0:
            return 0.0
        if self._slowest_s is None:
            self._slowest_s = self._slowest(rate)
        since = max(0.0, now - self.looks[-1][0])
        return max(self._slowest_s, 2 * since if since > self._slowest_s else 0.0)

    def _slowest(self, rate: float) -> float:
        gaps = [
            (at - before_at, step - before)
            for (before_at, before), (at, step) in zip(self.looks, list(self.looks)[1:], strict=False)
        ]
        plain = min([1 / rate, *([1 / self.said] if self.said else []), *(took / steps for took, steps in gaps)])
        return max((took - (steps - 1) * plain for took, steps in gaps), default=UNSEEN_STEPS / rate)

    def left(self, now: float) -> float | Unknown:
        """Seconds."""
        rate = self.steps_per_s()
        if rate is None or rate <= 0 or self.step is None:
            return Unknown.NO_PACE_YET
        if not self.total:
            return Unknown.NO_TOTAL_STEPS
        of_steps = max(0, self.total - self.step) / rate
        # What has passed since the last step is a part of the next one.
        since = max(0.0, now - self.looks[-1][0])
        return max(0.0, of_steps - min(since, 1 / rate)) + END_S
