"""head.json as it must not be: each way to be bad has its own name, and none is an exception or a wait."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.discovery.head_json import HeadRecord, Reader, Reading, ReadOutcome, parse
from argus_ray.disk import atomic

NOW = 1_800_000_000.0
HOUR = 3600.0
RECORD = HeadRecord(
    cluster_name="argus",
    head_ip="10.0.0.1",
    gcs_port=6379,
    dashboard_port=8265,
    api_url="http://10.0.0.1:8000",
    epoch=7,
    session="session_2026-01-31_12-00-00_000000_1",
    ray_version="2.60.0",
    python_version="3.11.7",
    updated_at=NOW,
    expires_at=NOW + 15,
)
CONTENT = RECORD.to_json()
FIELDS: dict[str, Any] = json.loads(CONTENT)
TEXTS = ("cluster_name", "head_ip", "api_url", "session", "ray_version", "python_version")
NUMBERS = ("gcs_port", "dashboard_port", "epoch")
TIMES = ("updated_at", "expires_at")
NO_TEXTS: tuple[Any, ...] = (None, 1, True, [], {}, "", "x" * 513, "a\nb", "a\0", "ä", "\ud800")
NO_NUMBERS: tuple[Any, ...] = (None, "1", 1.0, True, False, [], 0, -1, 2**62 + 1, float("nan"))
NO_TIMES: tuple[Any, ...] = (
    *(None, 0, NOW, True, [], "", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z"),
    *("2026-01-31T12:00:00+25:00", "99999-01-31T12:00:00Z", "x" * 60_000),
)


def changed(**change: Any) -> bytes:
    return json.dumps({**FIELDS, **change}).encode()


def read(path: Path, wall: float = NOW) -> Reading:
    return Reader(path, "argus").read(wall, 0.0)


def is_one_line(text: str) -> bool:
    return text.isprintable() and 0 < len(text) < 1000


def test_head_json_read_validate_ttl(tmp_path: Path) -> None:
    """The seed plan's case: no file and an expired one give no address, a fresh one gives the head's."""
    path = tmp_path / "head.json"
    assert (read(path).outcome, read(path).record) == (ReadOutcome.MISSING, None)
    path.write_bytes(CONTENT)
    fresh = read(path, NOW + 1)
    assert fresh.is_valid and fresh.record is not None and fresh.record.address == "10.0.0.1:6379"
    expired = read(path, NOW + HOUR)
    assert (expired.outcome, expired.is_valid) == (ReadOutcome.EXPIRED, False)
    path.write_bytes(replace(RECORD, updated_at=NOW + HOUR, expires_at=NOW + HOUR + 15).to_json())
    assert read(path, NOW + HOUR + 1).is_valid, "renewed, it is good again"


# What it says.


def test_a_record_survives_the_round_trip() -> None:
    assert parse(CONTENT, "argus") == Reading(ReadOutcome.VALID, "head.json names 10.0.0.1:6379, epoch 7", RECORD)


@given(
    st.builds(
        HeadRecord,
        cluster_name=st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True),
        head_ip=st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,60}[A-Za-z0-9])?", fullmatch=True),
        gcs_port=st.integers(1, 65535),
        dashboard_port=st.integers(1, 65535),
        api_url=st.from_regex(r"[ -~]{1,512}", fullmatch=True),
        epoch=st.integers(1, 2**62),
        session=st.from_regex(r"[ -~]{1,80}", fullmatch=True),
        ray_version=st.from_regex(r"[0-9.]{1,20}", fullmatch=True),
        python_version=st.from_regex(r"[0-9.]{1,20}", fullmatch=True),
        updated_at=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
        expires_at=st.just(4_000_000_001.0),
    )
)
@settings(max_examples=50, deadline=None)
def test_any_record_survives_the_round_trip(record: HeadRecord) -> None:
    assert parse(record.to_json(), record.cluster_name).record == record


@pytest.mark.parametrize(
    ("ip", "address"),
    [
        ("10.0.0.1", "10.0.0.1:6379"),
        ("head.example.org", "head.example.org:6379"),
        ("::1", "[::1]:6379"),
        ("fd00::12", "[fd00::12]:6379"),
    ],
)
def test_the_address(ip: str, address: str) -> None:
    reading = parse(changed(head_ip=ip), "argus")
    assert reading.record is not None
    assert reading.record.address == address


def test_fields_that_are_not_known_are_no_harm() -> None:
    assert parse(changed(added_later={"x": [1]}), "argus").record == RECORD


def test_cut_anywhere_it_is_torn() -> None:
    whole = len(CONTENT.rstrip())
    for length in range(whole):
        reading = parse(CONTENT[:length], "argus")
        assert reading.outcome is ReadOutcome.TORN, length
        assert is_one_line(reading.message)


def test_cut_anywhere_and_filled_with_zeros_it_is_not_valid() -> None:
    """What some filesystems leave after a power failure."""
    for length in range(0, len(CONTENT.rstrip()), 7):
        reading = parse(CONTENT[:length].ljust(len(CONTENT), b"\0"), "argus")
        assert reading.outcome in (ReadOutcome.TORN, ReadOutcome.MALFORMED)


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"", ReadOutcome.TORN),
        (b" \n\t ", ReadOutcome.TORN),
        (b"\0" * 300, ReadOutcome.MALFORMED),
        (b"garbage", ReadOutcome.MALFORMED),
        (b"\xff\xfe\xfd", ReadOutcome.MALFORMED),
        (b"\x80{}", ReadOutcome.MALFORMED),
        (b"{} {}", ReadOutcome.MALFORMED),
        (b"null", ReadOutcome.MALFORMED),
        (b"true", ReadOutcome.MALFORMED),
        (b"17", ReadOutcome.MALFORMED),
        (b'"text"', ReadOutcome.MALFORMED),
        (b"[]", ReadOutcome.MALFORMED),
        (b"[" * 30_000, ReadOutcome.MALFORMED),
        (b"[" * 30_000 + b"]" * 30_000, ReadOutcome.MALFORMED),
        (b'{"a":' * 10_000, ReadOutcome.TORN),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, ReadOutcome.MALFORMED),
        (b"1" * 60_000, ReadOutcome.MALFORMED),
        (CONTENT + CONTENT, ReadOutcome.MALFORMED),
        (CONTENT + b" " * atomic.MAX_BYTES, ReadOutcome.MALFORMED),
        (b"x" * 1_000_000, ReadOutcome.MALFORMED),
        (b"{}", ReadOutcome.OTHER_FORMAT),
        (changed(format_version=2), ReadOutcome.OTHER_FORMAT),
        (changed(format_version=0), ReadOutcome.OTHER_FORMAT),
        (changed(format_version="1"), ReadOutcome.OTHER_FORMAT),
        (changed(format_version=None), ReadOutcome.OTHER_FORMAT),
        (changed(format_version=True), ReadOutcome.OTHER_FORMAT),
        (changed(format_version=1.0), ReadOutcome.OTHER_FORMAT),
        (changed(format_version="x\nINFO: a forged line \ud800"), ReadOutcome.OTHER_FORMAT),
        (changed(format_version=[[[]]] * 5000), ReadOutcome.OTHER_FORMAT),
        # Another form may have other fields: it is named before they are looked at.
        (b'{"format_version": 2}', ReadOutcome.OTHER_FORMAT),
        (b'{"format_version": 1}', ReadOutcome.MALFORMED),
        (changed(cluster_name="other"), ReadOutcome.WRONG_CLUSTER),
        (changed(cluster_name="ARGUS"), ReadOutcome.WRONG_CLUSTER),
        (changed(cluster_name="argus "), ReadOutcome.WRONG_CLUSTER),
    ],
    ids=lambda value: repr(value[-40:]) if isinstance(value, bytes) else None,
)
def test_what_is_no_record(content: bytes, outcome: ReadOutcome) -> None:
    reading = parse(content, "argus")
    assert reading.outcome is outcome
    assert reading.record is None
    assert not reading.is_valid
    assert is_one_line(reading.message)


def test_nesting_just_below_what_the_parser_bears_is_borne_by_us() -> None:
    for depth in range(1, 1200):
        nested = b"[" * depth + b"]" * depth
        assert not parse(b'{"format_version": %b}' % nested, "argus").is_valid
        assert not parse(b'{"format_version": 1, "cluster_name": %b}' % nested, "argus").is_valid


@pytest.mark.parametrize("name", [*TEXTS, *NUMBERS, *TIMES])
def test_a_missing_field_is_named(name: str) -> None:
    content = json.dumps({key: value for key, value in FIELDS.items() if key != name}).encode()
    reading = parse(content, "argus")
    assert reading.outcome is ReadOutcome.MALFORMED
    assert name in reading.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, bad) for name in TEXTS for bad in NO_TEXTS],
        *[(name, bad) for name in NUMBERS for bad in NO_NUMBERS],
        *[(name, bad) for name in TIMES for bad in NO_TIMES],
        ("gcs_port", 65536),
        ("dashboard_port", 65536),
        # Each of these would be read as something else by `ray start` or a shell.
        ("head_ip", "--head"),
        ("head_ip", "-x"),
        ("head_ip", "10.0.0.1 --block"),
        ("head_ip", "$(reboot)"),
        ("head_ip", "`id`"),
        ("head_ip", "a;b"),
        ("head_ip", "a|b"),
        ("head_ip", "a&b"),
        ("head_ip", "../etc"),
        ("head_ip", "user@host"),
        ("head_ip", "[::1]"),
        ("head_ip", "10.0.0.1."),
        ("head_ip", "a" * 256),
        ("head_ip", ":::"),
        ("expires_at", FIELDS["updated_at"]),
        ("expires_at", "2001-01-01T00:00:00Z"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_field_is_named(name: str, value: Any) -> None:
    reading = parse(changed(**{name: value}), "argus")
    assert reading.outcome is ReadOutcome.MALFORMED
    assert reading.record is None
    assert name in reading.message
    assert is_one_line(reading.message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(FIELDS.values())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(FIELDS)), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=100, deadline=None)
def test_no_bytes_are_an_exception(content: bytes) -> None:
    assert not parse(content, "argus").is_valid


@given(st.dictionaries(st.sampled_from(list(FIELDS)), JSON, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_change_of_fields_is_an_exception(change: dict[str, Any]) -> None:
    reading = parse(changed(**change), "argus")
    assert (reading.record is not None) == reading.is_valid
    assert is_one_line(reading.message)


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_no_flipped_byte_is_an_exception(offset: int, byte: int) -> None:
    reading = parse(CONTENT[:offset] + bytes([byte]) + CONTENT[offset + 1 :], "argus")
    assert is_one_line(reading.message)


# What is there instead of it.


def folder(path: Path) -> None:
    path.mkdir()


def symlink_loop(path: Path) -> None:
    path.symlink_to(path)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (nothing, ReadOutcome.MISSING),
        (dangling_link, ReadOutcome.MISSING),
        (folder, ReadOutcome.NOT_A_FILE),
        (os.mkfifo, ReadOutcome.NOT_A_FILE),
        (device, ReadOutcome.NOT_A_FILE),
        (symlink_loop, ReadOutcome.UNREADABLE),
        (Path.touch, ReadOutcome.TORN),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], outcome: ReadOutcome) -> None:
    make(tmp_path / "head.json")
    reading = read(tmp_path / "head.json")
    assert reading.outcome is outcome
    assert is_one_line(reading.message)


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    os.mknod(tmp_path / "head.json", 0o140644)
    assert read(tmp_path / "head.json").outcome is ReadOutcome.NOT_A_FILE


def test_a_path_below_a_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert read(tmp_path / "plain" / "head.json").outcome is ReadOutcome.UNREADABLE


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")])
def test_what_the_filesystem_refuses_is_unreadable_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    (tmp_path / "head.json").write_bytes(CONTENT)

    def refuse(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    reading = read(tmp_path / "head.json")
    assert reading.outcome is ReadOutcome.UNREADABLE
    assert str(error.strerror) in reading.message


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_a_file_that_its_mode_forbids_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_bytes(CONTENT)
    (tmp_path / "head.json").chmod(0)
    assert read(tmp_path / "head.json").outcome is ReadOutcome.UNREADABLE


def test_a_huge_file_is_malformed_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    path.touch()
    os.truncate(path, 1 << 40)
    reading = read(path)
    assert reading.outcome is ReadOutcome.MALFORMED
    assert "longer" in reading.message


def test_a_link_to_the_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(CONTENT)
    (tmp_path / "head.json").symlink_to("real")
    assert read(tmp_path / "head.json").is_valid


# Time.


class Head:
    """A publisher whose clock is `off` seconds ahead of this machine's, and the reader of a watchdog."""

    def __init__(self, path: Path, off: float) -> None:
        self._path, self._off = path, off
        self.reader = Reader(path, "argus")

    def publish(self, at: float) -> None:
        moment = NOW + at + self._off
        self._path.write_bytes(replace(RECORD, updated_at=moment, expires_at=moment + 15).to_json())

    def look(self, at: float) -> ReadOutcome:
        """Sets of this machine's wall clock do not matter to the monotonic one."""
        return self.reader.read(NOW + at, 5.0 + at).outcome


@pytest.mark.parametrize("off", [0.0, 4.9, -4.9])
def test_a_head_with_about_our_time_is_valid_while_renewed_and_then_expires(tmp_path: Path, off: float) -> None:
    head = Head(tmp_path / "head.json", off)
    for at in range(0, 60, 5):
        head.publish(at)
        for later in (0, 2, 4.9):
            assert head.look(at + later) is ReadOutcome.VALID
    assert head.look(55 + 30) is ReadOutcome.EXPIRED


def test_an_hour_ahead_is_skew_renewed_or_not(tmp_path: Path) -> None:
    head = Head(tmp_path / "head.json", HOUR)
    for at in (0, 5, 10):
        head.publish(at)
        assert head.look(at) is ReadOutcome.CLOCK_SKEW
    assert head.look(60) is ReadOutcome.CLOCK_SKEW
    assert head.reader.quiet_s(65.0) == 50.0, "and the launcher knows by this that it is quiet"


def test_an_hour_behind_is_skew_while_renewed_and_expired_when_not(tmp_path: Path) -> None:
    head = Head(tmp_path / "head.json", -HOUR)
    head.publish(0)
    assert head.look(0) is ReadOutcome.EXPIRED, "one look cannot tell it from a head that is gone"
    for at in (5, 10):
        head.publish(at)
        assert head.look(at) is ReadOutcome.CLOCK_SKEW
    assert head.look(24.9) is ReadOutcome.CLOCK_SKEW
    assert head.look(25) is ReadOutcome.EXPIRED


def test_expired_tells_for_how_long_and_keeps_the_record(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_bytes(CONTENT)
    reading = read(tmp_path / "head.json", NOW + 15 + 42)
    assert reading.outcome is ReadOutcome.EXPIRED
    assert "42 s ago" in reading.message
    assert reading.record == RECORD


def test_a_just_expired_file_of_a_head_that_was_never_seen_alive_is_expired(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_bytes(CONTENT)
    assert read(tmp_path / "head.json", NOW + 15).outcome is ReadOutcome.VALID
    assert read(tmp_path / "head.json", NOW + 16).outcome is ReadOutcome.EXPIRED


def test_quiet_counts_changes_of_the_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    reader = Reader(path, "argus")
    path.write_bytes(CONTENT)
    reader.read(NOW, 1.0)
    assert reader.quiet_s(2.0) is None, "never seen to change"
    path.write_bytes(replace(RECORD, epoch=8).to_json())
    reader.read(NOW, 3.0)
    assert reader.quiet_s(4.0) == 1.0
    path.write_bytes(b"torn")
    reader.read(NOW, 5.0)
    path.write_bytes(replace(RECORD, epoch=8).to_json())
    reader.read(NOW, 6.0)
    assert reader.quiet_s(7.0) == 4.0, "garbage in between is no renewal"


def test_a_read_that_hangs_has_words_of_its_own(tmp_path: Path) -> None:
    reading = Reader(tmp_path / "head.json", "argus").unanswered(10.0)
    assert reading.outcome is ReadOutcome.UNREADABLE
    assert "10 s" in reading.message
