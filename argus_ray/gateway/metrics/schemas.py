"""The wire, continued: curves."""

from __future__ import annotations

from pydantic import BaseModel, Field

from argus_ray.core.model import Attempt, Task
from argus_ray.core.verl.metrics import Part, Points
from argus_ray.gateway.http.schemas import Time, time_or_none
from argus_ray.gateway.metrics.curves import Found
from argus_ray.gateway.metrics.progress import Progress, total_steps


class AttemptStepsOut(BaseModel):
    attempt: int
    first_step: int | None = Field(description="null while it has no metrics")
    last_step: int | None
    started_at: Time | None = Field(description="With `ended_at` and the steps: when about each step was made")
    ended_at: Time | None

    @classmethod
    def of(cls, part: Part, attempt: Attempt | None) -> AttemptStepsOut:
        return cls(
            attempt=part.attempt,
            first_step=part.first_step,
            last_step=part.last_step,
            started_at=None if attempt is None else time_or_none(attempt.started_at),
            ended_at=None if attempt is None else time_or_none(attempt.ended_at),
        )


class CurveOut(BaseModel):
    """Columns of one length, in the order of steps."""

    steps: list[int]
    values: list[float]
    attempt: list[int] = Field(description="The attempt that each point is of")

    @classmethod
    def of(cls, points: Points) -> CurveOut:
        return cls(steps=points.steps, values=points.values, attempt=points.attempts)


class MetricsOut(BaseModel):
    task_id: str
    attempts: list[AttemptStepsOut]
    last_step: int | None = Field(description="null while there are no metrics")
    total_steps: int | None = Field(description="null if neither the TaskSpec nor verl's log tells")
    steps_per_s: float | None = Field(description="Of the last steps; null while it is not known")
    seconds_left: float | None = Field(description="null while it is not known, and when the task does not run")
    complete: bool = Field(description="false: there is more to read; the same call again goes on")
    curves: dict[str, CurveOut]
    available: list[str] = Field(description="Other names, which `names` may ask for")

    @classmethod
    def of(cls, task: Task, found: Found, progress: Progress | None) -> MetricsOut:
        attempts = {attempt.number: attempt for attempt in task.attempts}
        steps = [part.last_step for part in found.attempts if part.last_step is not None]
        return cls(
            task_id=task.task_id,
            attempts=[AttemptStepsOut.of(part, attempts.get(part.attempt)) for part in found.attempts],
            # The end of the file is known before all of it has been read.
            last_step=progress.step if progress else steps[-1] if steps else None,
            total_steps=progress.total_steps if progress else total_steps(task),
            steps_per_s=progress.steps_per_s if progress else None,
            seconds_left=progress.seconds_left if progress else None,
            complete=found.complete,
            curves={name: CurveOut.of(points) for name, points in found.curves.items()},
            available=found.available,
        )
