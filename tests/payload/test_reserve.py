"""What a run's log takes while the shared filesystem is low, with what the system says of it replaced."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from argus_ray.payload import argus_reserve
from argus_ray.payload.argus_reserve import EVERY_BYTES, EVERY_S, Reserve


@dataclass
class Disk:
    """One with blocks of a byte."""

    free: int = 1000
    blocks: int = 10_000
    looks: int = 0
    now: float = 50.0
    fails: bool = False

    def __call__(self, _: object) -> Disk:
        self.looks += 1
        if self.fails:
            raise OSError("it does not say")
        return self

    def monotonic(self) -> float:
        return self.now

    f_frsize = 1

    @property
    def f_bavail(self) -> int:
        return self.free

    @property
    def f_blocks(self) -> int:
        return self.blocks


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made)
    return made


def reserve(disk: Disk, size: int = 100) -> Reserve:
    return Reserve("/anywhere", size, disk.monotonic)


def test_it_is_low_below_the_reserve_and_until_a_tenth_more_is_free(disk: Disk) -> None:
    watch = reserve(disk)
    for free, low in ((100, False), (99, True), (100, True), (109, True), (110, False), (100, False), (99, True)):
        disk.free = free
        disk.now += EVERY_S
        assert watch.is_low() is low, free


def test_it_looks_now_and_then_and_sooner_when_much_is_written(disk: Disk) -> None:
    watch = reserve(disk)
    for _ in range(100):
        watch.is_low(10)
    assert disk.looks == 1
    disk.now += EVERY_S
    watch.is_low(10)
    assert disk.looks == 2
    for _ in range(3):
        watch.is_low(EVERY_BYTES // 2)
    assert disk.looks == 3


def test_what_is_not_known_changes_nothing(disk: Disk) -> None:
    watch = reserve(disk)
    for free, fails, blocks, low in (
        (0, True, 9, False), (0, False, 0, False), (0, False, 9, True), (999, True, 9, True), (999, False, 0, True),
    ):  # fmt: skip
        disk.free, disk.fails, disk.blocks = free, fails, blocks
        disk.now += EVERY_S
        assert watch.is_low() is low


@pytest.mark.parametrize("value", ["", "0", "-1", "2 GiB", "1e9", "٣"])
def test_without_a_number_there_is_no_reserve_and_no_look(disk: Disk, value: str) -> None:
    disk.free = 0
    assert not Reserve.of_job("/anywhere", {argus_reserve.VARIABLE: value} if value else {}).is_low()
    assert disk.looks == 0


def test_the_environment_names_it(disk: Disk) -> None:
    assert Reserve.of_job("/anywhere", {argus_reserve.VARIABLE: "100"}).reserve == 100
