"""How long a run still takes by its steps, and by the runs before it."""

from __future__ import annotations

import pytest

from argus_ray.core.estimates import Unknown
from argus_ray.core.forecast.model import Kind, Nature, RunSeen
from argus_ray.core.forecast.nature import EXPORT_S, nature_of, seconds_by_history
from argus_ray.core.forecast.pace import END_S, UNSEEN_STEPS, Pace, StepsSeen
from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import AttemptState, TaskState
from tests.support.builders import spec_yaml


def test_the_pace_has_validations_and_checkpoints_in_it() -> None:
    pace = Pace(0.0, total=100)
    pace.look(StepsSeen(10, 100.0, steps_per_s=1.0))
    assert pace.left(100.0) == 90 + END_S, "at first what verl says of its steps is all there is"
    pace.look(StepsSeen(30, 140.0, steps_per_s=1.0))
    assert pace.left(140.0) == 70 * 2 + END_S and pace.done == 0.3
    assert pace.left(141.0) == 70 * 2 + END_S - 1, "a part of the next step has passed"
    assert pace.left(999.0) == 70 * 2 + END_S - 2, "but no more than one"


def test_the_last_step_may_be_a_slow_one() -> None:
    pace = Pace(0.0, total=40)
    for step in range(1, 39):
        pace.look(StepsSeen(step, 10.0 * step + 90 * (step // 10)))
    assert pace.slack(pace.looks[-1][0]) == 100, "the slowest one that was seen, with its validation"
    assert pace.slack(pace.looks[-1][0] + 150) == 300, "slower than all of them already"
    few = Pace(0.0, total=40)
    few.look(StepsSeen(1, 10.0, steps_per_s=0.1))
    assert few.slack(11.0) == 10 * UNSEEN_STEPS, "it has made no step that could be compared"
    assert Pace(0.0).slack(1.0) == 0.0


def test_what_is_not_known_of_a_run() -> None:
    pace = Pace(0.0)
    assert pace.left(1.0) is Unknown.NO_PACE_YET
    pace.look(StepsSeen(2, 10.0))
    assert pace.left(11.0) is Unknown.NO_PACE_YET, "one look tells no pace"
    pace.look(StepsSeen(5, 40.0))
    assert pace.left(40.0) is Unknown.NO_TOTAL_STEPS and pace.done == 0.0
    pace.look(StepsSeen(5, 40.0, total=10))
    assert pace.left(40.0) == 50 + END_S
    pace.look(StepsSeen(1, 90.0))
    assert pace.left(90.0) is Unknown.NO_PACE_YET, "it has begun again"


def task(root: str, command: tuple[str, ...] = (), **spec: object) -> Task:
    attempt = Attempt("t--a01", "t", 1, AttemptState.RUNNING, 0.0, "/jobs/t", command=command)
    attempts = (attempt,) if command else ()
    text = spec_yaml(root, **spec)
    return Task("t", "ada", 1, "sft", TaskState.QUEUED, Gang(1, 4, 12.0), text, 0.0, 0.0, attempts=attempts)


def test_what_a_spec_says_of_its_length() -> None:
    plain = nature_of(task("/shared"))
    assert plain.steps is None and plain.kind == Kind("ada", "sft", "Qwen/Qwen2.5-0.5B-Instruct", 1, 4)
    assert nature_of(task("/shared", total_training_steps=7)).steps == 7
    given = task("/shared", ("python3", "trainer.total_training_steps=9"), total_training_steps=7)
    assert nature_of(given).steps == 9, "what verl was given"
    assert nature_of(task("/shared", total_epochs=2)).recipe != plain.recipe == nature_of(task("/shared")).recipe


@pytest.mark.parametrize(
    ("nature", "expected"),
    [
        (Nature(Kind("ada", "sft", "m", 1, 4), "r", 200), (400.0, 600.0)),
        (Nature(Kind("ada", "sft", "m", 1, 4), "r", None), (200.0, 50.0)),
        (Nature(Kind("ada", "sft", "m", 1, 4), "other", None), ()),
        (Nature(Kind("ada", "export", "", 1, 0), "", None), (200.0, 300.0, 50.0)),
    ],
)
def test_runs_of_its_kind_tell_how_long_one_takes(nature: Nature, expected: tuple[float, ...]) -> None:
    kind = nature.kind
    runs = [
        RunSeen(Nature(kind, "r", None), 200.0, 1.0, 100),
        RunSeen(Nature(kind, "s", None), 300.0, 1.0, 100),
        RunSeen(Nature(kind, "r", None), 50.0, 1.0, None),
    ]
    assert seconds_by_history(nature, runs) == expected
    assert seconds_by_history(nature, []) == (EXPORT_S if kind.workload == "export" else ())
