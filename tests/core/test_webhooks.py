from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from argus_ray.core import webhooks
from argus_ray.core.states import TaskState
from argus_ray.core.webhooks import Move, Verdict, Webhook

MOVE = Move(
    7, "t1", "ada", "sft", 100.5, TaskState.RUNNING, TaskState.FAILED, "application_failure", "t1--a01", "killed"
)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of standardwebhooks.com, specification 1.0.0."""
    content = b'{"event_type":"ping","data":{"success":true}}'
    found = webhooks.headers("msg_loFOjxBNrRLzqYUf", 1731705121.9, content, "whsec_plJ3nmyCDGBKInavdOK15jsl")
    assert found["webhook-id"] == "msg_loFOjxBNrRLzqYUf" and found["webhook-timestamp"] == "1731705121"
    assert found["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_a_secret_that_is_no_base64_is_its_own_key() -> None:
    assert webhooks.key_of("plain") == b"plain"
    assert webhooks.key_of("whsec_!") == b"whsec_!"


def test_a_message_is_known_by_its_id() -> None:
    assert webhooks.message_id(MOVE, "pool") == "pool-7-100500"
    later = replace(MOVE, at=200.0)
    assert webhooks.message_id(later, "pool") != webhooks.message_id(MOVE, "pool"), "the same number, after a restore"


def test_the_body_holds_ids_states_and_codes() -> None:
    document = json.loads(webhooks.body(MOVE, "pool"))
    assert document == {
        "type": "task.state_changed",
        "timestamp": 100.5,
        "data": {
            "cluster": "pool",
            "task_id": "t1",
            "user_id": "ada",
            "workload": "sft",
            "old_state": "RUNNING",
            "new_state": "FAILED",
            "cause": "application_failure",
            "submission_id": "t1--a01",
            "failure_code": "killed",
        },
    }


@pytest.mark.parametrize(
    ("users", "states", "wanted"),
    [
        ((), (), True),
        (("ada",), (TaskState.FAILED,), True),
        (("bob",), (), False),
        (("ada",), (TaskState.RUNNING,), False),
    ],
)
def test_who_wants_what(users: tuple[str, ...], states: tuple[TaskState, ...], wanted: bool) -> None:
    assert Webhook("n", "http://x", "S", users, states).wants(MOVE) is wanted


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 202, 204)),
        *((status, Verdict.LATER) for status in (401, 403, 404, 408, 410, 425, 429, 500, 503)),
        *((status, Verdict.REFUSED) for status in (301, 302, 307, 400, 413, 422)),
    ],
)
def test_what_a_status_means(status: int, verdict: Verdict) -> None:
    assert webhooks.judge(status, None).verdict is verdict


@pytest.mark.parametrize(
    ("header", "wait"), [("30", 30.0), ("Fri, 27 Nov 2026 03:00:00 GMT", None), ("-1", None), ("", None)]
)
def test_how_long_it_asks_to_wait(header: str, wait: float | None) -> None:
    assert webhooks.judge(503, header).retry_after_s == wait


def test_pauses_grow_to_a_bound_and_spread() -> None:
    least = [webhooks.pause_s(failures, 0.0) for failures in range(1, 2000)]
    most = [webhooks.pause_s(failures, 1.0) for failures in range(1, 2000)]
    assert least[:3] == [0.5, 1.0, 2.0] and most[:3] == [1.0, 2.0, 4.0]
    assert max(most) == 300.0 and least == sorted(least)
    assert webhooks.pause_s(1, 0.0, 60.0) == 60.0
    assert webhooks.pause_s(1, 0.0, 1e9) == 300.0


LOCAL = (
    "127.0.0.1",
    "127.9.9.9",
    "169.254.169.254",
    "::1",
    "fe80::1%eth0",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
)
NEVER = (*("0.0.0.0", "::", "224.0.0.1", "ff02::1"), *("255.255.255.255", "::ffff:0.0.0.0", "2002:7f00:0001::"))  # noqa: S104


@pytest.mark.parametrize("address", LOCAL)
def test_this_machine_and_its_link_only_if_allowed(address: str) -> None:
    assert webhooks.usable([address], allow_local=False) == []
    assert webhooks.usable(["10.0.0.7", address], allow_local=False) == [], "not one of several, either"
    assert webhooks.usable([address], allow_local=True) == [address]


@pytest.mark.parametrize("address", NEVER)
def test_what_is_no_address_of_a_host_never(address: str) -> None:
    assert webhooks.usable([address], allow_local=re.match("2002", address) is None) == []


def test_a_site_has_private_addresses() -> None:
    found = ["10.1.2.3", "192.168.0.4", "8.8.8.8", "fd00::7", "2001:db8::1"]
    assert webhooks.usable(found, allow_local=False) == found
    assert webhooks.usable([], allow_local=True) == []
