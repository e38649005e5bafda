"""tasks, cancel, and how an id is told."""

from __future__ import annotations

import re

import pytest

from argus_ray.cli import exits
from argus_ray.core.states import Outcome
from tests.cli.conftest import NewPerson, Person
from tests.cli.schema import check
from tests.support.gateway import lines, metrics_of

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_the_list(alice: Person, person: NewPerson) -> None:
    person().submit()
    assert alice("tasks").err == "no tasks\n"
    waits, runs, failed = alice.submit(nnodes=9), alice.submit(total_training_steps=20), alice.submit(workload="grpo")
    metrics_of(alice.api.run(runs)).write_text(lines(1, 2, train__loss=0.42))
    alice.api.end(alice.api.run(failed), Outcome.APPLICATION, 1)
    ran = alice("tasks")
    assert ran.lines[0].split() == ["ID", "KIND", "STATE", "GPUS", "AGE", "STEP", "LEFT", "SCORE"]
    rows = {line.split()[0]: re.split(r"  +", line) for line in ran.lines[1:]}
    assert list(rows) == [failed, runs, waits]
    assert rows[runs][1:4] == ["sft", "RUNNING", "1x4"] and rows[runs][5] == "2/20" and rows[runs][-1] == "0.42"
    assert STAMP.fullmatch(rows[runs][4])
    assert [rows[waits][2], rows[failed][2]] == ["WAITING", "FAILED"]
    assert ran.err == "1 running, 1 waiting, 1 ended\n"
    assert alice("tasks", "-q").lines == [failed, runs, waits]
    check(alice.api, "/tasks", alice("tasks", "--json").json)


def test_filters(alice: Person, admin: Person, person: NewPerson) -> None:
    old = alice.submit(workload="grpo")
    alice.api.world.clock.advance(3 * 3600)
    new = alice.submit()
    alice.api.run(new)
    assert alice("tasks", "-q", "--since", "2h").lines == [new]
    assert alice("tasks", "-q", "--until", "2h").lines == [old]
    assert alice("tasks", "-q", "--state", "running").lines == [new]
    assert alice("tasks", "-q", "--state", "waiting,RUNNING").lines == [new, old]
    assert alice("tasks", "-q", "--state", "active", "--state", "ended").lines == [new]
    assert alice("tasks", "-q", "--workload", "grpo").lines == [old]
    assert alice("tasks", "--workload", "grpo").err == "1 waiting\n"
    assert alice("tasks", "-n", "1").err == "1 running, 1 waiting; 1 shown\n"
    assert admin("tasks", "-q", "--user", alice.home.name).lines == [new, old]
    person().submit()
    assert "USER" in admin("tasks").lines[0]
    assert "(forbidden)" in alice("tasks", "--user", "x", code=exits.TOKEN).err
    for words in (("--since", "soon"), ("--workload", "dpo"), ("--columns", "x"), ("-n", "0")):
        assert alice("tasks", *words, code=exits.USAGE).err


def test_columns(alice: Person) -> None:
    task_id = alice.submit()
    ran = alice("tasks", "--columns", "id,user,created,reason", "--no-headers")
    (line,) = ran.lines
    assert line.split()[:2] == [task_id, alice.home.name] and STAMP.fullmatch(line.split()[2])


def test_all_pages(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    from argus_ray.cli import server

    monkeypatch.setattr(server, "PAGE", 2)
    made = [alice.submit() for _ in range(5)][::-1]
    assert alice("tasks", "--all", "-q").lines == made
    assert alice("tasks", "-n", "3", "-q").lines == made[:3]
    pages = alice("tasks", "--all", "--json").documents
    assert [task["task_id"] for page in pages for task in page["tasks"]] == made and len(pages) == 3
    for page in pages:
        check(alice.api, "/tasks", page)


# An id.


def test_last_is_never_the_task_of_somebody_else(alice: Person, person: NewPerson, admin: Person) -> None:
    own = alice.submit()
    person().submit()
    assert alice("show", "last", "-q").lines == [own]
    for words in (("show", "last"), ("cancel", "last"), ("explain", "last")):
        ran = admin(*words, code=exits.NOT_FOUND)
        assert "newest task of your own" in ran.err, "an admin's token owns none"
    assert alice.api.task(own).state.is_waiting


def test_a_task_is_named_by_its_end_its_beginning_or_last(alice: Person) -> None:
    alice.api.world.clock.advance(86_400)
    first = alice.submit()
    alice.api.world.clock.advance(86_400)
    last = alice.submit(workload="grpo")
    for typed, task_id in (
        (first, first),
        (first[-4:], first),
        (first[-4:].upper(), first),
        (first[:-5], first),
        ("last", last),
        (last[: last.index("-grpo-") + 3], last),
    ):
        assert alice("show", typed, "-q").lines == [task_id], typed
    ran = alice("show", f"argus-{alice.home.name}-", code=exits.NOT_FOUND)
    assert "(ambiguous_id)" in ran.err and first in ran.err and last in ran.err
    assert "next: give more of the id" in ran.err
    for typed in ("argus-nobody", "ffff" if first[-4:] != "ffff" else "eeee", "no such id", "../../x", "*"):
        assert alice("show", typed, code=exits.NOT_FOUND).err.startswith("error: "), typed


def test_last_of_nothing(alice: Person) -> None:
    assert "there is no task yet (task_not_found)" in alice("logs", "last", code=exits.NOT_FOUND).err


def test_a_task_of_another_is_named_by_nobody_else(alice: Person, person: NewPerson) -> None:
    theirs = person().submit()
    assert f"ends with {theirs[-4:]}" in alice("show", theirs[-4:], code=exits.NOT_FOUND).err
    assert "(task_not_found)" in alice("show", theirs[:-1], code=exits.NOT_FOUND).err


# cancel


def test_tasks_are_canceled_by_id(alice: Person, person: NewPerson) -> None:
    first, second, ended = alice.submit(), alice.submit(), alice.submit()
    alice.api.end(alice.api.run(ended))
    ran = alice("cancel", first, "--dry-run")
    assert ran.lines == [f"{first} would be canceled"]
    ran = alice("cancel", first, second, ended)
    assert ran.lines == [f"{first} CANCELED", f"{second} CANCELED", f"{ended} has ended already: SUCCEEDED"]
    assert alice("cancel", first).lines == [f"{first} has ended already: CANCELED"]
    check(alice.api, "/tasks:cancel", alice("cancel", first, "--json").json, "post")
    theirs = person().submit()
    assert alice("cancel", theirs, code=exits.NOT_FOUND).lines == [f"{theirs} not found"]
    assert alice.api.task(theirs).state.value == "QUEUED"


def test_tasks_are_canceled_by_a_filter(alice: Person, person: NewPerson) -> None:
    theirs = person().submit()
    waits, runs = alice.submit(workload="grpo"), alice.submit()
    alice.api.run(runs)
    ran = alice("cancel", "--all", code=exits.USAGE)
    assert "2 tasks would be canceled" in ran.err and "next: add -y" in ran.err
    assert set(alice("cancel", "--all", "--dry-run", "-q").lines) == {waits, runs}
    assert alice("cancel", "--state", "running", "-y").lines == [f"{runs} CANCELED"]
    assert alice("cancel", "--workload", "sft", "-y").err == "no task waits or runs that fits\n"
    assert alice("cancel", "--all", "-y").lines == [f"{waits} CANCELED"]
    assert alice.api.task(theirs).state.value == "QUEUED"
    for words in ((), (waits, "--all"), (waits, "--state", "running")):
        assert alice("cancel", *words, code=exits.USAGE).err


# several


def test_several_are_waited_for(alice: Person) -> None:
    good, canceled, bad, goes_on = (alice.submit() for _ in range(4))
    alice.api.end(alice.api.run(good))
    alice("cancel", canceled)
    assert alice("wait", good, canceled, code=exits.CANCELED).lines[1] == f"{canceled} CANCELED"
    alice.api.end(alice.api.run(bad), Outcome.APPLICATION, 1)
    assert len(alice("wait", good, canceled, bad, code=exits.FAILED).lines) == 3
    assert alice("wait", "--any", goes_on, good).lines == [f"{good} SUCCEEDED after 0s"]
    assert "1 tasks" not in alice("wait", goes_on, good, "--timeout", "0", code=exits.TIMEOUT).err
    missing = "argus-x-sft-20260101-000000-0000"
    assert missing in alice("wait", good, missing, code=exits.NOT_FOUND).err


def test_the_version_of_the_server(alice: Person) -> None:
    assert alice("version").lines[1].startswith("server ")
    check(alice.api, "/version", alice("version", "--json").json["server"])
