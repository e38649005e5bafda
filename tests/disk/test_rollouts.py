"""Samples on the disk: steps by the thousand, lines of any length, files that grow, and what is none of verl's."""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.verl.rollouts import MAX_LINE_BYTES, Kind
from argus_ray.disk import logs, rollouts
from argus_ray.disk.rollouts import Budget, NoSuchPlace, Page, Place, StepReader
from tests.support.builders import memory_folder

MIB = 1024 * 1024


def line(number: int, **more: Any) -> str:
    sample = {"input": f"q{number}", "output": f"a{number}", "gts": "g", "score": number / 2, "step": 1}
    return json.dumps({**sample, **more}) + "\n"


def step_file(root: Path, step: int, text: str | bytes, kind: Kind = Kind.TRAIN) -> Path:
    path = root / kind.folder / f"{step}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def page(
    root: Path,
    place: Place | None = None,
    *,
    step: int = 1,
    budget: Callable[[], Budget] = lambda: Budget(seconds=60),
    **options: Any,
) -> Page:
    options = {"limit": 100, "chars": MIB, "field_chars": 1000, "budget": budget(), **options}
    found = rollouts.read_page(str(root), Kind.TRAIN, step, place or Place(), **options)
    assert found is not None
    return found


def all_pages(root: Path, **options: Any) -> list[Page]:
    pages = [page(root, **options)]
    while pages[-1].next is not None:
        assert len(pages) < 1000
        pages.append(page(root, pages[-1].next, **options))
    return pages


def test_the_steps_are_those_of_verls_files_alone(tmp_path: Path) -> None:
    step_file(tmp_path, 3, line(1))
    step_file(tmp_path, 12, "")
    step_file(tmp_path, 0, line(1), Kind.VALIDATION)
    folder = tmp_path / "rollouts"
    (folder / "4.jsonl").symlink_to(folder / "3.jsonl")
    os.mkfifo(folder / "5.jsonl")
    (folder / "6.jsonl").mkdir()
    (folder / "7.json").touch()
    steps, complete = rollouts.steps_of(str(tmp_path), 9, Budget(seconds=60))
    assert (list(steps.train), list(steps.validation), steps.attempt, complete) == ([3, 12], [0], 9, True)


@pytest.mark.parametrize(
    "make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("/etc")], ids=["file", "pipe", "link"]
)
def test_a_folder_that_is_none_holds_no_steps(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "rollouts")
    steps, complete = rollouts.steps_of(str(tmp_path), 1, Budget(seconds=60))
    assert (list(steps.train), complete) == ([], True)
    assert StepReader().look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60)) is None


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(prefix="argus-rollouts-", dir=memory_folder()) as folder:
        yield Path(folder)


def test_a_hundred_thousand_steps(quick: Path) -> None:
    folder = quick / "rollouts"
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for number in range(100_000):
        os.close(os.open(f"{number}.jsonl", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    begun = time.process_time()
    steps, complete = rollouts.steps_of(str(quick), 1, Budget(seconds=60))
    assert time.process_time() - begun < 10
    assert complete and isinstance(steps.train, array) and list(steps.train) == list(range(100_000))
    some, complete = rollouts.steps_of(str(quick), 1, Budget(entries=1000, seconds=60))
    assert len(some.train) == 1000 and not complete
    none, complete = rollouts.steps_of(str(quick), 1, Budget(seconds=0))
    assert len(none.train) == 0 and not complete


def test_pages_of_samples(tmp_path: Path) -> None:
    step_file(tmp_path, 1, "".join(map(line, range(10))))
    pages = all_pages(tmp_path, limit=4)
    assert [[sample.index for sample in each.samples] for each in pages] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [sample.prompt for each in pages for sample in each.samples] == [f"q{n}" for n in range(10)]
    assert [len(each.samples) for each in all_pages(tmp_path, limit=5)] == [5, 5], "no page without samples"


def test_a_page_is_bounded_in_characters_and_has_one_sample_at_least(tmp_path: Path) -> None:
    step_file(tmp_path, 1, "".join(line(n, output="x" * 900) for n in range(10)))
    assert [len(each.samples) for each in all_pages(tmp_path, chars=2000)] == [3, 3, 3, 1]
    assert [len(each.samples) for each in all_pages(tmp_path, chars=1)] == [1] * 10


def test_a_torn_last_line_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = step_file(tmp_path, 1, line(0) + line(1)[:-5])
    found = page(tmp_path)
    assert [sample.index for sample in found.samples] == [0] and found.next is None
    path.write_text(line(0) + line(1) + line(2)[:-1])
    assert [sample.prompt for sample in page(tmp_path).samples] == ["q0", "q1"]


def test_a_file_that_grows_between_pages_goes_on(tmp_path: Path) -> None:
    path = step_file(tmp_path, 1, line(0) + line(1) + line(2))
    first = page(tmp_path, limit=2)
    with path.open("a") as more:
        more.write(line(3))
    assert [sample.index for sample in page(tmp_path, first.next).samples] == [2, 3]


def test_a_place_that_the_file_does_not_have(tmp_path: Path) -> None:
    step_file(tmp_path, 1, line(0) + line(1))
    for offset in (1, 5, len(line(0)) + 1, 10**6):
        with pytest.raises(NoSuchPlace):
            page(tmp_path, Place(offset, 1))
    assert (
        rollouts.read_page(
            str(tmp_path), Kind.TRAIN, 2, Place(), limit=1, chars=1, field_chars=1, budget=Budget(seconds=60)
        )
        is None
    )


@pytest.mark.parametrize("length", [MAX_LINE_BYTES + 1, MAX_LINE_BYTES + 256 * 1024, 9 * MIB])
def test_a_huge_line_is_told_of_and_passed_over(tmp_path: Path, length: int) -> None:
    step_file(tmp_path, 1, line(0).encode() + b"x" * length + b"\n" + line(2).encode() + b"y" * length + b"\n")
    found = page(tmp_path)
    assert [(sample.index, sample.prompt, sample.truncated) for sample in found.samples] == [
        (0, "q0", False), (1, None, True), (2, "q2", False), (3, None, True),
    ]  # fmt: skip
    assert found.next is None


def test_a_line_longer_than_one_look_may_read_is_passed_over_in_several(tmp_path: Path) -> None:
    step_file(tmp_path, 1, line(0).encode() + b"x" * (7 * MIB) + b"\n" + line(2).encode())
    pages = all_pages(tmp_path, budget=lambda: Budget(read_bytes=3 * MIB, seconds=60))
    samples = [sample for each in pages for sample in each.samples]
    assert [(sample.index, sample.truncated) for sample in samples] == [(0, False), (1, True), (2, False)]
    assert len(pages) >= 3, "each look is bounded"


def test_a_file_of_gigabytes_without_a_line_costs_a_bounded_look(tmp_path: Path) -> None:
    path = step_file(tmp_path, 1, "")
    os.truncate(path, 8 << 30)
    tracemalloc.start()
    found = page(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.samples == () and found.next is not None
    assert found.next.within and found.next.offset < 40 * MIB and peak < 8 * MIB
    further = page(tmp_path, found.next)
    assert further.next is not None and further.next.offset > found.next.offset, "it comes to an end some time"


def test_a_file_of_many_empty_lines_costs_a_bounded_look(tmp_path: Path) -> None:
    step_file(tmp_path, 1, b"\n" * (8 * MIB))
    tracemalloc.start()
    found = page(tmp_path)
    file = StepReader().look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.samples) == 100 and all(sample.truncated for sample in found.samples)
    assert file is not None and (file.samples, file.mean_score) == (None, None)
    assert peak < 48 * MIB


def test_counts_and_means_are_those_of_whole_lines(tmp_path: Path) -> None:
    odd = line(0, score=None) + line(0, score=float("nan")) + "no json\n" + '{"torn'
    path = step_file(tmp_path, 1, line(1) + line(3) + odd)
    reader = StepReader()
    file = reader.look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60))
    assert file is not None and (file.samples, file.mean_score, file.size) == (5, 1.0, path.stat().st_size)
    path.write_text(line(5))
    file = reader.look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60))
    assert file is not None and (file.samples, file.mean_score) == (1, 2.5), "it was written anew"
    path.write_text(line(0, score=1e308) + line(0, score=1e308))
    file = reader.look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60))
    assert file is not None and (file.samples, file.mean_score) == (2, None)


def test_a_file_is_counted_once_and_a_large_one_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_file(tmp_path, 1, line(1) * 10)
    step_file(tmp_path, 2, line(1) * 1000)
    read: list[int] = []

    def counted(fd: int, offset: int, length: int) -> bytes:
        read.append(length)
        return logs.read_at(fd, offset, length)

    monkeypatch.setattr(rollouts, "read_at", counted)
    reader = StepReader(file_bytes=10_000)
    for _ in range(3):
        file = reader.look(str(tmp_path), Kind.TRAIN, 1, Budget(seconds=60))
        assert file is not None and (file.samples, file.mean_score) == (10, 0.5)
        large = reader.look(str(tmp_path), Kind.TRAIN, 2, Budget(seconds=60))
        assert large is not None and (large.samples, large.mean_score) == (None, None) and large.size > 10_000
    assert len(read) == 1
    spent = StepReader().look(str(tmp_path), Kind.TRAIN, 1, Budget(read_bytes=0))
    assert spent is not None and spent.samples is None


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    reader = StepReader(remembered=3)
    for step in range(1, 10):
        step_file(tmp_path, step, line(1))
        reader.look(str(tmp_path), Kind.TRAIN, step, Budget(seconds=60))
    assert len(reader._known) == 3


@pytest.mark.parametrize("thing", ["pipe", "link", "hard link", "folder"])
def test_a_step_that_is_no_file_of_this_run_is_none(tmp_path: Path, thing: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    other = tmp_path / "other.jsonl"
    other.write_text(line(0, output="SECRET"))
    path = step_file(root, 1, "")
    path.unlink()
    match thing:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(other)
        case "hard link":
            path.hardlink_to(other)
        case "folder":
            path.mkdir()
    assert StepReader().look(str(root), Kind.TRAIN, 1, Budget(seconds=60)) is None
    assert (
        rollouts.read_page(
            str(root), Kind.TRAIN, 1, Place(), limit=1, chars=1, field_chars=1, budget=Budget(seconds=60)
        )
        is None
    )
