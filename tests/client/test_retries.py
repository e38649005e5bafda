"""What is tried again, for how long, and what never is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from argus_ray.client import ApiError, Client, ServerUnreachable, errors
from argus_ray.client.patience import Patience

ME = {"role": "user", "user_id": "alice", "scopes": []}
SUBMITTED = {"task_id": "t", "state": "QUEUED", "warnings": []}
USER = {"user_id": "u", "display_name": "", "state": "active", "created_at": "2026-01-31T12:00:00.000Z"}
Step = httpx2.Response | Exception


def unavailable(retry_after: str | None = None, code: str = "unavailable", status: int = 503) -> httpx2.Response:
    document = {"code": code, "detail": "starting", "instance": "urn:argus:request:5f0c1d2e", "title": "x"}
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return httpx2.Response(status, json=document, headers=headers)


class Script:
    """A server that plays these answers, the last one for ever; and a clock that only sleeping moves."""

    def __init__(self, *steps: Step) -> None:
        self.steps, self.now = list(steps), 0.0
        self.requests: list[httpx2.Request] = []
        self.sleeps: list[float] = []
        self.told: list[tuple[str, float]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx2.Response(step.status_code, content=step.content, headers=step.headers)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def client(self, **options: Any) -> Client:
        return Client(
            "http://argus",
            "secret-token",
            http=httpx2.MockTransport(self),
            monotonic=lambda: self.now,
            sleep=self.sleep,
            draw=lambda: 1.0,
            on_retry=lambda why, wait_s: self.told.append((why, wait_s)),
            **options,
        )


BROKEN: list[Callable[[], Step]] = [
    lambda: httpx2.ConnectError("refused"),
    lambda: httpx2.ReadError("reset"),
    lambda: httpx2.ReadTimeout("late"),
    lambda: httpx2.RemoteProtocolError("cut"),
    unavailable,
    lambda: unavailable(code="stale_writer"),
    lambda: httpx2.Response(502, text="<html>bad gateway</html>"),
    lambda: httpx2.Response(504, text="late"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_read_and_a_submission_go_on_after_a_break(broken: Callable[[], Step]) -> None:
    script = Script(broken(), broken(), httpx2.Response(200, json=ME))
    assert script.client().me().user_id == "alice"
    assert script.sleeps == [0.25, 0.5] and [wait for _, wait in script.told] == script.sleeps
    script = Script(broken(), httpx2.Response(201, json=SUBMITTED))
    assert script.client().submit("x").task_id == "t"
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert len(keys) == 2 and len(set(keys)) == 1 and len(keys[0]) >= 32


def test_each_submission_has_a_key_of_its_own() -> None:
    script = Script(httpx2.Response(201, json=SUBMITTED))
    client = script.client()
    for _ in range(3):
        client.submit("x")
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 3


def test_retry_after_is_the_least() -> None:
    script = Script(unavailable("7"), httpx2.Response(200, json=ME))
    script.client().me()
    assert script.sleeps == [7.25]
    script = Script(unavailable("Wed, 21 Oct 2026 07:28:00 GMT"), httpx2.Response(200, json=ME))
    script.client().me()
    assert script.sleeps == [0.25]


def test_the_budget_is_kept() -> None:
    script = Script(httpx2.ReadError("reset"))
    with pytest.raises(ServerUnreachable, match=r"http://argus: reset, tried for 60 s") as caught:
        script.client().me()
    assert sum(script.sleeps) == pytest.approx(60.0) and caught.value.waited_s == pytest.approx(60.0)
    assert len(script.requests) < 15 and max(script.sleeps) <= 10
    script = Script(unavailable())
    with pytest.raises(errors.Unavailable) as refused:
        script.client(retry_s=5).me()
    assert script.now == pytest.approx(5.0) and refused.value.request_id == "5f0c1d2e"
    script = Script(unavailable("120"))
    with pytest.raises(errors.Unavailable) as at_once:
        script.client().me()
    assert script.sleeps == [] and at_once.value.retry_after == 120.0
    script = Script(httpx2.Response(502, text="x"))
    with pytest.raises(ServerUnreachable, match="answer 502"):
        script.client(retry_s=0).me()


@pytest.mark.parametrize("broken", [httpx2.ReadError("reset"), unavailable(), httpx2.Response(502, text="x")])
@pytest.mark.parametrize("write", [lambda c: c.create_user("u"), lambda c: c.issue_token("u")])
def test_a_write_without_a_key_is_never_sent_twice(broken: Step, write: Callable[[Client], Any]) -> None:
    script = Script(broken, httpx2.Response(201, json=USER))
    with pytest.raises(errors.ArgusError) as caught:
        write(script.client())
    assert len(script.requests) == 1 and script.sleeps == []
    if isinstance(broken, Exception):
        assert isinstance(caught.value, ServerUnreachable) and caught.value.may_be_done
        assert "may have been done" in str(caught.value)


def test_what_was_never_sent_is_sent_again() -> None:
    script = Script(httpx2.ConnectError("refused"), httpx2.Response(201, json=USER))
    assert script.client().create_user("u").user_id == "u"


@pytest.mark.parametrize("code", ["internal", "queue_full", "invalid_spec", "unauthenticated", "brand_new"])
def test_a_verdict_is_not_asked_for_again(code: str) -> None:
    status = {"internal": 500, "queue_full": 429, "unauthenticated": 401}.get(code, 400)
    script = Script(unavailable("1", code, status))
    with pytest.raises(ApiError) as caught:
        script.client().me()
    assert script.sleeps == [] and caught.value.code == code and type(caught.value) is errors.kind_of(code, status)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(200, text="<html>sign in</html>"), "no JSON"),
        (httpx2.Response(404, text="nginx"), "none of Argus"),
        (httpx2.Response(301, headers={"location": "https://argus/api?x=1"}), "sends to https://argus/api: use"),
        (httpx2.Response(200, json=[]), "no JSON object"),
        (httpx2.Response(200, json={"role": "user", "scopes": []}), "lacks user_id of Me"),
        (httpx2.Response(200, json={**ME, "role": 7}), "role of Me"),
        (httpx2.Response(400, json={"code": "x"}), "none of Argus"),
    ],
)
def test_what_is_no_answer_of_argus_is_told(answer: httpx2.Response, words: str) -> None:
    with pytest.raises(errors.BadAnswer, match=words):
        Script(answer).client().me()


def test_a_misspelled_server_and_a_bad_certificate_are_told_at_once() -> None:
    for error in (
        httpx2.ConnectError("[Errno -2] Name or service not known"),
        httpx2.ConnectError("CERTIFICATE_VERIFY_FAILED"),
    ):
        script = Script(error)
        with pytest.raises(ServerUnreachable):
            script.client().me()
        assert script.sleeps == []
    script = Script(httpx2.Response(200, json=ME), httpx2.ConnectError("[Errno -2] Name or service not known"))
    client = script.client()
    client.me()
    with pytest.raises(ServerUnreachable):
        client.me()
    assert script.now == pytest.approx(60.0), "it was known before"


def test_only_a_server_that_was_there_is_waited_for_long() -> None:
    script = Script(httpx2.ConnectError("refused"))
    with pytest.raises(ServerUnreachable):
        script.client().wait("t")
    assert script.now == pytest.approx(60.0)
    script = Script(httpx2.Response(200, json=ME), httpx2.ConnectError("refused"))
    client = script.client()
    client.me()
    with pytest.raises(ServerUnreachable):
        client.wait("t")
    assert script.now == pytest.approx(600.0)


def test_unknown_fields_values_and_codes_are_kept() -> None:
    me = Script(httpx2.Response(200, json={**ME, "role": "auditor", "since": {"a": 1}})).client().me()
    assert (me.role, me.extra_fields, me.raw["since"]) == ("auditor", {"since": {"a": 1}}, {"a": 1})
    with pytest.raises(errors.Conflict) as caught:
        Script(unavailable(code="brand_new", status=409)).client().me()
    assert caught.value.code == "brand_new"


def test_a_model_is_frozen_and_shows_its_fields() -> None:
    me = Script(httpx2.Response(200, json=ME)).client().me()
    with pytest.raises(AttributeError):
        me.role = "admin"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del me.role
    assert repr(me) == "Me(role='user', user_id='alice', scopes=(), token=None, usage=None, limits=None)"
    assert me == type(me)(role="user", user_id="alice", scopes=()) and hash(me) == hash(type(me).of(ME))
    with pytest.raises(TypeError):
        type(me)(role="user")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        type(me)(role="user", user_id="a", scopes=(), more=1)  # type: ignore[call-arg]


def test_waits_grow_with_jitter_and_begin_anew() -> None:
    now = [0.0]
    patience = Patience(lambda: 60.0, lambda: now[0], lambda: 0.0)
    assert [patience.wait_s() for _ in range(7)] == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0]
    now[0] = 61.0
    assert patience.wait_s() is None and patience.waited_s == 61.0
    patience.renew()
    assert patience.wait_s() == 0.125
    now[0] = 120.9
    assert patience.wait_s() == pytest.approx(0.1), "not beyond the budget"


def test_a_budget_ends_however_floats_are_rounded() -> None:
    now = [0.0]
    for seed in range(200):
        draw = random.Random(seed)
        now[0] = 1000 * draw.random()
        patience = Patience(lambda: 600.0, lambda: now[0], draw.random)
        tries = 0
        while (wait_s := patience.wait_s()) is not None:
            now[0] += wait_s
            tries += 1
            assert tries < 200, "it waits for nothing, over and over"
        assert patience.waited_s == pytest.approx(600.0, abs=0.01)


@pytest.fixture(params=["a b", "a/b", "ä", "a%2Fb", "a:cancel", "a?x=1"])
def odd(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_an_odd_id_is_one_part_of_the_path(odd: str) -> None:
    script = Script(unavailable(code="task_not_found", status=404))
    with pytest.raises(errors.TaskNotFound):
        script.client().task(odd)
    path = script.requests[0].url.raw_path.decode()
    assert path.startswith("/api/v2/tasks/") and path.count("/") == 4 and "?" not in path and ":" not in path


@pytest.mark.parametrize("bad", ["", ".", "..", "../users", "a/../b", "\ud800"])
def test_an_id_that_would_lead_elsewhere_is_refused(bad: str) -> None:
    script = Script(httpx2.Response(200, json=ME))
    with pytest.raises(errors.BadArgument):
        script.client().task(bad)
    assert script.requests == []


def test_a_submission_that_was_tried_in_vain_may_be_done() -> None:
    for step in (httpx2.ReadError("reset"), httpx2.Response(504, text="late")):
        with pytest.raises(ServerUnreachable, match="may have been done") as caught:
            Script(step).client().submit("x")
        assert caught.value.may_be_done
    with pytest.raises(ServerUnreachable) as unsent:
        Script(httpx2.ConnectError("refused")).client().submit("x")
    assert not unsent.value.may_be_done


def test_the_end_of_a_wait_counts_while_the_server_is_away() -> None:
    script = Script(httpx2.ReadError("reset"))
    with pytest.raises(ServerUnreachable):
        script.client().wait("t", timeout=5)
    assert script.now == pytest.approx(5.0)
