"""A page of steps, or of one step's samples, through the attempts of a task. Blocking."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from argus_ray.core.errors import FieldError, FileNotFoundInJobRoot, InvalidRequest
from argus_ray.core.model import Attempt
from argus_ray.core.verl import rollouts
from argus_ray.core.verl.rollouts import Kind
from argus_ray.disk import rollouts as files
from argus_ray.disk.rollouts import Budget, NoSuchPlace, Place, StepReader
from argus_ray.gateway.http.params import decode_numbers, encode_numbers
from argus_ray.gateway.rollouts.schemas import RolloutsOut, SampleOut, StepOut

#: The newest attempts of a task that are looked at, as of its curves.
_MAX_ATTEMPTS = 50
#: Of one answer, but for its last sample.
_ANSWER_CHARS = 1024 * 1024
_STEPS, _SAMPLES = "rs", "rl"


@dataclass(frozen=True)
class Wish:
    kind: Kind
    limit: int
    cursor: str | None
    field_chars: int


def list_steps(
    reader: StepReader, task_id: str, attempts: Sequence[Attempt], wish: Wish, budget: Budget
) -> RolloutsOut:
    """The steps that there are, the newest first. Raises InvalidRequest, and OSError if the disk does not answer."""
    below = decode_numbers(_STEPS, wish.cursor, 1)
    steps, numbers, complete = _joined(attempts, wish.kind, budget)
    roots = {attempt.number: attempt.job_root for attempt in attempts}
    end = len(steps) if below is None else bisect_left(steps, below[0])
    start = max(0, end - wish.limit)
    found = []
    for i in reversed(range(start, end)):
        file = reader.look(roots[numbers[i]], wish.kind, steps[i], budget)
        if file is not None:
            found.append(StepOut.of(steps[i], numbers[i], file))
    more = encode_numbers(_STEPS, steps[start]) if start else None
    return RolloutsOut(task_id=task_id, kind=wish.kind, steps=found, samples=[], next_cursor=more, complete=complete)


def list_samples(
    reader: StepReader, task_id: str, attempts: Sequence[Attempt], step: int, wish: Wish, budget: Budget
) -> RolloutsOut:
    """The samples of one step. Raises FileNotFoundInJobRoot and InvalidRequest, and OSError likewise."""
    place = decode_numbers(_SAMPLES, wish.cursor, 4)
    complete = True
    if place is not None:
        # The attempt of the page before: a newer one may have made the step again meanwhile.
        chosen = [attempt for attempt in attempts if attempt.number == place[0]]
    elif len(attempts) == 1:
        chosen = list(attempts)
    else:
        steps, numbers, complete = _joined(attempts, wish.kind, budget)
        i = bisect_left(steps, step)
        is_there = i < len(steps) and steps[i] == step
        chosen = [attempt for attempt in attempts if is_there and attempt.number == numbers[i]]
    file = reader.look(chosen[0].job_root, wish.kind, step, budget) if chosen else None
    if file is None:
        raise FileNotFoundInJobRoot(f"There are no samples of step {step}.")
    (attempt,) = chosen
    at = Place() if place is None else Place(place[1], place[2], bool(place[3]))
    try:
        page = files.read_page(
            attempt.job_root,
            wish.kind,
            step,
            at,
            limit=wish.limit,
            chars=_ANSWER_CHARS,
            field_chars=wish.field_chars,
            budget=Budget(),
        )
    except NoSuchPlace:
        rule = "is of a file that has been replaced: begin anew"
        raise InvalidRequest("The cursor is not one of this list.", [FieldError("cursor", rule)]) from None
    if page is None:
        raise FileNotFoundInJobRoot(f"There are no samples of step {step}.")
    behind = page.next
    more = behind and encode_numbers(_SAMPLES, attempt.number, behind.offset, behind.index, int(behind.within))
    return RolloutsOut(
        task_id=task_id,
        kind=wish.kind,
        steps=[StepOut.of(step, attempt.number, file)],
        samples=[SampleOut.of(sample) for sample in page.samples],
        next_cursor=more,
        complete=complete,
    )


def _joined(attempts: Sequence[Attempt], kind: Kind, budget: Budget) -> tuple[Sequence[int], Sequence[int], bool]:
    parts, complete = [], True
    for attempt in attempts[-_MAX_ATTEMPTS:]:
        part, is_whole = files.steps_of(attempt.job_root, attempt.number, budget)
        parts.append(part)
        complete = complete and is_whole
    return *rollouts.join(parts, kind), complete
