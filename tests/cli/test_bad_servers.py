"""Servers that are older, that are away, or that answer what none should."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyte
import pytest

from argus_ray.cli import exits
from argus_ray.cli.draw import Frame
from argus_ray.cli.server import Server
from argus_ray.cli.session import Session
from argus_ray.client import paths
from argus_ray.client.clock import ServerClock
from tests.cli.conftest import Person
from tests.support.gateway import log_of

TASK_ID = "argus-alice-sft-20260101-000000-0000"
TASK: dict[str, Any] = {
    "task_id": TASK_ID, "user_id": "alice", "workload": "sft", "state": "RUNNING", "reason": None, "position": None,
    "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
    "started_at": "2026-01-01T00:00:00.000Z", "ended_at": None,
    "gang": {"nnodes": 2, "gpus_per_node": 8, "gpus": 16, "cpus": 48}, "progress": None, "stalled_since": None,
    "stalled_why": None,
}  # fmt: skip
NO_ROUTE = (404, {"code": "not_found", "detail": "There is no such route."})
AWAY = (503, {"code": "unavailable", "detail": "The service starts."})
Answers = Callable[[str], tuple[int, Any]]


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[Callable[..., Person]]:
    """A person whose server answers like this."""
    servers = []

    def played(answers: Answers, date: str = "") -> Person:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, document = answers(self.path)
                body = json.dumps(document).encode()
                self.send_response_only(status)
                self.send_header("Date", date or self.date_time_string())
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if status == 503 and self.command == "POST":
                    self.send_header("Retry-After", "700")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Person(None, f"http://127.0.0.1:{server.server_port}", "x" * 20, tmp_path)  # type: ignore[arg-type]

    yield played
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_older_server_lists_without_counts(playing: Callable[..., Person]) -> None:
    ran = playing(lambda path: NO_ROUTE if "counts" in path else (200, {"tasks": [TASK], "next_cursor": None}))("tasks")
    assert TASK_ID in ran.out and ran.err == "1 shown\n"


def test_a_list_that_goes_round_ends(playing: Callable[..., Person]) -> None:
    ran = playing(lambda path: (200, {"tasks": [TASK], "next_cursor": "same"}))("tasks", "--all", "-q")
    assert ran.lines == [TASK_ID] * 2


@pytest.mark.parametrize("words", [("submit", "SPEC"), ("resubmit", TASK_ID), ("export", TASK_ID)])
def test_a_submission_that_may_have_been_accepted_tells_its_key(
    playing: Callable[..., Person], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    person = playing(lambda path: AWAY)
    (person.home / "SPEC").write_text("workload: sft\n")
    words = tuple(str(person.home / "SPEC") if word == "SPEC" else word for word in words)
    assert (
        "the same command with --key k1 makes no second task"
        in person(*words, "--key", "k1", code=exits.UNREACHABLE).err
    )

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "post", interrupted)
    monkeypatch.setattr(Server, "post_spec", interrupted)
    assert "--key k2 makes no second" in person(*words, "--key", "k2", code=exits.INTERRUPTED).err


@pytest.mark.parametrize("words", [("wait", TASK_ID), ("watch", TASK_ID), ("wait", TASK_ID, TASK_ID[:-1] + "1")])
def test_a_timeout_counts_while_the_service_is_away(playing: Callable[..., Person], words: tuple[str, ...]) -> None:
    begun = time.monotonic()

    def answers(path: str) -> tuple[int, Any]:
        if time.monotonic() - begun > 0.5:
            return AWAY
        both = [TASK, {**TASK, "task_id": TASK_ID[:-1] + "1"}]
        return 200, TASK if "/tasks/" in path else {"tasks": both, "next_cursor": None}

    assert "was away" in playing(answers)(*words, "--timeout", "6s", code=exits.TIMEOUT).err
    assert time.monotonic() - begun < 60


def test_a_file_is_not_downloaded_outside(playing: Callable[..., Person]) -> None:
    person = playing(lambda path: (200, {}))
    for path in ("a/..%2f..%2f.bashrc", "a/%2e%2e", "a%00"):
        assert "no file can be named" in person("files", TASK_ID, "--download", path, code=exits.USAGE).err


def test_a_link_beside_a_log_is_not_written_through(alice: Person) -> None:
    task_id = alice.submit()
    log_of(alice.api.run(task_id)).write_text("mine\n")
    victim = alice.home / "victim"
    victim.write_text("kept")
    (alice.home / ".x.log.part").symlink_to(victim)
    alice("logs", task_id, "--download", str(alice.home / "x.log"))
    assert (victim.read_text(), (alice.home / "x.log").read_text()) == ("kept", "mine\n")


def test_a_terminal_that_changes_its_size_within_a_write() -> None:
    class Stream:
        writes = 0
        depth = 0

        def write(self, text: str) -> None:
            self.writes += 1
            self.depth += 1
            assert self.depth == 1, "reentrant"
            frame._resized(0, None)
            self.depth -= 1

        def flush(self) -> None:
            pass

    stream = Stream()
    frame = Frame(stream)  # type: ignore[arg-type]
    frame.draw(["a"])
    assert stream.writes == 1


def test_documents_that_follow_one_another_are_one_a_line(alice: Person) -> None:
    task_id = alice.submit()
    alice.api.end(alice.api.run(task_id))
    ran = alice("export", task_id, "--json", "--wait", "--timeout", "1s", code=exits.CONFLICT)
    assert ran.out == ""
    ran = alice("submit", alice.spec(), "--json", "--watch", "--timeout", "1s", code=exits.TIMEOUT)
    assert [each["state"] for each in ran.documents] == ["QUEUED", "QUEUED"]


def test_a_line_that_comes_in_parts_is_one_line(alice: Person) -> None:
    task_id = alice.submit()
    change = alice.api.run(task_id)
    long = "x" * 200_000
    log_of(change).write_text(f"a\n{long}\nb\n{long}")
    alice.api.end(change)
    assert alice("logs", task_id, "-f").lines == ["a", long, "b", long]


START = {"earliest": "2031-05-01T12:35:30.000Z", "latest": "2031-05-01T13:50:30.000Z", "basis": "firm"}
WAITS: dict[str, Any] = {
    **TASK, "state": "QUEUED", "position": 1, "start": START, "created_at": "2031-05-01T09:00:00.000Z",
    "started_at": None, "reason_code": None, "settings": None, "next_retry_at": None, "presets": [], "warnings": [],
    "resubmitted_from": None, "files_at": "JOB_ROOT", "exports": [], "attempts": [],
}  # fmt: skip
EXPLAINED: dict[str, Any] = {
    "summary": "it waits", "start": START, "gpus_quota": None, "gpus_held": 1, "own_ahead": [], "others_ahead": 0,
    "reason_code": None, "position": 1, "next_retry_at": None, "maintenance": {"on": False, "reason": None},
    "shortfall": None, "gang": TASK["gang"], "state": "RUNNING",
}  # fmt: skip
NOON = "Thu, 01 May 2031 12:00:00 GMT"


@pytest.mark.parametrize("words", [("tasks",), ("queue",), ("show", TASK_ID), ("explain", TASK_ID)])
def test_times_are_counted_from_the_servers_clock(playing: Callable[..., Person], words: tuple[str, ...]) -> None:
    def answers(path: str) -> tuple[int, Any]:
        if "/queue" in path:
            return 200, {"running": [], "pending": [WAITS]}
        if "/explain" in path:
            return 200, EXPLAINED
        if ":counts" in path:
            return 200, {"counts": {"QUEUED": 1}}
        return 200, WAITS if "/tasks/" in path else {"tasks": [WAITS], "next_cursor": None}

    assert "starts in 35m-1h50m" in playing(answers, NOON)(*words).out


def test_an_age_is_counted_from_the_servers_clock(playing: Callable[..., Person]) -> None:
    person = playing(lambda path: (200, {"tasks": [WAITS], "next_cursor": None}), NOON)
    session = Session({name: value for name, value in person.environ.items() if value is not None})
    session.out.is_tty = True
    before = session.out.age(WAITS["created_at"])
    session.server.get(paths.TASKS)
    assert session.out.age(WAITS["created_at"]) == "3h" != before
    assert (session.out.moment(START["earliest"]) or "").endswith("(in 35m)")


def test_a_clock_that_is_nearly_right_is_left_alone() -> None:
    noon = 1_935_403_200.0
    clock = ServerClock(lambda: noon + 1.9)
    clock.note({"date": NOON})
    assert clock.now() == noon + 1.9
    for none in ("", "yesterday", "Thu, 01 Foo 2031 12:00:00 GMT"):
        clock.note({"date": none})
        assert clock.now() == noon + 1.9
    clock.note({"date": "Thu, 01 May 2031 11:00:00 GMT"})
    assert clock.now() == pytest.approx(noon - 3600, abs=1)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the views, which only their sleeping moves."""
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("argus_ray.cli.looks.time", clock)  # the server's own goes on
    return now


@pytest.mark.parametrize(
    "words", [("tasks", "--watch"), ("tasks", "--watch", "--json"), ("explain", TASK_ID, "--watch")]
)
def test_a_view_goes_on_through_a_restart(
    playing: Callable[..., Person], words: tuple[str, ...], hurried: list[float]
) -> None:
    """Longer than a call is tried for."""
    asked: list[float] = []

    def answers(path: str) -> tuple[int, Any]:
        asked.append(hurried[0])
        if 1003 < hurried[0] < 1403:
            return AWAY
        state = "QUEUED" if hurried[0] < 1403 else "RUNNING"
        if "/explain" in path:
            return 200, {**EXPLAINED, "state": state, "summary": f"it is {state}"}
        if state == "RUNNING" and asked[-2] > 1403:
            return NO_ROUTE  # which ends a view that has no end
        return 200, {"tasks": [{**WAITS, "state": state}], "next_cursor": None}

    ran = playing(answers)(*words, code=exits.OK if words[0] == "explain" else exits.NOT_FOUND)
    assert "RUNNING" in ran.out
    if "--json" not in words:
        assert re.search(r"^reconnecting, as of \d\d:\d\d:\d\d$", ran.err, re.MULTILINE)
        assert ran.err.count("reconnecting") == 1, "once for each time that it goes away"
    waits = [later - sooner for sooner, later in itertools.pairwise(asked) if 1003 < sooner < 1403]
    assert waits[0] < 1 and max(waits) <= 10 and 40 < len(waits) < 120, "waits that grow"


def test_a_view_gives_up_as_a_followed_log_does(playing: Callable[..., Person], hurried: list[float]) -> None:
    person = playing(lambda path: AWAY if hurried[0] > 1001 else (200, {"tasks": [WAITS], "next_cursor": None}))
    assert "The service starts" in person("tasks", "--watch", code=exits.UNREACHABLE).err
    assert hurried[0] - 1000 == pytest.approx(600, abs=15)


def test_a_search_stays_in_the_log_that_it_began_in(playing: Callable[..., Person]) -> None:
    """A further attempt may begin meanwhile, and a place is one of one log."""
    asked: list[str] = []

    def answers(path: str) -> tuple[int, Any]:
        asked.append(path)
        page = {"task_id": TASK_ID, "attempt": 1, "matches": [], "size": 20, "from": 0, "next": 10, "complete": False}
        return 200, page if len(asked) == 1 else {**page, "attempt": 2 if "latest" in path else 1, "complete": True}

    playing(answers)("logs", TASK_ID, "--grep", "x")
    assert "attempt=latest" in asked[0] and "attempt=1" in asked[1]


def test_what_is_said_below_a_frame_goes_with_the_next_one() -> None:
    stream = io.StringIO()
    frame = Frame(stream)

    def screen() -> list[str]:
        shown = pyte.Screen(40, 6)
        pyte.Stream(shown).feed(stream.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in shown.display]

    frame.draw(["one", "two"])
    frame.draw_with("reconnecting, as of 12:00:00")
    frame.draw_with("reconnecting, as of 12:00:00")
    assert screen()[:4] == ["one", "two", "reconnecting, as of 12:00:00", ""]
    frame.draw(["three"])
    assert screen()[:2] == ["three", ""]


def test_a_frame_that_fills_the_terminal_says_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    frame = Frame(io.StringIO())
    frame.draw([str(number) for number in range(20)])
    frame.draw_with("reconnecting")
    assert frame._shown[-1] == "reconnecting" and len(frame._shown) == 5
