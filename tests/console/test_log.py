"""A task's log in a browser: a window of it that follows, is searched and scrolled, and that nothing in it can harm."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from argus_ray.core.states import Outcome
from tests.console.conftest import Visit
from tests.support.gateway import log_of, metrics_of
from tests.support.log_memory import make_sparse
from tests.support.showroom import Run, Showroom

#: Pixels of a row, and rows that may be held.
ROW, MOST_ROWS = 18, 50_000
GIB = 1 << 30


@pytest.fixture
def run(room: Showroom) -> Run:
    """Of a task of alice that runs, and has logged nothing."""
    task_id = room.submit("alice", "sft")
    return room.start(task_id)


def place_of(run: Run, tab: str = "/log") -> str:
    return f"task/{run.admit.submission_id.partition('--')[0]}{tab}"


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Log", exact=True)


def top(page: Page) -> float:
    return float(rows(page).evaluate("(element) => element.scrollTop"))


def test_it_says_that_there_is_no_log_yet_and_shows_it_when_there_is(visit: Visit, room: Showroom) -> None:
    task_id = room.submit("alice", "sft")
    page = visit("alice", f"task/{task_id}/log")
    expect(page.get_by_text("There is no log yet: the task waits.")).to_be_visible()
    run = room.start(task_id)
    expect(page.get_by_text("its program has not said anything")).to_be_visible()
    run.say("the first words\n")
    expect(rows(page)).to_contain_text("the first words")
    room.end(task_id)


def test_it_follows_at_its_end_and_stays_put_when_scrolled_up(visit: Visit, run: Run) -> None:
    run.say("".join(f"line {number:05d}\n" for number in range(400)))
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("line 00399")).to_be_in_viewport()
    run.say("line 00400\n")
    expect(rows(page).get_by_text("line 00400")).to_be_in_viewport()
    rows(page).hover()
    page.mouse.wheel(0, -2000)
    expect(page.get_by_role("button", name="To the end")).to_be_visible()
    before = top(page)
    run.say("".join(f"line {number:05d}\n" for number in range(401, 404)))
    expect(page.get_by_role("button", name="3 new lines")).to_be_visible()
    assert top(page) == before
    page.get_by_role("button", name="3 new lines").click()
    expect(rows(page).get_by_text("line 00403")).to_be_in_viewport()
    run.say("line 00404\n")
    expect(rows(page).get_by_text("line 00404")).to_be_in_viewport()


def test_the_last_words_of_a_run_that_ended_while_the_tab_was_hidden_are_there(
    visit: Visit, run: Run, room: Showroom
) -> None:
    run.say("it begins\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("it begins")
    become(page, "hidden")
    run.say("Traceback: the last words\n")
    room.end(run.admit.submission_id.partition("--")[0], Outcome.APPLICATION, 1, "it failed")
    become(page, "visible")
    expect(rows(page)).to_contain_text("Traceback: the last words")


def test_what_came_while_nobody_looked_is_not_read_whole(visit: Visit, run: Run) -> None:
    run.say("it begins\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("it begins")
    become(page, "hidden")
    run.say("".join(f"{number:09d}\n" for number in range(1_000_000)))
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url) if "/logs" in each.url else None)
    become(page, "visible")
    expect(rows(page)).to_contain_text("000999999")
    assert len(asked) < 12, "of 10 MB"


def height_of(page: Page) -> float:
    """Of all rows that are held."""
    return float(page.locator(".log-all").evaluate("(element) => element.clientHeight"))


def at_the_end_of_many_lines(visit: Visit, run: Run) -> tuple[Page, list[Route]]:
    """The page, and what it asks for of logs from now on, which is held."""
    run.say("".join(f"line {number:06d} {'.' * 80}\n" for number in range(12_000)))
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("line 011999")).to_be_in_viewport()
    held: list[Route] = []
    page.route("**/logs*", lambda route: held.append(route))
    return page, held


def to_the_top(page: Page) -> None:
    rows(page).hover()
    page.mouse.wheel(0, -height_of(page))
    expect(rows(page)).to_have_js_property("scrollTop", 0)


def until(page: Page, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(10)


def let_go(page: Page, held: list[Route]) -> None:
    """What is held of the calls for logs, once there is some, and all that come."""
    until(page, lambda: bool(held))
    page.route("**/logs*", lambda route: route.continue_())
    for each in held:
        each.continue_()


def become(page: Page, visibility: str) -> None:
    """As a tab that is left, or come back to."""
    page.evaluate(
        """(is) => {
            Object.defineProperty(document, "visibilityState", { value: is, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        visibility,
    )


def test_nothing_is_missed_and_nothing_comes_twice_while_it_grows(visit: Visit, run: Run) -> None:
    page = visit("alice", place_of(run))
    for burst in range(12):
        run.say("".join(f"<{burst * 40 + number}>\n" for number in range(40)))
    expect(rows(page).get_by_text("<479>")).to_be_in_viewport()
    expect(page.get_by_text(re.compile(r"^480 lines"))).to_be_visible()


def test_what_was_written_between_the_first_answer_and_the_stream_comes(visit: Visit, run: Run) -> None:
    run.say("first\n")
    page = visit("alice", "queue")
    held: list[tuple[Route, APIResponse]] = []
    streams: list[Route] = []
    page.route("**/logs?*", lambda route: held.append((route, route.fetch())))
    page.route(lambda url: "/stream?" in url and "log=" in url, lambda route: streams.append(route))
    page.evaluate("(to) => { location.hash = to }", f"#/{place_of(run)}")
    until(page, lambda: bool(held and streams))
    run.say("second\n")
    for stream in streams:
        stream.continue_()
    with metrics_of(run.admit).open("a") as file:
        file.write('{"step": 1, "data": {"train/loss": 2.0}}\n')
    expect(page.locator(".task-head")).to_contain_text("step 1 of")  # by the stream, behind where the log's begins
    page.unroute("**/logs?*")
    for route, answer in held:
        route.fulfill(response=answer)
    expect(rows(page).get_by_text("second")).to_be_visible()


def test_who_scrolls_up_just_as_it_is_drawn_anew_is_let_go(visit: Visit, run: Run) -> None:
    """The event that tells of the scrolling comes after that."""
    run.say("".join(f"line {number:05d}\n" for number in range(400)))
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("line 00399")).to_be_in_viewport()
    rows(page).evaluate(
        """(element) => {
            element.scrollTop = 0;
            [...document.querySelectorAll("button")].find((each) => each.textContent === "All states").click();
        }"""
    )
    expect(page.get_by_text("following")).to_have_count(0)
    assert top(page) == 0


def test_what_a_canceled_run_still_writes_is_shown_until_it_has_ended(visit: Visit, room: Showroom, run: Run) -> None:
    run.say("first\n")
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("first")).to_be_visible()
    task_id = run.admit.task_id
    room.api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=room.headers("alice"))
    expect(page.locator(".task-head")).to_contain_text("Canceled")
    for number in range(8):  # for longer than one that is over is looked at
        run.say(f"saved {number}\n")
        expect(rows(page).get_by_text(f"saved {number}")).to_be_visible()
    expect(page.get_by_text("following")).to_be_visible()
    room.end(task_id, Outcome.CANCELED, None)
    expect(page.get_by_text("following")).to_have_count(0)


def test_earlier_bytes_come_as_it_is_scrolled_upwards(visit: Visit, run: Run) -> None:
    page, held = at_the_end_of_many_lines(visit, run)
    height = height_of(page)
    to_the_top(page)
    read = rows(page).locator(".log-row").first.inner_text()
    let_go(page, held)
    expect(page.locator(".log-all")).not_to_have_js_property("clientHeight", height)
    assert top(page) > 0, "what was read stays where it was"
    expect(rows(page).get_by_text(read)).to_be_in_viewport()
    page.keyboard.press("g")
    expect(rows(page).get_by_text("line 000000")).to_be_in_viewport()
    page.keyboard.press("Shift+G")
    expect(rows(page).get_by_text("line 011999")).to_be_in_viewport()


def test_who_came_to_the_top_while_something_else_was_loaded_does_not_wait_there(visit: Visit, run: Run) -> None:
    page, held = at_the_end_of_many_lines(visit, run)
    run.say("one more\n")
    until(page, lambda: bool(held))
    to_the_top(page)
    let_go(page, held)
    expect(rows(page)).not_to_have_js_property("scrollTop", 0)


def test_so_many_lines_are_held_and_no_more(visit: Visit, run: Run) -> None:
    run.say("".join(f"{number:06d}\n" for number in range(150_000)))
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("149999")).to_be_in_viewport()
    for first in (75_000, 0):
        deadline = time.monotonic() + 60
        while int(rows(page).locator(".log-row").first.inner_text()) > first:
            assert time.monotonic() < deadline
            rows(page).hover()
            page.mouse.wheel(0, -1_000_000)
    assert height_of(page) <= ROW * MOST_ROWS
    assert page.locator(".log-row").count() < 200, "rows out of sight do not exist"


def test_a_search_finds_within_a_long_line_and_jumps_there(visit: Visit, run: Run) -> None:
    filler = "".join(f"{number:06d} {'-' * 60}\n" for number in range(6000))
    run.say(filler + "x" * 700_000 + "Needle-7f" + "y" * 348_576 + "\n" + filler + "needle-7f again\n" + filler)
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("005999")
    page.keyboard.press("/")
    field = page.get_by_label("Search the whole log")
    expect(field).to_be_focused()
    field.fill("needle-7f")
    field.press("Shift+Enter")
    mark = rows(page).locator("mark")
    expect(mark).to_have_text("needle-7f")
    expect(mark).to_be_in_viewport()
    field.press("Shift+Enter")
    expect(mark).to_have_text("Needle-7f")
    expect(mark).to_be_in_viewport()
    expect(rows(page).locator(".log-row", has=page.locator("mark"))).to_contain_text("xxxNeedle-7fyyy")
    field.press("Escape")
    expect(rows(page)).to_be_focused()
    page.keyboard.press("n")
    expect(mark).to_have_text("needle-7f")
    page.keyboard.press("Shift+N")
    expect(mark).to_have_text("Needle-7f")
    page.get_by_role("button", name="Match case").click()
    field.press("Enter")
    expect(mark).to_have_text("needle-7f")
    field.fill("no such words")
    field.press("Enter")
    expect(page.get_by_text("not found")).to_be_visible()


def test_an_expression_that_is_none_is_said_at_the_field(visit: Visit, run: Run) -> None:
    run.say("step 12: loss: nan\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("loss: nan")
    page.get_by_role("button", name="Regular expression").click()
    field = page.get_by_label("Search the whole log")
    field.fill(r"loss: (nan|inf)")
    field.press("Enter")
    expect(rows(page).locator("mark")).to_have_text("loss: nan")
    field.fill("(")
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")


def test_a_log_of_a_gib_opens_at_its_end_and_is_searched(
    visit: Visit, room: Showroom, record_property: Callable[[str, object], None]
) -> None:
    task_id = room.submit("alice", "sft")
    run = room.start(task_id)
    log = log_of(run.admit)
    make_sparse(log, GIB)
    run.say("".join(f"tail {number:05d} {'.' * 60}\n" for number in range(20_000)))
    assert log.stat().st_size > GIB and log.stat().st_blocks * 512 < GIB // 100
    page = visit("alice", f"task/{task_id}")
    tab = page.get_by_role("navigation", name="Parts of this task").get_by_role("link", name="Log")
    expect(tab).to_be_visible()
    began = time.monotonic()
    tab.click()
    expect(rows(page).get_by_text("tail 19999")).to_be_in_viewport()
    took = time.monotonic() - began
    # How fast it was decides nothing here: the machine may be busy with other tests.
    record_property("log_of_a_gib_opened_s", round(took, 2))
    print(f"a log of a GiB was open {took:.2f} s after the click")
    page.get_by_label("Search the whole log").fill("000007 the needle")
    page.get_by_label("Search the whole log").press("Shift+Enter")
    expect(rows(page).locator("mark")).to_have_text("000007 the needle")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(rows(page)).to_contain_text("zero bytes")
    heap = page.evaluate("() => performance.memory?.usedJSHeapSize ?? 0")
    assert heap < 100_000_000
    os.truncate(log, 0)
    room.end(task_id)


@pytest.mark.parametrize(
    ("said", "seen", "unseen"),
    [
        ("<img src=x onerror=\"document.title='owned'\"><script>1</script>", '<img src=x onerror="', None),
        ("\x1b[31;1mred\x1b[0m plain", "red plain", "[31"),
        (
            "\x1b]0;a title\x07\x1b[2J\x1b[10;10Hmoved \x1b]8;;http://evil.test/\x1b\\link\x1b]8;;\x1b\\",
            "moved link",
            "evil",
        ),
        ("\x1b[8mhidden words\x1b[0m", "hidden words", None),
        (
            "safe \u202egnp.exe\u202c \u2066x\u2069",
            "safe \u2039U+202E\u203agnp.exe\u2039U+202C\u203a \u2039U+2066\u203ax\u2039U+2069\u203a",
            "\u202e",
        ),
        (
            "a\x00b\x08c\x7f\x85 z\u200bw",
            "a\u2039U+0000\u203ab\u2039U+0008\u203ac\u2039U+007F\u203a\u2039U+0085\u203a z\u2039U+200B\u203aw",
            "\x00",
        ),
        (" 1%|#   |\r 2%|##  |\r 3%|### |", " 3%|### |", "1%"),
    ],
    ids=["markup", "colours", "steering", "hidden", "direction", "controls", "progress"],
)
def test_what_a_run_says_is_text_and_does_nothing(
    visit: Visit, run: Run, said: str, seen: str, unseen: str | None
) -> None:
    run.say(f"{said}\nthe end\n")
    page = visit("alice", place_of(run))
    expect(rows(page).get_by_text("the end")).to_be_visible()
    text = rows(page).inner_text()
    assert seen in text
    assert unseen is None or unseen not in text
    assert rows(page).locator("img, script, a").count() == 0
    assert "owned" not in page.title()


def test_colours_are_classes_that_both_themes_show(visit: Visit, run: Run) -> None:
    run.say("\x1b[31mred\x1b[0m \x1b[38;5;46mgreen\x1b[0m \x1b[38;2;40;80;255mblue\x1b[0m \x1b[1mbold\x1b[0m\n")
    looks = {"red": "ansi-red-fg", "green": "ansi-bright-green-fg", "blue": "ansi-bright-blue-fg", "bold": "ansi-bold"}
    colours: list[str] = []
    for dark in (False, True):
        page = visit("alice", place_of(run), dark=dark)
        for word, look in looks.items():
            expect(rows(page).get_by_text(word, exact=True)).to_have_class(look)
        assert rows(page).locator("[style*=color]").count() == 0
        red = rows(page).get_by_text("red", exact=True)
        colours.append(red.evaluate("(element) => getComputedStyle(element).color"))
    assert colours[0] != colours[1]


def test_raw_shows_escapes_and_all_states_of_a_progress_bar(visit: Visit, run: Run) -> None:
    run.say(" 1%\r 2%\r 3%\n\x1b[31mred\x1b[0m\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("3%")
    assert "1%" not in rows(page).inner_text()
    page.get_by_role("button", name="All states").click()
    expect(rows(page)).to_contain_text("1%")
    page.get_by_role("button", name="Raw").click()
    expect(rows(page)).to_contain_text("\u2039ESC\u203a[31mred\u2039ESC\u203a[0m")


def test_a_line_of_a_mib_is_cut_and_shows_more(visit: Visit, run: Run) -> None:
    run.say("before\n" + "z" * (1 << 20) + "\nafter\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("after")
    more = rows(page).get_by_role("button", name="more of this line")
    expect(more).to_contain_text("1,020 KiB more of this line")
    assert len(rows(page).inner_text()) < 20_000
    more.click()
    expect(rows(page).get_by_title("The same line goes on").nth(1)).to_be_attached()
    page.keyboard.press("Home")
    expect(rows(page).get_by_text("before")).to_be_in_viewport()
    expect(rows(page).get_by_title("The same line goes on").nth(1)).to_be_attached()
    page.get_by_role("button", name="Wrap").click()
    expect(rows(page).locator(".log-row").nth(1)).not_to_have_js_property("clientHeight", ROW)
    wide = rows(page).evaluate("(element) => element.scrollWidth - element.clientWidth")
    assert wide <= 0


def test_more_of_a_line_stays_shown_when_what_it_begins_with_comes(visit: Visit, run: Run) -> None:
    run.say("before\n" + "z" * (1 << 20) + "\nafter\n")
    page = visit("alice", "tasks")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if (route.request.header_value("range") or "").startswith("bytes=0-"):
            held.append(route)
        else:
            route.continue_()

    page.route("**/logs*", hold)
    page.goto(f"{page.url.partition('#')[0]}#/{place_of(run)}")
    rows(page).get_by_role("button", name="1,020 KiB more of this line").click()
    rest = rows(page).get_by_role("button", name="956 KiB more of this line")
    expect(rest).to_be_attached()
    let_go(page, held)
    expect(rows(page).get_by_text("before")).to_be_attached()
    expect(rest).to_be_attached()
    expect(rows(page).get_by_title("The same line goes on").nth(1)).to_be_attached()


def test_an_attempt_is_chosen_and_stands_in_the_address(visit: Visit, room: Showroom) -> None:
    tasks = room.api.get("/api/v2/tasks?state=RUNNING", room.headers("bob"))["tasks"]
    page = visit("bob", f"task/{tasks[0]['task_id']}/log")
    expect(rows(page)).to_contain_text("step:110")
    page.get_by_label("Attempt").select_option("1")
    expect(rows(page)).to_contain_text("step:63")
    assert "attempt=1" in page.url.split("#")[1]
    page.reload()
    expect(rows(page)).to_contain_text("step:63")
    expect(rows(page)).not_to_contain_text("step:110")


def test_the_log_is_saved_with_the_token_in_no_address(visit: Visit, run: Run, room: Showroom) -> None:
    run.say("all of it\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("all of it")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the log").click()
    assert download.value.path().read_text() == "all of it\n"
    assert download.value.suggested_filename.endswith(".log")
    assert any("/logs/download" in url for url in asked)
    assert not [url for url in asked if room.token("alice") in url]


def test_the_browsers_own_find_is_left_alone(visit: Visit, run: Run) -> None:
    run.say("a line\n")
    page = visit("alice", place_of(run))
    expect(rows(page)).to_contain_text("a line")
    page.evaluate(
        "() => addEventListener('keydown', (e) => { document.body.dataset.taken = `${e.defaultPrevented}`; })"
    )
    page.keyboard.press("Control+f")
    expect(page.locator("body")).to_have_attribute("data-taken", "false")
    assert page.locator("[aria-live]", has=page.locator(".log-row")).count() == 0


def test_a_log_whose_files_are_gone_says_so(visit: Visit, room: Showroom, run: Run) -> None:
    task_id = run.admit.submission_id.partition("--")[0]
    room.end(task_id, Outcome.APPLICATION, 1, "over")
    with room.api.world.store.transaction() as db:
        db.execute("UPDATE tasks SET files_at = 'TRASH', trashed_at = 1.0 WHERE task_id = ?", (task_id,))
    page = visit("alice", place_of(run))
    expect(page.get_by_text("The log is gone")).to_be_visible()
    page.goto(f"{room.url}/#/task/{task_id}/files")
    expect(page.get_by_text("The files are gone")).to_be_visible()
