"""Samples over HTTP: which steps there are, and the prompts, answers and scores of one, through all attempts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.lifecycle import Admit
from argus_ray.core.states import Outcome
from tests.gateway.test_errors import check_problem
from tests.support.gateway import ADMIN, Api, Headers


def samples(count: int, step: int, **more: Any) -> str:
    return "".join(
        json.dumps(
            {
                "input": f"q{n}",
                "output": f"a{n} of {step}",
                "gts": f"{n}",
                "score": n / 10,
                "step": step,
                "uid": f"u_{n}",
            }
            | more
        )
        + "\n"
        for n in range(count)
    )


def write(change: Admit, step: int, text: str, folder: str = "rollouts") -> Path:
    path = Path(change.job_root) / folder / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def run(api: Api, alice: Headers) -> Admit:
    return api.run(api.submit(alice))


def base_of(change: Admit) -> str:
    return f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/rollouts"


def test_no_samples_yet(api: Api, alice: Headers, run: Admit) -> None:
    waits = api.submit(alice)
    for base in (base_of(run), f"/api/v2/tasks/{waits}/rollouts"):
        found = api.get(base, alice)
        assert (found["steps"], found["samples"], found["next_cursor"], found["complete"]) == ([], [], None, True)
        check_problem(api.client.get(f"{base}?step=1", headers=alice), 404, "file_not_found")


def test_steps_the_newest_first(api: Api, alice: Headers, run: Admit) -> None:
    for step in (1, 2, 10):
        write(run, step, samples(3, step))
    write(run, 5, samples(2, 5), "validation")
    found = api.get(base_of(run), alice)
    assert [(step["step"], step["attempt"], step["samples"]) for step in found["steps"]] == [
        (10, 1, 3),
        (2, 1, 3),
        (1, 1, 3),
    ]
    newest = found["steps"][0]
    assert newest["mean_score"] == pytest.approx(0.1)
    assert newest["size"] == len(samples(3, 10)) and newest["modified_at"].endswith("Z")
    assert [step["step"] for step in api.get(f"{base_of(run)}?kind=validation", ADMIN)["steps"]] == [5]
    first = api.get(f"{base_of(run)}?limit=2", alice)
    write(run, 11, samples(1, 11))
    rest = api.get(f"{base_of(run)}?limit=2&cursor={first['next_cursor']}", alice)
    assert [step["step"] for page in (first, rest) for step in page["steps"]] == [10, 2, 1]
    assert rest["next_cursor"] is None


def test_samples_of_a_step(api: Api, alice: Headers, run: Admit) -> None:
    write(run, 3, samples(5, 3, acc=True))
    found = api.get(f"{base_of(run)}?step=3", alice)
    assert found["samples"][1] == {
        "index": 1, "prompt": "q1", "answer": "a1 of 3", "ground_truth": "1", "score": 0.1,
        "extra": {"uid": "u_1", "acc": True}, "truncated": False,
    }  # fmt: skip
    (step,) = found["steps"]
    assert (step["step"], step["attempt"], step["samples"], found["next_cursor"]) == (3, 1, 5, None)
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{base_of(run)}?step=3&limit=2&cursor={cursor}", alice)
        seen += [sample["index"] for sample in page["samples"]]
        cursor = page["next_cursor"]
    assert seen == [0, 1, 2, 3, 4]
    cut = api.get(f"{base_of(run)}?step=3&max_chars=2&limit=1", alice)["samples"][0]
    assert (cut["answer"], cut["truncated"]) == ("a0", True)


def test_a_step_that_a_later_attempt_makes_again_is_of_that_one(api: Api, alice: Headers, run: Admit) -> None:
    for step in range(1, 6):
        write(run, step, samples(2, step, by="first"))
    write(run, 2, samples(1, 2), "validation")
    write(run, 4, samples(1, 4), "validation")
    first_page = api.get(f"{base_of(run)}?step=4&limit=1", alice)
    api.end(run, Outcome.INFRASTRUCTURE, None)
    second = api.run(run.submission_id.partition("--")[0])
    for step in (3, 4):
        write(second, step, samples(2, step, by="second"))

    def steps(query: str = "") -> list[tuple[int, int]]:
        return [(each["step"], each["attempt"]) for each in api.get(base_of(run) + query, alice)["steps"]]

    assert steps() == [(4, 2), (3, 2), (2, 1), (1, 1)]
    assert steps("?kind=validation") == [(2, 1)]
    assert steps("?attempt=1") == [(step, 1) for step in (5, 4, 3, 2, 1)]
    assert steps("?attempt=latest") == steps("?attempt=2") == [(4, 2), (3, 2)]

    def by(query: str) -> str:
        told: str = api.get(base_of(run) + query, alice)["samples"][0]["extra"]["by"]
        return told

    assert (by("?step=4"), by("?step=2"), by("?step=4&attempt=1"), by("?step=5&attempt=1")) == (
        "second", "first", "first", "first",
    )  # fmt: skip
    for gone in ("?step=5", "?step=2&attempt=2", "?step=1&attempt=3", "?step=4&kind=validation"):
        check_problem(api.client.get(base_of(run) + gone, headers=alice), 404, "file_not_found")
    # The pages of one step are of one file.
    assert by(f"?step=4&cursor={first_page['next_cursor']}") == "first"


@pytest.mark.parametrize(
    "query",
    [
        "step=-1", "step=x", "step=1e3", f"step={2**60}", "kind=test", "limit=0", "limit=501", "cursor=x", "cursor=cnM",
        "step=1&cursor=cnM", "step=1&cursor=cmwxLjEuMS4w", "attempt=0", "max_chars=0", "max_chars=65537", "sort=score",
    ],
)  # fmt: skip
def test_what_breaks_a_rule(api: Api, alice: Headers, run: Admit, query: str) -> None:
    write(run, 1, samples(3, 1))
    check_problem(api.client.get(f"{base_of(run)}?{query}", headers=alice), 400, "invalid_request")


def test_odd_files_are_passed_over(api: Api, alice: Headers, run: Admit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(samples(1, 1, output="SECRET"))
    folder = write(run, 1, samples(1, 1)).parent
    (folder / "2.jsonl").symlink_to(tmp_path / "secret")
    (folder / "3.jsonl").hardlink_to(tmp_path / "secret")
    os.mkfifo(folder / "4.jsonl")
    (folder / "5.jsonl").mkdir()
    assert [step["step"] for step in api.get(base_of(run), alice)["steps"]] == [1]
    for step in (2, 3, 4, 5):
        answer = api.client.get(f"{base_of(run)}?step={step}", headers=alice)
        check_problem(answer, 404, "file_not_found")
        assert "SECRET" not in answer.text
    write(run, 6, '{"input": "\\ud800", "output": [1], "score": NaN}\nno json\n{"torn')
    found = api.get(f"{base_of(run)}?step=6", alice)["samples"]
    assert [(each["prompt"], each["answer"], each["score"], each["truncated"]) for each in found] == [
        ("?", "[1]", None, False), (None, None, None, True),
    ]  # fmt: skip


def test_an_answer_is_bounded_in_bytes(api: Api, alice: Headers, run: Admit) -> None:
    write(run, 1, samples(200, 1, output="x" * 70_000))
    answer = api.client.get(f"{base_of(run)}?step=1&limit=500", headers=alice)
    assert len(answer.content) < 1_300_000 and answer.json()["next_cursor"] is not None
    assert all(each["truncated"] and len(each["answer"]) == 65_536 for each in answer.json()["samples"])


def test_a_disk_that_does_not_answer_is_no_missing_step(
    api: Api, alice: Headers, run: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(run, 1, samples(1, 1))
    really = os.open

    def fails(name: Any, *args: Any, **options: Any) -> int:
        if str(name) == "rollouts":
            raise OSError(5, "EIO", name)
        return really(name, *args, **options)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fails)
        for query in ("", "?step=1", "?step=1&attempt=1"):
            check_problem(api.client.get(base_of(run) + query, headers=alice), 503, "unavailable")
    assert len(api.get(f"{base_of(run)}?step=1", alice)["samples"]) == 1
