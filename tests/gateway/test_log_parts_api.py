"""Parts of a log, all of it, and searches in it over HTTP."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.lifecycle import Admit
from argus_ray.core.model import FilesAt
from argus_ray.disk import log_search
from argus_ray.gateway.logs.searches import Searches
from tests.gateway.test_errors import check_problem
from tests.support.gateway import ADMIN, Api, Headers, log_of, make_api

HEAD = b"".join(b"%06d\n" % number for number in range(50_000))
#: Where the log goes on after its gap.
BEHIND = 1_000_000
PIECE = b"the end, \xff or not\n"
SIZE = BEHIND + len(PIECE)


@pytest.fixture
def run(api: Api, alice: Headers) -> Admit:
    """Of an attempt whose log has a gap."""
    change = api.run(api.submit(alice))
    log_of(change).write_bytes(HEAD)
    log_of(change).with_name(f"driver.log.{BEHIND:015d}").write_bytes(PIECE)
    return change


def url_of(change: Admit) -> str:
    return f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/logs"


def part(api: Api, who: Headers, change: Admit, wanted: str, query: str = "") -> Any:
    return api.client.get(url_of(change) + query, headers={**who, "Range": f"bytes={wanted}"})


def test_a_part_is_given_as_it_is(api: Api, alice: Headers, run: Admit) -> None:
    for who in (alice, ADMIN):
        answer = part(api, who, run, "7-20")
        assert (answer.status_code, answer.content) == (206, b"000001\n000002\n")
        assert answer.headers["content-range"] == f"bytes 7-20/{SIZE}"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-argus-task-state"] == "RUNNING" and answer.headers["x-argus-attempt"] == "1"
        assert answer.headers["x-content-type-options"] == "nosniff" and "x-argus-log-gap" not in answer.headers
    answer = part(api, alice, run, "-5")
    assert answer.content == PIECE[-5:] and answer.headers["content-range"] == f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}"
    assert part(api, alice, run, f"{BEHIND + 9}-{BEHIND + 9}").content == b"\xff", "bytes, and no replacement"


def test_the_gap_is_told_and_no_part_spans_it(api: Api, alice: Headers, run: Admit) -> None:
    gap = f"{len(HEAD)}-{BEHIND}"
    for wanted, content, start in (
        (f"{len(HEAD) - 7}-{SIZE}", HEAD[-7:], len(HEAD) - 7),
        (f"{len(HEAD)}-", PIECE, BEHIND),
        (f"{BEHIND - 1}-{BEHIND + 2}", PIECE[:3], BEHIND),
        ("-700000", PIECE, BEHIND),
    ):
        answer = part(api, alice, run, wanted)
        assert (answer.status_code, answer.content) == (206, content), wanted
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(content) - 1}/{SIZE}"
        assert answer.headers["x-argus-log-gap"] == gap
    gone = part(api, alice, run, f"{len(HEAD)}-{BEHIND - 1}")
    check_problem(gone, 416, "range_not_satisfiable")
    assert gone.headers["x-argus-log-gap"] == gap and gone.headers["content-range"] == f"bytes */{SIZE}"


def test_all_of_a_log_can_be_read_part_by_part(tmp_path: Path) -> None:
    api = make_api(tmp_path, settings={"limits": {"log_tail_bytes": 1024}})
    alice = api.user("alice")
    change = api.run(api.submit(alice))
    log_of(change).write_bytes(HEAD[:10_000])
    seen = b""
    while (answer := part(api, alice, change, f"{len(seen)}-")).status_code == 206:
        assert len(answer.content) <= 1024
        seen += answer.content
    assert seen == HEAD[:10_000]
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10000"
    assert part(api, alice, change, "-5000").content == HEAD[10_000 - 1024 : 10_000], "the last ones of the last"
    api.world.close()


def test_what_is_no_range_is_passed_over(api: Api, alice: Headers, run: Admit) -> None:
    for wanted in ("5-2", "x", "0-1,3-4", ""):
        answer = part(api, alice, run, wanted, "?tail=1")
        assert (answer.status_code, answer.text) == (200, "the end, \ufffd or not\n"), wanted
    head = api.client.head(url_of(run), headers={**alice, "Range": "bytes=0-1"})
    assert head.status_code == 200 and head.content == b""


def test_a_task_without_a_log(api: Api, alice: Headers) -> None:
    task = api.submit(alice)
    base = f"/api/v2/tasks/{task}/logs"
    for is_running in (False, True):
        refused = api.client.get(base, headers={**alice, "Range": "bytes=0-"})
        check_problem(refused, 416, "range_not_satisfiable")
        assert refused.headers["content-range"] == "bytes */0"
        assert ("x-argus-attempt" in refused.headers) == is_running
        check_problem(api.client.get(f"{base}/download", headers=alice), 404, "log_not_found")
        found = api.get(f"{base}/search?q=x", alice)
        assert found == {
            "task_id": task, "attempt": 1 if is_running else None, "matches": [], "complete": True, "next": None,
            "size": 0, "gap": None,
        }  # fmt: skip
        if not is_running:
            api.run(task)
    for path in ("/download?attempt=2", "/search?q=x&attempt=2"):
        check_problem(api.client.get(base + path, headers=alice), 404, "log_not_found")
    ranged = {**alice, "Range": "bytes=0-"}
    check_problem(api.client.get(f"{base}?attempt=2", headers=ranged), 404, "log_not_found")


def test_a_log_is_downloaded_whole_and_gone_on_with(api: Api, alice: Headers, run: Admit) -> None:
    url = url_of(run) + "/download"
    line = b"argus: %d bytes of the log are left out here\n" % (BEHIND - len(HEAD))
    whole = HEAD + line + PIECE
    answer = api.client.get(url, headers=alice)
    assert (answer.status_code, answer.content) == (200, whole)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{run.submission_id}.log"')
    assert answer.headers["x-argus-task-state"] == "RUNNING" and answer.headers["content-length"] == str(len(whole))
    with log_of(run).with_name(f"driver.log.{BEHIND:015d}").open("ab") as log:
        log.write(b"more\n")
    tag = answer.headers["etag"]
    rest = api.client.get(url, headers={**alice, "Range": "bytes=350000-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, (whole + b"more\n")[350_000:])
    refused = api.client.get(url, headers={**alice, "Range": f"bytes={len(whole) + 5}-"})
    check_problem(refused, 416, "range_not_satisfiable")
    log_of(run).with_name(f"driver.log.{BEHIND:015d}").rename(log_of(run).with_name(f"driver.log.{BEHIND + 9:015d}"))
    anew = api.client.get(url, headers={**alice, "Range": "bytes=350000-", "If-Range": tag})
    assert anew.status_code == 200 and anew.headers["etag"] != tag
    assert api.app.fastapi.state.gateway.downloads.limit.open == 0


def test_a_search_tells_where_and_goes_on(api: Api, alice: Headers, run: Admit) -> None:
    base = url_of(run) + "/search"
    found = api.get(f"{base}?q=00004", alice)
    assert found["attempt"] == 1 and found["complete"] and found["next"] is None and found["size"] == SIZE
    assert found["gap"] == {"from": len(HEAD), "to": BEHIND}
    assert [match["text"] for match in found["matches"]] == ["000004", *(f"00004{n}" for n in range(10))]
    assert found["matches"][1] == {
        "offset": 280, "length": 5, "line_start": 280, "text": "000040", "start": 0, "end": 5, "truncated": False
    }  # fmt: skip
    pages, start = [], ""
    while True:
        page = api.get(f"{base}?q=00004&limit=2&direction=backward{start}", alice)
        pages += page["matches"]
        if page["complete"]:
            break
        start = f"&from={page['next']}"
    assert pages == found["matches"][::-1]
    last = api.get(f"{base}?q=END, . OR&regex=true&case=false", alice)["matches"]
    assert last == [], "what is no UTF-8 is no character"
    (last,) = api.get(f"{base}?q=THE%20END&case=false&from=500000", alice)["matches"]
    assert last["text"] == "the end, \ufffd or not" and last["offset"] == BEHIND


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "q"), ("q=", "q"), ("q=" + "x" * 257, "q"), ("q=%28&regex=true", "q"), ("q=x*&regex=true", "q"),
        ("q=%5CpL%7B200%7D&regex=true", "q"), ("q=a%0Ab", "q"), ("q=x&from=-1", "from"), ("q=x&from=x", "from"),
        ("q=x&limit=501", "limit"), ("q=x&direction=up", "direction"), ("q=x&regex=perhaps", "regex"),
        ("q=x&start=1", "start"), ("q=x&attempt=0", "attempt"),
    ],
)  # fmt: skip
def test_a_search_that_breaks_a_rule(api: Api, alice: Headers, run: Admit, query: str, field: str) -> None:
    found = check_problem(api.client.get(f"{url_of(run)}/search?{query}", headers=alice), 400, "invalid_request")
    assert [error["field"] for error in found["errors"]] == [field]


def test_an_expression_that_takes_too_long_is_refused(
    api: Api, alice: Headers, run: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Searches, "budget", lambda _: log_search.Budget(window_s=-1.0))
    found = check_problem(api.client.get(f"{url_of(run)}/search?q=0", headers=alice), 400, "invalid_request")
    assert "too long" in found["errors"][0]["rule"]


def test_nothing_of_another_users_log(api: Api, run: Admit) -> None:
    bob = api.user("bob")
    for path in ("/download", "/search?q=0"):
        check_problem(api.client.get(url_of(run) + path, headers=bob), 404, "task_not_found")
    check_problem(part(api, bob, run, "0-5"), 404, "task_not_found")


@pytest.mark.parametrize("where", [FilesAt.LEAVING, FilesAt.TRASH, FilesAt.DELETED])
def test_a_log_that_has_left_is_said_to_have(api: Api, alice: Headers, run: Admit, where: FilesAt) -> None:
    api.end(run)
    for file in log_of(run).parent.iterdir():
        file.unlink()
    task = run.submission_id.partition("--")[0]
    trashed_at = None if where is FilesAt.LEAVING else 1.0
    with api.world.store.transaction() as db:
        db.execute("UPDATE tasks SET files_at = ?, trashed_at = ? WHERE task_id = ?", (where.value, trashed_at, task))
    for path in ("/download", "/search?q=0"):
        check_problem(api.client.get(url_of(run) + path, headers=alice), 410, "files_gone")
    check_problem(part(api, alice, run, "0-5"), 410, "files_gone")


def test_a_log_that_is_a_link_is_not_read(api: Api, alice: Headers, tmp_path: Path) -> None:
    change = api.run(api.submit(alice))
    (tmp_path / "secret").write_text("SECRET")
    log_of(change).symlink_to(tmp_path / "secret")
    for path in ("/download", "/search?q=SECRET"):
        check_problem(api.client.get(url_of(change) + path, headers=alice), 404, "log_not_found")
    check_problem(part(api, alice, change, "0-5"), 404, "log_not_found")


def test_searches_of_one_user_leave_threads_for_others(
    api: Api, alice: Headers, run: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them hangs, and another user's search and everybody's logs are answered."""
    goes_on, begun = threading.Event(), threading.Semaphore(0)
    real = log_search.search

    def hangs(root: str, *args: Any) -> Any:
        if root == run.job_root:
            begun.release()
            assert goes_on.wait(60)
        return real(root, *args)

    monkeypatch.setattr(log_search, "search", hangs)
    bob = api.user("bob")
    other = api.run(api.submit(bob))
    log_of(other).write_text("needle\n")

    async def scenario() -> None:
        calls = [
            asyncio.create_task(asyncio.to_thread(api.client.get, f"{url_of(run)}/search?q=0", headers=alice))
            for _ in range(4)
        ]
        assert await asyncio.to_thread(begun.acquire, timeout=30)
        assert len((await asyncio.to_thread(api.get, f"{url_of(other)}/search?q=needle", bob))["matches"]) == 1
        tail = await asyncio.to_thread(api.client.get, f"{url_of(run)}?tail=1", headers=alice)
        assert tail.status_code == 200
        assert not begun.acquire(blocking=False), "one of hers at a time"
        goes_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200] * 4

    try:
        asyncio.run(scenario())
    finally:
        goes_on.set()
