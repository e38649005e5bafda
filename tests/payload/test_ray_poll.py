"""What Ray's two pollers of a driver do while nobody answers; tests/ray/test_getting_started.py has a real head die."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from argus_ray.local.cluster import free_port
from argus_ray.payload import argus_ray_poll


class Subscriber:
    """As Ray's: what is there, one after the other, and then nothing, at once."""

    def __init__(self, *answers: Any, nothing: Any = None) -> None:
        self.answers, self.nothing = list(answers), nothing

    def poll(self, timeout: float | None = None) -> Any:
        return self.answers.pop(0) if self.answers else self.nothing


@pytest.mark.parametrize(
    ("answer", "nothing"),
    [({"lines": ["one"]}, {"lines": []}), ({"lines": ["one"]}, None), ((b"id", {"type": "died"}), (None, None))],
)
def test_only_a_poll_that_brings_nothing_takes_a_moment(answer: Any, nothing: Any) -> None:
    slept: list[float] = []
    made = argus_ray_poll.paced(Subscriber, slept.append)(answer, answer, nothing=nothing)
    assert [made.poll(), made.poll()] == [answer, answer] and slept == []
    assert made.poll() == nothing and made.poll(5.0) == nothing
    assert slept == [argus_ray_poll.PAUSE_S] * 2


@pytest.mark.parametrize("name", argus_ray_poll.SUBSCRIBERS)
def test_rays_own_takes_a_moment_where_no_gcs_answers(name: str) -> None:
    raylet = pytest.importorskip("ray._raylet")
    slept: list[float] = []
    found = ModuleType("raylet")
    found.__dict__.update({each: getattr(raylet, each) for each in argus_ray_poll.SUBSCRIBERS})
    argus_ray_poll.install(found, slept.append)
    subscriber = getattr(found, name)(address=f"127.0.0.1:{free_port()}", worker_id=b"x" * 28)
    for _ in range(3):
        subscriber.poll(1.0)
    assert slept == [argus_ray_poll.PAUSE_S] * 3


def test_a_ray_that_has_no_such_pollers_is_not_passed_over() -> None:
    with pytest.raises(RuntimeError, match="GcsErrorSubscriber"):
        argus_ray_poll.install(ModuleType("raylet"))
