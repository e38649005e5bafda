"""The wire, continued: samples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from argus_ray.core.verl.rollouts import Kind, Sample
from argus_ray.disk.rollouts import StepFile
from argus_ray.gateway.files.schemas import time_of_file
from argus_ray.gateway.http.schemas import Time


class StepOut(BaseModel):
    step: int
    attempt: int = Field(description="The attempt that these samples are of")
    size: int = Field(description="Bytes of the file")
    modified_at: Time
    samples: int | None = Field(description="How many; null for a large file, or if time was up")
    mean_score: float | None = Field(description="null likewise, and if none has a score")

    @classmethod
    def of(cls, step: int, attempt: int, file: StepFile) -> StepOut:
        return cls(
            step=step,
            attempt=attempt,
            size=file.size,
            modified_at=time_of_file(file.modified_at),
            samples=file.samples,
            mean_score=file.mean_score,
        )


class SampleOut(BaseModel):
    index: int = Field(description="Its place in the step, from 0")
    prompt: str | None
    answer: str | None
    ground_truth: Any = Field(description="Whatever the data set has")
    score: float | None
    extra: dict[str, Any] = Field(description="What else verl and the reward told of it")
    truncated: bool = Field(description="Something is left out, or the line cannot be read: the file has all of it")

    @classmethod
    def of(cls, sample: Sample) -> SampleOut:
        return cls(
            index=sample.index,
            prompt=sample.prompt,
            answer=sample.answer,
            ground_truth=sample.ground_truth,
            score=sample.score,
            extra=sample.extra,
            truncated=sample.truncated,
        )


class RolloutsOut(BaseModel):
    task_id: str
    kind: Kind
    steps: list[StepOut] = Field(description="Those of this page, the newest first; or the one that was asked for")
    samples: list[SampleOut] = Field(description="Of the step that was asked for, in verl's order")
    next_cursor: str | None
    complete: bool = Field(description="false: there was more to look at than one call may, and steps are missing")
