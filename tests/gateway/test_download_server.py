"""Downloads through a real server: by curl and wget, which resume them, and by a client that does not read."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core.lifecycle import Admit
from argus_ray.disk.job_files import JobFile
from argus_ray.gateway.files.download import Downloads
from argus_ray.node.processes import wait_until
from tests.gateway.test_stream_server import DEADLINE_S, Unseen, open_unread, served
from tests.support.descriptors import open_below
from tests.support.gateway import Api, Headers

MIB = 1024 * 1024
BODY = os.urandom(MIB) * 12
#: The status of the answer and the bytes that came with it.
_TOLD = "%{http_code} %{size_download}"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_wget = pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")


def no_piece_before(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set nobody has a piece; so those that came first cannot be given up before the last one has come."""
    goes_on, read = threading.Event(), JobFile.read

    def waits(self: JobFile, offset: int, length: int) -> bytes:
        assert goes_on.wait(DEADLINE_S)
        return read(self, offset, length)

    monkeypatch.setattr(JobFile, "read", waits)
    return goes_on


@pytest.fixture
def run(api: Api, alice: Headers) -> Admit:
    change = api.run(api.submit(alice))
    Path(change.job_root).mkdir(parents=True)
    (Path(change.job_root) / "model.pt").write_bytes(BODY)
    return change


@pytest.fixture
def url(api: Api, run: Admit) -> Iterator[str]:
    with served(api.app) as port:
        yield f"http://127.0.0.1:{port}/api/v2/tasks/{run.submission_id.partition('--')[0]}/files/model.pt"


def curl(who: Headers, url: str, *more: str, folder: Path, status: int = 0) -> str:
    argv = ["curl", "-sS", "-H", f"Authorization: {who['Authorization']}", "-w", _TOLD, *more, url]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


@needs_curl
def test_curl_resumes(alice: Headers, url: str, tmp_path: Path) -> None:
    assert curl(alice, url, "-OJ", folder=tmp_path) == f"200 {len(BODY)}", "under the name that we say"
    part = tmp_path / "model.pt"
    assert part.read_bytes() == BODY
    for have in (5 * MIB + 17, len(BODY) - 1):
        os.truncate(part, have)
        assert curl(alice, url, "-C", "-", "-O", folder=tmp_path) == f"206 {len(BODY) - have}"
        assert part.read_bytes() == BODY
    # All is there: it is told so by a 416, which curl takes for what it is.
    assert curl(alice, url, "-C", "-", "-O", folder=tmp_path).startswith("416 ")
    assert part.read_bytes() == BODY


@needs_curl
def test_curl_notices_a_file_that_has_changed_by_its_etag(alice: Headers, url: str, tmp_path: Path, run: Admit) -> None:
    head = curl(alice, url, "-I", folder=tmp_path)
    (tag,) = re.findall(r'(?im)^etag: ("\w+")', head)
    assert re.findall(r"(?im)^content-length: (\d+)", head) == [str(len(BODY))]
    part = tmp_path / "model.pt"
    part.write_bytes(BODY[:MIB])
    same = ("-H", f"If-Range: {tag}")
    assert curl(alice, url, "-C", "-", "-O", *same, folder=tmp_path) == f"206 {len(BODY) - MIB}"
    (Path(run.job_root) / "model.pt").write_bytes(b"another one" * MIB)
    os.truncate(part, MIB)
    # A 200 to a call for a range: curl spoils nothing, and says that it cannot resume.
    curl(alice, url, "-C", "-", "-O", *same, folder=tmp_path, status=33)
    assert part.read_bytes() == BODY[:MIB]


@needs_wget
def test_wget_resumes(alice: Headers, url: str, tmp_path: Path) -> None:
    argv = ["wget", "-q", "-c", "--header", f"Authorization: {alice['Authorization']}", url]
    part = tmp_path / "model.pt"
    part.write_bytes(BODY[: 7 * MIB])
    for _ in range(2):  # the second one finds it whole
        subprocess.run(argv, cwd=tmp_path, check=True, timeout=60)
        assert part.read_bytes() == BODY


@needs_curl
def test_an_encoded_slash_and_a_way_up_are_refused_as_they_were_sent(
    alice: Headers, url: str, tmp_path: Path, run: Admit
) -> None:
    base = url.removesuffix("/model.pt")
    (Path(run.job_root) / "a").mkdir()
    (Path(run.job_root) / "a" / "b").touch()
    for path, status in {
        "a/b": 200, "a%2Fb": 400, "a%2fb": 400, "..%2f..%2fetc": 400, "%2Fetc%2Fpasswd": 400, "/etc/passwd": 400,
        "../../../../etc/passwd": 400, "%2e%2e/x": 400, "a/%2e%2e/model.pt": 400, "./model.pt": 400, "a//b": 400,
        "a%5C..%5Cb": 404, "model.pt%00": 400, "model.pt%0a": 400, "": 404, "%ff": 404, "%": 404, "%zz": 404,
    }.items():  # fmt: skip
        told = curl(alice, f"{base}/{path}", "--path-as-is", "-o", "answer", folder=tmp_path)
        assert told.startswith(f"{status} "), (path, told)


def test_an_answer_that_cannot_be_made_whole_is_broken_off(api: Api, alice: Headers, run: Admit) -> None:
    downloads = Downloads(check_s=-1.0)
    app = api.make_app(downloads=downloads)
    path = f"/api/v2/tasks/{run.submission_id.partition('--')[0]}/files/model.pt"
    with served(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        connection.request("GET", path, headers=alice)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["content-length"] == str(len(BODY))
        answer.read(MIB)
        os.truncate(Path(run.job_root) / "model.pt", 2 * MIB)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        connection.close()
        assert wait_until(lambda: downloads.limit.open == 0, DEADLINE_S, 0.01)


@pytest.mark.parametrize("is_seen", [False, True], ids=["by the server alone", "with the kernel's queue"])
def test_a_client_that_does_not_read_stops_the_reading_of_its_file(
    api: Api, alice: Headers, run: Admit, pieces: list[int], is_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(Path(run.job_root) / "model.pt", 10 << 30)  # sparse
    downloads = Downloads.of_server(send_waits=True)
    downloads.flow = replace(downloads.flow, burst=1 << 40, rate=1 << 40, stall_s=5.0)
    if not is_seen:
        downloads.send_queues = Unseen()  # type: ignore[assignment]
    app = api.make_app(downloads=downloads)
    path = f"/api/v2/tasks/{run.submission_id.partition('--')[0]}/files/model.pt"
    all_have_come = no_piece_before(monkeypatch)
    before = resident()
    with served(app) as port, contextlib.ExitStack() as clients:
        for _ in range(4):
            clients.enter_context(open_unread(port, path, alice["Authorization"]))
        assert downloads.limit.open == 4
        refused = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        refused.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {alice['Authorization']}\r\n\r\n".encode())
        assert refused.recv(12) == b"HTTP/1.1 503"
        refused.close()
        all_have_come.set()
        assert wait_until(lambda: downloads.limit.open == 0, DEADLINE_S, 0.05), "they are given up"
        assert resident() - before < 32 * MIB
    # The kernel's buffers, uvicorn's, and the piece in hand.
    assert sum(pieces) < 4 * 8 * MIB


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_leaves_gives_its_place_back_at_once(api: Api, alice: Headers, run: Admit) -> None:
    os.truncate(Path(run.job_root) / "model.pt", 1 << 30)
    downloads = Downloads()
    path = f"/api/v2/tasks/{run.submission_id.partition('--')[0]}/files/model.pt"
    with served(api.make_app(downloads=downloads)) as port:
        client = open_unread(port, path, alice["Authorization"])
        assert downloads.limit.open == 1
        begun = time.monotonic()
        client.close()
        assert wait_until(lambda: downloads.limit.open == 0, DEADLINE_S, 0.01)
        assert time.monotonic() - begun < downloads.flow.stall_s / 2
        assert wait_until(lambda: not open_below(Path(run.job_root)), DEADLINE_S, 0.01), "its file is closed"
