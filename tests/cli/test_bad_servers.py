"""Servers that are older, that are away, or that answer what none should."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from argus_ray.cli import exits
from argus_ray.cli.draw import Frame
from argus_ray.cli.server import Server
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
def playing(tmp_path: Path) -> Iterator[Callable[[Answers], Person]]:
    """A person whose server answers like this."""
    servers = []

    def played(answers: Answers) -> Person:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, document = answers(self.path)
                body = json.dumps(document).encode()
                self.send_response(status)
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


def test_an_older_server_lists_without_counts(playing: Callable[[Answers], Person]) -> None:
    ran = playing(lambda path: NO_ROUTE if "counts" in path else (200, {"tasks": [TASK], "next_cursor": None}))("tasks")
    assert TASK_ID in ran.out and ran.err == "1 shown\n"


def test_a_list_that_goes_round_ends(playing: Callable[[Answers], Person]) -> None:
    ran = playing(lambda path: (200, {"tasks": [TASK], "next_cursor": "same"}))("tasks", "--all", "-q")
    assert ran.lines == [TASK_ID] * 2


@pytest.mark.parametrize("words", [("submit", "SPEC"), ("resubmit", TASK_ID), ("export", TASK_ID)])
def test_a_submission_that_may_have_been_accepted_tells_its_key(
    playing: Callable[[Answers], Person], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
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
def test_a_timeout_counts_while_the_service_is_away(
    playing: Callable[[Answers], Person], words: tuple[str, ...]
) -> None:
    begun = time.monotonic()

    def answers(path: str) -> tuple[int, Any]:
        if time.monotonic() - begun > 0.5:
            return AWAY
        both = [TASK, {**TASK, "task_id": TASK_ID[:-1] + "1"}]
        return 200, TASK if "/tasks/" in path else {"tasks": both, "next_cursor": None}

    assert "was away" in playing(answers)(*words, "--timeout", "2s", code=exits.TIMEOUT).err
    assert time.monotonic() - begun < 30


def test_a_file_is_not_downloaded_outside(playing: Callable[[Answers], Person]) -> None:
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
