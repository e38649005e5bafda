from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core import ids
from argus_ray.core.errors import InvalidRequest

USER_IDS = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,15}", fullmatch=True)


def test_a_task_id_names_its_workload() -> None:
    assert ids.workload_of("argus-a-sft-ppo-grpo-20260101-000000-abcd") == "grpo"
    with pytest.raises(ValueError, match="not a task id"):
        ids.workload_of("argus")


@pytest.mark.parametrize("user_id", ["a", "0", "alice", "team-a", "a-b-c", "a" * 32])
def test_good_user_ids(user_id: str) -> None:
    assert ids.check_user_id(user_id) == user_id


@pytest.mark.parametrize(
    "user_id",
    [
        "",
        "A",
        "Alice",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a.b",
        "a/b",
        "..",
        "a b",
        "a\n",
        "a\0",
        "é",
        "a" * 33,
        "\uff41",
        "a\u0301",
    ],
)
def test_bad_user_ids(user_id: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ids.check_user_id(user_id)
    assert caught.value.fields[0].field == "user_id"


def test_task_id_shows_user_workload_and_utc_time() -> None:
    assert ids.task_id("alice", "grpo", 1_800_000_000.9, b"\xab\x01") == "argus-alice-grpo-20270115-080000-ab01"


@given(user_id=USER_IDS, workload=st.sampled_from(["ppo", "grpo", "sft"]), number=st.integers(1, 10_000))
def test_submission_id_is_reversible(user_id: str, workload: str, number: int) -> None:
    task_id = ids.task_id(user_id, workload, 1_800_000_000, b"\0\0")
    assert ids.split_submission_id(ids.submission_id(task_id, number)) == (task_id, number)


@pytest.mark.parametrize(
    "value", ["", "argus-a", "argus-a--b01", "argus-a--a1", "x--a01", "argus-a--a01\n", "argus-A--a01"]
)
def test_what_is_no_submission_id(value: str) -> None:
    with pytest.raises(ValueError, match="not a submission id"):
        ids.split_submission_id(value)


def test_the_task_of_a_job_root_is_in_its_name() -> None:
    task_id = ids.task_id("ada", "sft", 1_800_000_000, b"\0\1")
    job_root = f"/private/users/ada/jobs/{ids.submission_id(task_id, 3)}"
    assert ids.task_of(job_root) == task_id
    assert ids.task_of(ids.submission_id(task_id, 120)) == task_id


@pytest.mark.parametrize("job_root", ["", "/", "/private/users/ada/jobs", "/jobs/argus-a--a01/", "/argus-a--a01/logs"])
def test_what_is_no_job_root_has_no_task(job_root: str) -> None:
    with pytest.raises(ValueError, match="not a submission id"):
        ids.task_of(job_root)


def test_token_is_random_bytes_with_a_prefix_that_scanners_find() -> None:
    token = ids.make_token(bytes(range(32)))
    assert ids.TOKEN_RE.fullmatch(token)
    assert token.startswith("argus_u_")
    with pytest.raises(ValueError, match="32"):
        ids.make_token(b"short")


def test_token_digest() -> None:
    token = ids.make_token(bytes(32))
    assert ids.token_digest(token) == hashlib.sha256(token.encode()).hexdigest()
    assert len(ids.token_digest("\udcff")) == 64  # what a header can hold, too


def test_whose_a_task_is() -> None:
    for user in ("a", "alice", "a-b-2", "argus", "x" * 32):
        for workload in ("sft", "export"):
            assert ids.user_of(ids.task_id(user, workload, 1_800_000_000.0, b"ab")) == user
    for text in ("", "argus-x", "sft-20270115-080000-0001", "other-alice-sft-20270115-080000-0001"):
        with pytest.raises(ValueError, match="not a task id"):
            ids.user_of(text)
