"""What the console costs a browser, beside an empty page of the same Chromium: 10,000 tasks listed and scrolled, a log
of 1 GiB opened at its end, searched and scrolled, four curves of 2,000 points that grow, and the heap after it all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks import report
from tests.support.gateway import log_of, metrics_of
from tests.support.showroom import Showroom, showroom

_TASKS = 10_000
_LOG_BYTES = 1 << 30
_CURVES = ("actor/pg_loss", "actor/entropy", "actor/grad_norm", "critic/score/mean")
_POINTS = 2_000
_PATIENCE_MS = 60_000.0
#: Frames from now on, and how long each took; read and ended by `_frames`.
_WATCH = """() => {
  const at = [];
  const look = (now) => { at.push(now); window.argusFrames = requestAnimationFrame(look); };
  window.argusFrames = requestAnimationFrame(look);
  window.argusTimes = at;
}"""
_READ = """() => {
  cancelAnimationFrame(window.argusFrames);
  const at = window.argusTimes;
  return at.slice(1).map((time, index) => time - at[index]);
}"""


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="how long curves grow and the list is scrolled before the heap is read",
    )
    options = parser.parse_args(argv)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium (apt install chromium)")
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(report.recorded("console", options))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        room = stack.enter_context(showroom(folder, settings={"limits": {"waiting_tasks_per_user": _TASKS}}))
        with sync_playwright() as started:
            long_run, big_log = _fill(room)
            browser = started.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--enable-precise-memory-info"]
            )
            page = browser.new_page(viewport={"width": 1360, "height": 850})
            page.set_default_timeout(_PATIENCE_MS)
            expect.set_options(timeout=_PATIENCE_MS)
            found.figure("a frame of an empty page, p95", "ms", _p95(_scrolled(page, f"{room.url}/healthz", 40)))
            page.goto(room.url)
            page.get_by_label("Token").fill(room.token("alice"))
            page.get_by_role("button", name="Sign in").click()
            row = page.get_by_role("grid", name="Tasks").get_by_role("row").first
            expect(row).to_be_visible()
            firsts = []
            for _ in range(options.rounds):
                began = time.monotonic()
                page.reload(wait_until="commit")
                row.wait_for()
                firsts.append((time.monotonic() - began) * 1000)
            found.figure(f"first rows of {_TASKS:,} tasks after a load", "ms", firsts, "< 1000")
            page.get_by_role("grid", name="Tasks").hover()
            found.figure(f"a frame while {_TASKS:,} tasks are scrolled, p95", "ms", _p95(_wheel(page, 300)), "< 33")
            _log(page, room, big_log, found)
            _curves(page, room, long_run, found, options.seconds)
            heap = page.evaluate("() => performance.memory.usedJSHeapSize")
            found.figure(
                f"heap after all this and {options.seconds:.0f} s of growing curves", "MB", heap / 1e6, "< 100"
            )
            browser.close()
    return 0


def _fill(room: Showroom) -> tuple[str, str]:
    for half in (1, 2):
        for _ in range(_TASKS // 2):
            room.submit("alice", "sft")
        if half == 1:
            _cancel_all(room)
    long_run, big_log = room.submit("alice", "grpo"), room.submit("alice", "sft")
    run = room.start(long_run)
    with metrics_of(run.admit).open("a") as file:
        for step in range(1, _POINTS + 1):
            file.write(_line(step))
    run.step = _POINTS
    log = log_of(room.start(big_log).admit)
    block = b"".join(
        b"%012d step:%d - train/loss:0.%04d - it goes on and on\n" % (n, n, n % 9999) for n in range(20_000)
    )
    with log.open("wb") as file:
        while file.tell() < _LOG_BYTES:
            file.write(block)
        file.write(b"this is the last line of all\n")
    return long_run, big_log


def _cancel_all(room: Showroom) -> None:
    more = True
    while more:
        body = {"filter": {"workload": ["sft"]}}
        more = room.api.client.post("/api/v2/tasks:cancel", json=body, headers=room.headers("alice")).json()["more"]


def _line(step: int) -> str:
    return json.dumps({"step": step, "data": dict.fromkeys(_CURVES, step * 7919 % 997 / 997)}) + "\n"


def _scrolled(page: Page, url: str, times: int) -> list[float]:
    page.goto(url)
    return _wheel(page, times)


def _wheel(page: Page, times: int) -> list[float]:
    """Milliseconds of each frame while the wheel turns."""
    page.evaluate(_WATCH)
    for _ in range(times):
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(16)
    frames: list[float] = page.evaluate(_READ)
    return frames


def _p95(frames: list[float]) -> float:
    return sorted(frames)[int(len(frames) * 0.95)]


def _log(page: Page, room: Showroom, task_id: str, found: report.Report) -> None:
    page.goto(f"{room.url}/#/task/{task_id}")
    tab = page.get_by_role("link", name="Log", exact=True)
    tab.wait_for()
    began = time.monotonic()
    tab.click()
    page.get_by_text("this is the last line of all").wait_for()
    found.figure("a log of 1 GiB opened at its end", "ms", (time.monotonic() - began) * 1000, "< 1000")
    page.get_by_text("this is the last line of all").hover()
    page.evaluate(_WATCH)
    for _ in range(200):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(16)
    found.figure("a frame while it is scrolled upwards, p95", "ms", _p95(page.evaluate(_READ)), "< 33")


def _curves(page: Page, room: Showroom, task_id: str, found: report.Report, seconds: float) -> None:
    page.goto(f"{room.url}/#/task/{task_id}/curves")
    for name in _CURVES:
        page.get_by_role("figure", name=name, exact=True).wait_for()
    run = room.running[task_id]
    page.evaluate(_WATCH)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with metrics_of(run.admit).open("a") as file:
            for _ in range(10):
                run.step += 1
                file.write(_line(run.step))
        page.wait_for_timeout(250)
    found.figure(f"a frame while four curves of {_POINTS:,} points grow, p95", "ms", _p95(page.evaluate(_READ)), "< 33")
