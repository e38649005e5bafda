"""The discovery file: how a machine finds the head. Its format, how it is read, and what can be wrong with it.

`<shared_root>/ray/discovery/<cluster>/head.json` is written by the HeadPublisher alone and read by every watchdog.
Nothing here raises for a bad file: each way to be bad is an outcome with its own name and message.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from argus_ray.disk import atomic

#: Seconds that head.json is good for where no setting says otherwise. The publisher renews it every third.
DEFAULT_TTL_S = 15.0
#: Tells the publisher what to write as `api_url`.
API_URL_VARIABLE = "ARGUS_API_URL"
TTL_VARIABLE = "ARGUS_HEAD_TTL_S"
#: A random word of one start of a head. Its gateway answers with it, so that nobody takes another one for it.
HEAD_ID_VARIABLE = "ARGUS_HEAD_ID"

#: Raised when a reader of the old form could misread the new one.
FORMAT_VERSION = 1
#: Seconds of difference between two machines' clocks that are borne in silence.
SKEW_TOLERANCE_S = 5.0

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,253}[A-Za-z0-9])?|::1?")
_WORDS = re.compile(r"[ -~]{1,512}")


def folder(shared_root: str, cluster_name: str) -> Path:
    """Where the discovery file, the epoch and the head's lock lie."""
    return Path(shared_root) / "ray" / "discovery" / cluster_name


def head_file(shared_root: str, cluster_name: str) -> Path:
    return folder(shared_root, cluster_name) / "head.json"


@dataclass(frozen=True)
class HeadRecord:
    """What head.json says. Ports are TCP ports; times are seconds since the Unix epoch by the head's clock."""

    cluster_name: str
    head_ip: str
    gcs_port: int
    dashboard_port: int
    api_url: str
    epoch: int
    session: str
    ray_version: str
    python_version: str
    updated_at: float
    expires_at: float

    @property
    def address(self) -> str:
        """What `ray start --address` takes."""
        return f"[{self.head_ip}]:{self.gcs_port}" if ":" in self.head_ip else f"{self.head_ip}:{self.gcs_port}"

    @property
    def ttl_s(self) -> float:
        return self.expires_at - self.updated_at

    def to_json(self) -> bytes:
        """The file's content; times in RFC 3339, UTC."""
        fields = asdict(self) | {"updated_at": _rfc3339(self.updated_at), "expires_at": _rfc3339(self.expires_at)}
        return json.dumps({"format_version": FORMAT_VERSION, **fields}, indent=1).encode() + b"\n"


class ReadOutcome(str, Enum):
    """What a look at head.json has found."""

    VALID = "valid"
    MISSING = "missing"
    #: It is there, and the filesystem or its mode keeps us from reading it.
    UNREADABLE = "unreadable"
    #: A folder, a socket or the like.
    NOT_A_FILE = "not a file"
    #: It ends in the middle, or is empty.
    TORN = "torn"
    MALFORMED = "malformed"
    WRONG_CLUSTER = "wrong cluster"
    OTHER_FORMAT = "other format version"
    EXPIRED = "expired"
    CLOCK_SKEW = "clock skew"


@dataclass(frozen=True)
class Reading:
    """One look. `record` is there for VALID, EXPIRED and CLOCK_SKEW; `message` is a sentence for people."""

    outcome: ReadOutcome
    message: str
    record: HeadRecord | None = None

    @property
    def is_valid(self) -> bool:
        return self.outcome is ReadOutcome.VALID


def parse(content: bytes, cluster_name: str) -> Reading:
    """What the content says, whatever the time is: VALID, TORN, MALFORMED, WRONG_CLUSTER or OTHER_FORMAT."""
    if len(content) > atomic.MAX_BYTES:
        return Reading(ReadOutcome.MALFORMED, f"head.json is longer than {atomic.MAX_BYTES} bytes")
    if not content.strip():
        return Reading(ReadOutcome.TORN, "head.json is empty: it was not written by the atomic way of the publisher")
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        if content.lstrip().startswith(b"{") and not content.rstrip().endswith(b"}"):
            return Reading(ReadOutcome.TORN, f"head.json ends in the middle, after {len(content)} bytes")
        return Reading(ReadOutcome.MALFORMED, f"head.json is not JSON: {str(error)[:200]}")
    if not isinstance(raw, dict):
        return Reading(ReadOutcome.MALFORMED, f"head.json holds a {type(raw).__name__}, not an object")
    version = raw.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        said = ascii(version)[:40] if isinstance(version, (int, float, str)) else f"a {type(version).__name__}"
        return Reading(
            ReadOutcome.OTHER_FORMAT, f"head.json has format version {said}, and this watchdog reads {FORMAT_VERSION}"
        )
    try:
        record = _record(raw)
    except _BadField as error:
        return Reading(ReadOutcome.MALFORMED, f"head.json: {error}")
    if record.cluster_name != cluster_name:
        return Reading(
            ReadOutcome.WRONG_CLUSTER, f"head.json is of the cluster {record.cluster_name!r}, not of {cluster_name!r}"
        )
    return Reading(ReadOutcome.VALID, f"head.json names {record.address}, epoch {record.epoch}", record)


class Reader:
    """Reads head.json again and again. It remembers when the content last changed, by this machine's own monotonic
    clock, so that a head whose clock is off is told from a head that is gone."""

    def __init__(self, path: Path, cluster_name: str) -> None:
        self._path = path
        self._cluster_name = cluster_name
        self._last: HeadRecord | None = None
        self._changed_at: float | None = None

    def read(self, wall: float, monotonic: float) -> Reading:
        """One small read. `wall`: seconds since the Unix epoch; `monotonic`: of a clock that nobody sets."""
        try:
            content = atomic.read_small(self._path)
        except OSError as error:
            return _unread(self._path, error)
        reading = parse(content, self._cluster_name)
        if reading.record is None:
            return reading
        if self._last is not None and reading.record != self._last:
            self._changed_at = monotonic
        self._last = reading.record
        return self._judge_time(reading.record, wall, monotonic) or reading

    def quiet_s(self, monotonic: float) -> float | None:
        """Seconds since the record was seen to change; None if it never was."""
        return None if self._changed_at is None else monotonic - self._changed_at

    def unanswered(self, timeout_s: float) -> Reading:
        """What to say when the read itself has not come back."""
        return Reading(ReadOutcome.UNREADABLE, f"the filesystem of {self._path} has not answered for {timeout_s:g} s")

    def _judge_time(self, record: HeadRecord, wall: float, monotonic: float) -> Reading | None:
        ahead = record.updated_at - wall
        if ahead > SKEW_TOLERANCE_S:
            words = f"head.json was written {ahead:.0f} s in the future by this machine's clock; set the clocks (NTP)"
            return Reading(ReadOutcome.CLOCK_SKEW, words, record)
        late = wall - record.expires_at
        if late <= 0:
            return None
        quiet = self.quiet_s(monotonic)
        if quiet is not None and quiet < record.ttl_s and late > SKEW_TOLERANCE_S:
            words = (
                f"head.json is renewed, yet it expired {late:.0f} s ago by this machine's clock; set the clocks (NTP)"
            )
            return Reading(ReadOutcome.CLOCK_SKEW, words, record)
        if late <= SKEW_TOLERANCE_S and quiet is not None and quiet < record.ttl_s:
            return None
        return Reading(ReadOutcome.EXPIRED, f"head.json expired {late:.0f} s ago; the head does not renew it", record)


def _unread(path: Path, error: OSError) -> Reading:
    if isinstance(error, FileNotFoundError):
        return Reading(
            ReadOutcome.MISSING, f"{path} is not there (no head has started yet, or the folder is not mounted)"
        )
    if isinstance(error, atomic.NotAFile):
        return Reading(ReadOutcome.NOT_A_FILE, f"{path} is not a plain file")
    return Reading(ReadOutcome.UNREADABLE, f"{path} cannot be read: {error.strerror or error}")


class _BadField(Exception):
    pass


def _record(raw: dict[str, Any]) -> HeadRecord:
    record = HeadRecord(
        cluster_name=_text(raw, "cluster_name"),
        head_ip=_text(raw, "head_ip"),
        gcs_port=_number(raw, "gcs_port", 65535),
        dashboard_port=_number(raw, "dashboard_port", 65535),
        api_url=_text(raw, "api_url"),
        epoch=_number(raw, "epoch", 2**62),
        session=_text(raw, "session"),
        ray_version=_text(raw, "ray_version"),
        python_version=_text(raw, "python_version"),
        updated_at=_time(raw, "updated_at"),
        expires_at=_time(raw, "expires_at"),
    )
    # It becomes an argument of `ray start`.
    if not _HOST.fullmatch(record.head_ip):
        raise _BadField("head_ip must be an address or a host name")
    if record.expires_at <= record.updated_at:
        raise _BadField("expires_at must come after updated_at")
    return record


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not _WORDS.fullmatch(value):
        raise _BadField(f"{name} must be a text of 1 to 512 printable characters")
    return value


def _number(raw: dict[str, Any], name: str, most: int) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _BadField(f"{name} must be a whole number from 1 to {most}")
    return value


def _time(raw: dict[str, Any], name: str) -> float:
    value = raw.get(name)
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            raise ValueError
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise _BadField(f"{name} must be a time such as 2026-01-31T12:00:00.000+00:00") from None


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
