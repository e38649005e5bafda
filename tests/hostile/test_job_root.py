"""What a run's own code puts into its job root, seen by everything of Argus that reads there."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from argus_ray.core import paths
from argus_ray.core.lifecycle import Admit
from argus_ray.disk import attempt_files, checkpoints, trash
from tests.support.descriptors import open_below
from tests.support.gateway import Api, Headers

T = TypeVar("T")
#: Seconds; a reader that waits for a pipe waits for ever.
BOUND_S = 30.0
SECRET = "what-stands-elsewhere"
STEP = "checkpoints/global_step_7"

#: Where a run can put what it likes and Argus looks.
PLACES = (
    "logs",
    "logs/driver.log",
    "metrics.jsonl",
    "exit.json",
    "started.json",
    "canceled",
    "checkpoints",
    STEP,
    f"{STEP}/data_0.pt",
)


def _device(path: Path) -> None:
    """One that gives zeros without an end."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make a device")


def _second_name(path: Path, secret: Path) -> None:
    if secret.is_dir():
        path.symlink_to(secret)  # no filesystem has a second name of a folder
    else:
        path.hardlink_to(secret)


THINGS: dict[str, Callable[[Path, Path], None]] = {
    "a pipe that nobody writes": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600),
    "an endless device": lambda path, _: _device(path),
    "a link to an endless device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to what stands elsewhere": lambda path, secret: path.symlink_to(secret),
    "a second name of what stands elsewhere": lambda path, secret: _second_name(path, secret),
    "a link to the environment of the reader": lambda path, _: path.symlink_to("/proc/self/environ"),
    "a link to the folders of the reader": lambda path, _: path.symlink_to("/proc/self/fd"),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to nothing": lambda path, _: path.symlink_to("/nowhere/at/all"),
}


def secret_like(place: str, path: Path) -> Path:
    """Something of the kind that belongs at this place, and that a reader would take; made at `path`."""
    content = {
        "exit.json": '{"exit_code": 0, "signal": null}',
        "metrics.jsonl": f'{{"step": 1, "data": {{"{SECRET}": 1.0}}}}\n',
    }
    if place in ("logs", "checkpoints", STEP):
        path.mkdir()
        (path / "driver.log").write_text(SECRET)
    else:
        path.write_text(content.get(place, SECRET))
    return path


def in_time(call: Callable[[], T]) -> T:
    """What the call returns or raises; fails if it takes longer than the bound."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(BOUND_S)


@pytest.mark.parametrize("thing", THINGS)
def test_links_pipes_and_devices_in_the_job_root(
    api: Api, alice: Headers, tmp_path: Path, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGUS_ADMIN_TOKEN", SECRET)
    for number, place in enumerate(PLACES):
        task_id = api.submit(alice)
        change = api.run(task_id)
        path = Path(change.job_root) / place
        path.parent.mkdir(parents=True)
        elsewhere = tmp_path / f"elsewhere-{number}"
        THINGS[thing](path, secret_like(place, elsewhere))
        api.end(change)
        shown = in_time(lambda task_id=task_id: by_http(api, alice, task_id))  # type: ignore[misc]
        assert SECRET not in shown, place
        _is_not_believed(change.job_root)
        assert not open_below(Path(change.job_root)) + open_below(elsewhere) + open_below(Path("/dev/zero")), place
        _goes_and_leaves_what_it_points_to(api, change, elsewhere)


def by_http(api: Api, who: Headers, task_id: str) -> str:
    """All that the API says of this task."""
    seen = []
    for view in (
        "",
        "/logs",
        "/logs/stream",
        "/logs/search?q=e",
        "/logs/download",
        "/metrics",
        "/metrics?names=a",
        "/events",
        "/explain",
    ):
        answer = api.client.get(f"/api/v2/tasks/{task_id}{view}", headers=who)
        assert answer.status_code in (200, 404), (view, answer.text)
        seen.append(answer.text)
    seen.append(api.client.get("/api/v2/tasks", headers=who).text)
    return "".join(seen)


def _is_not_believed(job_root: str) -> None:
    seen = in_time(lambda: attempt_files.look(job_root))
    assert (seen.started, seen.exit, seen.log_tail, seen.has_metrics) == (False, None, "", False)
    assert in_time(lambda: checkpoints.complete([job_root], "sft", 1)) == []
    size = in_time(lambda: trash.disk_bytes(job_root, budget(), 1000))
    assert size is not None and size < 100_000, "only what lies here is counted"


def budget() -> trash.Budget:
    return trash.Budget(1000, time.monotonic() + BOUND_S)


def _goes_and_leaves_what_it_points_to(api: Api, change: Admit, elsewhere: Path) -> None:
    root, user, name = api.world.shared_root, "alice", Path(change.job_root).name
    assert trash.to_trash(root, user, name)
    in_time(lambda: trash.delete_from_trash(root, user, name, budget()))
    assert not Path(paths.trash(root, user, name)).exists()
    assert elsewhere.exists() and (not elsewhere.is_dir() or (elsewhere / "driver.log").exists())


#: Texts that are no exit record, however much they look like one to some parser.
NO_RECORDS = {
    "brackets": "[" * 60_000,
    "braces": '{"exit_code":' * 4_000,
    "brackets in a record": '{"exit_code": 0, "signal": null, "x": ' + "[" * 50_000,
    "a number without an end": '{"exit_code": ' + "9" * 60_000 + "}",
    "a number in a record": '{"exit_code": 0, "signal": ' + "9" * 60_000 + "}",
    "infinity": '{"exit_code": Infinity}',
    "a fraction": '{"exit_code": 0.0}',
    "half of a character": '{"exit_code": "\\ud800"}',
    "longer than any record": '{"exit_code": 0}' + " " * 100_000 + "x",
}


@pytest.mark.parametrize("text", NO_RECORDS.values(), ids=NO_RECORDS)
def test_forged_exit_record_that_no_parser_survives(tmp_path: Path, text: str) -> None:
    """If the look raises, the attempt can never be seen to end, and holds its gang for ever."""
    Path(paths.exit_record(str(tmp_path))).write_text(text)
    assert attempt_files.look(str(tmp_path)).exit is None
