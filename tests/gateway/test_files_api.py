"""The files of a job root over HTTP: folders by pages, downloads in parts, and what is never given."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from argus_ray.core.errors import StaleWriter, Unauthenticated
from argus_ray.core.lifecycle import Admit
from argus_ray.core.model import FilesAt
from argus_ray.core.states import Outcome
from argus_ray.disk.job_files import Opening
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.files.download import DownloadLimit, Downloads, parts
from argus_ray.gateway.files.ranges import Span
from argus_ray.gateway.logs.event_stream import Broken
from tests.gateway.test_errors import check_problem
from tests.support.gateway import ADMIN, Api, Headers, TestClient, log_of

BODY = bytes(range(256)) * 4096


@pytest.fixture
def run(api: Api, alice: Headers) -> Admit:
    """Of an attempt that runs, with a file of a MiB."""
    change = api.run(api.submit(alice))
    log_of(change).write_text("a line\n")
    root = Path(change.job_root)
    (root / "checkpoints" / "global_step_5").mkdir(parents=True)
    (root / "checkpoints" / "global_step_5" / "model.pt").write_bytes(BODY)
    (root / "empty").touch()
    return change


def base_of(change: Admit) -> str:
    return f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/files"


MODEL = "checkpoints/global_step_5/model.pt"


def test_folders_are_listed(api: Api, alice: Headers, run: Admit) -> None:
    root = api.get(base_of(run), alice)
    assert [(entry["name"], entry["kind"], entry["size"]) for entry in root["entries"]] == [
        ("checkpoints", "folder", None), ("empty", "file", 0), ("logs", "folder", None),
    ]  # fmt: skip
    assert (root["attempt"], root["next_cursor"], root["complete"]) == (1, None, True)
    for path in ("checkpoints/global_step_5", "checkpoints/global_step_5/"):
        below = api.get(f"{base_of(run)}?path={path}", alice)
        (entry,) = below["entries"]
        assert (entry["name"], entry["path"], entry["size"]) == ("model.pt", MODEL, len(BODY))
        assert entry["modified_at"].endswith("Z")
    assert api.get(f"{base_of(run)}?path=", ADMIN) == root


def test_pages(api: Api, alice: Headers, run: Admit) -> None:
    odd = b"\xff odd\xc3"
    for name in (b"a", b"b", "ä".encode(), odd):
        Path(os.fsdecode(run.job_root.encode() + b"/" + name)).touch()
    seen, paths, cursor = [], [], ""
    while cursor is not None:
        page = api.get(f"{base_of(run)}?limit=2&cursor={cursor}", alice)
        seen += [entry["name"] for entry in page["entries"]]
        paths += [entry["path"] for entry in page["entries"]]
        cursor = page["next_cursor"]
    assert seen == ["a", "b", "checkpoints", "empty", "logs", "ä", "\ufffd odd\ufffd"]
    assert paths[-2:] == ["%C3%A4", "%FF%20odd%C3"]
    assert api.client.get(f"{base_of(run)}/{paths[-1]}", headers=alice).status_code == 200, "what is listed can be had"
    for bad in ("x", "eA", "Zm8=", "Zm9", "%00", "é"):
        found = check_problem(api.client.get(f"{base_of(run)}?cursor={bad}", headers=alice), 400, "invalid_request")
        assert found["errors"][0]["field"] == "cursor"


def test_a_folder_whose_name_is_not_utf8_can_be_listed(api: Api, alice: Headers, run: Admit) -> None:
    folder = Path(os.fsdecode(run.job_root.encode() + b"/\xff+ %"))
    folder.mkdir()
    (folder / "x").write_text("x")
    (entry,) = [each for each in api.get(base_of(run), alice)["entries"] if "\ufffd" in each["name"]]
    (below,) = api.get(f"{base_of(run)}?path={entry['path']}", alice)["entries"]
    assert below["path"] == "%FF%2B%20%25/x"
    assert api.client.get(f"{base_of(run)}/{below['path']}", headers=alice).content == b"x"


def test_a_file_is_given_to_be_saved_and_never_to_be_shown(api: Api, alice: Headers, run: Admit) -> None:
    path = Path(run.job_root) / "evil.html"
    path.write_text("<script>alert(1)</script>")
    for who in (alice, ADMIN):
        answer = api.client.get(f"{base_of(run)}/evil.html", headers=who)
        assert (answer.status_code, answer.text) == (200, path.read_text())
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith('attachment; filename="evil.html"')
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["accept-ranges"] == "bytes" and answer.headers["x-argus-attempt"] == "1"
        assert answer.headers["cache-control"] == "no-store"


def test_whole_files_and_parts(api: Api, alice: Headers, run: Admit) -> None:
    url = f"{base_of(run)}/{MODEL}"
    whole = api.client.get(url, headers=alice)
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, BODY, str(len(BODY)))
    tag = whole.headers["etag"]
    for value, span in (("0-9", slice(0, 10)), ("1000000-", slice(1_000_000, None)), ("-5", slice(-5, None))):
        for if_range in ({}, {"If-Range": tag}):
            part = api.client.get(url, headers={**alice, "Range": f"bytes={value}", **if_range})
            assert (part.status_code, part.content) == (206, BODY[span])
            start = span.indices(len(BODY))[0]
            assert part.headers["content-range"] == f"bytes {start}-{start + len(part.content) - 1}/{len(BODY)}"
            assert part.headers["etag"] == tag and part.headers["content-length"] == str(len(part.content))
    refused = api.client.get(url, headers={**alice, "Range": f"bytes={len(BODY)}-"})
    check_problem(refused, 416, "range_not_satisfiable")
    assert refused.headers["content-range"] == f"bytes */{len(BODY)}"
    head = api.client.head(url, headers={**alice, "Range": "bytes=0-9"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))
    assert api.client.get(f"{base_of(run)}/empty", headers=alice).content == b""
    check_problem(
        api.client.get(f"{base_of(run)}/empty", headers={**alice, "Range": "bytes=0-"}), 416, "range_not_satisfiable"
    )
    assert app_downloads(api).limit.open == 0


def app_downloads(api: Api) -> Downloads:
    found: Downloads = api.app.fastapi.state.gateway.downloads
    return found


def test_a_file_that_has_changed_is_sent_anew(api: Api, alice: Headers, run: Admit) -> None:
    url, path = f"{base_of(run)}/{MODEL}", Path(run.job_root) / MODEL
    tag = api.client.get(url, headers=alice).headers["etag"]
    with path.open("ab") as more:
        more.write(b"more")
    resumed = {**alice, "Range": "bytes=100-", "If-Range": tag}
    answer = api.client.get(url, headers=resumed)
    assert (answer.status_code, len(answer.content)) == (200, len(BODY) + 4) and answer.headers["etag"] != tag


def test_attempts_are_chosen_by_number(api: Api, alice: Headers, run: Admit) -> None:
    task = run.submission_id.partition("--")[0]
    api.end(run, Outcome.INFRASTRUCTURE, None)
    second = api.run(task)
    for path in ("", "?attempt=2", "?attempt=latest"):
        assert api.get(base_of(run) + path, alice)["entries"] == [], "its run has not begun"
    log_of(second).write_text("other\n")
    assert api.client.get(f"{base_of(run)}/logs/driver.log", headers=alice).text == "other\n"
    assert api.client.get(f"{base_of(run)}/logs/driver.log?attempt=1", headers=alice).text == "a line\n"
    assert api.get(f"{base_of(run)}?attempt=1", alice)["attempt"] == 1
    for path in ("?attempt=3", "/logs/driver.log?attempt=3", f"/{MODEL}", "?path=checkpoints"):
        check_problem(api.client.get(base_of(run) + path, headers=alice), 404, "file_not_found")
    for path in ("?attempt=0", "/x?attempt=x", "?limit=501", "/x?limit=1", "?nonsense=1"):
        check_problem(api.client.get(base_of(run) + path, headers=alice), 400, "invalid_request")


def test_a_task_without_an_attempt_has_no_files(api: Api, alice: Headers) -> None:
    base = f"/api/v2/tasks/{api.submit(alice)}/files"
    assert api.get(base, alice)["entries"] == [] and api.get(base, alice)["attempt"] is None
    for path in ("/x", "?path=x"):
        check_problem(api.client.get(base + path, headers=alice), 404, "file_not_found")


def test_a_folder_is_no_file_and_a_file_no_folder(api: Api, alice: Headers, run: Admit) -> None:
    found = check_problem(api.client.get(f"{base_of(run)}/checkpoints", headers=alice), 404, "file_not_found")
    assert "?path=" in found["detail"]
    check_problem(api.client.get(f"{base_of(run)}?path=empty", headers=alice), 404, "file_not_found")


@pytest.mark.parametrize(
    ("where", "words"),
    [(FilesAt.LEAVING, "on their way"), (FilesAt.TRASH, "in the trash"), (FilesAt.DELETED, "deleted")],
)
def test_files_that_have_left_are_said_to_have(
    api: Api, alice: Headers, run: Admit, where: FilesAt, words: str
) -> None:
    task = run.submission_id.partition("--")[0]
    api.end(run)
    trashed_at = None if where is FilesAt.LEAVING else 1.0
    with api.world.store.transaction() as db:
        db.execute("UPDATE tasks SET files_at = ?, trashed_at = ? WHERE task_id = ?", (where.value, trashed_at, task))
    for path in ("/files", f"/files/{MODEL}", "/rollouts", "/rollouts?step=1"):
        found = check_problem(api.client.get(f"/api/v2/tasks/{task}{path}", headers=alice), 410, "files_gone")
        assert words in found["detail"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_does_not_answer_is_no_missing_file(
    api: Api, alice: Headers, run: Admit, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open

    def fails(name: Any, *args: Any, **options: Any) -> int:
        if str(name) in ("model.pt", "checkpoints"):
            raise OSError(number, os.strerror(number), name)
        return really(name, *args, **options)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fails)
        for path in (f"/{MODEL}", "?path=checkpoints"):
            check_problem(api.client.get(base_of(run) + path, headers=alice), 503, "unavailable")
    assert api.client.get(f"{base_of(run)}/{MODEL}", headers=alice).content == BODY
    assert app_downloads(api).limit.open == 0


def test_a_disk_that_hangs_is_an_error_and_holds_no_place(
    api: Api, alice: Headers, run: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    really = os.open

    def hangs(name: Any, *args: Any, **options: Any) -> int:
        if str(name) == "model.pt":
            assert goes_on.wait(60)
        return really(name, *args, **options)

    downloads = Downloads(timeout_s=0.1, threads=BoundedThreads("argus-test", 1))
    app = api.make_app(downloads=downloads)
    with TestClient(app) as client, monkeypatch.context() as broken:
        broken.setattr(os, "open", hangs)
        for _ in range(20):
            check_problem(client.get(f"{base_of(run)}/{MODEL}", headers=alice), 503, "unavailable")
        hung = [thread for thread in threading.enumerate() if thread.name.startswith("argus-test")]
        assert len(hung) <= 9, "one at work, and eight generations"
        goes_on.set()
    assert downloads.limit.open == 0


def test_downloads_are_bounded(api: Api, alice: Headers, run: Admit) -> None:
    downloads = Downloads(limit=DownloadLimit(total=3, per_caller=2))
    app = api.make_app(downloads=downloads)
    places = [downloads.limit.acquire("user/alice") for _ in range(2)]
    with TestClient(app) as client:
        url = f"{base_of(run)}/{MODEL}"
        refused = client.get(url, headers=alice)
        assert "downloads" in check_problem(refused, 503, "unavailable")["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert client.get(url, headers=ADMIN).status_code == 200
        places.append(downloads.limit.acquire("user/bob"))
        assert client.get(url, headers=ADMIN).status_code == 503
        assert client.get(base_of(run), headers=alice).status_code == 200, "a list is none"
        places.pop()()
        places.pop()()
        assert client.get(url, headers=alice).content == BODY


async def read_all(downloads: Downloads, run: Admit, check: Any) -> int:
    file = Opening(run.job_root, MODEL.split("/")).open()
    try:
        return sum([len(part) async for part in parts(downloads, file, Span(0, file.size), check)])
    finally:
        file.close()


@pytest.mark.parametrize("error", [None, StaleWriter(), Unauthenticated()])
def test_the_right_to_read_is_asked_for_on_the_way(run: Admit, error: Exception | None) -> None:
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        if error is not None:
            raise error

    async def scenario() -> None:
        downloads = Downloads(check_s=-1.0)
        if isinstance(error, Unauthenticated):
            with pytest.raises(Broken):
                await read_all(downloads, run, check)
            assert asked == 1
        else:
            assert await read_all(downloads, run, check) == len(BODY)
            assert asked == 4

    asyncio.run(scenario())


def test_a_file_that_is_cut_short_on_the_way_breaks_the_answer(run: Admit) -> None:
    async def check() -> None:
        os.truncate(Path(run.job_root) / MODEL, 300_000)

    with pytest.raises(Broken, match="changed"):
        asyncio.run(read_all(Downloads(check_s=-1.0), run, check))


def test_where_the_server_waits_any_number_of_bytes_may_go_unseen() -> None:
    assert Downloads.of_server(send_waits=False).flow.unseen == Downloads().flow.unseen < 1 << 30
    assert Downloads.of_server(send_waits=True).flow.unseen > 1 << 50
    waits = Downloads.of_server(send_waits=True).flow
    assert replace(waits, unseen=Downloads().flow.unseen) == Downloads().flow


def test_a_path_in_a_url_is_that_of_the_bytes_that_were_sent(api: Api, alice: Headers, run: Admit) -> None:
    folder = Path(run.job_root) / "files"
    folder.mkdir()
    (folder / "a b+%").write_text("x")
    assert api.client.get(f"{base_of(run)}/files/{quote('a b+%')}", headers=alice).text == "x"
