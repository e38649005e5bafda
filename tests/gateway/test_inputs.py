"""The look at a submission's inputs: one for all at a time, good for a moment, and nobody's departure ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from argus_ray.core.errors import FieldError, InvalidSpec
from argus_ray.core.taskspec import TaskSpec, parse
from argus_ray.disk.inputs import Findings
from argus_ray.gateway.tasks.inputs import GOOD_FOR_S, InputChecks
from tests.support.builders import spec_yaml


def spec(**fields: Any) -> TaskSpec:
    return parse(spec_yaml("/private", **fields), shared_root="/private")


class Disk:
    """A `look` that waits for the test."""

    def __init__(self) -> None:
        self.looks = 0
        self.now = 0.0
        self.findings = Findings(warnings=(FieldError("model_id", "w"),))
        self.open = asyncio.Event()
        self.checks = InputChecks(self.look, monotonic=lambda: self.now)

    async def look(self, _: TaskSpec, __: str | None) -> Findings:
        self.looks += 1
        await self.open.wait()
        return self.findings


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_all_that_name_the_same_inputs_share_one_look() -> None:
    async def scenario() -> None:
        disk = Disk()
        asked = [asyncio.ensure_future(disk.checks.warnings_of(spec(save_freq=n))) for n in range(1, 9)]
        await turns()
        assert disk.looks == 1
        asked[0].cancel()  # who began it leaves
        await turns()
        disk.open.set()
        assert await asyncio.gather(*asked[1:]) == [disk.findings.warnings] * 7
        await disk.checks.warnings_of(spec(train_file="/private/common/other"))
        await disk.checks.warnings_of(spec(workload="grpo"))
        assert disk.looks == 3
        # What is right for one user may lead another one out of theirs.
        await disk.checks.warnings_of(spec(), "ada")
        await disk.checks.warnings_of(spec(), "ada2")
        await disk.checks.warnings_of(spec(), "ada")
        assert disk.looks == 5

    asyncio.run(scenario())


def test_a_verdict_is_good_for_a_moment() -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.open.set()
        await disk.checks.warnings_of(spec())
        disk.findings = Findings(errors=(FieldError("train_file", "does not exist"),))
        disk.now += GOOD_FOR_S - 0.01
        assert await disk.checks.warnings_of(spec())
        disk.now += 0.01
        for _ in range(2):
            with pytest.raises(InvalidSpec) as caught:
                await disk.checks.warnings_of(spec())
            assert caught.value.fields == disk.findings.errors
        assert disk.looks == 2

    asyncio.run(scenario())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        disk = Disk()
        disk.open.set()
        for n in range(20):
            await disk.checks.warnings_of(spec(train_file=f"/private/common/{n}"))
        assert len(disk.checks._entries) == 4
        await disk.checks.warnings_of(spec(train_file="/private/common/19"))
        assert disk.looks == 20

    monkeypatch.setattr("argus_ray.gateway.tasks.inputs._MAX_ENTRIES", 4)
    asyncio.run(scenario())
