"""show, explain, queue, logs, metrics, rollouts, files, open: what there is to see of a task."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from argus_ray.cli import draw, exits, following
from argus_ray.cli.commands import logs
from argus_ray.client.errors import ServerUnreachable
from argus_ray.client.models.results import LogEnd
from argus_ray.core.lifecycle import Admit
from argus_ray.core.states import Outcome
from tests.cli.conftest import NewPerson, Person
from tests.cli.schema import check
from tests.gateway.test_export_api import trained
from tests.support.gateway import lines, log_of, metrics_of

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def running(person: Person, **overrides: object) -> tuple[str, Admit]:
    task_id = person.submit(**overrides)
    return task_id, person.api.run(task_id)


# show


def test_everything_about_a_task(alice: Person) -> None:
    task_id, change = running(alice, total_training_steps=20)
    metrics_of(change).write_text(lines(1, 2, 3, train__loss=0.5))
    ran = alice("show", task_id)
    pairs = dict(line.split(maxsplit=1) for line in ran.lines if not line.startswith(" "))
    assert pairs["id"] == task_id and pairs["state"] == "RUNNING"
    assert pairs["gang"].startswith("1x4: 4 GPUs") and pairs["steps"].startswith("3/20")
    assert STAMP.fullmatch(pairs["created"])
    assert "a01" in pairs
    check(alice.api, "/tasks/{task_id}", alice("show", task_id, "--json").json)
    assert alice("show", task_id, "--command").out == "python3 -m verl trainer.total_training_steps=20\n"
    assert alice("show", task_id, "--yaml").out == alice.api.world.spec(total_training_steps=20)
    assert "QUEUED -> SUBMITTING" in alice("show", task_id, "--events").out
    check(alice.api, "/tasks/{task_id}/events", alice("show", task_id, "--events", "--json").json)


def test_several_tasks_are_a_document_each(alice: Person) -> None:
    first, second = alice.submit(), alice.submit()
    ran = alice("show", first, second, first, "--json")
    assert [each["task_id"] for each in ran.documents] == [first, second]
    assert [each["task_id"] for each in alice("show", "-", "--json", stdin=f"{second}\n{first}\n").documents] == [
        second, first
    ]  # fmt: skip
    assert "no ids came from stdin" in alice("show", "-", stdin="", code=exits.USAGE).err


def test_why_it_failed_comes_with_the_next_step(alice: Person) -> None:
    task_id, change = running(alice)
    log_of(change).write_text("Traceback:\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
    alice.api.end(change, Outcome.APPLICATION, 1)
    ran = alice("show", task_id)
    assert "FAILED" in ran.out and "\nwhy " in ran.out


def test_a_task_of_another_is_as_one_that_is_not_there(alice: Person, person: NewPerson) -> None:
    theirs = person().submit()
    missing = theirs[:-4] + ("0000" if theirs[-4:] != "0000" else "1111")
    for command in (("show",), ("logs",), ("wait",), ("explain",), ("metrics",), ("files",), ("watch",), ("resubmit",)):
        seen = [alice(*command, task_id, code=exits.NOT_FOUND) for task_id in (theirs, missing)]
        words = [re.sub(r"request \S+", "", ran.err) for ran in seen]
        assert words[0].replace(theirs, "ID") == words[1].replace(missing, "ID")
        assert "(task_not_found)" in words[0]


def test_what_others_write_reaches_no_terminal_raw(alice: Person) -> None:
    task_id, change = running(alice)
    log_of(change).write_text("\x1b]0;title\x07evil\x1b[2J\n")
    assert alice("logs", task_id).out == "evil\n"
    assert alice("logs", task_id, "--raw").out == "\x1b]0;title\x07evil\x1b[2J\n"
    assert alice("logs", task_id, "--json").documents[0]["text"] == "\x1b]0;title\x07evil\x1b[2J"
    ran = alice("show", "\x1b[2Jx", code=exits.NOT_FOUND)
    assert "\x1b" not in ran.err


# explain, queue


def test_why_it_waits(alice: Person) -> None:
    task_id, second = alice.submit(nnodes=9), alice.submit()
    ran = alice("explain", task_id)
    assert "waits for 36 GPUs" in ran.lines[0] or "GPU" in ran.lines[0]
    assert "position" in ran.out and "GPUS SHORT" in ran.out
    check(alice.api, "/tasks/{task_id}/explain", alice("explain", task_id, "--json").json)
    assert f"yours: {task_id[-4:]}" in alice("explain", second).out
    alice.api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice.headers)
    assert "CANCELED" in alice("explain", task_id, "--watch").out


def test_the_queue(alice: Person, admin: Person, person: NewPerson) -> None:
    other = person().submit()
    waits = alice.submit()
    runs, _ = running(alice)
    ran = alice("queue")
    assert [line.split()[0] for line in ran.lines] == ["ID", runs, waits]
    assert ran.err == "1 running, 1 waiting\n"
    assert alice("queue", "-q").lines == [runs, waits]
    check(alice.api, "/queue", alice("queue", "--json").json)
    assert "(forbidden)" in alice("queue", "--all", code=exits.TOKEN).err
    assert {other, waits, runs} <= set(admin("queue", "--all", "-q").lines)
    check(alice.api, "/admin/queue", admin("queue", "--all", "--json").json)


# logs


def test_a_log(alice: Person) -> None:
    task_id = alice.submit()
    ran = alice("logs", task_id)
    assert (ran.out, ran.err) == ("", f"no log yet: the task waits; argus explain {task_id[-4:]}\n")
    change = alice.api.run(task_id)
    log_of(change).write_text("one\ntwo\r\n10%\r20%\rlast")
    assert alice("logs", task_id).lines == ["one", "two", "10%", "20%", "last"]
    assert alice("logs", task_id, "-n", "1").lines[-1] == "last"
    assert alice("logs", task_id, "-n", "100", "--grep", "^t|0%").lines == ["two", "10%", "20%"]
    assert [each["attempt"] for each in alice("logs", task_id, "--json").documents] == [1] * 5
    assert "(log_not_found)" in alice("logs", task_id, "--attempt", "7", code=exits.NOT_FOUND).err
    for words in (("--attempt", "x"), ("--grep", "["), ("-f", "--attempt", "all"), ("--download", "x", "-f")):
        assert alice("logs", task_id, *words, code=exits.USAGE).err


def test_the_whole_log_is_searched_by_the_server(alice: Person) -> None:
    task_id, change = running(alice)
    log_of(change).write_text("loss: nan nan\n" + "nothing here\n" * 5000 + "\x1b[31mloss: nan\x1b[0m\n")
    assert alice("logs", task_id, "--grep", "n[a]n").lines == ["loss: nan nan", "loss: nan"]
    assert alice("logs", task_id, "--grep", "absent").out == ""
    documents = alice("logs", task_id, "--grep", "nan", "--json").documents
    check(alice.api, "/tasks/{task_id}/logs/search", documents[0])
    assert sum(len(each["matches"]) for each in documents) == 3


def test_the_whole_log_is_downloaded_byte_for_byte(alice: Person) -> None:
    task_id, change = running(alice)
    raw = b"".join(b"%07d \xff\x1b[31m%s\r\n" % (number, b"." * 100) for number in range(50_000))
    log_of(change).write_bytes(raw)
    to = alice.home / "whole.log"
    assert alice("logs", task_id, "--download", str(to)).err == f"{to}: {draw.size(len(raw))}\n"
    assert to.read_bytes() == raw
    assert "is there already" in alice("logs", task_id, "--download", str(to), code=exits.USAGE).err
    assert [each.name for each in alice.home.iterdir() if "whole" in each.name] == ["whole.log"]
    empty, change = running(alice)
    log_of(change).touch()
    alice("logs", empty, "--download", str(alice.home / "empty.log"))
    assert (alice.home / "empty.log").read_bytes() == b""


def test_the_logs_of_all_attempts(alice: Person) -> None:
    task_id, first = running(alice)
    log_of(first).write_text("first\n")
    alice.api.end(first, Outcome.INFRASTRUCTURE, None)
    log_of(alice.api.run(task_id)).write_text("second\n")
    ran = alice("logs", task_id, "--attempt", "all")
    assert ran.lines == ["first", "second"]
    assert ran.err == "attempt 1:\nattempt 2:\n"
    assert alice("logs", task_id, "--attempt", "1").lines == ["first"]


def test_a_followed_log_ends_with_how_the_task_ended(alice: Person) -> None:
    for outcome, code in ((Outcome.SUCCEEDED, exits.OK), (Outcome.APPLICATION, exits.FAILED)):
        task_id, change = running(alice)
        log_of(change).write_text("".join(f"line {number}\n" for number in range(50)))
        alice.api.end(change, outcome, 0 if code == exits.OK else 1)
        ran = alice("logs", task_id, "-f", code=code)
        assert ran.lines == [f"line {number}" for number in range(50)]
        assert task_id in ran.err and ("FAILED" in ran.err) == (code == exits.FAILED)
        assert alice("logs", task_id, "-f", "-n", "2", "--grep", "49$", code=code).lines == ["line 49"]
        documents = alice("logs", task_id, "-f", "-n", "1", "--json", code=code).documents
        assert [(each["text"], each["attempt"]) for each in documents] == [("line 49", 1)]
    canceled = alice.submit()
    alice.api.client.post(f"/api/v2/tasks/{canceled}:cancel", headers=alice.headers)
    assert alice("logs", canceled, "-f", code=exits.CANCELED).out == ""


# metrics


def test_curves(alice: Person) -> None:
    task_id, change = running(alice)
    assert alice("metrics", task_id).err == f"{task_id[-4:]} has no curves yet\n"
    metrics_of(change).write_text("".join(lines(step, train__loss=1 / step, train__mfu=0.5) for step in range(1, 41)))
    ran = alice("metrics", task_id)
    assert ran.lines[0].split() == ["NAME", "STEP", "LAST", "MIN", "MAX", "CURVE"]
    assert ran.lines[1].split()[:5] == ["train/loss", "40", "0.025", "0.025", "1"]
    assert ran.lines[1].split()[5].startswith("█")
    assert "1 more by --names: train/mfu" in ran.err
    check(alice.api, "/tasks/{task_id}/metrics", alice("metrics", task_id, "--json").json)
    rows = list(csv.DictReader(alice("metrics", task_id, "--csv", "--since-step", "39").lines))
    assert [(row["step"], row["name"], float(row["value"])) for row in rows] == [
        ("39", "train/loss", 1 / 39), ("40", "train/loss", 1 / 40)
    ]  # fmt: skip
    chart = alice("metrics", task_id, "--plot", "--names", "train/mfu,train/loss")
    assert "train/mfu" in chart.lines[0] and "train/loss" in chart.out
    assert all(len(line) <= 120 for line in chart.lines) and "\x1b" not in chart.out
    assert alice("metrics", task_id, "--plot", "--csv", code=exits.USAGE).err


def test_curves_that_are_followed_are_whole_and_told_once(alice: Person) -> None:
    task_id, change = running(alice)
    metrics_of(change).write_text(lines(1, 2, 3, train__loss=2.0))
    alice.api.end(change, Outcome.APPLICATION, 1)
    ran = alice("metrics", task_id, "-f", code=exits.FAILED)
    assert ran.lines == [f"{task_id[-4:]} {step} train/loss 2" for step in (1, 2, 3)]
    check(alice.api, "/tasks/{task_id}/metrics", alice("metrics", task_id, "-f", "--json", code=exits.FAILED).json)


def test_curves_that_are_followed_tell_what_a_further_attempt_makes_again(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, change = running(alice)
    metrics_of(change).write_text(lines(1, 2, 3, 4, 5, train__loss=2.0))

    def beats(interval_s: float) -> Iterator[float]:
        yield 0.0
        alice.api.end(change, Outcome.INFRASTRUCTURE, None)
        second = alice.api.run(task_id)
        metrics_of(second).write_text(lines(4, train__loss=1.0))
        yield 1.0
        with metrics_of(second).open("a") as file:
            file.write(lines(5, 6, train__loss=1.0))
        alice.api.end(second)
        yield 2.0

    monkeypatch.setattr("argus_ray.cli.looks.beats", beats)
    told = [line.split()[1::2] for line in alice("metrics", task_id, "-f").lines]
    assert told == [[step, "2"] for step in "12345"] + [[step, "1"] for step in "456"]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another one"])
def test_the_curves_of_a_canceled_task_are_followed_until_its_attempt_has_ended(
    alice: Person, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    task_id, change = running(alice)
    metrics_of(change).write_text(lines(1, train__loss=2.0))
    others = [alice.submit()] if beside else []

    def beats(interval_s: float) -> Iterator[float]:
        yield 0.0
        for each in (task_id, *others):
            alice.api.client.post(f"/api/v2/tasks/{each}:cancel", headers=alice.headers)
        yield 1.0
        with metrics_of(change).open("a") as file:
            file.write(lines(2, train__loss=1.0))
        alice.api.end(change, Outcome.CANCELED, None)
        yield 2.0
        raise AssertionError("it has ended")

    monkeypatch.setattr("argus_ray.cli.looks.beats", beats)
    told = [line.split()[1::2] for line in alice("metrics", task_id, *others, "-f", code=exits.CANCELED).lines]
    assert told == [["1", "2"], ["2", "1"]]


def test_an_attempt_that_does_not_end_holds_the_curves_of_a_canceled_task_for_a_while_only(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, change = running(alice)
    metrics_of(change).write_text(lines(1, train__loss=2.0))
    alice.api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice.headers)
    looked = []

    def beats(interval_s: float) -> Iterator[float]:
        for at in (0.0, 50.0, 100.0):
            looked.append(at)
            yield at
        raise AssertionError("it is followed for ever")

    monkeypatch.setattr("argus_ray.cli.looks.beats", beats)
    ran = alice("metrics", task_id, "-f", code=exits.CANCELED)
    assert ran.lines == [f"{task_id[-4:]} 1 train/loss 2"]
    assert looked == [0.0, 50.0, 100.0]


def test_curves_of_which_one_task_is_not_there_are_shown_and_no_success(alice: Person) -> None:
    task_id, change = running(alice)
    metrics_of(change).write_text(lines(1, train__loss=2.0))
    nobody = "argus-alice-sft-20260101-000000-0000"
    for more in ((), ("--json",), ("--csv",)):
        ran = alice("metrics", task_id, nobody, *more, code=exits.NOT_FOUND)
        assert "train/loss" in ran.out and "0000: " in ran.err


def test_how_it_ended_is_the_exit_code_though_nobody_says_why() -> None:
    class Away:
        def get(self, *_: Any, **__: Any) -> Any:
            raise ServerUnreachable("it is away")

    notes: list[str] = []
    session: Any = SimpleNamespace(out=SimpleNamespace(tells=True, note=notes.append), server=Away())
    assert logs._ended(session, "t", LogEnd("FAILED", 1, "APPLICATION")) == exits.FAILED
    following._tell_why(session, {"task_id": "argus-alice-sft-20260101-000000-0000", "state": "FAILED"})
    assert notes == ["  argus logs 0000"]


def test_an_attempt_that_was_lost_is_no_success_though_its_task_goes_on(alice: Person) -> None:
    task_id, change = running(alice)
    log_of(change).write_text("one\n")
    alice.api.end(change, Outcome.INFRASTRUCTURE, None)
    second = alice.api.run(task_id)
    ran = alice("logs", task_id, "-f", "--attempt", "1", code=exits.FAILED)
    assert ran.lines == ["one"] and "attempt 1 has ended: INFRASTRUCTURE" in ran.err
    alice.api.end(second)
    assert alice("logs", task_id, "-f", "--attempt", "2").lines == []


def test_curves_of_several_tasks_stand_side_by_side(alice: Person) -> None:
    first, change = running(alice)
    metrics_of(change).write_text(lines(1, 2, train__loss=2.0))
    second, other = running(alice)
    metrics_of(other).write_text(lines(1, 2, 3, train__loss=1.0))
    ran = alice("metrics", first, second)
    assert [line.split()[:4] for line in ran.lines] == [
        ["ID", "NAME", "STEP", "LAST"],
        [first[-4:], "train/loss", "2", "2"],
        [second[-4:], "train/loss", "3", "1"],
    ]
    check(alice.api, "/curves", alice("metrics", first, second, "--json").json)
    assert len(list(csv.DictReader(alice("metrics", first, second, "--csv").lines))) == 5
    assert f"── {second[-4:]}" in alice("metrics", first, second, "--plot").out


# rollouts, files, open


def test_samples(alice: Person) -> None:
    task_id, change = running(alice, workload="grpo")
    assert alice("rollouts", task_id).err == "no samples yet\n"
    folder = Path(change.job_root) / "rollouts"
    folder.mkdir(parents=True)
    sample = {"input": "2+2=", "output": "\x1b[2J4", "gts": "4", "score": 1.0}
    (folder / "3.jsonl").write_text(json.dumps(sample) + "\n")
    ran = alice("rollouts", task_id)
    assert ran.lines[0].split() == ["STEP", "ATTEMPT", "SAMPLES", "SCORE", "SIZE", "WRITTEN"]
    assert ran.lines[1].split()[:4] == ["3", "1", "1", "1"]
    check(alice.api, "/tasks/{task_id}/rollouts", alice("rollouts", task_id, "--json").json)
    shown = alice("rollouts", task_id, "--step", "3")
    assert "prompt  2+2=" in shown.out and "answer  4" in shown.out and "\x1b" not in shown.out
    check(alice.api, "/tasks/{task_id}/rollouts", alice("rollouts", task_id, "--step", "3", "--json").json)


def test_files(alice: Person) -> None:
    task_id, change = running(alice)
    folder = Path(change.job_root) / "checkpoints" / "a b"
    folder.mkdir(parents=True)
    (folder / "data.pt").write_bytes(bytes(range(256)) * 40)
    assert "checkpoints/" in alice("files", task_id).out
    ran = alice("files", task_id, "checkpoints/a%20b")
    assert ran.lines[1].split()[0] == "file" and ran.lines[1].endswith("checkpoints/a%20b/data.pt")
    assert alice("files", task_id, "checkpoints/a b", "-q").lines == ["checkpoints/a%20b/data.pt"]
    check(alice.api, "/tasks/{task_id}/files", alice("files", task_id, "--json").json)
    to = alice.home / "got.pt"
    words = ("files", task_id, "--download", "checkpoints/a%20b/data.pt", "-o", str(to))
    assert alice(*words).out == f"{to}\n"
    assert to.read_bytes() == bytes(range(256)) * 40
    assert "is there already" in alice(*words, code=exits.USAGE).err
    assert "(file_not_found)" in alice("files", task_id, "nothing", code=exits.NOT_FOUND).err


def test_the_page_of_a_task(alice: Person) -> None:
    task_id = alice.submit()
    ran = alice("open", task_id)
    assert ran.out == f"{alice.url}/#/tasks/{task_id}\n"
    assert alice.token and alice.token not in ran.out


# wait, watch, resubmit


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.SUCCEEDED, exits.OK), (Outcome.APPLICATION, exits.FAILED)], ids=["good", "bad"]
)
def test_the_exit_code_tells_how_it_ended(alice: Person, outcome: Outcome, code: int) -> None:
    task_id, change = running(alice)
    log_of(change).write_text("RuntimeError: no luck\n")
    assert "has not ended in 0s; it goes on" in alice("wait", task_id, "--timeout", "0", code=exits.TIMEOUT).err
    assert alice("watch", task_id, "--timeout", "0", code=exits.TIMEOUT).lines[0].split()[1:3] == [task_id, "RUNNING"]
    alice.api.end(change, outcome, 0)
    ran = alice("wait", task_id, code=code)
    assert ran.lines == [f"{task_id} {'SUCCEEDED' if code == 0 else 'FAILED'} after 0s"]
    assert ("argus logs" in ran.err) == (code == exits.FAILED)
    assert alice("watch", task_id, code=code).out.count(task_id) == 1
    check(alice.api, "/tasks/{task_id}", alice("wait", task_id, "--json", code=code).json)
    assert alice("wait", task_id, "-q", code=code).out == f"{task_id}\n"


def test_a_canceled_task(alice: Person) -> None:
    task_id = alice.submit()
    alice.api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice.headers)
    for command in (("wait",), ("watch",), ("logs", "-f")):
        alice(*command, task_id, code=exits.CANCELED)
    assert alice("watch").err == "none of your tasks waits or runs\n"


def test_a_task_is_made_again(alice: Person) -> None:
    task_id, change = running(alice)
    assert "(task_not_ended)" in alice("resubmit", task_id, code=exits.CONFLICT).err
    alice.api.end(change)
    (again,) = alice("resubmit", task_id).lines
    assert again != task_id
    assert "(nothing_to_resume)" in alice("resubmit", task_id, "--resume", code=exits.CONFLICT).err
    check(alice.api, "/tasks/{task_id}:resubmit", alice("resubmit", task_id, "--json").json, "post", "201")
    assert alice("resubmit", task_id, "--key", "k").out == alice("resubmit", task_id, "--key", "k").out
    assert "(nothing_to_export)" in alice("export", task_id, code=exits.CONFLICT).err


def test_a_folder_is_made_of_a_checkpoint(alice: Person) -> None:
    task_id, _ = trained(alice.api, alice.headers, 10, 20)
    (made,) = alice("export", task_id, "--step", "10").lines
    assert alice("show", task_id).out.count(made) == 1
    check(alice.api, "/tasks/{task_id}:export", alice("export", task_id, "--json").json, "post", "201")
    assert "there of: 20, 10" in alice("export", task_id, "--step", "15", code=exits.CONFLICT).err
