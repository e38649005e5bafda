"""Webhooks: which changes are told to whom, in which words, signed how, and how often a refusal is tried again.

Signed as Standard Webhooks say (standardwebhooks.com, specification 1.0.0): `webhook-id`, `webhook-timestamp` and
`webhook-signature`, an HMAC-SHA256 of all three parts. Nothing that a program or a user wrote is told: ids, states and
codes only, so no secret of a log or a TaskSpec leaves this way."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from argus_ray.core.states import TaskState

#: Seconds. What is older when its turn comes is left out: nobody acts on it any more.
MAX_AGE_S = 86_400.0
#: An answer of 4xx that is no "later" is one to this message; so often it is tried before it is left out.
MAX_REFUSALS = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0
_SECRET_PREFIX = "whsec_"  # noqa: S105 - in front of one


@dataclass(frozen=True)
class Webhook:
    """One receiver, as the settings name it."""

    name: str
    url: str
    #: The launcher's variable that holds the secret.
    secret_env: str
    #: Whose tasks; empty: everybody's.
    users: tuple[str, ...] = ()
    #: The states that a task comes into; empty: all.
    states: tuple[TaskState, ...] = ()
    #: Addresses of this machine and of its link are allowed.
    allow_local: bool = False

    def wants(self, move: Move) -> bool:
        return (not self.users or move.user_id in self.users) and (not self.states or move.new_state in self.states)


@dataclass(frozen=True)
class Move:
    """A task changed its state."""

    event_id: int
    task_id: str
    user_id: str
    workload: str
    at: float
    old_state: TaskState | None
    new_state: TaskState
    cause: str
    submission_id: str | None
    #: Of the attempt that ended by it, if a program failed.
    failure_code: str | None = None


@dataclass(frozen=True)
class Moves:
    """What comes after a place in the events, of all users."""

    moves: tuple[Move, ...]
    #: The place behind what was looked at; equal to the old one when there is nothing new.
    seen_to: int


class Verdict(Enum):
    DELIVERED = "delivered"
    #: The receiver is away, overloaded or wrong about who we are: nothing else gets through either.
    LATER = "later"
    #: It does not take this message.
    REFUSED = "refused"


@dataclass(frozen=True)
class Reply:
    verdict: Verdict
    #: What it said, for the log: a status or the kind of an error; never its text.
    words: str
    #: Seconds that it asked to wait.
    retry_after_s: float | None = None


def body(move: Move, cluster: str) -> bytes:
    document = {
        "type": "task.state_changed",
        "timestamp": move.at,
        "data": {
            "cluster": cluster,
            "task_id": move.task_id,
            "user_id": move.user_id,
            "workload": move.workload,
            "old_state": None if move.old_state is None else move.old_state.value,
            "new_state": move.new_state.value,
            "cause": move.cause,
            "submission_id": move.submission_id,
            "failure_code": move.failure_code,
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def message_id(move: Move, cluster: str) -> str:
    """The same each time it is sent: by it a receiver knows what it has had already. With its time, since after a
    restored backup the numbers come again."""
    return f"{cluster}-{move.event_id}-{move.at * 1000:.0f}"


def headers(message: str, at: float, content: bytes, secret: str) -> Mapping[str, str]:
    """Of one delivery that begins now."""
    stamp = str(int(at))
    signed = b".".join((message.encode(), stamp.encode(), content))
    signature = base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


def key_of(secret: str) -> bytes:
    """Of `whsec_` and base64 its bytes, of any other text the text itself."""
    if secret.startswith(_SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def judge(status: int, retry_after: str | None) -> Reply:
    """An answer by its status. A redirect is a refusal: it would lead to an address that nobody has allowed."""
    words = f"status {status}"
    if 200 <= status < 300:
        return Reply(Verdict.DELIVERED, words)
    # Also 401, 403, 404 and 410: the secret or the URL is wrong, and so for all messages.
    if status >= 500 or status in (401, 403, 404, 408, 410, 425, 429):
        wait = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
        return Reply(Verdict.LATER, words, wait)
    return Reply(Verdict.REFUSED, words)


def pause_s(failures: int, jitter: float, retry_after_s: float | None = None) -> float:
    """Until the next try. `failures`: in a row, 1 or more; `jitter` from 0 to 1."""
    backoff: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20)) * (0.5 + jitter / 2)
    return max(backoff, min(retry_after_s or 0.0, _LONGEST_PAUSE_S))


#: RFC 6052: an IPv4 address behind a translator.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def usable(addresses: Sequence[str], *, allow_local: bool) -> list[str]:
    """Those of a host that may be connected to. Empty also if only some may: who can name one address of ours among
    others would choose by luck."""
    found = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    return [] if any(_is_refused(address, allow_local) for address in found) else list(addresses)


def _is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address, allow_local: bool) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return _is_refused(embedded, allow_local)
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return True
    return not allow_local and (address.is_loopback or address.is_link_local)
